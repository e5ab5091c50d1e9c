//! The address of the client, behind trusted proxies: the rightmost one in `X-Forwarded-For` or `Forwarded` that is not trusted.
//!
//! Pure. Every address to the left of that one may be made up. A proxy that extends only one of the two fields passes the other
//! on as its client made it up, so both count only where they say the same: else `Forwarded`, which fewer proxies write, is
//! removed.

use std::net::IpAddr;

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use mesh::head::forwarded::{self, Hop, x_forwarded_address};

use crate::proxy_protocol::is_trusted;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The client's address. `headers` have been stripped of what untrusted peers may not send.
pub fn client_addr(peer: Option<IpAddr>, headers: &HeaderMap, trust: &[IpNet]) -> Option<IpAddr> {
    let peer = peer?.to_canonical();
    if !is_trusted(peer, trust) {
        return Some(peer);
    }
    if headers.contains_key(X_FORWARDED_FOR) || !headers.contains_key(FORWARDED) {
        return Some(walk(peer, from_the_right(headers), trust).0);
    }
    let hops = forwarded::hops(headers);
    Some(walk(peer, hops.iter().rev().map(|hop| hop.address), trust).0)
}

/// Makes what a trusted proxy says agree, once `headers` have been stripped of what untrusted peers may not send. From
/// `Forwarded` alone the `X-Forwarded-*` fields follow, which everything else reads. A `Forwarded` that contradicts them, or is
/// malformed, is removed.
pub fn settle(headers: &mut HeaderMap, peer: Option<IpAddr>, trust: &[IpNet]) {
    if !headers.contains_key(FORWARDED) {
        return;
    }
    forwarded::keep_well_formed(headers);
    let hops = forwarded::hops(headers);
    let Some((peer, last)) = peer.zip(hops.last()) else {
        headers.remove(FORWARDED);
        return;
    };
    let (_, taken) = walk(peer.to_canonical(), hops.iter().rev().map(|hop| hop.address), trust);
    // What the proxy says that the client has reached.
    let of_client = hops.len().checked_sub(taken).and_then(|at| hops.get(at)).unwrap_or(last);
    if !headers.contains_key(X_FORWARDED_FOR) {
        derive(headers, &hops, of_client);
    } else if !agree(headers, &hops, of_client) {
        headers.remove(FORWARDED);
    }
}

/// Writes `X-Forwarded-*` as `Forwarded` says, and removes what it does not say: the client may have made it up.
fn derive(headers: &mut HeaderMap, hops: &[Hop], of_client: &Hop) {
    let shown = |hop: &Hop| hop.address.map_or_else(|| "unknown".to_owned(), |address| address.to_string());
    let addresses = hops.iter().map(shown).collect::<Vec<_>>().join(", ");
    let fields = [
        (X_FORWARDED_FOR, Some(addresses)),
        (X_FORWARDED_PROTO, of_client.scheme.map(ToOwned::to_owned)),
        (X_FORWARDED_HOST, of_client.host.clone()),
    ];
    for (name, value) in fields {
        match value.and_then(|text| HeaderValue::try_from(text).ok()) {
            Some(value) => drop(headers.insert(name, value)),
            None => drop(headers.remove(name)),
        }
    }
}

/// Whether both fields name the same addresses, and the same scheme and host where both name one.
fn agree(headers: &HeaderMap, hops: &[Hop], of_client: &Hop) -> bool {
    let is_same = |name: HeaderName, said: Option<&str>| match (headers.get(name), said) {
        (Some(value), Some(said)) => value.as_bytes().trim_ascii().eq_ignore_ascii_case(said.as_bytes()),
        (None, _) | (_, None) => true,
    };
    from_the_right(headers).eq(hops.iter().rev().map(|hop| hop.address))
        && is_same(X_FORWARDED_PROTO, of_client.scheme)
        && is_same(X_FORWARDED_HOST, of_client.host.as_deref())
}

/// The addresses in `X-Forwarded-For`, the nearest one first; `None` for what is no address.
fn from_the_right(headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
    let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let elements = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    elements.map(|element| std::str::from_utf8(element).ok().and_then(x_forwarded_address))
}

/// The first address that is not trusted, or the last one before something that is no address; and how many were passed to find
/// it, itself included.
fn walk(
    peer: IpAddr,
    from_the_right: impl Iterator<Item = Option<IpAddr>>,
    trust: &[IpNet],
) -> (IpAddr, usize) {
    let (mut client, mut taken) = (peer, 0);
    for address in from_the_right {
        let Some(address) = address.filter(|_| is_trusted(client, trust)) else { break };
        (client, taken) = (address, taken + 1);
    }
    (client, taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust() -> [IpNet; 2] {
        ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]
    }

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_not_trusted() {
        for (peer, lines, client) in [
            ("192.0.2.9", &["1.1.1.1"][..], "192.0.2.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1, 192.0.2.1"], "192.0.2.1"),
            ("10.0.0.1", &["1.1.1.1, 192.0.2.1", "10.0.0.2,10.0.0.3 "], "192.0.2.1"),
            ("::ffff:10.0.0.1", &["192.0.2.1:4711"], "192.0.2.1"),
            ("::1", &["[2001:db8::1]:80"], "2001:db8::1"),
            ("::1", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", &["10.0.0.4, 10.0.0.3"], "10.0.0.4"),
            ("10.0.0.1", &["192.0.2.1, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["192.0.2.1,"], "10.0.0.1"),
        ] {
            let mut message = HeaderMap::new();
            for line in lines {
                message.append(X_FORWARDED_FOR, line.parse().unwrap());
            }
            let found = client_addr(peer.parse().ok(), &message, &trust());
            assert_eq!(found, client.parse().ok(), "{peer} {lines:?}");
        }
        assert_eq!(client_addr(None, &HeaderMap::new(), &trust()), None);
    }

    #[test]
    fn behaviour_5_the_client_behind_a_proxy_that_writes_forwarded_is_found_the_same_way() {
        for (peer, lines, client) in [
            ("192.0.2.9", &["for=1.1.1.1"][..], "192.0.2.9"),
            ("10.0.0.1", &["for=1.1.1.1, for=192.0.2.1;proto=https"], "192.0.2.1"),
            ("10.0.0.1", &["for=1.1.1.1", "for=\"192.0.2.1:1\"", "for=10.0.0.3"], "192.0.2.1"),
            ("::1", &["for=\"[2001:db8::1]:80\""], "2001:db8::1"),
            ("10.0.0.1", &["for=192.0.2.1, for=_hidden, for=10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["for=192.0.2.1, for=\"broken"], "10.0.0.1"),
        ] {
            let mut message = HeaderMap::new();
            for line in lines {
                message.append(FORWARDED, line.parse().unwrap());
            }
            let peer = peer.parse().ok();
            let client = client.parse().ok();
            assert_eq!(client_addr(peer, &message, &trust()), client, "{peer:?} {lines:?}");
            settle(&mut message, peer, &trust());
            assert_eq!(client_addr(peer, &message, &trust()), client, "{peer:?} {lines:?}: {message:?}");
        }
        let both = headers(&["forwarded: for=9.9.9.9", "x-forwarded-for: 8.8.8.8"]);
        assert_eq!(client_addr("10.0.0.1".parse().ok(), &both, &trust()), "8.8.8.8".parse().ok());
    }

    #[test]
    fn both_fields_stay_only_if_they_say_the_same() {
        let (forwarded, x_for) =
            ("forwarded: for=9.9.9.9;proto=https;host=f, for=10.0.0.2", "x-forwarded-for: 9.9.9.9, 10.0.0.2");
        for (lines, stays) in [
            (&[forwarded, x_for][..], true),
            (&[forwarded, x_for, "x-forwarded-proto: HTTPS", "x-forwarded-host: f"], true),
            (&[forwarded, x_for, "x-forwarded-proto: http"], false),
            (&[forwarded, x_for, "x-forwarded-host: g"], false),
            (&[forwarded, "x-forwarded-for: 8.8.8.8, 10.0.0.2"], false),
            (&[forwarded, "x-forwarded-for: 10.0.0.2"], false),
            (&["forwarded: for=unknown", "x-forwarded-for: unknown"], true),
            (&["forwarded: for=\"oops", "x-forwarded-for: 9.9.9.9"], false),
            (&["forwarded: for=\"oops"], false),
            (&["forwarded: "], false),
        ] {
            let mut message = headers(lines);
            let others = message.len() - usize::from(message.contains_key(FORWARDED));
            settle(&mut message, "10.0.0.1".parse().ok(), &trust());
            assert_eq!(message.contains_key(FORWARDED), stays, "{lines:?}");
            assert_eq!(message.len(), others + usize::from(stays), "{lines:?}: nothing else changes");
        }
    }

    #[test]
    fn from_forwarded_alone_the_other_fields_follow() {
        let mut message = headers(&[
            "forwarded: for=6.6.6.6;proto=http;host=evil, for=9.9.9.9;proto=https;host=\"f.example:1\"",
            "forwarded: for=\"[2001:db8::1]\", for=10.0.0.3;proto=http;host=inner",
            "x-forwarded-proto: http",
        ]);
        let trust = ["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        settle(&mut message, "10.0.0.1".parse().ok(), &trust);
        for (name, expected) in [
            (X_FORWARDED_FOR, "6.6.6.6, 9.9.9.9, 2001:db8::1, 10.0.0.3"),
            (X_FORWARDED_PROTO, "https"),
            (X_FORWARDED_HOST, "f.example:1"),
        ] {
            assert_eq!(message[&name], expected);
        }
        assert_eq!(message.get_all(FORWARDED).iter().count(), 2);
    }

    #[test]
    fn what_forwarded_does_not_say_is_not_taken_from_fields_that_the_client_made_up() {
        let mut message = headers(&[
            "forwarded: for=192.0.2.1",
            "x-forwarded-proto: https",
            "x-forwarded-host: evil.example",
        ]);
        settle(&mut message, "10.0.0.1".parse().ok(), &trust());
        assert_eq!(message, headers(&["forwarded: for=192.0.2.1", "x-forwarded-for: 192.0.2.1"]));
    }
}
