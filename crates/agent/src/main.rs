//! The agent: one node of a cluster. Arguments in, exit code out.

mod apply;
mod banner;
mod cli;
mod demo;
mod log;
mod registry;
mod settings;
mod validate;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use runtime::NodeError;

use crate::cli::{Cli, Verb};
use crate::settings::{Settings, SettingsError};

/// The system's own keeps what many connections took for a moment, for good.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Something is wrong that is not the command line's fault.
const FAILED: u8 = 1;
/// The command line, the environment or the config file is wrong.
const USAGE: u8 = 2;
/// Ended by a second signal.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let cli = Cli::parse_from(cli::with_hyphens(std::env::args_os()));
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let environment = |name: &str| std::env::var(name).ok();
    match &cli.verb {
        Some(Verb::Version) => {
            println!("agent {}", env!("CARGO_PKG_VERSION"));
            return Ok(());
        }
        Some(Verb::Validate) => return validate::run(&registry::registry()),
        Some(Verb::Config { output }) => {
            print!("{}", Settings::gather(&cli.flags, &environment)?.render(*output)?);
            return Ok(());
        }
        Some(Verb::Apply) => {
            let settings = Settings::gather(&cli.flags, &environment)?;
            let url = settings.store()?.context("--store is missing")?;
            let registry = registry::registry();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            return runtime.block_on(apply::run(&registry, &url, &settings.cluster()?));
        }
        None => {}
    }
    let settings = Settings::gather(&cli.flags, &environment)?;
    log::start(settings.log_filter(), settings.log_json()?);
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    raise_file_limit();
    let outcome = threads.block_on(async {
        if settings.is_demo()? {
            return demo::run(&settings).await;
        }
        let show = async |node: &runtime::Node| banner::show(node).await;
        Ok(runtime::run_and_show(settings.config()?, registry::registry(), show).await?)
    });
    threads.shutdown_background();
    outcome
}

/// The error and what is below it, without what was said already.
fn in_full(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |told, cause| {
        let cause = cause.to_string();
        if told.is_empty() {
            cause
        } else if told.contains(&cause) {
            told
        } else {
            format!("{told}: {cause}")
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
        // It says "error:" itself, once for each.
        eprintln!("{error}");
    } else {
        eprintln!("error: {}", in_full(error));
    }
    if let Some(error) = error.downcast_ref::<NodeError>() {
        if let Some(hint) = error.hint() {
            eprintln!("hint: {hint}");
        }
        return ExitCode::from(match error {
            NodeError::Aborted => INTERRUPTED,
            NodeError::Role(_) | NodeError::KeptRole(_) | NodeError::Settings { .. } => USAGE,
            _ => FAILED,
        });
    }
    ExitCode::from(if error.is::<SettingsError>() || error.is::<manifest::Mistakes>() {
        USAGE
    } else {
        FAILED
    })
}
