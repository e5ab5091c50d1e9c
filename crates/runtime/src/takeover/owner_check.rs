//! The checks between "no member seems to own this shard" and taking it.
//!
//! Gossip may be wrong, so the candidate reads the claim and asks its owner directly. An owner that does not answer, but
//! need not have ended, is challenged on the store: it has the time of two of its polls to defend its claim. An owner that
//! sees no other member yields to a challenger that does. The data is safe whatever is found here; the checks only prevent
//! needless moves.

use std::num::NonZeroU32;
use std::time::Duration;

use cluster::{Cluster, ClusterView};
use mesh::{AgentError, CallError, Mesh};
use plugin::Registry;
use store::{ClaimError, ClaimState, Claims, Latest, Store, StoreError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info};
use types::api::AgentSelf;
use types::{Backoff, Epoch, Holder, NodeId, ShardRef};

use crate::node::cluster_store::ClusterStore;
use crate::node::identity::Identity;
use crate::role::owner::is_honoured;
use crate::takeover::twins::suspect;
use crate::takeover::vacancy::{Gone, Sighting, UNSEEN, has_candidate};

/// How long an owner may take to answer.
const ANSWER: Duration = Duration::from_millis(200);
/// How long the store may take to answer.
const STORE_ANSWER: Duration = Duration::from_secs(5);
/// How long a shard is left alone after its owner yielded it because it saw no other member: the first time and at most.
/// Doubles each time in a row.
const YIELDED: Backoff = Backoff::new(Duration::from_secs(30), Duration::from_hours(1));
/// How long a shard that never had an owner is left to the node that was started to own it.
const NEVER_OWNED: Duration = Duration::from_secs(10);
/// The pause before an owner that was alive after all is checked again.
const REBUFF: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(60));
/// The pause after a check without a result.
pub(crate) const AGAIN: Duration = Duration::from_secs(2);
/// How long a node that could not run a shard leaves it to others.
const REFUSED: Duration = Duration::from_secs(30);
/// How long a shard that was released to another node is left to it.
const PROMISED: Duration = Duration::from_secs(3);
/// How long a shard whose owner left in an orderly way, before this node had ever seen it, is left to nodes that start now:
/// after a stop of the whole cluster, each node returns to its own shard.
const RETURNING: Duration = Duration::from_secs(2);

/// What an owner check found.
#[derive(Debug)]
pub(crate) enum Finding {
    /// The shard may be taken from this state.
    Vacant(Box<ClaimState>),
    /// Leave it alone for this time.
    Leave(Duration, String),
    /// The same, but only while there are other candidates.
    LeaveToOthers(Duration, String),
    /// Its owner may be starting: leave it alone for this time.
    Wait(Duration, String),
    /// It was yielded recently: leave it alone for `pause`, though its owner does not answer.
    Settling {
        /// The owner's.
        epoch: Epoch,
        pause: Duration,
        why: String,
    },
    /// The check had no result; try again.
    Unknown(String),
}

/// A check whether a shard's owner is alive.
pub(crate) struct OwnerCheck {
    pub(crate) shard: ShardRef,
    pub(crate) me: Identity,
    /// Its owner as this node saw it last.
    pub(crate) last_owner: Option<Sighting>,
    /// For how long this node has known of the shard.
    pub(crate) known_for: Duration,
    /// How many checks in a row found nothing to do.
    pub(crate) rebuffs: u32,
    /// The epoch of its owner, and for how long this node has known it.
    pub(crate) epoch_known: Option<(Epoch, Duration)>,
    pub(crate) cluster: Cluster,
    /// Owners that have crashed, even if gossip still shows them.
    pub(crate) gone: watch::Receiver<Gone>,
    pub(crate) mesh: Mesh,
    pub(crate) cluster_store: ClusterStore,
}

/// What the owner itself answers.
#[derive(Debug, PartialEq, Eq)]
enum OwnerAnswer {
    /// It owns the shard, and is alive.
    Owns,
    /// Its address refuses connections, or a later incarnation answers.
    Gone,
    /// It does not answer, or its answer shows neither.
    Unclear,
}

impl OwnerCheck {
    /// Runs the checks.
    pub(crate) async fn run(self) -> (ShardRef, Finding) {
        let finding = match self.cluster_store.shared_store().await {
            Ok(store) => self.ask(store).await,
            Err(error) => Finding::Unknown(error.to_string()),
        };
        (self.shard, finding)
    }

    async fn ask(&self, store: &Store) -> Finding {
        let claims = store.claims();
        let shard = &self.shard;
        let state = match timeout(STORE_ANSWER, claims.read(shard)).await {
            Ok(Ok(state)) => state,
            Ok(Err(error)) => return unread(&error),
            Err(_) => return Finding::Unknown("the store does not answer".to_owned()),
        };
        let Some(holder) = state.holder.clone() else {
            return self.ownerless(state);
        };
        if self.last_owner.is_none() && self.known_for < UNSEEN {
            let why = format!("{} owns it and may be starting", holder.node);
            // Checked again soon: the owner may refuse the shard as it starts.
            let pause = (store.poll_interval() * 2).min(UNSEEN.saturating_sub(self.known_for));
            return Finding::Wait(pause, why);
        }
        if self.me.is_mine(&holder) {
            return Finding::Vacant(Box::new(state));
        }
        if is_honoured(&holder, &self.view()) {
            return Finding::Unknown(format!("{} owns it", holder.node));
        }
        // First the address in the claim: another node of the owner's name may be a member here. An owner that was seen
        // needs no such check.
        let was_seen = self.last_owner.as_ref().is_some_and(|last| last.generation == holder.generation);
        let agent = match suspect(&self.view(), &state).filter(|_| !was_seen) {
            Some((holder, http)) => {
                let agent = self.mesh.agent(http).itself(ANSWER).await.ok();
                agent.filter(|agent| holder.is(&agent.member))
            }
            None => None,
        };
        let answer = match &agent {
            Some(agent) if judge(agent, &holder) == OwnerAnswer::Owns => {
                let http = &agent.member.http;
                return Finding::Unknown(format!(
                    "{} owns it, is no member, and answers at {http}",
                    holder.node
                ));
            }
            // It may have released the shard; if not, it defends its claim on the store.
            Some(_) => OwnerAnswer::Unclear,
            None => self.ask_owner(&holder).await,
        };
        match answer {
            OwnerAnswer::Owns => self.rebuffed(format!("{} answers that it owns it", holder.node)),
            OwnerAnswer::Gone => Finding::Vacant(Box::new(state)),
            OwnerAnswer::Unclear => match self.settling(&state, holder.epoch) {
                Some(finding) => finding,
                None => self.challenge(&claims, (store.poll_interval(), store.defence_slack()), state).await,
            },
        }
    }

    fn view(&self) -> ClusterView {
        self.cluster.view().without(&self.gone.borrow())
    }

    /// A shard that was yielded recently is left alone, so that it does not move back and forth between nodes that lose
    /// sight of each other.
    fn settling(&self, state: &ClaimState, epoch: Epoch) -> Option<Finding> {
        // Without jitter: every candidate leaves it alone for the whole time.
        let alone = YIELDED.limit(NonZeroU32::new(state.yielded)?.get());
        let known_for =
            self.epoch_known.filter(|(known, _)| *known == epoch).map_or(Duration::ZERO, |(_, d)| d);
        let pause = alone.checked_sub(known_for).filter(|pause| !pause.is_zero())?;
        let why = "its last owner yielded it recently, as no member reached it".to_owned();
        Some(Finding::Settling { epoch, pause, why })
    }

    fn ownerless(&self, state: ClaimState) -> Finding {
        let service_type = self.cluster_store.services().type_of(&self.shard.service);
        let known = Known {
            me: &self.me.id,
            known_for: self.known_for,
            rebuffs: self.rebuffs,
            has_seen_owner: self.last_owner.is_some(),
            has_others: has_candidate(&self.view(), &self.shard, service_type.as_ref()),
        };
        reservation(&state.latest, &known).unwrap_or_else(|| Finding::Vacant(Box::new(state)))
    }

    /// The pause doubles each time.
    fn rebuffed(&self, why: String) -> Finding {
        let pause = REBUFF.pause(self.rebuffs.saturating_add(1), rand::random());
        Finding::Leave(pause, why)
    }

    /// Asks the owner at its address, twice if need be: a reused connection may have ended with its last process.
    async fn ask_owner(&self, holder: &Holder) -> OwnerAnswer {
        let view = self.view();
        let seen = self.last_owner.as_ref().filter(|last| last.node == holder.node);
        let http = view.member(&holder.node).map(|member| &member.http).or(seen.map(|last| &last.http));
        // Another node with this node's name has no known address.
        let Some(http) = http.filter(|_| holder.node != self.me.id) else { return OwnerAnswer::Unclear };
        for _ in 0..2 {
            match self.mesh.agent(http).itself(ANSWER).await {
                Ok(agent) => return judge(&agent, holder),
                Err(AgentError::Unanswered(CallError::Refused)) => return OwnerAnswer::Gone,
                Err(
                    AgentError::Unanswered(CallError::TimedOut(_) | CallError::Malformed(_))
                    | AgentError::Refused(_)
                    | AgentError::NoAgent(_),
                ) => return OwnerAnswer::Unclear,
                Err(AgentError::Unanswered(error)) => {
                    debug!(owner = %holder.node, %error, "the owner can't be asked");
                }
            }
        }
        OwnerAnswer::Unclear
    }

    /// Challenges the owner on the store, and waits for it to defend its claim.
    async fn challenge(
        &self,
        claims: &Claims,
        (poll, slack): (Duration, Duration),
        state: ClaimState,
    ) -> Finding {
        let shard = &self.shard;
        let sees = u32::try_from(self.view().peers().count()).unwrap_or(u32::MAX);
        let challenged = match &state.latest {
            // The challenger may be gone, but the owner has not defended its claim yet either.
            Latest::Challenged { sees: seen, .. } if (*seen > 0) == (sees > 0) => Ok(state),
            Latest::Never
            | Latest::Taken
            | Latest::Challenged { .. }
            | Latest::Defended
            | Latest::Released { .. } => {
                info!(%shard, note = state.note(), sees, "challenging the owner of a shard");
                claims.challenge(shard, &state, &self.me.id, self.me.generation, sees).await
            }
        };
        let challenged = match challenged {
            Ok(challenged) => challenged,
            Err(ClaimError::Lost(now)) => return self.claim_changed(&now),
            Err(ClaimError::Store(error)) => return unread(&error),
        };
        let enough = Instant::now() + poll * 2 + slack;
        while Instant::now() < enough {
            sleep(poll / 4).await;
            match claims.is_latest(shard, challenged.number).await {
                Ok(true) => {}
                Ok(false) => {
                    return match claims.read(shard).await {
                        Ok(now) => self.claim_changed(&now),
                        Err(error) => unread(&error),
                    };
                }
                Err(error) => return unread(&error),
            }
        }
        Finding::Vacant(Box::new(challenged))
    }

    /// The claim has changed meanwhile.
    fn claim_changed(&self, now: &ClaimState) -> Finding {
        if now.holder.is_none() {
            return self.ownerless(now.clone());
        }
        self.rebuffed(now.note().unwrap_or_else(|| "its claim has changed".to_owned()))
    }
}

/// What is known of a shard without an owner.
#[derive(Debug, Clone, Copy)]
struct Known<'a> {
    me: &'a NodeId,
    /// For how long this node has known of the shard.
    known_for: Duration,
    rebuffs: u32,
    /// Whether this node has ever seen an owner of it.
    has_seen_owner: bool,
    /// Whether there are other candidates.
    has_others: bool,
}

/// Why a shard without an owner is not taken yet, if there is a reason.
fn reservation(latest: &Latest, known: &Known<'_>) -> Option<Finding> {
    match latest {
        Latest::Never if known.known_for < NEVER_OWNED => {
            let pause = NEVER_OWNED.saturating_sub(known.known_for);
            Some(Finding::Leave(pause, "it never had an owner".to_owned()))
        }
        Latest::Released { by, is_refused: true, .. } => {
            let is_left = by == known.me && known.rebuffs == 0 && known.has_others;
            is_left
                .then(|| Finding::LeaveToOthers(REFUSED, "it could not be run here a moment ago".to_owned()))
        }
        Latest::Released { to: Some(to), .. } if to != known.me && known.rebuffs == 0 => {
            Some(Finding::Leave(PROMISED, format!("it was released to {to}")))
        }
        Latest::Released { by, .. } if !known.has_seen_owner => {
            // A shard that this node released itself is left longer to the nodes that start now.
            let wait = if by == known.me { UNSEEN } else { RETURNING };
            let pause = wait.checked_sub(known.known_for).filter(|pause| !pause.is_zero())?;
            Some(Finding::Wait(pause, format!("{by} released it and may be starting")))
        }
        Latest::Never
        | Latest::Taken
        | Latest::Challenged { .. }
        | Latest::Defended
        | Latest::Released { .. } => None,
    }
}

/// What an agent's answer about itself means for a claim.
fn judge(agent: &AgentSelf, holder: &Holder) -> OwnerAnswer {
    let member = &agent.member;
    if member.id != holder.node {
        // Another node has its address now; where the owner is stays unknown.
        return OwnerAnswer::Unclear;
    }
    if member.generation > holder.generation {
        return OwnerAnswer::Gone;
    }
    let says_so = member.state.as_ref().is_some_and(|state| state.epoch == Some(holder.epoch));
    if member.generation == holder.generation && says_so { OwnerAnswer::Owns } else { OwnerAnswer::Unclear }
}

fn unread(error: &StoreError) -> Finding {
    Finding::Unknown(error.to_string())
}

/// Whether any service type here has shards with owners.
pub(crate) fn is_needed(registry: &Registry) -> bool {
    registry.plugins().any(|plugin| plugin.sharding() == types::Sharding::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_shard_is_taken_at_once_and_a_released_one_after_a_pause() {
        let me: NodeId = "me".parse().unwrap();
        let released = |by: &str, to: Option<&str>, is_refused| Latest::Released {
            by: by.parse().unwrap(),
            to: to.map(|to| to.parse().unwrap()),
            is_refused,
            why: None,
        };
        let fresh =
            Known { me: &me, known_for: Duration::ZERO, rebuffs: 0, has_seen_owner: false, has_others: true };
        let seen = Known { has_seen_owner: true, ..fresh };
        let alone = Known { has_others: false, ..fresh };
        let rebuffed = Known { rebuffs: 1, ..fresh };
        let later = |seconds| Known { known_for: Duration::from_secs(seconds), ..fresh };
        for (latest, known, expected) in [
            (released("a", None, true), fresh, None),
            (released("me", None, true), fresh, Some(REFUSED)),
            (released("me", None, true), seen, Some(REFUSED)),
            (released("me", None, true), alone, None),
            (released("me", None, true), rebuffed, None),
            (released("a", None, false), seen, None),
            (released("a", None, false), fresh, Some(RETURNING)),
            (released("a", None, false), later(2), None),
            (released("me", None, false), later(2), Some(UNSEEN - Duration::from_secs(2))),
            (released("me", None, false), later(10), None),
            (released("a", Some("b"), false), seen, Some(PROMISED)),
            (released("a", Some("me"), false), seen, None),
            (Latest::Never, later(4), Some(NEVER_OWNED - Duration::from_secs(4))),
            (Latest::Never, later(10), None),
        ] {
            let found = match reservation(&latest, &known) {
                Some(
                    Finding::Leave(pause, _) | Finding::LeaveToOthers(pause, _) | Finding::Wait(pause, _),
                ) => Some(pause),
                Some(other) => panic!("{other:?}"),
                None => None,
            };
            assert_eq!(found, expected, "{latest:?} {known:?}");
        }
    }
}
