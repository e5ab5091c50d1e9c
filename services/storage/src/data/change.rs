//! What a write changes, and under which conditions.
//!
//! Pure.

use std::num::NonZeroU64;

use bytes::Bytes;

use crate::data::key::Key;
use crate::data::record::Record;

/// What is to become of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) key: Key,
    pub(crate) effect: Effect,
    /// Only if this holds.
    pub(crate) condition: Option<Condition>,
}

/// What happens to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It gets a value: a record's stored form, and when it expires.
    Put(Bytes, Option<NonZeroU64>),
    /// It has none any more.
    Delete,
    /// It has none any more if it still expires then.
    Expire(NonZeroU64),
    /// Nothing; only the condition counts.
    Check,
}

/// What must hold of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// It has no value.
    Absent,
    /// It has one.
    Present,
    /// It has the one that this write put.
    Version(u64),
}

/// What is known of a key that has a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) version: u64,
    pub(crate) expires_ms: Option<NonZeroU64>,
}

/// A condition that did not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unmet {
    /// Of which change, from 0.
    pub(crate) index: usize,
    /// The version that the key has, if it has a value.
    pub(crate) version: Option<u64>,
}

/// Whether a write's changes belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unity {
    /// All of them at one moment and with one version, or none of them. No key is among them twice.
    Whole,
    /// Each by itself, in their order.
    Apart,
}

/// Changes that are made durable together, and how they belong together.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) changes: Vec<Change>,
    pub(crate) unity: Unity,
}

/// The version of what was written; none if nothing was.
pub(crate) type Written = Option<u64>;

impl Write {
    /// What it takes of the log, about.
    pub(crate) fn size(&self) -> usize {
        self.changes.iter().map(Change::size).sum()
    }
}

impl Change {
    /// Stores a record.
    pub(crate) fn put(key: Key, record: &Record) -> Self {
        let effect = Effect::Put(record.encode(), record.expires_ms());
        Self { key, effect, condition: None }
    }

    /// Removes a key.
    pub(crate) fn delete(key: Key) -> Self {
        Self { key, effect: Effect::Delete, condition: None }
    }

    /// The same under a condition.
    #[must_use]
    pub(crate) fn provided(self, condition: Option<Condition>) -> Self {
        Self { condition, ..self }
    }

    /// Whether the key must be looked at first. A put without a time to live never needs it.
    pub(crate) fn looks(&self) -> bool {
        self.condition.is_some() || matches!(self.effect, Effect::Put(_, Some(_)) | Effect::Expire(_))
    }

    /// Its bytes, about.
    pub(crate) fn size(&self) -> usize {
        let value = match &self.effect {
            Effect::Put(value, _) => value.len(),
            Effect::Delete | Effect::Expire(_) | Effect::Check => 0,
        };
        self.key.bytes().len() + value
    }
}

impl Condition {
    /// Whether it holds of a key.
    pub(crate) fn holds(self, known: Option<&Known>) -> bool {
        match self {
            Self::Absent => known.is_none(),
            Self::Present => known.is_some(),
            Self::Version(version) => known.is_some_and(|known| known.version == version),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_holds_of_what_it_names() {
        let known = Known { version: 3, expires_ms: None };
        for (condition, of_nothing, of_it) in [
            (Condition::Absent, true, false),
            (Condition::Present, false, true),
            (Condition::Version(3), false, true),
            (Condition::Version(2), false, false),
            (Condition::Version(4), false, false),
        ] {
            assert_eq!(condition.holds(None), of_nothing, "{condition:?}");
            assert_eq!(condition.holds(Some(&known)), of_it, "{condition:?}");
        }
    }

    #[test]
    fn an_ordinary_put_pays_no_look() {
        let key = || Key::new("a").unwrap();
        let record = Record::new(None, Bytes::from_static(b"1"));
        assert!(!Change::put(key(), &record).looks());
        assert!(!Change::delete(key()).looks());
        assert!(Change::put(key(), &record.expiring(NonZeroU64::new(1))).looks());
        assert!(Change::delete(key()).provided(Some(Condition::Present)).looks());
    }
}
