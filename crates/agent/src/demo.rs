//! `agent --demo`: five nodes in this one process.

use std::fmt::Write;

use anyhow::Context;
use runtime::{Config, Node, NodeError};
use types::{Profile, Role};

use crate::banner::settled;
use crate::registry::registry;
use crate::settings::Settings;

/// The roles of the five, as in `manifests/demo.yaml`.
const ROLES: [(&str, &str); 5] = [
    ("gateway-1", "api_gateway"),
    ("gateway-2", "api_gateway"),
    ("standby-1", "standby"),
    ("standby-2", "standby"),
    ("standby-3", "standby"),
];

/// Runs five nodes until a signal; what they keep goes with them.
pub(crate) async fn run(settings: &Settings) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("no temporary folder can be made")?;
    let base = settings.config()?;
    let mut nodes: Vec<Node> = Vec::new();
    for (name, role) in ROLES {
        let config = Config {
            cluster: base.cluster.clone(),
            node_id: Some(name.parse().context("the demo's own names follow the rule")?),
            listen: ([127, 0, 0, 1], 0).into(),
            seeds: nodes
                .iter()
                .take(3)
                .map(|node| node.gossip().to_owned())
                .collect(),
            role: role.parse::<Role>().context("the demo's own roles are roles")?,
            profile: Profile::Local,
            settings: base.settings.clone(),
            ..Config::new(folder.path().join(name))
        };
        nodes.push(Node::start(config, registry()).await?);
    }
    println!("{}", banner(&nodes).await);
    let ended = wait(nodes).await;
    drop(folder);
    ended
}

async fn banner(nodes: &[Node]) -> String {
    let mut out = format!(
        "coterie {} demo: five nodes in this process\n\n",
        env!("CARGO_PKG_VERSION")
    );
    let mut gateway = None;
    for node in nodes {
        let state = settled(node).await;
        let role = state
            .as_ref()
            .map_or_else(String::new, |state| format!("{} {}", state.role, state.phase));
        let endpoints: Vec<_> = state.iter().flat_map(|state| &state.endpoints).collect();
        let shown: String = endpoints
            .iter()
            .fold(String::new(), |all, (name, url)| format!("{all}  {name} {url}"));
        // Writing to a string can't fail.
        let _ = writeln!(out, "  {:<10} {role:<18} api {}{shown}", node.id(), node.url());
        gateway = gateway.or_else(|| endpoints.first().map(|(_, url)| (*url).clone()));
    }
    let first = nodes.first().map_or("", |node| node.url());
    let _ = writeln!(out, "\nTry:\n  curl {first}/v1/members");
    if let Some(gateway) = gateway {
        let _ = writeln!(out, "  curl {gateway}/");
    }
    let _ = writeln!(
        out,
        "  curl -X PUT {first}/v1/members/standby-1/service -d '{{\"service\": \"api_gateway\"}}'\n  \
         curl -N -H 'Accept: text/event-stream' {first}/v1/events\n\n\
         Insecure: no authentication, no encryption; loopback only. Data is in a temporary folder. ^C ends it all."
    );
    out
}

/// Until a signal, or until one of them fails; then all leave.
async fn wait(nodes: Vec<Node>) -> anyhow::Result<()> {
    let mut running = tokio::task::JoinSet::new();
    for node in nodes {
        running.spawn(node.run_until_signal());
    }
    let mut first_failure = None;
    while let Some(ended) = running.join_next().await {
        let ended = ended.context("a node panicked")?;
        if let Err(error) = ended {
            first_failure.get_or_insert(error);
        }
    }
    first_failure.map_or(Ok(()), |error: NodeError| Err(error.into()))
}
