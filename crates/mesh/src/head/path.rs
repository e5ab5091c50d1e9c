//! Refuses paths by which a request could leave its base path on the server.
//!
//! A server that normalises `/public/../secret`, or decodes `%2e` first, leaves `/public`.

use types::{ErrorKind, Problem};

/// Why a path is not sent along a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DotSegments {
    /// Send the path without the segment.
    #[error("the path has a segment `{0}`, which would lead out of the route")]
    Segment(&'static str),
    /// Remove the null byte.
    #[error("the path has a null byte")]
    Null,
}

impl DotSegments {
    /// The error as problem details, with a hint.
    pub fn to_problem(self) -> Problem {
        Problem::new(ErrorKind::Invalid, "bad-path", self.to_string())
            .hint("send the path that is meant, without such a segment")
    }
}

/// Refuses a raw path with a segment that is `.` or `..` after `%2e` is decoded, with or without a parameter (`..;a`).
/// A backslash, plain or as `%5c`, also ends a segment, because some servers treat it as a slash. With a base path, a
/// null byte is refused, too.
pub fn no_dot_segments(path: &str, has_base_path: bool) -> Result<(), DotSegments> {
    // Fast path: nearly all paths have neither character.
    if !path.contains('.') && !path.contains('%') {
        return Ok(());
    }
    let lower = path.to_ascii_lowercase();
    if has_base_path && lower.contains("%00") {
        return Err(DotSegments::Null);
    }
    let plain = lower.replace("%2e", ".").replace("%5c", "/").replace('\\', "/");
    for segment in plain.split('/') {
        match segment.split_once(';').map_or(segment, |(name, _)| name) {
            "." => return Err(DotSegments::Segment(".")),
            ".." => return Err(DotSegments::Segment("..")),
            _ => {}
        }
    }
    Ok(())
}

/// Refuses a literal `.` or `..` in a path to a service: clients remove these before they send a path, so only an attacker
/// leaves one there.
pub fn no_literal_dots(path: &str) -> Result<(), Problem> {
    if !path.contains("/.") || !path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Ok(());
    }
    let problem = Problem::new(ErrorKind::Invalid, "bad-path", "the path has a segment `.` or `..`");
    Err(problem.hint("send the path that is meant; in a key, write a dot as `%2E`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_dot_segment_is_refused_and_an_encoded_one_is_a_key() {
        for (path, has) in [("/a/../b", true), ("/a/.", true), ("/a/.b", false), ("/a/%2e%2e", false)] {
            assert_eq!(no_literal_dots(path).is_err(), has, "{path}");
        }
    }

    #[test]
    fn dot_segments_are_found_in_every_spelling() {
        for bad in [
            "/base/../secret",
            "/base/%2e%2e/secret",
            "/base/.%2E/secret",
            "/base/..",
            "/./x",
            "/x/%2e",
            "/base/..;a=b/secret",
            "/base/..\\secret",
            "/base/..%5csecret",
            "/base/x%5C..",
        ] {
            assert!(no_dot_segments(bad, false).is_err(), "{bad}");
        }
        for fine in [
            "/base/secret",
            "/base/...",
            "/base/.hidden",
            "/base/a..b",
            "/base/%252e%252e/x",
            "/base/..%2fx",
            "/base//x;y/",
            "/%00",
        ] {
            assert_eq!(no_dot_segments(fine, false), Ok(()), "{fine}");
        }
        assert_eq!(no_dot_segments("/x%00", true), Err(DotSegments::Null));
    }
}
