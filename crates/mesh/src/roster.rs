//! The members of each service type, as addresses that requests can be sent to.
//!
//! Made anew from the view whenever that has changed. What is expected of a type (send, wait, give up) is a pure
//! function of it.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cluster::ClusterView;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::debug;
use types::{Epoch, NodeId, Post, Role, ServiceType, ShardId, Target};

use crate::base_url::BaseUrl;

/// How long after its last member went a role is expected to come back.
const LATELY: Duration = Duration::from_secs(10);

/// The members of each service type, kept up to date.
#[derive(Debug)]
pub(crate) struct Roster {
    view: watch::Receiver<ClusterView>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    view: watch::Receiver<ClusterView>,
    catalog: Arc<Catalog>,
    /// Whether the view's owner is gone, so that it never changes again.
    is_final: bool,
    learned: Learned,
}

/// Epochs that members told of before gossip did.
type Learned = BTreeMap<(ServiceType, ShardId), (Epoch, Instant)>;

/// The members of each service type at one moment.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    services: BTreeMap<ServiceType, Vec<Candidate>>,
    /// Roles that were there and are no more.
    gone_at: BTreeMap<Role, Instant>,
    runnable: BTreeSet<ServiceType>,
    /// How many shards a type has, as its members say or said.
    shards: BTreeMap<ServiceType, NonZeroU32>,
    /// The owner of each shard as it was seen last.
    owners: BTreeMap<(ServiceType, ShardId), (NodeId, Epoch)>,
    /// A member that stands by for each type, where there is one.
    spares: BTreeMap<ServiceType, NodeId>,
    /// Owners that have resigned, each with why.
    resigned: BTreeMap<(ServiceType, ShardId), (NodeId, String)>,
}

/// A member of a service type.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) node: NodeId,
    pub(crate) url: BaseUrl,
    role: Role,
    epoch: Option<Epoch>,
    /// It serves, and nobody owns its shard under a higher epoch.
    is_serving: bool,
    /// It has a copy of the shard that somebody else owns.
    is_replica: bool,
}

/// What can be expected of a service type that nobody serves now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prospect {
    /// Somebody is about to, or did until a moment ago.
    Soon,
    /// Somebody could, if told to.
    IfTold,
    /// Nobody ever heard of it.
    Never,
}

impl Candidate {
    /// Whether it may be sent such a request now.
    pub(crate) fn serves(&self, target: Target) -> bool {
        let may_be_a_copy = matches!(target, Target::Any | Target::CopyOf(_));
        self.is_serving && fits(&self.role, target) && (may_be_a_copy || !self.is_replica)
    }
}

/// Of those who have a shard only the owner of the highest epoch serves it, be it gossiped or learned.
fn pass_over_former_owners(service: &ServiceType, members: &mut [Candidate], learned: &Learned) {
    let mut highest: BTreeMap<ShardId, Epoch> = BTreeMap::new();
    for member in &*members {
        if let (Some(shard), Some(epoch)) = (member.role.shard(), member.epoch) {
            let known = highest.entry(shard).or_default();
            *known = epoch.max(*known);
        }
    }
    for member in members {
        let Some(shard) = member.role.shard().filter(|_| !member.is_replica) else { continue };
        let gossiped = highest.get(&shard).copied();
        let told = learned.get(&(service.clone(), shard)).map(|(epoch, _)| *epoch);
        member.is_serving &= member.epoch >= gossiped.max(told);
    }
}

fn fits(role: &Role, target: Target) -> bool {
    match target {
        Target::Any => true,
        Target::Shard(shard) | Target::CopyOf(shard) => role.shard() == Some(shard),
        // A key whose shard is not known yet.
        Target::Key(_) | Target::Copy(_) => false,
    }
}

impl Roster {
    pub(crate) fn new(view: watch::Receiver<ClusterView>) -> Self {
        let mut own = view.clone();
        let learned = Learned::new();
        let catalog = Catalog::new(&own.borrow_and_update(), &Catalog::default(), &learned, Instant::now());
        let state = State { view: own, catalog: Arc::new(catalog), is_final: false, learned };
        Self { view, state: Mutex::new(state) }
    }

    /// The members as the view shows them now.
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let has_changed = match state.view.has_changed() {
            Ok(has_changed) => has_changed,
            // The last change may have come unseen.
            Err(_closed) => !std::mem::replace(&mut state.is_final, true),
        };
        if has_changed || state.learned.values().any(|(_, at)| at.elapsed() >= LATELY) {
            state.renew();
        }
        Arc::clone(&state.catalog)
    }

    /// Notes that a shard has an owner of this epoch: who has it under a lower one is sent nothing more.
    pub(crate) fn learn(&self, service: &ServiceType, shard: ShardId, epoch: Epoch) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let known = state.learned.get(&(service.clone(), shard));
        if known.is_none_or(|(known, _)| *known < epoch) {
            state.learned.insert((service.clone(), shard), (epoch, Instant::now()));
            state.renew();
        }
    }

    /// A receiver that has seen every change until now.
    pub(crate) fn changes(&self) -> watch::Receiver<ClusterView> {
        let mut changes = self.view.clone();
        changes.mark_unchanged();
        changes
    }
}

impl State {
    fn renew(&mut self) {
        let now = Instant::now();
        // A store that was replaced counts its epochs anew; what was learned must not outlive it.
        self.learned.retain(|_, (_, at)| now.saturating_duration_since(*at) < LATELY);
        let view = self.view.borrow_and_update().clone();
        self.catalog = Arc::new(Catalog::new(&view, &self.catalog, &self.learned, now));
    }
}

impl Catalog {
    fn new(view: &ClusterView, before: &Self, learned: &Learned, now: Instant) -> Self {
        let mut services: BTreeMap<ServiceType, Vec<Candidate>> = BTreeMap::new();
        let mut runnable = BTreeSet::new();
        let (mut shards, mut owners) = (before.shards.clone(), before.owners.clone());
        let mut resigned = BTreeMap::new();
        for member in view.members() {
            runnable.extend(member.about.runnable.iter().cloned());
            let Some(state) = &member.state else { continue };
            let Some(service) = state.role.service() else {
                continue;
            };
            if let Some(number) = state.shards.and_then(NonZeroU32::new) {
                shards.insert(service.clone(), number);
            }
            if let (Some(shard), Some(epoch)) = (state.role.shard(), state.epoch) {
                let known = owners.entry((service.clone(), shard)).or_insert((member.id.clone(), epoch));
                if known.1 < epoch {
                    *known = (member.id.clone(), epoch);
                }
            }
            if let (Some(shard), Some(_)) = (state.role.shard(), state.resigned) {
                let why = state.reason.clone().unwrap_or_else(|| "resigned".to_owned());
                resigned.insert((service.clone(), shard), (member.id.clone(), why));
            }
            let text = format!("{}/svc/{service}", member.http);
            let url = match before.url(service, &member.id, &text) {
                Some(url) => url,
                None => match text.parse() {
                    Ok(url) => url,
                    Err(error) => {
                        debug!(node = %member.id, %error, "a member without an address that can be used");
                        continue;
                    }
                },
            };
            services.entry(service.clone()).or_default().push(Candidate {
                node: member.id.clone(),
                url,
                role: state.role.clone(),
                epoch: state.epoch,
                is_serving: state.phase.is_serving() && state.resigned.is_none(),
                is_replica: state.duty == Some(Post::Replica),
            });
        }
        for (service, members) in &mut services {
            pass_over_former_owners(service, members, learned);
        }
        let spare = |service: &ServiceType| Some((service.clone(), view.spare(service)?.clone()));
        let spares = runnable.iter().filter_map(spare).collect();
        let mut catalog =
            Self { services, runnable, shards, owners, spares, resigned, gone_at: BTreeMap::new() };
        catalog.gone_at = catalog.gone(before, now);
        catalog
    }

    /// The roles that were there before and are not any more, with the time of that.
    fn gone(&self, before: &Self, now: Instant) -> BTreeMap<Role, Instant> {
        let just_now = before.roles().map(|role| (role.clone(), now));
        let earlier = before
            .gone_at
            .iter()
            .filter(|&(_, &at)| now.saturating_duration_since(at) < LATELY)
            .map(|(role, &at)| (role.clone(), at));
        let present: BTreeSet<&Role> = self.roles().collect();
        earlier.chain(just_now).filter(|(role, _)| !present.contains(role)).collect()
    }

    fn roles(&self) -> impl Iterator<Item = &Role> {
        self.services.values().flatten().map(|candidate| &candidate.role)
    }

    /// The address that a member already had, so that what is known of it stays known.
    fn url(&self, service: &ServiceType, node: &NodeId, text: &str) -> Option<BaseUrl> {
        self.members(service)
            .iter()
            .find(|candidate| candidate.node == *node && candidate.url.as_str() == text)
            .map(|candidate| candidate.url.clone())
    }

    /// The members of a type, in any phase.
    pub(crate) fn members(&self, service: &ServiceType) -> &[Candidate] {
        self.services.get(service).map_or(&[], Vec::as_slice)
    }

    /// The owner of a shard as it was seen last.
    pub(crate) fn last_owner(&self, service: &ServiceType, shard: ShardId) -> Option<&(NodeId, Epoch)> {
        self.owners.get(&(service.clone(), shard))
    }

    /// A member that could be given a role of this type.
    pub(crate) fn spare(&self, service: &ServiceType) -> Option<&NodeId> {
        self.spares.get(service)
    }

    /// The owner of a shard that has resigned, and why, while nobody has taken the shard over.
    pub(crate) fn resigned(&self, service: &ServiceType, target: Target) -> Option<&(NodeId, String)> {
        match self.resolve(service, target) {
            Target::Shard(shard) => self.resigned.get(&(service.clone(), shard)),
            Target::Any | Target::Key(_) | Target::Copy(_) | Target::CopyOf(_) => None,
        }
    }

    /// The target as a shard, if it is a key and the number of shards is known.
    pub(crate) fn resolve(&self, service: &ServiceType, target: Target) -> Target {
        match (target, self.shards.get(service)) {
            (Target::Key(key), Some(&shards)) => Target::Shard(key.shard(shards)),
            (Target::Copy(key), Some(&shards)) => Target::CopyOf(key.shard(shards)),
            _ => target,
        }
    }

    /// What can be expected of a type that nobody serves now, for such requests.
    pub(crate) fn prospect(&self, service: &ServiceType, target: Target, now: Instant) -> Prospect {
        let members = self.members(service);
        let was_lately = self.gone_at.iter().any(|(role, &at)| {
            role.service() == Some(service)
                && fits(role, target)
                && now.saturating_duration_since(at) < LATELY
        });
        // While it is not known how many shards there are, a key may be anybody's.
        let may_fit = |member: &Candidate| {
            matches!(target, Target::Key(_) | Target::Copy(_)) || fits(&member.role, target)
        };
        if was_lately || members.iter().any(may_fit) {
            Prospect::Soon
        } else if !members.is_empty() || self.runnable.contains(service) {
            Prospect::IfTold
        } else {
            Prospect::Never
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::time::advance;
    use types::Phase;
    use types::api::Member;

    use super::*;
    use crate::testing::{echo, member, standby, until, view};

    fn addr() -> SocketAddr {
        ([127, 0, 0, 1], 1).into()
    }

    fn made_of(members: impl IntoIterator<Item = Member>, before: &Catalog, now: Instant) -> Catalog {
        Catalog::new(&view(members), before, &Learned::new(), now)
    }

    fn prospect(catalog: &Catalog, now: Instant) -> Prospect {
        catalog.prospect(&echo(), Target::Any, now)
    }

    #[test]
    fn what_can_be_expected_follows_from_who_is_there() {
        let now = Instant::now();
        let nothing = Catalog::default();
        for phase in [Phase::Starting, Phase::Draining, Phase::Stopped, Phase::Failed] {
            let found = made_of([member("a", addr(), phase)], &nothing, now);
            assert!(!found.members(&echo())[0].serves(Target::Any), "{phase}");
            assert_eq!(prospect(&found, now), Prospect::Soon, "{phase}");
        }
        let could = made_of([standby("a", addr(), &[echo()])], &nothing, now);
        assert_eq!(prospect(&could, now), Prospect::IfTold);
        let never = made_of([standby("a", addr(), &[])], &nothing, now);
        assert_eq!(prospect(&never, now), Prospect::Never);
    }

    #[test]
    fn a_role_that_went_is_expected_back_for_ten_seconds() {
        let (then, second) = (Instant::now(), Duration::from_secs(1));
        let there = made_of([member("a", addr(), Phase::Ready)], &Catalog::default(), then);
        let gone = made_of([], &there, then + second);
        assert_eq!(prospect(&gone, then + second * 10), Prospect::Soon);
        assert_eq!(prospect(&gone, then + second * 11), Prospect::Never);

        let still_gone = made_of([], &gone, then + second * 9);
        assert_eq!(
            prospect(&still_gone, then + second * 11),
            Prospect::Never,
            "a change of the view does not prolong it"
        );
        let back = made_of([member("b", addr(), Phase::Draining)], &still_gone, then + second * 9);
        let gone_again = made_of([], &back, then + second * 15);
        assert_eq!(prospect(&gone_again, then + second * 20), Prospect::Soon);
    }

    #[test]
    fn what_is_known_of_an_address_survives_a_change_of_the_view() {
        let now = Instant::now();
        let one = made_of([member("a", addr(), Phase::Ready)], &Catalog::default(), now);
        let url = |catalog: &Catalog| catalog.members(&echo())[0].url.clone();
        let two = made_of([member("a", addr(), Phase::Degraded)], &one, now);
        assert!(url(&two).is_same(&url(&one)));
        let moved = made_of([member("a", ([127, 0, 0, 1], 2).into(), Phase::Ready)], &two, now);
        assert!(!url(&moved).is_same(&url(&two)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_role_that_went_long_before_the_request_is_not_waited_for() {
        let (views, receiver) = watch::channel(view([member("a", addr(), Phase::Ready)]));
        let mesh = crate::Mesh::new(receiver, crate::Targets::any(), crate::Limits::default());
        views.send_replace(view([standby("a", addr(), &[echo()])]));
        // Whoever watches gets to see it before the time passes.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        advance(LATELY).await;
        let request = http::Request::new(http_body_util::Empty::new());
        let began = Instant::now();
        assert!(mesh.send(&echo(), request).await.is_err());
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test]
    async fn the_last_change_of_a_view_is_seen_though_its_owner_is_gone() {
        let (views, receiver) = watch::channel(view([]));
        let roster = Roster::new(receiver);
        views.send_replace(view([member("a", addr(), Phase::Ready)]));
        drop(views);
        until(|| roster.catalog().members(&echo()).len() == 1).await;
    }
}
