//! A range of keys in order, and how many of them make a page. Independent of HTTP.

/// The default number of keys in a page.
const DEFAULT_LIMIT: usize = 1_000;
/// The largest number of keys in a page.
pub const MAX_LIMIT: usize = 10_000;
/// About how many bytes a page has at most before its last key.
pub const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Which keys are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanRange {
    /// The prefix of all listed keys.
    pub prefix: Vec<u8>,
    /// The first key that may be listed.
    pub start: Vec<u8>,
    /// The first key that is no longer listed.
    pub end: Option<Vec<u8>>,
    /// Only keys after this one are listed.
    pub after: Option<Vec<u8>>,
    /// The largest number of keys in a page.
    pub limit: usize,
    /// Whether values are listed too.
    pub values: bool,
    /// About how many bytes a page has before its last key.
    pub bytes: usize,
}

impl Default for ScanRange {
    fn default() -> Self {
        let (prefix, start) = (Vec::new(), Vec::new());
        let (limit, values, bytes) = (DEFAULT_LIMIT, false, MAX_BYTES);
        Self { prefix, start, end: None, after: None, limit, values, bytes }
    }
}

impl ScanRange {
    /// The first possible key, and the first one after the range, if any. `None` if the range is empty.
    pub fn limits(&self) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        let mut first = self.start.as_slice().max(self.prefix.as_slice()).to_vec();
        if let Some(after) = &self.after {
            // The smallest key after another one is that key and a zero byte.
            let next = [after.as_slice(), &[0]].concat();
            first = first.max(next);
        }
        let end = match (&self.end, successor(&self.prefix)) {
            (Some(end), Some(successor)) => Some(end.clone().min(successor)),
            (Some(end), None) => Some(end.clone()),
            (None, successor) => successor,
        };
        end.as_ref().is_none_or(|end| first < *end).then_some((first, end))
    }
}

/// The first key after all that begin with a prefix; `None` if there is none.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut next = prefix[..=last].to_vec();
    next[last] += 1;
    Some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(range: &ScanRange) -> Option<(String, Option<String>)> {
        let text = |bytes: Vec<u8>| bytes.escape_ascii().to_string();
        range.limits().map(|(first, end)| (text(first), end.map(text)))
    }

    #[test]
    fn a_range_is_what_all_limits_leave() {
        let bytes = |text: &str| text.as_bytes().to_vec();
        let all = ScanRange::default;
        let of = |first: &str, end: Option<&str>| Some((first.to_owned(), end.map(str::to_owned)));
        assert_eq!(limits(&all()), of("", None));
        for (prefix, first, end) in [
            (&b"a"[..], "a", Some("b")),
            (&[b'a', 255], "a\\xff", Some("b")),
            (&[255, 255], "\\xff\\xff", None),
        ] {
            assert_eq!(limits(&ScanRange { prefix: prefix.to_vec(), ..all() }), of(first, end));
        }
        for (prefix, start, end, after, expected) in [
            ("a", "ab", Some("ad"), None, of("ab", Some("ad"))),
            ("a", "A", Some("z"), None, of("a", Some("b"))),
            ("", "a", None, Some("a"), of("a\\x00", None)),
            ("", "b", None, Some("a"), of("b", None)),
            ("", "b", Some("b"), None, None),
            ("a", "b", None, None, None),
            ("", "", Some("a"), Some("a"), None),
            ("b", "", Some("b"), None, None),
        ] {
            let (end, after) = (end.map(bytes), after.map(bytes));
            let range = ScanRange { prefix: bytes(prefix), start: bytes(start), end, after, ..all() };
            assert_eq!(limits(&range), expected, "{range:?}");
        }
    }
}
