//! The query of a URI: known names, each at most once; and percent-encoding (RFC 3986, section 2.1).
//!
//! Pure. It is stricter than the crates that parse forms: an unknown name is refused, since the caller would assume that
//! it has an effect, and a `%` that encodes nothing is an error instead of a percent sign. A `+` is a plus.

use axum::response::Response;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use types::{ShardId, did_you_mean};

use super::invalid;

/// Why a query is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct QueryError {
    message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

/// The text is not correctly percent-encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`%` at byte {at} is not followed by two hexadecimal digits; a percent sign itself is `%25`")]
pub struct EncodingError {
    /// The position of the `%`, from 0.
    pub at: usize,
}

impl QueryError {
    /// An error without a hint.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    /// Adds a hint on what to write instead.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The refusal: 400 `bad-query`.
    pub fn to_response(&self) -> Response {
        let hint = self.hint.as_deref().unwrap_or("leave the parameter out, or percent-encode its value");
        invalid("bad-query", self, hint)
    }
}

/// The parameters of a query, whose names must be in `known`, each at most once. The values are not decoded.
pub fn parameters<'a>(
    query: &'a str,
    known: &[&'static str],
) -> Result<Vec<(&'static str, &'a str)>, QueryError> {
    let mut found: Vec<(&'static str, &str)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(&name) = known.iter().find(|known| **known == name) else {
            return Err(unknown(name, known));
        };
        if found.iter().any(|(seen, _)| *seen == name) {
            return Err(QueryError::new(format!("`{name}` is given twice")));
        }
        found.push((name, value));
    }
    Ok(found)
}

/// Reads a flag, `true` or `false`.
pub fn flag(name: &str, value: &str) -> Result<bool, QueryError> {
    let flag = value.parse();
    flag.map_err(|_| QueryError::new(format!("`{name}` is `true` or `false`, not `{value}`")))
}

/// Reads the number of a shard.
pub fn shard(value: &str) -> Result<ShardId, QueryError> {
    let shard = value.parse::<u32>().ok().and_then(|shard| ShardId::try_from(shard).ok());
    shard.ok_or_else(|| QueryError::new(format!("`shard` is the number of a shard, not `{value}`")))
}

/// Reads the shard in a query with no other parameters.
pub fn only_shard(query: &str) -> Result<Option<ShardId>, QueryError> {
    parameters(query, &["shard"])?.first().map(|(_, value)| shard(value)).transpose()
}

/// Reads the bytes of a parameter's value, which is percent-encoded.
pub fn bytes(name: &str, value: &str) -> Result<Vec<u8>, QueryError> {
    percent_decode(value).map_err(|error| QueryError::new(format!("`{name}`: {error}")))
}

/// Decodes a percent-encoded text, once.
pub fn percent_decode(encoded: &str) -> Result<Vec<u8>, EncodingError> {
    let text = encoded.as_bytes();
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        if byte != b'%' {
            bytes.push(byte);
            at += 1;
            continue;
        }
        let digit = |at: usize| text.get(at).and_then(|&digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(at + 1), digit(at + 2)) else {
            return Err(EncodingError { at });
        };
        bytes.push(u8::try_from(high * 16 + low).expect("two hexadecimal digits are a byte"));
        at += 3;
    }
    Ok(bytes)
}

/// Percent-encodes bytes for a path or a query, in the one way in which answers write keys.
///
/// Letters, digits and `-._~` stand for themselves (RFC 3986, section 2.3); everything else is percent-encoded. `/`
/// stands for itself too, unless a client could take a segment for empty or dotted and normalise it away.
pub fn percent_encode(bytes: &[u8]) -> String {
    const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    const PATH: &AsciiSet = &SEGMENT.remove(b'/');
    let is_plain_path = bytes.split(|&byte| byte == b'/').all(|step| !matches!(step, b"" | b"." | b".."));
    percent_encoding::percent_encode(bytes, if is_plain_path { PATH } else { SEGMENT }).to_string()
}

fn unknown(name: &str, known: &[&'static str]) -> QueryError {
    let near = did_you_mean(name, known.iter().copied()).map(|known| format!("did you mean `{known}`?"));
    let hint = match (near, known) {
        (Some(near), _) => near,
        (None, []) => "leave it out: no parameters are taken here".to_owned(),
        (None, known) => format!("there are {}", known.join(", ")),
    };
    QueryError::new(format!("there is no parameter `{name}`")).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_known_parameter_may_be_there_once() {
        let known = ["prefix", "limit"];
        assert_eq!(
            parameters("limit=7&&prefix=a%20b", &known).unwrap(),
            [("limit", "7"), ("prefix", "a%20b")]
        );
        assert_eq!(parameters("prefix", &known).unwrap(), [("prefix", "")]);
        assert!(parameters("", &[]).unwrap().is_empty());
        for (query, message, hint) in [
            ("limit=1&limit=2", "`limit` is given twice", None),
            ("prefx=a", "there is no parameter `prefx`", Some("did you mean `prefix`?")),
            ("other=1", "there is no parameter `other`", Some("there are prefix, limit")),
        ] {
            let error = parameters(query, &known).unwrap_err();
            assert_eq!((error.to_string().as_str(), error.hint.as_deref()), (message, hint));
        }
        let hint = parameters("x=1", &[]).unwrap_err().hint;
        assert_eq!(hint.as_deref(), Some("leave it out: no parameters are taken here"));
    }

    #[test]
    fn values_are_read_by_their_kind() {
        assert_eq!((flag("values", "true"), flag("values", "false")), (Ok(true), Ok(false)));
        assert_eq!(flag("values", "1").unwrap_err().to_string(), "`values` is `true` or `false`, not `1`");
        assert_eq!(only_shard("shard=3").unwrap(), ShardId::try_from(3).ok());
        assert_eq!(only_shard("").unwrap(), None);
        for query in ["shard=x", "shard=-1", "shard=", "shard=99999999999", "limit=1"] {
            assert!(only_shard(query).is_err(), "{query}");
        }
    }

    #[test]
    fn a_text_is_decoded_once_and_an_unencoded_percent_sign_is_an_error() {
        for (text, bytes) in [("a/b+c", &b"a/b+c"[..]), ("%2525", b"%25"), ("%fF%00", &[255, 0]), ("", b"")] {
            assert_eq!(percent_decode(text).unwrap(), bytes, "{text}");
        }
        for (text, at) in [("%", 0), ("a%2", 1), ("a%2x", 1), ("%25%", 3)] {
            assert_eq!(percent_decode(text), Err(EncodingError { at }), "{text}");
        }
        assert!(bytes("prefix", "%").unwrap_err().to_string().starts_with("`prefix`: `%` at byte 0"));
    }

    #[test]
    fn segments_that_a_client_would_normalise_away_are_encoded() {
        for (bytes, text) in [
            ("user/1", "user/1"),
            ("a b&c=d?e#f%g+h", "a%20b%26c%3Dd%3Fe%23f%25g%2Bh"),
            ("a/../b", "a%2F..%2Fb"),
            ("/a", "%2Fa"),
            ("a/", "a%2F"),
            ("a//b/c", "a%2F%2Fb%2Fc"),
        ] {
            assert_eq!(percent_encode(bytes.as_bytes()), text);
        }
    }
}
