//! The settings of SlateDB, with their reasons.
//!
//! With the default settings an owner takes at most 384 MiB under any write load: 32 MiB for waiting bodies
//! (`write_queue`); as much again for their stored form, which the memtables and the latest changes share; 32 MiB for
//! memtables that are not in tables yet, doubled while they are written; 16 MiB for a flush of the log; and for one
//! compaction two blocks of each of its eight inputs, which are one value each where values are large. Reads add the
//! cache ([`crate::engine::cache`]): 64 MiB of blocks, and the filters and indexes of the owner's tables. With 10
//! million small keys an owner takes at most 512 MiB. `bench kv` checks both.

use std::time::Duration;

use plugin::DiskCache;
use slatedb::config::{CompactionWorkerOptions, CompactorOptions};
use slatedb::{BlockCachePolicy, CacheTarget, Settings};

use crate::engine::disk_cache;

/// The shortest interval at which an idle database polls the store.
const SHORTEST: Duration = Duration::from_secs(1);
/// How many tables may wait for compaction; then writes wait too.
pub(crate) const TABLES: usize = 16;
const MIB: usize = 1024 * 1024;
/// The size of a table. A read that misses the cache fetches and decodes the table's filter and index, each about 1 %
/// of it where values are small; at this size that takes less than a millisecond.
const TABLE: usize = 16 * MIB;

/// The settings of the database. `poll` is how often a reader may poll the store: rarely where requests cost money.
pub(crate) fn settings(poll: Duration, disk: Option<&DiskCache>) -> Settings {
    // An idle shard polls two objects. Nothing depends on these polls: reads check the manifest themselves.
    let manifest_poll_interval = SHORTEST.max(poll * 10);
    // Writes that outrun the compactor wait for it after 256 MiB.
    let compactor = SHORTEST.max(poll * 5);
    Settings {
        manifest_poll_interval,
        // Our own group commit flushes.
        flush_interval: None,
        // Small tables also keep memory use small, and the replay at the next start short.
        l0_sst_size_bytes: TABLE,
        // So that writes continue while the compactor catches up.
        l0_max_ssts: TABLES,
        l0_max_ssts_per_key: TABLES,
        max_unflushed_bytes: 32 * MIB,
        // Each writer of a table holds parts of it that are being sent.
        l0_flush_parallelism: 1,
        compactor_options: Some(CompactorOptions {
            // Two would double the memory, and an owner has few cores to spare.
            max_concurrent_compactions: 1,
            poll_interval: compactor,
            worker: Some(CompactionWorkerOptions {
                compactions_poll_interval: compactor,
                max_concurrent_compactions: 1,
                max_sst_size: TABLE,
                // The read-ahead is held for each of up to eight inputs, times these two: at least a block, which may
                // be one value of several megabytes.
                max_subcompactions: 1,
                max_fetch_tasks: 1,
                bytes_to_fetch: MIB / 2,
                ..CompactionWorkerOptions::default()
            }),
            ..CompactorOptions::default()
        }),
        object_store_cache_options: disk_cache::options(disk),
        // See `crate::engine::garbage`.
        garbage_collector_options: None,
        // A failed request is retried until it succeeds or the database is closed.
        object_store_max_retries: None,
        ..Settings::default()
    }
}

/// What is cached of a table when it is written: what is needed to find a block. Blocks are cached when they are read,
/// so that writes take no memory for them and evict nothing that is read.
pub(crate) fn kept_when_written() -> BlockCachePolicy {
    let metadata = [CacheTarget::Index, CacheTarget::Filters];
    BlockCachePolicy::default().with_flush_targets(&metadata).with_compaction_output_targets(&metadata)
}
