//! Chooses the address of the next attempt, waits for one, and ejects addresses that fail too often.

use std::sync::PoisonError;
use std::time::Duration;

use rand::RngExt;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};
use types::{KeyHash, NodeId, ServiceName, Target};

use super::Inner;
use super::goal::Goal;
use super::history::History;
use crate::balance::Balance;
use crate::base_url::BaseUrl;
use crate::choose::{Health, Standing, share};
use crate::error::MeshError;
use crate::outlier::{EjectionReason, Service, may_eject};
use crate::proxies::{is_named_after_proxy, is_proxy};
use crate::roster::{Candidate as Member, Prospect};
use crate::targets::Kind;

/// The pause before a request is sent to an address again, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 5..50;

/// The next destination of a request.
enum Pick {
    To(Chosen),
    /// Every candidate was tried already.
    OnlyTried,
    /// No member serves it.
    NoMember(Prospect),
}

/// The address of an attempt.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) url: BaseUrl,
    /// It is ejected, and this attempt is to find out whether it works again.
    pub(super) is_probe: bool,
    /// When it was chosen: the start of the attempt.
    pub(super) at: Instant,
}

/// How many candidates of a request fit without an allocation.
const FEW: usize = 8;

/// The candidates of a request.
struct Candidates<'a> {
    few: [Option<Candidate<'a>>; FEW],
    len: usize,
    /// All beyond those.
    others: Vec<Candidate<'a>>,
}

/// A candidate for a request.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    url: &'a BaseUrl,
    /// The node, if it is a member.
    node: Option<&'a NodeId>,
    standing: Standing,
    /// It gets no other request than the probe after its ejection.
    is_for_probe: bool,
}

impl<'a> Candidates<'a> {
    fn get(&self, at: usize) -> Option<&Candidate<'a>> {
        match self.few.get(at) {
            Some(candidate) => candidate.as_ref(),
            None => self.others.get(at - FEW),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Candidate<'a>> {
        self.few.iter().flatten().chain(&self.others)
    }

    /// Whether few of them can take requests: most are ejected or can't be reached, or all of them were tried.
    fn are_too_few(&self) -> bool {
        let used = || self.iter().filter(|candidate| !candidate.is_for_probe);
        let good = used().filter(|candidate| candidate.standing.is_good()).count();
        good == 0 || good * 2 < used().count()
    }
}

impl Candidate<'_> {
    /// What it is called on every node. A member keeps its name when it starts again on another port.
    fn name(&self) -> KeyHash {
        KeyHash::of(self.node.map_or(self.url.as_str(), NodeId::as_str).as_bytes())
    }
}

impl<'a> FromIterator<Candidate<'a>> for Candidates<'a> {
    fn from_iter<I: IntoIterator<Item = Candidate<'a>>>(candidates: I) -> Self {
        let mut all = Self { few: [None; FEW], len: 0, others: Vec::new() };
        for candidate in candidates {
            match all.few.get_mut(all.len) {
                Some(free) => *free = Some(candidate),
                None => all.others.push(candidate),
            }
            all.len += 1;
        }
        all
    }
}

/// Whether a service without members is a gateway or a balancer.
fn is_of_proxy(service: &ServiceName, kind: &Kind) -> bool {
    match kind {
        Kind::Settled(service_type) | Kind::Assumed(service_type) => is_proxy(service_type),
        Kind::NotYetKnown | Kind::Unknown => is_named_after_proxy(service),
    }
}

impl Inner {
    /// The destination of the next attempt. Waits if there is none now.
    pub(super) async fn next_address(
        &self,
        goal: &Goal<'_>,
        history: &mut History,
    ) -> Result<Chosen, MeshError> {
        history.time_left()?;
        match self.pick(goal, &history.tried)? {
            Pick::To(chosen) => Ok(chosen),
            Pick::OnlyTried | Pick::NoMember(_) => self.wait_for_address(goal, history).await,
        }
    }

    /// Chooses the next destination of the request.
    fn pick(&self, goal: &Goal<'_>, tried: &[BaseUrl]) -> Result<Pick, MeshError> {
        let now = Instant::now();
        match *goal {
            Goal::Addresses { urls, may_repeat, weights, balance, .. } => {
                let up = urls.iter().enumerate().filter(|(_, url)| !url.state().is_down());
                let candidates = up.map(|(at, url)| {
                    let weight = weights.get(at).copied().unwrap_or(1);
                    let share = share(weight, url.state().serving_for(now));
                    let standing = self.standing(url, tried, true, share, now);
                    Candidate { url, node: None, standing, is_for_probe: false }
                });
                self.choose(&candidates.collect(), may_repeat, balance, now).ok_or_else(|| goal.unknown())
            }
            Goal::Service { service, target, may_repeat, balance } => {
                let catalog = self.roster.catalog();
                let target = catalog.resolve(service, target);
                let candidates = |with_spare: bool| -> Candidates<'_> {
                    let members = catalog.members(service).iter();
                    let is_for_probe = |member: &Member| member.is_spare && !with_spare;
                    // Without the probe, an ejected one that others make superfluous would stay so, and count among those that
                    // keep others from being ejected.
                    let may_have = |member: &Member| !is_for_probe(member) || member.url.state().is_due(now);
                    let eligible = members.filter(|member| member.serves(target) && may_have(member));
                    let candidates = eligible.map(|member| {
                        let share = share(1, member.serving_for(now));
                        let standing = self.standing(&member.url, tried, member.is_replaceable(), share, now);
                        let (url, node, is_for_probe) =
                            (&member.url, Some(&member.node), is_for_probe(member));
                        Candidate { url, node, standing, is_for_probe }
                    });
                    candidates.collect()
                };
                // A key goes to the same member from every node, and a retry wherever it has the best chance.
                let with_spare = matches!(balance, Balance::Affinity(_)) || !tried.is_empty();
                let mut all = candidates(with_spare);
                if !with_spare && all.are_too_few() {
                    all = candidates(true);
                }
                if let Some(pick) = self.choose(&all, may_repeat, balance, now) {
                    return Ok(pick);
                }
                let kind = self.targets.kind(service);
                if catalog.is_proxy(service) || is_of_proxy(service, &kind) {
                    return Err(MeshError::ForOperators { service: service.clone() });
                }
                Ok(Pick::NoMember(catalog.prospect(service, target, &kind, now)))
            }
        }
    }

    /// Whether a service is a gateway or a balancer, as far as this node knows.
    pub(super) fn is_proxy(&self, service: &ServiceName) -> bool {
        self.roster.catalog().is_proxy(service) || is_of_proxy(service, &self.targets.kind(service))
    }

    fn standing(
        &self,
        url: &BaseUrl,
        tried: &[BaseUrl],
        is_replaceable: bool,
        share: f64,
        now: Instant,
    ) -> Standing {
        let state = url.state();
        Standing {
            tried: tried.iter().any(|tried| tried.is_same(url)),
            health: state.health(now, self.limits.avoid, is_replaceable),
            micros: state.micros(now),
            in_flight: state.in_flight(),
            share,
        }
    }

    /// Chooses one of the candidates; `None` if there is none.
    fn choose(
        &self,
        candidates: &Candidates<'_>,
        may_repeat: bool,
        balance: Balance<'_>,
        now: Instant,
    ) -> Option<Pick> {
        if let Some(probe) = self.probe(candidates, may_repeat, now) {
            return Some(Pick::To(Chosen { url: probe.clone(), is_probe: true, at: now }));
        }
        let eligible = |at: usize| candidates.get(at).filter(|candidate| !candidate.is_for_probe);
        let standing = |at: usize| eligible(at).map(|candidate| candidate.standing);
        let nobody = || KeyHash::of(&[]);
        let name = |at: usize| candidates.get(at).map_or_else(nobody, Candidate::name);
        let at = balance.choose(candidates.len, standing, name, &mut rand::rng())?;
        let chosen = candidates.get(at)?;
        Some(if chosen.standing.tried {
            Pick::OnlyTried
        } else {
            Pick::To(Chosen { url: chosen.url.clone(), is_probe: false, at: now })
        })
    }

    /// An ejected address whose time has passed, if this request may find out whether it works again. The budget pays for it,
    /// since the request may have to be sent a second time.
    fn probe<'a>(&self, candidates: &Candidates<'a>, may_repeat: bool, now: Instant) -> Option<&'a BaseUrl> {
        if !candidates.iter().any(|candidate| candidate.standing.health == Health::Ejected) {
            return None;
        }
        let is_due = |url: &BaseUrl| match url.state().service(now) {
            Service::In | Service::Ejected => false,
            Service::Due => may_repeat,
            Service::Overdue => true,
        };
        if candidates.iter().any(|candidate| candidate.standing.tried) {
            return None;
        }
        let mut ejected = candidates.iter().filter(|candidate| candidate.standing.health == Health::Ejected);
        let due = ejected.find(|candidate| is_due(candidate.url) && candidate.url.state().claim_probe())?;
        if !self.budget.withdraw(now) {
            due.url.state().release_probe();
            return None;
        }
        debug!(url = %due.url, "a request finds out whether an ejected address works again");
        Some(due.url)
    }

    /// Ejects an address that has failed too often, unless too many of the others are ejected.
    pub(super) fn judge(&self, goal: &Goal<'_>, url: &BaseUrl, reason: EjectionReason) {
        let _one_at_a_time = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let pool: Vec<BaseUrl> = match *goal {
            Goal::Addresses { urls, .. } => {
                urls.iter().filter(|url| !url.state().is_down()).cloned().collect()
            }
            Goal::Service { service, .. } => {
                let catalog = self.roster.catalog();
                let members = catalog.members(service).iter();
                let others = members.filter(|member| member.is_serving() && member.is_replaceable());
                others.map(|member| member.url.clone()).collect()
            }
        };
        if !pool.iter().any(|other| other.is_same(url)) {
            return;
        }
        let ejected = pool.iter().filter(|other| other.state().service(now) != Service::In).count();
        if reason != EjectionReason::FailedProbe && !may_eject(pool.len(), ejected) {
            return;
        }
        if let Some(length) = url.state().eject(reason, now) {
            self.counts.ejected(reason, self.upstream(goal).as_ref());
            warn!(%url, reason = reason.as_str(), ?length, "an address is ejected");
        }
    }

    /// Waits until the request has a destination: for a serving member, or for a pause if every candidate was tried.
    async fn wait_for_address(&self, goal: &Goal<'_>, history: &mut History) -> Result<Chosen, MeshError> {
        let before = history.waited;
        let began = Instant::now();
        let mut changes = self.roster.changes();
        let mut place = None;
        loop {
            let pick = self.pick(goal, &history.tried)?;
            history.waited = before + began.elapsed();
            let limit = match pick {
                Pick::NoMember(_) if self.has_resigned(goal) => {
                    self.limits.wait_for_new_owner.min(self.limits.wait)
                }
                _ => self.limits.wait,
            };
            let deadline = began + limit.saturating_sub(before);
            let is_late = Instant::now() >= deadline;
            match pick {
                Pick::To(chosen) => {
                    // The service may have its first member.
                    if history.upstream.is_none() {
                        history.upstream = self.upstream(goal);
                    }
                    return Ok(chosen);
                }
                Pick::NoMember(Prospect::Never) => return Err(goal.unknown()),
                Pick::OnlyTried if is_late => {
                    let refused = history
                        .refusal
                        .take()
                        .map(|last| MeshError::Refused { last, waited: history.waited });
                    let failed = history.failed.take().map(|failed| *failed).or(refused);
                    return Err(failed.unwrap_or_else(|| self.refused(goal, history.waited)));
                }
                Pick::NoMember(Prospect::Soon) if is_late => return Err(self.refused(goal, history.waited)),
                Pick::NoMember(Prospect::IfAssigned) => return Err(self.refused(goal, history.waited)),
                Pick::OnlyTried | Pick::NoMember(Prospect::Soon) => {}
            }
            history.time_left()?;
            let deadline = history.deadline.map_or(deadline, |own| own.0.min(deadline));
            if place.is_none() {
                let all = self.counts.waiting.enter();
                let alike = self.upstream_or_vacant(goal, history).waits();
                place = self.waiting.enter_below(self.limits.waiting).map(|own| (own, all, alike));
            }
            if place.is_none() {
                return Err(MeshError::QueueFull { waiting: self.limits.waiting });
            }
            if matches!(pick, Pick::OnlyTried) {
                let pause = Duration::from_millis(rand::rng().random_range(PAUSE_MS));
                let earliest = Instant::now() + pause;
                let until = history.not_before.take().map_or(earliest, |other| other.max(earliest));
                sleep_until(deadline.min(until)).await;
                history.tried.clear();
            } else {
                tokio::select! {
                    biased;
                    changed = changes.changed() => {
                        // The view's owner is gone, so no member will appear.
                        changed.map_err(|_closed| self.refused(goal, history.waited))?;
                    }
                    () = sleep_until(deadline) => {}
                }
            }
        }
    }

    /// Whether the owner of the shard has resigned and no other node owns it yet.
    fn has_resigned(&self, goal: &Goal<'_>) -> bool {
        let Goal::Service { service, target, .. } = *goal else { return false };
        self.roster.catalog().resigned(service, target).is_some()
    }

    fn refused(&self, goal: &Goal<'_>, waited: Duration) -> MeshError {
        let Goal::Service { service, target, .. } = *goal else { return goal.unknown() };
        let (service, catalog) = (service.clone(), self.roster.catalog());
        let spare = catalog.spare(&service, &self.targets.kind(&service)).cloned();
        match catalog.resolve(&service, target) {
            Target::Shard(shard) => {
                let last = catalog.last_owner(&service, shard).cloned();
                let resigned = catalog.resigned(&service, target).cloned();
                MeshError::NoOwner { service, shard, last, resigned, spare, waited }
            }
            Target::Any | Target::Key(_) | Target::KeyReplica(_) | Target::ShardReplica(_) => {
                MeshError::NoServingMember { service, spare, waited }
            }
        }
    }
}
