//! Measures a node with more keys than its cache holds: random reads, compared with reads of a few hot keys.
//!
//! A random read finds the filters and indexes of the tables in memory, and its block in a file. Without those in
//! memory, it would read and decode the filters and indexes of a whole table.

use std::sync::Arc;
use std::time::Duration;

use crate::kv::drive::{Driven, Task};
use crate::kv::keys::{Choice, Keys};
use crate::kv::matrix::Server;
use crate::kv::million::{import, watched};
use crate::kv::protocol::{ClientApi, Value};
use crate::nodes::Nodes;
use crate::ours::Binaries;
use crate::progress::progress;
use crate::report::Report;
use crate::rows::{Peer, Row, Target};
use crate::stats::Summary;

const LENGTH: usize = 100;
const CLIENTS: usize = 64;
/// The number of hot keys.
const HOT: u32 = 1_000;
/// The number of runs of each kind.
const RUNS: usize = 3;
/// The target for the rate of random reads, as a share of the rate of hot keys.
const LEAST_RATIO: f64 = 0.4;
const MOST_MIB: f64 = 512.0;

/// Reads hot keys and random keys in alternating runs of `run_time`.
pub(crate) async fn run(
    binaries: Binaries,
    count: u32,
    run_time: Duration,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut nodes = Nodes::new(binaries.clone())?;
    nodes.start("storage", &"storage/0".parse()?)?;
    nodes.ready("storage").await?;
    let value = Arc::new(Value::of_length(LENGTH));
    progress(&format!("{count} keys: importing"));
    let (imported, while_imported) = import(&binaries, &nodes, "storage", count, &value).await?;

    let pid = nodes.pid("storage")?;
    let server = Server { api: ClientApi::Ours, addr: nodes.api("storage")?, pids: vec![pid] };
    let (few, all) = (Keys::new(HOT.min(count), Choice::Uniform)?, Keys::new(count, Choice::Uniform)?);
    let (mut hot, mut random, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=RUNS {
        progress(&format!("{count} keys: reading, run {number} of {RUNS}"));
        for (keys, driven) in [(&few, &mut hot), (&all, &mut random)] {
            let reading = server.drive(Task::Get, CLIENTS, keys, &value, run_time).run();
            let (read, seen) = watched(pid, reading).await?;
            driven.push(read?);
            memory.extend(seen);
        }
    }

    let row = |what: &str, clients, unit, samples: &[f64]| {
        Row::new(format!("{count} keys of {LENGTH} B: {what}"), clients, unit).ours(Summary::of(samples))
    };
    let peer = |summary: Option<Summary>| match summary {
        Some(summary) => Peer::Measured { profile: "hot keys".to_owned(), summary },
        None => Peer::Missing("not measured".to_owned()),
    };
    let rates = |driven: &[Driven]| driven.iter().map(|driven| driven.per_second).collect::<Vec<_>>();
    let took =
        |driven: &[Driven]| driven.iter().flat_map(|driven| driven.took_ms.clone()).collect::<Vec<_>>();
    let get = format!("{}, random", Task::Get);
    report.rows.extend([
        row("ctl kv import", 1, "s", &[imported.as_secs_f64()]),
        row("memory while imported (RSS)", 1, "MiB", &while_imported).target(Target::Max(MOST_MIB)),
        row(&get, CLIENTS, "req/s", &rates(&random))
            .peer(peer(Summary::of(&rates(&hot))))
            .target(Target::RatioAtLeast(LEAST_RATIO)),
        row(&format!("{get}: latency"), CLIENTS, "ms", &took(&random)).peer(peer(Summary::of(&took(&hot)))),
        row("memory while read (RSS)", CLIENTS, "MiB", &memory).target(Target::Max(MOST_MIB)),
    ]);
    report.notes.push(format!(
        "in the rows of {count} keys, the peer is the same node reading {HOT} hot keys, in alternating runs of {} s",
        run_time.as_secs()
    ));
    nodes.end().await;
    Ok(())
}
