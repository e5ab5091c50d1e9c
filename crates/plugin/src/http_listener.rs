//! The settings that the HTTP listeners of all services have: TLS, protocols, trusted proxies.

use std::path::Path;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::proxy_protocol::network;
use crate::{CertificateFacts, CertificateFiles, ClientAuth, SettingsMistake, absolute_path, resolve_path};

/// The most certificates of a listener.
const MAX_CERTIFICATES: usize = 1000;

/// The TLS of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerTls {
    /// The certificates. The host name that a client asks for (SNI) selects one: a certificate with exactly this name, else
    /// one with a wildcard for it, else the first of the list. The files are checked every five seconds; changed ones are
    /// used for new connections. A listener whose certificates can't be read is degraded; the others work.
    pub certificates: Vec<Certificate>,
    /// A file of CAs' certificates in PEM: clients must have a certificate that one of them has signed. A path that is not
    /// absolute is relative to the manifest. The file is checked every five seconds; a changed one counts for new connections,
    /// and no older TLS session is resumed. If it can't be read at first, the listener is degraded and accepts no client.
    /// Servers get `X-Forwarded-Client-Cert: Hash=SHA256;Subject="CN=..."`. Clients can't send this header; that of a proxy in
    /// `trust` is kept, unless the proxy has identified itself with a certificate. This protects the listener alone: others
    /// reach the same routes. Clients need no certificate unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<String>,
    /// Whether clients must have a certificate: `required`, or `optional` if those without one are accepted, too; a certificate
    /// that is not accepted ends the handshake either way. Only with `client_ca`. Unless given, `required`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificates: Option<ClientCertificates>,
}

/// Whether clients must have a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// They must.
    Required,
    /// They may.
    Optional,
}

/// A certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The file of the certificate in PEM, followed by the certificates that sign it. A path that is not absolute is
    /// relative to the manifest.
    pub cert: String,
    /// The file of its private key in PEM. A path that is not absolute is relative to the manifest.
    pub key: String,
}

/// A version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HttpProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// The names of the protocols that a listener with TLS offers, the preferred one first.
pub fn alpn(http1: bool, http2: bool) -> Vec<&'static str> {
    let offered = [("h2", http2), ("http/1.1", http1)];
    offered.iter().filter(|(_, is_offered)| *is_offered).map(|(name, _)| *name).collect()
}

/// Networks of trusted proxies.
pub fn networks(pointer: &str, texts: &[String], mistakes: &mut Vec<SettingsMistake>) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for (at, text) in texts.iter().enumerate() {
        match network(text) {
            Some(network) => networks.push(network),
            None => {
                let message = format!("`{text}` is no address and no network");
                let mistake = SettingsMistake::new(format!("{pointer}/{at}"), message);
                mistakes.push(mistake.hint("write it like `10.0.0.7` or `10.0.0.0/8`"));
            }
        }
    }
    networks
}

impl ListenerTls {
    /// Adds what would not work with the certificates in Unix time `now`; `read` reads them. Returns the host names that they
    /// cover, or nothing if one of them can't be read.
    pub fn warnings(
        &self,
        pointer: &str,
        now: i64,
        read: &impl Fn(&CertificateFiles) -> Result<CertificateFacts, String>,
        warnings: &mut Vec<SettingsMistake>,
    ) -> Option<Vec<String>> {
        let mut names = Some(Vec::new());
        for (at, certificate) in self.certificates.iter().enumerate() {
            let (cert, key) = (certificate.cert.clone().into(), certificate.key.clone().into());
            let (files, pointer) = (CertificateFiles { cert, key }, format!("{pointer}/{at}"));
            match read(&files) {
                Ok(facts) => {
                    if facts.not_after.is_some_and(|end| end < now) {
                        let message = format!("the certificate {} has expired", files.cert.display());
                        let hint = "replace the file: the listener serves the new one within seconds";
                        warnings.push(SettingsMistake::new(pointer, message).hint(hint));
                    }
                    names.iter_mut().for_each(|names| names.extend(facts.names.clone()));
                }
                Err(why) => {
                    names = None;
                    let hint =
                        "until it can be used, this listener is degraded and serves its other certificates";
                    let message = format!("no usable certificate: {why}");
                    warnings.push(SettingsMistake::new(pointer, message).hint(hint));
                }
            }
        }
        names
    }

    /// Adds what would not work with the CA of client certificates; `check` reads it. `pointer` is the JSON pointer of these
    /// settings.
    pub fn client_warnings(
        &self,
        pointer: &str,
        check: &impl Fn(&ClientAuth) -> Result<(), String>,
        warnings: &mut Vec<SettingsMistake>,
    ) {
        let Some(ca) = &self.client_ca else { return };
        let auth = ClientAuth { ca: ca.into(), is_required: true };
        if let Err(why) = check(&auth) {
            let hint = "until it can be used, this listener is degraded and accepts no client";
            let message = format!("no usable CA for client certificates: {why}");
            warnings.push(SettingsMistake::new(format!("{pointer}/client_ca"), message).hint(hint));
        }
    }

    /// How clients identify themselves, if they do. `pointer` is the JSON pointer of these settings.
    pub fn client_auth(&self, pointer: &str, mistakes: &mut Vec<SettingsMistake>) -> Option<ClientAuth> {
        let Some(ca) = &self.client_ca else {
            if self.client_certificates.is_some() {
                let message = "there is no `client_ca` to verify certificates by";
                let mistake = SettingsMistake::new(format!("{pointer}/client_certificates"), message);
                mistakes.push(mistake.hint("give `client_ca` the file of the CA, or leave this out"));
            }
            return None;
        };
        let ca = absolute_path(&format!("{pointer}/client_ca"), ca, mistakes);
        Some(ClientAuth { ca, is_required: self.client_certificates != Some(ClientCertificates::Optional) })
    }

    /// The files of the certificates. `pointer` is the JSON pointer of their list.
    pub fn files(&self, pointer: &str, mistakes: &mut Vec<SettingsMistake>) -> Vec<CertificateFiles> {
        let len = self.certificates.len();
        if len == 0 {
            let mistake = SettingsMistake::new(pointer, "there is no certificate");
            mistakes.push(mistake.hint("write `[{ cert: tls/shop.crt, key: tls/shop.key }]`"));
        } else if len > MAX_CERTIFICATES {
            let message = format!("there are {len} certificates, at most {MAX_CERTIFICATES} are allowed");
            let hint = "use certificates with several names or with wildcards";
            mistakes.push(SettingsMistake::new(pointer, message).hint(hint));
        }
        let certificates = self.certificates.iter().enumerate();
        certificates
            .map(|(at, Certificate { cert, key })| CertificateFiles {
                cert: absolute_path(&format!("{pointer}/{at}/cert"), cert, mistakes),
                key: absolute_path(&format!("{pointer}/{at}/key"), key, mistakes),
            })
            .collect()
    }
}

/// Makes the paths of certificates and CAs in `listeners` absolute that are relative to a folder. Whatever is no path stays.
pub fn resolve_certificates(settings: &mut Value, folder: &Path) {
    let listeners = settings.get_mut("listeners").and_then(Value::as_array_mut).into_iter().flatten();
    for tls in listeners.filter_map(|listener| listener.get_mut("tls")) {
        if let Some(path) = tls.get_mut("client_ca") {
            resolve_path(path, folder);
        }
        let certificates = tls.get_mut("certificates").and_then(Value::as_array_mut);
        for certificate in certificates.into_iter().flatten() {
            for key in ["cert", "key"] {
                if let Some(path) = certificate.get_mut(key) {
                    resolve_path(path, folder);
                }
            }
        }
    }
}
