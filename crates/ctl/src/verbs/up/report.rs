//! The report of `ctl up`: what was done, what differs from the manifest, what to try next.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;
use types::api::Member;
use types::{ClusterId, NodeId, PendingSpec, Phase, Post, Role, ServiceName};

use crate::dropped;
use crate::exit::Exit;
use crate::hints;
use crate::listens::Listens;
use crate::out::{OutputArg, say};
use crate::reach::Cx;
use crate::render;
use crate::spec_diff::Changed;

/// What was done, and the result.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) cluster: ClusterId,
    /// Settings that this run changed on the store.
    pub(super) changed: Vec<Changed>,
    /// The fixed addresses that services bind.
    #[serde(skip)]
    pub(super) listens: Listens,
    pub(super) started: Vec<NodeId>,
    pub(super) running_before: Vec<NodeId>,
    pub(super) drift: Vec<DriftRow>,
    pub(super) outdated: Vec<Outdated>,
    /// Nodes that have applied new settings while they ran.
    pub(super) applied: Vec<AppliedSpec>,
    /// Nodes that run with other settings than those on the store now, or fail with these.
    pub(super) outdated_specs: Vec<OutdatedSpec>,
    /// Nodes that run but are not in the manifest.
    pub(super) extra: Vec<NodeId>,
    /// Services that have a spec and are not in the manifest.
    pub(super) dropped: Vec<ServiceName>,
    pub(super) took_ms: u64,
    pub(super) insecure: Vec<String>,
    pub(super) members: Vec<Member>,
}

/// A node whose role differs from its manifest.
#[derive(Debug, Serialize)]
pub(super) struct DriftRow {
    pub(super) node: NodeId,
    pub(super) wanted: Role,
    /// In words.
    pub(super) found: String,
    pub(super) restored: bool,
}

/// A node that was started with something else than its manifest says now.
#[derive(Debug, Serialize)]
pub(super) struct Outdated {
    pub(super) node: NodeId,
    /// In words.
    pub(super) runs_with: String,
    pub(super) restarted: bool,
}

/// A node that runs with an older spec than the store has, or whose role has failed.
#[derive(Debug, Serialize)]
pub(super) struct OutdatedSpec {
    pub(super) node: NodeId,
    pub(super) service: ServiceName,
    pub(super) runs_with: Option<u64>,
    pub(super) latest: u64,
    /// Whether `--reset` has restarted its role with the latest one.
    pub(super) renewed: bool,
    #[serde(skip)]
    pub(super) is_running: bool,
    /// Why its role has failed, if it has. It is started again after a pause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) failed: Option<String>,
    /// Why it was not applied: `needs_restart` or `why`. Absent if the node has not read it yet, or runs nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pending: Option<PendingSpec>,
}

/// A node that has applied a spec while it ran.
#[derive(Debug, Serialize)]
pub(super) struct AppliedSpec {
    pub(super) node: NodeId,
    pub(super) service: ServiceName,
    pub(super) spec: u64,
}

impl OutdatedSpec {
    /// What came of it.
    fn exit(&self) -> Exit {
        let is_read = self.pending.as_ref().filter(|pending| pending.spec >= self.latest);
        match is_read {
            _ if self.renewed || !self.is_running => Exit::Ok,
            _ if self.failed.is_some() => Exit::Error,
            Some(PendingSpec { why: Some(_), .. }) => Exit::Error,
            Some(PendingSpec { why: None, .. }) => Exit::Ok,
            None => Exit::NotConverged,
        }
    }

    fn in_words(&self) -> String {
        let Self { node, service, latest, pending, .. } = self;
        if self.renewed {
            return format!("renewed: {node} runs with spec {latest} of {service} now");
        }
        if let Some(reason) = &self.failed {
            let reason = if reason.is_empty() { "its agent gives no reason" } else { reason.as_str() };
            return format!("failed: {node} does not run {service}: {}", render::clean(reason));
        }
        match pending.as_ref().filter(|pending| pending.spec >= *latest) {
            _ if !self.is_running => {
                format!(
                    "drift: {node} is stopped, and gets the new settings of {service} when its role starts"
                )
            }
            Some(PendingSpec { why: Some(why), .. }) => {
                format!("failed: {node} keeps its old settings of {service}: {}", render::clean(why))
            }
            Some(pending) => format!(
                "drift: {node} keeps its old settings of {service}, since {}; `ctl up --reset` restarts its role with the \
                 new ones",
                render::clean(&pending.restart_in_words())
            ),
            None => format!(
                "waiting: {node} has not applied the new settings of {service} in time; `ctl status` shows whether it has"
            ),
        }
    }
}

impl Report {
    /// Whether every node runs with the settings that it can run with.
    pub(super) fn exit(&self) -> Exit {
        let exits: Vec<_> = self.outdated_specs.iter().map(OutdatedSpec::exit).collect();
        let worst = [Exit::Error, Exit::NotConverged].into_iter().find(|exit| exits.contains(exit));
        worst.unwrap_or(Exit::Ok)
    }
}

pub(super) fn print(report: &Report, output: OutputArg, cx: &Cx) -> anyhow::Result<()> {
    cx.out.data(
        output.output,
        report,
        |report| render::members_table(&report.members, render::now_ms(), cx.out.color, cx.out.columns),
        |report| report.members.iter().map(|member| member.id.to_string()).collect(),
    )?;
    say(&notes(report));
    Ok(())
}

/// The time it took, what differs, what is insecure, what to try next.
fn notes(report: &Report) -> String {
    let seconds = Duration::from_millis(report.took_ms).as_secs_f64();
    let mut lines = vec![if report.started.is_empty() {
        format!(
            "cluster {}: nothing to start, {} up",
            report.cluster,
            render::count(report.running_before.len(), "agent")
        )
    } else {
        format!(
            "cluster {}: started {}, every node sees every node ready after {seconds:.2} s",
            report.cluster,
            render::count(report.started.len(), "agent")
        )
    }];
    lines.extend(
        report.changed.iter().map(|changed| format!("changed: {}", render::clean(&changed.to_string()))),
    );
    for drift in &report.drift {
        let DriftRow { node, wanted, found, .. } = drift;
        lines.push(if drift.restored {
            format!("restored: {node} was {found}, is {wanted} again")
        } else {
            format!("drift: {node} is {found}, the manifest says {wanted}; `ctl up --reset` restores it")
        });
    }
    for Outdated { node, runs_with, restarted } in &report.outdated {
        lines.push(if *restarted {
            format!("restarted: {node} ran with {runs_with} than the manifest's")
        } else {
            format!("drift: {node} runs with {runs_with} than the manifest's; `ctl up --reset` restarts it")
        });
    }
    for AppliedSpec { node, service, .. } in &report.applied {
        lines.push(format!("applied: {node} runs with the new settings of {service}"));
    }
    lines.extend(report.outdated_specs.iter().map(OutdatedSpec::in_words));
    for node in &report.extra {
        lines.push(format!("extra: {node} runs but is not in the manifest; `ctl leave {node}` ends it"));
    }
    for service in &report.dropped {
        lines.push(format!("kept: {}", dropped::in_words(service)));
    }
    for default in &report.insecure {
        lines.push(format!("insecure: {}", render::clean(default)));
    }
    lines.push(String::new());
    lines.push("try next:".to_owned());
    lines.extend(suggestions(report).iter().map(|line| format!("  {line}")));
    lines.join("\n")
}

fn suggestions(report: &Report) -> Vec<String> {
    let cluster = &report.cluster;
    let mut lines = vec![hints::command(&format!("status --cluster {cluster}"))];
    lines.extend(role_change(report).map(|change| hints::command(&change)));
    let services: BTreeSet<_> = of_type(report, "storage").collect();
    if services.iter().any(|service| service.as_str() == "storage") || services.len() == 1 {
        lines.push(hints::command("kv put greeting hello"));
    } else if let Some(service) = services.first() {
        lines.push(hints::command(&format!("kv --service {service} put greeting hello")));
    }
    if let Some(member) = report.members.first() {
        lines.push(format!("curl {}/v1/members", member.http));
    }
    lines.push(hints::command(&format!("down --cluster {cluster}")));
    lines
}

/// The services of a type that some member runs.
fn of_type<'a>(report: &'a Report, wanted: &'a str) -> impl Iterator<Item = &'a ServiceName> {
    let states = report.members.iter().filter_map(|member| member.state.as_ref());
    let of_type = states.filter(move |state| state.service_type().is_some_and(|of| of.as_str() == wanted));
    of_type.filter_map(|state| state.role.service())
}

/// A role change that can work: one more gateway if its port is not fixed, else a shard that moves.
fn role_change(report: &Report) -> Option<String> {
    let states = || report.members.iter().filter_map(|member| Some((&member.id, member.state.as_ref()?)));
    let (standby, _) =
        states().find(|(_, state)| state.role == Role::Standby && state.phase == Phase::Ready)?;
    let is_fixed = |gateway: &&ServiceName| {
        report.listens.get(*gateway).is_some_and(|listens| listens.iter().any(|address| address.port() != 0))
    };
    if let Some(gateway) = of_type(report, "api_gateway").find(|gateway| !is_fixed(gateway)) {
        return Some(format!("set-service {standby} {gateway}"));
    }
    let owned = states().find(|(_, state)| {
        state.role.shard().is_some() && state.duty == Some(Post::Primary) && state.phase == Phase::Ready
    });
    let (_, state) = owned?;
    let (service, shard) = (state.role.service()?, state.role.shard()?);
    Some(format!("set-service {standby} {service} --shard {shard} --take"))
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::render::tests::member;

    fn report() -> Report {
        Report {
            cluster: "demo".parse().unwrap(),
            changed: Vec::new(),
            listens: Listens::new(),
            started: vec!["a".parse().unwrap(), "b".parse().unwrap()],
            running_before: Vec::new(),
            drift: Vec::new(),
            outdated: Vec::new(),
            applied: Vec::new(),
            outdated_specs: Vec::new(),
            extra: Vec::new(),
            dropped: Vec::new(),
            took_ms: 614,
            insecure: vec!["HTTP is not encrypted".to_owned()],
            members: vec![member("a", "api_gateway", Phase::Ready), member("b", "standby", Phase::Ready)],
        }
    }

    #[test]
    fn a_start_reports_how_long_it_took_what_is_insecure_and_what_to_try() {
        assert_eq!(
            notes(&report()),
            "\
cluster demo: started 2 agents, every node sees every node ready after 0.61 s
insecure: HTTP is not encrypted

try next:
  ctl status --cluster demo
  ctl set-service b api_gateway
  curl http://127.0.0.1:10000/v1/members
  ctl down --cluster demo"
        );
    }

    #[test]
    fn new_settings_are_reported_for_each_node_and_decide_the_exit_code() {
        let row = |pending, is_running| OutdatedSpec {
            node: "a".parse().unwrap(),
            service: "api_gateway".parse().unwrap(),
            runs_with: Some(3),
            latest: 4,
            renewed: false,
            is_running,
            failed: None,
            pending,
        };
        let failed = |reason: &str| OutdatedSpec { failed: Some(reason.to_owned()), ..row(None, true) };
        let restart = || PendingSpec::needs_restart(4, vec!["/listeners/0/tls".to_owned()]);
        let mut found = report();
        assert_eq!(found.exit(), Exit::Ok);
        for (row, exit, expected) in [
            (
                row(Some(restart()), true),
                Exit::Ok,
                "drift: a keeps its old settings of api_gateway, since settings.listeners[0].tls needs a restart; \
                 `ctl up --reset` restarts its role with the new ones",
            ),
            (
                row(None, false),
                Exit::Ok,
                "drift: a is stopped, and gets the new settings of api_gateway when its role starts",
            ),
            (
                row(None, true),
                Exit::NotConverged,
                "waiting: a has not applied the new settings of api_gateway in time; `ctl status` shows whether it has",
            ),
            (
                row(Some(PendingSpec::failed(3, "old")), true),
                Exit::NotConverged,
                "waiting: a has not applied the new settings of api_gateway in time; `ctl status` shows whether it has",
            ),
            (
                row(Some(PendingSpec::failed(4, "port 80 is busy")), true),
                Exit::Error,
                "failed: a keeps its old settings of api_gateway: port 80 is busy",
            ),
            (failed("port 81 is busy"), Exit::Error, "failed: a does not run api_gateway: port 81 is busy"),
            (failed(""), Exit::Error, "failed: a does not run api_gateway: its agent gives no reason"),
        ] {
            found.outdated_specs.push(row);
            assert_eq!(found.exit(), exit, "{expected}");
            assert!(notes(&found).lines().any(|line| line == expected), "{expected} in\n{}", notes(&found));
        }
        let applied =
            AppliedSpec { node: "b".parse().unwrap(), service: "api_gateway".parse().unwrap(), spec: 4 };
        found.applied.push(applied);
        assert!(notes(&found).contains("\napplied: b runs with the new settings of api_gateway\n"));
    }

    #[test]
    fn a_second_start_reports_what_differs() {
        let mut report = report();
        report.running_before = std::mem::take(&mut report.started);
        report.insecure.clear();
        report.extra = vec!["x".parse().unwrap()];
        report.dropped = vec!["sessions".parse().unwrap()];
        report.drift = vec![DriftRow {
            node: "b".parse().unwrap(),
            wanted: "api_gateway".parse().unwrap(),
            found: "standby".to_owned(),
            restored: false,
        }];
        let outdated = |restarted| Outdated {
            node: "a".parse().unwrap(),
            runs_with: "other settings".to_owned(),
            restarted,
        };
        report.outdated = vec![outdated(false), outdated(true)];
        let text = notes(&report);
        let lines: Vec<_> = text.lines().take(6).collect();
        assert_eq!(
            lines,
            [
                "cluster demo: nothing to start, 2 agents up",
                "drift: b is standby, the manifest says api_gateway; `ctl up --reset` restores it",
                "drift: a runs with other settings than the manifest's; `ctl up --reset` restarts it",
                "restarted: a ran with other settings than the manifest's",
                "extra: x runs but is not in the manifest; `ctl leave x` ends it",
                "kept: the service sessions is not in the manifest; its spec and data are kept, `ctl spec rm sessions` \
                 removes both",
            ]
        );
    }
}
