//! What the certificates that settings name would serve: for `ctl validate`, which reads the files before a gateway does.

use std::path::Path;

use plugin::{CertificateFacts, CertificateFiles, ClientAuth, SettingsMistake, server_ca_warning};
use serde_json::Value;

use super::Settings;
use crate::host::HostRule;

/// Certificates and CAs, of clients and of servers, that can't be used, certificates that have expired, and hosts of routes that no certificate covers.
///
/// All are warnings: the files may be made later, or be on another machine. If a certificate can't be read, its names are
/// not known, so nothing is said about hosts.
pub(crate) fn warnings(
    settings: &Value,
    now: i64,
    read: impl Fn(&CertificateFiles) -> Result<CertificateFacts, String>,
    check: impl Fn(&ClientAuth) -> Result<(), String>,
    check_servers: impl Fn(&Path) -> Result<(), String>,
) -> Vec<SettingsMistake> {
    let Ok(settings) = plugin::parse_settings::<Settings>(settings) else { return Vec::new() };
    let mut warnings = Vec::new();
    let mut names = Vec::new();
    let mut has_all = true;
    for (listener, of) in settings.listeners.iter().enumerate() {
        if let Some(tls) = &of.tls {
            let pointer = format!("/listeners/{listener}/tls");
            tls.client_warnings(&pointer, &check, &mut warnings);
            match tls.warnings(&format!("{pointer}/certificates"), now, &read, &mut warnings) {
                Some(more) => names.extend(more),
                None => has_all = false,
            }
        }
    }
    for (route, of) in settings.routes.iter().enumerate() {
        warnings.extend(server_ca_warning(&format!("/routes/{route}/ca"), of.ca.as_deref(), &check_servers));
    }
    let has_tls = settings.listeners.iter().any(|listener| listener.tls.is_some());
    if !has_tls || !has_all {
        return warnings;
    }
    for (route, of) in settings.routes.iter().enumerate() {
        for (at, host) in of.hosts.iter().enumerate() {
            if host.parse::<HostRule>().is_ok_and(|host| !is_covered(&host, &names)) {
                let message = format!(
                    "no certificate covers `{host}`: clients that reach it over TLS refuse the connection"
                );
                let hint = match names.as_slice() {
                    [] => "add a certificate with this name to `tls` of a listener".to_owned(),
                    names => format!("add a certificate with this name; there are: {}", names.join(", ")),
                };
                warnings
                    .push(SettingsMistake::new(format!("/routes/{route}/hosts/{at}"), message).hint(hint));
            }
        }
    }
    warnings
}

/// Whether one of the names in certificates is that of a host. A wildcard stands for one label (RFC 6125, section 6.4.3).
fn is_covered(host: &HostRule, names: &[String]) -> bool {
    match host {
        HostRule::Any => true,
        HostRule::Below(suffix) => names.iter().any(|name| name.strip_prefix('*') == Some(suffix)),
        HostRule::Exact(host) => names.iter().any(|name| {
            let below = host.find('.').map(|dot| &host[dot..]);
            name == host || (below.is_some() && name.strip_prefix('*') == below)
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pointers(settings: &Value) -> Vec<(String, String)> {
        let read = |files: &CertificateFiles| match files.cert.to_str().unwrap() {
            "shop" => Ok(CertificateFacts {
                names: vec!["shop.example".to_owned(), "*.shop.example".to_owned()],
                not_after: Some(2_000),
            }),
            "old" => Ok(CertificateFacts { names: vec!["old.example".to_owned()], not_after: Some(10) }),
            other => Err(format!("{other} can't be read")),
        };
        let check = |auth: &ClientAuth| match auth.ca.to_str().unwrap() {
            "ca" => Ok(()),
            other => Err(format!("{other} can't be read")),
        };
        let check_servers = |ca: &Path| match ca.to_str().unwrap() {
            "ca" => Ok(()),
            other => Err(format!("{other} can't be read")),
        };
        let found = warnings(settings, 1_000, read, check, check_servers);
        found.into_iter().map(|found| (found.pointer, found.message)).collect()
    }

    fn with(certificates: &[&str], hosts: &[&str]) -> Value {
        let certificates: Vec<_> =
            certificates.iter().map(|cert| json!({"cert": cert, "key": "k"})).collect();
        json!({
            "listeners": [{"name": "web", "address": "127.0.0.1:0", "tls": {"certificates": certificates}}],
            "routes": [{"prefix": "/", "hosts": hosts, "answer": {}}],
        })
    }

    #[test]
    fn hosts_that_no_certificate_covers_and_expired_certificates_are_named() {
        let hosts = [
            "shop.example",
            "a.shop.example",
            "*.shop.example",
            "a.b.shop.example",
            "*.a.shop.example",
            "x.example",
        ];
        let found = pointers(&with(&["shop"], &hosts));
        let places: Vec<_> = found.iter().map(|(pointer, _)| pointer.as_str()).collect();
        assert_eq!(places, ["/routes/0/hosts/3", "/routes/0/hosts/4", "/routes/0/hosts/5"]);
        assert!(found[2].1.contains("no certificate covers `x.example`"), "{found:?}");
        let found = pointers(&with(&["shop", "old"], &["OLD.example"]));
        assert_eq!(
            found,
            [("/listeners/0/tls/certificates/1".to_owned(), "the certificate old has expired".to_owned())]
        );
    }

    #[test]
    fn a_ca_that_cannot_be_read_is_named() {
        let mut settings = with(&["shop"], &["shop.example"]);
        settings["listeners"][0]["tls"]["client_ca"] = json!("ca");
        assert!(pointers(&settings).is_empty());
        settings["listeners"][0]["tls"]["client_ca"] = json!("gone");
        assert_eq!(
            pointers(&settings),
            [(
                "/listeners/0/tls/client_ca".to_owned(),
                "no usable CA for client certificates: gone can't be read".to_owned()
            )]
        );
        let route = |ca: &str| json!({"routes": [{"prefix": "/a", "answer": {}}, {"prefix": "/", "to": ["https://a"], "ca": ca}]});
        assert!(pointers(&route("ca")).is_empty());
        assert_eq!(pointers(&route("gone")), [("/routes/1/ca".to_owned(), "gone can't be read".to_owned())]);
    }

    #[test]
    fn a_certificate_that_cannot_be_read_is_named_and_nothing_is_guessed_of_hosts() {
        let found = pointers(&with(&["shop", "gone"], &["x.example"]));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1, "no usable certificate: gone can't be read");
        assert!(
            pointers(&json!({"routes": [{"prefix": "/", "hosts": ["x.example"], "answer": {}}]})).is_empty()
        );
        assert!(pointers(&json!({"no_such": 1})).is_empty(), "that is a mistake, not a warning");
    }
}
