//! The route table: a path goes to the route with the longest matching prefix, else to the service type in its first
//! segment.
//!
//! Pure. Prefixes match whole segments of the raw path, which is never decoded or normalised.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use http::uri::PathAndQuery;
use mesh::BaseUrl;
use tokio::sync::Semaphore;
use types::ServiceName;

/// A path prefix: `/files`, or the empty one, which matches every path. Written with a leading slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prefix(String);

/// Why a text is no path prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PrefixError {
    /// Begin with a slash.
    #[error("`{0}` does not begin with `/`")]
    NoSlash(String),
    /// Remove the part that can't match.
    #[error("`{prefix}` has {bad}, so it would never match")]
    NeverMatches {
        /// The text that was given.
        prefix: String,
        /// A query, an empty segment, a `..`.
        bad: &'static str,
    },
}

/// A route: a prefix and its addresses.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) prefix: Prefix,
    pub(crate) to: Vec<BaseUrl>,
    pub(crate) strip_prefix: bool,
    /// One permit for each request that may be in flight on the route; `None` means no limit.
    pub(crate) places: Option<Arc<Semaphore>>,
}

/// All routes.
#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    /// Longest prefix first.
    ways: Vec<Way>,
}

/// The destination of a path.
#[derive(Debug)]
pub(crate) enum Destination<'a> {
    /// A route.
    Route(&'a Way),
    /// A service type.
    Service(ServiceName),
    /// No route and no service type matches.
    Nowhere,
}

impl Prefix {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    fn matches(&self, path: &str) -> bool {
        path.strip_prefix(&self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let Some(segments) = text.strip_prefix('/') else {
            return Err(PrefixError::NoSlash(text.to_owned()));
        };
        let segments = segments.strip_suffix('/').unwrap_or(segments);
        let bad = if text.contains('?') {
            Some("a query")
        } else if text.contains('#') {
            Some("a fragment")
        } else if text.parse::<PathAndQuery>().is_err() {
            Some("characters that no path has")
        } else if segments.split('/').any(|segment| matches!(segment, "." | "..")) {
            Some("a `.` or `..`")
        } else if text.contains("//") {
            Some("an empty segment")
        } else {
            None
        };
        match bad {
            Some(bad) => Err(PrefixError::NeverMatches { prefix: text.to_owned(), bad }),
            None if segments.is_empty() => Ok(Self(String::new())),
            None => Ok(Self(format!("/{segments}"))),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(if self.0.is_empty() { "/" } else { &self.0 })
    }
}

impl RouteTable {
    pub(crate) fn new(mut ways: Vec<Way>) -> Self {
        ways.sort_by_key(|way| std::cmp::Reverse(way.prefix.0.len()));
        Self { ways }
    }

    /// The destination of a path.
    pub(crate) fn destination(&self, path: &str) -> Destination<'_> {
        if let Some(way) = self.ways.iter().find(|way| way.prefix.matches(path)) {
            return Destination::Route(way);
        }
        match first_segment(path).parse() {
            Ok(service) => Destination::Service(service),
            Err(_) => Destination::Nowhere,
        }
    }

    /// The routes, longest prefix first.
    pub(crate) fn ways(&self) -> &[Way] {
        &self.ways
    }
}

/// `storage` of `/storage/a/b`.
pub(crate) fn first_segment(path: &str) -> &str {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split_once('/').map_or(path, |(first, _)| first)
}

/// The rest of a raw path and query after its first `len` bytes; the root if it is empty.
pub(crate) fn behind(path: &PathAndQuery, len: usize) -> PathAndQuery {
    let rest = &path.as_str()[len..];
    let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
    rest.parse().expect("the rest of a path after whole segments is a path")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(prefixes: &[&str]) -> RouteTable {
        let way = |prefix: &&str| Way {
            prefix: prefix.parse().unwrap(),
            to: Vec::new(),
            strip_prefix: true,
            places: None,
        };
        RouteTable::new(prefixes.iter().map(way).collect())
    }

    fn shown(table: &RouteTable, path: &str) -> String {
        match table.destination(path) {
            Destination::Route(way) => way.prefix.to_string(),
            Destination::Service(service) => format!("service {service}"),
            Destination::Nowhere => "nowhere".to_owned(),
        }
    }

    #[test]
    fn the_longest_prefix_wins_and_matches_whole_segments() {
        let table = table(&["/files", "/files/deep", "/storage/"]);
        for (path, destination) in [
            ("/files", "/files"),
            ("/files/", "/files"),
            ("/files//x", "/files"),
            ("/files/a%2Fb/..%2f", "/files"),
            ("/files/deeper", "/files"),
            ("/files/deep", "/files/deep"),
            ("/files/deep/x", "/files/deep"),
            ("/filesystem", "service filesystem"),
            ("/storage", "/storage"),
            ("/storage/x", "/storage"),
            ("/searcher/x", "service searcher"),
            ("/api-gateway", "service api-gateway"),
            ("/Files", "nowhere"),
            ("/%66iles", "nowhere"),
            ("//files", "nowhere"),
            ("/", "nowhere"),
            ("*", "nowhere"),
        ] {
            assert_eq!(shown(&table, path), destination, "{path}");
        }
    }

    #[test]
    fn the_root_prefix_takes_what_no_other_prefix_does() {
        let table = table(&["/", "/files"]);
        assert_eq!(shown(&table, "/files/x"), "/files");
        assert_eq!(shown(&table, "/storage/x"), "/");
        assert_eq!(shown(&table, "/"), "/");
    }

    #[test]
    fn a_prefix_that_could_never_match_is_refused() {
        for text in ["/a?b", "/a#b", "/a b", "/a/../b", "/./a", "//a", "/a//b", "//"] {
            assert!(matches!(text.parse::<Prefix>(), Err(PrefixError::NeverMatches { .. })), "{text}");
        }
        for text in ["", "a", "*"] {
            assert!(matches!(text.parse::<Prefix>(), Err(PrefixError::NoSlash(_))), "{text}");
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
    }
}
