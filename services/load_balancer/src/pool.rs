//! The backends of one target: gives each connection one of them, and hears how it went.

mod lease;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use mesh::Mesh;
use plugin::ClientKey;
use plugin::check::Checked;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use types::NodeId;

use crate::admission::Wait;
use crate::backend::{Slot, Standing, Wanted, reconcile};
use crate::choose::{Candidate, Chooser};
use crate::http::urls::Urls;
use crate::plan::{Forward, TargetPlan};
use crate::refusal::Refusal;
use lease::Waiting;

pub(crate) use lease::Lease;

/// The backends of a target.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) target: ArcSwap<TargetPlan>,
    pub(crate) forward: ArcSwap<Forward>,
    /// Changes with the target or the way to forward.
    pub(crate) changed: watch::Sender<()>,
    /// Cancelled once no settings have it any more. Its last connections may still be open.
    pub(crate) retired: CancellationToken,
    state: Mutex<State>,
    /// Held by the first of those that wait, in whose place the next one comes.
    turn: tokio::sync::Mutex<()>,
    /// A backend may have room, or be there.
    freed: Notify,
    /// A backend has not accepted a connection.
    pub(crate) refused: Notify,
    /// Where requests go, in HTTP mode.
    pub(crate) urls: Urls,
}

#[derive(Debug)]
struct State {
    slots: Vec<Slot>,
    next_id: u64,
    chooser: Chooser,
    random: StdRng,
    /// How many connections wait for a backend: a new one does not overtake them.
    waiting: usize,
    lack: Lack,
}

/// Why there may be no backends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lack {
    /// Some will be there soon, so that waiting makes sense.
    pub(crate) is_soon: bool,
    /// In words.
    pub(crate) why: Option<String>,
    /// Names that can't be resolved, and why.
    pub(crate) unresolved: Vec<(String, String)>,
}

enum Picked {
    Lease(Lease),
    /// All have as many connections as they may have, or some will be there soon.
    Later,
    /// There is none.
    None,
}

impl Pool {
    pub(crate) fn new(target: TargetPlan, forward: Forward, mesh: Option<Mesh>, seed: u64) -> Self {
        let state = State {
            slots: Vec::new(),
            next_id: 1,
            chooser: Chooser::new(forward.balance),
            random: StdRng::seed_from_u64(seed),
            waiting: 0,
            // Until its keeper has looked.
            lack: Lack { is_soon: true, ..Lack::default() },
        };
        Self {
            target: ArcSwap::from_pointee(target),
            forward: ArcSwap::from_pointee(forward),
            changed: watch::Sender::new(()),
            retired: CancellationToken::new(),
            state: Mutex::new(state),
            turn: tokio::sync::Mutex::new(()),
            freed: Notify::new(),
            refused: Notify::new(),
            urls: Urls::new(mesh),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A backend for a connection that has not tried these yet. If none has room, it waits for one, first in, first out.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        client: ClientKey,
        tried: &[u64],
        wait: &mut Wait<'_>,
    ) -> Result<Lease, Refusal> {
        if self.lock().waiting == 0 {
            match self.pick(client, tried) {
                Picked::Lease(lease) => return Ok(lease),
                Picked::None => return Err(Refusal::NoBackend),
                Picked::Later => {}
            }
        }
        let _waiting = Waiting::new(self);
        let picking = async {
            let _turn = self.turn.lock().await;
            loop {
                match self.pick(client, tried) {
                    Picked::Lease(lease) => return Ok(lease),
                    Picked::None => return Err(Refusal::NoBackend),
                    Picked::Later => self.freed.notified().await,
                }
            }
        };
        wait.during(picking).await?
    }

    fn pick(self: &Arc<Self>, client: ClientKey, tried: &[u64]) -> Picked {
        let now = Instant::now();
        let mut state = self.lock();
        let State { slots, chooser, random, lack, .. } = &mut *state;
        let is_left = |slot: &Slot| !tried.contains(&slot.id);
        let with = |standing, is_backup: bool| {
            slots
                .iter()
                .enumerate()
                .filter(move |(_, slot)| {
                    slot.standing(now) == standing && slot.of.is_backup == is_backup && is_left(slot)
                })
                .collect::<Vec<_>>()
        };
        // Backups only when no other is up. When all that stand are ejected, they are better than nothing.
        let tiers = [
            (Standing::Up, false),
            (Standing::Up, true),
            (Standing::Ejected, false),
            (Standing::Ejected, true),
        ];
        let tier = tiers.into_iter().map(|(standing, is_backup)| with(standing, is_backup));
        let Some(tier) = tier.into_iter().find(|tier| !tier.is_empty()) else {
            return if lack.is_soon && tried.is_empty() { Picked::Later } else { Picked::None };
        };
        let forward = self.forward.load();
        let limit = forward.per_backend.unwrap_or(u32::MAX);
        let with_room: Vec<_> = tier.into_iter().filter(|(_, slot)| slot.connections < limit).collect();
        let candidates: Vec<_> = with_room
            .iter()
            .map(|(_, slot)| Candidate {
                id: slot.id,
                key: &slot.key,
                connections: slot.connections,
                weight: slot.weight(now, forward.slow_start),
            })
            .collect();
        let Some(chosen) = chooser.choose(&candidates, client, random) else { return Picked::Later };
        let at = with_room[chosen].0;
        let slot = &mut slots[at];
        slot.connections += 1;
        Picked::Lease(Lease {
            pool: Arc::clone(self),
            id: slot.id,
            address: slot.of.address,
            cut: slot.cut.clone(),
        })
    }

    /// The service whose members are the backends.
    pub(crate) fn service(&self) -> Option<String> {
        self.target.load().source.service().map(ToString::to_string)
    }

    /// Whether there is a backend that a connection has not tried.
    pub(crate) fn has_others(&self, tried: &[u64]) -> bool {
        let now = Instant::now();
        let is_other = |slot: &Slot| {
            !tried.contains(&slot.id) && matches!(slot.standing(now), Standing::Up | Standing::Ejected)
        };
        self.lock().slots.iter().any(is_other)
    }

    /// Forwards to another target, or in another way, from the next connection on. Backends that stay are remembered.
    pub(crate) fn apply(&self, target: TargetPlan, forward: Forward) {
        let (balance, is_checked) = (forward.balance, forward.check.is_some());
        let before = self.forward.swap(Arc::new(forward));
        self.target.store(Arc::new(target));
        let mut state = self.lock();
        if before.balance != balance {
            state.chooser = Chooser::new(balance);
        }
        if !is_checked {
            // Nothing would find those that are down up again.
            for slot in &mut state.slots {
                slot.checked = Checked::default();
                slot.url.iter().for_each(|url| url.checked(None));
            }
            self.urls.publish(&self.forward.load().listener, &state.slots, state.lack.is_soon);
        }
        drop(state);
        self.changed.send_replace(());
        self.freed.notify_one();
    }

    /// No settings have it any more: it gets no new connections, and ends with its last one.
    pub(crate) fn retire(&self) {
        self.retired.cancel();
    }

    /// Whether it is retired, has no connections, and none wait for it.
    pub(crate) fn has_ended(&self) -> bool {
        if !self.retired.is_cancelled() {
            return false;
        }
        let state = self.lock();
        state.waiting == 0 && state.slots.iter().all(|slot| slot.connections == 0)
    }

    /// Takes over what settings, gossip and names say now. `is_other` if settings name another target than the last time.
    pub(crate) fn renew(&self, wanted: Vec<Wanted>, lack: Lack, is_other: bool) {
        let mut state = self.lock();
        let State { slots, next_id, chooser, lack: known, .. } = &mut *state;
        let before: Vec<_> = slots.iter().filter(|slot| slot.left_at.is_none()).map(|slot| slot.id).collect();
        for slot in slots.iter_mut().filter(|slot| is_other && slot.left_at.is_none()) {
            slot.is_spared = true;
        }
        for id in reconcile(slots, wanted, Instant::now(), next_id) {
            chooser.forget(id);
        }
        let after: Vec<_> = slots.iter().filter(|slot| slot.left_at.is_none()).map(|slot| slot.id).collect();
        if before != after {
            let listener = &*self.forward.load().listener;
            info!(listener, backends = after.len(), "the backends have changed");
        }
        *known = lack;
        self.urls.publish(&self.forward.load().listener, &state.slots, state.lack.is_soon);
        drop(state);
        self.freed.notify_one();
    }

    /// Cuts the connections of members that have drained for long enough. Returns when the next ones have.
    pub(crate) fn cut(&self, now: Instant) -> Option<Instant> {
        let drain = self.forward.load().drain;
        let mut next: Option<Instant> = None;
        for slot in &self.lock().slots {
            let due = slot.left_at.and_then(|left_at| left_at.checked_add(drain));
            // Only a member's, whatever the target is now: the addresses of a name come and go, and settings list others; that
            // says nothing of the servers behind them.
            let may_be_cut = slot.of.member.is_some() && !slot.is_spared;
            let is_open = slot.connections > 0 && !slot.cut.is_cancelled();
            match due.filter(|_| may_be_cut && is_open) {
                Some(due) if due <= now => slot.cut.cancel(),
                Some(due) => next = Some(next.map_or(due, |next| next.min(due))),
                None => {}
            }
        }
        next
    }

    /// The backends that are to be checked: their ids, addresses and names.
    pub(crate) fn to_check(&self) -> Vec<(u64, String, String)> {
        let state = self.lock();
        let listed = state.slots.iter().filter(|slot| slot.left_at.is_none());
        listed.map(|slot| (slot.id, slot.of.address.to_string(), slot.of.named.clone())).collect()
    }

    /// Takes the result of a check.
    pub(crate) fn checked(&self, id: u64, result: Result<(), String>) {
        let mut state = self.lock();
        // Under the lock: new settings without checks forget what checks have found, after they are in place.
        let forward = self.forward.load();
        let Some(checking) = &forward.check else { return };
        let Some(slot) = state.slots.iter_mut().find(|slot| slot.id == id) else { return };
        let is_changed = slot.checked.observe(result, checking);
        if let Some(url) = &slot.url {
            let why = || slot.checked.why().unwrap_or("fails its checks").to_owned();
            // Each success shows that it can be reached, whatever a request has found.
            url.checked((!slot.checked.is_up()).then(why));
        }
        if !is_changed {
            return;
        }
        let (listener, backend) = (&*forward.listener, &slot.of.named);
        if slot.checked.is_up() {
            slot.since = Some(Instant::now());
            info!(listener, backend, "a backend is up");
        } else {
            warn!(listener, backend, why = slot.checked.why(), "a backend is down");
        }
        drop(state);
        self.freed.notify_one();
    }

    /// Whether a member has not accepted the last connection.
    pub(crate) fn refuses(&self, node: &NodeId) -> bool {
        let is_it = |slot: &Slot| slot.of.member.as_ref().is_some_and(|(member, _)| member == node);
        self.lock().slots.iter().any(|slot| is_it(slot) && slot.failure.is_some())
    }

    /// Why no connection gets a backend; `None` if they do.
    pub(crate) fn trouble(&self) -> Option<String> {
        let now = Instant::now();
        let state = self.lock();
        let stands = |slot: &Slot| matches!(slot.standing(now), Standing::Up | Standing::Ejected);
        if state.slots.iter().any(stands) {
            return None;
        }
        if let Some(why) = &state.lack.why {
            return Some(why.clone());
        }
        let unresolved = state.lack.unresolved.iter().map(|(name, why)| format!("{name} {why}"));
        let down =
            state.slots.iter().filter(|slot| slot.left_at.is_none()).map(|slot| {
                format!("{} {}", slot.of.named, slot.checked.why().unwrap_or("fails its checks"))
            });
        let causes: Vec<_> = unresolved.chain(down).take(3).collect();
        match causes.is_empty() {
            // The first look at names and members takes a moment.
            true if state.lack.is_soon => None,
            true => Some("there is no backend".to_owned()),
            false => Some(causes.join(", ")),
        }
    }

    /// Shows each backend, and those that have no address.
    pub(crate) fn look<T>(&self, show: impl FnOnce(&[Slot], &Lack) -> T) -> T {
        let state = self.lock();
        show(&state.slots, &state.lack)
    }

    fn with_slot<T>(&self, id: u64, change: impl FnOnce(&mut Slot, (usize, usize)) -> T) -> Option<T> {
        let now = Instant::now();
        let mut state = self.lock();
        let at = state.slots.iter().position(|slot| slot.id == id)?;
        let is_backup = state.slots[at].of.is_backup;
        let alike = state.slots.iter().filter(|slot| slot.of.is_backup == is_backup);
        let standings: Vec<_> = alike.map(|slot| slot.standing(now)).collect();
        let count = |wanted: &[Standing]| standings.iter().filter(|found| wanted.contains(found)).count();
        let counts = (count(&[Standing::Up, Standing::Ejected]), count(&[Standing::Ejected]));
        Some(change(&mut state.slots[at], counts))
    }
}
