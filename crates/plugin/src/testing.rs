//! A service with all its shards in one process, for tests: owners and replicas on one store in memory, with real
//! connections and without gossip.

pub mod tls;

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use cluster::ClusterView;
use http::{Request, Response};
use http_body_util::BodyExt;
use mesh::{Limits, Mesh, Targets};
use serde_json::Value;
use store::Store;
use tokio::sync::watch;
use tower::ServiceExt;
use types::api::{About, Member};
use types::{Generation, NodeId, Phase, Post, Role, RoleState, ServiceName, ShardId};

use crate::{Context, Duty, Plugin, ServeLimits, Service, bind, serve};

const HERE: &str = "this machine has a loopback address";
const NAME: &str = "the name follows the rule";

/// A service with an owner for each of its shards, on a store in memory.
///
/// # Panics
/// Every method panics if something fails: this is for tests.
pub struct ShardCluster {
    plugin: Arc<dyn Plugin>,
    settings: Value,
    service: ServiceName,
    shards: NonZeroU32,
    store: Store,
    nodes: BTreeMap<NodeId, Node>,
    /// How many nodes have been started.
    started: usize,
    mesh: Mesh,
    view: watch::Sender<ClusterView>,
}

/// An owner of a shard or a replica.
struct Node {
    context: Context,
    service: Arc<dyn Service>,
    routes: Router,
}

impl ShardCluster {
    /// Starts an owner for each shard, with these settings: `node-0` owns shard 0, and so on.
    pub async fn start(plugin: Arc<dyn Plugin>, settings: &Value, shards: NonZeroU32) -> Self {
        let url = "memory:///".parse().expect("it is a store's URL");
        let store = Store::open(&url, &"test".parse().expect(NAME)).await.expect("memory is a store");
        Self::start_on(store, plugin, settings, shards).await
    }

    /// The same on a store that the test has, which may fail on demand.
    pub async fn start_on(
        store: Store,
        plugin: Arc<dyn Plugin>,
        settings: &Value,
        shards: NonZeroU32,
    ) -> Self {
        let (view, seen) = watch::channel(view([]));
        let limits = Limits { wait: Duration::ZERO, ..Limits::default() };
        let (targets, repeats) = (Arc::clone(&plugin), Arc::clone(&plugin));
        let targets = Targets::new(move |_, head| targets.target(head));
        let mesh = Mesh::new(seen, targets.repeating(move |_, head| repeats.may_repeat(head)), limits);
        let mut cluster = Self {
            service: ServiceName::from(plugin.service_type()),
            settings: settings.clone(),
            plugin,
            shards,
            store,
            nodes: BTreeMap::new(),
            started: 0,
            mesh,
            view,
        };
        for number in 0..shards.get() {
            cluster.own(ShardId::try_from(number).expect("there are fewer shards than that")).await;
        }
        cluster
    }

    /// Starts a replica of a shard. Returns its id.
    pub async fn replicate(&mut self, shard: ShardId) -> NodeId {
        self.run(shard, Post::Replica).await
    }

    /// Another node takes a shard over while its owner still runs and knows nothing of it. From now on everyone sees the
    /// new owner, and nobody the former one. Returns the id of the former owner.
    pub async fn take_over(&mut self, shard: ShardId) -> NodeId {
        let former = self.owner(shard);
        self.lose(shard);
        self.own(shard).await;
        former
    }

    /// Moves a shard: its owner drains and stops, then another node owns it. Returns the id of the new owner.
    pub async fn move_shard(&mut self, shard: ShardId) -> NodeId {
        let former = self.owner(shard);
        self.lose(shard);
        let former = self.nodes.remove(&former).expect("it is seen, so it runs");
        former.service.drain(tokio::time::Instant::now() + Duration::from_secs(1)).await;
        former.stop().await;
        self.own(shard).await
    }

    /// The mesh with which any of its members sends requests.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// A running service.
    pub fn service(&self, node: &NodeId) -> &Arc<dyn Service> {
        &self.node(node).service
    }

    /// The URL of a listener that a node has opened itself.
    ///
    /// # Panics
    /// When it has none of this name.
    pub fn endpoint(&self, node: &NodeId, name: &str) -> String {
        self.node(node).context.endpoints.urls().remove(name).expect("the node has this listener")
    }

    /// The folder in which a node keeps what it can get from the store again.
    pub fn cache_dir(&self, node: &NodeId) -> &Path {
        &self.node(node).context.cache_dir
    }

    /// The owner of a shard in the members' view.
    ///
    /// # Panics
    /// When the view shows none.
    pub fn owner(&self, shard: ShardId) -> NodeId {
        let view = self.view.borrow();
        view.members().find(|member| owns(member, shard)).expect("the view shows an owner").id.clone()
    }

    /// Removes the owner of this shard from every member's view.
    pub fn lose(&self, shard: ShardId) {
        self.show(|members| members.retain(|member| !owns(member, shard)));
    }

    /// Sends a request through the mesh. The path is the one below `/svc/{service}`. Returns the whole answer.
    pub async fn call(&self, method: &str, path: &str, body: impl Into<Body>) -> Response<Bytes> {
        let sent = self.mesh.send(&self.service, request(method, path, body)).await;
        whole(sent.expect("there is an answer").map(Body::new)).await
    }

    /// Sends a request to one node, whatever its duty and whether the view shows it or not.
    pub async fn call_at(
        &self,
        node: &NodeId,
        method: &str,
        path: &str,
        body: impl Into<Body>,
    ) -> Response<Bytes> {
        let Ok(answer) = self.node(node).routes.clone().oneshot(request(method, path, body)).await;
        whole(answer).await
    }

    /// Stops every node and waits until all its tasks have ended.
    pub async fn stop(self) {
        for node in self.nodes.into_values() {
            node.stop().await;
        }
    }

    fn node(&self, id: &NodeId) -> &Node {
        self.nodes.get(id).expect("the node runs")
    }

    async fn own(&mut self, shard: ShardId) -> NodeId {
        self.run(shard, Post::Primary).await
    }

    /// Starts a node, which everyone sees from then on.
    async fn run(&mut self, shard: ShardId, post: Post) -> NodeId {
        let id: NodeId = format!("node-{}", self.started).parse().expect(NAME);
        self.started += 1;
        let role = Role::Service { service: self.service.clone(), shard: Some(shard) };
        let (context, _) = match post {
            Post::Primary => Context::for_owner_test(role.clone(), &self.store).await,
            Post::Replica => Context::for_replica_test(role.clone(), &self.store),
        };
        let context = Context {
            node: id.clone(),
            shards: Some(self.shards),
            mesh: self.mesh.clone(),
            view: self.view.subscribe(),
            ..context
        };
        let Ok(prepared) = self.plugin.prepare(&self.settings) else { panic!("the settings are right") };
        let service = prepared.start(context.clone()).await.expect("the service starts");
        let routes = Arc::clone(&service).routes();
        let listener = bind(([127, 0, 0, 1], 0).into()).await.expect(HERE);
        let http = format!("http://{}", listener.local_addr().expect(HERE));
        let router = Router::new().nest_service(&format!("/svc/{}", self.service), routes.clone());
        let serving = serve(listener, router, context.shutdown.clone().into(), ServeLimits::default());
        context.tasks.spawn("listener", async move {
            serving.await;
            Ok(())
        });
        let epoch = match &context.duty {
            Duty::Primary(claim) => Some(claim.epoch()),
            Duty::Replica | Duty::None => None,
        };
        let (phase, shards) = (Phase::Ready, Some(self.shards.get()));
        let state = RoleState { phase, epoch, shards, duty: Some(post), ..RoleState::starting(role) };
        let member = Member {
            id: id.clone(),
            generation: Generation(1),
            version: 1,
            http,
            gossip: String::new(),
            state: Some(state),
            about: About::default(),
            store: None,
        };
        self.nodes.insert(id.clone(), Node { context, service, routes });
        self.show(|members| members.push(member));
        id
    }

    fn show(&self, change: impl FnOnce(&mut Vec<Member>)) {
        let mut members: Vec<_> = self.view.borrow().members().cloned().collect();
        change(&mut members);
        self.view.send_replace(view(members));
    }
}

impl Node {
    async fn stop(self) {
        self.context.shutdown.cancel();
        self.service.stop().await.expect("the service stops");
        self.context.tasks.wait().await;
        // Not every service has one.
        let _ = std::fs::remove_dir_all(&self.context.cache_dir);
    }
}

impl fmt::Debug for ShardCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardCluster")
            .field("service", &self.service)
            .field("shards", &self.shards)
            .field("nodes", &self.nodes.keys())
            .finish_non_exhaustive()
    }
}

fn owns(member: &Member, shard: ShardId) -> bool {
    let of = |state: &RoleState| state.role.shard() == Some(shard) && state.duty == Some(Post::Primary);
    member.state.as_ref().is_some_and(of)
}

fn view(members: impl IntoIterator<Item = Member>) -> ClusterView {
    ClusterView::new("test".parse().expect(NAME), "node-0".parse().expect(NAME), members)
}

fn request(method: &str, path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::builder().method(method).uri(path).body(body.into()).expect("it is a request")
}

async fn whole(answer: Response<Body>) -> Response<Bytes> {
    let (head, body) = answer.into_parts();
    let body = body.collect().await.expect("the answer is whole").to_bytes();
    Response::from_parts(head, body)
}

#[cfg(test)]
mod tests;
