//! Which shards want an owner or a replica, and when it is this node's turn to give them one.
//!
//! Pure: the view and the time come in. What is found here is only a reason to look closer; see [`crate::takeover::owner_check`] for
//! the gates that come next, and the store for who is right.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use cluster::{ClusterView, Timing};
use tokio::time::Instant;
use types::api::Member;
use types::{
    Epoch, Generation, KeyHash, NodeId, Phase, Post, Profile, Role, ServiceName, ServiceType, ShardId,
    ShardRef,
};

/// Lives of nodes that are over.
pub(crate) type Gone = BTreeSet<(NodeId, Generation)>;

/// What the spec of a service wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The number of the spec.
    pub(crate) spec: u64,
    pub(crate) service_type: ServiceType,
    pub(crate) shards: NonZeroU32,
    /// Replicas of each shard beside its owner's.
    pub(crate) replicas: u32,
}

/// What is to be done for a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Action {
    /// Own it.
    Own,
    /// Have a replica of it.
    Replicate,
}

/// An owner as it was last seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sighting {
    pub(crate) node: NodeId,
    pub(crate) generation: Generation,
    pub(crate) epoch: Epoch,
    pub(crate) http: String,
}

/// How long is waited before something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// A shard is without its owner for so long before anybody stirs.
    settle: Duration,
    /// Each candidate stirs so much later than the one before it.
    step: Duration,
}

/// How long an owner that this node never saw is waited for, and a member whose role is the shard and that has not taken
/// it yet: it may be starting, as all may.
pub(crate) const UNSEEN: Duration = Duration::from_secs(10);
/// The same for the replicas of a shard that never were as many as are wanted.
const UNSEEN_COPIES: Duration = Duration::from_secs(15);
/// How long a node leaves alone what it could not do, the first time and at most.
const FAILED: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));
/// How many times longer a missing replica is waited for than a missing owner: it is less urgent.
const COPIES_WAIT: u32 = 4;
/// Of the candidates for a shard, so many look closely at its owner.
const NEAR: u32 = 2;

impl Pace {
    pub(crate) fn of(profile: Profile) -> Self {
        let interval = Timing::of(profile).interval;
        Self { settle: interval, step: interval * 2 }
    }
}

/// Knows since when shards have been without an owner, or with too few replicas.
#[derive(Debug)]
pub(crate) struct Vacancies {
    pace: Pace,
    watched: BTreeMap<ShardRef, Watched>,
}

#[derive(Debug)]
struct Watched {
    known_since: Instant,
    owner: Option<Sighting>,
    ownerless_since: Option<Instant>,
    /// Its owner has ended for sure, so that there is nothing to wait for.
    is_orphan: bool,
    thin_since: Option<Instant>,
    had_all_copies: bool,
    /// It is not owned before, for some reason that was found.
    not_before: Option<Instant>,
    /// That reason is that others are to try first; it holds while there are others.
    is_left_to_others: bool,
    /// Since when its owner's epoch is known, from gossip or from the store.
    epoch: Option<(Epoch, Instant)>,
    /// How often in a row it was found that nothing is to be done.
    rebuffs: u32,
    /// This node could not do it, and leaves it to others for a while.
    failed: BTreeMap<Action, Failed>,
    /// How often in a row it could not.
    failures: u32,
}

/// When this node tries again what it could not do.
#[derive(Debug, Clone, Copy)]
struct Failed {
    until: Instant,
    /// The same if there is nobody else who could try.
    until_if_alone: Instant,
}

/// The owner of a shard as far as is seen, and its phase.
fn owner(view: &ClusterView, shard: &ShardRef) -> Option<(Sighting, Phase)> {
    let Member { id, generation, http, state, .. } = view.owner(shard)?;
    let state = state.as_ref()?;
    let (node, http, epoch) = (id.clone(), http.clone(), state.epoch?);
    Some((Sighting { node, generation: *generation, epoch, http }, state.phase))
}

/// The owners that this node would be among the first to follow.
pub(crate) fn predecessors(view: &ClusterView, layouts: &BTreeMap<ServiceName, Layout>) -> Vec<Sighting> {
    let shards = shards(layouts).into_iter();
    let near = shards.filter(|shard| rank(view, shard, layouts, Action::Own).is_some_and(|rank| rank < NEAR));
    near.filter_map(|shard| Some(owner(view, &shard)?.0)).collect()
}

/// The shards that no member owns, as far as is seen.
pub(crate) fn ownerless(view: &ClusterView, layouts: &BTreeMap<ServiceName, Layout>) -> Vec<ShardRef> {
    shards(layouts).into_iter().filter(|shard| owner(view, shard).is_none()).collect()
}

fn shards(layouts: &BTreeMap<ServiceName, Layout>) -> BTreeSet<ShardRef> {
    let of_service = |(service, layout): (&ServiceName, &Layout)| {
        let shards = (0..layout.shards.get()).filter_map(|shard| ShardId::try_from(shard).ok());
        shards.map(|shard| ShardRef::new(service.clone(), shard)).collect::<Vec<_>>()
    };
    layouts.iter().flat_map(of_service).collect()
}

/// Whether a member is starting with this shard and has not taken it yet.
pub(crate) fn is_awaited(view: &ClusterView, shard: &ShardRef) -> bool {
    view.members()
        .filter_map(|member| member.state.as_ref())
        .any(|state| state.role.is_of(shard) && state.phase == Phase::Starting && state.duty.is_none())
}

impl Vacancies {
    pub(crate) fn new(pace: Pace) -> Self {
        Self { pace, watched: BTreeMap::new() }
    }

    /// Notes what the view shows now. It does not show those who are gone for sure.
    pub(crate) fn look(
        &mut self,
        view: &ClusterView,
        gone: &Gone,
        layouts: &BTreeMap<ServiceName, Layout>,
        now: Instant,
    ) {
        let shards = shards(layouts);
        self.watched.retain(|shard, _| shards.contains(shard));
        for shard in shards {
            let wanted = layouts.get(&shard.service).map_or(0, |layout| layout.replicas);
            let watched = self.watched.entry(shard.clone()).or_insert_with(|| Watched::new(now));
            watched.look(view, gone, &shard, wanted, now);
        }
    }

    /// What this node is to do, if its turn has come, and else when it may come.
    pub(crate) fn turn(
        &self,
        view: &ClusterView,
        layouts: &BTreeMap<ServiceName, Layout>,
        refused: &BTreeSet<(ShardRef, Action)>,
        now: Instant,
    ) -> Result<(ShardRef, Action), Option<Instant>> {
        let turns = self.watched.iter().filter_map(|(shard, watched)| {
            let (action, at) = self.due(shard, watched, view, layouts)?;
            // A refusal counts only while another candidate is left.
            let is_alone = action == Action::Own && !has_heir(view, shard, type_of(layouts, shard));
            let doubted = watched
                .not_before
                .filter(|_| action == Action::Own && !(is_alone && watched.is_left_to_others));
            let failed = watched.failed.get(&action);
            let failed = failed.map(|failed| if is_alone { failed.until_if_alone } else { failed.until });
            let at = [doubted, failed].into_iter().flatten().fold(at, Instant::max);
            let turn = (shard.clone(), action);
            (!refused.contains(&turn)).then_some((turn, at))
        });
        let (due, later): (Vec<_>, Vec<_>) = turns.partition(|(_, at)| *at <= now);
        // A shard without an owner is worse than a missing replica.
        let first = due.into_iter().map(|(turn, _)| turn).min_by_key(|(_, action)| *action);
        first.ok_or_else(|| later.into_iter().map(|(_, at)| at).min())
    }

    /// When this node's turn comes, as far as can be seen.
    fn due(
        &self,
        shard: &ShardRef,
        watched: &Watched,
        view: &ClusterView,
        layouts: &BTreeMap<ServiceName, Layout>,
    ) -> Option<(Action, Instant)> {
        let Pace { settle, step } = self.pace;
        if let Some(since) = watched.ownerless_since {
            let rank = rank(view, shard, layouts, Action::Own)?;
            let settle = match &watched.owner {
                Some(_) if watched.is_orphan => Duration::ZERO,
                Some(_) => settle,
                None if is_awaited(view, shard) => settle.max(UNSEEN),
                // The claim says whether there is an owner to wait for.
                None => settle,
            };
            return Some((Action::Own, since + settle + step * rank));
        }
        let since = watched.thin_since?;
        let rank = rank(view, shard, layouts, Action::Replicate)?;
        let settle = if watched.had_all_copies {
            settle * COPIES_WAIT
        } else {
            (settle * COPIES_WAIT).max(UNSEEN_COPIES)
        };
        Some((Action::Replicate, since + settle + step * COPIES_WAIT * rank))
    }

    /// The owner of a shard as it was last seen.
    pub(crate) fn last_owner(&self, shard: &ShardRef) -> Option<&Sighting> {
        self.watched.get(shard)?.owner.as_ref()
    }

    /// For how long this node has known of a shard.
    pub(crate) fn known_for(&self, shard: &ShardRef, now: Instant) -> Duration {
        self.watched
            .get(shard)
            .map_or(Duration::ZERO, |watched| now.saturating_duration_since(watched.known_since))
    }

    /// The epoch of a shard's owner, and for how long it is known.
    pub(crate) fn epoch_known(&self, shard: &ShardRef, now: Instant) -> Option<(Epoch, Duration)> {
        let (epoch, since) = self.watched.get(shard)?.epoch?;
        Some((epoch, now.saturating_duration_since(since)))
    }

    /// Notes that a shard has an owner of this epoch.
    pub(crate) fn note_epoch(&mut self, shard: &ShardRef, epoch: Epoch, now: Instant) {
        if let Some(watched) = self.watched.get_mut(shard) {
            watched.note_epoch(epoch, now);
        }
    }

    /// How often in a row it was found that nothing is to be done for a shard.
    pub(crate) fn rebuffs(&self, shard: &ShardRef) -> u32 {
        self.watched.get(shard).map_or(0, |watched| watched.rebuffs)
    }

    /// Does not take a shard before then. `is_rebuff` says that its owner was there after all, or had reason not to be.
    pub(crate) fn put_off(&mut self, shard: &ShardRef, until: Instant, is_rebuff: bool) {
        if let Some(watched) = self.watched.get_mut(shard) {
            (watched.not_before, watched.is_left_to_others) = (Some(until), false);
            watched.rebuffs += u32::from(is_rebuff);
        }
    }

    /// Does not take a shard before then, unless there is nobody else who could.
    pub(crate) fn leave_to_others(&mut self, shard: &ShardRef, until: Instant) {
        self.put_off(shard, until, true);
        if let Some(watched) = self.watched.get_mut(shard) {
            watched.is_left_to_others = true;
        }
    }

    /// This node could not do it: it leaves it to others, longer each time.
    pub(crate) fn failed(&mut self, shard: &ShardRef, action: Action, now: Instant) {
        if let Some(watched) = self.watched.get_mut(shard) {
            let pause = FAILED.0.saturating_mul(1 << watched.failures.min(10)).min(FAILED.1);
            let failed = Failed { until: now + pause, until_if_alone: now + FAILED.0 };
            watched.failed.insert(action, failed);
            watched.failures += 1;
        }
    }

    /// Whether a shard has its replicas, so that a missing one is news.
    pub(crate) fn has_all_replicas(&self, shard: &ShardRef) -> bool {
        self.watched.get(shard).is_some_and(|watched| watched.thin_since.is_none())
    }

    /// Whether somebody owns a shard now, as far as is seen.
    pub(crate) fn owner_now(&self, shard: &ShardRef) -> Option<&Sighting> {
        let watched = self.watched.get(shard)?;
        watched.owner.as_ref().filter(|_| watched.ownerless_since.is_none())
    }
}

impl Watched {
    fn new(now: Instant) -> Self {
        Self {
            known_since: now,
            owner: None,
            ownerless_since: None,
            is_orphan: false,
            thin_since: None,
            had_all_copies: false,
            not_before: None,
            is_left_to_others: false,
            epoch: None,
            rebuffs: 0,
            failed: BTreeMap::new(),
            failures: 0,
        }
    }

    fn note_epoch(&mut self, epoch: Epoch, now: Instant) {
        if self.epoch.is_none_or(|(known, _)| known < epoch) {
            self.epoch = Some((epoch, now));
        }
    }

    fn look(&mut self, view: &ClusterView, gone: &Gone, shard: &ShardRef, wanted: u32, now: Instant) {
        match owner(view, shard) {
            Some((sighting, phase)) => {
                if self.ownerless_since.take().is_some() {
                    // What was found of the last time says nothing of the next.
                    (self.not_before, self.rebuffs) = (None, 0);
                }
                if phase == Phase::Ready {
                    self.failed.remove(&Action::Own);
                    self.failures = 0;
                }
                self.note_epoch(sighting.epoch, now);
                self.owner = Some(sighting);
            }
            None => {
                self.ownerless_since.get_or_insert(now);
            }
        }
        let is_gone = |owner: &Sighting| gone.contains(&(owner.node.clone(), owner.generation));
        self.is_orphan = self.owner.as_ref().is_some_and(is_gone);
        let has_all = u32::try_from(view.replicas(shard).count()).is_ok_and(|replicas| replicas >= wanted);
        self.had_all_copies |= has_all && wanted > 0;
        if has_all {
            self.thin_since = None;
        } else {
            self.thin_since.get_or_insert(now);
        }
    }
}

/// How many others go before this node; nothing if it is no candidate.
fn rank(
    view: &ClusterView,
    shard: &ShardRef,
    layouts: &BTreeMap<ServiceName, Layout>,
    action: Action,
) -> Option<u32> {
    let service_type = type_of(layouts, shard);
    let order = |member: &Member| {
        let class = class(member, view, (shard, service_type), layouts, action)?;
        Some((class, Reverse(weight(&member.id, shard))))
    };
    let mine = order(view.member(view.me())?)?;
    let before = view.peers().filter_map(order).filter(|theirs| *theirs < mine).count();
    u32::try_from(before).ok()
}

/// Whether a peer could take a shard, as a standby or with its replica.
pub(crate) fn has_heir(view: &ClusterView, shard: &ShardRef, service_type: Option<&ServiceType>) -> bool {
    let layouts = BTreeMap::new();
    view.peers().any(|peer| class(peer, view, (shard, service_type), &layouts, Action::Own).is_some())
}

/// The type of a shard's service, where that is known.
fn type_of<'a>(layouts: &'a BTreeMap<ServiceName, Layout>, shard: &ShardRef) -> Option<&'a ServiceType> {
    layouts.get(&shard.service).map(|layout| &layout.service_type)
}

/// The peers that could take a shard, the nearest first, each with whether it has a replica of it.
pub(crate) fn heirs(
    view: &ClusterView,
    shard: &ShardRef,
    layouts: &BTreeMap<ServiceName, Layout>,
) -> Vec<(Member, bool)> {
    let service_type = type_of(layouts, shard);
    let mut heirs: Vec<_> = view
        .peers()
        .filter_map(|peer| Some((class(peer, view, (shard, service_type), layouts, Action::Own)?, peer)))
        .map(|(class, peer)| ((class, Reverse(weight(&peer.id, shard))), peer))
        .collect();
    heirs.sort_unstable_by_key(|(order, _)| *order);
    heirs.into_iter().map(|((class, _), peer)| (peer.clone(), class == 0)).collect()
}

/// How near a member is to the shard: 0 is the nearest; nothing if it can't do it.
fn class(
    member: &Member,
    view: &ClusterView,
    (shard, service_type): (&ShardRef, Option<&ServiceType>),
    layouts: &BTreeMap<ServiceName, Layout>,
    action: Action,
) -> Option<u8> {
    let state = member.state.as_ref().filter(|state| state.phase.is_serving())?;
    let takes_over = |service_type: &ServiceType| member.about.takes_over(&shard.service, service_type);
    let is_standby = state.role == Role::Standby && service_type.is_some_and(takes_over);
    if action == Action::Replicate {
        return is_standby.then_some(0);
    }
    if state.is_replica_of(shard) {
        return Some(0);
    }
    let own = state.role.shard_ref().filter(|_| state.duty == Some(Post::Replica));
    match own.filter(|own| own.service == shard.service) {
        Some(own) => {
            let wanted = layouts.get(&own.service).map_or(0, |layout| layout.replicas);
            let is_surplus =
                u32::try_from(view.replicas(&own).count()).is_ok_and(|replicas| replicas > wanted);
            Some(if is_surplus { 1 } else { 3 })
        }
        None => is_standby.then_some(2),
    }
}

/// Rendezvous hashing (Thaler and Ravishankar, 1998): each shard has its own order of nodes, and all agree on it.
pub(crate) fn weight(node: &NodeId, shard: &ShardRef) -> KeyHash {
    KeyHash::of(format!("{node} {shard}").as_bytes())
}

#[cfg(test)]
mod tests;
