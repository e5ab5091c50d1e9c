//! What a service is given when it starts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cluster::ClusterView;
use mesh::Mesh;
use store::{ObjectStore, Store};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use types::{ErrorKind, Generation, Loopback, NodeId, Role};

use crate::{Claim, Duty, Metrics, ServiceError, TaskFailure, Tasks, bind};

/// What a service is given when it starts.
#[derive(Debug, Clone)]
pub struct Context {
    /// The node it runs on.
    pub node: NodeId,
    /// The role it fills.
    pub role: Role,
    /// What it does with its shard.
    pub duty: Duty,
    /// How many shards its service has; none for types whose shards have no owners.
    pub shards: Option<NonZeroU32>,
    /// The role's own part of the object store; none for types whose shards have no owners.
    pub objects: Option<Arc<dyn ObjectStore>>,
    /// How often a replica may look for news in it: rarely where each look costs money.
    pub objects_poll: Duration,
    /// Whether it is on a network, where each request takes its time and may be paid for.
    pub objects_are_remote: bool,
    /// A folder on this node's disk for what can be had again, such as parts of remote objects. Each service keeps to a
    /// folder of its own type's name in it, makes that when it needs it, bounds it, and copes with files that others delete
    /// or damage at any moment.
    pub cache_dir: PathBuf,
    /// The members of the cluster, as this node sees them.
    pub view: watch::Receiver<ClusterView>,
    /// Requests to other members.
    pub mesh: Mesh,
    /// Background work.
    pub tasks: Tasks,
    /// Cancelled when the service must end.
    pub shutdown: CancellationToken,
    /// The service's metrics.
    pub metrics: Metrics,
    /// A seed for random numbers, so that a run can be replayed.
    pub seed: u64,
    /// The listeners that the service opened itself.
    pub endpoints: Endpoints,
}

/// Who may reach the listeners of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    /// Which addresses may be listened on.
    pub loopback: Loopback,
    /// The host that others use to reach this node.
    pub host: String,
}

impl Default for Exposure {
    fn default() -> Self {
        Self { loopback: Loopback::Required, host: "127.0.0.1".to_owned() }
    }
}

/// The listeners that a service opened itself, by name, as URLs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Endpoints {
    exposure: Exposure,
    urls: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Endpoints {
    /// None yet.
    pub fn new(exposure: Exposure) -> Self {
        Self { exposure, urls: Arc::default() }
    }

    /// All of them.
    pub fn urls(&self) -> BTreeMap<String, String> {
        self.urls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Context {
    /// Opens a listener of the service's own. Once the service is ready it is gossiped under `name` as a URL of this
    /// scheme: `http`, `tcp`, `redis`. [`DrainingListener`](crate::DrainingListener) serves it.
    pub async fn listen(
        &self,
        name: &str,
        scheme: &str,
        addr: SocketAddr,
    ) -> Result<TcpListener, ServiceError> {
        if !is_scheme(scheme) {
            let message = format!("listener `{name}` has `{scheme}` for a URL's scheme");
            let hint =
                "a scheme is a small letter, then small letters, digits, `+`, `-` and `.`, such as `tcp`";
            return Err(ServiceError::new(ErrorKind::Invalid, message).hint(hint));
        }
        let exposure = &self.endpoints.exposure;
        if !exposure.loopback.allows(addr.ip()) {
            return Err(ServiceError::new(
                ErrorKind::Invalid,
                format!("listener `{name}` on {addr} would be open to the network"),
            )
            .hint("use a loopback address, or start the agent with --insecure"));
        }
        let listener = bind(addr).await.map_err(|error| {
            ServiceError::unavailable(format!("listener `{name}`")).source(error).hint("choose another port")
        })?;
        let port =
            listener.local_addr().map_err(|error| ServiceError::internal("no address").source(error))?.port();
        let host = if addr.ip().is_unspecified() { exposure.host.clone() } else { host_of(addr) };
        let url = format!("{scheme}://{host}:{port}");
        self.endpoints.urls.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), url);
        Ok(listener)
    }

    /// A context of a node that is alone, for tests; and where failures of its tasks arrive.
    ///
    /// # Panics
    /// Never: the names in it are valid.
    pub fn for_test(role: Role) -> (Self, mpsc::UnboundedReceiver<TaskFailure>) {
        let node: NodeId = "test-node".parse().expect("the name follows the rule");
        let cluster = "test".parse().expect("the name follows the rule");
        let (_, view) = watch::channel(ClusterView::new(cluster, node.clone(), []));
        let (tasks, failures) = Tasks::new();
        let context = Self {
            node,
            metrics: Metrics::new("coterie_test"),
            role,
            duty: Duty::None,
            shards: None,
            objects: None,
            objects_poll: Duration::from_millis(100),
            objects_are_remote: false,
            // Not made unless a test says that its objects are remote; it then gives a folder of its own.
            cache_dir: std::env::temp_dir().join("coterie-test-cache"),
            mesh: Mesh::new(view.clone(), mesh::Targets::any(), mesh::Limits::default()),
            view,
            tasks,
            shutdown: CancellationToken::new(),
            seed: 7,
            endpoints: Endpoints::default(),
        };
        (context, failures)
    }

    /// The same for the owner of a shard, the last one there is, claimed anew on the store.
    ///
    /// # Panics
    /// When the role has no shard, or the store fails.
    pub async fn for_owner_test(role: Role, store: &Store) -> (Self, mpsc::UnboundedReceiver<TaskFailure>) {
        let (mut context, failures) = Self::for_test(role);
        let shard = context.role.shard_ref().expect("a role with a shard");
        let (claims, asked_at) = (store.claims(), Instant::now());
        let seen = claims.read(&shard).await.expect("the store works");
        let taken = claims.take(&shard, &seen, &context.node, Generation(1)).await;
        let holder = taken.expect("the store works, and nobody else wants the shard");
        context.objects = Some(store.data(&shard));
        context.shards = NonZeroU32::new(shard.shard.as_u32() + 1);
        context.duty = Duty::Primary(Claim::new(claims, shard, holder, asked_at));
        (context, failures)
    }

    /// The same for a replica of a shard.
    ///
    /// # Panics
    /// When the role has no shard.
    pub fn for_replica_test(role: Role, store: &Store) -> (Self, mpsc::UnboundedReceiver<TaskFailure>) {
        let (mut context, failures) = Self::for_test(role);
        let shard = context.role.shard_ref().expect("a role with a shard");
        context.objects = Some(store.data(&shard));
        context.shards = NonZeroU32::new(shard.shard.as_u32() + 1);
        context.duty = Duty::Replica;
        (context, failures)
    }
}

/// Whether a text is a URL's scheme (RFC 3986, section 3.1), in small letters as all are written.
fn is_scheme(text: &str) -> bool {
    let is_rest = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(byte);
    text.as_bytes()
        .split_first()
        .is_some_and(|(first, rest)| first.is_ascii_lowercase() && rest.iter().all(is_rest))
}

fn host_of(addr: SocketAddr) -> String {
    match addr {
        SocketAddr::V4(v4) => v4.ip().to_string(),
        SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_is_gossiped_under_its_scheme_and_only_this_machine_reaches_it() {
        let (cx, _failures) = Context::for_test("gateway".parse().unwrap());
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        for scheme in ["http", "tcp", "redis", "coap+tcp", "a1-2.3"] {
            let listener = cx.listen(scheme, scheme, any).await.unwrap();
            let url = format!("{scheme}://{}", listener.local_addr().unwrap());
            assert_eq!(cx.endpoints.urls()[scheme], url);
        }
        for scheme in ["", "HTTP", "1a", "http://", "a b", "\u{e4}"] {
            let error = cx.listen("x", scheme, any).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{scheme}");
        }
        let error = cx.listen("x", "tcp", "0.0.0.0:0".parse().unwrap()).await.unwrap_err();
        assert!(error.to_string().contains("would be open to the network"), "{error}");
        assert!(!cx.endpoints.urls().contains_key("x"));
    }
}
