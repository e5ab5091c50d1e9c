//! A place in the changes of one shard, for services that write changes in batches.
//!
//! Pure. The changes of a shard have one order: by the sequence number of the batch in which they were written, and
//! within a batch by row. Every source of them, memory or a log, must have this order, so that a place means the same in
//! each.

use std::fmt;
use std::str::FromStr;

/// A place in the changes of one shard: everything before it has been seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The sequence number of the next batch.
    pub seq: u64,
    /// How many of its rows have been seen, including those that the watch filters out. Never all of them: then the
    /// place is the beginning of the next batch.
    pub row: usize,
}

impl Place {
    /// The place after a whole batch.
    pub fn after(seq: u64) -> Self {
        Self { seq: seq + 1, row: 0 }
    }

    /// The place after a row of a batch with this many rows.
    pub fn after_row(seq: u64, row: usize, rows: usize) -> Self {
        if row + 1 < rows { Self { seq, row: row + 1 } } else { Self::after(seq) }
    }
}

/// `123.4`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.seq, self.row)
    }
}

impl FromStr for Place {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        let parts = text.split_once('.').and_then(|(seq, row)| Some((number(seq)?, number(row)?)));
        let (seq, row) = parts.ok_or(NotAPlace)?;
        // No batch follows the highest number.
        let row = usize::try_from(row).ok().filter(|_| seq < u64::MAX);
        row.map(|row| Self { seq, row }).ok_or(NotAPlace)
    }
}

/// The text is no place. Pass a place exactly as it was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no place in the changes of a shard")]
pub struct NotAPlace;

/// A number without a sign.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written() {
        for text in ["0.0", "123.4", "18446744073709551614.7"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "1",
            "1.",
            ".1",
            "-1.0",
            "+1.0",
            "1.x",
            "18446744073709551615.0",
            "99999999999999999999.0",
            "1.0 ",
            "1.0.0",
        ] {
            assert_eq!(text.parse::<Place>(), Err(NotAPlace), "{text}");
        }
    }

    #[test]
    fn behind_the_last_row_is_the_next_batch() {
        assert_eq!(Place::after_row(7, 0, 2), Place { seq: 7, row: 1 });
        assert_eq!(Place::after_row(7, 1, 2), Place::after(7));
        assert!(Place { seq: 7, row: 9 } < Place::after(7));
    }
}
