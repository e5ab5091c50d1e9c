//! The list of plugins that an agent contains.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use types::{Role, ServiceName, ServiceType, ShardId, Sharding};

use crate::Plugin;

/// The plugins of an agent, by service type. Cheap to clone.
#[derive(Clone, Default)]
pub struct Registry {
    plugins: BTreeMap<ServiceType, Arc<dyn Plugin>>,
}

/// Why this agent can't run a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// Choose one of the types that exist.
    #[error("service type `{wanted}` does not exist here; there are {}", .known.join(", "))]
    UnknownType {
        /// The requested type.
        wanted: String,
        /// The types that exist, and `standby`.
        known: Vec<String>,
    },
    /// Give the service another name.
    #[error(
        "`{service}` is the name of a service type, so a service of this name can't be of type `{wanted}`"
    )]
    OtherType {
        /// The service.
        service: ServiceName,
        /// The requested type of the service.
        wanted: ServiceType,
    },
    /// Leave the shard out.
    #[error("`{service}` has no shards, so shard {shard} does not exist")]
    NoShards {
        /// The service.
        service: ServiceName,
        /// The requested shard.
        shard: ShardId,
    },
}

impl Registry {
    /// No plugins: an agent without any can only be a standby.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a plugin. A second plugin of the same type replaces the first.
    #[must_use]
    pub fn with(mut self, plugin: impl Plugin) -> Self {
        self.plugins.insert(plugin.service_type(), Arc::new(plugin));
        self
    }

    /// The plugin of a type.
    pub fn plugin(&self, service_type: &ServiceType) -> Option<&Arc<dyn Plugin>> {
        self.plugins.get(service_type)
    }

    /// The plugin of a service that is named after its type.
    pub fn named(&self, service: &ServiceName) -> Option<&Arc<dyn Plugin>> {
        self.plugin(&service.default_type()?)
    }

    /// The canonical form of a service's name: if it names a type of this agent, it is written as that type.
    #[must_use]
    pub fn normalized(&self, service: ServiceName) -> ServiceName {
        service.normalized(|service_type| self.plugins.contains_key(service_type))
    }

    /// All plugins, ordered by type.
    pub fn plugins(&self) -> impl Iterator<Item = &Arc<dyn Plugin>> {
        self.plugins.values()
    }

    /// The types of all plugins, without `standby`.
    pub fn service_types(&self) -> impl Iterator<Item = &ServiceType> {
        self.plugins.keys()
    }

    /// The error for a type that this agent does not have.
    pub fn unknown(&self, wanted: impl fmt::Display) -> RegistryError {
        let mut known: Vec<_> = self.service_types().map(ToString::to_string).collect();
        known.push(Role::STANDBY.to_owned());
        RegistryError::UnknownType { wanted: wanted.to_string(), known }
    }

    /// Checks that a service may have this type, and that this agent has the type.
    pub fn check_type(
        &self,
        service: &ServiceName,
        service_type: &ServiceType,
    ) -> Result<&Arc<dyn Plugin>, RegistryError> {
        if self.named(service).is_some() && !service.is_named_after(service_type) {
            let (service, wanted) = (service.clone(), service_type.clone());
            return Err(RegistryError::OtherType { service, wanted });
        }
        self.plugin(service_type).ok_or_else(|| self.unknown(service_type))
    }

    /// Checks that this agent can run a role whose service has this type. A role of a sharded type gets shard 0 if it names
    /// none; shard 0 of a type without shards is accepted and removed.
    pub fn check(&self, role: Role, service_type: &ServiceType) -> Result<Role, RegistryError> {
        let Role::Service { service, shard } = role else {
            return Ok(Role::Standby);
        };
        let service = self.normalized(service);
        let plugin = self.check_type(&service, service_type)?;
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

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.service_types()).finish()
    }
}
