//! The explicit list of plugins that an agent has.

use std::collections::BTreeMap;
use std::sync::Arc;

use types::{Role, ServiceType, ShardId, Sharding};

use crate::Plugin;

/// The plugins of an agent, by service type. Cheap to clone.
#[derive(Clone, Default)]
pub struct Registry {
    plugins: BTreeMap<ServiceType, Arc<dyn Plugin>>,
}

/// A role that this agent can't run as it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// Choose one of those that exist.
    #[error("service type `{wanted}` does not exist here; there are {}", .known.join(", "))]
    UnknownType {
        /// What was asked for.
        wanted: String,
        /// What there is, `standby` included.
        known: Vec<String>,
    },
    /// Leave the shard out.
    #[error("`{service}` has no shards, so shard {shard} does not exist")]
    NoShards {
        /// The type.
        service: ServiceType,
        /// The shard that was asked for.
        shard: ShardId,
    },
}

impl Registry {
    /// No plugins: such an agent can only stand by.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with one plugin more. A second one of the same type replaces the first.
    #[must_use]
    pub fn with(mut self, plugin: impl Plugin) -> Self {
        self.plugins.insert(plugin.service_type(), Arc::new(plugin));
        self
    }

    /// The plugin of a type.
    pub fn plugin(&self, service: &ServiceType) -> Option<&Arc<dyn Plugin>> {
        self.plugins.get(service)
    }

    /// All plugins, ordered by type.
    pub fn plugins(&self) -> impl Iterator<Item = &Arc<dyn Plugin>> {
        self.plugins.values()
    }

    /// The types that can be run, without `standby`.
    pub fn service_types(&self) -> impl Iterator<Item = &ServiceType> {
        self.plugins.keys()
    }

    /// Checks that a role can be run here. A sharded type's role gets shard 0 unless it says otherwise; shard 0 of a
    /// type that has none is that type.
    pub fn check(&self, role: Role) -> Result<Role, RegistryError> {
        let Role::Service { service, shard } = role else {
            return Ok(Role::Standby);
        };
        let Some(plugin) = self.plugin(&service) else {
            let mut known: Vec<_> = self.service_types().map(ToString::to_string).collect();
            known.push(Role::STANDBY.to_owned());
            return Err(RegistryError::UnknownType { wanted: service.to_string(), known });
        };
        match (plugin.sharding(), shard) {
            (Sharding::None, Some(shard)) if shard.as_u32() > 0 => {
                Err(RegistryError::NoShards { service, shard })
            }
            (Sharding::None, _) => Ok(Role::Service { service, shard: None }),
            (Sharding::Unowned | Sharding::Owned, shard) => {
                Ok(Role::Service { service, shard: Some(shard.unwrap_or_default()) })
            }
        }
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.service_types()).finish()
    }
}
