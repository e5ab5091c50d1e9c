//! Which shards lack an owner or a replica, and when this node is to provide it.
//!
//! Pure: the view and the time are arguments. The result is only a reason to look closer: the checks of
//! [`crate::takeover::owner_check`] come next, and the store decides who owns the shard.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use cluster::{ClusterView, Timing};
use tokio::time::Instant;
use types::api::Member;
use types::{
    Backoff, Epoch, Generation, KeyHash, NodeId, Phase, Post, Profile, Role, ServiceName, ServiceType,
    ShardId, ShardRef,
};

/// Incarnations of nodes that have ended.
pub(crate) type Gone = BTreeSet<(NodeId, Generation)>;

/// What the spec of a service wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The number of the spec.
    pub(crate) spec: u64,
    pub(crate) service_type: ServiceType,
    pub(crate) shards: NonZeroU32,
    /// Replicas of each shard besides its owner.
    pub(crate) replicas: u32,
}

/// What a node can do for a shard.
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

/// How long a node waits before it acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// How long a shard must be without its owner before the first candidate acts.
    settle: Duration,
    /// How much later than the one before it each candidate acts.
    step: Duration,
}

/// How long a node waits for an owner that it has never seen, and for a member that has the shard as its role but has not
/// taken it yet: that node may be starting, perhaps with the whole cluster.
pub(crate) const UNSEEN: Duration = Duration::from_secs(10);
/// The same for the replicas of a shard that has never had all that are wanted.
const UNSEEN_REPLICAS: Duration = Duration::from_secs(15);
/// How long a node waits after an action failed on it.
const FAILED: Backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(300));
/// How many times longer a node waits for a missing replica than for a missing owner: it is less urgent.
const REPLICA_WAIT: u32 = 4;
/// How many candidates for a shard, in order, watch its owner for a crash.
const NEAR: u32 = 2;

impl Pace {
    pub(crate) fn of(profile: Profile) -> Self {
        let interval = Timing::of(profile).interval;
        Self { settle: interval, step: interval * 2 }
    }
}

/// Tracks since when shards have been without an owner, or with too few replicas.
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
    /// Its owner has crashed, so that there is nothing to wait for.
    has_owner_crashed: bool,
    thin_since: Option<Instant>,
    had_all_replicas: bool,
    /// This node does not take it before then, for a reason that an owner check found.
    not_before: Option<Instant>,
    /// That reason is that others are to try first; it counts only while there are other candidates.
    is_left_to_others: bool,
    /// Its owner's epoch, and since when that is known, from gossip or from the store.
    epoch: Option<(Epoch, Instant)>,
    /// How many owner checks in a row found nothing to do.
    rebuffs: u32,
    /// Actions that failed on this node, which leaves them to others for a while.
    failed: BTreeMap<Action, Failed>,
    /// How many actions in a row have failed on this node.
    failures: u32,
}

/// When this node retries an action that failed.
#[derive(Debug, Clone, Copy)]
struct Failed {
    until: Instant,
    /// The same if there is no other candidate.
    until_if_alone: Instant,
}

/// The owner of a shard in the view, and its phase.
fn owner(view: &ClusterView, shard: &ShardRef) -> Option<(Sighting, Phase)> {
    let Member { id, generation, http, state, .. } = view.owner(shard)?;
    let state = state.as_ref()?;
    let (node, http, epoch) = (id.clone(), http.clone(), state.epoch?);
    Some((Sighting { node, generation: *generation, epoch, http }, state.phase))
}

/// The owners that this node would be among the first to replace.
pub(crate) fn owners_to_watch(view: &ClusterView, layouts: &BTreeMap<ServiceName, Layout>) -> Vec<Sighting> {
    let shards = shards(layouts).into_iter();
    let near = shards.filter(|shard| rank(view, shard, layouts, Action::Own).is_some_and(|rank| rank < NEAR));
    near.filter_map(|shard| Some(owner(view, &shard)?.0)).collect()
}

/// The shards that no member in the view owns.
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

    /// Notes what the view shows now. The view must not contain the incarnations in `gone`.
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

    /// The action that is due on this node, else when the next one may be.
    pub(crate) fn next_action(
        &self,
        view: &ClusterView,
        layouts: &BTreeMap<ServiceName, Layout>,
        refused: &BTreeSet<(ShardRef, Action)>,
        now: Instant,
    ) -> Result<(ShardRef, Action), Option<Instant>> {
        let actions = self.watched.iter().filter_map(|(shard, watched)| {
            let (action, at) = self.due(shard, watched, view, layouts)?;
            // A refusal counts only while another candidate is left.
            let is_alone = action == Action::Own && !has_candidate(view, shard, type_of(layouts, shard));
            let not_before = watched
                .not_before
                .filter(|_| action == Action::Own && !(is_alone && watched.is_left_to_others));
            let failed = watched.failed.get(&action);
            let failed = failed.map(|failed| if is_alone { failed.until_if_alone } else { failed.until });
            let at = [not_before, failed].into_iter().flatten().fold(at, Instant::max);
            let next = (shard.clone(), action);
            (!refused.contains(&next)).then_some((next, at))
        });
        let (due, later): (Vec<_>, Vec<_>) = actions.partition(|(_, at)| *at <= now);
        // A shard without an owner is worse than a missing replica.
        let first = due.into_iter().map(|(next, _)| next).min_by_key(|(_, action)| *action);
        first.ok_or_else(|| later.into_iter().map(|(_, at)| at).min())
    }

    /// What this node can do for a shard, and when, as far as the view shows.
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
                Some(_) if watched.has_owner_crashed => Duration::ZERO,
                Some(_) => settle,
                None if is_awaited(view, shard) => settle.max(UNSEEN),
                // The claim shows whether there is an owner to wait for.
                None => settle,
            };
            return Some((Action::Own, since + settle + step * rank));
        }
        let since = watched.thin_since?;
        let rank = rank(view, shard, layouts, Action::Replicate)?;
        let settle = if watched.had_all_replicas {
            settle * REPLICA_WAIT
        } else {
            (settle * REPLICA_WAIT).max(UNSEEN_REPLICAS)
        };
        Some((Action::Replicate, since + settle + step * REPLICA_WAIT * rank))
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

    /// The epoch of a shard's owner, and for how long this node has known it.
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

    /// How many owner checks in a row found nothing to do for a shard.
    pub(crate) fn rebuffs(&self, shard: &ShardRef) -> u32 {
        self.watched.get(shard).map_or(0, |watched| watched.rebuffs)
    }

    /// Does not take a shard before `until`. `is_rebuff`: its owner was alive after all, or another node is to take it.
    pub(crate) fn put_off(&mut self, shard: &ShardRef, until: Instant, is_rebuff: bool) {
        if let Some(watched) = self.watched.get_mut(shard) {
            (watched.not_before, watched.is_left_to_others) = (Some(until), false);
            watched.rebuffs += u32::from(is_rebuff);
        }
    }

    /// Does not take a shard before `until`, unless there is no other candidate.
    pub(crate) fn leave_to_others(&mut self, shard: &ShardRef, until: Instant) {
        self.put_off(shard, until, true);
        if let Some(watched) = self.watched.get_mut(shard) {
            watched.is_left_to_others = true;
        }
    }

    /// An action failed on this node, which leaves it to others, longer each time.
    pub(crate) fn failed(&mut self, shard: &ShardRef, action: Action, now: Instant) {
        if let Some(watched) = self.watched.get_mut(shard) {
            watched.failures += 1;
            let (pause, first) = (FAILED.limit(watched.failures), FAILED.limit(1));
            watched.failed.insert(action, Failed { until: now + pause, until_if_alone: now + first });
        }
    }

    /// Whether a shard has all of its replicas, so that one that is missing later is a new case.
    pub(crate) fn has_all_replicas(&self, shard: &ShardRef) -> bool {
        self.watched.get(shard).is_some_and(|watched| watched.thin_since.is_none())
    }

    /// The present owner of a shard, if the view shows one.
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
            has_owner_crashed: false,
            thin_since: None,
            had_all_replicas: false,
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
                    // What was found about one vacancy does not apply to the next.
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
        self.has_owner_crashed = self.owner.as_ref().is_some_and(is_gone);
        let has_all = u32::try_from(view.replicas(shard).count()).is_ok_and(|replicas| replicas >= wanted);
        self.had_all_replicas |= has_all && wanted > 0;
        if has_all {
            self.thin_since = None;
        } else {
            self.thin_since.get_or_insert(now);
        }
    }
}

/// How many candidates act before this node; `None` if it is no candidate.
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
pub(crate) fn has_candidate(
    view: &ClusterView,
    shard: &ShardRef,
    service_type: Option<&ServiceType>,
) -> bool {
    let layouts = BTreeMap::new();
    view.peers().any(|peer| class(peer, view, (shard, service_type), &layouts, Action::Own).is_some())
}

/// The type of a shard's service, where that is known.
fn type_of<'a>(layouts: &'a BTreeMap<ServiceName, Layout>, shard: &ShardRef) -> Option<&'a ServiceType> {
    layouts.get(&shard.service).map(|layout| &layout.service_type)
}

/// The peers that could take a shard, the first candidate first, and whether each has a replica of it.
pub(crate) fn candidates(
    view: &ClusterView,
    shard: &ShardRef,
    layouts: &BTreeMap<ServiceName, Layout>,
) -> Vec<(Member, bool)> {
    let service_type = type_of(layouts, shard);
    let mut candidates: Vec<_> = view
        .peers()
        .filter_map(|peer| Some((class(peer, view, (shard, service_type), layouts, Action::Own)?, peer)))
        .map(|(class, peer)| ((class, Reverse(weight(&peer.id, shard))), peer))
        .collect();
    candidates.sort_unstable_by_key(|(order, _)| *order);
    candidates.into_iter().map(|((class, _), peer)| (peer.clone(), class == 0)).collect()
}

/// The group of candidates that a member belongs to: 0 acts first; `None` if it is no candidate.
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

/// Rendezvous hashing (Thaler and Ravishankar, 1998): each shard has its own order of nodes, the same on all nodes.
pub(crate) fn weight(node: &NodeId, shard: &ShardRef) -> KeyHash {
    KeyHash::of(format!("{node} {shard}").as_bytes())
}

#[cfg(test)]
mod tests;
