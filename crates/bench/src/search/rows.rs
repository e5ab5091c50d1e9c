//! The rows of searches. Pure.

use std::collections::BTreeMap;

use serde_json::json;

use crate::kv::rounds::Rounds;
use crate::report::Report;
use crate::rows::{Peer, Row, Target};
use crate::search::corpus::Source;
use crate::search::matrix::{Matrix, Who, Work};
use crate::search::queries::Kind;
use crate::search::sql::{Database, OfDatabase};
use crate::stats::Summary;

/// What each database measured, or what is missing.
pub(crate) type Databases = Vec<(Database, Result<OfDatabase, String>)>;

/// The targets of the rate and of the latency.
fn targets(source: Source, who: Who, work: Work) -> (Option<Target>, Option<Target>) {
    let is_plain = source == Source::Generated && !work.merging;
    match (who, work.kind, work.clients) {
        (Who::OneShard, Kind::Term, 1 | 64) if is_plain => (Some(Target::RatioAtLeast(0.8)), None),
        (Who::TwoShards, Kind::Term, 1) if is_plain => (None, Some(Target::P50(2.0))),
        _ => (None, None),
    }
}

/// The peer's result, or why there is none.
pub(crate) fn peer(profile: &str, summary: Option<Summary>) -> Peer {
    match summary {
        Some(summary) => Peer::Measured { profile: profile.to_owned(), summary },
        None => Peer::Missing("not measured".to_owned()),
    }
}

/// Rate, latency and CPU of each work, beside Tantivy's handler; during merges the latency only, as merges take CPU.
pub(crate) fn beside_tantivy(source: Source, matrix: &Matrix, report: &mut Report) {
    for (work, each) in &matrix.measured {
        let theirs = each.get(&Who::Tantivy);
        for (who, ours) in each.iter().filter(|(who, _)| matches!(who, Who::OneShard | Who::TwoShards)) {
            let row = |what: &str, unit, of: fn(&Rounds) -> &[f64], target: Option<Target>| {
                let name = format!("{source}, {who}: {work}{what}");
                let row = Row::new(name, work.clients, unit).ours(Summary::of(of(ours)));
                let row = row.peer(peer("tantivy", theirs.and_then(|theirs| Summary::of(of(theirs)))));
                target.into_iter().fold(row, Row::target)
            };
            let (rate, latency) = targets(source, *who, *work);
            if !work.merging {
                report.rows.push(row("", "req/s", |rounds| &rounds.per_second, rate));
            }
            report.rows.push(row(": latency", "ms", |rounds| &rounds.took_ms, latency));
            if !work.merging {
                report.rows.push(row(": CPU a query", "us", |rounds| &rounds.cpu_us, None));
            }
        }
        for (who, rounds) in each {
            report.details.push(json!({
                "corpus": source.to_string(),
                "work": work.to_string(),
                "clients": work.clients,
                "who": who.to_string(),
                "per_second": rounds.per_second,
                "latency_ms": Summary::of(&rounds.took_ms),
                "cpu_us": rounds.cpu_us,
            }));
        }
    }
    for (clients, rounds) in &matrix.empty {
        for (what, unit, samples) in [
            ("a handler that does nothing", "req/s", &rounds.per_second),
            ("a handler that does nothing: latency", "ms", &rounds.took_ms),
            ("a handler that does nothing: CPU a request", "us", &rounds.cpu_us),
        ] {
            let row = Row::new(format!("{source}: {what}"), *clients, unit);
            report.rows.push(row.peer(peer("axum", Summary::of(samples))));
        }
    }
}

/// Latency and CPU of one client beside databases in a process of their own, without HTTP; and their memory.
pub(crate) fn beside_databases(source: Source, matrix: &Matrix, databases: &Databases, report: &mut Report) {
    for (database, measured) in databases {
        let of_database = match measured {
            Ok(of_database) => of_database,
            Err(why) => {
                let row = Row::new(format!("{source}, beside {database}"), 1, "ms");
                report.rows.push(row.peer(Peer::Missing(why.clone())));
                continue;
            }
        };
        for kind in matrix.queries.keys() {
            let work = Work { kind: *kind, clients: 1, merging: false };
            let ours = matrix.measured.get(&work).and_then(|each| each.get(&Who::OneShard));
            let theirs = match of_database.kinds.get(kind) {
                Some(Ok(of_kind)) => Ok(of_kind),
                Some(Err(why)) => Err(why.clone()),
                None => Err("not measured".to_owned()),
            };
            let row = |what: &str, unit, ours: Option<&[f64]>, theirs: Result<&[f64], &String>| {
                let peer = match theirs {
                    Ok(samples) => peer(&database.to_string(), Summary::of(samples)),
                    Err(why) => Peer::Missing(why.clone()),
                };
                Row::new(format!("{source}, beside {database}: {kind}{what}"), 1, unit)
                    .ours(ours.and_then(Summary::of))
                    .peer(peer)
            };
            let cpu = theirs.as_ref().map(|of_kind| vec![of_kind.cpu_us]);
            report.rows.extend([
                row(
                    ": latency",
                    "ms",
                    ours.map(|ours| ours.took_ms.as_slice()),
                    theirs.as_ref().map(|of_kind| of_kind.took_ms.as_slice()),
                ),
                row(
                    ": CPU a query",
                    "us",
                    ours.map(|ours| ours.cpu_us.as_slice()),
                    cpu.as_deref().map_err(|why| *why),
                ),
            ]);
        }
    }
}

/// A size of ours beside those of all peers.
pub(crate) fn sizes(what: &str, ours: &BTreeMap<Who, f64>, theirs: &[(String, f64)], report: &mut Report) {
    for (who, mib) in ours {
        for (name, theirs) in theirs {
            let row = Row::new(format!("{what}, {who}, beside {name}"), 1, "MiB");
            report.rows.push(row.ours(Summary::of(&[*mib])).peer(peer(name, Summary::of(&[*theirs]))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(rate: f64) -> Rounds {
        Rounds { per_second: vec![rate], took_ms: vec![1.0], cpu_us: vec![10.0] }
    }

    fn matrix(works: &[Work]) -> Matrix {
        let each = || [(Who::OneShard, rounds(90.0)), (Who::Tantivy, rounds(100.0))];
        Matrix {
            servers: Vec::new(),
            queries: works.iter().map(|work| (work.kind, Vec::new())).collect(),
            clients: vec![1],
            rounds: 1,
            time: std::time::Duration::ZERO,
            with_merges: false,
            measured: works.iter().map(|work| (*work, BTreeMap::from(each()))).collect(),
            empty: BTreeMap::new(),
            merges: BTreeMap::new(),
        }
    }

    fn work(kind: Kind, merging: bool) -> Work {
        Work { kind, clients: 1, merging }
    }

    #[test]
    fn a_term_has_a_target_and_merges_show_latencies_only() {
        let mut report = Report::begin("search", "peer");
        let works = [work(Kind::Term, false), work(Kind::Term, true), work(Kind::Or, false)];
        beside_tantivy(Source::Generated, &matrix(&works), &mut report);
        let rows: Vec<_> =
            report.rows.iter().map(|row| (row.what.as_str(), row.unit.as_str(), row.is_met())).collect();
        assert_eq!(
            rows,
            [
                ("generated, 1 shard: term", "req/s", Some(true)),
                ("generated, 1 shard: term: latency", "ms", None),
                ("generated, 1 shard: term: CPU a query", "us", None),
                ("generated, 1 shard: term, during merges: latency", "ms", None),
                ("generated, 1 shard: two terms, OR", "req/s", None),
                ("generated, 1 shard: two terms, OR: latency", "ms", None),
                ("generated, 1 shard: two terms, OR: CPU a query", "us", None),
            ]
        );
    }

    #[test]
    fn a_cell_that_a_database_cannot_do_says_why() {
        let kinds = BTreeMap::from([(Kind::Fuzzy, Err("no fuzzy queries".to_owned()))]);
        let sqlite = OfDatabase { version: String::new(), index_seconds: 1.0, kinds, rss_mib: 1.0, mib: 1.0 };
        let databases = vec![(Database::Sqlite, Ok(sqlite)), (Database::DuckDb, Err("no duckdb".to_owned()))];
        let mut report = Report::begin("search", "peer");
        let matrix = matrix(&[work(Kind::Fuzzy, false)]);
        beside_databases(Source::Packages, &matrix, &databases, &mut report);
        let peers = report.rows.iter().map(|row| match &row.peer {
            Peer::Missing(why) => why.as_str(),
            Peer::Measured { .. } | Peer::None => "measured",
        });
        assert_eq!(peers.collect::<Vec<_>>(), ["no fuzzy queries", "no fuzzy queries", "no duckdb"]);
        assert!(report.rows.iter().all(|row| row.ratio().is_none()));
    }
}
