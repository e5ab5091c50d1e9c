//! The backends of a service or a route, as this node sees them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use types::backends::{Backend, BackendPool, BackendState};
use types::{Phase, ServiceName};

use super::Mesh;
use super::series::shown_weight;
use crate::base_url::BaseUrl;
use crate::choose::{SLOW_START, share};
use crate::outlier::Service;
use crate::roster::Candidate;
use crate::subset::{ALL_UP_TO, SIZE};

/// A difference of shares that is worth a mention: both began within half a second of each other.
const SLOW_START_MARGIN: f64 = 0.05;

impl Mesh {
    /// The services that have members.
    pub fn services(&self) -> Vec<ServiceName> {
        self.0.roster.catalog().services().cloned().collect()
    }

    /// The members of a service and why each gets requests or not.
    pub fn backends(&self, service: &ServiceName) -> BackendPool {
        let now = Instant::now();
        let catalog = self.0.roster.catalog();
        let members = catalog.members(service);
        let serving = members.iter().filter(|member| member.is_serving());
        let oldest = serving.map(|member| member.serving_for(now)).max().unwrap_or_default();
        let backends = members.iter().map(|member| self.0.backend_of_member(member, oldest, now));
        BackendPool {
            name: service.to_string(),
            panic: catalog.has_panic(service),
            why: None,
            backends: backends.collect(),
        }
    }

    /// The addresses of a route, each with its weight, and why each gets requests or not.
    pub fn backends_of_route<'a>(
        &self,
        route: &str,
        addresses: impl IntoIterator<Item = (&'a BaseUrl, u32)>,
    ) -> BackendPool {
        let now = Instant::now();
        let addresses: Vec<_> = addresses.into_iter().collect();
        let oldest = addresses.iter().map(|(url, _)| url.state().serving_for(now)).max().unwrap_or_default();
        let backends = addresses.iter().map(|(url, weight)| {
            let in_use = self.0.in_use(url, Kind::Address, url.state().serving_for(now), oldest, now);
            let weight = shown_weight(*weight, |age| share(1, age), url.state().serving_for(now), oldest);
            shown(backend(url, in_use, now), weight)
        });
        BackendPool { name: route.to_owned(), panic: false, why: None, backends: backends.collect() }
    }

    /// The number of ejected members of each service.
    pub fn ejected(&self) -> Vec<(ServiceName, usize)> {
        let now = Instant::now();
        let catalog = self.0.roster.catalog();
        let is_ejected = |member: &&Candidate| {
            member.is_serving() && member.is_replaceable() && member.url.state().service(now) != Service::In
        };
        let ejected = |service: &ServiceName| catalog.members(service).iter().filter(is_ejected).count();
        catalog.services().map(|service| (service.clone(), ejected(service))).collect()
    }

    /// Whether each service is in a panic: most of its members disappeared at once and are kept for a while.
    pub fn panics(&self) -> Vec<(ServiceName, bool)> {
        let catalog = self.0.roster.catalog();
        catalog.services().map(|service| (service.clone(), catalog.has_panic(service))).collect()
    }
}

/// What requests are sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// An address of a route, which may have checks.
    Address,
    /// A member that others can replace.
    Member,
    /// A member that is alone in what it does, and so is never ejected.
    OnlyMember,
}

impl Kind {
    fn of(member: &Candidate) -> Self {
        if member.is_replaceable() { Self::Member } else { Self::OnlyMember }
    }
}

/// A state, why it is so, and how long that lasts.
type Shown = (BackendState, Option<String>, Option<Duration>);

impl super::Inner {
    fn backend_of_member(&self, member: &Candidate, oldest: Duration, now: Instant) -> Backend {
        let state = if member.is_serving() {
            let age = member.serving_for(now);
            let in_use = self.in_use(&member.url, Kind::of(member), age, oldest, now);
            match (member.kept, in_use) {
                (Some(kept), (BackendState::Serving, None, _)) => {
                    let gone_for = Duration::from_secs(now.saturating_duration_since(kept.since).as_secs());
                    let why = format!("kept: it disappeared {gone_for:?} ago with most of the others");
                    (BackendState::Serving, Some(why), None)
                }
                (None, (BackendState::Serving, None, _)) if member.is_spare => {
                    let why = format!("spare: of more than {ALL_UP_TO} members this node uses {SIZE} others");
                    (BackendState::Serving, Some(why), None)
                }
                (_, in_use) => in_use,
            }
        } else {
            out_of_use(member)
        };
        let age = member.serving_for(now);
        let weight = match member.is_replaceable() {
            true => shown_weight(1, |age| share(1, age), age, oldest),
            false => 1.0,
        };
        shown(Backend { node: Some(member.node.clone()), ..backend(&member.url, state, now) }, weight)
    }

    /// The state of an address that requests may be sent to.
    fn in_use(&self, url: &BaseUrl, kind: Kind, age: Duration, oldest: Duration, now: Instant) -> Shown {
        let state = url.state();
        if let Some(why) = state.why_down() {
            return (BackendState::Down, Some(format!("its checks fail: it {why}")), None);
        }
        let unreachable = state.why_unreachable();
        let is_replaceable = kind != Kind::OnlyMember;
        if is_replaceable && let Some((reason, left)) = state.ejection(now) {
            let last = unreachable.map(|why| format!("; {why}")).unwrap_or_default();
            return (BackendState::Ejected, Some(format!("{}{last}", reason.in_words())), Some(left));
        }
        if let Some((why, at)) = unreachable.zip(state.unreachable_at()) {
            let passed = now.saturating_duration_since(at);
            let left = self.limits.avoid.checked_sub(passed).filter(|left| !left.is_zero());
            // Afterwards requests are sent to it again. An address stays unreachable until a connection or a check succeeds. A
            // member has no checks, so without requests it would stay so for ever.
            if left.is_some() || kind == Kind::Address {
                return (BackendState::Unreachable, Some(why), left);
            }
        }
        if is_replaceable && share(1, oldest) - share(1, age) > SLOW_START_MARGIN {
            return (BackendState::SlowStart, None, Some(SLOW_START.saturating_sub(age)));
        }
        (BackendState::Serving, None, None)
    }
}

/// The state of a member that gets no requests.
fn out_of_use(member: &Candidate) -> Shown {
    let because = |why: String| (BackendState::NotServing, Some(why), None);
    match member.phase {
        Phase::Draining => (BackendState::Draining, None, None),
        _ if !member.is_present() => {
            because("it disappeared, and no connection could be opened since".to_owned())
        }
        phase if phase.is_serving() => because("it does not own its shard any more".to_owned()),
        phase => because(format!("it is {phase}")),
    }
}

fn backend(url: &BaseUrl, (state, why, left): Shown, now: Instant) -> Backend {
    let until = left.and_then(|left| SystemTime::now().checked_add(left)?.duration_since(UNIX_EPOCH).ok());
    // Of what never answered, or can't be reached, there is only the penalty for its failures.
    let has_answered = url.state().attempts()[1..].iter().any(|count| *count > 0);
    let estimate = url.state().micros(now).filter(|_| has_answered && state != BackendState::Unreachable);
    // To the microsecond.
    let estimate = estimate.map(|micros| f64::from(micros.round()) / 1_000.0);
    Backend {
        address: url.to_string(),
        node: None,
        state,
        why,
        until_ms: until.and_then(|until| u64::try_from(until.as_millis()).ok()),
        in_flight: url.in_flight(),
        estimate_ms: estimate,
        weight: 0.0,
    }
}

/// With its weight, if it gets requests.
fn shown(backend: Backend, weight: f64) -> Backend {
    match backend.state {
        BackendState::Serving | BackendState::SlowStart => Backend { weight, ..backend },
        BackendState::Unreachable
        | BackendState::Down
        | BackendState::Ejected
        | BackendState::Draining
        | BackendState::NotServing => Backend { weight: 0.0, ..backend },
    }
}
