//! A node's role and its phase.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{Epoch, IdError, ServiceName, ServiceType, ShardId};
use crate::pending::PendingSpec;
use crate::reason::ReasonCode;
use crate::shard_ref::ShardRef;

/// What a node does. A node has exactly one role.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "RoleBody", try_from = "RoleBody")]
pub enum Role {
    /// Runs no service, and is a candidate for those that lack a member.
    #[default]
    Standby,
    /// Runs a service, with a shard where its type is sharded.
    Service {
        /// The service's name.
        service: ServiceName,
        /// The shard, for sharded types only.
        shard: Option<ShardId>,
    },
}

/// A role as JSON: `{"service": "storage", "shard": 0}`, `{"service": "standby"}`.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Role)]
pub struct RoleBody {
    /// The name of a service, or `standby`.
    service: String,
    /// The shard, for sharded types only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>)]
    shard: Option<ShardId>,
}

/// Why a text is not a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoleError {
    /// The name or the shard is malformed.
    #[error(transparent)]
    Id(#[from] IdError),
    /// Leave the shard out.
    #[error("standby has no shard")]
    StandbyWithShard,
}

impl Role {
    /// The name of the role without a service.
    pub const STANDBY: &str = crate::id::STANDBY;

    /// The role for a service name, which may be `standby`, and a shard.
    pub fn new(service: &str, shard: Option<ShardId>) -> Result<Self, RoleError> {
        if service == Self::STANDBY {
            return if shard.is_none() { Ok(Self::Standby) } else { Err(RoleError::StandbyWithShard) };
        }
        Ok(Self::Service { service: service.parse()?, shard })
    }

    /// The service's name, unless the node is a standby.
    pub fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Standby => None,
            Self::Service { service, .. } => Some(service),
        }
    }

    /// The shard, where there is one.
    pub fn shard(&self) -> Option<ShardId> {
        match self {
            Self::Standby => None,
            Self::Service { shard, .. } => *shard,
        }
    }

    /// The shard of the service, where there is one.
    pub fn shard_ref(&self) -> Option<ShardRef> {
        Some(ShardRef::new(self.service()?.clone(), self.shard()?))
    }

    /// Whether the role is to run this shard.
    pub fn is_of(&self, shard: &ShardRef) -> bool {
        self.service() == Some(&shard.service) && self.shard() == Some(shard.shard)
    }

    /// The service's name or `standby`.
    pub fn service_name(&self) -> &str {
        self.service().map_or(Self::STANDBY, ServiceName::as_str)
    }
}

/// `storage/0`, `api_gateway`, `standby`.
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.shard() {
            Some(shard) => f.pad(&format!("{}/{shard}", self.service_name())),
            None => f.pad(self.service_name()),
        }
    }
}

impl FromStr for Role {
    type Err = RoleError;
    fn from_str(text: &str) -> Result<Self, RoleError> {
        match text.split_once('/') {
            Some((service, shard)) => Self::new(service, Some(shard.parse()?)),
            None => Self::new(text, None),
        }
    }
}

impl From<Role> for RoleBody {
    fn from(role: Role) -> Self {
        Self { service: role.service_name().to_owned(), shard: role.shard() }
    }
}

impl TryFrom<RoleBody> for Role {
    type Error = RoleError;
    fn try_from(body: RoleBody) -> Result<Self, RoleError> {
        Self::new(&body.service, body.shard)
    }
}

/// The phase of a node's role.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The service is being started.
    Starting,
    /// The service answers.
    Ready,
    /// The service answers, but something is wrong; the reason names it.
    Degraded,
    /// Requests in flight are being finished, new ones are refused.
    Draining,
    /// Nothing runs, by an operator's command.
    Stopped,
    /// Nothing runs after a failure, which the reason names.
    Failed,
}

impl Phase {
    /// Whether requests may be sent to a member in this phase.
    pub fn is_serving(self) -> bool {
        matches!(self, Self::Ready | Self::Degraded)
    }

    /// The phase in a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A node's duty for its shard, where shards have owners.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Post {
    /// It owns the shard.
    Primary,
    /// It has a replica, which follows the owner's writes.
    Replica,
}

impl Post {
    /// The duty in a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }
}

impl fmt::Display for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A node's role as it gossips it: one JSON value, so that it changes atomically.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RoleState {
    /// The role.
    #[schema(value_type = RoleBody)]
    pub role: Role,
    /// The type of its service, where that is not the service's name.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub service_type: Option<ServiceType>,
    /// The phase of the role.
    pub phase: Phase,
    /// The reason for the phase, in words; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Names the reason for programs: `replica-behind`; the same for every occurrence.
    #[serde(default, deserialize_with = "crate::reason::lenient", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub reason_code: Option<ReasonCode>,
    /// Counts the operators' commands to this node in its present incarnation.
    #[serde(default)]
    pub revision: u64,
    /// Its duty for its shard; absent where shards have no owners, and before it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duty: Option<Post>,
    /// The epoch of the claim under which it owns its shard; absent when it owns none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// The epoch under which it owns its shard but no longer serves it, because it can't reach the store: other nodes may
    /// take the shard. Replaces `epoch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resigned: Option<Epoch>,
    /// How many shards its service has, for types whose shards have owners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards: Option<u32>,
    /// The number of the spec that it runs with; absent before the store has been read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<u64>,
    /// A later spec that it has read and does not run with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<PendingSpec>,
    /// Listeners that the service opened itself, by name: `{"gateway": "http://127.0.0.1:8080"}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub endpoints: BTreeMap<String, String>,
}

impl RoleState {
    /// A role that is about to start.
    pub fn starting(role: Role) -> Self {
        Self {
            role,
            service_type: None,
            phase: Phase::Starting,
            reason: None,
            reason_code: None,
            revision: 0,
            duty: None,
            epoch: None,
            resigned: None,
            shards: None,
            spec: None,
            pending: None,
            endpoints: BTreeMap::new(),
        }
    }

    /// Whether the node reports that it owns this shard.
    pub fn owns(&self, shard: &ShardRef) -> bool {
        self.role.is_of(shard) && self.epoch.is_some() && self.phase != Phase::Stopped
    }

    /// Whether the node has a replica of this shard, or opens one.
    pub fn is_replica_of(&self, shard: &ShardRef) -> bool {
        self.role.is_of(shard)
            && self.duty == Some(Post::Replica)
            && matches!(self.phase, Phase::Starting | Phase::Ready | Phase::Degraded)
    }

    /// The type of its service, unless the node is a standby.
    pub fn service_type(&self) -> Option<ServiceType> {
        self.service_type.clone().or_else(|| self.role.service()?.default_type())
    }

    /// The phase with its reason: `degraded (replica-behind): the replica may be 12 s behind`.
    pub fn phase_and_reason(&self) -> String {
        let code = self.reason_code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default();
        let reason = self.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        format!("{}{code}{reason}", self.phase)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_that_is_printed_parses_to_the_same_role() {
        for text in ["standby", "api_gateway", "storage/3"] {
            let role: Role = text.parse().unwrap();
            assert_eq!(role.to_string(), text);
            let json = serde_json::to_string(&role).unwrap();
            assert_eq!(serde_json::from_str::<Role>(&json).unwrap(), role);
        }
    }

    #[test]
    fn a_gossiped_role_has_its_type_only_where_that_is_not_the_services_name() {
        let mut state = RoleState::starting("storage/0".parse().unwrap());
        let text = serde_json::to_string(&state).unwrap();
        assert!(!text.contains("type"), "{text}");
        assert_eq!(state.service_type().unwrap().as_str(), "storage");
        state.role = "sessions/0".parse().unwrap();
        state.service_type = Some("storage".parse().unwrap());
        let text = serde_json::to_string(&state).unwrap();
        assert!(text.contains(r#""type":"storage""#), "{text}");
        assert_eq!(serde_json::from_str::<RoleState>(&text).unwrap(), state);
    }

    #[test]
    fn the_code_of_a_reason_is_optional_and_a_strange_one_harms_nothing() {
        let mut state = RoleState::starting("storage/0".parse().unwrap());
        state.phase = Phase::Degraded;
        state.reason = Some("slow".to_owned());
        let before = serde_json::to_string(&state).unwrap();
        assert!(!before.contains("reason_code"), "as agents wrote it before reasons had codes: {before}");
        assert_eq!(serde_json::from_str::<RoleState>(&before).unwrap(), state);
        assert_eq!(state.phase_and_reason(), "degraded: slow");
        for strange in ["7", "null", "\"Slow Disk\"", "{\"code\": \"slow\"}"] {
            let text = before.replacen('{', &format!("{{\"reason_code\":{strange},"), 1);
            assert_eq!(serde_json::from_str::<RoleState>(&text).unwrap(), state, "{strange}");
        }
        state.reason_code = Some(crate::reason::REPLICA_BEHIND);
        let text = serde_json::to_string(&state).unwrap();
        assert!(text.contains(r#""reason_code":"replica-behind""#), "{text}");
        assert_eq!(serde_json::from_str::<RoleState>(&text).unwrap(), state);
        assert_eq!(state.phase_and_reason(), "degraded (replica-behind): slow");
    }

    #[test]
    fn standby_has_no_shard() {
        assert_eq!("standby/0".parse::<Role>(), Err(RoleError::StandbyWithShard));
        assert!(serde_json::from_str::<Role>(r#"{"service":"standby","shard":1}"#).is_err());
    }
}
