//! The data of one shard: linearizable reads, writes that are answered once they are durable.
//!
//! A *write* waits in a queue of bounded size. One round after the other takes all that wait, puts them into the
//! database and flushes its log to the object store; then they are answered. So what was answered is never lost.
//!
//! A *read* waits until a look at the manifest on the store, begun after the read came, has shown that nobody else had
//! opened the database by then. Then it reads what is durable. So whatever was answered before the read came, by this
//! node or by another one, is seen; and what one read has shown, no later read takes back: a new owner opens the
//! manifest first, and then finds all that its predecessor ever saw as durable. A listing keeps the same promise, for
//! one moment within the request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use plugin::{Health, Metrics, Tasks};
use slatedb::Db;
use slatedb::config::{DurabilityLevel, ReadOptions, ScanOptions};
use slatedb::object_store::ObjectStore;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::keeper::Keeper;
use crate::key::{Key, encode};
use crate::meters::Meters;
use crate::open::Opener;
use crate::ownership::Ownership;
use crate::page::{Listed, Page, Query};
use crate::record::Record;
use crate::refusal::Refusal;
use crate::settings::Settings;
use crate::tuning;
use crate::vigil::{Moment, Vigil};
use crate::witness::{Seen, Witness};

/// How long a request may wait for the object store.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a listing reads before it gives what it has.
const SCAN_TIME: Duration = Duration::from_secs(3);
/// How many bytes a listing has at most before its last key, about.
const SCAN_BYTES: usize = 4 * 1024 * 1024;
/// What a write costs of the room in the queue besides its bytes.
const OVERHEAD: usize = 512;
/// Requests that may wait for a round.
pub(crate) const QUEUE: usize = 64 * 1024;
/// Keys lie below this byte, so that there is a place for other things beside them.
const KEYS: u8 = b'k';

/// The data of one shard. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Engine(Arc<Shared>);

/// What requests and the keeper of the database share.
pub(crate) struct Shared {
    pub(crate) state: watch::Sender<State>,
    pub(crate) seen: Arc<Seen>,
    pub(crate) vigil: Vigil,
    pub(crate) meters: Meters,
    /// Room in the queue of writes, in bytes.
    room: Arc<Semaphore>,
    size: u32,
    stop: CancellationToken,
}

/// How the database is.
#[derive(Clone)]
pub(crate) enum State {
    /// It is being opened; since when, and why not yet.
    Opening(Option<String>),
    /// Requests are served.
    Open(Open),
    /// The shard is another's: for good.
    Passed(String),
    /// Closed because it was told to: for good.
    Closed,
}

/// An open database.
#[derive(Clone)]
pub(crate) struct Open {
    pub(crate) db: Db,
    pub(crate) writes: mpsc::Sender<Write>,
    /// Who waits for the next look at the manifest.
    pub(crate) looks: mpsc::Sender<oneshot::Sender<()>>,
}

/// A write that waits to become durable.
pub(crate) struct Write {
    pub(crate) key: Bytes,
    /// Nothing: delete.
    pub(crate) value: Option<Bytes>,
    pub(crate) came: Instant,
    pub(crate) answer: oneshot::Sender<Result<(), Refusal>>,
    pub(crate) _room: Room,
}

/// Room in the queue of writes.
pub(crate) struct Room(#[expect(dead_code, reason = "it is held, not read")] OwnedSemaphorePermit);

impl Engine {
    /// Begins to open the database of a shard, and keeps it open until `stop`.
    pub(crate) fn start(
        objects: Arc<dyn ObjectStore>,
        ownership: Arc<dyn Ownership>,
        settings: &Settings,
        metrics: &Metrics,
        tasks: &Tasks,
        stop: CancellationToken,
    ) -> Self {
        let witness = Witness::new(objects);
        let size = u32::try_from(settings.write_queue).unwrap_or(u32::MAX);
        let shared = Arc::new(Shared {
            state: watch::Sender::new(State::Opening(None)),
            seen: witness.seen(),
            vigil: Vigil::new(Moment::now()),
            meters: Meters::new(metrics),
            room: Arc::new(Semaphore::new(settings.write_queue)),
            size,
            stop: stop.clone(),
        });
        let opener =
            Opener { objects: Arc::new(witness), ownership, cache: tuning::cache(settings.cache_bytes()) };
        let keeper = Keeper { opener, shared: Arc::clone(&shared), stop };
        tasks.spawn("database", async move {
            keeper.run().await;
            Ok(())
        });
        Self(shared)
    }

    /// Waits until the database is open. Fails if it is known that it will not be, or the time is over.
    pub(crate) async fn opened(&self, limit: Duration) -> Result<(), Refusal> {
        let mut state = self.0.state.subscribe();
        let settled = state.wait_for(|state| !matches!(state, State::Opening(_)));
        let _ = timeout(limit, settled).await;
        self.open().map(|_| ())
    }

    /// Takes room for a write of so many bytes.
    pub(crate) fn reserve(&self, bytes: usize) -> Result<Room, Refusal> {
        let cost = u32::try_from(bytes + OVERHEAD).unwrap_or(u32::MAX).min(self.0.size);
        let permit = Arc::clone(&self.0.room).try_acquire_many_owned(cost);
        permit.map(Room).map_err(|_| Refusal::Full(self.0.seen.trouble()))
    }

    /// Writes a value. Ends when it is durable.
    pub(crate) async fn put(&self, key: &Key, record: &Record, room: Room) -> Result<(), Refusal> {
        self.0.meters.puts.inc();
        self.write(key, Some(record.encode()), room).await
    }

    /// Deletes a key, whether it is there or not. Ends when that is durable.
    pub(crate) async fn delete(&self, key: &Key) -> Result<(), Refusal> {
        self.0.meters.deletes.inc();
        let room = self.reserve(key.bytes().len())?;
        self.write(key, None, room).await
    }

    async fn write(&self, key: &Key, value: Option<Bytes>, room: Room) -> Result<(), Refusal> {
        let open = self.open()?;
        let (answer, answered) = oneshot::channel();
        let write = Write { key: stored(key.bytes()), value, came: Instant::now(), answer, _room: room };
        open.writes.try_send(write).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refusal::Full(self.0.seen.trouble()),
            mpsc::error::TrySendError::Closed(_) => Refusal::NotOpen("it is being opened again".to_owned()),
        })?;
        match timeout(PATIENCE, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Refusal::Unsettled(self.why("the data was closed meanwhile"))),
            Err(_) => Err(Refusal::Unsettled(self.why("the object store is slow"))),
        }
    }

    /// The value of a key.
    pub(crate) async fn get(&self, key: &Key) -> Result<Option<Record>, Refusal> {
        self.0.meters.gets.inc();
        let options = ReadOptions::new().with_durability_filter(DurabilityLevel::Remote);
        let name = stored(key.bytes());
        let stored = self.read(|db| async move { db.get_with_options(name, &options).await }).await?;
        let record = stored.map(|stored| Record::decode(&stored)).transpose();
        record.map_err(|error| Refusal::Damaged(format!("{key}: {error}")))
    }

    /// Some of the keys of this shard.
    pub(crate) async fn page(&self, query: &Query) -> Result<Page, Refusal> {
        self.0.meters.lists.inc();
        let Some((first, end)) = query.range() else { return Ok(Page::default()) };
        let range = (stored(&first), end.map_or_else(|| Bytes::from_static(&[KEYS + 1]), |end| stored(&end)));
        self.read(|db| scan(db, range.0..range.1, query.limit)).await?
    }

    /// Reads what is durable, and nothing that another node may have replaced before the read began.
    async fn read<T, R>(&self, read: impl FnOnce(Db) -> R) -> Result<T, Refusal>
    where
        R: Future<Output = Result<T, slatedb::Error>>,
    {
        let began = Moment::now();
        let open = self.open()?;
        if self.0.vigil.is_late(&began) {
            return Err(stood_still());
        }
        let reading = async {
            let (answer, answered) = oneshot::channel();
            let closed = || Refusal::NotOpen(self.why("it was closed meanwhile"));
            open.looks.send(answer).await.map_err(|_| closed())?;
            answered.await.map_err(|_| closed())?;
            read(open.db).await.map_err(|error| Refusal::Unread(self.why(&error.to_string())))
        };
        let outcome = timeout(PATIENCE, reading).await;
        if Moment::now().is_long_after(&began) {
            return Err(stood_still());
        }
        outcome.unwrap_or_else(|_| Err(Refusal::Unread(self.why("the object store is slow"))))
    }

    fn open(&self) -> Result<Open, Refusal> {
        match &*self.0.state.borrow() {
            State::Open(open) => Ok(open.clone()),
            State::Opening(why) => {
                let why = why.clone().or_else(|| self.0.seen.trouble());
                Err(Refusal::NotOpen(why.unwrap_or_else(|| "it is being opened".to_owned())))
            }
            State::Passed(why) => Err(Refusal::Passed(why.clone())),
            State::Closed => Err(Refusal::NotOpen("the service has ended".to_owned())),
        }
    }

    /// What is known to be wrong with the store, or else what was found here.
    fn why(&self, otherwise: &str) -> String {
        self.0.seen.trouble().unwrap_or_else(|| otherwise.to_owned())
    }

    /// How it is.
    pub(crate) fn health(&self) -> Health {
        match self.open() {
            Ok(_) => self.0.seen.trouble().map_or(Health::Ready, Health::Degraded),
            Err(refusal) => Health::Degraded(refusal.to_string()),
        }
    }

    /// Waits until no write waits any more, or the deadline.
    pub(crate) async fn settle(&self, deadline: Instant) {
        let all = Arc::clone(&self.0.room).acquire_many_owned(self.0.size);
        let _ = timeout_at(deadline, all).await;
    }

    /// Closes the database and waits until that is done.
    pub(crate) async fn stop(&self) {
        self.0.stop.cancel();
        let mut state = self.0.state.subscribe();
        let ended = |state: &State| matches!(state, State::Closed | State::Passed(_));
        let _ = state.wait_for(ended).await;
    }
}

fn stood_still() -> Refusal {
    Refusal::NotOpen("this process stood still for long; it is being opened again".to_owned())
}

/// A key as it lies in the database.
fn stored(key: &[u8]) -> Bytes {
    [&[KEYS], key].concat().into()
}

/// A page of the database. Of the values, which may be large, only one is held at a time.
async fn scan(
    db: Db,
    range: std::ops::Range<Bytes>,
    limit: usize,
) -> Result<Result<Page, Refusal>, slatedb::Error> {
    let options = ScanOptions {
        durability_filter: DurabilityLevel::Remote,
        read_ahead_bytes: 256 * 1024,
        max_fetch_tasks: 2,
        ..ScanOptions::default()
    };
    let enough = Instant::now() + SCAN_TIME;
    let mut found = db.scan_with_options(range, &options).await?;
    let (mut keys, mut bytes) = (Vec::<Listed>::new(), 0);
    while let Some(row) = found.next().await? {
        // The first one is always given, so that asking again leads further.
        if let Some(last) = keys.last()
            && (keys.len() >= limit || bytes > SCAN_BYTES || Instant::now() > enough)
        {
            let next = Some(last.key.clone());
            return Ok(Ok(Page { keys, next }));
        }
        let key = encode(&row.key[1..]);
        bytes += key.len() + OVERHEAD;
        match Record::decode(&row.value) {
            Ok(record) => keys.push(listed(key, &record)),
            Err(error) => return Ok(Err(Refusal::Damaged(format!("{key}: {error}")))),
        }
    }
    Ok(Ok(Page { keys, next: None }))
}

fn listed(key: String, record: &Record) -> Listed {
    let content_type = String::from_utf8_lossy(record.content_type().as_bytes()).into_owned();
    let size = u64::try_from(record.value().len()).unwrap_or(u64::MAX);
    Listed { key, size, etag: record.etag(), content_type }
}

#[cfg(test)]
pub(crate) mod tests;
