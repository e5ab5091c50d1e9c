//! Measures a load balancer of TCP connections beside nginx, HAProxy, Envoy and Traefik: bytes, requests on kept connections,
//! new connections, and memory.

use std::path::Path;

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::progress::progress;
use crate::proxies::backend::{Body, Site};
use crate::proxies::idle;
use crate::proxies::measured::{Comparison, Group, compared, report_all, report_failures};
use crate::proxies::options::{Options, Setting};
use crate::proxies::task::{Kind, Task};
use crate::proxies::{Addresses, Layer, memory};
use crate::report::Report;
use crate::rows::Target;

/// The service type of our proxy.
const SERVICE: &str = "load_balancer";
/// Concurrent requests.
const MANY: usize = 64;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to measure
    #[arg(long, value_name = "PART", value_enum, value_delimiter = ',',
        default_values = ["transfer", "requests", "connections", "memory"])]
    parts: Vec<Part>,
    /// Let our balancer splice long transfers
    #[arg(long)]
    splice: bool,
    #[command(flatten)]
    options: Options,
}

/// A part of the measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Bytes of answers of 64 KB on kept connections
    Transfer,
    /// Requests of 1 KB on kept connections
    Requests,
    /// Connections with one request each
    Connections,
    /// The memory of idle connections
    Memory,
}

pub(crate) async fn run(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let mut setting = Setting::new(&args.options, Layer::Tcp, report).await?;
    let mut all = Vec::new();
    let tasks = tasks(&args.parts);
    let settings = |addresses: &Addresses, site: &Site, _: &Path| settings(addresses, site, args.splice);
    if !tasks.is_empty() {
        let running = setting.start_all(SERVICE, settings, report).await?;
        let measured = setting.runner().measure(&running, tasks).await?;
        for proxy in running.into_values() {
            proxy.end().await?;
        }
        report_failures(&measured, report);
        all.extend(measured.iter().flat_map(compared));
    }
    if args.parts.contains(&Part::Memory) {
        progress("memory of idle connections");
        let kinds = [idle::Kind::Http1];
        let mut memory = memory::measure(&setting, &kinds, SERVICE, settings, None, report).await?;
        for each in &mut memory {
            "memory of an idle TCP connection".clone_into(&mut each.what);
        }
        all.extend(memory);
    }
    report_all(&all, &setting.missing, report);
    if args.splice {
        report.notes.push("Ours ran with `splice: true`".to_owned());
    }
    report.notes.push(
        "CPU is user and system time of all processes of a proxy, for 100,000 answers or connections. Ours, nginx, \
         HAProxy and Envoy copy bytes; Go, and so Traefik, may use splice(2). The memory of a connection includes that \
         of the connection to the backend"
            .to_owned(),
    );
    Ok(())
}

/// The loads of these parts.
fn tasks(parts: &[Part]) -> Vec<Task> {
    let mut tasks = Vec::new();
    let cpu = |group, limit| Comparison { cpu: Some(Target::Ratio(limit)), ..Comparison::with(group) };
    if parts.contains(&Part::Transfer) {
        for clients in [MANY, 8 * MANY] {
            let mut task = Task::new("TCP, 64 KB", clients, Kind::Transfer(Body::SixtyFourKb));
            let latency = Some(Target::RatioOfP99(1.2));
            task.comparisons = vec![
                Comparison { latency, ..Comparison::with(Group::Peers) },
                cpu(Group::Nginx, 0.7),
                cpu(Group::Haproxy, 1.0),
                Comparison::ahead(),
            ];
            tasks.push(task);
        }
    }
    if parts.contains(&Part::Requests) {
        for clients in [1, MANY, 8 * MANY] {
            let mut task = Task::new("TCP, 1 KB", clients, Kind::Http1 { body: Body::OneKb, tls: false });
            let latency = (clients > 1).then_some(Target::RatioOfP99(1.2));
            task.comparisons =
                vec![Comparison { latency, ..Comparison::with(Group::Peers) }, Comparison::ahead()];
            tasks.push(task);
        }
    }
    if parts.contains(&Part::Connections) {
        let mut task = Task::new("new TCP connections", MANY, Kind::Connections);
        let rate = Some(Target::RatioAtLeast(0.95));
        task.comparisons = vec![Comparison { rate, ..Comparison::with(Group::Peers) }, Comparison::ahead()];
        tasks.push(task);
    }
    tasks
}

/// The settings of our balancer that match the configurations of the others.
fn settings(addresses: &Addresses, site: &Site, splice: bool) -> Value {
    let backends = site.backends.map(|addr| json!({ "address": addr.to_string() }));
    json!({ "listeners": [{
        "name": "front",
        "address": addresses.http1.to_string(),
        "mode": "tcp",
        "splice": splice,
        "backends": backends,
    }] })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_cpu_of_transfers_is_compared_with_nginx_and_haproxy_apart() {
        let tasks = tasks(&[Part::Transfer]);
        for task in &tasks {
            let cpu = task.comparisons.iter().filter_map(|each| Some((each.group, each.cpu?.to_string())));
            assert_eq!(
                cpu.collect::<Vec<_>>(),
                [
                    (Group::Nginx, "ratio <= 0.7".to_owned()),
                    (Group::Haproxy, "ratio <= 1".to_owned()),
                    (Group::Others, "ratio <= 1".to_owned()),
                ]
            );
        }
    }

    #[test]
    fn loads_of_a_full_run_have_names_of_their_own() {
        let tasks = tasks(Part::value_variants());
        let names: BTreeSet<_> = tasks.iter().map(|task| (&task.what, task.clients)).collect();
        assert_eq!((names.len(), tasks.len()), (6, 6), "{names:?}");
        assert!(super::tasks(&[Part::Memory]).is_empty());
    }
}
