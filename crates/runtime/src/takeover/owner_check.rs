//! The gates between "no member seems to own this shard" and taking it.
//!
//! Gossip may be wrong, so the claim is read, its owner is asked directly, and an owner that neither answers nor is
//! surely gone is challenged on the store: it has two of its polls' time to say that it is there. One that sees no other
//! member yields to a challenger that does. Nothing here needs to be right for the data's sake; it keeps shards from moving
//! for nothing.

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
use crate::takeover::vacancy::{Gone, Sighting, UNSEEN, has_heir};

/// How long an owner may take to answer.
const ANSWER: Duration = Duration::from_millis(200);
/// How long the store may take to answer.
const STORE_ANSWER: Duration = Duration::from_secs(5);
/// How long a shard is left alone that its owner has yielded because it saw nobody: the first time and at most. It doubles
/// with each time in a row.
const YIELDED: Backoff = Backoff::new(Duration::from_secs(30), Duration::from_hours(1));
/// How long a shard that nobody ever owned is left to who was told to own it.
const NEVER_OWNED: Duration = Duration::from_secs(10);
/// The pause before an owner is doubted again that was there after all.
const REBUFF: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(60));
/// The pause after nothing could be found out.
pub(crate) const AGAIN: Duration = Duration::from_secs(2);
/// How long a node that could not run a shard leaves it to others.
const REFUSED: Duration = Duration::from_secs(30);
/// How long a shard that was given up for somebody is left to them.
const PROMISED: Duration = Duration::from_secs(3);
/// How long a shard whose owner left in an orderly way, before this node had ever seen it, is left to nodes that start now:
/// after the stop of a whole cluster each of them comes back to its own shard.
const RETURNING: Duration = Duration::from_secs(2);

/// What an owner check found.
#[derive(Debug)]
pub(crate) enum Finding {
    /// The shard may be taken from this state.
    Vacant(Box<ClaimState>),
    /// It is to be left alone for so long.
    Leave(Duration, String),
    /// The same, as long as there are others who could take it.
    LeaveToOthers(Duration, String),
    /// Its owner may be starting: it is left alone for so long.
    Wait(Duration, String),
    /// It moved a moment ago and is left alone for so long, though its owner does not answer.
    Settling {
        /// The owner's.
        epoch: Epoch,
        pause: Duration,
        why: String,
    },
    /// Nothing could be found out; ask again.
    Unknown(String),
}

/// A question about a shard.
pub(crate) struct OwnerCheck {
    pub(crate) shard: ShardRef,
    pub(crate) me: Identity,
    /// Its owner as this node saw it last.
    pub(crate) last_owner: Option<Sighting>,
    /// For how long this node has known of the shard.
    pub(crate) known_for: Duration,
    /// How often in a row nothing was to be done.
    pub(crate) rebuffs: u32,
    /// The epoch of its owner, and for how long this node has known it.
    pub(crate) epoch_known: Option<(Epoch, Duration)>,
    pub(crate) cluster: Cluster,
    /// Who has ended for sure, whatever gossip still says.
    pub(crate) gone: watch::Receiver<Gone>,
    pub(crate) mesh: Mesh,
    pub(crate) cluster_store: ClusterStore,
}

/// What the owner itself says.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    /// It owns the shard, and is there.
    Owns,
    /// Nobody is at its address, or it lives anew.
    Gone,
    /// It does not say, or says that it can't go on.
    Unclear,
}

impl OwnerCheck {
    /// Goes through the gates.
    pub(crate) async fn run(self) -> (ShardRef, Finding) {
        let finding = match self.cluster_store.shared_store().await {
            Ok(store) => self.ask(store).await,
            Err(problem) => Finding::Unknown(problem.detail),
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
            // Asked again soon: it may come to say that it does not want the shard.
            let pause = (store.poll_interval() * 2).min(UNSEEN.saturating_sub(self.known_for));
            return Finding::Wait(pause, why);
        }
        if self.me.is_mine(&holder) {
            return Finding::Vacant(Box::new(state));
        }
        if is_honoured(&holder, &self.view()) {
            return Finding::Unknown(format!("{} owns it", holder.node));
        }
        // Before anybody else is asked: a node of its name may be a member here. One that was seen needs no such look.
        let was_seen = self.last_owner.as_ref().is_some_and(|last| last.generation == holder.generation);
        let told = match suspect(&self.view(), &state).filter(|_| !was_seen) {
            Some((holder, http)) => {
                let told = self.mesh.agent(http).itself(ANSWER).await.ok();
                told.filter(|told| holder.is(&told.member))
            }
            None => None,
        };
        let word = match &told {
            Some(told) if judge(told, &holder) == Word::Owns => {
                let http = &told.member.http;
                return Finding::Unknown(format!(
                    "{} owns it, is no member, and answers at {http}",
                    holder.node
                ));
            }
            // It may have given the shard up; if not, it says so on the store.
            Some(_) => Word::Unclear,
            None => self.word_of(&holder).await,
        };
        match word {
            Word::Owns => self.rebuffed(format!("{} answers that it owns it", holder.node)),
            Word::Gone => Finding::Vacant(Box::new(state)),
            Word::Unclear => match self.settling(&state, holder.epoch) {
                Some(finding) => finding,
                None => self.challenge(&claims, (store.poll_interval(), store.defence_slack()), state).await,
            },
        }
    }

    fn view(&self) -> ClusterView {
        self.cluster.view().without(&self.gone.borrow())
    }

    /// A shard that was yielded a moment ago is left alone, so that it does not go to and fro between nodes that come and
    /// go out of sight.
    fn settling(&self, state: &ClaimState, epoch: Epoch) -> Option<Finding> {
        // Without jitter: every candidate leaves it alone for the whole time.
        let alone = YIELDED.limit(NonZeroU32::new(state.yielded)?.get());
        let known_for =
            self.epoch_known.filter(|(known, _)| *known == epoch).map_or(Duration::ZERO, |(_, d)| d);
        let pause = alone.checked_sub(known_for).filter(|pause| !pause.is_zero())?;
        let why = "its former owner, which nobody reached, has yielded it a moment ago".to_owned();
        Some(Finding::Settling { epoch, pause, why })
    }

    fn ownerless(&self, state: ClaimState) -> Finding {
        let service_type = self.cluster_store.services().type_of(&self.shard.service);
        let known = Known {
            me: &self.me.id,
            known_for: self.known_for,
            rebuffs: self.rebuffs,
            has_seen_owner: self.last_owner.is_some(),
            has_others: has_heir(&self.view(), &self.shard, service_type.as_ref()),
        };
        reservation(&state.latest, &known).unwrap_or_else(|| Finding::Vacant(Box::new(state)))
    }

    /// The pause doubles with each time.
    fn rebuffed(&self, why: String) -> Finding {
        let pause = REBUFF.pause(self.rebuffs.saturating_add(1), rand::random());
        Finding::Leave(pause, why)
    }

    /// Asks the owner at its address, twice if need be: a connection that was kept may have died with it.
    async fn word_of(&self, holder: &Holder) -> Word {
        let view = self.view();
        let seen = self.last_owner.as_ref().filter(|last| last.node == holder.node);
        let http = view.member(&holder.node).map(|member| &member.http).or(seen.map(|last| &last.http));
        // Another node of this one's name is nowhere to be asked.
        let Some(http) = http.filter(|_| holder.node != self.me.id) else { return Word::Unclear };
        for _ in 0..2 {
            match self.mesh.agent(http).itself(ANSWER).await {
                Ok(told) => return judge(&told, holder),
                Err(AgentError::Unanswered(CallError::Refused)) => return Word::Gone,
                Err(
                    AgentError::Unanswered(CallError::TimedOut(_) | CallError::Malformed(_))
                    | AgentError::Refused(_)
                    | AgentError::NoAgent(_),
                ) => return Word::Unclear,
                Err(AgentError::Unanswered(error)) => {
                    debug!(owner = %holder.node, %error, "the owner can't be asked");
                }
            }
        }
        Word::Unclear
    }

    /// Doubts the owner on the store, and waits for it to say that it is there.
    async fn challenge(
        &self,
        claims: &Claims,
        (poll, slack): (Duration, Duration),
        state: ClaimState,
    ) -> Finding {
        let shard = &self.shard;
        let sees = u32::try_from(self.view().peers().count()).unwrap_or(u32::MAX);
        let doubted = match &state.latest {
            // Whoever did it may be gone, but the owner has not answered yet either.
            Latest::Challenged { sees: seen, .. } if (*seen > 0) == (sees > 0) => Ok(state),
            Latest::Never
            | Latest::Taken
            | Latest::Challenged { .. }
            | Latest::Defended
            | Latest::Released { .. } => {
                info!(%shard, note = state.note(), sees, "doubting the owner of a shard");
                claims.challenge(shard, &state, &self.me.id, self.me.generation, sees).await
            }
        };
        let doubted = match doubted {
            Ok(doubted) => doubted,
            Err(ClaimError::Lost(now)) => return self.beaten(&now),
            Err(ClaimError::Store(error)) => return unread(&error),
        };
        let enough = Instant::now() + poll * 2 + slack;
        while Instant::now() < enough {
            sleep(poll / 4).await;
            match claims.is_latest(shard, doubted.number).await {
                Ok(true) => {}
                Ok(false) => {
                    return match claims.read(shard).await {
                        Ok(now) => self.beaten(&now),
                        Err(error) => unread(&error),
                    };
                }
                Err(error) => return unread(&error),
            }
        }
        Finding::Vacant(Box::new(doubted))
    }

    /// The claim went on meanwhile.
    fn beaten(&self, now: &ClaimState) -> Finding {
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
    /// Whether others are there who could take it.
    has_others: bool,
}

/// Why a shard that nobody owns is not taken yet, if there is a reason.
fn reservation(latest: &Latest, known: &Known<'_>) -> Option<Finding> {
    match latest {
        Latest::Never if known.known_for < NEVER_OWNED => {
            let pause = NEVER_OWNED.saturating_sub(known.known_for);
            Some(Finding::Leave(pause, "nobody ever owned it".to_owned()))
        }
        Latest::Released { by, is_refused: true, .. } => {
            let is_left = by == known.me && known.rebuffs == 0 && known.has_others;
            is_left
                .then(|| Finding::LeaveToOthers(REFUSED, "it could not be run here a moment ago".to_owned()))
        }
        Latest::Released { to: Some(to), .. } if to != known.me && known.rebuffs == 0 => {
            Some(Finding::Leave(PROMISED, format!("it was given up for {to}")))
        }
        Latest::Released { by, .. } if !known.has_seen_owner => {
            // What this node gave up itself it wants less than anybody who may come.
            let wait = if by == known.me { UNSEEN } else { RETURNING };
            let pause = wait.checked_sub(known.known_for).filter(|pause| !pause.is_zero())?;
            Some(Finding::Wait(pause, format!("{by} gave it up and may be starting")))
        }
        Latest::Never
        | Latest::Taken
        | Latest::Challenged { .. }
        | Latest::Defended
        | Latest::Released { .. } => None,
    }
}

/// What an agent's word about itself means for a claim.
fn judge(told: &AgentSelf, holder: &Holder) -> Word {
    let member = &told.member;
    if member.id != holder.node {
        // Somebody else has its address now; that says nothing of where it went.
        return Word::Unclear;
    }
    if member.generation > holder.generation {
        return Word::Gone;
    }
    let says_so = member.state.as_ref().is_some_and(|state| state.epoch == Some(holder.epoch));
    if member.generation == holder.generation && says_so { Word::Owns } else { Word::Unclear }
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
    fn a_shard_that_was_refused_is_taken_at_once_and_one_that_was_released_before_long() {
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
