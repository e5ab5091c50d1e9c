//! How SlateDB is set up, with the reasons.
//!
//! An owner with the default settings takes at most 384 MiB under any load of writes: 32 MiB of bodies that wait
//! (`write_queue`), once more in the form in which they are stored, which the memtables and the latest changes share; 32 MiB
//! of memtables that are not in tables yet, twice while they are written; 16 MiB for a flush of the log; and for one
//! compaction two blocks of each of its eight inputs, which are a value each where values are large. Reads add the cache ([`crate::engine::cache`]): 64 MiB of blocks, and
//! the filters and indexes of its tables; with 10 million small keys an owner takes at most 512 MiB. `bench kv` holds both.

use std::time::Duration;

use slatedb::config::{CompactionWorkerOptions, CompactorOptions};
use slatedb::{BlockCachePolicy, CacheTarget, Settings};

use crate::engine::disk_cache::{self, DiskCache};

/// The shortest pause between two looks at the store of a database that has nothing to do.
const SHORTEST: Duration = Duration::from_secs(1);
/// Tables that may wait to be compacted; then writes wait too.
pub(crate) const TABLES: usize = 16;
const MIB: usize = 1024 * 1024;
/// The size of a table. A read that misses the cache fetches and decodes the table's filter and its index, some 1 % of it
/// each where values are small: with tables of this size that takes less than a millisecond.
const TABLE: usize = 16 * MIB;

/// The settings of the database. `poll` is how often a reader may look at the store: rarely where a look is paid for.
pub(crate) fn settings(poll: Duration, disk: Option<&DiskCache>) -> Settings {
    // An idle shard looks at two objects each time. Nothing rests on these looks: reads look by themselves.
    let manifest_poll_interval = SHORTEST.max(poll * 10);
    // Writes that outrun the compactor wait for it, 256 MiB later.
    let compactor = SHORTEST.max(poll * 5);
    Settings {
        manifest_poll_interval,
        // Flushed by our own rounds.
        flush_interval: None,
        // Small tables also keep memory small, and the replay at the next start.
        l0_sst_size_bytes: TABLE,
        // So that writes go on while the compactor catches up.
        l0_max_ssts: TABLES,
        l0_max_ssts_per_key: TABLES,
        max_unflushed_bytes: 32 * MIB,
        // Each writer of a table holds parts of it on their way.
        l0_flush_parallelism: 1,
        compactor_options: Some(CompactorOptions {
            // Two would double what is held, and an owner has few cores to spare.
            max_concurrent_compactions: 1,
            poll_interval: compactor,
            worker: Some(CompactionWorkerOptions {
                compactions_poll_interval: compactor,
                max_concurrent_compactions: 1,
                max_sst_size: TABLE,
                // What is read ahead is held for each of up to eight inputs, times these: at least a block, which is a
                // whole value of megabytes.
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
        // What the store refuses is tried again until it works or the database is closed.
        object_store_max_retries: None,
        ..Settings::default()
    }
}

/// What is kept in the cache of a table that is being written: what it takes to find a block. Blocks are kept when they
/// are read, so that writes take no memory for them and push out nothing that is read.
pub(crate) fn kept_when_written() -> BlockCachePolicy {
    let metadata = [CacheTarget::Index, CacheTarget::Filters];
    BlockCachePolicy::default().with_flush_targets(&metadata).with_compaction_output_targets(&metadata)
}
