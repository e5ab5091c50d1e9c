//! Debian's `etcd`: one node with default settings, so with fsync, but with a larger quota.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use rustix::process::Signal;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::ports;
use crate::process::Process;

const LIMIT: Duration = Duration::from_secs(60);
/// The quota of its database. etcd keeps overwritten values until compaction, and accepts no more writes once they fill
/// the quota. This is the largest that its documentation suggests.
const ROOM: u64 = 8 * 1024 * 1024 * 1024;

/// A running node. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Etcd {
    process: Process,
    pub(crate) addr: SocketAddr,
}

/// The version of etcd, or why there is none.
pub(crate) async fn version() -> Result<String, String> {
    match Command::new("etcd").arg("--version").kill_on_drop(true).output().await {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            let first = text.lines().next().unwrap_or_default();
            Ok(first.rsplit(' ').next().unwrap_or_default().to_owned())
        }
        Ok(output) => Err(format!("etcd fails: {}", output.status)),
        Err(_) => Err("no etcd".to_owned()),
    }
}

/// The command of one member, with default settings.
pub(crate) fn command(name: &str, client: SocketAddr, peer: SocketAddr, cluster: &str) -> Command {
    let mut command = Command::new("etcd");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ETCD_") {
            command.env_remove(name);
        }
    }
    command
        .args(["--name", name, "--logger", "zap", "--log-level", "error", "--enable-v2=true"])
        .args(["--listen-client-urls", &format!("http://{client}")])
        .args(["--advertise-client-urls", &format!("http://{client}")])
        .args(["--listen-peer-urls", &format!("http://{peer}")])
        .args(["--initial-advertise-peer-urls", &format!("http://{peer}")])
        .args(["--initial-cluster", cluster]);
    command
}

impl Etcd {
    /// Starts a node with its data in this folder. Does not wait until it is ready.
    pub(crate) fn start(folder: &Path) -> anyhow::Result<Self> {
        let (addr, peer) = (ports::free()?, ports::free()?);
        let mut command = command("bench", addr, peer, &format!("bench=http://{peer}"));
        command.arg("--data-dir").arg(folder.join("etcd"));
        command.args(["--quota-backend-bytes", &ROOM.to_string()]);
        let process = Process::spawn(command, folder.join("etcd.log"))?;
        Ok(Self { process, addr })
    }

    /// Waits until the node is healthy.
    pub(crate) async fn ready(&self) -> anyhow::Result<()> {
        const PAUSE: Duration = Duration::from_millis(1);
        let http = client::plain_http().timeout(Duration::from_secs(5)).build()?;
        let url = format!("http://{}/health", self.addr);
        let began = Instant::now();
        loop {
            let answer = http.get(&url).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if began.elapsed() > LIMIT {
                bail!("etcd is not ready; its log ends with\n{}", self.process.log_tail());
            }
            sleep(PAUSE).await;
        }
    }

    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        self.process.id()
    }

    pub(crate) async fn end(mut self) {
        // The process may have exited already.
        let _ = self.process.signal(Signal::KILL);
        let _ = self.process.ended().await;
    }
}
