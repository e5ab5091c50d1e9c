//! The report as one screen. Pure.

use std::collections::BTreeMap;

use types::api::Member;

use super::{Missing, Process, Report};
use crate::render;

pub(super) fn names(report: &Report) -> Vec<String> {
    report.members.iter().map(|member| member.id.to_string()).collect()
}

pub(super) fn screen(report: &Report, color: bool) -> String {
    let mut text = format!(
        "cluster {}, as seen by {}: {}",
        report.cluster,
        report.viewed_by,
        render::count(report.members.len(), "member")
    );
    for (phase, number) in by_phase(&report.members) {
        text.push_str(&format!(", {number} {phase}"));
    }
    text.push_str("\n\n");
    text.push_str(&services(report));
    let endpoints: Vec<_> = report
        .members
        .iter()
        .map(|member| (member, render::endpoints(member)))
        .filter(|(_, endpoints)| !endpoints.is_empty())
        .map(|(member, endpoints)| format!("{}: {endpoints}", member.id))
        .collect();
    list(&mut text, "endpoints", &endpoints, "1", color);
    list(&mut text, "warnings", &report.warnings, "31", color);
    list(&mut text, "notes", &report.notes, "36", color);
    list(&mut text, "drift", &report.drift, "36", color);
    list(&mut text, "insecure defaults", &report.insecure, "33", color);
    text
}

fn list(text: &mut String, title: &str, items: &[String], code: &str, color: bool) {
    if items.is_empty() {
        return;
    }
    if color {
        text.push_str(&format!("\n\n\x1b[{code}m{title}\x1b[0m"));
    } else {
        text.push_str(&format!("\n\n{title}"));
    }
    for item in items {
        text.push_str(&format!("\n  - {}", render::clean(item)));
    }
}

fn by_phase(members: &[Member]) -> BTreeMap<&'static str, usize> {
    let mut phases = BTreeMap::new();
    for member in members {
        *phases.entry(render::phase(member)).or_default() += 1;
    }
    phases
}

/// One row for each role, with the nodes that have it and those that should. For replicas, the wanted number is known.
fn services(Report { members, missing, wanted_replicas, .. }: &Report) -> String {
    let mut roles: BTreeMap<String, (Vec<&Member>, Vec<&Missing>)> = BTreeMap::new();
    for member in members {
        roles.entry(render::role(member)).or_default().0.push(member);
    }
    for node in missing {
        roles.entry(node.role.to_string()).or_default().1.push(node);
    }
    let rows: Vec<_> = roles
        .iter()
        .map(|(role, (members, missing))| {
            let ready = members.iter().filter(|member| render::is_ready(member)).count();
            let mut ids: Vec<_> = members.iter().map(|member| member.id.to_string()).collect();
            ids.extend(missing.iter().map(|missing| format!("{} ({})", missing.node, word(missing.process))));
            let wanted = wanted_replicas.get(role).copied().unwrap_or(ids.len());
            vec![role.clone(), format!("{ready}/{wanted}"), ids.join(" ")]
        })
        .collect();
    render::table(&["ROLE", "READY", "MEMBERS"], &rows)
}

fn word(process: Process) -> &'static str {
    match process {
        Process::Ended(_) => "gone",
        Process::Stopped(_) => "paused",
        Process::Running => "not seen",
    }
}
