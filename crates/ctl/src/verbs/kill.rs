//! `ctl kill`: a signal to a node's process on this machine, to see how the cluster reacts.

use std::time::Duration;

use rustix::process::Signal;
use serde::Serialize;
use tokio::time::{Instant, sleep};
use types::NodeId;
use types::supervision::{PidFile, RestartPolicy};

use crate::complete;
use crate::exit::{Exit, Failure};
use crate::launch;
use crate::out::OutputArg;
use crate::process::{ProcessId, Processes, SignalError, parse_signal, signal_name};
use crate::reach::Cx;
use crate::record::NodeRecord;

const POLL: Duration = Duration::from_millis(5);
/// How long the kernel may take to end a killed process.
const KERNEL_LIMIT: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl kill gateway-1
  ctl kill gateway-1 --for-good
  ctl kill gateway-1 --signal STOP
  ctl kill gateway-1 --signal CONT

It ends at once, without leaving, and its parent starts it again unless the manifest says `restart: no`. With \
--for-good it stays stopped until `ctl start` or `ctl up`. For an orderly stop use `ctl stop` or `ctl leave`.")]
pub(crate) struct Args {
    /// The node, by its id
    #[arg(add = complete::nodes())]
    node: NodeId,
    /// The signal, by name or number
    #[arg(short, long, default_value = "KILL", value_parser = parse_signal)]
    signal: Signal,
    /// Do not start it again
    #[arg(long)]
    for_good: bool,
    #[command(flatten)]
    output: OutputArg,
}

#[derive(Serialize)]
struct Killed<'a> {
    node: &'a NodeId,
    pid: u32,
    signal: &'static str,
    /// Whether its parent restarts it if it ends.
    comes_back: bool,
}

pub(crate) async fn run(args: &Args, cx: &Cx) -> anyhow::Result<Exit> {
    let record = cx.local_or_fail()?;
    let node = record.known(&args.node)?;
    let mut processes = Processes::new()?;
    let Some(process) = node.process() else {
        return Err(Failure::new(Exit::Error, format!("no process is known of {}", node.id))
            .hint(format!("`ctl start {}` starts it", node.id))
            .into());
    };
    if args.for_good && processes.is_alive(&process) {
        end_parent(node, &mut processes).await?;
    }
    send(node, &process, args.signal, &mut processes)?;
    let is_deadly =
        !matches!(args.signal, Signal::STOP | Signal::CONT | Signal::HUP | Signal::USR1 | Signal::USR2);
    let is_orderly = matches!(args.signal, Signal::TERM | Signal::INT | Signal::QUIT);
    let policy = launch::start_file(node).map_or(RestartPolicy::No, |start| start.restart);
    let comes_back =
        is_deadly && !is_orderly && policy != RestartPolicy::No && node.parent(&mut processes).is_some();
    let killed = Killed { node: &node.id, pid: process.pid, signal: signal_name(args.signal), comes_back };
    cx.out.data(
        args.output.output,
        &killed,
        |killed| {
            let next = if killed.comes_back {
                format!("; its parent starts it again (`ctl kill {} --for-good` does not)", killed.node)
            } else if is_deadly {
                format!("; `ctl start {}` starts it again", killed.node)
            } else {
                String::new()
            };
            let text = format!("{}: sent {} to process {}{next}", killed.node, killed.signal, killed.pid);
            crate::hints::as_typed(&text)
        },
        |killed| vec![killed.node.to_string()],
    )?;
    Ok(Exit::Ok)
}

fn send(
    node: &NodeRecord,
    process: &ProcessId,
    signal: Signal,
    processes: &mut Processes,
) -> anyhow::Result<()> {
    let failed = |error: SignalError| {
        let (text, hint) = match &error {
            SignalError::Gone(_) => (
                format!("{}: {error}; nothing was signalled", node.id),
                format!("`ctl start {}` starts it", node.id),
            ),
            SignalError::Refused { source, .. } => (
                format!("{}: {error}: {source}", node.id),
                "run this as the user that started the cluster".to_owned(),
            ),
        };
        Failure::new(Exit::Error, text).hint(hint)
    };
    Ok(processes.signal(process, signal).map_err(failed)?)
}

/// Kills the parent, which leaves its agent alive and writes nothing more; its pid file is completed for it.
async fn end_parent(node: &NodeRecord, processes: &mut Processes) -> anyhow::Result<()> {
    let Some(parent) = node.parent(processes) else { return Ok(()) };
    let known = node.pid_file();
    send(node, &parent, Signal::KILL, processes)?;
    let deadline = Instant::now() + KERNEL_LIMIT;
    while processes.is_alive(&parent) && Instant::now() < deadline {
        sleep(POLL).await;
    }
    if let Some(mut known) = known {
        known.parent = None;
        known.over = Some("it was killed with --for-good".to_owned());
        let path = PidFile::beside(&node.start_file());
        // Without it, only `ctl status` reports less.
        let _ = std::fs::write(path, serde_json::to_vec(&known)?);
    }
    Ok(())
}
