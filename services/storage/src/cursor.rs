//! Where a watcher stands: a place in the changes of each shard, written as one word.
//!
//! Pure. The changes of a shard have one order: by the sequence number of the batch that they were written in, and in
//! it by key. Both sources of changes, memory and the log, have it, so a place means the same in either.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use types::ShardId;

/// A place in the changes of one shard: all below it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The batch that is seen next, by its sequence number.
    pub(crate) seq: u64,
    /// How many of its rows were seen, those that the watcher did not ask for among them. Never all of them: then it
    /// is the next batch that is seen next.
    pub(crate) row: usize,
}

impl Place {
    /// Behind a whole batch.
    pub(crate) fn after(seq: u64) -> Self {
        Self { seq: seq + 1, row: 0 }
    }

    /// Behind a row of a batch that has so many.
    pub(crate) fn after_row(seq: u64, row: usize, rows: usize) -> Self {
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
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let parts = text.split_once('.').and_then(|(seq, row)| Some((number(seq)?, number(row)?)));
        let (seq, row) = parts.ok_or_else(|| CursorError::Malformed(shortened(text)))?;
        // There is no batch behind the last number.
        let row = usize::try_from(row).ok().filter(|_| seq < u64::MAX);
        row.map(|row| Self { seq, row }).ok_or_else(|| CursorError::Malformed(shortened(text)))
    }
}

/// A number without a sign.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// A place in each of some shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursor(BTreeMap<ShardId, Place>);

/// Why a text is no cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CursorError {
    /// Give the `id` of an event as it came.
    #[error("`{0}` is no cursor")]
    Malformed(String),
    /// Give the cursor to the stream that it is of.
    #[error("the cursor names the shards {found}; this stream is of {expected}")]
    OtherShards { found: String, expected: String },
}

impl Cursor {
    /// One of these places.
    pub(crate) fn new(places: impl IntoIterator<Item = (ShardId, Place)>) -> Self {
        Self(places.into_iter().collect())
    }

    /// Reads one that names just these shards.
    pub(crate) fn parse(text: &str, shards: &[ShardId]) -> Result<Self, CursorError> {
        let mut places = BTreeMap::new();
        for part in text.split(',') {
            let malformed = || CursorError::Malformed(shortened(text));
            let (shard, place) = part.split_once(':').ok_or_else(malformed)?;
            let shard = number(shard).and_then(|shard| u32::try_from(shard).ok());
            let shard = shard.and_then(|shard| ShardId::try_from(shard).ok()).ok_or_else(malformed)?;
            let place = place.parse().map_err(|_| malformed())?;
            if places.insert(shard, place).is_some() {
                return Err(malformed());
            }
        }
        if !places.keys().eq(shards.iter()) {
            let names = |shards: Vec<&ShardId>| {
                shortened(&shards.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
            };
            let (found, expected) = (names(places.keys().collect()), names(shards.iter().collect()));
            return Err(CursorError::OtherShards { found, expected });
        }
        Ok(Self(places))
    }

    /// The place in a shard.
    pub(crate) fn place(&self, shard: ShardId) -> Option<Place> {
        self.0.get(&shard).copied()
    }

    /// Moves on in a shard.
    pub(crate) fn set(&mut self, shard: ShardId, place: Place) {
        self.0.insert(shard, place);
    }
}

/// `0:123.4,1:77.0`.
impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (shard, place)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{shard}:{place}")?;
        }
        Ok(())
    }
}

/// What is told back of what was sent.
fn shortened(text: &str) -> String {
    const SHOWN: usize = 100;
    let mut shown: String = text.chars().take(SHOWN).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shards(count: u32) -> Vec<ShardId> {
        (0..count).map(|shard| shard.try_into().unwrap()).collect()
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        for text in ["0:0.0", "0:123.4,1:77.0", "0:1.0,1:18446744073709551614.7,2:3.1"] {
            let count = u32::try_from(text.split(',').count()).unwrap();
            assert_eq!(Cursor::parse(text, &shards(count)).unwrap().to_string(), text);
        }
        let cursor = Cursor::parse("1:77.0,0:123.4", &shards(2)).unwrap();
        assert_eq!(cursor.place(shards(2)[0]), Some(Place { seq: 123, row: 4 }));
    }

    #[test]
    fn what_is_no_cursor_of_the_stream_is_refused() {
        for text in [
            "",
            ",",
            "0",
            "0:1",
            "0:1.",
            "0:.1",
            "0:1.0,",
            "0:1.0,0:1.0",
            "0:-1.0",
            "0:+1.0",
            "x:1.0",
            "0:1.x",
            "0:18446744073709551615.0",
            "0:99999999999999999999.0",
            "0:1.0 ",
            "0:1.0.0",
            "4294967295:1.0",
        ] {
            let found = Cursor::parse(text, &shards(1));
            assert!(matches!(found, Err(CursorError::Malformed(_))), "{text}: {found:?}");
        }
        for (text, count) in [("0:1.0", 2), ("0:1.0,1:1.0", 1), ("1:1.0", 1)] {
            let found = Cursor::parse(text, &shards(count));
            assert!(matches!(found, Err(CursorError::OtherShards { .. })), "{text}: {found:?}");
        }
    }

    #[test]
    fn behind_the_last_row_is_the_next_batch() {
        assert_eq!(Place::after_row(7, 0, 2), Place { seq: 7, row: 1 });
        assert_eq!(Place::after_row(7, 1, 2), Place::after(7));
        assert!(Place { seq: 7, row: 9 } < Place::after(7));
    }
}
