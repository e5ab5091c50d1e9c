//! The history of requests and answers, by key.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;
use types::KeyHash;

use crate::torture::cluster::SHARDS;

/// A key. The keys of a lane are watched together; the keys of a group are listed and retired together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) lane: u32,
    pub(crate) group: u32,
    pub(crate) number: u32,
}

impl Key {
    /// The number of its shard.
    pub(crate) fn shard(self) -> u32 {
        let shards = NonZeroU32::new(SHARDS).expect("there are shards");
        KeyHash::of(self.to_string().as_bytes()).shard(shards).as_u32()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", prefix(self.lane, self.group), self.number)
    }
}

/// The prefix of the names of a lane's keys.
pub(crate) fn lane_prefix(lane: u32) -> String {
    format!("t-{lane}-")
}

/// The prefix of the names of a group's keys.
pub(crate) fn prefix(lane: u32, group: u32) -> String {
    format!("t-{lane}-{group}-")
}

impl FromStr for Key {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let numbers = text.strip_prefix("t-").ok_or(())?.split('-').map(str::parse);
        match numbers.collect::<Result<Vec<u32>, _>>().as_deref() {
            Ok(&[lane, group, number]) => Ok(Self { lane, group, number }),
            Ok(_) | Err(_) => Err(()),
        }
    }
}

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Each value is put only once.
    Put {
        value: u64,
        on: Condition,
    },
    Delete {
        on: Condition,
    },
    Get,
    /// A listing, which showed the key or not.
    Scan,
    /// A stale read: a get or a listing. Its start is moved back by the staleness that the answer states.
    StaleRead,
    /// A search for a value, which found it or not: without it, the key has another value or none.
    Search {
        value: u64,
    },
    /// A stale search. Its start is moved back as that of a stale read.
    StaleSearch {
        value: u64,
    },
}

impl Action {
    pub(crate) fn is_write(self) -> bool {
        match self {
            Self::Put { .. } | Self::Delete { .. } => true,
            Self::Get | Self::Scan | Self::StaleRead | Self::Search { .. } | Self::StaleSearch { .. } => {
                false
            }
        }
    }

    /// Whether the answer may be behind by the staleness that it states.
    pub(crate) fn is_stale(self) -> bool {
        match self {
            Self::StaleRead | Self::StaleSearch { .. } => true,
            Self::Put { .. } | Self::Delete { .. } | Self::Get | Self::Scan | Self::Search { .. } => false,
        }
    }
}

/// The precondition of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    Always,
    Absent,
    /// The key has a value: a put merges into it.
    Present,
    /// The key has this value: a delete of what a search for it finds.
    Value {
        value: u64,
    },
    /// The key has this version, which a client saw with this value.
    Is {
        version: u64,
        value: u64,
    },
}

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The write got this version.
    Stored(u64),
    /// The write was carried out, and the answer has no version.
    Acknowledged,
    Deleted,
    /// The condition did not hold; the version that the key has instead.
    Refused(Option<u64>),
    Found {
        value: u64,
        version: u64,
    },
    /// There is no value, or not the one that was searched for. A delete that found nothing to delete.
    Missing,
    /// It is unknown whether the request was carried out.
    Open,
}

/// One request for one key. Times are nanoseconds since the run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) client: u32,
    pub(crate) action: Action,
    pub(crate) outcome: Outcome,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// A value: the client that put it, and the client's number for it.
pub(crate) fn value(client: u32, number: u32) -> u64 {
    u64::from(client) << 32 | u64::from(number)
}

/// The stored form of a value: `3.17`, followed by a space and padding if `filling` is not 0.
pub(crate) fn write_value(value: u64, filling: usize) -> String {
    let text = show_value(value);
    if filling == 0 { text } else { format!("{text} {}", "x".repeat(filling)) }
}

/// The value in stored text; `u64::MAX`, which no client puts, if it has none.
pub(crate) fn read_value(text: &str) -> u64 {
    let (text, filling) = text.split_once(' ').unwrap_or((text, ""));
    let parts = text.split_once('.').filter(|_| filling.bytes().all(|byte| byte == b'x'));
    let read = parts.and_then(|(client, number)| Some(value(client.parse().ok()?, number.parse().ok()?)));
    read.unwrap_or(u64::MAX)
}

pub(crate) fn show_value(value: u64) -> String {
    format!("{}.{}", value >> 32, value & 0xffff_ffff)
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => Ok(()),
            Self::Absent => f.write_str(" if absent"),
            Self::Present => f.write_str(" into the present one"),
            Self::Value { value } => write!(f, " if found by {}", show_value(*value)),
            Self::Is { version, value } => write!(f, " if \"{version}\" ({})", show_value(*value)),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { value, on } => write!(f, "put {}{on}", show_value(*value)),
            Self::Delete { on } => write!(f, "delete{on}"),
            Self::Get => f.write_str("get"),
            Self::Scan => f.write_str("scan"),
            Self::StaleRead => f.write_str("stale read"),
            Self::Search { value } => write!(f, "search {}", show_value(*value)),
            Self::StaleSearch { value } => write!(f, "stale search {}", show_value(*value)),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stored(version) => write!(f, "stored as \"{version}\""),
            Self::Acknowledged => f.write_str("stored"),
            Self::Deleted => f.write_str("deleted"),
            Self::Refused(Some(version)) => write!(f, "refused, it has \"{version}\""),
            Self::Refused(None) => f.write_str("refused, it has no value"),
            Self::Found { value, version } => write!(f, "{} as \"{version}\"", show_value(*value)),
            Self::Missing => f.write_str("none"),
            Self::Open => f.write_str("?"),
        }
    }
}

/// The history of all requests of a run.
#[derive(Debug)]
pub(crate) struct History {
    began: Instant,
    keys: Mutex<BTreeMap<Key, Vec<Record>>>,
}

impl History {
    pub(crate) fn begin() -> Self {
        Self { began: Instant::now(), keys: Mutex::default() }
    }

    /// The time now, in nanoseconds since the run began.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn note(&self, key: Key, record: Record) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.entry(key).or_default().push(record);
    }

    /// All keys that were used.
    pub(crate) fn keys(&self) -> Vec<Key> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// All values that were put, whatever became of them, with their keys.
    pub(crate) fn values(&self) -> BTreeMap<u64, Key> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |(key, records): (&Key, &Vec<Record>)| {
            put_values(records).map(|value| (value, *key)).collect::<Vec<_>>()
        };
        keys.iter().flat_map(of).collect()
    }

    /// The values that were put under a key, in the order of their answers.
    pub(crate) fn values_of(&self, key: Key) -> Vec<u64> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.get(&key).map(|records| put_values(records).collect()).unwrap_or_default()
    }

    /// Takes everything recorded so far.
    pub(crate) fn take(&self) -> BTreeMap<Key, Vec<Record>> {
        std::mem::take(&mut self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn put_values(records: &[Record]) -> impl Iterator<Item = u64> {
    records.iter().filter_map(|record| match record.action {
        Action::Put { value, .. } => Some(value),
        Action::Delete { .. }
        | Action::Get
        | Action::Scan
        | Action::StaleRead
        | Action::Search { .. }
        | Action::StaleSearch { .. } => None,
    })
}

/// The history of a key as a table, with a mark at one record.
pub(crate) fn table(records: &[Record], marked: Option<usize>) -> String {
    let mut order: Vec<_> = records.iter().enumerate().collect();
    order.sort_by_key(|(_, record)| (record.start, record.end));
    let mut text = format!("{:>11} {:>11}  {:>6}  {:<44} ANSWER\n", "FROM s", "TO s", "CLIENT", "REQUEST");
    for (number, record) in order {
        let to = if record.outcome == Outcome::Open && record.end == u64::MAX {
            "-".to_owned()
        } else {
            seconds(record.end)
        };
        let mark = if marked == Some(number) { "   <== no order explains this" } else { "" };
        text += &format!(
            "{:>11} {to:>11}  {:>6}  {:<44} {}{mark}\n",
            seconds(record.start),
            record.client,
            record.action.to_string(),
            record.outcome
        );
    }
    text
}

/// Nanoseconds as seconds.
pub(crate) fn seconds(nanos: u64) -> String {
    format!("{}.{:06}", nanos / 1_000_000_000, nanos / 1_000 % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_round_trip() {
        let key = Key { lane: 1, group: 22, number: 3 };
        assert_eq!((key.to_string().as_str(), "t-1-22-3".parse()), ("t-1-22-3", Ok(key)));
        assert!(key.to_string().starts_with(&prefix(1, 22)) && prefix(1, 22).starts_with(&lane_prefix(1)));
        assert!("t-1-22".parse::<Key>().is_err() && "t-1-22-x".parse::<Key>().is_err());
        for filling in [0, 1, 100] {
            assert_eq!(read_value(&write_value(value(7, 9), filling)), value(7, 9));
        }
        for odd in ["", "7", "7.9 y", "7.9x"] {
            assert_eq!(read_value(odd), u64::MAX, "{odd}");
        }
    }

    #[test]
    fn a_table_is_ordered_by_time_and_marks_the_anomaly() {
        let record =
            |start, action, outcome| Record { client: 4, action, outcome, start, end: start + 2_500 };
        let put = Action::Put { value: value(4, 1), on: Condition::Absent };
        let records = [
            record(3_000_000_000, Action::Get, Outcome::Missing),
            record(1_000_000, put, Outcome::Stored(17)),
        ];
        let shown = table(&records, Some(0));
        let lines: Vec<_> =
            shown.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
        assert_eq!(lines[0].join(" "), "0.001000 0.001002 4 put 4.1 if absent stored as \"17\"");
        assert_eq!(lines[1].join(" "), "3.000000 3.000002 4 get none <== no order explains this");
    }
}
