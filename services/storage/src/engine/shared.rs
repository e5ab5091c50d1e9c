//! What requests and the runner of the database share: its state, and what is known of it.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plugin::queue::{Queue, QueueBytes};
use plugin::shard::{Kept, Moment, NotOpen, StallDetector};
use slatedb::Db;
use slatedb::object_store::ObjectStore;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::error;
use types::Reason;
use types::reason::{DAMAGED_DATA, STORE_UNAVAILABLE};

use super::data_clock::{DataClock, WallClock};
use super::expiry::Expiry;

use super::log_files::Seen;
use crate::changes::feed::Feed;
use crate::changes::history::History;
use crate::data::change::{Write, Written};
use crate::engine::EngineError;
use crate::meters::Meters;
use crate::settings::Settings;

/// What requests and the runner of the database share.
pub(crate) struct Shared {
    pub(crate) kept: Kept<Open>,
    pub(crate) seen: Arc<Seen>,
    pub(crate) stall: StallDetector,
    pub(crate) meters: Meters,
    pub(crate) expiry: Expiry,
    pub(crate) history: History,
    /// When the last check of the manifest began that showed that no other node had opened the database.
    proven: Mutex<Option<Moment>>,
    /// The latest damage that was found.
    damage: Mutex<Option<String>>,
    pub(crate) queue: QueueBytes,
    pub(crate) wall: WallClock,
    pub(crate) stop: CancellationToken,
    /// Whether a drain has flushed the database into tables.
    pub(crate) is_flushed: AtomicBool,
}

/// Writes that wait to become durable.
pub(crate) type Writes = Queue<Write, Result<Written, EngineError>>;

/// An open database.
#[derive(Clone)]
pub(crate) struct Open {
    pub(crate) db: Db,
    pub(crate) writes: Writes,
    /// Reads that wait for the next check that no other node has opened the database.
    pub(crate) proofs: mpsc::Sender<oneshot::Sender<()>>,
    /// What has become durable since it was opened.
    pub(crate) feed: Feed,
    /// Data time.
    pub(crate) clock: DataClock,
}

impl Shared {
    pub(crate) fn new(
        state: NotOpen,
        objects: Arc<dyn ObjectStore>,
        settings: &Settings,
        meters: Meters,
        seen: Arc<Seen>,
        wall: WallClock,
        stop: CancellationToken,
    ) -> Self {
        Self {
            kept: Kept::new(state),
            seen,
            stall: StallDetector::new(Moment::now()),
            meters,
            expiry: Expiry::new(),
            history: History::new(objects),
            proven: Mutex::default(),
            damage: Mutex::default(),
            queue: QueueBytes::new(settings.write_queue.as_usize()),
            wall,
            stop,
            is_flushed: AtomicBool::new(false),
        }
    }

    /// When the last check began that showed that no other node had opened the database.
    pub(crate) fn proven(&self) -> Option<Moment> {
        *lock(&self.proven)
    }

    /// Records that a check that began then showed that no other node had opened the database.
    pub(crate) fn prove(&self, began: Moment) {
        *lock(&self.proven) = Some(began);
    }

    /// The database, if requests are served.
    pub(crate) fn open(&self) -> Result<Open, EngineError> {
        self.kept.get().map_err(|why| match why {
            NotOpen::Opening(None) => NotOpen::Opening(self.seen.trouble()).into(),
            why => why.into(),
        })
    }

    /// The known fault of the store, or else this reason.
    pub(crate) fn why(&self, otherwise: &str) -> String {
        self.seen.trouble().unwrap_or_else(|| otherwise.to_owned())
    }

    /// Remembers damage, so that health reports it.
    pub(crate) fn noted(&self, error: EngineError) -> EngineError {
        if let EngineError::Damaged(what) = &error {
            error!(what, "stored data is damaged");
            *lock(&self.damage) = Some(error.to_string());
        }
        error
    }

    /// What is wrong although requests are served: with the store, or with the stored data.
    pub(crate) fn trouble(&self) -> Option<Reason> {
        let store = self.seen.trouble().map(|text| Reason::new(STORE_UNAVAILABLE, text));
        store.or_else(|| lock(&self.damage).clone().map(|text| Reason::new(DAMAGED_DATA, text)))
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
