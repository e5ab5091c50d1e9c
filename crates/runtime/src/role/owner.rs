//! Takes and releases the claim of a shard.
//!
//! Whether a node may take a shard is a pure function of the claim on the store and the view; among the nodes that try, the
//! store decides.

mod error;

use std::time::Duration;

use cluster::{Cluster, ClusterView};
use mesh::{AgentError, Mesh};
use plugin::Claim;
use store::{ClaimError, ClaimState, Claims, Farewell, Latest, Store, StoreError};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};
use types::api::Release;
use types::{Holder, NodeId, RoleState, ShardRef, limits};

pub(crate) use self::error::{AcquireError, NotTheOwner};
use self::error::{HandOverRefused, Owned};
use crate::node::cluster_store::StoreAccessError;
use crate::node::identity::Identity;
use crate::node::services::Services;
use crate::takeover::twins::{self, Twin};
use crate::takeover::vacancy::has_candidate;

/// How long an owner may take to show that it is alive.
const ASK_LIMIT: Duration = Duration::from_secs(1);
/// The pause before the claim is read again, if its owner is leaving.
const LEAVING_PAUSE: Duration = Duration::from_millis(500);
/// The pause before an owner is asked again, if it carries out another command.
const BUSY_PAUSE: Duration = Duration::from_millis(250);
/// How long the store may take to answer a node that acts on its own.
pub(crate) const STORE_LIMIT: Duration = Duration::from_secs(5);
/// How often a node tries to take a claim while others write to its log.
const ATTEMPTS: u32 = 5;

/// What a node that wants a shard may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// Take it: it has no owner, or this node owned it in an earlier incarnation.
    Take,
    /// Ask its owner, which is a live member, to hand it over.
    Ask(Holder),
    /// Take it from an owner that is no live member: an operator forces the move.
    Seize(Holder),
    /// Leave it to its owner.
    Leave {
        /// The owner.
        holder: Holder,
        /// Whether gossip shows that it honours its claim.
        honoured: bool,
    },
}

/// What a node may do about a shard. `is_forced`: an operator wants the shard moved, even from its owner.
pub(crate) fn way(state: &ClaimState, me: &Identity, is_forced: bool, view: &ClusterView) -> Way {
    let Some(holder) = state.holder.clone() else {
        return Way::Take;
    };
    if me.is_mine(&holder) {
        return Way::Take;
    }
    // An owner with this node's id is another node, or an incarnation of this one that its data folder does not record.
    let is_there = holder.node != me.id && view.member(&holder.node).is_some();
    match (is_forced, is_there) {
        (true, true) => Way::Ask(holder),
        (true, false) => Way::Seize(holder),
        (false, _) => {
            let honoured = is_honoured(&holder, view);
            Way::Leave { holder, honoured }
        }
    }
}

/// Whether the incarnation that took the shard is in the view and gossips the epoch of the claim.
pub(crate) fn is_honoured(holder: &Holder, view: &ClusterView) -> bool {
    let says_so = |state: &RoleState| state.epoch == Some(holder.epoch);
    view.member(&holder.node).is_some_and(|member| {
        member.generation == holder.generation && member.state.as_ref().is_some_and(says_so)
    })
}

/// The outcome of asking an owner for its shard.
enum OwnerReply {
    /// It has handed it over.
    HandedOver,
    /// It answers that it does not own it.
    NotTheOwner,
    /// It is leaving, and releases the shard as it does.
    Leaving,
    /// It is carrying out another command.
    Busy(HandOverRefused),
    /// It does not answer.
    Silent,
}

/// The result of the checks that come before anything is disturbed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Consent {
    /// The number of the claim whose owner does not answer.
    silent: Option<u64>,
}

/// A node that wants to own a shard.
pub(crate) struct Candidate<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) cluster: &'a Cluster,
    pub(crate) mesh: &'a Mesh,
    pub(crate) services: &'a Services,
}

impl Candidate<'_> {
    /// Checks everything that can refuse, and asks the owner if an operator forces the move. Disturbs nothing.
    pub(crate) async fn consent(
        &self,
        store: &Store,
        shard: &ShardRef,
        is_forced: bool,
    ) -> Result<Consent, AcquireError> {
        let state = store.claims().read(shard).await.map_err(StoreAccessError::from)?;
        if !is_forced && self.leaves_it_to_others(shard, &state) {
            return Err(left_to_others(shard, &state));
        }
        if is_forced {
            self.refuse_twins(store, shard, &state).await?;
        }
        match way(&state, self.identity, is_forced, &self.cluster.view()) {
            Way::Leave { holder, honoured } => {
                Err(owned(shard, &holder, honoured, &state, &self.identity.id))
            }
            Way::Ask(holder) => {
                let deadline = Instant::now() + limits::CONSENT;
                loop {
                    match self.ask(shard, &holder, true).await? {
                        OwnerReply::HandedOver | OwnerReply::NotTheOwner | OwnerReply::Leaving => {
                            return Ok(Consent::default());
                        }
                        // It may just be taking the shard itself.
                        OwnerReply::Busy(_) if Instant::now() < deadline => sleep(BUSY_PAUSE).await,
                        OwnerReply::Busy(refused) => return Err(refused.into()),
                        OwnerReply::Silent => return Ok(Consent { silent: Some(state.number) }),
                    }
                }
            }
            Way::Seize(_) | Way::Take => Ok(Consent::default()),
        }
    }

    /// Takes a shard; if an operator forces the move, asks its owner first.
    pub(crate) async fn take(
        &self,
        store: &Store,
        shard: &ShardRef,
        is_forced: bool,
        consent: Consent,
    ) -> Result<Claim, AcquireError> {
        let claims = store.claims();
        // An owner that does not answer, or that denies the same claim twice, is not asked again.
        let (mut is_given_up, mut denied) = (false, None);
        let (mut was_handed_over, mut busy) = (false, None);
        for _ in 0..ATTEMPTS {
            let unread = |error: StoreError| {
                let failed = AcquireError::from(StoreAccessError::from(error));
                if was_handed_over { failed.ownerless(shard, &self.cluster.view()) } else { failed }
            };
            let state = claims.read(shard).await.map_err(unread)?;
            if !is_forced && self.leaves_it_to_others(shard, &state) {
                return Err(left_to_others(shard, &state));
            }
            match way(&state, self.identity, is_forced, &self.cluster.view()) {
                Way::Leave { holder, honoured } => {
                    return Err(owned(shard, &holder, honoured, &state, &self.identity.id));
                }
                Way::Ask(holder) if !is_given_up && consent.silent != Some(state.number) => {
                    match self.ask(shard, &holder, false).await? {
                        OwnerReply::HandedOver => was_handed_over = true,
                        OwnerReply::NotTheOwner => {
                            is_given_up = denied == Some(state.number);
                            denied = Some(state.number);
                        }
                        OwnerReply::Leaving => sleep(LEAVING_PAUSE).await,
                        OwnerReply::Busy(refused) => {
                            sleep(BUSY_PAUSE).await;
                            busy = Some(refused);
                        }
                        OwnerReply::Silent => is_given_up = true,
                    }
                    continue;
                }
                Way::Ask(holder) | Way::Seize(holder) => {
                    warn!(
                        %shard, from = %holder.node, epoch = %holder.epoch,
                        "taking a shard from an owner that does not run it, as an operator wants it"
                    );
                }
                Way::Take => {}
            }
            let asked_at = Instant::now();
            match claims.take(shard, &state, &self.identity.id, self.identity.generation).await {
                Ok(holder) => {
                    info!(%shard, epoch = %holder.epoch, "took a shard");
                    return Ok(Claim::new(claims, shard.clone(), holder, asked_at));
                }
                Err(ClaimError::Lost(_)) => {}
                Err(ClaimError::Store(error)) => return Err(unread(error)),
            }
        }
        Err(busy.map_or_else(|| AcquireError::Contended(shard.clone()), AcquireError::from))
    }

    /// Takes a shard from a state of its claim that no live owner honours.
    pub(crate) async fn take_vacant(
        &self,
        store: &Store,
        shard: &ShardRef,
        state: &ClaimState,
    ) -> Result<Claim, AcquireError> {
        let (claims, asked_at) = (store.claims(), Instant::now());
        let Identity { id, generation, .. } = self.identity;
        let taken = timeout(STORE_LIMIT, claims.take(shard, state, id, *generation)).await;
        match taken.map_err(|_| StoreAccessError::NoAnswer(STORE_LIMIT))? {
            Ok(holder) => Ok(Claim::new(claims, shard.clone(), holder, asked_at)),
            Err(ClaimError::Lost(now)) => {
                let note = now.note().unwrap_or_default();
                Err(AcquireError::TakenFirst { shard: shard.clone(), note })
            }
            Err(ClaimError::Store(error)) => Err(StoreAccessError::from(error).into()),
        }
    }

    /// Fails if the owner is alive in another cluster on the same store, since an operator of this one can't know its state.
    async fn refuse_twins(&self, store: &Store, shard: &ShardRef, state: &ClaimState) -> Result<(), Twin> {
        let twin = twins::find(self.mesh, &self.cluster.view(), store, (shard, state)).await;
        twin.map_or(Ok(()), Err)
    }

    /// Whether this node was the last to refuse the shard, and there are other candidates.
    fn leaves_it_to_others(&self, shard: &ShardRef, state: &ClaimState) -> bool {
        let is_refused =
            matches!(&state.latest, Latest::Released { by, is_refused: true, .. } if *by == self.identity.id);
        let service_type = self.services.type_of(&shard.service);
        is_refused && has_candidate(&self.cluster.view(), shard, service_type.as_ref())
    }

    /// Asks the owner to hand its shard over, or with `dry_run` whether it would. Fails if the owner refuses.
    async fn ask(
        &self,
        shard: &ShardRef,
        holder: &Holder,
        dry_run: bool,
    ) -> Result<OwnerReply, HandOverRefused> {
        let view = self.cluster.view();
        let Some(owner) = view.member(&holder.node) else {
            return Ok(OwnerReply::Silent);
        };
        let agent = self.mesh.agent(&owner.http);
        if agent.itself(ASK_LIMIT).await.is_err() {
            return Ok(OwnerReply::Silent);
        }
        let wanted = Release {
            service: shard.service.clone(),
            shard: shard.shard,
            epoch: holder.epoch,
            to: self.identity.id.clone(),
            dry_run,
        };
        let limit = if dry_run { ASK_LIMIT } else { limits::HAND_OVER };
        match agent.release(&owner.id, &wanted, limit).await {
            Ok(()) => Ok(OwnerReply::HandedOver),
            Err(AgentError::Refused(problem)) => {
                let refused = HandOverRefused { owner: owner.id.clone(), shard: shard.clone(), problem };
                // The owner's word on the wire.
                match refused.problem.code() {
                    "not-the-owner" => Ok(OwnerReply::NotTheOwner),
                    "leaving" => Ok(OwnerReply::Leaving),
                    "busy" => Ok(OwnerReply::Busy(refused)),
                    _ => Err(refused),
                }
            }
            Err(error @ (AgentError::Unanswered(_) | AgentError::NoAgent(_))) => {
                warn!(owner = %owner.id, %error, "the owner did not hand its shard over in time");
                Ok(OwnerReply::Silent)
            }
        }
    }
}

/// How a shard without an owner gets one.
pub(crate) fn new_owner(view: &ClusterView, shard: &ShardRef) -> String {
    let ShardRef { service, shard } = shard;
    match view.type_of(service).and_then(|service_type| view.spare(service, &service_type)) {
        Some(spare) => {
            format!(
                "`ctl set-service {spare} {service} --shard {shard}` gives it to {spare}, which stands by"
            )
        }
        None => "`ctl claims` shows its state; this node sees no ready standby that can take it".to_owned(),
    }
}

/// Releases a claim, if the store answers in time. Returns whether this node no longer has it.
pub(crate) async fn release(
    claims: &Claims,
    shard: &ShardRef,
    holder: &Holder,
    farewell: Farewell<'_>,
) -> bool {
    match timeout(limits::RELEASE, claims.release(shard, holder, farewell)).await {
        Ok(Ok(())) => {
            info!(%shard, epoch = %holder.epoch, why = farewell.why, "released a shard");
            true
        }
        // Another node has it already.
        Ok(Err(ClaimError::Lost(_))) => true,
        Ok(Err(ClaimError::Store(error))) => {
            warn!(%shard, %error, "a shard could not be released yet");
            false
        }
        Err(_) => {
            warn!(%shard, limit = ?limits::RELEASE, "the store did not record the release of a shard in time");
            false
        }
    }
}

fn left_to_others(shard: &ShardRef, state: &ClaimState) -> AcquireError {
    AcquireError::LeftToOthers { shard: shard.clone(), note: state.note().unwrap_or_default() }
}

fn owned(shard: &ShardRef, holder: &Holder, honoured: bool, state: &ClaimState, me: &NodeId) -> AcquireError {
    AcquireError::Owned(Box::new(Owned {
        shard: shard.clone(),
        holder: holder.clone(),
        honoured,
        defended: state.latest == Latest::Defended,
        http: state.http.clone(),
        me: me.clone(),
    }))
}

#[cfg(test)]
mod tests {
    use types::api::{About, Member};
    use types::{Epoch, Generation, Role};

    use super::*;

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn me() -> Identity {
        let generations = vec![Generation(1), Generation(5)];
        let (id, generation, born) = (node("me"), Generation(5), Some(Generation(1)));
        Identity { id, generation, born, cluster: None, generations, listed_from: None }
    }

    fn held_by(name: &str, generation: u64, epoch: u64) -> ClaimState {
        let holder = Holder { node: node(name), generation: Generation(generation), epoch: Epoch(epoch) };
        ClaimState { number: epoch, holder: Some(holder), ..ClaimState::default() }
    }

    fn view(members: &[(&str, u64, Option<u64>)]) -> ClusterView {
        let members = members.iter().map(|&(name, generation, epoch)| Member {
            id: node(name),
            generation: Generation(generation),
            version: 1,
            http: String::new(),
            gossip: String::new(),
            state: Some(RoleState {
                epoch: epoch.map(Epoch),
                ..RoleState::starting("storage/0".parse::<Role>().unwrap())
            }),
            about: About::default(),
            store: None,
        });
        ClusterView::new("test".parse().unwrap(), node("me"), members)
    }

    #[test]
    fn a_shard_that_is_free_or_was_ours_is_taken() {
        let nobody = view(&[]);
        assert_eq!(way(&ClaimState::default(), &me(), false, &nobody), Way::Take);
        assert_eq!(way(&held_by("me", 1, 3), &me(), false, &nobody), Way::Take);
        let namesake = way(&held_by("me", 6, 3), &me(), false, &view(&[("me", 5, None)]));
        assert!(
            matches!(namesake, Way::Leave { honoured: false, .. }),
            "another node of its name: {namesake:?}"
        );
    }

    #[test]
    fn a_shard_of_somebody_else_is_left_alone_unless_a_person_wants_it() {
        let (state, me) = (held_by("a", 1, 3), me());
        for (members, is_forced, expected) in [
            (vec![("a", 1, Some(3))], false, "left, honoured"),
            (vec![("a", 1, Some(2))], false, "left"),
            (vec![("a", 2, Some(3))], false, "left"),
            (vec![], false, "left"),
            (vec![("a", 1, Some(3))], true, "asked"),
            (vec![("a", 2, None)], true, "asked"),
            (vec![], true, "seized"),
        ] {
            let found = match way(&state, &me, is_forced, &view(&members)) {
                Way::Take => "taken",
                Way::Ask(_) => "asked",
                Way::Seize(_) => "seized",
                Way::Leave { honoured: true, .. } => "left, honoured",
                Way::Leave { honoured: false, .. } => "left",
            };
            assert_eq!(found, expected, "{members:?} is_forced={is_forced}");
        }
    }
}
