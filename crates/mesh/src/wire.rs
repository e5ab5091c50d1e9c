//! Sends one request to one address once, over pooled connections, and classifies failures.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, sleep_until};

use crate::base_url::BaseUrl;
use crate::error::MeshError;
use crate::limits::Limits;
use crate::retry::Failure;
use crate::tolerant::TolerantConnector;
use crate::upload::{AttemptBody, Upload};

/// The largest number of header fields in an answer: hyper's limit.
pub(crate) const MAX_FIELDS: usize = 100;

/// How long a body is held back for a server that does not request it (RFC 9110, section 10.1.1).
const CONTINUE_LIMIT: Duration = Duration::from_secs(1);

/// Pooled connections.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    client: Client<TolerantConnector, AttemptBody>,
}

/// The head of a request, which may be sent several times.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) method: Method,
    pub(crate) path: PathAndQuery,
    pub(crate) headers: HeaderMap,
    /// The value of the `Host` header, if it is not the address's host and port.
    pub(crate) host: Option<HeaderValue>,
}

/// A failed attempt: the failure decides about a retry, the error is reported if there is none.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) failure: Failure,
    pub(crate) error: MeshError,
}

impl Wire {
    pub(crate) fn new(limits: &Limits) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(limits.connect));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(limits.keep_alive)
            .pool_max_idle_per_host(limits.keep_alive_connections)
            .set_host(false)
            .build(TolerantConnector::new(connector));
        Self { client }
    }

    /// Sends a request whose URL is absolute.
    pub(crate) async fn request(
        &self,
        request: Request<AttemptBody>,
    ) -> Result<Response<Incoming>, ClientError> {
        self.client.request(request).await
    }

    /// Sends a request to an address and waits for the head of the answer.
    pub(crate) async fn send(
        &self,
        head: &Head,
        upload: &Upload,
        url: &BaseUrl,
        limits: &Limits,
    ) -> Result<Response<Incoming>, Failed> {
        let mut request = head.request(upload.attempt(), url)?;
        if upload.is_held() {
            let upload = upload.clone();
            hyper::ext::on_informational(&mut request, move |answer| {
                if answer.status() == StatusCode::CONTINUE {
                    upload.proceed();
                }
            });
        }
        let sending = self.client.request(request);
        let timer = sleep_until(Instant::now() + limits.head);
        let asked_for = sleep_until(Instant::now() + CONTINUE_LIMIT);
        tokio::pin!(sending, timer, asked_for);
        loop {
            tokio::select! {
                biased;
                answer = &mut sending => {
                    let answer = answer.map_err(|error| classify(&error, url, upload))?;
                    return unless_switched(answer, url);
                }
                () = &mut asked_for, if upload.is_held() => {
                    upload.proceed();
                    continue;
                }
                () = &mut timer => {}
            }
            // A large body may take longer than the limit while it makes progress.
            let progress = upload.progress();
            match progress.map(|progress| progress.at + limits.head) {
                Some(deadline) if deadline > Instant::now() => timer.as_mut().reset(deadline),
                _ => {
                    let is_stalled = progress.is_some_and(|progress| progress.awaits_client);
                    return Err(late(is_stalled, url, limits));
                }
            }
        }
    }
}

impl Head {
    /// The request to an address. Extensions that the client attached are not forwarded.
    fn request(&self, body: AttemptBody, url: &BaseUrl) -> Result<Request<AttemptBody>, Failed> {
        let uri = url.below(&self.path).map_err(|error| Failed {
            failure: Failure::Aborted,
            error: MeshError::Malformed { why: error.to_string() },
        })?;
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = self.headers.clone();
        let host = self.host.as_ref().unwrap_or_else(|| url.host());
        request.headers_mut().insert(http::header::HOST, host.clone());
        Ok(request)
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
        Ok(Self { method: parts.method, path, headers: parts.headers, host: None })
    }
}

fn late(is_stalled: bool, url: &BaseUrl, limits: &Limits) -> Failed {
    if is_stalled {
        Failed { failure: Failure::Aborted, error: MeshError::BodyStalled { limit: limits.head } }
    } else {
        Failed {
            failure: Failure::TimedOut,
            error: MeshError::TimedOut { address: url.authority().to_owned(), limit: limits.head },
        }
    }
}

/// Refuses a protocol switch: the request did not ask for one, so the data that follows has no meaning.
fn unless_switched(answer: Response<Incoming>, url: &BaseUrl) -> Result<Response<Incoming>, Failed> {
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

fn classify(error: &ClientError, url: &BaseUrl, upload: &Upload) -> Failed {
    let address = url.authority().to_owned();
    let why = root_cause(error);
    if upload.is_failed() {
        return Failed { failure: Failure::Aborted, error: MeshError::BodyAborted { why } };
    }
    let failure = failure_of(error);
    let cause = error.source().and_then(|source| source.downcast_ref::<hyper::Error>());
    let error = match failure {
        Failure::Garbage if cause.is_some_and(hyper::Error::is_parse_too_large) => {
            MeshError::HeadTooLarge { address }
        }
        Failure::NotConnected => MeshError::Unreachable { address, why },
        Failure::Garbage => MeshError::Garbage { address, why },
        _ => MeshError::Broken { address, why },
    };
    Failed { failure, error }
}

fn failure_of(error: &ClientError) -> Failure {
    let cause = error.source().and_then(|source| source.downcast_ref::<hyper::Error>());
    if error.is_connect() {
        Failure::NotConnected
    } else if error.connect_info().is_none() || cause.is_some_and(hyper::Error::is_canceled) {
        // The client reports the connection only once it has handed the request to it, and "canceled" is its name for a
        // request that it took back before anything was written.
        Failure::NotSent
    } else if cause.is_some_and(hyper::Error::is_parse) {
        Failure::Garbage
    } else {
        Failure::Broken
    }
}

/// The innermost error, as text.
pub(crate) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    chain(error).last().map_or_else(String::new, ToString::to_string)
}

/// Whether no process listens at the address.
pub(crate) fn is_refused(error: &(dyn std::error::Error + 'static)) -> bool {
    chain(error)
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}
