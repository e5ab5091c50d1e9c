//! The certificate with which a client has identified itself, in the form in which servers behind a proxy read it.

use std::fmt::Write;

use http::HeaderValue;
use ring::digest::{SHA256, digest};

use super::subject::subject;

/// The longest subject that is passed on, in bytes.
const MAX_SUBJECT: usize = 1024;

/// A client's certificate that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    header: HeaderValue,
}

impl ClientCertificate {
    /// Reads a certificate in DER.
    pub(super) fn of(certificate: &[u8]) -> Self {
        let mut text = "Hash=".to_owned();
        for byte in digest(&SHA256, certificate).as_ref() {
            // Writing into a text never fails.
            let _ = write!(text, "{byte:02x}");
        }
        if let Some(subject) = subject(certificate).filter(|subject| subject.len() <= MAX_SUBJECT) {
            let _ = write!(text, ";Subject=\"{subject}\"");
        }
        Self {
            header: HeaderValue::from_str(&text).expect("a digest and an escaped name are printable ASCII"),
        }
    }

    /// The value of `X-Forwarded-Client-Cert`, as Envoy writes it: `Hash=HEX;Subject="CN=..."`, with the certificate's SHA-256
    /// and its subject as in RFC 4514.
    pub fn header(&self) -> &HeaderValue {
        &self.header
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    #[test]
    fn a_certificate_is_named_by_its_hash_and_its_subject() {
        let alice = CertificateDer::from_pem_slice(include_bytes!("testdata/client.crt")).unwrap();
        // openssl x509 -noout -fingerprint -sha256, and -subject -nameopt RFC2253, but for the quotation marks.
        assert_eq!(
            ClientCertificate::of(&alice).header(),
            "Hash=8fb19480206f1c55646061fd94cab4cbaecd7545358e702adfd8ad8b9ceb4d10;\
             Subject=\"CN=alice \\22a\\22 \\\\ M\\C3\\BCller,OU=Billing+UID=u7,O=Shop\\, Inc.,C=DE\""
        );
        assert!(ClientCertificate::of(b"no certificate").header().to_str().unwrap().len() == 5 + 64);
    }
}
