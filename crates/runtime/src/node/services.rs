//! The services of the cluster, their types and what their specs want, as far as this node knows.
//!
//! The specs on the store decide; members cache what they read last. What gossip shows fills in until the first read.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;

use cluster::ClusterView;
use mesh::Kind;
use plugin::{Plugin, Registry, RegistryError};
use tokio::sync::watch;
use types::{ErrorKind, Role, ServiceName, ServiceType};

use crate::failure::{Explanation, Failure};
use crate::node::cluster_store::StoreAccessError;

/// The services that have specs, as they were last read from the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Catalog {
    /// Whether the store was read at all.
    pub(crate) is_read: bool,
    pub(crate) services: BTreeMap<ServiceName, Entry>,
}

/// The cached part of a service's spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The number of the spec.
    pub(crate) spec: u64,
    pub(crate) service_type: ServiceType,
    pub(crate) shards: Option<NonZeroU32>,
    /// Replicas of each shard besides its owner.
    pub(crate) replicas: u32,
}

/// The services of the cluster, as far as this node knows. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Services {
    registry: Registry,
    view: watch::Receiver<ClusterView>,
    catalog: watch::Receiver<Catalog>,
}

impl Services {
    pub(crate) fn new(
        registry: Registry,
        view: watch::Receiver<ClusterView>,
        catalog: watch::Receiver<Catalog>,
    ) -> Self {
        Self { registry, view, catalog }
    }

    /// What was last read from the store.
    pub(crate) fn catalog(&self) -> Catalog {
        self.catalog.borrow().clone()
    }

    /// What is known of a service's type.
    pub(crate) fn kind(&self, service: &ServiceName) -> Kind {
        kind(service, &self.catalog.borrow(), &self.registry, &self.view.borrow())
    }

    /// The type of a service, if it exists or is named after a type.
    pub(crate) fn type_of(&self, service: &ServiceName) -> Option<ServiceType> {
        match self.kind(service) {
            Kind::Settled(service_type) | Kind::Assumed(service_type) => Some(service_type),
            Kind::NotYetKnown | Kind::Unknown => None,
        }
    }

    /// The plugin of a service, if this agent has it.
    pub(crate) fn plugin(&self, service: &ServiceName) -> Option<&Arc<dyn Plugin>> {
        self.registry.plugin(&self.type_of(service)?)
    }

    /// Whether this agent can run a replica of the service's shards.
    pub(crate) fn replicates(&self, service: &ServiceName) -> bool {
        self.plugin(service).is_some_and(|plugin| plugin.replicates())
    }

    /// Refuses the name of a type if no service has that name but others have that type: one of them is meant.
    pub(crate) fn refuse_type(&self, service: &ServiceName) -> Result<(), AmbiguousService> {
        let named = named_otherwise(service, &self.catalog.borrow(), &self.registry, &self.view.borrow());
        match named.into_iter().collect::<Vec<_>>() {
            named if named.is_empty() => Ok(()),
            named => Err(AmbiguousService { service: service.clone(), named }),
        }
    }
}

/// What is known of a service's type. Pure.
fn kind(service: &ServiceName, catalog: &Catalog, registry: &Registry, view: &ClusterView) -> Kind {
    if let Some(entry) = catalog.services.get(service) {
        return Kind::Settled(entry.service_type.clone());
    }
    if let Some(plugin) = registry.named(service) {
        return Kind::Assumed(plugin.service_type());
    }
    let gossiped = view.of_service(service).find_map(|member| member.state.as_ref()?.service_type.clone());
    match (gossiped, service.default_type()) {
        (Some(service_type), _) => Kind::Settled(service_type),
        (None, _) if !catalog.is_read => Kind::NotYetKnown,
        (None, Some(service_type)) => Kind::Assumed(service_type),
        (None, None) => Kind::Unknown,
    }
}

/// The services of a type that have other names, if no service has the type's name. Pure.
fn named_otherwise(
    service: &ServiceName,
    catalog: &Catalog,
    registry: &Registry,
    view: &ClusterView,
) -> BTreeSet<ServiceName> {
    let is_there = catalog.services.contains_key(service) || view.of_service(service).next().is_some();
    let Some(plugin) = registry.named(service).filter(|_| !is_there) else { return BTreeSet::new() };
    let wanted = plugin.service_type();
    let listed = catalog.services.iter().filter(|(_, entry)| entry.service_type == wanted);
    let states = view.members().filter_map(|member| member.state.as_ref());
    let seen = states.filter(|state| state.service_type.as_ref() == Some(&wanted));
    let seen = seen.filter_map(|state| state.role.service());
    listed.map(|(name, _)| name).chain(seen).cloned().collect()
}

/// The name of a type where a service is meant: no service has it, and others have that type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", in_words(service, named))]
pub(crate) struct AmbiguousService {
    service: ServiceName,
    /// The services of that type, at least one.
    named: Vec<ServiceName>,
}

fn in_words(service: &ServiceName, named: &[ServiceName]) -> String {
    match named {
        [one] => format!("`{service}` is a service type, and the service of that type is called {one}"),
        _ => {
            let names: Vec<_> = named.iter().map(ServiceName::as_str).collect();
            format!("`{service}` is a service type, and several services are of it: {}", names.join(", "))
        }
    }
}

impl Failure for AmbiguousService {
    fn explain(&self) -> Explanation {
        let explanation = Explanation::new(ErrorKind::Invalid, "ambiguous-service");
        match self.named.first() {
            Some(first) => explanation.hint(format!("name the service, for example `{first}`")),
            None => explanation,
        }
    }
}

/// Why the type of a service is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TypeError {
    /// The service has no spec, and there is no type of its name here.
    #[error(transparent)]
    Unknown(#[from] RegistryError),
    /// The store could not be read.
    #[error("the type of {0} is not known: {1}")]
    Unread(ServiceName, StoreAccessError),
}

impl Failure for TypeError {
    fn explain(&self) -> Explanation {
        match self {
            Self::Unknown(error) => error.explain(),
            Self::Unread(_, error) => error.explain(),
        }
    }
}

/// A role without its shard, for a type that has none.
pub(crate) fn without_shard(role: Role) -> Role {
    match role {
        Role::Service { service, .. } => Role::Service { service, shard: None },
        Role::Standby => Role::Standby,
    }
}

#[cfg(test)]
mod tests {
    use types::api::{About, Member};
    use types::{Generation, RoleState, Sharding};

    use super::*;

    /// A type without settings or shards.
    struct Echo;

    impl Plugin for Echo {
        fn service_type(&self) -> ServiceType {
            "echo".parse().unwrap()
        }
        fn about(&self) -> &'static str {
            "answers what it was asked"
        }
        fn sharding(&self) -> Sharding {
            Sharding::None
        }
        fn prepare(
            &self,
            _settings: &serde_json::Value,
        ) -> Result<Box<dyn plugin::Prepared>, plugin::SettingsError> {
            Err(plugin::SettingsError { mistakes: Vec::new() })
        }
    }

    fn name(text: &str) -> ServiceName {
        text.parse().unwrap()
    }

    fn catalog(services: &[(&str, &str)]) -> Catalog {
        let entry = |service_type: &str| Entry {
            spec: 1,
            service_type: service_type.parse().unwrap(),
            shards: None,
            replicas: 0,
        };
        let services = services.iter().map(|(service, of)| (name(service), entry(of)));
        Catalog { is_read: true, services: services.collect() }
    }

    fn view(members: &[(&str, Option<&str>)]) -> ClusterView {
        let members = members.iter().enumerate().map(|(number, (role, service_type))| Member {
            id: format!("n{number}").parse().unwrap(),
            generation: Generation(1),
            version: 1,
            http: String::new(),
            gossip: String::new(),
            state: Some(RoleState {
                service_type: service_type.map(|text| text.parse().unwrap()),
                ..RoleState::starting(role.parse().unwrap())
            }),
            about: About::default(),
            store: None,
        });
        ClusterView::new("test".parse().unwrap(), "n0".parse().unwrap(), members)
    }

    #[test]
    fn the_store_says_the_type_of_a_service_and_gossip_until_then() {
        let registry = Registry::new().with(Echo);
        let settled = |text: &str| Kind::Settled(text.parse().unwrap());
        let assumed = |text: &str| Kind::Assumed(text.parse().unwrap());
        let (nobody, unread) = (view(&[]), Catalog::default());
        for (service, catalog, view, expected) in [
            ("edge", &catalog(&[("edge", "echo")]), &nobody, settled("echo")),
            ("edge", &catalog(&[("edge", "echo")]), &view(&[("edge", Some("other"))]), settled("echo")),
            ("edge", &catalog(&[]), &view(&[("edge", Some("other"))]), settled("other")),
            ("edge", &unread, &view(&[("edge", Some("other"))]), settled("other")),
            ("edge", &unread, &nobody, Kind::NotYetKnown),
            ("edge", &catalog(&[]), &nobody, assumed("edge")),
            ("2nd", &catalog(&[]), &nobody, Kind::Unknown),
            ("echo", &unread, &nobody, assumed("echo")),
            ("echo", &catalog(&[("echo", "echo")]), &nobody, settled("echo")),
        ] {
            assert_eq!(kind(&name(service), catalog, &registry, view), expected, "{service} {catalog:?}");
        }
    }

    #[test]
    fn the_name_of_a_type_stands_for_no_service_that_is_called_otherwise() {
        let registry = Registry::new().with(Echo);
        let (nobody, edge) = (view(&[]), view(&[("edge", Some("echo"))]));
        for (service, catalog, view, expected) in [
            ("echo", &catalog(&[]), &nobody, &[][..]),
            ("echo", &catalog(&[("echo", "echo"), ("edge", "echo")]), &nobody, &[]),
            ("echo", &catalog(&[("edge", "echo")]), &view(&[("echo", None)]), &[]),
            ("echo", &catalog(&[("edge", "echo")]), &nobody, &["edge"]),
            ("echo", &catalog(&[("internal", "echo"), ("x", "other")]), &edge, &["edge", "internal"]),
            ("other", &catalog(&[("edge", "echo")]), &nobody, &[]),
        ] {
            let found = named_otherwise(&name(service), catalog, &registry, view);
            let found: Vec<_> = found.iter().map(ServiceName::as_str).collect();
            assert_eq!(found, expected, "{service} {catalog:?}");
        }
    }
}
