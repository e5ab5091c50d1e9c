//! How keys lie in the database.

use std::ops::Range;

use bytes::Bytes;

use super::range::ScanRange;

/// Keys lie below this byte, so that there is a place for other things beside them.
const KEYS: u8 = b'k';

/// A key as it lies in the database.
pub(crate) fn stored(key: &[u8]) -> Bytes {
    [&[KEYS], key].concat().into()
}

/// What is asked for, as keys lie in the database. Nothing if it can be none.
pub(crate) fn key_range(range: &ScanRange) -> Option<Range<Bytes>> {
    let (first, end) = range.limits()?;
    Some(stored(&first)..end.map_or_else(|| Bytes::from_static(&[KEYS + 1]), |end| stored(&end)))
}
