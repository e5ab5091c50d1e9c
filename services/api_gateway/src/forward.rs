//! The headers that tell a service behind the gateway who asked: `X-Forwarded-*` and `X-Request-Id`.
//!
//! Pure. What a client says of itself is passed on and added to, so a service trusts only the last entries.

use std::net::IpAddr;

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use types::api;
use uuid::Uuid;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// The header with the id of a request.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static(api::REQUEST_ID);

/// The longest id that a client may give its request.
const MAX_ID: usize = 128;

/// Says who asked, for which host, and over what.
pub(crate) fn add_forwarded(headers: &mut HeaderMap, client: Option<IpAddr>, asked_host: Option<&str>) {
    if let Some(client) = client {
        add_forwarded_for(headers, client);
    }
    if !headers.contains_key(X_FORWARDED_HOST) {
        let host = asked_host
            .and_then(|host| HeaderValue::from_str(host).ok())
            .or_else(|| headers.get(HOST).cloned());
        if let Some(host) = host {
            headers.insert(X_FORWARDED_HOST, host);
        }
    }
    headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
}

fn add_forwarded_for(headers: &mut HeaderMap, client: IpAddr) {
    let client = client.to_canonical().to_string();
    let earlier = headers.get_all(X_FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let whole = earlier.chain([client.as_str()]).collect::<Vec<_>>().join(", ");
    if let Ok(value) = whole.try_into() {
        headers.insert(X_FORWARDED_FOR, value);
    }
}

/// Says which prefix was taken off the path. Those of gateways on the way add up.
pub(crate) fn add_prefix(headers: &mut HeaderMap, prefix: &str) {
    if prefix.is_empty() {
        return;
    }
    let earlier = headers.get(X_FORWARDED_PREFIX).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if let Ok(value) = [earlier, prefix].concat().try_into() {
        headers.insert(X_FORWARDED_PREFIX, value);
    }
}

/// The id of a request: the client's, or a new one if that is none or unfit to be logged.
pub(crate) fn request_id(headers: &mut HeaderMap) -> HeaderValue {
    let given = headers.get(REQUEST_ID).filter(|id| {
        let bytes = id.as_bytes();
        !bytes.is_empty() && bytes.len() <= MAX_ID && bytes.iter().all(u8::is_ascii_graphic)
    });
    if let Some(id) = given {
        return id.clone();
    }
    let mut text = Uuid::encode_buffer();
    let id = Uuid::now_v7().hyphenated().encode_lower(&mut text);
    let id = HeaderValue::from_str(id).expect("digits and hyphens fit into a header");
    headers.insert(REQUEST_ID, id.clone());
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asked_is_added_to_what_the_client_said() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("shop.example"));
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        add_forwarded(&mut headers, Some(client), None);
        assert_eq!(headers[X_FORWARDED_FOR], "192.0.2.1");
        assert_eq!(headers[X_FORWARDED_HOST], "shop.example");
        assert_eq!(headers[X_FORWARDED_PROTO], "http");

        headers.append(X_FORWARDED_FOR, HeaderValue::from_static("198.51.100.7"));
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("https"));
        add_forwarded(&mut headers, "::ffff:203.0.113.9".parse().ok(), Some("inner"));
        assert_eq!(headers[X_FORWARDED_FOR], "192.0.2.1, 198.51.100.7, 203.0.113.9");
        assert_eq!(headers.get_all(X_FORWARDED_FOR).iter().count(), 1);
        assert_eq!(headers[X_FORWARDED_HOST], "shop.example");
        assert_eq!(headers[X_FORWARDED_PROTO], "https");
    }

    #[test]
    fn a_request_keeps_its_id_or_gets_one() {
        let mut headers = HeaderMap::new();
        let made = request_id(&mut headers);
        assert_eq!(Uuid::parse_str(made.to_str().unwrap()).unwrap().get_version_num(), 7);
        assert_eq!(request_id(&mut headers), made);
        for unfit in ["", "a b", &"x".repeat(MAX_ID + 1)] {
            headers.insert(REQUEST_ID, HeaderValue::from_str(unfit).unwrap());
            assert_ne!(request_id(&mut headers), unfit);
        }
    }

    #[test]
    fn prefixes_of_gateways_on_the_way_add_up() {
        let mut headers = HeaderMap::new();
        add_prefix(&mut headers, "");
        assert!(headers.is_empty());
        add_prefix(&mut headers, "/outer");
        add_prefix(&mut headers, "/inner");
        assert_eq!(headers[X_FORWARDED_PREFIX], "/outer/inner");
    }
}
