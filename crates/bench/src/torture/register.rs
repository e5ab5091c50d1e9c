//! Checks one key as a versioned register: whether its history can be explained by one order of operations.
//!
//! Pure. The search is that of Wing and Gong with Lowe's cache of visited states (G. Lowe, "Testing for
//! linearizability", 2017), implemented by the crate `todc-utils`. A write with an unknown outcome stays open: it may
//! have been carried out at any later time, once, or never.

use std::cell::Cell;
use std::collections::BTreeMap;

use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action as Event, History};
use todc_utils::specifications::Specification;

use crate::torture::history::{Action, Condition, Outcome, Record};

/// The number of states after which the search for one key stops.
pub(crate) const STEPS: u64 = 3_000_000;

/// The finding for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// Some order explains the history.
    Right,
    /// No order does. The record with this index is the first one, by the time of its answer, without an explanation.
    Wrong(usize),
    /// The search reached its limit.
    Unclear,
}

/// The state of a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct State {
    value: Option<u64>,
    /// The value's version; `None` while no answer has stated it.
    version: Option<u64>,
    /// Every later version must be greater than this one.
    floor: Option<u64>,
}

/// A record as the search sees it.
#[derive(Debug, Clone, Copy)]
struct Step {
    action: Action,
    outcome: Outcome,
    /// The version that other clients saw with the value of a write whose outcome is open: so it was carried out.
    seen: Option<u64>,
}

struct Register;

thread_local! {
    /// The number of steps that the search on this thread may still take.
    static LEFT: Cell<u64> = const { Cell::new(0) };
}

impl Specification for Register {
    type State = State;
    type Operation = Step;

    fn init() -> State {
        State::default()
    }

    fn apply(step: &Step, state: &State) -> (bool, State) {
        let left = LEFT.get();
        LEFT.set(left.saturating_sub(1));
        // Once no step is valid any more, the search ends soon.
        let next = if left == 0 { None } else { state.after(step) };
        (next.is_some(), next.unwrap_or(*state))
    }
}

impl State {
    /// The state after a step; `None` if the step is impossible in this state.
    fn after(self, step: &Step) -> Option<Self> {
        let Step { action, outcome, seen } = *step;
        match (action, outcome) {
            (Action::Put { value, on }, Outcome::Stored(version)) => {
                (self.meets(on) && Some(version) > self.floor).then(|| self.put(value, Some(version)))
            }
            (Action::Put { value, on }, Outcome::Acknowledged) => {
                let is_later = seen.is_none_or(|version| Some(version) > self.floor);
                (self.meets(on) && is_later).then(|| self.put(value, seen))
            }
            (Action::Put { value, on }, Outcome::Open) => match seen {
                Some(version) => {
                    (self.meets(on) && Some(version) > self.floor).then(|| self.put(value, Some(version)))
                }
                None if self.meets(on) => Some(self.put(value, None)),
                None => Some(self),
            },
            (Action::Delete { on }, Outcome::Deleted) => self.meets(on).then(|| self.deleted()),
            (Action::Delete { on }, Outcome::Open) => {
                Some(if self.meets(on) { self.deleted() } else { self })
            }
            (Action::Put { on, .. } | Action::Delete { on }, Outcome::Refused(present)) => {
                if self.meets(on) {
                    return None;
                }
                match present {
                    Some(version) => self.value.and_then(|value| self.read(value, version)),
                    None => self.value.is_none().then_some(self),
                }
            }
            (Action::Delete { on: Condition::Value { value } }, Outcome::Missing) => {
                (self.value != Some(value)).then_some(self)
            }
            // A delete that found nothing is a read.
            (Action::Get | Action::Scan | Action::StaleRead | Action::Delete { .. }, Outcome::Missing) => {
                self.value.is_none().then_some(self)
            }
            (Action::Get | Action::Scan | Action::StaleRead, Outcome::Found { value, version }) => {
                self.read(value, version)
            }
            (
                Action::Search { value: wanted } | Action::StaleSearch { value: wanted },
                Outcome::Found { value, version },
            ) => (value == wanted).then(|| self.read(value, version)).flatten(),
            (Action::Search { value } | Action::StaleSearch { value }, Outcome::Missing) => {
                (self.value != Some(value)).then_some(self)
            }
            // A read without an answer constrains nothing.
            (
                Action::Get
                | Action::Scan
                | Action::StaleRead
                | Action::Search { .. }
                | Action::StaleSearch { .. },
                Outcome::Open,
            ) => Some(self),
            // Such an answer is impossible for the request.
            (Action::Put { .. }, Outcome::Deleted | Outcome::Found { .. } | Outcome::Missing)
            | (Action::Delete { .. }, Outcome::Stored(_) | Outcome::Acknowledged | Outcome::Found { .. })
            | (
                Action::Get
                | Action::Scan
                | Action::StaleRead
                | Action::Search { .. }
                | Action::StaleSearch { .. },
                Outcome::Stored(_) | Outcome::Acknowledged | Outcome::Deleted | Outcome::Refused(_),
            ) => None,
        }
    }

    fn meets(self, condition: Condition) -> bool {
        match condition {
            Condition::Always => true,
            Condition::Absent => self.value.is_none(),
            Condition::Present => self.value.is_some(),
            Condition::Value { value } => self.value == Some(value),
            Condition::Is { version, value } => {
                self.value == Some(value) && self.version.is_none_or(|known| known == version)
            }
        }
    }

    fn put(self, value: u64, version: Option<u64>) -> Self {
        Self { value: Some(value), version, floor: version.or(self.floor) }
    }

    fn deleted(self) -> Self {
        Self { value: None, version: None, floor: self.floor }
    }

    fn read(self, value: u64, version: u64) -> Option<Self> {
        let is_it = match self.version {
            Some(known) => known == version,
            None => Some(version) > self.floor,
        };
        (self.value == Some(value) && is_it).then(|| self.put(value, Some(version)))
    }
}

/// Checks whether the records of one key are linearizable, as operations on a register.
///
/// A stale read counts as a long one: it begins at the earliest time that its staleness allows.
pub(crate) fn check(records: &[Record], steps: u64) -> Finding {
    let all: Vec<_> = records.iter().enumerate().collect();
    // Long reads slow the search down, and an anomaly without them is an anomaly.
    let punctual: Vec<_> = all.iter().copied().filter(|(_, record)| !record.action.is_stale()).collect();
    match decide(&punctual, steps) {
        Finding::Right if punctual.len() < all.len() => decide(&all, steps),
        found => found,
    }
}

fn decide(all: &[(usize, &Record)], steps: u64) -> Finding {
    let seen = versions(all);
    // Writes whose effect no client saw are left out at first: they rarely explain anything, and cost most.
    let is_known = |record: &Record| match (record.action, record.outcome) {
        (Action::Put { value, .. }, Outcome::Open) => seen.contains_key(&value),
        (_, outcome) => outcome != Outcome::Open,
    };
    let is_delete = |record: &Record| matches!(record.action, Action::Delete { .. });
    let known: Vec<_> = all.iter().copied().filter(|(_, record)| is_known(record)).collect();
    let with_deletes =
        all.iter().copied().filter(|(_, record)| is_known(record) || is_delete(record)).collect();
    for part in [known, with_deletes] {
        if search(&part, &seen, u64::MAX, steps) == Some(true) {
            return Finding::Right;
        }
    }
    match search(all, &seen, u64::MAX, steps) {
        Some(true) => Finding::Right,
        None => Finding::Unclear,
        Some(false) => Finding::Wrong(first_wrong(all, &seen, steps)),
    }
}

/// The version of each value that a client read or put.
fn versions(records: &[(usize, &Record)]) -> BTreeMap<u64, u64> {
    let known = records.iter().filter_map(|(_, record)| match (record.action, record.outcome) {
        (_, Outcome::Found { value, version }) => Some((value, version)),
        (Action::Put { value, .. }, Outcome::Stored(version)) => Some((value, version)),
        _ => None,
    });
    known.collect()
}

/// The first answer, by time, that earlier requests can't explain.
fn first_wrong(records: &[(usize, &Record)], seen: &BTreeMap<u64, u64>, steps: u64) -> usize {
    let mut answered: Vec<_> =
        records.iter().filter(|(_, record)| record.outcome != Outcome::Open).copied().collect();
    answered.sort_by_key(|(_, record)| record.end);
    let is_explained =
        |(_, record): &(usize, &Record)| search(records, seen, record.end, steps) != Some(false);
    // An anomaly stays one when more answers are added.
    let at = answered.partition_point(is_explained);
    answered.get(at).or(answered.last()).map_or(0, |(number, _)| *number)
}

/// Whether some order explains the answers up to `until`; `None` if the search reached its limit. Later answers count
/// as unknown, but requests sent before `until` may have been carried out.
fn search(records: &[(usize, &Record)], seen: &BTreeMap<u64, u64>, until: u64, steps: u64) -> Option<bool> {
    let sent = records.iter().filter(|(_, record)| record.start <= until);
    let mut events = Vec::new();
    for (process, (_, record)) in sent.enumerate() {
        let is_answered = record.outcome != Outcome::Open && record.end <= until;
        let outcome = if is_answered { record.outcome } else { Outcome::Open };
        let seen = match record.action {
            Action::Put { value, .. } => seen.get(&value).copied().filter(|_| until == u64::MAX),
            Action::Delete { .. }
            | Action::Get
            | Action::Scan
            | Action::StaleRead
            | Action::Search { .. }
            | Action::StaleSearch { .. } => None,
        };
        let step = Step { action: record.action, outcome, seen };
        let end = if is_answered { record.end } else { u64::MAX };
        events.push((record.start, false, process, Event::Call(step)));
        events.push((end, true, process, Event::Response(step)));
    }
    if events.is_empty() {
        return Some(true);
    }
    // An operation that begins when another ends may come before it.
    events.sort_by_key(|(at, is_end, process, _)| (*at, *is_end, *process));
    let events = events.into_iter().map(|(_, _, process, event)| (process, event)).collect();
    LEFT.set(steps);
    let is_linearizable = WGLChecker::<Register>::is_linearizable(History::from_actions(events));
    (is_linearizable || LEFT.get() > 0).then_some(is_linearizable)
}

#[cfg(test)]
mod tests;
