//! Measures a gateway beside nginx, HAProxy, Envoy, Traefik and Caddy: HTTP/1, HTTP/2, TLS, new connections, memory, and the
//! cost of its own features.

mod features;
mod tasks;

use std::path::Path;

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::progress::progress;
use crate::proxies::backend::Site;
use crate::proxies::idle::Kind;
use crate::proxies::measured::{compared, overhead, report_all, report_failures};
use crate::proxies::options::{Options, Setting};
use crate::proxies::start::Ours;
use crate::proxies::{Addresses, Layer, memory};
use crate::report::Report;
use crate::rows::{Peer, Row};

/// The service type of our proxy.
pub(crate) const SERVICE: &str = "api_gateway";
/// Our gateway beside proxies of HTTP.
const OURS: Ours = Ours { layer: Layer::Http, service: SERVICE, settings };
/// The target of what a request takes longer than without a proxy, in microseconds.
const OVERHEAD: f64 = 60.0;
/// The target of the memory of an idle connection, in KB.
const IDLE_KB: f64 = 15.0;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to measure
    #[arg(long, value_name = "PART", value_enum, value_delimiter = ',',
        default_values = ["http1", "http2", "tls", "connections", "memory", "features"])]
    parts: Vec<Part>,
    #[command(flatten)]
    options: Options,
}

/// A part of the measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Part {
    /// Requests over HTTP/1, and what a request takes longer than without a proxy
    Http1,
    /// Requests over HTTP/2 without TLS
    Http2,
    /// Requests over TLS with HTTP/1 and HTTP/2, and TLS handshakes
    Tls,
    /// Connections with one request each
    Connections,
    /// The memory of idle connections
    Memory,
    /// The cost of our access log, rate limit and routes
    Features,
}

pub(crate) async fn run(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let mut setting = Setting::new(&args.options, report).await?;
    let mut all = Vec::new();
    let tasks = tasks::of(&args.parts, setting.is_quick);
    if !tasks.is_empty() {
        let running = setting.start_all(OURS, report).await?;
        let measured = setting.runner().measure(&running, tasks).await?;
        for proxy in running.into_values() {
            proxy.end().await?;
        }
        report_failures(&measured, report);
        for measured in &measured {
            all.extend(compared(measured));
            if let Some(overhead) = overhead(measured, OVERHEAD) {
                all.push(overhead);
                let direct = crate::proxies::measured::latency(&measured.direct);
                let row = Row::new(format!("{}, without a proxy: latency", measured.task.what), 1, "ms");
                let peer = direct.map(|summary| Peer::Measured { profile: "nginx".to_owned(), summary });
                report.rows.extend(peer.map(|peer| row.peer(peer)));
            }
        }
    }
    if args.parts.contains(&Part::Memory) {
        progress("memory of idle connections");
        let most = Some(IDLE_KB);
        all.extend(memory::measure(&setting, &Kind::ALL, OURS, most, report).await?);
    }
    report_all(&all, &setting.missing, report);
    if args.parts.contains(&Part::Features) {
        progress("the cost of features");
        features::measure(&setting, report).await?;
    }
    report.notes.push(
        "CPU is user and system time of all processes of a proxy. New connections end with their first answer; with TLS each \
         has a full handshake. HTTP/2 has eight concurrent requests on each connection. Our metrics are always on. Ours adds \
         X-Request-Id, as Envoy does; all add X-Forwarded-For, -Proto and -Host"
            .to_owned(),
    );
    Ok(())
}

/// The settings of our gateway that match the configurations of the others.
pub(crate) fn settings(addresses: &Addresses, site: &Site, _folder: &Path) -> Value {
    let certificate = json!({ "cert": site.certificate.cert, "key": site.certificate.key });
    json!({
        "listeners": [
            { "name": "http1", "address": addresses.http1.to_string() },
            { "name": "http2", "address": addresses.http2.to_string() },
            { "name": "tls", "address": addresses.tls.to_string(), "tls": { "certificates": [certificate] } },
        ],
        "routes": [{ "prefix": "/", "to": site.backends.map(|addr| format!("http://{addr}")) }],
    })
}
