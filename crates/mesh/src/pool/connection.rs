//! A connection while it carries a request.

use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::Either;
use http::header::UPGRADE;
use http::{Method, Request, Response, Version};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper::ext::Protocol;
use hyper::rt::Executor;
use hyper_util::rt::TokioExecutor;
use tokio::time::{Instant, timeout};

use super::connect::Open;
use super::idle::Idle;
use super::per_core::{PerCore, Rested};
use super::shared::Stream;
use super::unanswered::Unanswered;
use super::{ConnectError, reuse};
use crate::head::{own_values, websocket};
use crate::origin::Origin;
use crate::upload::AttemptBody;
use crate::upstream::Upstream;
use crate::wire::chain;

/// How long a connection may take to end an exchange whose answer has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A connection that carries one request. Dropped, its exchange did not end: the connection, or the stream of a shared one, is
/// closed.
#[derive(Debug)]
pub(crate) struct Leased {
    kind: Kind,
    origin: Arc<Origin>,
    pool: Arc<PerCore>,
    /// Whether it carried another request before.
    is_reused: bool,
    /// When the connection was opened.
    born: Instant,
    /// For what it was opened; a shared connection knows that itself.
    opener: Option<Arc<Upstream>>,
    /// Whether it may carry another request after this one.
    may_be_reused: bool,
    idle: Duration,
    /// Counts a connection that never carries another request.
    _alone: Option<Box<Open>>,
}

#[derive(Debug)]
pub(super) enum Kind {
    Http1(http1::SendRequest<AttemptBody>),
    Http2(Stream),
}

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// No connection could be opened.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server can't have seen any part of it, or declared that it did not process it.
    #[error(transparent)]
    NotSent(hyper::Error),
    /// It may have been acted on.
    #[error(transparent)]
    Sent(hyper::Error),
    /// The server speaks HTTP/2 without WebSockets. Nothing was sent.
    #[error("the server does not allow WebSockets over HTTP/2")]
    NoWebSockets,
}

impl Leased {
    pub(super) fn new(
        kind: Kind,
        origin: &Arc<Origin>,
        pool: &Arc<PerCore>,
        (is_reused, born, opener): (bool, Instant, Option<Arc<Upstream>>),
        idle: Duration,
    ) -> Self {
        let (origin, pool) = (Arc::clone(origin), Arc::clone(pool));
        Self { kind, origin, pool, is_reused, born, opener, may_be_reused: true, idle, _alone: None }
    }

    /// A connection that never carries another request.
    pub(super) fn alone(
        kind: Kind,
        origin: &Arc<Origin>,
        pool: &Arc<PerCore>,
        (opener, open): (Arc<Upstream>, Open),
    ) -> Self {
        let leased = Self::new(kind, origin, pool, (false, Instant::now(), Some(opener)), Duration::ZERO);
        Self { may_be_reused: false, _alone: Some(Box::new(open)), ..leased }
    }

    /// Whether it carried another request before.
    pub(crate) fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// The request that is about to be sent, if others share the connection.
    pub(crate) fn unanswered(&self) -> Option<Unanswered> {
        match &self.kind {
            Kind::Http1(_) => None,
            Kind::Http2(stream) => Some(Unanswered::new(&self.origin, &self.pool, stream.all())),
        }
    }

    /// Sends a request, whose URL is a path. `is_sent`: whether its body has been read to its end.
    // Not `async`: the future would have room for the request twice.
    pub(crate) fn send(
        &mut self,
        mut request: Request<AttemptBody>,
        is_sent: impl Fn() -> bool,
    ) -> impl Future<Output = Result<Response<Incoming>, SendError>> {
        self.may_be_reused &= !reuse::logs_in(request.headers());
        let sending = match &mut self.kind {
            Kind::Http1(sender) => Ok(Either::Left(sender.try_send_request(request))),
            Kind::Http2(stream) => of_http2(&mut request, &self.origin, stream.allows_websockets())
                .map(|()| Either::Right(stream.sender().try_send_request(request))),
        };
        async move {
            match sending?.await {
                Ok(answer) => {
                    self.may_be_reused &= is_sent() && !reuse::asks_to_log_in(answer.headers());
                    self.idle = reuse::idle_limit(answer.headers(), self.idle);
                    Ok(answer)
                }
                Err(error) => {
                    if let Kind::Http2(stream) = &self.kind
                        && !is_of_stream(error.error())
                    {
                        self.pool.forget(&self.origin, stream.all());
                    }
                    Err(SendError::of(error))
                }
            }
        }
    }

    /// Makes it available to other requests, now that its exchange has ended.
    pub(crate) fn put_back(self) {
        let Kind::Http1(sender) = &self.kind else { return };
        if !self.may_be_reused || sender.is_closed() {
            return;
        }
        if sender.is_ready() {
            self.put();
        } else if tokio::runtime::Handle::try_current().is_ok() {
            // The task of the connection has yet to note the end.
            TokioExecutor::new().execute(self.put_when_ready());
        }
    }

    async fn put_when_ready(mut self) {
        let Kind::Http1(sender) = &mut self.kind else { return };
        if let Ok(Ok(())) = timeout(LAST_WORDS, sender.ready()).await {
            self.put();
        }
    }

    fn put(self) {
        if let (Kind::Http1(sender), Some(opener)) = (self.kind, self.opener) {
            PerCore::put(&self.pool, &self.origin, Rested { sender, born: self.born, opener }, self.idle);
        }
    }
}

impl Idle for Rested {
    fn is_usable(&self) -> bool {
        self.sender.is_ready() && !self.sender.is_closed()
    }
}

impl SendError {
    fn of(mut error: TrySendError<Request<AttemptBody>>) -> Self {
        let is_unsent = error.take_message().is_some() || is_refused(error.error());
        let error = error.into_error();
        if is_unsent { Self::NotSent(error) } else { Self::Sent(error) }
    }

    /// Whether the connection ended without an answer, as one does that the server closed while it was idle.
    pub(crate) fn is_closed(&self) -> bool {
        let Self::Sent(error) = self else { return false };
        let is_end = |kind| {
            matches!(
                kind,
                io::ErrorKind::ConnectionReset
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::UnexpectedEof
            )
        };
        let mut causes = chain(error).filter_map(|error| error.downcast_ref::<io::Error>());
        error.is_incomplete_message() || causes.any(|cause| is_end(cause.kind()))
    }
}

/// Gives a request the form of HTTP/2, whose URL names the host.
fn of_http2(
    request: &mut Request<AttemptBody>,
    origin: &Origin,
    allows_websockets: bool,
) -> Result<(), SendError> {
    if request.headers().contains_key(UPGRADE) {
        if !allows_websockets {
            return Err(SendError::NoWebSockets);
        }
        websocket::without_connection(request.headers_mut());
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(Protocol::from_static("websocket"));
    }
    let host = request.headers_mut().remove(http::header::HOST);
    let path = std::mem::take(request.uri_mut());
    // hyper refuses a path alone, as it would refuse this host.
    *request.uri_mut() = match origin.absolute(host.as_ref(), path.clone()) {
        Ok(absolute) => absolute,
        Err(_) => path,
    };
    own_values(request.headers_mut());
    *request.version_mut() = Version::HTTP_2;
    Ok(())
}

/// Whether only one stream of a shared connection has failed, for instance because its body broke off.
fn is_of_stream(error: &hyper::Error) -> bool {
    h2_cause(error).is_some_and(h2::Error::is_reset)
}

/// Whether a server has declared over HTTP/2 that it did not process the request (RFC 9113, section 8.7). h2 reports a GOAWAY of
/// the server only for streams above the last one that the server names.
fn is_refused(error: &hyper::Error) -> bool {
    h2_cause(error).is_some_and(|cause| {
        cause.is_remote() && (cause.is_go_away() || cause.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}

fn h2_cause(error: &hyper::Error) -> Option<&h2::Error> {
    error.source()?.downcast_ref()
}
