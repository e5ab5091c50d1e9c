//! How long written documents take until searches find them.
//!
//! Every write adds a document and the shard applies them in order, so the total of a search for everything says which
//! writes are visible.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::Request;
use http::header::HOST;
use http_body_util::Full;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use crate::stats::millis;
use crate::wire::{Connection, Protocol};

/// The pause between two searches.
const POLL: Duration = Duration::from_millis(5);
/// The time limit until everything is visible.
const LIMIT: Duration = Duration::from_secs(120);

/// How many documents were written when.
#[derive(Debug)]
pub(crate) struct Written {
    since: Since,
    counts: Mutex<Counts>,
}

/// From when on a write should be visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// Since its request was sent.
    Sent,
    /// Since it was acknowledged.
    Acknowledged,
}

#[derive(Debug, Default)]
struct Counts {
    /// The number of documents, and since when at least that many should be visible.
    steps: Vec<(usize, Instant)>,
    written: usize,
    refused: usize,
}

impl Written {
    pub(crate) fn new(since: Since) -> Self {
        Self { since, counts: Mutex::default() }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes documents that are sent, or were acknowledged, now.
    pub(crate) fn note(&self, what: Since, documents: usize) {
        if what == self.since {
            let mut counts = self.counts();
            counts.written += documents;
            let step = (counts.written, Instant::now());
            counts.steps.push(step);
        }
    }

    /// Notes lines that were refused because the indexer was behind.
    pub(crate) fn refuse(&self, lines: usize) {
        self.counts().refused += lines;
    }

    pub(crate) fn refused(&self) -> usize {
        self.counts().refused
    }

    /// The latencies in milliseconds of the steps that became visible between the last look and now.
    fn visible(&self, next: &mut usize, total: usize, now: Instant) -> Vec<f64> {
        let counts = self.counts();
        let new = counts.steps[*next..].iter().take_while(|(documents, _)| *documents <= total);
        let took: Vec<_> = new.map(|(_, since)| millis(now.saturating_duration_since(*since))).collect();
        *next += took.len();
        took
    }
}

/// The part of an answer that matters here.
#[derive(Debug, Deserialize)]
struct Total {
    total: usize,
}

/// A connection that counts the visible documents.
#[derive(Debug)]
pub(crate) struct Poller {
    connection: Connection,
    host: String,
    path: String,
}

impl Poller {
    pub(crate) async fn open(addr: SocketAddr, index: &str) -> anyhow::Result<Self> {
        let connection = Connection::open(addr, Protocol::Http1).await?;
        Ok(Self { connection, host: addr.to_string(), path: format!("/svc/searcher/{index}/search?size=0") })
    }

    async fn total(&mut self) -> anyhow::Result<usize> {
        let request =
            Request::builder().uri(&self.path).header(HOST, &self.host).body(Full::new(Bytes::new()))?;
        let answer = self.connection.send(request).await?;
        if !answer.status.is_success() {
            bail!("{} {}", answer.status, answer.excerpt());
        }
        let Total { total } = serde_json::from_slice(&answer.body).context("a search has a total")?;
        Ok(total)
    }

    /// Looks until `documents` are visible. Returns the latency of each step, in milliseconds.
    pub(crate) async fn watch(mut self, written: &Written, documents: usize) -> anyhow::Result<Vec<f64>> {
        let (mut took, mut next, mut seen) = (Vec::new(), 0, 0);
        let mut progressed = Instant::now();
        loop {
            let total = self.total().await?;
            let now = Instant::now();
            took.extend(written.visible(&mut next, total, now));
            if total >= documents {
                return Ok(took);
            }
            if total > seen {
                (seen, progressed) = (total, now);
            }
            if progressed.elapsed() > LIMIT {
                bail!("{total} of {documents} documents are visible, and no more for {LIMIT:?}");
            }
            sleep(POLL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_write_is_visible_once_as_many_documents_are_found_as_were_written_by_then() {
        let written = Written::new(Since::Acknowledged);
        written.note(Since::Sent, 10);
        written.note(Since::Acknowledged, 10);
        tokio::time::advance(Duration::from_millis(100)).await;
        written.note(Since::Acknowledged, 10);
        let mut next = 0;
        let now = Instant::now();
        assert_eq!(written.visible(&mut next, 9, now), Vec::<f64>::new());
        assert_eq!(written.visible(&mut next, 19, now), [100.0]);
        assert_eq!(written.visible(&mut next, 20, now), [0.0]);
        assert_eq!(next, 2);
    }
}
