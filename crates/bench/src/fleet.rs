//! Real processes of one software, started, asked and ended alike, so that both are measured by the same clock.
//!
//! A node is asked every few milliseconds over a connection that stays open: ours for `GET /v1/members`, Serf for
//! `members` of its RPC. So the resolution is that of the pause plus an answer, the same for both.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::future::{join_all, try_join_all};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use crate::ours::{self, Binaries};
use crate::ports;
use crate::process::Process;
use crate::seat::Seat;
use crate::serf;

/// Between two questions to a node, where milliseconds count.
pub(crate) const QUICK: Duration = Duration::from_millis(3);
/// Between two questions to a node, where a second is expected.
pub(crate) const STEADY: Duration = Duration::from_millis(10);
/// How long anything may take before the measurement is given up.
const LIMIT: Duration = Duration::from_secs(60);
/// How long one answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
const SEEDS: usize = 3;

/// Which software.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Ours(Binaries),
    Serf(serf::Profile),
}

/// Asks one node.
#[derive(Debug)]
pub(crate) enum Probe {
    Ours(Box<client::Client>),
    Serf(serf::Rpc),
}

/// A running node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) seat: Seat,
    pub(crate) process: Process,
    probe: Probe,
}

/// Nodes of one cluster. Dropping it kills them all.
#[derive(Debug)]
pub(crate) struct Fleet {
    kind: Kind,
    folder: TempDir,
    seats: Vec<Seat>,
    nodes: BTreeMap<String, Node>,
}

impl Kind {
    fn command(&self, seat: &Seat, seeds: &[SocketAddr], folder: &Path) -> tokio::process::Command {
        match self {
            Self::Ours(binaries) => ours::command(binaries, seat, seeds, folder),
            Self::Serf(profile) => serf::command(*profile, seat, seeds),
        }
    }

    fn probe(&self, seat: &Seat) -> anyhow::Result<Probe> {
        Ok(match self {
            Self::Ours(_) => Probe::Ours(Box::new(
                client::Client::new(&format!("http://{}", seat.api))?.within(ANSWER_LIMIT),
            )),
            Self::Serf(_) => Probe::Serf(serf::Rpc::new(seat.api)),
        })
    }
}

impl Probe {
    /// Who is alive in this node's view; none if it does not answer.
    async fn alive(&mut self) -> Option<BTreeSet<String>> {
        match self {
            Self::Ours(client) => {
                let members = client.members().await.ok()?.members;
                Some(members.into_iter().map(|member| member.id.to_string()).collect())
            }
            Self::Serf(rpc) => {
                let members = timeout(ANSWER_LIMIT, rpc.members()).await.ok()?.ok()?;
                let alive = members.into_iter().filter(serf::Member::is_alive);
                Some(alive.map(|member| member.name).collect())
            }
        }
    }

    /// Whether it answers at all.
    async fn serves(&mut self) -> bool {
        match self {
            Self::Ours(client) => client.is_live().await,
            Self::Serf(rpc) => matches!(timeout(ANSWER_LIMIT, rpc.connect()).await, Ok(Ok(()))),
        }
    }
}

impl Node {
    /// Asks until the view is as wanted.
    async fn sees(
        &mut self,
        pause: Duration,
        wanted: &impl Fn(&BTreeSet<String>) -> bool,
    ) -> anyhow::Result<Instant> {
        let mut last = None;
        let began = Instant::now();
        while began.elapsed() < LIMIT {
            let alive = self.probe.alive().await;
            if alive.as_ref().is_some_and(wanted) {
                return Ok(Instant::now());
            }
            last = alive;
            sleep(pause).await;
        }
        let words = self.process.last_words();
        bail!("{} sees {last:?} after {LIMIT:?}; its log ends with\n{words}", self.seat.name)
    }
}

impl Fleet {
    pub(crate) fn new(kind: Kind) -> anyhow::Result<Self> {
        Ok(Self { kind, folder: tempfile::tempdir()?, seats: Vec::new(), nodes: BTreeMap::new() })
    }

    /// `n1` to `n{count}`, all of them in the view of all.
    pub(crate) async fn of(kind: Kind, count: usize) -> anyhow::Result<Self> {
        let mut fleet = Self::new(kind)?;
        fleet.start_all(count, QUICK).await?;
        Ok(fleet)
    }

    /// Starts `n1` to `n{count}` at once. Returns how long it took until all saw all.
    pub(crate) async fn start_all(&mut self, count: usize, pause: Duration) -> anyhow::Result<Duration> {
        for _ in 0..count {
            self.take_seat()?;
        }
        let began = Instant::now();
        for seat in self.seats.clone() {
            self.spawn(&seat)?;
        }
        self.all_see_all(began, pause).await
    }

    /// A place for one more node; the first ones are the seeds of all.
    pub(crate) fn take_seat(&mut self) -> anyhow::Result<Seat> {
        let number = self.seats.len() + 1;
        let seat = Seat {
            name: format!("n{number}"),
            role: if number <= 2 { "api_gateway" } else { "standby" },
            gossip: ports::free()?,
            api: ports::free()?,
        };
        self.seats.push(seat.clone());
        Ok(seat)
    }

    /// Starts the node of a seat, again if it ran before.
    pub(crate) fn spawn(&mut self, seat: &Seat) -> anyhow::Result<()> {
        let others = self.seats.iter().filter(|other| other.name != seat.name);
        let seeds: Vec<_> = others.map(|other| other.gossip).take(SEEDS).collect();
        let command = self.kind.command(seat, &seeds, self.folder.path());
        let process = Process::spawn(command, self.log(seat))?;
        let probe = self.kind.probe(seat)?;
        let node = Node { seat: seat.clone(), process, probe };
        self.nodes.insert(seat.name.clone(), node);
        Ok(())
    }

    fn log(&self, seat: &Seat) -> PathBuf {
        self.folder.path().join(format!("{}.log", seat.name))
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    pub(crate) fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// How long after `began` every node has seen exactly those that run.
    pub(crate) async fn all_see_all(&mut self, began: Instant, pause: Duration) -> anyhow::Result<Duration> {
        let running: BTreeSet<String> = self.nodes.keys().cloned().collect();
        self.all_see(began, pause, |alive| *alive == running).await
    }

    /// How long after `began` every node has seen what is wanted.
    pub(crate) async fn all_see(
        &mut self,
        began: Instant,
        pause: Duration,
        wanted: impl Fn(&BTreeSet<String>) -> bool,
    ) -> anyhow::Result<Duration> {
        let asking = self.nodes.values_mut().map(|node| node.sees(pause, &wanted));
        let seen = try_join_all(asking).await?;
        let last = seen.into_iter().max().context("nobody runs")?;
        Ok(last - began)
    }

    /// How long after `began` a node has answered at all.
    pub(crate) async fn serving(&mut self, name: &str, began: Instant) -> anyhow::Result<Duration> {
        const PAUSE: Duration = Duration::from_millis(1);
        let node = self.nodes.get_mut(name).context("it runs")?;
        while began.elapsed() < LIMIT {
            if node.probe.serves().await {
                return Ok(began.elapsed());
            }
            sleep(PAUSE).await;
        }
        bail!("{name} does not serve; its log ends with\n{}", node.process.last_words())
    }

    /// Sends a node a signal that ends it. Returns how long it took until nobody listed it as alive.
    pub(crate) async fn end_one(
        &mut self,
        name: &str,
        signal: Signal,
        pause: Duration,
    ) -> anyhow::Result<Duration> {
        let mut node = self.nodes.remove(name).context("it runs")?;
        let began = Instant::now();
        node.process.signal(signal)?;
        let (seen, ended) =
            tokio::join!(self.all_see(began, pause, |alive| !alive.contains(name)), node.process.ended());
        ended?;
        seen
    }

    /// Ends all without a word.
    pub(crate) async fn end(mut self) {
        for node in self.nodes.values() {
            // It may have ended by itself.
            let _ = node.process.signal(Signal::KILL);
        }
        join_all(self.nodes.values_mut().map(|node| node.process.ended())).await;
    }

    /// Sets a tag of a Serf node. Returns how long it took until all saw it.
    pub(crate) async fn set_tag(&mut self, name: &str, value: &str) -> anyhow::Result<Duration> {
        let began = Instant::now();
        {
            let node = self.nodes.get_mut(name).context("it runs")?;
            let Probe::Serf(rpc) = &mut node.probe else { bail!("only Serf has tags") };
            timeout(LIMIT, rpc.set_tag(value)).await??;
        }
        let asking = self.nodes.values_mut().map(|node| async move {
            let Probe::Serf(rpc) = &mut node.probe else { bail!("only Serf has tags") };
            while began.elapsed() < LIMIT {
                let members = timeout(ANSWER_LIMIT, rpc.members()).await??;
                let is_shown = |member: &serf::Member| member.name == name && member.tag() == Some(value);
                if members.iter().any(is_shown) {
                    return Ok(());
                }
                sleep(QUICK).await;
            }
            bail!("{} does not see the tag", node.seat.name)
        });
        try_join_all(asking).await?;
        Ok(began.elapsed())
    }
}
