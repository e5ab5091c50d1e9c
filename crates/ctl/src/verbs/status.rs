//! `ctl status`: one screen that says how a cluster does, and what is wrong with it, in words.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use client::Client;
use futures_util::future::join_all;
use serde::Serialize;
use types::api::{AgentSelf, ClaimView, Member, Members};
use types::{ClusterId, NodeId, Phase, Role, ServiceType};

use crate::exit::Exit;
use crate::hints;
use crate::out::OutputArg;
use crate::process::Processes;
use crate::reach::Cx;
use crate::record::ClusterRecord;
use crate::render;
use crate::views::{self, Expected, Views};

const ASK_LIMIT: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl status
  ctl status --cluster demo -o json

Exit code 1 if there is a warning; drift from the manifest is none.")]
pub(crate) struct Args {
    #[command(flatten)]
    output: OutputArg,
}

/// All of it.
#[derive(Debug, Serialize)]
struct Report {
    cluster: ClusterId,
    viewed_by: NodeId,
    members: Vec<Member>,
    warnings: Vec<String>,
    /// What a person may want to know.
    notes: Vec<String>,
    /// What is not as the manifest says; nothing is wrong with that, for a person may have wanted it.
    drift: Vec<String>,
    insecure: Vec<String>,
}

pub(crate) async fn run(args: &Args, cx: &Cx) -> anyhow::Result<Exit> {
    let reached = cx.reach().await?;
    let view = reached.client.members().await?;
    let asked = ask_all(&reached.client.within(ASK_LIMIT), &view).await;
    let ended = match &reached.record {
        Some(record) => ended(record)?,
        None => BTreeMap::new(),
    };
    let claims = reached.client.claims().await;
    let mut report = report(view, asked, reached.record.as_ref(), &ended);
    match claims {
        Ok(claims) => {
            let standbys = |service: &ServiceType| {
                report.members.iter().filter(|member| can_take_over(member, service)).count()
            };
            let warnings: Vec<_> = claims
                .claims
                .iter()
                .flat_map(|claim| claim_warnings(claim, standbys(&claim.service)))
                .collect();
            let alone: BTreeSet<_> = claims.claims.iter().map(|claim| &claim.service).collect();
            let notes: Vec<_> = alone
                .into_iter()
                .filter(|service| standbys(service) == 0)
                .map(|service| {
                    format!(
                        "no standby is left to take over a shard of {service} whose owner dies; \
                         start an agent that waits to be needed"
                    )
                })
                .collect();
            report.warnings.extend(warnings);
            report.notes.extend(notes);
        }
        Err(error) => report.warnings.push(format!("who owns which shard can't be read: {error}")),
    }
    for text in report.warnings.iter_mut().chain(&mut report.notes).chain(&mut report.drift) {
        *text = hints::as_typed(text);
    }
    cx.out.data(args.output.output, &report, |report| screen(report, cx.out.color), names)?;
    Ok(if report.warnings.is_empty() { Exit::Ok } else { Exit::Error })
}

/// What a node says of itself, and whom it sees.
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

/// Nodes that were started here and whose processes have ended, with their pids.
fn ended(record: &ClusterRecord) -> anyhow::Result<BTreeMap<NodeId, u32>> {
    let mut processes = Processes::new()?;
    let nodes = record.nodes.iter().filter_map(|node| {
        let process = node.process()?;
        (!processes.is_alive(&process)).then(|| (node.id.clone(), process.pid))
    });
    Ok(nodes.collect())
}

fn report(
    view: Members,
    asked: Asked,
    record: Option<&ClusterRecord>,
    ended: &BTreeMap<NodeId, u32>,
) -> Report {
    let (mut warnings, mut drift) = (Vec::new(), Vec::new());
    for (id, pid) in ended {
        warnings.push(format!(
            "{id} is gone: its process {pid} ended without leaving; `ctl logs {id}` shows its end, `ctl up` starts it"
        ));
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
            None if !ended.contains_key(&node.id) => {
                warnings.push(format!("{} was started here and is not seen by {}", node.id, view.viewed_by));
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
        .filter(|member| !ended.contains_key(&member.id))
        .map(|member| Expected { id: member.id.clone(), ready: false })
        .collect();
    let mut insecure = BTreeSet::new();
    let mut views = Views::new();
    for (id, (own, members)) in asked {
        insecure.extend(own.into_iter().flat_map(|own| own.insecure));
        views.insert(id, members);
    }
    warnings.extend(two_stores(&view.members));
    warnings.extend(views::in_words(&views::judge(&expected, &views).gaps));
    Report {
        cluster: view.cluster,
        viewed_by: view.viewed_by,
        members: view.members,
        warnings,
        notes: Vec::new(),
        drift,
        insecure: insecure.into_iter().collect(),
    }
}

/// A replica that may be further behind is a warning.
const LAG_MS: u64 = 5_000;

/// Whether a node waits to be needed, and can run this type.
fn can_take_over(member: &Member, service: &ServiceType) -> bool {
    member.about.runnable.contains(service)
        && member
            .state
            .as_ref()
            .is_some_and(|state| state.role == Role::Standby && state.phase == Phase::Ready)
}

/// What is wrong with a shard: nobody runs it, or it has too few replicas, or one that lags.
fn claim_warnings(claim: &ClaimView, standbys: usize) -> Vec<String> {
    let ClaimView { service, shard, .. } = claim;
    let heirs = standbys + claim.replicas.len();
    let next = if heirs > 0 {
        "another node takes it over in a moment".to_owned()
    } else {
        let command = format!("ctl set-service NODE {service} --shard {shard}");
        match claim.holder {
            Some(_) => format!("nobody is there to take it over; `{command} --take` moves it"),
            None => format!("nobody is there to take it over; `{command}` gives it one"),
        }
    };
    let mut warnings = Vec::new();
    match &claim.holder {
        Some(_) if claim.honoured => {}
        Some(holder) => warnings.push(format!(
            "{service}/{shard} is owned by {} (epoch {}), which does not run it; {next}",
            holder.node, holder.epoch
        )),
        None => {
            let why = claim.note.as_deref().unwrap_or("nobody ever owned it");
            warnings.push(format!("{service}/{shard} has no owner ({why}); {next}"));
        }
    }
    let there = claim.replicas.len();
    if u32::try_from(there).is_ok_and(|there| there < claim.wanted_replicas) {
        let next = match standbys {
            0 => "; no standby is left to become one",
            _ => "; a standby becomes one in a moment",
        };
        warnings.push(format!("{service}/{shard} has {there} of {} replicas{next}", claim.wanted_replicas));
    }
    for replica in &claim.replicas {
        match replica.staleness_ms {
            Some(ms) if ms <= LAG_MS => {}
            Some(ms) => warnings.push(format!(
                "{service}/{shard}: the replica {} may be {} s behind",
                replica.node,
                ms / 1000
            )),
            None => warnings.push(format!(
                "{service}/{shard}: the replica {} is {} and does not say how far behind it is",
                replica.node, replica.phase
            )),
        }
    }
    warnings
}

/// One cluster has one store; while its members use several, nobody takes a shard.
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
            "the members use {} stores: {}; nobody takes a shard until it is one",
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
    Some(match &state.reason {
        Some(reason) => format!("{} is {}: {reason}", member.id, state.phase),
        None => format!("{} is {}", member.id, state.phase),
    })
}

fn names(report: &Report) -> Vec<String> {
    report.members.iter().map(|member| member.id.to_string()).collect()
}

fn screen(report: &Report, color: bool) -> String {
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
    text.push_str(&services(&report.members));
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

/// One row a role, with those who have it.
fn services(members: &[Member]) -> String {
    let mut roles: BTreeMap<String, Vec<&Member>> = BTreeMap::new();
    for member in members {
        roles.entry(render::role(member)).or_default().push(member);
    }
    let rows: Vec<_> = roles
        .iter()
        .map(|(role, members)| {
            let ready = members.iter().filter(|member| render::is_ready(member)).count();
            let ids: Vec<_> = members.iter().map(|member| member.id.as_str()).collect();
            vec![role.clone(), format!("{ready}/{}", members.len()), ids.join(" ")]
        })
        .collect();
    render::table(&["ROLE", "READY", "MEMBERS"], &rows)
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
            pid: Some(123),
            start_time: Some(1),
            http: "127.0.0.1:1".parse().unwrap(),
            gossip: "127.0.0.1:1".parse().unwrap(),
            role: role.parse().unwrap(),
            log: PathBuf::new(),
            data_dir: PathBuf::new(),
        }
    }

    #[test]
    fn everything_that_is_wrong_is_said_in_words() {
        let mut failed = member("b", "api_gateway", Phase::Failed);
        failed.state.as_mut().unwrap().reason = Some("no port".to_owned());
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
            started_at_ms: 0,
            nodes: vec![node("a", "api_gateway"), node("b", "api_gateway"), node("c", "standby")],
        };
        let ended = BTreeMap::from([("c".parse().unwrap(), 123)]);
        let report = report(seen, asked, Some(&record), &ended);
        assert_eq!(
            screen(&report, false),
            "\
cluster demo, as seen by a: 2 members, 1 failed, 1 ready

ROLE         READY  MEMBERS
api_gateway  0/1    b
standby      1/1    a

endpoints
  - a: http://127.0.0.1:8080

warnings
  - c is gone: its process 123 ended without leaving; `ctl logs c` shows its end, `ctl up` starts it
  - b is failed: no port
  - b does not see a, b

drift
  - a is standby, its manifest says api_gateway; `ctl up --reset` restores that"
        );
    }

    #[test]
    fn what_is_wrong_with_a_shard_is_said_in_words() {
        let replica = |ms| types::api::ReplicaView {
            node: "b".parse().unwrap(),
            phase: Phase::Ready,
            staleness_ms: ms,
        };
        let well = ClaimView {
            service: "storage".parse().unwrap(),
            shard: "0".parse().unwrap(),
            number: 3,
            holder: Some(types::Holder {
                node: "a".parse().unwrap(),
                generation: types::Generation(1),
                epoch: types::Epoch(3),
            }),
            since_ms: None,
            honoured: true,
            wanted_replicas: 1,
            replicas: vec![replica(Some(80))],
            note: None,
        };
        assert_eq!(claim_warnings(&well, 0), Vec::<String>::new());
        let gone = ClaimView { honoured: false, replicas: Vec::new(), ..well.clone() };
        assert_eq!(
            claim_warnings(&gone, 1),
            [
                "storage/0 is owned by a (epoch 3), which does not run it; another node takes it over in a moment",
                "storage/0 has 0 of 1 replicas; a standby becomes one in a moment",
            ]
        );
        let note = Some("released by a: leaving".to_owned());
        let released = ClaimView { holder: None, replicas: Vec::new(), note, ..gone };
        assert_eq!(
            claim_warnings(&released, 0),
            [
                "storage/0 has no owner (released by a: leaving); nobody is there to take it over; \
                 `ctl set-service NODE storage --shard 0` gives it one",
                "storage/0 has 0 of 1 replicas; no standby is left to become one",
            ]
        );
        let lagging = ClaimView { replicas: vec![replica(Some(12_345)), replica(None)], ..well };
        assert_eq!(
            claim_warnings(&lagging, 0),
            [
                "storage/0: the replica b may be 12 s behind",
                "storage/0: the replica b is ready and does not say how far behind it is",
            ]
        );
    }

    #[test]
    fn a_cluster_that_is_well_has_no_warnings() {
        let seen = view(vec![member("a", "standby", Phase::Ready)]);
        let asked = Asked::from([("a".parse().unwrap(), (None, Some(seen.clone())))]);
        let report = report(seen, asked, None, &BTreeMap::new());
        assert_eq!(report.warnings, Vec::<String>::new());
    }
}
