//! Asks every live member whether it shows a change.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::ClusterView;
use futures_util::{StreamExt, stream};
use mesh::{AgentError, Mesh};
use tokio::time::{Instant, timeout_at};
use types::api::{MemberView, Missing, Seen};
use types::{Generation, NodeId};

/// How many members are asked at the same time.
const AT_ONCE: usize = 256;

/// A change of this node: shown from this version of this generation on.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) node: NodeId,
    pub(crate) generation: Generation,
    pub(crate) version: u64,
}

/// Asks every live member. Takes at most `limit`; members that have not answered by then are missing.
pub(crate) async fn ask_all(mesh: &Mesh, view: &ClusterView, shown: &Shown, limit: Duration) -> Seen {
    let deadline = Instant::now() + limit;
    let questions: Vec<_> = view
        .peers()
        .map(|peer| ask(mesh.clone(), peer.id.clone(), peer.http.clone(), shown.clone(), limit))
        .collect();
    let mut answers: BTreeMap<NodeId, Result<(), String>> =
        view.peers().map(|peer| (peer.id.clone(), Err("did not answer in time".to_owned()))).collect();
    let mut answering = stream::iter(questions).buffer_unordered(AT_ONCE);
    while let Ok(Some((peer, answer))) = timeout_at(deadline, answering.next()).await {
        answers.insert(peer, answer);
    }
    summary(answers)
}

/// The result if no member was asked.
pub(crate) fn not_asked(view: &ClusterView) -> Seen {
    summary(view.peers().map(|peer| (peer.id.clone(), Err("was not asked".to_owned()))).collect())
}

fn summary(answers: BTreeMap<NodeId, Result<(), String>>) -> Seen {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let of = count(answers.len() + 1);
    let missing: Vec<_> =
        answers.into_iter().filter_map(|(id, answer)| answer.err().map(|why| Missing { id, why })).collect();
    Seen { by: of - count(missing.len()), of, missing }
}

/// Owns its arguments, so that many requests can run at once.
async fn ask(
    mesh: Mesh,
    peer: NodeId,
    http: String,
    shown: Shown,
    limit: Duration,
) -> (NodeId, Result<(), String>) {
    let Shown { node, generation, version } = shown;
    let answer = match mesh.agent(&http).member(&node, generation, version, limit).await {
        Ok(seen) => check(&seen, generation, version),
        Err(AgentError::Unanswered(_)) => Err("did not answer".to_owned()),
        Err(AgentError::Refused(_) | AgentError::NoAgent(_)) => Err("does not know this node".to_owned()),
    };
    (peer, answer)
}

fn check(seen: &MemberView, generation: Generation, version: u64) -> Result<(), String> {
    let member = &seen.member;
    let is_shown =
        member.generation > generation || (member.generation == generation && member.version >= version);
    if is_shown { Ok(()) } else { Err("has not seen it yet".to_owned()) }
}
