//! Finds agents on this machine that `ctl up` did not start, by their executable and the ports on which they listen.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use client::Client;
use futures_util::future::join_all;
use listeners::Protocol;
use types::ClusterId;

use crate::agent_bin;
use crate::exit::{Exit, Failure};
use crate::hints::{self, Meant};
use crate::out::say;
use crate::process::Processes;
use crate::record::{agent_of, reachable};
use crate::state::State;

/// How long an agent may take to answer.
const LIMIT: Duration = Duration::from_millis(700);

/// An agent of the named cluster, else of the only cluster here that `ctl up` did not start.
pub(super) async fn find(state: &State, cluster: Option<&ClusterId>) -> anyhow::Result<Option<Client>> {
    let mut clusters: BTreeMap<ClusterId, String> = BTreeMap::new();
    for (found, url) in agents(state).await? {
        if cluster.is_none_or(|cluster| *cluster == found) {
            clusters.entry(found).or_insert(url);
        }
    }
    if clusters.len() > 1 {
        let list: Vec<_> = clusters.iter().map(|(cluster, url)| format!("{cluster} at {url}")).collect();
        let first = clusters.into_values().next().unwrap_or_default();
        let message = format!("agents of several clusters were started here: {}", list.join(", "));
        let hint = format!("`ctl --agent {first} status` names the first");
        return Err(Failure::new(Exit::Usage, message).hint(hint).into());
    }
    let Some((cluster, url)) = clusters.pop_first() else { return Ok(None) };
    say(&format!("cluster {cluster}, by an agent that was started by hand, at {url}"));
    hints::set_meant(Meant::Agent(url.clone()));
    Ok(Some(Client::new(&url)?))
}

/// Every agent here that answers: its cluster and its URL.
async fn agents(state: &State) -> anyhow::Result<Vec<(ClusterId, String)>> {
    let client = Client::new("http://127.0.0.1")?.within(LIMIT);
    let asked = addresses(state)?.into_iter().map(|address| {
        let url = format!("http://{}", reachable(address));
        let client = client.at(&url);
        async move {
            let own = client.ok()?.agent_self().await.ok()?;
            Some((own.cluster, url))
        }
    });
    Ok(join_all(asked).await.into_iter().flatten().collect())
}

/// Where agents listen that `ctl up` did not start. Processes that can't be read belong to other users and are skipped.
fn addresses(state: &State) -> anyhow::Result<BTreeSet<SocketAddr>> {
    let named = state.clusters()?.into_iter().filter_map(|cluster| agent_of(state, &cluster).ok().flatten());
    let agents: BTreeSet<_> = (agent_bin::find(None).into_iter().chain(named))
        .map(|agent| agent.canonicalize().unwrap_or(agent))
        .collect();
    let mut processes = Processes::new()?;
    let mut found = BTreeSet::new();
    for listener in listeners::get_all().unwrap_or_default() {
        // The system marks the path of an executable that was replaced since.
        let path = listener.process.path.trim_end_matches(" (deleted)");
        if listener.protocol == Protocol::TCP
            && agents.contains(Path::new(path))
            && !processes.was_started_by_ctl(listener.process.pid)
        {
            found.insert(listener.socket);
        }
    }
    Ok(found)
}
