//! A node's two processes, the agent and its parent: how to end them, in this order or that.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::process::{Processes, SignalError};
use crate::record::NodeRecord;

const POLL: Duration = Duration::from_millis(10);
/// How long a parent that has no agent may take to end.
const END_LIMIT: Duration = Duration::from_secs(2);
/// How long a parent that was just started may take to say which agent it has.
const BEGIN_LIMIT: Duration = Duration::from_secs(2);

/// Has a node that runs leave. Its parent is told, which passes it on: an agent that is told twice aborts. One that was
/// stopped must run to leave.
pub(crate) fn tell_to_leave(node: &NodeRecord, processes: &mut Processes) -> Result<(), SignalError> {
    let told = match (node.parent(processes), node.process()) {
        (Some(parent), process) => {
            if let Some(process) = process {
                let _ = processes.signal(&process, Signal::CONT);
            }
            processes.signal(&parent, Signal::TERM).map(|()| parent)
        }
        (None, Some(process)) => processes.signal(&process, Signal::TERM).map(|()| process),
        (None, None) => return Ok(()),
    };
    let told = told?;
    // It may have ended at once.
    let _ = processes.signal(&told, Signal::CONT);
    Ok(())
}

/// Ends the parent of a node that does not run: it may wait to start it again.
pub(crate) async fn end_parent(node: &NodeRecord, processes: &mut Processes) -> anyhow::Result<()> {
    let Some(parent) = node.parent(processes) else { return Ok(()) };
    let mut signal = Signal::TERM;
    loop {
        let told = processes.signal(&parent, signal);
        if let Err(error @ SignalError::Refused { .. }) = told {
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

/// Waits until every parent whose file lies below a run folder has said which agent it has: a ctl that was killed may have
/// started it a moment ago.
pub(crate) async fn settled(run_dir: &Path, processes: &mut Processes) {
    let deadline = Instant::now() + BEGIN_LIMIT;
    for parent in processes.below(run_dir) {
        let pid_file = types::supervision::PidFile::beside(&parent.data_dir);
        while !pid_file.exists() && processes.is_alive(&parent) && Instant::now() < deadline {
            sleep(POLL).await;
        }
    }
}
