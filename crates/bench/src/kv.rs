//! How fast keys are written durably and read, beside etcd: one node each, the same disk, the same clients.
//!
//! Both keep their data in one temporary folder and are up all the time; rounds alternate between them. Of etcd's ways to
//! be asked, the one that is fastest at a task is the peer of it. All clients share one thread, so they cost both the
//! same; how much is told by the rows of `livez`.

mod drive;
pub(crate) mod etcd;
mod floor;
mod keys;
mod large;
mod many;
mod matrix;
mod million;
mod protocol;
mod rounds;
mod work;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use tokio::time::{Instant, sleep};

use crate::nodes::Nodes;
use crate::ours::Binaries;
use crate::proc::rss_mib;
use crate::progress::progress;
use crate::report::Report;
use crate::rows::{Peer, Row, Target};
use crate::stats::{Summary, millis};
use drive::Task;
use etcd::Etcd;
use keys::{Choice, Keys};
use matrix::{Matrix, Server};
use protocol::{ClientApi, Value};

/// Before the memory of a node that has nothing to do is looked at.
const REST: Duration = Duration::from_secs(5);
/// How much longer than a task of a round a turn with many keys takes: caches fill meanwhile.
const TURN: u32 = 5;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Lengths of the values, in bytes
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_values_t = [100, 4_096])]
    values: Vec<usize>,
    /// Clients at once
    #[arg(long, value_name = "COUNT", value_delimiter = ',', default_values_t = [1, 64, 256],
        value_parser = clap::value_parser!(u16).range(1..=1_000))]
    clients: Vec<u16>,
    /// Keys that are written and read
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    keys: u32,
    /// How keys are chosen
    #[arg(long, value_name = "CHOICE", value_enum, value_delimiter = ',', default_values = ["uniform", "zipf"])]
    choices: Vec<Choice>,
    /// Who is asked for them
    #[arg(long, value_name = "WAY", value_enum, value_delimiter = ',', default_values = ["direct", "gateway"])]
    ways: Vec<Way>,
    /// What is done with them
    #[arg(long, value_name = "TASK", value_enum, value_delimiter = ',', default_values = ["put", "get", "primary"])]
    tasks: Vec<Task>,
    /// How long each task takes in a round; a turn with many keys takes five times as long
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// How often all of it is done
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// How often a node is started on an empty folder
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    starts: u32,
    /// Leave etcd out
    #[arg(long)]
    alone: bool,
    /// Leave out the node with a million keys
    #[arg(long)]
    no_million: bool,
    /// Read keys at random of a node that has this many; 0 leaves it out
    #[arg(long, value_name = "COUNT", default_value_t = 10_000_000, value_parser = clap::value_parser!(u32).range(0..=100_000_000))]
    many: u32,
    /// Write large values for so long; 0 leaves them out
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    large: u64,
    /// Leave out all but the node with a million keys, the one with many, and the large values
    #[arg(long)]
    no_matrix: bool,
}

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Way {
    /// The owner of the keys
    Direct,
    /// A gateway, which asks the owner
    Gateway,
}

impl Args {
    fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

pub(crate) async fn run(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let binaries = Binaries::find()?;
    let version = if args.alone { Err("left out".to_owned()) } else { etcd::version().await };
    if !args.no_matrix {
        starts(args, &binaries, &version, report).await?;
        compare(args, &binaries, &version, report).await?;
    }
    if args.large > 0 {
        large::run(&binaries, Duration::from_secs(args.large), report).await?;
    }
    if !args.no_million {
        million::run(binaries.clone(), report).await?;
    }
    if args.many > 0 {
        many::run(binaries, args.many, args.time() * TURN, report).await?;
    }
    report.notes.push(match version {
        Ok(version) => format!(
            "N is the number of clients. The peer is etcd {version} by its fastest way: its linearizable reads beside our \
             strong ones, its serializable reads beside those of the primary. It has no gateway: what goes through ours \
             is beside the same numbers of it"
        ),
        Err(why) => format!("N is the number of clients; etcd: {why}"),
    });
    if args.ways.contains(&Way::Gateway) {
        report.notes.push(
            "CPU a request through the gateway is that of the gateway and the owner together".to_owned(),
        );
    }
    Ok(())
}

/// All of the matrix, on nodes that are up all the time.
async fn compare(
    args: &Args,
    binaries: &Binaries,
    version: &Result<String, String>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut nodes = Nodes::new(binaries.clone())?;
    nodes.start("storage", &"storage/0".parse()?)?;
    nodes.ready("storage").await?;
    let pids = vec![nodes.pid("storage")?];
    let storage = Server { api: ClientApi::Ours, addr: nodes.api("storage")?, pids };
    let etcd = match version {
        Ok(_) => Some(Etcd::start(nodes.folder())?),
        Err(_) => None,
    };
    let mut theirs = Vec::new();
    if let Some(etcd) = &etcd {
        etcd.ready().await?;
        let (addr, pid) = (etcd.addr, etcd.pid()?);
        theirs.extend(ClientApi::OF_ETCD.map(|api| Server { api, addr, pids: vec![pid] }));
    }
    sleep(REST).await;
    let peers = theirs.first().cloned();
    report.rows.push(memory("idle", &storage, peers.as_ref(), version)?.target(Target::Max(60.0)));

    let mut servers = Vec::new();
    if args.ways.contains(&Way::Direct) {
        servers.push(storage.clone());
    }
    if args.ways.contains(&Way::Gateway) {
        servers.push(gateway(&mut nodes, &storage).await?);
    }
    servers.extend(theirs);
    let mut matrix = Matrix::new(args, servers)?;
    progress(&format!("{} rounds, about {}", args.rounds, minutes(matrix.takes())));
    matrix.measure(nodes.folder()).await?;
    report.rows.extend([
        Row::new("this disk: a page and its fdatasync", 1, "ms").ours(Summary::of(&matrix.floor.page)),
        Row::new("this disk: a file, linked, both synced", 1, "ms").ours(Summary::of(&matrix.floor.object)),
    ]);
    rounds::tell(&matrix.measured, version, report);
    report.rows.push(memory("after all that", &storage, peers.as_ref(), version)?);
    for clients in args.clients.iter().copied().map(usize::from).collect::<BTreeSet<_>>() {
        let (keys, value) = (Keys::new(1, Choice::Uniform)?, Arc::new(Value::of_length(1)));
        let livez = storage.drive(Task::Livez, clients, &keys, &value, args.time()).run().await?;
        let row = Row::new(format!("sanity: {}", Task::Livez), clients, "req/s");
        report.rows.push(row.ours(Summary::of(&[livez.per_second])));
    }
    if let Some(etcd) = etcd {
        etcd.end().await;
    }
    nodes.end().await;
    Ok(())
}

/// Starts a gateway before the owner.
async fn gateway(nodes: &mut Nodes, storage: &Server) -> anyhow::Result<Server> {
    nodes.start("gateway", &"api_gateway".parse()?)?;
    let addr = nodes.gateway("gateway").await?;
    nodes.sees("gateway", 2).await?;
    let mut pids = storage.pids.clone();
    pids.push(nodes.pid("gateway")?);
    Ok(Server { api: ClientApi::Gateway, addr, pids })
}

/// Rounded up.
fn minutes(time: Duration) -> String {
    format!("{} min", time.as_secs().div_ceil(60))
}

/// From the start of a process on an empty folder until it says that it is ready.
async fn starts(
    args: &Args,
    binaries: &Binaries,
    version: &Result<String, String>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for number in 1..=args.starts {
        let mut nodes = Nodes::new(binaries.clone())?;
        let began = Instant::now();
        nodes.start("storage", &"storage/0".parse()?)?;
        nodes.ready("storage").await?;
        let took = began.elapsed();
        nodes.end().await;
        progress(&format!("start {number}: {:.0} ms", millis(took)));
        ours.push(took);
        if version.is_ok() {
            let folder = tempfile::tempdir()?;
            let began = Instant::now();
            let etcd = Etcd::start(folder.path())?;
            etcd.ready().await?;
            theirs.push(began.elapsed());
            etcd.end().await;
        }
    }
    report.rows.push(
        Row::new("start on an empty folder, until ready", 1, "ms")
            .ours(Summary::of_times(&ours))
            .peer(peer("all", Summary::of_times(&theirs), version))
            .target(Target::P50(250.0)),
    );
    Ok(())
}

fn peer(profile: &str, summary: Option<Summary>, version: &Result<String, String>) -> Peer {
    match (summary, version) {
        (Some(summary), _) => Peer::Measured { profile: profile.to_owned(), summary },
        (None, Ok(_)) => Peer::Missing("not measured".to_owned()),
        (None, Err(why)) => Peer::Missing(why.clone()),
    }
}

fn memory(
    when: &str,
    ours: &Server,
    theirs: Option<&Server>,
    version: &Result<String, String>,
) -> anyhow::Result<Row> {
    let of = |server: &Server| {
        let mib: Vec<_> = server.pids.iter().map(|pid| rss_mib(*pid)).collect::<Result<_, _>>()?;
        Ok::<_, anyhow::Error>(Summary::of(&mib))
    };
    let row = Row::new(format!("memory, {when} (RSS)"), 1, "MiB");
    let theirs = theirs.map(of).transpose()?.flatten();
    Ok(row.ours(of(ours)?).peer(peer("all", theirs, version)))
}
