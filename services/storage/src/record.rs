//! How a value lies in the database: a small header before the bytes that were put.
//!
//! ```text
//! 1 byte    version of this format: 1
//! 16 bytes  the hash behind the ETag, big endian
//! 1 byte    length of the content type, 0 for none
//! …         the content type, as in the header of the request
//! …         the value
//! ```

use std::hash::Hasher;

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderValue;
use siphasher::sip128::{Hasher128, SipHasher13};

const VERSION: u8 = 1;
const FIXED: usize = 18;

/// The content type of a value that was put without one.
const NO_CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// The longest content type, in bytes.
pub(crate) const MAX_CONTENT_TYPE: usize = 255;

/// What was put under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    etag: u128,
    content_type: Bytes,
    value: Bytes,
}

/// Why stored bytes are no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    /// Run the version of Coterie that wrote it, or a later one.
    #[error("the value was stored in format {0}; this version of Coterie reads format {VERSION}")]
    UnknownVersion(u8),
    /// The data is damaged, or something else wrote it.
    #[error("the stored value is cut short")]
    CutShort,
}

impl Record {
    /// A value with the content type that it was put with. The content type has at most [`MAX_CONTENT_TYPE`] bytes.
    pub(crate) fn new(content_type: Option<&HeaderValue>, value: Bytes) -> Self {
        let content_type = content_type.map_or_else(Bytes::new, |named| {
            Bytes::copy_from_slice(&named.as_bytes()[..named.len().min(MAX_CONTENT_TYPE)])
        });
        // SipHash-1-3 with 128 bits and a zero key (Aumasson and Bernstein, 2012): it finds changes, not forgers.
        let mut hasher = SipHasher13::new();
        hasher.write(&content_type);
        hasher.write_u8(u8::try_from(content_type.len()).expect("it is at most 255 bytes long"));
        hasher.write(&value);
        Self { etag: hasher.finish128().as_u128(), content_type, value }
    }

    /// The stored form.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(FIXED + self.content_type.len() + self.value.len());
        out.put_u8(VERSION);
        out.put_u128(self.etag);
        out.put_u8(u8::try_from(self.content_type.len()).expect("it is at most 255 bytes long"));
        out.put_slice(&self.content_type);
        out.put_slice(&self.value);
        out.freeze()
    }

    /// Reads the stored form.
    pub(crate) fn decode(stored: &Bytes) -> Result<Self, RecordError> {
        match stored.first() {
            None => return Err(RecordError::CutShort),
            Some(&VERSION) => {}
            Some(&other) => return Err(RecordError::UnknownVersion(other)),
        }
        let (fixed, rest) = stored.split_first_chunk::<FIXED>().ok_or(RecordError::CutShort)?;
        let etag = fixed[1..17].try_into().map(u128::from_be_bytes).map_err(|_| RecordError::CutShort)?;
        let start = FIXED + usize::from(fixed[17]);
        if rest.len() + FIXED < start {
            return Err(RecordError::CutShort);
        }
        Ok(Self { etag, content_type: stored.slice(FIXED..start), value: stored.slice(start..) })
    }

    /// The strong entity tag, quoted (RFC 9110, section 8.8.3). It depends on the value and its content type alone.
    pub(crate) fn etag(&self) -> String {
        format!("\"{:032x}\"", self.etag)
    }

    /// The content type.
    pub(crate) fn content_type(&self) -> HeaderValue {
        if self.content_type.is_empty() {
            return NO_CONTENT_TYPE;
        }
        HeaderValue::from_maybe_shared(self.content_type.clone()).unwrap_or(NO_CONTENT_TYPE)
    }

    /// The value.
    pub(crate) fn value(&self) -> &Bytes {
        &self.value
    }

    /// The value alone.
    pub(crate) fn into_value(self) -> Bytes {
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(content_type: Option<&'static str>, value: &'static [u8]) -> Record {
        Record::new(content_type.map(HeaderValue::from_static).as_ref(), Bytes::from_static(value))
    }

    #[test]
    fn a_record_reads_back_as_it_was_put() {
        for (content_type, value) in [(None, &b""[..]), (Some("text/plain"), b"hello"), (None, &[0, 255, 1])]
        {
            let put = record(content_type, value);
            let read = Record::decode(&put.encode()).unwrap();
            assert_eq!(read, put);
            assert_eq!(read.value(), value);
            assert_eq!(read.content_type(), content_type.unwrap_or("application/octet-stream"));
        }
    }

    #[test]
    fn the_etag_changes_with_the_value_and_its_content_type_and_with_nothing_else() {
        let put = record(Some("text/plain"), b"a");
        assert_eq!(put.etag(), record(Some("text/plain"), b"a").etag());
        assert_ne!(put.etag(), record(Some("text/plain"), b"b").etag());
        assert_ne!(put.etag(), record(Some("text/html"), b"a").etag());
        assert_ne!(record(None, b"text/plaina").etag(), put.etag());
        assert_eq!(put.etag().len(), 34);
    }

    #[test]
    fn an_etag_never_changes_between_versions() {
        assert_eq!(record(Some("text/plain"), b"hello").etag(), "\"19ae5d250097374b83ceeb7fe2ad47f5\"");
    }

    #[test]
    fn what_is_no_record_is_told_apart() {
        let stored = record(Some("text/plain"), b"").encode();
        assert_eq!(Record::decode(&Bytes::new()), Err(RecordError::CutShort));
        assert_eq!(Record::decode(&stored.slice(..17)), Err(RecordError::CutShort));
        assert_eq!(Record::decode(&stored.slice(..20)), Err(RecordError::CutShort));
        assert_eq!(Record::decode(&Bytes::from_static(&[2, 0])), Err(RecordError::UnknownVersion(2)));
    }
}
