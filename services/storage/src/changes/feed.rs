//! The latest changes of a shard, kept in memory for those who watch it.
//!
//! What is put in here has become durable under the database that is open. It ends with that database; whoever reads
//! then looks for the next one, here or on another node.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::changes::Place;

/// What is kept, in bytes; the last batch in any case.
const KEPT: usize = 16 * 1024 * 1024;
/// What a row costs besides its bytes, about.
const ROW: usize = 128;

/// The latest changes. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Feed(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    ring: Mutex<Ring>,
    /// The last batch that is durable.
    last: watch::Sender<u64>,
    ended: CancellationToken,
    most: usize,
}

#[derive(Debug)]
struct Ring {
    /// The last batch that is not kept.
    floor: u64,
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
}

/// What was written at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) seq: u64,
    /// Keys as they lie in the database, in their order; no value: deleted.
    pub(crate) rows: Vec<(Bytes, Option<Bytes>)>,
}

impl Batch {
    /// What it takes of memory, about.
    pub(crate) fn bytes(&self) -> usize {
        let value = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
        self.rows.iter().map(|(key, of)| ROW + key.len() + value(of)).sum()
    }
}

/// What there is at a place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// A batch, of which some rows may have been seen.
    Batch(Arc<Batch>),
    /// Nothing yet.
    Nothing,
    /// It is not kept any more; the log may have all up to this batch and with it.
    Below(u64),
    /// There never was such a place.
    Never,
}

impl Feed {
    /// The changes after a batch, which is the last one that is durable.
    pub(crate) fn new(last: u64) -> Self {
        Self::with_room(last, KEPT)
    }

    pub(crate) fn with_room(last: u64, most: usize) -> Self {
        let ring = Mutex::new(Ring { floor: last, batches: VecDeque::new(), bytes: 0 });
        Self(Arc::new(Shared { ring, last: watch::Sender::new(last), ended: CancellationToken::new(), most }))
    }

    /// Takes a batch that has become durable. Of rows with the same key the last one counts, as in the database.
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
        // Under the lock, so that nobody who sees the batch takes the place behind it for one that never was.
        self.0.last.send_replace(seq);
    }

    /// The place behind all that is durable.
    pub(crate) fn head(&self) -> Place {
        Place::after(*self.0.last.borrow())
    }

    /// What there is at a place.
    pub(crate) fn look(&self, place: Place) -> Look {
        let ring = self.ring();
        if place.seq <= ring.floor {
            return Look::Below(ring.floor);
        }
        let at = ring.batches.partition_point(|batch| batch.seq < place.seq);
        match ring.batches.get(at) {
            Some(batch) if batch.seq == place.seq && batch.rows.len() <= place.row => Look::Never,
            Some(batch) => Look::Batch(Arc::clone(batch)),
            None if place == self.head() => Look::Nothing,
            None => Look::Never,
        }
    }

    /// Waits until there is something at a place that had nothing.
    pub(crate) async fn more(&self, place: Place) {
        let mut last = self.0.last.subscribe();
        // The sender lives in `self`, so the wait can't fail.
        let _ = last.wait_for(|last| *last >= place.seq).await;
    }

    /// Waits until nothing more will come.
    pub(crate) async fn ended(&self) {
        self.0.ended.cancelled().await;
    }

    /// Ends it when dropped.
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
        let Look::Batch(batch) = feed.look(place(5, 0)) else { panic!("it is there") };
        assert_eq!(batch.rows, [row("a", "1"), row("b", "2")]);
        assert_eq!(feed.look(place(5, 1)), Look::Batch(batch));
    }

    #[test]
    fn a_place_is_below_or_there_or_next_or_never_was() {
        let feed = Feed::new(4);
        assert_eq!(feed.head(), place(5, 0));
        assert_eq!(feed.look(place(5, 0)), Look::Nothing);
        feed.wrote(5, [row("a", "1"), row("b", "1")]);
        for (seq, row, expected) in [
            (0, 0, Look::Below(4)),
            (4, 9, Look::Below(4)),
            (5, 2, Look::Never),
            (6, 0, Look::Nothing),
            (6, 1, Look::Never),
            (7, 0, Look::Never),
        ] {
            assert_eq!(feed.look(place(seq, row)), expected, "{seq}.{row}");
        }
    }

    #[test]
    fn old_batches_make_room_and_the_last_one_stays() {
        let feed = Feed::with_room(0, 2 * (ROW + 2));
        for seq in 1..=3 {
            feed.wrote(seq, [row("a", "1")]);
        }
        assert_eq!(feed.look(place(1, 0)), Look::Below(1));
        assert!(matches!(feed.look(place(2, 0)), Look::Batch(batch) if batch.seq == 2));
        feed.wrote(4, (0..9).map(|number| (Bytes::from(vec![number]), None)));
        assert_eq!(feed.look(place(3, 0)), Look::Below(3));
        assert!(matches!(feed.look(place(4, 0)), Look::Batch(batch) if batch.seq == 4));
    }

    #[tokio::test]
    async fn who_waits_is_told_of_the_next_batch_and_of_the_end() {
        let feed = Feed::new(0);
        let (writer, end) = (feed.clone(), feed.end_on_drop());
        tokio::join!(feed.more(place(1, 0)), async { writer.wrote(1, [row("a", "1")]) });
        tokio::join!(feed.ended(), async { drop(end) });
    }
}
