//! The samples of all rounds, and the report rows made of them. Pure.

use std::collections::BTreeMap;

use serde_json::json;

use crate::kv::drive::Task;
use crate::kv::keys::Choice;
use crate::kv::peer;
use crate::kv::protocol::ClientApi;
use crate::kv::work::Work;
use crate::report::Report;
use crate::rows::{Row, Target};
use crate::stats::Summary;

/// The samples of all rounds of one work through one API.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    pub(crate) per_second: Vec<f64>,
    pub(crate) took_ms: Vec<f64>,
    /// The CPU time per request, summed over all processes that take part.
    pub(crate) cpu_us: Vec<f64>,
}

/// The samples of each work, by API.
pub(crate) type Measured = BTreeMap<Work, BTreeMap<ClientApi, Rounds>>;

impl Rounds {
    /// The median rate of requests per second.
    fn rate(&self) -> f64 {
        Summary::of(&self.per_second).map_or(0.0, |rate| rate.p50)
    }
}

/// The API of the peer with the highest median rate.
fn fastest(ways: &BTreeMap<ClientApi, Rounds>) -> Option<(ClientApi, &Rounds)> {
    let etcds = ways.iter().filter(|(api, _)| api.is_etcd());
    let best = etcds.max_by(|a, b| a.1.rate().total_cmp(&b.1.rate()));
    best.map(|(api, rounds)| (*api, rounds))
}

/// The targets of the rate and of the latency.
fn targets(work: Work, api: ClientApi) -> (Vec<Target>, Vec<Target>) {
    if api != ClientApi::Ours || work.choice != Choice::Uniform {
        return (Vec::new(), Vec::new());
    }
    match (work.task, work.clients, work.value) {
        (Task::Put, 1, _) => (Vec::new(), vec![Target::P50(3.0)]),
        (Task::Put, 64, 100) => (vec![Target::RatioAtLeast(3.0)], vec![Target::RatioOfP99(1.0)]),
        (Task::Get, 64, 100) => (vec![Target::RatioAtLeast(3.0)], Vec::new()),
        (Task::Put | Task::Get, 2.., _) => (vec![Target::RatioAtLeast(1.0)], Vec::new()),
        _ => (Vec::new(), Vec::new()),
    }
}

/// Reports three rows for each work and each of our APIs: rate, latency, and CPU.
pub(crate) fn report_rows(measured: &Measured, version: &Result<String, String>, report: &mut Report) {
    for (work, ways) in measured {
        let best = fastest(ways);
        for (api, ours) in ways.iter().filter(|(api, _)| !api.is_etcd()) {
            let gateway = if *api == ClientApi::Gateway { ", gateway" } else { "" };
            let row = |what: &str, unit, of: fn(&Rounds) -> &[f64], targets: Vec<Target>| {
                let name = best.map_or(String::new(), |(api, _)| api.to_string());
                let theirs = best.and_then(|(_, rounds)| Summary::of(of(rounds)));
                let row = Row::new(format!("{work}{gateway}{what}"), work.clients, unit);
                let row = row.ours(Summary::of(of(ours))).peer(peer(&name, theirs, version));
                targets.into_iter().fold(row, Row::target)
            };
            let (rate, latency) = targets(*work, *api);
            report.rows.extend([
                row("", "req/s", |rounds| &rounds.per_second, rate),
                row(": latency", "ms", |rounds| &rounds.took_ms, latency),
                row(": CPU a request", "us", |rounds| &rounds.cpu_us, Vec::new()),
            ]);
        }
        for (api, rounds) in ways {
            report.details.push(json!({
                "work": work.to_string(),
                "clients": work.clients,
                "way": api,
                "per_second": rounds.per_second,
                "latency_ms": Summary::of(&rounds.took_ms),
                "cpu_us": rounds.cpu_us,
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(rates: &[f64]) -> Rounds {
        Rounds { per_second: rates.to_vec(), ..Rounds::default() }
    }

    fn work(task: Task, choice: Choice, clients: usize) -> Work {
        Work { value: 100, choice, clients, task }
    }

    #[test]
    fn the_peer_is_the_etcd_api_with_the_highest_median() {
        let ways = BTreeMap::from([
            (ClientApi::Ours, rounds(&[9.0, 9.0, 9.0])),
            (ClientApi::Gateway, rounds(&[8.0, 8.0, 8.0])),
            (ClientApi::Grpc, rounds(&[3.0, 4.0, 3.0])),
            (ClientApi::Json, rounds(&[1.0, 8.0, 1.0])),
            (ClientApi::V2, rounds(&[2.0, 2.0, 2.0])),
        ]);
        assert_eq!(fastest(&ways).map(|(api, _)| api), Some(ClientApi::Grpc));
        let alone = BTreeMap::from([(ClientApi::Ours, rounds(&[9.0])), (ClientApi::Gateway, rounds(&[8.0]))]);
        assert!(fastest(&alone).is_none());
    }

    #[test]
    fn targets_apply_only_to_uniform_keys_at_the_owner() {
        let shown = |task, choice, clients, api| {
            let (rate, latency) = targets(work(task, choice, clients), api);
            rate.iter().chain(&latency).map(ToString::to_string).collect::<Vec<_>>()
        };
        let direct = |task, clients| shown(task, Choice::Uniform, clients, ClientApi::Ours);
        assert_eq!(direct(Task::Put, 64), ["ratio >= 3", "ratio of p99 <= 1"]);
        assert_eq!(direct(Task::Get, 64), ["ratio >= 3"]);
        assert_eq!(direct(Task::Get, 256), ["ratio >= 1"]);
        assert_eq!(direct(Task::Put, 1), ["p50 <= 3"]);
        assert!(direct(Task::Primary, 64).is_empty());
        assert!(shown(Task::Put, Choice::Zipf, 64, ClientApi::Ours).is_empty());
        assert!(shown(Task::Put, Choice::Uniform, 64, ClientApi::Gateway).is_empty());
    }

    #[test]
    fn both_of_our_apis_are_compared_with_the_same_numbers_of_etcd() {
        let ways = BTreeMap::from([
            (ClientApi::Ours, rounds(&[9.0])),
            (ClientApi::Gateway, rounds(&[6.0])),
            (ClientApi::V2, rounds(&[3.0])),
        ]);
        let measured = Measured::from([(work(Task::Get, Choice::Zipf, 64), ways)]);
        let mut report = Report::begin("kv", "etcd");
        report_rows(&measured, &Ok("3.4".to_owned()), &mut report);
        let rates = report.rows.iter().filter(|row| row.unit == "req/s");
        let ratios: Vec<_> = rates.map(|row| (row.what.as_str(), row.ratio())).collect();
        assert_eq!(
            ratios,
            [("GET strong 100 B, zipf", Some(3.0)), ("GET strong 100 B, zipf, gateway", Some(2.0))]
        );
    }
}
