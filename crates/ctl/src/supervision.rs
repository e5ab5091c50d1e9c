//! Ends a node's two processes, the agent and its parent.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::process::{Processes, SignalError};
use crate::record::NodeRecord;

const POLL: Duration = Duration::from_millis(10);
/// How long a parent without an agent may take to end.
const END_LIMIT: Duration = Duration::from_secs(2);
/// How long a parent that was just started may take to write down its agent.
const BEGIN_LIMIT: Duration = Duration::from_secs(2);

/// Makes a running node leave. Only its parent is signalled, which passes the signal on: an agent that receives two
/// signals aborts. A paused process must run to leave.
pub(crate) fn request_leave(node: &NodeRecord, processes: &mut Processes) -> Result<(), SignalError> {
    let signalled = match (node.parent(processes), node.process()) {
        (Some(parent), process) => {
            if let Some(process) = process {
                let _ = processes.signal(&process, Signal::CONT);
            }
            processes.signal(&parent, Signal::TERM).map(|()| parent)
        }
        (None, Some(process)) => processes.signal(&process, Signal::TERM).map(|()| process),
        (None, None) => return Ok(()),
    };
    let signalled = signalled?;
    // It may have ended at once.
    let _ = processes.signal(&signalled, Signal::CONT);
    Ok(())
}

/// Ends the parent of a node that does not run: it may be about to restart the node.
pub(crate) async fn end_parent(node: &NodeRecord, processes: &mut Processes) -> anyhow::Result<()> {
    let Some(parent) = node.parent(processes) else { return Ok(()) };
    let mut signal = Signal::TERM;
    loop {
        let sent = processes.signal(&parent, signal);
        if let Err(error @ SignalError::Refused { .. }) = sent {
            return Err(anyhow::Error::new(error).context(format!("the parent of {}", node.id)));
        }
        let _ = processes.signal(&parent, Signal::CONT);
        let deadline = Instant::now() + END_LIMIT;
        while processes.is_alive(&parent) && Instant::now() < deadline {
            sleep(POLL).await;
        }
        if !processes.is_alive(&parent) || signal == Signal::KILL {
            return Ok(());
        }
        signal = Signal::KILL;
    }
}

/// Waits until every parent whose file is below a run folder has written down its agent: a ctl that was killed may have
/// just started it.
pub(crate) async fn settled(run_dir: &Path, processes: &mut Processes) {
    let deadline = Instant::now() + BEGIN_LIMIT;
    for parent in processes.below(run_dir) {
        let pid_file = types::supervision::PidFile::beside(&parent.data_dir);
        while !pid_file.exists() && processes.is_alive(&parent) && Instant::now() < deadline {
            sleep(POLL).await;
        }
    }
}
