//! The data of one shard: linearizable reads, and writes that are acknowledged once they are durable.
//!
//! A *write* waits in a queue of bounded size. One group commit after the other takes all waiting writes, checks their
//! conditions, puts them into the database, flushes its log to the object store and then acknowledges them. So an
//! acknowledged write is never lost. See [`commit`].
//!
//! A *read* waits for a check of the manifest on the store that began after the read arrived, and that shows that no
//! other node had opened the database by then. Then it reads what is durable. So it sees every write that was
//! acknowledged before it arrived, by this node or another one. And what one read has returned, every later read sees:
//! a new owner opens the manifest first, and then finds everything that its predecessor ever saw as durable. A listing
//! has the same guarantee, for one point in time during the request.

pub(crate) mod cache;
mod commit;
pub(crate) mod data_clock;
pub(crate) mod disk_cache;
mod error;
pub(crate) mod expiry;
pub(crate) mod garbage;
pub(crate) mod log_files;
mod measure;
pub(crate) mod notes;
pub(crate) mod open;
mod runner;
pub(crate) mod scan;
mod shared;
pub(crate) mod survey;
pub(crate) mod table_cache;
#[cfg(test)]
pub(crate) mod testing;
mod tuning;

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use plugin::queue::{Arriving, NotQueued, QueueFull, Reserved};
use plugin::shard::{Condition, Key, Moment, NotOpen, Read, ReadLevel, ScanRange};
use plugin::{Claim, DiskCache, Health, Metrics, Tasks};
use slatedb::config::{DurabilityLevel, ReadOptions};
use slatedb::object_store::ObjectStore;
use slatedb::{Db, ErrorKind};
use store::StoreTimeout;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::changes::feed::Feed;
use crate::changes::history::History;
use crate::data::change::{Change, Unity, Write, Written};
use crate::data::layout::{key_range, stored};
use crate::data::page::Page;
use crate::data::record::{Record, Versioned};
use crate::meters::Meters;
use crate::settings::Settings;
use cache::Cache;
use data_clock::WallClock;
use log_files::LogFiles;
use open::Opener;
use runner::{Runner, flush_early};
use shared::Shared;

pub(crate) use error::EngineError;

/// How long a request may wait for the object store.
pub(crate) const TIMEOUT: StoreTimeout =
    StoreTimeout { usual: Duration::from_secs(10), in_trouble: Duration::from_secs(3) };
/// How old the last check of ownership may be for a read that accepts stale data to do without a new one.
const LATELY: Duration = Duration::from_secs(1);
/// How close the wall clock must be to data time to count as equal, in milliseconds.
const NEAR: i64 = 1_000;

/// The data of one shard. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Engine(Arc<Shared>);

/// Where the data is, and which clock it uses.
pub(crate) struct Place {
    pub(crate) objects: Arc<dyn ObjectStore>,
    /// Its folder on the store, for messages.
    pub(crate) folder: String,
    /// How often a reader may poll it.
    pub(crate) poll: Duration,
    /// Where data time begins, unless it is already later.
    pub(crate) wall: WallClock,
    /// Where parts of it are cached on this node's disk, if they are.
    pub(crate) disk: Option<DiskCache>,
}

impl Engine {
    /// Starts to open the database of a shard, and keeps it open until `stop`.
    pub(crate) fn start(
        place: Place,
        claim: Claim,
        settings: &Settings,
        metrics: &Metrics,
        tasks: &Tasks,
        stop: CancellationToken,
    ) -> Self {
        let files = LogFiles::new(place.objects);
        let seen = files.seen();
        let place = Place { objects: Arc::new(files), ..place };
        let meters = Meters::new(metrics, &seen);
        let (log, wall) = (Arc::clone(&place.objects), place.wall.clone());
        let not_yet = NotOpen::Opening(None);
        let shared = Arc::new(Shared::new(not_yet, log, settings, meters, seen, wall, stop.clone()));
        let cache = Cache::of_size(settings.cache_bytes()).part();
        let seen = Arc::clone(&shared.seen);
        let opener = Opener { place, claim, cache, seen, recorder: Arc::default() };
        let runner = Runner { opener, shared: Arc::clone(&shared), stop };
        tasks.spawn("database", async move {
            runner.run().await;
            Ok(())
        });
        Self(shared)
    }

    /// The engine of a node that does not own the shard: it refuses everything.
    pub(crate) fn none(objects: Arc<dyn ObjectStore>, settings: &Settings, meters: Meters) -> Self {
        let state = NotOpen::Passed("this node has a replica of it".to_owned());
        let (seen, stop) = (Arc::default(), CancellationToken::new());
        let wall = WallClock::system();
        Self(Arc::new(Shared::new(state, objects, settings, meters, seen, wall, stop)))
    }

    /// Waits until the database is open. Fails if it is known that it will not open, or once the limit has passed.
    pub(crate) async fn opened(&self, limit: Duration) -> Result<(), EngineError> {
        let _ = self.0.kept.opened(limit).await;
        self.0.open().map(|_| ())
    }

    /// Starts to take space for a body that is about to arrive, and for this many bytes besides. Bodies that a replica
    /// forwards wait here too.
    pub(crate) async fn arriving(&self, bytes: usize) -> Result<Arriving, EngineError> {
        self.0.queue.begin(bytes).await.map_err(|QueueFull| self.full())
    }

    /// The error for a write that found no space.
    pub(crate) fn full(&self) -> EngineError {
        EngineError::Full(self.0.seen.trouble())
    }

    /// Takes space for a write that is already in memory.
    pub(crate) fn reserve(&self, bytes: usize) -> Result<Reserved, EngineError> {
        self.0.queue.reserve(bytes).ok_or_else(|| self.full())
    }

    /// Writes a value if the condition holds. Returns its version once it is durable.
    pub(crate) async fn put(
        &self,
        key: &Key,
        record: Record,
        condition: Option<Condition>,
        space: Reserved,
    ) -> Result<Written, EngineError> {
        self.0.meters.puts.inc();
        let change = Change::put(key.clone(), &record).provided(condition);
        // The change has an encoded copy, so the record is not needed while it waits.
        drop(record);
        self.write(vec![change], Unity::Whole, space).await
    }

    /// Deletes a key if the condition holds, whether or not it has a value. Returns once that is durable.
    pub(crate) async fn delete(
        &self,
        key: &Key,
        condition: Option<Condition>,
    ) -> Result<Written, EngineError> {
        self.0.meters.deletes.inc();
        let space = self.reserve(key.bytes().len())?;
        self.write(vec![Change::delete(key.clone()).provided(condition)], Unity::Whole, space).await
    }

    /// Makes all changes or, if a condition does not hold, none. No key may appear twice.
    pub(crate) async fn batch(&self, changes: Vec<Change>, space: Reserved) -> Result<Written, EngineError> {
        self.0.meters.batches.inc();
        self.write(changes, Unity::Whole, space).await
    }

    /// Makes changes without conditions, each separately. Returns once all are durable.
    pub(crate) async fn import(&self, changes: Vec<Change>, space: Reserved) -> Result<Written, EngineError> {
        self.0.meters.imports.inc();
        self.write(changes, Unity::Apart, space).await
    }

    async fn write(
        &self,
        changes: Vec<Change>,
        unity: Unity,
        space: Reserved,
    ) -> Result<Written, EngineError> {
        let open = self.0.open()?;
        let answered = open.writes.put(Write { changes, unity }, space).map_err(|error| match error {
            NotQueued::Full(QueueFull) => self.full(),
            NotQueued::Closed => EngineError::NotOpen("it is being opened again".to_owned()),
        })?;
        match TIMEOUT.run(self.0.seen.health(), answered).await {
            Ok(Ok(answer)) => answer.map_err(|error| self.0.noted(error)),
            Ok(Err(_)) => Err(EngineError::Unsettled(self.0.why("the data was closed meanwhile"))),
            Err(trouble) => Err(EngineError::Unsettled(trouble.unwrap_or_else(|| self.late(&open.db)))),
        }
    }

    /// The value of a key, at a read level.
    pub(crate) async fn get(
        &self,
        key: &Key,
        level: ReadLevel,
    ) -> Result<Read<Option<Versioned>>, EngineError> {
        self.0.meters.gets.inc();
        let options = ReadOptions::new().with_durability_filter(DurabilityLevel::Remote);
        let name = stored(key.bytes());
        let read = |db: Db| async move { db.get_key_value_with_options(name, &options).await };
        let Read { value: row, staleness } = self.read(level, read).await?;
        let Some(row) = row else { return Ok(Read { value: None, staleness }) };
        match Record::decode(&row.value) {
            Ok(record) => Ok(Read { value: Some(Versioned { version: row.seq, record }), staleness }),
            Err(error) => Err(self.0.noted(EngineError::Damaged(format!("{key}: {error}")))),
        }
    }

    /// Some of the keys of this shard, at a read level.
    pub(crate) async fn scan(&self, range: &ScanRange, level: ReadLevel) -> Result<Read<Page>, EngineError> {
        self.0.meters.lists.inc();
        let Some(keys) = key_range(range) else {
            return Ok(Read { value: Page::default(), staleness: Some(Duration::ZERO) });
        };
        let read = |db: Db| async move { scan::page(&db, keys, range).await };
        let Read { value: page, staleness } = self.read(level, read).await?;
        Ok(Read { value: page.map_err(|error| self.0.noted(error))?, staleness })
    }

    /// The changes of this shard: the latest ones, and the history before them.
    pub(crate) fn changes(&self) -> Result<(Feed, History), EngineError> {
        Ok((self.0.open()?.feed, self.0.history.clone()))
    }

    /// Data time, in milliseconds since 1970. While no database is open, the wall clock's time: nothing is written with
    /// it.
    pub(crate) fn now_ms(&self) -> u64 {
        let open = self.0.open().ok();
        let now = open.map_or_else(|| self.0.wall.now_ms(), |open| open.clock.now_ms());
        u64::try_from(now).unwrap_or_default()
    }

    /// Converts a time of the wall clock into data time, which may be far from it; see [`data_clock`].
    pub(crate) fn in_data_time(&self, at: NonZeroU64) -> NonZeroU64 {
        let Ok(open) = self.0.open() else { return at };
        let ahead = open.clock.now_ms().saturating_sub(self.0.wall.now_ms());
        let moved = at.get().saturating_add_signed(if ahead.abs() < NEAR { 0 } else { ahead });
        NonZeroU64::new(moved).unwrap_or(NonZeroU64::MIN)
    }

    /// The metrics of this shard.
    pub(crate) fn meters(&self) -> &Meters {
        &self.0.meters
    }

    /// Reads what is durable. Unless the read level allows it, nothing that another node may have replaced before the
    /// read began.
    async fn read<T, R>(&self, level: ReadLevel, read: impl FnOnce(Db) -> R) -> Result<Read<T>, EngineError>
    where
        R: Future<Output = Result<T, slatedb::Error>>,
    {
        let began = Moment::now();
        let open = self.0.open()?;
        if self.0.stall.is_late(&began) {
            return Err(was_paused());
        }
        let proven = match level {
            ReadLevel::Strong => None,
            ReadLevel::Primary => Some(self.0.proven()),
            ReadLevel::Any => {
                Some(self.0.proven()).filter(|proven| proven.is_some_and(|at| at.elapsed() <= LATELY))
            }
        };
        let reading = async {
            if proven.is_none() {
                let (answer, answered) = oneshot::channel();
                let closed = || EngineError::NotOpen(self.0.why("it was closed meanwhile"));
                open.proofs.send(answer).await.map_err(|_| closed())?;
                answered.await.map_err(|_| closed())?;
            }
            read(open.db).await.map_err(|error| match error.kind() {
                ErrorKind::Data => self.0.noted(EngineError::Damaged(error.to_string())),
                _ => EngineError::Unread(self.0.why(&error.to_string())),
            })
        };
        let outcome = TIMEOUT.run(self.0.seen.health(), reading).await;
        if Moment::now().is_long_after(&began) {
            return Err(was_paused());
        }
        let value =
            outcome.unwrap_or_else(|trouble| Err(EngineError::Unread(trouble.unwrap_or_else(late))))?;
        // The check that the read waited for began after the request.
        let staleness = proven.unwrap_or(Some(began)).map(|proven| proven.elapsed());
        Ok(Read { value, staleness })
    }

    /// Why a write took too long although the store works.
    fn late(&self, db: &Db) -> String {
        if db.manifest().l0().len() >= tuning::TABLES {
            return format!(
                "its tables are being compacted, and writes have waited {:?} for that",
                TIMEOUT.usual
            );
        }
        late()
    }

    /// Its health.
    pub(crate) fn health(&self) -> Health {
        match self.0.open() {
            Ok(_) => self.0.trouble().map_or(Health::Ready, Health::Degraded),
            Err(error) => error.to_health(),
        }
    }

    /// Flushes the database into tables if that is quick, so that the next owner opens it sooner.
    pub(crate) async fn prepare_to_close(&self) {
        flush_early(&self.0).await;
    }

    /// Closes the database, and waits until it is closed.
    pub(crate) async fn stop(&self) {
        self.0.stop.cancel();
        self.0.kept.ended().await;
    }
}

/// Why something took too long although no fault of the store is known.
pub(crate) fn late() -> String {
    format!("it took over {:?}, though the object store answers", TIMEOUT.usual)
}

fn was_paused() -> EngineError {
    EngineError::NotOpen("this process was paused for over a minute; it is being opened again".to_owned())
}

#[cfg(test)]
mod clock_tests;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
pub(crate) mod tests;
