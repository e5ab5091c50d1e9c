//! Connections over HTTP/2, which requests share.

use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use http::Response;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::Barrier;

use super::*;
use crate::Options;
use crate::testing::{Answer, text};

/// Serves HTTP/2 without TLS; hits are connections.
async fn serving<F, A>(most: u32, handler: F) -> Upstream
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    Upstream::raw(move |stream| {
        let handler = handler.clone();
        let service = service_fn(move |request| {
            let answer = handler(request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.max_concurrent_streams(most);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        async move {
            let _ = connection.await;
        }
    })
    .await
}

fn h2c(upstream: &Upstream) -> BaseUrl {
    format!("h2c://{}", upstream.addr).parse().unwrap()
}

#[tokio::test]
async fn concurrent_requests_share_a_connection() {
    const REQUESTS: usize = 20;
    let all = Arc::new(Barrier::new(REQUESTS));
    let upstream = serving(100, move |_| {
        let all = Arc::clone(&all);
        async move {
            all.wait().await;
            text("ok")
        }
    })
    .await;
    let (_view, mesh) = mesh([], Limits::default());
    let url = h2c(&upstream);
    futures_util::future::join_all((0..REQUESTS).map(|_| ok(&mesh, &url))).await;
    assert_eq!(upstream.hits(), 1);
    idle(&mesh, 1).await;
}

#[tokio::test]
async fn a_connection_has_no_more_streams_than_its_server_allows() {
    let all = Arc::new(Barrier::new(3));
    let upstream = serving(2, move |request: Request<Incoming>| {
        let all = Arc::clone(&all);
        async move {
            if request.method() == http::Method::GET {
                all.wait().await;
            }
            text("ok")
        }
    })
    .await;
    let (_view, mesh) = mesh([], Limits::default());
    let url = h2c(&upstream);
    // The limit is known by the time of the second request.
    for _ in 0..2 {
        let answer = mesh.send_to_any(std::slice::from_ref(&url), post()).await.unwrap();
        assert_eq!(whole(answer.into_body()).await.unwrap(), "ok");
    }
    idle(&mesh, 1).await;
    // Over one connection, three requests would wait for one another.
    futures_util::future::join_all((0..3).map(|_| ok(&mesh, &url))).await;
    assert_eq!(upstream.hits(), 2);
}

#[tokio::test]
async fn behaviour_8_a_shared_connection_to_a_name_gets_no_request_after_the_next_lookup_but_that_which_opened_it()
 {
    let upstream = serving(100, |_| async { text("ok") }).await;
    let named = format!("h2c://localhost:{}", upstream.addr.port()).parse().unwrap();
    for (lookup, connections) in [(Duration::ZERO, 3), (Duration::from_secs(3600), 1)] {
        let (_view, mesh) = mesh([], Limits { lookup, ..Limits::default() });
        let before = upstream.hits();
        for _ in 0..3 {
            ok(&mesh, &named).await;
        }
        assert_eq!(upstream.hits() - before, connections, "{lookup:?}");
    }
}

#[tokio::test]
async fn host_and_path_arrive_unchanged() {
    let upstream = serving(100, async |request: Request<Incoming>| {
        assert!(!request.headers().contains_key("host"));
        text(format!("{} {}", request.method(), request.uri()))
    })
    .await;
    let (_view, mesh) = mesh([], Limits::default());
    let base: BaseUrl = format!("h2c://{}/base", upstream.addr).parse().unwrap();
    let asked = async |options: Options<'_>| {
        let request = Request::get("/a%2F//b?c=%20").body(Empty::<Bytes>::new()).unwrap();
        let answer = mesh.send_to_any_with(std::slice::from_ref(&base), &options, request).await.unwrap();
        whole(answer.into_body()).await.unwrap()
    };
    let path = "/base/a%2F//b?c=%20";
    assert_eq!(asked(Options::default()).await, format!("GET http://{}{path}", upstream.addr));
    let host = http::HeaderValue::from_static("shop.example");
    let options = Options { host: Some(&host), ..Options::default() };
    assert_eq!(asked(options).await, format!("GET http://shop.example{path}"));
}

#[tokio::test]
async fn an_answer_that_is_dropped_ends_its_stream_and_no_other() {
    let upstream = serving(100, async |request: Request<Incoming>| {
        if request.method() == http::Method::GET {
            text("ok")
        } else {
            Answer::new(request.into_body().boxed())
        }
    })
    .await;
    let (_view, mesh) = mesh([], Limits::default());
    let url = h2c(&upstream);
    let (pieces, body) = Pieces::new();
    let request = Request::post("/").body(body).unwrap();
    let endless = mesh.send_to_any(std::slice::from_ref(&url), request).await.unwrap();
    ok(&mesh, &url).await;
    drop(endless);
    until(|| pieces.is_closed()).await;
    ok(&mesh, &url).await;
    idle(&mesh, 1).await;
    assert_eq!(upstream.hits(), 1);
}

/// How a server ends a stream that it does not answer.
#[derive(Debug, Clone, Copy)]
enum Ending {
    Refused,
    Cancelled,
    /// It names a stream before this one as the last that it processes.
    GoAway,
}

/// Answers the first request, ends the second one in the given way, and answers all others. Returns the methods seen as well.
async fn ending_the_second(ending: Ending) -> (Upstream, Arc<Mutex<Vec<http::Method>>>) {
    let seen = Arc::<Mutex<Vec<_>>>::default();
    let noted = Arc::clone(&seen);
    let upstream = Upstream::raw(move |stream| {
        let noted = Arc::clone(&noted);
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let number = {
                    let mut noted = noted.lock().unwrap();
                    noted.push(request.method().clone());
                    noted.len()
                };
                match ending {
                    Ending::Refused if number == 2 => respond.send_reset(h2::Reason::REFUSED_STREAM),
                    Ending::Cancelled if number == 2 => respond.send_reset(h2::Reason::CANCEL),
                    Ending::GoAway if number == 1 => {
                        let mut body = respond.send_response(Response::new(()), false).unwrap();
                        body.send_data(Bytes::from_static(b"ok"), true).unwrap();
                        // The second request crosses this on its way.
                        connection.graceful_shutdown();
                    }
                    Ending::Refused | Ending::Cancelled | Ending::GoAway => {
                        let mut body = respond.send_response(Response::new(()), false).unwrap();
                        body.send_data(Bytes::from_static(b"ok"), true).unwrap();
                    }
                }
            }
        }
    })
    .await;
    (upstream, seen)
}

/// Behaviours 1 and 3 over HTTP/2.
#[tokio::test]
async fn a_post_is_sent_again_only_if_the_server_declares_that_it_did_not_process_it() {
    for (ending, is_sent_again) in
        [(Ending::Refused, true), (Ending::GoAway, true), (Ending::Cancelled, false)]
    {
        let (upstream, seen) = ending_the_second(ending).await;
        let (_view, mesh) = mesh([], Limits { attempts: 1, ..Limits::default() });
        let url = h2c(&upstream);
        ok(&mesh, &url).await;
        let sent = mesh.send_to_any(std::slice::from_ref(&url), post()).await;
        let seen = seen.lock().unwrap().clone();
        match sent {
            Ok(answer) if is_sent_again => assert_eq!(answer.status(), StatusCode::OK),
            Err(MeshError::Broken { .. }) if !is_sent_again => assert_eq!(seen.len(), 2),
            sent => panic!("{ending:?}: {sent:?} {seen:?}"),
        }
    }
}

#[tokio::test]
async fn a_stream_that_fails_leaves_its_connection_to_the_others() {
    let (upstream, _seen) = ending_the_second(Ending::Cancelled).await;
    let (_view, mesh) = mesh([], Limits { attempts: 1, ..Limits::default() });
    let url = h2c(&upstream);
    ok(&mesh, &url).await;
    mesh.send_to_any(std::slice::from_ref(&url), post()).await.unwrap_err();
    ok(&mesh, &url).await;
    assert_eq!(upstream.hits(), 1);
}

#[tokio::test]
async fn every_request_is_answered_while_connections_go_away() {
    // Each connection takes a few requests and then says GOAWAY, as gRPC's MaxConnectionAge does.
    let upstream = Upstream::raw(|stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let mut number = 0;
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            number += 1;
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data(Bytes::from_static(b"ok"), true).unwrap();
            if number == 3 {
                connection.graceful_shutdown();
            }
        }
    })
    .await;
    let (_view, mesh) = mesh([], Limits { attempts: 1, ..Limits::default() });
    let url = h2c(&upstream);
    for _ in 0..100 {
        let answer = mesh.send_to_any(std::slice::from_ref(&url), post()).await.unwrap();
        assert_eq!(whole(answer.into_body()).await.unwrap(), "ok");
    }
    assert!(upstream.hits() > 10);
}

#[tokio::test]
async fn requests_that_wait_for_one_connection_all_learn_that_it_failed() {
    let (_view, mesh) = mesh([], Limits { attempts: 1, ..Limits::default() });
    let closed = crate::testing::closed_port().await;
    let url: BaseUrl = format!("h2c://{}", closed.authority()).parse().unwrap();
    let asking = (0..5).map(|_| mesh.send_to_any(std::slice::from_ref(&url), get()));
    for answer in futures_util::future::join_all(asking).await {
        let error = answer.unwrap_err();
        assert!(matches!(error, MeshError::Unreachable { .. }), "{error:?}");
    }
}

/// Answers the first request of its first connection, and nothing that comes later on it. Others are answered. Hits are
/// connections. Returns as well whether that connection is silent from now on.
async fn falling_silent() -> (Upstream, Arc<AtomicBool>) {
    let (connections, is_silent) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let silent = Arc::clone(&is_silent);
    let upstream = Upstream::raw(move |stream| {
        let is_first = connections.fetch_add(1, Ordering::SeqCst) == 0;
        let silent = Arc::clone(&silent);
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let mut body = respond.send_response(Response::new(()), false).unwrap();
                body.send_data(Bytes::from_static(b"ok"), true).unwrap();
                if is_first {
                    // Until the answer has been sent and acknowledged. From then on nothing is read or written.
                    let sending = std::future::poll_fn(|cx| connection.poll_closed(cx));
                    let _ = tokio::time::timeout(Duration::from_millis(200), sending).await;
                    silent.store(true, Ordering::SeqCst);
                    std::future::pending::<()>().await;
                }
            }
        }
    })
    .await;
    (upstream, is_silent)
}

#[tokio::test]
async fn a_connection_that_is_silent_until_a_request_times_out_gets_no_other_and_keeps_its_streams() {
    for by_deadline in [false, true] {
        let (upstream, is_silent) = falling_silent().await;
        let head = Duration::from_secs(if by_deadline { 60 } else { 3 });
        let (_view, mesh) = mesh([], Limits { attempts: 1, head, ..Limits::default() });
        let url = h2c(&upstream);
        ok(&mesh, &url).await;
        until(|| is_silent.load(Ordering::SeqCst)).await;
        let waiting = mesh.clone();
        let request = |time: Duration| {
            let mut request = post();
            request.extensions_mut().insert(crate::Deadline(tokio::time::Instant::now() + time));
            request
        };
        let long = request(Duration::from_secs(60));
        let (mut tasks, other) = (tokio::task::JoinSet::new(), url.clone());
        tasks.spawn(async move { waiting.send_to_any(&[other], long).await.map(drop) });
        until(|| mesh.stats().in_flight == 1).await;
        let short = request(Duration::from_millis(if by_deadline { 1_500 } else { 60_000 }));
        let error = mesh.send_to_any(std::slice::from_ref(&url), short).await.unwrap_err();
        match by_deadline {
            true => assert!(matches!(error, MeshError::DeadlinePassed { .. }), "{error:?}"),
            false => assert!(matches!(error, MeshError::TimedOut { .. }), "{error:?}"),
        }
        for _ in 0..3 {
            ok(&mesh, &url).await;
        }
        assert_eq!(upstream.hits(), 2, "the others share a new connection");
        if by_deadline {
            assert_eq!(tasks.len(), 1);
            assert!(tasks.try_join_next().is_none(), "its other stream goes on");
        }
    }
}

#[tokio::test]
async fn a_request_that_times_out_on_a_connection_that_is_alive_takes_nothing_from_the_others() {
    let upstream = serving(100, async |request: Request<Incoming>| {
        if request.method() == http::Method::POST {
            std::future::pending::<()>().await;
        }
        text("ok")
    })
    .await;
    let (_view, mesh) = mesh([], Limits { attempts: 1, ..Limits::default() });
    let url = h2c(&upstream);
    ok(&mesh, &url).await;
    let mut short = post();
    let deadline = tokio::time::Instant::now() + Duration::from_millis(1_500);
    short.extensions_mut().insert(crate::Deadline(deadline));
    let asking = async {
        until(|| mesh.stats().in_flight == 1).await;
        while mesh.stats().in_flight == 1 {
            ok(&mesh, &url).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let (late, ()) = tokio::join!(mesh.send_to_any(std::slice::from_ref(&url), short), asking);
    assert!(matches!(late.unwrap_err(), MeshError::DeadlinePassed { .. }));
    ok(&mesh, &url).await;
    assert_eq!(upstream.hits(), 1);
}
