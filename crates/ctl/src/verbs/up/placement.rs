//! Checks that all nodes can run on this machine with the roles that they will have, including kept ones.

use std::collections::BTreeMap;

use manifest::{Plan, Running};
use types::{NodeId, Role};

use crate::exit::{Exit, Failure};
use crate::kept;
use crate::listens::{Binding, Collision, collisions};
use crate::manifest_file::Loaded;
use crate::state::State;

/// Fails if a kept role would bind an address that another node binds. The manifest's own roles were checked with the
/// manifest.
pub(super) fn check(
    loaded: &Loaded,
    running: &BTreeMap<NodeId, Running>,
    plan: &Plan,
    state: &State,
) -> Result<(), Failure> {
    let manifest = &loaded.checked.manifest;
    let kept = kept::roles(state, &manifest.cluster, plan.start.iter().map(|node| &node.id));
    let idle = Role::Standby;
    let of_running = running.iter().map(|(node, Running { role })| Binding { node, role, api: None });
    let of_starting = plan.start.iter().map(|node| {
        let role = match kept.get(&node.id) {
            Some(kept) if kept.drained => &idle,
            Some(kept) => &kept.role,
            None => &node.role,
        };
        Binding { node: &node.id, role, api: node.listen }
    });
    // Nodes with a kept role come last, so that the error blames them.
    let (with_kept, others): (Vec<_>, Vec<_>) =
        of_starting.partition(|binding| kept.contains_key(binding.node));
    let found = collisions(of_running.chain(others).chain(with_kept), &loaded.listens);
    if found.is_empty() {
        return Ok(());
    }
    let words = found.iter().map(|Collision { first, second, address }| {
        let role = kept.get(second).map(|kept| &kept.role);
        match role {
            Some(role) => format!(
                "{second} keeps the role {role} that an operator gave it and would listen on {address}, as {first} does"
            ),
            None => format!("{second} would listen on {address}, as {first} does now"),
        }
    });
    let words: Vec<_> = words.collect();
    Err(Failure::new(Exit::Conflict, format!("{}; nothing was started", words.join("; ")))
        .hint("`ctl up --reset` gives every node the role of the manifest"))
}
