//! Measures every kind of query on every server in every round, in turn, with and without a merge.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use serde_json::Value;
use tokio::time::sleep;

use crate::kv::drive::cpu_us;
use crate::kv::rounds::Rounds;
use crate::proc::cpu_with_ended_threads;
use crate::progress::progress;
use crate::search::INDEX;
use crate::search::cluster::post_to;
use crate::search::corpus::{Corpus, Source};
use crate::search::drive::{Drive, get};
use crate::search::peer::merge_at;
use crate::search::queries::{Kind, Query};
use crate::wire::{Connection, Protocol};

/// The pause between two runs, in which a server finishes its background work.
const PAUSE: Duration = Duration::from_millis(200);
/// The number of documents that are written again before each merge.
const REWRITTEN: usize = 200;
/// How far two scores may differ, relatively.
const SAME: f64 = 1e-4;

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    /// A searcher that owns the only shard.
    OneShard,
    /// One of two searchers, which gathers from both.
    TwoShards,
    /// Tantivy's handler.
    Tantivy,
    /// A handler in the same process that does nothing.
    Empty,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::OneShard => "1 shard",
            Self::TwoShards => "2 shards",
            Self::Tantivy => "tantivy",
            Self::Empty => "empty handler",
        })
    }
}

/// A server.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) who: Who,
    pub(crate) addr: SocketAddr,
    /// The processes that take part in an answer.
    pub(crate) pids: Vec<u32>,
}

/// One combination. Rows of the report have its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Work {
    pub(crate) kind: Kind,
    pub(crate) clients: usize,
    /// Whether segments are merged meanwhile.
    pub(crate) merging: bool,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, clients: _, merging } = self;
        write!(f, "{kind}{}", if *merging { ", during merges" } else { "" })
    }
}

/// The samples of all rounds.
pub(crate) type Measured = BTreeMap<Work, BTreeMap<Who, Rounds>>;

/// The plan and the results.
#[derive(Debug)]
pub(crate) struct Matrix {
    pub(crate) servers: Vec<Server>,
    pub(crate) queries: BTreeMap<Kind, Vec<Query>>,
    pub(crate) clients: Vec<usize>,
    pub(crate) rounds: u32,
    pub(crate) time: Duration,
    pub(crate) with_merges: bool,
    pub(crate) measured: Measured,
    /// The requests to a handler that does nothing, by the number of clients.
    pub(crate) empty: BTreeMap<usize, Rounds>,
    /// The number of merges that ended while searches were measured.
    pub(crate) merges: BTreeMap<Who, u32>,
}

impl Matrix {
    fn server(&self, who: Who) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(move |server| server.who == who)
    }

    /// Compares the answers of all servers. Returns how many queries of each kind differ where they may.
    pub(crate) async fn check(&self, corpus: &Corpus) -> anyhow::Result<BTreeMap<Kind, usize>> {
        let mut different = BTreeMap::new();
        for (kind, queries) in &self.queries {
            for query in queries {
                let mut answers = Vec::new();
                for server in self.servers.iter().filter(|server| server.who != Who::Empty) {
                    let mut connection = Connection::open(server.addr, Protocol::Http1).await?;
                    let answer =
                        get(&mut connection, &server.addr.to_string(), &path(server.who, query)).await?;
                    answers.push(serde_json::from_slice::<Value>(&answer.body)?);
                }
                let first = answers.first().context("there is a server")?;
                ensure!(
                    first["total"].as_u64().is_some_and(|total| total > 0),
                    "{query:?} finds nothing: {first}"
                );
                if answers.iter().all(|answer| is_same(*kind, first, answer)) {
                    continue;
                }
                if kind.is_same_in_tantivy() && corpus.source == Source::Generated {
                    bail!("{query:?} is answered differently: {answers:#?}");
                }
                *different.entry(*kind).or_default() += 1;
            }
        }
        Ok(different)
    }

    /// Measures everything in all rounds.
    pub(crate) async fn measure(&mut self, corpus: &Corpus) -> anyhow::Result<()> {
        for round in 1..=self.rounds {
            for clients in self.clients.clone() {
                for kind in self.queries.keys().copied().collect::<Vec<_>>() {
                    self.measure_work(round, Work { kind, clients, merging: false }).await?;
                }
                for server in self.server(Who::Empty).cloned().collect::<Vec<_>>() {
                    let (rounds, paths) =
                        (self.empty.remove(&clients).unwrap_or_default(), vec!["/empty".to_owned()]);
                    let rounds = self.run(&server, clients, paths, rounds).await?;
                    self.empty.insert(clients, rounds);
                }
            }
        }
        // Last, for a merge leaves other segments.
        let merging_rounds = if self.with_merges { self.rounds } else { 0 };
        for round in 1..=merging_rounds {
            for clients in self.clients.clone() {
                for kind in self.queries.keys().copied().collect::<Vec<_>>() {
                    self.measure_merging(round, Work { kind, clients, merging: true }, corpus).await?;
                }
            }
        }
        Ok(())
    }

    /// Measures all servers with the same work, one after the other.
    async fn measure_work(&mut self, round: u32, work: Work) -> anyhow::Result<()> {
        for server in self.servers.clone().iter().filter(|server| server.who != Who::Empty) {
            self.measure_one(round, work, server).await?;
        }
        Ok(())
    }

    async fn measure_one(&mut self, round: u32, work: Work, server: &Server) -> anyhow::Result<()> {
        let paths: Vec<_> = self.queries[&work.kind].iter().map(|query| path(server.who, query)).collect();
        let ways = self.measured.entry(work).or_default();
        let rounds = ways.remove(&server.who).unwrap_or_default();
        let rounds = self.run(server, work.clients, paths, rounds).await?;
        let rate = rounds.per_second.last().copied().unwrap_or_default();
        progress(&format!("round {round}, {work}, {} clients, {}: {rate:.0}/s", work.clients, server.who));
        self.measured.entry(work).or_default().insert(server.who, rounds);
        Ok(())
    }

    /// Runs clients, and adds the samples.
    async fn run(
        &self,
        server: &Server,
        clients: usize,
        paths: Vec<String>,
        mut rounds: Rounds,
    ) -> anyhow::Result<Rounds> {
        sleep(PAUSE).await;
        let on_cpu =
            || server.pids.iter().map(|pid| cpu_with_ended_threads(*pid)).sum::<anyhow::Result<Duration>>();
        let before = on_cpu()?;
        let drive = Drive { addr: server.addr, paths: Arc::new(paths), clients, time: self.time };
        let driven = drive.run().await?;
        rounds.cpu_us.push(cpu_us(on_cpu()?.saturating_sub(before), &driven));
        rounds.per_second.push(driven.per_second);
        rounds.took_ms.extend(driven.took_ms);
        Ok(rounds)
    }

    /// The same while all segments are merged again and again, each time with some documents written before.
    async fn measure_merging(&mut self, round: u32, work: Work, corpus: &Corpus) -> anyhow::Result<()> {
        let lines = corpus.first(REWRITTEN);
        let servers: Vec<_> = self.server(Who::OneShard).chain(self.server(Who::Tantivy)).cloned().collect();
        for server in servers {
            let stop = AtomicBool::new(false);
            let measuring = async {
                let measured = self.measure_one(round, work, &server).await;
                stop.store(true, Ordering::Relaxed);
                measured
            };
            let (measured, merges) = tokio::join!(measuring, merge_until(&stop, &server, &lines));
            measured?;
            *self.merges.entry(server.who).or_default() += merges?;
        }
        Ok(())
    }
}

/// Writes some documents and merges all segments until it is stopped. Returns the number of merges.
async fn merge_until(stop: &AtomicBool, server: &Server, lines: &Bytes) -> anyhow::Result<u32> {
    let http = client::plain_http().build()?;
    let mut merges = 0;
    while !stop.load(Ordering::Relaxed) {
        if server.who == Who::Tantivy {
            merge_at(&http, server.addr, String::from_utf8_lossy(lines).into_owned()).await?;
        } else {
            post_to(&http, server.addr, &format!("{INDEX}/docs?refresh=true"), lines.clone()).await?;
            post_to(&http, server.addr, &format!("{INDEX}/compact"), Bytes::new()).await?;
        }
        merges += 1;
    }
    Ok(merges)
}

fn path(who: Who, query: &Query) -> String {
    match who {
        Who::OneShard | Who::TwoShards => query.ours(INDEX),
        Who::Tantivy => query.tantivys(),
        Who::Empty => "/empty".to_owned(),
    }
}

/// Whether two answers have the same number of matches, the same counts of facets, and, where both score alike, the same best
/// score.
fn is_same(kind: Kind, left: &Value, right: &Value) -> bool {
    let best = |answer: &Value| answer["max_score"].as_f64().unwrap_or_default();
    let is_near = (best(left) - best(right)).abs() <= SAME * best(left).abs();
    left["total"] == right["total"]
        && facet_counts(left) == facet_counts(right)
        && (is_near || !kind.is_same_in_tantivy())
}

/// The counts of the facet, the highest first: in the form of a searcher, or of Tantivy.
fn facet_counts(answer: &Value) -> Vec<u64> {
    let facet = &answer["facets"]["section"];
    let values = facet.as_array().or_else(|| facet["buckets"].as_array());
    let count = |value: &Value| value["count"].as_u64().or_else(|| value["doc_count"].as_u64());
    values.into_iter().flatten().filter_map(count).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_are_the_same_if_totals_and_best_scores_are() {
        let answer = |total: u32, score: f64| json!({ "total": total, "max_score": score });
        assert!(is_same(Kind::Term, &answer(7, 3.0), &answer(7, 3.000_01)));
        assert!(!is_same(Kind::Term, &answer(7, 3.0), &answer(7, 3.1)));
        assert!(!is_same(Kind::Prefix, &answer(7, 3.0), &answer(8, 3.0)));
        assert!(is_same(Kind::Prefix, &answer(7, 3.0), &answer(7, 1.0)));
    }

    #[test]
    fn facets_are_the_same_in_both_forms_if_their_counts_are() {
        let ours = json!({ "total": 7, "facets": { "section": [{ "value": "a", "count": 7 }] } });
        let tantivys = |count: u32| {
            let buckets = json!([{ "key": "a", "doc_count": count }]);
            json!({ "total": 7, "facets": { "section": { "buckets": buckets } } })
        };
        assert!(is_same(Kind::Facet, &ours, &tantivys(7)));
        assert!(!is_same(Kind::Facet, &ours, &tantivys(6)));
    }
}
