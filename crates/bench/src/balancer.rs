//! Measures a load balancer beside nginx, HAProxy, Envoy and Traefik: bytes, copied and spliced, requests on kept connections,
//! new connections, and memory. In HTTP mode beside Caddy as well.

mod spliced;
mod tasks;

use std::path::Path;

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::progress::progress;
use crate::proxies::backend::Site;
use crate::proxies::idle;
use crate::proxies::measured::{Compared, compared, report_all, report_failures};
use crate::proxies::options::{Options, Setting};
use crate::proxies::start::Ours;
use crate::proxies::{Addresses, Layer, memory};
use crate::report::Report;

/// The service type of our proxy.
const SERVICE: &str = "load_balancer";
/// Our balancer beside proxies of TCP connections.
const TCP: Ours = Ours { layer: Layer::Tcp, service: SERVICE, settings: tcp };
/// Our balancer beside proxies of HTTP.
const HTTP: Ours = Ours { layer: Layer::Http, service: SERVICE, settings: http };

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to measure
    #[arg(long, value_name = "PART", value_enum, value_delimiter = ',',
        default_values = ["transfer", "splice", "requests", "connections", "memory", "http"])]
    parts: Vec<Part>,
    #[command(flatten)]
    options: Options,
}

/// A part of the measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Bytes of answers of 64 KB on kept connections
    Transfer,
    /// The same, and in the same rounds by our balancer with `splice: true`
    Splice,
    /// Requests of 1 KB on kept connections
    Requests,
    /// Connections with one request each
    Connections,
    /// The memory of idle connections
    Memory,
    /// Requests over HTTP/1, by a balancer in HTTP mode
    Http,
}

pub(crate) async fn run(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let mut setting = Setting::new(&args.options, report).await?;
    let mut all = tcp_connections(&args.parts, &mut setting, report).await?;
    if args.parts.contains(&Part::Memory) {
        progress("memory of idle connections");
        let mut memory = memory::measure(&setting, &[idle::Kind::Http1], TCP, None, report).await?;
        for each in &mut memory {
            "memory of an idle TCP connection".clone_into(&mut each.what);
        }
        all.extend(memory);
    }
    if args.parts.contains(&Part::Http) {
        let running = setting.start_all(HTTP, report).await?;
        let measured = setting.runner().measure(&running, tasks::http()).await?;
        for proxy in running.into_values() {
            proxy.end().await?;
        }
        report_failures(&measured, report);
        all.extend(measured.iter().flat_map(compared));
    }
    report_all(&all, &setting.missing, report);
    report.notes.push(
        "CPU is user and system time of all processes of a proxy, for 100,000 answers or connections. With TCP, ours (but for \
         the rows `spliced`, which have `splice: true`), nginx, HAProxy and Envoy copy bytes; Go, and so Traefik, may use \
         splice(2); Caddy can't proxy it without a plugin. The memory of a connection includes that of the connection to the \
         backend"
            .to_owned(),
    );
    Ok(())
}

/// Runs the loads of these parts that balance TCP connections.
async fn tcp_connections(
    parts: &[Part],
    setting: &mut Setting,
    report: &mut Report,
) -> anyhow::Result<Vec<Compared>> {
    let (transfers, rest) = (tasks::transfers(parts), tasks::connections(parts));
    if transfers.is_empty() && rest.is_empty() {
        return Ok(Vec::new());
    }
    let running = setting.start_all(TCP, report).await?;
    let mut running = spliced::candidates(running);
    let mut measured = Vec::new();
    if parts.contains(&Part::Splice) {
        spliced::start(setting, &mut running).await?;
    }
    if !transfers.is_empty() {
        measured.extend(setting.runner().measure(&running, transfers).await?);
    }
    spliced::end(&mut running).await?;
    if !rest.is_empty() {
        measured.extend(setting.runner().measure(&running, rest).await?);
    }
    for proxy in running.into_values() {
        proxy.end().await?;
    }
    report_failures(&measured, report);
    Ok(measured.into_iter().flat_map(spliced::split).flat_map(|measured| compared(&measured)).collect())
}

/// The settings of our balancer that match the configurations of the others.
fn tcp(addresses: &Addresses, site: &Site, _folder: &Path) -> Value {
    let backends = site.backends.map(|addr| json!({ "address": addr.to_string() }));
    let address = addresses.http1.to_string();
    json!({ "listeners": [{ "name": "front", "address": address, "mode": "tcp", "backends": backends }] })
}

/// The same in HTTP mode, where each protocol has an address.
fn http(addresses: &Addresses, site: &Site, _folder: &Path) -> Value {
    let backends = site.backends.map(|addr| json!({ "address": addr.to_string() }));
    let certificate = json!({ "cert": site.certificate.cert, "key": site.certificate.key });
    let listener = |name, address: std::net::SocketAddr| json!({ "name": name, "address": address.to_string(), "mode": "http", "backends": backends });
    let mut tls = listener("tls", addresses.tls);
    tls["tls"] = json!({ "certificates": [certificate] });
    json!({ "listeners": [listener("http1", addresses.http1), listener("http2", addresses.http2), tls] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxies::certificate::Certificate;

    #[test]
    fn in_http_mode_each_protocol_has_a_listener_with_the_same_backends() {
        let addresses = Addresses {
            http1: ([127, 0, 0, 1], 1).into(),
            http2: ([127, 0, 0, 1], 2).into(),
            tls: ([127, 0, 0, 1], 3).into(),
        };
        let site = Site {
            backends: [([127, 0, 0, 1], 8).into(), ([127, 0, 0, 1], 9).into()],
            certificate: Certificate::of(Path::new("/certificates")),
        };
        let of = |settings: Value| settings["listeners"].as_array().cloned().unwrap_or_default();
        let listeners = of(http(&addresses, &site, Path::new("/")));
        let backends = json!([{ "address": "127.0.0.1:8" }, { "address": "127.0.0.1:9" }]);
        for (listener, port) in listeners.iter().zip(1..) {
            assert_eq!(listener["address"], format!("127.0.0.1:{port}"));
            assert_eq!((&listener["mode"], &listener["backends"]), (&json!("http"), &backends));
            assert_eq!(listener["tls"].is_object(), port == 3, "{listener}");
        }
        let tcp = of(tcp(&addresses, &site, Path::new("/")));
        assert_eq!((listeners.len(), tcp.len()), (3, 1));
        assert_eq!((&tcp[0]["mode"], &tcp[0]["backends"]), (&json!("tcp"), &backends));
    }
}
