use std::convert::Infallible;

use http::Response;
use http_body_util::StreamBody;
use http_body_util::combinators::BoxBody;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// An answer with a message and a status code of gRPC in its trailers.
fn answer(message: &'static [u8], code: &'static str) -> Answer {
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), code.parse().unwrap())]);
    let frames = [Ok(Frame::data(Bytes::from_static(message))), Ok(Frame::trailers(trailers))];
    let mut answer = Response::new(BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames))));
    answer.headers_mut().insert(CONTENT_TYPE, "application/grpc".parse().unwrap());
    answer
}

/// Checks a server that answers so. Returns the outcome, and the request's path and body.
async fn checked(answers: fn() -> Answer, service: &str) -> (Result<(), String>, String, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, mut asked) = tokio::sync::mpsc::channel(1);
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(move |request: Request<Incoming>| {
            let seen = seen.clone();
            async move {
                let (head, body) = request.into_parts();
                assert_eq!(head.method, "POST");
                assert_eq!(head.headers[TE], "trailers");
                let body = body.collect().await.unwrap().to_bytes();
                seen.send((head.uri.path().to_owned(), body.to_vec())).await.unwrap();
                Ok::<_, Infallible>(answers())
            }
        });
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
    });
    let stream = TcpStream::connect(address).await.unwrap();
    let outcome = check(stream, service, "shop.example:1").await;
    let (path, body) = asked.recv().await.unwrap();
    (outcome, path, body)
}

#[tokio::test]
async fn a_server_that_says_that_it_serves_is_up() {
    let (outcome, path, body) = checked(|| answer(&[0, 0, 0, 0, 2, 8, 1], "0"), "a.B").await;
    assert_eq!((outcome, path.as_str()), (Ok(()), PATH));
    assert_eq!(body, [0, 0, 0, 0, 5, 0x0a, 3, b'a', b'.', b'B']);
    let (outcome, _, body) = checked(|| answer(&[0, 0, 0, 0, 2, 8, 1], "0"), "").await;
    assert_eq!((outcome, body), (Ok(()), vec![0; 5]), "the server as a whole");
}

#[tokio::test]
async fn any_other_answer_means_that_it_is_down_and_says_why() {
    for (answers, words) in [
        ((|| answer(&[0, 0, 0, 0, 2, 8, 2], "0")) as fn() -> Answer, "is not serving"),
        (|| answer(&[0, 0, 0, 0, 2, 8, 3], "0"), "does not know the gRPC service `a`"),
        (|| answer(&[0, 0, 0, 0, 0], "0"), "does not know its own health"),
        (|| answer(&[0, 0, 0, 0, 9, 8, 1], "0"), "does not answer with gRPC"),
        (|| answer(&[1, 0, 0, 0, 2, 8, 1], "0"), "does not answer with gRPC"),
        (|| answer(&[], "5"), "does not know the gRPC service `a`"),
        (|| answer(&[], "12"), "has no gRPC health service"),
        (|| answer(&[], "14"), "the gRPC status 14"),
        (|| Response::builder().status(503).body(Full::default().boxed()).unwrap(), "answers 503"),
        (|| Response::new(Full::from("ok").boxed()), "does not answer with gRPC"),
        (
            || Response::builder().header("grpc-status", "12").body(Full::default().boxed()).unwrap(),
            "has no gRPC health service",
        ),
    ] {
        let (outcome, ..) = checked(answers, "a").await;
        let why = outcome.unwrap_err();
        assert!(why.contains(words), "{words}: {why}");
    }
}

#[tokio::test]
async fn a_server_without_http2_is_down() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad\r\n\r\n").await.unwrap();
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    });
    let outcome = check(TcpStream::connect(address).await.unwrap(), "", "a:1").await;
    let why = outcome.unwrap_err();
    assert!(why.contains("HTTP/2") || why.contains("closes"), "{why}");
}

#[test]
fn lengths_are_written_in_seven_bits_each() {
    for (number, bytes) in [(1, &[1][..]), (127, &[0x7f]), (128, &[0x80, 1]), (300, &[0xac, 2])] {
        let mut found = Vec::new();
        varint(number, &mut found);
        assert_eq!(found, bytes);
    }
}
