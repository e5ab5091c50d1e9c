//! Ended and restarted processes, and versions that differ.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use types::NodeId;
use types::api::Member;
use types::supervision::PidFile;

use crate::process::Processes;
use crate::record::{ClusterRecord, NodeRecord};
use crate::render;

/// Why a node's process has ended, and what happens next.
pub(super) fn gone(id: &NodeId, pid: u32, node: Option<&NodeRecord>) -> String {
    let has_parent =
        |node: &NodeRecord| Processes::new().is_ok_and(|mut processes| node.parent(&mut processes).is_some());
    let pid_file = node.and_then(NodeRecord::pid_file);
    words(id, pid, pid_file.as_ref(), node.is_some_and(has_parent))
}

fn words(id: &NodeId, pid: u32, pid_file: Option<&PidFile>, has_parent: bool) -> String {
    let end = pid_file.and_then(|pid_file| pid_file.last_end.as_deref());
    match (pid_file.and_then(|pid_file| pid_file.over.as_deref()), end) {
        (Some(why), Some(end)) if !has_parent => {
            format!(
                "{id} is gone: {end}; it is not started again: {why}; `ctl logs {id}` shows more, `ctl start {id}` starts it"
            )
        }
        (Some(why), None) => format!("{id} is stopped: {why}; `ctl start {id}` starts it"),
        (_, Some(end)) if has_parent => {
            format!("{id} is down: {end}; its parent starts it again shortly")
        }
        _ => format!(
            "{id} is gone: its process {pid} ended without leaving; `ctl logs {id}` shows its end, `ctl up` starts it"
        ),
    }
}

/// Notes on members that were restarted, and on differing versions.
pub(super) fn notes(members: &[Member]) -> Vec<String> {
    let mut notes: Vec<_> = members
        .iter()
        .filter(|member| member.about.restarts > 0)
        .map(|member| {
            let times = usize::try_from(member.about.restarts).unwrap_or(usize::MAX);
            let why = member.about.last_end.as_deref().unwrap_or("for a reason that is not known");
            format!("{} was started again {}; it had ended: {why}", member.id, render::count(times, "time"))
        })
        .collect();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for member in members {
        versions.entry(&member.about.version).or_default().push(member.id.as_str());
    }
    if versions.len() > 1
        && let Some(first) = versions.values().flatten().next()
    {
        let each: Vec<_> =
            versions.iter().map(|(version, nodes)| format!("{version} ({})", nodes.join(", "))).collect();
        notes.push(format!(
            "the members run {} versions: {}; `ctl restart {first}` starts that node with the binary that is there now",
            versions.len(),
            each.join(", ")
        ));
    }
    notes
}

/// Nodes of this machine whose binary was replaced since they were started.
pub(super) fn replaced(record: &ClusterRecord) -> Option<String> {
    let nodes: BTreeSet<_> = record
        .nodes
        .iter()
        .filter(|node| node.process().is_some_and(|process| is_replaced(process.pid)))
        .map(|node| node.id.as_str())
        .collect();
    let first = nodes.first()?;
    let names: Vec<_> = nodes.iter().copied().collect();
    Some(format!(
        "the binary was replaced since these were started: {}; `ctl restart {first}` uses the one that is there now",
        names.join(", ")
    ))
}

fn is_replaced(pid: u32) -> bool {
    let exe = std::fs::read_link(format!("/proc/{pid}/exe"));
    exe.is_ok_and(|exe| exe.to_string_lossy().ends_with(" (deleted)") && !Path::new(&exe).exists())
}

#[cfg(test)]
mod tests {
    use types::Phase;

    use super::*;
    use crate::render::tests::member;

    #[test]
    fn an_end_is_reported_with_its_reason_and_what_happens_next() {
        let id = "n".parse().unwrap();
        let file = |end: Option<&str>, over: Option<&str>| PidFile {
            agent: None,
            parent: None,
            restarts: 1,
            last_end: end.map(str::to_owned),
            over: over.map(str::to_owned),
        };
        let killed = Some("killed by SIGKILL");
        for (pid_file, has_parent, expected) in [
            (None, false, "n is gone: its process 7 ended without leaving"),
            (Some(file(killed, None)), true, "n is down: killed by SIGKILL; its parent starts it again"),
            (Some(file(killed, Some("too often"))), false, "it is not started again: too often"),
            (Some(file(None, Some("it left"))), false, "n is stopped: it left; `ctl start n` starts it"),
            (Some(file(killed, None)), false, "n is gone: its process 7 ended without leaving"),
        ] {
            let words = words(&id, 7, pid_file.as_ref(), has_parent);
            assert!(words.contains(expected), "{words}");
        }
    }

    #[test]
    fn restarts_and_mixed_versions_are_noted() {
        let mut a = member("a", "standby", Phase::Ready);
        let mut b = member("b", "standby", Phase::Ready);
        assert_eq!(notes(&[a.clone(), b.clone()]), Vec::<String>::new());
        a.about.version = "1.0.0".to_owned();
        b.about.version = "1.1.0".to_owned();
        b.about.restarts = 2;
        b.about.last_end = Some("killed by SIGKILL".to_owned());
        assert_eq!(
            notes(&[a, b]),
            [
                "b was started again 2 times; it had ended: killed by SIGKILL",
                "the members run 2 versions: 1.0.0 (a), 1.1.0 (b); `ctl restart a` starts that node with the binary that is there now",
            ]
        );
    }
}
