//! The connections of a listener: how many are open on all cores, which are idle, and what they have to do.
//!
//! When the limit is reached, the connection that has been idle longest makes room for a new one, and one alone: unless it
//! takes too long to go. A request costs two writes of its own connection's slot; locks are taken only when a connection
//! opens, closes or has to make room.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How many idle connections are noted in one search for the one that has been idle longest.
const NOTED: usize = 64;
/// How often a new connection that waits for a place looks whether the one that has to go became busy.
const OFTEN: Duration = Duration::from_millis(10);
/// The same whether one is idle, while none is.
const SELDOM: Duration = Duration::from_millis(200);

/// What a connection has to do. Bits, since it may be several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Finish its requests and close; its client may still send some.
    Drain = 1,
    /// Close after the running request.
    Stop = 2,
    /// Close if no request is running.
    MakeRoom = 4,
    /// Answer one request, then close.
    Last = 8,
}

/// Which connections have to close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    /// The last ones may still send their request.
    AllButLast,
    All,
}

/// The connections of a listener.
#[derive(Debug)]
pub(super) struct Slots {
    limit: AtomicUsize,
    open: AtomicUsize,
    freed: Notify,
    /// From here on, times are counted.
    start: Instant,
    next: AtomicU64,
    /// Whether all connections have to finish, also those that are opened from now on.
    is_draining: AtomicBool,
    /// The open connections of each core.
    cores: Box<[Mutex<States>]>,
    /// How many new connections wait for a place.
    waiting: AtomicUsize,
    room: Mutex<Room>,
}

/// Which connections make room.
#[derive(Debug, Default)]
struct Room {
    /// Those that were idle longest at the last search, in this order. Those that became idle later follow after all of them.
    noted: VecDeque<(u64, Arc<State>)>,
    /// Those that were ordered to go, and when.
    going: Vec<(Arc<State>, Instant)>,
}

/// By the order in which the connections were opened.
type States = BTreeMap<u64, Arc<State>>;

#[derive(Debug, Default)]
struct State {
    /// Since when it is idle, in nanoseconds from 1 on; 0 while it is not.
    idle_since: AtomicU64,
    orders: AtomicU8,
    waker: AtomicWaker,
}

/// The place of one connection. It is free again when this is dropped.
#[must_use]
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    core: usize,
    key: u64,
    activity: Activity,
}

/// A new connection that waits for a place, until this is dropped.
struct Newcomer<'a>(&'a Slots);

impl Drop for Newcomer<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Notes whether a connection is idle. Cheap to clone; does not keep its place.
#[derive(Debug, Clone)]
pub(super) struct Activity {
    state: Arc<State>,
    start: Instant,
}

impl Default for Activity {
    fn default() -> Self {
        Self { state: Arc::default(), start: Instant::now() }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slots {
    /// No connections on any of the cores.
    pub(super) fn new(limit: usize, cores: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicUsize::new(limit.max(1)),
            open: AtomicUsize::new(0),
            freed: Notify::new(),
            start: Instant::now(),
            next: AtomicU64::new(0),
            is_draining: AtomicBool::new(false),
            cores: (0..cores.max(1)).map(|_| Mutex::default()).collect(),
            waiting: AtomicUsize::new(0),
            room: Mutex::default(),
        })
    }

    /// A place for a connection of a core, if there is one.
    pub(super) fn enter(self: &Arc<Self>, core: usize) -> Option<Slot> {
        let limit = self.limit.load(Ordering::Relaxed);
        let one_more = |open: usize| (open < limit).then_some(open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(self.place(core))
    }

    /// Changes how many connections may be open. Beyond a lower limit, idle ones make room as new ones come.
    pub(super) fn resize(&self, limit: usize) {
        self.limit.store(limit.max(1), Ordering::Relaxed);
        self.freed.notify_waiters();
    }

    /// A place beyond the limit for one of the last connections, which the system had accepted before the listener was closed.
    pub(super) fn enter_last(self: &Arc<Self>, core: usize) -> Slot {
        self.open.fetch_add(1, Ordering::Relaxed);
        let slot = self.place(core);
        slot.activity.state.order(Order::Last);
        slot
    }

    fn place(self: &Arc<Self>, core: usize) -> Slot {
        let core = core % self.cores.len();
        let (key, state) = (self.next.fetch_add(1, Ordering::Relaxed), Arc::<State>::default());
        locked(&self.cores[core]).insert(key, Arc::clone(&state));
        // Only now: a drain that begins later finds it.
        if self.is_draining.load(Ordering::SeqCst) {
            state.order(Order::Drain);
        }
        Slot { slots: Arc::clone(self), core, key, activity: Activity { state, start: self.start } }
    }

    /// A place for a connection of a core. While there is none, an idle connection is closed, the earliest-idle one; if none
    /// is idle, this waits for the end of one, which it reports to `full` once. `patience` is how long a connection may take to
    /// go before others have to.
    pub(super) async fn entered(
        self: &Arc<Self>,
        core: usize,
        patience: Duration,
        full: impl FnOnce(usize),
    ) -> Slot {
        if let Some(slot) = self.enter(core) {
            return slot;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waits = Newcomer(self);
        let mut full = Some(full);
        loop {
            if let Some(slot) = self.enter(core) {
                return slot;
            }
            // While none is idle, the end of one is what counts: all of them are looked at less often.
            let look = if self.make_enough_room(patience) {
                OFTEN
            } else {
                if let Some(full) = full.take() {
                    full(self.limit.load(Ordering::Relaxed));
                }
                SELDOM
            };
            // Another core may be woken in place of this one.
            let _ = tokio::time::timeout(look, self.freed.notified()).await;
        }
    }

    /// Orders as many connections to close as there are new ones that wait, unless they were ordered already. Returns
    /// whether any is about to go.
    fn make_enough_room(&self, patience: Duration) -> bool {
        let mut room = locked(&self.room);
        let now = Instant::now();
        room.going.retain(|(state, _)| state.has(Order::MakeRoom));
        // Connections whose clients do not respond must not keep new ones out for long: each period, twice as many have to go.
        let late = room.going.iter().filter(|(_, since)| now.duration_since(*since) >= patience).count();
        let in_time = room.going.len() - late;
        let beyond = self.open.load(Ordering::Relaxed).saturating_sub(self.limit.load(Ordering::Relaxed));
        let needed = (self.waiting.load(Ordering::Relaxed) + beyond).max(late.min(NOTED));
        for _ in in_time..needed {
            if !self.make_room(&mut room, now) {
                break;
            }
        }
        !room.going.is_empty()
    }

    /// Orders the connection that has been idle longest to close. Returns whether there is one.
    fn make_room(&self, room: &mut Room, now: Instant) -> bool {
        for is_fresh in [false, true] {
            if is_fresh {
                room.noted = self.earliest_idle();
            }
            while let Some((since, state)) = room.noted.pop_front() {
                let is_same = || state.idle_since.load(Ordering::Acquire) == since;
                if !is_same() {
                    continue;
                }
                state.order(Order::MakeRoom);
                // One that has ended in between revoked the order before it was given, and would never revoke it again.
                if is_same() {
                    room.going.push((state, now));
                    return true;
                }
                state.cancel(Order::MakeRoom);
            }
        }
        false
    }

    /// The connections that have been idle longest and were not ordered to go yet.
    fn earliest_idle(&self) -> VecDeque<(u64, Arc<State>)> {
        let mut idle = Vec::new();
        for core in &self.cores {
            for state in locked(core).values() {
                let since = state.idle_since.load(Ordering::Acquire);
                if since > 0 && !state.has(Order::MakeRoom) {
                    idle.push((since, Arc::clone(state)));
                }
            }
        }
        if idle.len() > NOTED {
            idle.select_nth_unstable_by_key(NOTED, |(since, _)| *since);
            idle.truncate(NOTED);
        }
        idle.sort_unstable_by_key(|(since, _)| *since);
        idle.into()
    }

    /// Orders all connections to finish, and those that are opened later.
    pub(super) fn drain(&self) {
        if !self.is_draining.swap(true, Ordering::SeqCst) {
            for core in 0..self.cores.len() {
                self.order(core, Order::Drain, |_| true);
            }
        }
    }

    /// How many connections were ever opened.
    pub(super) fn opened(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Orders connections of a core to close.
    pub(super) fn stop(&self, core: usize, stopped: Stopped) {
        self.order(core, Order::Stop, |state| stopped == Stopped::All || !state.has(Order::Last));
    }

    fn order(&self, core: usize, order: Order, whom: impl Fn(&State) -> bool) {
        let core = core % self.cores.len();
        for state in locked(&self.cores[core]).values().filter(|state| whom(state)) {
            state.order(order);
        }
    }

    /// How many connections are open on all cores.
    #[cfg(test)]
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl State {
    fn order(&self, order: Order) {
        // Acquire: whoever revoked the order before has also noted why.
        self.orders.fetch_or(order as u8, Ordering::AcqRel);
        self.waker.wake();
    }

    fn has(&self, order: Order) -> bool {
        self.orders.load(Ordering::Acquire) & order as u8 != 0
    }

    fn cancel(&self, order: Order) {
        self.orders.fetch_and(!(order as u8), Ordering::AcqRel);
    }
}

impl Activity {
    /// Notes that the connection is idle from now on.
    pub(super) fn idle(&self) {
        let nanos = Instant::now().saturating_duration_since(self.start).as_nanos();
        // Nanoseconds of a u64 last for 584 years.
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX).max(1);
        self.state.idle_since.store(nanos, Ordering::Release);
    }

    /// Notes that a request arrives or is being answered.
    pub(super) fn busy(&self) {
        self.state.idle_since.store(0, Ordering::Release);
    }

    /// Since when the connection has been idle.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let since = self.state.idle_since.load(Ordering::Acquire);
        (since > 0).then(|| self.start + Duration::from_nanos(since))
    }

    /// Whether an order was given.
    pub(super) fn has(&self, order: Order) -> bool {
        self.state.has(order)
    }

    /// Wakes this task when an order is given.
    pub(super) fn watch(&self, cx: &Context<'_>) {
        self.state.waker.register(cx.waker());
    }

    /// Whether the connection has to make room. It need not while it is busy: then another one has to.
    pub(super) fn makes_room(&self) -> bool {
        if !self.has(Order::MakeRoom) {
            return false;
        }
        if self.idle_since().is_some() {
            return true;
        }
        self.state.cancel(Order::MakeRoom);
        false
    }
}

impl Slot {
    /// Whether the connection is idle.
    pub(super) fn activity(&self) -> Activity {
        self.activity.clone()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        locked(&self.slots.cores[self.core]).remove(&self.key);
        self.activity.busy();
        self.activity.state.cancel(Order::MakeRoom);
        self.slots.open.fetch_sub(1, Ordering::Relaxed);
        self.slots.freed.notify_one();
    }
}

#[cfg(test)]
mod tests;
