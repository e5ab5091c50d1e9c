//! A copy of a shard that another node owns: SlateDB's reader, which follows the manifest and the log.
//!
//! It writes nothing to the store. Readers of SlateDB may keep a checkpoint in the manifest against the collector of
//! garbage; each table that the owner flushes would then cost both sides a write of the manifest, which they race for.
//! This one does without: it looks many times a second, and tables stay for longer than a reader needs to see that they
//! were replaced. Should one be gone under a read, the read fails, and the next one sees the new tables.

use std::sync::Arc;
use std::time::Duration;

use plugin::{Health, Tasks};
use slatedb::config::{DbReaderOptions, ReadOptions};
use slatedb::object_store::ObjectStore;
use slatedb::{DbReader, DbReaderMode, Error, ErrorKind};
use store::Cancellable;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::cache::{Cache, Part};
use crate::consistency::Stale;
use crate::disk_cache::{self, DiskCache};
use crate::engine::late;
use crate::history::is_missing;
use crate::key::Key;
use crate::log_files::{LogFiles, Seen};
use crate::looks::{Looks, Noting};
use crate::meters::Meters;
use crate::open::PATH;
use crate::page::{Page, Query};
use crate::patience::patiently;
use crate::record::{Record, Versioned};
use crate::refusal::Refusal;
use crate::scan;
use crate::settings::Settings;
use crate::stored::{key_range, stored};
use crate::table_cache::follow_tables;
use crate::vigil::Moment;

/// A copy that may be further behind is not well.
const BEHIND: Duration = Duration::from_secs(5);
/// The longest pause between attempts to open.
const PAUSE: Duration = Duration::from_secs(2);
/// How long closing may take.
const CLOSE: Duration = Duration::from_millis(500);

/// A copy of a shard. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Follower(Arc<Shared>);

/// Where a replica's data comes from.
pub(crate) struct Source {
    pub(crate) objects: Arc<dyn ObjectStore>,
    /// How often it is looked for news.
    pub(crate) poll: Duration,
    /// Where parts of it are kept on this node's disk, if they are.
    pub(crate) disk: Option<DiskCache>,
}

struct Shared {
    state: watch::Sender<State>,
    seen: Arc<Seen>,
    meters: Meters,
    stop: CancellationToken,
    began: Moment,
}

#[derive(Clone)]
enum State {
    /// Why it is not open yet, once that is known.
    Opening(Option<String>),
    Open(Open),
    Closed,
}

#[derive(Clone)]
struct Open {
    reader: Arc<DbReader>,
    looks: Arc<Looks>,
}

impl Follower {
    /// Begins to follow a shard until `stop`.
    pub(crate) fn start(
        source: Source,
        settings: &Settings,
        meters: Meters,
        tasks: &Tasks,
        stop: CancellationToken,
    ) -> Self {
        let files = LogFiles::new(Arc::new(Cancellable::read_only(source.objects, stop.clone())));
        let shared = Arc::new(Shared {
            state: watch::Sender::new(State::Opening(None)),
            seen: files.seen(),
            meters,
            stop,
            began: Moment::now(),
        });
        let source = Source { objects: Arc::new(files), ..source };
        let (following, cache) = (Arc::clone(&shared), Cache::of_size(settings.cache_bytes()).part());
        tasks.spawn("replica", async move {
            follow(&following, &source, &cache).await;
            following.state.send_replace(State::Closed);
            Ok(())
        });
        Self(shared)
    }

    /// Waits until the copy is there, or it is known why it is not, or the time is over.
    pub(crate) async fn tried(&self, limit: Duration) {
        let mut state = self.0.state.subscribe();
        let tried = state.wait_for(|state| !matches!(state, State::Opening(None)));
        let _ = timeout(limit, tried).await;
    }

    /// The value of a key, as it was not long ago.
    pub(crate) async fn get(&self, key: &Key) -> Result<Stale<Option<Versioned>>, Refusal> {
        self.0.meters.gets.inc();
        let name = stored(key.bytes());
        let read = |reader: Arc<DbReader>| async move {
            reader.get_key_value_with_options(name, &ReadOptions::new()).await
        };
        let Stale { value: row, by } = self.read(read).await?;
        let Some(row) = row else { return Ok(Stale { value: None, by }) };
        let record = Record::decode(&row.value);
        let record = record.map_err(|error| Refusal::Damaged(format!("{key}: {error}")))?;
        Ok(Stale { value: Some(Versioned { version: row.seq, record }), by })
    }

    /// Some of the keys, as they were not long ago.
    pub(crate) async fn page(&self, query: &Query) -> Result<Stale<Page>, Refusal> {
        self.0.meters.lists.inc();
        let Some(range) = key_range(query) else {
            return Ok(Stale { value: Page::default(), by: Some(Duration::ZERO) });
        };
        let read = |reader: Arc<DbReader>| async move { scan::page(&*reader, range, query).await };
        let Stale { value, by } = self.read(read).await?;
        Ok(Stale { value: value?, by })
    }

    async fn read<T, R>(&self, read: impl FnOnce(Arc<DbReader>) -> R) -> Result<Stale<T>, Refusal>
    where
        R: Future<Output = Result<T, Error>>,
    {
        let open = self.open()?;
        // Looked at before the read: what is read may be newer, never older.
        let current =
            open.looks.current().ok_or_else(|| Refusal::NotOpen("it was just opened".to_owned()))?;
        let unread = |why: String| Refusal::Unread(self.0.seen.trouble().unwrap_or(why));
        match patiently(&self.0.seen, read(open.reader)).await {
            Ok(Ok(value)) => Ok(Stale { value, by: Some(current.elapsed()) }),
            Ok(Err(error)) if error.kind() == ErrorKind::Data && !is_missing(&error) => {
                Err(Refusal::Damaged(error.to_string()))
            }
            Ok(Err(error)) => Err(unread(error.to_string())),
            Err(trouble) => Err(Refusal::Unread(trouble.unwrap_or_else(late))),
        }
    }

    fn open(&self) -> Result<Open, Refusal> {
        match &*self.0.state.borrow() {
            State::Open(open) => Ok(open.clone()),
            State::Opening(why) => {
                let why = why.clone().or_else(|| self.0.seen.trouble());
                Err(Refusal::NotOpen(why.unwrap_or_else(|| "the copy is being opened".to_owned())))
            }
            State::Closed => Err(Refusal::NotOpen("the service has ended".to_owned())),
        }
    }

    /// How far behind the copy may be. As long as there is none: since when it is tried to have one.
    pub(crate) fn staleness(&self) -> Duration {
        let current = self.open().ok().and_then(|open| open.looks.current());
        current.unwrap_or(self.0.began).elapsed()
    }

    /// How it is.
    pub(crate) fn health(&self) -> Health {
        if let Err(refusal) = self.open() {
            return Health::Degraded(refusal.to_string());
        }
        health(self.staleness(), self.0.seen.trouble())
    }

    /// Ends it, and waits until that is done.
    pub(crate) async fn stop(&self) {
        self.0.stop.cancel();
        let _ = self.0.state.subscribe().wait_for(|state| matches!(state, State::Closed)).await;
    }
}

/// How a copy is that may be so far behind.
fn health(staleness: Duration, trouble: Option<String>) -> Health {
    if staleness <= BEHIND {
        return Health::Ready;
    }
    let why = trouble.map(|why| format!(": {why}")).unwrap_or_default();
    Health::Degraded(format!("the copy may be {} s behind{why}", staleness.as_secs()))
}

/// Keeps a reader open until it is told to stop.
async fn follow(shared: &Shared, source: &Source, cache: &Part) {
    let poll = source.poll;
    let mut pause = poll;
    loop {
        let looks = Arc::<Looks>::default();
        let opened = tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            opened = open(source, cache, &looks) => opened,
        };
        let why = match opened {
            Ok(reader) => {
                info!("opened a copy of the shard");
                pause = poll;
                looks.opened(reader.subscribe());
                let reader = Arc::new(reader);
                shared.state.send_replace(State::Open(Open { reader: Arc::clone(&reader), looks }));
                let mut status = reader.subscribe();
                let why = tokio::select! {
                    biased;
                    () = shared.stop.cancelled() => None,
                    () = follow_tables(&*reader, cache, &shared.meters) => None,
                    closed = status.wait_for(|status| status.close_reason.is_some()) => {
                        Some(closed.map_or(None, |status| status.close_reason))
                    }
                };
                // Whatever it waits for at the store ends with the stop.
                if timeout(CLOSE, reader.close()).await.is_err() {
                    debug!("the copy is still being closed; it writes nothing");
                }
                let Some(why) = why else { return };
                format!("the copy closed itself: {why:?}")
            }
            Err(error) => format!("there is no copy yet: {error}"),
        };
        debug!(why, "a copy is opened again");
        shared.state.send_replace(State::Opening(Some(why)));
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            () = sleep(pause) => pause = (pause * 2).min(PAUSE.max(poll)),
        }
    }
}

async fn open(source: &Source, cache: &Part, looks: &Arc<Looks>) -> Result<DbReader, Error> {
    let Source { objects, poll, disk } = source;
    let options = DbReaderOptions {
        manifest_poll_interval: *poll,
        object_store_cache_options: disk_cache::options(disk.as_ref()),
        // A look that fails is followed by the next one, so nothing has to be tried for ever.
        object_store_max_retries: Some(1),
        ..DbReaderOptions::default()
    };
    DbReader::builder(PATH, Arc::clone(objects))
        .with_reader_mode(DbReaderMode::FollowLatest)
        .with_options(options)
        .with_wal_reader(Arc::new(Noting::new(objects, Arc::clone(looks))?))
        .with_db_cache(cache.for_database(), cache.scope())
        .build()
        .await
}

#[cfg(test)]
mod tests;
