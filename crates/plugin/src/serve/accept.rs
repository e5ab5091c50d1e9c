//! Accepts connections of any protocol until it is stopped, then lets the open ones finish.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::meters::ListenerMeters;

/// The pause after the system failed to accept a connection, for example for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often such failures are logged at most.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

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

/// Limits of a listener of any protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptLimits {
    /// How many connections are open at most; further ones wait in the kernel's queue.
    pub connections: usize,
    /// How long open connections may continue after `serving` was cancelled. Then they are aborted.
    pub grace: Duration,
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
    accept_counted(listener, stop, limits, &ListenerMeters::default(), connection).await;
}

/// The same, counted.
pub(super) async fn accept_counted<C>(
    listener: TcpListener,
    stop: Stop,
    limits: AcceptLimits,
    meters: &ListenerMeters,
    mut connection: impl FnMut(TcpStream, SocketAddr, CancellationToken) -> C,
) where
    C: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    let mut next_log = Instant::now();
    loop {
        while connections.try_join_next().is_some() {}
        tokio::select! {
            biased;
            () = stop.accepting.cancelled() => break,
            () = stop.serving.cancelled() => break,
            Some(_) = connections.join_next(), if connections.len() >= limits.connections => {}
            accepted = listener.accept(), if connections.len() < limits.connections => match accepted {
                Ok((stream, peer)) => {
                    meters.accepted();
                    connections.spawn(connection(stream, peer, stop.serving.clone()));
                }
                Err(error) => {
                    meters.accept_paused();
                    if Instant::now() >= next_log {
                        next_log = Instant::now() + LOG_INTERVAL;
                        warn!(%error, "could not accept a connection");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    loop {
        tokio::select! {
            biased;
            () = stop.serving.cancelled() => break,
            ended = connections.join_next() => if ended.is_none() { return },
        }
    }
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if timeout(limits.grace, all_ended).await.is_err() {
        warn!(left = connections.len(), "cut connections that did not finish in time");
    }
    connections.shutdown().await;
}
