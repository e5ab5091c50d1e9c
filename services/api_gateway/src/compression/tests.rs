//! Negotiation, heads and bodies.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use futures_util::task::noop_waker;
use http::Request;
use http_body::Frame;
use http_body_util::BodyExt;
use proptest::prelude::*;
use std::io::Read;

use super::*;
use crate::route_body::RouteBodyError;

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

#[test]
fn the_coding_that_the_client_likes_best_is_chosen() {
    let (gzip, zstd) = (Some(Coding::Gzip), Some(Coding::Zstd));
    for (accept, expected) in [
        (&[][..], None),
        (&[""], None),
        (&["identity"], None),
        (&["br"], None),
        (&["gzip"], gzip),
        (&["GZip"], gzip),
        (&["x-gzip"], gzip),
        (&["gzip, deflate, br, zstd"], zstd),
        (&["gzip, deflate, br"], gzip),
        (&["gzip", "zstd"], zstd),
        (&["gzip;q=1.0, zstd;q=0.9"], gzip),
        (&["gzip;q=0.001, zstd;q=0.000"], gzip),
        (&["gzip; q=0"], None),
        (&["*"], zstd),
        (&["*;q=0"], None),
        (&["*, zstd;q=0"], gzip),
        (&["*;q=0, gzip"], gzip),
        (&["gzip;q=0.5, identity"], None),
        (&["gzip;q=0.5, identity;q=0.5"], gzip),
        (&["gzip;q=0.5, identity;q=0"], gzip),
        (&["identity;q=0"], None),
        (&["gzip;level=9;Q=0.2, zstd;q=0.1"], gzip),
        (&["gzip;q=2"], None),
        (&["gzip;q=1.001"], None),
        (&["gzip;q=0.1234"], None),
        (&["gzip;q=x, zstd;q="], None),
        (&[",, ;q=1, gzip ,"], gzip),
        (&["gzipped"], None),
    ] {
        let lines: Vec<_> = accept.iter().map(|value| ("accept-encoding", *value)).collect();
        assert_eq!(accepted(&headers(&lines)), expected, "{accept:?}");
    }
}

fn offer(method: &str, version: Version, lines: &[(&'static str, &str)]) -> Offer {
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = method.parse().unwrap();
    head.version = version;
    head.headers = headers(lines);
    head.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    Offer::of(&head)
}

#[test]
fn only_bodies_that_become_shorter_and_may_change_are_compressed() {
    let (compressed, varies, unchanged) =
        (Verdict::Compressed(Coding::Gzip), Verdict::Varies, Verdict::Unchanged);
    let get = offer("GET", Version::HTTP_11, &[]);
    for (status, kind, more, len, expected) in [
        (200, "text/html; charset=utf-8", None, None, compressed),
        (200, "TEXT/Plain", None, Some(1024), compressed),
        (200, "text/plain", None, Some(1023), unchanged),
        (404, "application/problem+json", None, Some(5000), compressed),
        (500, "application/json", None, None, compressed),
        (200, "image/svg+xml", None, None, compressed),
        (200, "application/wasm", None, None, compressed),
        (200, "text/event-stream", None, None, unchanged),
        (200, "application/grpc", None, None, unchanged),
        (200, "application/grpc-web+json", None, None, unchanged),
        (200, "application/grpc+xml", None, None, unchanged),
        (200, "image/png", None, None, unchanged),
        (200, "video/mp4", None, None, unchanged),
        (200, "audio/ogg", None, None, unchanged),
        (200, "application/zip", None, None, unchanged),
        (200, "application/gzip", None, None, unchanged),
        (200, "application/octet-stream", None, None, unchanged),
        (200, "font/woff2", None, None, unchanged),
        (200, "", None, None, unchanged),
        (200, "text/html", Some(("content-encoding", "br")), None, unchanged),
        (200, "text/html", Some(("content-encoding", "identity")), None, compressed),
        (200, "text/html", Some(("cache-control", "public, No-Transform")), None, unchanged),
        (200, "text/html", Some(("cache-control", "no-store")), None, compressed),
        (200, "text/html", Some(("content-digest", "sha-256=:AA==:")), None, unchanged),
        (200, "text/html", Some(("content-range", "bytes 0-9/10")), None, varies),
        (206, "text/html", None, Some(10), varies),
        (204, "text/html", None, None, unchanged),
        (205, "text/html", None, None, unchanged),
        (101, "text/html", None, None, unchanged),
        (304, "text/html", None, None, varies),
        (304, "image/png", None, None, unchanged),
    ] {
        let mut lines = vec![("content-type", kind)];
        lines.extend(more);
        let found = get.verdict(StatusCode::from_u16(status).unwrap(), &headers(&lines), len);
        assert_eq!(found, expected, "{status} {lines:?} {len:?}");
    }
}

#[test]
fn requests_whose_answers_stay_as_they_are_get_a_vary() {
    let text = headers(&[("content-type", "text/plain")]);
    for (method, version, lines, expected) in [
        ("GET", Version::HTTP_2, &[][..], Verdict::Compressed(Coding::Gzip)),
        ("POST", Version::HTTP_11, &[], Verdict::Compressed(Coding::Gzip)),
        ("HEAD", Version::HTTP_11, &[], Verdict::Varies),
        ("GET", Version::HTTP_10, &[], Verdict::Varies),
        ("GET", Version::HTTP_11, &[("range", "bytes=0-")], Verdict::Varies),
        ("GET", Version::HTTP_11, &[("cache-control", "no-transform")], Verdict::Varies),
    ] {
        let found = offer(method, version, lines).verdict(StatusCode::OK, &text, None);
        assert_eq!(found, expected, "{method} {version:?} {lines:?}");
    }
    let none = Offer { coding: None, ..offer("GET", Version::HTTP_11, &[]) };
    assert_eq!(none.verdict(StatusCode::OK, &text, None), Verdict::Varies);
}

fn answered(offer: &Offer, status: u16, lines: &[(&'static str, &str)], body: &'static [u8]) -> HeaderMap {
    let mut answer = Response::new(RouteBody::fixed(Bytes::from_static(body)));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    *answer.headers_mut() = headers(lines);
    offer.apply(answer).headers().clone()
}

#[test]
fn the_head_of_a_compressed_answer_says_so() {
    let get = offer("GET", Version::HTTP_11, &[]);
    let sent = [
        ("content-type", "text/plain"),
        ("content-length", "2000"),
        ("accept-ranges", "bytes"),
        ("etag", "\"v1\""),
        ("vary", "Origin"),
    ];
    let found = answered(&get, 200, &sent, &[b'a'; 2000]);
    let expected = [
        ("content-type", "text/plain"),
        ("content-encoding", "gzip"),
        ("etag", "W/\"v1\""),
        ("vary", "Origin"),
        ("vary", "accept-encoding"),
    ];
    assert_eq!(found, headers(&expected));
    for said in ["Accept-Encoding", "origin, ACCEPT-ENCODING", "*"] {
        let found = answered(&get, 200, &[("content-type", "text/plain"), ("vary", said)], &[b'a'; 2000]);
        assert_eq!(found.get_all(VARY).iter().collect::<Vec<_>>(), [said], "it is said once");
    }
    let weak = answered(&get, 200, &[("content-type", "text/plain"), ("etag", "W/\"v1\"")], &[b'a'; 2000]);
    assert_eq!(weak[ETAG], "W/\"v1\"");
}

#[test]
fn an_entity_tag_is_confirmed_in_the_form_in_which_the_client_has_it() {
    for (known, expected) in
        [("W/\"v1\"", "W/\"v1\""), ("\"x\", W/\"v1\"", "W/\"v1\""), ("\"v1\"", "\"v1\""), ("*", "\"v1\"")]
    {
        let get = offer("GET", Version::HTTP_11, &[("if-none-match", known)]);
        let found = answered(&get, 304, &[("etag", "\"v1\"")], b"");
        assert_eq!(
            (&found[ETAG], &found[VARY]),
            (&expected.parse().unwrap(), &"accept-encoding".parse().unwrap())
        );
    }
}

/// What a body does at one poll.
#[derive(Debug, Clone)]
enum Step {
    Data(Bytes),
    /// Nothing yet.
    Pends,
    Trailers,
    Breaks,
}

struct Steps(VecDeque<Step>);

impl Body for Steps {
    type Data = Bytes;
    type Error = RouteBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RouteBodyError>>> {
        match self.0.front().cloned() {
            None => Poll::Ready(None),
            // It pends until the test takes it away.
            Some(Step::Pends) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(step) => {
                self.0.pop_front();
                Poll::Ready(Some(match step {
                    Step::Data(bytes) => Ok(Frame::data(bytes)),
                    Step::Trailers => Ok(Frame::trailers(headers(&[("checksum", "1")]))),
                    Step::Pends | Step::Breaks => Err(RouteBodyError::TooLong(std::time::Duration::ZERO)),
                }))
            }
        }
    }
}

fn compressing(coding: Coding, steps: impl IntoIterator<Item = Step>) -> CompressedBody<Steps> {
    CompressedBody::new(Steps(steps.into_iter().collect()), Encoder::new(coding, None).unwrap())
}

/// Everything that can be decoded of a stream that may not have ended.
fn decoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut piece = [0; 1000];
    let mut decoder: Box<dyn Read> = match coding {
        Coding::Gzip => Box::new(MultiGzDecoder::new(bytes)),
        Coding::Zstd => Box::new(zstd::Decoder::new(bytes).unwrap()),
    };
    while let Ok(len @ 1..) = decoder.read(&mut piece) {
        decoded.extend_from_slice(&piece[..len]);
    }
    decoded
}

/// Reads frames until there is nothing for now. Returns the bytes, and whether the body has ended.
fn read(body: &mut CompressedBody<Steps>, into: &mut Vec<u8>) -> bool {
    let waker = noop_waker();
    let mut cx = Context::from_waker(&waker);
    let mut pends = 0;
    while pends < 2 {
        match Pin::new(&mut *body).poll_frame(&mut cx) {
            Poll::Ready(None) => return true,
            Poll::Ready(Some(frame)) => {
                pends = 0;
                let data = frame.unwrap().into_data().unwrap();
                assert!(!data.is_empty() && data.len() <= 8 * 1024, "{} bytes", data.len());
                into.extend_from_slice(&data);
            }
            Poll::Pending => pends += 1,
        }
    }
    false
}

#[test]
fn behaviour_6_all_that_came_can_be_decoded_whenever_the_body_pends() {
    for coding in Coding::ALL {
        let mut body = compressing(coding, [Step::Pends]);
        let mut sent = Vec::new();
        assert!(!read(&mut body, &mut sent));
        assert!(sent.is_empty(), "there is nothing to flush yet");
        let mut all = Vec::new();
        for piece in
            ["first\n".to_owned(), "x".repeat(100_000), "\n".to_owned(), String::new(), "last".to_owned()]
        {
            all.extend_from_slice(piece.as_bytes());
            body_of(&mut body).extend([Step::Data(piece.into()), Step::Pends]);
            body_of(&mut body).pop_front();
            assert!(!read(&mut body, &mut sent));
            assert_eq!(decoded(coding, &sent).len(), all.len(), "{coding:?}");
            let before = sent.len();
            assert!(!read(&mut body, &mut sent));
            assert_eq!(sent.len(), before, "nothing is flushed twice");
        }
        body_of(&mut body).clear();
        assert!(read(&mut body, &mut sent) && body.is_end_stream());
        assert_eq!(decoded(coding, &sent), all);
    }
}

fn body_of(body: &mut CompressedBody<Steps>) -> &mut VecDeque<Step> {
    &mut body.inner_mut().0
}

#[test]
fn a_long_body_that_never_pends_is_sent_in_frames_of_bounded_work() {
    let piece = Bytes::from(vec![0; 1 << 20]);
    for coding in Coding::ALL {
        let mut body = compressing(coding, std::iter::repeat_n(Step::Data(piece.clone()), 4));
        let waker = noop_waker();
        let mut frames = 0;
        while let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(&mut Context::from_waker(&waker))
        {
            assert!(frame.unwrap().into_data().unwrap().len() <= 8 * 1024);
            frames += 1;
        }
        assert!(frames >= 64, "at least one for each 64 KiB, though zeros fit into less: {frames}");
    }
}

#[tokio::test]
async fn trailers_follow_the_end_and_a_body_that_breaks_off_has_none() {
    for coding in Coding::ALL {
        let data = Step::Data(Bytes::from_static(b"some text"));
        let body = compressing(coding, [data.clone(), Step::Trailers]).collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["checksum"], "1");
        assert_eq!(decoded(coding, &body.to_bytes()), b"some text");
        let mut body = compressing(coding, [data, Step::Breaks]);
        assert!(body.frame().await.unwrap().is_err());
        assert!(body.frame().await.is_none() && body.is_end_stream());
        let empty = compressing(coding, []).collect().await.unwrap().to_bytes();
        assert!(!empty.is_empty() && decoded(coding, &empty).is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_the_pieces_are_the_body_is_the_same(
        pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..4000), 1_usize..40), 0..8),
        is_gzip in any::<bool>(),
        is_known in any::<bool>(),
    ) {
        let coding = if is_gzip { Coding::Gzip } else { Coding::Zstd };
        let pieces: Vec<Bytes> = pieces.iter().map(|(piece, times)| piece.repeat(*times).into()).collect();
        let all = pieces.concat();
        let len = is_known.then_some(all.len() as u64);
        let steps = Steps(pieces.into_iter().map(Step::Data).collect());
        let mut body = CompressedBody::new(steps, Encoder::new(coding, len).unwrap());
        let mut sent = Vec::new();
        prop_assert!(read(&mut body, &mut sent));
        prop_assert_eq!(decoded(coding, &sent), all);
    }
}
