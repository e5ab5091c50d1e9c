//! An entry of a data log as bytes: a header with a checksum, then the records. Pure.
//!
//! ```text
//! "CDL" version | checksum | number | epoch | opening | floor | id | [count | (length | bytes)*]
//!   3      1         8         8       8        8         8     16     4        4
//! ```
//! Numbers are little-endian. The checksum is SipHash-1-3 with a zero key over all that follows it: it detects damage, not
//! forgery. An opening has nothing after the header, so a listing shows by its size that it is one.

use std::hash::Hasher;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use siphasher::sip::SipHasher13;
use types::Epoch;
use uuid::Uuid;

use crate::error::Fault;

const MAGIC: &[u8; 3] = b"CDL";
/// The only format of an entry so far.
const VERSION: u8 = 1;
/// The length of the part that the checksum does not cover.
const PREAMBLE: usize = MAGIC.len() + 1 + 8;
/// An opening's size.
pub(super) const HEADER: usize = PREAMBLE + 4 * 8 + 16;

/// An entry's fields besides its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) number: u64,
    /// The epoch of the claim under which it was written.
    pub(super) epoch: Epoch,
    /// The number of its writer's first entry.
    pub(super) opening: u64,
    /// Entries below this number are trimmed.
    pub(super) floor: u64,
    /// Unique, so that the writer of the entry recognizes it.
    pub(super) id: Uuid,
}

impl Header {
    fn is_opening(&self) -> bool {
        self.opening == self.number
    }
}

/// Whether an entry of this size has no records.
pub(super) fn is_without_records(size: usize) -> bool {
    size <= HEADER + 4
}

/// The bytes of an entry.
pub(super) fn encode(header: &Header, records: &[Bytes]) -> Bytes {
    let len = records.iter().map(|record| 4 + record.len()).sum::<usize>();
    let mut content = BytesMut::with_capacity(HEADER + 4 + len);
    content.put_slice(MAGIC);
    content.put_u8(VERSION);
    content.put_u64_le(0);
    content.put_u64_le(header.number);
    content.put_u64_le(header.epoch.0);
    content.put_u64_le(header.opening);
    content.put_u64_le(header.floor);
    content.put_slice(header.id.as_bytes());
    if !header.is_opening() {
        content.put_u32_le(length(records.len()));
        for record in records {
            content.put_u32_le(length(record.len()));
            content.put_slice(record);
        }
    }
    let sum = checksum(&content[PREAMBLE..]);
    content[PREAMBLE - 8..PREAMBLE].copy_from_slice(&sum.to_le_bytes());
    content.freeze()
}

/// The entry in an object of this number, or what is wrong with it.
pub(super) fn decode(number: u64, content: &Bytes) -> Result<(Header, Vec<Bytes>), (Fault, String)> {
    let damaged = |what: &str| (Fault::Damaged, format!("it is damaged: {what}"));
    if content.is_empty() {
        return Err(damaged("it is empty"));
    }
    let mut rest = content.clone();
    if rest.len() < HEADER || rest.split_to(MAGIC.len()) != MAGIC[..] {
        return Err(damaged("it does not begin as an entry does"));
    }
    let version = rest.get_u8();
    if version > VERSION {
        let cause = format!("it was written by a newer version (form {version}, this one reads {VERSION})");
        return Err((Fault::Newer, cause));
    }
    if version < VERSION || rest.get_u64_le() != checksum(&rest) {
        return Err(damaged("its checksum is wrong"));
    }
    let header = Header {
        number: rest.get_u64_le(),
        epoch: Epoch(rest.get_u64_le()),
        opening: rest.get_u64_le(),
        floor: rest.get_u64_le(),
        id: Uuid::from_bytes(rest.split_to(16).as_ref().try_into().map_err(|_| damaged("it is cut off"))?),
    };
    if header.number != number {
        return Err(damaged(&format!("it is entry {} under another name", header.number)));
    }
    let records = records(rest, header.is_opening()).ok_or_else(|| damaged("its records are cut off"))?;
    Ok((header, records))
}

fn records(mut rest: Bytes, is_opening: bool) -> Option<Vec<Bytes>> {
    if is_opening {
        return rest.is_empty().then(Vec::new);
    }
    let count = rest.try_get_u32_le().ok()?;
    let mut records = Vec::new();
    for _ in 0..count {
        let len = usize::try_from(rest.try_get_u32_le().ok()?).ok()?;
        if len > rest.len() {
            return None;
        }
        records.push(rest.split_to(len));
    }
    rest.is_empty().then_some(records)
}

fn length(len: usize) -> u32 {
    u32::try_from(len)
        .expect("a record has at most `MAX_RECORD` bytes, and an entry at most `GROUP.0` records")
}

fn checksum(content: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(content);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(number: u64, opening: u64) -> Header {
        Header { number, epoch: Epoch(7), opening, floor: 3, id: Uuid::from_u128(11) }
    }

    #[test]
    fn only_an_opening_has_the_size_of_a_header() {
        assert_eq!(encode(&header(5, 5), &[]).len(), HEADER);
        assert_eq!(encode(&header(6, 5), &[]).len(), HEADER + 4);
    }

    #[test]
    fn an_object_that_is_not_an_entry_is_reported_with_the_reason() {
        let whole = encode(&header(6, 5), &[Bytes::from_static(b"one")]);
        let fault = |number: u64, content: Bytes| decode(number, &content).unwrap_err();
        assert_eq!(fault(6, Bytes::new()), (Fault::Damaged, "it is damaged: it is empty".to_owned()));
        assert!(fault(6, Bytes::from_static(b"garbage")).1.contains("does not begin as an entry"));
        assert!(fault(7, whole.clone()).1.contains("entry 6 under another name"));
        assert!(fault(6, whole.slice(..whole.len() - 1)).1.contains("checksum"));
        let mut newer = whole.to_vec();
        newer[3] = 2;
        assert_eq!(fault(6, newer.into()).0, Fault::Newer);
    }

    proptest! {
        #[test]
        fn an_entry_is_read_as_it_was_written(records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8)) {
            let records: Vec<Bytes> = records.into_iter().map(Bytes::from).collect();
            let content = encode(&header(6, 5), &records);
            prop_assert_eq!(decode(6, &content), Ok((header(6, 5), records)));
        }

        #[test]
        fn no_changed_byte_goes_unnoticed(at in 0_usize..HEADER + 11, flip in 1_u8..) {
            let mut content = encode(&header(6, 5), &[Bytes::from_static(b"one")]).to_vec();
            content[at] ^= flip;
            prop_assert!(decode(6, &content.into()).is_err());
        }

        #[test]
        fn garbage_is_refused_without_a_panic(content in prop::collection::vec(any::<u8>(), 0..100), as_entry in any::<bool>()) {
            let mut content = content;
            if as_entry && content.len() >= PREAMBLE {
                content[..4].copy_from_slice(b"CDL\x01");
                let sum = checksum(&content[PREAMBLE..]);
                content[4..PREAMBLE].copy_from_slice(&sum.to_le_bytes());
            }
            let _ = decode(6, &content.into());
        }
    }
}
