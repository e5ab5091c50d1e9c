//! The banner of a started agent: every address, and every default that is not safe on a network.

use std::fmt::Write;
use std::time::Duration;

use runtime::Node;
use types::api::Member;
use types::{Phase, RoleState};

/// How long the banner waits for the role, so that it can show the role's addresses.
const ROLE_LIMIT: Duration = Duration::from_secs(3);

/// Waits until the role has started, at most [`ROLE_LIMIT`], and shows the banner.
pub(crate) async fn show(node: &Node) {
    let state = settled(node).await;
    // Standard output may be closed; that must not end the agent.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), render(node, state.as_ref()).as_bytes());
}

/// The state of the node's role once it is no longer starting.
pub(crate) async fn settled(node: &Node) -> Option<RoleState> {
    let mut view = node.view();
    let own = |member: Option<&Member>| member.and_then(|member| member.state.clone());
    let settled =
        view.wait_for(|view| own(view.member(node.id())).is_some_and(|state| state.phase != Phase::Starting));
    // If this takes too long, the banner shows the present state.
    let _ = tokio::time::timeout(ROLE_LIMIT, settled).await;
    let view = node.view().borrow().clone();
    own(view.member(node.id()))
}

fn render(node: &Node, state: Option<&RoleState>) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a string can't fail.
        let _ = writeln!(out, "  {name:<9} {value}");
    };
    line("api", node.url());
    line("gossip", &format!("{} (UDP)", node.gossip()));
    match state {
        Some(state) => {
            let reason = state.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            line("role", &format!("{}, {}{reason}", state.role, state.phase));
            for (name, url) in &state.endpoints {
                line(name, url);
            }
        }
        None => line("role", "starting"),
    }
    if let Some(role) = node.kept_role() {
        line("", &format!("({role} was set by an earlier command; --reset-role returns to the flags)"));
    }
    line("data", node.data_dir());
    line("store", &node.store());
    for insecure in node.insecure() {
        line("insecure", insecure);
    }
    line("try", &format!("curl {}/v1/members", node.url()));
    format!("coterie {} node {}\n{out}", env!("CARGO_PKG_VERSION"), node.id())
}
