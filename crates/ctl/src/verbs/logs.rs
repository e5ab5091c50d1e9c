//! `ctl logs`: the logs of nodes on this machine, including ended ones.

mod lines;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use tokio::task::yield_now;
use tokio::time::sleep;
use types::range::NumberIn;
use types::{ClusterId, NodeId};

use crate::aside::aside;
use crate::complete;
use crate::exit::{Exit, Failure};
use crate::out::{StreamFormat, StreamOutputArg, reader_gone};
use crate::reach::Cx;
use crate::state::of_path;
use crate::suggest;
use crate::tail::{Reader, Search};
use crate::verbs::logs::lines::{Lines, Part};

const POLL: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl logs
  ctl logs gateway-1 -n 100
  ctl logs gateway-1 standby-1
  ctl logs -f
  ctl logs -f -o json | jq -r .line

An agent rotates its log at 10 MiB and keeps five files of it; they are read as one. With -o json a line of more than \
64 KiB comes in parts, all but the last with \"continues\": true.")]
pub(crate) struct Args {
    /// The nodes; all of them if none is named
    #[arg(value_name = "NODE", add = complete::nodes())]
    nodes: Vec<NodeId>,
    /// Keep showing new lines, until ^C
    #[arg(short, long)]
    follow: bool,
    /// How many of the last lines of each node to begin with, up to 100000000
    #[arg(short = 'n', long, default_value_t = NumberIn::of::<20>(), value_name = "N")]
    lines: NumberIn<0, 100_000_000>,
    #[command(flatten)]
    output: StreamOutputArg,
}

#[derive(Serialize)]
struct Line<'a> {
    node: &'a NodeId,
    line: &'a str,
    /// Whether the next value continues the same line.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    continues: bool,
}

pub(crate) async fn run(args: &Args, cx: &Cx) -> anyhow::Result<Exit> {
    let cluster = cluster_with_logs(cx)?;
    let folder = cx.state.run_dir(&cluster);
    let logs = logs_in(&folder)?;
    let chosen = choose(&logs, &args.nodes, &cluster)?;
    let is_one = args.nodes.len() == 1;
    let width = if is_one { None } else { chosen.iter().map(|(id, _)| id.as_str().len()).max() };
    let mut printer = Printer { format: args.output.output, width, color: cx.out.color, open: None };
    let mut sources = Vec::new();
    for (id, path) in chosen {
        let mut search = Search::new(&path, args.lines.as_usize())?;
        while !search.step()? {
            // A long log takes long; yielding lets ^C in.
            yield_now().await;
        }
        let mut source = Source { id, reader: search.reader(), lines: Lines::default() };
        source.print(&mut printer).await?;
        if !args.follow
            && let Some(rest) = source.lines.finish()
        {
            printer.print(&source.id, &[rest]).await?;
        }
        sources.push(source);
    }
    if !args.follow {
        return Ok(Exit::Ok);
    }
    tokio::select! {
        biased;
        gone = reader_gone() => Err(gone.into()),
        followed = follow(sources, args, &folder, &mut printer) => followed,
    }
}

/// Prints what is added to the logs; returns only on an error.
async fn follow(
    mut sources: Vec<Source>,
    args: &Args,
    folder: &Path,
    printer: &mut Printer,
) -> anyhow::Result<Exit> {
    loop {
        sleep(POLL).await;
        for source in &mut sources {
            source.print(printer).await?;
        }
        if args.nodes.is_empty() {
            // The logs of nodes that were started since are read from their start.
            for (id, path) in logs_in(folder)? {
                if !sources.iter().any(|source| source.reader.path() == path) {
                    sources.push(Source { id, reader: Reader::from_start(path), lines: Lines::default() });
                }
            }
        }
    }
}

/// The log of a node.
#[derive(Debug)]
struct Source {
    id: NodeId,
    reader: Reader,
    lines: Lines,
}

impl Source {
    /// Prints what can be read now.
    async fn print(&mut self, printer: &mut Printer) -> anyhow::Result<()> {
        while let Some(piece) = self.reader.next()? {
            printer.print(&self.id, &self.lines.push(&piece)).await?;
            yield_now().await;
        }
        Ok(())
    }
}

/// Standard output, and the state of the last line.
#[derive(Debug)]
struct Printer {
    format: StreamFormat,
    /// The width of the names before the lines, if there are any.
    width: Option<usize>,
    color: bool,
    /// The node whose line has not ended yet.
    open: Option<NodeId>,
}

impl Printer {
    /// Prints lines of a node. A reader that does not read does not delay ^C.
    async fn print(&mut self, id: &NodeId, parts: &[Part]) -> anyhow::Result<()> {
        let mut text = String::new();
        for part in parts {
            self.put(id, part, &mut text)?;
        }
        if text.is_empty() {
            return Ok(());
        }
        aside(move || {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(text.as_bytes())?;
            stdout.flush()?;
            anyhow::Ok(())
        })
        .await
    }

    fn put(&mut self, id: &NodeId, part: &Part, text: &mut String) -> anyhow::Result<()> {
        if self.format == StreamFormat::Json {
            let line = Line { node: id, line: &part.text, continues: !part.is_end };
            text.push_str(&serde_json::to_string(&line)?);
            text.push('\n');
            return Ok(());
        }
        let is_open = self.open.as_ref() == Some(id);
        if !is_open && self.open.take().is_some() {
            text.push('\n');
        }
        match self.width {
            Some(width) if !(is_open && part.is_continued) => {
                text.push_str(&prefixed(id, &part.text, width, self.color));
            }
            _ => text.push_str(&part.text),
        }
        if part.is_end {
            text.push('\n');
        }
        self.open = (!part.is_end).then(|| id.clone());
        Ok(())
    }
}

fn prefixed(id: &NodeId, line: &str, width: usize, color: bool) -> String {
    if !color {
        return format!("{id:<width$} | {line}");
    }
    let sum: usize = id.as_str().bytes().map(usize::from).sum();
    let code = 31 + sum % 6;
    format!("\x1b[{code}m{id:<width$} |\x1b[0m {line}")
}

/// The named cluster, else the local one, else the one with the latest logs, which outlive `ctl down`.
fn cluster_with_logs(cx: &Cx) -> anyhow::Result<ClusterId> {
    if let Some(cluster) = &cx.cluster {
        return Ok(cluster.clone());
    }
    if cx.agent.is_some() {
        return Ok(cx.local_or_fail()?.cluster);
    }
    if let Some(record) = cx.local()? {
        return Ok(record.cluster);
    }
    let mut newest = None;
    for cluster in cx.state.clusters()? {
        for (_, path) in logs_in(&cx.state.run_dir(&cluster))? {
            let at = std::fs::metadata(&path).and_then(|about| about.modified());
            let at = at.map_err(|error| of_path(&path, &error))?;
            if newest.as_ref().is_none_or(|(newest, _)| at > *newest) {
                newest = Some((at, cluster.clone()));
            }
        }
    }
    match newest {
        Some((_, cluster)) => Ok(cluster),
        None => Ok(cx.local_or_fail()?.cluster),
    }
}

/// Every log in a run folder, by node.
fn logs_in(folder: &Path) -> anyhow::Result<Vec<(NodeId, PathBuf)>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(of_path(folder, &error).into()),
    };
    let mut logs = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let id = name.and_then(|name| name.strip_suffix(".log")).and_then(|id| id.parse().ok());
        logs.extend(id.map(|id: NodeId| (id, path)));
    }
    logs.sort();
    Ok(logs)
}

fn choose(
    logs: &[(NodeId, PathBuf)],
    nodes: &[NodeId],
    cluster: &ClusterId,
) -> Result<Vec<(NodeId, PathBuf)>, Failure> {
    if logs.is_empty() {
        return Err(Failure::new(Exit::Error, format!("cluster `{cluster}` has no logs on this machine"))
            .hint("`ctl ls` shows the clusters of this machine"));
    }
    let has_log = |node: &NodeId| logs.iter().any(|(id, _)| id == node);
    if let Some(unknown) = nodes.iter().find(|node| !has_log(node)) {
        let ids: Vec<_> = logs.iter().map(|(id, _)| id.as_str()).collect();
        return Err(Failure::new(Exit::Error, format!("cluster `{cluster}` has no log of `{unknown}`"))
            .hint(suggest::hint(unknown.as_str(), &ids)));
    }
    let is_chosen = |(id, _): &&(NodeId, PathBuf)| nodes.is_empty() || nodes.contains(id);
    Ok(logs.iter().filter(is_chosen).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_several_nodes_begin_with_the_node() {
        let id: NodeId = "n1".parse().unwrap();
        assert_eq!(prefixed(&id, "hello", 4, false), "n1   | hello");
        assert!(prefixed(&id, "hello", 4, true).ends_with("mn1   |\x1b[0m hello"));
    }

    #[test]
    fn logs_are_found_by_node_and_a_typo_gets_a_suggestion() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["n.1.log", "n2.log", "n2.yaml", "cluster.json", "lock"] {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        let logs = logs_in(dir.path()).unwrap();
        let ids: Vec<_> = logs.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids, ["n.1", "n2"]);
        let cluster = "c".parse().unwrap();
        let node: NodeId = "n3".parse().unwrap();
        assert_eq!(choose(&logs, &[], &cluster).unwrap().len(), 2);
        assert_eq!(
            choose(&logs, &[logs[0].0.clone(), node], &cluster).unwrap_err(),
            Failure::new(Exit::Error, "cluster `c` has no log of `n3`").hint("did you mean `n2`?")
        );
    }
}
