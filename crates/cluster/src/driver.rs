//! The loop beside Chitchat: looks at what gossip shows, judges it, publishes the view, greets and pushes.

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
use types::{Generation, NodeId};

use crate::config::{ClusterConfig, Timing};
use crate::keys;
use crate::liveness::{Liveness, Sighting};
use crate::order::{Command, GossipError, Rival};
use crate::stall::StallGuard;
use crate::view::ClusterView;

/// While somebody is about to be a member, the next look comes after this long.
const QUICK_LOOK: Duration = Duration::from_millis(5);
/// Quick looks in a row; after them the steady beat has to do.
const QUICK_LOOKS: u32 = 40;
/// For this long after its start a node greets everybody it learns of.
const EAGER: Duration = Duration::from_secs(5);
/// Greetings for each member: two make the heartbeat rise on both sides, the third satisfies the detector.
const GREETINGS: u8 = 3;
/// Up to this many are all greeted; of more, about this many, drawn by lot: the rest hears of the newcomer from them.
const GREET_ALL: u32 = 16;
/// First pause between two calls to the seeds while nobody answered; doubles up to a round of gossip.
const SEED_PAUSE: Duration = Duration::from_millis(10);
/// Pushes of a goodbye, and the pause after each.
const GOODBYES: u32 = 3;
const GOODBYE_PAUSE: Duration = Duration::from_millis(50);

/// Where what was seen is published.
pub(crate) struct Outlets {
    pub(crate) view: watch::Sender<ClusterView>,
    pub(crate) rival: watch::Sender<Option<Rival>>,
    pub(crate) namesakes: watch::Sender<Option<Vec<Rival>>>,
}

/// The loop that looks at what gossip shows and publishes the view.
pub(crate) struct Driver {
    config: ClusterConfig,
    timing: Timing,
    handle: ChitchatHandle,
    outlets: Outlets,
    liveness: Liveness,
    guard: StallGuard,
    started: Instant,
    /// Members as last read, so that unchanged ones are not parsed again.
    known: BTreeMap<ChitchatId, Option<Member>>,
    greeted: BTreeMap<ChitchatId, u8>,
    seeds: SeedCalls,
    quick_looks_left: u32,
    /// Whether it was said that no seed answers.
    is_lonely: bool,
    /// Whether time alone may change the verdict: a newcomer is not settled yet, or verdicts are held back.
    is_unsettled: bool,
}

/// When to call the seeds next while nobody has answered.
struct SeedCalls {
    pause: Duration,
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
            seeds: SeedCalls { pause: SEED_PAUSE, next: now },
            quick_looks_left: QUICK_LOOKS,
            is_lonely: false,
            is_unsettled: true,
            config,
            timing,
            handle,
            outlets,
        }
    }

    /// Returns why it ended.
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
            let is_quick = self.quick_looks_left > 0;
            tokio::select! {
                ended = &mut termination => return match ended {
                    Ok(()) => "gossip was shut down".to_owned(),
                    Err(error) => format!("gossip failed: {error:#}"),
                },
                command = commands.recv() => match command {
                    Some(Command::SetRole { state, done }) => {
                        // Whoever asked may have stopped waiting; the change holds all the same.
                        let _ = done.send(self.set(keys::ROLE, &*state).await);
                    }
                    Some(Command::SetStore { store, done }) => {
                        // As above. It is not pushed: the role that is to run with it follows at once.
                        let _ = done.send(self.note(keys::STORE, &*store).await.map(|_noted| ()));
                    }
                    Some(Command::Heartbeat { node, generation, done }) => {
                        // As above, and nothing changes by it.
                        let _ = done.send(self.heartbeat(&node, generation).await);
                        continue;
                    }
                    Some(Command::Leave { done }) => {
                        self.say_goodbye().await;
                        let _ = done.send(());
                        return "left".to_owned();
                    }
                    None => return "nobody needs it any more".to_owned(),
                },
                () = changed.notified() => self.quick_looks_left = QUICK_LOOKS,
                Ok(()) = live.changed() => {}
                _ = beat.tick() => {
                    self.beat();
                    if !self.is_unsettled {
                        continue;
                    }
                }
                () = sleep(QUICK_LOOK), if is_quick => {
                    self.quick_looks_left -= 1;
                }
            }
            if let Some(reason) = self.look().await {
                return reason;
            }
        }
    }

    /// Sets a key and pushes it. Returns the version that shows it.
    async fn set(&mut self, key: &'static str, value: &impl Serialize) -> Result<u64, GossipError> {
        let (version, is_first) = self.note(key, value).await?;
        if is_first {
            // Others that are no members yet want to know it as well; else they would learn it a round later.
            let others = self.known.keys().map(|id| id.gossip_advertise_addr);
            others.filter(|addr| *addr != self.config.advertise).for_each(|addr| self.greet(addr));
        } else {
            self.push();
        }
        Ok(version)
    }

    /// Sets a key, for gossip to bring it to the others. Returns the version that shows it, and whether the key is new.
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
        self.look().await;
        Ok(noted)
    }

    async fn heartbeat(&self, node: &NodeId, generation: Generation) -> Option<u64> {
        let chitchat = self.handle.chitchat();
        let chitchat = chitchat.lock().await;
        let mut lives = chitchat.node_states().iter();
        let life = lives.find(|(id, _)| *id.node_id == *node.as_str() && id.generation_id == generation.0);
        life.map(|(_, state)| state.heartbeat().into())
    }

    async fn say_goodbye(&mut self) {
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
        for _ in 0..if has_peers { GOODBYES } else { 0 } {
            self.push();
            sleep(GOODBYE_PAUSE).await;
        }
        // It fails when the task has ended already.
        let _ = self.handle.initiate_shutdown();
    }

    /// Starts an exchange with every live member, so that all know at once.
    fn push(&self) {
        for peer in self.outlets.view.borrow().peers() {
            if let Ok(addr) = peer.gossip.parse() {
                self.greet(addr);
            }
        }
    }

    fn greet(&self, addr: SocketAddr) {
        // It fails when the task has ended; the loop learns that from the termination watcher.
        let _ = self.handle.gossip(addr);
    }

    /// Notices whether this process was held up.
    fn beat(&mut self) -> Instant {
        let now = Instant::now();
        if let Some(late) = self.guard.beat(now) {
            warn!(
                ?late,
                "this process was held up; nobody is given up until the others had time to be heard"
            );
            self.is_unsettled = true;
        }
        now
    }

    /// Looks at what gossip shows and publishes it. Returns a reason if this node can't stay.
    pub(crate) async fn look(&mut self) -> Option<String> {
        let now = self.beat();
        let (sightings, own, seeds) = self.sight().await;
        let is_eager = now < self.started + EAGER;
        let has_seeds = !seeds.is_empty();
        if is_eager && sightings.is_empty() {
            self.call_seeds(now, seeds);
        }
        self.note_namesakes(&sightings);
        let known = sightings.len();
        self.note_loneliness(has_seeds, is_eager, known);
        let mut verdict = self.liveness.look(now, self.guard.holds(now), sightings);
        if is_eager && let Some(reason) = self.is_full(verdict.members.len(), known) {
            return Some(reason);
        }
        self.is_unsettled =
            !verdict.is_settled || self.guard.holds(now) || is_eager || (has_seeds && known == 0);
        if verdict.pending == 0 && !self.has_greetings_left() {
            self.quick_looks_left = 0;
        }
        let me = &self.config.node;
        let rival = verdict
            .members
            .remove(me)
            .map(|member| Rival { generation: member.generation, http: member.http });
        verdict.left.remove(me);
        if let Some(own) = own {
            verdict.members.insert(me.clone(), own);
        }
        let view =
            ClusterView::with_left(self.config.cluster.clone(), me.clone(), verdict.members, verdict.left);
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

    /// Says once that nobody was met, and once that somebody was after all.
    fn note_loneliness(&mut self, has_seeds: bool, is_eager: bool, known: usize) {
        if has_seeds && known == 0 && !is_eager && !self.is_lonely {
            self.is_lonely = true;
            let (cluster, seeds) = (&self.config.cluster, self.config.seeds.join(", "));
            warn!(%cluster, seeds, "no seed has answered; are they up, and in a cluster of this name?");
        } else if known > 0 && self.is_lonely {
            self.is_lonely = false;
            info!("met the cluster");
        }
    }

    /// Whether the cluster has no room for this node: live members count, and so do the dead that are remembered,
    /// for both are in the digest.
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
        // None while the address of one of them has not arrived.
        if let Some(namesakes) = namesakes {
            self.outlets.namesakes.send_replace(Some(namesakes));
        }
    }

    /// Everything that gossip shows of the others, this node as a member, and the seeds.
    async fn sight(&mut self) -> (Vec<Sighting>, Option<Member>, Vec<SocketAddr>) {
        let chitchat = self.handle.chitchat();
        let chitchat = chitchat.lock().await;
        let own_id = chitchat.self_chitchat_id().clone();
        let listed: BTreeSet<&ChitchatId> = chitchat.live_nodes().collect();
        let mut sightings = Vec::with_capacity(chitchat.node_states().len());
        let mut own = None;
        let mut greetings = Vec::new();
        let is_eager = Instant::now() < self.started + EAGER;
        let count = u32::try_from(chitchat.node_states().len()).unwrap_or(u32::MAX);
        for (id, state) in chitchat.node_states() {
            let known = self.known.entry(id.clone()).or_default();
            if known.as_ref().is_none_or(|member| member.version != state.max_version()) {
                *known = keys::member(id, state);
            }
            if *id == own_id {
                own.clone_from(known);
                continue;
            }
            let Ok(node) = id.node_id.parse::<NodeId>() else {
                continue;
            };
            let left = state.get(keys::LEFT).is_some();
            // Once the failure detector has listed it and it is a member, there is nothing to be hastened.
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
        for addr in greetings {
            self.greet(addr);
        }
        (sightings, own, seeds)
    }

    fn has_greetings_left(&self) -> bool {
        Instant::now() < self.started + EAGER && self.greeted.values().any(|count| *count < GREETINGS)
    }

    fn call_seeds(&mut self, now: Instant, seeds: Vec<SocketAddr>) {
        if now < self.seeds.next {
            return;
        }
        self.quick_looks_left = QUICK_LOOKS;
        self.seeds.next = now + self.seeds.pause;
        self.seeds.pause = (self.seeds.pause * 2).min(self.timing.interval);
        for seed in seeds {
            self.greet(seed);
        }
    }
}
