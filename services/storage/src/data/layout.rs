//! How keys are stored in the database.

use std::ops::Range;

use bytes::Bytes;
use plugin::shard::ScanRange;

/// The first byte of every stored key; other bytes are left for other kinds of rows.
const KEYS: u8 = b'k';

/// A key as it is stored in the database.
pub(crate) fn stored(key: &[u8]) -> Bytes {
    [&[KEYS], key].concat().into()
}

/// The stored keys in a range; `None` if there can be none.
pub(crate) fn key_range(range: &ScanRange) -> Option<Range<Bytes>> {
    let (first, end) = range.limits()?;
    Some(stored(&first)..end.map_or_else(|| Bytes::from_static(&[KEYS + 1]), |end| stored(&end)))
}
