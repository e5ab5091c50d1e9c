//! The latest changes of a shard, kept in memory for its watchers.
//!
//! A feed has only changes that are durable in the open database, and ends with that database. Its readers then
//! continue with the next one, here or on another node.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::changes::Place;

/// How many bytes are kept; the last batch in any case.
const KEPT: usize = 16 * 1024 * 1024;
/// About what a row costs besides its bytes.
const ROW: usize = 128;

/// The latest changes. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Feed(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    ring: Mutex<Ring>,
    /// The sequence number of the last durable batch.
    last: watch::Sender<u64>,
    ended: CancellationToken,
    most: usize,
}

#[derive(Debug)]
struct Ring {
    /// The sequence number of the last batch that is not kept.
    floor: u64,
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
}

/// Rows that were written together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) seq: u64,
    /// Keys as stored in the database, in order; no value means deleted.
    pub(crate) rows: Vec<(Bytes, Option<Bytes>)>,
}

impl Batch {
    /// About how much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        let value = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
        self.rows.iter().map(|(key, of)| ROW + key.len() + value(of)).sum()
    }
}

/// What the feed has at a place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// A batch; some of its rows may be before the place.
    Batch(Arc<Batch>),
    /// Nothing yet.
    Nothing,
    /// It is no longer kept; the log may have everything up to and including this batch.
    Below(u64),
    /// There has never been such a place.
    Never,
}

impl Feed {
    /// A feed that begins after the last durable batch.
    pub(crate) fn new(last: u64) -> Self {
        Self::with_room(last, KEPT)
    }

    pub(crate) fn with_room(last: u64, most: usize) -> Self {
        let ring = Mutex::new(Ring { floor: last, batches: VecDeque::new(), bytes: 0 });
        Self(Arc::new(Shared { ring, last: watch::Sender::new(last), ended: CancellationToken::new(), most }))
    }

    /// Adds a batch that has become durable. Of rows with the same key the last one counts, as in the database.
    pub(crate) fn wrote(&self, seq: u64, rows: impl IntoIterator<Item = (Bytes, Option<Bytes>)>) {
        let rows = rows.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect();
        let batch = Batch { seq, rows };
        let mut ring = self.ring();
        ring.bytes += batch.bytes();
        ring.batches.push_back(Arc::new(batch));
        while ring.bytes > self.0.most && ring.batches.len() > 1 {
            let Some(oldest) = ring.batches.pop_front() else { break };
            ring.bytes -= oldest.bytes();
            ring.floor = oldest.seq;
        }
        // Under the lock, so that a reader of this batch never finds that the place after it does not exist.
        self.0.last.send_replace(seq);
    }

    /// The place after everything that is durable.
    pub(crate) fn head(&self) -> Place {
        Place::after(*self.0.last.borrow())
    }

    /// What the feed has at a place.
    pub(crate) fn lookup(&self, place: Place) -> Lookup {
        let ring = self.ring();
        if place.seq <= ring.floor {
            return Lookup::Below(ring.floor);
        }
        let at = ring.batches.partition_point(|batch| batch.seq < place.seq);
        match ring.batches.get(at) {
            Some(batch) if batch.seq == place.seq && batch.rows.len() <= place.row => Lookup::Never,
            Some(batch) => Lookup::Batch(Arc::clone(batch)),
            None if place == self.head() => Lookup::Nothing,
            None => Lookup::Never,
        }
    }

    /// Waits until there is something at a place that had nothing.
    pub(crate) async fn more(&self, place: Place) {
        let mut last = self.0.last.subscribe();
        // `self` owns the sender, so the wait can't fail.
        let _ = last.wait_for(|last| *last >= place.seq).await;
    }

    /// Waits until the feed has ended.
    pub(crate) async fn ended(&self) {
        self.0.ended.cancelled().await;
    }

    /// Ends the feed when dropped.
    pub(crate) fn end_on_drop(&self) -> DropGuard {
        self.0.ended.clone().drop_guard()
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &'static str, value: &'static str) -> (Bytes, Option<Bytes>) {
        (Bytes::from_static(key.as_bytes()), Some(Bytes::from_static(value.as_bytes())))
    }

    fn place(seq: u64, row: usize) -> Place {
        Place { seq, row }
    }

    #[test]
    fn rows_of_a_batch_are_in_the_order_of_their_keys_each_key_once() {
        let feed = Feed::new(4);
        feed.wrote(5, [row("b", "1"), row("a", "1"), row("b", "2")]);
        let Lookup::Batch(batch) = feed.lookup(place(5, 0)) else { panic!("it is there") };
        assert_eq!(batch.rows, [row("a", "1"), row("b", "2")]);
        assert_eq!(feed.lookup(place(5, 1)), Lookup::Batch(batch));
    }

    #[test]
    fn a_place_is_dropped_or_kept_or_next_or_impossible() {
        let feed = Feed::new(4);
        assert_eq!(feed.head(), place(5, 0));
        assert_eq!(feed.lookup(place(5, 0)), Lookup::Nothing);
        feed.wrote(5, [row("a", "1"), row("b", "1")]);
        for (seq, row, expected) in [
            (0, 0, Lookup::Below(4)),
            (4, 9, Lookup::Below(4)),
            (5, 2, Lookup::Never),
            (6, 0, Lookup::Nothing),
            (6, 1, Lookup::Never),
            (7, 0, Lookup::Never),
        ] {
            assert_eq!(feed.lookup(place(seq, row)), expected, "{seq}.{row}");
        }
    }

    #[test]
    fn old_batches_make_room_and_the_last_one_stays() {
        let feed = Feed::with_room(0, 2 * (ROW + 2));
        for seq in 1..=3 {
            feed.wrote(seq, [row("a", "1")]);
        }
        assert_eq!(feed.lookup(place(1, 0)), Lookup::Below(1));
        assert!(matches!(feed.lookup(place(2, 0)), Lookup::Batch(batch) if batch.seq == 2));
        feed.wrote(4, (0..9).map(|number| (Bytes::from(vec![number]), None)));
        assert_eq!(feed.lookup(place(3, 0)), Lookup::Below(3));
        assert!(matches!(feed.lookup(place(4, 0)), Lookup::Batch(batch) if batch.seq == 4));
    }

    #[tokio::test]
    async fn waiting_ends_with_the_next_batch_or_with_the_feed() {
        let feed = Feed::new(0);
        let (writer, end) = (feed.clone(), feed.end_on_drop());
        tokio::join!(feed.more(place(1, 0)), async { writer.wrote(1, [row("a", "1")]) });
        tokio::join!(feed.ended(), async { drop(end) });
    }
}
