//! What the proxies measured, as rows beside the best of others, and as a table of all. Pure.

use std::collections::{BTreeMap, BTreeSet};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde_json::json;

use crate::proxies::Proxy;
use crate::proxies::load::Latency;
use crate::proxies::rounds::{Measured, Rounds};
use crate::report::Report;
use crate::rows::{Peer, Row, Target};
use crate::stats::Summary;
use crate::table::number;

/// Which proxies ours is compared with: the best one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// nginx and HAProxy.
    Peers,
    Nginx,
    Haproxy,
    /// Envoy, Traefik and Caddy.
    Others,
}

/// A comparison of our result with the best one of a group, with the targets of the rate, the latency and the CPU time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Comparison {
    pub(crate) group: Group,
    pub(crate) rate: Option<Target>,
    pub(crate) latency: Option<Target>,
    pub(crate) cpu: Option<Target>,
}

/// Which result is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    More,
    Less,
    /// The lower 99th percentile.
    LessP99,
}

/// One quantity of all proxies.
#[derive(Debug)]
pub(crate) struct Compared {
    pub(crate) what: String,
    pub(crate) clients: usize,
    pub(crate) unit: &'static str,
    pub(crate) better: Better,
    pub(crate) values: BTreeMap<Proxy, Summary>,
    pub(crate) comparisons: Vec<(Group, Option<Target>)>,
}

impl Group {
    fn has(self, proxy: Proxy) -> bool {
        match self {
            Self::Peers => proxy.is_peer(),
            Self::Nginx => proxy.is_nginx(),
            Self::Haproxy => proxy == Proxy::Haproxy,
            Self::Others => matches!(proxy, Proxy::Envoy | Proxy::Traefik | Proxy::Caddy),
        }
    }

    /// The end of a row's name.
    fn suffix(self) -> &'static str {
        match self {
            Self::Peers => "",
            Self::Nginx => ", beside nginx",
            Self::Haproxy => ", beside HAProxy",
            Self::Others => ", beside Envoy, Traefik, Caddy",
        }
    }
}

impl Comparison {
    pub(crate) fn with(group: Group) -> Self {
        Self { group, rate: None, latency: None, cpu: None }
    }

    /// Ahead of Envoy, Traefik and Caddy in everything.
    pub(crate) fn ahead() -> Self {
        Self {
            group: Group::Others,
            rate: Some(Target::RatioAtLeast(1.0)),
            latency: Some(Target::RatioOfP99(1.0)),
            cpu: Some(Target::Ratio(1.0)),
        }
    }
}

impl Compared {
    /// A row for each comparison with proxies that were to be measured. Only the first group has rows without a target.
    fn rows(&self, missing: &BTreeMap<Proxy, String>) -> Vec<Row> {
        let mut rows = Vec::new();
        for (group, target) in &self.comparisons {
            let peer = self.best(*group, missing);
            if *group != Group::Peers && (target.is_none() || matches!(peer, Peer::None)) {
                continue;
            }
            let row = Row::new(format!("{}{}", self.what, group.suffix()), self.clients, self.unit);
            let row = row.ours(self.values.get(&Proxy::Ours).cloned()).peer(peer);
            rows.push(target.iter().copied().fold(row, Row::target));
        }
        rows
    }

    /// The best of a group, or why there is none.
    fn best(&self, group: Group, missing: &BTreeMap<Proxy, String>) -> Peer {
        let members = self.values.iter().filter(|(proxy, _)| group.has(**proxy));
        let best = members.min_by(|(_, a), (_, b)| match self.better {
            Better::More => b.p50.total_cmp(&a.p50),
            Better::Less => a.p50.total_cmp(&b.p50),
            Better::LessP99 => a.p99.total_cmp(&b.p99),
        });
        if let Some((proxy, summary)) = best {
            return Peer::Measured { profile: proxy.to_string(), summary: summary.clone() };
        }
        let missing: Vec<_> =
            missing.keys().filter(|proxy| group.has(**proxy)).map(Proxy::to_string).collect();
        if missing.is_empty() { Peer::None } else { Peer::Missing(format!("no {}", missing.join(", "))) }
    }
}

/// Rate, latency and CPU time of a load.
pub(crate) fn compared(measured: &Measured<Proxy>) -> Vec<Compared> {
    let Measured { task, rounds, .. } = measured;
    let one = |what: &str,
               unit,
               better,
               of: fn(&Rounds) -> Option<Summary>,
               target: fn(&Comparison) -> Option<Target>| {
        let values = rounds.iter().filter_map(|(proxy, rounds)| Some((*proxy, of(rounds)?)));
        Compared {
            what: format!("{}{what}", task.what),
            clients: task.clients,
            unit,
            better,
            values: values.collect(),
            comparisons: task.comparisons.iter().map(|each| (each.group, target(each))).collect(),
        }
    };
    vec![
        one("", task.unit(), Better::More, |rounds| Summary::of(&rounds.rates), |each| each.rate),
        one(": latency", "ms", Better::LessP99, latency, |each| each.latency),
        one(": CPU for 100,000", "s", Better::Less, |rounds| Summary::of(&rounds.cpu), |each| each.cpu),
    ]
}

/// What a request takes longer than without a proxy, in microseconds: the difference of medians in each round.
pub(crate) fn overhead(measured: &Measured<Proxy>, limit: f64) -> Option<Compared> {
    let direct: Vec<_> = measured.direct.latencies.iter().map(|latency| latency.p50).collect();
    let direct = Summary::of(&direct)?.p50;
    let values = measured.rounds.iter().filter_map(|(proxy, rounds)| {
        let more: Vec<_> = rounds.latencies.iter().map(|latency| (latency.p50 - direct) * 1e3).collect();
        Some((*proxy, Summary::of(&more)?))
    });
    Some(Compared {
        what: format!("{}: more than a direct request", measured.task.what),
        clients: measured.task.clients,
        unit: "us",
        better: Better::Less,
        values: values.collect(),
        comparisons: vec![
            (Group::Peers, Some(Target::P50(limit))),
            (Group::Others, Some(Target::Ratio(1.0))),
        ],
    })
}

/// The medians of each round's percentiles: a bad round shows in none of them.
pub(crate) fn latency(rounds: &Rounds) -> Option<Summary> {
    let of = |of: fn(&Latency) -> f64| Summary::of(&rounds.latencies.iter().map(of).collect::<Vec<_>>());
    Some(Summary {
        samples: usize::try_from(rounds.operations).unwrap_or(usize::MAX),
        min: of(|latency| latency.min)?.min,
        mean: of(|latency| latency.mean)?.p50,
        p50: of(|latency| latency.p50)?.p50,
        p90: of(|latency| latency.p90)?.p50,
        p99: of(|latency| latency.p99)?.p50,
        p999: Some(of(|latency| latency.p999)?.p50),
        max: of(|latency| latency.max)?.max,
    })
}

/// Reports all rows, the table of all proxies, and the numbers behind it.
pub(crate) fn report_all(all: &[Compared], missing: &BTreeMap<Proxy, String>, report: &mut Report) {
    report.rows.extend(all.iter().flat_map(|compared| compared.rows(missing)));
    if !all.is_empty() {
        report.notes.push(format!("\n{}\n", table(all)));
    }
    for compared in all {
        let values: BTreeMap<_, _> =
            compared.values.iter().map(|(proxy, summary)| (proxy.to_string(), summary)).collect();
        report.details.push(json!({
            "what": compared.what,
            "clients": compared.clients,
            "unit": compared.unit,
            "proxies": values,
        }));
    }
}

/// Notes the rounds that failed.
pub(crate) fn report_failures<K: std::fmt::Display>(all: &[Measured<K>], report: &mut Report) {
    for measured in all {
        let proxies = measured.rounds.iter().map(|(key, rounds)| (key.to_string(), rounds));
        for (who, rounds) in proxies.chain([("no proxy".to_owned(), &measured.direct)]) {
            if let Some(first) = rounds.failed.first() {
                let (what, clients, failed) =
                    (&measured.task.what, measured.task.clients, rounds.failed.len());
                report
                    .notes
                    .push(format!("{what}, {clients} clients, {who}: {failed} rounds failed: {first}"));
            }
        }
    }
}

/// One column for each proxy. Of latencies, the median and the 99th percentile.
fn table(all: &[Compared]) -> String {
    let proxies: BTreeSet<_> = all.iter().flat_map(|compared| compared.values.keys()).collect();
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let names = proxies.iter().map(|proxy| proxy.to_string().to_uppercase());
    table.set_header(["ALL PROXIES", "N", "UNIT"].map(str::to_owned).into_iter().chain(names));
    for Compared { what, clients, unit, better, values, .. } in all {
        let cells = proxies.iter().map(|proxy| match values.get(proxy) {
            None => "-".to_owned(),
            Some(summary) if *better == Better::LessP99 => {
                format!("{} / {}", number(summary.p50), number(summary.p99))
            }
            Some(summary) => number(summary.p50),
        });
        table.add_row([what.clone(), clients.to_string(), (*unit).to_owned()].into_iter().chain(cells));
    }
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if at == 1 || at > 2 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests;
