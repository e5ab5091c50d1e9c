//! Accepts connections of any protocol until it is stopped, then lets the open ones finish.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::meters::ListenerMeters;
use super::slots::{Slot, Slots, Stopped};

/// The pause after the system failed to accept a connection, for example for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often such failures are logged at most.
const LOG_INTERVAL: Duration = Duration::from_secs(1);
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
}

/// What the cores of a listener share to accept connections. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Acceptor {
    pub(super) slots: Arc<Slots>,
    pub(super) meters: ListenerMeters,
    grace: Duration,
    log: Arc<Log>,
}

/// When a failure to accept was logged last, on any core.
#[derive(Debug, Default)]
struct Log(Mutex<Option<Instant>>);

impl Acceptor {
    /// No connections on any of the cores.
    pub(super) fn new(limits: AcceptLimits, cores: usize, meters: ListenerMeters) -> Self {
        let slots = Slots::new(limits.connections, cores);
        Self { slots, meters, grace: limits.grace, log: Arc::default() }
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
    let acceptor = Acceptor::new(limits, 1, ListenerMeters::default());
    accept_on(0, listener, stop, acceptor, holding(connection)).await;
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
pub(super) async fn accept_on<C>(
    core: usize,
    listener: TcpListener,
    stop: Stop,
    acceptor: Acceptor,
    mut connection: impl FnMut(TcpStream, SocketAddr, CancellationToken, Slot) -> C,
) where
    C: Future<Output = ()> + Send + 'static,
{
    let Acceptor { slots, meters, grace, log } = acceptor;
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
                    let slot = tokio::select! {
                        biased;
                        () = stop.begun() => slots.enter_last(core),
                        slot = slots.entered(core, PATIENCE) => slot,
                    };
                    connections.spawn(connection(stream, peer, serving.clone(), slot));
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
        connections.spawn(connection(stream, peer, late.clone(), slots.enter_last(core)));
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
    fn failed(&self, error: &io::Error) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= LOG_INTERVAL) {
            *last = Some(Instant::now());
            warn!(%error, "could not accept a connection");
        }
    }
}
