//! A service with all its shards in one process, for tests: one owner per shard, with real connections and without
//! gossip.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use cluster::ClusterView;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use mesh::{Limits, Mesh, Targets};
use serde_json::Value;
use store::Store;
use tokio::net::TcpListener;
use tokio::sync::watch;
use types::api::{About, Member};
use types::{Epoch, Generation, Phase, Role, RoleState, ServiceName, ShardId};

use crate::{Context, Plugin, ServeLimits, Service, bind, serve};

const HERE: &str = "this machine has a loopback address";
const NAME: &str = "the name follows the rule";

/// A service with an owner for each of its shards, on a store in memory.
///
/// # Panics
/// Every method panics if something fails: this is for tests.
pub struct ShardCluster {
    service: ServiceName,
    nodes: Vec<Node>,
    mesh: Mesh,
    everyone: ClusterView,
    view: watch::Sender<ClusterView>,
}

/// The owner of a shard.
struct Node {
    context: Context,
    service: Arc<dyn Service>,
}

impl ShardCluster {
    /// Starts an owner for each shard, with these settings.
    pub async fn start(plugin: Arc<dyn Plugin>, settings: &Value, shards: NonZeroU32) -> Self {
        let url = "memory:///".parse().expect("it is a store's URL");
        let store = Store::open(&url, &"test".parse().expect(NAME)).await.expect("memory is a store");
        let service = ServiceName::from(plugin.service_type());
        let mut listeners = Vec::new();
        for number in 0..shards.get() {
            let shard = ShardId::try_from(number).expect("there are fewer shards than that");
            listeners.push((shard, bind(([127, 0, 0, 1], 0).into()).await.expect(HERE)));
        }
        let members = listeners.iter().map(|(shard, listener)| member(&service, *shard, shards, listener));
        let everyone = view(members);
        let (view, seen) = watch::channel(everyone.clone());
        let limits = Limits { wait: Duration::ZERO, ..Limits::default() };
        let targets = Arc::clone(&plugin);
        let mesh = Mesh::new(seen, Targets::new(move |_, head| targets.target(head)), limits);
        let mut nodes = Vec::new();
        for (shard, listener) in listeners {
            let role = Role::Service { service: service.clone(), shard: Some(shard) };
            let (context, _) = Context::for_owner_test(role, &store).await;
            let context = Context { shards: Some(shards), mesh: mesh.clone(), ..context };
            let Ok(prepared) = plugin.prepare(settings) else { panic!("the settings are right") };
            let running = prepared.start(context.clone()).await.expect("the service starts");
            let routes = Arc::clone(&running).routes();
            let router = Router::new().nest_service(&format!("/svc/{service}"), routes);
            let serving = serve(listener, router, context.shutdown.clone().into(), ServeLimits::default());
            context.tasks.spawn("listener", async move {
                serving.await;
                Ok(())
            });
            nodes.push(Node { context, service: running });
        }
        Self { service, nodes, mesh, everyone, view }
    }

    /// The mesh with which any of its members sends requests.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// Removes the owner of this shard from every member's view.
    pub fn lose(&self, shard: ShardId) {
        let others = self
            .everyone
            .members()
            .filter(|member| member.state.as_ref().is_none_or(|state| state.role.shard() != Some(shard)));
        self.view.send_replace(view(others.cloned()));
    }

    /// Sends a request through the mesh. Returns the status and the whole body.
    pub async fn call(&self, method: &str, path: &str, body: impl Into<Body>) -> (StatusCode, Bytes) {
        let request = Request::builder().method(method).uri(path).body(body.into()).expect("it is a request");
        let answer = self.mesh.send(&self.service, request).await.expect("there is an answer");
        let status = answer.status();
        (status, answer.into_body().collect().await.expect("the answer is whole").to_bytes())
    }

    /// Stops every owner and waits until all its tasks have ended.
    pub async fn stop(self) {
        for Node { context, service } in self.nodes {
            context.shutdown.cancel();
            service.stop().await.expect("the service stops");
            context.tasks.wait().await;
        }
    }
}

impl fmt::Debug for ShardCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardCluster")
            .field("service", &self.service)
            .field("shards", &self.nodes.len())
            .finish_non_exhaustive()
    }
}

fn view(members: impl IntoIterator<Item = Member>) -> ClusterView {
    ClusterView::new("test".parse().expect(NAME), "node-0".parse().expect(NAME), members)
}

fn member(service: &ServiceName, shard: ShardId, shards: NonZeroU32, listener: &TcpListener) -> Member {
    let role = Role::Service { service: service.clone(), shard: Some(shard) };
    let state = RoleState {
        phase: Phase::Ready,
        epoch: Some(Epoch(1)),
        shards: Some(shards.get()),
        ..RoleState::starting(role)
    };
    Member {
        id: format!("node-{shard}").parse().expect(NAME),
        generation: Generation(1),
        version: 1,
        http: format!("http://{}", listener.local_addr().expect(HERE)),
        gossip: String::new(),
        state: Some(state),
        about: About::default(),
        store: None,
    }
}
