//! `ctl up`: starts a cluster on this machine, or its missing nodes, and returns once every node sees every node.

mod apply;
mod bring_up;
mod placement;
mod record;
mod report;
mod restore;
mod running;
mod source;

use std::path::{Path, PathBuf};

use anyhow::Context;
use tokio::time::Instant;
use types::{ClusterId, NodeId};

use crate::agent_bin;
use crate::exit::{Exit, explain};
use crate::hints::{self, Meant};
use crate::interrupt::Interrupt;
use crate::lock::Lock;
use crate::manifest_file::{self, Loaded};
use crate::out::{Format, OutputArg, StreamFormat, say};
use crate::reach::Cx;
use crate::render;
use crate::start::Starter;
use crate::timeout::Timeout;
use crate::verbs::events;
use crate::verbs::up::bring_up::bring_up;
use crate::verbs::up::record::{record, remove_logs};
use crate::verbs::up::report::print;

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

It prints the warnings of `ctl validate` on stderr and continues.

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
    loaded.warn();
    Ok((file, loaded, binary))
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
}
