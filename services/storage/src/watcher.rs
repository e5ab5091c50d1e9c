//! Follows the changes of one shard, batch by batch: from memory, and from the log for whoever is behind.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::cursor::Place;
use crate::feed::{Batch, Feed, Look};
use crate::history::{History, HistoryError, Reading};

/// Follows the changes of a shard.
pub(crate) struct Watcher {
    feed: Feed,
    history: History,
    place: Place,
    /// Where the log is read, while it is.
    reading: Option<Reading>,
    /// What was read there and not yet seen.
    read: VecDeque<Arc<Batch>>,
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
    Unread(#[from] slatedb::Error),
}

/// Rows of a batch, from one on.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    pub(crate) batch: Arc<Batch>,
    pub(crate) first: usize,
}

impl Watcher {
    /// Goes on from a place, or from now. Fails at once if what is behind that place is gone.
    pub(crate) async fn begin(feed: Feed, history: History, from: Option<Place>) -> Result<Self, WatchEnd> {
        let place = from.unwrap_or_else(|| feed.head());
        let mut watcher = Self { feed, history, place, reading: None, read: VecDeque::new() };
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

    async fn find_next(&mut self) -> Result<Rows, WatchEnd> {
        loop {
            if let Some(batch) = self.read.pop_front() {
                return self.rows_of(batch);
            }
            match self.feed.look(self.place) {
                Look::Batch(batch) => {
                    self.reading = None;
                    return self.rows_of(batch);
                }
                Look::Nothing => self.feed.more(self.place).await,
                Look::Never => return Err(WatchEnd::Gone(self.place)),
                Look::Below(floor) => {
                    let reading = match &mut self.reading {
                        Some(reading) => reading,
                        None => {
                            let found = self.find().await?;
                            self.reading.insert(found)
                        }
                    };
                    let batches = reading.read().await.map_err(|error| ended(error, self.place))?;
                    let wanted = self.place.seq..=floor;
                    self.read = batches
                        .into_iter()
                        .filter(|batch| wanted.contains(&batch.seq))
                        .map(Arc::new)
                        .collect();
                }
            }
        }
    }

    fn rows_of(&mut self, batch: Arc<Batch>) -> Result<Rows, WatchEnd> {
        let first = if batch.seq == self.place.seq { self.place.row } else { 0 };
        if first >= batch.rows.len() {
            // It has another batch under that number: the place is of another history.
            return Err(WatchEnd::Gone(self.place));
        }
        self.place = Place::after(batch.seq);
        Ok(Rows { batch, first })
    }

    async fn find(&self) -> Result<Reading, WatchEnd> {
        self.history.find(self.place.seq).await.map_err(|error| ended(error, self.place))
    }
}

fn ended(error: HistoryError, place: Place) -> WatchEnd {
    match error {
        HistoryError::Gone => WatchEnd::Gone(place),
        HistoryError::Unread(error) => WatchEnd::Unread(error),
    }
}
