//! What the specs want of the types whose shards have owners, as far as this node knows.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use cluster::ClusterView;
use plugin::Registry;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, warn};
use types::{ServiceType, Sharding};

use crate::node::cluster_store::ClusterStore;
use crate::takeover::vacancy::Layout;

/// By service type.
pub(crate) type Layouts = BTreeMap<ServiceType, Layout>;

/// How often the specs are read though nobody is seen to run with a newer one.
const EVERY: Duration = Duration::from_secs(30);
/// The pause after they could not be read.
const AGAIN: Duration = Duration::from_secs(2);
/// The pause after each read.
const PAUSE: Duration = Duration::from_millis(500);
/// How long the store may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Reads the specs at once, then and again, and when gossip shows that one has changed. Never ends.
pub(crate) async fn keep(
    cluster_store: ClusterStore,
    registry: Registry,
    mut view: watch::Receiver<ClusterView>,
    known: watch::Sender<Layouts>,
) {
    let owned = |service: &ServiceType| {
        registry.plugin(service).is_some_and(|plugin| plugin.sharding() == Sharding::Owned)
    };
    loop {
        let before = known.borrow().clone();
        let is_read = match timeout(LIMIT, read(&cluster_store, &before)).await {
            Ok(Ok(mut layouts)) => {
                layouts.retain(|service, _| owned(service));
                known.send_if_modified(|known| {
                    let is_news = *known != layouts;
                    *known = layouts;
                    is_news
                });
                true
            }
            Ok(Err(why)) => {
                debug!(why, "the specs can't be read");
                false
            }
            Err(_) => false,
        };
        let next = Instant::now() + if is_read { EVERY } else { AGAIN };
        let is_newer = |view: &ClusterView| {
            let known = known.borrow();
            view.members().filter_map(|member| member.state.as_ref()).any(|state| {
                let service = state.role.service().filter(|service| owned(service));
                service.zip(state.spec).is_some_and(|(service, number)| {
                    known.get(service).is_none_or(|layout| layout.spec < number)
                })
            })
        };
        // Whoever runs with a spec of another store must not make a busy loop.
        sleep(PAUSE).await;
        tokio::select! {
            biased;
            () = sleep_until(next) => {}
            is_open = async { view.wait_for(is_newer).await.is_ok() }, if is_read => {
                if !is_open {
                    // Gossip has ended, and the node with it.
                    return std::future::pending().await;
                }
            }
        }
    }
}

/// A spec that can't be understood leaves what was known before.
async fn read(cluster_store: &ClusterStore, before: &Layouts) -> Result<Layouts, String> {
    let store = cluster_store.store().await.map_err(|error| error.to_string())?;
    let specs = store.specs().all().await.map_err(|error| error.to_string())?;
    let layouts = specs.into_iter().filter_map(|(service, numbered)| {
        let numbered = match numbered {
            Ok(numbered) => numbered,
            Err(error) => {
                warn!(%error, "a spec can't be understood");
                return before.get(&service).copied().map(|layout| (service, layout));
            }
        };
        let shards = numbered.spec.shards.and_then(NonZeroU32::new)?;
        Some((service, Layout { spec: numbered.number, shards, replicas: numbered.spec.replicas }))
    });
    Ok(layouts.collect())
}
