//! When a surplus replica becomes a standby again.
//!
//! Pure: the view and the time are arguments. Two standbys may become replicas of one shard at once, and an owner that
//! returns may become one before it has seen the others. A replica that an operator placed stays; the caller checks that.

use std::cmp::Reverse;
use std::time::Duration;

use cluster::ClusterView;
use tokio::time::Instant;
use types::ShardRef;

use crate::takeover::vacancy::weight;

/// How long a shard may have more replicas than are wanted.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much later than the one before it each replica ends, so that only one ends: gossip takes some time to show it.
const STEP: Duration = Duration::from_secs(5);

/// Tracks since when this node's replica may be surplus.
#[derive(Debug, Default)]
pub(crate) struct Surplus {
    since: Option<(ShardRef, Instant)>,
}

impl Surplus {
    /// Notes what the view shows of the shard of this node's replica, if it has one. Returns when the node is to stand by,
    /// unless something changes before.
    pub(crate) fn look(
        &mut self,
        view: &ClusterView,
        own_replica: Option<(&ShardRef, u32)>,
        now: Instant,
    ) -> Option<Instant> {
        let surplus = own_replica.filter(|(shard, wanted)| {
            // A replica of a shard without an owner may be its next owner.
            view.owner(shard).is_some()
                && usize::try_from(*wanted).is_ok_and(|wanted| view.replicas(shard).count() > wanted)
        });
        let Some((shard, _)) = surplus else {
            self.since = None;
            return None;
        };
        let since = match &self.since {
            Some((known, since)) if known == shard => *since,
            _ => now,
        };
        self.since = Some((shard.clone(), since));
        // The replica that would take the shard last ends first.
        let order = |id| Reverse(weight(id, shard));
        let mine = order(view.me());
        let before = view.replicas(shard).filter(|replica| order(&replica.id) > mine);
        let before = u32::try_from(before.count()).unwrap_or(u32::MAX);
        Some(since + PATIENCE + STEP.saturating_mul(before))
    }
}

#[cfg(test)]
mod tests {
    use types::api::{About, Member};
    use types::{Epoch, Generation, Phase, Post, RoleState};

    use super::*;

    fn shard() -> ShardRef {
        "storage/0".parse().unwrap()
    }

    fn member(id: &str, duty: Post) -> Member {
        let role = RoleState::starting("storage/0".parse().unwrap());
        let epoch = (duty == Post::Primary).then_some(Epoch(3));
        Member {
            id: id.parse().unwrap(),
            generation: Generation(1),
            version: 1,
            http: String::new(),
            gossip: String::new(),
            state: Some(RoleState { phase: Phase::Ready, duty: Some(duty), epoch, ..role }),
            about: About::default(),
            store: None,
        }
    }

    /// The owner and these replicas, as the first of them sees it.
    fn view(replicas: &[&str], has_owner: bool) -> ClusterView {
        let owner = has_owner.then(|| member("owner", Post::Primary));
        let members = replicas.iter().map(|id| member(id, Post::Replica)).chain(owner);
        ClusterView::new("test".parse().unwrap(), replicas[0].parse().unwrap(), members)
    }

    #[tokio::test(start_paused = true)]
    async fn surplus_replicas_stand_by_one_after_the_other_after_a_minute() {
        let shard = shard();
        let now = Instant::now();
        let mut waits: Vec<_> = [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"]]
            .iter()
            .map(|ids| {
                let at = Surplus::default().look(&view(ids, true), Some((&shard, 1)), now);
                at.unwrap() - now
            })
            .collect();
        waits.sort_unstable();
        assert_eq!(waits, [PATIENCE, PATIENCE + STEP, PATIENCE + STEP * 2], "all nodes agree on the order");
    }

    #[tokio::test(start_paused = true)]
    async fn the_minute_restarts_once_there_was_no_surplus() {
        let shard = shard();
        let (two, one) = (view(&["a", "b"], true), view(&["a"], true));
        let ownerless = view(&["a", "b"], false);
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let mut surplus = Surplus::default();
        let first = surplus.look(&two, Some((&shard, 1)), start).unwrap();
        assert_eq!(surplus.look(&two, Some((&shard, 1)), start + second * 9), Some(first));
        for (view, own_replica) in [(&one, Some((&shard, 1))), (&ownerless, Some((&shard, 1))), (&two, None)]
        {
            assert_eq!(surplus.look(view, own_replica, start + second * 10), None);
            let anew = surplus.look(&two, Some((&shard, 1)), start + second * 11).unwrap();
            assert_eq!(anew, first + second * 11);
        }
        assert_eq!(surplus.look(&two, Some((&shard, 2)), start + second * 12), None, "two are wanted now");
        assert!(surplus.look(&two, Some((&shard, 0)), start + second * 12).is_some());
    }
}
