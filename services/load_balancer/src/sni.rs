//! Which target a server name leads to. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A server name, or all names below one. In lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Pattern {
    Exact(String),
    /// `.shop.example` for `*.shop.example`.
    Below(String),
}

/// The text is no pattern: write `shop.example` or `*.shop.example`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no server name")]
pub(crate) struct PatternError(String);

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let is_label = |label: &str| {
            let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            (1..=63).contains(&label.len()) && label.bytes().all(is_allowed)
        };
        let below = text.strip_prefix("*.");
        let name = below.unwrap_or(text);
        let is_name = name.len() <= 253 && name.split('.').all(is_label);
        // A client that connects by address sends no name.
        let is_address = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
        if !is_name || is_address {
            return Err(PatternError(text.to_owned()));
        }
        let name = name.to_ascii_lowercase();
        Ok(if below.is_some() { Self::Below(format!(".{name}")) } else { Self::Exact(name) })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(suffix) => write!(f, "*{suffix}"),
        }
    }
}

/// Patterns, each with the index of its target.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    exact: BTreeMap<String, usize>,
    /// The longest first.
    below: Vec<(String, usize)>,
}

impl Names {
    pub(crate) fn new(patterns: impl IntoIterator<Item = (Pattern, usize)>) -> Self {
        let mut names = Self::default();
        for (pattern, target) in patterns {
            match pattern {
                Pattern::Exact(name) => drop(names.exact.insert(name, target)),
                Pattern::Below(suffix) => names.below.push((suffix, target)),
            }
        }
        names.below.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        names
    }

    /// The target of a name, whatever its case.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        let name = name.to_ascii_lowercase();
        let exact = self.exact.get(&name).copied();
        let is_below = |suffix: &str| name.len() > suffix.len() && name.ends_with(suffix);
        exact.or_else(|| self.below.iter().find(|(suffix, _)| is_below(suffix)).map(|(_, target)| *target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exact_name_comes_before_a_wildcard_and_a_longer_wildcard_before_a_shorter_one() {
        let patterns = ["*.example", "*.shop.example", "shop.example", "WWW.Shop.Example"];
        let names =
            Names::new(patterns.iter().enumerate().map(|(at, text)| (text.parse::<Pattern>().unwrap(), at)));
        for (name, target) in [
            ("shop.example", Some(2)),
            ("SHOP.example", Some(2)),
            ("www.shop.example", Some(3)),
            ("a.b.shop.example", Some(1)),
            ("other.example", Some(0)),
            ("example", None),
            (".example", None),
            ("notexample", None),
            ("", None),
        ] {
            assert_eq!(names.find(name), target, "{name}");
        }
    }

    #[test]
    fn a_pattern_is_a_name_or_all_names_below_one() {
        for text in ["shop.example", "*.shop.example", "localhost", "*.local", "xn--4gbrim.example", "_a.b"] {
            assert_eq!(text.parse::<Pattern>().unwrap().to_string(), text);
        }
        for text in [
            "", "*", "*.", "a.*", "a*.b", "*.*.b", "a..b", ".a", "a.", "10.0.0.1", "::1", "a b", "a/b",
            "\u{e4}.b",
        ] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
    }
}
