//! Starts agents, waits until every node sees every node, and undoes the start if that fails.

mod owners;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use client::Client;
use futures_util::future::join_all;
use manifest::{Manifest, NodeSpec};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;
use tokio::time::{Instant, sleep};
use types::api::StoreInfo;
use types::apply::Ours;
use types::supervision::PidFile;
use types::{NodeId, ServiceName, Spec};

use crate::agent_bin::{self, Wanted};
use crate::exit::{Exit, Failure};
use crate::launch;
use crate::manifest_file::Loaded;
use crate::out::Progress;
use crate::ports::{self, Addresses, Free, Request, ThisMachine};
use crate::process::Processes;
use crate::record::{ClusterRecord, NodeRecord};
use crate::render;
use crate::spec_diff::{self, Changed};
use crate::state::State;
use crate::supervision;
use crate::tail;
use crate::twins;
use crate::views::{self, Expected, Views};

const POLL: Duration = Duration::from_millis(15);
const VIEW_LIMIT: Duration = Duration::from_secs(1);
/// How long an agent has to leave when its start is undone.
const UNDO_LIMIT: Duration = Duration::from_secs(3);
/// How often a node whose port was taken is started again on another port.
const PORT_ATTEMPTS: u32 = 3;
/// How long a restarted agent has to finish its requests and leave.
const LEAVE_LIMIT: Duration = Duration::from_secs(30);
const SEEDS: usize = 3;
const LOG_LINES: usize = 15;

/// The agents of one `ctl up`.
#[derive(Debug)]
pub(crate) struct Starter<'a> {
    pub(crate) state: &'a State,
    binary: PathBuf,
    manifest: &'a Manifest,
    pub(crate) record: ClusterRecord,
    /// Whether no node of the cluster ran before.
    is_fresh: bool,
    processes: Processes,
    /// Nodes that this run has added to the record.
    entered: BTreeSet<NodeId>,
    started: BTreeMap<NodeId, Started>,
    /// Nodes that ran before and were restarted: their start is not undone.
    restarted: BTreeSet<NodeId>,
    client: Client,
}

/// The specs of the manifest's services on the store.
#[derive(Debug)]
pub(crate) struct Settled {
    /// The numbers of the specs.
    pub(crate) numbers: BTreeMap<ServiceName, u64>,
    /// The number of shards of each service whose shards have owners.
    pub(crate) shards: BTreeMap<ServiceName, u32>,
    /// The settings that changed.
    pub(crate) changed: Vec<Changed>,
}

#[derive(Debug)]
struct Started {
    child: Child,
    attempts: u32,
    /// Its data folder did not exist before.
    is_new: bool,
}

impl<'a> Starter<'a> {
    pub(crate) fn new(
        state: &'a State,
        binary: PathBuf,
        manifest: &'a Manifest,
        record: ClusterRecord,
        is_fresh: bool,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            state,
            binary,
            manifest,
            record,
            is_fresh,
            processes: Processes::new()?,
            entered: BTreeSet::new(),
            started: BTreeMap::new(),
            restarted: BTreeSet::new(),
            client: Client::new("127.0.0.1")?.within(VIEW_LIMIT),
        })
    }

    /// Settles the specs of the manifest's services on the store.
    pub(crate) async fn settle(
        &self,
        loaded: &Loaded,
        uses: Option<&StoreInfo>,
        ours: &Ours,
    ) -> anyhow::Result<Settled> {
        let store = launch::store(self.state, self.manifest);
        let wanted = specs(self.manifest);
        let cluster = &self.manifest.cluster;
        let applied = agent_bin::apply(&self.binary, cluster, &store, uses, ours, &wanted).await?;
        if !applied.held.is_empty() {
            return Err(twins::failure(cluster, &applied.held).into());
        }
        if !applied.mistakes.is_empty() {
            return Err(loaded.refused(&applied.mistakes).into());
        }
        let changes = applied.replaced.iter().flat_map(|(service, old)| {
            let new = wanted.get(service).map(|wanted| Spec {
                service_type: wanted.service_type.clone(),
                settings: wanted.settings.clone(),
                // What the manifest leaves out does not change.
                shards: wanted.shards.or(old.shards),
                replicas: wanted.replicas,
            });
            new.map_or_else(Vec::new, |new| spec_diff::changes(service, old, &new))
        });
        Ok(Settled { changed: changes.collect(), numbers: applied.specs, shards: applied.shards })
    }

    /// Starts all these nodes at once. Each is in the record before it runs.
    pub(crate) async fn start(&mut self, nodes: &[&NodeSpec]) -> anyhow::Result<()> {
        for node in nodes {
            // Its parent may be about to restart it.
            if let Some(node) = self.record.node(&node.id) {
                supervision::end_parent(node, &mut self.processes).await?;
            }
        }
        self.enter(nodes)?;
        self.entered.extend(nodes.iter().map(|node| node.id.clone()));
        for node in nodes {
            self.spawn(&node.id, 1)?;
        }
        Ok(())
    }

    /// Makes a running node leave, waits until no node sees it, and starts it as the manifest says now, with the same
    /// id and data folder.
    pub(crate) async fn restart(&mut self, node: &NodeSpec) -> anyhow::Result<()> {
        if let Some(known) = self.record.node(&node.id)
            && let Some(process) = known.process()
        {
            // A process that has just ended needs no signal.
            let _ = supervision::request_leave(known, &mut self.processes);
            let mut others = Vec::new();
            for other in self.record.nodes.iter().filter(|other| other.id != node.id) {
                if other.is_running(&mut self.processes) {
                    others.push(Expected { id: other.id.clone(), ready: false });
                }
            }
            let deadline = Instant::now() + LEAVE_LIMIT;
            while self.processes.is_alive(&process) || self.is_seen(&node.id, &others).await {
                if Instant::now() >= deadline {
                    let message = format!("{} has not left after {LEAVE_LIMIT:?}", node.id);
                    return Err(Failure::new(Exit::NotConverged, message)
                        .hint(format!("`ctl logs {}` shows more; once it is gone, run this again", node.id))
                        .into());
                }
                sleep(POLL).await;
            }
            supervision::end_parent(known, &mut self.processes).await?;
        }
        self.enter(&[node])?;
        self.restarted.insert(node.id.clone());
        self.spawn(&node.id, 1)
    }

    async fn is_seen(&self, id: &NodeId, others: &[Expected]) -> bool {
        let views = self.views(others).await;
        views.values().flatten().any(|view| view.members.iter().any(|member| member.id == *id))
    }

    /// Chooses addresses and adds nodes to the record, without a process yet.
    fn enter(&mut self, nodes: &[&NodeSpec]) -> anyhow::Result<()> {
        let starting: BTreeSet<&NodeId> = nodes.iter().map(|node| &node.id).collect();
        let others = self.record.nodes.iter().filter(|node| !starting.contains(&node.id));
        let taken = others.flat_map(|node| [node.http.port(), node.gossip.port()]).collect();
        let requests: Vec<_> = nodes.iter().map(|node| self.request(node)).collect();
        let addresses =
            ports::assign(&requests, taken, self.first_port(), &mut ThisMachine).map_err(|busy| {
                let busy: Vec<_> = busy.iter().map(ToString::to_string).collect();
                Failure::new(Exit::Error, busy.join("; "))
                    .hint("end the process that holds it (`ss -lntup` shows it), or change the manifest")
            })?;
        for (node, addresses) in nodes.iter().zip(addresses) {
            self.record.put(self.entry(node, addresses));
        }
        self.record.save(self.state)
    }

    fn first_port(&self) -> u16 {
        let run = self.state.run_dir(&self.manifest.cluster);
        ports::first_for(&run.to_string_lossy())
    }

    fn request(&self, node: &NodeSpec) -> Request {
        Request {
            id: node.id.clone(),
            listen: node.listen,
            gossip: node.gossip,
            before: self.record.node(&node.id).map(|node| Addresses { http: node.http, gossip: node.gossip }),
        }
    }

    fn entry(&self, node: &NodeSpec, addresses: Addresses) -> NodeRecord {
        let run = self.state.run_dir(&self.manifest.cluster);
        NodeRecord {
            id: node.id.clone(),
            http: addresses.http,
            gossip: addresses.gossip,
            role: node.role.clone(),
            log: run.join(format!("{}.log", node.id)),
            data_dir: self.state.data_dir(&self.manifest.cluster, &node.id),
        }
    }

    fn spawn(&mut self, id: &NodeId, attempts: u32) -> anyhow::Result<()> {
        let seeds = self.seeds();
        let node = self.record.node(id).expect("entered before it is spawned");
        let is_new = !node.data_dir.exists();
        // What an earlier parent wrote does not apply to this one.
        let _ = std::fs::remove_file(PidFile::beside(&node.start_file()));
        launch::write(&self.binary, self.state, self.manifest, &self.record, node, &seeds)?;
        let child = launch::supervise(&self.binary, node, None)?;
        let started = Started { child, attempts, is_new };
        self.started.insert(id.clone(), started);
        Ok(())
    }

    /// Starts a new parent for each node that runs without one.
    pub(crate) fn adopt(&mut self) -> anyhow::Result<()> {
        for node in &self.record.nodes {
            let Some(process) = node.process() else { continue };
            let is_orphan = self.processes.is_alive(&process) && node.parent(&mut self.processes).is_none();
            if !is_orphan || self.started.contains_key(&node.id) {
                continue;
            }
            let seeds = self.seeds();
            if !node.start_file().exists() {
                launch::write(&self.binary, self.state, self.manifest, &self.record, node, &seeds)?;
            }
            launch::supervise(&self.binary, node, Some(process.pid))?;
        }
        Ok(())
    }

    fn seeds(&self) -> Vec<SocketAddr> {
        self.record.nodes.iter().map(|node| crate::record::reachable(node.gossip)).take(SEEDS).collect()
    }

    /// Waits until every node sees every node, and those of this run ready.
    pub(crate) async fn converge(&mut self, limit: Duration, progress: &mut Progress) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        let mut expected: Vec<Expected> = Vec::new();
        for node in &self.record.nodes {
            let ready = self.started.contains_key(&node.id);
            if ready || node.is_running(&mut self.processes) {
                expected.push(Expected { id: node.id.clone(), ready });
            }
        }
        loop {
            self.replace_lost_ports()?;
            let asked_at = Instant::now();
            let views = self.views(&expected).await;
            let convergence = views::compare(&expected, &views);
            if let Some((id, reason)) = convergence.failed.first() {
                return Err(self.failed(id, reason).into());
            }
            if convergence.gaps.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(self.late(limit, views::in_words(&convergence.gaps)).into());
            }
            progress.show(&format!(
                "{} of {} see all nodes ready",
                convergence.complete,
                render::count(expected.len(), "node")
            ));
            // Polling a large cluster takes long, so pause for as long as the poll took.
            sleep(POLL.max(asked_at.elapsed())).await;
        }
    }

    /// The error at the deadline. It names paused processes, which explain it.
    fn late(&mut self, limit: Duration, mut gaps: Vec<String>) -> Failure {
        let mut hint = if self.is_fresh {
            "--timeout waits longer, --keep leaves the agents running for a look at them".to_owned()
        } else {
            "`ctl status` shows more; `ctl up` again waits for them, with --timeout for longer".to_owned()
        };
        for node in &self.record.nodes {
            let Some(process) = node.process() else { continue };
            if self.processes.is_stopped(&process) {
                gaps.push(format!("{} is stopped (process {})", node.id, process.pid));
                hint = format!("`ctl kill {} --signal CONT` resumes it", node.id);
            }
        }
        let words = gaps.join("\n  ");
        let message = format!("not every node sees every node ready after {limit:?}:\n  {words}");
        Failure::new(Exit::NotConverged, message).hint(hint)
    }

    async fn views(&self, expected: &[Expected]) -> Views {
        let calls = expected.iter().map(|node| async {
            let url = self.record.node(&node.id).map(NodeRecord::url);
            let client = url.and_then(|url| self.client.at(&url).ok());
            let members = match client {
                Some(client) => client.members().await.ok(),
                None => None,
            };
            let members = members.filter(|members| members.viewed_by == node.id);
            (node.id.clone(), members)
        });
        join_all(calls).await.into_iter().collect()
    }

    /// Fails if an agent has ended, unless its port was taken between our check and its start: then it gets another
    /// port.
    fn replace_lost_ports(&mut self) -> anyhow::Result<()> {
        let mut ended = Vec::new();
        for (id, started) in &mut self.started {
            if let Some(status) = started.child.try_wait()? {
                ended.push((id.clone(), status, started.attempts));
            }
        }
        for (id, status, attempts) in ended {
            let Some(spec) = self.manifest.nodes.iter().find(|node| node.id == id) else {
                continue;
            };
            let has_lost_port = self
                .record
                .node(&id)
                .is_some_and(|node| !ThisMachine.tcp(node.http) || !ThisMachine.udp(node.gossip));
            if !has_lost_port || attempts >= PORT_ATTEMPTS {
                return Err(self.failure(&id, &format!("ended, {status}")).into());
            }
            let nodes = self.record.nodes.iter();
            let taken = nodes.flat_map(|node| [node.http.port(), node.gossip.port()]).collect();
            let request = Request { before: None, ..self.request(spec) };
            let Ok(addresses) = ports::assign(&[request], taken, self.first_port(), &mut ThisMachine) else {
                return Err(self.failure(&id, &format!("ended, {status}")).into());
            };
            for addresses in addresses {
                self.record.put(self.entry(spec, addresses));
            }
            self.record.save(self.state)?;
            self.spawn(&id, attempts + 1)?;
        }
        Ok(())
    }

    /// The failure of a node that reports its reason: the end of its log would only repeat it.
    fn failed(&self, id: &NodeId, reason: &str) -> Failure {
        let failure = Failure::new(Exit::Error, format!("node {id} failed: {reason}"));
        match self.record.node(id) {
            Some(node) => failure.hint(format!("its log is {}", node.log.display())),
            None => failure,
        }
    }

    /// The failure of a node that ended without a report: the end of its log is all there is.
    fn failure(&self, id: &NodeId, what: &str) -> Failure {
        let Some(node) = self.record.node(id) else {
            return Failure::new(Exit::Error, format!("node {id} {what}"));
        };
        let lines = match tail::last_lines(&node.log, LOG_LINES) {
            Ok(lines) if lines.is_empty() => "its log is empty".to_owned(),
            Ok(lines) => format!("the end of its log:\n  {}", lines.join("\n  ")),
            Err(error) => format!("its log cannot be read: {error}"),
        };
        Failure::new(Exit::Error, format!("node {id} {what}; {lines}"))
            .hint(format!("the whole log is {}", node.log.display()))
    }

    /// Ids of the nodes that this run started and that did not run before.
    pub(crate) fn started(&self) -> Vec<NodeId> {
        self.started.keys().filter(|id| !self.restarted.contains(*id)).cloned().collect()
    }

    /// The started nodes that run now.
    pub(crate) fn running(&mut self) -> Vec<NodeId> {
        let started = self.started();
        let nodes = self.record.nodes.iter().filter(|node| started.contains(&node.id));
        nodes.filter(|node| node.is_running(&mut self.processes)).map(|node| node.id.clone()).collect()
    }

    /// Ends what this run started, and removes it from the record. What ran before stays.
    pub(crate) async fn undo(&mut self) -> anyhow::Result<()> {
        let restarted = std::mem::take(&mut self.restarted);
        self.started.retain(|id, _| !restarted.contains(id));
        for started in self.started.values() {
            // Not reaped yet, so the pid is still its own.
            let pid = started.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
            // A process that has just ended needs no signal.
            let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        }
        let deadline = Instant::now() + UNDO_LIMIT;
        for (id, started) in &mut self.started {
            let ended = tokio::time::timeout_at(deadline, started.child.wait()).await;
            if ended.is_err() {
                started.child.kill().await?;
            }
            // A killed parent leaves its agent running.
            let process = self.record.node(id).and_then(NodeRecord::process);
            if let Some(process) = process
                && self.processes.signal(&process, Signal::KILL).is_ok()
            {
                while self.processes.is_alive(&process) {
                    sleep(POLL).await;
                }
            }
        }
        for id in std::mem::take(&mut self.entered) {
            let is_new = self.started.remove(&id).is_some_and(|started| started.is_new);
            if let Some(node) = self.record.node(&id) {
                node.remove_files();
                if is_new {
                    let _ = std::fs::remove_dir_all(&node.data_dir);
                }
            }
            self.record.drop_node(&id);
        }
        if !self.record.nodes.is_empty() {
            return self.record.save(self.state);
        }
        let _ = std::fs::remove_dir(self.state.cluster_data_dir(&self.record.cluster));
        ClusterRecord::remove(self.state, &self.record.cluster)
    }
}

/// The spec that the manifest wants for each service that it names. Pure.
fn specs(manifest: &Manifest) -> BTreeMap<ServiceName, Wanted> {
    let mut wanted: BTreeMap<ServiceName, Wanted> = BTreeMap::new();
    for (service, spec) in &manifest.services {
        let (service_type, settings) = (spec.service_type.clone(), spec.settings.clone());
        let (shards, replicas) = (spec.shards, spec.replicas);
        let spec = Wanted { service_type, settings, shards, at_least: None, replicas };
        wanted.insert(service.clone(), spec);
    }
    for node in &manifest.nodes {
        let Some(service) = node.role.service() else { continue };
        let entry = wanted.entry(service.clone()).or_insert_with(|| Wanted {
            service_type: None,
            settings: serde_json::json!({}),
            shards: None,
            at_least: None,
            replicas: 0,
        });
        let needed = node.role.shard().map(|shard| shard.as_u32() + 1);
        entry.at_least = entry.at_least.max(needed);
    }
    wanted
}
