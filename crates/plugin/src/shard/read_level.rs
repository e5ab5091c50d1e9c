//! How fresh the answer to a read must be, and how stale one may be. Independent of HTTP.

use std::str::FromStr;
use std::time::Duration;

/// How fresh the answer to a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadLevel {
    /// The answer includes every write that was acknowledged before the request.
    #[default]
    Strong,
    /// The owner answers without checking on the store that it still is the owner.
    Primary,
    /// The owner or a replica answers, and states how far behind it may be.
    Any,
}

/// The text is none of the three levels; write one of them.
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

/// What was read, and how far behind it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read<T> {
    /// What was read.
    pub value: T,
    /// How far behind the latest state it may be; `None` if that is unknown.
    pub staleness: Option<Duration>,
}

impl<T> Read<T> {
    /// Converts the value and keeps the staleness.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Read<U> {
        Read { value: f(self.value), staleness: self.staleness }
    }

    /// Joins parts. The whole is as stale as its stalest part; its staleness is unknown if that of any part is.
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
