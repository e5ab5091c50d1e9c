//! Makes running nodes match the manifest: their roles, their settings, and what they were started with.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use client::Client;
use manifest::{Manifest, Plan, Running};
use tokio::time::Instant;
use types::api::{AgentSelf, Wait};
use types::{NodeId, Phase, Problem, Role, ServiceName, limits};

use super::report::{DriftRow, Outdated, OutdatedSpec};
use super::running::{Now, differences};
use crate::launch;
use crate::manifest_file::Loaded;
use crate::out::Progress;
use crate::record::ClusterRecord;
use crate::start::Starter;
use crate::state::State;

/// How long to wait for a node that carries out another command before its role is restored.
const BUSY_LIMIT: Duration = Duration::from_secs(20);
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// The nodes that would be started differently now.
pub(super) fn outdated(
    state: &State,
    manifest: &Manifest,
    record: &ClusterRecord,
    running: &BTreeMap<NodeId, Running>,
) -> anyhow::Result<Vec<Outdated>> {
    let mut rows = Vec::new();
    for wanted in manifest.nodes.iter().filter(|wanted| running.contains_key(&wanted.id)) {
        let Some(node) = record.node(&wanted.id) else { continue };
        let differences = launch::drift(state, manifest, wanted, node)?;
        if !differences.is_empty() {
            let runs_with = differences.join(" and ");
            rows.push(Outdated { node: wanted.id.clone(), runs_with, restarted: false });
        }
    }
    Ok(rows)
}

/// The nodes that run with an older spec than the store has, or whose role has failed; with `is_reset` those with an older spec
/// get the latest one.
pub(super) async fn renew(
    specs: &BTreeMap<ServiceName, u64>,
    asked: &[AgentSelf],
    is_reset: bool,
) -> anyhow::Result<Vec<OutdatedSpec>> {
    let mut rows = Vec::new();
    for own in asked {
        let Some(state) = &own.member.state else { continue };
        let Some(service) = state.role.service() else { continue };
        let failed = (state.phase == Phase::Failed).then(|| state.reason.clone().unwrap_or_default());
        let Some(latest) = specs.get(service).copied() else { continue };
        let is_outdated = state.spec != Some(latest);
        if !is_outdated && failed.is_none() {
            continue;
        }
        let is_running = state.phase != Phase::Stopped;
        let is_renewed = is_reset && is_running && is_outdated;
        if is_renewed {
            let client = Client::new(&own.member.http)?.within(limits::COMMAND);
            client
                .set_service(&own.member.id, &state.role, Wait::All, false, None)
                .await
                .with_context(|| format!("giving {} its new settings", own.member.id))?;
        }
        rows.push(OutdatedSpec {
            node: own.member.id.clone(),
            service: service.clone(),
            runs_with: state.spec,
            latest,
            renewed: is_renewed,
            is_running,
            failed,
            pending: state.pending.clone(),
        });
    }
    Ok(rows)
}

/// Restarts a node and returns once every node sees it ready.
pub(super) async fn restart(
    row: &mut Outdated,
    limit: Duration,
    manifest: &Manifest,
    starter: &mut Starter<'_>,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    let Some(wanted) = manifest.nodes.iter().find(|wanted| wanted.id == row.node) else {
        return Ok(());
    };
    starter.restart(wanted).await?;
    starter.converge(limit, progress).await?;
    row.restarted = true;
    Ok(())
}

/// Gives a node its role in the manifest back. A shard is taken from its owner only if the owner does not have the same
/// role in the manifest: of several nodes that do, any may be the owner.
pub(super) async fn restore(
    row: &mut DriftRow,
    manifest: &Manifest,
    record: &ClusterRecord,
) -> anyhow::Result<()> {
    let Some(node) = record.node(&row.node) else {
        return Ok(());
    };
    let client = Client::new(&node.url())?.within(limits::COMMAND);
    let owner = owner(&client, &row.wanted).await;
    let is_rightful =
        manifest.nodes.iter().any(|node| Some(&node.id) == owner.as_ref() && node.role == row.wanted);
    let deadline = Instant::now() + BUSY_LIMIT;
    loop {
        let changed = client.set_service(&row.node, &row.wanted, Wait::All, !is_rightful, None).await;
        match changed {
            // The node may be taking over a shard that another node has released.
            Err(error) if error.problem().map(Problem::code) == Some("busy") && Instant::now() < deadline => {
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            changed => {
                changed.with_context(|| format!("giving {} its role back", row.node))?;
                row.restored = true;
                return Ok(());
            }
        }
    }
}

/// Gives running nodes their roles in the manifest back if they hold an address that a node to be started may need.
pub(super) async fn make_room(
    now: &Now,
    plan: &Plan,
    loaded: &Loaded,
    record: &ClusterRecord,
    progress: &mut Progress,
) -> anyhow::Result<Vec<DriftRow>> {
    let holds_address = |node: &NodeId| {
        let role = now.roles.get(node).map(|running| &running.role);
        let listens = role.and_then(|role| loaded.listens.get(role.service()?));
        listens.is_some_and(|listens| listens.iter().any(|address| address.port() != 0))
    };
    let mut rows = differences(plan, now);
    rows.retain(|row| !plan.start.is_empty() && holds_address(&row.node));
    for row in &mut rows {
        progress.show(&format!("restoring {}", row.node));
        restore(row, &loaded.checked.manifest, record).await?;
    }
    Ok(rows)
}

/// The owner of a role's shard, if it has one and the claim can be read.
async fn owner(client: &Client, role: &Role) -> Option<NodeId> {
    let claims = client.claims().await.ok()?.claims;
    let claim = claims
        .into_iter()
        .find(|claim| Some(&claim.service) == role.service() && Some(claim.shard) == role.shard())?;
    claim.holder.filter(|_| claim.honoured).map(|holder| holder.node)
}
