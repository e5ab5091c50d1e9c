//! `ctl start`, `ctl stop` and `ctl restart`: one node of a cluster on this machine. It stays a part of the cluster.

use std::path::PathBuf;
use std::time::Duration;

use client::Client;
use serde::Serialize;
use tokio::time::{Instant, sleep};
use types::supervision::{PidFile, StartFile};
use types::{NodeId, Phase};

use crate::agent_bin;
use crate::complete;
use crate::exit::{Exit, Failure};
use crate::hints::quoted;
use crate::launch;
use crate::lock::Lock;
use crate::out::OutputArg;
use crate::process::Processes;
use crate::reach::Cx;
use crate::record::{ClusterRecord, NodeRecord};
use crate::supervision;
use crate::tail;
use crate::timeout::Timeout;
use crate::views::does_its_part;

const POLL: Duration = Duration::from_millis(20);
const ASK_LIMIT: Duration = Duration::from_secs(1);
/// How many lines of its log are shown if a node can't be started.
const LOG_LINES: usize = 15;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl start standby-1
  ctl start standby-1 --timeout 1m

It is started as it was the last time. `ctl up` starts all missing nodes, including those new in the manifest.")]
pub(crate) struct StartArgs {
    /// The node, by its id
    #[arg(add = complete::nodes())]
    node: NodeId,
    #[command(flatten)]
    common: CommonArgs,
    /// The agent to start [default: the one that the node was started with]
    #[arg(long, value_name = "PATH")]
    agent_bin: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl stop standby-1
  ctl stop standby-1 --timeout 1m

It leaves the cluster in order, and is not started again until `ctl start` or `ctl up`. `ctl leave` also removes it \
from the record.")]
pub(crate) struct StopArgs {
    /// The node, by its id
    #[arg(add = complete::nodes())]
    node: NodeId,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl restart gateway-1
  ctl restart gateway-1 --agent-bin ./target/release/agent

It leaves in order and starts again with the current binary. To upgrade a cluster, restart one node after the other.")]
pub(crate) struct RestartArgs {
    /// The node, by its id
    #[arg(add = complete::nodes())]
    node: NodeId,
    #[command(flatten)]
    common: CommonArgs,
    /// The agent to start [default: the one that the node was started with]
    #[arg(long, value_name = "PATH")]
    agent_bin: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct CommonArgs {
    /// How long to wait until it is done, 0s to 365d
    #[arg(long, value_name = "TIME", default_value = "30s")]
    timeout: Timeout,
    #[command(flatten)]
    output: OutputArg,
}

/// What was done to a node.
#[derive(Serialize)]
struct Done<'a> {
    node: &'a NodeId,
    /// `started`, `stopped` or `restarted`; `running` or `not running` if nothing had to be done.
    done: &'static str,
    /// Its process now.
    pid: Option<u32>,
}

pub(crate) async fn start(args: &StartArgs, cx: &Cx) -> anyhow::Result<Exit> {
    let (record, _lock) = locked(cx, "ctl start").await?;
    let node = record.known(&args.node)?;
    let mut processes = Processes::new()?;
    supervision::settled(&cx.state.run_dir(&record.cluster), &mut processes).await;
    if node.is_running(&mut processes) {
        return print(node, "running", &args.common, cx);
    }
    launch(node, &record, args.agent_bin.as_deref(), args.common.timeout.get(), &mut processes).await?;
    print(node, "started", &args.common, cx)
}

pub(crate) async fn stop(args: &StopArgs, cx: &Cx) -> anyhow::Result<Exit> {
    let (record, _lock) = locked(cx, "ctl stop").await?;
    let node = record.known(&args.node)?;
    let mut processes = Processes::new()?;
    let was_running = node.is_running(&mut processes);
    leave(node, args.common.timeout.get(), &mut processes).await?;
    print(node, if was_running { "stopped" } else { "not running" }, &args.common, cx)
}

pub(crate) async fn restart(args: &RestartArgs, cx: &Cx) -> anyhow::Result<Exit> {
    let (record, _lock) = locked(cx, "ctl restart").await?;
    let node = record.known(&args.node)?;
    // Check that the node can be started again before it leaves.
    start_file(node, &record, args.agent_bin.as_deref())?;
    let mut processes = Processes::new()?;
    leave(node, args.common.timeout.get(), &mut processes).await?;
    launch(node, &record, args.agent_bin.as_deref(), args.common.timeout.get(), &mut processes).await?;
    print(node, "restarted", &args.common, cx)
}

async fn locked(cx: &Cx, holder: &str) -> anyhow::Result<(ClusterRecord, Lock)> {
    let cluster = cx.local_or_fail()?.cluster;
    let lock = Lock::take(&cx.state.run_dir(&cluster), holder).await?;
    let record = ClusterRecord::load(&cx.state, &cluster)?;
    let record = record.ok_or_else(|| {
        Failure::new(Exit::Conflict, format!("cluster `{cluster}` was stopped meanwhile"))
            .hint(format!("`ctl up --cluster {cluster}` starts it again"))
    })?;
    Ok((record, lock))
}

/// Makes a node leave, and waits until its processes have ended.
async fn leave(node: &NodeRecord, limit: Duration, processes: &mut Processes) -> anyhow::Result<()> {
    if let Some(process) = node.process().filter(|process| processes.is_alive(process)) {
        supervision::request_leave(node, processes)
            .map_err(|error| anyhow::Error::new(error).context(node.id.to_string()))?;
        let deadline = Instant::now() + limit;
        while processes.is_alive(&process) {
            if Instant::now() >= deadline {
                let message =
                    format!("{} has not left after {limit:?}; its process is {}", node.id, process.pid);
                return Err(Failure::new(Exit::NotConverged, message)
                    .hint(format!("`ctl logs {}` shows more, --timeout waits longer", node.id))
                    .into());
            }
            sleep(POLL).await;
        }
    }
    supervision::end_parent(node, processes).await
}

/// What the node is started from, with the wanted binary.
fn start_file(
    node: &NodeRecord,
    record: &ClusterRecord,
    binary: Option<&std::path::Path>,
) -> anyhow::Result<StartFile> {
    let mut start = launch::start_file(node).map_err(|error| {
        Failure::new(Exit::Error, format!("how {} was started is not known: {error:#}", node.id))
            .hint("`ctl up` starts it from the manifest")
    })?;
    if let Some(binary) = binary {
        start.binary = std::path::absolute(agent_bin::find(Some(binary))?)?;
    }
    if !start.binary.is_file() {
        let message = format!("{} is to be started with {}, which is gone", node.id, start.binary.display());
        let remembered = record.agent.clone().filter(|agent| agent.is_file());
        let found = remembered.map_or_else(|| agent_bin::find(None), Ok)?;
        let hint = format!(
            "`ctl start {} --agent-bin {}` starts it with the one that is there now",
            node.id,
            quoted(&found.display().to_string())
        );
        return Err(Failure::new(Exit::Error, message).hint(hint).into());
    }
    Ok(start)
}

/// Starts a node that does not run, and waits until it reports that it is ready.
async fn launch(
    node: &NodeRecord,
    record: &ClusterRecord,
    binary: Option<&std::path::Path>,
    limit: Duration,
    processes: &mut Processes,
) -> anyhow::Result<()> {
    let start = start_file(node, record, binary)?;
    supervision::end_parent(node, processes).await?;
    let _ = std::fs::remove_file(PidFile::beside(&node.start_file()));
    launch::write_start_file(node, &start)?;
    let mut parent = launch::supervise(&start.binary, node, None)?;
    let client = Client::new(&node.url())?.within(ASK_LIMIT);
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = parent.try_wait()? {
            let lines = tail::last_lines(&node.log, LOG_LINES).unwrap_or_default();
            let message =
                format!("{} ended, {status}; the end of its log:\n  {}", node.id, lines.join("\n  "));
            return Err(Failure::new(Exit::Error, message)
                .hint(format!("the whole log is {}", node.log.display()))
                .into());
        }
        let own = client.agent_self().await.ok().filter(|own| own.member.id == node.id);
        let state = own.and_then(|own| own.member.state);
        if state.as_ref().is_some_and(|state| state.phase == Phase::Stopped || does_its_part(state)) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let how = state.map_or_else(
                || "it does not answer".to_owned(),
                |state| format!("it is {}", state.phase_and_reason()),
            );
            return Err(Failure::new(
                Exit::NotConverged,
                format!("{} runs, but after {limit:?} {how}", node.id),
            )
            .hint("`ctl status` shows more")
            .into());
        }
        sleep(POLL).await;
    }
}

fn print(node: &NodeRecord, done: &'static str, common: &CommonArgs, cx: &Cx) -> anyhow::Result<Exit> {
    let mut processes = Processes::new()?;
    let pid = node.process().filter(|process| processes.is_alive(process)).map(|process| process.pid);
    let done = Done { node: &node.id, done, pid };
    cx.out.data(
        common.output.output,
        &done,
        |done| match done.pid {
            Some(pid) => format!("{} {} (process {pid})", done.node, words(done.done)),
            None => format!("{} {}", done.node, words(done.done)),
        },
        |done| vec![done.node.to_string()],
    )?;
    Ok(Exit::Ok)
}

fn words(done: &str) -> &str {
    match done {
        "running" => "runs already",
        "not running" => "was not running",
        done => done,
    }
}
