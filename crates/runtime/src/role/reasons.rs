//! The codes of the reasons that the runtime itself gives for a role's phase. A role that could not be started has the code
//! of the error instead.

use types::ReasonCode;

/// The owner of a shard on the same store is alive and no member here.
pub(crate) const ANOTHER_CLUSTER: ReasonCode = ReasonCode::new("another-cluster");
/// Members use another store.
pub(crate) const ANOTHER_STORE: ReasonCode = ReasonCode::new("another-store");
/// The last command failed, and the node is what it was before.
pub(crate) const CHANGE_FAILED: ReasonCode = ReasonCode::new("change-failed");
/// The node owns a shard on the store that it does not run.
pub(crate) const CLAIM_LEFT_OVER: ReasonCode = ReasonCode::new("claim-left-over");
/// The node's process ended several times in a row soon after it had begun to run its shard.
pub(crate) const CRASH_LOOP: ReasonCode = ReasonCode::new("crash-loop");
/// A person ended the role.
pub(crate) const DRAINED: ReasonCode = ReasonCode::new("drained");
/// The shard is being moved to another node.
pub(crate) const HANDING_OVER: ReasonCode = ReasonCode::new("handing-over");
/// The service panicked when it was asked for its health.
pub(crate) const HEALTH_CHECK_PANICKED: ReasonCode = ReasonCode::new("health-check-panicked");
/// The node saw no other member, and one that sees others wanted its shard.
pub(crate) const ISOLATED: ReasonCode = ReasonCode::new("isolated");
/// The node is leaving the cluster.
pub(crate) const LEAVING: ReasonCode = ReasonCode::new("leaving");
/// The owner can't reach the store, so others may take its shard.
pub(crate) const OWNER_RESIGNED: ReasonCode = ReasonCode::new("owner-resigned");
/// The shard had too few replicas.
pub(crate) const REPLICA_ADDED: ReasonCode = ReasonCode::new("replica-added");
/// The node was to become a replica and could not.
pub(crate) const REPLICA_NOT_STARTED: ReasonCode = ReasonCode::new("replica-not-started");
/// The shard had too many replicas.
pub(crate) const REPLICA_SURPLUS: ReasonCode = ReasonCode::new("replica-surplus");
/// A later spec can't be applied; the node runs with the one before it.
pub(crate) const SETTINGS_NOT_APPLIED: ReasonCode = ReasonCode::new("settings-not-applied");
/// A later spec can only be applied by a restart of the role.
pub(crate) const SETTINGS_NEED_RESTART: ReasonCode = ReasonCode::new("settings-need-restart");
/// A task of the service ended with an error or panicked.
pub(crate) const TASK_FAILED: ReasonCode = ReasonCode::new("task-failed");
/// The node took a shard over and could not run it.
pub(crate) const TAKEOVER_FAILED: ReasonCode = ReasonCode::new("takeover-failed");
/// The node runs a shard that had no owner.
pub(crate) const TOOK_OVER: ReasonCode = ReasonCode::new("took-over");
