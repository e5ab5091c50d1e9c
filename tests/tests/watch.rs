//! Changes of storage, watched through any member and through the gateway: no watch notices that a shard moved.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{Client, KvChange, KvWatchQuery};
use e2e::{NodeOptions, Sandbox, eventually};
use serde_json::json;
use tokio::task::JoinSet;
use types::{Frame, Spec, SseParser};

/// Storage in two shards, with a gateway and a spare.
async fn two_shards() -> anyhow::Result<Sandbox> {
    let mut sandbox = Sandbox::new()?;
    let spec = Spec { settings: json!({}), shards: Some(2), ..Spec::default() };
    sandbox.store().await?.specs().put(&"storage".parse()?, 0, &spec).await?;
    for (name, role) in
        [("gateway", "api_gateway"), ("a", "storage/0"), ("b", "storage/1"), ("spare", "standby")]
    {
        sandbox.start(name, role, &NodeOptions::default()).await?;
    }
    sandbox.all_ready().await?;
    Ok(sandbox)
}

async fn take(sandbox: &Sandbox, node: &str, shard: u32) -> anyhow::Result<()> {
    let url = format!("{}/v1/members/{node}/service?take=true", sandbox.url(node)?);
    let role = json!({ "service": "storage", "shard": shard });
    let answer = sandbox.http().put(url).json(&role).send().await?;
    let status = answer.status();
    anyhow::ensure!(status.is_success(), "{status}: {}", answer.text().await?);
    Ok(())
}

/// Clients that write rising numbers, each to its own key.
struct Writers {
    stop: Arc<AtomicBool>,
    clients: JoinSet<anyhow::Result<u64>>,
}

impl Writers {
    fn begin(sandbox: &Sandbox, gateway: &str, number: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for client in 0..number {
            let (stop, http) = (stop.clone(), sandbox.http().clone());
            let url = format!("{gateway}/storage/kv/client-{client}");
            clients.spawn(async move {
                let mut last = 0;
                while !stop.load(Ordering::Relaxed) {
                    let answer = http.put(&url).body((last + 1).to_string()).send().await?;
                    let status = answer.status();
                    anyhow::ensure!(status.is_success(), "{status}: {}", answer.text().await?);
                    last += 1;
                }
                Ok(last)
            });
        }
        Self { stop, clients }
    }

    /// The number of writes of all clients.
    async fn end(mut self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let mut written = 0;
        while let Some(client) = self.clients.join_next().await {
            written += client??;
        }
        Ok(written)
    }
}

/// Checks that each key's numbers are consecutive from 1 on.
fn check(changes: &[KvChange]) -> anyhow::Result<BTreeMap<&str, u64>> {
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for change in changes {
        let number: u64 = change.of.value.as_deref().unwrap_or_default().parse()?;
        let expected = last.get(change.of.key.as_str()).map_or(1, |last| last + 1);
        assert_eq!(number, expected, "{} at {}", change.of.key, change.cursor);
        last.insert(&change.of.key, number);
    }
    Ok(last)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_over_two_shards_survives_a_move_and_gives_each_change_once() -> anyhow::Result<()> {
    let sandbox = two_shards().await?;
    let gateway = sandbox.gateway("gateway").await?;
    // Through a member that keeps its own shard.
    let client = Client::new(&sandbox.url("b")?)?.within(Duration::from_secs(30));
    let query = KvWatchQuery { values: true, ..KvWatchQuery::default() };
    let mut watch = client.kv_watch(&query).await?;
    let begun = watch.cursor().to_owned();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut watching = JoinSet::new();
    let received = seen.clone();
    watching.spawn(async move {
        while let Some(change) = watch.next().await? {
            received.lock().unwrap().push(change);
        }
        anyhow::Ok(())
    });
    let writers = Writers::begin(&sandbox, &gateway, 8);
    for round in 0..4 {
        take(&sandbox, ["spare", "a"][round % 2], 0).await?;
    }
    let written = writers.end().await?;
    let count = usize::try_from(written)?;
    eventually("all changes arrived", || async { (seen.lock().unwrap().len() >= count).then_some(()) })
        .await?;
    let changes = seen.lock().unwrap().clone();
    assert_eq!(check(&changes)?.values().sum::<u64>(), written);
    assert!(watching.try_join_next().is_none(), "the watch did not break");

    // All changes once more, from the log if they are no longer in memory.
    let mut again = client.kv_watch(&KvWatchQuery { from: Some(begun), ..query }).await?;
    let mut changes = Vec::new();
    while changes.len() < count {
        changes.push(again.next().await?.ok_or_else(|| anyhow::anyhow!("the stream ended"))?);
    }
    assert_eq!(check(&changes)?.values().sum::<u64>(), written);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_forwards_a_watch_without_delay() -> anyhow::Result<()> {
    let sandbox = two_shards().await?;
    let gateway = sandbox.gateway("gateway").await?;
    let mut watch = sandbox.http().get(format!("{gateway}/storage/watch?prefix=key")).send().await?;
    assert!(watch.status().is_success());
    let (mut parser, mut frames) = (SseParser::default(), Vec::<Frame>::new());
    for number in 0..4 {
        let url = format!("{gateway}/storage/kv/key-{number}");
        sandbox.http().put(url).body("x").send().await?.error_for_status()?;
        // Each change arrives before the next one is written.
        while frames.len() < number + 2 {
            let chunk = watch.chunk().await?.ok_or_else(|| anyhow::anyhow!("the stream ended"))?;
            frames.extend(parser.push(&chunk)?);
        }
    }
    let names: Vec<_> = frames.iter().map(|frame| frame.event.as_str()).collect();
    assert_eq!(names, ["ready", "put", "put", "put", "put"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_does_not_wait_for_watches() -> anyhow::Result<()> {
    let sandbox = two_shards().await?;
    let client = Client::new(&sandbox.url("a")?)?.within(Duration::from_secs(30));
    let mut watch = client.kv_watch(&KvWatchQuery::default()).await?;
    let began = std::time::Instant::now();
    take(&sandbox, "spare", 0).await?;
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
    assert_eq!(watch.next().await?, None);
    Ok(())
}
