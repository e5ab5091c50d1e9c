//! What a proxy changes in the head of a message: hop-by-hop headers, hops, the raw path.
//!
//! RFC 9110, section 7.6.1. Pure.

use http::StatusCode;
use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use types::{Epoch, api};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const PROXY_AUTHENTICATION_INFO: HeaderName = HeaderName::from_static("proxy-authentication-info");
const HOPS: HeaderName = HeaderName::from_static(api::HOPS);
const EPOCH: HeaderName = HeaderName::from_static(api::EPOCH);
const NOT_PROCESSED: HeaderName = HeaderName::from_static(api::NOT_PROCESSED);

/// How often a request may be passed on between nodes.
pub(crate) const MAX_HOPS: u32 = 4;

const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHENTICATION_INFO,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Takes out what is meant for one connection only. `TE: trailers` stays, since trailers are passed on.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // Most messages have none of them, and looking is cheaper than removing.
    if !headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let takes_trailers = tokens(headers, &TE).any(|token| token.eq_ignore_ascii_case("trailers"));
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// Counts one hop more. Nothing if the request has been passed on too often already.
pub(crate) fn next_hop(headers: &HeaderMap) -> Option<u32> {
    let hops = headers
        .get_all(HOPS)
        .iter()
        .map(|value| value.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(0))
        .max()
        .unwrap_or(0);
    (hops < MAX_HOPS).then_some(hops + 1)
}

/// Writes the number of hops, whatever was there.
pub(crate) fn set_hops(headers: &mut HeaderMap, hops: u32) {
    headers.insert(HOPS, HeaderValue::from(hops));
}

/// Whether an answer says that the request was not acted upon.
pub(crate) fn is_not_processed<B>(response: &http::Response<B>) -> bool {
    matches!(response.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::MISDIRECTED_REQUEST)
        && response.headers().contains_key(NOT_PROCESSED)
}

/// The epoch of a shard's owner, in the answer of somebody who does not own it.
pub(crate) fn owner_epoch(headers: &HeaderMap) -> Option<Epoch> {
    headers.get(EPOCH)?.to_str().ok()?.parse().ok().map(Epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn what_belongs_to_one_connection_is_taken_out() {
        let mut message = headers(&[
            ("connection", "close, X-Private"),
            ("connection", "x-other ,,"),
            ("x-private", "1"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "secret"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip, Trailers;q=1"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("trailer", "checksum"),
            ("accept", "*/*"),
        ]);
        strip_hop_by_hop(&mut message);
        assert_eq!(message, headers(&[("trailer", "checksum"), ("accept", "*/*")]));
    }

    #[test]
    fn that_trailers_are_taken_is_passed_on() {
        let mut message = headers(&[("te", "gzip, trailers"), ("connection", "te")]);
        strip_hop_by_hop(&mut message);
        assert_eq!(message, headers(&[("te", "trailers")]));
    }

    #[test]
    fn hops_are_counted_up_to_a_limit() {
        for (before, after) in [
            (&[][..], Some(1)),
            (&["0"], Some(1)),
            (&["3"], Some(4)),
            (&["4"], None),
            (&["99999"], None),
            (&["nonsense"], Some(1)),
            (&["1", "4"], None),
        ] {
            let pairs: Vec<_> = before.iter().map(|value| (api::HOPS, *value)).collect();
            assert_eq!(next_hop(&headers(&pairs)), after, "{before:?}");
        }
    }
}
