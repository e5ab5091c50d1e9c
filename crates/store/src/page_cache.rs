//! Small reads of files that are in the page cache, without the pool of blocking threads.
//!
//! The client of the file system opens a file on one of those threads and reads it on another; each change of threads costs
//! more than the read itself. So data in the system's page cache is read at once (`preadv2` with `RWF_NOWAIT`). All else,
//! also on systems without that call, is read as before.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use object_store::{GetResult, GetResultPayload};

/// The most bytes to copy on a thread that answers requests.
const MOST: u64 = 256 * 1024;

/// The same result, with its content already read if that needs no waiting.
pub(crate) fn read_if_cached(found: GetResult) -> GetResult {
    let length = found.range.end.saturating_sub(found.range.start);
    let GetResultPayload::File(file, _) = &found.payload else { return found };
    match usize::try_from(length) {
        Ok(wanted) if length <= MOST => match read(file, found.range.start, wanted) {
            Some(bytes) => {
                let payload = GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed());
                GetResult { payload, ..found }
            }
            None => found,
        },
        _ => found,
    }
}

/// All bytes of the range, or `None`.
#[cfg(target_os = "linux")]
fn read(file: &std::fs::File, from: u64, wanted: usize) -> Option<Bytes> {
    use rustix::io::{ReadWriteFlags, preadv2};

    let mut bytes = vec![0; wanted];
    let mut filled = 0;
    while filled < wanted {
        let rest = std::io::IoSliceMut::new(&mut bytes[filled..]);
        let at = from.checked_add(u64::try_from(filled).ok()?)?;
        match preadv2(file, &mut [rest], at, ReadWriteFlags::NOWAIT) {
            Ok(0) | Err(_) => return None,
            Ok(count) => filled += count,
        }
    }
    Some(bytes.into())
}

/// Other systems have no such call.
#[cfg(not(target_os = "linux"))]
fn read(_file: &std::fs::File, _from: u64, _wanted: usize) -> Option<Bytes> {
    None
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use object_store::local::LocalFileSystem;
    use object_store::path::Path;
    use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};

    use super::*;

    #[tokio::test]
    async fn a_read_from_the_page_cache_returns_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let files = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
        let path = Path::from("a");
        let content: Vec<u8> = (0..600_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        files.put(&path, content.clone().into()).await.unwrap();
        let ranges: [Option<Range<u64>>; 6] =
            [Some(0..1), Some(4_096..8_192), Some(0..MOST), Some(0..MOST + 1), Some(599_990..700_000), None];
        for range in ranges {
            let options = GetOptions { range: range.clone().map(GetRange::Bounded), ..GetOptions::default() };
            let found = read_if_cached(files.get_opts(&path, options).await.unwrap());
            let is_large = found.range.end - found.range.start > MOST;
            assert!(!is_large || matches!(found.payload, GetResultPayload::File(..)), "{range:?}");
            let expected = range.map_or(0..content.len(), |range| {
                usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap().min(content.len())
            });
            assert_eq!(found.bytes().await.unwrap(), content[expected]);
        }
        // A file that was truncated after it was opened is left to the ordinary read.
        let found = files.get_range(&path, 0..10).await.unwrap();
        assert_eq!(found, content[..10]);
        let options = GetOptions { range: Some(GetRange::Bounded(0..100_000)), ..GetOptions::default() };
        let found = files.get_opts(&path, options).await.unwrap();
        std::fs::write(folder.path().join("a"), b"short").unwrap();
        assert!(matches!(read_if_cached(found).payload, GetResultPayload::File(..)));
    }
}
