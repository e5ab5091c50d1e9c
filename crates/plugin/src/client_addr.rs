//! The address of the client, behind trusted proxies: the rightmost one in `X-Forwarded-For` that is not trusted.
//!
//! Pure. Every address to the left of that one may be made up.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

use crate::proxy_protocol::is_trusted;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The client's address. `headers` have been stripped of what untrusted peers may not send.
pub fn client_addr(peer: Option<IpAddr>, headers: &HeaderMap, trust: &[IpNet]) -> Option<IpAddr> {
    let mut client = peer?.to_canonical();
    if !is_trusted(client, trust) {
        return Some(client);
    }
    let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
    for element in lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b',')) {
        let Some(address) = std::str::from_utf8(element).ok().and_then(parsed) else { break };
        client = address;
        if !is_trusted(client, trust) {
            break;
        }
    }
    Some(client)
}

/// An address, with or without a port: `192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]:80`.
fn parsed(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_the_rightmost_address_that_is_not_trusted() {
        let trust = ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
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
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(X_FORWARDED_FOR, line.parse().unwrap());
            }
            let found = client_addr(peer.parse().ok(), &headers, &trust);
            assert_eq!(found, client.parse().ok(), "{peer} {lines:?}");
        }
        assert_eq!(client_addr(None, &HeaderMap::new(), &trust), None);
    }
}
