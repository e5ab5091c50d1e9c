//! What a write changes, and on which conditions.
//!
//! Pure.

use std::num::NonZeroU64;

use bytes::Bytes;
use plugin::shard::{Condition, Key};

use crate::data::record::Record;

/// What happens to a key, and on which condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) key: Key,
    pub(crate) effect: Effect,
    /// The condition on which it happens.
    pub(crate) condition: Option<Condition>,
}

/// What happens to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It gets a value: a record's stored form, and when it expires.
    Put(Bytes, Option<NonZeroU64>),
    /// Its value is removed.
    Delete,
    /// Its value is removed if it still expires at this time.
    Expire(NonZeroU64),
    /// Nothing; only the condition is checked.
    Check,
}

/// The version and expiry of a key that has a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) version: u64,
    pub(crate) expires_ms: Option<NonZeroU64>,
}

/// A condition that did not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unmet {
    /// The index of the change, from 0.
    pub(crate) index: usize,
    /// The version of the key, if it has a value.
    pub(crate) version: Option<u64>,
}

/// Whether the changes of a write are atomic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unity {
    /// All or none of them are made, with one version. No key appears twice.
    Whole,
    /// Each is made separately, in order.
    Apart,
}

/// Changes that become durable together, and whether they are atomic.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) changes: Vec<Change>,
    pub(crate) unity: Unity,
}

/// The version of what was written; `None` if nothing was.
pub(crate) type Written = Option<u64>;

impl Write {
    /// About how many bytes it takes in the log.
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

    /// The same on a condition.
    #[must_use]
    pub(crate) fn provided(self, condition: Option<Condition>) -> Self {
        Self { condition, ..self }
    }

    /// Whether the key must be read first. A put without a condition or a time to live never needs it.
    pub(crate) fn needs_read(&self) -> bool {
        self.condition.is_some() || matches!(self.effect, Effect::Put(_, Some(_)) | Effect::Expire(_))
    }

    /// About how many bytes it has.
    pub(crate) fn size(&self) -> usize {
        let value = match &self.effect {
            Effect::Put(value, _) => value.len(),
            Effect::Delete | Effect::Expire(_) | Effect::Check => 0,
        };
        self.key.bytes().len() + value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_put_reads_nothing() {
        let key = || Key::new("a").unwrap();
        let record = Record::new(None, Bytes::from_static(b"1"));
        assert!(!Change::put(key(), &record).needs_read());
        assert!(!Change::delete(key()).needs_read());
        assert!(Change::put(key(), &record.expiring(NonZeroU64::new(1))).needs_read());
        assert!(Change::delete(key()).provided(Some(Condition::Present)).needs_read());
    }
}
