//! How a value is stored in the database: a small header, then the bytes that were put.
//!
//! ```text
//! 1 byte    version of this format: 2
//! 16 bytes  the hash of all that follows, big endian
//! 8 bytes   when it expires, in milliseconds since 1970, big endian; 0 for never
//! 1 byte    length of the content type, 0 for none
//! …         the content type, as in the header of the request
//! …         the value
//! ```
//!
//! The hash is checked before any of the value is returned, so that damaged bytes are never returned as data.

use std::hash::Hasher;
use std::num::NonZeroU64;

use bytes::{BufMut, Bytes, BytesMut};
use siphasher::sip128::{Hasher128, SipHasher13};

const VERSION: u8 = 2;
const HASH: std::ops::Range<usize> = 1..17;
const EXPIRY: std::ops::Range<usize> = 17..25;
const FIXED: usize = 26;

/// The content type of a value that was put without one.
const NO_CONTENT_TYPE: Bytes = Bytes::from_static(b"application/octet-stream");

/// The longest content type, in bytes.
pub(crate) const MAX_CONTENT_TYPE: usize = 255;

/// What was put under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    expires_ms: Option<NonZeroU64>,
    content_type: Bytes,
    value: Bytes,
}

/// A record and the version of the write that put it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Versioned {
    /// The number of the write. Numbers rise with each write to a shard.
    pub(crate) version: u64,
    /// The record that was put.
    pub(crate) record: Record,
}

/// Why stored bytes are no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    /// Run the version of Coterie that wrote it.
    #[error("the value was stored in format {0}; this version of Coterie reads format {VERSION}")]
    UnknownVersion(u8),
    /// The data is damaged, or another program wrote it.
    #[error("the stored value is cut short")]
    CutShort,
    /// The data is damaged.
    #[error("the stored value is not what was put: its checksum is wrong")]
    Damaged,
}

impl Record {
    /// A value with the content type that it was put with, of which at most [`MAX_CONTENT_TYPE`] bytes are kept.
    pub(crate) fn new(content_type: Option<&[u8]>, value: Bytes) -> Self {
        let content_type = content_type.map_or_else(Bytes::new, |named| {
            Bytes::copy_from_slice(&named[..named.len().min(MAX_CONTENT_TYPE)])
        });
        Self { expires_ms: None, content_type, value }
    }

    /// The same with an expiry time.
    #[must_use]
    pub(crate) fn expiring(self, expires_ms: Option<NonZeroU64>) -> Self {
        Self { expires_ms, ..self }
    }

    /// The stored form.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(FIXED + self.content_type.len() + self.value.len());
        out.put_u8(VERSION);
        out.put_u128(0);
        out.put_u64(self.expires_ms.map_or(0, NonZeroU64::get));
        out.put_u8(u8::try_from(self.content_type.len()).expect("it is at most 255 bytes long"));
        out.put_slice(&self.content_type);
        out.put_slice(&self.value);
        let checksum = checksum(&out[HASH.end..]);
        out[HASH].copy_from_slice(&checksum.to_be_bytes());
        out.freeze()
    }

    /// Decodes the stored form and checks its hash.
    pub(crate) fn decode(stored: &Bytes) -> Result<Self, RecordError> {
        let record = Self::skim(stored)?;
        if stored[HASH] == checksum(&stored[HASH.end..]).to_be_bytes() {
            Ok(record)
        } else {
            Err(RecordError::Damaged)
        }
    }

    /// Decodes the stored form without checking its hash, for callers that return nothing of the value.
    pub(crate) fn skim(stored: &Bytes) -> Result<Self, RecordError> {
        match stored.first() {
            None => return Err(RecordError::CutShort),
            Some(&VERSION) => {}
            Some(&other) => return Err(RecordError::UnknownVersion(other)),
        }
        let (fixed, rest) = stored.split_first_chunk::<FIXED>().ok_or(RecordError::CutShort)?;
        let expires = fixed[EXPIRY].try_into().map(u64::from_be_bytes).expect("the range has eight bytes");
        let start = FIXED + usize::from(fixed[FIXED - 1]);
        if rest.len() + FIXED < start {
            return Err(RecordError::CutShort);
        }
        Ok(Self {
            expires_ms: NonZeroU64::new(expires),
            content_type: stored.slice(FIXED..start),
            value: stored.slice(start..),
        })
    }

    /// When it expires, in milliseconds since 1970.
    pub(crate) fn expires_ms(&self) -> Option<NonZeroU64> {
        self.expires_ms
    }

    /// The content type.
    pub(crate) fn content_type(&self) -> Bytes {
        if self.content_type.is_empty() { NO_CONTENT_TYPE } else { self.content_type.clone() }
    }

    /// The value.
    pub(crate) fn value(&self) -> &Bytes {
        &self.value
    }

    /// Takes the value out.
    pub(crate) fn into_value(self) -> Bytes {
        self.value
    }
}

/// SipHash-1-3 with 128 bits and a zero key (Aumasson and Bernstein, 2012): it detects damage, not forgery.
fn checksum(bytes: &[u8]) -> u128 {
    let mut hasher = SipHasher13::new();
    hasher.write(bytes);
    hasher.finish128().as_u128()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(content_type: Option<&'static str>, value: &'static [u8]) -> Record {
        Record::new(content_type.map(str::as_bytes), Bytes::from_static(value))
    }

    #[test]
    fn a_record_reads_back_as_it_was_put() {
        for (content_type, value) in [(None, &b""[..]), (Some("text/plain"), b"hello"), (None, &[0, 255, 1])]
        {
            for expires in [None, NonZeroU64::new(17), Some(NonZeroU64::MAX)] {
                let put = record(content_type, value).expiring(expires);
                let read = Record::decode(&put.encode()).unwrap();
                assert_eq!(read, put);
                assert_eq!(read.value(), value);
                assert_eq!(read.expires_ms(), expires);
                assert_eq!(read.content_type(), content_type.unwrap_or("application/octet-stream"));
            }
        }
    }

    #[test]
    fn a_stored_form_never_changes_between_versions() {
        let stored = record(Some("text/plain"), b"hello").expiring(NonZeroU64::new(258)).encode();
        let hex: String = stored.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "027d67399e6e9ab395b860ccef78a1fcdb00000000000001020a746578742f706c61696e68656c6c6f");
    }

    #[test]
    fn any_bit_that_flips_is_found() {
        let stored = record(Some("text/plain"), b"hello").encode();
        for bit in 0..stored.len() * 8 {
            let mut flipped = stored.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::decode(&flipped.into()).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn bytes_that_are_no_record_are_refused() {
        let stored = record(Some("text/plain"), b"").encode();
        assert_eq!(Record::decode(&Bytes::new()), Err(RecordError::CutShort));
        assert_eq!(Record::decode(&stored.slice(..25)), Err(RecordError::CutShort));
        assert_eq!(Record::decode(&stored.slice(..28)), Err(RecordError::CutShort));
        assert_eq!(Record::decode(&Bytes::from_static(&[1, 0])), Err(RecordError::UnknownVersion(1)));
        assert_eq!(Record::decode(&Bytes::from_static(&[3, 0])), Err(RecordError::UnknownVersion(3)));
    }
}
