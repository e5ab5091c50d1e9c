//! Measures the first search after the owner of the only shard was killed, with unapplied operations in the log.
//!
//! `refresh: 1h` keeps what was written in the log alone, so that the next owner has to replay it. From the kill on, a search
//! of each read level starts every 20 ms through the gateway; the first answer of each level counts. A strong search must
//! find every acknowledged document.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use client::Client;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::nodes::Nodes;
use crate::ours::Binaries;
use crate::progress::progress;
use crate::report::Report;
use crate::rows::{Row, Target};
use crate::search::corpus::{BATCH, Corpus, Source, definition};
use crate::search::{INDEX, Sizes};
use crate::stats::{Summary, millis};

/// The time between the starts of two searches.
const EVERY: Duration = Duration::from_millis(20);
/// The pause between two looks at the claims.
const LOOK: Duration = Duration::from_millis(5);
/// The time limit of a request.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// The time limit of a step.
const LIMIT: Duration = Duration::from_secs(120);
/// The pause in which everything settles before the next kill.
const REST: Duration = Duration::from_secs(1);
const NAMES: [&str; 2] = ["a", "b"];
const LEVELS: [&str; 3] = ["any", "primary", "strong"];

/// The times of all rounds, by read level.
#[derive(Debug, Default)]
struct Times {
    /// From the kill to the first answer.
    since_kill: [Vec<Duration>; 3],
    /// From the moved claim to the first answer; zero if the answer came first.
    since_claim: [Vec<Duration>; 3],
    /// From the kill to the moved claim.
    claim: Vec<Duration>,
}

pub(crate) async fn run(binaries: &Binaries, sizes: &Sizes, report: &mut Report) -> anyhow::Result<()> {
    let corpus = Corpus::of(Source::Generated, sizes.documents).await?;
    for (who, replicas) in [("replica", 1), ("standby", 0)] {
        let times = takeovers(binaries, sizes, &corpus, replicas).await?;
        let name = |what: &str| format!("kill -9, a {who} takes over: {what}");
        report
            .rows
            .push(Row::new(name("until the claim moved"), 3, "ms").ours(Summary::of_times(&times.claim)));
        for (at, level) in LEVELS.iter().enumerate() {
            let row = Row::new(name(&format!("until the first search, {level}")), 3, "ms");
            report.rows.push(row.ours(Summary::of_times(&times.since_kill[at])));
            let row = Row::new(name(&format!("from the moved claim to the first search, {level}")), 3, "ms");
            let row = row.ours(Summary::of_times(&times.since_claim[at]));
            let has_target = replicas > 0 && *level != "any";
            report.rows.push(if has_target { row.target(Target::Max(1_000.0)) } else { row });
        }
        let ms = |times: &[Duration]| times.iter().map(|time| millis(*time)).collect::<Vec<_>>();
        report.details.push(json!({
            "takes over": who,
            "claim_ms": ms(&times.claim),
            "since_kill_ms": LEVELS.iter().zip(&times.since_kill).map(|(level, times)| (*level, ms(times))).collect::<Vec<_>>(),
            "since_claim_ms": LEVELS.iter().zip(&times.since_claim).map(|(level, times)| (*level, ms(times))).collect::<Vec<_>>(),
        }));
    }
    report.notes.push(format!(
        "takeover: {} documents in segments, {} operations in the log to replay; searches start every {EVERY:?} through the \
         gateway, and the claims are read every {LOOK:?}. A standby downloads the segments first",
        sizes.documents, sizes.replayed
    ));
    Ok(())
}

/// A gateway, an owner, and a node that can take over.
async fn takeovers(
    binaries: &Binaries,
    sizes: &Sizes,
    corpus: &Corpus,
    replicas: u32,
) -> anyhow::Result<Times> {
    let other = if replicas > 0 { "searcher/0" } else { "standby" };
    let mut nodes = Nodes::new(binaries.clone())?;
    let spec = json!({ "searcher": { "shards": 1, "replicas": replicas, "settings": { "refresh": "1h" } } });
    nodes.apply(&spec).await?;
    for (name, role) in [("gateway", "api_gateway"), (NAMES[0], "searcher/0"), (NAMES[1], other)] {
        nodes.start(name, &role.parse()?)?;
        nodes.ready(name).await?;
    }
    nodes.sees("gateway", 3).await?;
    let service = Service {
        url: format!("http://{}/searcher/{INDEX}", nodes.gateway("gateway").await?),
        http: client::plain_http().timeout(REQUEST_LIMIT).build()?,
    };
    let created = service.http.put(&service.url).json(&definition()).send().await?;
    ensure!(created.status().is_success(), "{}", created.text().await?);
    for batch in &corpus.batches {
        service.post("docs", batch.to_vec()).await?;
    }
    service.post("refresh", Vec::new()).await?;
    let (mut times, mut documents) = (Times::default(), corpus.documents);
    for round in 1..=sizes.kills {
        let owner = owner(nodes.client("gateway")?).await?.context("the shard has no owner")?;
        let owner =
            *NAMES.iter().find(|name| **name == owner).context("the owner is not a node of this run")?;
        if replicas > 0 {
            has_a_replica(nodes.client("gateway")?).await?;
        }
        sleep(REST).await;
        for lines in new_lines(round, sizes.replayed) {
            service.post("docs", lines).await?;
        }
        documents += sizes.replayed;
        let began = Instant::now();
        nodes.signal(owner, Signal::KILL).await?;
        service.takeover(nodes.client("gateway")?, owner, began, documents, &mut times).await?;
        let last = |times: &[Vec<Duration>; 3]| {
            times
                .iter()
                .filter_map(|times| times.last())
                .map(|time| format!("{:.0}", millis(*time)))
                .collect::<Vec<_>>()
                .join(", ")
        };
        progress(&format!(
            "{replicas} replicas, round {round}/{}: first searches after {} ms",
            sizes.kills,
            last(&times.since_kill)
        ));
        nodes.start(owner, &other.parse()?)?;
        nodes.ready(owner).await?;
        nodes.sees("gateway", 3).await?;
        service.post("refresh", Vec::new()).await?;
    }
    nodes.end().await;
    Ok(times)
}

/// Bodies of requests with documents that no earlier round had.
fn new_lines(round: u32, documents: usize) -> Vec<Vec<u8>> {
    let line = |number: usize| {
        let document = json!({ "id": format!("r{round}-{number}"), "title": "written before the kill", "body": format!("replayed {number}") });
        format!("{document}\n")
    };
    let numbers: Vec<_> = (0..documents).collect();
    numbers
        .chunks(BATCH)
        .map(|chunk| chunk.iter().map(|number| line(*number)).collect::<String>().into_bytes())
        .collect()
}

/// The name of the node that owns the shard, from the object store.
async fn owner(client: &Client) -> anyhow::Result<Option<String>> {
    let claims = client.claims().await?;
    let holder = claims.claims.first().and_then(|claim| claim.holder.as_ref());
    Ok(holder.map(|holder| holder.node.as_str().to_owned()))
}

async fn has_a_replica(client: &Client) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let claims = client.claims().await?;
        let replicas = claims.claims.iter().flat_map(|claim| &claim.replicas);
        if replicas.filter(|replica| replica.phase.is_serving()).count() > 0 {
            return Ok(());
        }
        if began.elapsed() > LIMIT {
            bail!("no node became a replica: {claims:#?}");
        }
        sleep(EVERY).await;
    }
}

/// The service behind the gateway.
#[derive(Debug)]
struct Service {
    url: String,
    http: reqwest::Client,
}

impl Service {
    /// Sends a request until it is answered well; a line that is refused is an error.
    async fn post(&self, path: &str, body: Vec<u8>) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let request =
                self.http.post(format!("{}/{path}", self.url)).header("content-type", "application/x-ndjson");
            let answer = request.body(body.clone()).send().await?;
            let (status, text) = (answer.status(), answer.text().await?);
            let answer: Value = serde_json::from_str(&text).unwrap_or_default();
            let is_whole = answer["refused"].as_array().is_none_or(Vec::is_empty);
            if status.is_success() && is_whole {
                return Ok(());
            }
            // Documents have ids, so sending them again does no harm.
            if began.elapsed() > LIMIT {
                bail!("{path}: {status} {text}");
            }
            sleep(EVERY).await;
        }
    }

    /// Searches at all levels until each has an answer, and notes when the claim moved.
    async fn takeover(
        &self,
        client: &Client,
        owner: &str,
        began: Instant,
        documents: usize,
        times: &mut Times,
    ) -> anyhow::Result<()> {
        let moved = async {
            while self::owner(client).await?.is_none_or(|now| now == owner) {
                ensure!(began.elapsed() < LIMIT, "the claim of {owner} did not move within {LIMIT:?}");
                sleep(LOOK).await;
            }
            Ok(Instant::now())
        };
        let [any, primary, strong] = LEVELS.map(|level| self.first(level, began, documents));
        let (moved, any, primary, strong) = tokio::try_join!(moved, any, primary, strong)?;
        times.claim.push(moved - began);
        for (at, answered) in [any, primary, strong].into_iter().enumerate() {
            times.since_kill[at].push(answered - began);
            times.since_claim[at].push(answered.saturating_duration_since(moved));
        }
        Ok(())
    }

    /// Starts a search at regular intervals. Returns when the first one was answered.
    async fn first(&self, level: &str, began: Instant, documents: usize) -> anyhow::Result<Instant> {
        let url = format!("{}/search?size=1&allow_partial=false&consistency={level}", self.url);
        let mut searches = JoinSet::new();
        let mut beat = interval(EVERY);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let why = Arc::new(std::sync::Mutex::new(String::new()));
        loop {
            tokio::select! {
                Some(found) = searches.join_next() => {
                    if let Ok(Some(total)) = found {
                        let is_right = level != "strong" || total == u64::try_from(documents)?;
                        ensure!(is_right, "a strong search finds {total} of {documents} documents");
                        return Ok(Instant::now());
                    }
                }
                _ = beat.tick() => {
                    let (request, why) = (self.http.get(&url), Arc::clone(&why));
                    searches.spawn(async move {
                        let answer = request.send().await.ok()?;
                        let (is_right, text) = (answer.status().is_success(), answer.text().await.ok()?);
                        let found: Value = serde_json::from_str(&text).ok()?;
                        let total = found["total"].as_u64().filter(|_| is_right);
                        if total.is_none() && let Ok(mut why) = why.lock() {
                            *why = text;
                        }
                        total
                    });
                }
            }
            if began.elapsed() > LIMIT {
                bail!("no search with `{level}` was answered within {LIMIT:?}: {why:?}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_writes_other_documents() {
        let lines = |round| new_lines(round, 2_500);
        assert_eq!(
            lines(1)
                .iter()
                .map(|batch| batch.iter().filter(|byte| **byte == b'\n').count())
                .collect::<Vec<_>>(),
            [1_000, 1_000, 500]
        );
        assert_ne!(lines(1), lines(2));
    }
}
