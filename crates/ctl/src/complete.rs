//! What the shell offers at a press of tab: nodes, services and clusters, as they are now.
//!
//! The shell runs ctl itself with the words of the command line. What can't be found out in a moment is not offered.

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

/// The variable by which the shell asks for candidates.
pub(crate) const VARIABLE: &str = "_CTL_COMPLETE";
/// How long a cluster may take to say who is there.
const LIMIT: Duration = Duration::from_millis(400);

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

/// What a node can be told to do.
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

/// Clusters on this machine, also those that were stopped.
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

/// The cluster that the words of the command line name, as the verbs would understand them.
fn context() -> Option<Cx> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let after = |flag: &str| {
        let apart = words.iter().skip_while(|word| *word != flag).nth(1).and_then(|word| word.to_str());
        let joined = words.iter().find_map(|word| word.to_str()?.strip_prefix(flag)?.strip_prefix('='));
        apart.or(joined).map(str::to_owned)
    };
    Some(Cx {
        state: State::from_env().ok()?,
        out: Out::new(ColorChoice::Never),
        agent: after("--agent").or_else(hints::agent_from_env),
        cluster: after("--cluster").and_then(|name| name.parse().ok()),
    })
}

fn members(cx: &Cx) -> Option<Members> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let asked = async {
        let url = match (&cx.agent, &cx.cluster) {
            (Some(agent), None) => agent.clone(),
            _ => return cx.reach_recorded().await,
        };
        Client::new(&url).ok()?.members().await.ok()
    };
    runtime.block_on(async { tokio::time::timeout(LIMIT, asked).await.ok().flatten() })
}
