//! Keys: any bytes, and how they are written in paths and queries.
//!
//! One function decodes keys for the handler and for the choice of a shard, so that they cannot disagree.

use std::fmt;

use bytes::Bytes;
use types::KeyHash;
use types::key_value::MAX_KEY;

use crate::http::query::{EncodingError, percent_decode, percent_encode};

/// A key: 1 to [`MAX_KEY`] bytes, any bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(Bytes);

/// Why a text is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Name a key.
    #[error("the key is empty")]
    Empty,
    /// Use a shorter key.
    #[error("the key has {0} bytes; at most {MAX_KEY} are allowed")]
    TooLong(usize),
    /// Write a percent sign as `%25`.
    #[error(transparent)]
    Encoding(#[from] EncodingError),
}

impl Key {
    /// The key with these bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, KeyError> {
        let bytes = bytes.into();
        match bytes.len() {
            0 => Err(KeyError::Empty),
            long if long > MAX_KEY => Err(KeyError::TooLong(long)),
            _ => Ok(Self(bytes)),
        }
    }

    /// The key that a part of a path names: decoded once; `/` and `+` stand for themselves.
    pub fn from_path(encoded: &str) -> Result<Self, KeyError> {
        Self::new(percent_decode(encoded)?)
    }

    /// Its bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The hash that decides its shard: of the text in its first braces, or of all of it.
    pub fn hash(&self) -> KeyHash {
        KeyHash::of_tagged(&self.0)
    }
}

/// As in paths and listings.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&percent_encode(&self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_is_decoded_once_and_a_plus_is_a_plus() {
        for (path, bytes) in [
            ("a/b", &b"a/b"[..]),
            ("a%2Fb", b"a/b"),
            ("a%2fb+c", b"a/b+c"),
            ("%2525", b"%25"),
            ("%00%FF", &[0, 255]),
            ("//", b"//"),
            ("ü", "ü".as_bytes()),
        ] {
            assert_eq!(Key::from_path(path).unwrap().bytes(), bytes, "{path}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert_eq!(Key::from_path(""), Err(KeyError::Empty));
        for (path, at) in [("%", 0), ("a%2", 1), ("a%zz", 1), ("%25%", 3), ("%+1", 0)] {
            assert_eq!(Key::from_path(path), Err(EncodingError { at }.into()), "{path}");
        }
        assert!(Key::from_path(&"a".repeat(MAX_KEY)).is_ok());
        assert!(Key::from_path(&"%61".repeat(MAX_KEY)).is_ok(), "the decoded key counts");
        assert_eq!(Key::from_path(&"a".repeat(MAX_KEY + 1)), Err(KeyError::TooLong(MAX_KEY + 1)));
    }

    proptest! {
        #[test]
        fn every_key_is_read_back_from_its_encoded_form(bytes in prop::collection::vec(any::<u8>(), 1..64)) {
            let key = Key::new(bytes).unwrap();
            prop_assert_eq!(Key::from_path(&key.to_string()).unwrap(), key);
        }
    }
}
