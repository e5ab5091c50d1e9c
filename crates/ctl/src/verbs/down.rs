//! `ctl down`: makes every agent leave, kills those that do not, and checks that all have ended.

mod purge;
mod stop;

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use tokio::time::{Instant, sleep};
use types::ClusterId;

use crate::ask;
use crate::exit::{Exit, Failure};
use crate::lock::Lock;
use crate::out::{OutputArg, say};
use crate::ports::{Free, ThisMachine};
use crate::process::Processes;
use crate::reach::{Cx, is_running};
use crate::record::ClusterRecord;
use crate::render;
use crate::state::of_path;
use crate::suggest;
use crate::timeout::Timeout;

const POLL: Duration = Duration::from_millis(10);
/// How long the kernel may take to free the ports of a process that has ended.
const KERNEL_LIMIT: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl down
  ctl down --cluster test --timeout 30s
  ctl down --purge
  ctl down --cluster test --purge --yes

If several clusters run, the one to stop must be named. --purge lists what it will delete and asks first; without a \
terminal it needs --yes. Logs are kept until the next `ctl up`, data folders and the store until --purge; a store that the manifest names stays.")]
pub(crate) struct Args {
    /// How long the agents may take to leave before they are killed, 0s to 365d
    #[arg(long, value_name = "TIME", default_value = "10s")]
    timeout: Timeout,
    /// Remove the data folders, the logs and the store too, unless the manifest names one
    #[arg(long)]
    purge: bool,
    /// Do not ask before --purge deletes
    #[arg(long, requires = "purge")]
    yes: bool,
    #[command(flatten)]
    output: OutputArg,
}

/// The result.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Report {
    cluster: Option<ClusterId>,
    /// Agents that ran and have ended.
    stopped: usize,
    /// Of these, agents that had to be killed.
    killed: usize,
    /// Agents in the record that did not run.
    not_running: usize,
    /// Processes that still run.
    left: Vec<u32>,
    ports_free: usize,
    ports_busy: Vec<String>,
}

pub(crate) async fn run(args: &Args, cx: &Cx) -> anyhow::Result<Exit> {
    if cx.agent.is_some() && cx.cluster.is_none() {
        cx.local_or_fail()?;
    }
    let Some(cluster) = choose(cx)? else {
        if let Some(cluster) = &cx.cluster {
            known(cx, cluster)?;
            if args.purge {
                purge::confirm(cx, cluster, args.yes)?;
                purge::delete(cx, cluster)?;
            }
        } else if args.purge
            && let Some(failure) = purge::which(cx)?
        {
            return Err(failure.into());
        }
        tidy(cx).await?;
        say("nothing is running");
        return print(&Report::default(), args.output, cx);
    };
    if args.purge {
        purge::confirm(cx, &cluster, args.yes)?;
    }
    say(&format!("stopping cluster {cluster}"));
    let lock = Lock::take_to_end(&cx.state.run_dir(&cluster), "ctl down").await?;
    let record = ClusterRecord::load(&cx.state, &cluster)?;
    let stopped = stop::stop(&cx.state, &cluster, record.as_ref(), args.timeout.get()).await?;
    let nodes = record.as_ref().map_or(0, |record| record.nodes.len());
    let ports_busy = if stopped.left.is_empty() { busy_ports(record.as_ref()).await } else { Vec::new() };
    let report = Report {
        cluster: Some(cluster.clone()),
        stopped: stopped.ended,
        killed: stopped.killed,
        not_running: nodes.saturating_sub(stopped.ended + stopped.left.len()),
        left: stopped.left,
        ports_free: if stopped.refused.is_empty() { nodes * 2 - ports_busy.len() } else { 0 },
        ports_busy,
    };
    let is_over = report.left.is_empty() && report.ports_busy.is_empty();
    if is_over {
        // The agents have ended; files that they leave on a disk that cannot be written do no harm. The record is
        // removed last: if it were gone while files of nodes remained, it would be rebuilt.
        let removed = clean(&cx.state.run_dir(&cluster)).and_then(|()| match &record {
            Some(record) => record.retire(&cx.state),
            None => ClusterRecord::remove(&cx.state, &cluster),
        });
        if let Err(error) = removed {
            say(&format!("warning: {error:#}; the agents have ended, their record stays"));
        }
    }
    drop(lock);
    let purged = if is_over && args.purge { purge::delete(cx, &cluster) } else { Ok(()) };
    // Removed only if it is empty.
    let _ = std::fs::remove_dir(cx.state.run_dir(&cluster));
    print(&report, args.output, cx)?;
    purged?;
    if is_over {
        if !args.purge {
            say(&format!(
                "logs are kept in {} until the next `ctl up`",
                cx.state.run_dir(&cluster).display()
            ));
        }
        return Ok(Exit::Ok);
    }
    if !stopped.refused.is_empty() {
        return Err(Failure::new(Exit::Error, stopped.refused.join("; "))
            .hint("run this as the user that started the cluster")
            .into());
    }
    let mut what: Vec<_> = report.left.iter().map(|pid| format!("process {pid} still runs")).collect();
    what.extend(report.ports_busy.iter().map(|port| format!("{port} is still busy")));
    Err(Failure::new(Exit::Error, what.join("; "))
        .hint("`ss -lntup` shows which process has a port; `ctl down` again ends what is left of the cluster")
        .into())
}

/// Fails for a name without anything stored here: a typo would look like a stopped cluster.
fn known(cx: &Cx, cluster: &ClusterId) -> anyhow::Result<()> {
    if cx.state.run_dir(cluster).exists() || cx.state.cluster_data_dir(cluster).exists() {
        return Ok(());
    }
    let clusters = cx.state.clusters()?;
    let names: Vec<_> = clusters.iter().map(ClusterId::as_str).collect();
    Err(Failure::new(Exit::Error, format!("no cluster named `{cluster}` is known on this machine"))
        .hint(suggest::hint(cluster.as_str(), &names))
        .into())
}

/// The named cluster, else the only one that runs, else one that lost its record but not its agents.
fn choose(cx: &Cx) -> anyhow::Result<Option<ClusterId>> {
    if cx.cluster.is_none() {
        let mut processes = Processes::new()?;
        let mut running = cx.records()?;
        running.retain(|record| is_running(record, &mut processes));
        if let [_, _, ..] = running[..] {
            let names: Vec<_> = running.iter().map(|record| record.cluster.as_str()).collect();
            return match ask::choice("which cluster is to be stopped?", &names) {
                Some(chosen) => Ok(Some(running[chosen].cluster.clone())),
                None => Err(Failure::new(Exit::Usage, format!("several clusters run: {}", names.join(", ")))
                    .hint(format!("name the one to stop, as in `ctl down --cluster {}`", names[0]))
                    .into()),
            };
        }
    }
    if let Some(record) = cx.local()? {
        return Ok(Some(record.cluster));
    }
    let data = cx.state.root().join("data");
    let below = match &cx.cluster {
        Some(cluster) => cx.state.cluster_data_dir(cluster),
        None => data.clone(),
    };
    let processes = Processes::new()?.below(&below);
    let names = processes.iter().filter_map(|process| {
        let name = process.data_dir.strip_prefix(&data).ok()?.components().next()?;
        name.as_os_str().to_str()?.parse().ok()
    });
    Ok(names.min())
}

async fn busy_ports(record: Option<&ClusterRecord>) -> Vec<String> {
    let deadline = Instant::now() + KERNEL_LIMIT;
    loop {
        let mut busy = Vec::new();
        for node in record.iter().flat_map(|record| &record.nodes) {
            if !ThisMachine.tcp(node.http) {
                busy.push(format!("TCP port {}", node.http));
            }
            if !ThisMachine.udp(node.gossip) {
                busy.push(format!("UDP port {}", node.gossip));
            }
        }
        if busy.is_empty() || Instant::now() >= deadline {
            return busy;
        }
        sleep(POLL).await;
    }
}

/// Removes the files of a ctl that was killed before it had written a record.
async fn tidy(cx: &Cx) -> anyhow::Result<()> {
    for cluster in cx.state.clusters()? {
        let run_dir = cx.state.run_dir(&cluster);
        let is_named = cx.cluster.as_ref().is_none_or(|named| *named == cluster);
        let is_meant = is_named && !run_dir.join("cluster.json").exists();
        // If the lock can't be taken, its holder is still active.
        if is_meant && let Ok(lock) = Lock::take(&run_dir, "ctl down").await {
            clean(&run_dir)?;
            drop(lock);
            let _ = std::fs::remove_dir(&run_dir);
        }
    }
    Ok(())
}

/// Removes the files that only a running cluster needs; logs stay.
fn clean(run_dir: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(run_dir).map_err(|error| of_path(run_dir, &error))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_of_a_node = [".yaml", ".start", ".pid"].iter().any(|end| name.ends_with(end));
        if is_of_a_node || name.starts_with("cluster.tmp") || name.ends_with(".damaged") {
            std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    Ok(())
}

fn print(report: &Report, output: OutputArg, cx: &Cx) -> anyhow::Result<Exit> {
    cx.out.data(output.output, report, sentence, |report| {
        report.cluster.iter().map(ToString::to_string).collect()
    })?;
    Ok(Exit::Ok)
}

fn sentence(report: &Report) -> String {
    if report.cluster.is_none() {
        return String::new();
    }
    let mut text = format!(
        "stopped {}, {} left, {} free",
        render::count(report.stopped, "agent"),
        report.left.len(),
        render::count(report.ports_free, "port")
    );
    let mut notes = Vec::new();
    if report.killed > 0 {
        notes.push(format!("{} had to be killed", report.killed));
    }
    match report.not_running {
        0 => {}
        1 => notes.push("1 was not running".to_owned()),
        number => notes.push(format!("{number} were not running")),
    }
    if !notes.is_empty() {
        text.push_str(&format!(" ({})", notes.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_gives_numbers() {
        let mut report = Report {
            cluster: Some("demo".parse().unwrap()),
            stopped: 5,
            ports_free: 10,
            ..Report::default()
        };
        assert_eq!(sentence(&report), "stopped 5 agents, 0 left, 10 ports free");
        report.stopped = 1;
        report.killed = 1;
        report.not_running = 4;
        assert_eq!(
            sentence(&report),
            "stopped 1 agent, 0 left, 10 ports free (1 had to be killed, 4 were not running)"
        );
        assert_eq!(sentence(&Report::default()), "");
    }
}
