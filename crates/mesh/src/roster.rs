//! The members of each service type, as addresses that requests can be sent to.
//!
//! Made anew from the view whenever that has changed. What is expected of a type (send, wait, give up) is a pure
//! function of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cluster::ClusterView;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::debug;
use types::{NodeId, Role, ServiceType, Target};

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
}

/// The members of each service type at one moment.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    services: BTreeMap<ServiceType, Vec<Candidate>>,
    /// Roles that were there and are no more.
    gone_at: BTreeMap<Role, Instant>,
    runnable: BTreeSet<ServiceType>,
}

/// A member of a service type.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) node: NodeId,
    pub(crate) url: BaseUrl,
    role: Role,
    is_serving: bool,
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
        self.is_serving && fits(&self.role, target)
    }
}

fn fits(role: &Role, target: Target) -> bool {
    match target {
        Target::Any => true,
        Target::Shard(shard) => role.shard() == Some(shard),
    }
}

impl Roster {
    pub(crate) fn new(view: watch::Receiver<ClusterView>) -> Self {
        let mut own = view.clone();
        let catalog = Catalog::new(&own.borrow_and_update(), &Catalog::default(), Instant::now());
        Self {
            view,
            state: Mutex::new(State {
                view: own,
                catalog: Arc::new(catalog),
                is_final: false,
            }),
        }
    }

    /// The members as the view shows them now.
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let has_changed = match state.view.has_changed() {
            Ok(has_changed) => has_changed,
            // The last change may have come unseen.
            Err(_closed) => !std::mem::replace(&mut state.is_final, true),
        };
        if has_changed {
            let view = state.view.borrow_and_update().clone();
            state.catalog = Arc::new(Catalog::new(&view, &state.catalog, Instant::now()));
        }
        Arc::clone(&state.catalog)
    }

    /// A receiver that has seen every change until now.
    pub(crate) fn changes(&self) -> watch::Receiver<ClusterView> {
        let mut changes = self.view.clone();
        changes.mark_unchanged();
        changes
    }
}

impl Catalog {
    fn new(view: &ClusterView, before: &Self, now: Instant) -> Self {
        let mut services: BTreeMap<ServiceType, Vec<Candidate>> = BTreeMap::new();
        let mut runnable = BTreeSet::new();
        for member in view.members() {
            runnable.extend(member.about.runnable.iter().cloned());
            let Some(state) = &member.state else { continue };
            let Some(service) = state.role.service() else {
                continue;
            };
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
                is_serving: state.phase.is_serving(),
            });
        }
        let mut catalog = Self {
            services,
            runnable,
            gone_at: BTreeMap::new(),
        };
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
        earlier
            .chain(just_now)
            .filter(|(role, _)| !present.contains(role))
            .collect()
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

    /// What can be expected of a type that nobody serves now, for such requests.
    pub(crate) fn prospect(&self, service: &ServiceType, target: Target, now: Instant) -> Prospect {
        let members = self.members(service);
        let was_lately = self.gone_at.iter().any(|(role, &at)| {
            role.service() == Some(service)
                && fits(role, target)
                && now.saturating_duration_since(at) < LATELY
        });
        if was_lately || members.iter().any(|member| fits(&member.role, target)) {
            Prospect::Soon
        } else if !members.is_empty() || self.runnable.contains(service) {
            Prospect::IfTold
        } else {
            Prospect::Never
        }
    }
}
