//! Measures durable writes and reads of keys, compared with etcd: one node each, the same disk, the same clients.
//!
//! Both keep their data in one temporary folder and run all the time; rounds alternate between them. For each task, the
//! peer is etcd's fastest API. All clients share one thread and so cost both the same; the rows of `livez` show how
//! much.

pub(crate) mod drive;
pub(crate) mod etcd;
mod floor;
mod keys;
mod large;
mod many;
mod matrix;
mod million;
mod protocol;
pub(crate) mod rounds;
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

/// The pause before the memory of an idle node is measured.
const REST: Duration = Duration::from_secs(5);
/// A run with many keys takes this many times a task's time, so that caches fill.
const LONG_RUN: u32 = 5;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Lengths of values, in bytes
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_values_t = [100, 4_096])]
    values: Vec<usize>,
    /// Numbers of concurrent clients
    #[arg(long, value_name = "COUNT", value_delimiter = ',', default_values_t = [1, 64, 256],
        value_parser = clap::value_parser!(u16).range(1..=1_000))]
    clients: Vec<u16>,
    /// Number of keys
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    keys: u32,
    /// Distribution of the keys
    #[arg(long, value_name = "CHOICE", value_enum, value_delimiter = ',', default_values = ["uniform", "zipf"])]
    choices: Vec<Choice>,
    /// Whether clients call the owner directly or through a gateway
    #[arg(long, value_name = "WAY", value_enum, value_delimiter = ',', default_values = ["direct", "gateway"])]
    ways: Vec<Way>,
    /// Operations to measure
    #[arg(long, value_name = "TASK", value_enum, value_delimiter = ',', default_values = ["put", "get", "primary"])]
    tasks: Vec<Task>,
    /// Seconds for each task in a round; a run with many keys takes five times as long
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Number of rounds
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// Starts of a node on an empty folder
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    starts: u32,
    /// Do not measure etcd
    #[arg(long)]
    alone: bool,
    /// Skip the node with a million keys
    #[arg(long)]
    no_million: bool,
    /// Measure random reads on a node with this many keys; 0 skips it
    #[arg(long, value_name = "COUNT", default_value_t = 10_000_000, value_parser = clap::value_parser!(u32).range(0..=100_000_000))]
    many: u32,
    /// Seconds for which large values are written; 0 skips them
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    large: u64,
    /// Measure only the node with a million keys, the one with many keys, and large values
    #[arg(long)]
    no_matrix: bool,
}

/// The server that clients call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Way {
    /// The owner of the keys, directly
    Direct,
    /// A gateway, which forwards to the owner
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
        many::run(binaries, args.many, args.time() * LONG_RUN, report).await?;
    }
    report.notes.push(match version {
        Ok(version) => format!(
            "N is the number of clients. The peer is the fastest API of etcd {version}: its linearizable reads are \
             compared with our strong reads, its serializable reads with our primary reads. etcd has no gateway: \
             rows for our gateway show the same numbers of etcd"
        ),
        Err(why) => format!("N is the number of clients; etcd: {why}"),
    });
    if args.ways.contains(&Way::Gateway) {
        report
            .notes
            .push("CPU per request through the gateway is the sum of the gateway and the owner".to_owned());
    }
    Ok(())
}

/// Measures the whole matrix, on nodes that run all the time.
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
    rounds::report_rows(&matrix.measured, version, report);
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

/// Starts a gateway in front of the owner.
async fn gateway(nodes: &mut Nodes, storage: &Server) -> anyhow::Result<Server> {
    nodes.start("gateway", &"api_gateway".parse()?)?;
    let addr = nodes.gateway("gateway").await?;
    nodes.sees("gateway", 2).await?;
    let mut pids = storage.pids.clone();
    pids.push(nodes.pid("gateway")?);
    Ok(Server { api: ClientApi::Gateway, addr, pids })
}

/// The time in minutes, rounded up.
fn minutes(time: Duration) -> String {
    format!("{} min", time.as_secs().div_ceil(60))
}

/// Measures the time from the start of a process on an empty folder until it is ready.
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
