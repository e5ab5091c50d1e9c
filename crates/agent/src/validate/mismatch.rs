//! Compares what a service sends to a listener with what that listener expects: where they differ, each connection would fail
//! although both services are healthy. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use plugin::proxy_protocol::is_trusted;
use plugin::{ListenSetting, SentContent, SettingsMistake, TargetListener, TargetSetting};

/// Why no connection to the listener that a target names can work. `is_proxy`: it is one of a gateway or a balancer, whose
/// settings decide about the PROXY protocol. `is_local`: all members are on this machine and use its loopback addresses.
pub(super) fn mismatches(
    target: &TargetSetting,
    wanted: &TargetListener,
    listener: &ListenSetting,
    is_proxy: bool,
    is_local: bool,
) -> Vec<SettingsMistake> {
    let TargetListener { pointer: named, sends, .. } = wanted;
    let theirs = format!("listener `{}` of `{}`", listener.name, target.service);
    let here = named.as_deref().unwrap_or(&target.pointer);
    let of = |key: &str| format!("{}/{key}", sends.place);
    // Where connections to a loopback address come from.
    let from: IpAddr = match listener.address.ip() {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let (proxies, http) = (&listener.expects.proxies, listener.expects.http);
    let mut found = Vec::new();
    let mut add = |pointer: &str, message: String, hint: String| {
        found.push(SettingsMistake::new(pointer, message).hint(hint));
    };
    match proxies {
        None if sends.proxy_protocol => {
            let message = format!("{theirs} has no `proxy_protocol`, so it would refuse each connection");
            let trust = match is_local {
                true => format!("`trust: [{from}]`"),
                false => "`trust`, the addresses of the balancers,".to_owned(),
            };
            let hint = match is_proxy {
                true => {
                    format!("write `proxy_protocol: true` and {trust} in that listener, or leave this out")
                }
                false => "leave it out".to_owned(),
            };
            add(&of("send_proxy_protocol"), message, hint);
        }
        Some(_) if sends.content == SentContent::Http1 => {
            let message = format!(
                "{theirs} has `proxy_protocol`, which is not sent with `mode: http`, so it would refuse each connection"
            );
            let hint = "leave `proxy_protocol` out there (its `trust` lets it believe `X-Forwarded-For`), or write \
                        `mode: tcp` and `send_proxy_protocol: v2` here";
            add(&of("mode"), message, hint.to_owned());
        }
        Some(_) if !sends.proxy_protocol => {
            let message = format!("{theirs} has `proxy_protocol`, so it would refuse each connection");
            let hint =
                "write `send_proxy_protocol: v2` in this listener, or leave `proxy_protocol` out there";
            add(here, message, hint.to_owned());
        }
        Some(trust) if is_local => {
            if !is_trusted(from, trust) {
                let message = format!(
                    "connections to {theirs} come from {from}, which its `trust` does not contain, so it would refuse each"
                );
                add(here, message, format!("add `{from}` to its `trust`"));
            }
        }
        Some(_) | None => {}
    }
    let Some(http) = http else { return found };
    match sends.content {
        SentContent::Http1 if http.tls => {
            let message =
                format!("{theirs} has TLS, and with `mode: http` requests are sent to members without TLS");
            let hint =
                "name a listener without `tls`, or write `mode: tcp`, so that it ends the TLS of clients";
            add(&of("mode"), message, hint.to_owned());
        }
        SentContent::Http1 if !http.http1 => {
            let message = format!(
                "{theirs} speaks HTTP/2 only, and with `mode: http` requests are sent to members in HTTP/1.1"
            );
            let hint = "add `http1` to its `protocols`, or write `mode: tcp`";
            add(&of("mode"), message, hint.to_owned());
        }
        SentContent::Tls if !http.tls => {
            let message = format!("{theirs} has no TLS, and connections that `sni` chooses have it");
            add(here, message, "name a listener with `tls`, or give it one".to_owned());
        }
        SentContent::Http1 | SentContent::Tls | SentContent::Bytes => {}
    }
    found
}

#[cfg(test)]
mod tests {
    use plugin::{ExpectedHttp, Expects, Sends};

    use super::*;

    const PLAIN: Option<ExpectedHttp> = Some(ExpectedHttp { tls: false, http1: true });
    const TLS: Option<ExpectedHttp> = Some(ExpectedHttp { tls: true, http1: true });
    const HTTP2: Option<ExpectedHttp> = Some(ExpectedHttp { tls: false, http1: false });

    /// Where the mistakes are, with their messages and hints. `trust` is that of a listener with `proxy_protocol`.
    fn found(
        sends: (bool, SentContent),
        trust: Option<&str>,
        http: Option<ExpectedHttp>,
        is_local: bool,
    ) -> Vec<[String; 3]> {
        let (proxy_protocol, content) = sends;
        let target = TargetSetting {
            pointer: "/listeners/0/service".to_owned(),
            service: "edge".parse().unwrap(),
            listener: None,
        };
        let wanted = TargetListener {
            name: "web".to_owned(),
            pointer: Some("/listeners/0/listener".to_owned()),
            may_be_api: true,
            sends: Sends { place: "/listeners/0".to_owned(), proxy_protocol, content },
        };
        let listener = ListenSetting {
            pointer: "/listeners/0/address".to_owned(),
            name: "web".to_owned(),
            address: "127.0.0.1:0".parse().unwrap(),
            expects: Expects { proxies: trust.map(|network| vec![network.parse().unwrap()]), http },
        };
        let all = mismatches(&target, &wanted, &listener, true, is_local).into_iter();
        all.map(|found| [found.pointer, found.message, found.hint.unwrap_or_default()]).collect()
    }

    #[test]
    fn what_fits_is_no_mistake() {
        let (bytes, requests, tls) = (SentContent::Bytes, SentContent::Http1, SentContent::Tls);
        for (sends, trust, http) in [
            ((false, bytes), None, PLAIN),
            ((false, bytes), None, TLS),
            ((false, bytes), None, HTTP2),
            ((true, bytes), Some("127.0.0.0/8"), PLAIN),
            ((true, tls), Some("127.0.0.1/32"), TLS),
            ((false, tls), None, TLS),
            ((false, tls), None, None),
            ((false, requests), None, PLAIN),
            ((false, requests), None, None),
        ] {
            assert_eq!(found(sends, trust, http, true), [[""; 3]; 0], "{sends:?} {trust:?} {http:?}");
        }
        assert_eq!(
            found((true, bytes), Some("10.0.0.0/8"), PLAIN, false),
            [[""; 3]; 0],
            "it may come from there"
        );
    }

    #[test]
    fn what_cannot_work_is_a_mistake_at_the_setting_that_decides_it() {
        let (bytes, requests, tls) = (SentContent::Bytes, SentContent::Http1, SentContent::Tls);
        for (sends, trust, http, expected) in [
            (
                (true, bytes),
                None,
                PLAIN,
                vec![["/listeners/0/send_proxy_protocol", "has no `proxy_protocol`", "`trust: [127.0.0.1]`"]],
            ),
            (
                (false, bytes),
                Some("127.0.0.0/8"),
                PLAIN,
                vec![["/listeners/0/listener", "has `proxy_protocol`", "`send_proxy_protocol: v2`"]],
            ),
            (
                (true, bytes),
                Some("10.0.0.0/8"),
                PLAIN,
                vec![["/listeners/0/listener", "come from 127.0.0.1", "add `127.0.0.1`"]],
            ),
            (
                (false, requests),
                Some("127.0.0.0/8"),
                PLAIN,
                vec![["/listeners/0/mode", "not sent with `mode: http`", "`mode: tcp`"]],
            ),
            ((false, requests), None, TLS, vec![["/listeners/0/mode", "has TLS", "without `tls`"]]),
            ((false, requests), None, HTTP2, vec![["/listeners/0/mode", "HTTP/2 only", "add `http1`"]]),
            (
                (false, tls),
                None,
                PLAIN,
                vec![["/listeners/0/listener", "has no TLS", "a listener with `tls`"]],
            ),
            (
                (false, requests),
                Some("127.0.0.0/8"),
                TLS,
                vec![
                    ["/listeners/0/mode", "not sent with `mode: http`", "`mode: tcp`"],
                    ["/listeners/0/mode", "has TLS", "without `tls`"],
                ],
            ),
        ] {
            let all = found(sends, trust, http, true);
            assert_eq!(all.len(), expected.len(), "{all:?}");
            for (mistake, words) in all.iter().zip(expected) {
                let is_as_expected = mistake.iter().zip(words).all(|(found, words)| found.contains(words));
                assert!(is_as_expected && mistake[1].contains("listener `web` of `edge`"), "{mistake:?}");
            }
        }
    }

    #[test]
    fn the_listeners_of_a_manifest_are_compared() {
        let request = |balancer: serde_json::Value| {
            serde_json::json!({
                "services": {
                    "load_balancer": {"listeners": [balancer]},
                    "api_gateway": {"listeners": [{
                        "name": "web", "address": "127.0.0.1:0", "proxy_protocol": true, "trust": ["127.0.0.0/8"],
                    }]},
                },
                "roles": ["load_balancer", "api_gateway"],
                "insecure": false,
            })
        };
        for (more, expected) in [
            (serde_json::json!({"send_proxy_protocol": "v2"}), &[][..]),
            (serde_json::json!({}), &["/listeners/0/listener"]),
            (serde_json::json!({"mode": "http"}), &["/listeners/0/mode"]),
        ] {
            let mut balancer = serde_json::json!({
                "name": "front", "address": "127.0.0.1:0", "service": "api_gateway", "listener": "web",
            });
            balancer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let request = serde_json::from_value(request(balancer)).unwrap();
            let answer = crate::validate::answer(&crate::builtin(), request);
            let places: Vec<_> = answer.mistakes.iter().map(|found| found.mistake.pointer.as_str()).collect();
            assert_eq!((&places[..], answer.warnings.len()), (expected, 0), "{:?}", answer.mistakes);
        }
    }
}
