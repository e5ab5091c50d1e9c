//! Timings.
use std::time::Instant;
use store::*;
use types::*;

#[tokio::test]
async fn smoke() {
    let dir = tempfile::tempdir().unwrap();
    let url = StoreUrl::folder(&dir.path().join("a b/c")).unwrap();
    let cluster: ClusterId = "demo".parse().unwrap();
    let t = Instant::now();
    let store = Store::open(&url, &cluster).await.unwrap();
    println!("open {:?} {:?}", t.elapsed(), store.info());
    let t = Instant::now();
    let again = Store::open(&url, &cluster).await.unwrap();
    println!("reopen {:?}", t.elapsed());
    assert_eq!(store.info(), again.info());
    let (s, shard) = ("storage".parse().unwrap(), ShardId::default());
    let claims = store.claims();
    let t = Instant::now();
    let h =
        claims.take(&s, shard, &ClaimState::default(), &"a".parse().unwrap(), Generation(1)).await.unwrap();
    println!("take {:?}", t.elapsed());
    let t = Instant::now();
    assert!(claims.is_latest(&s, shard, &h).await.unwrap());
    println!("is_latest {:?}", t.elapsed());
    claims.release(&s, shard, &h, None, Some("leaving")).await.unwrap();
    println!("{:?}", claims.all().await.unwrap());
    let n = store
        .specs()
        .put(&s, 0, &Spec { settings: serde_json::json!({"a":1}), shards: Some(4) })
        .await
        .unwrap();
    assert_eq!(n, 1);
    let t = Instant::now();
    for n in 1..50 {
        store
            .specs()
            .put(&s, n, &Spec { settings: serde_json::json!({"a":1}), shards: Some(4) })
            .await
            .unwrap();
    }
    println!("put {:?}", t.elapsed() / 49);
    println!("{:?}", store.specs().all().await.unwrap());
    println!(
        "{:?}",
        std::process::Command::new("find")
            .arg(dir.path())
            .output()
            .map(|o| String::from_utf8(o.stdout))
            .unwrap()
            .unwrap()
            .lines()
            .take(12)
            .collect::<Vec<_>>()
    );
}
