//! What a watcher of a lane was told, held against what clients asked and were told.
//!
//! Pure. A watcher is to see every change of its keys once, those of a shard in the order of their versions; changes of
//! one version are of different keys and in the order of these.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::torture::history::{Action, Condition, Key, Outcome, Record, seconds, show_value};

/// A change as a watcher was told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) shard: u32,
    pub(crate) version: u64,
    pub(crate) key: Key,
    /// The value that was put; nothing if the key was deleted.
    pub(crate) value: Option<u64>,
    /// In nanoseconds since the run began.
    pub(crate) at: u64,
}

/// What is wrong with what a watcher was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// The same change again.
    Twice(Change),
    /// A change after one that is later in the order of its shard.
    Backwards { change: Change, after: u64 },
    /// A put that clients know of was not told.
    Gap { key: Key, value: u64, version: u64 },
    /// Something was put again though it was created only if absent, and no deletion was told in between.
    NoDeletion { key: Key, created: u64, over: u64 },
    /// More deletions of a key than were asked for.
    Deletions { key: Key, told: usize, asked: usize },
    /// A put that nobody asked for, or with another version than its client was told.
    Unasked(Change),
    /// The last change of a key is not what the key holds in the end.
    Ends { key: Key, told: Option<u64>, holds: Option<u64> },
}

impl Flaw {
    /// The key to look at.
    pub(crate) fn key(&self) -> Key {
        match self {
            Self::Twice(change) | Self::Backwards { change, .. } | Self::Unasked(change) => change.key,
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
        write!(f, " as \"{version}\" of shard {shard}, told at {} s", seconds(*at))
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<u64>| value.map_or_else(|| "nothing".to_owned(), show_value);
        match self {
            Self::Twice(change) => write!(f, "told twice: {change}"),
            Self::Backwards { change, after } => write!(f, "told after \"{after}\": {change}"),
            Self::Gap { key, value, version } => {
                write!(f, "not told: put {} of {key} as \"{version}\"", show_value(*value))
            }
            Self::NoDeletion { key, created, over } => {
                let (created, over) = (show_value(*created), show_value(*over));
                write!(f, "{key} was created as {created}, and no deletion of {over} was told before")
            }
            Self::Deletions { key, told, asked } => {
                write!(f, "{told} deletions of {key} were told, {asked} were asked for")
            }
            Self::Unasked(change) => write!(f, "nobody was told of this: {change}"),
            Self::Ends { key, told, holds } => {
                write!(f, "{key} ends with {} for watchers, and holds {}", shown(told), shown(holds))
            }
        }
    }
}

/// What is wrong with what a watcher was told that saw a lane from its beginning to its end.
pub(crate) fn check(told: &[Change], keys: &BTreeMap<Key, Vec<Record>>) -> Vec<Flaw> {
    let mut flaws = order(told);
    let mut by_key: BTreeMap<Key, Vec<Change>> = BTreeMap::new();
    for change in told {
        by_key.entry(change.key).or_default().push(*change);
    }
    for (key, records) in keys {
        let told = by_key.remove(key).unwrap_or_default();
        flaws.extend(of_key(*key, &told, records));
    }
    flaws.extend(by_key.into_values().flatten().map(Flaw::Unasked));
    flaws
}

/// What is told twice or out of order.
fn order(told: &[Change]) -> Vec<Flaw> {
    let mut latest: BTreeMap<u32, (u64, String)> = BTreeMap::new();
    let mut known = BTreeSet::new();
    let mut flaws = Vec::new();
    for change in told {
        // Keys are in the order of their bytes.
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

fn of_key(key: Key, told: &[Change], records: &[Record]) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    // Values with the versions that clients were told, if they were.
    let mut asked: BTreeMap<u64, Option<u64>> = BTreeMap::new();
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
                    let known = asked.entry(value).or_default();
                    *known = known.or(version);
                }
            }
            (Action::Delete { .. }, Outcome::Deleted | Outcome::Open) => deletions += 1,
            (_, Outcome::Found { value, version }) => {
                asked.insert(value, Some(version));
            }
            _ => {}
        }
    }
    for (value, version) in &asked {
        let Some(version) = *version else { continue };
        let is_told = |change: &Change| change.value == Some(*value) && change.version == version;
        if !told.iter().any(is_told) {
            flaws.push(Flaw::Gap { key, value: *value, version });
        }
    }
    let mut before = None;
    for change in told {
        if let Some(value) = change.value {
            match asked.get(&value) {
                Some(None) => {}
                Some(Some(version)) if *version == change.version => {}
                Some(Some(_)) | None => flaws.push(Flaw::Unasked(*change)),
            }
            if let Some(over) = before
                && created.contains(&value)
            {
                flaws.push(Flaw::NoDeletion { key, created: value, over });
            }
        }
        before = change.value;
    }
    let told_deletions = told.iter().filter(|change| change.value.is_none()).count();
    if told_deletions > deletions {
        flaws.push(Flaw::Deletions { key, told: told_deletions, asked: deletions });
    }
    let last = records.iter().max_by_key(|record| record.end).map(|record| record.outcome);
    let holds = match last {
        Some(Outcome::Found { value, .. }) => Some(Some(value)),
        Some(Outcome::Missing) => Some(None),
        _ => None,
    };
    let told = told.last().and_then(|change| change.value);
    if let Some(holds) = holds.filter(|holds| *holds != told) {
        flaws.push(Flaw::Ends { key, told, holds });
    }
    flaws
}

#[cfg(test)]
mod tests;
