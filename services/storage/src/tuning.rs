//! How SlateDB is set up, with the reasons.

use std::sync::Arc;

use slatedb::Settings;
use slatedb::config::{CompactorOptions, ObjectStoreCacheOptions};
use slatedb::db_cache::SplitCache;
use slatedb::db_cache::moka::{MokaCache, MokaCacheOptions};

const MIB: usize = 1024 * 1024;

/// The settings of the database.
pub(crate) fn settings() -> Settings {
    Settings {
        // Flushed by our own rounds.
        flush_interval: None,
        // Small tables keep memory small, and the replay at the next start.
        l0_sst_size_bytes: 16 * MIB,
        // So that writes go on while the compactor, which looks every five seconds, catches up.
        l0_max_ssts: 16,
        l0_max_ssts_per_key: 16,
        max_unflushed_bytes: 64 * MIB,
        compactor_options: Some(CompactorOptions {
            max_concurrent_compactions: 2,
            ..CompactorOptions::default()
        }),
        object_store_cache_options: ObjectStoreCacheOptions { root_folder: None, ..Default::default() },
        // See `crate::garbage`.
        garbage_collector_options: None,
        // What the store refuses is tried again until it works or the database is closed.
        object_store_max_retries: None,
        ..Settings::default()
    }
}

/// A cache of so many bytes, a quarter of them for indexes and filters.
pub(crate) fn cache(bytes: u64) -> Arc<SplitCache> {
    let part = |max_capacity| {
        let options = MokaCacheOptions { max_capacity, ..MokaCacheOptions::default() };
        Some(Arc::new(MokaCache::new_with_opts(options)) as _)
    };
    Arc::new(SplitCache::new().with_block_cache(part(bytes / 4 * 3)).with_meta_cache(part(bytes / 4)).build())
}
