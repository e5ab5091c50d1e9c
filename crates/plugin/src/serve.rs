//! Serves HTTP on a listener until it is stopped, then lets running requests finish: HTTP/1.1 unless its [`Protocols`]
//! say more.
//!
//! Every listener refuses requests whose head two servers could interpret differently, and protocols that it does not
//! offer. Both get problem details.

mod accept;
mod answer;
mod asked;
mod body;
mod connection;
mod drain_order;
mod draining;
mod first_bytes;
mod hangup;
mod http1;
mod http2;
mod in_flight;
mod link;
mod malformed;
mod meters;
mod per_client;
mod progress;
mod refusal;
mod refused;
mod slots;
mod standstill;
mod switch;
mod waiting;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::body::Body;
use http::{Request, Response};
use ipnet::IpNet;
use tokio::net::TcpListener;
use tower::Service;
use types::NodeId;

use accept::{Acceptor, accept_on, name};
use connection::connection;
use per_client::Accepted;

use crate::{Clients, Tls};

pub use accept::{AcceptLimits, Stop, accept};
pub use asked::Asked;
pub use draining::DrainingListener;
pub use in_flight::{InFlight, InFlightGuard};
pub use meters::ListenerMeters;
pub use per_client::PerClient;
pub use refusal::{OnRefused, RefusalReason, RefusedHead};

/// Limits of a listener.
#[derive(Debug, Clone)]
pub struct ServeLimits {
    /// How long a client may take to send a request's head: the first one from the begin of its connection, others from their
    /// first byte.
    pub head_timeout: Duration,
    /// How long a connection may be idle between requests.
    pub keep_alive: Duration,
    /// How long a client may read nothing of an answer that is ready for it. Then its connection is closed and its memory
    /// is freed.
    pub send_timeout: Duration,
    /// How many connections are open at most. For one more, the connection that has been idle longest is closed; if none is
    /// idle, it waits.
    pub connections: usize,
    /// The setting that says so, which the log names when the limit is reached.
    pub connections_setting: Option<&'static str>,
    /// How many of them one client may have; no limit unless given. Those that were opened without one do not count.
    pub per_client: Option<PerClient>,
    /// How long running requests may continue after the stop.
    pub grace: Duration,
    /// How many header fields a request may have.
    pub fields: usize,
    /// How many bytes a request's head may have, including its target.
    pub head_size: usize,
    /// The node that refusals name.
    pub node: Option<NodeId>,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(20),
            keep_alive: Duration::from_secs(20),
            send_timeout: Duration::from_secs(60),
            connections: 10_000,
            connections_setting: None,
            per_client: None,
            grace: Duration::from_secs(10),
            fields: DEFAULT_FIELDS,
            head_size: 32 * 1024,
            node: None,
        }
    }
}

impl ServeLimits {
    /// Those of a listener that clients from everywhere use: less time for a head, more between requests.
    pub fn of_service_listener() -> Self {
        Self { head_timeout: Duration::from_secs(10), keep_alive: Duration::from_secs(60), ..Self::default() }
    }
}

/// The protocols that a listener offers, and its counts. By default HTTP/1.1 in plain text.
#[derive(Debug, Clone)]
pub struct Protocols {
    /// The name of the listener, for the log.
    pub name: Arc<str>,
    /// HTTP/1.1.
    pub http1: bool,
    /// HTTP/2: with TLS by ALPN, without by prior knowledge.
    pub http2: bool,
    /// TLS; without it, everything is in plain text.
    pub tls: Option<Tls>,
    /// The proxies that may connect, if each connection must begin with a header of the PROXY protocol. The client that it
    /// names is the [`Peer`] of the requests.
    pub proxies: Option<Vec<IpNet>>,
    /// What is counted.
    pub meters: ListenerMeters,
    /// What is done about requests that are refused for their heads alone.
    pub on_refused: OnRefused,
}

impl Default for Protocols {
    fn default() -> Self {
        Self {
            name: Arc::default(),
            http1: true,
            http2: false,
            tls: None,
            proxies: None,
            meters: ListenerMeters::default(),
            on_refused: OnRefused::default(),
        }
    }
}

/// What connections of a listener share that were opened with the same settings.
#[derive(Debug)]
struct Shared {
    limits: ServeLimits,
    protocols: Protocols,
    /// Those of the listener: the same whatever its settings become.
    clients: Clients,
}

/// What the next connections of a listener share. Cheap to clone; clones are the same.
#[derive(Debug, Clone)]
struct Next(Arc<ArcSwap<Shared>>);

/// The address that sent a request. Every request that [`serve`] receives has it as an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// How many header fields hyper parses by default. It takes longer if it is told a number, even this one.
const DEFAULT_FIELDS: usize = 100;

/// Serves HTTP/1.1 until it is stopped; returns once every connection has ended or `limits.grace` has passed.
pub async fn serve<S>(listener: TcpListener, service: S, stop: Stop, limits: ServeLimits)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    serve_with(listener, service, stop, limits, Protocols::default()).await;
}

/// The same with other protocols.
async fn serve_with<S>(
    listener: TcpListener,
    service: S,
    stop: Stop,
    limits: ServeLimits,
    protocols: Protocols,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let next = Next::new(limits, protocols);
    let acceptor = next.acceptor(name(&listener), 1);
    serve_on(0, listener, service, stop, acceptor, next).await;
}

/// The same on one core of a listener.
async fn serve_on<S>(
    core: usize,
    listener: TcpListener,
    service: S,
    stop: Stop,
    acceptor: Acceptor,
    next: Next,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let admit = move |peer| Accepted::new(peer, next.shared()).ok();
    accept_on(core, listener, stop, acceptor, admit, move |stream, accepted, stopping, slot| {
        connection(stream, accepted, service.clone(), stopping, slot)
    })
    .await;
}

impl Shared {
    fn new(limits: ServeLimits, protocols: Protocols) -> Arc<Self> {
        Arc::new(Self { limits, protocols, clients: Clients::default() })
    }
}

impl Next {
    fn new(limits: ServeLimits, protocols: Protocols) -> Self {
        Self(Arc::new(ArcSwap::new(Shared::new(limits, protocols))))
    }

    fn shared(&self) -> Arc<Shared> {
        self.0.load_full()
    }

    /// Connections that are open keep what they have.
    fn replace(&self, limits: ServeLimits, protocols: Protocols) {
        let clients = self.shared().clients.clone();
        self.0.store(Arc::new(Shared { limits, protocols, clients }));
    }

    /// What accepts connections on this number of cores.
    fn acceptor(&self, listener: String, cores: usize) -> Acceptor {
        let shared = self.shared();
        let Shared { limits, protocols, .. } = &*shared;
        let accepting = AcceptLimits {
            connections: limits.connections,
            grace: limits.grace,
            setting: limits.connections_setting,
        };
        Acceptor::new(listener, accepting, cores, protocols.meters.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, Weak};

    use bytes::Bytes;
    use futures_util::stream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::task::JoinSet;
    use tokio::time::timeout;
    use tokio_util::sync::CancellationToken;
    use tower::service_fn;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_client_that_reads_nothing_of_its_answer_is_cut_off_and_a_slow_one_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let bodies: Arc<Mutex<Vec<Weak<()>>>> = Arc::default();
        let made = Arc::clone(&bodies);
        let service = service_fn(move |_| {
            let token = Arc::new(());
            made.lock().unwrap().push(Arc::downgrade(&token));
            // An endless body.
            let body = stream::repeat_with(move || {
                let _ = &token;
                Ok::<_, Infallible>(Bytes::from_static(&[7; 64 * 1024]))
            });
            async { Ok::<_, Infallible>(Response::new(Body::from_stream(body))) }
        });
        let stop = CancellationToken::new();
        let limits = ServeLimits { send_timeout: Duration::from_secs(3), ..ServeLimits::default() };
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, service, stop.clone().into(), limits));
        let ask = async || {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), b'H');
            client
        };
        let (mut slow, stuck) = (ask().await, ask().await);
        timeout(LONG, async {
            let mut some = vec![0; 1024 * 1024];
            while bodies.lock().unwrap()[1].strong_count() > 0 {
                slow.read_exact(&mut some).await.expect("it is served");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // It is served for much longer than the other.
            for _ in 0..50 {
                slow.read_exact(&mut some).await.expect("it is served");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("the connection of the client that reads nothing is closed");
        drop((slow, stuck));
        stop.cancel();
        timeout(LONG, serving.join_next()).await.unwrap().unwrap().unwrap();
    }
}

#[cfg(test)]
mod slow_tests;

#[cfg(test)]
mod size_tests;
