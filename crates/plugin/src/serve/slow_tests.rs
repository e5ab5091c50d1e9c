//! Slow clients: each phase of a connection has a limit that its bytes do not renew.

use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::service_fn;

use super::*;

/// Far above the limits below.
const LONG: Duration = Duration::from_secs(30);

/// A server whose heads must arrive within two seconds.
struct Server {
    address: SocketAddr,
    _serving: JoinSet<()>,
}

impl Server {
    async fn start(protocols: Protocols) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = service_fn(|_| async { Ok::<_, Infallible>(Response::new(Body::from("served"))) });
        let limits = ServeLimits { head_timeout: Duration::from_secs(2), ..ServeLimits::default() };
        let mut serving = JoinSet::new();
        serving.spawn(serve_with(listener, service, Stop::default(), limits, protocols));
        Self { address, _serving: serving }
    }

    /// Sends these bytes, then others of this kind every 100 ms. Returns all that comes back before the connection ends.
    async fn trickle(&self, begin: &[u8], then: &[u8]) -> String {
        let (mut reader, mut writer) = TcpStream::connect(self.address).await.unwrap().into_split();
        let sending = async {
            let _ = writer.write_all(begin).await;
            // The server may have closed the connection.
            while writer.write_all(then).await.is_ok() {
                sleep(Duration::from_millis(100)).await;
            }
            std::future::pending::<()>().await;
        };
        let mut came = Vec::new();
        let reading = async { while reader.read_buf(&mut came).await.is_ok_and(|read| read > 0) {} };
        timeout(LONG, async {
            tokio::select! {
                () = sending => {}
                () = reading => {}
            }
        })
        .await
        .expect("the connection is closed though bytes still come");
        String::from_utf8_lossy(&came).into_owned()
    }
}

fn all_protocols() -> Protocols {
    Protocols { http2: true, ..Protocols::default() }
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_refused_at_its_limit() {
    for protocols in [Protocols::default(), all_protocols()] {
        let server = Server::start(protocols).await;
        for begin in ["", "GET / HTTP/1.1\r\nhost: x\r\na: "] {
            let came = server.trickle(begin.as_bytes(), b"A").await;
            assert!(came.starts_with("HTTP/1.1 408 ") && came.contains("slow-head"), "{begin:?}: {came}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_sends_nothing_is_closed_without_an_answer() {
    for protocols in [Protocols::default(), all_protocols()] {
        let server = Server::start(protocols).await;
        assert_eq!(server.trickle(b"", b"").await, "");
        // As is one that stays idle after its first request.
        let came = server.trickle(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"").await;
        assert!(came.ends_with("\r\n\r\nserved") && came.matches("HTTP/1.1").count() == 1, "{came}");
    }
}

#[tokio::test]
async fn a_connection_with_http_2_that_asks_nothing_is_closed() {
    let server = Server::start(all_protocols()).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    // A PING is no request.
    server.trickle(preface, b"\0\0\x08\x06\0\0\0\0\0pingping").await;
    // The preface itself has the same limit, whatever its pace.
    server.trickle(&preface[..20], b"").await;
}

#[tokio::test]
async fn a_slow_head_is_reported_with_what_is_known_of_it_and_with_its_time() {
    let reports: Arc<Mutex<Vec<(Asked, Duration, u64)>>> = Arc::default();
    let noted = Arc::clone(&reports);
    let on_refused = OnRefused::new(move |refused| {
        assert!(refused.problem.request_id.is_some(), "{:?}", refused.problem);
        noted.lock().unwrap().push((refused.asked.clone(), refused.took, refused.sent));
    });
    let server = Server::start(Protocols { on_refused, ..all_protocols() }).await;
    let came = server.trickle(b"GET /slow HTTP/1.1\r\nhost: x\r\nuser-agent: test\r\na: ", b"A").await;
    // A beginning that could be one of HTTP/2.
    let stalled = server.trickle(b"P", b"").await;
    assert!(stalled.starts_with("HTTP/1.1 408 "), "{stalled}");
    let reports = reports.lock().unwrap();
    let [(slow, took, sent), (stalled, ..)] = &reports[..] else { panic!("{reports:?}") };
    assert_eq!((slow.method.as_deref(), slow.host.as_deref()), (Some("GET"), Some("x")));
    assert_eq!((slow.path.as_deref(), slow.user_agent.as_deref()), (Some("/slow"), Some("test")));
    assert!(*took >= Duration::from_secs(1), "{took:?}");
    let (_, body) = came.split_once("\r\n\r\n").unwrap();
    assert_eq!(*sent, body.len() as u64, "{came}");
    assert_eq!(*stalled, Asked::default());
}
