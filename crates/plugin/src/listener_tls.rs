//! The TLS of a listener that opens or changes: all that can fail is done first, then the change is made.

use crate::http_listener::alpn;
use crate::{CertificateFiles, ClientAuth, Context, NewCertificates, ServiceError, Tls};

/// The TLS that settings want for a listener.
#[derive(Debug, Clone, Copy)]
pub struct WantedTls<'a> {
    /// The name of the listener.
    pub listener: &'a str,
    /// Its certificates.
    pub certificates: &'a [CertificateFiles],
    /// How clients identify themselves, if they do.
    pub client_auth: Option<&'a ClientAuth>,
    /// Whether it offers HTTP/1.1.
    pub http1: bool,
    /// Whether it offers HTTP/2.
    pub http2: bool,
}

impl WantedTls<'_> {
    /// Reads the certificates. One that can't be used only degrades the listener.
    pub async fn open(self) -> Result<Tls, ServiceError> {
        let alpn = alpn(self.http1, self.http2);
        Tls::open(self.listener, self.certificates.to_vec(), self.client_auth.cloned(), &alpn).await
    }
}

/// The TLS of a listener that continues with other settings.
#[derive(Debug)]
pub enum NextTls {
    /// It speaks in plain text.
    None,
    /// The same with these certificates.
    Kept(Tls, NewCertificates),
    /// For new connections.
    New(Tls),
}

impl NextTls {
    /// Does all that can fail. `old` is the TLS of the listener, and whether it offers HTTP/1.1, and HTTP/2.
    ///
    /// # Errors
    /// If a file can't be used.
    pub async fn prepare(
        old: Option<(Tls, (bool, bool))>,
        wanted: Option<WantedTls<'_>>,
    ) -> Result<Self, ServiceError> {
        let Some(wanted) = wanted else { return Ok(Self::None) };
        match old.filter(|(_, offered)| *offered == (wanted.http1, wanted.http2)) {
            Some((tls, _)) => {
                let read = tls.read(wanted.certificates.to_vec(), wanted.client_auth.cloned()).await;
                read.map(|read| Self::Kept(tls, read)).map_err(|why| unreadable(wanted.listener, &why))
            }
            // It offers the protocols by ALPN, so other protocols need another one.
            None => {
                let tls = wanted.open().await?;
                require_usable(wanted.listener, &tls)?;
                Ok(Self::New(tls))
            }
        }
    }

    /// The TLS for new connections.
    pub fn tls(&self) -> Option<&Tls> {
        match self {
            Self::None => None,
            Self::Kept(tls, _) | Self::New(tls) => Some(tls),
        }
    }

    /// Makes the change: new connections get the certificates that were read. Never fails and never waits.
    pub fn serve(self, cx: &Context) {
        let Self::Kept(tls, new) = self else { return };
        tls.replace(new);
        // Those that are replaced together with the settings are served at once.
        cx.tasks.spawn("certificates", async move {
            tls.poll().await;
            Ok(())
        });
    }
}

/// Refuses to add a listener that can't use all of its TLS files.
///
/// # Errors
/// If one of them can't be used.
pub fn require_usable(listener: &str, tls: &Tls) -> Result<(), ServiceError> {
    tls.missing().map_or(Ok(()), |why| Err(unreadable(listener, &why)))
}

fn unreadable(listener: &str, why: &str) -> ServiceError {
    ServiceError::unavailable(format!("listener `{listener}` can't use its TLS files: {why}"))
        .hint("correct the file or its path; it is tried again from time to time")
}
