//! Follows the changes of one shard, a few rows at a time: from memory, and from the log for whoever is behind.
//!
//! Between two steps it holds a place and nothing else, so it does not matter how slowly it is followed.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::changes::Place;
use crate::changes::feed::{Batch, Feed, Look};
use crate::changes::history::{History, HistoryError, Reading};

/// Bytes of the rows that are given at once; the first one in any case.
const ROWS: usize = 32 * 1024;

/// Follows the changes of a shard.
pub(crate) struct Watcher {
    feed: Feed,
    history: History,
    place: Place,
    /// Where the log is read, while it is.
    reading: Option<Reading>,
}

/// Why there are no more changes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WatchEnd {
    /// Go on elsewhere, or here in a moment: the database was closed.
    #[error("the database was closed")]
    Closed,
    /// Begin anew: what comes next is not kept any more.
    #[error("changes after {0} are not kept any more")]
    Gone(Place),
    /// Try again.
    #[error(transparent)]
    Unread(#[from] HistoryError),
}

/// Some rows of a batch, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rows {
    seq: u64,
    /// The number of the first of these in the batch.
    first: usize,
    /// How many the batch has.
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

    /// Their batch.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// Takes the next one.
    pub(crate) fn take(&mut self) -> Option<(Bytes, Option<Bytes>)> {
        let row = self.rows.pop_front()?;
        self.first += 1;
        Some(row)
    }

    /// The place behind what was taken, of which there is some.
    pub(crate) fn place(&self) -> Place {
        self.place_after(0)
    }

    /// The place behind so many more.
    fn place_after(&self, rows: usize) -> Place {
        Place::after_row(self.seq, self.first + rows - 1, self.of)
    }

    /// How large the first one is, if its key has the prefix and it is more than may be held.
    pub(crate) fn large(&self, prefix: &[u8]) -> Option<usize> {
        let first = self.rows.front().filter(|(key, _)| key.starts_with(prefix))?;
        Some(size(first)).filter(|size| *size > ROWS)
    }
}

fn size((key, value): &(Bytes, Option<Bytes>)) -> usize {
    key.len() + value.as_ref().map_or(0, Bytes::len)
}

impl Watcher {
    /// Goes on from a place, or from now. Fails at once if what is behind that place is gone.
    pub(crate) async fn begin(feed: Feed, history: History, from: Option<Place>) -> Result<Self, WatchEnd> {
        let place = from.unwrap_or_else(|| feed.head());
        let mut watcher = Self { feed, history, place, reading: None };
        match watcher.feed.look(place) {
            Look::Batch(_) | Look::Nothing => {}
            Look::Never => return Err(WatchEnd::Gone(place)),
            Look::Below(_) => watcher.reading = Some(watcher.find().await?),
        }
        Ok(watcher)
    }

    /// All below it was seen.
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// What comes next. Waits until there is something.
    pub(crate) async fn next(&mut self) -> Result<Rows, WatchEnd> {
        let feed = self.feed.clone();
        tokio::select! {
            biased;
            () = feed.ended() => Err(WatchEnd::Closed),
            next = self.find_next() => next,
        }
    }

    /// Goes back to a place that was left behind.
    pub(crate) fn back_to(&mut self, place: Place) {
        self.place = place;
    }

    async fn find_next(&mut self) -> Result<Rows, WatchEnd> {
        loop {
            match self.feed.look(self.place) {
                Look::Batch(batch) => {
                    self.reading = None;
                    return self.rows_of(&batch);
                }
                Look::Nothing => self.feed.more(self.place).await,
                Look::Never => return Err(WatchEnd::Gone(self.place)),
                Look::Below(floor) => {
                    let reading = match self.reading {
                        Some(reading) => reading,
                        None => self.find().await?,
                    };
                    self.reading = Some(reading);
                    let batches = self.history.read(reading).await;
                    let batches = batches.map_err(|error| ended(error, self.place))?;
                    let at = batches.partition_point(|batch| batch.seq < self.place.seq);
                    // Above the floor it may not be durable yet, and memory has it.
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
            // It has another batch under that number: the place is of another history.
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
