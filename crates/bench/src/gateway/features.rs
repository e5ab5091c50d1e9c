//! The cost of our own features on the way of each request: gateways with one feature each, beside one with none.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde_json::{Value, json};

use crate::gateway::{SERVICE, settings};
use crate::proxies::backend::{Body, Site};
use crate::proxies::measured::{latency, report_failures};
use crate::proxies::options::Setting;
use crate::proxies::rounds::{Measured, Rounds};
use crate::proxies::task::{Kind, Task};
use crate::proxies::{Addresses, Layer};
use crate::report::Report;
use crate::rows::{Peer, Row};
use crate::stats::Summary;

const CLIENTS: usize = 64;
/// Routes that no request takes.
const ROUTES: usize = 100;

/// What a gateway has beside its one route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Feature {
    None,
    /// An access log of JSON, in a file.
    JsonLog,
    /// An access log in the combined format, in a file.
    CombinedLog,
    /// A rate limit by client that no load reaches.
    RateLimit,
    /// A limit of concurrent requests that no load reaches.
    InFlight,
    /// 100 more routes, half of them with hosts.
    Routes,
    /// A JSON log, both limits and 100 more routes.
    All,
}

impl Feature {
    const EACH: [Self; 7] = [
        Self::None,
        Self::JsonLog,
        Self::CombinedLog,
        Self::RateLimit,
        Self::InFlight,
        Self::Routes,
        Self::All,
    ];

    fn has(self, other: Self) -> bool {
        self == other || (self == Self::All && !matches!(other, Self::None | Self::CombinedLog))
    }

    /// The settings of a gateway with it.
    fn settings(self, addresses: &Addresses, site: &Site, folder: &Path) -> Value {
        let mut settings = settings(addresses, site, folder);
        let log = |format| json!({ "to": folder.join("access.log"), "format": format });
        if self.has(Self::JsonLog) {
            settings["access_log"] = log("json");
        }
        if self.has(Self::CombinedLog) {
            settings["access_log"] = log("combined");
        }
        if self.has(Self::RateLimit) {
            settings["routes"][0]["limits"]["rate"] =
                json!({ "requests": 1_000_000, "per": "1s", "burst": 1_000_000 });
        }
        if self.has(Self::InFlight) {
            settings["routes"][0]["limits"]["in_flight"] = json!(100_000);
        }
        if self.has(Self::Routes)
            && let Some(routes) = settings["routes"].as_array_mut()
        {
            let to = json!(site.backends.map(|addr| format!("http://{addr}")));
            routes.extend((0..ROUTES).map(|number| {
                let mut route = json!({ "prefix": format!("/route-{number}"), "to": to });
                if number % 2 == 0 {
                    route["hosts"] = json!([format!("host-{number}.example")]);
                }
                route
            }));
        }
        settings
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "no features",
            Self::JsonLog => "access log, JSON",
            Self::CombinedLog => "access log, combined",
            Self::RateLimit => "rate limit",
            Self::InFlight => "limit of concurrent requests",
            Self::Routes => "100 more routes",
            Self::All => "JSON log, both limits, 100 more routes",
        })
    }
}

/// Measures gateways with each feature in the same rounds.
pub(crate) async fn measure(setting: &Setting, report: &mut Report) -> anyhow::Result<()> {
    let mut running = BTreeMap::new();
    for feature in Feature::EACH {
        let settings =
            |addresses: &Addresses, site: &Site, folder: &Path| feature.settings(addresses, site, folder);
        let name = format!("feature-{feature:?}");
        running.insert(feature, setting.stage(Layer::Http).start_ours(SERVICE, settings, &name).await?);
    }
    let task = Task::new("HTTP/1, 1 KB", CLIENTS, Kind::Http1 { body: Body::OneKb, tls: false });
    let measured = setting.runner().measure(&running, vec![task]).await?;
    for gateway in running.into_values() {
        gateway.end().await?;
    }
    report_failures(&measured, report);
    report.rows.extend(measured.iter().flat_map(rows));
    report.notes.push(
        "rows of features: the peer is our own gateway with no features, in the same rounds".to_owned(),
    );
    Ok(())
}

/// Rate, latency and CPU time with each feature, beside none.
fn rows(measured: &Measured<Feature>) -> Vec<Row> {
    let base = measured.rounds.get(&Feature::None);
    let with = measured.rounds.iter().filter(|(feature, _)| **feature != Feature::None);
    let each = with.flat_map(|(feature, rounds)| {
        let row = |what: &str, unit, of: fn(&Rounds) -> Option<Summary>| {
            let name = Feature::None.to_string();
            let peer = match base.and_then(of) {
                Some(summary) => Peer::Measured { profile: name, summary },
                None => Peer::Missing("not measured".to_owned()),
            };
            Row::new(format!("with {feature}{what}"), CLIENTS, unit).ours(of(rounds)).peer(peer)
        };
        [
            row("", "req/s", |rounds| Summary::of(&rounds.rates)),
            row(": latency", "ms", latency),
            row(": CPU for 100,000", "s", |rounds| Summary::of(&rounds.cpu)),
        ]
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::proxies::certificate::Certificate;

    fn settings_with(feature: Feature) -> Value {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let addresses = Addresses { http1: addr, http2: addr, tls: addr };
        let site = Site { backends: [addr, addr], certificate: Certificate::of(Path::new("/run")) };
        feature.settings(&addresses, &site, Path::new("/own"))
    }

    #[test]
    fn a_gateway_has_the_named_features_and_no_others() {
        for feature in Feature::EACH {
            let settings = settings_with(feature);
            let log = &settings["access_log"];
            assert_eq!(
                log["to"] == "/own/access.log",
                feature.has(Feature::JsonLog) || feature == Feature::CombinedLog
            );
            assert_eq!(log["format"] == "json", feature.has(Feature::JsonLog), "{feature}");
            let limits = &settings["routes"][0]["limits"];
            assert_eq!(limits["rate"].is_object(), feature.has(Feature::RateLimit), "{feature}");
            assert_eq!(limits["in_flight"].is_u64(), feature.has(Feature::InFlight), "{feature}");
            let routes = settings["routes"].as_array().map(Vec::len);
            assert_eq!(routes, Some(if feature.has(Feature::Routes) { 101 } else { 1 }), "{feature}");
        }
    }

    #[test]
    fn the_ratio_of_a_row_is_the_cost_of_the_feature() {
        let rounds = |cpu| Rounds { cpu: vec![cpu], ..Rounds::default() };
        let task = Task::new("x", CLIENTS, Kind::Http1 { body: Body::OneKb, tls: false });
        let measured = Measured {
            task,
            rounds: BTreeMap::from([(Feature::None, rounds(2.0)), (Feature::JsonLog, rounds(2.2))]),
            direct: Rounds::default(),
        };
        let rows = rows(&measured);
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[2].what, "with access log, JSON: CPU for 100,000");
        assert_eq!(rows[2].ratio().map(|ratio| (ratio * 10.0).round()), Some(11.0));
    }
}
