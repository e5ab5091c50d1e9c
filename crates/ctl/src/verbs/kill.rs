//! `ctl kill`: a signal to a node's process on this machine, to see how the others take it.

use rustix::process::Signal;
use serde::Serialize;
use types::NodeId;

use crate::complete;
use crate::exit::{Exit, Failure};
use crate::out::OutputArg;
use crate::process::{Processes, SignalError, parse_signal, signal_name};
use crate::reach::Cx;
use crate::suggest;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl kill gateway-1
  ctl kill gateway-1 --signal STOP
  ctl kill gateway-1 --signal CONT

It ends at once and without leaving; `ctl leave` is the polite way. `ctl up` starts it again.")]
pub(crate) struct Args {
    /// The node, by its id
    #[arg(add = complete::nodes())]
    node: NodeId,
    /// The signal, by name or number
    #[arg(short, long, default_value = "KILL", value_parser = parse_signal)]
    signal: Signal,
    #[command(flatten)]
    output: OutputArg,
}

#[derive(Serialize)]
struct Killed<'a> {
    node: &'a NodeId,
    pid: u32,
    signal: &'static str,
}

pub(crate) fn run(args: &Args, cx: &Cx) -> anyhow::Result<Exit> {
    let record = cx.local_or_fail()?;
    let Some(node) = record.node(&args.node) else {
        let ids: Vec<_> = record.nodes.iter().map(|node| node.id.as_str()).collect();
        return Err(Failure::new(
            Exit::Error,
            format!("cluster `{}` has no node `{}` here", record.cluster, args.node),
        )
        .hint(suggest::hint(args.node.as_str(), &ids))
        .into());
    };
    let Some(process) = node.process() else {
        return Err(Failure::new(Exit::Error, format!("no process is known of {}", node.id)).into());
    };
    Processes::new()?.signal(&process, args.signal).map_err(|error| match error {
        SignalError::Gone(_) => {
            Failure::new(Exit::Error, format!("{}: {error}; nothing was signalled", node.id))
        }
        SignalError::Refused { source, .. } => {
            Failure::new(Exit::Error, format!("{}: {error}: {source}", node.id))
        }
    })?;
    let killed = Killed { node: &node.id, pid: process.pid, signal: signal_name(args.signal) };
    cx.out.data(
        args.output.output,
        &killed,
        |killed| format!("{}: sent {} to process {}", killed.node, killed.signal, killed.pid),
        |killed| vec![killed.node.to_string()],
    )?;
    Ok(Exit::Ok)
}
