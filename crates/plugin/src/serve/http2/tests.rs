mod idle;

use std::sync::Mutex;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioExecutor;
use std::net::SocketAddr;
use std::sync::Weak;

use mesh::MalformedBody;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower::service_fn;

use super::super::{Protocols, ServeLimits, Stop, serve_with};
use super::*;

const LONG: Duration = Duration::from_secs(60);

/// A server with HTTP/2 that answers with the head of each request, and on `/endless` with a body that never ends.
struct Server {
    address: SocketAddr,
    stop: Stop,
    tasks: JoinSet<()>,
    /// For each endless body, whether it still exists.
    bodies: Arc<Mutex<Vec<Weak<()>>>>,
}

impl Server {
    async fn start(limits: ServeLimits) -> Self {
        let bodies: Arc<Mutex<Vec<Weak<()>>>> = Arc::default();
        let made = Arc::clone(&bodies);
        let service = service_fn(move |request: Request<Body>| {
            let body = if request.uri().path() == "/endless" {
                let token = Arc::new(());
                made.lock().unwrap().push(Arc::downgrade(&token));
                endless(token)
            } else {
                Body::from(format!("{} {:?}", request.uri(), request.headers()))
            };
            async { Ok::<_, Infallible>(Response::builder().header(CONNECTION, "close").body(body).unwrap()) }
        });
        Self { bodies, ..Self::with(service, limits).await }
    }

    async fn with<S>(service: S, limits: ServeLimits) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, mut tasks) = (Stop::default(), JoinSet::new());
        let protocols = Protocols { http2: true, ..Protocols::default() };
        tasks.spawn(serve_with(listener, service, stop.clone(), limits, protocols));
        Self { address, stop, tasks, bodies: Arc::default() }
    }

    async fn client<B>(&mut self) -> SendRequest<B>
    where
        B: HttpBody<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
    {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let client = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = client.await.unwrap();
        self.tasks.spawn(async {
            let _ = connection.await;
        });
        sender
    }
}

/// A body without an end, which keeps the token.
fn endless(token: Arc<()>) -> Body {
    Body::from_stream(stream::repeat_with(move || {
        let _ = &token;
        Ok::<_, Infallible>(Bytes::from_static(&[7; 64 * 1024]))
    }))
}

fn get(path: &str) -> http::request::Builder {
    Request::get(format!("http://shop.example{path}")).version(Version::HTTP_2)
}

async fn answer(
    client: &mut SendRequest<Empty<Bytes>>,
    request: http::request::Builder,
) -> (StatusCode, String) {
    let answer = client.send_request(request.body(Empty::new()).unwrap()).await.unwrap();
    assert!(!answer.headers().contains_key(CONNECTION));
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn a_request_looks_like_one_of_http_1_to_the_service() {
    let mut server = Server::start(ServeLimits::default()).await;
    let mut client = server.client().await;
    let request = get("/a%2Fb?q").header("cookie", "a=1").header("cookie", "b=2").header("cookie", "c=3");
    let (status, text) = answer(&mut client, request).await;
    assert_eq!(status, StatusCode::OK);
    assert!(text.starts_with("/a%2Fb?q {"), "{text}");
    assert!(text.contains(r#""host": "shop.example""#), "{text}");
    assert!(text.contains(r#""cookie": "a=1; b=2; c=3""#), "{text}");
}

#[tokio::test]
async fn at_the_limit_an_idle_connection_makes_room_for_a_new_one() {
    let mut server = Server::start(ServeLimits { connections: 1, ..ServeLimits::default() }).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = server.client().await;
        let (status, _) = timeout(LONG, answer(&mut client, get("/"))).await.expect("it does not wait");
        assert_eq!(status, StatusCode::OK);
        clients.push(client);
    }
    let closed = async {
        while clients[0].ready().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(LONG, closed).await.expect("the first one was closed");
}

#[tokio::test]
async fn an_ambiguous_or_large_head_is_refused_and_the_connection_continues() {
    let mut server = Server::start(ServeLimits::default()).await;
    let mut client = server.client().await;
    let mut many = get("/");
    for number in 0..110 {
        many = many.header(format!("a-{number}"), "b");
    }
    let mut crumbs = get("/");
    for number in 0..110 {
        crumbs = crumbs.header("cookie", format!("a{number}=b"));
    }
    for (request, status, code) in [
        (get("/").header("host", "SHOP.example"), 200, "SHOP.example"),
        (get("/").method("TRACE"), 405, "no-trace"),
        (get("/").header("expect", "200-ok"), 417, "bad-expectation"),
        (many, 431, "head-too-large"),
        (crumbs, 200, "a109=b"),
        (get("/"), 200, "shop.example"),
    ] {
        let (found, text) = answer(&mut client, request).await;
        assert_eq!(found, status, "{text}");
        assert!(text.contains(code), "{text}");
    }
}

fn reason(error: &hyper::Error) -> Option<h2::Reason> {
    std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>())?.reason()
}

#[tokio::test]
async fn a_malformed_head_resets_its_stream_and_the_connection_continues() {
    let mut server = Server::start(ServeLimits::default()).await;
    let mut client = server.client().await;
    for request in
        [get("/").header("host", "other.example"), get("/").header("a", " b"), get("/").header("a", "b\t")]
    {
        let error = client.send_request(request.body(Empty::new()).unwrap()).await.unwrap_err();
        assert_eq!(reason(&error), Some(h2::Reason::PROTOCOL_ERROR), "{error:?}");
    }
    assert_eq!(answer(&mut client, get("/")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn malformed_trailers_reset_the_stream_of_their_request_even_after_the_head_of_its_answer() {
    // It reads the body of a request before it answers, or on `/late` while it does.
    let service = service_fn(|request: Request<Body>| async {
        let is_late = request.uri().path() == "/late";
        let read = request.into_body().collect().map(|read| {
            let why =
                read.err().map(|error| MalformedBody::behind(&error).expect("it is malformed").to_string());
            assert!(why.is_none_or(|why| why.contains("`etag`")));
        });
        let body = if is_late {
            let (before, after) = (Bytes::from_static(b"a"), Bytes::from_static(b"b"));
            let before = stream::once(async { before }).chain(stream::once(read.map(|()| after)));
            Body::from_stream(before.chain(stream::pending()).map(Ok::<_, Infallible>))
        } else {
            read.await;
            Body::empty()
        };
        Ok::<_, Infallible>(Response::new(body))
    });
    let mut server = Server::with(service, ServeLimits::default()).await;
    let mut client = server.client().await;
    let request = |path, value| {
        let trailers = HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static(value))]);
        let frames = [Frame::data(Bytes::from_static(b"a")), Frame::trailers(trailers)];
        get(path).method("POST").body(StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>)))).unwrap()
    };
    assert_eq!(client.send_request(request("/", "1")).await.unwrap().status(), StatusCode::OK);
    let error = client.send_request(request("/", "1 ")).await.unwrap_err();
    assert_eq!(reason(&error), Some(h2::Reason::PROTOCOL_ERROR), "{error:?}");
    let mut begun = client.send_request(request("/late", " 1")).await.unwrap().into_body();
    let error = loop {
        if let Err(error) = timeout(LONG, begun.frame()).await.unwrap().expect("the body has no end") {
            break error;
        }
    };
    assert_eq!(reason(&error), Some(h2::Reason::PROTOCOL_ERROR), "{error:?}");
    assert_eq!(client.send_request(request("/", "1")).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_stream_of_which_the_client_takes_nothing_is_reset_and_the_others_continue() {
    let limits = ServeLimits { send_timeout: Duration::from_secs(2), ..ServeLimits::default() };
    let mut server = Server::start(limits).await;
    let mut client = server.client().await;
    let stuck = client.send_request(get("/endless").body(Empty::new()).unwrap()).await.unwrap();
    let moving = client.send_request(get("/endless").body(Empty::new()).unwrap()).await.unwrap();
    let mut moving = moving.into_body();
    let bodies = Arc::clone(&server.bodies);
    timeout(LONG, async {
        while bodies.lock().unwrap()[0].strong_count() > 0 {
            moving.frame().await.unwrap().expect("it is served");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for _ in 0..100 {
            moving.frame().await.unwrap().expect("it is served");
        }
    })
    .await
    .expect("the stream that stands still is reset");
    assert_eq!(answer(&mut client, get("/")).await.0, StatusCode::OK);
    let error = stuck.into_body().collect().await.unwrap_err();
    assert!(format!("{error:?}").contains("CANCEL"), "{error:?}");
}

#[tokio::test]
async fn as_many_streams_with_closed_windows_as_a_connection_may_have_end_and_give_their_memory_back() {
    let limits = ServeLimits { send_timeout: Duration::from_secs(2), ..ServeLimits::default() };
    let mut server = Server::start(limits).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(0);
    let (mut client, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    server.tasks.spawn(async {
        let _ = connection.await;
    });
    // Twice: their places are free again.
    for _ in 0..2 {
        let mut held = Vec::new();
        for _ in 0..STREAMS {
            let mut request = get("/endless");
            for number in 0..80 {
                request = request.header(format!("a-{number}"), "b");
            }
            held.push(client.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap());
        }
        timeout(LONG, async {
            while server.bodies.lock().unwrap().iter().any(|body| body.strong_count() > 0) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("every body is freed");
        for answer in held {
            let error = answer.into_body().collect().await.unwrap_err();
            assert!(format!("{error:?}").contains("CANCEL"), "{error:?}");
        }
    }
    assert_eq!(server.bodies.lock().unwrap().len(), 2 * STREAMS as usize);
}

#[tokio::test]
async fn a_drain_sends_goaway_and_open_streams_end() {
    let mut server = Server::start(ServeLimits::default()).await;
    let mut client = server.client().await;
    let open = client.send_request(get("/endless").body(Empty::new()).unwrap()).await.unwrap();
    let mut body = open.into_body();
    server.stop.accepting.cancel();
    timeout(LONG, async {
        while client.send_request(get("/").body(Empty::new()).unwrap()).await.is_ok() {
            body.frame().await.unwrap().expect("it is still served");
        }
    })
    .await
    .expect("the client learns that it must not send further requests");
    for _ in 0..100 {
        body.frame().await.unwrap().expect("it is still served");
    }
    drop(body);
    timeout(LONG, async { while server.tasks.join_next().await.is_some() {} })
        .await
        .expect("the connection and the listener have ended");
}

#[tokio::test]
async fn a_stop_ends_idle_connections() {
    let mut server = Server::start(ServeLimits::default()).await;
    let mut client = server.client().await;
    assert_eq!(answer(&mut client, get("/")).await.0, StatusCode::OK);
    server.stop.serving.cancel();
    timeout(LONG, async { while server.tasks.join_next().await.is_some() {} }).await.unwrap();
}

#[tokio::test]
async fn a_client_of_http_1_is_served_on_the_same_port() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = Server::start(ServeLimits::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    // In two pieces, of which the first could be the beginning of either.
    stream.write_all(b"P").await.unwrap();
    stream
        .write_all(b"UT /x HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("/x {"), "{text}");
}

/// A WebSocket that says `hello`, waits for a byte, and then ends or breaks off.
async fn switching(mut request: Request<Body>, breaks: bool) -> Response<Body> {
    let upgrade = hyper::upgrade::on(&mut request);
    let body = stream::once(async move {
        let mut io = TokioIo::new(upgrade.await.unwrap());
        io.write_all(b"hello").await.unwrap();
        io.flush().await.unwrap();
        io.read_u8().await.unwrap();
        if breaks { Err(std::io::Error::other("the server is gone")) } else { Ok(Bytes::new()) }
    });
    let mut answer = Response::new(Body::from_stream(body));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    answer
}

#[tokio::test]
async fn a_websocket_that_breaks_off_resets_its_stream_and_one_that_ends_does_not() {
    let service = service_fn(|request: Request<Body>| async {
        let breaks = request.uri().path() == "/breaks";
        Ok::<_, Infallible>(switching(request, breaks).await)
    });
    let mut server = Server::with(service, ServeLimits::default()).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut sender, mut connection) = h2::client::handshake(stream).await.unwrap();
    // The server's settings allow it.
    poll_fn(|cx| {
        let _ = Pin::new(&mut connection).poll(cx);
        if sender.is_extended_connect_protocol_enabled() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    server.tasks.spawn(async {
        let _ = connection.await;
    });
    for (path, breaks) in [("/breaks", true), ("/ends", false), ("/breaks", true)] {
        let request = Request::connect(format!("http://x{path}"))
            .extension(h2::ext::Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13")
            .body(())
            .unwrap();
        let (answer, mut sending) = sender.send_request(request, false).unwrap();
        let mut body = timeout(LONG, answer).await.unwrap().unwrap().into_body();
        assert_eq!(timeout(LONG, body.data()).await.unwrap().unwrap().unwrap(), "hello");
        sending.send_data(Bytes::from_static(b"x"), false).unwrap();
        let end = loop {
            match timeout(LONG, body.data()).await.expect("it ends") {
                Some(Ok(data)) if data.is_empty() => {}
                end => break end,
            }
        };
        match end {
            Some(Err(error)) if breaks => assert_eq!(error.reason(), Some(h2::Reason::CANCEL), "{error}"),
            None if !breaks => {}
            end => panic!("{path} ended with {end:?}"),
        }
    }
}
