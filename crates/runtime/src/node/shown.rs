//! What a node says of itself.

use std::net::IpAddr;

use plugin::Registry;
use types::api::About;

use super::config::Config;

pub(super) fn about(config: &Config, registry: &Registry) -> About {
    About {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        zone: config.zone.clone(),
        labels: config.labels.clone(),
        runnable: registry.service_types().cloned().collect(),
        named_services: true,
        runs: config.runs.clone(),
        restarts: config.restarts,
        last_end: config.last_end.clone(),
    }
}

pub(super) fn insecure(config: &Config) -> Vec<String> {
    let mut list = vec![
        "the API and gossip have no authentication".to_owned(),
        "gossip and HTTP are not encrypted".to_owned(),
    ];
    if !types::is_loopback(config.listen.ip()) {
        list.insert(0, format!("{} is open to the network", config.listen));
    }
    if config.insecure {
        list.push("services may listen on addresses that are open to the network (--insecure)".to_owned());
    }
    list
}

pub(super) fn host(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

pub(super) fn url(ip: IpAddr, port: u16) -> String {
    format!("http://{}:{port}", host(ip))
}
