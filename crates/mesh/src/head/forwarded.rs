//! `Forwarded` (RFC 7239): what each proxy on the way of a request says about the connection that it received.
//!
//! Pure. Read leniently where the meaning is clear (`for=[2001:db8::1]:80` without quotation marks), and written strictly.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, HeaderMap, HeaderValue};
use http::uri::Authority;

/// What one proxy says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hop {
    /// From where it was sent the request; `None` if that is unknown or obfuscated (`unknown`, `_gazonk`).
    pub address: Option<IpAddr>,
    /// The scheme, `http` or `https`.
    pub scheme: Option<&'static str>,
    /// The `Host` of the request.
    pub host: Option<String>,
}

/// What the proxies say, the nearest one last. Of several lines those before a malformed one do not count, nor does that one:
/// every proxy appends what it says, so only what comes after it may be from a proxy that can be trusted.
pub fn hops(headers: &HeaderMap) -> Vec<Hop> {
    well_formed(headers).into_iter().flat_map(|(_, hops)| hops).collect()
}

/// Removes the lines up to the last malformed one.
pub fn keep_well_formed(headers: &mut HeaderMap) {
    let kept: Vec<HeaderValue> = well_formed(headers).into_iter().map(|(line, _)| line.clone()).collect();
    if kept.len() < headers.get_all(FORWARDED).iter().count() {
        headers.remove(FORWARDED);
        for line in kept {
            headers.append(FORWARDED, line);
        }
    }
}

/// The lines after the last malformed one.
fn well_formed(headers: &HeaderMap) -> Vec<(&HeaderValue, Vec<Hop>)> {
    let lines = headers.get_all(FORWARDED).iter().rev();
    let mut lines: Vec<_> = lines.map_while(|line| Some((line, parse(line.to_str().ok()?)?))).collect();
    lines.reverse();
    lines
}

/// Appends the address of the other end of the connection to what was said before.
pub(super) fn extend(headers: &mut HeaderMap, peer: IpAddr) {
    let mut text = String::new();
    for earlier in headers.get_all(FORWARDED).iter().filter_map(|value| value.to_str().ok()) {
        text.extend([earlier, ", "]);
    }
    push(&mut text, &Hop { address: Some(peer), ..Hop::default() });
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(FORWARDED, value);
    }
}

/// `Forwarded` with what `X-Forwarded-*` say: the scheme and the host are those of the client, which is the first.
pub(super) fn of_x_forwarded(headers: &HeaderMap) -> Option<HeaderValue> {
    let lines = headers.get_all(super::forward::X_FORWARDED_FOR).iter().filter_map(|line| line.to_str().ok());
    let addresses = lines.flat_map(|line| line.split(',')).map(x_forwarded_address);
    let mut hops: Vec<_> = addresses.map(|address| Hop { address, ..Hop::default() }).collect();
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let first = hops.first_mut()?;
    first.scheme = text(super::forward::X_FORWARDED_PROTO).and_then(|text| known_scheme(text.trim()));
    first.host = text(super::forward::X_FORWARDED_HOST).and_then(|text| known_host(text.to_owned()));
    value(&hops)
}

/// `Forwarded` for these hops.
fn value(hops: &[Hop]) -> Option<HeaderValue> {
    let mut text = String::new();
    for hop in hops {
        if !text.is_empty() {
            text.push_str(", ");
        }
        push(&mut text, hop);
    }
    HeaderValue::try_from(text).ok()
}

fn push(text: &mut String, hop: &Hop) {
    let written = match hop.address.map(|address| address.to_canonical()) {
        None => write!(text, "for=unknown"),
        Some(IpAddr::V4(address)) => write!(text, "for={address}"),
        Some(IpAddr::V6(address)) => write!(text, "for=\"[{address}]\""),
    };
    written.expect("a string takes every text");
    if let Some(host) = &hop.host {
        // A host with a port needs the quotation marks.
        text.extend([";host=\"", host, "\""]);
    }
    if let Some(scheme) = hop.scheme {
        text.extend([";proto=", scheme]);
    }
}

/// The elements of one line; `None` if it is malformed.
fn parse(line: &str) -> Option<Vec<Hop>> {
    let mut rest = line.trim_start();
    let mut hops = Vec::new();
    loop {
        // A list may have empty elements (RFC 9110, section 5.6.1).
        while let Some(behind) = rest.strip_prefix(',') {
            rest = behind.trim_start();
        }
        if rest.is_empty() {
            return Some(hops);
        }
        let (hop, behind) = element(rest)?;
        hops.push(hop);
        rest = behind;
        if !(rest.is_empty() || rest.starts_with(',')) {
            return None;
        }
    }
}

/// The first element, and what is behind it.
fn element(mut rest: &str) -> Option<(Hop, &str)> {
    let (mut address, mut scheme, mut host) = (None, None, None);
    loop {
        let (name, behind) = rest.split_once('=')?;
        if name.is_empty() || !name.bytes().all(is_token) {
            return None;
        }
        let (value, behind) = value_of(behind)?;
        let is_new = match name.to_ascii_lowercase().as_str() {
            "for" => address.replace(node(&value)).is_none(),
            "proto" => scheme.replace(known_scheme(&value)).is_none(),
            "host" => host.replace(known_host(value)).is_none(),
            _ => true,
        };
        if !is_new {
            return None;
        }
        rest = behind.trim_start();
        match rest.strip_prefix(';') {
            Some(behind) => rest = behind.trim_start(),
            None => break,
        }
        // A semicolon at the end is an empty pair.
        if rest.is_empty() || rest.starts_with(',') {
            break;
        }
    }
    let hop = Hop { address: address.flatten(), scheme: scheme.flatten(), host: host.flatten() };
    Some((hop, rest))
}

/// A token or a quoted string, and what is behind it.
fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        // Nodes with a port or an IPv6 address should be quoted, and often are not.
        let is_value = |byte: u8| is_token(byte) || matches!(byte, b':' | b'[' | b']');
        let end = text.bytes().position(|byte| !is_value(byte)).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(letters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The address in `192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]` or `[2001:db8::1]:80`; also where the port is obfuscated.
fn node(text: &str) -> Option<IpAddr> {
    let (host, port) = match text.strip_prefix('[').map(|text| text.split_once(']')) {
        Some(inside) => inside?,
        None => text.split_once(':').map_or((text, ""), |(host, _)| (host, &text[host.len()..])),
    };
    let is_port = |port: &str| {
        port.parse::<u16>().is_ok() || (port.len() > 1 && port.starts_with('_') && port.bytes().all(is_token))
    };
    let is_fine = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
    let address: IpAddr = host.parse().ok().filter(|_| is_fine)?;
    (address.is_ipv6() == text.starts_with('[')).then(|| address.to_canonical())
}

fn known_scheme(text: &str) -> Option<&'static str> {
    ["http", "https"].into_iter().find(|known| known.eq_ignore_ascii_case(text))
}

/// A host that can be written into `X-Forwarded-Host` and back.
fn known_host(text: String) -> Option<String> {
    let is_fine = text.parse::<Authority>().is_ok_and(|host| !host.as_str().contains(['@', '"', '\\']));
    is_fine.then_some(text)
}

/// An address in `X-Forwarded-For`, with or without a port: `192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]:80`.
pub fn x_forwarded_address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::super::testing::headers;
    use super::*;

    fn addresses(lines: &[&str]) -> Vec<String> {
        let lines: Vec<_> = lines.iter().map(|line| format!("forwarded: {line}")).collect();
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        let shown = |hop: Hop| hop.address.map_or_else(|| "-".to_owned(), |address| address.to_string());
        hops(&headers(&lines)).into_iter().map(shown).collect()
    }

    #[test]
    fn every_form_of_an_address_is_read() {
        for (line, expected) in [
            ("for=192.0.2.43", &["192.0.2.43"][..]),
            ("For=\"192.0.2.43:47011\"", &["192.0.2.43"]),
            ("for=192.0.2.43:47011", &["192.0.2.43"]),
            ("for=\"192.0.2.43:_gazonk\"", &["192.0.2.43"]),
            ("for=\"[2001:db8:cafe::17]:4711\"", &["2001:db8:cafe::17"]),
            ("for=\"[2001:db8:cafe::17]\"", &["2001:db8:cafe::17"]),
            ("for=[2001:db8::1]:80;proto=http", &["2001:db8::1"]),
            ("for=\"[::ffff:192.0.2.1]\"", &["192.0.2.1"]),
            ("for=\"\\1.2.3.4\"", &["1.2.3.4"]),
            ("for=192.0.2.43, for=198.51.100.17", &["192.0.2.43", "198.51.100.17"]),
            ("proto=http;by=203.0.113.43;for=192.0.2.60 , for=1.1.1.1;", &["192.0.2.60", "1.1.1.1"]),
            ("for=_gazonk, for=unknown, proto=https", &["-", "-", "-"]),
            ("for=\"a, for=9.9.9.9\";host=h", &["-"]),
            ("for=2001:db8::1", &["-"]),
            ("for=\"192.0.2.1:99999\"", &["-"]),
            (", ,for=1.1.1.1,,", &["1.1.1.1"]),
            ("", &[]),
        ] {
            assert_eq!(addresses(&[line]), expected, "{line}");
        }
    }

    #[test]
    fn a_malformed_line_and_those_before_it_do_not_count() {
        for malformed in [
            "for",
            "for=",
            "=1.1.1.1",
            "for=\"1.1.1.1",
            "for=1.1.1.1 for=2.2.2.2",
            "for=1.1.1.1;for=2.2.2.2",
            "f r=1",
            "for=a\"b",
        ] {
            assert!(addresses(&[malformed]).is_empty(), "{malformed}");
            assert_eq!(addresses(&["for=1.1.1.1", malformed, "for=2.2.2.2"]), ["2.2.2.2"], "{malformed}");
            let mut message = headers(&[&format!("forwarded: {malformed}"), "forwarded: for=2.2.2.2"]);
            keep_well_formed(&mut message);
            assert_eq!(message.get_all(FORWARDED).iter().collect::<Vec<_>>(), ["for=2.2.2.2"]);
        }
    }

    #[test]
    fn scheme_and_host_are_read() {
        let line =
            "forwarded: for=1.1.1.1;Proto=HTTPS;host=\"shop.example:8443\", for=a;proto=ftp;host=\"a b\"";
        let expected = Hop {
            address: "1.1.1.1".parse().ok(),
            scheme: Some("https"),
            host: Some("shop.example:8443".to_owned()),
        };
        assert_eq!(hops(&headers(&[line])), [expected, Hop::default()]);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let hops_before = vec![
            Hop { address: "2001:db8::1".parse().ok(), scheme: Some("https"), host: Some("a:1".to_owned()) },
            Hop::default(),
        ];
        let written = value(&hops_before).unwrap();
        assert_eq!(written, "for=\"[2001:db8::1]\";host=\"a:1\";proto=https, for=unknown");
        let mut message = HeaderMap::new();
        message.insert(FORWARDED, written);
        extend(&mut message, "192.0.2.1".parse().unwrap());
        let after = hops(&message);
        assert_eq!((&after[..2], after[2].address), (&hops_before[..], "192.0.2.1".parse().ok()));
    }

    #[test]
    fn no_text_makes_the_parser_panic() {
        let pieces = [
            "for", "=", "\"", "\\", ",", ";", "[", "]", ":", "::1", "1.1.1.1", "_", " ", "é", "proto", "host",
        ];
        let mut state = 1_u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..8 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                text += pieces[usize::try_from(state >> 60).unwrap()];
            }
            for hop in parse(&text).into_iter().flatten() {
                let again = value(std::slice::from_ref(&hop)).unwrap();
                assert_eq!(parse(again.to_str().unwrap()).unwrap(), [hop], "{text}");
            }
        }
    }
}
