//! Three nodes with a shard each, over real connections.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use cluster::ClusterView;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use mesh::{Limits, Mesh, Targets};
use plugin::{Context, Plugin, ServeLimits, Service, bind, serve};
use serde_json::{Value, json};
use store::Store;
use tokio::net::TcpListener;
use tokio::sync::watch;
use types::api::{About, Member};
use types::{Epoch, Generation, KeyHash, Phase, Role, RoleState};

use super::*;
use crate::Storage;

const SHARDS: NonZeroU32 = NonZeroU32::new(3).unwrap();

struct Node {
    context: Context,
    service: Arc<dyn Service>,
}

fn role(shard: u32) -> Role {
    Role::new("storage", Some(shard.try_into().unwrap())).unwrap()
}

fn member(shard: u32, listener: &TcpListener) -> Member {
    let state = RoleState {
        phase: Phase::Ready,
        epoch: Some(Epoch(1)),
        shards: Some(SHARDS.get()),
        ..RoleState::starting(role(shard))
    };
    Member {
        id: format!("node-{shard}").parse().unwrap(),
        generation: Generation(1),
        version: 1,
        http: format!("http://{}", listener.local_addr().unwrap()),
        gossip: String::new(),
        state: Some(state),
        about: About::default(),
        store: None,
    }
}

async fn start(store: &Store, shard: u32, mesh: Mesh, listener: TcpListener) -> Node {
    let (context, _) = Context::for_owner_test(role(shard), store).await;
    let context = Context { shards: Some(SHARDS), mesh, ..context };
    let Ok(prepared) = Storage.prepare(&json!({})) else { panic!("good settings") };
    let service = prepared.start(context.clone()).await.unwrap();
    let router = Router::new().nest_service("/svc/storage", Arc::clone(&service).routes());
    let serving = serve(listener, router, context.shutdown.clone().into(), ServeLimits::default());
    context.tasks.spawn("listener", async move {
        serving.await;
        Ok(())
    });
    Node { context, service }
}

impl Node {
    async fn stop(self) {
        self.context.shutdown.cancel();
        self.service.stop().await.unwrap();
        self.context.tasks.wait().await;
    }
}

async fn call(mesh: &Mesh, method: &str, path: &str, body: String) -> (StatusCode, Value) {
    let request = Request::builder().method(method).uri(path).body(Body::from(body)).unwrap();
    let answer = mesh.send(&Storage.service_type().into(), request).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

/// A cluster with one node per shard.
struct Cluster {
    nodes: Vec<Node>,
    mesh: Mesh,
    everyone: ClusterView,
    view: watch::Sender<ClusterView>,
}

impl Cluster {
    async fn start() -> Self {
        let store = Store::open(&"memory:///".parse().unwrap(), &"test".parse().unwrap()).await.unwrap();
        let mut listeners = Vec::new();
        for _ in 0..SHARDS.get() {
            listeners.push(bind("127.0.0.1:0".parse().unwrap()).await.unwrap());
        }
        let members = listeners.iter().zip(0..).map(|(listener, shard)| member(shard, listener));
        let everyone = ClusterView::new("test".parse().unwrap(), "node-0".parse().unwrap(), members);
        let (view, seen) = watch::channel(everyone.clone());
        let limits = Limits { wait: Duration::ZERO, ..Limits::default() };
        let mesh = Mesh::new(seen, Targets::new(|_, head| Storage.target(head)), limits);
        let mut nodes = Vec::new();
        for (shard, listener) in (0..).zip(listeners) {
            nodes.push(start(&store, shard, mesh.clone(), listener).await);
        }
        Self { nodes, mesh, everyone, view }
    }

    /// Removes the last node from the view.
    fn lose_one(&self) {
        let fewer: Vec<_> = self.everyone.members().take(2).cloned().collect();
        let fewer = ClusterView::new("test".parse().unwrap(), "node-0".parse().unwrap(), fewer);
        self.view.send_replace(fewer);
    }

    async fn call(&self, method: &str, path: &str, body: String) -> (StatusCode, Value) {
        call(&self.mesh, method, path, body).await
    }

    async fn stop(self) {
        for node in self.nodes {
            node.stop().await;
        }
    }
}

#[tokio::test]
async fn a_listing_is_in_order_over_all_shards_or_names_the_one_that_is_missing() {
    let cluster = Cluster::start().await;
    let mesh = &cluster.mesh;
    let names: Vec<_> = (0..40).map(|number| format!("key/{number:03}")).collect();
    let mut counts = [0; 3];
    for name in &names {
        counts[KeyHash::of(name.as_bytes()).shard(SHARDS).as_u32() as usize] += 1;
        assert_eq!(
            call(mesh, "PUT", &format!("/kv/{name}"), "12".to_owned()).await.0,
            StatusCode::OK,
            "the mesh finds its shard"
        );
    }
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");

    let (mut shown, mut after, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let (status, page) =
            call(mesh, "GET", &format!("/kv?prefix=key/&limit=7&after={after}"), String::new()).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        pages += 1;
        shown.extend(
            page["keys"].as_array().unwrap().iter().map(|listed| listed["key"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else { break };
        after = next.to_owned();
    }
    assert_eq!((shown, pages), (names, 6));

    cluster.lose_one();
    let (status, problem) = cluster.call("GET", "/kv", String::new()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(problem["detail"].as_str().unwrap().contains("shard 2"), "{problem}");
    cluster.stop().await;
}

#[tokio::test]
async fn an_import_reaches_every_shard_through_any_member_and_is_shown_with_its_values() {
    let cluster = Cluster::start().await;
    let lines: String = (0..3_000)
        .map(|n| {
            let value = if n % 2 == 0 {
                format!("\"value\":\"{n}\"")
            } else {
                "\"value_base64\":\"AP8=\"".to_owned()
            };
            format!("{{\"key\":\"key/{n:04}\",{value}}}\n")
        })
        .collect();
    let (status, answer) = cluster.call("POST", "/import", lines.clone()).await;
    assert_eq!((status, &answer), (StatusCode::OK, &json!({"imported": 3_000})));

    let (mut shown, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("/kv?values=true&bytes=100000&limit=10000&after={after}");
        let (status, page) = cluster.call("GET", &path, String::new()).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        assert!(page.to_string().len() < 200_000, "a page is bounded by its bytes");
        shown.extend(page["keys"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        after = next.to_owned();
    }
    assert_eq!(shown.len(), 3_000);
    for (n, listed) in shown.iter().enumerate() {
        assert_eq!(listed["key"], format!("key/{n:04}"));
        assert_eq!(listed["etag"], format!("\"{}\"", listed["version"]));
        if n % 2 == 0 {
            assert_eq!((&listed["value"], &listed["value_base64"]), (&json!(n.to_string()), &Value::Null));
        } else {
            assert_eq!((&listed["value"], &listed["value_base64"]), (&Value::Null, &json!("AP8=")));
        }
    }

    let bad = lines.replacen("key/2000", "%", 1).replace("key/", "other/");
    let (status, problem) = cluster.call("POST", "/import", bad).await;
    assert_eq!((status, &problem["line"]), (StatusCode::BAD_REQUEST, &json!(2_001)), "{problem}");
    let (_, page) = cluster.call("GET", "/kv?prefix=other/", String::new()).await;
    assert_eq!(page["keys"], json!([]), "nothing is written if a line is bad");

    cluster.lose_one();
    let (status, problem) = cluster.call("POST", "/import", lines).await;
    assert_eq!((status, &problem["title"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("import incomplete")));
    assert!(problem["detail"].as_str().unwrap().contains("shard 2: "), "{problem}");
    cluster.stop().await;
}

#[tokio::test]
async fn a_batch_through_any_member_is_made_where_its_keys_are() {
    let cluster = Cluster::start().await;
    for tag in 0..12 {
        let key = |name: &str| format!("{{tag-{tag}}}/{name}").replace('{', "%7B").replace('}', "%7D");
        let batch = json!({"operations": [
            {"put": key("a"), "value": "1", "if_none_match": true},
            {"put": key("b"), "value": "2", "ttl": "1h"},
        ]});
        let (status, answer) = cluster.call("POST", "/batch", batch.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let (status, problem) = cluster.call("POST", "/batch", batch.to_string()).await;
        assert_eq!(status, StatusCode::PRECONDITION_FAILED);
        let failed = json!([{"operation": 0, "key": key("a"), "version": answer["version"]}]);
        assert_eq!(problem["failed"], failed, "{problem}");
        let (status, value) = cluster.call("GET", &format!("/kv/{}", key("b")), String::new()).await;
        assert_eq!((status, value), (StatusCode::OK, json!(2)));
    }
    let apart: Vec<_> = (0..20).map(|n| json!({ "put": format!("key/{n:03}"), "value": "1" })).collect();
    let (status, problem) = cluster.call("POST", "/batch", json!({ "operations": apart }).to_string()).await;
    assert_eq!((status, &problem["title"]), (StatusCode::BAD_REQUEST, &json!("several shards")));
    let shards: Vec<_> =
        problem["shards"].as_array().unwrap().iter().map(|part| part["shard"].as_u64()).collect();
    assert_eq!(shards, [Some(0), Some(1), Some(2)], "{problem}");
    cluster.stop().await;
}
