//! A position in the streams of all shards: one for each shard, written as one word, `0:123.4,1:77.0`.
//!
//! Pure. The service defines the type of a position, which must not contain a comma; [`Place`](super::Place) is one.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use types::ShardId;

/// A position in the stream of each of several shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor<P>(BTreeMap<ShardId, P>);

/// Why a text is not a cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// Give the unchanged `id` of an event.
    #[error("`{0}` is no cursor")]
    Malformed(String),
    /// Use the cursor with the stream that it is from.
    #[error("the cursor names the shards {found}; this stream is of {expected}")]
    OtherShards {
        /// The shards that it names.
        found: String,
        /// The shards of the stream.
        expected: String,
    },
}

impl<P: Copy + FromStr> Cursor<P> {
    /// A cursor with these positions.
    pub fn new(places: impl IntoIterator<Item = (ShardId, P)>) -> Self {
        Self(places.into_iter().collect())
    }

    /// Parses a cursor that names exactly these shards.
    pub fn parse(text: &str, shards: &[ShardId]) -> Result<Self, CursorError> {
        let mut places = BTreeMap::new();
        for part in text.split(',') {
            let malformed = || CursorError::Malformed(shortened(text));
            let (shard, place) = part.split_once(':').ok_or_else(malformed)?;
            let shard = Some(shard).filter(|shard| shard.bytes().all(|byte| byte.is_ascii_digit()));
            let shard = shard.and_then(|shard| shard.parse::<u32>().ok());
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

    /// The position in a shard.
    pub fn place(&self, shard: ShardId) -> Option<P> {
        self.0.get(&shard).copied()
    }

    /// Sets the position in a shard.
    pub fn set(&mut self, shard: ShardId, place: P) {
        self.0.insert(shard, place);
    }
}

/// `0:123.4,1:77.0`.
impl<P: fmt::Display> fmt::Display for Cursor<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (shard, place)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{shard}:{place}")?;
        }
        Ok(())
    }
}

/// The part of a text that an error shows.
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

    fn parse(text: &str, count: u32) -> Result<Cursor<u64>, CursorError> {
        Cursor::parse(text, &shards(count))
    }

    #[test]
    fn a_cursor_that_is_printed_parses_to_the_same_cursor() {
        for text in ["0:0", "0:123,1:77", "0:1,1:18446744073709551615,2:3"] {
            let count = u32::try_from(text.split(',').count()).unwrap();
            assert_eq!(parse(text, count).unwrap().to_string(), text);
        }
        let mut cursor = parse("1:77,0:123", 2).unwrap();
        assert_eq!(cursor.place(shards(2)[0]), Some(123));
        cursor.set(shards(2)[0], 124);
        assert_eq!(cursor.to_string(), "0:124,1:77");
    }

    #[test]
    fn a_text_that_is_not_a_cursor_of_the_stream_is_refused() {
        for text in [
            "",
            ",",
            "0",
            "0:",
            ":1",
            "0:1,",
            "0:1,0:1",
            "0:-1",
            "x:1",
            "+0:1",
            "0:x",
            "0:1 ",
            "4294967295:1",
        ] {
            let found = parse(text, 1);
            assert!(matches!(found, Err(CursorError::Malformed(_))), "{text}: {found:?}");
        }
        for (text, count) in [("0:1", 2), ("0:1,1:1", 1), ("1:1", 1)] {
            let found = parse(text, count);
            assert!(matches!(found, Err(CursorError::OtherShards { .. })), "{text}: {found:?}");
        }
        let long = parse(&"x".repeat(1_000), 1).unwrap_err().to_string();
        assert!(long.chars().count() < 150, "{long}");
    }
}
