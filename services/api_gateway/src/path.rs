//! Path patterns: what they match, and the rest of a path behind a match.
//!
//! Pure. A pattern matches the raw path, whose bytes are forwarded unchanged. Only for the comparison, percent-encoded
//! unreserved characters count as themselves and the case of hexadecimal digits is ignored (RFC 3986, section 6.2.2), so
//! that `/%66iles` is no way around a route for `/files`.

use std::fmt;
use std::str::FromStr;

use http::uri::PathAndQuery;

/// A whole path, or the beginning of one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum PathRule {
    /// This path alone.
    Exact(ExactPath),
    /// This path and every path below it.
    Prefix(Prefix),
}

/// A path prefix: `/files`, or the empty one, which matches every path. Written with a leading slash.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Prefix(String);

/// A path as a whole, such as `/healthz`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ExactPath(String);

/// Why a text is no pattern for paths.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    /// Begin with a slash.
    #[error("`{0}` does not begin with `/`")]
    NoSlash(String),
    /// Remove the part that can't match.
    #[error("`{path}` has {bad}, so it would never match")]
    NeverMatches {
        /// The text that was given.
        path: String,
        /// A query, an empty segment, a `..`.
        bad: &'static str,
    },
}

impl PathRule {
    /// The prefix without a trailing slash; empty for a whole path.
    pub(crate) fn prefix(&self) -> &str {
        match self {
            Self::Exact(_) => "",
            Self::Prefix(prefix) => prefix.as_str(),
        }
    }

    /// The number of bytes of a raw path that the pattern takes; `None` if it does not match.
    pub(crate) fn matched(&self, path: &str) -> Option<usize> {
        match self {
            Self::Exact(ExactPath(pattern)) => matched(path, pattern).filter(|len| *len == path.len()),
            Self::Prefix(Prefix(pattern)) => matched(path, pattern)
                .filter(|len| path.len() == *len || path.as_bytes().get(*len) == Some(&b'/')),
        }
    }
}

/// The number of bytes at the beginning of a raw path that a normalised pattern matches.
fn matched(path: &str, pattern: &str) -> Option<usize> {
    // Fast path: nearly all clients send the pattern as it is written.
    if !path.contains('%') {
        return path.starts_with(pattern).then_some(pattern.len());
    }
    let (raw, mut pattern) = (path.as_bytes(), pattern.as_bytes());
    let mut at = 0;
    while !pattern.is_empty() {
        let (unit, len) = unit(&raw[at..])?;
        pattern = pattern.strip_prefix(unit.as_slice())?;
        at += len;
    }
    Some(at)
}

/// One character of a path, for comparison.
enum Unit {
    Plain([u8; 1]),
    Encoded([u8; 3]),
}

impl Unit {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Plain(byte) => byte,
            Self::Encoded(bytes) => bytes,
        }
    }
}

/// The first character of a raw path and its length there.
fn unit(raw: &[u8]) -> Option<(Unit, usize)> {
    let first = *raw.first()?;
    let hex = |at: usize| raw.get(at).and_then(|digit| char::from(*digit).to_digit(16));
    let (Some(high), Some(low)) = (hex(1), hex(2)) else { return Some((Unit::Plain([first]), 1)) };
    if first != b'%' {
        return Some((Unit::Plain([first]), 1));
    }
    let byte = u8::try_from(high * 16 + low).expect("two hexadecimal digits are one byte");
    let is_unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let unit = if is_unreserved {
        Unit::Plain([byte])
    } else {
        Unit::Encoded([b'%', raw[1].to_ascii_uppercase(), raw[2].to_ascii_uppercase()])
    };
    Some((unit, 3))
}

/// The text in the form that paths are compared with.
fn normalised(text: &str) -> String {
    let mut raw = text.as_bytes();
    let mut bytes = Vec::with_capacity(raw.len());
    while let Some((unit, len)) = unit(raw) {
        bytes.extend_from_slice(unit.as_slice());
        raw = &raw[len..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Checks what no path has.
fn checked(text: &str) -> Result<String, PathError> {
    if !text.starts_with('/') {
        return Err(PathError::NoSlash(text.to_owned()));
    }
    let plain = normalised(text);
    let bad = if text.contains('?') {
        Some("a query")
    } else if text.contains('#') {
        Some("a fragment")
    } else if !text.is_ascii() || text.parse::<PathAndQuery>().is_err() {
        Some("characters that no path has")
    } else if plain.split('/').any(|segment| matches!(segment, "." | "..")) {
        Some("a `.` or `..`")
    } else if text.contains("//") {
        Some("an empty segment")
    } else {
        None
    };
    match bad {
        Some(bad) => Err(PathError::NeverMatches { path: text.to_owned(), bad }),
        None => Ok(plain),
    }
}

impl Prefix {
    /// Without a trailing slash; empty for the prefix of every path.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl ExactPath {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Prefix {
    type Err = PathError;
    fn from_str(text: &str) -> Result<Self, PathError> {
        let plain = checked(text)?;
        Ok(Self(plain.strip_suffix('/').unwrap_or(&plain).to_owned()))
    }
}

impl FromStr for ExactPath {
    type Err = PathError;
    fn from_str(text: &str) -> Result<Self, PathError> {
        checked(text).map(Self)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(if self.0.is_empty() { "/" } else { &self.0 })
    }
}

impl fmt::Display for PathRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => f.pad(path.as_str()),
            Self::Prefix(prefix) => prefix.fmt(f),
        }
    }
}

/// `storage` of `/storage/a/b`.
pub(crate) fn first_segment(path: &str) -> &str {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split_once('/').map_or(path, |(first, _)| first)
}

/// The rest of a raw path and query after its first `len` bytes; the root if it is empty.
pub(crate) fn behind(path: &PathAndQuery, len: usize) -> PathAndQuery {
    joined("", &path.as_str()[len..]).expect("the rest of a path after whole segments is a path")
}

/// A raw path and query: `before`, which has no trailing slash, and the rest of a path after whole segments. `None` if
/// that is longer than paths can be (64 KiB).
pub(crate) fn joined(before: &str, rest: &str) -> Option<PathAndQuery> {
    let slash = if before.is_empty() && !rest.starts_with('/') { "/" } else { "" };
    [before, slash, rest].concat().parse().ok()
}

/// Whether a path has an encoded slash, `%2F`.
pub(crate) fn has_encoded_slash(path: &str) -> bool {
    path.as_bytes().windows(3).any(|three| three.eq_ignore_ascii_case(b"%2f"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> PathRule {
        PathRule::Prefix(text.parse().unwrap())
    }

    fn exact(text: &str) -> PathRule {
        PathRule::Exact(text.parse().unwrap())
    }

    #[test]
    fn a_prefix_matches_whole_segments() {
        for (pattern, path, len) in [
            ("/files", "/files", Some(6)),
            ("/files", "/files/", Some(6)),
            ("/files", "/files/a%2Fb", Some(6)),
            ("/files/", "/files", Some(6)),
            ("/files", "/files//x", Some(6)),
            ("/files", "/filesystem", None),
            ("/files", "/Files", None),
            ("/files", "/files%2Fx", None),
            ("/files", "//files", None),
            ("/", "/", Some(0)),
            ("/", "/x", Some(0)),
            ("/", "*", None),
        ] {
            assert_eq!(prefix(pattern).matched(path), len, "{pattern} {path}");
        }
    }

    #[test]
    fn an_exact_path_matches_itself_alone() {
        for (pattern, path, is_match) in [
            ("/healthz", "/healthz", true),
            ("/healthz", "/healthz/", false),
            ("/healthz", "/healthz/x", false),
            ("/healthz", "/health%7a", true),
            ("/a/", "/a/", true),
            ("/a/", "/a", false),
            ("/", "/", true),
            ("/", "/x", false),
        ] {
            assert_eq!(exact(pattern).matched(path).is_some(), is_match, "{pattern} {path}");
        }
    }

    #[test]
    fn encoded_unreserved_characters_count_as_themselves_and_no_others_do() {
        for (pattern, path, len) in [
            ("/files", "/%66iles/%2e%2e", Some(8)),
            ("/files", "/%66%69%6C%65%73", Some(16)),
            ("/%66iles", "/files", Some(6)),
            ("/a%2fb", "/a%2Fb/x", Some(6)),
            ("/a%2fb", "/a/b", None),
            ("/a/b", "/a%2Fb", None),
            ("/a;b", "/a%3Bb", None),
            ("/a%3bb", "/a%3Bb", Some(6)),
            ("/a%zz", "/a%zz", Some(5)),
            ("/a", "/a%", None),
            ("/a", "/a%2", None),
        ] {
            assert_eq!(prefix(pattern).matched(path), len, "{pattern} {path}");
        }
    }

    #[test]
    fn a_pattern_that_could_never_match_is_refused() {
        for text in
            ["/a?b", "/a#b", "/a b", "/a/../b", "/./a", "/%2e%2E/b", "//a", "/a//b", "//", "/caf\u{e9}"]
        {
            assert!(matches!(text.parse::<Prefix>(), Err(PathError::NeverMatches { .. })), "{text}");
            assert!(matches!(text.parse::<ExactPath>(), Err(PathError::NeverMatches { .. })), "{text}");
        }
        for text in ["", "a", "*"] {
            assert!(matches!(text.parse::<Prefix>(), Err(PathError::NoSlash(_))), "{text}");
        }
    }

    #[test]
    fn the_path_after_a_prefix_keeps_its_bytes() {
        for (path, len, rest) in [
            ("/files/a%2Fb/..%2f/x?q=%20", 6, "/a%2Fb/..%2f/x?q=%20"),
            ("/files", 6, "/"),
            ("/files?q", 6, "/?q"),
            ("/files/?q=/", 6, "/?q=/"),
            ("/files//", 6, "//"),
            ("/x", 0, "/x"),
        ] {
            assert_eq!(behind(&path.parse().unwrap(), len).as_str(), rest);
        }
        for (before, rest, whole) in
            [("/v2", "/a//b?c", "/v2/a//b?c"), ("/v2", "", "/v2"), ("/v2", "?q", "/v2?q"), ("", "", "/")]
        {
            assert_eq!(joined(before, rest).unwrap().as_str(), whole);
        }
        let long = format!("/{}", "a".repeat(65_000));
        assert_eq!(joined(&long, &long), None);
    }

    #[test]
    fn encoded_slashes_are_found() {
        for (path, has) in [("/a%2fb", true), ("/a%2F", true), ("/a%252f", false), ("/a%2", false)] {
            assert_eq!(has_encoded_slash(path), has, "{path}");
        }
    }
}
