//! Parts of tables on this node's disk, so that data read once from a cloud store costs no second request.
//!
//! SlateDB manages them: it fetches whole parts on a miss, and deletes the least recently read parts when there are too
//! many. Nothing depends on them. Everything from a table is verified by its checksum, and a part that fails is fetched
//! from the store again; so is one that is missing. A full disk takes no new parts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use plugin::Context;
use slatedb::config::ObjectStoreCacheOptions;

use crate::settings::Settings;

const MIB: usize = 1024 * 1024;
/// The size of a part. A request costs the same whatever its size, and holds this much memory.
const PART: usize = MIB;
/// The largest default size.
const MOST: usize = 4096 * MIB;
/// The default size where the size of the disk is unknown.
const UNKNOWN: usize = 1024 * MIB;
/// How often the folder is scanned for files that others have deleted.
const SCAN: Duration = Duration::from_secs(600);
/// The largest number of open files.
const FILES: usize = 256;

/// Where parts of tables are cached, and how many bytes of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DiskCache {
    pub(crate) folder: PathBuf,
    pub(crate) bytes: usize,
}

impl DiskCache {
    /// The cache for these settings, or the default for this store. All shards share one folder: names of tables are
    /// unique, so the bound holds for all shards that the node ever had.
    pub(crate) fn of(settings: &Settings, cx: &Context) -> Option<Self> {
        let wanted = settings.disk_cache_bytes().map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        let bytes = size(wanted, cx.objects_are_remote, || disk(&cx.cache_dir))?;
        Some(Self { folder: cx.cache_dir.join("storage"), bytes })
    }
}

/// The size of the cache in bytes; `None` for no cache.
fn size(wanted: Option<usize>, is_remote: bool, disk: impl FnOnce() -> Option<u64>) -> Option<usize> {
    match wanted {
        Some(0) => None,
        Some(bytes) => Some(bytes),
        None if !is_remote => None,
        None => {
            let tenth = disk().and_then(|bytes| usize::try_from(bytes / 10).ok());
            Some(tenth.unwrap_or(UNKNOWN).min(MOST)).filter(|bytes| *bytes >= PART)
        }
    }
}

/// The size of the disk that has the folder, or will have it.
fn disk(folder: &Path) -> Option<u64> {
    let known = folder.ancestors().find_map(|folder| rustix::fs::statvfs(folder).ok())?;
    known.f_blocks.checked_mul(known.f_frsize)
}

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
