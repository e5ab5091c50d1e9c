//! The agent: one node of a cluster, from its arguments to its exit code.
//!
//! The binary of this crate is [`main`] with [`builtin()`], the plugins that come with Coterie. An agent with your own
//! plugin is as short, has every flag and verb, and needs this crate as its only dependency:
//!
//! ```no_run
//! use std::process::ExitCode;
//! use std::sync::Arc;
//!
//! use agent::plugin::axum::{Router, routing::get};
//! use agent::plugin::serde_json::Value;
//! use agent::plugin::types::{ServiceType, Sharding};
//! use agent::plugin::{
//!     Context, Health, NoSettings, Plugin, Prepared, Service, ServiceError, SettingsError, async_trait, parse_settings,
//! };
//!
//! struct Hello;
//!
//! impl Plugin for Hello {
//!     fn service_type(&self) -> ServiceType {
//!         "hello".parse().expect("the name follows the rule")
//!     }
//!     fn about(&self) -> &'static str {
//!         "says hello"
//!     }
//!     fn sharding(&self) -> Sharding {
//!         Sharding::None
//!     }
//!     fn prepare(&self, settings: &Value) -> Result<Box<dyn Prepared>, SettingsError> {
//!         parse_settings::<NoSettings>(settings)?;
//!         Ok(Box::new(Ready))
//!     }
//! }
//!
//! struct Ready;
//!
//! #[async_trait]
//! impl Prepared for Ready {
//!     async fn start(self: Box<Self>, _cx: Context) -> Result<Arc<dyn Service>, ServiceError> {
//!         Ok(Arc::new(Running))
//!     }
//! }
//!
//! struct Running;
//!
//! impl Service for Running {
//!     fn routes(self: Arc<Self>) -> Router {
//!         Router::new().route("/", get(async || "hello"))
//!     }
//!     fn health(&self) -> Health {
//!         Health::Ready
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     agent::main(agent::builtin().with(Hello))
//! }
//! ```
//!
//! `ctl up --agent-bin PATH` starts a cluster with it. `docs/plugin-guide.org` leads from `cargo new` to there.

mod apply;
mod banner;
mod builtin;
mod cli;
mod demo;
mod log;
mod output;
mod run_mark;
mod settings;
mod settings_of_types;
mod supervise;
mod validate;

use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser};
use plugin::Registry;
use runtime::{Config, NodeError};
use tokio::signal::unix::SignalKind;

pub use crate::builtin::builtin;
use crate::cli::{Cli, Verb};
use crate::output::complain;
use crate::settings::{Settings, SettingsError};

pub use plugin;

/// The system's allocator never returns memory that many connections used for a short time. A program with another
/// global allocator must disable the feature `jemalloc`.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Any other error.
const FAILED: u8 = 1;
/// The command line, the environment or the config file is wrong.
const USAGE: u8 = 2;
/// Aborted by a second signal.
const INTERRUPTED: u8 = 130;

/// The complete `main` of an agent with these plugins: every flag and verb, logs, banner and exit codes.
pub fn main(registry: Registry) -> ExitCode {
    let cli = Cli::parse_from(cli::with_hyphens(std::env::args_os()));
    let outcome = match &cli.verb {
        Some(Verb::Supervise { file, adopt }) => supervise::run(file, *adopt),
        _ => run(&cli, registry).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| report(&error))
}

fn run(cli: &Cli, registry: Registry) -> anyhow::Result<()> {
    settings::check_environment(std::env::vars_os())?;
    let environment = |name: &str| std::env::var(name).ok();
    match &cli.verb {
        Some(Verb::Version) => {
            return output::print(concat!("agent ", env!("CARGO_PKG_VERSION"), "\n"));
        }
        Some(Verb::Completion { shell }) => return output::print(&completion(*shell)),
        Some(Verb::Validate { schema: true }) => return validate::print_schema(&registry),
        Some(Verb::Validate { schema: false }) => return validate::run(&registry),
        Some(Verb::Settings { service, output }) => {
            return settings_of_types::run(&registry, service, *output);
        }
        Some(Verb::Config { output }) => {
            return output::print(&Settings::gather(&cli.flags, &environment)?.render(*output)?);
        }
        Some(Verb::Apply) => {
            let settings = Settings::gather(&cli.flags, &environment)?;
            let url = settings.store()?.context("--store is missing")?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            return runtime.block_on(apply::run(&registry, &url, &settings.cluster()?));
        }
        Some(Verb::Supervise { .. }) | None => {}
    }
    let settings = Settings::gather(&cli.flags, &environment)?;
    let file = settings.log_file()?;
    let log = log::start(settings.log_filter(), settings.log_json()?, file.as_deref())?;
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    raise_file_limit();
    let outcome = threads.block_on(node(&settings, registry, &log));
    threads.shutdown_background();
    if let Err(error) = &outcome
        && log.is_file()
    {
        tracing::error!(error = in_full(error), hint = hint(error), "the agent ends");
    }
    if !settings.is_demo()? {
        run_mark::ended(&settings.config()?.data_dir, &outcome);
    }
    outcome
}

/// The completion script for a shell.
fn completion(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), own_name(), &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The name of this program.
fn own_name() -> String {
    let path = std::env::args_os().next().map(std::path::PathBuf::from).unwrap_or_default();
    path.file_stem().map_or_else(|| "agent".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Runs the node, or the nodes of the demo, until the end.
async fn node(settings: &Settings, registry: Registry, log: &log::Log) -> anyhow::Result<()> {
    let reopening = async {
        let mut hangups = tokio::signal::unix::signal(SignalKind::hangup())?;
        while hangups.recv().await.is_some() {
            log.reopen();
        }
        std::future::pending::<anyhow::Result<()>>().await
    };
    let running = async {
        if settings.is_demo()? {
            return demo::run(settings, &registry).await;
        }
        let (restarts, last_end) = run_mark::earlier_ends();
        let config = Config { restarts, last_end, dropped_log_lines: log.dropped(), ..settings.config()? };
        let show = async |node: &runtime::Node| {
            tokio::join!(banner::show(node), run_mark::when_ready(node));
        };
        Ok(runtime::run_and_show(config, registry, show).await?)
    };
    tokio::select! {
        biased;
        outcome = Box::pin(running) => outcome,
        failed = reopening => failed.context("hang-ups can't be listened for"),
    }
}

/// The error and its causes, without repetitions.
fn in_full(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| {
        let cause = cause.to_string();
        if text.is_empty() {
            cause
        } else if text.contains(&cause) {
            text
        } else {
            format!("{text}: {cause}")
        }
    })
}

/// Every connection is an open file, and the usual limit of 1,024 is for programs that still use select(2).
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, ?limit, "the limit of open files could not be raised");
    }
}

fn report(error: &anyhow::Error) -> ExitCode {
    if error.is::<manifest::Mistakes>() {
        // Its text has "error:" before each mistake.
        complain(&error.to_string());
    } else {
        complain(&format!("error: {}", in_full(error)));
    }
    if let Some(hint) = hint(error) {
        complain(&format!("hint: {hint}"));
    }
    ExitCode::from(exit_code(error))
}

/// The exit code of an error, as `agent --help` lists them.
fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(error) = error.downcast_ref::<NodeError>() {
        return match error {
            NodeError::Aborted => INTERRUPTED,
            NodeError::Role(_)
            | NodeError::KeptRole(_)
            | NodeError::Shards(_)
            | NodeError::Settings { .. } => USAGE,
            _ => FAILED,
        };
    }
    let is_usage = error.is::<SettingsError>()
        || error.is::<plugin::RegistryError>()
        || error.is::<manifest::Mistakes>()
        || error.is::<log::LogError>();
    if is_usage { USAGE } else { FAILED }
}

/// What to do about an error, if there is a hint.
fn hint(error: &anyhow::Error) -> Option<String> {
    error.downcast_ref::<NodeError>().and_then(NodeError::hint)
}
