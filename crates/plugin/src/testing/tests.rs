use axum::extract::State;
use axum::routing::get;
use http::StatusCode;
use serde_json::json;
use types::{KeyHash, ServiceType, Sharding, Target, api};

use super::*;
use crate::{
    Health, NoSettings, Prepared, Replicated, ServiceError, SettingsError, StateMachine, parse_settings,
};

/// Each shard keeps the text that is put into it.
struct Texts;

#[derive(Default)]
struct Text(String);

impl StateMachine for Text {
    fn apply(&mut self, record: &[u8]) {
        self.0 += &String::from_utf8_lossy(record);
    }
}

struct Shard(Replicated<Text>);

impl Plugin for Texts {
    fn service_type(&self) -> ServiceType {
        "texts".parse().unwrap()
    }

    fn about(&self) -> &'static str {
        "keeps texts"
    }

    fn sharding(&self) -> Sharding {
        Sharding::Owned
    }

    fn replicates(&self) -> bool {
        true
    }

    /// `/1` is shard 1; `/1?old` may be answered by a replica too.
    fn target(&self, head: &http::request::Parts) -> Target {
        let key = key_of(head.uri.path().trim_start_matches('/').parse().unwrap_or_default());
        if head.uri.query() == Some("old") { Target::KeyReplica(key) } else { Target::Key(key) }
    }

    fn prepare(&self, settings: &Value) -> Result<Box<dyn Prepared>, SettingsError> {
        parse_settings::<NoSettings>(settings)?;
        Ok(Box::new(Self))
    }
}

#[crate::async_trait]
impl Prepared for Texts {
    async fn start(self: Box<Self>, cx: Context) -> Result<Arc<dyn Service>, ServiceError> {
        Ok(Arc::new(Shard(Replicated::start(&cx, "log").await?)))
    }
}

impl Service for Shard {
    fn routes(self: Arc<Self>) -> Router {
        let read = async |State(shard): State<Arc<Self>>| shard.0.read(|text| text.0.clone());
        let write =
            async |State(shard): State<Arc<Self>>, record: String| shard.0.write(record).await.map(|()| "");
        Router::new().route("/{shard}", get(read).put(write)).with_state(self)
    }

    fn health(&self) -> Health {
        self.0.health()
    }

    fn staleness(&self) -> Option<Duration> {
        self.0.staleness()
    }
}

const SHARDS: NonZeroU32 = NonZeroU32::new(2).unwrap();

/// A key of this shard.
fn key_of(shard: u32) -> KeyHash {
    let mut keys = (0_u32..).map(|number| KeyHash::of(&number.to_le_bytes()));
    keys.find(|key| key.shard(SHARDS).as_u32() == shard).unwrap()
}

fn shard(number: u32) -> ShardId {
    number.try_into().unwrap()
}

async fn start() -> ShardCluster {
    ShardCluster::start(Arc::new(Texts), &json!({}), SHARDS).await
}

async fn put(cluster: &ShardCluster, path: &str, text: &'static str) {
    assert_eq!(cluster.call("PUT", path, text).await.status(), StatusCode::OK);
}

async fn text(cluster: &ShardCluster, path: &str) -> Bytes {
    cluster.call("GET", path, "").await.into_body()
}

#[tokio::test]
async fn each_shard_has_an_owner_until_it_is_lost() {
    let cluster = start().await;
    put(&cluster, "/0", "a").await;
    put(&cluster, "/1", "b").await;
    assert_eq!((&text(&cluster, "/0").await[..], &text(&cluster, "/1").await[..]), (&b"a"[..], &b"b"[..]));
    assert_eq!(cluster.owner(shard(1)).to_string(), "node-1");
    cluster.lose(shard(1));
    assert_eq!(text(&cluster, "/0").await, "a");
    let sent = cluster.mesh().send(&cluster.service, request("GET", "/1", "")).await;
    assert!(sent.is_err(), "nobody is seen who owns it");
    cluster.stop().await;
}

#[tokio::test]
async fn a_takeover_loses_nothing_and_the_former_owner_writes_nothing_more() {
    let mut cluster = start().await;
    put(&cluster, "/1", "a").await;
    let former = cluster.take_over(shard(1)).await;
    assert_eq!((former.as_str(), cluster.owner(shard(1)).as_str()), ("node-1", "node-2"));
    assert_eq!(text(&cluster, "/1").await, "a");
    let late = cluster.call_at(&former, "PUT", "/1", "late").await;
    assert_eq!(late.status(), StatusCode::MISDIRECTED_REQUEST);
    assert!(late.headers().contains_key(api::NOT_PROCESSED));
    assert!(matches!(cluster.service(&former).health(), Health::Failed(_)));
    put(&cluster, "/1", "b").await;
    assert_eq!(text(&cluster, "/1").await, "ab");
    cluster.stop().await;
}

#[tokio::test]
async fn a_shard_that_moves_is_whole_at_its_next_owner() {
    let mut cluster = start().await;
    for (owner, written, all) in [("node-2", "a", "a"), ("node-3", "b", "ab")] {
        put(&cluster, "/0", written).await;
        assert_eq!(cluster.move_shard(shard(0)).await.as_str(), owner);
        assert_eq!(text(&cluster, "/0").await, all);
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_replica_answers_what_may_be_old_when_its_owner_is_lost() {
    let mut cluster = start().await;
    let replica = cluster.replicate(shard(0)).await;
    put(&cluster, "/0", "a").await;
    assert_eq!(cluster.call_at(&replica, "PUT", "/0", "b").await.status(), StatusCode::MISDIRECTED_REQUEST);
    cluster.lose(shard(0));
    let patience = tokio::time::Instant::now() + Duration::from_secs(10);
    while text(&cluster, "/0?old").await != "a" {
        assert!(tokio::time::Instant::now() < patience, "the replica never has it");
        tokio::task::yield_now().await;
    }
    assert!(cluster.service(&replica).staleness().is_some());
    cluster.stop().await;
}
