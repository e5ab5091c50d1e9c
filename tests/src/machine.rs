//! Runs the real binaries as a user does, with a separate state folder and cluster name. Nothing is left of them when
//! the test is over, however it ends.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};
use tokio::process::{Child, Command};

/// How long a command may take before it counts as hung.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);
/// How long the kernel may take to end a killed process.
const KERNEL_LIMIT: Duration = Duration::from_secs(10);
/// Between the ports that ctl chooses from and those that the kernel uses for outgoing connections.
const PORTS: std::ops::Range<u16> = 30_000..32_768;

/// The folder with `agent` and `ctl`, built by the cargo that runs the tests: `cargo test` alone does not build every
/// binary. It is quick when nothing has changed.
pub fn binaries() -> anyhow::Result<&'static Path> {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = FOLDER.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

/// An agent of `tests/examples`, built in the same way.
pub fn example(name: &str) -> anyhow::Result<PathBuf> {
    let folder = cargo_build(&["--workspace", "--example", name])?;
    Ok(folder.join("examples").join(name))
}

fn build() -> anyhow::Result<PathBuf> {
    cargo_build(&["-p", "agent", "-p", "ctl"])
}

/// Runs `cargo build` with these arguments into the folder that holds this test. Returns that folder.
fn cargo_build(arguments: &[&str]) -> anyhow::Result<PathBuf> {
    // TARGET/PROFILE/deps/NAME-HASH
    let exe = std::env::current_exe()?;
    let folder = exe.parent().and_then(Path::parent).context("a test is in target/PROFILE/deps")?;
    let profile = folder.file_name().and_then(|name| name.to_str()).context("a profile has a name")?;
    let target = folder.parent().context("a profile's folder is in the target folder")?;
    let mut cargo = std::process::Command::new(std::env::var_os("CARGO").unwrap_or(env!("CARGO").into()));
    cargo.args(["build", "--locked"]).args(arguments).arg("--target-dir").arg(target);
    // Variables that describe this test's package would make cargo rebuild other packages.
    let own = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(own)) {
        cargo.env_remove(name);
    }
    match profile {
        "debug" => {}
        profile => {
            cargo.args(["--profile", profile]);
        }
    }
    let output = cargo.current_dir(repository()).stdin(Stdio::null()).output().context("starting cargo")?;
    ensure!(output.status.success(), "cargo build failed:\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(folder.to_owned())
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate is in a folder of the repository")
}

/// A port that is free for TCP and UDP, and that no other test of this process gets.
pub fn free_port() -> anyhow::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let count = PORTS.end - PORTS.start;
    let start = u16::try_from(std::process::id() % u32::from(count))?;
    for _ in 0..count {
        let port = PORTS.start + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % count;
        if is_free(SocketAddr::from((Ipv4Addr::LOCALHOST, port))) {
            return Ok(port);
        }
    }
    bail!("no port in {PORTS:?} is free")
}

/// Whether both a TCP listener and a UDP socket can be opened there.
pub fn is_free(addr: SocketAddr) -> bool {
    TcpListener::bind(addr).is_ok() && UdpSocket::bind(addr).is_ok()
}

/// The output of a command, and its exit status.
#[derive(Debug)]
pub struct Said {
    what: String,
    status: ExitStatus,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    /// The exit code; `None` if a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Fails unless it ended with this code.
    pub fn exits(self, code: i32) -> anyhow::Result<Self> {
        let Self { what, status, out, err } = &self;
        ensure!(
            status.code() == Some(code),
            "`{what}` should end with {code}: {status}\n{out}--- stderr\n{err}"
        );
        Ok(self)
    }

    /// Fails unless standard error contains this.
    pub fn tells(self, text: &str) -> anyhow::Result<Self> {
        ensure!(self.err.contains(text), "`{}` should print `{text}`, but prints:\n{}", self.what, self.err);
        Ok(self)
    }

    /// Standard output as one JSON value.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.out).with_context(|| format!("`{}` printed:\n{}", self.what, self.out))
    }
}

/// A command that keeps running.
#[derive(Debug)]
pub struct Running {
    what: String,
    child: Child,
    pid: Pid,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends it a signal, unless it has just ended.
    pub fn signal(&self, signal: Signal) {
        if self.child.id().is_some() {
            let _ = kill_process(self.pid, signal);
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// What it has printed so far.
    pub fn out(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// What it has printed to standard error so far.
    pub fn err(&self) -> String {
        std::fs::read_to_string(&self.err).unwrap_or_default()
    }

    /// Waits until it has ended.
    pub async fn ends(mut self) -> anyhow::Result<Said> {
        let ended = tokio::time::timeout(COMMAND_LIMIT, self.child.wait()).await;
        let Ok(status) = ended else {
            bail!("`{}` does not end\n{}--- stderr\n{}", self.what, self.out(), self.err());
        };
        let status = status?;
        Ok(Said { out: self.out(), err: self.err(), what: self.what, status })
    }
}

/// A user's machine, with its own state folder and cluster name.
#[derive(Debug)]
pub struct Machine {
    folder: tempfile::TempDir,
    cluster: String,
    outputs: AtomicU16,
}

impl Machine {
    /// With the binaries built, and nothing started.
    pub fn new() -> anyhow::Result<Self> {
        binaries()?;
        let folder = tempfile::Builder::new().prefix("coterie-e2e-").tempdir()?;
        let name = folder.path().file_name().and_then(|name| name.to_str());
        let cluster = name.context("a temporary folder has a name")?.to_owned();
        Ok(Self { folder, cluster, outputs: AtomicU16::new(0) })
    }

    /// The folder of this machine, in which its commands run.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `COTERIE_STATE_DIR`.
    pub fn state(&self) -> PathBuf {
        self.folder().join("state")
    }

    /// A cluster name that no other test has.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The run folder of the cluster.
    pub fn run_dir(&self) -> PathBuf {
        self.state().join("run").join(&self.cluster)
    }

    /// Writes a file and returns its path.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<String> {
        let path = self.folder().join(name);
        std::fs::write(&path, text)?;
        Ok(path.to_str().context("temporary folders have plain names")?.to_owned())
    }

    /// Writes a manifest of the cluster and returns its path.
    pub fn manifest(&self, rest: &str) -> anyhow::Result<String> {
        self.write("cluster.yaml", &format!("cluster: {}\nprofile: local\n{rest}", self.cluster))
    }

    /// ctl's record of the cluster.
    pub fn record(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&std::fs::read(self.run_dir().join("cluster.json"))?)?)
    }

    /// A command that sees nothing but this machine.
    pub fn command(&self, program: &str, arguments: &[&str]) -> anyhow::Result<Command> {
        let folder = binaries()?;
        let own = folder.join(program);
        let program = if own.is_file() { own } else { PathBuf::from(program) };
        let mut command = Command::new(&program);
        // As typed by a user who has it on the PATH: messages repeat how it was called.
        command.arg0(program.file_name().unwrap_or(program.as_os_str()));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("COTERIE_") {
                command.env_remove(name);
            }
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path =
            std::env::join_paths(std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path)))?;
        command
            .args(arguments)
            .current_dir(self.folder())
            .env("PATH", path)
            .env("COTERIE_STATE_DIR", self.state())
            .env("COLUMNS", "100")
            .env_remove("RUST_LOG")
            .env_remove("NO_COLOR")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Ok(command)
    }

    /// Starts a command and lets it run; its output goes to files.
    pub fn start(&self, program: &str, arguments: &[&str]) -> anyhow::Result<Running> {
        self.start_with(program, arguments, &[])
    }

    /// The same with environment variables.
    pub fn start_with(
        &self,
        program: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Running> {
        let what = [&[program], arguments].concat().join(" ");
        let number = self.outputs.fetch_add(1, Ordering::Relaxed);
        let out = self.folder().join(format!("{number}.out"));
        let err = self.folder().join(format!("{number}.err"));
        let mut command = self.command(program, arguments)?;
        command.envs(environment.iter().copied()).stdout(File::create(&out)?).stderr(File::create(&err)?);
        let child = command.spawn().with_context(|| format!("starting {what}"))?;
        let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let pid = pid.context("it has just been started")?;
        Ok(Running { what, child, pid, out, err })
    }

    /// Runs ctl to its end.
    pub async fn ctl(&self, arguments: &[&str]) -> anyhow::Result<Said> {
        self.start("ctl", arguments)?.ends().await
    }

    /// Runs an agent to its end.
    pub async fn agent(&self, arguments: &[&str]) -> anyhow::Result<Said> {
        self.start("agent", arguments)?.ends().await
    }

    /// The names of all members, as seen by one of them; empty if no agent answers.
    pub async fn members(&self) -> anyhow::Result<Vec<String>> {
        let said = self.ctl(&["members", "--cluster", &self.cluster, "-o", "name"]).await?;
        Ok(said.out.lines().map(str::to_owned).collect())
    }

    /// Every process that names this machine's folder in its command line or environment.
    pub fn processes(&self) -> anyhow::Result<Vec<Pid>> {
        let mut system = System::new()?;
        let wanted = ProcessRefreshKind::nothing()
            .with_cmd(UpdateKind::Always)
            .with_environ(UpdateKind::Always)
            .without_tasks();
        system.refresh_processes_specifics(ProcessesToUpdate::All, true, wanted);
        let folder = self.folder().as_os_str().as_encoded_bytes();
        let names_us = |text: &std::ffi::OsString| {
            text.as_encoded_bytes().windows(folder.len()).any(|window| window == folder)
        };
        let ours = system.processes().values().filter(|process| {
            process.pid().as_u32() != std::process::id()
                && process.cmd().iter().chain(process.environ()).any(names_us)
        });
        Ok(ours.filter_map(|process| Pid::from_raw(i32::try_from(process.pid().as_u32()).ok()?)).collect())
    }

    /// Those of them that are agents of a cluster on this machine: their command lines name a data folder.
    pub fn agents(&self) -> anyhow::Result<Vec<Pid>> {
        let is_agent = |pid: &Pid| {
            let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            arguments.split(|byte| *byte == 0).any(|argument| argument == b"--data-dir")
        };
        Ok(self.processes()?.into_iter().filter(is_agent).collect())
    }

    /// Fails if anything of the cluster is left: a process, a record, a held lock.
    pub fn nothing_is_left(&self) -> anyhow::Result<()> {
        let processes = self.processes()?;
        ensure!(processes.is_empty(), "processes are left: {processes:?}");
        for name in ["cluster.json", "lock"] {
            ensure!(!self.run_dir().join(name).exists(), "{name} is left");
        }
        let nodes = self.state().join("data").join(&self.cluster);
        for node in std::fs::read_dir(nodes).into_iter().flatten() {
            let lock = node?.path().join("lock");
            if lock.exists() {
                File::open(&lock)?.try_lock().with_context(|| format!("{} is still held", lock.display()))?;
            }
        }
        Ok(())
    }

    /// Kills the remaining processes, and repeats until it finds none, since a ctl may still start agents.
    fn clear(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + KERNEL_LIMIT;
        loop {
            let left = self.processes()?;
            if left.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "processes {left:?} cannot be killed");
            for pid in left {
                // A process that has just ended needs no signal.
                let _ = kill_process(pid, Signal::KILL);
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            eprintln!("warning: {error:#}");
        }
    }
}
