//! Clients that each watch a lane for the whole run, and resume from their cursor after every break.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use http::StatusCode;
use rand::RngExt;
use reqwest::{Client, Response};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use types::{Frame, KeyHash, SseParser};

use crate::torture::cluster::SHARDS;
use crate::torture::history::{lane_prefix, read_value};
use crate::torture::stream::Change;
use crate::torture::workload::{LANES, Shared, mark};

/// The longest silence of a stream; heartbeats arrive every ten seconds.
const SILENCE: Duration = Duration::from_secs(25);
const CONNECT: Duration = Duration::from_secs(2);
/// The time limit of the head of an answer: a stream begins once every shard has an owner, or after 10 s.
const BEGIN: Duration = Duration::from_secs(15);
/// How long the server keeps changes for watchers that resume.
const RETENTION: Duration = Duration::from_mins(2);
/// How long watchers may take to see the last puts.
const CATCH_UP: Duration = Duration::from_mins(2);

/// What a watcher observed.
#[derive(Debug, Default, Clone)]
pub(crate) struct Observed {
    pub(crate) lane: u32,
    pub(crate) changes: Vec<Change>,
    /// The number of times it resumed after a break.
    pub(crate) breaks: u64,
    /// The time it had been disconnected, each time it got `gone`.
    pub(crate) gone: Vec<Duration>,
    /// Answers and events that the API does not allow.
    pub(crate) odd: Vec<String>,
}

/// Running watchers. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Watchers {
    shared: Arc<Shared>,
    lanes: Vec<Arc<Mutex<Observed>>>,
    marks: Vec<watch::Receiver<BTreeSet<String>>>,
    _running: JoinSet<()>,
}

#[derive(Debug)]
struct Watcher {
    shared: Arc<Shared>,
    http: Client,
    lane: u32,
    observed: Arc<Mutex<Observed>>,
    /// The names of [`last_names`] that it has seen.
    marks: watch::Sender<BTreeSet<String>>,
    cursor: Option<String>,
    heard: Instant,
}

/// The data of an event.
#[derive(Debug, Deserialize)]
struct Data {
    key: String,
    version: u64,
    shard: u32,
    value: Option<String>,
}

/// How a stream ended.
#[derive(Debug)]
enum End {
    Broken,
    /// The next change is not kept any more.
    Gone,
}

impl Watchers {
    /// Starts one watcher for each lane. Returns once all streams have begun, so that no put comes before.
    pub(crate) async fn start(shared: &Arc<Shared>) -> anyhow::Result<Self> {
        let mut running = JoinSet::new();
        let (mut lanes, mut marks) = (Vec::new(), Vec::new());
        for lane in 0..LANES {
            let observed = Arc::new(Mutex::new(Observed { lane, ..Observed::default() }));
            let (sender, receiver) = watch::channel(BTreeSet::new());
            let mut watcher = Watcher {
                shared: Arc::clone(shared),
                http: client::plain_http().connect_timeout(CONNECT).build()?,
                lane,
                observed: Arc::clone(&observed),
                marks: sender,
                cursor: None,
                heard: Instant::now(),
            };
            let first = watcher.open().await?;
            if first.status() != StatusCode::OK {
                bail!("a watch could not begin: {} {}", first.status(), first.text().await?);
            }
            let mut first = Stream::new(first);
            while watcher.cursor.is_none() {
                let frames = timeout(BEGIN, first.next()).await.context("a watch did not begin")??;
                watcher.take(&frames, first.parser.last_event_id());
            }
            running.spawn(watcher.run(first));
            lanes.push(observed);
            marks.push(receiver);
        }
        Ok(Self { shared: Arc::clone(shared), lanes, marks, _running: running })
    }

    /// Waits until each watcher has seen everything that was put before. Returns what they observed.
    pub(crate) async fn finish(self) -> anyhow::Result<Vec<Observed>> {
        for (lane, mut seen) in (0..).zip(self.marks.clone()) {
            let names = last_names(lane);
            for name in &names {
                mark(&self.shared, name).await?;
            }
            let waited = timeout(CATCH_UP, seen.wait_for(|seen| seen.is_superset(&names))).await;
            if waited.is_err() {
                let mut observed =
                    self.lanes[usize::try_from(lane)?].lock().unwrap_or_else(PoisonError::into_inner);
                observed.odd.push(format!("the last puts were not seen within {CATCH_UP:?}"));
            }
        }
        let observed =
            |lane: &Arc<Mutex<Observed>>| lane.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(self.lanes.iter().map(observed).collect())
    }
}

/// One name in each shard that a watcher of the lane sees and that is not one of its keys.
fn last_names(lane: u32) -> BTreeSet<String> {
    let shards = std::num::NonZeroU32::new(SHARDS).expect("there are shards");
    let names = |shard: u32| {
        let mut names = (0..).map(|number: u32| format!("{}end{number}", lane_prefix(lane)));
        names.find(|name| KeyHash::of(name.as_bytes()).shard(shards).as_u32() == shard)
    };
    (0..SHARDS).filter_map(names).collect()
}

impl Watcher {
    async fn run(mut self, first: Stream) {
        let mut stream = Some(first);
        loop {
            let end = match stream.take() {
                Some(stream) => self.follow(stream).await,
                None => match self.open().await {
                    Ok(answer) if answer.status() == StatusCode::OK => self.follow(Stream::new(answer)).await,
                    Ok(answer) if answer.status() == StatusCode::GONE => End::Gone,
                    Ok(answer) if answer.status().is_client_error() => {
                        self.odd(format!("{} {}", answer.status(), answer.text().await.unwrap_or_default()));
                        End::Broken
                    }
                    Ok(_) | Err(_) => End::Broken,
                },
            };
            {
                let mut observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
                observed.breaks += 1;
                if let End::Gone = end {
                    observed.gone.push(self.heard.elapsed());
                    self.cursor = None;
                }
            }
            let pause = rand::rng().random_range(5..300);
            sleep(Duration::from_millis(pause)).await;
        }
    }

    fn odd(&self, what: String) {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner).odd.push(what);
    }

    async fn open(&self) -> anyhow::Result<Response> {
        let gateway = self.shared.gateway(&mut rand::rng())?;
        let prefix = lane_prefix(self.lane);
        let mut request =
            self.http.get(format!("http://{gateway}/storage/watch?prefix={prefix}&values=true"));
        if let Some(cursor) = &self.cursor {
            request = request.header("last-event-id", cursor);
        }
        Ok(timeout(BEGIN, request.send()).await.context("no answer in time")??)
    }

    async fn follow(&mut self, mut stream: Stream) -> End {
        loop {
            let Ok(Ok(frames)) = timeout(SILENCE, stream.next()).await else { return End::Broken };
            self.heard = Instant::now();
            if let Some(end) = self.take(&frames, stream.parser.last_event_id()) {
                return end;
            }
        }
    }

    /// Records the events, and the cursor of the stream.
    fn take(&mut self, frames: &[Frame], at: Option<&str>) -> Option<End> {
        let now = self.shared.history.now();
        for frame in frames {
            match frame.event.as_str() {
                "ready" => {}
                "gone" => return Some(End::Gone),
                "put" | "delete" => match serde_json::from_str::<Data>(&frame.data) {
                    Ok(data) => self.note(data, frame.event == "put", now),
                    Err(error) => self.odd(format!("{error}: {}", frame.data)),
                },
                other => self.odd(format!("an event `{other}`")),
            }
            self.cursor = frame.id.clone().or(self.cursor.take());
        }
        self.cursor = at.map(str::to_owned).or(self.cursor.take());
        None
    }

    fn note(&self, data: Data, is_put: bool, at: u64) {
        let Data { key: name, version, shard, value } = data;
        let Ok(key) = name.parse() else {
            self.marks.send_modify(|seen| {
                seen.insert(name);
            });
            return;
        };
        let value = is_put.then(|| value.as_deref().map_or(u64::MAX, read_value));
        let mut observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        observed.changes.push(Change { shard, version, key, value, at });
    }
}

/// The events of an answer.
#[derive(Debug)]
struct Stream {
    answer: Response,
    parser: SseParser,
}

impl Stream {
    fn new(answer: Response) -> Self {
        Self { answer, parser: SseParser::new(SseParser::DEFAULT_LIMIT) }
    }

    async fn next(&mut self) -> anyhow::Result<Vec<Frame>> {
        let part = self.answer.chunk().await?.context("the stream has ended")?;
        Ok(self.parser.push(&part)?)
    }
}

impl Observed {
    /// The times of `gone` after a break that was shorter than the retention.
    pub(crate) fn wrongly_gone(&self) -> impl Iterator<Item = &Duration> {
        self.gone.iter().filter(|away| **away < RETENTION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_has_a_last_name_that_is_no_key() {
        let names = last_names(3);
        assert_eq!(names.len(), usize::try_from(SHARDS).unwrap());
        for name in names {
            assert!(name.starts_with(&lane_prefix(3)));
            assert!(name.parse::<crate::torture::history::Key>().is_err());
        }
    }
}
