//! Checks what the watcher of a lane observed against the requests and answers of clients.
//!
//! Pure. A watcher must see every change of its keys once. The changes of a shard must come in the order of their
//! versions; changes with the same version must be of different keys and come in the order of the keys.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::torture::history::{Action, Condition, Key, Outcome, Record, seconds, show_value};

/// A change as a watcher observed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) shard: u32,
    pub(crate) version: u64,
    pub(crate) key: Key,
    /// The value that was put; `None` if the key was deleted.
    pub(crate) value: Option<u64>,
    /// The time, in nanoseconds since the run began.
    pub(crate) at: u64,
}

/// An anomaly in what a watcher observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// The same change was observed twice.
    Twice(Change),
    /// A change was observed after a later one of its shard.
    Backwards { change: Change, after: u64 },
    /// A put that clients know of was not observed.
    Gap { key: Key, value: u64, version: u64 },
    /// A key was created with the condition `Absent`, but no deletion of its earlier value was observed.
    NoDeletion { key: Key, created: u64, over: u64 },
    /// More deletions of a key were observed than requested.
    Deletions { key: Key, observed: usize, requested: usize },
    /// A put was observed that no client requested, or with another version than its client got.
    Unrequested(Change),
    /// The last observed change of a key is not its final value.
    Ends { key: Key, observed: Option<u64>, holds: Option<u64> },
}

impl Flaw {
    /// The key that is affected.
    pub(crate) fn key(&self) -> Key {
        match self {
            Self::Twice(change) | Self::Backwards { change, .. } | Self::Unrequested(change) => change.key,
            Self::Gap { key, .. }
            | Self::NoDeletion { key, .. }
            | Self::Deletions { key, .. }
            | Self::Ends { key, .. } => *key,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shard, version, key, value, at } = self;
        match value {
            Some(value) => write!(f, "put {} of {key}", show_value(*value))?,
            None => write!(f, "delete of {key}")?,
        }
        write!(f, " as \"{version}\" of shard {shard}, observed at {} s", seconds(*at))
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<u64>| value.map_or_else(|| "nothing".to_owned(), show_value);
        match self {
            Self::Twice(change) => write!(f, "observed twice: {change}"),
            Self::Backwards { change, after } => write!(f, "observed after \"{after}\": {change}"),
            Self::Gap { key, value, version } => {
                write!(f, "not observed: put {} of {key} as \"{version}\"", show_value(*value))
            }
            Self::NoDeletion { key, created, over } => {
                let (created, over) = (show_value(*created), show_value(*over));
                write!(f, "{key} was created as {created}, and no deletion of {over} was observed before")
            }
            Self::Deletions { key, observed, requested } => {
                write!(f, "{observed} deletions of {key} were observed, {requested} were requested")
            }
            Self::Unrequested(change) => write!(f, "no client requested this: {change}"),
            Self::Ends { key, observed, holds } => {
                write!(f, "watchers last saw {} at {key}, which holds {}", shown(observed), shown(holds))
            }
        }
    }
}

/// The anomalies in what a watcher observed, if it saw a lane from its beginning to its end.
pub(crate) fn check(observed: &[Change], keys: &BTreeMap<Key, Vec<Record>>) -> Vec<Flaw> {
    let mut flaws = order(observed);
    let mut by_key: BTreeMap<Key, Vec<Change>> = BTreeMap::new();
    for change in observed {
        by_key.entry(change.key).or_default().push(*change);
    }
    for (key, records) in keys {
        let observed = by_key.remove(key).unwrap_or_default();
        flaws.extend(of_key(*key, &observed, records));
    }
    flaws.extend(by_key.into_values().flatten().map(Flaw::Unrequested));
    flaws
}

/// The changes that were observed twice or out of order.
fn order(observed: &[Change]) -> Vec<Flaw> {
    let mut latest: BTreeMap<u32, (u64, String)> = BTreeMap::new();
    let mut known = BTreeSet::new();
    let mut flaws = Vec::new();
    for change in observed {
        // Keys are ordered by their bytes.
        let place = (change.version, change.key.to_string());
        let is_new = known.insert((change.shard, place.clone()));
        match latest.get(&change.shard) {
            _ if !is_new => flaws.push(Flaw::Twice(*change)),
            Some(last) if *last > place => {
                flaws.push(Flaw::Backwards { change: *change, after: last.0 });
            }
            Some(_) | None => {
                latest.insert(change.shard, place);
            }
        }
    }
    flaws
}

fn of_key(key: Key, observed: &[Change], records: &[Record]) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    // The values that were put, with the versions that clients got, if they did.
    let mut requested: BTreeMap<u64, Option<u64>> = BTreeMap::new();
    let mut created = BTreeSet::new();
    let mut deletions = 0;
    for record in records {
        match (record.action, record.outcome) {
            (Action::Put { value, on }, outcome) => {
                let version = if let Outcome::Stored(version) = outcome { Some(version) } else { None };
                if on == Condition::Absent {
                    created.insert(value);
                }
                if !matches!(outcome, Outcome::Refused(_)) {
                    let known = requested.entry(value).or_default();
                    *known = known.or(version);
                }
            }
            (Action::Delete { .. }, Outcome::Deleted | Outcome::Open) => deletions += 1,
            (_, Outcome::Found { value, version }) => {
                requested.insert(value, Some(version));
            }
            _ => {}
        }
    }
    for (value, version) in &requested {
        let Some(version) = *version else { continue };
        let is_observed = |change: &Change| change.value == Some(*value) && change.version == version;
        if !observed.iter().any(is_observed) {
            flaws.push(Flaw::Gap { key, value: *value, version });
        }
    }
    let mut before = None;
    for change in observed {
        if let Some(value) = change.value {
            match requested.get(&value) {
                Some(None) => {}
                Some(Some(version)) if *version == change.version => {}
                Some(Some(_)) | None => flaws.push(Flaw::Unrequested(*change)),
            }
            if let Some(over) = before
                && created.contains(&value)
            {
                flaws.push(Flaw::NoDeletion { key, created: value, over });
            }
        }
        before = change.value;
    }
    let observed_deletions = observed.iter().filter(|change| change.value.is_none()).count();
    if observed_deletions > deletions {
        flaws.push(Flaw::Deletions { key, observed: observed_deletions, requested: deletions });
    }
    let last = records.iter().max_by_key(|record| record.end).map(|record| record.outcome);
    let holds = match last {
        Some(Outcome::Found { value, .. }) => Some(Some(value)),
        Some(Outcome::Missing) => Some(None),
        _ => None,
    };
    let observed = observed.last().and_then(|change| change.value);
    if let Some(holds) = holds.filter(|holds| *holds != observed) {
        flaws.push(Flaw::Ends { key, observed, holds });
    }
    flaws
}

#[cfg(test)]
mod tests;
