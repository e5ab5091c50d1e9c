//! Measures the write outage after the process that accepts writes was killed, compared with etcd.
//!
//! Ours: one shard and four nodes; the owner is killed with SIGKILL while a key is written through the gateway. One run
//! has replicas that can take over, the other only standbys. etcd: three members; the leader is killed, and another
//! member receives the writes. From the kill on, a write starts every 20 ms; the first acknowledged write ends the
//! outage. The killed node is restarted before the next round.

mod etcd;

use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Signal;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::kv::etcd::version;
use crate::nodes::Nodes;
use crate::ours::Binaries;
use crate::progress::progress;
use crate::report::Report;
use crate::rows::{Peer, Row, Target};
use crate::stats::{Summary, millis};
use etcd::EtcdCluster;

/// The time between the starts of two writes.
const EVERY: Duration = Duration::from_millis(20);
/// The time limit of one write.
const WRITE_LIMIT: Duration = Duration::from_secs(5);
/// The longest outage before the run fails.
const LIMIT: Duration = Duration::from_secs(60);
/// The pause in which everything settles before the next kill.
const REST: Duration = Duration::from_secs(1);
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Kills of the owner, for each of the two cases
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Do not measure etcd
    #[arg(long)]
    alone: bool,
    /// Pause the owner with SIGSTOP instead of killing it, like a machine that freezes; without etcd
    #[arg(long)]
    frozen: bool,
}

pub(crate) async fn run(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let binaries = Binaries::find()?;
    let replica = ours(args, &binaries, 1).await?;
    let standby = ours(args, &binaries, 0).await?;
    let (peer, words) = match version().await {
        Ok(version) if !args.alone && !args.frozen => {
            let gaps = theirs(args).await?;
            let summary = Summary::of_times(&gaps).context("no rounds were measured")?;
            let peer = Peer::Measured { profile: "3 nodes".to_owned(), summary };
            (peer, format!("the peer is etcd {version} with default settings; its leader is killed"))
        }
        Ok(_) => (Peer::Missing("left out".to_owned()), "etcd was not measured".to_owned()),
        Err(why) => (Peer::Missing(why.clone()), format!("etcd: {why}")),
    };
    let row = |what: &str, gaps: &[Duration], most| {
        let how = if args.frozen { "the owner is frozen, to" } else { "kill -9 of the owner to" };
        Row::new(format!("{how} the next write: {what}"), 4, "ms")
            .ours(Summary::of_times(gaps))
            .peer(peer.clone())
            .target(Target::P99(most))
            .target(Target::Ratio(1.0))
    };
    let most = if args.frozen { (3_000.0, 3_500.0) } else { (2_000.0, 2_500.0) };
    report.rows.push(row("a replica takes over", &replica, most.0));
    report.rows.push(row("a standby takes over", &standby, most.1));
    report.notes.push(words);
    for (what, gaps) in [("replica", &replica), ("standby", &standby)] {
        let all: Vec<f64> = gaps.iter().map(|gap| millis(*gap)).collect();
        report.details.push(json!({ "takes over": what, "ms": all }));
    }
    Ok(())
}

/// Measures our cluster: a gateway and four nodes, one of which owns the only shard.
async fn ours(args: &Args, binaries: &Binaries, replicas: u32) -> anyhow::Result<Vec<Duration>> {
    let mut nodes = Nodes::new(binaries.clone())?;
    nodes.apply(&json!({ "storage": { "shards": 1, "replicas": replicas } })).await?;
    for (name, role) in [("gateway", "api_gateway"), ("a", "storage/0")] {
        nodes.start(name, &role.parse()?)?;
        nodes.ready(name).await?;
    }
    for name in &NAMES[1..] {
        let role = if replicas > 0 { "storage/0" } else { "standby" };
        nodes.start(name, &role.parse()?)?;
        nodes.ready(name).await?;
    }
    nodes.sees("gateway", 5).await?;
    let url = format!("http://{}/storage/kv/key", nodes.gateway("gateway").await?);
    let http = client::plain_http().timeout(WRITE_LIMIT).build()?;
    let mut gaps = Vec::new();
    for round in 1..=args.rounds {
        let owner = owner(&nodes).await?;
        first_write(&put(&http, &url)).await?;
        if args.frozen {
            nodes.pause(owner, true)?;
        } else {
            nodes.signal(owner, Signal::KILL).await?;
        }
        let gap = first_write(&put(&http, &url)).await?;
        progress(&format!("{replicas} replicas, round {round}/{}: {:.0} ms", args.rounds, millis(gap)));
        gaps.push(gap);
        if args.frozen {
            nodes.pause(owner, false)?;
        } else {
            nodes.start(owner, &"standby".parse()?)?;
        }
        nodes.ready(owner).await?;
        nodes.sees("gateway", 5).await?;
        if replicas > 0 {
            has_a_replica(&nodes).await?;
        }
        sleep(REST).await;
    }
    nodes.end().await;
    Ok(gaps)
}

/// The owner of the shard, from the object store.
async fn owner(nodes: &Nodes) -> anyhow::Result<&'static str> {
    let claims = nodes.client("gateway")?.claims().await?;
    let holder =
        claims.claims.first().and_then(|claim| claim.holder.as_ref()).context("the shard has no owner")?;
    NAMES
        .into_iter()
        .find(|name| holder.node.as_str() == *name)
        .context("the owner is not a node of this run")
}

async fn has_a_replica(nodes: &Nodes) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let claims = nodes.client("gateway")?.claims().await?;
        let replicas = claims.claims.iter().flat_map(|claim| &claim.replicas);
        if replicas.filter(|replica| replica.phase.is_serving()).count() > 0 {
            return Ok(());
        }
        if began.elapsed() > LIMIT {
            bail!("no node became a replica: {claims:#?}");
        }
        sleep(EVERY).await;
    }
}

async fn theirs(args: &Args) -> anyhow::Result<Vec<Duration>> {
    let folder = tempfile::tempdir()?;
    let mut cluster = EtcdCluster::start(folder.path()).await?;
    let http = client::plain_http().timeout(WRITE_LIMIT).build()?;
    let mut gaps = Vec::new();
    for round in 1..=args.rounds {
        let leader = cluster.leader().await?;
        let other = cluster.url((leader + 1) % 3);
        let put = || {
            let body = json!({ "key": "a2V5", "value": "dmFsdWU=" });
            http.post(format!("{other}/v3/kv/put")).json(&body)
        };
        first_write(&put).await?;
        cluster.kill(leader).await?;
        let gap = first_write(&put).await?;
        progress(&format!("etcd, round {round}/{}: {:.0} ms", args.rounds, millis(gap)));
        gaps.push(gap);
        cluster.restart(leader).await?;
        sleep(REST).await;
    }
    cluster.end().await;
    Ok(gaps)
}

fn put<'a>(http: &'a reqwest::Client, url: &'a str) -> impl Fn() -> reqwest::RequestBuilder + 'a {
    move || http.put(url).body("value")
}

/// Starts a write every 20 ms. Returns the time until the first one was acknowledged.
async fn first_write(write: &impl Fn() -> reqwest::RequestBuilder) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let mut writes = JoinSet::new();
    let mut beat = interval(EVERY);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Some(written) = writes.join_next() => {
                if matches!(written, Ok(Ok(true))) {
                    return Ok(began.elapsed());
                }
            }
            _ = beat.tick() => {
                let request = write();
                writes.spawn(async move {
                    let answer = request.send().await?;
                    let is_done = answer.status().is_success();
                    answer.bytes().await?;
                    Ok::<_, reqwest::Error>(is_done)
                });
            }
        }
        if began.elapsed() > LIMIT {
            bail!("no write was acknowledged within {LIMIT:?}");
        }
    }
}
