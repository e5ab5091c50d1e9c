//! Three nodes with a shard each, over real connections.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::Router;
use cluster::ClusterView;
use http::{Request, StatusCode};
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

async fn call(mesh: &Mesh, method: &str, path: &str) -> (StatusCode, Value) {
    let request = Request::builder().method(method).uri(path).body(Body::from("12")).unwrap();
    let answer = mesh.send(&Storage.service_type(), request).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

#[tokio::test]
async fn a_listing_is_in_order_over_all_shards_or_names_the_one_that_is_missing() {
    let store = Store::open(&"memory:///".parse().unwrap(), &"test".parse().unwrap()).await.unwrap();
    let mut listeners = Vec::new();
    for _ in 0..SHARDS.get() {
        listeners.push(bind("127.0.0.1:0".parse().unwrap()).await.unwrap());
    }
    let members = |count: usize| {
        let members = listeners.iter().take(count).zip(0..).map(|(listener, shard)| member(shard, listener));
        ClusterView::new("test".parse().unwrap(), "node-0".parse().unwrap(), members)
    };
    let (everyone, fewer) = (members(3), members(2));
    let (view, seen) = watch::channel(everyone);
    let limits = Limits { wait: Duration::ZERO, ..Limits::default() };
    let mesh = Mesh::new(seen, Targets::new(|_, head| Storage.target(head)), limits);
    let mut nodes = Vec::new();
    for (shard, listener) in (0..).zip(listeners) {
        nodes.push(start(&store, shard, mesh.clone(), listener).await);
    }

    let names: Vec<_> = (0..40).map(|number| format!("key/{number:03}")).collect();
    let mut counts = [0; 3];
    for name in &names {
        counts[KeyHash::of(name.as_bytes()).shard(SHARDS).as_u32() as usize] += 1;
        assert_eq!(
            call(&mesh, "PUT", &format!("/kv/{name}")).await.0,
            StatusCode::OK,
            "the mesh finds its shard"
        );
    }
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");

    let (mut shown, mut after, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let (status, page) = call(&mesh, "GET", &format!("/kv?prefix=key/&limit=7&after={after}")).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        pages += 1;
        shown.extend(
            page["keys"].as_array().unwrap().iter().map(|listed| listed["key"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else { break };
        after = next.to_owned();
    }
    assert_eq!((shown, pages), (names, 6));

    view.send_replace(fewer);
    let (status, problem) = call(&mesh, "GET", "/kv").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(problem["detail"].as_str().unwrap().contains("shard 2"), "{problem}");
    for node in nodes {
        node.stop().await;
    }
}
