//! Why a handshake with a server failed, in words for the operator. Pure.

use std::io;

use rustls::CertificateError;

/// The reason of a failure of the handshake with this host.
pub(super) fn of(error: &io::Error, host: &str) -> String {
    use rustls::Error::{AlertReceived, InvalidCertificate, InvalidMessage};
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(InvalidCertificate(why)) => certificate(why, host),
        Some(InvalidMessage(_)) => "what it answers is not TLS".to_owned(),
        Some(AlertReceived(alert)) => format!("it refuses the session: {}", words(&format!("{alert:?}"))),
        Some(other) => other.to_string(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "it closed the connection".to_owned(),
        None => error.to_string(),
    }
}

fn certificate(error: &CertificateError, host: &str) -> String {
    match error {
        CertificateError::UnknownIssuer => {
            "its certificate was not issued by a CA that is trusted".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("its certificate is not for `{host}`")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet".to_owned()
        }
        CertificateError::Other(other) => match other.to_string().as_str() {
            "CaUsedAsEndEntity" => "its certificate is that of a CA, and not that of a server".to_owned(),
            other => format!("its certificate is not accepted: {}", words(other)),
        },
        // There are many, and there will be more.
        other => format!("its certificate is not accepted: {}", words(&format!("{other:?}"))),
    }
}

/// The name of a value in plain words, without its fields: `BadSignature` is `bad signature`.
fn words(name: &str) -> String {
    let end = name.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(name.len());
    let mut words = String::new();
    for letter in name[..end].chars() {
        if letter.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(letter.to_ascii_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{AlertDescription, Error, InvalidMessage, OtherError};

    use super::*;

    #[test]
    fn a_failure_is_told_in_words_and_never_as_a_value_of_the_code() {
        let other =
            |text: &str| CertificateError::Other(OtherError(Arc::new(io::Error::other(text.to_owned()))));
        for (error, expected) in [
            (Error::InvalidCertificate(CertificateError::UnknownIssuer), "by a CA that is trusted"),
            (Error::InvalidCertificate(CertificateError::NotValidForName), "not for `a.example`"),
            (Error::InvalidCertificate(CertificateError::Expired), "has expired"),
            (Error::InvalidCertificate(other("CaUsedAsEndEntity")), "that of a CA, and not that of a server"),
            (Error::InvalidCertificate(other("MissingCertificate(1)")), "accepted: missing certificate"),
            (Error::InvalidCertificate(CertificateError::BadSignature), "accepted: bad signature"),
            (Error::InvalidMessage(InvalidMessage::InvalidContentType), "is not TLS"),
            (Error::AlertReceived(AlertDescription::HandshakeFailure), "session: handshake failure"),
        ] {
            let text = of(&io::Error::new(io::ErrorKind::InvalidData, error), "a.example");
            assert!(text.ends_with(expected) && !text.contains("Other"), "{text}");
        }
        let text = of(&io::ErrorKind::UnexpectedEof.into(), "a.example");
        assert_eq!(text, "it closed the connection");
    }
}
