//! A certificate with its key, read from PEM. Pure.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::der;

/// Why two files are not a certificate and its key. Correct the files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PairError {
    #[error("the certificate's file is not in PEM: {0}")]
    CertificatePem(String),
    #[error("the certificate's file has no certificate (`BEGIN CERTIFICATE`)")]
    NoCertificate,
    #[error("the key's file has no private key (`BEGIN PRIVATE KEY`)")]
    NoKey,
    #[error(
        "the key is encrypted (`BEGIN ENCRYPTED PRIVATE KEY`); `openssl pkey -in KEY -out PLAIN` decrypts it"
    )]
    EncryptedKey,
    #[error("the key's file is not in PEM: {0}")]
    KeyPem(String),
    #[error("the key does not belong to the certificate")]
    Mismatch,
    #[error(
        "the certificate is of version 1 of X.509; create one with `subjectAltName`, which is of version 3"
    )]
    OldVersion,
    #[error("the certificate can't be used: {0}")]
    Unusable(String),
    #[error(
        "the key can't be used ({0}): RSA of 2048 to 8192 bits, ECDSA on P-256 or P-384, and Ed25519 can"
    )]
    UnusableKey(String),
}

/// A certificate with its key.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) key: Arc<CertifiedKey>,
    /// The host names in the certificate, in lower case; `*.example.org` is a wildcard.
    pub(super) names: Vec<String>,
    /// When it expires, in seconds of Unix time.
    pub(super) not_after: Option<i64>,
}

impl Pair {
    /// Reads a certificate, followed by those that sign it, and its key.
    pub(super) fn parse(cert: &[u8], key: &[u8]) -> Result<Self, PairError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(cert)
            .collect::<Result<_, _>>()
            .map_err(|error| PairError::CertificatePem(error.to_string()))?;
        let Some(leaf) = chain.first() else { return Err(PairError::NoCertificate) };
        let not_after = der::not_after(leaf);
        let names = names(leaf)?;
        let key = match PrivateKeyDer::from_pem_slice(key) {
            Ok(key) => key,
            Err(PemError::NoItemsFound) if is_encrypted(key) => return Err(PairError::EncryptedKey),
            Err(PemError::NoItemsFound) => return Err(PairError::NoKey),
            Err(error) => return Err(PairError::KeyPem(error.to_string())),
        };
        match CertifiedKey::from_der(chain, key, &ring::default_provider()) {
            Ok(key) => Ok(Self { key: Arc::new(key), names, not_after }),
            Err(rustls::Error::InconsistentKeys(_)) => Err(PairError::Mismatch),
            Err(error) => Err(PairError::UnusableKey(error.to_string())),
        }
    }
}

fn is_encrypted(key: &[u8]) -> bool {
    const BEGIN: &[u8] = b"BEGIN ENCRYPTED PRIVATE KEY";
    key.windows(BEGIN.len()).any(|bytes| bytes == BEGIN)
}

fn names(leaf: &CertificateDer<'_>) -> Result<Vec<String>, PairError> {
    let parsed = webpki::EndEntityCert::try_from(leaf).map_err(|error| match error {
        webpki::Error::UnsupportedCertVersion => PairError::OldVersion,
        error => PairError::Unusable(error.to_string()),
    })?;
    Ok(parsed.valid_dns_names().map(str::to_ascii_lowercase).collect())
}
