//! Keeps this node's cache of the specs of all services up to date.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use cluster::{Announced, Cluster, ClusterView};
use plugin::Registry;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, warn};
use types::{ServiceName, Sharding};

use crate::node::cluster_store::ClusterStore;
use crate::node::services::{Catalog, Entry};
use crate::takeover::vacancy::Layout;

/// By service, for those whose shards have owners and that this agent can run.
pub(crate) type Layouts = BTreeMap<ServiceName, Layout>;

/// How often the specs are read while gossip shows no newer one.
const EVERY: Duration = Duration::from_secs(30);
/// The pause after a read that failed.
const AGAIN: Duration = Duration::from_secs(2);
/// The pause after each read.
const PAUSE: Duration = Duration::from_millis(500);
/// How long the store may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Reads the specs at once, then at an interval, and when gossip shows that one has changed. Never ends.
pub(crate) async fn keep(
    cluster_store: ClusterStore,
    registry: Registry,
    cluster: Cluster,
    catalog: watch::Sender<Catalog>,
    known: watch::Sender<Layouts>,
) {
    let (mut view, mut announced) = (cluster.watch(), cluster.specs());
    loop {
        let before = catalog.borrow().clone();
        // Specs that members run with before the read do not trigger another read, whatever the store returns.
        let noted = gossiped(&view.borrow(), &announced.borrow());
        let is_read = match timeout(LIMIT, read(&cluster_store, &before)).await {
            Ok(Ok(read)) => {
                let news = news(&read, &before, &noted);
                replace(&known, layouts(&read, &registry));
                replace(&catalog, read);
                announce(&cluster, &news).await;
                true
            }
            Ok(Err(why)) => {
                debug!(why, "the specs can't be read");
                false
            }
            Err(_) => false,
        };
        let next = Instant::now() + if is_read { EVERY } else { AGAIN };
        let is_newer = |numbers: BTreeMap<ServiceName, u64>| {
            let catalog = catalog.borrow();
            let number_of =
                |service: &ServiceName| catalog.services.get(service).map_or(0, |entry| entry.spec);
            numbers.into_iter().any(|(service, number)| {
                number > number_of(&service).max(noted.get(&service).copied().unwrap_or(0))
            })
        };
        // A member that runs with a spec of another store must not cause a busy loop.
        sleep(PAUSE).await;
        tokio::select! {
            biased;
            () = sleep_until(next) => {}
            is_open = async {
                let nothing = Announced::new();
                tokio::select! {
                    biased;
                    seen = view.wait_for(|view| is_newer(gossiped(view, &nothing))) => seen.is_ok(),
                    heard = announced.wait_for(|announced| is_newer(announced.clone())) => heard.is_ok(),
                }
            }, if is_read => {
                if !is_open {
                    // Gossip has ended, and the node with it.
                    return std::future::pending().await;
                }
            }
        }
    }
}

/// The number of the latest spec that members run with or that a node has announced, by service.
fn gossiped(view: &ClusterView, announced: &Announced) -> BTreeMap<ServiceName, u64> {
    let mut numbers = announced.clone();
    for state in view.members().filter_map(|member| member.state.as_ref()) {
        if let Some((service, number)) = state.role.service().zip(state.spec) {
            let latest = numbers.entry(service.clone()).or_insert(number);
            *latest = number.max(*latest);
        }
    }
    numbers
}

/// The specs of a later read that no member knows yet: whoever wrote them did not announce them, or was not heard. Pure.
fn news(read: &Catalog, before: &Catalog, noted: &BTreeMap<ServiceName, u64>) -> Announced {
    let number = |catalog: &Catalog, service| catalog.services.get(service).map(|entry| entry.spec);
    let specs = read.services.iter().filter(|(service, entry)| {
        // What the first read finds is no news.
        let known = if before.is_read { number(before, service) } else { Some(entry.spec) };
        entry.spec > known.max(noted.get(*service).copied()).unwrap_or(0)
    });
    specs.map(|(service, entry)| (service.clone(), entry.spec)).collect()
}

/// Announces specs, so that members read them at once and not only at their next interval.
pub(crate) async fn announce(cluster: &Cluster, specs: &Announced) {
    for (service, number) in specs {
        if let Err(error) = cluster.announce_spec(service, *number).await {
            warn!(%service, number, %error, "a spec could not be announced");
        }
    }
}

fn replace<T: PartialEq>(kept: &watch::Sender<T>, read: T) {
    kept.send_if_modified(|kept| {
        let is_news = *kept != read;
        *kept = read;
        is_news
    });
}

/// The layouts of the services whose shards have owners and that this agent can run. A service of a type that it lacks is
/// not listed, so this node is no candidate for its shards.
fn layouts(catalog: &Catalog, registry: &Registry) -> Layouts {
    let layout = |(service, entry): (&ServiceName, &Entry)| {
        let plugin = registry.plugin(&entry.service_type)?;
        let shards = entry.shards.filter(|_| plugin.sharding() == Sharding::Owned)?;
        let (spec, service_type, replicas) = (entry.spec, entry.service_type.clone(), entry.replicas);
        Some((service.clone(), Layout { spec, service_type, shards, replicas }))
    };
    catalog.services.iter().filter_map(layout).collect()
}

/// For a spec that can't be parsed, the entry of the last read stays; a service whose type is not known is not listed.
async fn read(cluster_store: &ClusterStore, before: &Catalog) -> Result<Catalog, String> {
    let store = cluster_store.store().await.map_err(|error| error.to_string())?;
    let specs = store.specs().all().await.map_err(|error| error.to_string())?;
    let services = specs.into_iter().filter_map(|(service, numbered)| {
        let numbered = match numbered {
            Ok(numbered) => numbered,
            Err(error) => {
                warn!(%error, "a spec can't be parsed");
                return before.services.get(&service).cloned().map(|entry| (service, entry));
            }
        };
        let entry = Entry {
            spec: numbered.number,
            service_type: numbered.spec.type_of(&service)?,
            shards: numbered.spec.shards.and_then(NonZeroU32::new),
            replicas: numbered.spec.replicas,
        };
        Some((service, entry))
    });
    Ok(Catalog { is_read: true, services: services.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog(specs: &[(&str, u64)]) -> Catalog {
        let entry =
            |number| Entry { spec: number, service_type: "echo".parse().unwrap(), shards: None, replicas: 0 };
        let services = specs.iter().map(|(service, number)| (service.parse().unwrap(), entry(*number)));
        Catalog { is_read: true, services: services.collect() }
    }

    #[test]
    fn a_spec_that_no_member_knows_is_announced_and_no_other() {
        let numbers = |specs: &[(&str, u64)]| -> Announced {
            specs.iter().map(|(service, number)| (service.parse().unwrap(), *number)).collect()
        };
        let read = catalog(&[("a", 3), ("b", 2), ("c", 1)]);
        let before = catalog(&[("a", 2), ("b", 2)]);
        assert_eq!(news(&read, &Catalog::default(), &numbers(&[])), numbers(&[]), "the first read");
        assert_eq!(news(&read, &before, &numbers(&[])), numbers(&[("a", 3), ("c", 1)]));
        assert_eq!(news(&read, &before, &numbers(&[("a", 3)])), numbers(&[("c", 1)]), "it is known already");
        assert_eq!(news(&read, &read, &numbers(&[])), numbers(&[]));
    }
}
