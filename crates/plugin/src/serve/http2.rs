//! HTTP/2 on a connection (RFC 9113): its limits, the checks of its heads, and its end.

use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use futures_util::future::Either;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, TryFutureExt};
use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh::head::{is_about_all, own_values, refuse, websocket};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};
use tower::{Service, ServiceExt};
use tracing::debug;

use super::connection::{Client, limited};
use super::malformed::{self, Trailers};
use super::meters::{ListenerMeters, Spoken};
use super::refusal::{RefusalReason, RefusedHead};
use super::slots::{Activity, Order};
use super::standstill::{Streams, poll_all, reset_on_drop, watched};
use super::switch::poll_body;
use super::{ServeLimits, Shared, answer, refused};
use crate::tunnel::no_websocket;

/// How many requests of one connection may be open at once.
const STREAMS: u32 = 100;
/// How many bytes the fields of a head may have, decompressed.
const HEADER_LIST: u32 = 16 * 1024;
/// How many streams may be reset before they were served.
const PENDING_RESETS: usize = 20;
/// How many streams may be reset for errors of the client.
const LOCAL_RESETS: usize = 1024;
/// How many bytes of a request's body a client may send ahead.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for all bodies of a connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// How many bytes of an answer are buffered.
const SEND_BUFFER: usize = 64 * 1024;
/// How often the other end is checked, and how long it may take to answer.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// How long a client may take to close a connection that is not used any more.
const CLOSING: Duration = Duration::from_secs(5);
/// The same if another client waits for its place.
const MAKING_ROOM: Duration = Duration::from_secs(1);
/// What ends a connection after its requests.
const ENDING: [Order; 3] = [Order::Drain, Order::Stop, Order::Last];

/// Serves HTTP/2 on a connection until it ends. The first head must arrive before `due`. A drain or a stop sends GOAWAY:
/// requests that are open, or on their way, are still answered.
pub(super) async fn serve<T, S>(
    transport: T,
    due: Instant,
    client: Client,
    service: S,
    shared: Arc<Shared>,
    activity: Activity,
) where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let _open = shared.protocols.meters.opened(Spoken::Http2);
    let streams = Streams::new(shared.limits.send_timeout);
    let peer = client.peer;
    let ServeLimits { keep_alive, send_timeout, .. } = shared.limits;
    let meters = shared.protocols.meters.clone();
    let io = TokioIo::new(limited(transport, &shared.limits));
    // Not kept in a variable, for which the future would have room.
    let mut connection = http2_builder(streams.clone())
        .serve_connection(io, with_refusals(service, client, streams.clone(), shared));
    let mut running = FuturesUnordered::new();
    let mut idle = Box::pin(sleep_until(due));
    let (mut is_idle, mut is_closing, mut is_ending) = (true, false, false);
    let mut has_served = false;
    let ended = poll_fn(|cx| {
        activity.watch(cx);
        let mut connection = Pin::new(&mut connection);
        if !is_ending && ENDING.iter().any(|order| activity.has(*order)) {
            (is_ending, is_closing) = (true, true);
            connection.as_mut().graceful_shutdown();
        }
        if activity.has(Order::Stop) {
            streams.stop();
        }
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(Some(ended));
        }
        let mut new = streams.take();
        let has_begun = !new.is_empty();
        let has_none = loop {
            running.extend(new);
            let has_none = poll_all(&mut running, cx).is_ready();
            // A stream that becomes a WebSocket begins others.
            new = streams.take();
            if new.is_empty() {
                break has_none;
            }
        };
        has_served |= has_begun;
        // A request may have begun and ended since the last look.
        if has_begun || has_none != is_idle {
            is_idle = has_none;
            if is_idle {
                // What is left of an answer may still be on its way when the connection is closing.
                idle.as_mut()
                    .reset(Instant::now() + if is_closing { keep_alive.max(CLOSING) } else { keep_alive });
                activity.idle();
            } else {
                activity.busy();
            }
        }
        if !is_closing && activity.makes_room() {
            is_closing = true;
            connection.as_mut().graceful_shutdown();
            idle.as_mut().reset(Instant::now() + MAKING_ROOM);
            cx.waker().wake_by_ref();
        }
        while is_idle && idle.as_mut().poll(cx).is_ready() {
            if is_closing {
                return Poll::Ready(None);
            }
            is_closing = true;
            connection.as_mut().graceful_shutdown();
            // The last piece of an answer may still wait for its client, which has this long to take it.
            let closing = if has_served { CLOSING.max(send_timeout) } else { CLOSING };
            idle.as_mut().reset(Instant::now() + closing);
            // It has something to send.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await;
    if let Some(Err(error)) = ended {
        if is_flood(&error) {
            meters.refused(RefusalReason::Flood);
        }
        debug!(%peer, %error, "a connection ended early");
    }
}

fn http2_builder(streams: Streams) -> hyper::server::conn::http2::Builder<Streams> {
    let mut builder = hyper::server::conn::http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADER_LIST)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(LOCAL_RESETS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1);
    builder
}

/// Whether we ended the connection because its client only made work (RFC 9113, section 10.5).
fn is_flood(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| !cause.is_remote() && cause.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM))
}

/// The service as a connection with HTTP/2 calls it: requests with a refused head do not reach it, and the others look like
/// those of HTTP/1.1. Malformed ones are reset.
fn with_refusals<S>(
    service: S,
    client: Client,
    streams: Streams,
    shared: Arc<Shared>,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Response<Body>,
    Error = h2::Error,
    Future: Future<Output = Result<Response<Body>, h2::Error>> + Send,
>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    hyper::service::service_fn(move |request: Request<Incoming>| {
        let (mut head, body) = request.into_parts();
        // When the head began to arrive is not known.
        let (limits, began) = (&shared.limits, Some(Instant::now()));
        let malformed = malformed::of_head(&head);
        merge_cookies(&mut head);
        name_host(&mut head);
        let is_websocket = is_websocket(&head);
        if is_websocket {
            websocket::of_extended_connect(&mut head);
        }
        let own = if let Some(problem) = &malformed {
            client.refused(RefusedHead::parsed(&head, client.peer, problem, began).reset(), &shared);
            Some(Err(malformed::reset()))
        } else if head.headers.len() > limits.fields {
            let problem = answer::named(&refused::too_large(limits), limits);
            client.refused(RefusedHead::parsed(&head, client.peer, &problem, began), &shared);
            Some(Ok(answer::signed(&problem)))
        } else if let Err(error) = refuse(&head) {
            let problem = answer::named(&error.to_problem(), limits);
            client.refused(RefusedHead::parsed(&head, client.peer, &problem, began), &shared);
            Some(Ok(answer::refuse(&error, &problem)))
        } else {
            is_about_all(&head).then(|| Ok(answer::options()))
        };
        keep_path(&mut head.uri);
        client.sign(&mut head);
        let is_head = head.method == Method::HEAD;
        let (body, trailers) = malformed::checked(body);
        let answering = match own {
            Some(own) => Either::Left(ready(own)),
            None => {
                let answering = service.clone().oneshot(Request::from_parts(head, body));
                Either::Right(answering.map_err(|never| match never {}))
            }
        };
        let switching = is_websocket.then(|| (streams.clone(), shared.protocols.meters.clone()));
        answering.map(move |answer| {
            let mut answer = answer?;
            if trailers.as_ref().is_some_and(Trailers::are_malformed) {
                return Err(malformed::reset());
            }
            if let Some((streams, meters)) = switching {
                answer = switched(answer, &streams, &meters);
            }
            if is_head {
                without_body(&mut answer);
            }
            let mut answer = answer.map(|body| watched(body, trailers));
            // It speaks of the connection, which is not how HTTP/2 closes one.
            answer.headers_mut().remove(CONNECTION);
            // Each is a part of the buffer in which a forwarded answer was received, which HPACK would keep.
            own_values(answer.headers_mut());
            Ok(answer)
        })
    })
}

/// Whether a request is an extended CONNECT for a WebSocket (RFC 8441, section 4).
fn is_websocket(head: &Parts) -> bool {
    head.method == Method::CONNECT
        && head.extensions.get::<Protocol>().is_some_and(|protocol| protocol.as_str() == "websocket")
}

/// The answer to a WebSocket handshake as HTTP/2 has it. The body of an answer 101, in which a proxy moves the bytes of both
/// connections, runs beside the streams of the connection, and ends with it. If it ends with an error, the stream is reset.
fn switched(answer: Response<Body>, streams: &Streams, meters: &ListenerMeters) -> Response<Body> {
    let status = answer.status();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        let (mut head, mut body) = answer.into_parts();
        websocket::to_extended_connect(&mut head);
        let (open, reset) = (meters.opened(Spoken::WebSocket), reset_on_drop());
        streams.run(async move {
            let _open = open;
            if poll_fn(|cx| poll_body(&mut body, cx)).await.is_ok()
                && let Some(reset) = reset
            {
                reset.disarm();
            }
        });
        return Response::from_parts(head, Body::empty());
    }
    // Any success would mean that the handshake was accepted.
    if status.is_success() { crate::http::problem(&no_websocket(status)) } else { answer }
}

/// Leaves only the head of an answer to HEAD. hyper does that for HTTP/1.1 alone.
fn without_body(answer: &mut Response<Body>) {
    if answer.body().is_end_stream() {
        return;
    }
    if let Some(len) = answer.body().size_hint().exact() {
        answer.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| len.into());
    }
    *answer.body_mut() = Body::empty();
}

/// Joins the pieces into which HTTP/2 may cut cookies (RFC 9113, section 8.2.3).
fn merge_cookies(head: &mut Parts) {
    let mut pieces = head.headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (pieces.next(), pieces.next()) else { return };
    let mut whole = first.as_bytes().to_vec();
    for piece in std::iter::once(second).chain(pieces) {
        whole.extend_from_slice(b"; ");
        whole.extend_from_slice(piece.as_bytes());
    }
    if let Ok(whole) = HeaderValue::from_bytes(&whole) {
        head.headers.insert(COOKIE, whole);
    }
}

/// Names the host in `Host`, as HTTP/1.1 does.
fn name_host(head: &mut Parts) {
    if let Some(authority) = head.uri.authority()
        && !head.headers.contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        head.headers.insert(HOST, host);
    }
}

/// Leaves only path and query of a target.
fn keep_path(uri: &mut Uri) {
    let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    *uri = Uri::from(path);
}

#[cfg(test)]
mod tests;
