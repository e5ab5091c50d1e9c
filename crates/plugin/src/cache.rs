//! A cache in memory for parts of objects that were read from the store, bounded in bytes: what it holds, and what it evicts
//! for a new entry. [`memory_limit`](crate::memory_limit) helps to choose its size.
//!
//! Pure. Filters and indexes have priority over blocks: a read needs those of each file that may have its key, and a
//! missing one costs as much as many blocks. So blocks are evicted first, until they have only an eighth of the cache.
//! Within a kind, the oldest entry is evicted that has not been read since it was last spared (second chance, also
//! known as CLOCK; here with a count up to three, as in S3-FIFO, Yang et al., SOSP 2023). A read changes no order, so
//! readers need no exclusive access.

use std::collections::VecDeque;
use std::hash::Hash;
use std::sync::atomic::{AtomicU8, Ordering};

/// Unordered, by key.
#[expect(clippy::disallowed_types, reason = "keys need no order, and nothing here depends on one")]
type Map<K, V> = std::collections::HashMap<K, V>;

/// The kind of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file's index, filters or statistics: what is needed to find a block.
    Metadata,
    /// Keys and values.
    Block,
}

/// How much a cache may hold, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// All entries together.
    pub all: u64,
    /// All blocks together.
    pub blocks: u64,
}

/// How often an entry is spared at most, however often it was read.
const MOST_USES: u8 = 3;
/// How many places of removed entries a queue may have, beyond twice the number of its entries.
const SLACK: usize = 64;

/// The entries of a cache.
#[derive(Debug)]
pub struct Entries<K, V> {
    limits: Limits,
    entries: Map<K, Entry<V>>,
    metadata: Queue<K>,
    blocks: Queue<K>,
    /// The number of the next entry.
    next: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    kind: Kind,
    bytes: u64,
    /// How often it was read since it was last spared, up to [`MOST_USES`].
    uses: AtomicU8,
    /// Distinguishes it from an earlier entry with the same key.
    number: u64,
}

/// Entries of one kind, the oldest first; some may have been removed.
#[derive(Debug)]
struct Queue<K> {
    places: VecDeque<(K, u64)>,
    count: usize,
    bytes: u64,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self { places: VecDeque::new(), count: 0, bytes: 0 }
    }
}

impl Limits {
    /// How much of it filters and indexes may take: all but an eighth.
    pub fn metadata(self) -> u64 {
        self.all - self.all / 8
    }

    /// The size of a cache with room for this many bytes of filters and indexes, in whole MiB.
    pub fn for_metadata(bytes: u64) -> u64 {
        const MIB: u64 = 1024 * 1024;
        bytes.div_ceil(7).saturating_mul(8).div_ceil(MIB).saturating_mul(MIB)
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Entries<K, V> {
    /// An empty cache.
    pub fn new(limits: Limits) -> Self {
        let (metadata, blocks) = (Queue::default(), Queue::default());
        Self { limits, entries: Map::default(), metadata, blocks, next: 0 }
    }

    /// Its limits.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The size of all entries of a kind.
    pub fn bytes(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Metadata => self.metadata.bytes,
            Kind::Block => self.blocks.bytes,
        }
    }

    /// The entry with a key, which counts as a use.
    pub fn get(&self, key: &K) -> Option<V> {
        let entry = self.entries.get(key)?;
        let uses = entry.uses.load(Ordering::Relaxed);
        if uses < MOST_USES {
            // Of two concurrent reads one may not be counted.
            entry.uses.store(uses + 1, Ordering::Relaxed);
        }
        Some(entry.value.clone())
    }

    /// Adds or replaces an entry, and evicts others until all fit. An entry that could never fit is not added.
    pub fn insert(&mut self, kind: Kind, key: K, value: V, bytes: u64) {
        self.remove(&key);
        let most = match kind {
            Kind::Metadata => self.limits.metadata(),
            Kind::Block => self.limits.blocks.min(self.limits.all),
        };
        if bytes > most {
            return;
        }
        let number = self.next;
        self.next += 1;
        let queue = self.queue(kind);
        queue.places.push_back((key.clone(), number));
        queue.count += 1;
        queue.bytes += bytes;
        self.entries.insert(key, Entry { value, kind, bytes, uses: AtomicU8::new(0), number });
        while let Some(kind) = self.is_over() {
            self.drop_one(kind);
        }
    }

    /// Removes the entry with a key.
    pub fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.forget(&entry);
        }
    }

    /// Removes all entries but those to keep.
    pub fn retain(&mut self, is_kept: impl Fn(&K) -> bool) {
        let gone: Vec<K> = self.entries.keys().filter(|key| !is_kept(key)).cloned().collect();
        for key in &gone {
            self.remove(key);
        }
    }

    fn queue(&mut self, kind: Kind) -> &mut Queue<K> {
        match kind {
            Kind::Metadata => &mut self.metadata,
            Kind::Block => &mut self.blocks,
        }
    }

    /// The kind of which an entry must be evicted, if any.
    fn is_over(&self) -> Option<Kind> {
        let (metadata, blocks) = (self.metadata.bytes, self.blocks.bytes);
        if blocks > self.limits.blocks {
            return Some(Kind::Block);
        }
        if metadata.saturating_add(blocks) <= self.limits.all {
            return None;
        }
        Some(if metadata > self.limits.metadata() || blocks == 0 { Kind::Metadata } else { Kind::Block })
    }

    /// Evicts the oldest entry of a kind that is not spared.
    fn drop_one(&mut self, kind: Kind) {
        while let Some((key, number)) = self.queue(kind).places.pop_front() {
            let Some(entry) = self.entries.get_mut(&key).filter(|entry| entry.number == number) else {
                continue;
            };
            let uses = entry.uses.get_mut();
            if *uses > 0 {
                *uses -= 1;
                self.queue(kind).places.push_back((key, number));
                continue;
            }
            return self.remove(&key);
        }
    }

    /// Stops counting an entry. Its place stays in the queue until it is reached, or until there are too many such
    /// places.
    fn forget(&mut self, entry: &Entry<V>) {
        let entries = &self.entries;
        let queue = match entry.kind {
            Kind::Metadata => &mut self.metadata,
            Kind::Block => &mut self.blocks,
        };
        queue.count -= 1;
        queue.bytes -= entry.bytes;
        if queue.places.len() > queue.count * 2 + SLACK {
            queue
                .places
                .retain(|(key, number)| entries.get(key).is_some_and(|entry| entry.number == *number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(all: u64, blocks: u64) -> Entries<u32, u32> {
        Entries::new(Limits { all, blocks })
    }

    fn held(entries: &Entries<u32, u32>, keys: impl IntoIterator<Item = u32>) -> Vec<u32> {
        keys.into_iter().filter(|key| entries.entries.contains_key(key)).collect()
    }

    #[test]
    fn blocks_make_room_for_filters_and_indexes_but_not_all_of_it() {
        let mut cache = entries(80, 80);
        for key in 0..8 {
            cache.insert(Kind::Block, key, 0, 10);
        }
        for key in 100..120 {
            cache.insert(Kind::Metadata, key, 0, 10);
        }
        assert_eq!(held(&cache, 0..8), [7], "an eighth is left to blocks");
        assert_eq!(held(&cache, 100..120), (113..120).collect::<Vec<_>>());
        assert_eq!((cache.bytes(Kind::Metadata), cache.bytes(Kind::Block)), (70, 10));
        cache.insert(Kind::Block, 8, 0, 10);
        assert_eq!(held(&cache, 0..9), [8], "a block makes room for a block");
        assert_eq!(cache.bytes(Kind::Metadata), 70);
    }

    #[test]
    fn blocks_have_a_limit_of_their_own() {
        let mut cache = entries(100, 20);
        for key in 0..8 {
            cache.insert(Kind::Block, key, 0, 10);
        }
        assert_eq!(held(&cache, 0..8), [6, 7]);
        cache.insert(Kind::Metadata, 100, 0, 80);
        assert_eq!(held(&cache, 0..8), [6, 7], "there is room for both");
    }

    #[test]
    fn entries_that_were_read_outlive_those_that_were_not() {
        let mut cache = entries(30, 30);
        for key in 0..3 {
            cache.insert(Kind::Block, key, key, 10);
        }
        assert_eq!((cache.get(&0), cache.get(&9)), (Some(0), None));
        cache.insert(Kind::Block, 3, 3, 10);
        assert_eq!(held(&cache, 0..4), [0, 2, 3]);
        for _ in 0..100 {
            cache.get(&2);
        }
        for key in 4..40 {
            cache.insert(Kind::Block, key, key, 10);
        }
        assert_eq!(held(&cache, 0..40), [37, 38, 39], "earlier reads count less and less");
    }

    #[test]
    fn an_entry_that_could_never_fit_is_not_added_and_evicts_nothing() {
        let mut cache = entries(80, 40);
        cache.insert(Kind::Block, 1, 1, 10);
        cache.insert(Kind::Block, 2, 2, 41);
        cache.insert(Kind::Metadata, 3, 3, 71);
        assert_eq!(held(&cache, 0..4), [1]);
        let mut nothing = entries(0, 0);
        nothing.insert(Kind::Metadata, 1, 1, 1);
        assert!(nothing.is_empty());
    }

    #[test]
    fn a_replaced_or_removed_entry_is_no_longer_counted() {
        let mut cache = entries(100, 100);
        for round in 0..1_000 {
            cache.insert(Kind::Block, 1, round, 10);
            cache.insert(Kind::Metadata, 2, round, 20);
            cache.remove(&2);
        }
        assert_eq!((cache.bytes(Kind::Block), cache.bytes(Kind::Metadata)), (10, 0));
        assert_eq!((cache.get(&1), cache.len()), (Some(999), 1));
        let places = cache.blocks.places.len() + cache.metadata.places.len();
        assert!(places <= 2 * (SLACK + 2), "{places} places of one entry");
        cache.insert(Kind::Block, 3, 3, 10);
        cache.retain(|key| *key == 3);
        assert_eq!((held(&cache, 0..4), cache.bytes(Kind::Block)), (vec![3], 10));
    }

    #[test]
    fn the_recommended_size_has_room_for_them() {
        for bytes in [0, 1, 7, 24 * 1024 * 1024, 1 << 40] {
            let all = Limits::for_metadata(bytes);
            assert!(Limits { all, blocks: all }.metadata() >= bytes, "{bytes}");
            assert!(all <= bytes / 7 * 8 + 2 * 1024 * 1024, "{bytes}: {all} is far too much");
        }
    }
}
