//! The data of one shard: linearizable reads, writes that are answered once they are durable.
//!
//! A *write* waits in a queue of bounded size. One round after the other takes all that wait, judges their conditions,
//! puts them into the database and flushes its log to the object store; then they are answered. So what was answered is
//! never lost. See [`crate::commit`].
//!
//! A *read* waits until a look at the manifest on the store, begun after the read came, has shown that nobody else had
//! opened the database by then. Then it reads what is durable. So whatever was answered before the read came, by this
//! node or by another one, is seen; and what one read has shown, no later read takes back: a new owner opens the
//! manifest first, and then finds all that its predecessor ever saw as durable. A listing keeps the same promise, for
//! one moment within the request.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use plugin::{Health, Metrics, Tasks};
use slatedb::config::{DurabilityLevel, ReadOptions};
use slatedb::object_store::ObjectStore;
use slatedb::{Db, ErrorKind};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::arrival::{Arriving, NoRoom, Reserved};
use crate::cache::Cache;
use crate::change::{Change, Condition, Unity};
use crate::consistency::{Consistency, Stale};
use crate::data_clock::WallClock;
use crate::disk_cache::DiskCache;
use crate::feed::Feed;
use crate::history::History;
use crate::keeper::{Keeper, flush_early};
use crate::key::Key;
use crate::log_files::LogFiles;
use crate::meters::Meters;
use crate::open::Opener;
use crate::ownership::Ownership;
use crate::page::{Page, Query};
use crate::patience::{PATIENCE, patiently};
use crate::record::{Record, Versioned};
use crate::refusal::Refusal;
use crate::scan;
use crate::settings::Settings;
use crate::shared::{Shared, State};
use crate::stored::{key_range, stored};
use crate::tuning;
use crate::vigil::Moment;
use crate::write::{Write, Written};

/// A proof of ownership that is older is not good enough for a reader who may be told something old.
const LATELY: Duration = Duration::from_secs(1);
/// A wall clock that is this near to data time is not set otherwise.
const NEAR: i64 = 1_000;

/// The data of one shard. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Engine(Arc<Shared>);

/// Where the data lies, and by which clock.
pub(crate) struct Place {
    pub(crate) objects: Arc<dyn ObjectStore>,
    /// Its folder on the store, for messages.
    pub(crate) folder: String,
    /// How often a reader may look at it.
    pub(crate) poll: Duration,
    pub(crate) wall: WallClock,
    /// Where parts of it are kept on this node's disk, if they are.
    pub(crate) disk: Option<DiskCache>,
}

impl Engine {
    /// Begins to open the database of a shard, and keeps it open until `stop`.
    pub(crate) fn start(
        place: Place,
        ownership: Arc<dyn Ownership>,
        settings: &Settings,
        metrics: &Metrics,
        tasks: &Tasks,
        stop: CancellationToken,
    ) -> Self {
        let Place { objects, folder, poll, wall, disk } = place;
        let files = LogFiles::new(objects);
        let seen = files.seen();
        let objects: Arc<dyn ObjectStore> = Arc::new(files);
        let meters = Meters::new(metrics, &seen);
        let log = Arc::clone(&objects);
        let shared =
            Shared::new(State::Opening(None), log, settings, meters, seen, wall.clone(), stop.clone());
        let shared = Arc::new(shared);
        let cache = Cache::of_size(settings.cache_bytes()).part();
        let opener = Opener {
            objects,
            ownership,
            cache,
            disk,
            poll,
            wall,
            folder,
            seen: Arc::clone(&shared.seen),
            recorder: Arc::default(),
        };
        let keeper = Keeper { opener, shared: Arc::clone(&shared), stop };
        tasks.spawn("database", async move {
            keeper.run().await;
            Ok(())
        });
        Self(shared)
    }

    /// The engine of a node that does not own the shard: it refuses everything.
    pub(crate) fn none(objects: Arc<dyn ObjectStore>, settings: &Settings, meters: Meters) -> Self {
        let state = State::Passed("this node has a copy of it".to_owned());
        let (seen, stop) = (Arc::default(), CancellationToken::new());
        let wall = WallClock::system();
        Self(Arc::new(Shared::new(state, objects, settings, meters, seen, wall, stop)))
    }

    /// Waits until the database is open. Fails if it is known that it will not be, or the time is over.
    pub(crate) async fn opened(&self, limit: Duration) -> Result<(), Refusal> {
        let mut state = self.0.state.subscribe();
        let settled = state.wait_for(|state| !matches!(state, State::Opening(_)));
        let _ = timeout(limit, settled).await;
        self.0.open().map(|_| ())
    }

    /// Begins to take room for a body that is about to arrive, with this many bytes besides it. What a replica passes on
    /// waits here as well.
    pub(crate) async fn arriving(&self, bytes: usize) -> Result<Arriving, Refusal> {
        self.0.queue.begin(bytes).await.map_err(|NoRoom| self.full())
    }

    /// The refusal of what found no room.
    pub(crate) fn full(&self) -> Refusal {
        Refusal::Full(self.0.seen.trouble())
    }

    /// Takes room for a write that is in memory already.
    pub(crate) fn reserve(&self, bytes: usize) -> Result<Reserved, Refusal> {
        self.0.queue.reserve(bytes).ok_or_else(|| self.full())
    }

    /// Writes a value, if the condition holds. Ends with its version when it is durable.
    pub(crate) async fn put(
        &self,
        key: &Key,
        record: Record,
        condition: Option<Condition>,
        room: Reserved,
    ) -> Result<Written, Refusal> {
        self.0.meters.puts.inc();
        let change = Change::put(key.clone(), &record).provided(condition);
        // The change has a form of its own; while it waits nobody needs the other one.
        drop(record);
        self.write(vec![change], Unity::Whole, room).await
    }

    /// Deletes a key, whether it is there or not, if the condition holds. Ends when that is durable.
    pub(crate) async fn delete(&self, key: &Key, condition: Option<Condition>) -> Result<Written, Refusal> {
        self.0.meters.deletes.inc();
        let room = self.reserve(key.bytes().len())?;
        self.write(vec![Change::delete(key.clone()).provided(condition)], Unity::Whole, room).await
    }

    /// Makes all changes or, if a condition does not hold, none. No key may be among them twice.
    pub(crate) async fn batch(&self, changes: Vec<Change>, room: Reserved) -> Result<Written, Refusal> {
        self.0.meters.batches.inc();
        self.write(changes, Unity::Whole, room).await
    }

    /// Makes changes without conditions, each by itself. Ends when all are durable.
    pub(crate) async fn import(&self, changes: Vec<Change>, room: Reserved) -> Result<Written, Refusal> {
        self.0.meters.imports.inc();
        self.write(changes, Unity::Apart, room).await
    }

    async fn write(&self, changes: Vec<Change>, unity: Unity, room: Reserved) -> Result<Written, Refusal> {
        let open = self.0.open()?;
        let (answer, answered) = oneshot::channel();
        let write = Write { changes, unity, came: Instant::now(), answer, _room: room };
        open.writes.try_send(write).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refusal::Full(self.0.seen.trouble()),
            mpsc::error::TrySendError::Closed(_) => Refusal::NotOpen("it is being opened again".to_owned()),
        })?;
        match patiently(&self.0.seen, answered).await {
            Ok(Ok(answer)) => answer.map_err(|refusal| self.0.noted(refusal)),
            Ok(Err(_)) => Err(Refusal::Unsettled(self.0.why("the data was closed meanwhile"))),
            Err(trouble) => Err(Refusal::Unsettled(trouble.unwrap_or_else(|| self.late(&open.db)))),
        }
    }

    /// The value of a key, as new as it is asked for.
    pub(crate) async fn get(
        &self,
        key: &Key,
        consistency: Consistency,
    ) -> Result<Stale<Option<Versioned>>, Refusal> {
        self.0.meters.gets.inc();
        let options = ReadOptions::new().with_durability_filter(DurabilityLevel::Remote);
        let name = stored(key.bytes());
        let read = |db: Db| async move { db.get_key_value_with_options(name, &options).await };
        let Stale { value: row, by } = self.read(consistency, read).await?;
        let Some(row) = row else { return Ok(Stale { value: None, by }) };
        match Record::decode(&row.value) {
            Ok(record) => Ok(Stale { value: Some(Versioned { version: row.seq, record }), by }),
            Err(error) => Err(self.0.noted(Refusal::Damaged(format!("{key}: {error}")))),
        }
    }

    /// Some of the keys of this shard, as new as it is asked for.
    pub(crate) async fn page(&self, query: &Query) -> Result<Stale<Page>, Refusal> {
        self.0.meters.lists.inc();
        let Some(range) = key_range(query) else {
            return Ok(Stale { value: Page::default(), by: Some(Duration::ZERO) });
        };
        let read = |db: Db| async move { scan::page(&db, range, query).await };
        let Stale { value: page, by } = self.read(query.consistency, read).await?;
        Ok(Stale { value: page.map_err(|refusal| self.0.noted(refusal))?, by })
    }

    /// The changes of this shard, the latest and those before them.
    pub(crate) fn changes(&self) -> Result<(Feed, History), Refusal> {
        Ok((self.0.open()?.feed, self.0.history.clone()))
    }

    /// Data time, in milliseconds since 1970. While nothing is open, the wall clock's: nothing is written by it.
    pub(crate) fn now_ms(&self) -> u64 {
        let open = self.0.open().ok();
        let now = open.map_or_else(|| self.0.wall.now_ms(), |open| open.clock.now_ms());
        u64::try_from(now).unwrap_or_default()
    }

    /// A time of day in data time, which may be far from the wall clock's, see [`crate::data_clock`].
    pub(crate) fn in_data_time(&self, at: NonZeroU64) -> NonZeroU64 {
        let Ok(open) = self.0.open() else { return at };
        let ahead = open.clock.now_ms().saturating_sub(self.0.wall.now_ms());
        let moved = at.get().saturating_add_signed(if ahead.abs() < NEAR { 0 } else { ahead });
        NonZeroU64::new(moved).unwrap_or(NonZeroU64::MIN)
    }

    /// What is measured.
    pub(crate) fn meters(&self) -> &Meters {
        &self.0.meters
    }

    /// Reads what is durable, and nothing that another node may have replaced before the read began, unless that is
    /// good enough.
    async fn read<T, R>(
        &self,
        consistency: Consistency,
        read: impl FnOnce(Db) -> R,
    ) -> Result<Stale<T>, Refusal>
    where
        R: Future<Output = Result<T, slatedb::Error>>,
    {
        let began = Moment::now();
        let open = self.0.open()?;
        if self.0.vigil.is_late(&began) {
            return Err(was_paused());
        }
        let proven = match consistency {
            Consistency::Strong => None,
            Consistency::Primary => Some(self.0.proven()),
            Consistency::Any => {
                Some(self.0.proven()).filter(|proven| proven.is_some_and(|at| at.elapsed() <= LATELY))
            }
        };
        let reading = async {
            if proven.is_none() {
                let (answer, answered) = oneshot::channel();
                let closed = || Refusal::NotOpen(self.0.why("it was closed meanwhile"));
                open.looks.send(answer).await.map_err(|_| closed())?;
                answered.await.map_err(|_| closed())?;
            }
            read(open.db).await.map_err(|error| match error.kind() {
                ErrorKind::Data => self.0.noted(Refusal::Damaged(error.to_string())),
                _ => Refusal::Unread(self.0.why(&error.to_string())),
            })
        };
        let outcome = patiently(&self.0.seen, reading).await;
        if Moment::now().is_long_after(&began) {
            return Err(was_paused());
        }
        let value = outcome.unwrap_or_else(|trouble| Err(Refusal::Unread(trouble.unwrap_or_else(late))))?;
        // A look that was waited for began after the request.
        let by = proven.unwrap_or(Some(began)).map(|proven| proven.elapsed());
        Ok(Stale { value, by })
    }

    /// Why a write took too long, if nothing is wrong with the store.
    fn late(&self, db: &Db) -> String {
        if db.manifest().l0().len() >= tuning::TABLES {
            return format!("its tables are being compacted, and writes have waited {PATIENCE:?} for that");
        }
        late()
    }

    /// How it is.
    pub(crate) fn health(&self) -> Health {
        match self.0.open() {
            Ok(_) => self.0.trouble().map_or(Health::Ready, Health::Degraded),
            Err(refusal) => Health::Degraded(refusal.to_string()),
        }
    }

    /// Makes it quick for the next owner to open the database, as far as that takes no time.
    pub(crate) async fn prepare_to_close(&self) {
        flush_early(&self.0).await;
    }

    /// Closes the database and waits until that is done.
    pub(crate) async fn stop(&self) {
        self.0.stop.cancel();
        let mut state = self.0.state.subscribe();
        let ended = |state: &State| matches!(state, State::Closed | State::Passed(_));
        let _ = state.wait_for(ended).await;
    }
}

/// What took too long though nothing is known to be wrong with the store.
pub(crate) fn late() -> String {
    format!("it took over {PATIENCE:?}, though the object store answers")
}

fn was_paused() -> Refusal {
    Refusal::NotOpen("this process was paused for over a minute; it is being opened again".to_owned())
}

#[cfg(test)]
mod clock_tests;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
pub(crate) mod tests;
