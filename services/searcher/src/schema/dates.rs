//! Points in time, as documents and queries write them. Milliseconds are kept.

use chrono::DateTime as Instant;
use tantivy::DateTime;

/// The milliseconds of a day.
const DAY: i64 = 24 * 60 * 60 * 1000;

/// A point in time, or a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// Milliseconds since 1970.
    start: i64,
    /// How many milliseconds it lasts: one, or a day's.
    length: i64,
}

impl Moment {
    /// Reads an RFC 3339 string, or `YYYY-MM-DD`. Only what Tantivy can hold: from 1677-09-21 to 2262-04-11.
    pub(super) fn of_text(text: &str) -> Option<Self> {
        if text.len() == 10 {
            let start = rfc3339(&format!("{text}T00:00:00Z"))?;
            return Self { start, length: DAY }.in_range();
        }
        Self { start: rfc3339(text)?, length: 1 }.in_range()
    }

    pub(super) fn of_millis(start: i64) -> Option<Self> {
        Self { start, length: 1 }.in_range()
    }

    fn in_range(self) -> Option<Self> {
        let end = self.start.checked_add(self.length)?;
        let is_in_range = [self.start, end].iter().all(|millis| millis.checked_mul(1_000_000).is_some());
        is_in_range.then_some(self)
    }

    /// The first millisecond.
    pub(super) fn first(self) -> DateTime {
        DateTime::from_timestamp_millis(self.start)
    }

    /// The last millisecond.
    pub(super) fn last(self) -> DateTime {
        DateTime::from_timestamp_millis(self.start + self.length - 1)
    }
}

/// An RFC 3339 date and time, in milliseconds since 1970.
pub(super) fn rfc3339(text: &str) -> Option<i64> {
    // The shortest is `2024-01-01T00:00:00Z`. chrono also takes a space for the `T`, and `60` for a leap second.
    let bytes = text.as_bytes();
    let is_date =
        bytes.len() >= 20 && bytes[4] == b'-' && bytes[7] == b'-' && matches!(bytes[10], b'T' | b't');
    is_date
        .then(|| Instant::parse_from_rfc3339(text).ok())
        .flatten()
        .map(|instant| instant.timestamp_millis())
}
