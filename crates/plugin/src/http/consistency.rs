//! How fresh an answer must be, as a query states it (`?consistency=any`), and how stale it may be, as an answer states
//! it.

use std::time::Duration;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use types::api;

use super::query::{QueryError, parameters};
use crate::shard::{ReadLevel, ReadLevelError};

/// The header of an answer that may be stale: how far behind it may be, in milliseconds, rounded up.
pub const STALENESS: HeaderName = HeaderName::from_static(api::STALENESS_MS);

impl From<ReadLevelError> for QueryError {
    fn from(error: ReadLevelError) -> Self {
        Self::new(format!("`consistency` {error}"))
    }
}

/// The read level in a query with no other parameters; strong by default.
pub fn read_level(query: &str) -> Result<ReadLevel, QueryError> {
    let found = parameters(query, &["consistency"])?;
    found.first().map_or(Ok(ReadLevel::default()), |(_, text)| Ok(text.parse()?))
}

/// Sets the header that states how far behind an answer may be.
pub fn set_staleness(headers: &mut HeaderMap, staleness: Duration) {
    let ms = u64::try_from(staleness.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX);
    headers.insert(STALENESS, HeaderValue::from(ms));
}

/// How far behind an answer may be, according to its headers.
pub fn staleness(headers: &HeaderMap) -> Option<Duration> {
    let ms = headers.get(STALENESS)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_the_level_and_a_mistake_gets_a_hint() {
        assert_eq!(read_level("").unwrap(), ReadLevel::Strong);
        for level in [ReadLevel::Strong, ReadLevel::Primary, ReadLevel::Any] {
            assert_eq!(read_level(&format!("consistency={}", level.as_str())).unwrap(), level);
        }
        let error = read_level("consistency=weak").unwrap_err();
        assert_eq!(error.to_string(), "`consistency` is strong, primary or any, not `weak`");
        let error = read_level("consistncy=any").unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("did you mean `consistency`?"));
    }

    #[test]
    fn staleness_is_rounded_up() {
        let mut headers = HeaderMap::new();
        assert_eq!(staleness(&headers), None);
        set_staleness(&mut headers, Duration::from_micros(1_001));
        assert_eq!(staleness(&headers), Some(Duration::from_millis(2)));
    }
}
