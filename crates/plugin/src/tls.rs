//! TLS on a listener (RFC 8446): the certificate is chosen by the host name that the client asks for, the protocol by
//! ALPN.

mod certificates;
mod der;
mod pair;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::ring;
use rustls::{ProtocolVersion, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};
use types::ReasonCode;

use crate::{Health, ServiceError};
pub use certificates::{CertificateFacts, CertificateFiles, NewCertificates};
use certificates::{CertificateStatus, Certificates};

/// A listener has no certificate to serve.
const CERTIFICATE_MISSING: ReasonCode = ReasonCode::new("certificate-missing");
/// A changed certificate can't be used; the one before it is served.
const CERTIFICATE_REFUSED: ReasonCode = ReasonCode::new("certificate-refused");
/// A certificate that is served has expired.
const CERTIFICATE_EXPIRED: ReasonCode = ReasonCode::new("certificate-expired");

/// The interval of the checks of the certificates' files.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// How often handshakes that fail for lack of a certificate are logged at most.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// How a connection is encrypted. Every request that came over TLS has it as an extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSession {
    /// `TLSv1.3`.
    pub version: &'static str,
    /// The host name that the client asked for in its first message, in lower case.
    pub server_name: Option<Arc<str>>,
}

/// TLS of one listener. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tls(Arc<Shared>);

struct Shared {
    listener: ListenerName,
    certificates: Arc<Certificates>,
    acceptor: TlsAcceptor,
    loaded: AtomicU64,
    failed: AtomicU64,
    /// When handshakes that fail for lack of a certificate are logged next.
    next_log: Mutex<Instant>,
}

/// The name of a listener, which may change. Cheap to clone; clones are the same.
#[derive(Debug, Clone)]
struct ListenerName(Arc<Mutex<String>>);

impl ListenerName {
    fn new(name: &str) -> Self {
        Self(Arc::new(Mutex::new(name.to_owned())))
    }

    fn now(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, name: &str) {
        name.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("listener", &self.listener.now()).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the certificates. One that can't be used is reported by [`health`](Self::health): the others are served.
    ///
    /// `alpn` lists the protocols, the preferred one first: `h2`, `http/1.1`.
    pub async fn open(
        listener: &str,
        files: Vec<CertificateFiles>,
        alpn: &[&str],
    ) -> Result<Self, ServiceError> {
        let failed = |error: rustls::Error| ServiceError::internal("TLS can't be set up").source(error);
        let listener = ListenerName::new(listener);
        let certificates = Arc::new(Certificates::new(listener.clone(), files));
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let mut config = builder
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificates) as _);
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config.ticketer = ring::Ticketer::new().map_err(failed)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let tls = Self(Arc::new(Shared {
            listener,
            certificates,
            acceptor,
            loaded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            next_log: Mutex::new(Instant::now()),
        }));
        tls.poll().await;
        Ok(tls)
    }

    /// Health, logs and errors name the listener like this from now on.
    pub fn rename(&self, listener: &str) {
        self.0.listener.change(listener);
    }

    /// Whether both are the same.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Reads the certificates again whenever their files change. Runs until it is dropped.
    pub async fn watch(&self) {
        loop {
            sleep(POLL_INTERVAL).await;
            self.poll().await;
        }
    }

    /// Reads other certificates, for [`replace`](Self::replace). Files that were there before keep their state. Fails if
    /// others can't be used.
    pub async fn read(&self, files: Vec<CertificateFiles>) -> Result<NewCertificates, String> {
        let certificates = Arc::clone(&self.0.certificates);
        let read = spawn_blocking(move || certificates.read(files)).await;
        read.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Serves other certificates from the next handshake on. Open connections stay.
    pub fn replace(&self, new: NewCertificates) {
        let loaded = self.0.certificates.replace(new);
        self.0.loaded.fetch_add(loaded, Ordering::Relaxed);
    }

    /// Why a certificate can't be served; none if all are.
    pub fn missing(&self) -> Option<String> {
        let missing = self.0.certificates.statuses().into_iter().find(|status| !status.is_served)?;
        Some(missing.trouble.unwrap_or(missing.name))
    }

    /// Reads the certificates again now if their files have changed.
    pub async fn poll(&self) {
        let certificates = Arc::clone(&self.0.certificates);
        match spawn_blocking(move || certificates.poll()).await {
            Ok(polled) => {
                self.0.loaded.fetch_add(polled.loaded, Ordering::Relaxed);
                self.0.failed.fetch_add(polled.failed, Ordering::Relaxed);
            }
            Err(error) => debug!(%error, "the certificates could not be checked"),
        }
    }

    /// `Degraded` if a certificate is missing, was refused, or has expired.
    pub fn health(&self) -> Health {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        health(
            &self.0.listener.now(),
            &self.0.certificates.statuses(),
            i64::try_from(now).unwrap_or(i64::MAX),
        )
    }

    /// How often certificates were read since the start: those that are served, and those that can't be used.
    pub(crate) fn reloads(&self) -> [u64; 2] {
        [self.0.loaded.load(Ordering::Relaxed), self.0.failed.load(Ordering::Relaxed)]
    }

    /// The certificates that are served, by their first name, and when they expire, in seconds of Unix time.
    pub(crate) fn expiries(&self) -> Vec<(String, i64)> {
        let statuses = self.0.certificates.statuses();
        statuses.into_iter().filter_map(|status| Some((status.name, status.not_after?))).collect()
    }

    /// Logs a handshake that failed. That is the client's affair, unless there is no certificate for it.
    pub(crate) fn failed(&self, peer: SocketAddr, error: &std::io::Error) {
        let missing = self.0.certificates.statuses().into_iter().find(|status| !status.is_served);
        let Some(missing) = missing else {
            debug!(listener = self.0.listener.now(), %peer, %error, "no TLS handshake");
            return;
        };
        let now = Instant::now();
        let mut next_log = self.0.next_log.lock().unwrap_or_else(PoisonError::into_inner);
        if now >= *next_log {
            *next_log = now + LOG_INTERVAL;
            let why = missing.trouble.unwrap_or_default();
            warn!(listener = self.0.listener.now(), %peer, %error, certificate = missing.name, why,
                "TLS handshakes fail while a certificate is missing");
        }
    }

    /// Shakes hands with a client.
    pub(crate) async fn accept<T>(&self, stream: T) -> std::io::Result<(TlsStream<T>, TlsSession)>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = self.0.acceptor.accept(stream).await?;
        let (_, connection) = stream.get_ref();
        // As other proxies write it; rustls has `TLSv1_3`.
        let version = match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLS",
        };
        let server_name = connection.server_name().map(|name| name.to_ascii_lowercase().into());
        Ok((stream, TlsSession { version, server_name }))
    }
}

/// The most severe state of the certificates, in one sentence.
fn health(listener: &str, statuses: &[CertificateStatus], now: i64) -> Health {
    let first = |is_it: &dyn Fn(&&CertificateStatus) -> bool| statuses.iter().find(is_it);
    let why = |status: &CertificateStatus| status.trouble.clone().unwrap_or_default();
    if let Some(missing) = first(&|status| !status.is_served) {
        let text = format!("listener `{listener}` has no certificate {}: {}", missing.name, why(missing));
        return Health::degraded(CERTIFICATE_MISSING, text);
    }
    if let Some(expired) = first(&|status| status.not_after.is_some_and(|end| end < now)) {
        let text = format!("the certificate {} of listener `{listener}` has expired", expired.name);
        return Health::degraded(CERTIFICATE_EXPIRED, text);
    }
    if let Some(refused) = first(&|status| status.trouble.is_some()) {
        let text = format!(
            "listener `{listener}` still serves the old certificate {}: {}",
            refused.name,
            why(refused)
        );
        return Health::degraded(CERTIFICATE_REFUSED, text);
    }
    Health::Ready
}

#[cfg(test)]
mod tests;
