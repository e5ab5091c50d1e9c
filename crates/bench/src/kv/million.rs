//! Measures a separate node with a million keys: the time of `ctl kv import`, and the memory while they are read.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::Command;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::kv::drive::Task;
use crate::kv::keys::{Choice, Keys};
use crate::kv::matrix::Server;
use crate::kv::protocol::{ClientApi, Value};
use crate::nodes::Nodes;
use crate::ours::{self, Binaries};
use crate::proc::rss_mib;
use crate::progress::progress;
use crate::report::Report;
use crate::rows::{Row, Target};
use crate::stats::Summary;

const KEYS: u32 = 1_000_000;
const LENGTH: usize = 100;
const CLIENTS: usize = 64;
/// How long the keys are read.
const READ: Duration = Duration::from_secs(10);
/// The time limit of the import.
const IMPORT_LIMIT: Duration = Duration::from_secs(600);
/// The time between two samples of the memory.
const SAMPLE: Duration = Duration::from_millis(100);

pub(crate) async fn run(binaries: Binaries, report: &mut Report) -> anyhow::Result<()> {
    let mut nodes = Nodes::new(binaries.clone())?;
    nodes.start("storage", &"storage/0".parse()?)?;
    nodes.ready("storage").await?;
    let (addr, pid) = (nodes.api("storage")?, nodes.pid("storage")?);
    let value = Arc::new(Value::of_length(LENGTH));

    progress("a million keys: importing");
    let (imported, while_imported) = import(&binaries, &nodes, "storage", KEYS, &value).await?;

    progress("a million keys: reading");
    let server = Server { api: ClientApi::Ours, addr, pids: vec![pid] };
    let keys = Keys::new(KEYS, Choice::Uniform)?;
    let (read, while_read) =
        watched(pid, server.drive(Task::Get, CLIENTS, &keys, &value, READ).run()).await?;
    let read = read?;

    let row = |what: &str, clients, unit, samples: &[f64]| {
        Row::new(format!("a million keys of {LENGTH} B: {what}"), clients, unit).ours(Summary::of(samples))
    };
    report.rows.extend([
        row("ctl kv import", 1, "s", &[imported.as_secs_f64()]).target(Target::Max(60.0)),
        row("memory while imported (RSS)", 1, "MiB", &while_imported),
        row(&Task::Get.to_string(), CLIENTS, "req/s", &[read.per_second]),
        row(&format!("{}: latency", Task::Get), CLIENTS, "ms", &read.took_ms),
        row("memory while read (RSS)", CLIENTS, "MiB", &while_read).target(Target::Max(256.0)),
    ]);
    nodes.end().await;
    Ok(())
}

/// Imports keys with `ctl kv import`. Returns the time it took, and samples of the node's memory in MiB.
pub(crate) async fn import(
    binaries: &Binaries,
    nodes: &Nodes,
    node: &str,
    keys: u32,
    value: &Arc<Value>,
) -> anyhow::Result<(Duration, Vec<f64>)> {
    let file = lines(nodes.folder(), keys, Arc::clone(value)).await?;
    let mut command = ours::ctl(binaries, nodes.folder());
    command.args(["--agent", &format!("http://{}", nodes.api(node)?), "kv", "import"]).arg(&file);
    let (imported, memory) = watched(nodes.pid(node)?, imported(command)).await?;
    std::fs::remove_file(file)?;
    Ok((imported?, memory))
}

/// Writes a file with a line for each key.
async fn lines(folder: &Path, keys: u32, value: Arc<Value>) -> anyhow::Result<PathBuf> {
    let path = folder.join("keys.ndjson");
    let writing = tokio::task::spawn_blocking(move || {
        let mut file = BufWriter::new(std::fs::File::create(&path)?);
        for key in 0..usize::try_from(keys)? {
            file.write_all(value.line(key).as_bytes())?;
        }
        file.flush()?;
        Ok(path)
    });
    writing.await?
}

/// Runs the import. Returns the time it took.
async fn imported(mut command: Command) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let output = timeout(IMPORT_LIMIT, command.output())
        .await
        .with_context(|| format!("ctl kv import did not end within {IMPORT_LIMIT:?}"))??;
    let took = began.elapsed();
    if !output.status.success() {
        bail!("ctl kv import: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(took)
}

/// Samples the memory of a process, in MiB, until `work` has ended.
pub(crate) async fn watched<T>(pid: u32, work: impl Future<Output = T>) -> anyhow::Result<(T, Vec<f64>)> {
    let mut work = std::pin::pin!(work);
    let mut beat = interval(SAMPLE);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = Vec::new();
    loop {
        tokio::select! {
            biased;
            _ = beat.tick() => seen.push(rss_mib(pid)?),
            done = &mut work => return Ok((done, seen)),
        }
    }
}
