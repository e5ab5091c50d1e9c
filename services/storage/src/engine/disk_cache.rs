//! Parts of tables on this node's disk, so that data read once from a cloud store costs no second request.
//!
//! SlateDB manages them: it fetches whole parts on a miss, and deletes the least recently read parts when there are too
//! many. All shards share one folder: names of tables are unique, so the bound holds for all shards that the node ever
//! had. Nothing depends on the parts. Everything from a table is verified by its checksum, and a part that fails is fetched
//! from the store again; so is one that is missing. A full disk takes no new parts.

use std::time::Duration;

use plugin::DiskCache;
use slatedb::config::ObjectStoreCacheOptions;

/// The size of a part. A request costs the same whatever its size, and holds this much memory.
const PART: usize = 1024 * 1024;
/// How often the folder is scanned for files that others have deleted.
const SCAN: Duration = Duration::from_secs(600);
/// The largest number of open files.
const FILES: usize = 256;

/// The same as settings for SlateDB.
pub(crate) fn options(disk: Option<&DiskCache>) -> ObjectStoreCacheOptions {
    ObjectStoreCacheOptions {
        root_folder: disk.map(|disk| disk.folder.clone()),
        max_cache_size_bytes: disk.map(|disk| disk.bytes),
        part_size_bytes: PART,
        scan_interval: Some(SCAN),
        max_open_file_handles: FILES,
        ..ObjectStoreCacheOptions::default()
    }
}

#[cfg(test)]
mod tests;
