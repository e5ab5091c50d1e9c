//! TLS to servers: whose certificates are trusted, and which protocol is spoken.
//!
//! The certificates that are trusted are read when a connection needs them, and again when their file has changed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tls_reason;
use crate::origin::Trust;

const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// How often a file of certificates is checked for changes at most.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// What was read about trusted certificates, for all connections.
#[derive(Debug, Default)]
pub(super) struct Tls {
    known: Mutex<BTreeMap<Trust, Known>>,
}

#[derive(Debug, Clone)]
struct Known {
    config: Configs,
    /// The file's state when it was read.
    stamp: Option<Stamp>,
    checked: Instant,
}

/// Changes whenever a file does.
type Stamp = (SystemTime, u64);

/// The settings for connections.
#[derive(Debug, Clone)]
struct Configs {
    /// For HTTP/2 or HTTP/1.1.
    any: Arc<ClientConfig>,
    /// For HTTP/1.1 alone.
    http1: Arc<ClientConfig>,
}

/// The settings for connections, and the state of the file that they are from.
type Read = (Configs, Option<Stamp>);

/// Why no TLS session came about.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    /// Write the file that `ca` names, in PEM.
    #[error("the trusted certificates `{}` can't be read: {why}", .path.display())]
    File { path: PathBuf, why: String },
    /// Install the system's certificates, or name others.
    #[error("this system has no trusted certificates: {0}")]
    NoSystemRoots(String),
    /// Use a host name.
    #[error("`{0}` is no name that a certificate can have")]
    Name(String),
    /// See what certificate the server has.
    #[error("{0}")]
    Handshake(String),
    #[error("TLS can't be set up: {0}")]
    Setup(String),
}

impl Tls {
    /// Shakes hands with a server. Returns whether it chose HTTP/2.
    pub(super) async fn connect(
        &self,
        trust: &Trust,
        host: &str,
        stream: TcpStream,
    ) -> Result<(TlsStream<TcpStream>, bool), TlsError> {
        let stream = shake(self.config(trust).await?.any, host, stream).await?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(H2);
        Ok((stream, is_http2))
    }

    /// The same for HTTP/1.1 alone.
    pub(super) async fn connect_http1(
        &self,
        trust: &Trust,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, TlsError> {
        shake(self.config(trust).await?.http1, host, stream).await
    }

    /// The settings for connections. If a file that has changed can't be read, what was read before stays.
    async fn config(&self, trust: &Trust) -> Result<Configs, TlsError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(trust).cloned();
        if let Some(known) = &known
            && (*trust == Trust::System || known.checked.elapsed() < CHECK_EVERY)
        {
            return Ok(known.config.clone());
        }
        let (of, before) = (trust.clone(), known.as_ref().and_then(|known| known.stamp));
        let read = spawn_blocking(move || read(&of, before)).await;
        let read = read.unwrap_or_else(|error| Err(TlsError::Setup(error.to_string())));
        let checked = Instant::now();
        let known = match (read, known) {
            (Ok(Some((config, stamp))), _) => Known { config, stamp, checked },
            (Ok(None), Some(known)) => Known { checked, ..known },
            (Err(error), Some(known)) => {
                tracing::warn!(%error, "the certificates that were read before stay trusted");
                Known { checked, ..known }
            }
            (Err(error), None) => return Err(error),
            (Ok(None), None) => return Err(TlsError::Setup("nothing was read".to_owned())),
        };
        let config = known.config.clone();
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(trust.clone(), known);
        Ok(config)
    }
}

async fn shake(
    config: Arc<ClientConfig>,
    host: &str,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, TlsError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name(host.to_owned()))?;
    let connected = TlsConnector::from(config).connect(name, stream).await;
    connected.map_err(|error| TlsError::Handshake(tls_reason::of(&error, host)))
}

/// Reads the trusted certificates, unless their file is the same as before.
fn read(trust: &Trust, before: Option<Stamp>) -> Result<Option<Read>, TlsError> {
    let (roots, stamp) = match trust {
        Trust::System => (system()?, None),
        Trust::File(path) => {
            let failed = |error: io::Error| TlsError::File { path: path.clone(), why: error.to_string() };
            let about = fs::metadata(path).map_err(failed)?;
            let stamp = Some((about.modified().map_err(failed)?, about.len()));
            if stamp == before {
                return Ok(None);
            }
            (in_file(path)?, stamp)
        }
    };
    let setup = |error: rustls::Error| TlsError::Setup(error.to_string());
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let mut config = builder
        .with_safe_default_protocol_versions()
        .map_err(setup)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut http1 = config.clone();
    config.alpn_protocols = vec![H2.to_vec(), HTTP1.to_vec()];
    http1.alpn_protocols = vec![HTTP1.to_vec()];
    Ok(Some((Configs { any: Arc::new(config), http1: Arc::new(http1) }, stamp)))
}

fn system() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or("none was found".to_owned(), ToString::to_string);
        return Err(TlsError::NoSystemRoots(why));
    }
    Ok(roots)
}

/// Reads a file of trusted certificates as a connection to a server does. Blocking.
///
/// # Errors
/// In words, if it can't be used.
pub fn check_ca(path: &Path) -> Result<(), String> {
    in_file(path).map(drop).map_err(|error| error.to_string())
}

fn in_file(path: &Path) -> Result<RootCertStore, TlsError> {
    let failed = |why: String| TlsError::File { path: path.to_owned(), why };
    let pem = fs::read(path).map_err(|error| failed(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| failed(format!("it is not in PEM: {error}")))?;
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(failed("it has no certificate (`BEGIN CERTIFICATE`)".to_owned()));
    }
    Ok(roots)
}
