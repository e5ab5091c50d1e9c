//! How long the steps of a role change may take, and how long callers wait for them.
//!
//! Each limit is derived from those before it, so that each waits longer than the step that it waits for: the node for its
//! service, the node that forwards a command for the node that runs it, and `ctl` for both.

use std::time::Duration;

/// How long to wait for the consent of an owner that is busy with another command.
pub const CONSENT: Duration = Duration::from_secs(3);
/// How long a draining node waits until every live member shows that it drains.
pub const ANNOUNCE: Duration = Duration::from_millis(300);
/// How long requests in flight may take to end once new ones are refused.
pub const DRAIN: Duration = Duration::from_secs(10);
/// The same for a replica whose node takes the shard of a dead owner: until then the shard has none.
pub const REPLICA_DRAIN: Duration = Duration::from_millis(500);
/// How long a service may take to stop, and then its tasks to end.
pub const STOP: Duration = Duration::from_secs(10);
/// How long the store may take to record that a shard was released.
pub const RELEASE: Duration = Duration::from_secs(3);
/// How long a service may take to start.
pub const START: Duration = Duration::from_secs(60);
/// How long a running service may take to apply new settings.
pub const UPDATE: Duration = Duration::from_secs(15);
/// How long members may take to see a change before the receipt lists them as missing.
pub const RECEIPT: Duration = Duration::from_secs(1);

/// How long a role may take to end: its service and its tasks stop one after the other.
pub const END_ROLE: Duration = ANNOUNCE.saturating_add(DRAIN).saturating_add(STOP).saturating_add(STOP);
/// How long an owner may take to hand its shard over.
pub const HAND_OVER: Duration = END_ROLE.saturating_add(RELEASE).saturating_add(SLACK);
/// How long a role change may take on its node: it gets the owner's consent, ends the old role, takes the shard, starts the
/// new role or else the old one again, and confirms.
pub const CHANGE: Duration = CONSENT
    .saturating_add(END_ROLE)
    .saturating_add(RELEASE)
    .saturating_add(HAND_OVER)
    .saturating_add(START)
    .saturating_add(START)
    .saturating_add(RECEIPT)
    .saturating_add(SLACK);
/// How long a node waits for the node to which it forwarded a command.
pub const PASS_ON: Duration = CHANGE.saturating_add(SLACK);
/// How long a control request may take at the agent that receives it.
pub const CONTROL_REQUEST: Duration = PASS_ON.saturating_add(SLACK);
/// How long `ctl` waits for a command.
pub const COMMAND: Duration = CONTROL_REQUEST.saturating_add(SLACK);

/// Extra time for a connection, the gossip between two steps and a busy machine.
const SLACK: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_waits_longer_than_the_step_that_it_waits_for() {
        for (what, waited, steps) in [
            ("a hand-over", HAND_OVER, vec![ANNOUNCE, DRAIN, STOP, STOP, RELEASE]),
            ("a change", CHANGE, vec![CONSENT, END_ROLE, RELEASE, HAND_OVER, START, START, RECEIPT]),
            ("the node that forwards a command", PASS_ON, vec![CHANGE]),
            ("the agent that receives it", CONTROL_REQUEST, vec![PASS_ON]),
            ("ctl", COMMAND, vec![CONTROL_REQUEST]),
        ] {
            let steps = steps.into_iter().sum::<Duration>();
            assert!(waited > steps, "{what} waits {waited:?} for steps of {steps:?}");
        }
    }
}
