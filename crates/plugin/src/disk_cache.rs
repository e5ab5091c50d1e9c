//! How much of this node's disk a service may use for data that can be fetched again.

use std::path::{Path, PathBuf};

use crate::Context;

const MIB: usize = 1024 * 1024;
/// The smallest default size; on a smaller disk there is no cache.
const LEAST: usize = MIB;
/// The largest default size.
const MOST: usize = 4096 * MIB;
/// The default size where the size of the disk is unknown.
const UNKNOWN: usize = 1024 * MIB;

/// Where parts of remote objects may be cached, and how many bytes of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskCache {
    /// The folder, which may not exist yet.
    pub folder: PathBuf,
    /// The largest size of all files in it.
    pub bytes: usize,
}

impl Context {
    /// The service's cache on this node's disk, in this subfolder of [`cache_dir`](Self::cache_dir); `None` for no cache.
    ///
    /// `wanted` is the size in the settings, 0 for none. Unless given, there is no cache if the store is a folder, else one of
    /// 4 GiB or a tenth of the disk, whichever is less.
    pub fn disk_cache(&self, subfolder: &str, wanted: Option<usize>) -> Option<DiskCache> {
        let bytes = size(wanted, self.objects_are_remote, || disk(&self.cache_dir))?;
        Some(DiskCache { folder: self.cache_dir.join(subfolder), bytes })
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
            Some(tenth.unwrap_or(UNKNOWN).min(MOST)).filter(|bytes| *bytes >= LEAST)
        }
    }
}

/// The size of the disk that has the folder, or will have it.
fn disk(folder: &Path) -> Option<u64> {
    let known = folder.ancestors().find_map(|folder| rustix::fs::statvfs(folder).ok())?;
    known.f_blocks.checked_mul(known.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cloud_store_has_a_bounded_cache_on_disk_and_a_folder_has_none() {
        const GIB: usize = 1024 * MIB;
        for (wanted, is_remote, disk, expected) in [
            (None, false, Some(1 << 40), None),
            (None, true, Some(1 << 40), Some(4 * GIB)),
            (None, true, Some(20 << 30), Some(2 * GIB)),
            (None, true, None, Some(GIB)),
            (None, true, Some(1 << 20), None),
            (Some(0), true, Some(1 << 40), None),
            (Some(64 * MIB), true, Some(1 << 40), Some(64 * MIB)),
            (Some(8 * GIB), false, None, Some(8 * GIB)),
        ] {
            assert_eq!(size(wanted, is_remote, || disk), expected, "{wanted:?} {is_remote} {disk:?}");
        }
        assert!(disk(Path::new("/there/is/no/such/folder")).is_some_and(|bytes| bytes > 0));
    }
}
