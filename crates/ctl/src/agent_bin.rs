//! The agent binary: how ctl finds it, and what it reports about settings.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use types::api::StoreInfo;
use types::apply::{Held, Ours};
use types::{ClusterId, ServiceName, ServiceType, Spec};

use crate::exit::{Exit, Failure};
use crate::listens::Listens;
use crate::out::say;
use crate::reach::Cx;
use crate::record::agent_of;
use crate::state::State;

const VALIDATE_LIMIT: Duration = Duration::from_secs(10);
/// Long enough to test a distant store.
const APPLY_LIMIT: Duration = Duration::from_secs(60);
const ENV_PREFIX: &str = "COTERIE_";

/// The input of `agent validate`.
#[derive(Serialize)]
struct Question<'a> {
    store: Option<&'a str>,
    services: &'a BTreeMap<ServiceName, Value>,
    types: &'a BTreeMap<ServiceName, ServiceType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    folder: Option<&'a Path>,
    #[serde(flatten)]
    whole: Option<Whole>,
}

/// What only a whole manifest says.
#[derive(Debug, Serialize)]
pub(crate) struct Whole {
    /// Whether services may listen on addresses that are open to the network.
    pub(crate) insecure: bool,
    /// The services that its nodes run.
    pub(crate) roles: BTreeSet<ServiceName>,
    /// Whether some of them are standbys.
    pub(crate) has_standbys: bool,
}

/// The output of `agent validate`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Validation {
    /// The service types that this agent can run.
    pub(crate) types: Vec<RunnableType>,
    /// Mistakes in the settings.
    pub(crate) mistakes: Vec<SettingsMistake>,
    /// What would not work with the files that settings name.
    #[serde(default)]
    pub(crate) warnings: Vec<SettingsMistake>,
    /// Mistakes in the store's URL.
    #[serde(default)]
    pub(crate) store: Option<String>,
    /// The addresses that services bind with these settings.
    #[serde(default)]
    pub(crate) listens: Listens,
    /// Settings in which paths were made absolute.
    #[serde(default)]
    pub(crate) resolved: BTreeMap<ServiceName, Value>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RunnableType {
    pub(crate) name: ServiceType,
    pub(crate) sharded: bool,
    pub(crate) owned: bool,
    /// Whether other nodes may have replicas of its shards.
    #[serde(default)]
    pub(crate) replicated: bool,
    /// What it does, in a line.
    #[serde(default)]
    pub(crate) about: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct SettingsMistake {
    pub(crate) service: ServiceName,
    /// JSON pointer below the settings.
    pub(crate) pointer: String,
    /// Whether the key is wrong, not its value.
    #[serde(default)]
    pub(crate) at_key: bool,
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) hint: Option<String>,
}

/// The named binary, else the one beside ctl, else the one on the PATH.
pub(crate) fn find(named: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(path) = named {
        return if path.is_file() {
            Ok(path.to_owned())
        } else {
            Err(Failure::new(Exit::Usage, format!("--agent-bin {} is not a file", path.display())))
        };
    }
    let own = std::env::current_exe().ok();
    let search = std::env::var_os("PATH").unwrap_or_default();
    let candidates = candidates(own.as_deref(), std::env::split_paths(&search));
    candidates.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        Failure::new(Exit::Error, "there is no `agent` beside ctl and none on the PATH")
            .hint("build it with `cargo build`, or name it with --agent-bin")
    })
}

/// The named binary, else the one that was named for the cluster before, else what [`find`] finds.
pub(crate) fn of_cluster(
    named: Option<&Path>,
    state: &State,
    cluster: Option<&ClusterId>,
) -> anyhow::Result<PathBuf> {
    let remembered = match cluster {
        Some(cluster) if named.is_none() => agent_of(state, cluster)?.map(|path| (path, cluster)),
        _ => None,
    };
    match remembered {
        Some((path, _)) if path.is_file() => Ok(path),
        Some((path, cluster)) => {
            let message = format!("{}, which cluster `{cluster}` was started with, is gone", path.display());
            Err(Failure::new(Exit::Usage, message).hint("name another with --agent-bin").into())
        }
        None => Ok(find(named)?),
    }
}

/// The same for what can be done without an agent, with a warning of what there is not then. One that is named must be
/// there.
pub(crate) fn or_warn(
    named: Option<&Path>,
    cx: &Cx,
    cluster: Option<&ClusterId>,
    without: &str,
) -> anyhow::Result<Option<PathBuf>> {
    match of_cluster(named, &cx.state, cx.cluster.as_ref().or(cluster)) {
        Ok(agent) => Ok(Some(agent)),
        Err(failure) if named.is_some() => Err(failure),
        Err(failure) => {
            say(&format!("warning: {without}: {failure}"));
            Ok(None)
        }
    }
}

fn candidates(own: Option<&Path>, path: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
    let name = format!("agent{}", std::env::consts::EXE_SUFFIX);
    let beside = own.and_then(Path::parent).map(Path::to_owned);
    let folders = beside.into_iter().chain(path);
    folders.map(|folder| folder.join(&name)).collect()
}

/// A command that runs the binary without our own settings in its environment.
pub(crate) fn command(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with(ENV_PREFIX) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs `agent validate`: which types the binary runs, and whether these settings and this store are valid. Paths in
/// settings are relative to `folder`. With `whole`, addresses and targets are checked, too.
pub(crate) async fn validate(
    binary: &Path,
    store: Option<&str>,
    services: &BTreeMap<ServiceName, Value>,
    types: &BTreeMap<ServiceName, ServiceType>,
    folder: Option<&Path>,
    whole: Option<Whole>,
) -> anyhow::Result<Validation> {
    let question = Question { store, services, types, folder, whole };
    ask(binary, &["validate"], &question, VALIDATE_LIMIT).await
}

/// Gets from the binary the schema of the settings of each type that it runs.
pub(crate) async fn settings_schema(binary: &Path) -> anyhow::Result<BTreeMap<ServiceType, Value>> {
    ask(binary, &["validate", "--schema"], &Value::Null, VALIDATE_LIMIT).await
}

/// The input of `agent apply` for one service.
#[derive(Debug, Serialize)]
pub(crate) struct Wanted {
    /// The type, if it differs from the service's name.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(crate) service_type: Option<ServiceType>,
    pub(crate) settings: Value,
    /// The exact number of shards.
    pub(crate) shards: Option<u32>,
    /// The least number of shards, for a store without a spec of the service.
    pub(crate) at_least: Option<u32>,
    /// Replicas of each shard.
    pub(crate) replicas: u32,
}

/// The input of `agent apply`.
#[derive(Debug, Serialize)]
struct Application<'a> {
    uses: Option<&'a StoreInfo>,
    ours: &'a Ours,
    services: &'a BTreeMap<ServiceName, Wanted>,
}

/// The output of `agent apply`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Applied {
    /// The numbers of the specs now in force.
    pub(crate) specs: BTreeMap<ServiceName, u64>,
    /// Their numbers of shards, where fixed.
    #[serde(default)]
    pub(crate) shards: BTreeMap<ServiceName, u32>,
    /// The specs that were replaced.
    #[serde(default)]
    pub(crate) replaced: BTreeMap<ServiceName, Spec>,
    /// Owners of shards that are alive and do not belong to the cluster. If there are any, nothing was written.
    #[serde(default)]
    pub(crate) held: Vec<Held>,
    /// All mistakes.
    pub(crate) mistakes: Vec<ApplyMistake>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ApplyMistake {
    /// The type, or none for the store itself.
    pub(crate) service: Option<ServiceName>,
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) hint: Option<String>,
}

/// Runs `agent apply`, which writes the specs of services to a cluster's store. `uses` is the store that a running
/// cluster uses already; `ours` lists who may own its shards.
pub(crate) async fn apply(
    binary: &Path,
    cluster: &ClusterId,
    store: &OsStr,
    uses: Option<&StoreInfo>,
    ours: &Ours,
    services: &BTreeMap<ServiceName, Wanted>,
) -> anyhow::Result<Applied> {
    let arguments =
        [OsStr::new("apply"), "--cluster".as_ref(), cluster.as_str().as_ref(), "--store".as_ref(), store];
    ask(binary, &arguments, &Application { uses, ours, services }, APPLY_LIMIT).await
}

/// Runs a verb of the binary that reads JSON and writes JSON.
async fn ask<T: DeserializeOwned>(
    binary: &Path,
    arguments: &[impl AsRef<OsStr>],
    question: &impl Serialize,
    limit: Duration,
) -> anyhow::Result<T> {
    let verb =
        arguments.first().map_or_else(String::new, |verb| verb.as_ref().to_string_lossy().into_owned());
    let question = serde_json::to_vec(question)?;
    let mut child = command(binary)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {}", binary.display()))?;
    let stdin = child.stdin.take();
    let ask = async {
        if let Some(mut stdin) = stdin {
            // An agent that exits before it has read everything reports why on stderr.
            let _ = stdin.write_all(&question).await;
        }
    };
    let answer = async { tokio::join!(ask, child.wait_with_output()).1 };
    let not_ours = |why: String| {
        Failure::new(Exit::Error, format!("`{} {verb}` {why}", binary.display()))
            .hint("is it Coterie's agent, and of the same version as ctl? name another with --agent-bin")
    };
    let output = tokio::time::timeout(limit, answer)
        .await
        .map_err(|_elapsed| not_ours(format!("did not answer within {limit:?}")))??;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        if let Some(failure) = agent_failure(&said, binary, &verb) {
            return Err(failure.into());
        }
        return Err(not_ours(format!("failed, {}: {}", output.status, said.trim())).into());
    }
    let answer = serde_json::from_slice(&output.stdout)
        .map_err(|error| not_ours(format!("gave an answer that is not understood: {error}")))?;
    Ok(answer)
}

/// The failure that our agent reports on stderr; `None` if the output is not from our agent.
fn agent_failure(said: &str, binary: &Path, verb: &str) -> Option<Failure> {
    let mut lines = said.trim().lines();
    let message = lines.next()?.strip_prefix("error: ")?;
    if message.starts_with("unrecognized subcommand") || message.starts_with("unexpected argument") {
        return None;
    }
    let hint = lines.find_map(|line| line.strip_prefix("hint: "));
    let failure = Failure::new(Exit::Error, format!("`{} {verb}`: {message}", binary.display()));
    Some(match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_names_the_cause_is_not_suspected_to_be_another_program() {
        let words =
            |said: &str| agent_failure(said, Path::new("agent"), "apply").map(|failure| failure.to_string());
        assert_eq!(
            words("error: the store is away\nhint: mend it\n").as_deref(),
            Some("`agent apply`: the store is away")
        );
        for said in ["", "agent: not found", "error: unrecognized subcommand 'apply'\n\nUsage: agent"] {
            assert_eq!(words(said), None, "{said}");
        }
    }

    #[test]
    fn the_agent_beside_ctl_comes_before_those_on_the_path() {
        let path = ["/usr/bin", "/bin"].map(PathBuf::from);
        assert_eq!(
            candidates(Some(Path::new("/opt/ctl")), path),
            ["/opt/agent", "/usr/bin/agent", "/bin/agent"].map(PathBuf::from)
        );
    }
}
