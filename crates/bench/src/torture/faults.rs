//! What is done to a cluster: each fault has a begin and an end.

use std::fmt;
use std::time::Duration;

use anyhow::Context;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rustix::process::Signal;
use store::Store;
use tokio::time::sleep;
use types::api::Wait;
use types::{Role, ServiceType, ShardId};

use crate::progress::progress;
use crate::torture::cluster::{COUNT, Cluster, GATEWAYS, SHARDS};
use crate::torture::network::Lost;
use crate::torture::proxy::Mode;
use crate::torture::skew::Range;

/// How long a node may take to say that it is there.
const ANSWER: Duration = Duration::from_millis(500);
/// How long an owner stays alone after its usurper serves.
const ALONE: Duration = Duration::from_secs(1);
/// How long a move may take.
const MOVE: Duration = Duration::from_secs(25);

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// A process ends without a word, and is started again with its data folder.
    Kill { node: usize },
    /// A process stands still.
    Stop { node: usize },
    /// A node is cut off from all others, not from the store nor from clients.
    Cut { node: usize, lost: Lost },
    /// A node is cut off from the store alone.
    CutStore { node: usize },
    /// A person moves a shard; two of them do so at once.
    Move { shard: u32, to: usize, also: Option<usize> },
    /// A person takes a shard from a node.
    Retire { node: usize },
    /// The store does something to requests, of one node or of all.
    Store { node: Option<usize>, mode: Mode },
    /// There is no room in the store.
    Fill,
    /// A node is made owner on the store while the owner runs, and is told to be it. The owner hears of it from the store
    /// alone if it is cut off from all others meanwhile.
    Usurp { shard: u32, by: usize, is_alone: bool },
    /// A node's clock is set while it runs, so many seconds ahead of the right time, and set back at the end.
    Skew { node: usize, ahead_s: i64 },
}

/// What a fault makes unusable until it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hold {
    Process(usize),
    Links(usize),
    StoreLink(usize),
    Proxies,
    Room,
    Clock(usize),
}

/// Which faults can't be, and why not.
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
    /// One that can be, and for how long.
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
        // So that about as many of each kind are done: some are refused often, or exclude each other.
        match rng.random_range(0..112) {
            0..13 => Self::Kill { node },
            13..25 => Self::Stop { node },
            25..35 => {
                let lost = [Lost::Both, Lost::Both, Lost::Incoming, Lost::Outgoing];
                Self::Cut { node, lost: *lost.choose(rng).expect("there are some") }
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
                let mode = *modes.choose(rng).expect("there are some");
                Self::Store { node: rng.random_ratio(3, 4).then_some(worker), mode }
            }
            82..92 => Self::Fill,
            92..100 => Self::Usurp { shard, by: worker, is_alone: rng.random_ratio(1, 2) },
            _ => Self::Skew { node, ahead_s: skews.choose(rng) },
        }
    }

    /// How long it lasts; short ones are as likely as long ones.
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

    /// What no other fault may use at the same time.
    pub(crate) fn hold(self) -> Option<Hold> {
        match self {
            Self::Kill { node } | Self::Stop { node } => Some(Hold::Process(node)),
            Self::Cut { node, .. } => Some(Hold::Links(node)),
            Self::CutStore { node } => Some(Hold::StoreLink(node)),
            Self::Store { .. } => Some(Hold::Proxies),
            Self::Fill => Some(Hold::Room),
            Self::Skew { node, .. } => Some(Hold::Clock(node)),
            Self::Move { .. } | Self::Retire { .. } | Self::Usurp { .. } => None,
        }
    }

    /// Does it. A move or the like takes a while, and may be refused: that is an error, and nothing is to be ended.
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
                let port = cluster.object_store.port(node).context("the store is no server of ours")?;
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

    /// Ends it. It must work, whatever else goes wrong.
    pub(crate) async fn end(self, cluster: &Cluster) -> anyhow::Result<()> {
        match self {
            Self::Kill { node } => cluster.revive(node).await,
            Self::Stop { node } => {
                // It may have been ended meanwhile, but not by us.
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

/// Who a fault is done to, in words.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |node: &usize| crate::torture::cluster::name(*node);
        match self {
            Self::Kill { node } | Self::Stop { node } | Self::CutStore { node } | Self::Retire { node } => {
                write!(f, "{} {}", self.kind(), name(node))
            }
            Self::Cut { node, lost } => write!(f, "cut {} ({lost:?})", name(node)),
            Self::Move { shard, to, also: None } => write!(f, "move storage/{shard} to {}", name(to)),
            Self::Move { shard, to, also: Some(also) } => {
                write!(f, "move storage/{shard} to {} and {}", name(to), name(also))
            }
            Self::Store { node, mode } => {
                write!(f, "store {mode:?} for {}", node.as_ref().map_or("all", name))
            }
            Self::Fill => f.write_str("fill the store"),
            Self::Usurp { shard, by, is_alone } => {
                let alone = if *is_alone { ", the owner cut off" } else { "" };
                write!(f, "usurp storage/{shard} by {}{alone}", name(by))
            }
            Self::Skew { node, ahead_s } => write!(f, "skew {} by {ahead_s:+} s", name(node)),
        }
    }
}

fn role(shard: u32) -> anyhow::Result<(ServiceType, ShardId, Role)> {
    let (service, shard): (ServiceType, ShardId) = ("storage".parse()?, ShardId::try_from(shard)?);
    Ok((service.clone(), shard, Role::Service { service, shard: Some(shard) }))
}

/// The workers, beginning with one of them.
fn workers(first: usize) -> impl Iterator<Item = usize> {
    let count = COUNT - GATEWAYS;
    (0..count).map(move |step| (first - GATEWAYS + step) % count + GATEWAYS)
}

/// Has the first worker do something that does not refuse it: each does one thing at a time.
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

/// Takes its shard from a node.
async fn retire(cluster: &Cluster, node: usize) -> anyhow::Result<()> {
    let client = cluster.client(node).within(MOVE);
    client.set_service(&cluster.id(node), &Role::Standby, Wait::Local, false, None).await?;
    Ok(())
}

/// Tells a node to serve a shard, whoever does so now.
async fn serve(cluster: &Cluster, shard: u32, by: usize) -> anyhow::Result<()> {
    let (_, _, role) = role(shard)?;
    let client = cluster.client(by).within(MOVE);
    client.set_service(&cluster.id(by), &role, Wait::Local, true, None).await?;
    Ok(())
}

/// Takes a shard on the store in the name of a node that knows nothing of it, then tells it. The first alone makes two
/// owners; if the other fails, the taker is yet to learn of it.
async fn usurp(
    cluster: &Cluster,
    store: &Store,
    shard: u32,
    by: usize,
    is_alone: bool,
) -> anyhow::Result<()> {
    let (service, shard_id, _) = role(shard)?;
    let claims = store.claims();
    let now = claims.read(&service, shard_id).await?;
    let owner = (0..COUNT).find(|node| now.holder.as_ref().is_some_and(|now| now.node == cluster.id(*node)));
    // An owner can't usurp, nor who is away; the next worker, then.
    let mut usurper = None;
    for by in workers(by) {
        if owner != Some(by)
            && let Ok(told) = cluster.client(by).within(ANSWER).agent_self().await
        {
            usurper = Some((by, told.member.generation));
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
    let taken = claims.take(&service, shard_id, &now, &cluster.id(by), generation).await;
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
