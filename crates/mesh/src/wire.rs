//! Sends one request to one address once, over pooled connections, and classifies failures.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::OptionFuture;
use http::header::SEC_WEBSOCKET_ACCEPT;
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use tokio::time::{Instant, sleep_until};

use crate::address::Unreachable;
use crate::base_url::BaseUrl;
use crate::counts::{ConnectResult, Counts, RetryReason};
use crate::error::MeshError;
use crate::head::websocket;
use crate::limits::Limits;
use crate::min_rate::TooSlow;
use crate::pool::{Asked, Pools, Received, SendError, Which};
use crate::retry::Failure;
use crate::trail;
use crate::upload::{AttemptBody, Upload};

/// The largest number of header fields in an answer: hyper's limit.
pub(crate) const MAX_FIELDS: usize = 100;
/// How many unread bytes a connection with HTTP/1.1 holds in each direction, and so the largest head of an answer. With less, long
/// answers cost noticeably more CPU time; hyper's own 417 KB would let clients that read nothing hold six times as much.
pub(crate) const MAX_BUFFER: usize = 64 * 1024;

/// How long a body is held back for a server that does not request it (RFC 9110, section 10.1.1).
const CONTINUE_LIMIT: Duration = Duration::from_secs(1);

/// Sends requests over pooled connections.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    pools: Arc<Pools>,
    counts: Arc<Counts>,
}

/// The head of a request, which may be sent several times.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) method: Method,
    pub(crate) path: PathAndQuery,
    pub(crate) headers: HeaderMap,
    /// The value of the `Host` header, if it is not the address's host and port.
    pub(crate) host: Option<HeaderValue>,
    /// Whether it is to become a WebSocket handshake.
    pub(crate) is_handshake: bool,
    /// The key of a handshake that is being sent.
    pub(crate) key: Option<HeaderValue>,
}

/// A failed attempt: the failure decides about a retry, the error is reported if there is none.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) failure: Failure,
    pub(crate) error: MeshError,
}

impl Wire {
    pub(crate) fn new(limits: &Limits, counts: &Arc<Counts>) -> Self {
        Self { pools: Pools::new(limits, counts), counts: Arc::clone(counts) }
    }

    pub(crate) fn pools(&self) -> &Arc<Pools> {
        &self.pools
    }

    /// Sends a request without waiting for a limit.
    pub(crate) async fn request(
        &self,
        head: &Head,
        upload: &Upload,
        url: &BaseUrl,
    ) -> Result<Response<Received>, SendError> {
        let path = url.below(&head.path).unwrap_or_else(|_| head.path.clone());
        let request = || head.request(upload, url, path.clone());
        self.exchange(request, upload, url, false, &Asked::by(None, Instant::now())).await
    }

    /// Sends a request to an address and waits for the head of the answer. `may_repeat`: it may be acted on twice. `asked`
    /// notes it while it waits.
    pub(crate) async fn send(
        &self,
        head: &Head,
        upload: &Upload,
        url: &BaseUrl,
        limits: &Limits,
        may_repeat: bool,
        asked: &Asked<'_>,
    ) -> Result<Response<Received>, Failed> {
        let path = url.below(&head.path).map_err(|error| Failed {
            failure: Failure::Aborted,
            error: MeshError::Malformed { why: error.to_string() },
        })?;
        let sending = async {
            let request = || head.request(upload, url, path.clone());
            match &head.key {
                None => self.exchange(request, upload, url, may_repeat, asked).await,
                // Boxed: most requests are no handshakes, and need no room for this.
                Some(_) => Box::pin(self.shake_hands(request(), url, asked)).await,
            }
        };
        let began = asked.since;
        let first_look = upload.pace(began).map_err(|slow| too_slow(slow, limits))?;
        let first = began + limits.head.min(limits.idle);
        let timer = sleep_until(first_look.map_or(first, |look| look.min(first)));
        // Boxed: few bodies are held back, and the other requests need no room for this.
        let mut asked_for = upload.may_be_held().then(|| Box::pin(sleep_until(began + CONTINUE_LIMIT)));
        tokio::pin!(sending, timer);
        loop {
            tokio::select! {
                biased;
                answer = &mut sending => {
                    let answer = answer.map_err(|error| classify(&error, url, upload))?;
                    return match &head.key {
                        None => unless_switched(answer, url),
                        Some(key) => if_accepted(answer, key, url),
                    };
                }
                Some(()) = OptionFuture::from(asked_for.as_mut()) => {
                    upload.proceed();
                    // Another connection may hold it back again.
                    asked_for = Some(Box::pin(sleep_until(Instant::now() + CONTINUE_LIMIT)));
                    continue;
                }
                () = &mut timer => {}
            }
            // A large body may take longer than the limit while it makes progress.
            let progress = upload.progress();
            let is_stalled = progress.is_some_and(|progress| progress.awaits_client);
            let limit = if is_stalled { limits.idle } else { limits.head };
            let deadline = progress.map_or(began, |progress| progress.at.max(began)) + limit;
            let now = Instant::now();
            if deadline <= now {
                return Err(late(is_stalled, url, limits));
            }
            let look = upload.pace(now).map_err(|slow| too_slow(slow, limits))?;
            // From now on it may be the client's turn.
            let next = deadline.min(now + limits.idle);
            timer.as_mut().reset(look.map_or(next, |look| look.min(next)));
        }
    }

    /// Sends a WebSocket handshake over a new connection, which is never used for anything else.
    async fn shake_hands(
        &self,
        request: Request<AttemptBody>,
        url: &BaseUrl,
        asked: &Asked<'_>,
    ) -> Result<Response<Received>, SendError> {
        let mut connection = self.pools.lease_alone(url.origin(), asked.upstream).await?;
        asked.connected(true);
        let answer = connection.send(request, || true).await?;
        Ok(answer.map(|incoming| Received::alone(incoming, connection)))
    }

    /// Sends a request over an open connection if there is one. If the server closed that in the meantime, the request is
    /// sent over a new one, unless it may have been acted on and may not be repeated.
    async fn exchange(
        &self,
        request: impl Fn() -> Request<AttemptBody>,
        upload: &Upload,
        url: &BaseUrl,
        may_repeat: bool,
        asked: &Asked<'_>,
    ) -> Result<Response<Received>, SendError> {
        let mut connection = self.pools.lease(url.origin(), Which::Any, asked.upstream).await?;
        asked.sends(connection.unanswered());
        let mut sent = connection.send(request(), || upload.is_sent()).await;
        if let Err(error) = &sent
            && connection.is_reused()
            && let Some(reason) = sends_again(error, may_repeat)
            && upload.can_replay()
        {
            self.counts.retried(reason, asked.upstream);
            trail::resent(reason);
            // The new one may never be opened.
            asked.connected(false);
            (connection, sent) = Box::pin(async {
                let mut connection = self.pools.lease(url.origin(), Which::New, asked.upstream).await?;
                asked.sends(connection.unanswered());
                let sent = connection.send(request(), || upload.is_sent()).await;
                Ok::<_, SendError>((connection, sent))
            })
            .await?;
        }
        Ok(sent?.map(|incoming| Received::new(incoming, connection)))
    }
}

/// Why a request that failed on a connection that carried others before is sent again; `None` if it is not.
fn sends_again(error: &SendError, may_repeat: bool) -> Option<RetryReason> {
    match error {
        SendError::NotSent(_) => Some(RetryReason::Closed),
        SendError::Sent(_) if may_repeat && error.is_closed() => Some(RetryReason::Reset),
        SendError::Sent(_) | SendError::Connect(_) | SendError::NoWebSockets => None,
    }
}

impl Head {
    /// The request to an address. Extensions that the client attached are not forwarded.
    fn request(&self, upload: &Upload, url: &BaseUrl, path: PathAndQuery) -> Request<AttemptBody> {
        let mut request = Request::new(upload.attempt());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from(path);
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = self.headers.clone();
        let host = self.host.as_ref().unwrap_or_else(|| url.host());
        request.headers_mut().insert(http::header::HOST, host.clone());
        if upload.is_held() {
            let upload = upload.clone();
            hyper::ext::on_informational(&mut request, move |answer| {
                if answer.status() == StatusCode::CONTINUE {
                    upload.proceed();
                }
            });
        }
        request
    }

    /// The parts of a request's head that are forwarded.
    pub(crate) fn new(parts: Parts) -> Result<Self, MeshError> {
        let malformed = |why: &str| MeshError::Malformed { why: why.to_owned() };
        if parts.method == Method::CONNECT {
            return Err(malformed("tunnels are not supported"));
        }
        let path = match parts.uri.into_parts().path_and_query {
            Some(path) => path,
            None => PathAndQuery::from_static("/"),
        };
        if !path.as_str().starts_with(['/', '?']) {
            return Err(malformed("its target is not a path"));
        }
        Ok(Self {
            method: parts.method,
            path,
            headers: parts.headers,
            host: None,
            is_handshake: false,
            key: None,
        })
    }
}

fn late(is_stalled: bool, url: &BaseUrl, limits: &Limits) -> Failed {
    if is_stalled {
        Failed { failure: Failure::Aborted, error: MeshError::BodyStalled { limit: limits.idle } }
    } else {
        Failed {
            failure: Failure::TimedOut,
            error: MeshError::TimedOut { address: url.authority().to_owned(), limit: limits.head },
        }
    }
}

/// The client sends the body too slowly.
fn too_slow(TooSlow { arrived }: TooSlow, limits: &Limits) -> Failed {
    Failed { failure: Failure::Aborted, error: MeshError::BodyTooSlow { arrived, min: limits.min_rate } }
}

/// Refuses a protocol switch: the request did not ask for one, so the data that follows has no meaning.
fn unless_switched(answer: Response<Received>, url: &BaseUrl) -> Result<Response<Received>, Failed> {
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(answer);
    }
    Err(Failed {
        failure: Failure::Garbage,
        error: MeshError::Garbage {
            address: url.authority().to_owned(),
            why: "it switched to another protocol unasked".to_owned(),
        },
    })
}

/// Refuses an answer that switches to WebSockets without a proof that the server read the handshake.
fn if_accepted(
    mut answer: Response<Received>,
    key: &HeaderValue,
    url: &BaseUrl,
) -> Result<Response<Received>, Failed> {
    if answer.version() == Version::HTTP_2 {
        // There, the server accepts by a success (RFC 8441, section 5), and hyper returns the stream of 200 alone.
        if answer.status() == StatusCode::OK {
            *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            // A client with HTTP/1.1 wants the proof that HTTP/2 does not have.
            let proof = websocket::accepts(key.to_str().unwrap_or_default());
            let proof = HeaderValue::try_from(proof).expect("Base64 fits into a header");
            answer.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, proof);
        } else if answer.status().is_success() {
            let why = format!("over HTTP/2 it answered {} instead of 200", answer.status().as_u16());
            let error = MeshError::BadHandshake { address: url.authority().to_owned(), why };
            return Err(Failed { failure: Failure::Garbage, error });
        }
        return Ok(answer);
    }
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(answer);
    }
    match websocket::is_accepted(answer.headers(), key) {
        Ok(()) => Ok(answer),
        Err(why) => {
            let error = MeshError::BadHandshake { address: url.authority().to_owned(), why };
            Err(Failed { failure: Failure::Garbage, error })
        }
    }
}

fn classify(error: &SendError, url: &BaseUrl, upload: &Upload) -> Failed {
    let address = url.authority().to_owned();
    let why = match error {
        SendError::Connect(error) => error.to_string(),
        SendError::NoWebSockets => error.to_string(),
        SendError::NotSent(error) | SendError::Sent(error) => root_cause(error),
    };
    if upload.is_malformed() {
        return Failed { failure: Failure::Aborted, error: MeshError::BodyMalformed { why } };
    }
    if upload.is_failed() {
        return Failed { failure: Failure::Aborted, error: MeshError::BodyAborted { why } };
    }
    let (failure, error) = match error {
        SendError::Connect(error) => {
            let is_tls = error.result == ConnectResult::Tls;
            let unreachable = Unreachable { why: format!("no connection could be opened: {why}"), is_tls };
            url.state().mark_unreachable(unreachable, Instant::now());
            let error = if is_tls {
                MeshError::NoTlsSession { address, why }
            } else {
                MeshError::Unreachable { address, why }
            };
            (Failure::NotConnected, error)
        }
        // It is not the fault of the address, and another one of the same kind would not do either.
        SendError::NoWebSockets => (Failure::Aborted, MeshError::NoWebSockets { address }),
        SendError::NotSent(error) if is_unasked(error) => {
            (Failure::NotSent, MeshError::Garbage { address, why })
        }
        SendError::NotSent(_) => (Failure::NotSent, MeshError::Broken { address, why }),
        SendError::Sent(error) if error.is_parse_too_large() => {
            (Failure::Garbage, MeshError::HeadTooLarge { address })
        }
        SendError::Sent(error) if error.is_parse() => (Failure::Garbage, MeshError::Garbage { address, why }),
        SendError::Sent(_) => (Failure::Broken, MeshError::Broken { address, why }),
    };
    Failed { failure, error }
}

/// Whether the server spoke before it was asked. hyper has a kind for that, and no name: it is what is left when the innermost
/// error is of no other kind.
fn is_unasked(error: &hyper::Error) -> bool {
    let innermost = chain(error).last().and_then(|error| error.downcast_ref::<hyper::Error>());
    innermost
        .is_some_and(|error| !error.is_canceled() && !error.is_closed() && !error.is_incomplete_message())
}

/// The innermost error, as text.
pub(crate) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    chain(error).last().map_or_else(String::new, ToString::to_string)
}

/// The error and its causes.
pub(crate) fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}
