//! API keys: a request passes if the SHA-256 of its key is one of those in the settings.
//!
//! The settings have digests, never keys. The field with the key is removed, so that no server behind the gateway sees
//! it.

use std::fmt;
use std::hint::black_box;
use std::str::FromStr;

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use types::{ErrorKind, Problem};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The SHA-256 of a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Digest([u8; SHA256_OUTPUT_LEN]);

/// The text is not the SHA-256 of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no SHA-256: that has 64 hexadecimal digits")]
pub(crate) struct DigestError;

/// The keys that open a route.
#[derive(Debug)]
pub(crate) struct KeySet {
    /// The name in the settings.
    pub(crate) name: String,
    pub(crate) digests: Vec<Digest>,
}

/// Why a request has no access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyError {
    /// Send a key.
    #[error("the request has no API key")]
    Missing,
    /// Send another key.
    #[error("the request's API key is not known")]
    Unknown,
}

impl KeyError {
    /// The error as problem details, with a hint.
    pub(crate) fn to_problem(self, route: &str) -> Problem {
        let (code, hint) = match self {
            Self::Missing => ("no-key", "send it as `Authorization: Bearer KEY` or `X-Api-Key: KEY`"),
            Self::Unknown => {
                ("unknown-key", "check the key; the operator has the digests of those that are valid")
            }
        };
        let detail = format!("{self}, and the route {route} needs one");
        let mut problem = Problem::new(ErrorKind::Forbidden, code, detail).hint(hint);
        problem.status = 401;
        problem
    }
}

impl Digest {
    fn of(key: &[u8]) -> Self {
        let mut bytes = [0; SHA256_OUTPUT_LEN];
        bytes.copy_from_slice(digest(&SHA256, key).as_ref());
        Self(bytes)
    }

    /// Whether both are equal, in a time that does not depend on where they differ.
    fn is(&self, other: &Self) -> bool {
        let pairs = self.0.iter().zip(&other.0);
        black_box(pairs.fold(0, |different, (one, other)| black_box(different | (one ^ other)))) == 0
    }
}

impl FromStr for Digest {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let mut bytes = [0; SHA256_OUTPUT_LEN];
        if text.len() != 2 * bytes.len() || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(DigestError);
        }
        for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| DigestError)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest")
    }
}

impl KeySet {
    /// Checks a request's key and removes it: that of `X-Api-Key` if the request has this field, else that of
    /// `Authorization: Bearer`. Returns the digest of the key.
    pub(crate) fn admit(&self, headers: &mut HeaderMap) -> Result<Digest, KeyError> {
        let mut values = headers.get_all(&X_API_KEY).iter();
        let (field, key) = match (values.next(), values.next()) {
            (Some(key), None) => (X_API_KEY, key.as_bytes()),
            (Some(_), Some(_)) => return Err(KeyError::Unknown),
            (None, _) => (AUTHORIZATION, bearer(headers).ok_or(KeyError::Missing)?),
        };
        let given = Digest::of(key);
        if !self.has(&given) {
            return Err(KeyError::Unknown);
        }
        headers.remove(field);
        Ok(given)
    }

    /// Compares with every digest, whichever matches.
    fn has(&self, given: &Digest) -> bool {
        self.digests.iter().fold(false, |found, digest| black_box(found | digest.is(given)))
    }
}

/// The token of the only `Authorization` field, if that has the scheme `Bearer`.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes);
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf %s secret | sha256sum`
    const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    fn admitted(lines: &[(&'static str, &'static str)]) -> Result<Vec<String>, KeyError> {
        let keys =
            KeySet { name: "partners".to_owned(), digests: vec![Digest([7; 32]), SECRET.parse().unwrap()] };
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        keys.admit(&mut headers)?;
        Ok(headers.keys().map(ToString::to_string).collect())
    }

    #[test]
    fn a_known_key_is_admitted_and_removed() {
        assert_eq!(admitted(&[("x-api-key", "secret")]), Ok(vec![]));
        assert_eq!(admitted(&[("authorization", "Bearer secret")]), Ok(vec![]));
        assert_eq!(admitted(&[("authorization", "bearer  secret ")]), Ok(vec![]));
        let both = [("x-api-key", "secret"), ("authorization", "Basic eA==")];
        assert_eq!(admitted(&both), Ok(vec!["authorization".to_owned()]), "it may be for the server");
    }

    #[test]
    fn any_other_request_is_refused() {
        for (lines, error) in [
            (&[][..], KeyError::Missing),
            (&[("authorization", "Basic c2VjcmV0")], KeyError::Missing),
            (&[("authorization", "Bearer")], KeyError::Missing),
            (&[("authorization", "Bearer ")], KeyError::Missing),
            (&[("authorization", "Bearersecret")], KeyError::Missing),
            (&[("authorization", "Bearer secret"), ("authorization", "Bearer secret")], KeyError::Missing),
            (&[("authorization", "Bearer Secret")], KeyError::Unknown),
            (&[("x-api-key", "")], KeyError::Unknown),
            (&[("x-api-key", SECRET)], KeyError::Unknown),
            (&[("x-api-key", "wrong"), ("authorization", "Bearer secret")], KeyError::Unknown),
            (&[("x-api-key", "secret"), ("x-api-key", "secret")], KeyError::Unknown),
        ] {
            assert_eq!(admitted(lines), Err(error), "{lines:?}");
        }
    }

    #[test]
    fn a_digest_has_64_hexadecimal_digits() {
        assert!(SECRET.to_uppercase().parse::<Digest>().is_ok());
        for text in [
            "",
            "secret",
            &SECRET[1..],
            &format!("{SECRET}0"),
            &SECRET.replace('2', "g"),
            &"\u{e9}".repeat(32),
        ] {
            assert_eq!(text.parse::<Digest>(), Err(DigestError), "{text}");
        }
    }
}
