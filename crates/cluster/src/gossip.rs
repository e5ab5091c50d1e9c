//! Runs gossip: a thread with a runtime of its own, so that a busy process still beats on time.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chitchat::{ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, ProtocolVersion};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{info, warn};
use types::api::Member;
use types::{Generation, NodeId, RoleState};

use crate::changes::Changes;
use crate::config::{ClusterConfig, MAX_MEMBERS, Timing};
use crate::keys::{self, ValueTooLong};
use crate::liveness::{Liveness, Sighting};
use crate::network::Network;
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
/// First pause between two calls to the seeds while nobody answered; doubles up to a round of gossip.
const SEED_PAUSE: Duration = Duration::from_millis(10);
/// Pushes of a goodbye, and the pause after each.
const GOODBYES: u32 = 3;
const GOODBYE_PAUSE: Duration = Duration::from_millis(50);

/// A node's seat in its cluster. Cheap to clone; when the last one is dropped, gossip ends.
#[derive(Debug, Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    commands: mpsc::Sender<Command>,
    view: watch::Receiver<ClusterView>,
    rival: watch::Receiver<Option<Rival>>,
    namesakes: watch::Receiver<Option<Vec<Rival>>>,
    ended: watch::Receiver<Option<String>>,
}

/// Another live node with this node's id: a second owner of the id, or this node's own earlier life that the failure
/// detector has not given up yet. Only asking its URL tells them apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rival {
    /// Its life.
    pub generation: Generation,
    /// The URL of its HTTP API.
    pub http: String,
}

/// Why a node could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Choose another port, or end whoever has this one.
    #[error("gossip address {addr} (UDP) can't be opened")]
    Bind {
        /// What was to be opened.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Gossip less.
    #[error(transparent)]
    TooLong(Box<dyn std::error::Error + Send + Sync>),
    /// A bug or a broken machine.
    #[error("gossip could not be started: {0}")]
    Start(String),
}

/// Why a change could not be gossiped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GossipError {
    /// Make the value shorter.
    #[error("{0}")]
    TooLong(String),
    /// The node is on its way out.
    #[error("gossip has ended")]
    Ended,
}

#[derive(Debug)]
enum Command {
    SetRole {
        state: Box<RoleState>,
        done: oneshot::Sender<Result<u64, GossipError>>,
    },
    Leave {
        done: oneshot::Sender<()>,
    },
}

impl Cluster {
    /// Joins, with gossip on a thread of its own. Returns once the address is open; seeds are looked for afterwards.
    ///
    /// The node is nobody's member before its first [`Cluster::set_role`]: until then it only listens, so that it can
    /// see whether its name is taken.
    pub async fn join(config: ClusterConfig, network: Network) -> Result<Self, JoinError> {
        let (started, outcome) = oneshot::channel();
        let gossip = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = started.send(Err(JoinError::Start(error.to_string())));
                    return;
                }
            };
            runtime.block_on(async move {
                match Self::join_here(config, network).await {
                    Ok((cluster, driver)) => {
                        // Whoever asked may have gone; then the last handle is dropped here and the driver ends.
                        let _ = started.send(Ok(cluster));
                        driver.await;
                    }
                    Err(error) => {
                        let _ = started.send(Err(error));
                    }
                }
            });
        };
        std::thread::Builder::new()
            .name("gossip".to_owned())
            .spawn(gossip)
            .map_err(|error| JoinError::Start(error.to_string()))?;
        outcome
            .await
            .unwrap_or_else(|_| Err(JoinError::Start("its thread ended".to_owned())))
    }

    /// Joins on the caller's runtime, who must poll the returned future: for tests with paused time.
    pub async fn join_here(
        config: ClusterConfig,
        network: Network,
    ) -> Result<(Self, impl Future<Output = ()>), JoinError> {
        let timing = Timing::of(config.profile);
        let too_long = |error: ValueTooLong| JoinError::TooLong(Box::new(error));
        let values = vec![
            (keys::HTTP.to_owned(), config.http.clone()),
            (
                keys::ABOUT.to_owned(),
                keys::encode(keys::ABOUT, &config.about).map_err(too_long)?,
            ),
        ];
        let transport = network.transport();
        let handle = chitchat::spawn_chitchat(chitchat_config(&config, &timing), values, &*transport)
            .await
            .map_err(|error| join_error(config.listen, &error))?;
        let (commands, commands_rx) = mpsc::channel(16);
        let empty = ClusterView::new(config.cluster.clone(), config.node.clone(), []);
        let (view_tx, view) = watch::channel(empty);
        let (rival_tx, rival) = watch::channel(None);
        let (namesakes_tx, namesakes) = watch::channel(None);
        let (ended_tx, ended) = watch::channel(None);
        let outlets = Outlets { view: view_tx, rival: rival_tx, namesakes: namesakes_tx };
        let mut driver = Driver::new(config, timing, handle, outlets);
        driver.look().await;
        let cluster = Self {
            shared: Arc::new(Shared {
                commands,
                view,
                rival,
                namesakes,
                ended,
            }),
        };
        let run = async move {
            let reason = driver.run(commands_rx).await;
            info!(reason, "gossip ended");
            ended_tx.send_replace(Some(reason));
        };
        Ok((cluster, run))
    }

    /// The present view.
    pub fn view(&self) -> ClusterView {
        self.shared.view.borrow().clone()
    }

    /// The view as it changes.
    pub fn watch(&self) -> watch::Receiver<ClusterView> {
        self.shared.view.clone()
    }

    /// The view as a stream of changes, beginning with every present member.
    pub fn changes(&self) -> Changes {
        Changes::new(self.watch())
    }

    /// Another live node with this node's id, as it is noticed.
    pub fn rival(&self) -> watch::Receiver<Option<Rival>> {
        self.shared.rival.clone()
    }

    /// Waits until somebody was met; returns the other lives under this node's id that are remembered there, dead
    /// ones included.
    pub async fn namesakes(&self) -> Vec<Rival> {
        let mut namesakes = self.shared.namesakes.clone();
        match namesakes.wait_for(Option::is_some).await {
            Ok(met) => met.clone().unwrap_or_default(),
            // Gossip has ended, which others notice.
            Err(_) => Vec::new(),
        }
    }

    /// Gossips what this node does, pushed to every live member. Returns the version that shows it.
    pub async fn set_role(&self, state: RoleState) -> Result<u64, GossipError> {
        let (done, outcome) = oneshot::channel();
        let command = Command::SetRole {
            state: Box::new(state),
            done,
        };
        self.shared
            .commands
            .send(command)
            .await
            .map_err(|_| GossipError::Ended)?;
        outcome.await.unwrap_or(Err(GossipError::Ended))
    }

    /// Says goodbye to every live member and ends gossip.
    pub async fn leave(&self) {
        let (done, said) = oneshot::channel();
        if self.shared.commands.send(Command::Leave { done }).await.is_ok() {
            // An error means that gossip ended by itself meanwhile, which is what was wanted.
            let _ = said.await;
        }
    }

    /// Waits until gossip has ended, and says why.
    pub async fn ended(&self) -> String {
        let mut ended = self.shared.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the gossip thread panicked".to_owned(),
        }
    }
}

fn chitchat_config(config: &ClusterConfig, timing: &Timing) -> ChitchatConfig {
    ChitchatConfig {
        chitchat_id: ChitchatId::new(config.node.as_str(), config.generation.0, config.advertise),
        cluster_id: config.cluster.to_string(),
        gossip_interval: timing.interval,
        listen_addr: config.listen,
        seed_nodes: config.seeds.clone(),
        failure_detector_config: FailureDetectorConfig {
            phi_threshold: timing.phi_threshold,
            sampling_window_size: timing.sampling_window,
            max_interval: timing.max_interval,
            initial_interval: timing.initial_interval,
            dead_node_grace_period: timing.grace,
        },
        marked_for_deletion_grace_period: timing.grace,
        catchup_callback: None,
        extra_liveness_predicate: None,
        protocol_version: ProtocolVersion::V1,
    }
}

fn join_error(addr: SocketAddr, error: &anyhow::Error) -> JoinError {
    match error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()) {
        Some(cause) => JoinError::Bind {
            addr,
            source: io::Error::new(cause.kind(), cause.to_string()),
        },
        None => JoinError::Start(format!("{error:#}")),
    }
}

/// Where what was seen is published.
struct Outlets {
    view: watch::Sender<ClusterView>,
    rival: watch::Sender<Option<Rival>>,
    namesakes: watch::Sender<Option<Vec<Rival>>>,
}

/// The loop that looks at what gossip shows and publishes the view.
struct Driver {
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
}

/// When to call the seeds next while nobody has answered.
struct SeedCalls {
    pause: Duration,
    next: Instant,
}

impl Driver {
    fn new(config: ClusterConfig, timing: Timing, handle: ChitchatHandle, outlets: Outlets) -> Self {
        let now = Instant::now();
        Self {
            liveness: Liveness::new(timing.newcomer_patience()),
            guard: StallGuard::new(timing.interval, timing.stall_check(), now),
            started: now,
            known: BTreeMap::new(),
            greeted: BTreeMap::new(),
            seeds: SeedCalls {
                pause: SEED_PAUSE,
                next: now,
            },
            quick_looks_left: QUICK_LOOKS,
            config,
            timing,
            handle,
            outlets,
        }
    }

    /// Returns why it ended.
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> String {
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
                        let _ = done.send(self.set_role(&state).await);
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
                _ = beat.tick() => {}
                () = sleep(QUICK_LOOK), if is_quick => {
                    self.quick_looks_left -= 1;
                }
            }
            if let Some(reason) = self.look().await {
                return reason;
            }
        }
    }

    async fn set_role(&mut self, state: &RoleState) -> Result<u64, GossipError> {
        let value =
            keys::encode(keys::ROLE, state).map_err(|error| GossipError::TooLong(error.to_string()))?;
        let version = {
            let chitchat = self.handle.chitchat();
            let mut chitchat = chitchat.lock().await;
            let own = chitchat.self_node_state();
            own.set(keys::ROLE, value);
            own.max_version()
        };
        self.look().await;
        self.push();
        Ok(version)
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

    /// Looks at what gossip shows and publishes it. Returns a reason if this node can't stay.
    async fn look(&mut self) -> Option<String> {
        let now = Instant::now();
        if let Some(late) = self.guard.beat(now) {
            warn!(
                ?late,
                "this process was held up; nobody is given up until the others had time to be heard"
            );
        }
        let (sightings, own, seeds) = self.sight().await;
        let is_eager = now < self.started + EAGER;
        if is_eager && sightings.len() > MAX_MEMBERS {
            return Some(format!("the cluster is full: it has {MAX_MEMBERS} members"));
        }
        if is_eager && sightings.is_empty() {
            self.call_seeds(now, seeds);
        }
        self.note_namesakes(&sightings);
        let mut verdict = self.liveness.look(now, self.guard.holds(now), sightings);
        if verdict.pending == 0 && !self.has_greetings_left() {
            self.quick_looks_left = 0;
        }
        let me = &self.config.node;
        let rival = verdict.members.remove(me).map(|member| Rival {
            generation: member.generation,
            http: member.http,
        });
        verdict.left.remove(me);
        if let Some(own) = own {
            verdict.members.insert(me.clone(), own);
        }
        let view = ClusterView::with_left(
            self.config.cluster.clone(),
            me.clone(),
            verdict.members,
            verdict.left,
        );
        self.outlets
            .rival
            .send_if_modified(|shown| std::mem::replace(shown, rival.clone()) != rival);
        self.outlets.view.send_if_modified(|shown| {
            let is_new = *shown != view;
            if is_new {
                *shown = view;
            }
            is_new
        });
        None
    }

    fn note_namesakes(&self, sightings: &[Sighting]) {
        if sightings.is_empty() || self.outlets.namesakes.borrow().is_some() {
            return;
        }
        let own = sightings.iter().filter(|sighting| sighting.node == self.config.node && !sighting.left);
        let namesakes = own.filter_map(|sighting| {
            sighting.http.clone().map(|http| Rival { generation: sighting.generation, http })
        });
        self.outlets.namesakes.send_replace(Some(namesakes.collect()));
    }

    /// Everything that gossip shows of the others, this node as a member, and the seeds.
    async fn sight(&mut self) -> (Vec<Sighting>, Option<Member>, Vec<SocketAddr>) {
        let chitchat = self.handle.chitchat();
        let chitchat = chitchat.lock().await;
        let own_id = chitchat.self_chitchat_id().clone();
        let listed: std::collections::BTreeSet<&ChitchatId> = chitchat.live_nodes().collect();
        let mut sightings = Vec::with_capacity(chitchat.node_states().len());
        let mut own = None;
        let mut greetings = Vec::new();
        let is_eager = Instant::now() < self.started + EAGER;
        for (id, state) in chitchat.node_states() {
            let known = self.known.entry(id.clone()).or_default();
            if known
                .as_ref()
                .is_none_or(|member| member.version != state.max_version())
            {
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
            if is_eager && !left {
                let count = self.greeted.entry(id.clone()).or_default();
                if *count < GREETINGS {
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
        let seeds = chitchat
            .seed_nodes()
            .into_iter()
            .filter(|addr| *addr != own_id.gossip_advertise_addr)
            .collect();
        self.known.retain(|id, _| chitchat.node_states().contains_key(id));
        self.greeted
            .retain(|id, _| chitchat.node_states().contains_key(id));
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
