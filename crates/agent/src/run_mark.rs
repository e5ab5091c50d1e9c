//! The mark that an agent leaves in its data folder for the parent that may restart it.

use std::path::Path;

use runtime::{DataDirError, Node, NodeError};
use types::Phase;
use types::supervision::{LAST_END, RESTARTS, RunEnd, RunMark};

/// How often this node's process was restarted, and why it ended the last time.
pub(crate) fn earlier_ends() -> (u64, Option<String>) {
    let restarts = std::env::var(RESTARTS).ok().and_then(|text| text.parse().ok()).unwrap_or_default();
    (restarts, std::env::var(LAST_END).ok().filter(|_| restarts > 0))
}

/// Waits until the role is ready for the first time, and records that.
pub(crate) async fn when_ready(node: &Node) {
    let mut view = node.view();
    let is_ready = |phase| matches!(phase, Phase::Ready | Phase::Degraded | Phase::Stopped);
    let ready = view.wait_for(|view| {
        let state = view.member(node.id()).and_then(|member| member.state.as_ref());
        state.is_some_and(|state| is_ready(state.phase))
    });
    if ready.await.is_ok() {
        write(Path::new(node.data_dir()), true, None);
    }
}

/// Records how the process ends. Nothing is written to a folder that another agent may be using.
pub(crate) fn ended(data_dir: &Path, outcome: &anyhow::Result<()>) {
    let (code, reason, is_final) = match outcome {
        Ok(()) => (0, None, true),
        Err(error) => {
            let node = error.downcast_ref::<NodeError>();
            if matches!(node, None | Some(NodeError::DataDir(DataDirError::InUse { .. }))) {
                return;
            }
            let is_final =
                matches!(node, Some(NodeError::Listen(_) | NodeError::IdTaken { .. } | NodeError::Store(_)));
            (crate::exit_code(error), Some(crate::in_full(error)), is_final)
        }
    };
    let was_ready = read(data_dir).is_some_and(|mark| mark.pid == std::process::id() && mark.was_ready);
    write(data_dir, was_ready, Some(RunEnd { code, reason, is_final }));
}

fn read(data_dir: &Path) -> Option<RunMark> {
    serde_json::from_slice(&std::fs::read(data_dir.join(RunMark::FILE)).ok()?).ok()
}

/// Writes the mark atomically. If that fails, as on a full disk, the exit code still shows an orderly end.
fn write(data_dir: &Path, was_ready: bool, end: Option<RunEnd>) {
    let mark = RunMark { pid: std::process::id(), was_ready, end };
    let path = data_dir.join(RunMark::FILE);
    let temporary = path.with_extension("tmp");
    let written = serde_json::to_vec(&mark)
        .map_err(std::io::Error::from)
        .and_then(|text| std::fs::write(&temporary, text))
        .and_then(|()| std::fs::rename(&temporary, &path));
    if let Err(error) = written {
        tracing::debug!(%error, "the run mark can't be written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_of_an_end_still_shows_that_the_role_was_ready() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), true, None);
        ended(folder.path(), &Ok(()));
        let mark = read(folder.path()).unwrap();
        assert!(mark.was_ready);
        assert_eq!(mark.end, Some(RunEnd { code: 0, reason: None, is_final: true }));
        ended(folder.path(), &Err(NodeError::Aborted.into()));
        assert_eq!(read(folder.path()).unwrap().end.unwrap().code, 130);
    }
}
