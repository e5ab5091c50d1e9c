//! The faults that can be injected into a cluster. Each has a beginning and an end.

use std::fmt;
use std::time::Duration;

use anyhow::Context;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rustix::process::Signal;
use store::Store;
use tokio::time::sleep;
use types::Role;
use types::api::Wait;

use crate::progress::progress;
use crate::torture::cluster::{COUNT, Cluster, GATEWAYS, SHARDS};
use crate::torture::network::Lost;
use crate::torture::proxy::Mode;
use crate::torture::skew::Range;

/// How long a node may take to answer.
const ANSWER: Duration = Duration::from_millis(500);
/// How long the old owner stays isolated after its usurper serves.
const ALONE: Duration = Duration::from_secs(1);
/// The time limit of a move.
const MOVE: Duration = Duration::from_secs(25);

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// A process is killed, and restarted with its data folder.
    Kill { node: usize },
    /// A process is paused.
    Stop { node: usize },
    /// A node is cut off from all other nodes, but not from the store or from clients.
    Cut { node: usize, lost: Lost },
    /// A node is cut off from the store only.
    CutStore { node: usize },
    /// An operator moves a shard; with `also`, a second one moves it elsewhere at the same time.
    Move { shard: u32, to: usize, also: Option<usize> },
    /// An operator takes the shard from a node.
    Retire { node: usize },
    /// A proxy disturbs the store requests of one node, or of all.
    Store { node: Option<usize>, mode: Mode },
    /// The store is full.
    Fill,
    /// A node takes the claim in the store while the owner runs, and is then given the role. With `is_alone`, the owner
    /// is isolated from all other nodes meanwhile, so that it can learn of this only from the store.
    Usurp { shard: u32, by: usize, is_alone: bool },
    /// A running node's clock is set `ahead_s` seconds ahead of the correct time, and set back at the end.
    Skew { node: usize, ahead_s: i64 },
}

/// A resource that only one fault may use at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Resource {
    Process(usize),
    Links(usize),
    StoreLink(usize),
    Proxies,
    Room,
    Clock(usize),
}

/// The faults that are not possible here, with the reasons.
pub(crate) fn skipped(cluster: &Cluster) -> Vec<(&'static str, String)> {
    let cut = cluster.network.as_ref().err().cloned();
    let store = cluster.object_store.has_proxies().err();
    let cut_store = store.clone().or(cut.clone());
    let all = [
        ("cut", cut),
        ("cut store", cut_store),
        ("store", store),
        ("fill", cluster.object_store.can_fill().err()),
        ("skew", cluster.clocks.as_ref().err().cloned()),
    ];
    all.into_iter().filter_map(|(kind, why)| Some((kind, why?))).collect()
}

impl Fault {
    /// A random possible fault, and its duration.
    pub(crate) fn choose(
        rng: &mut StdRng,
        skipped: &[&str],
        skews: Range,
        longest_stop: Duration,
    ) -> (Self, Duration) {
        loop {
            let fault = Self::any(rng, skews);
            if !skipped.contains(&fault.kind()) {
                return (fault, fault.length(rng, longest_stop));
            }
        }
    }

    fn any(rng: &mut StdRng, skews: Range) -> Self {
        let node = rng.random_range(0..COUNT);
        let worker = rng.random_range(GATEWAYS..COUNT);
        let shard = rng.random_range(0..SHARDS);
        // Weighted so that about equally many of each kind succeed: some are often refused, or exclude each other.
        match rng.random_range(0..112) {
            0..13 => Self::Kill { node },
            13..25 => Self::Stop { node },
            25..35 => {
                let lost = [Lost::Both, Lost::Both, Lost::Incoming, Lost::Outgoing];
                Self::Cut { node, lost: *lost.choose(rng).expect("the list is not empty") }
            }
            35..44 => Self::CutStore { node: worker },
            44..60 => {
                let also = rng.random_ratio(1, 3).then(|| rng.random_range(GATEWAYS..COUNT));
                Self::Move { shard, to: worker, also }
            }
            60..68 => Self::Retire { node: worker },
            68..82 => {
                let slow = Duration::from_millis(rng.random_range(20..800));
                let modes = [Mode::Slow(slow), Mode::Refuse, Mode::Drop, Mode::Forget, Mode::Silent];
                let mode = *modes.choose(rng).expect("the list is not empty");
                Self::Store { node: rng.random_ratio(3, 4).then_some(worker), mode }
            }
            82..92 => Self::Fill,
            92..100 => Self::Usurp { shard, by: worker, is_alone: rng.random_ratio(1, 2) },
            _ => Self::Skew { node, ahead_s: skews.choose(rng) },
        }
    }

    /// The fault's duration, log-uniform, so that short ones are as likely as long ones.
    fn length(self, rng: &mut StdRng, longest_stop: Duration) -> Duration {
        let (least, most) = match self {
            Self::Kill { .. } => (0.05, 10.0),
            Self::Stop { .. } => (0.2, longest_stop.as_secs_f64()),
            Self::Cut { .. } | Self::Skew { .. } => (0.5, 12.0),
            Self::CutStore { .. } | Self::Store { .. } => (0.2, 8.0),
            Self::Fill => (0.2, 6.0),
            Self::Move { .. } | Self::Retire { .. } | Self::Usurp { .. } => return Duration::ZERO,
        };
        let (least, most): (f64, f64) = (least, most);
        Duration::from_secs_f64(least * (most / least).powf(rng.random_range(0.0..1.0)))
    }

    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Kill { .. } => "kill",
            Self::Stop { .. } => "stop",
            Self::Cut { .. } => "cut",
            Self::CutStore { .. } => "cut store",
            Self::Move { .. } => "move",
            Self::Retire { .. } => "retire",
            Self::Store { .. } => "store",
            Self::Fill => "fill",
            Self::Usurp { .. } => "usurp",
            Self::Skew { .. } => "skew",
        }
    }

    /// The resource that the fault needs, if any.
    pub(crate) fn resource(self) -> Option<Resource> {
        match self {
            Self::Kill { node } | Self::Stop { node } => Some(Resource::Process(node)),
            Self::Cut { node, .. } => Some(Resource::Links(node)),
            Self::CutStore { node } => Some(Resource::StoreLink(node)),
            Self::Store { .. } => Some(Resource::Proxies),
            Self::Fill => Some(Resource::Room),
            Self::Skew { node, .. } => Some(Resource::Clock(node)),
            Self::Move { .. } | Self::Retire { .. } | Self::Usurp { .. } => None,
        }
    }

    /// Begins the fault. A move, retirement or usurpation takes a while and may be refused; then it returns an error
    /// and needs no end.
    pub(crate) async fn begin(self, cluster: &Cluster, store: &Store) -> anyhow::Result<()> {
        match self {
            Self::Kill { node } => cluster.kill(node).await,
            Self::Stop { node } => cluster.signal(node, Signal::STOP).await,
            Self::Cut { node, lost } => {
                let network = cluster.network.as_ref().map_err(|why| anyhow::anyhow!("{why}"))?;
                network.cut(u8::try_from(node)?, lost)
            }
            Self::CutStore { node } => {
                let network = cluster.network.as_ref().map_err(|why| anyhow::anyhow!("{why}"))?;
                let port = cluster.object_store.port(node).context("the store is not behind a proxy")?;
                network.cut_port(u8::try_from(node)?, port)
            }
            Self::Move { shard, to, also: None } => first(to, |to| serve(cluster, shard, to)).await,
            Self::Move { shard, to, also: Some(also) } => {
                let (one, other) = tokio::join!(serve(cluster, shard, to), serve(cluster, shard, also));
                one.or(other)
            }
            Self::Retire { node } => first(node, |node| retire(cluster, node)).await,
            Self::Store { node, mode } => {
                self.disturb(cluster, node, mode);
                Ok(())
            }
            Self::Fill => cluster.object_store.fill(),
            Self::Usurp { shard, by, is_alone } => usurp(cluster, store, shard, by, is_alone).await,
            Self::Skew { node, ahead_s } => {
                let clocks = cluster.clocks.as_ref().map_err(|why| anyhow::anyhow!("{why}"))?;
                clocks.set(node, ahead_s)
            }
        }
    }

    /// Ends the fault. An error here fails the run.
    pub(crate) async fn end(self, cluster: &Cluster) -> anyhow::Result<()> {
        match self {
            Self::Kill { node } => cluster.start_node(node).await,
            Self::Stop { node } => {
                // The process may have exited meanwhile.
                let _ = cluster.signal(node, Signal::CONT).await;
                Ok(())
            }
            Self::Cut { node, .. } => match &cluster.network {
                Ok(network) => network.join(u8::try_from(node)?),
                Err(_) => Ok(()),
            },
            Self::CutStore { node } => match &cluster.network {
                Ok(network) => network.join_port(u8::try_from(node)?),
                Err(_) => Ok(()),
            },
            Self::Store { node, .. } => {
                self.disturb(cluster, node, Mode::Pass);
                Ok(())
            }
            Self::Fill => cluster.object_store.clear(),
            Self::Skew { node, .. } => match &cluster.clocks {
                Ok(clocks) => clocks.set_back(node),
                Err(_) => Ok(()),
            },
            Self::Move { .. } | Self::Retire { .. } | Self::Usurp { .. } => Ok(()),
        }
    }

    fn disturb(self, cluster: &Cluster, node: Option<usize>, mode: Mode) {
        for each in 0..COUNT {
            if node.is_none_or(|node| node == each) {
                cluster.object_store.disturb(each, mode);
            }
        }
    }
}

/// The fault and its target.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |node: &usize| crate::torture::cluster::name(*node);
        match self {
            Self::Kill { node } | Self::Stop { node } | Self::CutStore { node } | Self::Retire { node } => {
                write!(f, "{} {}", self.kind(), name(node))
            }
            Self::Cut { node, lost } => write!(f, "cut {} ({lost:?})", name(node)),
            Self::Move { shard, to, also: None } => write!(f, "move shard {shard} to {}", name(to)),
            Self::Move { shard, to, also: Some(also) } => {
                write!(f, "move shard {shard} to {} and {}", name(to), name(also))
            }
            Self::Store { node, mode } => {
                write!(f, "store {mode:?} for {}", node.as_ref().map_or("all", name))
            }
            Self::Fill => f.write_str("fill the store"),
            Self::Usurp { shard, by, is_alone } => {
                let alone = if *is_alone { ", the owner cut off" } else { "" };
                write!(f, "usurp shard {shard} by {}{alone}", name(by))
            }
            Self::Skew { node, ahead_s } => write!(f, "skew {} by {ahead_s:+} s", name(node)),
        }
    }
}

/// The nodes that are not gateways, starting with `first`.
fn workers(first: usize) -> impl Iterator<Item = usize> {
    let count = COUNT - GATEWAYS;
    (0..count).map(move |step| (first - GATEWAYS + step) % count + GATEWAYS)
}

/// Runs an action on the first node that does not refuse it: each node does one thing at a time.
async fn first<F>(worker: usize, act: impl Fn(usize) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let mut done = Ok(());
    for worker in workers(worker) {
        done = act(worker).await;
        if done.is_ok() {
            break;
        }
    }
    done
}

/// Takes its shard from a node by making it a standby.
async fn retire(cluster: &Cluster, node: usize) -> anyhow::Result<()> {
    let client = cluster.client(node).within(MOVE);
    client.set_service(&cluster.id(node), &Role::Standby, Wait::Local, false, None).await?;
    Ok(())
}

/// Gives a node the role of a shard's owner, whichever node owns it now.
async fn serve(cluster: &Cluster, shard: u32, by: usize) -> anyhow::Result<()> {
    let role = Role::from(cluster.shard(shard)?);
    let client = cluster.client(by).within(MOVE);
    client.set_service(&cluster.id(by), &role, Wait::Local, true, None).await?;
    Ok(())
}

/// Takes a shard's claim in the store in the name of a node, then gives that node the role. The claim alone makes two
/// owners; if the role change fails, the usurper has yet to learn of its claim.
async fn usurp(
    cluster: &Cluster,
    store: &Store,
    shard: u32,
    by: usize,
    is_alone: bool,
) -> anyhow::Result<()> {
    let shard_ref = cluster.shard(shard)?;
    let claims = store.claims();
    let now = claims.read(&shard_ref).await?;
    let owner = (0..COUNT).find(|node| now.holder.as_ref().is_some_and(|now| now.node == cluster.id(*node)));
    // The owner can't usurp, nor can a node that does not answer; try the next one.
    let mut usurper = None;
    for by in workers(by) {
        if owner != Some(by)
            && let Ok(answer) = cluster.client(by).within(ANSWER).agent_self().await
        {
            usurper = Some((by, answer.member.generation));
            break;
        }
    }
    let (by, generation) = usurper.context("no other node answers")?;
    let network = cluster.network.as_ref().ok().filter(|_| is_alone);
    let owner = owner.map(u8::try_from).transpose()?;
    let alone = network.zip(owner);
    if let Some((network, owner)) = alone {
        network.isolate(owner)?;
    }
    let taken = claims.take(&shard_ref, &now, &cluster.id(by), generation).await;
    if taken.is_ok()
        && let Err(error) = serve(cluster, shard, by).await
    {
        progress(&format!("the usurper {} does not serve: {error:#}", cluster.id(by)));
    }
    if let Some((network, owner)) = alone {
        sleep(ALONE).await;
        network.rejoin(owner);
    }
    taken?;
    Ok(())
}
