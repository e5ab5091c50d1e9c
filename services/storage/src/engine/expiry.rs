//! Values with a time to live: how long it may be, where the expiry is recorded, and how expired values are deleted.
//!
//! A value that expires has a row of its own beside it, ordered by time. About once a second, the owner of the shard
//! reads these rows and deletes what is due by an ordinary write, on the condition that the value still expires then.
//! So a reader never compares clocks: a value exists until its owner has deleted it, and then it is gone for every
//! reader, in the order of writes. While a shard has no owner, its values do not expire.
//!
//! The time is the shard's data time ([`crate::engine::data_clock`]), both when a value is put and when it is due. Data
//! time does not follow changes of the wall clock, so a value lives as long as requested even if the owner's clock is
//! wrong; only a new owner whose wall clock is ahead of its predecessor's moves data time forward.
//!
//! A write that replaces a value without reading it leaves the old expiry row behind, which is dropped when it is due.

use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use plugin::queue::QueueBytes;
use plugin::shard::Key;
use slatedb::Db;
use slatedb::config::{DurabilityLevel, ScanOptions};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, warn};
use types::range::{DurationIn, RangeError, TEN_YEARS_MS};

use super::shared::Writes;
use crate::data::change::{Change, Effect, Unity, Write};
use crate::engine::data_clock::DataClock;
use crate::meters::Meters;

/// The length of a time to live.
type Ttl = DurationIn<1_000, TEN_YEARS_MS>;
/// How often the owner looks for values that are due.
const EVERY: Duration = Duration::from_secs(1);
/// How many values are deleted at once, at most.
const SWEEP: usize = 10_000;
/// How many bytes of keys are deleted at once, about.
const SWEEP_BYTES: usize = 1024 * 1024;
/// The first byte of every expiry row.
const ROWS: u8 = b'x';
/// The length of that byte and the eight bytes of the time.
const HEAD: usize = 9;

/// The text is no time to live. Write a number and its unit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no time to live: {why}")]
pub(crate) struct TtlError {
    text: String,
    why: RangeError,
}

/// Parses a time to live, `30s` or `1h 30m`, and returns when it ends if it begins now, in milliseconds since 1970.
pub(crate) fn ends_at(ttl: &str, now_ms: u64) -> Result<NonZeroU64, TtlError> {
    let length = ttl.parse::<Ttl>().map_err(|why| TtlError { text: ttl.to_owned(), why })?;
    let length = u64::try_from(length.get().as_millis()).unwrap_or(u64::MAX);
    Ok(NonZeroU64::MIN.saturating_add(now_ms.saturating_add(length).saturating_sub(1)))
}

/// The row that records when a key expires.
pub(crate) fn row(at: NonZeroU64, key: &[u8]) -> Bytes {
    [&[ROWS], &at.get().to_be_bytes()[..], key].concat().into()
}

/// The time and the key of a row.
fn parse(row: &Bytes) -> Option<(NonZeroU64, Key)> {
    let at = row.get(1..HEAD)?.try_into().map(u64::from_be_bytes).ok()?;
    Some((NonZeroU64::new(at)?, Key::new(row.slice(HEAD..)).ok()?))
}

/// The rows from a time onwards.
fn rows(from: u64) -> Range<Bytes> {
    let first = [&[ROWS], &from.to_be_bytes()[..]].concat();
    first.into()..Bytes::from_static(&[ROWS + 1])
}

/// When the next value may expire: none expires earlier.
#[derive(Debug)]
pub(crate) struct Expiry(AtomicU64);

impl Expiry {
    /// Nothing is known: some values may be due.
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Records that a durable value expires at this time.
    pub(crate) fn expires_at(&self, at: u64) {
        self.0.fetch_min(at, Ordering::SeqCst);
    }

    /// Takes the recorded time if it is `now` or earlier, since a value may be due.
    fn due(&self, now: u64) -> Option<u64> {
        let known = self.0.load(Ordering::SeqCst);
        // Concurrent calls can only lower it.
        (known <= now).then(|| self.0.swap(u64::MAX, Ordering::SeqCst))
    }
}

/// The changes that delete what is due, and when the next row is due.
struct Due {
    changes: Vec<Change>,
    bytes: usize,
    next: u64,
}

/// Deletes periodically what is due. Never ends; may be dropped at any time.
pub(crate) async fn sweep(
    db: &Db,
    clock: &DataClock,
    expiry: &Expiry,
    space: &QueueBytes,
    meters: &Meters,
    writes: &Writes,
) {
    // Another database may have been open meanwhile, here or on another node.
    expiry.expires_at(0);
    let mut beat = interval(EVERY);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        let now = u64::try_from(clock.now_ms()).unwrap_or_default();
        let Some(from) = expiry.due(now) else { continue };
        let next = match due(db, from, now).await {
            Ok(due) if due.changes.is_empty() => due.next,
            Ok(due) => {
                let (next, count) = (due.next, due.changes.len());
                if delete(due, space, writes).await {
                    debug!(count, "expired");
                    meters.expired(count);
                    next
                } else {
                    from
                }
            }
            Err(error) => {
                warn!(%error, "could not read which values have expired");
                from
            }
        };
        expiry.expires_at(next);
    }
}

async fn due(db: &Db, from: u64, now: u64) -> Result<Due, slatedb::Error> {
    let options = ScanOptions {
        durability_filter: DurabilityLevel::Remote,
        max_fetch_tasks: 1,
        ..ScanOptions::default()
    };
    let mut found = db.scan_with_options(rows(from), &options).await?;
    let mut due = Due { changes: Vec::new(), bytes: 0, next: u64::MAX };
    while let Some(row) = found.next().await? {
        let Some((at, key)) = parse(&row.key) else {
            warn!("an expiry row can't be parsed");
            continue;
        };
        if at.get() > now || due.changes.len() >= SWEEP || due.bytes > SWEEP_BYTES {
            due.next = at.get();
            break;
        }
        due.bytes += row.key.len();
        due.changes.push(Change { key, effect: Effect::Expire(at), condition: None });
    }
    Ok(due)
}

/// Returns whether it succeeded.
async fn delete(due: Due, space: &QueueBytes, writes: &Writes) -> bool {
    // When writers fill the queue, they have priority.
    let Some(space) = space.reserve(due.bytes) else { return false };
    let write = Write { changes: due.changes, unity: Unity::Apart };
    let Ok(answered) = writes.put(write, space) else { return false };
    matches!(answered.await, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_has_a_unit_and_bounds() {
        let now = 5;
        for (text, at) in [("1s", 1_005), ("30s", 30_005), ("1h 30m", 5_400_005), ("1500ms", 1_505)] {
            assert_eq!(ends_at(text, now).map(NonZeroU64::get), Ok(at), "{text}");
        }
        assert!(ends_at("10y", now).is_ok());
        for text in
            ["", "30", "s", "-1s", "soon", "1 %", "0s", "999ms", "11y", "10000y", "18446744073709551615s"]
        {
            let error = ends_at(text, now).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("`{text}` is no time to live: a duration from 1s to 10y is wanted, like `10s`")
            );
        }
        assert!(ends_at("10y", u64::MAX - 1).is_ok());
    }

    #[test]
    fn rows_are_in_the_order_of_time_and_read_back() {
        let at = |ms| NonZeroU64::new(ms).unwrap();
        let key = Key::new(vec![0, 255]).unwrap();
        let made = row(at(258), key.bytes());
        assert_eq!(parse(&made), Some((at(258), key)));
        assert!(row(at(255), b"z") < row(at(256), b"a"));
        assert!(rows(258).contains(&made) && !rows(259).contains(&made));
        assert!(rows(0).contains(&row(NonZeroU64::MAX, &[255; 1024])));
        assert_eq!(parse(&Bytes::from_static(b"x123")), None);
    }

    #[test]
    fn an_expiry_recorded_during_a_sweep_is_not_lost() {
        let expiry = Expiry::new();
        assert_eq!(expiry.due(10), Some(0), "at first every row is read");
        expiry.expires_at(12);
        expiry.expires_at(40);
        assert_eq!(expiry.due(11), None);
        assert_eq!(expiry.due(12), Some(12));
        assert_eq!(expiry.due(u64::MAX - 1), None);
    }
}
