//! Connections without open requests, over a transport in memory: time is paused.

use tokio::io::{DuplexStream, duplex};
use tokio::time::sleep;

use super::*;

const KEEP_ALIVE: Duration = Duration::from_secs(10);
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:method: GET`, `:scheme: http`, `:path: /` and `:authority: x`.
const GET: [u8; 6] = [0x82, 0x86, 0x84, 0x41, 1, b'x'];

/// The other end of a connection that is served with short limits.
fn served<S>(service: S) -> (DuplexStream, JoinSet<()>)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let (ours, theirs) = duplex(64 * 1024);
    let limits = ServeLimits { keep_alive: KEEP_ALIVE, ..ServeLimits::default() };
    let shared = Shared::new(limits, Protocols { http2: true, ..Protocols::default() });
    let client = Client { peer: SocketAddr::from(([127, 0, 0, 1], 1)), session: None };
    let due = Instant::now() + KEEP_ALIVE;
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(ours, due, client, service, shared, Activity::default()));
    (theirs, tasks)
}

/// A client that sends frames by hand.
struct Raw(DuplexStream);

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Raw {
    /// Of a server that answers everything with its path.
    async fn start() -> (Self, JoinSet<()>) {
        let service = service_fn(|request: Request<Body>| async move {
            Ok::<_, Infallible>(Response::new(Body::from(request.uri().to_string())))
        });
        let (mut transport, tasks) = served(service);
        transport.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut client = Self(transport);
        client.send(SETTINGS, 0, 0, &[]).await;
        (client, tasks)
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.0.write_all(&[&head, payload].concat()).await.unwrap();
    }

    /// The next frame; none at the end.
    async fn frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; usize::from(head[1]) * 256 + usize::from(head[2])];
        self.0.read_exact(&mut payload).await.unwrap();
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    async fn ask(&mut self, stream: u32) {
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, &GET).await;
    }

    /// Skips frames until the answer of a stream has ended.
    async fn answered(&mut self, stream: u32) {
        while let Some(frame) = self.frame().await {
            if frame.stream == stream && matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM > 0
            {
                return;
            }
        }
        panic!("stream {stream} was not answered");
    }

    /// The next frame of this kind.
    async fn next(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.frame().await.expect("the connection is open");
            if frame.kind == kind && frame.flags & ACK == 0 {
                return frame;
            }
        }
    }

    /// The last stream that the server will answer, as its next GOAWAY says.
    async fn last_stream(&mut self) -> u32 {
        let frame = self.next(GOAWAY).await;
        assert_eq!(frame.payload[4..8], [0; 4], "NO_ERROR");
        u32::from_be_bytes(frame.payload[..4].try_into().unwrap())
    }
}

fn about(time: Duration, wanted: Duration) -> bool {
    time.abs_diff(wanted) < Duration::from_millis(20)
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_ended_in_two_steps_and_a_request_on_its_way_is_answered() {
    let (mut client, mut tasks) = Raw::start().await;
    for stream in [1, 3] {
        sleep(KEEP_ALIVE * 2 / 3).await;
        client.ask(stream).await;
        client.answered(stream).await;
    }
    let idle = Instant::now();
    assert_eq!(client.last_stream().await, i32::MAX.cast_unsigned(), "further requests may be on their way");
    assert!(about(idle.elapsed(), KEEP_ALIVE), "{:?}", idle.elapsed());
    let ping = client.next(PING).await;
    client.ask(5).await;
    client.answered(5).await;
    client.send(PING, ACK, 0, &ping.payload).await;
    assert_eq!(client.last_stream().await, 5);
    assert!(client.frame().await.is_none(), "the connection has ended");
    tasks.join_next().await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_close_an_idle_connection_is_disconnected() {
    let (mut client, mut tasks) = Raw::start().await;
    client.ask(1).await;
    client.answered(1).await;
    let idle = Instant::now();
    while client.frame().await.is_some() {}
    let closing = CLOSING.max(ServeLimits::default().send_timeout);
    // Sooner, because it does not answer the pings.
    assert!(idle.elapsed() <= KEEP_ALIVE + closing, "{:?}", idle.elapsed());
    tasks.join_next().await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_with_a_websocket_is_not_idle_however_quiet_it_is() {
    let (transport, mut tasks) =
        served(service_fn(|request| async { Ok::<_, Infallible>(switching(request, false).await) }));
    let (mut sender, mut connection) = h2::client::handshake(transport).await.unwrap();
    poll_fn(|cx| {
        let _ = Pin::new(&mut connection).poll(cx);
        if sender.is_extended_connect_protocol_enabled() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let mut client = JoinSet::new();
    client.spawn(connection);
    let request = Request::connect("http://x/")
        .extension(h2::ext::Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .body(())
        .unwrap();
    let (answer, mut sending) = sender.send_request(request, false).unwrap();
    let mut body = answer.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "hello");
    sleep(KEEP_ALIVE * 360).await;
    assert!(client.try_join_next().is_none() && tasks.try_join_next().is_none(), "it is open");
    sending.send_data(Bytes::from_static(b"x"), true).unwrap();
    while body.data().await.is_some_and(|data| data.is_ok()) {}
    let ended = Instant::now();
    drop((sending, body));
    tasks.join_next().await.unwrap().unwrap();
    assert!(about(ended.elapsed(), KEEP_ALIVE), "{:?}", ended.elapsed());
}
