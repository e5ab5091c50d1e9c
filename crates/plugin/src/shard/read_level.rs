//! How new the answer to a read must be, and how old one may be. Knows no HTTP.

use std::str::FromStr;
use std::time::Duration;

/// How new the answer to a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadLevel {
    /// It shows all that was answered before the request.
    #[default]
    Strong,
    /// The owner answers without asking the store whether it still is.
    Primary,
    /// The owner or a replica answers, and says how far behind it may be.
    Any,
}

/// Write one of the three.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is strong, primary or any, not `{0}`")]
pub struct ReadLevelError(String);

impl ReadLevel {
    /// The level in a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Strong => "strong",
            Self::Primary => "primary",
            Self::Any => "any",
        }
    }
}

impl FromStr for ReadLevel {
    type Err = ReadLevelError;

    fn from_str(text: &str) -> Result<Self, ReadLevelError> {
        match text {
            "strong" => Ok(Self::Strong),
            "primary" => Ok(Self::Primary),
            "any" => Ok(Self::Any),
            other => Err(ReadLevelError(other.to_owned())),
        }
    }
}

/// What was read, and how far behind it may be, as far as that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read<T> {
    /// What was read.
    pub value: T,
    /// How far behind the latest state it may be.
    pub staleness: Option<Duration>,
}

impl<T> Read<T> {
    /// The same with another value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Read<U> {
        Read { value: f(self.value), staleness: self.staleness }
    }

    /// All of them; the whole is as stale as its stalest part, and unknown if one is.
    pub fn all(parts: impl IntoIterator<Item = Self>) -> Read<Vec<T>> {
        let mut all = Read { value: Vec::new(), staleness: Some(Duration::ZERO) };
        for part in parts {
            all.staleness = all.staleness.and_then(|most| Some(most.max(part.staleness?)));
            all.value.push(part.value);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_is_as_stale_as_its_stalest_part() {
        let part = |ms: Option<u64>| Read { value: ms, staleness: ms.map(Duration::from_millis) };
        let all = Read::all([part(Some(3)), part(Some(7)), part(Some(5))]);
        assert_eq!(
            all,
            Read { value: vec![Some(3), Some(7), Some(5)], staleness: Some(Duration::from_millis(7)) }
        );
        assert_eq!(Read::all([part(Some(3)), part(None), part(Some(5))]).staleness, None);
        assert_eq!(
            part(Some(3)).map(|_| "x"),
            Read { value: "x", staleness: Some(Duration::from_millis(3)) }
        );
    }
}
