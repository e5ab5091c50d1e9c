//! What requests and the keeper of the database share: how it is, and what is known of it.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slatedb::Db;
use slatedb::object_store::ObjectStore;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::arrival::Queue;
use crate::data_clock::{DataClock, WallClock};
use crate::expiry::Expiry;
use crate::feed::Feed;
use crate::history::History;
use crate::log_files::Seen;
use crate::meters::Meters;
use crate::refusal::Refusal;
use crate::settings::Settings;
use crate::vigil::{Moment, Vigil};
use crate::write::Write;

/// What requests and the keeper of the database share.
pub(crate) struct Shared {
    pub(crate) state: watch::Sender<State>,
    pub(crate) seen: Arc<Seen>,
    pub(crate) vigil: Vigil,
    pub(crate) meters: Meters,
    pub(crate) expiry: Expiry,
    pub(crate) history: History,
    /// When a look began that showed that nobody else had opened the database.
    proven: Mutex<Option<Moment>>,
    /// The last thing that was found to be damaged.
    damage: Mutex<Option<String>>,
    pub(crate) queue: Queue,
    pub(crate) wall: WallClock,
    pub(crate) stop: CancellationToken,
    /// Whether a drain has put what the database held into tables.
    pub(crate) is_flushed: AtomicBool,
}

/// How the database is.
#[derive(Clone)]
pub(crate) enum State {
    /// It is being opened; since when, and why not yet.
    Opening(Option<String>),
    /// Requests are served.
    Open(Open),
    /// It can't be opened, since what is stored is damaged; why. It is tried again all the same.
    Damaged(String),
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
    /// What became durable since it was opened.
    pub(crate) feed: Feed,
    /// Data time.
    pub(crate) clock: DataClock,
}

impl Shared {
    pub(crate) fn new(
        state: State,
        objects: Arc<dyn ObjectStore>,
        settings: &Settings,
        meters: Meters,
        seen: Arc<Seen>,
        wall: WallClock,
        stop: CancellationToken,
    ) -> Self {
        Self {
            state: watch::Sender::new(state),
            seen,
            vigil: Vigil::new(Moment::now()),
            meters,
            expiry: Expiry::new(),
            history: History::new(objects),
            proven: Mutex::default(),
            damage: Mutex::default(),
            queue: Queue::new(settings.write_queue.as_usize()),
            wall,
            stop,
            is_flushed: AtomicBool::new(false),
        }
    }

    /// When it was last seen that nobody else had opened the database.
    pub(crate) fn proven(&self) -> Option<Moment> {
        *lock(&self.proven)
    }

    /// A look that began then has shown that nobody else had opened the database.
    pub(crate) fn prove(&self, began: Moment) {
        *lock(&self.proven) = Some(began);
    }

    /// The database, if requests are served.
    pub(crate) fn open(&self) -> Result<Open, Refusal> {
        match &*self.state.borrow() {
            State::Open(open) => Ok(open.clone()),
            State::Opening(why) => {
                let why = why.clone().or_else(|| self.seen.trouble());
                Err(Refusal::NotOpen(why.unwrap_or_else(|| "it is being opened".to_owned())))
            }
            State::Damaged(why) => Err(Refusal::Broken(why.clone())),
            State::Passed(why) => Err(Refusal::Passed(why.clone())),
            State::Closed => Err(Refusal::NotOpen("the service has ended".to_owned())),
        }
    }

    /// What is known to be wrong with the store, or else what was found here.
    pub(crate) fn why(&self, otherwise: &str) -> String {
        self.seen.trouble().unwrap_or_else(|| otherwise.to_owned())
    }

    /// Remembers damage, so that it is told of before somebody asks for the same again.
    pub(crate) fn noted(&self, refusal: Refusal) -> Refusal {
        if let Refusal::Damaged(what) = &refusal {
            error!(what, "stored data is damaged");
            *lock(&self.damage) = Some(refusal.to_string());
        }
        refusal
    }

    /// What is wrong though requests are served: with the store, or with what is stored.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.seen.trouble().or_else(|| lock(&self.damage).clone())
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
