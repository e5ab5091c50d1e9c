//! The bodies of the HTTP API under `/v1`.
//!
//! Readers ignore unknown fields, so that nodes of different versions understand each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{ClusterId, Epoch, Generation, NodeId, ServiceName, ServiceType, ShardId, StoreId};
use crate::role::{Phase, Role, RoleBody, RoleState};
use crate::shard_ref::ShardRef;
use crate::spec::{Holder, Spec};

/// Header of a refusal that was sent before any of the request was processed: sending it again is safe.
pub const NOT_PROCESSED: &str = "coterie-not-processed";
/// Header of a stored value: when it expires, in milliseconds since 1970.
pub const EXPIRES_MS: &str = "coterie-expires-ms";
/// Header of an answer that may be stale: how far behind it may be, in milliseconds, rounded up.
pub const STALENESS_MS: &str = "coterie-staleness-ms";
/// Header of a 421: the node that owns the shard, as far as the node that answers knows.
pub const OWNER: &str = "coterie-owner";
/// Header of a 421: the epoch of that owner.
pub const EPOCH: &str = "coterie-epoch";
/// Header of a request between nodes: the milliseconds that are left until its deadline.
pub const DEADLINE_MS: &str = "coterie-deadline-ms";
/// Header that names the node that answered.
pub const NODE: &str = "coterie-node";
/// Header that counts how often a request was forwarded between nodes.
pub const HOPS: &str = "coterie-hops";
/// Header with the id of a request, a UUID v7 unless the caller gave one.
pub const REQUEST_ID: &str = "x-request-id";

/// `GET /v1/agent/self`: the node that answers, in its own view.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AgentSelf {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Itself, as in its own view.
    pub member: Member,
    /// The gossip profile: `local`, `lan` or `wan`.
    pub profile: String,
    /// Process id.
    pub pid: u32,
    /// Unix milliseconds at start.
    pub started_at_ms: u64,
    /// Its data folder, whose files must survive a restart.
    pub data_dir: String,
    /// Requests to the service that are being answered now.
    pub in_flight: u64,
    /// The running command, if any: `change to storage/0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_with: Option<String>,
    /// Defaults that would not be safe on a network, in words.
    #[serde(default)]
    pub insecure: Vec<String>,
    /// How often the service was restarted after a failure.
    #[serde(default)]
    pub restarts: u64,
    /// How many milliseconds it may be behind the owner of its shard, if it is a replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staleness_ms: Option<u64>,
    /// Unix microseconds on its clock as it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now_us: Option<i64>,
    /// Its estimate of how many milliseconds its clock is ahead of those of most other members; absent until one of them
    /// has answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_ahead_ms: Option<i64>,
}

/// The difference between a member's clock and those of most others that is worth a warning, in milliseconds.
pub const CLOCK_WARNING_MS: u64 = 1_000;

/// A node as seen through gossip.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Member {
    /// Its name.
    pub id: NodeId,
    /// The number of its incarnation.
    pub generation: Generation,
    /// The version of its gossiped state in this incarnation; rises with each change.
    pub version: u64,
    /// Its HTTP API, as a URL without a slash at the end.
    pub http: String,
    /// Its gossip address.
    pub gossip: String,
    /// Its role and phase; `null` when its version of Coterie writes them in a form that this one does not
    /// understand.
    pub state: Option<RoleState>,
    /// The version of Coterie, the zone, the labels, the service types it can run.
    pub about: About,
    /// The object store that it uses; absent until it has opened it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreInfo>,
}

/// The object store of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StoreInfo {
    /// Its identity; nodes of one cluster must have the same.
    pub id: StoreId,
    /// Where it is: `file:///var/lib/coterie`, `s3://bucket/prefix`.
    pub url: String,
}

/// What a node publishes about itself once, at its start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct About {
    /// Version of Coterie.
    #[serde(default)]
    pub version: String,
    /// Its location: a rack, a room, a region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Labels given to it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The service types it can run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runnable: Vec<ServiceType>,
    /// Whether it supports services with another name than their type. Older versions run none of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub named_services: bool,
    /// The only services that it takes over automatically; all that it can run if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<Vec<ServiceName>>,
    /// How often its process was restarted after it had ended without leaving.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restarts: u64,
    /// Why its process ended the last time, if it was restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_end: Option<String>,
}

impl About {
    /// Whether a node can run a service of this type.
    pub fn can_run(&self, service: &ServiceName, service_type: &ServiceType) -> bool {
        self.runnable.contains(service_type) && (self.named_services || service.is_named_after(service_type))
    }

    /// Whether a standby takes it over without an operator's command.
    pub fn takes_over(&self, service: &ServiceName, service_type: &ServiceType) -> bool {
        self.can_run(service, service_type) && self.runs.as_ref().is_none_or(|runs| runs.contains(service))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// `GET /v1/members`: every member in one node's view.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Members {
    /// The cluster.
    pub cluster: ClusterId,
    /// Whose view it is.
    pub viewed_by: NodeId,
    /// Ordered by id.
    pub members: Vec<Member>,
}

/// `GET /v1/members/{id}`: one member in one node's view.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MemberView {
    /// Whose view it is.
    pub viewed_by: NodeId,
    /// The member.
    pub member: Member,
}

/// The answer to a command that changed a node: what was done, how long each step took, and which members show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Receipt {
    /// The node that changed.
    pub node: NodeId,
    /// The number of its incarnation.
    pub generation: Generation,
    /// The version of its gossiped state that shows the change.
    pub version: u64,
    /// What it did before.
    #[schema(value_type = RoleBody)]
    pub from: Role,
    /// What it does now.
    #[schema(value_type = RoleBody)]
    pub to: Role,
    /// Its state now.
    pub state: RoleState,
    /// Whether anything was done; `false` if the node already had the requested role.
    pub changed: bool,
    /// The steps in their order.
    pub steps: Vec<Step>,
    /// The length of the whole change, in milliseconds.
    pub took_ms: f64,
    /// Requests that were in flight when the gate was shut.
    pub in_flight: u64,
    /// Which live members show the change in their view.
    pub seen: Seen,
}

/// One step of a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Step {
    /// `prepare`, `announce`, `drain`, `stop`, `start`, `mount`, `receipt`.
    pub name: String,
    /// Its length in milliseconds.
    pub ms: f64,
}

/// Which members show a change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Seen {
    /// Members that show it, the node itself included.
    pub by: u32,
    /// Live members whose views were checked, the node itself included.
    pub of: u32,
    /// Those that do not show it yet, with the reason.
    #[serde(default)]
    pub missing: Vec<Missing>,
}

/// A member that did not confirm a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Missing {
    /// The member.
    pub id: NodeId,
    /// `did not answer`, `has not seen it yet`.
    pub why: String,
}

/// `GET /v1/services`: each service, with its members and their URLs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Services {
    /// Whose view it is.
    pub viewed_by: NodeId,
    /// By the service's name, `standby` included; every type that some member can run is listed, and every service that has
    /// a spec.
    pub services: BTreeMap<String, ServiceView>,
}

/// A service in one node's view.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ServiceView {
    /// Its type; absent for `standby`, and while it is unknown.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub service_type: Option<ServiceType>,
    /// The number of its spec; absent if it has none or the node has not read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<u64>,
    /// How many members it should have, owners and replicas; absent if its spec does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<u32>,
    /// How many members are ready.
    pub ready: u32,
    /// Its members, in any phase.
    pub members: Vec<ServiceMember>,
}

/// A member of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ServiceMember {
    /// The member.
    pub id: NodeId,
    /// Its state.
    pub state: RoleState,
    /// The URL of the service on it: `http://127.0.0.1:10000/svc/api_gateway`.
    pub url: String,
}

/// `GET /v1/spec`: the spec of each service, read from the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Specs {
    /// The store.
    pub store: StoreInfo,
    /// By the service's name.
    pub specs: BTreeMap<ServiceName, NumberedSpec>,
}

/// A spec with its number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NumberedSpec {
    /// Rises by one with each change; `If-Match` of a change.
    pub number: u64,
    /// The spec.
    pub spec: Spec,
}

/// `DELETE /v1/spec/{service}`: what was removed of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Removed {
    /// The service.
    pub service: ServiceName,
    /// How many objects of its data were deleted.
    pub objects: u64,
}

/// `GET /v1/claims`: who owns which shard, read from the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Claims {
    /// The store.
    pub store: StoreInfo,
    /// Ordered by service and shard; shards that were never claimed are listed as well.
    pub claims: Vec<ClaimView>,
}

/// `POST /v1/members/{id}:release`: a node that must take a shard requests it from its owner. `:offer`: an owner that
/// releases its shard offers it to a member that could run it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Release {
    /// The service.
    pub service: ServiceName,
    /// The shard.
    #[schema(value_type = u32)]
    pub shard: ShardId,
    /// The epoch under which it is owned.
    pub epoch: Epoch,
    /// The node that takes it.
    pub to: NodeId,
    /// Whether to only check that the owner would do it, so that a refusal comes before anything is disturbed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

impl Release {
    /// The shard with its service.
    pub fn shard_ref(&self) -> ShardRef {
        ShardRef::new(self.service.clone(), self.shard)
    }
}

/// One shard and its owner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ClaimView {
    /// The service.
    pub service: ServiceName,
    /// The shard.
    #[schema(value_type = u32)]
    pub shard: ShardId,
    /// The number of the latest entry of the claim's log; 0 if there is none.
    pub number: u64,
    /// Its owner; absent if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
    /// When it took it, in Unix milliseconds of its own clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// The URL of its API when it took it; unknown if an older version did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// Whether the owner answers at that URL and is not a member in the view of the node that answers: another cluster uses
    /// the store, or gossip is blocked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub elsewhere: bool,
    /// Whether the owner is a live member and gossips this epoch, in the view of the node that answers.
    pub honoured: bool,
    /// Whether the latest entry is the owner's defence against a challenge.
    #[serde(default)]
    pub defended: bool,
    /// How many replicas it should have.
    #[serde(default)]
    pub wanted_replicas: u32,
    /// The replicas that it has, in the view of the node that answers.
    #[serde(default)]
    pub replicas: Vec<ReplicaView>,
    /// The latest entry in words: `taken by storage-1`, `released by storage-1: leaving`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A replica of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReplicaView {
    /// The node.
    pub node: NodeId,
    /// Its phase.
    pub phase: Phase,
    /// How many milliseconds it reports that it may be behind; absent when it does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staleness_ms: Option<u64>,
}

/// Something that happened, in one node's view: `GET /v1/events` streams them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Event {
    /// `{generation}.{number}` of the node whose view it is; rises by one.
    pub id: String,
    /// Unix milliseconds on that node's clock.
    pub at_ms: u64,
    /// What happened.
    pub kind: EventKind,
    /// The member it happened to.
    pub node: NodeId,
    /// The number of its incarnation.
    pub generation: Generation,
    /// In words.
    pub message: String,
    /// The member after it, absent when it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<Member>,
}

/// Kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The member existed when the stream began.
    Present,
    /// The member joined.
    Joined,
    /// The member's role, phase, addresses, duty, or the reason for its phase changed. A mere counter in a reason does not
    /// count as a change.
    Changed,
    /// The member returned in a new incarnation before the old one was declared dead.
    Restarted,
    /// The member announced that it leaves.
    Left,
    /// The failure detector declared the member dead.
    Lost,
    /// Events between the last one and this one are no longer kept.
    Gap,
}

impl EventKind {
    /// The kind in a word, as in the `event:` field of the stream.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Joined => "joined",
            Self::Changed => "changed",
            Self::Restarted => "restarted",
            Self::Left => "left",
            Self::Lost => "lost",
            Self::Gap => "gap",
        }
    }
}

/// How long a change is waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// Until the node itself is done.
    Local,
    /// Until every live member shows it, or a second has passed.
    #[default]
    All,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_takes_over_a_service_that_it_can_and_may_run() {
        let name = |text: &str| text.parse::<ServiceName>().unwrap();
        let storage: ServiceType = "storage".parse().unwrap();
        let before = About { runnable: vec![storage.clone()], ..About::default() };
        let now = About { named_services: true, ..before.clone() };
        let limited = About { runs: Some(vec![name("sessions")]), ..now.clone() };
        let idle = About { runs: Some(Vec::new()), ..now.clone() };
        for (about, service, can_run, takes_over) in [
            (&before, "storage", true, true),
            (&before, "sessions", false, false),
            (&now, "storage", true, true),
            (&now, "sessions", true, true),
            (&limited, "sessions", true, true),
            (&limited, "storage", true, false),
            (&idle, "sessions", true, false),
        ] {
            let service = name(service);
            assert_eq!(about.can_run(&service, &storage), can_run, "{service} {about:?}");
            assert_eq!(about.takes_over(&service, &storage), takes_over, "{service} {about:?}");
        }
        assert!(!now.can_run(&name("sessions"), &"searcher".parse().unwrap()));
        let old = serde_json::from_str::<About>(r#"{"version": "0.1.0", "runnable": ["storage"]}"#).unwrap();
        assert_eq!(old, About { version: "0.1.0".to_owned(), ..before });
    }
}
