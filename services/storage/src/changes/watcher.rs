//! Follows the changes of one shard, a few rows at a time: from memory, or from the log for a watcher that is behind.
//!
//! Between two steps it holds nothing but a place, so a slow reader costs no memory.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::changes::Place;
use crate::changes::feed::{Batch, Feed, Lookup};
use crate::changes::history::{History, HistoryError, Reading};

/// How many bytes of rows are returned at once; the first row in any case.
const ROWS: usize = 32 * 1024;

/// Follows the changes of a shard.
pub(crate) struct Watcher {
    feed: Feed,
    history: History,
    place: Place,
    /// The file of the log that is being read, if any.
    reading: Option<Reading>,
}

/// Why there are no more changes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WatchEnd {
    /// Continue elsewhere, or here once the database is open again: it was closed.
    #[error("the database was closed")]
    Closed,
    /// Start over: the next changes are no longer kept.
    #[error("changes after {0} are not kept any more")]
    Gone(Place),
    /// Try again.
    #[error(transparent)]
    Unread(#[from] HistoryError),
}

/// Some rows of a batch, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rows {
    seq: u64,
    /// The index in the batch of the first of these rows.
    first: usize,
    /// The number of rows in the batch.
    of: usize,
    rows: VecDeque<(Bytes, Option<Bytes>)>,
}

impl Rows {
    fn of(batch: &Batch, first: usize) -> Self {
        let mut left = ROWS;
        let rows = batch.rows.iter().skip(first).enumerate().take_while(|(at, row)| {
            let size = size(row);
            let fits = *at == 0 || size <= left;
            left = left.saturating_sub(size);
            fits
        });
        let rows = rows.map(|(_, row)| row.clone()).collect();
        Self { seq: batch.seq, first, of: batch.rows.len(), rows }
    }

    /// The sequence number of their batch.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// Takes the next row.
    pub(crate) fn take(&mut self) -> Option<(Bytes, Option<Bytes>)> {
        let row = self.rows.pop_front()?;
        self.first += 1;
        Some(row)
    }

    /// The place after the last row that was taken. At least one must have been.
    pub(crate) fn place(&self) -> Place {
        self.place_after(0)
    }

    /// The place after this many more rows.
    fn place_after(&self, rows: usize) -> Place {
        Place::after_row(self.seq, self.first + rows - 1, self.of)
    }

    /// The size of the first row, if its key has the prefix and it is larger than what may be held.
    pub(crate) fn large(&self, prefix: &[u8]) -> Option<usize> {
        let first = self.rows.front().filter(|(key, _)| key.starts_with(prefix))?;
        Some(size(first)).filter(|size| *size > ROWS)
    }
}

fn size((key, value): &(Bytes, Option<Bytes>)) -> usize {
    key.len() + value.as_ref().map_or(0, Bytes::len)
}

impl Watcher {
    /// Begins at a place, or now. Fails at once if the changes after that place are gone.
    pub(crate) async fn begin(feed: Feed, history: History, from: Option<Place>) -> Result<Self, WatchEnd> {
        let place = from.unwrap_or_else(|| feed.head());
        let mut watcher = Self { feed, history, place, reading: None };
        match watcher.feed.lookup(place) {
            Lookup::Batch(_) | Lookup::Nothing => {}
            Lookup::Never => return Err(WatchEnd::Gone(place)),
            Lookup::Below(_) => watcher.reading = Some(watcher.find().await?),
        }
        Ok(watcher)
    }

    /// Everything before it has been seen.
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// The next rows. Waits until there are some.
    pub(crate) async fn next(&mut self) -> Result<Rows, WatchEnd> {
        let feed = self.feed.clone();
        tokio::select! {
            biased;
            () = feed.ended() => Err(WatchEnd::Closed),
            next = self.find_next() => next,
        }
    }

    /// Goes back to an earlier place.
    pub(crate) fn back_to(&mut self, place: Place) {
        self.place = place;
    }

    async fn find_next(&mut self) -> Result<Rows, WatchEnd> {
        loop {
            match self.feed.lookup(self.place) {
                Lookup::Batch(batch) => {
                    self.reading = None;
                    return self.rows_of(&batch);
                }
                Lookup::Nothing => self.feed.more(self.place).await,
                Lookup::Never => return Err(WatchEnd::Gone(self.place)),
                Lookup::Below(floor) => {
                    let reading = match self.reading {
                        Some(reading) => reading,
                        None => self.find().await?,
                    };
                    self.reading = Some(reading);
                    let batches = self.history.read(reading).await;
                    let batches = batches.map_err(|error| ended(error, self.place))?;
                    let at = batches.partition_point(|batch| batch.seq < self.place.seq);
                    // A batch above the floor may not be durable yet; memory has it once it is.
                    match batches.get(at).filter(|batch| batch.seq <= floor) {
                        Some(batch) => return self.rows_of(batch),
                        None if at < batches.len() => self.place = Place::after(floor),
                        None => self.reading = Some(reading.next_file()),
                    }
                }
            }
        }
    }

    fn rows_of(&mut self, batch: &Batch) -> Result<Rows, WatchEnd> {
        let first = if batch.seq == self.place.seq { self.place.row } else { 0 };
        if first >= batch.rows.len() {
            // The batch with that number is another one: the place is from another history.
            return Err(WatchEnd::Gone(self.place));
        }
        let rows = Rows::of(batch, first);
        self.place = rows.place_after(rows.rows.len());
        Ok(rows)
    }

    async fn find(&self) -> Result<Reading, WatchEnd> {
        self.history.find(self.place.seq).await.map_err(|error| ended(error, self.place))
    }
}

fn ended(error: HistoryError, place: Place) -> WatchEnd {
    match error {
        HistoryError::Gone => WatchEnd::Gone(place),
        error => WatchEnd::Unread(error),
    }
}

#[cfg(test)]
mod tests;
