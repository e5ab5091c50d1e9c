//! Finds live owners of shards on the store that do not belong to the cluster to be started. They belong to another
//! cluster of the same name that was started elsewhere on the same store.

use std::time::Duration;

use client::Client;
use futures_util::future::join_all;
use store::{ClaimState, Store, StoreError};
use types::Holder;
use types::api::AgentSelf;
use types::apply::{Held, Incarnation, Ours, Process};

/// How long all owners together may take to answer. In most cases no process listens there, and a machine that is gone
/// does not even refuse connections.
const ANSWER: Duration = Duration::from_millis(300);

/// The owner in a claim and its address, if it may belong to another cluster. Pure.
fn suspect<'a>(ours: &Ours, state: &'a ClaimState) -> Option<(&'a Holder, &'a str)> {
    let holder = state.holder.as_ref()?;
    let is_ours = |known: &Incarnation| known.node == holder.node && known.generation == holder.generation;
    Some((holder, state.http.as_deref()?)).filter(|_| !ours.members.iter().any(is_ours))
}

/// Whether the agent that answered at the address of an owner is that owner and belongs to another cluster. Pure.
fn is_foreign(ours: &Ours, holder: &Holder, own: &AgentSelf) -> bool {
    let is_ours = |process: &Process| process.pid == own.pid && process.data_dir == own.data_dir;
    holder.is(&own.member) && !ours.processes.iter().any(is_ours)
}

/// The owners of shards that answer at the address in their claim and do not belong to the cluster. Unreadable claims
/// are ignored.
pub(super) async fn others(store: &Store, ours: &Ours) -> Result<Vec<Held>, StoreError> {
    let claims = store.claims().all().await?;
    let suspects: Vec<_> = claims
        .iter()
        .filter_map(|(shard, state)| Some((shard, suspect(ours, state.as_ref().ok()?)?)))
        .collect();
    // Creating a client takes longer than a request.
    let client = if suspects.is_empty() { None } else { Client::new("127.0.0.1").ok() };
    let Some(client) = client.map(|client| client.within(ANSWER)) else {
        return Ok(Vec::new());
    };
    let client = &client;
    let requests = suspects.into_iter().map(|(shard, (holder, http))| async move {
        let own = client.at(http).ok()?.agent_self().await.ok()?;
        is_foreign(ours, holder, &own).then(|| Held {
            service: shard.service.clone(),
            shard: shard.shard,
            node: holder.node.clone(),
            epoch: holder.epoch,
            http: http.to_owned(),
            pid: own.pid,
            data_dir: own.data_dir,
            store: store.info().url.clone(),
        })
    });
    Ok(join_all(requests).await.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use types::api::{About, Member};
    use types::{Epoch, Generation};

    use super::*;

    fn holder(node: &str, generation: u64) -> Holder {
        Holder { node: node.parse().unwrap(), generation: Generation(generation), epoch: Epoch(1) }
    }

    fn own(node: &str, generation: u64, pid: u32) -> AgentSelf {
        AgentSelf {
            cluster: "c".parse().unwrap(),
            member: Member {
                id: node.parse().unwrap(),
                generation: Generation(generation),
                version: 1,
                http: "http://127.0.0.1:1".to_owned(),
                gossip: "127.0.0.1:1".to_owned(),
                state: None,
                about: About::default(),
                store: None,
            },
            profile: "local".to_owned(),
            pid,
            started_at_ms: 1,
            data_dir: "/data/a".to_owned(),
            in_flight: 0,
            busy_with: None,
            insecure: Vec::new(),
            restarts: 0,
            staleness_ms: None,
            now_us: None,
            clock_ahead_ms: None,
        }
    }

    #[test]
    fn only_an_owner_that_answers_as_the_same_incarnation_and_is_not_ours_is_foreign() {
        let ours: Ours = serde_json::from_str(
            r#"{"members": [{"node": "b", "generation": 4}], "processes": [{"pid": 7, "data_dir": "/data/a"}]}"#,
        )
        .unwrap();
        let state = |holder, http: Option<&str>| ClaimState {
            holder: Some(holder),
            http: http.map(str::to_owned),
            ..ClaimState::default()
        };
        let there = Some("http://127.0.0.1:1");
        for (state, is_suspect, why) in [
            (state(holder("b", 4), there), false, "a member"),
            (state(holder("b", 3), there), true, "a node with the name of a member"),
            (state(holder("a", 4), None), false, "a claim of an older version has no address"),
            (ClaimState::default(), false, "no owner"),
        ] {
            assert_eq!(suspect(&ours, &state).is_some(), is_suspect, "{why}");
        }
        let of = holder("a", 4);
        for (own, expected, why) in [
            (own("a", 4, 8), true, "another process"),
            (own("a", 4, 7), false, "our process, which is not among the members"),
            (own("a", 5, 8), false, "a later incarnation, which has not taken the shard"),
            (own("c", 4, 8), false, "another agent now has the address"),
        ] {
            assert_eq!(is_foreign(&ours, &of, &own), expected, "{why}");
        }
    }
}
