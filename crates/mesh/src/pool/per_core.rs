//! The connections of one core.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared as SharedFuture, WeakShared};
use hyper::client::conn::http1::SendRequest;
use hyper::rt::Executor;
use hyper_util::rt::TokioExecutor;
use tokio::time::{Instant, sleep};

use super::Which;
use super::connect::{ConnectError, Connector, OpenBy, Opened};
use super::connection::{Kind, Leased};
use super::idle::IdleList;
use super::shared::{Shared, Streams};
use crate::counts::{ConnectResult, Counts, Idle};
use crate::origin::Origin;
use crate::upload::AttemptBody;
use crate::upstream::Upstream;

/// Connections that have been idle for too long are closed at this interval. They are never used, whenever they are closed.
const SWEEP: Duration = Duration::from_millis(500);

/// What all pools of a mesh have in common.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) connector: Connector,
    /// How long a connection may be idle.
    pub(super) idle: Duration,
    /// How old a connection to a host name may be that carries another request.
    pub(super) lookup: Duration,
    /// The largest number of idle connections to one origin.
    pub(super) most_idle: usize,
    pub(super) counts: Arc<Counts>,
}

/// A connection over HTTP/1 between two exchanges.
#[derive(Debug)]
pub(super) struct Rested {
    pub(super) sender: SendRequest<AttemptBody>,
    /// When it was opened.
    pub(super) born: Instant,
    /// For what it was opened.
    pub(super) opener: Arc<Upstream>,
}

impl Settings {
    /// How long a connection may still carry requests: one to a host name leads where the name led when it was opened.
    fn young_for(&self, origin: &Origin, born: Instant, now: Instant) -> Duration {
        if origin.is_named() {
            self.lookup.saturating_sub(now.saturating_duration_since(born))
        } else {
            Duration::MAX
        }
    }

    fn is_old(&self, origin: &Origin, born: Instant) -> bool {
        origin.is_named() && self.young_for(origin, born, Instant::now()).is_zero()
    }
}

/// The connections of one core. Aligned, so that no other core's data is in its cache lines.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct PerCore {
    state: Mutex<State>,
    /// Open connections, idle or not.
    open: Arc<AtomicUsize>,
    settings: Arc<Settings>,
}

#[derive(Debug, Default)]
struct State {
    origins: BTreeMap<Arc<Origin>, Connections>,
    /// The addresses of members that drain: connections to them are not kept.
    draining: Arc<BTreeSet<String>>,
    /// Whether a task closes connections that have been idle for too long.
    is_swept: bool,
}

/// The connections to one origin that can take a request.
#[derive(Debug, Default)]
struct Connections {
    idle: IdleList<Rested>,
    shared: Vec<Shared>,
    /// A connection that several requests wait for.
    opening: Option<WeakShared<Opening>>,
    /// A server that could have chosen HTTP/2 chose HTTP/1.
    speaks_http1: bool,
}

impl State {
    fn of(&mut self, origin: &Arc<Origin>) -> &mut Connections {
        self.origins.entry(Arc::clone(origin)).or_default()
    }

    /// Whether a new connection to the origin may turn out to be one that requests share.
    fn may_share(&self, origin: &Origin) -> bool {
        origin.may_be_shared() && !self.origins.get(origin).is_some_and(|known| known.speaks_http1)
    }
}

impl Connections {
    fn idle(&self) -> usize {
        self.idle.len() + self.shared.iter().filter(|shared| shared.is_idle()).count()
    }

    fn is_empty(&self) -> bool {
        self.idle.is_empty() && self.shared.is_empty()
    }
}

/// Opens a connection and adds it.
type Opening = BoxFuture<'static, Result<(), ConnectError>>;

impl PerCore {
    pub(super) fn new(settings: Arc<Settings>) -> Self {
        Self { state: Mutex::default(), open: Arc::default(), settings }
    }

    /// A connection to an origin: an open one, or a new one.
    pub(super) async fn lease(
        self: &Arc<Self>,
        origin: &Arc<Origin>,
        which: Which,
        upstream: Option<&Arc<Upstream>>,
    ) -> Result<Leased, ConnectError> {
        let (mut which, mut is_new) = (which, false);
        loop {
            if which == Which::Any
                && let Some(leased) = self.take(origin, is_new)
            {
                return Ok(leased);
            }
            if !self.state().may_share(origin) {
                // Boxed: most requests find a connection, and need no room for this.
                let opener = self.opener(upstream);
                let opened = Box::pin(self.connect(origin, &opener)).await?;
                if let Some(leased) = self.adopt(origin, opened, opener) {
                    return Ok(leased);
                }
            } else {
                self.opening(origin, upstream).await?;
            }
            (which, is_new) = (Which::Any, true);
        }
    }

    /// A new connection that is never put back.
    pub(super) async fn lease_alone(
        self: &Arc<Self>,
        origin: &Arc<Origin>,
        upstream: Option<&Arc<Upstream>>,
    ) -> Result<Leased, ConnectError> {
        let opener = self.opener(upstream);
        let opening = OpenBy { pool: Arc::clone(&self.open), upstream: Arc::clone(&opener) };
        let connected = self.settings.connector.connect_alone(origin, &opening).await;
        self.count(&connected, &opener);
        let (opened, open) = connected?;
        let kind = match opened {
            Opened::Http1(sender) => Kind::Http1(sender),
            Opened::Http2(shared) => Kind::Http2(shared.only()),
        };
        Ok(Leased::alone(kind, origin, self, (opener, open)))
    }

    fn count<T>(&self, connected: &Result<T, ConnectError>, opener: &Upstream) {
        let result = connected.as_ref().map_or_else(|error| error.result, |_| ConnectResult::Connected);
        self.settings.counts.connected(result, opener);
    }

    /// Under what a new connection is counted.
    fn opener(&self, upstream: Option<&Arc<Upstream>>) -> Arc<Upstream> {
        Arc::clone(upstream.unwrap_or(&self.settings.counts.other))
    }

    /// An open connection that can take a request. `is_new`: one was just opened for it, and is young enough however long that
    /// took.
    fn take(self: &Arc<Self>, origin: &Arc<Origin>, is_new: bool) -> Option<Leased> {
        let mut state = self.state();
        let connections = state.origins.get_mut(origin.as_ref())?;
        let settings = &self.settings;
        let mut young = connections
            .shared
            .iter()
            .rev()
            .filter(|shared| is_new || !settings.is_old(origin, shared.born()));
        let (kind, born, opener) = match young.find_map(|shared| Some((shared.open()?, shared.born()))) {
            Some((stream, born)) => (Kind::Http2(stream), born, None),
            None => {
                let Rested { sender, born, opener } = connections.idle.take(Instant::now())?;
                (Kind::Http1(sender), born, Some(opener))
            }
        };
        Some(Leased::new(kind, origin, self, (true, born, opener), settings.idle))
    }

    /// The connection that is being opened for all requests that wait for one.
    fn opening(
        self: &Arc<Self>,
        origin: &Arc<Origin>,
        upstream: Option<&Arc<Upstream>>,
    ) -> SharedFuture<Opening> {
        let mut state = self.state();
        let connections = state.of(origin);
        if let Some(opening) = connections.opening.as_ref().and_then(WeakShared::upgrade)
            && opening.peek().is_none()
        {
            return opening;
        }
        let (pool, of, opener) = (Arc::clone(self), Arc::clone(origin), self.opener(upstream));
        let opening = async move {
            let opened = pool.connect(&of, &opener).await?;
            if let Opened::Http1(mut sender) = opened {
                // One that is not ready would be taken for one that is closed.
                sender.ready().await.map_err(|error| ConnectError::other(&error))?;
                pool.state().of(&of).speaks_http1 = true;
                let rested = Rested { sender, born: Instant::now(), opener };
                Self::put(&pool, &of, rested, pool.settings.idle);
            } else {
                pool.adopt(&of, opened, opener);
            }
            Ok(())
        };
        let opening = opening.boxed().shared();
        connections.opening = opening.downgrade();
        opening
    }

    async fn connect(&self, origin: &Origin, opener: &Arc<Upstream>) -> Result<Opened, ConnectError> {
        let opening = OpenBy { pool: Arc::clone(&self.open), upstream: Arc::clone(opener) };
        let connected = self.settings.connector.connect(origin, &opening).await;
        self.count(&connected, opener);
        connected
    }

    /// Takes over a new connection. One that can be shared is there for all; another is leased at once.
    fn adopt(
        self: &Arc<Self>,
        origin: &Arc<Origin>,
        opened: Opened,
        opener: Arc<Upstream>,
    ) -> Option<Leased> {
        match opened {
            Opened::Http1(sender) => {
                let (kind, idle) = (Kind::Http1(sender), self.settings.idle);
                Some(Leased::new(kind, origin, self, (false, Instant::now(), Some(opener)), idle))
            }
            Opened::Http2(shared) => {
                let mut state = self.state();
                let connections = state.of(origin);
                connections.shared.push(shared.opened_by(opener));
                connections.speaks_http1 = false;
                self.keep_sweeping(state);
                None
            }
        }
    }

    /// Keeps a connection over HTTP/1 whose exchange has ended.
    pub(super) fn put(self: &Arc<Self>, origin: &Arc<Origin>, rested: Rested, idle: Duration) {
        let now = Instant::now();
        let idle = idle.min(self.settings.young_for(origin, rested.born, now));
        if idle.is_zero() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let mut state = self.state();
        if state.draining.contains(origin.authority()) {
            return;
        }
        let most = self.settings.most_idle;
        let oldest = state.of(origin).idle.put(rested, idle, most, now);
        self.keep_sweeping(state);
        drop(oldest);
    }

    /// Forgets the shared connection with these streams: it gets no more requests.
    pub(super) fn forget(&self, origin: &Origin, streams: &Arc<Streams>) {
        if let Some(connections) = self.state().origins.get_mut(origin) {
            connections.shared.retain(|shared| !shared.has(streams));
        }
    }

    /// Closes the idle connections to these addresses. Shared ones end with their last stream.
    pub(super) fn close(&self, addresses: &BTreeSet<String>, draining: &Arc<BTreeSet<String>>) {
        let mut state = self.state();
        state.draining = Arc::clone(draining);
        state.origins.retain(|origin, _| !addresses.contains(origin.authority()));
    }

    /// Open connections that carry requests, and those that are idle.
    pub(super) fn open(&self) -> (usize, usize) {
        let state = self.state();
        let idle: usize = state.origins.values().map(Connections::idle).sum();
        drop(state);
        (self.open.load(Ordering::Relaxed).saturating_sub(idle), idle)
    }

    /// Adds the number of idle connections by what they were opened for.
    pub(super) fn idle(&self, idle: &mut Idle) {
        let state = self.state();
        for connections in state.origins.values() {
            connections.idle.iter().for_each(|rested| idle.add(&rested.opener, 1));
            let shared = connections.shared.iter().filter(|shared| shared.is_idle());
            shared.filter_map(Shared::opener).for_each(|opener| idle.add(opener, 1));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a task close the connections that have been idle for too long, until there are none.
    fn keep_sweeping(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let was_swept = std::mem::replace(&mut state.is_swept, true);
        // A runtime that is ending drops the task at once, and that takes the lock.
        drop(state);
        if !was_swept {
            TokioExecutor::new().execute(Sweeper(Arc::downgrade(self)).run());
        }
    }

    /// Closes the connections that have been idle for too long. Returns whether any connection is left.
    fn sweep(&self) -> bool {
        let (now, idle) = (Instant::now(), self.settings.idle);
        let mut over = Vec::new();
        let mut state = self.state();
        state.origins.retain(|_, connections| {
            over.extend(connections.idle.expire(now));
            connections.shared.retain(|shared| !shared.is_over(idle, now));
            !connections.is_empty() || connections.speaks_http1
        });
        let is_left = state.origins.values().any(|connections| !connections.is_empty());
        state.is_swept = is_left;
        is_left
    }
}

/// The task that closes connections of a pool.
struct Sweeper(Weak<PerCore>);

impl Sweeper {
    async fn run(mut self) {
        loop {
            sleep(SWEEP).await;
            let Some(pool) = self.0.upgrade() else { return };
            if !pool.sweep() {
                // Another task may be sweeping from now on.
                self.0 = Weak::new();
                return;
            }
        }
    }
}

/// The runtime may end before the pool does.
impl Drop for Sweeper {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            pool.state().is_swept = false;
        }
    }
}
