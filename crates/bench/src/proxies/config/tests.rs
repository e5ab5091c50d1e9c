use std::net::Ipv4Addr;

use super::*;
use crate::proxies::certificate::Certificate;

fn addr(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn addresses() -> Addresses {
    Addresses { http1: addr(1), http2: addr(2), tls: addr(3) }
}

fn site() -> Site {
    Site { backends: [addr(8), addr(9)], certificate: Certificate::of(Path::new("/run")) }
}

/// The texts of all configurations of a layer.
fn all(layer: Layer) -> Vec<(&'static str, String)> {
    let (addresses, site) = (addresses(), site());
    let nginx = |is_mainline| nginx(layer, &addresses, &site, Path::new("/n"), is_mainline);
    let (arguments, routes) = traefik(layer, &addresses, &site, Path::new("/routes.yaml"));
    let mut all = vec![
        ("nginx", nginx(false)),
        ("nginx-mainline", nginx(true)),
        ("haproxy", haproxy(layer, &addresses, &site)),
        ("envoy", envoy(layer, &addresses, &site).to_string()),
        ("traefik", format!("{} {routes}", arguments.join(" "))),
    ];
    if layer == Layer::Http {
        all.push(("caddy", caddy(&addresses, &site)));
    }
    all
}

/// Whether the text has an address, in one piece or as Envoy and Caddy write it.
fn has(text: &str, port: u16) -> bool {
    text.contains(&format!("127.0.0.1:{port}"))
        || text.contains(&format!("\"port_value\":{port}}}"))
        || text.contains(&format!("://:{port} {{"))
}

#[test]
fn every_proxy_listens_on_its_addresses_and_uses_both_backends() {
    for (name, text) in all(Layer::Http) {
        for port in [1, 2, 3, 8, 9] {
            assert!(has(&text, port), "{name} has no {port}:\n{text}");
        }
        assert!(text.contains("/run/tls."), "{name} has no certificate:\n{text}");
    }
}

#[test]
fn without_requests_there_is_one_address_and_no_certificate() {
    for (name, text) in all(Layer::Tcp) {
        for (port, is_used) in [(1, true), (2, false), (3, false), (8, true), (9, true)] {
            assert_eq!(has(&text, port), is_used, "{name}, {port}:\n{text}");
        }
        assert!(!text.contains("/run/tls."), "{name} has a certificate:\n{text}");
    }
}

#[test]
fn braces_are_balanced() {
    for layer in [Layer::Http, Layer::Tcp] {
        for (name, text) in all(layer) {
            assert_eq!(text.matches('{').count(), text.matches('}').count(), "{name}:\n{text}");
        }
    }
    let text = backend(&site().backends, Path::new("/b"), Path::new("/b/files"));
    assert_eq!(text.matches('{').count(), text.matches('}').count(), "{text}");
    assert!(has(&text, 8) && has(&text, 9) && text.contains("root /b/files;"), "{text}");
}

#[test]
fn only_debians_nginx_loads_a_module_and_names_http2_for_each_address() {
    let nginx = |layer, is_mainline| nginx(layer, &addresses(), &site(), Path::new("/n"), is_mainline);
    assert!(nginx(Layer::Tcp, false).starts_with("load_module "));
    assert!(!nginx(Layer::Tcp, true).contains("load_module"));
    assert!(nginx(Layer::Http, false).contains("ssl http2"));
    assert!(nginx(Layer::Http, true).contains("http2 on;"));
}
