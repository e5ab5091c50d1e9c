//! The cache for data read from tables, shared by all shards of this process that have no cache of their own.
//!
//! SlateDB requests entries and inserts what it wrote; [`plugin::cache`] decides what is kept. Several readers that miss the
//! same entry wait for one of them to read it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, RwLock};

use async_trait::async_trait;
use plugin::cache::{Entries, Kind, Limits};
use plugin::memory_limit;
use slatedb::Error;
use slatedb::db_cache::{CacheFetch, CacheLoader, CachedEntry, CachedKey, DbCache, SplitCache};
use tokio::sync::OnceCell;

/// Unordered, by key.
#[expect(clippy::disallowed_types, reason = "SlateDB's keys have no order, and nothing here goes by one")]
type Map<K, V> = std::collections::HashMap<K, V>;

const MIB: u64 = 1024 * 1024;
/// The smallest default size of a cache.
const LEAST: u64 = 32 * MIB;
/// The largest default size of all blocks. The system also caches what was read from files, and drops it when memory is
/// short; filters and indexes are cached only here.
const MOST_BLOCKS: u64 = 64 * MIB;

/// The cache of this process, for all shards that have none of their own.
static SHARED: LazyLock<Arc<Cache>> = LazyLock::new(|| Arc::new(Cache::new(by_default(memory_limit()))));

/// The default limits for a process that may use `memory` bytes: a sixteenth of it.
fn by_default(memory: u64) -> Limits {
    let all = (memory / 16).max(LEAST);
    Limits { all, blocks: all.min(MOST_BLOCKS) }
}

/// A cache of one or several shards.
pub(crate) struct Cache {
    entries: RwLock<Entries<CachedKey, CachedEntry>>,
    /// Entries that are being read, for other readers of the same entry.
    loading: Mutex<Map<CachedKey, Arc<OnceCell<CachedEntry>>>>,
    /// The size of the filters and indexes of each shard's tables, by the scope of its part.
    needs: Mutex<BTreeMap<u64, u64>>,
}

/// A shard's part of a cache. Dropping it drops its entries.
pub(crate) struct Part {
    cache: Arc<Cache>,
    /// Distinguishes its entries from those of other shards and of earlier openings.
    scope: u64,
}

/// How much cache the filters and indexes of a shard's tables need, and how much there is; in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    /// What those of this shard need.
    pub(crate) bytes: u64,
    /// What those of all shards that share the cache need.
    pub(crate) of_all: u64,
    /// The size of the cache.
    pub(crate) cache: u64,
    /// How much of it filters and indexes may take.
    pub(crate) room: u64,
}

impl Need {
    /// By how much they do not fit.
    pub(crate) fn missing(self) -> u64 {
        self.of_all.saturating_sub(self.room)
    }

    /// The size of a cache for this shard alone into which they would fit.
    pub(crate) fn would_do(self) -> u64 {
        Limits::for_metadata(self.bytes)
    }
}

impl Cache {
    fn new(limits: Limits) -> Self {
        let entries = RwLock::new(Entries::new(limits));
        Self { entries, loading: Mutex::default(), needs: Mutex::default() }
    }

    /// The cache for a shard's settings: one of its own with this size, or the shared one.
    pub(crate) fn of_size(bytes: Option<u64>) -> Arc<Self> {
        bytes.map_or_else(|| Arc::clone(&SHARED), |all| Arc::new(Self::new(Limits { all, blocks: all })))
    }

    /// A part for a shard that is about to be opened.
    pub(crate) fn part(self: &Arc<Self>) -> Part {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Part { cache: Arc::clone(self), scope: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    fn get(&self, key: &CachedKey) -> Option<CachedEntry> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).get(key)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Entries<CachedKey, CachedEntry>) -> T) -> T {
        change(&mut self.entries.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn insert(&self, kind: Kind, key: CachedKey, entry: CachedEntry) {
        let bytes = u64::try_from(entry.size()).unwrap_or(u64::MAX);
        self.change(|entries| entries.insert(kind, key, entry, bytes));
    }

    /// Returns the cached entry, or reads it; other readers of the same entry wait for that.
    async fn fetch(&self, kind: Kind, key: CachedKey, loader: CacheLoader) -> Result<CacheFetch, Error> {
        if let Some(entry) = self.get(&key) {
            return Ok(CacheFetch::hit(entry));
        }
        let loading = Loading::join(self, &key);
        let mut is_loaded = false;
        let load = async || {
            is_loaded = true;
            loader().await
        };
        let entry = loading.entry.get_or_try_init(load).await?.clone();
        if !is_loaded {
            return Ok(CacheFetch::hit(entry));
        }
        self.insert(kind, key.clone(), entry.clone());
        Ok(CacheFetch::miss(entry))
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("Cache").field("limits", &entries.limits()).finish_non_exhaustive()
    }
}

/// One of the readers that wait for an entry.
struct Loading<'a> {
    cache: &'a Cache,
    key: &'a CachedKey,
    entry: Arc<OnceCell<CachedEntry>>,
}

impl<'a> Loading<'a> {
    fn join(cache: &'a Cache, key: &'a CachedKey) -> Self {
        let entry = Arc::clone(lock(&cache.loading).entry(key.clone()).or_default());
        Self { cache, key, entry }
    }
}

impl Drop for Loading<'_> {
    /// The last reader removes the entry from the map. If the one that reads is dropped, the next reader reads it.
    fn drop(&mut self) {
        let mut loading = lock(&self.cache.loading);
        // One reference is the map's, and one is `self`'s.
        if Arc::strong_count(&self.entry) <= 2 {
            loading.remove(self.key);
        }
    }
}

impl Part {
    /// Its number among all parts.
    pub(crate) fn scope(&self) -> u64 {
        self.scope
    }

    /// The same as SlateDB's cache, since only SlateDB knows the type of an entry.
    pub(crate) fn for_database(&self) -> Arc<SplitCache> {
        let of = |kind| Some(Arc::new(OfKind { cache: Arc::clone(&self.cache), kind }) as Arc<dyn DbCache>);
        let split = SplitCache::new().with_block_cache(of(Kind::Block)).with_meta_cache(of(Kind::Metadata));
        Arc::new(split.build())
    }

    /// Records what the filters and indexes of the shard's tables need.
    pub(crate) fn needs(&self, bytes: u64) -> Need {
        let of_all: u64 = {
            let mut needs = lock(&self.cache.needs);
            needs.insert(self.scope, bytes);
            needs.values().fold(0, |sum, bytes| sum.saturating_add(*bytes))
        };
        let limits = self.cache.entries.read().unwrap_or_else(PoisonError::into_inner).limits();
        Need { bytes, of_all, cache: limits.all, room: limits.metadata() }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        lock(&self.cache.needs).remove(&self.scope);
        self.cache.change(|entries| entries.retain(|key| key.db_cache_id() != self.scope));
    }
}

/// The entries of one kind.
struct OfKind {
    cache: Arc<Cache>,
    kind: Kind,
}

#[async_trait]
impl DbCache for OfKind {
    async fn get_block(&self, key: &CachedKey) -> Result<Option<CachedEntry>, Error> {
        Ok(self.cache.get(key))
    }

    async fn get_index(&self, key: &CachedKey) -> Result<Option<CachedEntry>, Error> {
        Ok(self.cache.get(key))
    }

    async fn get_filter(&self, key: &CachedKey) -> Result<Option<CachedEntry>, Error> {
        Ok(self.cache.get(key))
    }

    async fn get_stats(&self, key: &CachedKey) -> Result<Option<CachedEntry>, Error> {
        Ok(self.cache.get(key))
    }

    async fn insert(&self, key: CachedKey, value: CachedEntry) {
        self.cache.insert(self.kind, key, value);
    }

    async fn remove(&self, key: &CachedKey) {
        self.cache.change(|entries| entries.remove(key));
    }

    fn entry_count(&self) -> u64 {
        let entries = self.cache.entries.read().unwrap_or_else(PoisonError::into_inner);
        u64::try_from(entries.len()).unwrap_or(u64::MAX)
    }

    async fn fetch_block(&self, key: CachedKey, loader: CacheLoader) -> Result<CacheFetch, Error> {
        self.cache.fetch(self.kind, key, loader).await
    }

    async fn fetch_index(&self, key: CachedKey, loader: CacheLoader) -> Result<CacheFetch, Error> {
        self.cache.fetch(self.kind, key, loader).await
    }

    async fn fetch_filter(&self, key: CachedKey, loader: CacheLoader) -> Result<CacheFetch, Error> {
        self.cache.fetch(self.kind, key, loader).await
    }

    async fn fetch_stats(&self, key: CachedKey, loader: CacheLoader) -> Result<CacheFetch, Error> {
        self.cache.fetch(self.kind, key, loader).await
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
