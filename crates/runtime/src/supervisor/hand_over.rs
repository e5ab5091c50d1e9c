//! Hands a shard to the member that runs it next, so that no member has to detect that its owner is gone.
//!
//! The member is chosen and asked before anything is disturbed. Once the shard is released on the store, the member is
//! notified; if that message is lost, it finds the shard vacant as any other member does.

use std::time::Duration;

use store::Farewell;
use tokio::time::timeout;
use tracing::{debug, info};
use types::api::Release;
use types::{Epoch, NodeId, ShardRef};

use super::Supervisor;
use crate::role::owner::STORE_LIMIT;
use crate::takeover::vacancy::{Action, candidates};

/// How many members are asked whether they would take the shard.
const ASKED: usize = 2;
/// How long each of them may take to answer.
const ANSWER: Duration = Duration::from_millis(100);

/// The member that takes a shard next.
#[derive(Debug)]
pub(super) struct NextOwner {
    node: NodeId,
    http: String,
    /// Whether it has a replica: then the shard is released to it.
    has_replica: bool,
}

impl Supervisor {
    /// The first member that would take this node's shard if it were released now.
    pub(super) async fn next_owner(&self) -> Option<NextOwner> {
        let epoch = self.assigned.duty.claim_watch()?.claim().epoch();
        let shard = self.assigned.role.shard_ref()?;
        let view = self.tools.cluster.view();
        let nearest = candidates(&view, &shard, &self.takeover.layouts.borrow().clone());
        for (member, has_replica) in nearest.into_iter().take(ASKED) {
            let next_owner = NextOwner { node: member.id, http: member.http, has_replica };
            if self.offer(&next_owner, &shard, epoch, true).await {
                return Some(next_owner);
            }
        }
        None
    }

    /// Releases the shard, to the next owner if there is one, and records why.
    pub(super) async fn hand_over(&mut self, next_owner: Option<NextOwner>, why: &str) {
        let Some(claim_watch) = self.assigned.duty.take_claim() else { return };
        let to = next_owner
            .as_ref()
            .filter(|next_owner| next_owner.has_replica)
            .map(|next_owner| next_owner.node.clone());
        let farewell = Farewell { to: to.as_ref(), why: Some(why), ..Farewell::default() };
        if self.release(&claim_watch, farewell).await
            && let Some(next_owner) = next_owner
        {
            let claim = claim_watch.claim();
            let is_taken = self.offer(&next_owner, claim.shard_ref(), claim.epoch(), false).await;
            debug!(next_owner = %next_owner.node, is_taken, "offered a shard");
        }
    }

    /// Offers a shard to a member, or with `dry_run` only asks whether it would take it.
    async fn offer(&self, next_owner: &NextOwner, shard: &ShardRef, epoch: Epoch, dry_run: bool) -> bool {
        let ShardRef { service, shard } = shard.clone();
        let offer = Release { service, shard, epoch, to: next_owner.node.clone(), dry_run };
        self.tools.mesh.agent(&next_owner.http).offer(&next_owner.node, &offer, ANSWER).await.is_ok()
    }

    /// Takes a shard that its owner has offered, if it has no owner on the store.
    pub(super) async fn offered(&mut self, offer: &Release) {
        let shard = offer.shard_ref();
        if !self.is_free() || self.takeover.has_refused(&shard, Action::Own) {
            info!(%shard, "not taking a shard that was offered: this node has other work");
            return;
        }
        let Ok(store) = self.tools.cluster_store.shared_store().await else { return };
        match timeout(STORE_LIMIT, store.claims().read(&shard)).await {
            Ok(Ok(state)) if state.holder.is_none() => self.take_over(&shard, state).await,
            Ok(Ok(state)) => info!(note = state.note(), "a shard that was offered has an owner"),
            Ok(Err(error)) => info!(%error, "whether a shard that was offered is free can't be read"),
            Err(_) => {
                info!(limit = ?STORE_LIMIT, "the store does not answer whether an offered shard is free");
            }
        }
    }
}
