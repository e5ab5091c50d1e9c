//! A replica of a shard that another node owns: SlateDB's reader, which follows the manifest and the log.
//!
//! It writes nothing to the store. A SlateDB reader can keep a checkpoint in the manifest, to protect its tables from
//! garbage collection; then each table that the owner flushes costs both sides a write of the manifest, for which they
//! race. This reader does without: it polls many times a second, and a replaced table is kept for longer than a reader
//! needs to notice that. If a table is gone during a read, the read fails, and the next one uses the new tables.

mod staleness;

use std::sync::Arc;
use std::time::Duration;

use plugin::shard::{
    Closing, Kept, Key, Moment, NotOpen, Open, OpenError, Pauses, Read, ScanRange, keep_open,
};
use plugin::{DiskCache, Health, Tasks};
use slatedb::config::{DbReaderOptions, ReadOptions};
use slatedb::object_store::ObjectStore;
use slatedb::{DbReader, DbReaderMode, Error, ErrorKind};
use store::Cancellable;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use types::Backoff;
use types::reason::REPLICA_BEHIND;

use crate::changes::history::is_missing;
use crate::data::layout::{key_range, stored};
use crate::data::page::Page;
use crate::data::record::{Record, Versioned};
use crate::engine::cache::{Cache, Part};
use crate::engine::disk_cache;
use crate::engine::log_files::{LogFiles, Seen};
use crate::engine::open::PATH;
use crate::engine::table_cache::follow_tables;
use crate::engine::{EngineError, TIMEOUT, late, scan};
use crate::meters::Meters;
use crate::settings::Settings;
use staleness::{Noting, Staleness};

/// A replica that may be further behind than this is degraded.
const BEHIND: Duration = Duration::from_secs(5);
/// The longest pause between attempts to open.
const PAUSE: Duration = Duration::from_secs(2);
/// How long closing may take.
const CLOSE: Duration = Duration::from_millis(500);

/// A replica of a shard. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Replica(Arc<Shared>);

/// Where the data of a replica comes from.
pub(crate) struct Source {
    pub(crate) objects: Arc<dyn ObjectStore>,
    /// How often it polls.
    pub(crate) poll: Duration,
    /// Where parts of it are cached on this node's disk, if they are.
    pub(crate) disk: Option<DiskCache>,
}

struct Shared {
    kept: Kept<Following>,
    seen: Arc<Seen>,
    stop: CancellationToken,
    meters: Meters,
    began: Moment,
}

/// A reader that follows the owner's data.
#[derive(Clone)]
struct Following {
    reader: Arc<DbReader>,
    staleness: Arc<Staleness>,
}

/// Opens the reader.
struct Follow {
    source: Source,
    cache: Part,
    shared: Arc<Shared>,
}

impl Replica {
    /// Starts to follow a shard, until `stop`.
    pub(crate) fn start(
        source: Source,
        settings: &Settings,
        meters: Meters,
        tasks: &Tasks,
        stop: CancellationToken,
    ) -> Self {
        let files = LogFiles::new(Arc::new(Cancellable::read_only(source.objects, stop.clone())));
        let shared = Arc::new(Shared {
            kept: Kept::default(),
            seen: files.seen(),
            stop,
            meters,
            began: Moment::now(),
        });
        let source = Source { objects: Arc::new(files), ..source };
        let pauses = Pauses {
            backoff: Backoff::new(source.poll, PAUSE.max(source.poll)),
            damaged: PAUSE.max(source.poll),
            steady: Duration::ZERO,
        };
        let cache = Cache::of_size(settings.cache_bytes()).part();
        let follow = Follow { source, cache, shared: Arc::clone(&shared) };
        tasks.spawn("replica", async move {
            let Shared { kept, stop, .. } = &*follow.shared;
            keep_open(&follow, kept, pauses, stop).await;
            Ok(())
        });
        Self(shared)
    }

    /// Waits until it is open, or the reason why it is not is known, or the limit has passed.
    pub(crate) async fn tried(&self, limit: Duration) {
        self.0.kept.tried(limit).await;
    }

    /// The value of a key, which may be slightly old.
    pub(crate) async fn get(&self, key: &Key) -> Result<Read<Option<Versioned>>, EngineError> {
        self.0.meters.gets.inc();
        let name = stored(key.bytes());
        let read = |reader: Arc<DbReader>| async move {
            reader.get_key_value_with_options(name, &ReadOptions::new()).await
        };
        let Read { value: row, staleness } = self.read(read).await?;
        let Some(row) = row else { return Ok(Read { value: None, staleness }) };
        let record = Record::decode(&row.value);
        let record = record.map_err(|error| EngineError::Damaged(format!("{key}: {error}")))?;
        Ok(Read { value: Some(Versioned { version: row.seq, record }), staleness })
    }

    /// Some of the keys, which may be slightly old.
    pub(crate) async fn scan(&self, range: &ScanRange) -> Result<Read<Page>, EngineError> {
        self.0.meters.lists.inc();
        let Some(keys) = key_range(range) else {
            return Ok(Read { value: Page::default(), staleness: Some(Duration::ZERO) });
        };
        let read = |reader: Arc<DbReader>| async move { scan::page(&*reader, keys, range).await };
        let Read { value, staleness } = self.read(read).await?;
        Ok(Read { value: value?, staleness })
    }

    async fn read<T, R>(&self, read: impl FnOnce(Arc<DbReader>) -> R) -> Result<Read<T>, EngineError>
    where
        R: Future<Output = Result<T, Error>>,
    {
        let open = self.open()?;
        // Taken before the read: the data read may be newer than that, never older.
        let current =
            open.staleness.current().ok_or_else(|| EngineError::NotOpen("it was just opened".to_owned()))?;
        let unread = |why: String| EngineError::Unread(self.0.seen.trouble().unwrap_or(why));
        match TIMEOUT.run(self.0.seen.health(), read(open.reader)).await {
            Ok(Ok(value)) => Ok(Read { value, staleness: Some(current.elapsed()) }),
            Ok(Err(error)) if error.kind() == ErrorKind::Data && !is_missing(&error) => {
                Err(EngineError::Damaged(error.to_string()))
            }
            Ok(Err(error)) => Err(unread(error.to_string())),
            Err(trouble) => Err(EngineError::Unread(trouble.unwrap_or_else(late))),
        }
    }

    fn open(&self) -> Result<Following, EngineError> {
        self.0.kept.get().map_err(|why| match why {
            NotOpen::Opening(None) => {
                let why = self.0.seen.trouble();
                EngineError::NotOpen(why.unwrap_or_else(|| "the replica is being opened".to_owned()))
            }
            why => why.into(),
        })
    }

    /// How far behind it may be; until it is open, the time since it began to open.
    pub(crate) fn staleness(&self) -> Duration {
        let current = self.open().ok().and_then(|open| open.staleness.current());
        current.unwrap_or(self.0.began).elapsed()
    }

    /// Its health.
    pub(crate) fn health(&self) -> Health {
        if let Err(error) = self.open() {
            return error.to_health();
        }
        health(self.staleness(), self.0.seen.trouble())
    }

    /// Stops it, and waits until it has ended.
    pub(crate) async fn stop(&self) {
        self.0.stop.cancel();
        self.0.kept.ended().await;
    }
}

/// The health of a replica with this staleness.
fn health(staleness: Duration, trouble: Option<String>) -> Health {
    if staleness <= BEHIND {
        return Health::Ready;
    }
    let why = trouble.map(|why| format!(": {why}")).unwrap_or_default();
    Health::degraded(REPLICA_BEHIND, format!("the replica may be {} s behind{why}", staleness.as_secs()))
}

impl Open for Follow {
    type Opened = Following;
    type Data = Following;

    async fn open(&self) -> Result<Following, OpenError> {
        let staleness = Arc::<Staleness>::default();
        let opened = open(&self.source, &self.cache, &staleness).await;
        let reader =
            opened.map_err(|error| OpenError::Failed(format!("there is no replica yet: {error}")))?;
        info!("opened a replica of the shard");
        staleness.opened(reader.subscribe());
        Ok(Following { reader: Arc::new(reader), staleness })
    }

    async fn serve(&self, opened: &Following, kept: &Kept<Following>) -> String {
        kept.open(opened.clone());
        let mut status = opened.reader.subscribe();
        tokio::select! {
            biased;
            () = follow_tables(&*opened.reader, &self.cache, &self.shared.meters) => "following its tables has ended".to_owned(),
            closed = status.wait_for(|status| status.close_reason.is_some()) => match closed {
                Ok(status) => format!("the replica closed itself: {:?}", status.close_reason),
                Err(_) => "the replica closed itself".to_owned(),
            },
        }
    }

    async fn close(&self, opened: Following, _reason: Closing) {
        // Its requests to the store end with the stop.
        if timeout(CLOSE, opened.reader.close()).await.is_err() {
            debug!("the replica is still being closed; it writes nothing");
        }
    }
}

async fn open(source: &Source, cache: &Part, staleness: &Arc<Staleness>) -> Result<DbReader, Error> {
    let Source { objects, poll, disk } = source;
    let options = DbReaderOptions {
        manifest_poll_interval: *poll,
        object_store_cache_options: disk_cache::options(disk.as_ref()),
        // A failed poll is followed by the next one, so nothing has to be retried forever.
        object_store_max_retries: Some(1),
        ..DbReaderOptions::default()
    };
    DbReader::builder(PATH, Arc::clone(objects))
        .with_reader_mode(DbReaderMode::FollowLatest)
        .with_options(options)
        .with_wal_reader(Arc::new(Noting::new(objects, Arc::clone(staleness))?))
        .with_db_cache(cache.for_database(), cache.scope())
        .build()
        .await
}

#[cfg(test)]
mod tests;
