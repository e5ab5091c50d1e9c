//! Which client certificates a listener accepts: those that a CA in a file has signed, directly or over others that the client
//! sends along.
//!
//! Until the file can be used there is no verifier, and the listener accepts no client. Later, a file that can't be used changes
//! nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::watched::{Files, read};

/// How the clients of a listener identify themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAuth {
    /// The file of the CAs' certificates, in PEM.
    pub ca: PathBuf,
    /// Whether clients without a certificate are refused.
    pub is_required: bool,
}

/// Why a file has no CA that can be used. Correct the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ClientCaError {
    #[error("the file is not in PEM: {0}")]
    Pem(String),
    #[error("the file has no certificate (`BEGIN CERTIFICATE`)")]
    NoCertificate,
    #[error("certificate {at} in the file can't be used as a CA: {why}")]
    Unusable {
        /// Counted from 1.
        at: usize,
        why: String,
    },
}

impl ClientAuth {
    /// Reads the file as a listener does. Blocking.
    ///
    /// # Errors
    /// In words, if it can't be used.
    pub fn check(&self) -> Result<(), String> {
        let contents = read(&self.ca)?;
        self.parse(&[contents]).map(|_| ())
    }

    pub(super) fn verifier(&self, pem: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, ClientCaError> {
        let mut roots = RootCertStore::empty();
        for (at, certificate) in (1..).zip(CertificateDer::pem_slice_iter(pem)) {
            let certificate = certificate.map_err(|error| ClientCaError::Pem(error.to_string()))?;
            let added = roots.add(certificate);
            added.map_err(|error| ClientCaError::Unusable { at, why: error.to_string() })?;
        }
        if roots.is_empty() {
            return Err(ClientCaError::NoCertificate);
        }
        let provider = Arc::new(ring::default_provider());
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        if !self.is_required {
            builder = builder.allow_unauthenticated();
        }
        builder.build().map_err(|error| ClientCaError::Unusable { at: 1, why: error.to_string() })
    }
}

impl Files for ClientAuth {
    type Parsed = Arc<dyn ClientCertVerifier>;

    fn paths(&self) -> Vec<&Path> {
        vec![&self.ca]
    }

    fn parse(&self, contents: &[Vec<u8>]) -> Result<Self::Parsed, String> {
        let pem = contents.first().map_or(&[][..], Vec::as_slice);
        self.verifier(pem).map_err(|error| format!("{}: {error}", self.ca.display()))
    }
}
