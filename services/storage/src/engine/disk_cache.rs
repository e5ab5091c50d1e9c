//! Parts of tables on this node's disk, so that what was read once from a cloud store costs no second request.
//!
//! SlateDB keeps them: what a read misses is fetched in whole parts, and the parts that were not read for the longest time
//! are deleted when there are too many. Nothing rests on them. Whatever comes from a table is checked by its checksum, and
//! a part that fails is fetched again from the store; so is one that is gone. A disk that is full holds no new parts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use plugin::Context;
use slatedb::config::ObjectStoreCacheOptions;

use crate::settings::Settings;

const MIB: usize = 1024 * 1024;
/// What is fetched at once: a request costs as much as any other, and holds this much memory meanwhile.
const PART: usize = MIB;
/// The most by default.
const MOST: usize = 4096 * MIB;
/// The default where the size of the disk is unknown.
const UNKNOWN: usize = 1024 * MIB;
/// How often the folder is looked through, for what others have deleted.
const SCAN: Duration = Duration::from_secs(600);
/// Files of it that are open at once.
const FILES: usize = 256;

/// Where parts of tables are kept, and how many bytes of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DiskCache {
    pub(crate) folder: PathBuf,
    pub(crate) bytes: usize,
}

impl DiskCache {
    /// What the settings ask for, or else what suits the store. One folder for whatever shard the node has: names of tables
    /// are unique, and so the bound holds for all that it ever had.
    pub(crate) fn of(settings: &Settings, cx: &Context) -> Option<Self> {
        let wanted = settings.disk_cache_bytes().map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        let bytes = size(wanted, cx.objects_are_remote, || disk(&cx.cache_dir))?;
        Some(Self { folder: cx.cache_dir.join("storage"), bytes })
    }
}

/// How many bytes it may have; none for no cache.
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

/// The size of the disk that a folder is on, or will be on.
fn disk(folder: &Path) -> Option<u64> {
    let known = folder.ancestors().find_map(|folder| rustix::fs::statvfs(folder).ok())?;
    known.f_blocks.checked_mul(known.f_frsize)
}

/// The same as SlateDB has it.
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
