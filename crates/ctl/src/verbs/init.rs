//! `ctl init`: a commented manifest to start from, with every service type that the agent has.

mod starter;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;

use crate::agent_bin;
use crate::exit::{Exit, Failure};
use crate::out::say;
use crate::reach::Cx;
use starter::{Shown, manifest};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl init
  ctl init clusters/test.yaml
  ctl init - > test.yaml
  ctl init --agent-bin target/debug/my-agent")]
pub(crate) struct Args {
    /// Where to write it, `-` for standard output; an existing file is left alone
    #[arg(default_value = "coterie.yaml")]
    file: PathBuf,
    /// The agent whose service types it shows [default: the one that --cluster was started with, else
    /// beside ctl, else on the PATH]
    #[arg(long, value_name = "PATH")]
    agent_bin: Option<PathBuf>,
}

pub(crate) async fn run(args: &Args, cx: &Cx) -> anyhow::Result<Exit> {
    let is_printed = args.file.as_os_str() == "-";
    if !is_printed && args.file.exists() {
        return Err(exists_already(&args.file).into());
    }
    let text = manifest(&types(args, cx).await?, cx.cluster.as_ref());
    if is_printed {
        cx.out.line(&text)?;
        return Ok(Exit::Ok);
    }
    let shown = args.file.display();
    let mut file = match OpenOptions::new().write(true).create_new(true).open(&args.file) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(exists_already(&args.file).into());
        }
        Err(error) => return Err(error).with_context(|| format!("creating {shown}")),
    };
    file.write_all(text.as_bytes()).with_context(|| format!("writing {shown}"))?;
    let agent = args.agent_bin.as_ref().map(|agent| format!(" --agent-bin {}", agent.display()));
    say(&format!("wrote {shown}; `ctl up {shown}{}` starts it", agent.unwrap_or_default()));
    Ok(Exit::Ok)
}

fn exists_already(file: &Path) -> Failure {
    Failure::new(Exit::Error, format!("{} exists already", file.display()))
        .hint("name another file, as in `ctl init cluster.yaml`")
}

/// The service types that the agent has. Without an agent, only the gateway, and nothing of its settings.
async fn types(args: &Args, cx: &Cx) -> anyhow::Result<Vec<Shown>> {
    let without = "the manifest does not show what services there are";
    match agent_bin::or_warn(args.agent_bin.as_deref(), cx, None, without)? {
        None => Ok(vec![Shown::gateway()]),
        Some(agent) => match ask(&agent).await {
            Err(failure) if args.agent_bin.is_none() => {
                say(&format!("warning: {without}: {failure}"));
                Ok(vec![Shown::gateway()])
            }
            asked => asked,
        },
    }
}

async fn ask(agent: &Path) -> anyhow::Result<Vec<Shown>> {
    let (services, types) = (BTreeMap::new(), BTreeMap::new());
    let known = agent_bin::validate(agent, None, &services, &types, None, None);
    let (known, mut schemas) = tokio::try_join!(known, agent_bin::settings_schema(agent))?;
    let shown = known.types.into_iter().map(|known| Shown {
        schema: schemas.remove(&known.name).unwrap_or(Value::Null),
        name: known.name,
        about: known.about,
        sharded: known.sharded,
        replicated: known.replicated,
    });
    Ok(shown.collect())
}
