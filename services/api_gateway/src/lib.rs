//! The service type `api_gateway`: one address for all services of a cluster.
//!
//! It listens on its own address. `/{service}/…` goes to a member that serves this service; the `routes` of its settings
//! send requests to services or fixed addresses by host, path, method and headers, redirect them or answer them, which is
//! useful even without other services. Bodies are streamed both ways; the path is forwarded byte for byte.

mod affinity;
mod along;
mod backends;
mod checks;
mod compression;
mod edits;
mod explain;
mod gateway;
mod gateways;
mod host;
mod inherit;
mod keys;
mod listeners;
mod live;
mod measured;
mod misdirected;
mod openapi;
mod path;
mod places;
mod probes;
mod rate;
mod reason;
mod redirect;
mod reload;
mod route_body;
mod routes;
mod rule;
mod service;
mod settings;
mod table;
mod ticket;
mod traffic;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use plugin::access_log::access_log_warning;
use plugin::{
    CertificateFiles, ClientAuth, Plugin, Prepared, SettingsError, SettingsMistake, check_settings,
    settings_schema,
};
use types::{ServiceType, Sharding};

pub use settings::{
    AccessLogSettings, AffinitySettings, AnswerSettings, Backend, BalanceSettings, Certificate,
    ClientCertificates, HeaderEdits, HttpProtocol, KeySettings, ListenAddress, Listener, ListenerTls,
    LogFormat, QueryLog, RateBy, RateSettings, RedirectSettings, RetryOn, RetrySettings, RewriteSettings,
    Route, RouteLimits, SchemeSettings, Services, Settings, Size, SizeError, Slashes, TimeoutSettings,
};

/// The service type `api_gateway`.
#[derive(Debug, Clone, Copy, Default)]
pub struct ApiGateway;

impl Plugin for ApiGateway {
    fn service_type(&self) -> ServiceType {
        "api_gateway".parse().expect("the name follows the rule")
    }

    fn about(&self) -> &'static str {
        "one address for all services: sends each request to a member that serves it, or along a route"
    }

    fn sharding(&self) -> Sharding {
        Sharding::None
    }

    fn settings_schema(&self) -> serde_json::Value {
        settings_schema::<Settings>()
    }

    fn metrics_prefix(&self) -> String {
        "coterie_gateway".to_owned()
    }

    fn openapi_paths(&self) -> serde_json::Value {
        openapi::paths()
    }

    fn resolve_files(&self, settings: &mut serde_json::Value, folder: &Path) {
        settings::resolve_files(settings, folder);
    }

    fn check_files(&self, settings: &serde_json::Value) -> Vec<SettingsMistake> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let of_certificates = settings::certificate_warnings(
            settings,
            now,
            CertificateFiles::facts,
            ClientAuth::check,
            mesh::check_ca,
        );
        access_log_warning(settings).into_iter().chain(of_certificates).collect()
    }

    fn prepare(&self, settings: &serde_json::Value) -> Result<Box<dyn Prepared>, SettingsError> {
        Ok(Box::new(check_settings(settings, Settings::check)?))
    }
}

#[cfg(test)]
mod tests;
