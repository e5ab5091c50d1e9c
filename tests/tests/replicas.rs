//! Replicas of a storage shard: reads that accept stale data are answered while the owner is gone.

use std::time::Duration;

use client::{Client, KvWatchQuery};
use e2e::{NodeOptions, Sandbox, eventually};
use http::StatusCode;
use serde_json::json;
use types::{Phase, Post, RoleState, Spec};

/// One shard, with its owner `a` and its replica `b`.
async fn owner_and_replica() -> anyhow::Result<Sandbox> {
    let mut sandbox = Sandbox::new()?;
    let spec = Spec { settings: json!({}), shards: Some(1), replicas: 1, ..Spec::default() };
    sandbox.settle("storage", &spec).await?;
    sandbox.start("gateway", "api_gateway", &NodeOptions::default()).await?;
    for (name, duty) in [("a", Post::Primary), ("b", Post::Replica)] {
        sandbox.start(name, "storage/0", &NodeOptions::default()).await?;
        let is_well = |state: &RoleState| state.duty == Some(duty) && state.phase == Phase::Ready;
        sandbox.seen("gateway", name, |member| member.state.as_ref().is_some_and(is_well)).await?;
    }
    Ok(sandbox)
}

/// A value, and how far behind it may be.
async fn read(sandbox: &Sandbox, url: &str) -> anyhow::Result<(StatusCode, String, Option<u64>)> {
    let answer = sandbox.http().get(url).send().await?;
    let stale = answer.headers().get("coterie-staleness-ms").and_then(|ms| ms.to_str().ok()?.parse().ok());
    Ok((answer.status(), answer.text().await?, stale))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_read_beside_its_owner_and_takes_its_place() -> anyhow::Result<()> {
    let mut sandbox = owner_and_replica().await?;
    let gateway = sandbox.gateway("gateway").await?;
    let replica = format!("{}/svc/storage/kv", sandbox.url("b")?);
    let put = sandbox.http().put(format!("{gateway}/storage/kv/a")).body("1");
    put.send().await?.error_for_status()?;
    eventually("the replica has it", || async {
        let (status, value, stale) = read(&sandbox, &format!("{replica}/a?consistency=any")).await.ok()?;
        (status == StatusCode::OK && value == "1" && stale? < 30_000).then_some(())
    })
    .await?;
    let (status, ..) = read(&sandbox, &format!("{replica}/a")).await?;
    assert_eq!(status, StatusCode::MISDIRECTED_REQUEST, "the owner is named instead");
    let (status, listing, stale) = read(&sandbox, &format!("{replica}?consistency=any")).await?;
    assert!(status == StatusCode::OK && listing.contains(r#""key":"a""#) && stale.is_some(), "{listing}");
    let (status, listing, stale) = read(&sandbox, &replica).await?;
    assert!(status == StatusCode::OK && listing.contains(r#""key":"a""#), "gathered: {listing}");
    assert_eq!(stale, None, "from the owner");

    // A watch through the replica gets what the owner writes.
    let client = Client::new(&sandbox.url("b")?)?.within(Duration::from_secs(30));
    let mut watch = client.kv_watch(&KvWatchQuery::default()).await?;
    let put = sandbox.http().put(format!("{gateway}/storage/kv/b")).body("1");
    put.send().await?.error_for_status()?;
    assert_eq!(watch.next().await?.map(|change| change.of.key).as_deref(), Some("b"));

    sandbox.kill("a").await?;
    for _ in 0..10 {
        let (status, value, stale) =
            read(&sandbox, &format!("{gateway}/storage/kv/a?consistency=any")).await?;
        assert_eq!((status, value.as_str(), stale.is_some()), (StatusCode::OK, "1", true));
    }
    let put = sandbox.http().put(format!("{gateway}/storage/kv/a")).body("2");
    put.send().await?.error_for_status()?;
    let (status, value, _) = read(&sandbox, &format!("{replica}/a")).await?;
    assert_eq!((status, value.as_str()), (StatusCode::OK, "2"), "it owns the shard now");

    // The new owner ends the streams that it served as a replica, and they resume there.
    let from = Some(watch.cursor().to_owned());
    assert_eq!(watch.next().await?, None);
    let mut watch = client.kv_watch(&KvWatchQuery { from, ..KvWatchQuery::default() }).await?;
    assert_eq!(watch.next().await?.map(|change| change.of.key).as_deref(), Some("a"));
    Ok(())
}
