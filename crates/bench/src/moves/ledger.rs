//! Records what clients know about keys, and checks reads against it.
//!
//! Each key has one writer, which increments the version and has one write in flight at a time. So a read may see any
//! version from the latest one known when the read began, from the answer to a write or to another read, to the latest
//! one sent when the read ended. A lower version is stale, a higher one was never written.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use types::KeyHash;

/// A key and the known versions. Version 0 means no value.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: String,
    sent: AtomicU64,
    acknowledged: AtomicU64,
    /// The latest version in any answer, to a reader or the writer.
    known: AtomicU64,
}

/// The latest known version when a read begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Floor(u64);

/// Whether the version in an answer is possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadCheck {
    Right,
    /// A later version was known before the read began.
    Stale,
    /// No client wrote this version.
    Unwritten,
}

fn check(floor: u64, sent: u64, read: u64) -> ReadCheck {
    if read < floor {
        ReadCheck::Stale
    } else if read > sent {
        ReadCheck::Unwritten
    } else {
        ReadCheck::Right
    }
}

/// `count` keys of one writer, rounded up to the same number in each shard.
pub(crate) fn keys(writer: usize, count: usize, shards: NonZeroU32) -> Vec<Key> {
    let names = |shard: u32| {
        (0_u32..)
            .map(move |number| format!("w{writer}-{number}"))
            .filter(move |name| KeyHash::of(name.as_bytes()).shard(shards).as_u32() == shard)
    };
    let mut each: Vec<_> = (0..shards.get()).map(names).collect();
    let mut keys = Vec::new();
    while keys.len() < count {
        keys.extend(each.iter_mut().filter_map(Iterator::next).map(Key::new));
    }
    keys
}

impl Key {
    fn new(name: String) -> Self {
        Self { name, sent: AtomicU64::new(0), acknowledged: AtomicU64::new(0), known: AtomicU64::new(0) }
    }

    /// Starts a write. Returns its version.
    pub(crate) fn send(&self) -> u64 {
        self.sent.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Records that a write was acknowledged.
    pub(crate) fn acknowledge(&self, version: u64) {
        self.acknowledged.fetch_max(version, Ordering::SeqCst);
        self.known.fetch_max(version, Ordering::SeqCst);
    }

    /// The latest acknowledged version.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Starts a read.
    pub(crate) fn floor(&self) -> Floor {
        Floor(self.known.load(Ordering::SeqCst))
    }

    /// Checks a read that began at this floor and returned this version.
    pub(crate) fn read(&self, floor: Floor, version: u64) -> ReadCheck {
        let result = check(floor.0, self.sent.load(Ordering::SeqCst), version);
        if result == ReadCheck::Right {
            self.known.fetch_max(version, Ordering::SeqCst);
        }
        result
    }

    /// The value that is stored for a version.
    pub(crate) fn value(&self, version: u64) -> String {
        format!("{version} of {}", self.name)
    }

    /// The version of a stored value; `None` if it is not a value of this key.
    pub(crate) fn version(&self, value: &[u8]) -> Option<u64> {
        let (version, name) = str::from_utf8(value).ok()?.split_once(" of ")?;
        (name == self.name).then(|| version.parse().ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_may_see_a_write_in_flight_but_no_version_older_than_the_known_one() {
        for (floor, sent, read, result) in [
            (0, 0, 0, ReadCheck::Right),
            (3, 4, 3, ReadCheck::Right),
            (3, 4, 4, ReadCheck::Right),
            (3, 4, 2, ReadCheck::Stale),
            (3, 3, 0, ReadCheck::Stale),
            (3, 4, 5, ReadCheck::Unwritten),
        ] {
            assert_eq!(check(floor, sent, read), result, "{floor} {sent} {read}");
        }
    }

    #[test]
    fn a_version_that_one_read_has_shown_stays_visible_to_later_reads() {
        let key = Key::new("a".to_owned());
        let version = key.send();
        // The write is not answered yet, but a read has seen it.
        assert_eq!(key.read(key.floor(), version), ReadCheck::Right);
        assert_eq!(key.acknowledged(), 0);
        assert_eq!(key.read(key.floor(), 0), ReadCheck::Stale);
    }

    #[test]
    fn a_read_that_began_before_an_answer_need_not_see_it() {
        let key = Key::new("a".to_owned());
        let floor = key.floor();
        key.acknowledge(key.send());
        assert_eq!(key.read(floor, 0), ReadCheck::Right);
        assert_eq!(key.read(key.floor(), 0), ReadCheck::Stale);
    }

    #[test]
    fn a_value_names_its_version_and_its_key() {
        let (a, b) = (Key::new("w1-7".to_owned()), Key::new("w1-8".to_owned()));
        let value = a.value(42);
        assert_eq!(a.version(value.as_bytes()), Some(42));
        assert_eq!(b.version(value.as_bytes()), None);
        assert_eq!(a.version(b"42"), None);
    }

    #[test]
    fn keys_are_spread_evenly_over_the_shards() {
        let two = NonZeroU32::new(2).unwrap();
        let keys = keys(3, 8, two);
        let shard = |key: &Key| KeyHash::of(key.name.as_bytes()).shard(two).as_u32();
        assert_eq!(keys.iter().map(shard).collect::<Vec<_>>(), [0, 1, 0, 1, 0, 1, 0, 1]);
    }
}
