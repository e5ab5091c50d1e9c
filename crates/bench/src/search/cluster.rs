//! A cluster of searchers, and the requests that fill its indexes.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::nodes::Nodes;
use crate::ours::Binaries;
use crate::proc::cpu_with_ended_threads;
use crate::search::corpus::{Corpus, definition};
use crate::search::visible::{Since, Written};
use crate::wire::{Answer, Connection, Protocol};

/// The pause before a request is sent again that was refused because the indexer is behind.
const AGAIN: Duration = Duration::from_millis(20);
/// The time limit of a request that waits for merges.
const LIMIT: Duration = Duration::from_secs(600);
const NAMES: [&str; 2] = ["s0", "s1"];

/// Searchers, one for each shard. Dropping it kills them.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) nodes: Nodes,
    /// The API of the first shard's owner.
    pub(crate) addr: SocketAddr,
    /// All processes.
    pub(crate) pids: Vec<u32>,
    http: reqwest::Client,
}

/// The part of an answer to many documents that matters here.
#[derive(Debug, Deserialize)]
struct Stored {
    indexed: usize,
    refused: Vec<RefusedLine>,
}

#[derive(Debug, Deserialize)]
struct RefusedLine {
    /// From 1.
    line: usize,
    status: u16,
    detail: String,
}

impl Cluster {
    /// Starts an owner for each shard, at most two, with these settings.
    pub(crate) async fn start(binaries: Binaries, shards: usize, settings: Value) -> anyhow::Result<Self> {
        let mut nodes = Nodes::new(binaries)?;
        nodes.apply(&json!({ "searcher": { "shards": shards, "settings": settings } })).await?;
        let names = NAMES.get(..shards).context("there are at most two shards")?;
        for (shard, name) in names.iter().enumerate() {
            nodes.start(name, &format!("searcher/{shard}").parse()?)?;
            nodes.ready(name).await?;
        }
        let first = names.first().context("there is at least one shard")?;
        nodes.sees(first, shards).await?;
        let pids = names.iter().map(|name| nodes.pid(name)).collect::<anyhow::Result<_>>()?;
        let http = client::plain_http().timeout(LIMIT).build()?;
        Ok(Self { addr: nodes.api(first)?, pids, nodes, http })
    }

    /// Creates an index for the documents of a corpus.
    pub(crate) async fn create(&self, index: &str) -> anyhow::Result<()> {
        self.create_as(index, &definition()).await
    }

    /// Creates an index with a definition.
    pub(crate) async fn create_as(&self, index: &str, definition: &Value) -> anyhow::Result<()> {
        let url = format!("http://{}/svc/searcher/{index}", self.addr);
        success(self.http.put(url).json(definition).send().await?).await.map(drop)
    }

    /// Makes everything that was acknowledged visible.
    pub(crate) async fn refresh(&self, index: &str) -> anyhow::Result<()> {
        self.post(&format!("{index}/refresh"), Bytes::new()).await.map(drop)
    }

    /// The number of bytes of the index's segments at all shards.
    pub(crate) async fn segment_bytes(&self, index: &str) -> anyhow::Result<f64> {
        let url = format!("http://{}/svc/searcher/{index}", self.addr);
        let shown = success(self.http.get(url).send().await?).await?;
        shown["bytes"].as_f64().with_context(|| format!("no bytes in {shown}"))
    }

    async fn post(&self, path: &str, body: Bytes) -> anyhow::Result<Value> {
        post_to(&self.http, self.addr, path, body).await
    }

    /// The CPU time of all processes.
    pub(crate) fn on_cpu(&self) -> anyhow::Result<Duration> {
        self.pids.iter().map(|pid| cpu_with_ended_threads(*pid)).sum()
    }

    /// Stores the documents with several connections at the first shard's owner.
    pub(crate) async fn load(
        &self,
        index: &str,
        corpus: &Arc<Corpus>,
        connections: usize,
        written: &Arc<Written>,
    ) -> anyhow::Result<()> {
        let next = Arc::new(AtomicUsize::new(0));
        let mut writers = JoinSet::new();
        for _ in 0..connections {
            let mut writer = Writer::open(self.addr, index).await?;
            let (corpus, next, written) = (Arc::clone(corpus), Arc::clone(&next), Arc::clone(written));
            writers.spawn(async move {
                while let Some(batch) = corpus.batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                    writer.store(batch.clone(), &written).await?;
                }
                Ok::<_, anyhow::Error>(())
            });
        }
        while let Some(writer) = writers.join_next().await {
            writer??;
        }
        Ok(())
    }
}

/// Sends a request to an index, at the first shard's owner.
pub(crate) async fn post_to(
    http: &reqwest::Client,
    addr: SocketAddr,
    path: &str,
    body: Bytes,
) -> anyhow::Result<Value> {
    let request =
        http.post(format!("http://{addr}/svc/searcher/{path}")).header(CONTENT_TYPE, "application/x-ndjson");
    success(request.body(body).send().await?).await.with_context(|| path.to_owned())
}

async fn success(answer: reqwest::Response) -> anyhow::Result<Value> {
    let (status, text) = (answer.status(), answer.text().await?);
    if !status.is_success() {
        bail!("{status} {text}");
    }
    Ok(serde_json::from_str(&text)?)
}

/// A connection that stores documents.
#[derive(Debug)]
pub(crate) struct Writer {
    connection: Connection,
    host: String,
    path: String,
}

impl Writer {
    pub(crate) async fn open(addr: SocketAddr, index: &str) -> anyhow::Result<Self> {
        let connection = Connection::open(addr, Protocol::Http1).await?;
        Ok(Self { connection, host: addr.to_string(), path: format!("/svc/searcher/{index}/docs") })
    }

    /// Stores all lines of a batch; those that are refused because the indexer is behind are sent again.
    pub(crate) async fn store(&mut self, mut batch: Bytes, written: &Written) -> anyhow::Result<()> {
        written.note(Since::Sent, batch.iter().filter(|byte| **byte == b'\n').count());
        loop {
            let request = Request::builder()
                .method(Method::POST)
                .uri(&self.path)
                .header(HOST, &self.host)
                .header(CONTENT_TYPE, "application/x-ndjson")
                .body(Full::new(batch.clone()))?;
            let answer = self.connection.send(request).await?;
            if is_later(answer.status.as_u16()) {
                written.refuse(1);
                sleep(AGAIN).await;
                continue;
            }
            let Stored { indexed, refused } = stored(&answer)?;
            written.note(Since::Acknowledged, indexed);
            if refused.is_empty() {
                return Ok(());
            }
            if let Some(line) = refused.iter().find(|line| !is_later(line.status)) {
                bail!("line {}: {} {}", line.line, line.status, line.detail);
            }
            written.refuse(refused.len());
            batch = lines(&batch, &refused.iter().map(|line| line.line).collect());
            sleep(AGAIN).await;
        }
    }
}

fn is_later(status: u16) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS.as_u16()
}

fn stored(answer: &Answer) -> anyhow::Result<Stored> {
    if answer.status != StatusCode::OK {
        bail!("{} {}", answer.status, answer.excerpt());
    }
    Ok(serde_json::from_slice(&answer.body)?)
}

/// Some lines of a batch, by their numbers from 1.
fn lines(batch: &Bytes, wanted: &BTreeSet<usize>) -> Bytes {
    let mut left = BytesMut::new();
    for (number, line) in (1..).zip(batch.split_inclusive(|byte| *byte == b'\n')) {
        if wanted.contains(&number) {
            left.put_slice(line);
        }
    }
    left.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_refused_lines_are_sent_again() {
        let batch = Bytes::from_static(b"a\nb\nc\n");
        assert_eq!(lines(&batch, &BTreeSet::from([1, 3])), Bytes::from_static(b"a\nc\n"));
    }
}
