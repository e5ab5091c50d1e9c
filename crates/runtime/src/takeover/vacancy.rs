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
    Backoff, Epoch, Generation, KeyHash, NodeId, Phase, Post, Profile, Role, RoleState, ServiceName,
    ServiceType, ShardId,
};

/// A shard of a service.
pub(crate) type Place = (ServiceName, ShardId);

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
const FAILED: Backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(300));
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
    watched: BTreeMap<Place, Watched>,
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

/// Whether a member says that it owns this shard.
pub(crate) fn owns(state: &RoleState, (service, shard): &Place) -> bool {
    state.role.service() == Some(service)
        && state.role.shard() == Some(*shard)
        && state.epoch.is_some()
        && state.phase != Phase::Stopped
}

/// Whether some member is seen to own this shard.
pub(crate) fn is_owned(view: &ClusterView, place: &Place) -> bool {
    view.members().filter_map(|member| member.state.as_ref()).any(|state| owns(state, place))
}

/// Who owns this shard, as far as is seen, and in which phase.
fn owner(view: &ClusterView, place: &Place) -> Option<(Sighting, Phase)> {
    let states = view.members().filter_map(|member| Some((member, member.state.as_ref()?)));
    let owners = states.filter(|(_, state)| owns(state, place));
    let owners = owners.filter_map(|(member, state)| Some((member, state.phase, state.epoch?)));
    let (member, phase, epoch) = owners.max_by_key(|(_, _, epoch)| *epoch)?;
    let (node, http) = (member.id.clone(), member.http.clone());
    Some((Sighting { node, generation: member.generation, epoch, http }, phase))
}

/// The owners that this node would be among the first to follow.
pub(crate) fn predecessors(view: &ClusterView, layouts: &BTreeMap<ServiceName, Layout>) -> Vec<Sighting> {
    let places = places(layouts).into_iter();
    let near = places.filter(|place| rank(view, place, layouts, Action::Own).is_some_and(|rank| rank < NEAR));
    near.filter_map(|place| Some(owner(view, &place)?.0)).collect()
}

/// The shards that no member owns, as far as is seen.
pub(crate) fn ownerless(view: &ClusterView, layouts: &BTreeMap<ServiceName, Layout>) -> Vec<Place> {
    places(layouts).into_iter().filter(|place| owner(view, place).is_none()).collect()
}

fn places(layouts: &BTreeMap<ServiceName, Layout>) -> BTreeSet<Place> {
    let of_type = |(service, layout): (&ServiceName, &Layout)| {
        let shards = (0..layout.shards.get()).filter_map(|shard| ShardId::try_from(shard).ok());
        shards.map(|shard| (service.clone(), shard)).collect::<Vec<_>>()
    };
    layouts.iter().flat_map(of_type).collect()
}

/// Whether a member has a replica of this shard.
pub(crate) fn is_replica(state: &RoleState, (service, shard): &Place) -> bool {
    state.role.service() == Some(service)
        && state.role.shard() == Some(*shard)
        && state.duty == Some(Post::Replica)
        && matches!(state.phase, Phase::Starting | Phase::Ready | Phase::Degraded)
}

/// Whether a member is starting with this shard and has not taken it yet.
pub(crate) fn is_awaited(view: &ClusterView, (service, shard): &Place) -> bool {
    view.members().filter_map(|member| member.state.as_ref()).any(|state| {
        state.role.service() == Some(service)
            && state.role.shard() == Some(*shard)
            && state.phase == Phase::Starting
            && state.duty.is_none()
    })
}

/// How many members have a replica of this shard.
pub(crate) fn replicas(view: &ClusterView, place: &Place) -> usize {
    view.members().filter_map(|member| member.state.as_ref()).filter(|state| is_replica(state, place)).count()
}

/// The same without this node's own.
pub(crate) fn replicas_elsewhere(view: &ClusterView, place: &Place) -> usize {
    view.peers().filter_map(|peer| peer.state.as_ref()).filter(|state| is_replica(state, place)).count()
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
        let places = places(layouts);
        self.watched.retain(|place, _| places.contains(place));
        for place in places {
            let wanted = layouts.get(&place.0).map_or(0, |layout| layout.replicas);
            let watched = self.watched.entry(place.clone()).or_insert_with(|| Watched::new(now));
            watched.look(view, gone, &place, wanted, now);
        }
    }

    /// What this node is to do, if its turn has come, and else when it may come.
    pub(crate) fn turn(
        &self,
        view: &ClusterView,
        layouts: &BTreeMap<ServiceName, Layout>,
        refused: &BTreeSet<(Place, Action)>,
        now: Instant,
    ) -> Result<(Place, Action), Option<Instant>> {
        let turns = self.watched.iter().filter_map(|(place, watched)| {
            let (action, at) = self.due(place, watched, view, layouts)?;
            // A refusal counts only while another candidate is left.
            let is_alone = action == Action::Own && !has_heir(view, place, type_of(layouts, place));
            let doubted = watched
                .not_before
                .filter(|_| action == Action::Own && !(is_alone && watched.is_left_to_others));
            let failed = watched.failed.get(&action);
            let failed = failed.map(|failed| if is_alone { failed.until_if_alone } else { failed.until });
            let at = [doubted, failed].into_iter().flatten().fold(at, Instant::max);
            let turn = (place.clone(), action);
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
        place: &Place,
        watched: &Watched,
        view: &ClusterView,
        layouts: &BTreeMap<ServiceName, Layout>,
    ) -> Option<(Action, Instant)> {
        let Pace { settle, step } = self.pace;
        if let Some(since) = watched.ownerless_since {
            let rank = rank(view, place, layouts, Action::Own)?;
            let settle = match &watched.owner {
                Some(_) if watched.is_orphan => Duration::ZERO,
                Some(_) => settle,
                None if is_awaited(view, place) => settle.max(UNSEEN),
                // The claim says whether there is an owner to wait for.
                None => settle,
            };
            return Some((Action::Own, since + settle + step * rank));
        }
        let since = watched.thin_since?;
        let rank = rank(view, place, layouts, Action::Replicate)?;
        let settle = if watched.had_all_copies {
            settle * COPIES_WAIT
        } else {
            (settle * COPIES_WAIT).max(UNSEEN_COPIES)
        };
        Some((Action::Replicate, since + settle + step * COPIES_WAIT * rank))
    }

    /// The owner of a shard as it was last seen.
    pub(crate) fn last_owner(&self, place: &Place) -> Option<&Sighting> {
        self.watched.get(place)?.owner.as_ref()
    }

    /// For how long this node has known of a shard.
    pub(crate) fn known_for(&self, place: &Place, now: Instant) -> Duration {
        self.watched
            .get(place)
            .map_or(Duration::ZERO, |watched| now.saturating_duration_since(watched.known_since))
    }

    /// The epoch of a shard's owner, and for how long it is known.
    pub(crate) fn epoch_known(&self, place: &Place, now: Instant) -> Option<(Epoch, Duration)> {
        let (epoch, since) = self.watched.get(place)?.epoch?;
        Some((epoch, now.saturating_duration_since(since)))
    }

    /// Notes that a shard has an owner of this epoch.
    pub(crate) fn note_epoch(&mut self, place: &Place, epoch: Epoch, now: Instant) {
        if let Some(watched) = self.watched.get_mut(place) {
            watched.note_epoch(epoch, now);
        }
    }

    /// How often in a row it was found that nothing is to be done for a shard.
    pub(crate) fn rebuffs(&self, place: &Place) -> u32 {
        self.watched.get(place).map_or(0, |watched| watched.rebuffs)
    }

    /// Does not take a shard before then. `is_rebuff` says that its owner was there after all, or had reason not to be.
    pub(crate) fn put_off(&mut self, place: &Place, until: Instant, is_rebuff: bool) {
        if let Some(watched) = self.watched.get_mut(place) {
            (watched.not_before, watched.is_left_to_others) = (Some(until), false);
            watched.rebuffs += u32::from(is_rebuff);
        }
    }

    /// Does not take a shard before then, unless there is nobody else who could.
    pub(crate) fn leave_to_others(&mut self, place: &Place, until: Instant) {
        self.put_off(place, until, true);
        if let Some(watched) = self.watched.get_mut(place) {
            watched.is_left_to_others = true;
        }
    }

    /// This node could not do it: it leaves it to others, longer each time.
    pub(crate) fn failed(&mut self, place: &Place, action: Action, now: Instant) {
        if let Some(watched) = self.watched.get_mut(place) {
            watched.failures += 1;
            let (pause, first) = (FAILED.limit(watched.failures), FAILED.limit(1));
            watched.failed.insert(action, Failed { until: now + pause, until_if_alone: now + first });
        }
    }

    /// Whether a shard has its replicas, so that a missing one is news.
    pub(crate) fn has_all_replicas(&self, place: &Place) -> bool {
        self.watched.get(place).is_some_and(|watched| watched.thin_since.is_none())
    }

    /// Whether somebody owns a shard now, as far as is seen.
    pub(crate) fn owner_now(&self, place: &Place) -> Option<&Sighting> {
        let watched = self.watched.get(place)?;
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

    fn look(&mut self, view: &ClusterView, gone: &Gone, place: &Place, wanted: u32, now: Instant) {
        match owner(view, place) {
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
        let has_all = u32::try_from(replicas(view, place)).is_ok_and(|replicas| replicas >= wanted);
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
    place: &Place,
    layouts: &BTreeMap<ServiceName, Layout>,
    action: Action,
) -> Option<u32> {
    let service_type = type_of(layouts, place);
    let order = |member: &Member| {
        let class = class(member, view, (place, service_type), layouts, action)?;
        Some((class, Reverse(weight(&member.id, place))))
    };
    let mine = order(view.member(view.me())?)?;
    let before = view.peers().filter_map(order).filter(|theirs| *theirs < mine).count();
    u32::try_from(before).ok()
}

/// Whether a peer could take a shard, as a standby or with its replica.
pub(crate) fn has_heir(view: &ClusterView, place: &Place, service_type: Option<&ServiceType>) -> bool {
    let layouts = BTreeMap::new();
    view.peers().any(|peer| class(peer, view, (place, service_type), &layouts, Action::Own).is_some())
}

/// The type of a shard's service, where that is known.
fn type_of<'a>(layouts: &'a BTreeMap<ServiceName, Layout>, place: &Place) -> Option<&'a ServiceType> {
    layouts.get(&place.0).map(|layout| &layout.service_type)
}

/// The peers that could take a shard, the nearest first, each with whether it has a replica of it.
pub(crate) fn heirs(
    view: &ClusterView,
    place: &Place,
    layouts: &BTreeMap<ServiceName, Layout>,
) -> Vec<(Member, bool)> {
    let service_type = type_of(layouts, place);
    let mut heirs: Vec<_> = view
        .peers()
        .filter_map(|peer| Some((class(peer, view, (place, service_type), layouts, Action::Own)?, peer)))
        .map(|(class, peer)| ((class, Reverse(weight(&peer.id, place))), peer))
        .collect();
    heirs.sort_unstable_by_key(|(order, _)| *order);
    heirs.into_iter().map(|((class, _), peer)| (peer.clone(), class == 0)).collect()
}

/// How near a member is to the shard: 0 is the nearest; nothing if it can't do it.
fn class(
    member: &Member,
    view: &ClusterView,
    (place, service_type): (&Place, Option<&ServiceType>),
    layouts: &BTreeMap<ServiceName, Layout>,
    action: Action,
) -> Option<u8> {
    let state = member.state.as_ref().filter(|state| state.phase.is_serving())?;
    let takes_over = |service_type: &ServiceType| member.about.takes_over(&place.0, service_type);
    let is_standby = state.role == Role::Standby && service_type.is_some_and(takes_over);
    if action == Action::Replicate {
        return is_standby.then_some(0);
    }
    if is_replica(state, place) {
        return Some(0);
    }
    let own = state.role.service().zip(state.role.shard());
    let copied =
        own.filter(|_| state.duty == Some(Post::Replica)).filter(|(service, _)| **service == place.0);
    match copied {
        Some((service, shard)) => {
            let wanted = layouts.get(service).map_or(0, |layout| layout.replicas);
            let is_surplus = u32::try_from(replicas(view, &(service.clone(), shard)))
                .is_ok_and(|replicas| replicas > wanted);
            Some(if is_surplus { 1 } else { 3 })
        }
        None => is_standby.then_some(2),
    }
}

/// Rendezvous hashing (Thaler and Ravishankar, 1998): each shard has its own order of nodes, and all agree on it.
pub(crate) fn weight(node: &NodeId, (service, shard): &Place) -> KeyHash {
    KeyHash::of(format!("{node} {service}/{shard}").as_bytes())
}

#[cfg(test)]
mod tests;
