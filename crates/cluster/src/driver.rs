//! The loop beside Chitchat: reads the gossip state, decides which nodes are members, publishes the view, pushes
//! changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chitchat::{ChitchatHandle, ChitchatId};
use rand::RngExt;
use serde::Serialize;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{info, warn};
use types::api::Member;
use types::{Backoff, Generation, NodeId, Retries};

use crate::announced::{self, Announced, OwnAnnouncements};
use crate::config::{ClusterConfig, Timing};
use crate::keys;
use crate::liveness::{Liveness, Sighting};
use crate::order::{Command, GossipError, Rival};
use crate::stall::StallGuard;
use crate::view::ClusterView;

/// The time between two refreshes while a node is about to become a member.
const FAST_POLL: Duration = Duration::from_millis(5);
/// The number of fast polls in a row; after them the regular interval applies.
const FAST_POLLS: u32 = 40;
/// For this long after its start a node greets every node it learns of.
const EAGER: Duration = Duration::from_secs(5);
/// Greetings sent to each member: two make the heartbeat rise on both sides, the third satisfies the failure detector.
const GREETINGS: u8 = 3;
/// In a cluster of up to this many nodes, greet every node. In a larger one, greet about this many, chosen at random;
/// the others hear of the newcomer from them.
const GREET_ALL: u32 = 16;
/// The first pause between two greetings of the seeds while none has answered. It grows up to one gossip interval.
const SEED_PAUSE: Duration = Duration::from_millis(10);
/// The number of times a leave is pushed, and the pause after each.
const LEAVE_PUSHES: u32 = 3;
const LEAVE_PAUSE: Duration = Duration::from_millis(50);

/// The channels on which the driver publishes.
pub(crate) struct Outlets {
    pub(crate) view: watch::Sender<ClusterView>,
    pub(crate) specs: watch::Sender<Announced>,
    pub(crate) rival: watch::Sender<Option<Rival>>,
    pub(crate) namesakes: watch::Sender<Option<Vec<Rival>>>,
}

/// The loop that reads the gossip state and publishes the view.
pub(crate) struct Driver {
    config: ClusterConfig,
    timing: Timing,
    handle: ChitchatHandle,
    outlets: Outlets,
    liveness: Liveness,
    guard: StallGuard,
    started: Instant,
    /// Members as last parsed, so that unchanged ones are not parsed again.
    known: BTreeMap<ChitchatId, Option<Member>>,
    greeted: BTreeMap<ChitchatId, u8>,
    /// What this node has announced.
    announcements: OwnAnnouncements,
    seeds: SeedGreetings,
    fast_polls_left: u32,
    /// Whether the warning that no seed answers was logged.
    has_warned_of_seeds: bool,
    /// Whether the passing of time alone may change the members: a newcomer is not settled yet, or deaths are held
    /// back.
    is_unsettled: bool,
}

/// When to greet the seeds next while none has answered.
struct SeedGreetings {
    retries: Retries,
    next: Instant,
}

impl Driver {
    pub(crate) fn new(
        config: ClusterConfig,
        timing: Timing,
        handle: ChitchatHandle,
        outlets: Outlets,
    ) -> Self {
        let now = Instant::now();
        Self {
            liveness: Liveness::new(timing.newcomer_patience()),
            guard: StallGuard::new(timing.interval, timing.stall_check(), now),
            started: now,
            known: BTreeMap::new(),
            greeted: BTreeMap::new(),
            announcements: OwnAnnouncements::default(),
            seeds: SeedGreetings { retries: Backoff::new(SEED_PAUSE, timing.interval).retries(), next: now },
            fast_polls_left: FAST_POLLS,
            has_warned_of_seeds: false,
            is_unsettled: true,
            config,
            timing,
            handle,
            outlets,
        }
    }

    /// Runs until gossip ends or the node leaves. Returns the reason.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> String {
        let changed = Arc::new(Notify::new());
        let notify = changed.clone();
        let chitchat = self.handle.chitchat();
        let (mut live, _subscription) = {
            let chitchat = chitchat.lock().await;
            let subscription = chitchat.subscribe_event("", move |_| notify.notify_one());
            (chitchat.live_nodes_watcher(), subscription)
        };
        let termination = self.handle.termination_watcher();
        tokio::pin!(termination);
        let mut beat = interval(self.timing.stall_check());
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_quick = self.fast_polls_left > 0;
            tokio::select! {
                ended = &mut termination => return match ended {
                    Ok(()) => "gossip was shut down".to_owned(),
                    Err(error) => format!("gossip failed: {error:#}"),
                },
                command = commands.recv() => match command {
                    Some(Command::SetRole { state, done }) => {
                        // The caller may have gone away; the change still takes effect.
                        let _ = done.send(self.set(keys::ROLE, &*state).await);
                    }
                    Some(Command::SetStore { store, done }) => {
                        // The caller may have gone away. Not pushed: the role that uses this store follows at once.
                        let _ = done.send(self.note(keys::STORE, &*store).await.map(|_noted| ()));
                    }
                    Some(Command::AnnounceSpec { service, number, done }) => {
                        let announced = self.announcements.add(service, number).clone();
                        // The caller may have gone away; the announcement still takes effect.
                        let _ = done.send(self.set(keys::SPECS, &announced).await.map(|_version| ()));
                    }
                    Some(Command::Heartbeat { node, generation, done }) => {
                        // The caller may have gone away. Nothing has changed, so there is nothing to refresh.
                        let _ = done.send(self.heartbeat(&node, generation).await);
                        continue;
                    }
                    Some(Command::Leave { done }) => {
                        self.announce_leave().await;
                        let _ = done.send(());
                        return "left".to_owned();
                    }
                    None => return "every handle was dropped".to_owned(),
                },
                () = changed.notified() => self.fast_polls_left = FAST_POLLS,
                Ok(()) = live.changed() => {}
                _ = beat.tick() => {
                    self.beat();
                    if !self.is_unsettled {
                        continue;
                    }
                }
                () = sleep(FAST_POLL), if is_quick => {
                    self.fast_polls_left -= 1;
                }
            }
            if let Some(reason) = self.refresh().await {
                return reason;
            }
        }
    }

    /// Sets a key and pushes it. Returns the version that shows it.
    async fn set(&mut self, key: &'static str, value: &impl Serialize) -> Result<u64, GossipError> {
        let (version, is_first) = self.note(key, value).await?;
        if is_first {
            // Nodes that are not members yet need the key as well; otherwise they would learn it a round later.
            let others = self.known.keys().map(|id| id.gossip_advertise_addr);
            others.filter(|addr| *addr != self.config.advertise).for_each(|addr| self.greet(addr));
        } else {
            self.push();
        }
        Ok(version)
    }

    /// Sets a key without pushing it. Returns the version that shows it, and whether the key is new.
    async fn note(&mut self, key: &'static str, value: &impl Serialize) -> Result<(u64, bool), GossipError> {
        let value = keys::encode(key, value).map_err(|error| GossipError::TooLong(error.to_string()))?;
        let noted = {
            let chitchat = self.handle.chitchat();
            let mut chitchat = chitchat.lock().await;
            let own = chitchat.self_node_state();
            let is_new = own.get(key).is_none();
            own.set(key, value);
            (own.max_version(), is_new)
        };
        self.refresh().await;
        Ok(noted)
    }

    async fn heartbeat(&self, node: &NodeId, generation: Generation) -> Option<u64> {
        let chitchat = self.handle.chitchat();
        let chitchat = chitchat.lock().await;
        let mut states = chitchat.node_states().iter();
        let found = states.find(|(id, _)| *id.node_id == *node.as_str() && id.generation_id == generation.0);
        found.map(|(_, state)| state.heartbeat().into())
    }

    async fn announce_leave(&mut self) {
        let chitchat = self.handle.chitchat();
        let is_member = {
            let mut chitchat = chitchat.lock().await;
            let own = chitchat.self_node_state();
            let is_member = own.get(keys::ROLE).is_some();
            if is_member {
                own.set(keys::LEFT, "1");
            }
            is_member
        };
        let has_peers = is_member && self.outlets.view.borrow().peers().next().is_some();
        for _ in 0..if has_peers { LEAVE_PUSHES } else { 0 } {
            self.push();
            sleep(LEAVE_PAUSE).await;
        }
        // This fails only if the task has ended already.
        let _ = self.handle.initiate_shutdown();
    }

    /// Starts an exchange with every live member, so that all of them learn of a change at once.
    fn push(&self) {
        for peer in self.outlets.view.borrow().peers() {
            if let Ok(addr) = peer.gossip.parse() {
                self.greet(addr);
            }
        }
    }

    fn greet(&self, addr: SocketAddr) {
        // This fails only if the task has ended; the loop learns of that from the termination watcher.
        let _ = self.handle.gossip(addr);
    }

    /// Checks whether this process was paused. Returns the present time.
    fn beat(&mut self) -> Instant {
        let now = Instant::now();
        if let Some(late) = self.guard.beat(now) {
            warn!(
                ?late,
                "this process was paused; no member is declared dead until the others had time to send heartbeats"
            );
            self.is_unsettled = true;
        }
        now
    }

    /// Reads the gossip state and publishes the view. Returns the reason if this node can't stay.
    pub(crate) async fn refresh(&mut self) -> Option<String> {
        let now = self.beat();
        let (sightings, own, seeds) = self.sight().await;
        let is_eager = now < self.started + EAGER;
        let has_seeds = !seeds.is_empty();
        if is_eager && sightings.is_empty() {
            self.greet_seeds(now, seeds);
        }
        self.note_namesakes(&sightings);
        let known = sightings.len();
        self.log_seed_contact(has_seeds, is_eager, known);
        let mut evaluation = self.liveness.evaluate(now, self.guard.holds(now), sightings);
        if is_eager && let Some(reason) = self.is_full(evaluation.members.len(), known) {
            return Some(reason);
        }
        self.is_unsettled =
            !evaluation.is_settled || self.guard.holds(now) || is_eager || (has_seeds && known == 0);
        if evaluation.pending == 0 && !self.has_greetings_left() {
            self.fast_polls_left = 0;
        }
        let me = &self.config.node;
        let rival = evaluation
            .members
            .remove(me)
            .map(|member| Rival { generation: member.generation, http: member.http });
        evaluation.left.remove(me);
        if let Some(own) = own {
            evaluation.members.insert(me.clone(), own);
        }
        let view = ClusterView::with_left(
            self.config.cluster.clone(),
            me.clone(),
            evaluation.members,
            evaluation.left,
        );
        self.outlets.rival.send_if_modified(|shown| std::mem::replace(shown, rival.clone()) != rival);
        self.outlets.view.send_if_modified(|shown| {
            let is_new = *shown != view;
            if is_new {
                *shown = view;
            }
            is_new
        });
        None
    }

    /// Logs once that no seed has answered, and once that one has after all.
    fn log_seed_contact(&mut self, has_seeds: bool, is_eager: bool, known: usize) {
        if has_seeds && known == 0 && !is_eager && !self.has_warned_of_seeds {
            self.has_warned_of_seeds = true;
            let (cluster, seeds) = (&self.config.cluster, self.config.seeds.join(", "));
            warn!(%cluster, seeds, "no seed has answered; are they up, and in a cluster of this name?");
        } else if known > 0 && self.has_warned_of_seeds {
            self.has_warned_of_seeds = false;
            info!("reached the cluster");
        }
    }

    /// The reason to leave if the cluster is full. Dead members that are still remembered count as well, because the
    /// digest lists both.
    fn is_full(&self, live: usize, known: usize) -> Option<String> {
        let max = self.config.max_members;
        let is_full = live >= max || known >= max.saturating_mul(2);
        is_full.then(|| {
            format!("the cluster is full: it has {live} members and remembers {known}, {max} are allowed")
        })
    }

    fn note_namesakes(&self, sightings: &[Sighting]) {
        if sightings.is_empty() || self.outlets.namesakes.borrow().is_some() {
            return;
        }
        let own = sightings.iter().filter(|sighting| sighting.node == self.config.node && !sighting.left);
        let namesakes: Option<Vec<_>> = own
            .map(|sighting| sighting.http.clone().map(|http| Rival { generation: sighting.generation, http }))
            .collect();
        // None until the address of each has arrived.
        if let Some(namesakes) = namesakes {
            self.outlets.namesakes.send_replace(Some(namesakes));
        }
    }

    /// The gossip state of every other node, this node as a member, and the seeds.
    async fn sight(&mut self) -> (Vec<Sighting>, Option<Member>, Vec<SocketAddr>) {
        let chitchat = self.handle.chitchat();
        let chitchat = chitchat.lock().await;
        let own_id = chitchat.self_chitchat_id().clone();
        let listed: BTreeSet<&ChitchatId> = chitchat.live_nodes().collect();
        let mut sightings = Vec::with_capacity(chitchat.node_states().len());
        let mut own = None;
        let mut announced = Announced::new();
        let mut greetings = Vec::new();
        let is_eager = Instant::now() < self.started + EAGER;
        let count = u32::try_from(chitchat.node_states().len()).unwrap_or(u32::MAX);
        for (id, state) in chitchat.node_states() {
            let known = self.known.entry(id.clone()).or_default();
            if known.as_ref().is_none_or(|member| member.version != state.max_version()) {
                *known = keys::member(id, state);
                announced::merge(&mut announced, keys::specs(state));
            }
            if *id == own_id {
                own.clone_from(known);
                continue;
            }
            let Ok(node) = id.node_id.parse::<NodeId>() else {
                continue;
            };
            let left = state.get(keys::LEFT).is_some();
            // Once the node is a member and the failure detector has listed it, greetings gain nothing.
            let is_met = listed.contains(id) && known.is_some();
            if is_eager && !left {
                let is_lucky = || count <= GREET_ALL || rand::rng().random_ratio(GREET_ALL, count);
                let first = || if is_lucky() { 0 } else { GREETINGS };
                let count = self.greeted.entry(id.clone()).or_insert_with(first);
                if is_met {
                    *count = GREETINGS;
                } else if *count < GREETINGS {
                    *count += 1;
                    greetings.push(id.gossip_advertise_addr);
                }
            }
            sightings.push(Sighting {
                node,
                generation: Generation(id.generation_id),
                heartbeat: state.heartbeat().into(),
                listed: listed.contains(id),
                left,
                http: state.get(keys::HTTP).map(str::to_owned),
                member: known.clone(),
            });
        }
        let seeds =
            chitchat.seed_nodes().into_iter().filter(|addr| *addr != own_id.gossip_advertise_addr).collect();
        self.known.retain(|id, _| chitchat.node_states().contains_key(id));
        self.greeted.retain(|id, _| chitchat.node_states().contains_key(id));
        drop(chitchat);
        self.outlets.specs.send_if_modified(|known| announced::merge(known, announced));
        for addr in greetings {
            self.greet(addr);
        }
        (sightings, own, seeds)
    }

    fn has_greetings_left(&self) -> bool {
        Instant::now() < self.started + EAGER && self.greeted.values().any(|count| *count < GREETINGS)
    }

    fn greet_seeds(&mut self, now: Instant, seeds: Vec<SocketAddr>) {
        if now < self.seeds.next {
            return;
        }
        self.fast_polls_left = FAST_POLLS;
        self.seeds.next = now + self.seeds.retries.failed(rand::random());
        for seed in seeds {
            self.greet(seed);
        }
    }
}
