//! How new an answer must be: what a reader asks for with `consistency=`.

use std::time::Duration;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use types::api;

use crate::parameters::{QueryError, parameters};

pub(crate) const STALENESS: HeaderName = HeaderName::from_static(api::STALENESS_MS);

/// How new an answer must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Consistency {
    /// All that was answered before is seen.
    #[default]
    Strong,
    /// The owner answers, without asking the store whether it still is.
    Primary,
    /// Whoever has a copy answers, and says how far behind it may be.
    Any,
}

impl Consistency {
    /// Reads what it is called.
    pub(crate) fn parse(text: &str) -> Result<Self, QueryError> {
        match text {
            "strong" => Ok(Self::Strong),
            "primary" => Ok(Self::Primary),
            "any" => Ok(Self::Any),
            other => {
                let message = format!("`consistency` is strong, primary or any, not `{other}`");
                Err(QueryError::new(message))
            }
        }
    }

    /// What it is called.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Strong => "strong",
            Self::Primary => "primary",
            Self::Any => "any",
        }
    }

    /// Reads the query of a request for one key.
    pub(crate) fn of_query(query: &str) -> Result<Self, QueryError> {
        let found = parameters(query, &["consistency"])?;
        found.first().map_or(Ok(Self::default()), |(_, text)| Self::parse(text))
    }
}

/// What was read, and how far behind it may be, as far as that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stale<T> {
    pub(crate) value: T,
    pub(crate) by: Option<Duration>,
}

/// Says in an answer how far behind it may be.
pub(crate) fn tell(headers: &mut HeaderMap, by: Duration) {
    let ms = u64::try_from(by.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX);
    headers.insert(STALENESS, HeaderValue::from(ms));
}

/// What was said so.
pub(crate) fn told(headers: &HeaderMap) -> Option<Duration> {
    let ms = headers.get(STALENESS)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_what_is_wanted_and_mistakes_are_told() {
        assert_eq!(Consistency::of_query("").unwrap(), Consistency::Strong);
        for wanted in [Consistency::Strong, Consistency::Primary, Consistency::Any] {
            let query = format!("consistency={}", wanted.as_str());
            assert_eq!(Consistency::of_query(&query).unwrap(), wanted);
        }
        assert!(Consistency::of_query("consistency=weak").is_err());
        assert_eq!(
            Consistency::of_query("consistncy=any").unwrap_err().hint.as_deref(),
            Some("did you mean `consistency`?")
        );
    }

    #[test]
    fn staleness_is_told_rounded_up() {
        let mut headers = HeaderMap::new();
        assert_eq!(told(&headers), None);
        tell(&mut headers, Duration::from_micros(1_001));
        assert_eq!(told(&headers), Some(Duration::from_millis(2)));
    }
}
