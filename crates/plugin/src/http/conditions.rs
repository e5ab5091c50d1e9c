//! Conditions in headers (RFC 9110, section 13), and versions as entity tags.
//!
//! A write takes one condition of a supported kind. Every other condition is refused: if it were ignored, the
//! client would believe that it held.

use axum::response::Response;
use bytes::Bytes;
use http::header::{ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::invalid;
use crate::shard::Condition;

/// Why the condition of a write is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum ConditionError {
    /// Leave the header out.
    #[error("writes with `{0}` are not supported")]
    Unsupported(HeaderName),
    /// Send one condition.
    #[error("a write has one condition, and this one has several")]
    Several,
    /// Write `*`.
    #[error("`If-None-Match` of a write is `*`, not `{0}`")]
    NotAny(String),
    /// Write a version exactly as an answer showed it.
    #[error("`If-Match` of a write is `*` or one version in double quotes, not `{0}`")]
    NotAVersion(String),
}

/// The strong entity tag of a version, quoted.
pub fn etag(version: u64) -> String {
    format!("\"{version}\"")
}

/// Sets the header that states the version of the value.
pub fn set_etag(headers: &mut HeaderMap, version: u64) {
    let tag = HeaderValue::from_maybe_shared(Bytes::from(etag(version)));
    headers.insert(ETAG, tag.expect("an entity tag is printable"));
}

/// The version in a text; each version has only one spelling.
pub fn version(text: &str) -> Option<u64> {
    let version = text.parse::<u64>().ok()?;
    (version.to_string() == text).then_some(version)
}

/// The condition of a write, or a refusal.
pub fn of_write(headers: &HeaderMap) -> Result<Option<Condition>, Response> {
    let hint = "send one of `If-None-Match: *`, `If-Match: *` and `If-Match: \"17\"`, or none of them";
    condition(headers).map_err(|error| invalid("bad-condition", &error, hint))
}

fn condition(headers: &HeaderMap) -> Result<Option<Condition>, ConditionError> {
    for name in [IF_UNMODIFIED_SINCE, IF_MODIFIED_SINCE, IF_RANGE] {
        if headers.contains_key(&name) {
            return Err(ConditionError::Unsupported(name));
        }
    }
    let mut given = [IF_MATCH, IF_NONE_MATCH].into_iter().flat_map(|name| {
        headers.get_all(&name).iter().map(move |value| (name.clone(), value)).collect::<Vec<_>>()
    });
    let Some((name, value)) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(ConditionError::Several);
    }
    let text = String::from_utf8_lossy(value.as_bytes()).trim().to_owned();
    match (name == IF_MATCH, text.as_str()) {
        (true, "*") => Ok(Some(Condition::Present)),
        (false, "*") => Ok(Some(Condition::Absent)),
        (false, _) => Err(ConditionError::NotAny(text)),
        (true, tag) => match tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).and_then(version) {
            Some(version) => Ok(Some(Condition::Version(version))),
            None => Err(ConditionError::NotAVersion(text)),
        },
    }
}

/// What the conditions of a read decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// The value is sent.
    Holds,
    /// The client has this version already: 304.
    NotModified,
    /// The value is none that the client asks for: 412.
    Failed,
}

/// What the conditions of a read decide for a value of this version; `None` if there is no value.
pub fn of_read(headers: &HeaderMap, version: Option<u64>) -> Precondition {
    let tag = version.map(etag);
    if !is_asked_for(headers, tag.as_deref()) {
        Precondition::Failed
    } else if tag.is_some_and(|tag| names(headers, &tag)) {
        Precondition::NotModified
    } else {
        Precondition::Holds
    }
}

/// Whether the version is one that `If-Match` lists, if the request has one (RFC 9110, section 13.1.1).
fn is_asked_for(headers: &HeaderMap, etag: Option<&str>) -> bool {
    let asked = headers.get_all(IF_MATCH);
    let mut tags = asked.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    asked.iter().next().is_none()
        || etag.is_some_and(|etag| tags.any(|tag| ["*", etag].contains(&tag.trim())))
}

/// Whether `If-None-Match` lists an entity tag (RFC 9110, section 13.1.2).
fn names(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(HeaderName, &'static str)]) -> Result<Option<Condition>, ConditionError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_static(value));
        }
        condition(&map)
    }

    #[test]
    fn a_write_takes_one_condition() {
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[(IF_NONE_MATCH, "*")]), Ok(Some(Condition::Absent)));
        assert_eq!(of(&[(IF_MATCH, "*")]), Ok(Some(Condition::Present)));
        assert_eq!(of(&[(IF_MATCH, "\"17\"")]), Ok(Some(Condition::Version(17))));
        let last = "\"18446744073709551615\"";
        assert_eq!(
            (etag(u64::MAX).as_str(), of(&[(IF_MATCH, last)])),
            (last, Ok(Some(Condition::Version(u64::MAX))))
        );
    }

    #[test]
    fn a_condition_that_would_be_ignored_is_refused() {
        for tag in ["W/\"17\"", "\"1\", \"2\"", "17", "\"\"", "\"x\"", "\"017\"", "\"+1\"", "\"-1\"", ""] {
            assert_eq!(of(&[(IF_MATCH, tag)]), Err(ConditionError::NotAVersion(tag.to_owned())), "{tag}");
        }
        assert_eq!(of(&[(IF_MATCH, "\"18446744073709551616\"")]).ok(), None);
        for tag in ["\"17\"", "W/\"17\"", "\"1\", \"2\"", "*, \"1\""] {
            assert_eq!(of(&[(IF_NONE_MATCH, tag)]), Err(ConditionError::NotAny(tag.to_owned())), "{tag}");
        }
        assert_eq!(of(&[(IF_MATCH, "*"), (IF_NONE_MATCH, "*")]), Err(ConditionError::Several));
        assert_eq!(of(&[(IF_MATCH, "\"1\""), (IF_MATCH, "\"2\"")]), Err(ConditionError::Several));
        for name in [IF_UNMODIFIED_SINCE, IF_MODIFIED_SINCE, IF_RANGE] {
            assert_eq!(of(&[(name.clone(), "x")]), Err(ConditionError::Unsupported(name)));
        }
    }

    #[test]
    fn a_read_can_require_one_of_several_versions() {
        let asks = |value: &'static str, etag| {
            is_asked_for(&HeaderMap::from_iter([(IF_MATCH, HeaderValue::from_static(value))]), etag)
        };
        let there = Some("\"17\"");
        assert!(asks("\"17\"", there) && asks("\"1\", \"17\"", there) && asks("*", there));
        assert!(!asks("\"1\"", there) && !asks("W/\"17\"", there), "a weak tag matches nothing");
        assert!(!asks("*", None) && is_asked_for(&HeaderMap::new(), None));
    }

    #[test]
    fn a_tag_is_found_in_a_list() {
        let matches = |value: &'static str| {
            names(&HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static(value))]), "\"1\"")
        };
        assert!(matches("\"1\"") && matches("\"0\", W/\"1\"") && matches("*"));
        assert!(!matches("\"11\"") && !matches("1") && !matches(""));
    }
}
