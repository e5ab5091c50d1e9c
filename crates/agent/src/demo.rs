//! `agent --demo`: five nodes in this one process.

use std::fmt::Write;
use std::path::Path;

use anyhow::Context;
use plugin::Registry;
use runtime::{Config, Leaver, Node, NodeError, Signals, StoreUrl};
use store::Store;
use tokio::task::JoinSet;
use types::{Profile, Role, ServiceName, Spec};

use crate::banner::settled;
use crate::settings::Settings;

/// The five nodes and their roles, as in `manifests/demo.yaml`.
const ROLES: [(&str, &str); 5] = [
    ("gateway", "api_gateway"),
    ("storage-1", "storage/0"),
    ("storage-2", "storage/1"),
    ("standby-1", "standby"),
    ("standby-2", "standby"),
];
/// How many shards the storage service has.
const SHARDS: u32 = 2;

/// Runs five nodes until a signal; their data is deleted at the end.
pub(crate) async fn run(settings: &Settings, registry: &Registry) -> anyhow::Result<()> {
    let mut signals = Signals::listen().context("signals can't be listened for")?;
    let folder = tempfile::tempdir().context("no temporary folder can be made")?;
    tokio::select! {
        biased;
        _ = signals.next() => Ok(()),
        nodes = start(settings, registry, folder.path()) => {
            let nodes = nodes?;
            let leavers: Vec<_> = nodes.iter().map(Node::leaver).collect();
            let shown = tokio::select! {
                biased;
                _ = signals.next() => String::new(),
                banner = banner(&nodes, folder.path()) => banner,
            };
            // Standard output may be closed or full; that must not end the demo.
            let _ = crate::output::print(&format!("{shown}\n"));
            wait(nodes, leavers, signals).await
        }
    }
}

async fn start(settings: &Settings, registry: &Registry, folder: &Path) -> anyhow::Result<Vec<Node>> {
    let base = settings.config()?;
    for (_, role) in ROLES {
        let role = role.parse::<Role>().context("the demo's own roles are roles")?;
        let Some(service) = role.service() else { continue };
        let service_type =
            service.default_type().context("the demo's own services are named after their types")?;
        registry.check(role, &service_type).context("--demo shows a gateway and storage")?;
    }
    let url = StoreUrl::folder(&folder.join("store"))?;
    let storage: ServiceName = "storage".parse().context("the demo's own names follow the rule")?;
    let spec = Spec {
        settings: base.settings.get(&storage).cloned().unwrap_or_default(),
        shards: Some(SHARDS),
        ..Spec::default()
    };
    Store::open(&url, &base.cluster).await?.specs().put(&storage, 0, &spec).await?;
    let mut nodes: Vec<Node> = Vec::new();
    for (name, role) in ROLES {
        let config = Config {
            cluster: base.cluster.clone(),
            node_id: Some(name.parse().context("the demo's own names follow the rule")?),
            listen: ([127, 0, 0, 1], 0).into(),
            seeds: nodes.iter().take(3).map(|node| node.gossip().to_owned()).collect(),
            role: role.parse::<Role>().context("the demo's own roles are roles")?,
            profile: Profile::Local,
            store: Some(url.clone()),
            settings: base.settings.clone(),
            ..Config::new(folder.join(name))
        };
        nodes.push(Node::start(config, registry.clone()).await?);
    }
    Ok(nodes)
}

async fn banner(nodes: &[Node], folder: &Path) -> String {
    let mut out = format!("coterie {} demo: five nodes in this process\n\n", env!("CARGO_PKG_VERSION"));
    let mut gateway = None;
    for node in nodes {
        let state = settled(node).await;
        let role = state.as_ref().map_or_else(String::new, |state| format!("{} {}", state.role, state.phase));
        let endpoints: Vec<_> = state.iter().flat_map(|state| &state.endpoints).collect();
        let shown: String =
            endpoints.iter().fold(String::new(), |all, (name, url)| format!("{all}  {name} {url}"));
        // Writing to a string can't fail.
        let _ = writeln!(
            out,
            "  {:<10} {role:<18} api {}  gossip {}{shown}",
            node.id(),
            node.url(),
            node.gossip()
        );
        gateway = gateway.or_else(|| endpoints.first().map(|(_, url)| (*url).clone()));
    }
    let first = nodes.first().map_or("", |node| node.url());
    let _ = writeln!(out, "\nTry:\n  curl {first}/v1/members");
    if let Some(gateway) = gateway {
        let _ = writeln!(out, "  curl -X PUT --data hello {gateway}/storage/kv/greeting");
        let _ = writeln!(out, "  curl {gateway}/storage/kv/greeting");
    }
    let _ = writeln!(
        out,
        "  curl -X PUT {first}/v1/members/standby-1/service -d '{{\"service\": \"api_gateway\"}}'\n  \
         curl -N -H 'Accept: text/event-stream' {first}/v1/events\n\n\
         Insecure: no authentication, no encryption; loopback only.\n\
         Data is in {} and is deleted at the end. ^C ends the demo.",
        folder.display()
    );
    out
}

/// Waits until a signal, or until one of the nodes fails; then all nodes leave.
async fn wait(nodes: Vec<Node>, leavers: Vec<Leaver>, mut signals: Signals) -> anyhow::Result<()> {
    let mut running: JoinSet<_> = nodes.into_iter().map(Node::wait).collect();
    let leave = || leavers.iter().for_each(Leaver::leave);
    let mut is_leaving = leavers.iter().any(Leaver::is_leaving);
    let mut first_failure = None;
    loop {
        tokio::select! {
            biased;
            ended = running.join_next() => match ended {
                None => break,
                Some(ended) => {
                    if let Err(error) = ended.context("a node panicked")? {
                        first_failure.get_or_insert(error);
                        leave();
                    }
                }
            },
            _ = signals.next() => {
                if is_leaving {
                    return Err(NodeError::Aborted.into());
                }
                is_leaving = true;
                leave();
            }
        }
    }
    first_failure.map_or(Ok(()), |error: NodeError| Err(error.into()))
}
