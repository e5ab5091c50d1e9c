//! Accepts connections of any protocol until it is stopped, then lets the open ones finish.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::meters::ListenerMeters;
use super::slots::{Slot, Slots, Stopped};
use crate::log_limit::LogLimit;

/// The pause after the system failed to accept a connection, for example for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often such failures are logged at most.
const FAILURE_INTERVAL: Duration = Duration::from_secs(1);
/// How long an idle connection may take to close for a new one before others have to: a client far away responds within this.
const PATIENCE: Duration = Duration::from_millis(250);
/// How often emptying a queue is tried again after such a failure.
const EMPTYING_ATTEMPTS: u32 = 20;

/// Stops a listener in two steps. Made of one token, it takes both steps at once.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// When cancelled, the listener is closed; open connections continue.
    pub accepting: CancellationToken,
    /// When cancelled, idle connections are closed, and the others after their running request.
    pub serving: CancellationToken,
}

impl From<CancellationToken> for Stop {
    fn from(both: CancellationToken) -> Self {
        Self { accepting: both.clone(), serving: both }
    }
}

impl Stop {
    /// Waits for the first step.
    pub(super) async fn begun(&self) {
        tokio::select! {
            biased;
            () = self.accepting.cancelled() => {}
            () = self.serving.cancelled() => {}
        }
    }

    /// Whether the listener was stopped.
    pub(super) fn has_begun(&self) -> bool {
        self.accepting.is_cancelled() || self.serving.is_cancelled()
    }
}

/// Limits of a listener of any protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptLimits {
    /// How many connections are open at most. For one more, the connection that has been idle longest is closed; if none is
    /// idle, it waits. Of a protocol that knows no idle connections, further ones wait in the system's queue.
    pub connections: usize,
    /// How long open connections may continue after `serving` was cancelled. Then they are aborted.
    pub grace: Duration,
    /// The setting that limits the connections, which the log names when the limit is reached.
    pub setting: Option<&'static str>,
}

/// What the cores of a listener share to accept connections. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Acceptor {
    pub(super) slots: Arc<Slots>,
    pub(super) meters: ListenerMeters,
    pub(super) log: Arc<Log>,
    grace: Duration,
}

/// What the log says of a listener, on any core.
#[derive(Debug)]
pub(super) struct Log {
    listener: Mutex<String>,
    setting: Option<&'static str>,
    failures: LogLimit,
    full: LogLimit,
}

impl Acceptor {
    /// No connections on any of the cores.
    pub(super) fn new(listener: String, limits: AcceptLimits, cores: usize, meters: ListenerMeters) -> Self {
        let AcceptLimits { connections, grace, setting } = limits;
        let slots = Slots::new(connections, cores);
        Self { slots, meters, log: Arc::new(Log::new(listener, setting)), grace }
    }
}

/// Accepts connections until it is stopped; returns once every connection has ended or `limits.grace` has passed.
///
/// `connection` serves one connection. It must end when its client is done, and soon after its token is cancelled.
pub async fn accept<C>(
    listener: TcpListener,
    stop: Stop,
    limits: AcceptLimits,
    connection: impl FnMut(TcpStream, SocketAddr, CancellationToken) -> C,
) where
    C: Future<Output = ()> + Send + 'static,
{
    let acceptor = Acceptor::new(name(&listener), limits, 1, ListenerMeters::default());
    accept_on(0, listener, stop, acceptor, Some, holding(connection)).await;
}

/// What the log calls a listener that has no name.
pub(super) fn name(listener: &TcpListener) -> String {
    listener.local_addr().map_or_else(|_closed| "unknown".to_owned(), |address| address.to_string())
}

/// The connections of any protocol, each with its slot.
pub(super) fn holding<C>(
    mut connection: impl FnMut(TcpStream, SocketAddr, CancellationToken) -> C,
) -> impl FnMut(TcpStream, SocketAddr, CancellationToken, Slot) -> BoxFuture<'static, ()>
where
    C: Future<Output = ()> + Send + 'static,
{
    move |stream, peer, stopping, slot| {
        let serving = connection(stream, peer, stopping);
        Box::pin(async move {
            let _slot = slot;
            serving.await;
        })
    }
}

/// The same on one core of a listener. Connections that the system has accepted by the time of the stop are served as well.
///
/// `admit` decides by its address whether a connection may come in, before it takes the place of another one. If not, it is
/// closed.
pub(super) async fn accept_on<A, C>(
    core: usize,
    listener: TcpListener,
    stop: Stop,
    acceptor: Acceptor,
    admit: impl Fn(SocketAddr) -> Option<A>,
    mut connection: impl FnMut(TcpStream, A, CancellationToken, Slot) -> C,
) where
    C: Future<Output = ()> + Send + 'static,
{
    let Acceptor { slots, meters, log, grace } = acceptor;
    let mut connections = JoinSet::new();
    // Of this core alone, so that its connections share no lock with those of others.
    let serving = stop.serving.child_token();
    loop {
        tokio::select! {
            biased;
            () = stop.begun() => break,
            Some(end) = connections.join_next() => ended(end),
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    meters.accepted();
                    let Some(admitted) = admit(peer) else { continue };
                    let full = |limit| {
                        meters.waited();
                        log.full(limit);
                    };
                    let slot = tokio::select! {
                        biased;
                        () = stop.begun() => slots.enter_last(core),
                        slot = slots.entered(core, PATIENCE, full) => slot,
                    };
                    connections.spawn(connection(stream, admitted, serving.clone(), slot));
                }
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    meters.accept_paused();
                    log.failed(&error);
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    slots.drain();
    let late = CancellationToken::new();
    empty(listener, |stream, peer| {
        meters.accepted();
        if let Some(admitted) = admit(peer) {
            connections.spawn(connection(stream, admitted, late.clone(), slots.enter_last(core)));
        }
    })
    .await;
    loop {
        tokio::select! {
            biased;
            () = stop.serving.cancelled() => break,
            end = connections.join_next() => match end {
                Some(end) => ended(end),
                None => return,
            },
        }
    }
    slots.stop(core, Stopped::AllButLast);
    // In the first half of the grace, those that were accepted last may still send their request.
    for part in [grace / 2, grace - grace / 2] {
        let all = async {
            while let Some(end) = connections.join_next().await {
                ended(end);
            }
        };
        if timeout(part, all).await.is_ok() {
            return;
        }
        late.cancel();
        slots.stop(core, Stopped::All);
    }
    warn!(left = connections.len(), "cut connections that did not finish in time");
    connections.shutdown().await;
}

/// Serves what the system has accepted already, and closes the listener.
async fn empty(listener: TcpListener, mut serve: impl FnMut(TcpStream, SocketAddr)) {
    // Asked directly: Tokio might not know yet of the last connections.
    let Ok(listener) = listener.into_std() else { return };
    begin_no_more(&listener);
    let mut attempts = 0;
    loop {
        let stream = listener.accept().and_then(|(stream, peer)| {
            stream.set_nonblocking(true)?;
            Ok((TcpStream::from_std(stream)?, peer))
        });
        match stream {
            Ok((stream, peer)) => serve(stream, peer),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                attempts += 1;
                if attempts == EMPTYING_ATTEMPTS {
                    warn!(%error, "could not accept the last connections of a listener");
                    return;
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Ignores requests for new connections: otherwise one could be complete between the last look at the queue and the close,
/// and would be reset. Its client asks again, and is refused by then.
#[cfg(target_os = "linux")]
fn begin_no_more(listener: &std::net::TcpListener) {
    use socket2::SockFilter;
    // In the language of BPF: drop a segment of which only SYN is set, of SYN and ACK.
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const SYN_AND_ACK: u32 = 0x12;
    let filter = [
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(AND, 0, 0, SYN_AND_ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ];
    // Without it, only a connection of that very moment is lost.
    let _ = socket2::SockRef::from(listener).attach_filter(&filter);
}

#[cfg(not(target_os = "linux"))]
fn begin_no_more(_listener: &std::net::TcpListener) {}

/// Whether only the next connection in the queue has failed.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// A panic has ended one connection. The others go on.
fn ended(end: Result<(), JoinError>) {
    if let Err(error) = end
        && error.is_panic()
    {
        error!(%error, "the task of a connection panicked");
    }
}

impl Log {
    fn new(listener: String, setting: Option<&'static str>) -> Self {
        let (failures, full) = (LogLimit::default(), LogLimit::default());
        Self { listener: Mutex::new(listener), setting, failures, full }
    }

    /// Changes the name of the listener.
    pub(super) fn rename(&self, listener: &str) {
        listener.clone_into(&mut locked(&self.listener));
    }

    /// The name of the listener.
    pub(super) fn listener(&self) -> String {
        locked(&self.listener).clone()
    }

    fn failed(&self, error: &io::Error) {
        if self.failures.may_log_every(FAILURE_INTERVAL) {
            warn!(listener = self.listener(), %error, "could not accept a connection");
        }
    }

    /// New connections wait: as many as `limit` are open, and none is idle.
    fn full(&self, limit: usize) {
        if self.full.may_log() {
            let (listener, setting) = (self.listener(), self.setting);
            warn!(listener, limit, setting, "all connections that may be open are busy: new ones wait");
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
