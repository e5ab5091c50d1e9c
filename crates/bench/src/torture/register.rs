//! One key as a register with versions: whether what clients saw of it could have happened in one order.
//!
//! Pure. The search is that of Wing and Gong with Lowe's cache of what was tried (G. Lowe, "Testing for
//! linearizability", 2017), as the crate `todc-utils` does it. What the answer to a write is not known of stays open:
//! it may have been done at any later time, once, or never.

use std::cell::Cell;
use std::collections::BTreeMap;

use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action as Event, History};
use todc_utils::specifications::Specification;

use crate::torture::history::{Action, Condition, Outcome, Record};

/// States that are looked at for one key before the search is given up.
pub(crate) const STEPS: u64 = 3_000_000;

/// What was found out of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// There is an order that explains all.
    Right,
    /// There is none. The record with this number is the first one, by the time of its answer, that has none.
    Wrong(usize),
    /// The search took too long.
    Unclear,
}

/// What is at a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct State {
    value: Option<u64>,
    /// Of the value; nothing while nobody has told it.
    version: Option<u64>,
    /// Every later version is above it.
    floor: u64,
}

/// A record as the search sees it.
#[derive(Debug, Clone, Copy)]
struct Step {
    action: Action,
    outcome: Outcome,
    /// The version that others saw with the value of a write whose answer is not known: so it was done.
    seen: Option<u64>,
}

struct Register;

thread_local! {
    /// How many steps the search on this thread may still take.
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
        // Once nothing is valid any more the search ends soon.
        let next = if left == 0 { None } else { state.after(step) };
        (next.is_some(), next.unwrap_or(*state))
    }
}

impl State {
    /// What is there after a step; nothing if the step can't have been taken here.
    fn after(self, step: &Step) -> Option<Self> {
        let Step { action, outcome, seen } = *step;
        match (action, outcome) {
            (Action::Put { value, on }, Outcome::Stored(version)) => {
                (self.meets(on) && version > self.floor).then(|| self.put(value, Some(version)))
            }
            (Action::Put { value, on }, Outcome::Open) => match seen {
                Some(version) => {
                    (self.meets(on) && version > self.floor).then(|| self.put(value, Some(version)))
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
            (Action::Get | Action::Scan | Action::Glance, Outcome::Found { value, version }) => {
                self.read(value, version)
            }
            (Action::Get | Action::Scan | Action::Glance, Outcome::Missing) => {
                self.value.is_none().then_some(self)
            }
            // A read without an answer says nothing.
            (Action::Get | Action::Scan | Action::Glance, Outcome::Open) => Some(self),
            // No answer of this kind belongs to such a request.
            (Action::Put { .. }, Outcome::Deleted | Outcome::Found { .. } | Outcome::Missing)
            | (Action::Delete { .. }, Outcome::Stored(_) | Outcome::Found { .. } | Outcome::Missing)
            | (
                Action::Get | Action::Scan | Action::Glance,
                Outcome::Stored(_) | Outcome::Deleted | Outcome::Refused(_),
            ) => None,
        }
    }

    fn meets(self, condition: Condition) -> bool {
        match condition {
            Condition::Always => true,
            Condition::Absent => self.value.is_none(),
            Condition::Is { version, value } => {
                self.value == Some(value) && self.version.is_none_or(|known| known == version)
            }
        }
    }

    fn put(self, value: u64, version: Option<u64>) -> Self {
        Self { value: Some(value), version, floor: version.unwrap_or(self.floor) }
    }

    fn deleted(self) -> Self {
        Self { value: None, version: None, floor: self.floor }
    }

    fn read(self, value: u64, version: u64) -> Option<Self> {
        let is_it = match self.version {
            Some(known) => known == version,
            None => version > self.floor,
        };
        (self.value == Some(value) && is_it).then(|| self.put(value, Some(version)))
    }
}

/// Whether the records of one key are those of a register, all of whose operations happen at one moment each.
///
/// A read that may be behind is one that took long: since when what it found was there for sure.
pub(crate) fn check(records: &[Record], steps: u64) -> Finding {
    let all: Vec<_> = records.iter().enumerate().collect();
    // Reads that take long lengthen the search, and what is wrong without them is wrong.
    let punctual: Vec<_> =
        all.iter().copied().filter(|(_, record)| record.action != Action::Glance).collect();
    match decide(&punctual, steps) {
        Finding::Right if punctual.len() < all.len() => decide(&all, steps),
        found => found,
    }
}

fn decide(all: &[(usize, &Record)], steps: u64) -> Finding {
    let seen = versions(all);
    // What nobody saw anything of is left out at first: it explains nothing, as a rule, and costs most.
    let is_told = |record: &Record| match (record.action, record.outcome) {
        (Action::Put { value, .. }, Outcome::Open) => seen.contains_key(&value),
        (_, outcome) => outcome != Outcome::Open,
    };
    let is_delete = |record: &Record| matches!(record.action, Action::Delete { .. });
    let told: Vec<_> = all.iter().copied().filter(|(_, record)| is_told(record)).collect();
    let with_deletes =
        all.iter().copied().filter(|(_, record)| is_told(record) || is_delete(record)).collect();
    for part in [told, with_deletes] {
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

/// The versions under which values were seen by those who read them or put them.
fn versions(records: &[(usize, &Record)]) -> BTreeMap<u64, u64> {
    let told = records.iter().filter_map(|(_, record)| match (record.action, record.outcome) {
        (_, Outcome::Found { value, version }) => Some((value, version)),
        (Action::Put { value, .. }, Outcome::Stored(version)) => Some((value, version)),
        _ => None,
    });
    told.collect()
}

/// The first answer, in the order of time, that has no explanation by what was asked before it.
fn first_wrong(records: &[(usize, &Record)], seen: &BTreeMap<u64, u64>, steps: u64) -> usize {
    let mut answered: Vec<_> =
        records.iter().filter(|(_, record)| record.outcome != Outcome::Open).copied().collect();
    answered.sort_by_key(|(_, record)| record.end);
    let is_explained =
        |(_, record): &(usize, &Record)| search(records, seen, record.end, steps) != Some(false);
    // Whatever has no explanation has none with more answers either.
    let at = answered.partition_point(is_explained);
    answered.get(at).or(answered.last()).map_or(0, |(number, _)| *number)
}

/// Whether there is an order for what was answered until then; none if that was not found out. Later answers are not
/// known then, though what was asked before may have been done.
fn search(records: &[(usize, &Record)], seen: &BTreeMap<u64, u64>, until: u64, steps: u64) -> Option<bool> {
    let asked = records.iter().filter(|(_, record)| record.start <= until);
    let mut events = Vec::new();
    for (process, (_, record)) in asked.enumerate() {
        let is_answered = record.outcome != Outcome::Open && record.end <= until;
        let outcome = if is_answered { record.outcome } else { Outcome::Open };
        let seen = match record.action {
            Action::Put { value, .. } => seen.get(&value).copied().filter(|_| until == u64::MAX),
            Action::Delete { .. } | Action::Get | Action::Scan | Action::Glance => None,
        };
        let step = Step { action: record.action, outcome, seen };
        let end = if is_answered { record.end } else { u64::MAX };
        events.push((record.start, false, process, Event::Call(step)));
        events.push((end, true, process, Event::Response(step)));
    }
    if events.is_empty() {
        return Some(true);
    }
    // What begins when something else ends may have been before it.
    events.sort_by_key(|(at, is_end, process, _)| (*at, *is_end, *process));
    let events = events.into_iter().map(|(_, _, process, event)| (process, event)).collect();
    LEFT.set(steps);
    let is_linearizable = WGLChecker::<Register>::is_linearizable(History::from_actions(events));
    (is_linearizable || LEFT.get() > 0).then_some(is_linearizable)
}

#[cfg(test)]
mod tests;
