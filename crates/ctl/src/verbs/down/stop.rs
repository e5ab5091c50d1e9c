//! Ends every process of a cluster: parents first, so that none restarts its agent, then what is left.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::Signal;
use tokio::time::{Instant, sleep};
use types::ClusterId;
use types::supervision::PidFile;

use crate::out::{Progress, say};
use crate::process::{ProcessId, Processes, SignalError};
use crate::record::ClusterRecord;
use crate::render;
use crate::state::State;

const POLL: Duration = Duration::from_millis(15);
/// How long the kernel may take to end a killed process.
const KERNEL_LIMIT: Duration = Duration::from_secs(3);
/// How long a process may take to appear that a killed ctl had just begun to start.
const START_LIMIT: Duration = Duration::from_millis(200);

/// The result.
#[derive(Debug, Default)]
pub(super) struct Stopped {
    /// Agents that ran and have ended.
    pub(super) ended: usize,
    /// Of these, agents that had to be killed.
    pub(super) killed: usize,
    /// Processes that still run.
    pub(super) left: Vec<u32>,
    /// Why they do, if the kernel gives a reason.
    pub(super) refused: Vec<String>,
}

/// The processes of a cluster, and the signals sent to them.
struct Ending<'a> {
    state: &'a State,
    cluster: &'a ClusterId,
    record: Option<&'a ClusterRecord>,
    processes: Processes,
    /// Every agent that was seen alive, by pid.
    agents: BTreeMap<u32, String>,
    signalled: BTreeSet<u32>,
    killed: BTreeSet<u32>,
    refused: BTreeMap<u32, Errno>,
}

/// The processes of a cluster that run.
#[derive(Debug, Default)]
struct Running {
    parents: Vec<ProcessId>,
    agents: Vec<ProcessId>,
}

/// Makes all agents leave, and kills those that have not left within the limit.
pub(super) async fn stop(
    state: &State,
    cluster: &ClusterId,
    record: Option<&ClusterRecord>,
    limit: Duration,
) -> anyhow::Result<Stopped> {
    let mut ending = Ending {
        state,
        cluster,
        record,
        processes: Processes::new()?,
        agents: BTreeMap::new(),
        signalled: BTreeSet::new(),
        killed: BTreeSet::new(),
        refused: BTreeMap::new(),
    };
    let mut progress = Progress::new();
    ending.await_starting().await;
    let deadline = Instant::now() + limit;
    let left = loop {
        let running = ending.running();
        ending.request_leave(&running);
        if running.is_empty() || ending.is_hopeless(&running) || Instant::now() >= deadline {
            break running;
        }
        progress.show(&format!("waiting for {} to leave", render::count(running.agents.len(), "agent")));
        sleep(POLL).await;
    };
    drop(progress);
    ending.kill(&left, limit);
    let deadline = Instant::now() + KERNEL_LIMIT;
    let mut left = ending.running();
    while !left.is_empty() && !ending.is_hopeless(&left) && Instant::now() < deadline {
        // A parent that was killed while it started an agent leaves that agent running.
        ending.kill(&left, limit);
        sleep(POLL).await;
        left = ending.running();
    }
    Ok(ending.outcome(&left))
}

impl Ending<'_> {
    /// Waits for processes to appear: a killed ctl may just have begun to start a parent, and the parent an agent.
    async fn await_starting(&mut self) {
        let run_dir = self.state.run_dir(self.cluster);
        let deadline = Instant::now() + START_LIMIT;
        while Instant::now() < deadline {
            let parents = self.processes.below(&run_dir);
            let is_starting = self.record.iter().flat_map(|record| &record.nodes).any(|node| {
                let start = node.start_file();
                let is_found = parents.iter().any(|parent| parent.data_dir == start);
                start.exists() && !PidFile::beside(&start).exists() && !is_found
            });
            if !is_starting {
                return;
            }
            sleep(POLL).await;
        }
    }

    fn running(&mut self) -> Running {
        let mut parents = self.processes.below(&self.state.run_dir(self.cluster));
        let mut agents = self.processes.below(&self.state.cluster_data_dir(self.cluster));
        for node in self.record.iter().flat_map(|record| &record.nodes) {
            // Processes that were started under another path of the state folder, through a link.
            let parent = node.parent(&mut self.processes);
            parents.extend(parent.filter(|parent| parents.iter().all(|known| known.pid != parent.pid)));
            let Some(process) = node.process() else { continue };
            let is_known = agents.iter().any(|agent| agent.pid == process.pid);
            if !is_known && self.processes.is_alive(&process) {
                agents.push(process);
            }
        }
        for agent in &agents {
            let name = agent.data_dir.file_name().map(|name| name.to_string_lossy().into_owned());
            self.agents.entry(agent.pid).or_insert(name.unwrap_or_default());
        }
        Running { parents, agents }
    }

    /// Signals those to leave that were not signalled yet. An agent that has a parent is signalled by it: an agent that
    /// receives two signals aborts.
    fn request_leave(&mut self, running: &Running) {
        let names: BTreeSet<_> =
            running.parents.iter().filter_map(|parent| parent.data_dir.file_stem()).collect();
        let orphans = running
            .agents
            .iter()
            .filter(|agent| agent.data_dir.file_name().is_none_or(|name| !names.contains(name)));
        let targets: Vec<_> = running.parents.iter().chain(orphans).collect();
        for process in targets {
            if self.signalled.insert(process.pid) {
                self.signal(process, Signal::TERM);
            }
        }
        // A paused process must run to leave.
        for process in running.parents.iter().chain(&running.agents) {
            self.signal(process, Signal::CONT);
        }
    }

    fn kill(&mut self, left: &Running, limit: Duration) {
        for parent in &left.parents {
            self.signal(parent, Signal::KILL);
        }
        for agent in &left.agents {
            if self.signal(agent, Signal::KILL) && self.killed.insert(agent.pid) {
                let name = &self.agents[&agent.pid];
                say(&format!("{name} (process {}) did not leave within {limit:?} and is killed", agent.pid));
            }
        }
    }

    /// Whether the signal was sent. A process that has ended needs none.
    fn signal(&mut self, process: &ProcessId, signal: Signal) -> bool {
        match self.processes.signal(process, signal) {
            Ok(()) => true,
            Err(SignalError::Gone(_)) => false,
            Err(SignalError::Refused { pid, source }) => {
                self.refused.insert(pid, source);
                false
            }
        }
    }

    /// Whether no running process can be signalled, so that waiting is useless.
    fn is_hopeless(&self, running: &Running) -> bool {
        !running.is_empty()
            && running
                .parents
                .iter()
                .chain(&running.agents)
                .all(|process| self.refused.contains_key(&process.pid))
    }

    fn outcome(&self, left: &Running) -> Stopped {
        let pids: BTreeSet<_> = left.parents.iter().chain(&left.agents).map(|process| process.pid).collect();
        let refused = left.agents.iter().chain(&left.parents).filter_map(|process| {
            let why = self.refused.get(&process.pid)?;
            let name = process.data_dir.file_stem().unwrap_or_default().to_string_lossy();
            Some(format!("{name} (process {}) can't be signalled: {why}", process.pid))
        });
        Stopped {
            ended: self.agents.keys().filter(|pid| !pids.contains(*pid)).count(),
            killed: self.killed.difference(&pids).count(),
            refused: refused.collect(),
            left: pids.into_iter().collect(),
        }
    }
}

impl Running {
    fn is_empty(&self) -> bool {
        self.parents.is_empty() && self.agents.is_empty()
    }
}
