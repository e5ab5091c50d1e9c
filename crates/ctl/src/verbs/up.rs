//! `ctl up`: starts a cluster on this machine, or its missing nodes, and returns once every node sees every node.

mod apply;
mod placement;
mod report;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use client::Client;
use futures_util::future::join_all;
use manifest::{Manifest, Plan, Running};
use tokio::time::Instant;
use types::api::{AgentSelf, Member, Wait};
use types::{ClusterId, NodeId, Phase, Post, Problem, Role, ServiceName, limits};

use crate::agent_bin;
use crate::dropped;
use crate::exit::{Exit, explain};
use crate::hints::{self, Meant};
use crate::interrupt::Interrupt;
use crate::kept;
use crate::launch;
use crate::lock::Lock;
use crate::manifest_file::{self, Loaded};
use crate::out::{Format, OutputArg, Progress, StreamFormat, say};
use crate::process::Processes;
use crate::reach::{Cx, is_running};
use crate::record::ClusterRecord;
use crate::render;
use crate::start::{Settled, Starter};
use crate::state::State;
use crate::supervision;
use crate::tail;
use crate::timeout::Timeout;
use crate::twins::ours;
use crate::verbs::events;
use crate::verbs::up::report::{DriftRow, Outdated, OutdatedSpec, Report, print};

const ASK_LIMIT: Duration = Duration::from_secs(1);
/// How long to wait for a node that carries out another command before its role is restored.
const BUSY_LIMIT: Duration = Duration::from_secs(20);
const BUSY_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl up
  ctl up manifests/demo.yaml
  ctl up manifests/demo.yaml --cluster second
  ctl up --cluster second            from the manifest that it was started from
  ctl up --follow
  ctl up --reset
  ctl up - < coterie.yaml

Another run starts only what is missing, and reports where nodes differ from the manifest; --reset gives \
them their roles back, and restarts those with other labels or addresses, one after the other.

Changed settings of services are applied while they run: edit the manifest, then `ctl up`. It reports for each node \
whether it has applied them, which settings need a restart (`ctl up --reset` restarts the roles of these nodes), or why it \
keeps the old ones or has failed; then the exit code is 1, or 3 if a node does not say in time.

It returns once every node sees every node ready and every shard of the manifest's services has an owner, or with \
exit code 3 if that takes too long.

The start of a whole cluster is undone at ^C, or if not all nodes become ready in time. Nodes that were added to a \
running cluster stay.")]
pub(crate) struct Args {
    /// The manifest, or - for standard input [default: that of --cluster, else coterie.yaml, else manifests/demo.yaml]
    file: Option<PathBuf>,
    /// How long to wait until every node sees every node ready, and an owner of every shard, 0s to 365d
    #[arg(long, value_name = "TIME", default_value = "30s")]
    timeout: Timeout,
    /// Then show events, until ^C; the cluster keeps running
    #[arg(short, long)]
    follow: bool,
    /// Make nodes that differ from the manifest match it
    #[arg(long)]
    reset: bool,
    /// Make this the manifest of a cluster that runs from another one
    #[arg(long)]
    replace: bool,
    /// Leave the agents of a new cluster running when not all become ready
    #[arg(long)]
    keep: bool,
    /// The agent to start; it is remembered for the cluster [default: the one remembered, else beside ctl, else on the
    /// PATH]
    #[arg(long, value_name = "PATH")]
    agent_bin: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArg,
}

pub(crate) async fn run(args: &Args, cx: &Cx, interrupt: &mut Interrupt) -> anyhow::Result<Exit> {
    let began = Instant::now();
    let (file, loaded, binary) = interrupt.unless(prepare(args, cx)).await?;
    let manifest = &loaded.checked.manifest;
    let run_dir = cx.state.run_dir(&manifest.cluster);
    cx.state.has_room(&manifest.cluster)?;
    let lock = Lock::take(&run_dir, "ctl up").await?;
    let (mut record, is_fresh) = record(&cx.state, &loaded, &file, args.replace).await?;
    if is_fresh {
        remove_logs(&run_dir)?;
    }
    if args.agent_bin.is_some() {
        record.agent = Some(binary.clone());
    }
    let mut starter = Starter::new(&cx.state, binary, manifest, record, is_fresh)?;
    let done = interrupt.unless(Box::pin(bring_up(args, &loaded, &mut starter, began))).await;
    let report = match done {
        Ok(report) => report,
        Err(error) => {
            let was_interrupted = explain(&error).exit() == Exit::Interrupted;
            if is_undone(is_fresh, was_interrupted, args.keep) {
                undo(&mut starter, was_interrupted, &run_dir).await?;
            } else {
                let left = starter.running();
                if !left.is_empty() {
                    say(&left_running(&left));
                }
            }
            drop(lock);
            // Removed only if it is empty.
            let _ = std::fs::remove_dir(&run_dir);
            return Err(error);
        }
    };
    drop(lock);
    print(&report, args.output, cx)?;
    let exit = report.exit();
    if args.follow {
        let here =
            Cx { state: cx.state.clone(), out: cx.out, agent: None, cluster: Some(manifest.cluster.clone()) };
        let format = match args.output.output {
            Format::Json => StreamFormat::Json,
            Format::Table | Format::Yaml | Format::Name => StreamFormat::Table,
        };
        tokio::select! {
            biased;
            () = interrupt.wait() => say("the cluster keeps running; `ctl down` stops it"),
            followed = events::follow(format, &here, None) => followed?,
        }
    }
    Ok(exit)
}

async fn prepare(args: &Args, cx: &Cx) -> anyhow::Result<(PathBuf, Loaded, PathBuf)> {
    let file = source::choose(args.file.as_deref(), cx)?;
    let agent = |cluster: Option<&ClusterId>| {
        let cluster = cx.cluster.as_ref().or(cluster);
        let found = agent_bin::of_cluster(args.agent_bin.as_deref(), &cx.state, cluster)?;
        Ok(Some(std::path::absolute(found)?))
    };
    let mut loaded = manifest_file::load(&file, agent).await?;
    let binary = loaded.agent.clone().context("no agent was asked")?;
    if let Some(cluster) = &cx.cluster {
        loaded.checked.manifest.cluster = cluster.clone();
    }
    hints::set_meant(Meant::Cluster(loaded.checked.manifest.cluster.clone()));
    Ok((file, loaded, binary))
}

/// The record of the cluster, and whether no node of it runs.
async fn record(
    state: &State,
    loaded: &Loaded,
    file: &Path,
    may_replace: bool,
) -> anyhow::Result<(ClusterRecord, bool)> {
    let manifest = &loaded.checked.manifest;
    let mut processes = Processes::new()?;
    let known = ClusterRecord::load(state, &manifest.cluster)?;
    let mut record = known.unwrap_or_else(|| ClusterRecord {
        cluster: manifest.cluster.clone(),
        manifest: PathBuf::new(),
        agent: None,
        started_at_ms: 0,
        nodes: Vec::new(),
    });
    supervision::settled(&state.run_dir(&manifest.cluster), &mut processes).await;
    let is_fresh = !is_running(&record, &mut processes);
    if !may_replace {
        source::check(file, &record, !is_fresh)?;
    }
    if is_fresh {
        record.started_at_ms = render::now_ms();
    }
    record.manifest = source::keep(file, &loaded.source, &state.run_dir(&manifest.cluster))?;
    record.nodes.retain(|node| {
        let is_wanted = manifest.nodes.iter().any(|wanted| wanted.id == node.id);
        is_wanted || node.is_running(&mut processes)
    });
    for node in &mut record.nodes {
        if let Some(wanted) = manifest.nodes.iter().find(|wanted| wanted.id == node.id) {
            node.role = wanted.role.clone();
        }
    }
    Ok((record, is_fresh))
}

fn remove_logs(run_dir: &Path) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(run_dir).with_context(|| format!("reading {}", run_dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        if tail::is_log(&path) {
            std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    Ok(())
}

async fn bring_up(
    args: &Args,
    loaded: &Loaded,
    starter: &mut Starter<'_>,
    began: Instant,
) -> anyhow::Result<Report> {
    let manifest = &loaded.checked.manifest;
    let mut progress = Progress::new();
    progress.show("settling the spec on the store");
    let mut asked = ask_all(&starter.record).await?;
    let mut before = running(&starter.record, &asked)?;
    let mut plan = manifest::diff(manifest, &before.roles);
    let mut restored = Vec::new();
    if args.reset {
        for node in &plan.start {
            kept::forget(&starter.state.data_dir(&manifest.cluster, &node.id))?;
        }
        restored = make_room(&before, &plan, loaded, &starter.record, &mut progress).await?;
        if !restored.is_empty() {
            asked = ask_all(&starter.record).await?;
            before = running(&starter.record, &asked)?;
            plan = manifest::diff(manifest, &before.roles);
        }
    }
    let asked_before = asked;
    let before = before.roles;
    placement::check(loaded, &before, &plan, starter.state)?;
    let ours = ours(&starter.record, &asked_before).await;
    let uses = asked_before.iter().find_map(|own| own.member.store.as_ref());
    let Settled { numbers: specs, shards, changed } = starter.settle(loaded, uses, &ours).await?;
    let mut outdated = outdated(starter.state, manifest, &starter.record, &before)?;
    let missing: Vec<_> = plan.start.iter().collect();
    if !missing.is_empty() {
        progress.show(&format!("starting {}", render::count(missing.len(), "agent")));
    }
    starter.start(&missing).await?;
    starter.adopt()?;
    let deadline = Instant::now() + args.timeout.get();
    starter.converge(args.timeout.get(), &mut progress).await?;
    if !args.reset {
        starter.await_owners(&shards, args.timeout.get(), deadline, &mut progress).await?;
    }
    let took = began.elapsed();
    // A node that was just started may have another role too: one that an operator gave it, or a shard that it owns.
    let now = running(&starter.record, &ask_all(&starter.record).await?)?;
    let plan = manifest::diff(manifest, &now.roles);
    let mut drift = differences(&plan, &now);
    if args.reset {
        for row in &mut outdated {
            progress.show(&format!("restarting {}", row.node));
            restart(row, args.timeout.get(), manifest, starter, &mut progress).await?;
        }
        // Nodes that become standbys go first, to make room for those that become replicas.
        drift.sort_by_key(|row| row.wanted != Role::Standby);
        for row in &mut drift {
            restore(row, manifest, &starter.record).await?;
        }
        let deadline = Instant::now() + args.timeout.get();
        starter.await_owners(&shards, args.timeout.get(), deadline, &mut progress).await?;
    }
    drift.extend(restored);
    let asked = apply::wait(&starter.record, &specs, args.timeout.get(), &mut progress).await?;
    let applied = apply::applied(&asked_before, &asked, &specs);
    let outdated_specs = renew(&specs, &asked, args.reset).await?;
    let insecure: BTreeSet<_> = asked.iter().flat_map(|own| own.insecure.clone()).collect();
    let members = members(&starter.record).await?;
    let dropped = match starter.record.nodes.first() {
        // If the specs can't be read now, `ctl status` reports it.
        Some(node) => Client::new(&node.url())?.specs().await.ok(),
        None => None,
    };
    let dropped = dropped.map_or_else(Vec::new, |specs| dropped::dropped(manifest, &specs));
    Ok(Report {
        cluster: manifest.cluster.clone(),
        changed,
        listens: loaded.listens.clone(),
        started: starter.started(),
        running_before: before.into_keys().collect(),
        drift,
        outdated,
        applied,
        outdated_specs,
        extra: plan.extra,
        dropped,
        took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        insecure: insecure.into_iter().collect(),
        members,
    })
}

/// The nodes whose processes run.
#[derive(Debug, Default)]
struct Now {
    /// Their roles.
    roles: BTreeMap<NodeId, Running>,
    /// Those that an operator has drained.
    drained: BTreeSet<NodeId>,
    /// Those that are replicas.
    replicas: BTreeSet<NodeId>,
}

fn running(record: &ClusterRecord, asked: &[AgentSelf]) -> anyhow::Result<Now> {
    let mut processes = Processes::new()?;
    let mut now = Now::default();
    for node in record.nodes.iter().filter(|node| node.is_running(&mut processes)) {
        let own = asked.iter().find(|own| own.member.id == node.id);
        let state = own.and_then(|own| own.member.state.as_ref());
        if state.is_some_and(|state| state.phase == Phase::Stopped) {
            now.drained.insert(node.id.clone());
        }
        if state.is_some_and(|state| state.duty == Some(Post::Replica)) {
            now.replicas.insert(node.id.clone());
        }
        // A node that does not answer is reported when the wait for it ends.
        let role = state.map_or_else(|| node.role.clone(), |state| state.role.clone());
        now.roles.insert(node.id.clone(), Running { role });
    }
    Ok(now)
}

/// The self-report of each node of this cluster that answers.
async fn ask_all(record: &ClusterRecord) -> anyhow::Result<Vec<AgentSelf>> {
    let client = Client::new("127.0.0.1")?.within(ASK_LIMIT);
    let calls = record.nodes.iter().map(|node| async {
        let own = client.at(&node.url()).ok()?.agent_self().await.ok()?;
        (own.cluster == record.cluster && own.member.id == node.id).then_some(own)
    });
    Ok(join_all(calls).await.into_iter().flatten().collect())
}

async fn members(record: &ClusterRecord) -> anyhow::Result<Vec<Member>> {
    let node = record.nodes.first().context("a manifest has at least one node")?;
    Ok(Client::new(&node.url())?.members().await?.members)
}

/// Where nodes differ from the manifest: by their roles, or because they were drained. Pure.
fn differences(plan: &Plan, now: &Now) -> Vec<DriftRow> {
    let found = |node: &NodeId, role: &Role| {
        let post = now.replicas.contains(node).then_some(Post::Replica);
        render::role_words(role, post)
    };
    let row = |node: &NodeId, wanted: &Role, found: String| DriftRow {
        node: node.clone(),
        wanted: wanted.clone(),
        found,
        restored: false,
    };
    let mut rows: Vec<_> = plan
        .drift
        .iter()
        .map(|drift| row(&drift.id, &drift.wanted, found(&drift.id, &drift.found)))
        .collect();
    for id in plan.unchanged.iter().filter(|id| now.drained.contains(id)) {
        if let Some(Running { role }) = now.roles.get(id) {
            rows.push(row(id, role, format!("{} but stopped", found(id, role))));
        }
    }
    rows
}

/// The nodes that would be started differently now.
fn outdated(
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
async fn renew(
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
async fn restart(
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
async fn restore(row: &mut DriftRow, manifest: &Manifest, record: &ClusterRecord) -> anyhow::Result<()> {
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
async fn make_room(
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

/// Whether to undo the start if not all nodes became ready. Nodes that were added to a running cluster stay: stopping
/// them would not help the others. Pure.
fn is_undone(is_fresh: bool, was_interrupted: bool, keep: bool) -> bool {
    is_fresh && (was_interrupted || !keep)
}

fn left_running(nodes: &[NodeId]) -> String {
    let names: Vec<_> = nodes.iter().map(NodeId::as_str).collect();
    format!("started and left running: {}", names.join(", "))
}

async fn undo(starter: &mut Starter<'_>, remove_all: bool, run_dir: &Path) -> anyhow::Result<()> {
    let number = starter.started().len();
    if number > 0 {
        say(&format!("undoing the start of {}", render::count(number, "agent")));
    }
    starter.undo().await?;
    if remove_all {
        std::fs::remove_dir_all(run_dir).with_context(|| format!("removing {}", run_dir.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_start_of_a_whole_cluster_is_undone() {
        for (is_fresh, was_interrupted, keep, expected) in [
            (true, false, false, true),
            (true, false, true, false),
            (true, true, true, true),
            (false, false, false, false),
            (false, true, false, false),
            (false, false, true, false),
        ] {
            assert_eq!(is_undone(is_fresh, was_interrupted, keep), expected);
        }
        let nodes = ["a", "b"].map(|id| id.parse().unwrap());
        assert_eq!(left_running(&nodes), "started and left running: a, b");
    }

    #[test]
    fn a_drained_node_and_one_with_another_role_differ_from_the_manifest() {
        let role = |role: &str| role.parse::<Role>().unwrap();
        let ids = ["a", "b", "c"].map(|id| id.parse::<NodeId>().unwrap());
        let drift = manifest::Drift { id: ids[2].clone(), wanted: Role::Standby, found: role("storage/1") };
        let plan = Plan { unchanged: ids[..2].to_vec(), drift: vec![drift], ..Plan::default() };
        let roles = ids.clone().into_iter().zip(["storage/0", "standby", "storage/1"].map(role));
        let now = Now {
            roles: roles.map(|(id, role)| (id, Running { role })).collect(),
            drained: BTreeSet::from([ids[0].clone()]),
            replicas: BTreeSet::from([ids[2].clone()]),
        };
        let rows = differences(&plan, &now);
        let rows: Vec<_> = rows.iter().map(|row| format!("{}: {}", row.node, row.found)).collect();
        assert_eq!(rows, ["c: storage/1 (replica)", "a: storage/0 but stopped"], "worded as in `ctl status`");
    }
}
