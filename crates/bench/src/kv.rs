//! How fast keys are written durably and read linearizably, beside etcd: one node each, the same disk, the same clients.
//!
//! Both keep their data in one temporary folder and are up all the time; rounds alternate between them. Of etcd's ways to
//! be asked, the one that is fastest at a task is the peer of it. All clients share one thread, so they cost both the
//! same; how much is told by the row of `livez`.

mod drive;
pub(crate) mod etcd;
mod floor;
mod speech;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::nodes::Nodes;
use crate::ours::Binaries;
use crate::proc::{on_cpu, rss_mib};
use crate::progress::progress;
use crate::report::Report;
use crate::rows::{Peer, Row, Target};
use crate::stats::{Summary, millis};
use drive::{Drive, Task};
use etcd::Etcd;
use floor::Floor;
use speech::{Speech, Value};

/// Before the memory of a node that has nothing to do is looked at.
const REST: Duration = Duration::from_secs(5);
/// Between two tasks, for what the last one has left to do.
const PAUSE: Duration = Duration::from_millis(300);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Lengths of the values, in bytes
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_values_t = [100, 1_024])]
    values: Vec<usize>,
    /// Clients at once, besides one alone
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = clap::value_parser!(u16).range(2..=1_000))]
    clients: u16,
    /// Keys that are written and read
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    keys: u32,
    /// How long each task takes in a round
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
}

/// What is measured, with the number of clients and the length of the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Work {
    value: usize,
    clients: usize,
    verb: Verb,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verb {
    Put,
    Get,
}

/// What came of all rounds of one work, asked in one way.
#[derive(Debug, Default)]
struct Rounds {
    per_second: Vec<f64>,
    took_ms: Vec<f64>,
    /// Of the server, for each request.
    cpu_us: Vec<f64>,
}

/// What is asked, and the process that answers.
#[derive(Debug, Clone, Copy)]
struct Server {
    speech: Speech,
    addr: SocketAddr,
    pid: u32,
}

type Measured = BTreeMap<Work, BTreeMap<Speech, Rounds>>;

pub(crate) async fn run(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let binaries = Binaries::find()?;
    let version = if args.alone { Err("left out".to_owned()) } else { etcd::version().await };
    starts(args, &binaries, &version, report).await?;

    let mut nodes = Nodes::new(binaries)?;
    nodes.start("storage", &"storage/0".parse()?)?;
    nodes.ready("storage").await?;
    let ours = Server { speech: Speech::Ours, addr: nodes.api("storage")?, pid: nodes.pid("storage")? };
    let etcd = match &version {
        Ok(_) => Some(Etcd::start(nodes.folder())?),
        Err(_) => None,
    };
    let mut servers = vec![ours];
    if let Some(etcd) = &etcd {
        etcd.ready().await?;
        let (addr, pid) = (etcd.addr, etcd.pid()?);
        servers.extend(Speech::OF_ETCD.map(|speech| Server { speech, addr, pid }));
    }
    sleep(REST).await;
    memory("idle", &servers, &version, report)?;
    let (mut measured, mut floor) = (Measured::new(), Floor::default());
    for length in &args.values {
        measure(args, *length, &servers, nodes.folder(), &mut floor, &mut measured).await?;
    }
    report.rows.extend([
        Row::new("this disk: a page and its fdatasync", 1, "ms").ours(Summary::of(&floor.page)),
        Row::new("this disk: a file, linked, both synced", 1, "ms").ours(Summary::of(&floor.object)),
    ]);
    rows(&measured, &version, report);
    memory("after all that", &servers, &version, report)?;
    let clients = usize::from(args.clients);
    let livez = drive(args, ours, Task::Livez, clients, &Arc::new(Value::of_length(1))).run().await?;
    report
        .rows
        .push(Row::new("sanity: GET /health/livez", clients, "req/s").ours(Summary::of(&[livez.per_second])));
    report.notes.push(match version {
        Ok(version) => format!("N is the number of clients; the peer is etcd {version} by its fastest way"),
        Err(why) => format!("N is the number of clients; etcd: {why}"),
    });
    if let Some(etcd) = etcd {
        etcd.end().await;
    }
    nodes.end().await;
    Ok(())
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
    servers: &[Server],
    version: &Result<String, String>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let of = |server: Option<&Server>| {
        let mib = server.map(|server| rss_mib(server.pid)).transpose()?;
        Ok::<_, anyhow::Error>(mib.and_then(|mib| Summary::of(&[mib])))
    };
    let row = Row::new(format!("memory, {when} (RSS)"), 1, "MiB");
    let row = row.ours(of(servers.first())?).peer(peer("all", of(servers.get(1))?, version));
    report.rows.push(if when == "idle" { row.target(Target::Max(60.0)) } else { row });
    Ok(())
}

fn drive(args: &Args, server: Server, task: Task, clients: usize, value: &Arc<Value>) -> Drive {
    Drive {
        speech: server.speech,
        addr: server.addr,
        task,
        clients,
        keys: usize::try_from(args.keys).unwrap_or(usize::MAX),
        value: Arc::clone(value),
        time: Duration::from_secs(args.seconds),
    }
}

/// All rounds with values of one length.
async fn measure(
    args: &Args,
    length: usize,
    servers: &[Server],
    folder: &Path,
    floor: &mut Floor,
    measured: &mut Measured,
) -> anyhow::Result<()> {
    let value = Arc::new(Value::of_length(length));
    for server in servers {
        let began = Instant::now();
        drive(args, *server, Task::Put, 1, &value).fill().await?;
        progress(&format!("{}: filled in {:.1} s", server.speech, began.elapsed().as_secs_f64()));
    }
    for round in 1..=args.rounds {
        floor.look(folder).await?;
        let many = args.clients;
        for (verb, clients) in [(Verb::Put, 1), (Verb::Get, 1), (Verb::Put, many), (Verb::Get, many)] {
            let work = Work { value: length, clients: clients.into(), verb };
            for server in servers {
                sleep(PAUSE).await;
                let task = match verb {
                    Verb::Put => Task::Put,
                    Verb::Get => Task::Get,
                };
                let before = on_cpu(server.pid)?;
                let driven = drive(args, *server, task, work.clients, &value).run().await?;
                let used = on_cpu(server.pid)?.saturating_sub(before);
                progress(&format!(
                    "round {round}, {work}, {clients} clients, {}: {:.0}/s",
                    server.speech, driven.per_second
                ));
                let rounds = measured.entry(work).or_default().entry(server.speech).or_default();
                rounds.cpu_us.push(drive::cpu_us(used, &driven));
                rounds.per_second.push(driven.per_second);
                rounds.took_ms.extend(driven.took_ms);
            }
        }
    }
    Ok(())
}

impl std::fmt::Display for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verb = match self.verb {
            Verb::Put => "PUT",
            Verb::Get => "GET",
        };
        write!(f, "{verb} {} B", self.value)
    }
}

/// The way that answered most requests a second, by the median of its rounds.
fn fastest(ways: &BTreeMap<Speech, Rounds>) -> Option<(Speech, &Rounds)> {
    let rate = |rounds: &Rounds| Summary::of(&rounds.per_second).map_or(0.0, |rate| rate.p50);
    let etcds = ways.iter().filter(|(speech, _)| **speech != Speech::Ours);
    let best = etcds.max_by(|a, b| rate(a.1).total_cmp(&rate(b.1)));
    best.map(|(speech, rounds)| (*speech, rounds))
}

fn rows(measured: &Measured, version: &Result<String, String>, report: &mut Report) {
    for (work, ways) in measured {
        let (ours, best) = (ways.get(&Speech::Ours), fastest(ways));
        let row = |what: &str, unit, of: fn(&Rounds) -> &[f64]| {
            let way = best.map_or(String::new(), |(speech, _)| speech.to_string());
            let theirs = best.and_then(|(_, rounds)| Summary::of(of(rounds)));
            Row::new(format!("{work}{what}"), work.clients, unit)
                .ours(ours.and_then(|rounds| Summary::of(of(rounds))))
                .peer(peer(&way, theirs, version))
        };
        let rate = row("", "req/s", |rounds| &rounds.per_second);
        let latency = row(": latency", "ms", |rounds| &rounds.took_ms);
        let cpu = row(": CPU a request", "us", |rounds| &rounds.cpu_us);
        report.rows.extend([
            if work.clients > 1 { rate.target(Target::RatioAtLeast(1.0)) } else { rate },
            if work.clients == 1 && work.verb == Verb::Put {
                latency.target(Target::P50(3.0))
            } else {
                latency
            },
            cpu,
        ]);
        let shown = |(speech, rounds): (&Speech, &Rounds)| {
            let rates: Vec<_> = rounds.per_second.iter().map(|rate| format!("{rate:.0}")).collect();
            format!("{speech} {}", rates.join(" "))
        };
        let shown: Vec<_> = ways.iter().map(shown).collect();
        report.notes.push(format!(
            "{work}, {} clients, req/s of each round: {}",
            work.clients,
            shown.join("; ")
        ));
        for (speech, rounds) in ways {
            report.details.push(json!({
                "work": work.to_string(),
                "clients": work.clients,
                "way": speech,
                "per_second": rounds.per_second,
                "latency_ms": Summary::of(&rounds.took_ms),
                "cpu_us": rounds.cpu_us,
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_is_the_way_of_etcd_with_the_highest_median() {
        let rounds = |rates: &[f64]| Rounds { per_second: rates.to_vec(), ..Rounds::default() };
        let ways = BTreeMap::from([
            (Speech::Ours, rounds(&[9.0, 9.0, 9.0])),
            (Speech::Grpc, rounds(&[3.0, 4.0, 3.0])),
            (Speech::Json, rounds(&[1.0, 8.0, 1.0])),
            (Speech::V2, rounds(&[2.0, 2.0, 2.0])),
        ]);
        assert_eq!(fastest(&ways).map(|(speech, _)| speech), Some(Speech::Grpc));
        let alone = BTreeMap::from([(Speech::Ours, rounds(&[9.0]))]);
        assert!(fastest(&alone).is_none());
    }
}
