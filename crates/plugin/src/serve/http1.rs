//! Serves HTTP/1.1 on one connection.

use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use futures_util::TryFutureExt;
use futures_util::future::Either;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use mesh::head::{HeadError, is_about_all, refuse, websocket};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tower::{Service, ServiceExt};
use tracing::debug;

use super::answer::{raw_problem, write_refusal};
use super::connection::{Client, limited};
use super::hangup::Hangup;
use super::link::Link;
use super::meters::Spoken;
use super::progress::{Began, Phase, Progress};
use super::refusal::RefusedHead;
use super::slots::{Activity, Order};
use super::waiting::Waiting;
use super::{DEFAULT_FIELDS, ServeLimits, Shared, answer, body, refused, switch};

/// How a connection with HTTP/1.1 ended.
enum Ended {
    /// The client left before it was answered.
    Left,
    /// No request arrived in time.
    NoHead,
    Served(hyper::Result<()>),
}

/// Serves HTTP/1.1 on a connection. `hangup` tells whether the client has gone away; without it, a client that closes its
/// side is taken to be gone, which is what closing means in TLS. The first head must arrive before `due`.
pub(super) async fn http1<T, S>(
    transport: T,
    hangup: Option<Arc<TcpStream>>,
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
    let open = shared.protocols.meters.opened(Spoken::Http1);
    let (limits, peer) = (&shared.limits, client.peer);
    let progress = Progress::new(activity.clone());
    let of = (client.clone(), Arc::clone(&shared));
    let link = Link::new(limited(transport, limits), progress.clone(), of);
    let answering = with_refusals(service, client.clone(), progress.clone(), Arc::clone(&shared));
    // Not kept in a variable, for which the future would have room.
    let mut connection = http1_builder(limits, activity.has(Order::Last), hangup.is_some())
        .serve_connection(TokioIo::new(link), answering)
        .with_upgrades();
    let mut hangup = hangup.map(|stream| Hangup::new(stream, progress.clone()));
    let mut waiting = Waiting::new(due, limits);
    let mut is_closing = false;
    let ended = poll_fn(|cx| {
        activity.watch(cx);
        let mut connection = Pin::new(&mut connection);
        if !is_closing && activity.has(Order::Stop) {
            is_closing = true;
            connection.as_mut().graceful_shutdown();
        }
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(Ended::Served(ended));
        }
        // Only now: a request may have arrived since the connection was chosen to make room.
        if !is_closing && activity.makes_room() {
            is_closing = true;
            connection.as_mut().graceful_shutdown();
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(Ended::Served(ended));
            }
        }
        if waiting.poll(cx, &progress, limits).is_ready() {
            return Poll::Ready(Ended::NoHead);
        }
        match &mut hangup {
            Some(hangup) => hangup.poll(cx).map(|()| Ended::Left),
            None => Poll::Pending,
        }
    })
    .await;
    // The parser answers nothing in these cases. In a block, because the future would have room for the problem.
    let refusal = {
        let problem = match ended {
            Ended::Left => {
                debug!(%peer, status = 499, "the client left before it was answered");
                return;
            }
            Ended::Served(Ok(())) => {
                drop((connection, open));
                let stream = hangup.map(Hangup::into_stream);
                // Boxed: few connections switch, and the others need no room for it.
                Box::pin(switched(progress, shared, activity, stream)).await;
                return;
            }
            Ended::Served(Err(error)) if error.is_parse_version_h2() => refused::http_2(),
            Ended::Served(Err(error)) => {
                debug!(%peer, %error, "a connection ended early");
                return;
            }
            Ended::NoHead if progress.phase() == Phase::Head => refused::slow_head(limits),
            Ended::NoHead => return,
        };
        let (problem, head) = (answer::named(&problem, limits), progress.head());
        client.refused(RefusedHead::raw(&head, peer, &problem, progress.head_since()), &shared);
        raw_problem(&problem, head.starts_with(b"HEAD "))
    };
    let Some(parts) = connection.into_parts() else { return };
    write_refusal(parts.io.into_inner().into_inner(), refusal).await;
}

/// Sees to a connection with which HTTP is done: it is closed, or has switched to another protocol. `stream` is there unless it
/// is encrypted.
async fn switched(
    progress: Progress,
    shared: Arc<Shared>,
    activity: Activity,
    stream: Option<Arc<TcpStream>>,
) {
    if let Some(switch) = progress.switch() {
        let _open = shared.protocols.meters.opened(Spoken::WebSocket);
        let is_cut_short = switch::hold_open(Arc::clone(switch), &activity).await;
        // An encrypted one ends without `close_notify`, which its client can tell as well.
        if let Some(stream) = stream.filter(|_| is_cut_short) {
            // If it fails, the connection is closed in order.
            let _ = stream.set_zero_linger();
        }
    } else if let Some(offered) = progress.take_offered() {
        // hyper hands the connection over even if the offer was not accepted, and does not close it in order.
        if let Ok(transport) = offered.await {
            let _ = TokioIo::new(transport).shutdown().await;
        }
    }
}

/// How many unread bytes a connection holds in each direction: of a body that the service does not read, and of an answer that the
/// client does not.
const MAX_BUFFER: usize = 64 * 1024;

fn http1_builder(
    limits: &ServeLimits,
    is_last: bool,
    may_be_half_closed: bool,
) -> hyper::server::conn::http1::Builder {
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .keep_alive(!is_last)
        .half_close(may_be_half_closed)
        .max_header_size(limits.head_size)
        .max_buf_size(MAX_BUFFER)
        // `Waiting` sees to that, with one timer for all requests of a connection.
        .header_read_timeout(None);
    if limits.fields != DEFAULT_FIELDS {
        builder.max_headers(limits.fields);
    }
    builder
}

/// The service as a connection with HTTP/1.1 calls it: requests with a refused head do not reach it.
pub(super) fn with_refusals<S>(
    service: S,
    client: Client,
    progress: Progress,
    shared: Arc<Shared>,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Response<impl HttpBody<Data = Bytes, Error = axum::Error> + Send + Unpin + 'static>,
    Error = Infallible,
    Future: Send,
>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    hyper::service::service_fn(move |request: Request<Incoming>| {
        let (mut head, body) = request.into_parts();
        let Began { fragment, since } = progress.began(&head, !body.is_end_stream());
        let own = match (fragment.map(HeadError::Fragment), refuse(&head)) {
            (Some(error), _) | (None, Err(error)) => {
                let problem = answer::named(&error.to_problem(), &shared.limits);
                client.refused(RefusedHead::parsed(&head, client.peer, &problem, since), &shared);
                Some(answer::refuse(&error, &problem))
            }
            (None, Ok(())) => is_about_all(&head).then(answer::options),
        };
        client.sign(&mut head);
        // Bytes behind the handshake are not HTTP, so they must never be parsed as a request.
        let is_last = head.headers.contains_key(UPGRADE) && !matches!(websocket::handshake(&head), Ok(false));
        let body = body::request(body, progress.clone());
        let answering = match own {
            Some(own) => Either::Left(ready(Ok(own))),
            None => Either::Right(service.clone().oneshot(Request::from_parts(head, body))),
        };
        let progress = progress.clone();
        // Not an `async` block: it would have room for all of these twice, and an idle connection keeps that.
        answering.map_ok(move |mut answer: Response<Body>| {
            progress.answered();
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                progress.switched(std::mem::take(answer.body_mut()));
                return answer.map(|body| body::answer(body, None));
            }
            if is_last || progress.is_broken() {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            answer.map(|body| body::answer(body, Some(progress)))
        })
    })
}
