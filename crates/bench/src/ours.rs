//! Our binaries, and the commands that start them.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::{Instant, timeout};
use types::supervision::PidFile;

use crate::node_config::NodeConfig;

const CTL_LIMIT: Duration = Duration::from_secs(60);

/// The release binaries in the folder of this one.
#[derive(Debug, Clone)]
pub(crate) struct Binaries {
    agent: PathBuf,
    ctl: PathBuf,
}

impl Binaries {
    pub(crate) fn find() -> anyhow::Result<Self> {
        if cfg!(debug_assertions) {
            crate::progress::progress("warning: this is a debug build; its results mean little");
        }
        let own = std::env::current_exe().context("finding this binary")?;
        let find = |name: &str| {
            let file = own.with_file_name(name);
            if file.is_file() {
                Ok(file)
            } else {
                bail!(
                    "there is no {}; build it: cargo build --release -p agent -p ctl -p bench",
                    file.display()
                )
            }
        };
        Ok(Self { agent: find("agent")?, ctl: find("ctl")? })
    }
}

/// The command of an agent with the `local` profile.
pub(crate) fn command(
    binaries: &Binaries,
    config: &NodeConfig,
    seeds: &[SocketAddr],
    folder: &Path,
) -> Command {
    let mut command = clean(&binaries.agent);
    command
        .env("COTERIE_STATE_DIR", folder)
        .args(["--cluster", "bench", "--profile", "local", "--service", config.role])
        .args(["--node-id", &config.name])
        .args(["--listen-addr", &config.api.to_string()])
        .args(["--gossip-addr", &config.gossip.to_string()])
        .arg("--data-dir")
        .arg(folder.join(&config.name));
    for seed in seeds {
        command.args(["--seed", &seed.to_string()]);
    }
    command
}

/// Writes the specs of service types to a store: `{"storage": {"shards": 2}}`.
pub(crate) async fn apply(
    binaries: &Binaries,
    store: &OsStr,
    environment: &[(String, String)],
    services: &Value,
) -> anyhow::Result<()> {
    let mut command = clean(&binaries.agent);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command.args(["apply", "--cluster", "bench", "--store"]).arg(store);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().context("starting agent apply")?;
    let mut stdin = child.stdin.take().context("agent apply has no stdin")?;
    stdin.write_all(json!({ "services": services }).to_string().as_bytes()).await?;
    drop(stdin);
    let output = timeout(CTL_LIMIT, child.wait_with_output()).await.context("agent apply did not end")??;
    let answer: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("agent apply: {}", String::from_utf8_lossy(&output.stderr)))?;
    match answer["mistakes"].as_array() {
        Some(mistakes) if mistakes.is_empty() => Ok(()),
        _ => bail!("agent apply: {answer}"),
    }
}

/// A command without our settings in its environment.
fn clean(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("COTERIE_") {
            command.env_remove(name);
        }
    }
    command
}

/// The command of `ctl`, without our settings in its environment and with its state in a folder. It ends with its
/// handle.
pub(crate) fn ctl(binaries: &Binaries, state: &Path) -> Command {
    let mut command = clean(&binaries.ctl);
    command.env("COTERIE_STATE_DIR", state).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// A cluster that `ctl` starts. Dropping it runs `ctl down`.
#[derive(Debug)]
pub(crate) struct CtlCluster {
    binaries: Binaries,
    folder: TempDir,
    is_up: bool,
}

impl CtlCluster {
    /// A cluster with the manifest of the demo, for `nodes` nodes.
    pub(crate) fn new(binaries: Binaries, nodes: usize) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let gateways = nodes.min(2);
        let mut manifest = format!(
            "cluster: bench\nprofile: local\nnodes:\n  - id: gateway\n    service: api_gateway\n    count: {gateways}\n"
        );
        if nodes > gateways {
            let standbys = nodes - gateways;
            manifest += &format!("  - id: standby\n    service: standby\n    count: {standbys}\n");
        }
        std::fs::write(folder.path().join("bench.yaml"), manifest)?;
        Ok(Self { binaries, folder, is_up: false })
    }

    /// Runs `ctl up`. Returns the time it took.
    pub(crate) async fn up(&mut self) -> anyhow::Result<Duration> {
        self.is_up = true;
        let manifest = self.folder.path().join("bench.yaml");
        self.run([OsStr::new("up"), manifest.as_os_str()]).await
    }

    /// The process ids of the agents' parents.
    pub(crate) fn parents(&self) -> anyhow::Result<Vec<u32>> {
        let run = self.folder.path().join("run/bench");
        let mut parents = Vec::new();
        for entry in std::fs::read_dir(&run).with_context(|| format!("reading {}", run.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == PidFile::EXTENSION) {
                let file: PidFile = serde_json::from_slice(&std::fs::read(&path)?)?;
                parents.extend(file.parent.map(|parent| parent.pid));
            }
        }
        Ok(parents)
    }

    pub(crate) async fn down(&mut self) -> anyhow::Result<Duration> {
        let took = self.run(["down", "--cluster", "bench", "--purge", "--yes"].map(OsStr::new)).await?;
        self.is_up = false;
        Ok(took)
    }

    async fn run<const N: usize>(&self, args: [&OsStr; N]) -> anyhow::Result<Duration> {
        let mut command = ctl(&self.binaries, self.folder.path());
        command.args(args);
        let began = Instant::now();
        let output = timeout(CTL_LIMIT, command.output())
            .await
            .with_context(|| format!("ctl {args:?} did not end"))??;
        let took = began.elapsed();
        if !output.status.success() {
            bail!("ctl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(took)
    }
}

impl Drop for CtlCluster {
    fn drop(&mut self) {
        if self.is_up {
            // The last resort of an interrupted bench; errors can't be reported any more.
            let _ = std::process::Command::new(&self.binaries.ctl)
                .env("COTERIE_STATE_DIR", self.folder.path())
                .args(["down", "--cluster", "bench", "--timeout", "2s"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
        }
    }
}
