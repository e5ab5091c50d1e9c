//! The header fields with a meaning to a proxy. One list for requests, answers and trailers.

use http::header::{HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use types::api;

/// Whether a field is for one connection only (RFC 9110, section 7.6.1).
pub(super) fn is_hop_by_hop(name: &HeaderName) -> bool {
    is_hop_by_hop_text(name.as_str())
}

// Every field of every message is compared with these: texts of other lengths cost a comparison of numbers.
fn is_hop_by_hop_text(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authentication-info"
            | "proxy-authorization"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// Whether only a trusted proxy may send the field.
pub(super) fn is_managed(name: &HeaderName) -> bool {
    is_managed_text(name.as_str())
}

/// Fields that a proxy writes, or that a server accepts from a trusted proxy.
fn is_managed_text(name: &str) -> bool {
    name.starts_with("x-forwarded-")
        || is_own_text(name)
        || matches!(name, "forwarded" | "x-real-ip" | api::REQUEST_ID)
}

/// Whether only Coterie's own nodes may send the field.
pub(super) fn is_own(name: &HeaderName) -> bool {
    is_own_text(name.as_str())
}

fn is_own_text(name: &str) -> bool {
    name.starts_with("coterie-")
}

/// Whether a field stays in a message even if its `Connection` names it.
pub(super) fn is_protected(name: &HeaderName) -> bool {
    is_protected_text(name.as_str())
}

fn is_protected_text(name: &str) -> bool {
    let is_end_to_end = matches!(
        name,
        "host"
            | "authorization"
            | "cookie"
            | "set-cookie"
            | "expect"
            | "trailer"
            | "traceparent"
            | "tracestate"
            | "cdn-loop"
            | "origin"
    );
    is_end_to_end || name.starts_with("content-") || is_managed_text(name)
}

/// The bytes of names that no program takes for others: letters, digits and hyphens.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        plain[byte] = matches!(byte as u8, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-');
        byte += 1;
    }
    plain
};

/// Whether a program behind the proxy may mistake this name for that of a field with a meaning: CGI and PHP read
/// `X_Forwarded_For` and `X.Forwarded.For` as `X-Forwarded-For`.
pub(super) fn is_alias(name: &HeaderName) -> bool {
    let text = name.as_str();
    // Not `all`: names are short, and an end at each byte would cost more than the rest of the name.
    if text.bytes().fold(true, |plain, byte| plain & PLAIN[usize::from(byte)]) {
        return false;
    }
    let meant = text.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
    is_protected_text(&meant) || is_hop_by_hop_text(&meant)
}

/// Whether a field may be in a trailer: fields that frame, route or identify a message may not (RFC 9110, section
/// 6.5.1).
pub(super) fn may_trail(name: &HeaderName) -> bool {
    !(is_hop_by_hop(name) || is_protected(name) || is_alias(name))
}

/// The elements of a list field, over all of its lines.
pub(super) fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|element| !element.is_empty())
}

/// Whether the body is chunked. An error names any other transfer coding.
pub(super) fn is_plainly_chunked(headers: &HeaderMap) -> Result<bool, String> {
    let mut values = headers.get_all(TRANSFER_ENCODING).iter();
    let shown = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    match (values.next(), values.next()) {
        (None, _) => Ok(false),
        (Some(value), None) if value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") => Ok(true),
        (Some(first), None) => Err(shown(first)),
        (Some(first), Some(second)) => Err(format!("{}, {}", shown(first), shown(second))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> HeaderName {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_that_could_be_mistaken_for_another_is_an_alias() {
        for alias in [
            "x_forwarded_for",
            "x.forwarded.for",
            "x-forwarded_proto",
            "x!forwarded!host",
            "coterie_epoch",
            "content_length",
            "transfer_encoding",
            "x_request_id",
            "x_real_ip",
            "host_",
        ] {
            let expected = alias != "host_";
            assert_eq!(is_alias(&name(alias)), expected, "{alias}");
        }
        for plain in ["x-forwarded-for", "x_custom", "accept", "sec_fetch_site", "a.b", "content-length"] {
            assert!(!is_alias(&name(plain)), "{plain}");
        }
    }

    #[test]
    fn fields_that_frame_or_identify_a_message_are_not_trailers() {
        for forbidden in [
            "content-length",
            "host",
            "x-forwarded-for",
            "x_forwarded_for",
            "transfer-encoding",
            "authorization",
            "coterie-not-processed",
            "set-cookie",
        ] {
            assert!(!may_trail(&name(forbidden)), "{forbidden}");
        }
        for fine in ["grpc-status", "checksum", "server-timing"] {
            assert!(may_trail(&name(fine)), "{fine}");
        }
    }
}
