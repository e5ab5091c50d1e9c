//! The number of shards of a service: the one in this agent's flags against the one on the store. Pure.

use std::num::NonZeroU32;

use plugin::Registry;
use types::{ErrorKind, Role, ServiceName, ServiceType, ShardId, ShardRef, Sharding};

use crate::failure::{Explanation, Failure};

/// Why a node can't be started with a number of shards.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShardsError {
    /// Leave `--shards` out.
    #[error("`{0}` has no fixed number of shards, so --shards can't set it")]
    NotFixed(String),
    /// Give a smaller number.
    #[error("a service has at most {most} shards, not {shards}", most = ShardId::MAX + 1)]
    TooMany {
        /// The value of `--shards`.
        shards: NonZeroU32,
    },
    /// Give another shard, or more shards.
    #[error("shards are counted from 0: there is no shard {shard} of {shards}")]
    NoSuchShard {
        /// The value of `--shard`.
        shard: ShardId,
        /// The value of `--shards`.
        shards: NonZeroU32,
    },
}

/// The number of shards that an agent was started with, and for which role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GivenShards {
    /// The role of the command line.
    role: Role,
    /// The type of its service, if the command line has it.
    service_type: Option<ServiceType>,
    /// How many shards its service has.
    number: Option<NonZeroU32>,
    /// The command line.
    command: Option<String>,
}

impl GivenShards {
    /// Checks the number against the role, which the registry has checked.
    pub(crate) fn new(
        registry: &Registry,
        (role, service_type): (Role, Option<ServiceType>),
        number: Option<NonZeroU32>,
        command: Option<String>,
    ) -> Result<Self, ShardsError> {
        if let Some(shards) = number {
            let known = service_type.clone().or_else(|| role.service()?.default_type());
            let plugin = known.and_then(|service_type| registry.plugin(&service_type));
            // If only the store knows the type of the service, this is checked once the type has been read.
            let is_untyped = role != Role::Standby && plugin.is_none();
            if !is_untyped && plugin.is_none_or(|plugin| plugin.sharding() != Sharding::Owned) {
                return Err(ShardsError::NotFixed(role.service_name().to_owned()));
            }
            if shards.get() > ShardId::MAX + 1 {
                return Err(ShardsError::TooMany { shards });
            }
            if let Some(shard) = role.shard().filter(|shard| shard.as_u32() >= shards.get()) {
                return Err(ShardsError::NoSuchShard { shard, shards });
            }
        }
        Ok(Self { role, service_type, number, command })
    }

    /// The type of a service in this agent's flags.
    pub(crate) fn service_type(&self, service: &ServiceName) -> Option<&ServiceType> {
        self.service_type.as_ref().filter(|_| self.role.service() == Some(service))
    }

    /// Refuses a type that is not the one on the store.
    pub(crate) fn check_type(
        &self,
        service: &ServiceName,
        on_store: &ServiceType,
    ) -> Result<(), ShardCountError> {
        match self.service_type(service) {
            Some(given) if given != on_store => {
                Err(ShardCountError::type_fixed(service, on_store.clone(), given.clone()))
            }
            _ => Ok(()),
        }
    }

    fn of(&self, service: &ServiceName) -> Option<NonZeroU32> {
        self.number.filter(|_| self.role.service() == Some(service))
    }

    /// How many shards the first spec of a service gets, when this node is to run one of them. `http` is its own API.
    pub(crate) fn first(
        &self,
        (service, service_type, shard): (&ServiceName, &ServiceType, ShardId),
        http: &str,
    ) -> Result<u32, ShardCountError> {
        if let Some(shards) = self.of(service) {
            return Ok(shards.get());
        }
        if shard == ShardId::default() {
            return Ok(1);
        }
        let least = shard.as_u32() + 1;
        let by_flag = self
            .command
            .as_ref()
            .filter(|_| self.role.service() == Some(service) && self.role.shard() == Some(shard));
        let command = match by_flag {
            Some(command) => format!("{command} --shards {least}"),
            None => {
                let of_type = match service.is_named_after(service_type) {
                    true => String::new(),
                    false => format!("\"type\": \"{service_type}\", "),
                };
                format!(
                    "curl -X PUT -H 'If-None-Match: *' -d '{{{of_type}\"settings\": {{}}, \"shards\": {least}}}' \
                     {http}/v1/spec/{service}"
                )
            }
        };
        Err(ShardCountError::Unknown { shard: ShardRef::new(service.clone(), shard), command })
    }

    /// Refuses a number that is not the one on the store.
    pub(crate) fn check(
        &self,
        service: &ServiceName,
        on_store: Option<NonZeroU32>,
    ) -> Result<(), ShardCountError> {
        match (self.of(service), on_store) {
            (Some(given), Some(known)) if given != known => {
                Err(ShardCountError::Fixed { service: service.clone(), known, given })
            }
            _ => Ok(()),
        }
    }
}

/// Why the agent's flags can't be used for a service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ShardCountError {
    /// Give the number: the service has no spec yet.
    #[error(
        "the store does not say yet how many shards {} has, and shard {} alone does not tell",
        shard.service, shard.shard
    )]
    Unknown {
        shard: ShardRef,
        /// A command that gives it.
        command: String,
    },
    /// Leave the number out.
    #[error("{service} has {} on the store, and --shards says {given}", counted(*known))]
    Fixed { service: ServiceName, known: NonZeroU32, given: NonZeroU32 },
    /// Leave the type out, or name another service.
    #[error("{service} is of type {is} on the store, not of type {wanted}")]
    TypeFixed { service: ServiceName, is: ServiceType, wanted: ServiceType },
}

impl ShardCountError {
    pub(crate) fn type_fixed(service: &ServiceName, is: ServiceType, wanted: ServiceType) -> Self {
        Self::TypeFixed { service: service.clone(), is, wanted }
    }
}

impl Failure for ShardCountError {
    fn explain(&self) -> Explanation {
        match self {
            Self::Unknown { command, .. } => Explanation::new(ErrorKind::Invalid, "no-shards").hint(format!(
                "say how many there are, for example `{command}`; that never changes afterwards"
            )),
            Self::Fixed { known, .. } => Explanation::new(ErrorKind::Conflict, "shards-fixed").hint(format!(
                "the number never changes, because it determines which shard a key belongs to: start this agent with \
                 --shards {known} or without it, or with another --cluster or --store"
            )),
            Self::TypeFixed { wanted, .. } => Explanation::new(ErrorKind::Conflict, "type-fixed").hint(format!(
                "the type never changes: leave {wanted} out, or give the service another name"
            )),
        }
    }
}

fn counted(shards: NonZeroU32) -> String {
    match shards.get() {
        1 => "1 shard".to_owned(),
        number => format!("{number} shards"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(role: &str, shards: Option<u32>) -> GivenShards {
        GivenShards {
            role: role.parse().unwrap(),
            service_type: None,
            number: shards.and_then(NonZeroU32::new),
            command: Some(format!("agent --service {role}")),
        }
    }

    #[test]
    fn the_first_spec_has_as_many_shards_as_were_given_or_one() {
        let storage: ServiceName = "storage".parse().unwrap();
        let first = |given: GivenShards, shard: u32| {
            let shard = ShardId::try_from(shard).unwrap();
            let storage_type = "storage".parse().unwrap();
            given
                .first((&storage, &storage_type, shard), "http://a")
                .map_err(|error| error.explain().hint.unwrap_or_default())
        };
        assert_eq!(first(given("storage/0", None), 0), Ok(1));
        assert_eq!(first(given("storage/0", Some(3)), 0), Ok(3));
        assert_eq!(first(given("storage/2", Some(3)), 2), Ok(3));
        assert_eq!(first(given("standby", None), 0), Ok(1));
        let hint = first(given("storage/2", None), 2).unwrap_err();
        assert!(hint.contains("`agent --service storage/2 --shards 3`"), "{hint}");
        let hint = first(given("standby", None), 1).unwrap_err();
        assert!(hint.contains("\"shards\": 2}' http://a/v1/spec/storage`"), "{hint}");
    }

    #[test]
    fn another_type_than_the_one_on_the_store_is_refused() {
        let (sessions, storage) = ("sessions".parse().unwrap(), "storage".parse().unwrap());
        for (given_type, is_right) in [(None, true), (Some("storage"), true), (Some("searcher"), false)] {
            let service_type = given_type.map(|text| text.parse().unwrap());
            let given = GivenShards { service_type, ..given("sessions/0", None) };
            assert_eq!(given.check_type(&sessions, &storage).is_ok(), is_right, "{given_type:?}");
            assert_eq!(given.check_type(&"other".parse().unwrap(), &storage), Ok(()));
        }
        let hint = given("standby", None)
            .first((&sessions, &storage, "1".parse().unwrap()), "http://a")
            .unwrap_err()
            .explain()
            .hint
            .unwrap();
        assert!(hint.contains(r#"'{"type": "storage", "settings": {}, "shards": 2}'"#), "{hint}");
    }

    #[test]
    fn another_number_than_the_one_on_the_store_is_refused() {
        let storage: ServiceName = "storage".parse().unwrap();
        for (shards, on_store, is_right) in [
            (None, Some(2), true),
            (Some(2), Some(2), true),
            (Some(3), Some(2), false),
            (Some(3), None, true),
        ] {
            let checked = given("storage/0", shards).check(&storage, on_store.and_then(NonZeroU32::new));
            assert_eq!(checked.is_ok(), is_right, "{shards:?} {on_store:?}");
        }
        let other = "other".parse().unwrap();
        assert_eq!(given("storage/0", Some(3)).check(&other, NonZeroU32::new(2)), Ok(()));
        let error = given("storage/0", Some(3)).check(&storage, NonZeroU32::new(1)).unwrap_err();
        assert_eq!(error.to_string(), "storage has 1 shard on the store, and --shards says 3");
    }
}
