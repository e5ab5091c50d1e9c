//! Shell completion: the current nodes, services and clusters.
//!
//! The shell runs ctl itself with the words of the command line. Names that can't be found within [`LIMIT`] are not
//! offered.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::time::Duration;

use clap_complete::{ArgValueCandidates, CompletionCandidate};
use client::Client;
use types::Role;
use types::api::Members;

use crate::hints;
use crate::out::{ColorChoice, Out};
use crate::reach::Cx;
use crate::state::State;

/// The variable by which the shell requests candidates.
pub(crate) const VARIABLE: &str = "_CTL_COMPLETE";
/// How long a cluster may take to list its members.
const LIMIT: Duration = Duration::from_millis(400);
/// The type of services that have indexes.
const SEARCHER: &str = "searcher";

/// Members of the cluster that the command line is about.
pub(crate) fn nodes() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let cx = context();
        let record = cx.as_ref().and_then(|cx| cx.local().ok()?);
        let recorded = record.iter().flat_map(|record| &record.nodes);
        let mut names: BTreeSet<String> = recorded.map(|node| node.id.to_string()).collect();
        let members = cx.as_ref().and_then(members);
        names.extend(members.iter().flat_map(|view| &view.members).map(|member| member.id.to_string()));
        candidates(names)
    })
}

/// Roles that a node can be given.
pub(crate) fn services() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let members = context().as_ref().and_then(members);
        let members = || members.iter().flat_map(|view| &view.members);
        let runnable = members().flat_map(|member| &member.about.runnable);
        let mut names: BTreeSet<String> = runnable.map(ToString::to_string).collect();
        let states = members().filter_map(|member| member.state.as_ref());
        names.extend(states.filter_map(|state| Some(state.role.service()?.to_string())));
        names.insert(Role::STANDBY.to_owned());
        candidates(names)
    })
}

/// Indexes of the service that the command line names, else of every service of the type `searcher`.
pub(crate) fn indexes() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(context().as_ref().and_then(index_names).unwrap_or_default()))
}

/// Clusters on this machine, including stopped ones.
pub(crate) fn clusters() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let Ok(state) = State::from_env() else { return Vec::new() };
        let found = [state.clusters(), state.with_data()].into_iter().flatten().flatten();
        candidates(found.map(|cluster| cluster.to_string()).collect())
    })
}

fn candidates(names: BTreeSet<String>) -> Vec<CompletionCandidate> {
    names.into_iter().map(CompletionCandidate::new).collect()
}

/// What follows a flag on the command line.
fn after(flag: &str) -> Option<String> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let apart = words.iter().skip_while(|word| *word != flag).nth(1).and_then(|word| word.to_str());
    let joined = words.iter().find_map(|word| word.to_str()?.strip_prefix(flag)?.strip_prefix('='));
    apart.or(joined).map(str::to_owned)
}

/// The cluster that the command line names, as the verbs would parse it.
fn context() -> Option<Cx> {
    Some(Cx {
        state: State::from_env().ok()?,
        out: Out::new(ColorChoice::Never),
        agent: after("--agent").or_else(hints::agent_from_env),
        cluster: after("--cluster").and_then(|name| name.parse().ok()),
    })
}

fn members(cx: &Cx) -> Option<Members> {
    within_limit(view(cx))
}

async fn view(cx: &Cx) -> Option<Members> {
    let url = match (&cx.agent, &cx.cluster) {
        (Some(agent), None) => agent.clone(),
        _ => return cx.reach_recorded().await,
    };
    Client::new(&url).ok()?.members().await.ok()
}

fn index_names(cx: &Cx) -> Option<BTreeSet<String>> {
    let named = after("--service");
    within_limit(async {
        let view = view(cx).await?;
        let mut names = BTreeSet::new();
        let mut asked = BTreeSet::new();
        for member in &view.members {
            let Some(state) = member.state.as_ref().filter(|state| state.phase.is_serving()) else {
                continue;
            };
            let Some(service) = state.role.service() else { continue };
            let is_wanted = match &named {
                Some(named) => service.as_str() == named,
                None => state.service_type().is_some_and(|service_type| service_type.as_str() == SEARCHER),
            };
            if is_wanted && asked.insert(service.clone()) {
                let client = Client::new(&member.http).ok()?.with_service(service.clone());
                names.extend(client.indexes().await.ok()?.into_iter().map(|index| index.name));
            }
        }
        Some(names)
    })
}

fn within_limit<T>(asked: impl Future<Output = Option<T>>) -> Option<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(async { tokio::time::timeout(LIMIT, asked).await.ok().flatten() })
}
