//! What a node is started with: its role, and the settings of services.

use plugin::{Registry, RegistryError};
use types::{Role, ServiceType};

use super::config::Config;
use super::error::NodeError;
use super::identity::DataDir;

/// The role of the flags, and the type of its service if they give it.
pub(super) fn given_role(
    config: &Config,
    registry: &Registry,
) -> Result<(Role, Option<ServiceType>), RegistryError> {
    let Role::Service { service, shard } = config.role.clone() else { return Ok((Role::Standby, None)) };
    let service = registry.normalized(service);
    let named = registry.named(&service).map(|plugin| plugin.service_type());
    let service_type = config.service_type.clone().or(named);
    let role = Role::Service { service, shard };
    match &service_type {
        Some(service_type) => Ok((registry.check(role, service_type)?, Some(service_type.clone()))),
        None => Ok((role, None)),
    }
}

/// A role as this agent runs it; as an inner error the same role, if only the store knows the type of its service.
pub(super) fn typed(
    registry: &Registry,
    data: &DataDir,
    role: Role,
    given: Option<&ServiceType>,
) -> Result<Result<Role, Role>, RegistryError> {
    let Some(service) = role.service() else { return Ok(Ok(Role::Standby)) };
    let kept = || data.spec(service).ok().flatten().and_then(|kept| kept.spec.type_of(service));
    let named = registry.named(service).map(|plugin| plugin.service_type());
    match named.or_else(kept).or_else(|| given.cloned()) {
        Some(service_type) => registry.check(role, &service_type).map(Ok),
        None => Ok(Err(role)),
    }
}

/// Checks the settings that the agent was started with, each with the type of its service.
pub(super) fn check_settings(
    config: &Config,
    registry: &Registry,
    (role, given): (&Role, Option<&ServiceType>),
) -> Result<(), NodeError> {
    for (service, settings) in &config.settings {
        let of_role = given.filter(|_| role.service() == Some(service));
        let service_type = match (of_role, registry.named(service)) {
            (Some(service_type), _) => service_type.clone(),
            (None, Some(plugin)) => plugin.service_type(),
            // Checked with the spec, which has the type.
            (None, None) if role.service() == Some(service) => continue,
            (None, None) => return Err(registry.unknown(service).into()),
        };
        let plugin = registry.check_type(service, &service_type)?;
        plugin.prepare(settings).map_err(|source| {
            let service = service.with_type(&service_type);
            NodeError::Settings { service, source }
        })?;
    }
    Ok(())
}
