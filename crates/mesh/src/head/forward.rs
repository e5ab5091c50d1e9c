//! The fields that a proxy adds to a request last: the client's address, host, scheme, path prefix and request id.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::{Entry, FORWARDED, HeaderMap, HeaderName, HeaderValue};
use rand::RngExt;
use types::api;
use uuid::{Builder, Uuid};

use super::forwarded;

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const X_FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// The header with the id of a request.
pub const REQUEST_ID: HeaderName = HeaderName::from_static(api::REQUEST_ID);

/// The longest id that a trusted proxy may give a request, in bytes.
const MAX_ID: usize = 128;
/// The longest address as text, in bytes.
const MAX_ADDRESS: usize = 45;

/// The values to add to a request.
#[derive(Debug, Clone, Copy)]
pub struct Added<'a> {
    /// The other end of the connection.
    pub peer: Option<IpAddr>,
    /// The scheme of the client's request: `http` or `https`.
    pub scheme: &'static str,
    /// The host and port that the client requested.
    pub host: Option<&'a HeaderValue>,
    /// The prefix that was removed from the path; empty if none was.
    pub prefix: &'a str,
    /// The id of the request.
    pub id: &'a HeaderValue,
    /// The certificate with which the client has identified itself on this connection.
    pub client_certificate: Option<&'a HeaderValue>,
    /// Whether the next server gets `Forwarded` (RFC 7239) besides `X-Forwarded-*`, even if the client sent none.
    pub forwarded: bool,
}

/// Adds the fields. Values from a trusted proxy stay: the peer is appended to its addresses, in `Forwarded` too, and the prefix
/// to its prefix; its host, scheme, id and client certificate are kept as those of the client, except that a certificate of its own
/// replaces the last.
pub fn add(headers: &mut HeaderMap, added: &Added<'_>) {
    if let Some(peer) = added.peer {
        let mut whole = String::with_capacity(MAX_ADDRESS);
        let field = headers.entry(X_FORWARDED_FOR);
        if let Entry::Occupied(field) = &field {
            for earlier in field.iter().filter_map(|value| value.to_str().ok()) {
                whole.extend([earlier, ", "]);
            }
        }
        push_address(&mut whole, peer.to_canonical());
        if let Ok(whole) = HeaderValue::try_from(whole) {
            match field {
                Entry::Occupied(mut field) => {
                    field.insert(whole);
                }
                Entry::Vacant(field) => {
                    field.insert(whole);
                }
            }
        }
        if headers.contains_key(FORWARDED) {
            forwarded::extend(headers, peer);
        }
    }
    if let Some(host) = added.host {
        headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.clone());
    }
    headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static(added.scheme));
    if added.forwarded
        && !headers.contains_key(FORWARDED)
        && let Some(value) = forwarded::of_x_forwarded(headers)
    {
        headers.insert(FORWARDED, value);
    }
    if !added.prefix.is_empty() {
        let earlier = headers.get(X_FORWARDED_PREFIX).and_then(|value| value.to_str().ok());
        if let Ok(whole) = HeaderValue::try_from([earlier.unwrap_or_default(), added.prefix].concat()) {
            headers.insert(X_FORWARDED_PREFIX, whole);
        }
    }
    headers.insert(REQUEST_ID, added.id.clone());
    if let Some(certificate) = added.client_certificate {
        headers.insert(X_FORWARDED_CLIENT_CERT, certificate.clone());
    }
}

/// Appends an address. Every request needs this, and formatting takes ten times as long.
fn push_address(text: &mut String, address: IpAddr) {
    let IpAddr::V4(address) = address else {
        text.push_str(&address.to_string());
        return;
    };
    for (at, octet) in address.octets().into_iter().enumerate() {
        if at > 0 {
            text.push('.');
        }
        for (unit, is_shown) in [(100, octet >= 100), (10, octet >= 10), (1, true)] {
            if is_shown {
                text.push(char::from(b'0' + octet / unit % 10));
            }
        }
    }
}

/// The id of a request: its own, or a new one if it has none or one that is unfit for a log.
pub fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(REQUEST_ID).filter(|id| {
        let bytes = id.as_bytes();
        !bytes.is_empty() && bytes.len() <= MAX_ID && bytes.iter().all(u8::is_ascii_graphic)
    });
    given.cloned().unwrap_or_else(|| {
        let mut text = Uuid::encode_buffer();
        let id = new_id(SystemTime::now()).hyphenated().encode_lower(&mut text);
        HeaderValue::from_str(id).expect("digits and hyphens fit into a header")
    })
}

/// A UUID of version 7. `Uuid::now_v7` would take a lock that all cores share, and ask the system for random bytes each time.
fn new_id(now: SystemTime) -> Uuid {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    Builder::from_unix_timestamp_millis(millis, &rand::rng().random()).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{headers, lines};
    use super::*;

    fn added(before: &[&str], peer: &str, prefix: &str) -> Vec<String> {
        let mut message = headers(before);
        let id = HeaderValue::from_static("id");
        let peer = peer.parse().ok();
        let host = HeaderValue::from_static("shop.example");
        let host = Some(&host);
        let added =
            Added { peer, scheme: "http", host, prefix, id: &id, client_certificate: None, forwarded: false };
        add(&mut message, &added);
        lines(&message)
    }

    /// The `Forwarded` that the next server gets.
    fn forwarded_after(before: &[&str], peer: &str, forwarded: bool) -> Option<String> {
        let mut message = headers(before);
        let id = HeaderValue::from_static("id");
        let host = HeaderValue::from_static("shop.example");
        let (peer, host) = (peer.parse().ok(), Some(&host));
        let added =
            Added { peer, scheme: "https", host, prefix: "", id: &id, client_certificate: None, forwarded };
        add(&mut message, &added);
        Some(message.get(FORWARDED)?.to_str().unwrap().to_owned())
    }

    #[test]
    fn forwarded_is_extended_where_it_is_there_and_written_where_it_is_asked_for() {
        let two = ["forwarded: for=1.1.1.1;proto=http", "forwarded: for=\"[2001:db8::1]:9\""];
        let extended = "for=1.1.1.1;proto=http, for=\"[2001:db8::1]:9\", for=192.0.2.1";
        for asked in [false, true] {
            assert_eq!(forwarded_after(&two, "192.0.2.1", asked).as_deref(), Some(extended));
        }
        assert_eq!(forwarded_after(&[], "192.0.2.1", false), None);
        let own = "for=\"[2001:db8::1]\";host=\"shop.example\";proto=https";
        assert_eq!(forwarded_after(&[], "2001:db8::1", true).as_deref(), Some(own));
        let earlier = ["x-forwarded-for: 1.1.1.1, unknown", "x-forwarded-proto: http"];
        let whole = "for=1.1.1.1;host=\"shop.example\";proto=http, for=unknown, for=192.0.2.1";
        assert_eq!(forwarded_after(&earlier, "::ffff:192.0.2.1", true).as_deref(), Some(whole));
    }

    #[test]
    fn an_address_is_written_as_it_is_shown() {
        for octet in 0..=255 {
            let address = IpAddr::from([octet, 0, 255 - octet, 10]);
            let mut text = String::new();
            push_address(&mut text, address);
            assert_eq!(text, address.to_string());
        }
        let mut text = "a, ".to_owned();
        push_address(&mut text, "2001:db8::1".parse().unwrap());
        assert_eq!(text, "a, 2001:db8::1");
    }

    #[test]
    fn the_peer_is_appended_to_the_fields_of_a_trusted_proxy() {
        assert_eq!(
            added(&[], "::ffff:192.0.2.1", ""),
            [
                "x-forwarded-for: 192.0.2.1",
                "x-forwarded-host: shop.example",
                "x-forwarded-proto: http",
                "x-request-id: id"
            ]
        );
        let earlier = [
            "x-forwarded-for: 192.0.2.1",
            "x-forwarded-for: 198.51.100.7",
            "x-forwarded-host: outer",
            "x-forwarded-proto: https",
            "x-forwarded-prefix: /outer",
        ];
        assert_eq!(
            added(&earlier, "203.0.113.9", "/inner"),
            [
                "x-forwarded-for: 192.0.2.1, 198.51.100.7, 203.0.113.9",
                "x-forwarded-host: outer",
                "x-forwarded-prefix: /outer/inner",
                "x-forwarded-proto: https",
                "x-request-id: id",
            ]
        );
    }

    #[test]
    fn the_certificate_of_the_connection_replaces_what_a_trusted_proxy_says() {
        let id = HeaderValue::from_static("id");
        let own = HeaderValue::from_static("Hash=2");
        for (client_certificate, expected) in [(None, "Hash=1"), (Some(&own), "Hash=2")] {
            let mut message = headers(&["x-forwarded-client-cert: Hash=1"]);
            let added = Added {
                peer: None,
                scheme: "https",
                host: None,
                prefix: "",
                id: &id,
                client_certificate,
                forwarded: false,
            };
            add(&mut message, &added);
            assert_eq!(message.get_all(X_FORWARDED_CLIENT_CERT).iter().collect::<Vec<_>>(), [expected]);
        }
    }

    #[test]
    fn a_request_keeps_its_id_or_gets_one() {
        let made = request_id(&HeaderMap::new());
        assert_eq!(Uuid::parse_str(made.to_str().unwrap()).unwrap().get_version_num(), 7);
        assert_eq!(request_id(&headers(&["x-request-id: mine"])), "mine");
        for unfit in [String::new(), "a b".to_owned(), "x".repeat(MAX_ID + 1)] {
            assert_ne!(request_id(&headers(&[&format!("x-request-id: {unfit}")])), unfit);
        }
    }
}
