use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::service_fn;

use super::super::{ListenerMeters, Next, Protocols, RefusalReason, ServeLimits, serve_on};
use super::*;
use crate::proxy_protocol::network;

const LONG: Duration = Duration::from_secs(60);

fn limited(connections: u32, exempt: &[&str]) -> ServeLimits {
    let exempt = exempt.iter().map(|text| network(text).unwrap()).collect();
    let per_client = Some(PerClient { connections, exempt });
    ServeLimits { per_client, grace: Duration::from_millis(100), ..ServeLimits::default() }
}

fn next(limits: ServeLimits) -> Next {
    Next::new(limits, Protocols::default())
}

fn from(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), 4711)
}

fn enter(next: &Next, address: &str) -> Result<Accepted, TooMany> {
    Accepted::new(from(address), next.shared())
}

#[test]
fn a_client_is_an_address_or_an_ipv6_network_of_64_bits() {
    let next = next(limited(1, &[]));
    for (one, same, other) in [
        ("203.0.113.7", "203.0.113.7", "203.0.113.8"),
        ("2001:db8:1:2::3", "2001:db8:1:2:ffff::9", "2001:db8:1:3::3"),
        ("::ffff:198.51.100.1", "198.51.100.1", "::ffff:198.51.100.2"),
    ] {
        let _held = enter(&next, one).expect("its first connection");
        assert!(matches!(enter(&next, same), Err(TooMany)), "{same} is {one}");
        assert!(enter(&next, other).is_ok(), "{other} is not {one}");
    }
    assert_eq!(next.shared().protocols.meters.refusals(RefusalReason::PerClient), 3);
}

#[test]
fn trusted_proxies_have_no_limit() {
    let next = next(limited(1, &["10.0.0.0/8", "fd00::/8"]));
    let all = ["10.1.2.3", "::ffff:10.1.2.3", "fd00::1"].map(|proxy| {
        let held: Vec<_> = (0..5).map(|_| enter(&next, proxy).expect("it has no limit")).collect();
        assert!(held.iter().all(|accepted| accepted.client.is_none()), "{proxy}");
        held
    });
    let _one = enter(&next, "192.0.2.1").expect("its first connection");
    assert!(enter(&next, "192.0.2.1").is_err());
    drop(all);
}

#[test]
fn a_new_limit_counts_for_new_connections_and_knows_those_of_the_old_one() {
    let next = next(limited(2, &[]));
    let client = "192.0.2.1";
    let mut held = vec![enter(&next, client).unwrap(), enter(&next, client).unwrap()];
    assert!(enter(&next, client).is_err());
    let change = |limits| next.replace(limits, Protocols::default());
    change(limited(3, &[]));
    held.push(enter(&next, client).expect("one more"));
    assert!(enter(&next, client).is_err());
    change(limited(1, &[]));
    held.truncate(1);
    assert!(enter(&next, client).is_err(), "one is still open");
    held.clear();
    let _one = enter(&next, client).expect("none is open");
    change(ServeLimits::default());
    let _free: Vec<_> = (0..9).map(|_| enter(&next, client).expect("there is no limit")).collect();
    change(limited(1, &[client]));
    assert!(enter(&next, client).is_ok(), "it is exempt now");
}

proptest! {
    #[test]
    fn a_client_never_has_more_than_its_limit_and_each_end_frees_a_place(
        limit in 1_u32..5,
        steps in proptest::collection::vec((0_u8..3, any::<bool>()), 1..200),
    ) {
        let next = next(limited(limit, &[]));
        let mut held: Vec<Vec<Accepted>> = (0..3).map(|_| Vec::new()).collect();
        for (client, opens) in steps {
            let mine = &mut held[usize::from(client)];
            if opens {
                let entered = Accepted::new(SocketAddr::from(([192, 0, 2, client], 1)), next.shared());
                prop_assert_eq!(entered.is_ok(), mine.len() < limit as usize);
                mine.extend(entered);
            } else {
                mine.pop();
            }
        }
        drop(held);
        for client in 0..3 {
            let peer = SocketAddr::from(([192, 0, 2, client], 1));
            let mut all: Vec<_> = (0..limit).map(|_| Accepted::new(peer, next.shared())).collect();
            prop_assert!(all.iter().all(Result::is_ok), "each end frees a place");
            all.push(Accepted::new(peer, next.shared()));
            prop_assert!(all.pop().is_some_and(|more| more.is_err()));
        }
    }
}

/// A listener with limits that serves an empty answer.
struct Served {
    address: SocketAddr,
    meters: ListenerMeters,
    next: Next,
    stop: CancellationToken,
    serving: JoinSet<()>,
}

impl Served {
    async fn with(limits: ServeLimits, protocols: Protocols) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, meters) = (listener.local_addr().unwrap(), protocols.meters.clone());
        let next = Next::new(limits, protocols);
        let stop = CancellationToken::new();
        let service = service_fn(|_| async { Ok(http::Response::new(axum::body::Body::empty())) });
        let mut serving = JoinSet::new();
        let acceptor = next.acceptor("web".to_owned(), 1);
        serving.spawn(serve_on(0, listener, service, stop.clone().into(), acceptor, next.clone()));
        Self { address, meters, next, stop, serving }
    }

    fn refused(&self) -> u64 {
        self.meters.refusals(RefusalReason::PerClient)
    }

    /// A new connection that sends these bytes and a request, and what it is answered first; none if it was closed.
    async fn open(&self, first: &str) -> Option<TcpStream> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{first}GET / HTTP/1.1\r\nhost: x\r\n\r\n");
        // It may be closed already.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        timeout(LONG, async {
            while !answer.ends_with(b"\r\n\r\n") {
                answer.push(stream.read_u8().await.ok()?);
            }
            Some(stream)
        })
        .await
        .expect("it is answered or closed")
    }

    /// Opens one as soon as there is a place.
    async fn open_at_last(&self, first: &str) -> TcpStream {
        timeout(LONG, async {
            loop {
                if let Some(stream) = self.open(first).await {
                    return stream;
                }
            }
        })
        .await
        .expect("the places of its other connections are free")
    }

    async fn end(mut self) {
        self.stop.cancel();
        timeout(LONG, self.serving.join_next()).await.unwrap().unwrap().unwrap();
        assert!(Arc::strong_count(&self.next.shared()) <= 2, "no connection is left");
    }
}

#[tokio::test]
async fn a_connection_beyond_the_limit_is_closed_and_its_place_is_free_however_another_ends() {
    let served = Served::with(limited(2, &[]), Protocols::default()).await;
    let mut held =
        vec![served.open("").await.expect("the first"), served.open("").await.expect("the second")];
    assert!(served.open("").await.is_none(), "the third is closed");
    assert_eq!(served.refused(), 1);
    for end in 0..4 {
        let mut one = held.remove(0);
        match end {
            0 => drop(one),
            1 => one.shutdown().await.unwrap(),
            2 => one.write_all(b"no HTTP\r\n\r\n").await.unwrap(),
            _ => socket2::SockRef::from(&one).set_linger(Some(Duration::ZERO)).unwrap(),
        }
        held.push(served.open_at_last("").await);
    }
    assert!(served.open("").await.is_none());
    drop(held);
    served.end().await;
}

#[tokio::test]
async fn behind_the_proxy_protocol_the_client_is_the_one_in_its_header() {
    let proxies = Some(vec![network("127.0.0.1").unwrap()]);
    let limits = limited(1, &["127.0.0.1", "203.0.113.200"]);
    let served = Served::with(limits, Protocols { proxies, ..Protocols::default() }).await;
    let of = |client: &str| format!("PROXY TCP4 {client} 127.0.0.1 4711 80\r\n");
    let one = served.open(&of("203.0.113.7")).await.expect("its first");
    assert!(served.open(&of("203.0.113.7")).await.is_none(), "its second");
    let other = served.open(&of("203.0.113.8")).await.expect("another client");
    assert_eq!(served.refused(), 1);
    let mut exempt = Vec::new();
    for _ in 0..3 {
        exempt.push(served.open(&of("203.0.113.200")).await.expect("a trusted proxy before the proxy"));
        exempt.push(served.open("PROXY UNKNOWN\r\n").await.expect("the proxy itself"));
    }
    let v6 = |client: &str| format!("PROXY TCP6 {client} ::1 4711 80\r\n");
    let six = served.open(&v6("2001:db8:1:2::3")).await.expect("its first");
    assert!(served.open(&v6("2001:db8:1:2::4")).await.is_none(), "the same network");
    drop(one);
    let again = served.open_at_last(&of("203.0.113.7")).await;
    drop((other, six, again));
    served.end().await;
}

#[tokio::test]
async fn a_client_that_has_too_many_takes_no_place_of_others() {
    let limits = ServeLimits { connections: 2, ..limited(1, &["127.0.0.2"]) };
    let served = Served::with(limits, Protocols::default()).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = socket.connect(served.address).await.unwrap();
    let mut head = [0; 12];
    for round in 0..3 {
        other.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        other.read_exact(&mut head).await.expect("it stays open");
        if round == 0 {
            // Held by the client until the end.
            let mine = served.open("").await.expect("its first");
            for _ in 0..5 {
                assert!(served.open("").await.is_none());
            }
            drop(mine);
        }
    }
    assert_eq!(served.refused(), 5);
    drop(other);
    served.end().await;
}

#[tokio::test]
async fn a_connection_that_waits_because_none_is_idle_is_counted_once() {
    let limits = ServeLimits { connections: 1, grace: Duration::from_millis(100), ..ServeLimits::default() };
    let served = Served::with(limits, Protocols::default()).await;
    // It has begun a request, so it is not idle.
    let mut busy = TcpStream::connect(served.address).await.unwrap();
    busy.write_all(b"GET / HT").await.unwrap();
    let open = served.open("");
    let freed = async {
        timeout(LONG, async {
            while served.meters.waits() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("it is counted");
        drop(busy);
    };
    let (waited, ()) = tokio::join!(open, freed);
    assert!(waited.is_some(), "it is served once there is a place");
    assert_eq!(served.meters.waits(), 1);
    drop(waited);
    served.end().await;
}
