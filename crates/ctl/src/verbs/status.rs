//! `ctl status`: cluster health on one screen, and what is wrong, in words.

mod against_manifest;
mod claims;
mod clocks;
mod restarts;
mod screen;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use client::Client;
use futures_util::future::join_all;
use serde::Serialize;
use types::api::{AgentSelf, Member, Members};
use types::{ClusterId, NodeId, Phase, Role, ServiceName, ServiceType};

use crate::agent_bin;
use crate::exit::Exit;
use crate::hints;
use crate::out::OutputArg;
use crate::process::Processes;
use crate::reach::{Cx, Reached};
use crate::record::ClusterRecord;
use crate::render;
use crate::views::{self, Expected, Views};

const ASK_LIMIT: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl status
  ctl status --cluster demo -o json

Exit code 1 if there is a warning; drift from the manifest does not count.")]
pub(crate) struct Args {
    #[command(flatten)]
    output: OutputArg,
}

/// The whole report.
#[derive(Debug, Serialize)]
struct Report {
    cluster: ClusterId,
    viewed_by: NodeId,
    members: Vec<Member>,
    /// How many replicas each shard should have, by the role of a replica in words.
    #[serde(skip)]
    wanted_replicas: BTreeMap<String, usize>,
    /// Nodes that were started here and are no members.
    missing: Vec<Missing>,
    warnings: Vec<String>,
    /// Remarks that are not warnings.
    notes: Vec<String>,
    /// Differences from the manifest. They are not errors: an operator may have wanted them.
    drift: Vec<String>,
    insecure: Vec<String>,
    /// How many milliseconds each member's clock is ahead of most others, by its own estimate.
    clocks_ahead_ms: BTreeMap<NodeId, i64>,
}

/// A node that was started here and is no member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Missing {
    node: NodeId,
    /// Its role in the manifest.
    role: Role,
    /// The state of its process.
    process: Process,
}

/// The state of the process of a node that was started here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Process {
    /// It has ended.
    Ended(u32),
    /// A signal paused it; it can be resumed.
    Stopped(u32),
    /// It runs.
    Running,
}

pub(crate) async fn run(args: &Args, cx: &Cx) -> anyhow::Result<Exit> {
    let reached = cx.reach().await?;
    let view = reached.client.members().await?;
    let asked = ask_all(&reached.client.within(ASK_LIMIT), &view).await;
    let processes = match &reached.record {
        Some(record) => processes(record)?,
        None => BTreeMap::new(),
    };
    let (claims, specs) = tokio::join!(reached.client.claims(), reached.client.specs());
    let mut report = report(view, asked, reached.record.as_ref(), &processes);
    match claims {
        Ok(claims) => {
            let types = specs.iter().flat_map(|specs| &specs.specs);
            let types =
                types.filter_map(|(service, known)| Some((service.clone(), known.spec.type_of(service)?)));
            let spares = Spares::new(&report, &reached, types.collect());
            let warnings: Vec<_> =
                claims.claims.iter().flat_map(|claim| claims::warnings(claim, &spares)).collect();
            let services: BTreeSet<_> = claims.claims.iter().map(|claim| &claim.service).collect();
            let alone: Vec<_> =
                services.into_iter().filter_map(|service| claims::no_spare(service, &spares)).collect();
            let surplus = claims.claims.iter().filter_map(claims::surplus);
            let wanted = claims.claims.iter().map(claims::wanted_replicas);
            report.warnings.extend(warnings);
            report.notes.extend(alone);
            report.notes.extend(surplus);
            report.wanted_replicas.extend(wanted);
        }
        Err(error) => report.warnings.push(format!("who owns which shard can't be read: {error}")),
    }
    match specs {
        Ok(specs) => {
            report.drift.extend(against_manifest::old_specs(&report.members, &specs));
            if let Some(record) = &reached.record {
                report.drift.extend(against_manifest::differences(record, &report.members, &specs));
            }
        }
        Err(error) => report.warnings.push(format!("what services run with can't be read: {error}")),
    }
    report.notes.extend(reached.record.as_ref().and_then(restarts::replaced));
    for text in report.warnings.iter_mut().chain(&mut report.notes).chain(&mut report.drift) {
        *text = hints::as_typed(text);
    }
    cx.out.data(args.output.output, &report, |report| screen::screen(report, cx.out.color), screen::names)?;
    Ok(if report.warnings.is_empty() { Exit::Ok } else { Exit::Error })
}

/// What a node reports about itself, and its view.
type Asked = BTreeMap<NodeId, (Option<AgentSelf>, Option<Members>)>;

async fn ask_all(client: &Client, view: &Members) -> Asked {
    let calls = view.members.iter().map(|member| async {
        let Ok(client) = client.at(&member.http) else {
            return (member.id.clone(), (None, None));
        };
        let (own, members) = tokio::join!(client.agent_self(), client.members());
        (member.id.clone(), (own.ok(), members.ok()))
    });
    join_all(calls).await.into_iter().collect()
}

/// The state of the processes of the nodes that were started here.
fn processes(record: &ClusterRecord) -> anyhow::Result<BTreeMap<NodeId, Process>> {
    let mut processes = Processes::new()?;
    let nodes = record.nodes.iter().filter_map(|node| {
        let process = node.process()?;
        let now = if !processes.is_alive(&process) {
            Process::Ended(process.pid)
        } else if processes.is_stopped(&process) {
            Process::Stopped(process.pid)
        } else {
            Process::Running
        };
        Some((node.id.clone(), now))
    });
    Ok(nodes.collect())
}

fn report(
    view: Members,
    asked: Asked,
    record: Option<&ClusterRecord>,
    processes: &BTreeMap<NodeId, Process>,
) -> Report {
    let (mut warnings, mut drift, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    for (id, process) in processes {
        match process {
            Process::Ended(pid) => {
                let node = record.and_then(|record| record.node(id));
                warnings.push(restarts::gone(id, *pid, node));
            }
            Process::Stopped(pid) => warnings.push(format!(
                "{id} is paused: a signal stopped its process {pid}; `ctl kill {id} --signal CONT` resumes it"
            )),
            Process::Running => {}
        }
    }
    for member in &view.members {
        warnings.extend(member_warning(member));
        let own = asked.get(&member.id).and_then(|(own, _)| own.as_ref());
        if let Some(own) = own.filter(|own| own.restarts > 0) {
            warnings.push(format!(
                "{}: its service was restarted {} after failures",
                member.id,
                render::count(usize::try_from(own.restarts).unwrap_or(usize::MAX), "time")
            ));
        }
    }
    for node in record.iter().flat_map(|record| &record.nodes) {
        let member = view.members.iter().find(|member| member.id == node.id);
        match member {
            None => {
                let process = processes.get(&node.id).copied().unwrap_or(Process::Running);
                if process == Process::Running {
                    let viewer = &view.viewed_by;
                    warnings.push(format!("{} was started here and is not seen by {viewer}", node.id));
                }
                missing.push(Missing { node: node.id.clone(), role: node.role.clone(), process });
            }
            Some(member) if member.state.as_ref().is_some_and(|state| state.role != node.role) => {
                drift.push(format!(
                    "{} is {}, its manifest says {}; `ctl up --reset` restores that",
                    node.id,
                    render::role(member),
                    node.role
                ));
            }
            _ => {}
        }
    }
    let expected: Vec<_> = view
        .members
        .iter()
        .filter(|member| !matches!(processes.get(&member.id), Some(Process::Ended(_) | Process::Stopped(_))))
        .map(|member| Expected { id: member.id.clone(), ready: false })
        .collect();
    let ahead = |(id, (own, _)): (&NodeId, &(Option<AgentSelf>, _))| {
        Some((id.clone(), own.as_ref()?.clock_ahead_ms?))
    };
    let clocks_ahead_ms: BTreeMap<_, _> = asked.iter().filter_map(ahead).collect();
    let mut insecure = BTreeSet::new();
    let mut views = Views::new();
    for (id, (own, members)) in asked {
        insecure.extend(own.into_iter().flat_map(|own| own.insecure));
        views.insert(id, members);
    }
    warnings.extend(two_stores(&view.members));
    warnings.extend(clocks::warnings(&clocks_ahead_ms));
    warnings.extend(views::in_words(&views::compare(&expected, &views).gaps));
    Report {
        wanted_replicas: BTreeMap::new(),
        cluster: view.cluster,
        viewed_by: view.viewed_by,
        missing,
        warnings,
        notes: restarts::notes(&view.members).into_iter().chain(clocks::note(&clocks_ahead_ms)).collect(),
        members: view.members,
        drift,
        insecure: insecure.into_iter().collect(),
        clocks_ahead_ms,
    }
}

/// The nodes that could take a shard over, and what to do if there are none.
struct Spares<'a> {
    members: &'a [Member],
    /// The types of services, from the specs on the store.
    types: BTreeMap<ServiceName, ServiceType>,
    /// A command that starts such a node.
    remedy: String,
}

impl<'a> Spares<'a> {
    fn new(report: &'a Report, reached: &Reached, types: BTreeMap<ServiceName, ServiceType>) -> Self {
        let seed = report.members.iter().find(|member| render::is_ready(member));
        let remedy = match (report.missing.is_empty(), reached.record.is_some(), seed) {
            (false, true, _) => "`ctl up` starts the nodes that are missing".to_owned(),
            (_, _, Some(seed)) => {
                let remembered = reached.record.as_ref().and_then(|record| record.agent.clone());
                let agent = remembered.or_else(|| agent_bin::find(None).ok());
                let agent = agent.map_or("agent".to_owned(), |path| path.display().to_string());
                let store =
                    seed.store.as_ref().map(|store| format!(" --store {}", hints::quoted(&store.url)));
                format!(
                    "`{} --cluster {} --service standby --listen-addr 127.0.0.1:0 --seed {}{}` starts one on this machine",
                    hints::quoted(&agent),
                    report.cluster,
                    seed.gossip,
                    store.unwrap_or_default()
                )
            }
            (_, _, None) => "start an agent as a standby".to_owned(),
        };
        Self { members: &report.members, types, remedy }
    }

    /// The standbys that take over this service.
    fn of<'s>(&'s self, service: &'s ServiceName) -> impl Iterator<Item = &'a Member> + use<'s, 'a> {
        let service_type = self.types.get(service).cloned().or_else(|| service.default_type());
        let takes_over = move |member: &&Member| {
            let service_type = service_type.as_ref();
            service_type.is_some_and(|service_type| claims::can_take_over(member, service, service_type))
        };
        self.members.iter().filter(takes_over)
    }

    fn standbys(&self, service: &ServiceName) -> usize {
        self.of(service).count()
    }
}

/// The warning that members use several stores. A cluster has one; while it has several, no node takes a shard.
fn two_stores(members: &[Member]) -> Option<String> {
    let mut stores: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for member in members {
        if let Some(store) = &member.store {
            stores.entry((store.id, store.url.as_str())).or_default().push(member.id.as_str());
        }
    }
    let shown: Vec<_> =
        stores.iter().map(|((id, url), nodes)| format!("{id} at {url} by {}", nodes.join(", "))).collect();
    let ids: BTreeSet<_> = stores.keys().map(|(id, _)| id).collect();
    (ids.len() > 1).then(|| {
        format!(
            "the members use {} stores: {}; no node takes a shard until all use the same one",
            ids.len(),
            shown.join("; ")
        )
    })
}

fn member_warning(member: &Member) -> Option<String> {
    let Some(state) = &member.state else {
        return Some(format!("{} is in a state that this version of ctl does not know", member.id));
    };
    if state.phase == Phase::Ready {
        return None;
    }
    Some(format!("{} is {}", member.id, state.phase_and_reason()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::record::NodeRecord;
    use crate::render::tests::member;

    fn view(members: Vec<Member>) -> Members {
        Members { cluster: "demo".parse().unwrap(), viewed_by: "a".parse().unwrap(), members }
    }

    fn node(id: &str, role: &str) -> NodeRecord {
        NodeRecord {
            id: id.parse().unwrap(),
            http: "127.0.0.1:1".parse().unwrap(),
            gossip: "127.0.0.1:1".parse().unwrap(),
            role: role.parse().unwrap(),
            log: PathBuf::new(),
            data_dir: PathBuf::new(),
        }
    }

    #[test]
    fn every_warning_is_in_words() {
        let mut failed = member("b", "api_gateway", Phase::Failed);
        let state = failed.state.as_mut().unwrap();
        state.reason = Some("no port".to_owned());
        state.reason_code = Some("role-not-started".parse().unwrap());
        let mut a = member("a", "standby", Phase::Ready);
        let state = a.state.as_mut().unwrap();
        state.endpoints.insert("x".to_owned(), "http://127.0.0.1:8080".to_owned());
        let seen = view(vec![a.clone(), failed]);
        let asked = Asked::from([
            ("a".parse().unwrap(), (None, Some(seen.clone()))),
            ("b".parse().unwrap(), (None, Some(view(vec![])))),
        ]);
        let record = ClusterRecord {
            cluster: "demo".parse().unwrap(),
            manifest: PathBuf::new(),
            agent: None,
            started_at_ms: 0,
            nodes: vec![
                node("a", "api_gateway"),
                node("b", "api_gateway"),
                node("c", "storage/0"),
                node("d", "standby"),
            ],
        };
        let processes = BTreeMap::from([
            ("c".parse().unwrap(), Process::Ended(123)),
            ("d".parse().unwrap(), Process::Stopped(124)),
        ]);
        let report = report(seen, asked, Some(&record), &processes);
        assert_eq!(
            screen::screen(&report, false),
            "\
cluster demo, as seen by a: 2 members, 1 failed, 1 ready

ROLE         READY  MEMBERS
api_gateway  0/1    b
standby      1/2    a d (paused)
storage/0    0/1    c (gone)

endpoints
  - a: http://127.0.0.1:8080

warnings
  - c is gone: its process 123 ended without leaving; `ctl logs c` shows its end, `ctl up` starts it
  - d is paused: a signal stopped its process 124; `ctl kill d --signal CONT` resumes it
  - b is failed (role-not-started): no port
  - b does not see a, b

drift
  - a is standby, its manifest says api_gateway; `ctl up --reset` restores that"
        );
    }

    #[test]
    fn a_healthy_cluster_has_no_warnings() {
        let seen = view(vec![member("a", "standby", Phase::Ready)]);
        let own = |ahead_ms| AgentSelf {
            cluster: "demo".parse().unwrap(),
            member: seen.members[0].clone(),
            profile: "local".to_owned(),
            pid: 1,
            started_at_ms: 0,
            data_dir: String::new(),
            in_flight: 0,
            busy_with: None,
            insecure: Vec::new(),
            restarts: 0,
            staleness_ms: None,
            now_us: None,
            clock_ahead_ms: Some(ahead_ms),
        };
        let of = |ahead_ms| {
            let asked = Asked::from([("a".parse().unwrap(), (Some(own(ahead_ms)), Some(seen.clone())))]);
            report(seen.clone(), asked, None, &BTreeMap::new())
        };
        assert_eq!(of(900).warnings, Vec::<String>::new());
        let wrong = of(-30_000);
        assert_eq!(wrong.warnings.len(), 1, "{:?}", wrong.warnings);
        assert!(wrong.warnings[0].starts_with("the clock of a is 30s behind"), "{:?}", wrong.warnings);
    }
}
