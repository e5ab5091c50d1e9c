//! Measures large values: whether the memory of an owner stays bounded while clients write as fast as it accepts, and
//! how many writes are refused.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use http::StatusCode;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::kv::million::watched;
use crate::kv::protocol::{ClientApi, Value};
use crate::nodes::Nodes;
use crate::ours::Binaries;
use crate::progress::progress;
use crate::report::Report;
use crate::rows::{Row, Target};
use crate::stats::{Summary, millis};
use crate::wire::Connection;

const KIB: usize = 1024;
/// The lengths of the values, each with its number of keys, which limits the use of the disk.
const VALUES: [(usize, usize); 2] = [(64 * KIB, 2_000), (4 * KIB * KIB, 64)];
const CLIENTS: usize = 8;
/// The documented memory limit of an owner, in MiB.
const MOST_MIB: f64 = 384.0;
/// The time limit of a write.
const LIMIT: Duration = Duration::from_secs(30);
/// The pause before a refused write is sent again.
const PAUSE: Duration = Duration::from_millis(100);

/// The outcome of the writes.
#[derive(Debug, Default)]
struct Written {
    took_ms: Vec<f64>,
    refused: usize,
}

pub(crate) async fn run(binaries: &Binaries, time: Duration, report: &mut Report) -> anyhow::Result<()> {
    for (length, keys) in VALUES {
        let mut nodes = Nodes::new(binaries.clone())?;
        nodes.start("storage", &"storage/0".parse()?)?;
        nodes.ready("storage").await?;
        let (addr, pid) = (nodes.api("storage")?, nodes.pid("storage")?);
        let name = match length / KIB {
            kib if kib >= KIB => format!("{} MiB", kib / KIB),
            kib => format!("{kib} KiB"),
        };
        progress(&format!("values of {name}: writing"));
        let (written, memory) = watched(pid, write(addr, length, keys, time)).await?;
        let Written { took_ms, refused } = written?;
        let count = |number: usize| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
        let all = count(took_ms.len() + refused).max(1.0);
        let row = |what: &str, unit, samples: &[f64]| {
            let what = format!("values of {name}, written as fast as taken: {what}");
            Row::new(what, CLIENTS, unit).ours(Summary::of(samples))
        };
        report.rows.extend([
            row("rate", "req/s", &[count(took_ms.len()) / time.as_secs_f64()]),
            row("latency", "ms", &took_ms),
            row("refused", "%", &[100.0 * count(refused) / all]).target(Target::Max(1.0)),
            row("memory (RSS)", "MiB", &memory).target(Target::Max(MOST_MIB)),
        ]);
        nodes.end().await;
    }
    Ok(())
}

/// Runs all clients for the whole time.
async fn write(addr: SocketAddr, length: usize, keys: usize, time: Duration) -> anyhow::Result<Written> {
    let (value, ends) = (Arc::new(Value::of_length(length)), Instant::now() + time);
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(one(addr, client, keys, Arc::clone(&value), ends));
    }
    let mut all = Written::default();
    while let Some(written) = clients.join_next().await {
        let written = written??;
        all.took_ms.extend(written.took_ms);
        all.refused += written.refused;
    }
    Ok(all)
}

async fn one(
    addr: SocketAddr,
    client: usize,
    keys: usize,
    value: Arc<Value>,
    ends: Instant,
) -> anyhow::Result<Written> {
    let (host, mut written) = (addr.to_string(), Written::default());
    let mut connection = Connection::open(addr, ClientApi::Ours.protocol()).await?;
    for number in 0.. {
        let sent = Instant::now();
        if sent >= ends {
            break;
        }
        let request = ClientApi::Ours.put(&host, (client + number * CLIENTS) % keys, &value)?;
        let answered = timeout(LIMIT, connection.send(request)).await;
        match answered.with_context(|| format!("a write was not answered within {LIMIT:?}"))? {
            Ok(answer) if answer.status == StatusCode::OK => written.took_ms.push(millis(sent.elapsed())),
            Ok(answer) if answer.status == StatusCode::SERVICE_UNAVAILABLE => {
                written.refused += 1;
                tokio::time::sleep(PAUSE).await;
            }
            Ok(answer) => bail!("a write was answered with {}: {}", answer.status, answer.excerpt()),
            // A refusal may close the connection before the body is sent.
            Err(_) => {
                written.refused += 1;
                tokio::time::sleep(PAUSE).await;
                connection = Connection::open(addr, ClientApi::Ours.protocol()).await?;
            }
        }
    }
    Ok(written)
}
