//! How SlateDB is set up, with the reasons.

use std::sync::Arc;
use std::time::Duration;

use slatedb::Settings;
use slatedb::config::{
    CompactorOptions, GarbageCollectorDirectoryOptions, GarbageCollectorOptions, ObjectStoreCacheOptions,
};
use slatedb::db_cache::SplitCache;
use slatedb::db_cache::moka::{MokaCache, MokaCacheOptions};

const MIB: usize = 1024 * 1024;

/// Metadata is kept so long, since a folder has no conditional overwrite to guard its collection with: a process that
/// stood still for longer could write a number anew that was collected meanwhile, and take its stale update for good.
/// It must be far longer than [`crate::vigil::STALL`].
const METADATA: Duration = Duration::from_hours(48);

/// Tables may be half written, or be uploaded and not yet named by the manifest, which may take five minutes when the
/// store is slow. Compaction keeps its inputs for fifteen minutes anyway.
const TABLES: Duration = Duration::from_mins(20);

/// A log file that was flushed into a table serves nobody any more. It may go at once: the file behind a writer's last
/// one is the empty fence of the next writer, and fences are never collected. With a flush of its own for every few
/// writes there may be hundreds of log files a second.
const LOG: Duration = Duration::from_mins(1);

/// The settings of the database.
pub(crate) fn settings() -> Settings {
    Settings {
        // Flushed by our own rounds.
        flush_interval: None,
        // Small tables keep memory and the replay at the next start small.
        l0_sst_size_bytes: 16 * MIB,
        l0_max_ssts: 16,
        l0_max_ssts_per_key: 16,
        max_unflushed_bytes: 64 * MIB,
        compactor_options: Some(CompactorOptions {
            max_concurrent_compactions: 2,
            ..CompactorOptions::default()
        }),
        object_store_cache_options: ObjectStoreCacheOptions { root_folder: None, ..Default::default() },
        garbage_collector_options: Some(garbage_collection()),
        // What the store refuses is tried again until it works or the database is closed.
        object_store_max_retries: None,
        ..Settings::default()
    }
}

fn garbage_collection() -> GarbageCollectorOptions {
    let every = |minutes, min_age| {
        let interval = Some(Duration::from_mins(minutes));
        Some(GarbageCollectorDirectoryOptions { interval, min_age, dry_run: false })
    };
    GarbageCollectorOptions {
        manifest_options: every(60, METADATA),
        compactions_options: every(60, METADATA),
        compacted_options: every(10, TABLES),
        wal_options: every(1, LOG),
        // A fence that is gone lets a writer that slept write where nobody reads. One empty object a start stays.
        wal_fence_options: None,
        // There are no clones.
        detach_options: None,
        metric_level: None,
        // Needs a conditional overwrite, which folders do not have.
        boundary_files_enabled: false,
        object_store_max_retries: None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vigil::STALL;

    #[test]
    fn nothing_that_guards_against_a_sleeper_is_collected_before_it_wakes() {
        let collected = settings().garbage_collector_options.unwrap();
        let ages = [collected.manifest_options, collected.compactions_options];
        assert!(ages.iter().all(|options| options.unwrap().min_age > 1_000 * STALL));
        assert!(collected.wal_fence_options.is_none());
        assert!(!collected.boundary_files_enabled);
    }
}
