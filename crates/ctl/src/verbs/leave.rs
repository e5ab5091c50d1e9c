//! `ctl leave`: makes a node leave the cluster and its process end.

use std::time::Duration;

use client::{Client, Leaving};
use tokio::time::{Instant, sleep};
use types::NodeId;

use crate::complete;
use crate::exit::{Exit, Failure};
use crate::lock::Lock;
use crate::out::{OutputArg, say};
use crate::process::Processes;
use crate::reach::{Cx, Reached};
use crate::record::ClusterRecord;
use crate::timeout::Timeout;

const POLL: Duration = Duration::from_millis(20);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl leave standby-3
  ctl leave standby-3 --timeout 30s

`ctl up` starts it again.")]
pub(crate) struct Args {
    /// The node, by its id
    #[arg(add = complete::nodes())]
    node: NodeId,
    /// How long to wait until it is gone, 0s to 365d
    #[arg(long, value_name = "TIME", default_value = "15s")]
    timeout: Timeout,
    #[command(flatten)]
    output: OutputArg,
}

pub(crate) async fn run(args: &Args, cx: &Cx) -> anyhow::Result<Exit> {
    let reached = cx.reach().await?;
    let leaving = match reached.commands().leave(&args.node).await {
        Ok(leaving) => leaving,
        Err(error) => return Err(reached.explain_unknown(&args.node, None, error).await),
    };
    let deadline = Instant::now() + args.timeout.get();
    let observer = observer(&reached, &leaving).await;
    let process = reached.record.as_ref().and_then(|record| record.node(&leaving.node)?.process());
    let mut processes = Processes::new()?;
    loop {
        let is_seen = is_seen(observer.as_ref(), &leaving).await;
        let is_running = process.as_ref().is_some_and(|process| processes.is_alive(process));
        if !is_seen && !is_running {
            break;
        }
        if Instant::now() >= deadline {
            let what = if is_running { "its process still runs" } else { "it is still seen" };
            return Err(Failure::new(
                Exit::NotConverged,
                format!("{} agreed to leave, but after {:?} {what}", leaving.node, args.timeout.get()),
            )
            .hint("`ctl members` shows whether it is still there; --timeout waits longer")
            .into());
        }
        sleep(POLL).await;
    }
    forget(&reached, &leaving, cx).await?;
    cx.out.data(
        args.output.output,
        &leaving,
        |leaving| format!("{} left", leaving.node),
        |leaving| vec![leaving.node.to_string()],
    )?;
    Ok(Exit::Ok)
}

/// A member that stays and sees when the node is gone: the agent that answered, unless it is the one that leaves.
async fn observer(reached: &Reached, leaving: &Leaving) -> Option<Client> {
    let view = reached.client.members().await.ok()?;
    if view.viewed_by != leaving.node {
        return Some(reached.client.clone());
    }
    let other = view.members.iter().find(|member| member.id != leaving.node)?;
    reached.client.at(&other.http).ok()
}

async fn is_seen(observer: Option<&Client>, leaving: &Leaving) -> bool {
    let Some(observer) = observer else { return false };
    // If the observer does not answer, nothing contradicts that the node is gone.
    let Ok(view) = observer.members().await else {
        return false;
    };
    view.members.iter().any(|member| member.id == leaving.node && member.generation <= leaving.generation)
}

/// Removes the node from the record: `ctl status` must not report a node that left on purpose as missing.
async fn forget(reached: &Reached, leaving: &Leaving, cx: &Cx) -> anyhow::Result<()> {
    let Some(record) = &reached.record else {
        return Ok(());
    };
    let _lock = match Lock::take(&cx.state.run_dir(&record.cluster), "ctl leave").await {
        Ok(lock) => lock,
        Err(error) => {
            say(&format!("warning: `ctl status` will miss {}: {error}", leaving.node));
            return Ok(());
        }
    };
    if let Some(mut record) = ClusterRecord::load(&cx.state, &record.cluster)? {
        if let Some(node) = record.node(&leaving.node) {
            node.remove_files();
        }
        record.drop_node(&leaving.node);
        if record.nodes.is_empty() {
            record.retire(&cx.state)?;
        } else {
            record.save(&cx.state)?;
        }
    }
    Ok(())
}
