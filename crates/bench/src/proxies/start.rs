//! Starts proxies on their core, and waits until each one answers correctly at all of its addresses.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use http::header::HOST;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::node_config::NodeConfig;
use crate::ours::{self, Binaries};
use crate::ports;
use crate::proc::{anonymous_mib, cpu_with_ended_threads, with_children};
use crate::process::Process;
use crate::proxies::backend::{Body, Site, nginx};
use crate::proxies::cores::{Cores, pinned};
use crate::proxies::find::Program;
use crate::proxies::idle::{self, Kind};
use crate::proxies::{Addresses, Layer, Proxy, config};
use crate::wire::Connection;

/// The time limit of a start.
const LIMIT: Duration = Duration::from_secs(60);
/// The time limit of one request.
const ANSWER: Duration = Duration::from_secs(5);

/// What all proxies are started with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stage<'a> {
    pub(crate) binaries: &'a Binaries,
    pub(crate) cores: Cores,
    pub(crate) site: &'a Site,
    pub(crate) layer: Layer,
    /// Each proxy gets a folder of its own in this one.
    pub(crate) folder: &'a Path,
}

/// What our agent runs, and the layer of the proxies beside it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ours {
    pub(crate) layer: Layer,
    /// The service type.
    pub(crate) service: &'static str,
    /// Its settings, which may name files in the proxy's folder.
    pub(crate) settings: fn(&Addresses, &Site, &Path) -> Value,
}

/// A running proxy. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) addresses: Addresses,
    process: Process,
}

impl Stage<'_> {
    /// Starts one of the other proxies. `name` is that of its folder.
    pub(crate) async fn start(&self, proxy: Proxy, program: &Program, name: &str) -> anyhow::Result<Running> {
        let (addresses, folder) = (Addresses::free()?, self.own(name)?);
        let (layer, site) = (self.layer, self.site);
        let mut command = match proxy {
            Proxy::Ours => bail!("the agent is started with its settings"),
            Proxy::Nginx | Proxy::NginxMainline => {
                let is_mainline = proxy == Proxy::NginxMainline;
                nginx(
                    &program.binary,
                    &folder,
                    &config::nginx(layer, &addresses, site, &folder, is_mainline),
                )?
            }
            Proxy::Haproxy => {
                let file = write(&folder, "haproxy.cfg", &config::haproxy(layer, &addresses, site))?;
                let mut command = Command::new(&program.binary);
                command.args(["-db", "-f"]).arg(file);
                command
            }
            Proxy::Envoy => {
                let text = config::envoy(layer, &addresses, site).to_string();
                let mut command = Command::new(&program.binary);
                command.arg("-c").arg(write(&folder, "envoy.json", &text)?);
                command.args(["--concurrency", "1", "--disable-hot-restart", "-l", "error"]);
                command
            }
            Proxy::Traefik => {
                let routes = folder.join("routes.yaml");
                let (arguments, file) = config::traefik(layer, &addresses, site, &routes);
                // JSON is YAML.
                write(&folder, "routes.yaml", &file.to_string())?;
                let mut command = Command::new(&program.binary);
                command.args(arguments);
                command
            }
            Proxy::Caddy => {
                let mut command = Command::new(&program.binary);
                command.args(["run", "--adapter", "caddyfile", "--config"]);
                command.arg(write(&folder, "Caddyfile", &config::caddy(&addresses, site))?);
                command
            }
        };
        // What they keep beside their configuration goes to the same folder.
        command
            .current_dir(&folder)
            .env("HOME", &folder)
            .env("XDG_DATA_HOME", &folder)
            .env("GOMAXPROCS", "1");
        self.spawn(&command, addresses, &folder).await.with_context(|| format!("starting {proxy}"))
    }

    /// Starts our agent with the role of a service type and settings, which may name files in the proxy's folder.
    /// `name` is that of its folder.
    pub(crate) async fn start_ours(
        &self,
        service: &'static str,
        settings: impl Fn(&Addresses, &Site, &Path) -> Value,
        name: &str,
    ) -> anyhow::Result<Running> {
        let (addresses, folder) = (Addresses::free()?, self.own(name)?);
        let store = folder.join("store");
        let spec = json!({ service: { "settings": settings(&addresses, self.site, &folder) } });
        ours::apply(self.binaries, store.as_os_str(), &[], &spec).await?;
        let config = NodeConfig {
            name: "proxy".to_owned(),
            role: service,
            gossip: ports::free()?,
            api: ports::free()?,
        };
        let mut command = ours::command(self.binaries, &config, &[], &folder);
        command.arg("--store").arg(&store);
        self.spawn(&command, addresses, &folder).await.with_context(|| format!("starting {service}"))
    }

    fn own(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.folder.join(name);
        std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        Ok(folder)
    }

    /// Starts a command on the proxies' core, and waits until it answers.
    async fn spawn(&self, command: &Command, addresses: Addresses, folder: &Path) -> anyhow::Result<Running> {
        const PAUSE: Duration = Duration::from_millis(20);
        let mut command_on_core = pinned(self.cores.proxy, command);
        if let Some(folder) = command.as_std().get_current_dir() {
            command_on_core.current_dir(folder);
        }
        let process = Process::spawn(command_on_core, folder.join("log"))?;
        let mut running = Running { addresses, process };
        let began = Instant::now();
        loop {
            let Err(error) = check(&addresses, self.layer).await else { return Ok(running) };
            let tail = running.process.log_tail();
            if let Some(status) = running.process.has_ended() {
                bail!("it ended with {status}; its log ends with\n{tail}");
            }
            if began.elapsed() > LIMIT {
                bail!("it does not answer: {error:#}; its log ends with\n{tail}");
            }
            sleep(PAUSE).await;
        }
    }
}

impl Running {
    /// The CPU time of all of its processes.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        with_children(self.process.id()?)?.into_iter().map(cpu_with_ended_threads).sum()
    }

    /// The memory of all of its processes without file-backed pages, in KiB.
    pub(crate) fn anonymous_kib(&self) -> anyhow::Result<f64> {
        let each = with_children(self.process.id()?)?.into_iter().map(anonymous_mib);
        Ok(each.sum::<anyhow::Result<f64>>()? * 1_024.0)
    }

    /// Kills it, and waits until its process has exited.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        // The process may have exited already.
        let _ = self.process.signal(rustix::process::Signal::KILL);
        self.process.ended().await
    }
}

/// Requests both files at each address.
async fn check(addresses: &Addresses, layer: Layer) -> anyhow::Result<()> {
    let kinds = match layer {
        Layer::Http => Kind::ALL.as_slice(),
        Layer::Tcp => &[Kind::Http1],
    };
    for kind in kinds {
        let mut connection =
            timeout(ANSWER, idle::open(addresses, *kind)).await.context("no connection")??;
        for body in Body::ALL {
            fetch(&mut connection, *kind, body).await.with_context(|| format!("{kind}, {}", body.name()))?;
        }
    }
    Ok(())
}

/// Requests a file, which must arrive whole.
pub(crate) async fn fetch(connection: &mut Connection, kind: Kind, body: Body) -> anyhow::Result<()> {
    let path = body.path();
    let request = match kind {
        Kind::Http2 => Request::builder().uri(format!("http://localhost/{path}")),
        Kind::Http1 | Kind::Tls => Request::builder().uri(format!("/{path}")).header(HOST, "localhost"),
    };
    let request = request.method(Method::GET).body(Full::default())?;
    let answer = timeout(ANSWER, connection.send(request)).await.context("no answer")??;
    if answer.status != StatusCode::OK || answer.body.len() != body.length() {
        bail!("{} with {} bytes: {}", answer.status, answer.body.len(), answer.excerpt());
    }
    Ok(())
}

fn write(folder: &Path, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let file = folder.join(name);
    std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
}
