//! The members of each service, with their addresses.
//!
//! Rebuilt from the view whenever that changes. Whether a request for a service is sent, waits or fails is a pure function
//! of it.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cluster::ClusterView;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::debug;
use types::{Epoch, NodeId, Post, Role, ServiceName, ServiceType, ShardId, ShardRef, Target};

use crate::base_url::BaseUrl;
use crate::targets::Kind;

/// How long a role is expected back after its last member has left.
const RECENT: Duration = Duration::from_secs(10);

/// The members of each service, kept up to date.
#[derive(Debug)]
pub(crate) struct Roster {
    view: watch::Receiver<ClusterView>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    view: watch::Receiver<ClusterView>,
    catalog: Arc<Catalog>,
    /// Whether the view's owner is gone, so that the view never changes again.
    is_final: bool,
    learned: Learned,
}

/// Epochs that members reported before gossip did.
type Learned = BTreeMap<ShardRef, (Epoch, Instant)>;

/// The members of each service in one view.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    services: BTreeMap<ServiceName, Vec<Candidate>>,
    /// Roles that have disappeared, with the time.
    gone_at: BTreeMap<Role, Instant>,
    runnable: BTreeSet<ServiceType>,
    /// The number of shards of each service, as its members last reported.
    shards: BTreeMap<ServiceName, NonZeroU32>,
    /// The last owner seen of each shard.
    owners: BTreeMap<ShardRef, (NodeId, Epoch)>,
    /// The view that all of this is from.
    view: Option<ClusterView>,
    /// Owners that have resigned, with the reason.
    resigned: BTreeMap<ShardRef, (NodeId, String)>,
}

/// A member of a service.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) node: NodeId,
    pub(crate) url: BaseUrl,
    role: Role,
    epoch: Option<Epoch>,
    /// It serves, and no other member owns its shard under a higher epoch.
    is_serving: bool,
    /// It is a replica of a shard that another member owns.
    is_replica: bool,
}

/// Whether a service that no member serves now may be served later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prospect {
    /// A member is about to serve, or served recently.
    Soon,
    /// A node could serve if an operator gave it the role.
    IfAssigned,
    /// No node has the type.
    Never,
}

impl Candidate {
    /// Whether a request for this target may be sent to it now.
    pub(crate) fn serves(&self, target: Target) -> bool {
        let is_replica_enough = matches!(target, Target::Any | Target::ShardReplica(_));
        self.is_serving && fits(&self.role, target) && (is_replica_enough || !self.is_replica)
    }
}

/// Of the members that have a shard, only the owner with the highest epoch, gossiped or learned, serves it.
fn exclude_former_owners(service: &ServiceName, members: &mut [Candidate], learned: &Learned) {
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
        let reported = learned.get(&ShardRef::new(service.clone(), shard)).map(|(epoch, _)| *epoch);
        member.is_serving &= member.epoch >= gossiped.max(reported);
    }
}

fn fits(role: &Role, target: Target) -> bool {
    match target {
        Target::Any => true,
        Target::Shard(shard) | Target::ShardReplica(shard) => role.shard() == Some(shard),
        // A key whose shard is not known yet.
        Target::Key(_) | Target::KeyReplica(_) => false,
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

    /// The members in the present view.
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let has_changed = match state.view.has_changed() {
            Ok(has_changed) => has_changed,
            // The last change may not have been seen yet.
            Err(_closed) => !std::mem::replace(&mut state.is_final, true),
        };
        if has_changed || state.learned.values().any(|(_, at)| at.elapsed() >= RECENT) {
            state.renew();
        }
        Arc::clone(&state.catalog)
    }

    /// Records that a shard has an owner with this epoch: members with a lower one get no more requests.
    pub(crate) fn learn(&self, service: &ServiceName, shard: ShardId, epoch: Epoch) {
        let shard = ShardRef::new(service.clone(), shard);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let known = state.learned.get(&shard);
        if known.is_none_or(|(known, _)| *known < epoch) {
            state.learned.insert(shard, (epoch, Instant::now()));
            state.renew();
        }
    }

    /// A receiver that has already seen every change up to now.
    pub(crate) fn changes(&self) -> watch::Receiver<ClusterView> {
        let mut changes = self.view.clone();
        changes.mark_unchanged();
        changes
    }
}

impl State {
    fn renew(&mut self) {
        let now = Instant::now();
        // A replaced store starts its epochs again; a learned epoch must not outlive the old store.
        self.learned.retain(|_, (_, at)| now.saturating_duration_since(*at) < RECENT);
        let view = self.view.borrow_and_update().clone();
        self.catalog = Arc::new(Catalog::new(&view, &self.catalog, &self.learned, now));
    }
}

impl Catalog {
    fn new(view: &ClusterView, before: &Self, learned: &Learned, now: Instant) -> Self {
        let mut services: BTreeMap<ServiceName, Vec<Candidate>> = BTreeMap::new();
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
                let known =
                    owners.entry(ShardRef::new(service.clone(), shard)).or_insert((member.id.clone(), epoch));
                if known.1 < epoch {
                    *known = (member.id.clone(), epoch);
                }
            }
            if let (Some(shard), Some(_)) = (state.role.shard(), state.resigned) {
                let why = state.reason.clone().unwrap_or_else(|| "resigned".to_owned());
                resigned.insert(ShardRef::new(service.clone(), shard), (member.id.clone(), why));
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
            exclude_former_owners(service, members, learned);
        }
        let view = Some(view.clone());
        let mut catalog =
            Self { services, runnable, shards, owners, view, resigned, gone_at: BTreeMap::new() };
        catalog.gone_at = catalog.gone(before, now);
        catalog
    }

    /// The roles that have disappeared since `before`, each with the time.
    fn gone(&self, before: &Self, now: Instant) -> BTreeMap<Role, Instant> {
        let just_now = before.roles().map(|role| (role.clone(), now));
        let earlier = before
            .gone_at
            .iter()
            .filter(|&(_, &at)| now.saturating_duration_since(at) < RECENT)
            .map(|(role, &at)| (role.clone(), at));
        let present: BTreeSet<&Role> = self.roles().collect();
        earlier.chain(just_now).filter(|(role, _)| !present.contains(role)).collect()
    }

    fn roles(&self) -> impl Iterator<Item = &Role> {
        self.services.values().flatten().map(|candidate| &candidate.role)
    }

    /// The address that a member already had, so that its state is kept.
    fn url(&self, service: &ServiceName, node: &NodeId, text: &str) -> Option<BaseUrl> {
        self.members(service)
            .iter()
            .find(|candidate| candidate.node == *node && candidate.url.as_str() == text)
            .map(|candidate| candidate.url.clone())
    }

    /// The members of a service, in any phase.
    pub(crate) fn members(&self, service: &ServiceName) -> &[Candidate] {
        self.services.get(service).map_or(&[], Vec::as_slice)
    }

    /// The last owner seen of a shard.
    pub(crate) fn last_owner(&self, service: &ServiceName, shard: ShardId) -> Option<&(NodeId, Epoch)> {
        self.owners.get(&ShardRef::new(service.clone(), shard))
    }

    /// A standby that could be given a role of this service.
    pub(crate) fn spare(&self, service: &ServiceName, kind: &Kind) -> Option<&NodeId> {
        let view = self.view.as_ref()?;
        match kind {
            Kind::Settled(service_type) | Kind::Assumed(service_type) => view.spare(service, service_type),
            Kind::NotYetKnown | Kind::Unknown => None,
        }
    }

    /// The owner of a shard that has resigned, and why, while no other node has taken the shard over.
    pub(crate) fn resigned(&self, service: &ServiceName, target: Target) -> Option<&(NodeId, String)> {
        match self.resolve(service, target) {
            Target::Shard(shard) => self.resigned.get(&ShardRef::new(service.clone(), shard)),
            Target::Any | Target::Key(_) | Target::KeyReplica(_) | Target::ShardReplica(_) => None,
        }
    }

    /// The target as a shard, if it is a key and the number of shards is known.
    pub(crate) fn resolve(&self, service: &ServiceName, target: Target) -> Target {
        match (target, self.shards.get(service)) {
            (Target::Key(key), Some(&shards)) => Target::Shard(key.shard(shards)),
            (Target::KeyReplica(key), Some(&shards)) => Target::ShardReplica(key.shard(shards)),
            _ => target,
        }
    }

    /// Whether a service that no member serves now may be served later, for this target.
    pub(crate) fn prospect(
        &self,
        service: &ServiceName,
        target: Target,
        kind: &Kind,
        now: Instant,
    ) -> Prospect {
        let members = self.members(service);
        let was_recent = self.gone_at.iter().any(|(role, &at)| {
            role.service() == Some(service)
                && fits(role, target)
                && now.saturating_duration_since(at) < RECENT
        });
        // While the number of shards is unknown, any member may hold the key.
        let may_fit = |member: &Candidate| {
            matches!(target, Target::Key(_) | Target::KeyReplica(_)) || fits(&member.role, target)
        };
        if was_recent || members.iter().any(may_fit) {
            return Prospect::Soon;
        }
        if !members.is_empty() {
            return Prospect::IfAssigned;
        }
        match kind {
            Kind::Settled(service_type) | Kind::Assumed(service_type)
                if self.runnable.contains(service_type) =>
            {
                Prospect::IfAssigned
            }
            // Requests for an existing service wait even if no node has its type.
            Kind::Settled(_) | Kind::NotYetKnown => Prospect::Soon,
            Kind::Assumed(_) | Kind::Unknown => Prospect::Never,
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
        prospect_of(catalog, &Kind::Assumed("echo".parse().unwrap()), now)
    }

    fn prospect_of(catalog: &Catalog, kind: &Kind, now: Instant) -> Prospect {
        catalog.prospect(&echo(), Target::Any, kind, now)
    }

    #[test]
    fn the_prospect_depends_on_the_members() {
        let now = Instant::now();
        let nothing = Catalog::default();
        for phase in [Phase::Starting, Phase::Draining, Phase::Stopped, Phase::Failed] {
            let found = made_of([member("a", addr(), phase)], &nothing, now);
            assert!(!found.members(&echo())[0].serves(Target::Any), "{phase}");
            assert_eq!(prospect(&found, now), Prospect::Soon, "{phase}");
        }
        let could = made_of([standby("a", addr(), &[echo()])], &nothing, now);
        assert_eq!(prospect(&could, now), Prospect::IfAssigned);
        let never = made_of([standby("a", addr(), &[])], &nothing, now);
        assert_eq!(prospect(&never, now), Prospect::Never);
    }

    #[test]
    fn requests_wait_for_a_service_that_may_exist_even_if_no_node_can_run_it() {
        let now = Instant::now();
        let service_type: ServiceType = "echo".parse().unwrap();
        let incapable = made_of([standby("a", addr(), &[])], &Catalog::default(), now);
        let capable = made_of([standby("a", addr(), &[echo()])], &Catalog::default(), now);
        for (catalog, kind, expected) in [
            (&incapable, Kind::Settled(service_type.clone()), Prospect::Soon),
            (&incapable, Kind::NotYetKnown, Prospect::Soon),
            (&incapable, Kind::Assumed(service_type.clone()), Prospect::Never),
            (&incapable, Kind::Unknown, Prospect::Never),
            (&capable, Kind::Settled(service_type.clone()), Prospect::IfAssigned),
            (&capable, Kind::Assumed(service_type), Prospect::IfAssigned),
            (&capable, Kind::Unknown, Prospect::Never),
        ] {
            assert_eq!(prospect_of(catalog, &kind, now), expected, "{kind:?}");
        }
    }

    #[test]
    fn a_role_that_disappeared_is_expected_back_for_ten_seconds() {
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
    fn the_state_of_an_address_survives_a_change_of_the_view() {
        let now = Instant::now();
        let one = made_of([member("a", addr(), Phase::Ready)], &Catalog::default(), now);
        let url = |catalog: &Catalog| catalog.members(&echo())[0].url.clone();
        let two = made_of([member("a", addr(), Phase::Degraded)], &one, now);
        assert!(url(&two).is_same(&url(&one)));
        let moved = made_of([member("a", ([127, 0, 0, 1], 2).into(), Phase::Ready)], &two, now);
        assert!(!url(&moved).is_same(&url(&two)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_does_not_wait_for_a_role_that_disappeared_long_ago() {
        let (views, receiver) = watch::channel(view([member("a", addr(), Phase::Ready)]));
        let mesh = crate::Mesh::new(receiver, crate::Targets::any(), crate::Limits::default());
        views.send_replace(view([standby("a", addr(), &[echo()])]));
        // The watching task sees the change before the time passes.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        advance(RECENT).await;
        let request = http::Request::new(http_body_util::Empty::new());
        let began = Instant::now();
        assert!(mesh.send(&echo(), request).await.is_err());
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test]
    async fn the_last_change_of_a_view_is_seen_after_its_owner_is_gone() {
        let (views, receiver) = watch::channel(view([]));
        let roster = Roster::new(receiver);
        views.send_replace(view([member("a", addr(), Phase::Ready)]));
        drop(views);
        until(|| roster.catalog().members(&echo()).len() == 1).await;
    }
}
