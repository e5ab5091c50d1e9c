//! What a service receives when it starts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cluster::ClusterView;
use mesh::Mesh;
use store::{ObjectStore, RoleLogs, Store};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use types::{ErrorKind, Generation, Loopback, NodeId, Role};

use crate::cores::{CoreListener, unavailable};
use crate::{Claim, Duty, Metrics, ServiceError, TaskFailure, Tasks, bind};

/// What a service receives when it starts.
#[derive(Debug, Clone)]
pub struct Context {
    /// The node that it runs on.
    pub node: NodeId,
    /// The role of the node.
    pub role: Role,
    /// What the node does with its shard.
    pub duty: Duty,
    /// How many shards the service has; `None` for types whose shards have no owners.
    pub shards: Option<NonZeroU32>,
    /// The shard's part of the object store; `None` for types whose shards have no owners.
    pub objects: Option<Arc<dyn ObjectStore>>,
    /// The shard's numbered logs on the object store, and those that all shards of its service share; `None` as for `objects`.
    pub logs: Option<RoleLogs>,
    /// How often a replica may poll it: rarely where each request costs money.
    pub objects_poll: Duration,
    /// Whether the store is remote, so that each request has network latency and may cost money.
    pub objects_are_remote: bool,
    /// A folder on this node's disk for data that can be fetched again, such as parts of remote objects. Each service uses
    /// only the subfolder with its type's name: it creates it when needed, bounds its size, and copes if files in it are
    /// deleted or damaged at any moment.
    pub cache_dir: PathBuf,
    /// The members of the cluster, as this node sees them.
    pub view: watch::Receiver<ClusterView>,
    /// Requests to other members.
    pub mesh: Mesh,
    /// Background work.
    pub tasks: Tasks,
    /// Cancelled when the service has to end.
    pub shutdown: CancellationToken,
    /// The service's metrics.
    pub metrics: Metrics,
    /// The seed for random numbers, so that a run can be replayed.
    pub seed: u64,
    /// The listeners that the service has opened itself.
    pub endpoints: Endpoints,
}

/// How the listeners of a node can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    /// Which addresses the node may listen on.
    pub loopback: Loopback,
    /// The host that others use to reach this node.
    pub host: String,
}

impl Default for Exposure {
    fn default() -> Self {
        Self { loopback: Loopback::Required, host: "127.0.0.1".to_owned() }
    }
}

/// The URLs of the listeners that a service has opened itself, by name. Cheap to clone.
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

    /// The URLs by name.
    pub fn urls(&self) -> BTreeMap<String, String> {
        self.urls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the URLs: for a service whose listeners change while it runs. The supervisor gossips them once it is ready,
    /// or has applied new settings.
    pub fn replace(&self, urls: BTreeMap<String, String>) {
        *self.urls.lock().unwrap_or_else(PoisonError::into_inner) = urls;
    }
}

impl Context {
    /// Opens a listener for the service itself. Once the service is ready, its URL is gossiped under `name`, with this
    /// scheme: `http`, `tcp`, `redis`. Use [`DrainingListener`](crate::DrainingListener) to serve it.
    pub async fn listen(
        &self,
        name: &str,
        scheme: &str,
        addr: SocketAddr,
    ) -> Result<TcpListener, ServiceError> {
        self.may_listen(name, scheme, addr)?;
        let listener = bind(addr).await.map_err(|error| unavailable(name, error))?;
        let bound =
            listener.local_addr().map_err(|error| ServiceError::internal("no address").source(error))?;
        self.publish(name, scheme, bound);
        Ok(listener)
    }

    /// The same for a listener that is served on the cores: for services that forward, whose requests cost little. A request
    /// that computes for long would hold up the other connections of its core; such services use [`listen`](Self::listen).
    pub fn listen_on_cores(
        &self,
        name: &str,
        scheme: &str,
        addr: SocketAddr,
    ) -> Result<CoreListener, ServiceError> {
        self.may_listen(name, scheme, addr)?;
        let listener = CoreListener::open(name, addr)?;
        self.publish(name, scheme, listener.address());
        Ok(listener)
    }

    /// Whether the service may have such a listener, without opening it. A service that needs a restart for one checks this
    /// first, so that nobody restarts it in vain.
    pub fn may_listen(&self, name: &str, scheme: &str, addr: SocketAddr) -> Result<(), ServiceError> {
        if !is_scheme(scheme) {
            let message = format!("listener `{name}` has `{scheme}` for a URL's scheme");
            let hint =
                "a scheme is a small letter, then small letters, digits, `+`, `-` and `.`, such as `tcp`";
            return Err(ServiceError::new(ErrorKind::Invalid, message).hint(hint));
        }
        if !self.endpoints.exposure.loopback.allows(addr.ip()) {
            return Err(ServiceError::new(
                ErrorKind::Invalid,
                format!("listener `{name}` on {addr} would be open to the network"),
            )
            .hint(
                "use a loopback address; or, on a network that you trust, write `insecure: true` in the manifest, beside \
                 `cluster`, then `ctl up --reset` (an agent that ctl does not start needs --insecure)",
            ));
        }
        Ok(())
    }

    fn publish(&self, name: &str, scheme: &str, bound: SocketAddr) {
        let exposed = || self.endpoints.exposure.host.clone();
        let host = if bound.ip().is_unspecified() { exposed() } else { host_of(bound) };
        let url = format!("{scheme}://{host}:{}", bound.port());
        self.endpoints.urls.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), url);
    }

    /// A context for tests, of the only node of its cluster, and the channel on which failures of its tasks arrive.
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
            logs: None,
            objects_poll: Duration::from_millis(100),
            objects_are_remote: false,
            cache_dir: test_cache_dir(),
            mesh: Mesh::new(view.clone(), mesh::Targets::any(), mesh::Limits::default()),
            view,
            tasks,
            shutdown: CancellationToken::new(),
            seed: 7,
            endpoints: Endpoints::default(),
        };
        (context, failures)
    }

    /// The same as [`for_test`](Self::for_test) for the owner of a shard, which is newly claimed on the store. The shard is
    /// taken to be the service's last.
    ///
    /// # Panics
    /// When the role has no shard, or the store fails.
    pub async fn for_owner_test(role: Role, store: &Store) -> (Self, mpsc::UnboundedReceiver<TaskFailure>) {
        let (mut context, failures) = Self::for_test(role);
        let shard = context.role.shard_ref().expect("a role with a shard");
        let (claims, asked_at) = (store.claims(), Instant::now());
        let seen = claims.read(&shard).await.expect("the store works");
        let taken = claims.take(&shard, &seen, &context.node, Generation(1)).await;
        let holder = taken.expect("the store works, and no other node takes the shard");
        context.objects = Some(store.data(&shard));
        context.logs = Some(store.logs(&shard));
        context.shards = NonZeroU32::new(shard.shard.as_u32() + 1);
        context.duty = Duty::Primary(Claim::new(claims, shard, holder, asked_at));
        (context, failures)
    }

    /// The same as [`for_test`](Self::for_test) for a replica of a shard. The shard is taken to be the service's last.
    ///
    /// # Panics
    /// When the role has no shard.
    pub fn for_replica_test(role: Role, store: &Store) -> (Self, mpsc::UnboundedReceiver<TaskFailure>) {
        let (mut context, failures) = Self::for_test(role);
        let shard = context.role.shard_ref().expect("a role with a shard");
        context.objects = Some(store.data(&shard));
        context.logs = Some(store.logs(&shard));
        context.shards = NonZeroU32::new(shard.shard.as_u32() + 1);
        context.duty = Duty::Replica;
        (context, failures)
    }
}

/// A folder that no other context of a test has. It is created by services that keep something there.
fn test_cache_dir() -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    std::env::temp_dir().join(format!("coterie-test-cache-{process}-{number}"))
}

/// Whether a text is a URL scheme (RFC 3986, section 3.1) in lower case, its canonical form.
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
            let error = cx.listen_on_cores("x", scheme, listener.local_addr().unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            let listener = cx.listen_on_cores(scheme, scheme, any).unwrap();
            assert_eq!(cx.endpoints.urls()[scheme], format!("{scheme}://{}", listener.address()));
        }
        for scheme in ["", "HTTP", "1a", "http://", "a b", "\u{e4}"] {
            let error = cx.listen("x", scheme, any).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{scheme}");
        }
        let everywhere = "0.0.0.0:0".parse().unwrap();
        for error in [
            cx.listen("x", "tcp", everywhere).await.map(drop).unwrap_err(),
            cx.listen_on_cores("x", "tcp", everywhere).map(drop).unwrap_err(),
        ] {
            assert!(error.to_string().contains("would be open to the network"), "{error}");
        }
        assert!(!cx.endpoints.urls().contains_key("x"));
    }
}
