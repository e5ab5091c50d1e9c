//! What clients know of keys, and whether an answer fits to it.
//!
//! Each key has one writer, which counts versions up and has one write at a time under way. So a read may see any
//! version from the latest that was known when it began, by an answer to a write or to another read, to the latest that
//! had been sent when it ended. Less is stale, more was never written.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use types::KeyHash;

/// A key and what is known of it. Version 0 is none at all.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: String,
    sent: AtomicU64,
    acknowledged: AtomicU64,
    /// The latest that anyone was answered, a reader or the writer.
    known: AtomicU64,
}

/// What is known when a read begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Floor(u64);

/// How an answer fits to what is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Right,
    /// A later version had been answered before the read began.
    Stale,
    /// Nobody wrote that.
    Unwritten,
}

fn judge(floor: u64, sent: u64, read: u64) -> Verdict {
    if read < floor {
        Verdict::Stale
    } else if read > sent {
        Verdict::Unwritten
    } else {
        Verdict::Right
    }
}

/// So many keys of one writer, the same number in each shard.
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

    /// The version of a write that is sent now.
    pub(crate) fn send(&self) -> u64 {
        self.sent.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// A write was answered as done.
    pub(crate) fn acknowledge(&self, version: u64) {
        self.acknowledged.fetch_max(version, Ordering::SeqCst);
        self.known.fetch_max(version, Ordering::SeqCst);
    }

    /// The latest version whose write was answered.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// A read begins.
    pub(crate) fn floor(&self) -> Floor {
        Floor(self.known.load(Ordering::SeqCst))
    }

    /// A read that began at this floor has ended with this version.
    pub(crate) fn read(&self, floor: Floor, version: u64) -> Verdict {
        let verdict = judge(floor.0, self.sent.load(Ordering::SeqCst), version);
        if verdict == Verdict::Right {
            self.known.fetch_max(version, Ordering::SeqCst);
        }
        verdict
    }

    /// What is stored as a version.
    pub(crate) fn value(&self, version: u64) -> String {
        format!("{version} of {}", self.name)
    }

    /// The version that a stored value is; none if it is no value of this key.
    pub(crate) fn version(&self, value: &[u8]) -> Option<u64> {
        let (version, name) = str::from_utf8(value).ok()?.split_once(" of ")?;
        (name == self.name).then(|| version.parse().ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_may_see_what_was_under_way_but_nothing_older_than_what_was_known() {
        for (floor, sent, read, verdict) in [
            (0, 0, 0, Verdict::Right),
            (3, 4, 3, Verdict::Right),
            (3, 4, 4, Verdict::Right),
            (3, 4, 2, Verdict::Stale),
            (3, 3, 0, Verdict::Stale),
            (3, 4, 5, Verdict::Unwritten),
        ] {
            assert_eq!(judge(floor, sent, read), verdict, "{floor} {sent} {read}");
        }
    }

    #[test]
    fn what_one_read_has_shown_no_later_one_takes_back() {
        let key = Key::new("a".to_owned());
        let version = key.send();
        // Not answered yet, but seen.
        assert_eq!(key.read(key.floor(), version), Verdict::Right);
        assert_eq!(key.acknowledged(), 0);
        assert_eq!(key.read(key.floor(), 0), Verdict::Stale);
    }

    #[test]
    fn a_read_that_began_before_an_answer_need_not_see_it() {
        let key = Key::new("a".to_owned());
        let floor = key.floor();
        key.acknowledge(key.send());
        assert_eq!(key.read(floor, 0), Verdict::Right);
        assert_eq!(key.read(key.floor(), 0), Verdict::Stale);
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
    fn keys_lie_in_all_shards_alike() {
        let two = NonZeroU32::new(2).unwrap();
        let keys = keys(3, 8, two);
        let shard = |key: &Key| KeyHash::of(key.name.as_bytes()).shard(two).as_u32();
        assert_eq!(keys.iter().map(shard).collect::<Vec<_>>(), [0, 1, 0, 1, 0, 1, 0, 1]);
    }
}
