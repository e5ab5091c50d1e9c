//! The service type `load_balancer`: forwards TCP connections or HTTP requests to the members of a service, or to fixed
//! backends.
//!
//! It has no shards. Each of its listeners has one target: a service whose members have a listener of their own, such as
//! `api_gateway`; a list of backends; or, by the server name in the client's TLS hello (SNI), one of several.
//!
//! ```yaml
//! listeners:
//!   # Everything for the gateways. Each client's address is passed on by the PROXY protocol.
//!   - name: web
//!     address: 127.0.0.1:0
//!     service: api_gateway
//!     listener: gateway
//!   # A database and its spare.
//!   - name: db
//!     address: 127.0.0.1:0
//!     backends:
//!       - address: db-1.example:5432
//!       - address: 10.1.0.8:5432
//!         backup: true
//!     check: { tcp: {}, every: 2s, rise: 2, fall: 3 }
//!     limits: { connections: 200, queue: 100, wait: 5s }
//!   # TLS that the backends terminate, chosen by server name.
//!   - name: tls
//!     address: 127.0.0.1:0
//!     sni:
//!       - hosts: [shop.example, "*.shop.example"]
//!         backends: [{ address: "10.1.0.9:443", weight: 3 }, { address: "10.1.0.10:443" }]
//!       - hosts: [mail.example]
//!         backends: [{ address: "10.1.0.11:443" }]
//!     balance: source
//!     send_proxy_protocol: v2
//! ```
//!
//! # HTTP mode
//!
//! With `mode: http` each request gets a backend of its own (`http`), is sent again if that fails before it answers and
//! repeating it does no harm, and carries the client's address. The listener may have TLS and speaks HTTP/2, and so may the
//! backends: `https://shop.example`, `h2c://10.1.0.9:50051`. gRPC is passed on whole, and gets errors in its own form. A service
//! without a `listener` of its own is reached below `/svc/NAME` of its members, and nothing else of their nodes.
//!
//! ```yaml
//! listeners:
//!   - name: shop
//!     address: 127.0.0.1:0
//!     mode: http
//!     backends: [{ address: "10.1.0.4:8000" }, { address: "10.1.0.5:8000", backup: true }]
//!     check: { http: { path: /healthz } }
//!     limits: { connections: 500, per_client: 50, queue: 100, wait: 2s }
//!   - name: files
//!     address: 127.0.0.1:0
//!     mode: http
//!     service: storage
//! ```
//!
//! # Connections
//!
//! A connection is accepted, counted against the limits, perhaps queued, and given a backend; if that does not accept it,
//! the next one is tried, within `timeouts.connect`, before the client notices anything. Then bytes are copied both ways:
//! a side that ends its direction (half-close) ends it at the other side too, and a reset arrives as a reset. A slow reader
//! slows the sender down: at most 64 KiB wait in memory for each direction, and none while a connection is idle. With
//! `splice: true`, the system moves the bytes of long transfers through a pipe instead.
//!
//! # Targets
//!
//! The members of a service are known by gossip: one that drains gets no new connections at once, and those that it has
//! live until they end, or until `timeouts.drain`. A service whose members have no listener of that name is no target: its
//! members' own API is never reached through a balancer.
//!
//! The host name of a backend is resolved again every 10 seconds, and all of its addresses are used. While a name can't be
//! resolved, the addresses that were found last stay in use.
//!
//! If most members disappear from gossip at once, it is more likely that gossip fails than they: they are kept for a while, and
//! connections decide.
//!
//! # New settings
//!
//! New settings are applied whole or not at all, while everything goes on (`reload`). Connections and requests end with the
//! settings with which they began. New listeners are opened first; a removed one refuses connections, and those that it has
//! end within `timeouts.drain`. A lower limit closes no connection; TLS, protocols and trusted proxies count for new ones. Only
//! another mode, and an address that overlaps with an open one, need a restart.

mod access_log;
mod address;
mod admission;
mod backend;
mod balancer;
mod choose;
mod connection;
mod eject;
mod hello;
mod http;
mod keep;
mod listener;
mod listeners;
mod members;
mod meters;
mod openapi;
mod plan;
mod pool;
mod refusal;
mod relay;
mod reload;
mod resolve;
mod routes;
mod service;
mod settings;
mod shown;
mod sni;
mod vanished;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use plugin::access_log::{access_log_warning, resolve_access_log};
use plugin::http_listener::resolve_certificates;
use plugin::{
    CertificateFiles, ClientAuth, Plugin, Prepared, SettingsError, SettingsMistake, check_settings,
    resolve_path, server_ca_warning, settings_schema,
};
use types::{ServiceType, Sharding};

pub use settings::Settings;

/// The service type `load_balancer`.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoadBalancer;

impl Plugin for LoadBalancer {
    fn service_type(&self) -> ServiceType {
        "load_balancer".parse().expect("the name follows the rule")
    }

    fn about(&self) -> &'static str {
        "forwards connections or HTTP requests to the members of a service or to fixed backends"
    }

    fn sharding(&self) -> Sharding {
        Sharding::None
    }

    fn settings_schema(&self) -> serde_json::Value {
        settings_schema::<Settings>()
    }

    fn metrics_prefix(&self) -> String {
        "coterie_balancer".to_owned()
    }

    fn openapi_paths(&self) -> serde_json::Value {
        openapi::paths()
    }

    fn resolve_files(&self, settings: &mut serde_json::Value, folder: &Path) {
        resolve_access_log(settings, folder);
        resolve_certificates(settings, folder);
        let listeners = settings.get_mut("listeners").and_then(serde_json::Value::as_array_mut);
        for ca in listeners.into_iter().flatten().filter_map(|listener| listener.get_mut("ca")) {
            resolve_path(ca, folder);
        }
    }

    fn check_files(&self, settings: &serde_json::Value) -> Vec<SettingsMistake> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let mut warnings: Vec<_> = access_log_warning(settings).into_iter().collect();
        let Ok(settings) = plugin::parse_settings::<Settings>(settings) else { return warnings };
        for (at, listener) in settings.listeners.iter().enumerate() {
            if let Some(tls) = &listener.tls {
                let pointer = format!("/listeners/{at}/tls");
                tls.client_warnings(&pointer, &ClientAuth::check, &mut warnings);
                let pointer = format!("{pointer}/certificates");
                let _ = tls.warnings(&pointer, now, &CertificateFiles::facts, &mut warnings);
            }
            let pointer = format!("/listeners/{at}/ca");
            warnings.extend(server_ca_warning(&pointer, listener.ca.as_deref(), &mesh::check_ca));
        }
        warnings
    }

    fn prepare(&self, settings: &serde_json::Value) -> Result<Box<dyn Prepared>, SettingsError> {
        Ok(Box::new(check_settings(settings, plan::check)?))
    }
}

#[cfg(test)]
mod tests;
