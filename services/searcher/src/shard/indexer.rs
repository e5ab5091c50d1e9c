//! The indexer of a shard: gives durable operations to the index writers in the order of the log, and refreshes.
//!
//! A refresh commits all writers, makes the result visible to searches, and hands it to the task that stores segments.
//! What it covers is exact: whole entries of the log, all of whose operations are committed in every index.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};
use types::Backoff;
use uuid::Uuid;

use super::Limits;
use super::local_indexes::{Committed, LocalError, LocalIndexes};
use super::pending::Pending;
use super::status::{Meters, Status, Trouble};
use super::view::Views;
use crate::catalog::{Catalog, Indexes};

/// How many bytes of operations are fed at once. A refresh that is wanted waits for that.
const FEED: usize = 4 * 1024 * 1024;
/// The pauses after failures of index writers.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
/// After this many failures in a row that are not a full disk's, the shard is opened again.
const FAILURES: u32 = 4;

/// The local indexes of a shard. They are locked by blocking work only, which runs to its end even if nobody waits for it.
pub(crate) type Local = Arc<Mutex<LocalIndexes>>;

/// What to store: a state of all indexes that has the operations of whole entries of the log.
#[derive(Clone)]
pub(crate) struct Refresh {
    /// The last entry whose operations are in it.
    pub(crate) applied: u64,
    /// The number of the first operation after it.
    pub(crate) next_seq: u64,
    pub(crate) indexes: BTreeMap<Uuid, Arc<Committed>>,
}

/// Indexes what is pending.
pub(crate) struct Indexer {
    pub(crate) local: Local,
    pub(crate) pending: Arc<Pending>,
    pub(crate) views: Views,
    pub(crate) catalog: Catalog,
    pub(crate) limits: Limits,
    pub(crate) status: Arc<Status>,
    pub(crate) meters: Meters,
    /// The latest refresh.
    pub(crate) refreshed: watch::Sender<Refresh>,
    /// Whether the last attempt has failed because the disk was full.
    pub(crate) was_full: bool,
}

/// Why something was not indexed.
pub(crate) enum Failure {
    /// Try it again with other writers.
    Local(LocalError),
    /// Open the shard again.
    Fatal(String),
}

impl From<LocalError> for Failure {
    fn from(error: LocalError) -> Self {
        match error {
            LocalError::Tantivy(_) => Self::Local(error),
            LocalError::Damaged { .. } => Self::Fatal(error.to_string()),
        }
    }
}

pub(crate) fn lock(local: &Local) -> MutexGuard<'_, LocalIndexes> {
    local.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does blocking work with the local indexes. A panic in it is an error, after which the shard must be opened again.
pub(crate) async fn blocking<T: Send + 'static>(
    local: &Local,
    work: impl FnOnce(&mut LocalIndexes) -> T + Send + 'static,
) -> Result<T, String> {
    let local = Arc::clone(local);
    let done = spawn_blocking(move || work(&mut lock(&local))).await;
    done.map_err(|error| format!("the local indexes can't be used: {error}"))
}

impl Indexer {
    /// Indexes until the shard has to be opened again. Returns why. May be dropped at any time.
    pub(crate) async fn run(mut self) -> String {
        let (mut due, mut retries, mut failures) =
            (Instant::now() + self.limits.refresh, PAUSES.retries(), 0);
        loop {
            let is_due = tokio::select! {
                biased;
                () = sleep_until(due) => true,
                () = self.pending.woken() => false,
                () = self.catalog.changed() => {
                    if let Err(why) = self.drop_deleted().await {
                        return why;
                    }
                    false
                }
            };
            let began = Instant::now();
            let outcome = self.step(is_due).await;
            if is_due {
                due = next_refresh(began, Instant::now(), self.limits.refresh);
            }
            match outcome {
                Ok(()) => (failures, retries) = (0, PAUSES.retries()),
                Err(Failure::Fatal(why)) => return why,
                Err(Failure::Local(error)) => {
                    failures += 1;
                    if let Err(why) = self.failed(&error, failures).await {
                        return why;
                    }
                    sleep(retries.failed(rand::random())).await;
                    self.pending.wake();
                }
            }
        }
    }

    /// Feeds all that waits, for a replay.
    pub(crate) async fn feed_all(&self) -> Result<(), Failure> {
        loop {
            let entries = self.pending.unfed(FEED);
            if entries.is_empty() {
                return Ok(());
            }
            let count = entries.len();
            blocking(&self.local, move |local| local.feed(&entries)).await.map_err(Failure::Fatal)??;
            self.pending.fed(count);
        }
    }

    /// Feeds what waits, and refreshes if it is time to.
    async fn step(&mut self, is_due: bool) -> Result<(), Failure> {
        let count = |count| i64::try_from(count).unwrap_or(i64::MAX);
        self.meters.pending.set(count(self.pending.behind().operations));
        self.meters.log_behind.set(count(self.pending.entries()));
        self.meters.lag.set(self.pending.lag().as_secs_f64());
        loop {
            if !self.has_room().await? {
                break;
            }
            let entries = self.pending.unfed(FEED);
            if entries.is_empty() {
                break;
            }
            let count = entries.len();
            blocking(&self.local, move |local| local.feed(&entries)).await.map_err(Failure::Fatal)??;
            self.pending.fed(count);
            if self.is_half_full() {
                // The rest follows at once.
                self.pending.wake();
                break;
            }
        }
        if is_due || self.pending.is_wanted() || self.is_half_full() {
            self.refresh(false).await?;
        }
        Ok(())
    }

    /// Whether writes would soon be refused.
    fn is_half_full(&self) -> bool {
        let (behind, (bytes, operations)) = (self.pending.behind(), self.limits.max_behind);
        self.pending.fed_up_to().is_some() && (behind.bytes > bytes / 2 || behind.operations > operations / 2)
    }

    /// Whether the local segments may grow.
    async fn has_room(&self) -> Result<bool, Failure> {
        let (used, limit) =
            (blocking(&self.local, |local| local.bytes()).await.map_err(Failure::Fatal)?, self.limits.disk);
        self.meters.bytes.set(i64::try_from(used).unwrap_or(i64::MAX));
        if used > limit {
            let why = format!("the local segments have {used} bytes; {limit} are allowed");
            self.status.set(Trouble::DiskFull, why);
            return Ok(false);
        }
        if !self.was_full {
            self.status.clear(Trouble::DiskFull);
        }
        Ok(true)
    }

    /// Makes what was fed visible, and hands it to the task that stores it. `always` also if nothing is new.
    pub(crate) async fn refresh(&mut self, always: bool) -> Result<(), Failure> {
        let (began, merges_wanted) = (Instant::now(), self.pending.merges_wanted());
        let fed = self.pending.fed_up_to();
        let is_new = always || fed.is_some();
        let refreshed = blocking(&self.local, move |local| {
            local.close_idle();
            if !is_new && !local.has_merged() {
                return Ok(None);
            }
            local.refresh().map(|refreshed| Some((refreshed, local.counts())))
        });
        let refreshed = refreshed.await.map_err(Failure::Fatal)??;
        self.was_full = false;
        let Some((refreshed, (documents, segments))) = refreshed else {
            self.pending.merges_visible(merges_wanted);
            return Ok(());
        };
        let before = self.refreshed.borrow();
        let (applied, next_seq) = fed.unwrap_or((before.applied, before.next_seq));
        drop(before);
        self.views.publish(refreshed.searchers);
        // After that, so that each operation is found in one of them.
        self.pending.visible(applied, next_seq);
        self.pending.merges_visible(merges_wanted);
        self.refreshed.send_replace(Refresh { applied, next_seq, indexes: refreshed.committed });
        self.status.clear(Trouble::Indexing);
        self.meters.documents.set(i64::try_from(documents).unwrap_or(i64::MAX));
        self.meters.segments.set(i64::try_from(segments).unwrap_or(i64::MAX));
        self.meters.refreshes.observe(began.elapsed().as_secs_f64());
        Ok(())
    }

    /// Drops the writers after a failure, so that what was not committed is fed again. Fails if the shard has to be opened
    /// again.
    async fn failed(&mut self, error: &LocalError, failures: u32) -> Result<(), String> {
        let (was_full, reset) = blocking(&self.local, |local| (local.was_full(), local.reset())).await?;
        self.pending.feed_again();
        let why = error.to_string();
        warn!(why, was_full, failures, "operations can't be indexed; they are tried again");
        match (was_full, reset) {
            (true, Ok(())) => {
                self.was_full = true;
                self.status.set(Trouble::DiskFull, format!("the disk of the local segments is full: {why}"));
                Ok(())
            }
            (false, Ok(())) if failures < FAILURES => {
                self.status.set(Trouble::Indexing, why);
                Ok(())
            }
            (false, Ok(())) => Err(why),
            (_, Err(error)) => Err(error.to_string()),
        }
    }

    /// Drops what the catalog lacks. An index that is known here was in the catalog once, and its id is never given to
    /// another one, so it was deleted if a read that begins now lacks it.
    async fn drop_deleted(&mut self) -> Result<(), String> {
        let catalog = match self.catalog.fresh().await {
            Ok(catalog) => catalog,
            Err(error) => {
                info!(%error, "deleted indexes stay until the catalog can be read");
                self.catalog.now()
            }
        };
        self.apply_catalog(&catalog).await
    }

    async fn apply_catalog(&mut self, catalog: &Arc<Indexes>) -> Result<(), String> {
        let catalog = Arc::clone(catalog);
        let dropped = blocking(&self.local, move |local| {
            local.expect(catalog.all().count());
            let dropped = local.drop_others(&catalog);
            (!dropped.is_empty()).then(|| (dropped, local.refreshed()))
        });
        let Some((dropped, refreshed)) = dropped.await? else { return Ok(()) };
        for uuid in dropped {
            info!(index = %uuid, "an index was deleted");
            self.pending.drop_index(uuid);
        }
        self.views.publish(refreshed.searchers);
        self.refreshed
            .send_modify(|refresh| refresh.indexes.retain(|uuid, _| refreshed.committed.contains_key(uuid)));
        Ok(())
    }
}

/// When the next refresh is due: the pause is counted from the beginning of the last one, so that an operation waits for one
/// pause at most. Refreshes take half of the time at most.
fn next_refresh(began: Instant, ended: Instant, pause: Duration) -> Instant {
    (began + pause).max(ended + (ended - began))
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local(error) => error.fmt(f),
            Self::Fatal(why) => why.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refreshes_begin_at_a_steady_rate_and_take_half_of_the_time_at_most() {
        let (began, ms) = (Instant::now(), Duration::from_millis);
        for (took, pause, next) in
            [(0, 1_000, 1_000), (300, 1_000, 1_000), (700, 1_000, 1_400), (50, 20, 100)]
        {
            assert_eq!(next_refresh(began, began + ms(took), ms(pause)), began + ms(next), "{took} {pause}");
        }
    }
}
