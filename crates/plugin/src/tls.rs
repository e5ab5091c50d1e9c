//! TLS on a listener (RFC 8446): the certificate is chosen by the host name that the client asks for, the protocol by
//! ALPN, and clients may have to have certificates, too.

mod certificates;
mod client_ca;
mod client_certificate;
mod clients;
mod der;
mod pair;
mod subject;
mod watched;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use rustls::crypto::ring;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ProtocolVersion, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, error, info, warn};
use types::ReasonCode;

use crate::log_limit::LogLimit;
use crate::{Health, ServiceError};
pub use certificates::{CertificateFacts, CertificateFiles, CertificateNames};
use certificates::{CertificateStatus, Certificates, Polled, ReadCertificates};
pub use client_ca::ClientAuth;
pub use client_certificate::ClientCertificate;
use clients::{Clients, ReadClients};

/// A listener has no certificate to serve.
const CERTIFICATE_MISSING: ReasonCode = ReasonCode::new("certificate-missing");
/// A changed certificate can't be used; the one before it is served.
const CERTIFICATE_REFUSED: ReasonCode = ReasonCode::new("certificate-refused");
/// A listener that accepts only clients with certificates has no CA for these.
const CLIENT_CA_MISSING: ReasonCode = ReasonCode::new("client-ca-missing");
/// A changed CA can't be used; the one before it is.
const CLIENT_CA_REFUSED: ReasonCode = ReasonCode::new("client-ca-refused");
/// A certificate that is served has expired.
const CERTIFICATE_EXPIRED: ReasonCode = ReasonCode::new("certificate-expired");

/// The interval of the checks of the certificates' files.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// How a connection is encrypted. Every request that came over TLS has it as an extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSession {
    /// `TLSv1.3`.
    pub version: &'static str,
    /// The host name that the client asked for in its first message, in lower case.
    pub server_name: Option<Arc<str>>,
    /// The names of the certificate that this name selected; `None` if it selected none, so that the default one was served.
    pub certificate: Option<CertificateNames>,
    /// The certificate with which the client has identified itself.
    pub client: Option<Arc<ClientCertificate>>,
}

/// Why there was no handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandshakeFailure {
    /// The client has no certificate, and must have one.
    NoClientCertificate,
    /// The client's certificate is not accepted.
    ClientCertificateRefused,
    Other,
}

impl HandshakeFailure {
    pub(crate) fn of(error: &std::io::Error) -> Self {
        match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::NoCertificatesPresented) => Self::NoClientCertificate,
            // Of a server, this is always about the client's.
            Some(rustls::Error::InvalidCertificate(_)) => Self::ClientCertificateRefused,
            _ => Self::Other,
        }
    }
}

/// Certificates and CAs that were read, and are not used yet.
#[derive(Debug)]
pub struct NewCertificates {
    certificates: ReadCertificates,
    clients: ReadClients,
}

/// TLS of one listener. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tls(Arc<Shared>);

struct Shared {
    listener: ListenerName,
    certificates: Arc<Certificates>,
    clients: Clients,
    alpn: Vec<Vec<u8>>,
    /// What connections begin with; none while clients must be verified and there is no CA for that.
    config: ArcSwapOption<ServerConfig>,
    loaded: AtomicU64,
    failed: AtomicU64,
    /// Of handshakes that fail because of certificates.
    log: LogLimit,
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
    /// Reads the certificates, and the CAs of clients if these must be verified. One that can't be used is reported by
    /// [`health`](Self::health): the others are served, but without a CA no client is.
    ///
    /// `alpn` lists the protocols, the preferred one first: `h2`, `http/1.1`.
    pub async fn open(
        listener: &str,
        files: Vec<CertificateFiles>,
        clients: Option<ClientAuth>,
        alpn: &[&str],
    ) -> Result<Self, ServiceError> {
        let listener = ListenerName::new(listener);
        let shared = Shared {
            certificates: Arc::new(Certificates::new(listener.clone(), files)),
            listener,
            clients: Clients::new(clients),
            alpn: alpn.iter().map(|name| name.as_bytes().to_vec()).collect(),
            config: ArcSwapOption::empty(),
            loaded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            log: LogLimit::default(),
        };
        let failed = |error: rustls::Error| ServiceError::internal("TLS can't be set up").source(error);
        let open_to_all = shared.config(None).map_err(failed)?;
        if !shared.clients.are_verified() {
            shared.config.store(Some(open_to_all));
        }
        let tls = Self(Arc::new(shared));
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

    /// Reads other certificates and CAs, for [`replace`](Self::replace). Files that were there before keep their state. Fails if
    /// others can't be used.
    pub(crate) async fn read(
        &self,
        files: Vec<CertificateFiles>,
        clients: Option<ClientAuth>,
    ) -> Result<NewCertificates, String> {
        let shared = Arc::clone(&self.0);
        let read = spawn_blocking(move || {
            let certificates = shared.certificates.read(files)?;
            Ok(NewCertificates { certificates, clients: shared.clients.read(clients)? })
        });
        read.await.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Serves other certificates, and verifies clients by other CAs, from the next handshake on. Open connections stay.
    pub(crate) fn replace(&self, new: NewCertificates) {
        let shared = &self.0;
        let loaded = shared.certificates.replace(new.certificates);
        let loaded = loaded + shared.clients.replace(new.clients, |verifier| shared.accept_by(verifier));
        shared.loaded.fetch_add(loaded, Ordering::Relaxed);
    }

    /// Whether a certificate has the name of a host, or a wildcard for it.
    pub fn has_certificate_for(&self, host: &str) -> bool {
        self.0.certificates.names_for(host).is_some()
    }

    /// Why a certificate can't be served, or clients can't be verified; none if all is well.
    pub(crate) fn missing(&self) -> Option<String> {
        self.0.missing().map(|(name, why)| why.unwrap_or(name))
    }

    /// Reads the certificates again now if their files have changed.
    pub async fn poll(&self) {
        let shared = Arc::clone(&self.0);
        match spawn_blocking(move || shared.poll()).await {
            Ok(polled) => {
                self.0.loaded.fetch_add(polled.loaded, Ordering::Relaxed);
                self.0.failed.fetch_add(polled.failed, Ordering::Relaxed);
            }
            Err(error) => debug!(%error, "the certificates could not be checked"),
        }
    }

    /// `Degraded` if a certificate or a CA is missing or was refused, or a certificate has expired.
    pub fn health(&self) -> Health {
        let listener = self.0.listener.now();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let of_certificates = health(&listener, &self.0.certificates.statuses(), now);
        Health::together([self.0.clients.health(&listener), of_certificates])
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

    /// Logs a handshake that failed. Most are the client's affair; an operator has to know of a certificate that is missing, and
    /// why one of a client is not accepted, which the client does not learn.
    pub(crate) fn failed(&self, peer: SocketAddr, error: &std::io::Error) {
        let listener = self.0.listener.now();
        if let Some((name, why)) = self.0.missing() {
            if self.0.log.may_log() {
                let why = why.unwrap_or_default();
                warn!(listener, %peer, %error, certificate = name, why,
                    "TLS handshakes fail while a certificate is missing");
            }
            return;
        }
        match HandshakeFailure::of(error) {
            HandshakeFailure::ClientCertificateRefused if self.0.log.may_log() => {
                info!(listener, %peer, %error, "the certificate of a client is not accepted");
            }
            HandshakeFailure::NoClientCertificate
            | HandshakeFailure::ClientCertificateRefused
            | HandshakeFailure::Other => {
                debug!(listener, %peer, %error, "no TLS handshake");
            }
        }
    }

    /// Shakes hands with a client.
    pub(crate) async fn accept<T>(&self, stream: T) -> std::io::Result<(TlsStream<T>, TlsSession)>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.0.config.load_full();
        let config = config.ok_or_else(|| std::io::Error::other("there is no CA to verify clients by"))?;
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        let (_, connection) = stream.get_ref();
        // As other proxies write it; rustls has `TLSv1_3`.
        let version = match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLS",
        };
        let server_name: Option<Arc<str>> =
            connection.server_name().map(|name| name.to_ascii_lowercase().into());
        let certificate = server_name.as_ref().and_then(|name| self.0.certificates.names_for(name));
        let client = connection.peer_certificates().and_then(<[_]>::first);
        let client = client.map(|client| Arc::new(ClientCertificate::of(client)));
        Ok((stream, TlsSession { version, server_name, certificate, client }))
    }
}

impl Shared {
    /// What connections begin with. Sessions of another configuration are not resumed: their clients were verified by others.
    fn config(
        &self,
        verifier: Option<Arc<dyn ClientCertVerifier>>,
    ) -> Result<Arc<ServerConfig>, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions()?;
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&self.certificates) as _);
        config.alpn_protocols.clone_from(&self.alpn);
        config.ticketer = ring::Ticketer::new()?;
        Ok(Arc::new(config))
    }

    /// Accepts clients by other rules from now on. Without a configuration for them, it accepts none.
    fn accept_by(&self, verifier: Option<Arc<dyn ClientCertVerifier>>) {
        let config = self.config(verifier);
        if let Err(error) = &config {
            error!(listener = self.listener.now(), %error, "TLS can't be set up, so handshakes fail");
        }
        self.config.store(config.ok());
    }

    /// Reads files that have changed. Blocking.
    fn poll(&self) -> Polled {
        let Polled { loaded, failed } = self.certificates.poll();
        let of_clients = self.clients.poll(&self.listener.now(), |verifier| self.accept_by(Some(verifier)));
        Polled { loaded: loaded + of_clients.loaded, failed: failed + of_clients.failed }
    }

    /// The certificate or CA that is missing, and why.
    fn missing(&self) -> Option<(String, Option<String>)> {
        let certificate = || self.certificates.statuses().into_iter().find(|status| !status.is_served);
        let of_certificate = || certificate().map(|status| (status.name, status.trouble));
        self.clients.missing().or_else(of_certificate)
    }
}

/// The state of the certificates: each that has trouble is named, the most severe trouble first.
fn health(listener: &str, statuses: &[CertificateStatus], now: i64) -> Health {
    let mut each: Vec<_> = statuses.iter().map(|status| of_certificate(listener, status, now)).collect();
    each.sort_by_key(|(severity, _)| *severity);
    Health::together(each.into_iter().map(|(_, health)| health))
}

/// The state of a certificate in one sentence, and its place among troubles: the most severe is 0.
fn of_certificate(listener: &str, status: &CertificateStatus, now: i64) -> (u8, Health) {
    let CertificateStatus { name, not_after, trouble, is_served, .. } = status;
    let why = trouble.as_deref().unwrap_or_default();
    if !is_served {
        let text = format!("listener `{listener}` has no certificate {name}: {why}");
        return (0, Health::degraded(CERTIFICATE_MISSING, text));
    }
    if not_after.is_some_and(|end| end < now) {
        let refused = trouble.as_ref().map(|why| format!("; the one that replaced it can't be used: {why}"));
        let refused = refused.unwrap_or_default();
        let text = format!("the certificate {name} of listener `{listener}` has expired{refused}");
        return (1, Health::degraded(CERTIFICATE_EXPIRED, text));
    }
    if trouble.is_some() {
        let text = format!("listener `{listener}` still serves the old certificate {name}: {why}");
        return (2, Health::degraded(CERTIFICATE_REFUSED, text));
    }
    (3, Health::Ready)
}

#[cfg(test)]
mod tests;
