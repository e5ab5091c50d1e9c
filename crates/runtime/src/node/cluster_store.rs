//! The cluster's object store as a node uses it: opened as soon as it answers, gossiped, and the same for all members.

mod error;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use cluster::{Cluster, ClusterView};
use mesh::Kind;
use plugin::Registry;
use serde_json::Value;
use store::{ObjectStore, OpenError, SpecError, Store, StoreUrl};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};
use types::api::NumberedSpec;
use types::{ClusterId, Role, ServiceName, ServiceType, ShardId, ShardRef, Sharding, Spec};

pub(crate) use self::error::{OtherStore, RoleError, StoreAccessError, TermsError};
use crate::failure::Failure;
use crate::node::identity::DataDir;
use crate::node::services::{Services, TypeError};
use crate::node::shard_count::{GivenShards, ShardCountError};

/// How often a spec is written while others write it at the same time.
const SPEC_ATTEMPTS: u32 = 5;

/// How long the store may take to return the type of a service.
const TYPE_LIMIT: Duration = Duration::from_secs(3);

/// How long a node looks for others before it assumes that there are none.
const FIRST_CONTACT_LIMIT: Duration = Duration::from_secs(1);

/// A node has met those that start with it once its view has not changed for this long.
const SETTLED: Duration = Duration::from_millis(20);
/// How long it waits for that before it tests a new store.
const MEETING_LIMIT: Duration = Duration::from_millis(100);

/// The cluster's object store, opened when it can be. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ClusterStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    url: StoreUrl,
    /// A store that is already open, instead of the one behind the URL.
    objects: Option<Arc<dyn ObjectStore>>,
    id: ClusterId,
    cluster: Cluster,
    registry: Registry,
    /// The settings that this agent was started with, for services that have no spec yet.
    settings: BTreeMap<ServiceName, Value>,
    shards: GivenShards,
    services: Services,
    /// This node's API.
    http: String,
    data: Arc<DataDir>,
    has_seeds: bool,
    began: Instant,
    store: OnceCell<Store>,
}

/// The configuration of a node's store.
pub(crate) struct ClusterStoreConfig {
    pub(crate) url: StoreUrl,
    pub(crate) objects: Option<Arc<dyn ObjectStore>>,
    pub(crate) id: ClusterId,
    pub(crate) settings: BTreeMap<ServiceName, Value>,
    pub(crate) shards: GivenShards,
    pub(crate) services: Services,
    pub(crate) http: String,
    pub(crate) has_seeds: bool,
}

/// What a role runs with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Terms {
    /// The number of the spec; none while the store can't be read and the data folder has no spec.
    pub(crate) number: Option<u64>,
    /// The type of the service.
    pub(crate) service_type: ServiceType,
    pub(crate) settings: Value,
    pub(crate) shards: Option<NonZeroU32>,
    /// Replicas of each shard besides its owner.
    pub(crate) replicas: u32,
}

impl ClusterStore {
    pub(crate) fn new(
        config: ClusterStoreConfig,
        cluster: Cluster,
        registry: Registry,
        data: Arc<DataDir>,
    ) -> Self {
        let ClusterStoreConfig { url, objects, id, settings, shards, services, http, has_seeds } = config;
        Self(Arc::new(Inner {
            url,
            objects,
            id,
            cluster,
            registry,
            settings,
            shards,
            services,
            http,
            data,
            has_seeds,
            began: Instant::now(),
            store: OnceCell::new(),
        }))
    }

    /// The store; opens and tests it if that has not been done yet.
    pub(crate) async fn store(&self) -> Result<&Store, OpenError> {
        let inner = &self.0;
        // Boxed: a client's futures are large, and it is opened once.
        let open = Box::pin(async {
            let store = match &inner.objects {
                Some(objects) => {
                    let (objects, url) = (objects.clone(), inner.url.clone());
                    Store::over_patiently(objects, url, &inner.id, self.met()).await?
                }
                None => Store::open_patiently(&inner.url, &inner.id, self.met()).await?,
            }
            .reached_at(&inner.http);
            info!(url = %inner.url, id = %store.info().id, "opened the store");
            if let Err(error) = inner.cluster.set_store(store.info().clone()).await {
                warn!(%error, "the store could not be gossiped");
            }
            Ok(store)
        });
        inner.store.get_or_try_init(|| open).await
    }

    /// The store, once no live member is seen to use another one: required before a node takes a claim.
    pub(crate) async fn shared_store(&self) -> Result<&Store, StoreAccessError> {
        let store = self.store().await?;
        self.first_contact().await;
        match other_store(&self.0.cluster.view(), store) {
            None => Ok(store),
            Some(other) => Err(other.into()),
        }
    }

    /// Where it is, and whether it was opened.
    pub(crate) fn in_words(&self) -> String {
        let url = &self.0.url;
        match self.0.store.get() {
            Some(_) => url.to_string(),
            None => format!("{url} (can't be opened yet; the log says why)"),
        }
    }

    /// A live member that uses another store; none while this node has not opened its own.
    pub(crate) fn other_store(&self) -> Option<OtherStore> {
        other_store(&self.0.cluster.view(), self.0.store.get()?)
    }

    /// Waits, if the node has seeds, until it has met the nodes that start with it, at most for [`MEETING_LIMIT`]; then for a
    /// random time, so that they do not all test a new store at once.
    async fn met(&self) {
        if self.0.has_seeds {
            let mut view = self.0.cluster.watch();
            let settled = async { while let Ok(Ok(())) = timeout(SETTLED, view.changed()).await {} };
            // After the limit it continues without them.
            let _ = timeout(MEETING_LIMIT, settled).await;
            sleep(SETTLED.mul_f64(rand::random())).await;
        }
    }

    /// Waits, if the node has seeds, until it has met a member and knows the store of each one that it has met, at most for
    /// [`FIRST_CONTACT_LIMIT`] since its start. Members open their stores after they have become members.
    async fn first_contact(&self) {
        if self.0.has_seeds {
            let mut view = self.0.cluster.watch();
            let met = view.wait_for(|view| {
                let mut peers = view.peers().peekable();
                peers.peek().is_some() && peers.all(|peer| peer.store.is_some())
            });
            // After the limit: it is alone, or the others can't open their stores. A node that opens another store later
            // sees this node's and reports it.
            let _ = timeout_at(self.0.began + FIRST_CONTACT_LIMIT, met).await;
        }
    }

    /// The services of the cluster, as far as this node knows.
    pub(crate) fn services(&self) -> &Services {
        &self.0.services
    }

    /// The type of a service: the type of that name, else the type in its spec, else the one in this node's flags.
    pub(crate) async fn service_type(&self, service: &ServiceName) -> Result<ServiceType, TypeError> {
        let inner = &self.0;
        if let Some(plugin) = inner.registry.named(service) {
            return Ok(plugin.service_type());
        }
        if let Kind::Settled(service_type) = inner.services.kind(service) {
            return Ok(service_type);
        }
        let given = inner.shards.service_type(service).cloned();
        let unread = match timeout(TYPE_LIMIT, self.read_spec(service)).await {
            Ok(Ok(known)) => {
                let settled = known.and_then(|known| known.spec.type_of(service));
                let unknown = || TypeError::Unknown(inner.registry.unknown(service));
                return settled.or(given).ok_or_else(unknown);
            }
            Ok(Err(error)) => error,
            Err(_) => StoreAccessError::NoAnswer(TYPE_LIMIT),
        };
        let kept = inner.data.spec(service).ok().flatten().and_then(|kept| kept.spec.type_of(service));
        kept.or(given).ok_or_else(|| TypeError::Unread(service.clone(), unread))
    }

    async fn read_spec(&self, service: &ServiceName) -> Result<Option<NumberedSpec>, StoreAccessError> {
        Ok(self.store().await?.specs().latest(service).await?)
    }

    /// A role as this agent runs it: its service by its name, with a shard if the service's type is sharded.
    pub(crate) async fn checked(&self, role: Role) -> Result<Role, RoleError> {
        let Role::Service { service, shard } = role else { return Ok(Role::Standby) };
        let service = self.0.registry.normalized(service);
        self.0.services.refuse_type(&service)?;
        let service_type = self.service_type(&service).await?;
        let role = Role::Service { service, shard };
        Ok(self.0.registry.check(role, &service_type)?)
    }

    /// What a role of this service runs with. If the service has no spec yet, one is written to the store if `is_wanted`: an
    /// operator wants the role. A node that acts on its own needs a spec.
    pub(crate) async fn terms(
        &self,
        service: &ServiceName,
        shard: Option<ShardId>,
        is_wanted: bool,
    ) -> Result<Terms, TermsError> {
        let service_type = self.service_type(service).await?;
        self.0.shards.check_type(service, &service_type)?;
        let sharding = self.0.registry.check_type(service, &service_type)?.sharding();
        let opened = match sharding {
            Sharding::Owned => self.shared_store().await,
            Sharding::None | Sharding::Unowned => self.store().await.map_err(StoreAccessError::from),
        };
        let read = match opened {
            Ok(store) => self.settle(store, (service, &service_type), shard, (sharding, is_wanted)).await,
            Err(error) => Err(error.into()),
        };
        let numbered = match read {
            Ok(numbered) => numbered,
            // A refusal is final; a service without owned shards runs without a store that failed.
            Err(error) if sharding != Sharding::Owned && error.explain().kind.status() >= 500 => {
                warn!(%service, %error, "the spec can't be read; what was known of it has to do");
                return Ok(self.remembered(service, service_type));
            }
            Err(error) => return Err(error),
        };
        let shards = numbered.spec.shards.and_then(NonZeroU32::new);
        if sharding == Sharding::Owned {
            self.0.shards.check(service, shards)?;
        }
        if let (Sharding::Owned, Some(shards), Some(shard)) = (sharding, shards, shard)
            && shard.as_u32() >= shards.get()
        {
            return Err(TermsError::NoSuchShard { shard: ShardRef::new(service.clone(), shard), shards });
        }
        let NumberedSpec { number, spec } = numbered;
        let (settings, replicas) = (spec.settings, spec.replicas);
        Ok(Terms { number: Some(number), service_type, settings, shards, replicas })
    }

    async fn settle(
        &self,
        store: &Store,
        (service, service_type): (&ServiceName, &ServiceType),
        shard: Option<ShardId>,
        (sharding, is_wanted): (Sharding, bool),
    ) -> Result<NumberedSpec, TermsError> {
        let given = self.0.settings.get(service);
        let is_owned = sharding == Sharding::Owned;
        let place = (service, service_type, shard.unwrap_or_default());
        let first = || self.0.shards.first(place, &self.0.http);
        let specs = store.specs();
        for _ in 0..SPEC_ATTEMPTS {
            let known = specs.latest(service).await.map_err(StoreAccessError::from)?;
            let settled = known.as_ref().and_then(|known| known.spec.type_of(service));
            if let Some(settled) = settled.filter(|settled| settled != service_type) {
                return Err(ShardCountError::type_fixed(service, settled, service_type.clone()).into());
            }
            let wanted = match &known {
                Some(known) if known.spec.shards.is_some() => None,
                _ => is_owned.then(first).transpose()?,
            };
            let (number, spec) = match known {
                Some(known) if known.spec.shards.is_some() || !is_owned => {
                    if given.is_some_and(|given| *given != known.spec.settings) {
                        warn!(
                            %service, spec = known.number,
                            "the settings that this agent was given are not used: the store has others; \
                             `ctl spec` shows them"
                        );
                    }
                    self.remember(service, &known);
                    return Ok(known);
                }
                Some(known) => (known.number, Spec { shards: wanted, ..known.spec }),
                None if !is_wanted => return Err(TermsError::Removed(service.clone())),
                None => {
                    let settings = given.cloned().unwrap_or_else(|| serde_json::json!({}));
                    let service_type = Some(service_type.clone());
                    (0, Spec { service_type, settings, shards: wanted, replicas: 0 })
                }
            };
            match specs.put(service, number, &spec).await {
                Ok(number) => info!(%service, number, shards = spec.shards, "wrote the spec"),
                // Another node was faster; its spec counts.
                Err(
                    SpecError::Changed { .. } | SpecError::ShardsFixed { .. } | SpecError::TypeFixed { .. },
                ) => {}
                Err(error @ (SpecError::Similar { .. } | SpecError::Store(_))) => return Err(error.into()),
            }
        }
        Err(TermsError::Contended(service.clone()))
    }

    fn remember(&self, service: &ServiceName, known: &NumberedSpec) {
        if self.0.data.spec(service).is_ok_and(|kept| kept.as_ref() == Some(known)) {
            return;
        }
        if let Err(error) = self.0.data.keep_spec(service, known) {
            warn!(%service, %error, "the spec could not be kept for a time without the store");
        }
    }

    fn remembered(&self, service: &ServiceName, service_type: ServiceType) -> Terms {
        let kept = self.0.data.spec(service).unwrap_or_else(|error| {
            warn!(%service, %error, "the spec that was kept can't be read");
            None
        });
        match kept {
            Some(kept) => {
                let (number, settings) = (Some(kept.number), kept.spec.settings);
                Terms { number, service_type, settings, shards: None, replicas: 0 }
            }
            None => {
                let settings = self.0.settings.get(service).cloned().unwrap_or(Value::Null);
                Terms { number: None, service_type, settings, shards: None, replicas: 0 }
            }
        }
    }
}

/// A live member that uses another store.
fn other_store(view: &ClusterView, store: &Store) -> Option<OtherStore> {
    let ours = store.info();
    let (node, theirs) = view
        .peers()
        .filter_map(|peer| peer.store.as_ref().map(|theirs| (&peer.id, theirs)))
        .find(|(_, theirs)| theirs.id != ours.id)?;
    let (me, node) = (view.me().clone(), node.clone());
    Some(OtherStore { me, ours: ours.clone(), node, theirs: theirs.clone() })
}
