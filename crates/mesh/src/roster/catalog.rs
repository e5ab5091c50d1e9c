//! The members of each service in one view, and what is remembered of those before.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use cluster::ClusterView;
use tokio::time::Instant;
use tracing::{debug, warn};
use types::{Epoch, NodeId, Post, Role, ServiceName, ServiceType, ShardId, ShardRef, Target};

use super::candidate::{Candidate, Kept, fits};
use super::{Learned, RECENT};
use crate::panic::Lost;
use crate::proxies::is_proxy;
use crate::subset::subset;
use crate::targets::Kind;
use crate::upstream::Upstream;

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
    /// The members of each service that have disappeared without leaving.
    lost: BTreeMap<ServiceName, Lost<Candidate>>,
    /// What is counted of the requests to each service.
    upstreams: BTreeMap<ServiceName, Arc<Upstream>>,
    /// The services whose members are gateways and balancers, which get no requests.
    proxies: BTreeSet<ServiceName>,
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

impl Catalog {
    pub(super) fn new(
        view: &ClusterView,
        before: &Self,
        learned: &Learned,
        detector: Duration,
        now: Instant,
    ) -> Self {
        let mut services: BTreeMap<ServiceName, Vec<Candidate>> = BTreeMap::new();
        let mut runnable = BTreeSet::new();
        let (mut shards, mut owners) = (before.shards.clone(), before.owners.clone());
        let mut resigned = BTreeMap::new();
        let mut proxies = BTreeSet::new();
        for member in view.members() {
            runnable.extend(member.about.runnable.iter().cloned());
            let Some(state) = &member.state else { continue };
            let Some(service) = state.role.service() else {
                continue;
            };
            // Their listeners are no part of the mesh, and their API is for operators.
            if state.service_type().is_some_and(|service_type| is_proxy(&service_type)) {
                proxies.insert(service.clone());
                continue;
            }
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
            let known = before.known(service, &member.id, &text);
            if let Some(known) = known.filter(|known| known.generation != member.generation) {
                // Where the former run refused connections, this one may accept them.
                known.url.state().forget_unreachable();
            }
            let url = match known {
                Some(known) => known.url.clone(),
                None => match text.parse() {
                    Ok(url) => url,
                    Err(error) => {
                        debug!(node = %member.id, %error, "a member without an address that can be used");
                        continue;
                    }
                },
            };
            let is_serving = state.phase.is_serving() && state.resigned.is_none();
            let same_run = known.filter(|known| known.generation == member.generation);
            services.entry(service.clone()).or_default().push(Candidate {
                node: member.id.clone(),
                generation: member.generation,
                url,
                role: state.role.clone(),
                phase: state.phase,
                epoch: state.epoch,
                is_serving,
                is_replica: state.duty == Some(Post::Replica),
                is_spare: false,
                serving_since: is_serving
                    .then(|| same_run.and_then(|known| known.serving_since).unwrap_or(now)),
                kept: None,
            });
        }
        for (service, members) in &mut services {
            exclude_former_owners(service, members, learned);
        }
        let lost = lost(view, before, &services, detector, now);
        for (service, lost) in &lost {
            // Connections usually fail before the failure detector is sure.
            let kept = lost.kept().map(|(member, since)| {
                let connects_from = since.checked_sub(detector).unwrap_or(since);
                Candidate { kept: Some(Kept { since, connects_from }), ..member.clone() }
            });
            let kept: Vec<_> = kept.collect();
            if !kept.is_empty() {
                services.entry(service.clone()).or_default().extend(kept);
            }
        }
        services.values_mut().for_each(|members| spare_some(view.me(), members));
        let (gone_at, view) = (BTreeMap::new(), Some(view.clone()));
        let upstream = |service: &ServiceName| before.upstreams.get(service).cloned().unwrap_or_default();
        let upstreams = services.keys().map(|service| (service.clone(), upstream(service))).collect();
        let mut catalog =
            Self { services, gone_at, runnable, shards, owners, view, resigned, lost, upstreams, proxies };
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

    /// A member as it was known before, so that the state of its address is kept.
    fn known(&self, service: &ServiceName, node: &NodeId, text: &str) -> Option<&Candidate> {
        let lost = self.lost.get(service).into_iter().flat_map(Lost::members);
        let mut known = self.members(service).iter().chain(lost);
        known.find(|candidate| candidate.node == *node && candidate.url.as_str() == text)
    }

    /// What is counted of the requests to a service that has members.
    pub(crate) fn upstream(&self, service: &ServiceName) -> Option<&Arc<Upstream>> {
        self.upstreams.get(service)
    }

    /// Whether the members of a service are gateways or balancers.
    pub(crate) fn is_proxy(&self, service: &ServiceName) -> bool {
        self.proxies.contains(service)
    }

    /// The services that have members.
    pub(crate) fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.keys()
    }

    /// Whether members of a service are kept although they have disappeared.
    pub(crate) fn has_panic(&self, service: &ServiceName) -> bool {
        self.lost.get(service).is_some_and(|lost| lost.until().is_some())
    }

    /// The end of the panic that ends next.
    pub(crate) fn next_end(&self) -> Option<Instant> {
        self.lost.values().filter_map(Lost::until).min()
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

/// The members of each service that have disappeared without leaving.
fn lost(
    view: &ClusterView,
    before: &Catalog,
    services: &BTreeMap<ServiceName, Vec<Candidate>>,
    detector: Duration,
    now: Instant,
) -> BTreeMap<ServiceName, Lost<Candidate>> {
    let has_disappeared = |member: &&Candidate| {
        member.is_serving
            && member.is_replaceable()
            && member.kept.is_none()
            && view.member(&member.node).is_none()
            && !view.has_left(&member.node, member.generation)
    };
    let mut all = before.lost.clone();
    for (service, members) in &before.services {
        if members.iter().any(|member| has_disappeared(&member)) {
            all.entry(service.clone()).or_default();
        }
    }
    for (service, lost) in &mut all {
        let disappeared: Vec<_> = before.members(service).iter().filter(has_disappeared).collect();
        let serving = services.get(service).into_iter().flatten();
        let serving = serving.filter(|member| member.is_serving && member.is_replaceable()).count();
        let number = disappeared.len();
        let disappeared = disappeared.into_iter().map(|member| (member.node.clone(), member.clone()));
        if lost.note(disappeared, |node| view.member(node).is_some(), serving, detector, now) {
            warn!(%service, lost = number, serving, "most members disappeared at once; they are kept for a while");
        }
    }
    all.retain(|_, lost| !lost.is_empty());
    all
}

/// Notes which members of a large service this node does not use. A member with a shard is unlike the others.
fn spare_some(me: &NodeId, members: &mut [Candidate]) {
    let alike = members.iter_mut().filter(|member| member.is_serving && member.role.shard().is_none());
    let mut alike: Vec<_> = alike.collect();
    let names: Vec<_> = alike.iter().map(|member| &member.node).collect();
    let is_used = subset(me, &names);
    for (member, is_used) in alike.iter_mut().zip(is_used) {
        member.is_spare = !is_used;
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
