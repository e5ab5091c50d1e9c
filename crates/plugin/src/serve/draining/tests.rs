use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::mpsc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};
use tower::service_fn;

use super::*;
use crate::cores::Cores;

const LONG: Duration = Duration::from_secs(30);

/// A protocol of single bytes: each is answered, but a zero only after `release` is cancelled.
async fn listen(cx: &Context, release: &CancellationToken) -> (DrainingListener, SocketAddr) {
    let listener = cx.listen_on_cores("bytes", "tcp", "127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.address();
    let in_flight = InFlight::default();
    let (counted, release) = (in_flight.clone(), release.clone());
    let connection = move |mut stream: TcpStream, _, stopping: CancellationToken| {
        let (in_flight, release) = (counted.clone(), release.clone());
        async move {
            while let Some(Ok(byte)) = stopping.run_until_cancelled(stream.read_u8()).await {
                let _one = in_flight.enter();
                if byte == 0 {
                    release.cancelled().await;
                }
                stream.write_u8(byte).await.unwrap();
            }
        }
    };
    let limits = AcceptLimits { connections: 2, grace: Duration::from_millis(100), setting: None };
    let meters = ListenerMeters::default();
    (DrainingListener::connections(cx, "bytes", listener, in_flight, limits, meters, connection), address)
}

#[tokio::test]
async fn requests_in_flight_finish_and_no_new_connections_are_accepted() {
    let (cx, mut failures) = Context::for_test("gateway".parse().unwrap());
    let release = CancellationToken::new();
    let (listener, address) = listen(&cx, &release).await;
    assert_eq!(cx.endpoints.urls()["bytes"], format!("tcp://{address}"));
    let mut busy = TcpStream::connect(address).await.unwrap();
    let mut idle = TcpStream::connect(address).await.unwrap();
    for stream in [&mut busy, &mut idle] {
        stream.write_u8(7).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), 7);
    }
    busy.write_u8(0).await.unwrap();
    while listener.in_flight.count() == 0 {
        tokio::task::yield_now().await;
    }
    let finish = async {
        listener.stop.accepting.cancelled().await;
        assert_eq!(listener.health(), Health::Ready);
        while TcpStream::connect(address).await.is_ok() {
            sleep(Duration::from_millis(1)).await;
        }
        release.cancel();
        busy.read_u8().await.unwrap()
    };
    let (drained, last) = tokio::join!(timeout(LONG, listener.drain(Instant::now() + LONG)), finish);
    drained.expect("the last request has ended");
    assert_eq!(last, 0);
    for _ in 0..2 {
        timeout(LONG, listener.stop()).await.expect("every connection is closed");
    }
    assert_eq!(idle.read_u8().await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert!(failures.try_recv().is_err());
}

#[tokio::test]
async fn a_request_that_never_ends_is_aborted_after_the_deadline_and_the_grace() {
    let (cx, _failures) = Context::for_test("gateway".parse().unwrap());
    let (listener, address) = listen(&cx, &CancellationToken::new()).await;
    let mut stuck = TcpStream::connect(address).await.unwrap();
    stuck.write_u8(0).await.unwrap();
    while listener.in_flight.count() == 0 {
        tokio::task::yield_now().await;
    }
    let soon = Instant::now() + Duration::from_millis(50);
    timeout(LONG, listener.drain(soon)).await.expect("its deadline has passed");
    timeout(LONG, listener.stop()).await.expect("its grace has passed");
    assert!(stuck.read_u8().await.is_err());
}

/// An HTTP listener on cores of its own. It answers with the core on which a request and what it spawns are running; on
/// `/panic` it panics.
fn listen_http(cx: &Context, cores: Vec<Core>, connections: usize) -> (DrainingListener, SocketAddr) {
    let listener = CoreListener::on(cores, ([127, 0, 0, 1], 0).into()).unwrap();
    let (address, in_flight) = (listener.address(), InFlight::default());
    let counted = in_flight.clone();
    let service = service_fn(move |request: Request<Body>| {
        let entered = counted.enter();
        let is_closing = counted.is_closing();
        async move {
            assert_ne!(request.uri().path(), "/panic", "as it was asked to");
            let own = mesh::core::current();
            let spawned = Handle::current().spawn(async { mesh::core::current() }).await.unwrap();
            let mut answer = Response::new(Body::from(format!("{own:?} {spawned:?}!")));
            if is_closing {
                answer.headers_mut().insert("connection", http::HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(entered.hold(answer))
        }
    });
    let limits = ServeLimits { connections, ..ServeLimits::of_service_listener() };
    let protocols = Protocols::default();
    (DrainingListener::named(cx, "web", listener, in_flight, limits, protocols, service), address)
}

/// A request on a kept-alive connection, and the text of its answer.
async fn ask(stream: &mut TcpStream) -> io::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await?;
    answer(stream).await
}

async fn answer(stream: &mut TcpStream) -> io::Result<String> {
    let mut text = String::new();
    while !text.ends_with('!') {
        text.push(char::from(stream.read_u8().await?));
    }
    text.pop();
    Ok(text)
}

/// Keeps a core from doing anything until this is dropped.
fn block(core: &Core) -> mpsc::Sender<()> {
    let (release, released) = mpsc::channel();
    let (began, begins) = mpsc::channel();
    core.handle.spawn(async move {
        began.send(()).unwrap();
        let _ = released.recv();
    });
    begins.recv().unwrap();
    release
}

#[tokio::test]
async fn a_connection_and_what_it_spawns_stay_on_the_core_that_accepted_it() {
    let (cx, _failures) = Context::for_test("gateway".parse().unwrap());
    let (_own, cores) = Cores::of_test(2);
    let (listener, address) = listen_http(&cx, cores, 1_000);
    let (mut seen, mut streams) = (BTreeSet::new(), Vec::new());
    let all_seen = async {
        while seen.len() < 2 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let first = ask(&mut stream).await.unwrap();
            let (own, spawned) = first.rsplit_once("\r\n").unwrap().1.split_once(' ').unwrap();
            assert_eq!(own, spawned);
            seen.insert(own.to_owned());
            let second = ask(&mut stream).await.unwrap();
            assert!(second.ends_with(&format!("{own} {own}")), "{second}");
            streams.push(stream);
        }
    };
    timeout(LONG, all_seen).await.expect("both cores get connections");
    assert_eq!(seen, ["Some(0)".to_owned(), "Some(1)".to_owned()].into());
    timeout(LONG, listener.stop()).await.unwrap();
}

#[tokio::test]
async fn connections_that_the_system_had_accepted_are_answered_and_none_is_reset() {
    for is_drained_first in [true, false] {
        let (cx, _failures) = Context::for_test("gateway".parse().unwrap());
        let (_own, cores) = Cores::of_test(2);
        let blocked = cores.clone();
        let (listener, address) = listen_http(&cx, cores, 3);
        let release: Vec<_> = blocked.iter().map(block).collect();
        let mut clients = Vec::new();
        for _ in 0..40 {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            clients.push(client);
        }
        let stopping = async {
            if is_drained_first {
                listener.drain(Instant::now() + LONG).await;
            }
            listener.stop().await;
        };
        let asking = async {
            listener.stop.accepting.cancelled().await;
            drop(release);
            for client in &mut clients {
                let text = answer(client).await.expect("it is answered");
                assert!(text.starts_with("HTTP/1.1 200") && text.contains("connection: close"), "{text}");
                let end = client.read_u8().await.unwrap_err();
                assert_eq!(end.kind(), ErrorKind::UnexpectedEof, "closed in order");
            }
        };
        let ((), ()) = timeout(LONG, async { tokio::join!(stopping, asking) }).await.unwrap();
        assert_eq!(TcpStream::connect(address).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
}

/// Drains a listener, and does something meanwhile; then stops it.
async fn draining(listener: &DrainingListener, meanwhile: impl Future<Output = ()>) {
    let both = async {
        tokio::join!(listener.drain(Instant::now() + 100 * LONG), async {
            while !listener.in_flight.is_draining() {
                tokio::task::yield_now().await;
            }
            meanwhile.await;
            listener.stop().await;
        })
    };
    timeout(LONG, both).await.expect("it ends");
}

#[tokio::test]
async fn while_the_drain_is_announced_clients_that_connect_are_served_as_before() {
    let (cx, _failures) = Context::for_test("gateway".parse().unwrap());
    let (_own, cores) = Cores::of_test(2);
    let (mut listener, address) = listen_http(&cx, cores, 1_000);
    listener.order = DrainOrder { notice: 10 * LONG, ..DrainOrder::ANNOUNCED };
    draining(&listener, async {
        let mut late = TcpStream::connect(address).await.unwrap();
        for _ in 0..2 {
            let answer = ask(&mut late).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("connection: close"), "{answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn then_their_connections_end_after_a_request_until_nobody_comes_any_more() {
    let (cx, _failures) = Context::for_test("gateway".parse().unwrap());
    let (_own, cores) = Cores::of_test(2);
    let (mut listener, address) = listen_http(&cx, cores, 1_000);
    listener.order = DrainOrder { notice: Duration::ZERO, silence: 10 * LONG };
    let mut kept = TcpStream::connect(address).await.unwrap();
    ask(&mut kept).await.unwrap();
    draining(&listener, async {
        for mut client in [kept, TcpStream::connect(address).await.unwrap()] {
            while !listener.in_flight.is_closing() {
                tokio::task::yield_now().await;
            }
            let answer = ask(&mut client).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
            assert_eq!(client.read_u8().await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        }
    })
    .await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_client_of_http_2_that_connects_then_is_answered_and_sent_goaway() {
    let (cx, _failures) = Context::for_test("gateway".parse().unwrap());
    let (_own, cores) = Cores::of_test(2);
    let socket = CoreListener::on(cores, ([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.address();
    let service = service_fn(async |_| Ok::<_, Infallible>(Response::new(Body::empty())));
    let (limits, protocols) =
        (ServeLimits::of_service_listener(), Protocols { http2: true, ..Protocols::default() });
    let in_flight = InFlight::default();
    let mut listener = DrainingListener::named(&cx, "web", socket, in_flight, limits, protocols, service);
    listener.order = DrainOrder { notice: Duration::ZERO, silence: 10 * LONG };
    draining(&listener, async {
        while !listener.in_flight.is_closing() {
            tokio::task::yield_now().await;
        }
        let io = hyper_util::rt::TokioIo::new(TcpStream::connect(address).await.unwrap());
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut client, connection) =
            hyper::client::conn::http2::handshake(executor, io).await.expect("it is served");
        let request = Request::get("http://shop.example/").body(Body::empty()).unwrap();
        let answered = async { client.send_request(request).await.expect("it is answered").status() };
        let (status, ended) = tokio::join!(answered, connection);
        assert_eq!((status.as_u16(), ended.is_ok()), (200, true), "the server ends the connection in order");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_listener_to_which_nobody_comes_is_closed_half_a_second_after_its_drain_began() {
    let (cx, _failures) = Context::for_test("gateway".parse().unwrap());
    for (late, expected) in [(None, 500), (Some(100), 500), (Some(300), 550)] {
        let (_own, cores) = Cores::of_test(2);
        let (listener, _) = listen_http(&cx, cores, 1_000);
        let began = Instant::now();
        let connecting = async {
            if let Some(late) = late {
                sleep(Duration::from_millis(late)).await;
                drop(listener.slots.enter(0));
            }
            listener.stop.accepting.cancelled().await;
            began.elapsed()
        };
        let (took, ()) = tokio::join!(connecting, listener.drain(began + LONG));
        // The timer's resolution is a millisecond.
        let expected = Duration::from_millis(expected);
        assert!(took.abs_diff(expected) <= Duration::from_millis(5), "{late:?}: {took:?}");
        listener.stop().await;
    }
}

#[tokio::test]
async fn a_connection_whose_task_panics_takes_no_other_one_with_it() {
    let (cx, mut failures) = Context::for_test("gateway".parse().unwrap());
    let (_own, cores) = Cores::of_test(1);
    let (listener, address) = listen_http(&cx, cores, 1_000);
    let mut other = TcpStream::connect(address).await.unwrap();
    ask(&mut other).await.unwrap();
    let mut doomed = TcpStream::connect(address).await.unwrap();
    doomed.write_all(b"GET /panic HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(timeout(LONG, doomed.read_u8()).await.unwrap().is_err());
    ask(&mut other).await.unwrap();
    ask(&mut TcpStream::connect(address).await.unwrap()).await.unwrap();
    assert_eq!((listener.health(), failures.try_recv().is_err()), (Health::Ready, true));
    timeout(LONG, listener.stop()).await.unwrap();
}

#[tokio::test]
async fn a_listener_whose_core_has_ended_is_failed() {
    let (cx, mut failures) = Context::for_test("gateway".parse().unwrap());
    let (mut own, cores) = Cores::of_test(2);
    let (listener, address) = listen_http(&cx, cores, 1_000);
    ask(&mut TcpStream::connect(address).await.unwrap()).await.unwrap();
    assert_eq!(listener.health(), Health::Ready);
    listener.change(&cx, "renamed", ServeLimits::of_service_listener(), Protocols::default());
    own.end(1);
    let failure = timeout(LONG, failures.recv()).await.unwrap().unwrap();
    assert!(failure.reason.contains("core 1 does not serve the listener `web` any more"), "{failure:?}");
    let Health::Failed(why) = listener.health() else { panic!("a core has ended") };
    assert_eq!(why.text, "the listener `renamed` has ended");
    timeout(LONG, listener.stop()).await.expect("the other core can be stopped");
}

#[tokio::test]
async fn what_is_left_on_the_cores_is_aborted_with_the_tasks_of_the_service() {
    let (cx, _failures) = Context::for_test("gateway".parse().unwrap());
    let (_own, cores) = Cores::of_test(2);
    let (_listener, address) = listen_http(&cx, cores, 1_000);
    let mut client = TcpStream::connect(address).await.unwrap();
    ask(&mut client).await.unwrap();
    cx.tasks.abort();
    timeout(LONG, cx.tasks.wait()).await.unwrap();
    assert!(timeout(LONG, client.read_u8()).await.expect("its connection is closed").is_err());
}

#[tokio::test]
async fn at_the_limit_the_connection_that_was_idle_longest_is_closed_for_a_new_one() {
    let (cx, _failures) = Context::for_test("gateway".parse().unwrap());
    let (_own, cores) = Cores::of_test(2);
    let (listener, address) = listen_http(&cx, cores, 3);
    // Only a request whose answer has arrived is known to have ended, and its connection to be idle soon after.
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = TcpStream::connect(address).await.unwrap();
        ask(&mut client).await.unwrap();
        clients.push(client);
        sleep(Duration::from_millis(20)).await;
    }
    ask(&mut clients[0]).await.unwrap();
    for oldest in [1, 2] {
        let mut new = TcpStream::connect(address).await.unwrap();
        timeout(LONG, ask(&mut new)).await.expect("a new connection does not wait").unwrap();
        let closed = timeout(LONG, clients[oldest].read_u8()).await.expect("the oldest one is closed");
        assert_eq!(closed.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        clients.push(new);
        sleep(Duration::from_millis(20)).await;
    }
    ask(&mut clients[0]).await.expect("one that is used stays");
    timeout(LONG, listener.stop()).await.unwrap();
}
