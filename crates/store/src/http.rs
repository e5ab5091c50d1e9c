//! How stores on the network are reached: hyper, and rustls with ring and the system's certificates.
//!
//! `object_store` can do it by itself through reqwest, but only with a feature of reqwest that makes every
//! reqwest client of the same build panic unless the process has installed a crypto provider. Here the provider
//! is named, so no default of the process matters. Proxies (`HTTPS_PROXY`) are not used.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use http::header::{HeaderValue, USER_AGENT};
use http_body::{Body, Frame};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
    HttpResponseBody, HttpService,
};
use object_store::{ClientConfigKey, ClientOptions};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::{Instant, Sleep};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a store may be silent: before its answer, and between two pieces of it.
const SILENCE: Duration = Duration::from_secs(30);

/// Makes clients; the only option that it reads is whether plain HTTP is allowed.
#[derive(Debug)]
pub(crate) struct Connector;

#[derive(Debug, Clone)]
struct Service(Client<HttpsConnector<connect::HttpConnector>, HttpRequestBody>);

#[derive(Debug, thiserror::Error)]
#[error(
    "no certificates of authorities were found; install ca-certificates, or name a file in SSL_CERT_FILE"
)]
struct NoAuthorities;

#[derive(Debug, thiserror::Error)]
#[error("silent for {0:?}")]
struct Silent(Duration);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let plain = options.get_config_value(&ClientConfigKey::AllowHttp).is_some_and(|value| is_yes(&value));
        let wrapped = |source| object_store::Error::Generic { store: "HTTP client", source };
        let tls = tls(plain).map_err(wrapped)?;
        let mut tcp = connect::HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_nodelay(true);
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls);
        let builder = if plain { builder.https_or_http() } else { builder.https_only() };
        let connector = builder.enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Ok(HttpClient::new(Service(client)))
    }
}

/// What `object_store` takes for yes.
fn is_yes(value: &str) -> bool {
    ["1", "true", "on", "yes", "y"].iter().any(|yes| value.eq_ignore_ascii_case(yes))
}

/// The system's authorities. None at all is an error, unless plain HTTP may be what is meant.
fn tls(plain: bool) -> Result<ClientConfig, Box<dyn Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() && !plain {
        return Err(NoAuthorities.into());
    }
    // named here, so that no default of the process matters
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let agent = HeaderValue::from_static(concat!("coterie/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().entry(USER_AGENT).or_insert(agent);
        let answer = tokio::time::timeout(SILENCE, self.0.request(request)).await;
        let response = match answer {
            Ok(response) => response.map_err(failed)?,
            Err(_) => return Err(HttpError::new(HttpErrorKind::Timeout, Silent(SILENCE))),
        };
        Ok(response.map(|body| HttpResponseBody::new(Answer::new(body))))
    }
}

/// What may be sent again is told from the kind, so it says no more than is known.
fn failed(error: hyper_util::client::legacy::Error) -> HttpError {
    let kind = if error.is_connect() { HttpErrorKind::Connect } else { broken(&error) };
    HttpError::new(kind, error)
}

fn broken(error: &(dyn Error + 'static)) -> HttpErrorKind {
    for error in std::iter::successors(Some(error), |&error| error.source()) {
        if let Some(hyper) = error.downcast_ref::<hyper::Error>() {
            if hyper.is_timeout() {
                return HttpErrorKind::Timeout;
            }
            if hyper.is_closed() || hyper.is_incomplete_message() || hyper.is_body_write_aborted() {
                return HttpErrorKind::Interrupted;
            }
        }
        match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::TimedOut) => return HttpErrorKind::Timeout,
            Some(
                io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof,
            ) => return HttpErrorKind::Interrupted,
            _ => {}
        }
    }
    HttpErrorKind::Unknown
}

/// The body of an answer, which ends with an error when the store falls silent.
struct Answer {
    body: hyper::body::Incoming,
    silence: Pin<Box<Sleep>>,
}

impl Answer {
    fn new(body: hyper::body::Incoming) -> Self {
        Self { body, silence: Box::pin(tokio::time::sleep(SILENCE)) }
    }
}

impl Body for Answer {
    type Data = bytes::Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, HttpError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.silence.as_mut().reset(Instant::now() + SILENCE);
            let frame = frame.map(|frame| frame.map_err(|error| HttpError::new(broken(&error), error)));
            return Poll::Ready(frame);
        }
        ready!(self.silence.as_mut().poll(cx));
        Poll::Ready(Some(Err(HttpError::new(HttpErrorKind::Timeout, Silent(SILENCE)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
