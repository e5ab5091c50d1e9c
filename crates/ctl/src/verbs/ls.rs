//! `ctl ls`: the clusters on this machine.

use serde::Serialize;
use types::ClusterId;

use crate::exit::Exit;
use crate::out::{OutputArg, say};
use crate::process::Processes;
use crate::reach::Cx;
use crate::record::{ClusterRecord, LastRun, NodeRecord};
use crate::render;
use crate::state::State;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl ls
  ctl ls -o name")]
pub(crate) struct Args {
    #[command(flatten)]
    output: OutputArg,
}

/// An object that holds the list, like all lists in JSON.
#[derive(Serialize)]
struct Clusters {
    clusters: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    cluster: ClusterId,
    /// For a stopped cluster, the nodes that it had.
    nodes: usize,
    running: usize,
    /// Absent for a stopped one.
    started_at_ms: Option<u64>,
    manifest: String,
    agent: Option<String>,
}

pub(crate) fn run(args: &Args, cx: &Cx) -> anyhow::Result<Exit> {
    let mut processes = Processes::new()?;
    let records = cx.records()?;
    let mut rows: Vec<_> = records.iter().map(|record| row(record, &mut processes)).collect();
    for cluster in cx.state.with_data()? {
        if !records.iter().any(|record| record.cluster == cluster) {
            rows.push(stopped(&cx.state, cluster)?);
        }
    }
    if rows.is_empty() {
        say("no cluster on this machine; `ctl up` starts one");
    }
    let list = Clusters { clusters: rows };
    let shown = |list: &Clusters| table(&list.clusters, render::now_ms());
    cx.out.data(args.output.output, &list, shown, |list| names(&list.clusters))?;
    Ok(Exit::Ok)
}

fn row(record: &ClusterRecord, processes: &mut Processes) -> Row {
    let mut living = record.nodes.iter().filter(|node| node.is_running(processes));
    let agent = living.next().map(NodeRecord::url);
    let running = usize::from(agent.is_some()) + living.count();
    Row {
        cluster: record.cluster.clone(),
        nodes: record.nodes.len(),
        running,
        started_at_ms: Some(record.started_at_ms),
        manifest: record.manifest.display().to_string(),
        agent,
    }
}

/// A stopped cluster that has data here.
fn stopped(state: &State, cluster: ClusterId) -> anyhow::Result<Row> {
    let last = LastRun::load(state, &cluster)?;
    Ok(Row {
        nodes: last.as_ref().map_or(0, |last| last.nodes),
        running: 0,
        started_at_ms: None,
        manifest: last.map_or_else(String::new, |last| last.manifest.display().to_string()),
        agent: None,
        cluster,
    })
}

fn table(rows: &[Row], now_ms: u64) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let cells: Vec<_> = rows
        .iter()
        .map(|row| {
            vec![
                row.cluster.to_string(),
                if row.started_at_ms.is_some() {
                    format!("{}/{}", row.running, row.nodes)
                } else {
                    "stopped".to_owned()
                },
                row.started_at_ms.map_or("-".to_owned(), |at| render::age(now_ms.saturating_sub(at))),
                row.agent.clone().unwrap_or_else(|| "-".to_owned()),
                row.manifest.clone(),
            ]
        })
        .collect();
    render::table(&["CLUSTER", "RUNNING", "UP", "AGENT", "MANIFEST"], &cells)
}

fn names(rows: &[Row]) -> Vec<String> {
    rows.iter().map(|row| row.cluster.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_a_row() {
        let row = |name: &str, running, agent: Option<&str>| Row {
            cluster: name.parse().unwrap(),
            nodes: 5,
            running,
            started_at_ms: Some(1_000),
            manifest: "/m/demo.yaml".to_owned(),
            agent: agent.map(str::to_owned),
        };
        let old = Row { started_at_ms: None, ..row("old", 0, None) };
        let rows = [row("demo", 5, Some("http://127.0.0.1:10000")), row("dead", 0, None), old];
        assert_eq!(
            table(&rows, 61_000),
            "\
CLUSTER  RUNNING  UP  AGENT                   MANIFEST
demo     5/5      1m  http://127.0.0.1:10000  /m/demo.yaml
dead     0/5      1m  -                       /m/demo.yaml
old      stopped  -   -                       /m/demo.yaml"
        );
        assert_eq!(table(&[], 0), "");
    }
}
