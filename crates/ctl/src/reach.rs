//! Which cluster a command is about, and which of its agents answers.

mod by_hand;

use std::cmp::Reverse;
use std::time::Duration;

use client::{Client, ClientError};
use types::api::Members;
use types::{ClusterId, NodeId, Problem, Role, limits};

use crate::exit::{Exit, Failure};
use crate::hints::{self, Meant};
use crate::manifest_file;
use crate::out::{Out, say};
use crate::process::Processes;
use crate::record::{ClusterRecord, NodeRecord};
use crate::state::State;
use crate::suggest;

/// How long an agent of a local cluster may take before the next one is tried.
const NEXT_AFTER: Duration = Duration::from_millis(700);

/// The context of every verb.
#[derive(Debug)]
pub(crate) struct Cx {
    pub(crate) state: State,
    pub(crate) out: Out,
    /// `--agent` or `COTERIE_AGENT`.
    pub(crate) agent: Option<String>,
    /// `--cluster`.
    pub(crate) cluster: Option<ClusterId>,
}

/// An agent that answers, and this machine's record of its cluster.
#[derive(Debug)]
pub(crate) struct Reached {
    pub(crate) client: Client,
    pub(crate) record: Option<ClusterRecord>,
}

impl Reached {
    /// The client for commands, which may take long.
    pub(crate) fn commands(&self) -> Client {
        self.client.within(limits::COMMAND)
    }

    /// The members as seen by the agent that was reached, else by any agent of its cluster that answers.
    pub(crate) async fn view(&self) -> Result<Members, ClientError> {
        let error = match self.client.within(NEXT_AFTER).members().await {
            Ok(view) => return Ok(view),
            Err(error) => error,
        };
        for node in self.record.iter().flat_map(|record| &record.nodes) {
            if let Ok(client) = self.client.at(&node.url())
                && let Ok(view) = client.within(NEXT_AFTER).members().await
                && self.record.as_ref().is_some_and(|record| record.cluster == view.cluster)
            {
                return Ok(view);
            }
        }
        Err(error)
    }

    /// Adds a suggestion to the error that a node or a service type does not exist.
    pub(crate) async fn explain_unknown(
        &self,
        node: &NodeId,
        role: Option<&Role>,
        error: ClientError,
    ) -> anyhow::Error {
        if let Some(role) = role
            && error.problem().map(Problem::code) == Some("unknown-service-type")
            && let Ok(services) = self.client.services().await
        {
            let known: Vec<_> = services.services.keys().map(String::as_str).collect();
            let message = error.to_string();
            return Failure::new(Exit::Usage, message)
                .hint(suggest::hint(role.service_name(), &known))
                .into();
        }
        if error.problem().map(Problem::code) != Some("unknown-member") {
            return error.into();
        }
        let Ok(view) = self.client.members().await else {
            return error.into();
        };
        if let Some(known) = self.record.as_ref().and_then(|record| record.node(node)) {
            return self.explain_absent(known).await.into();
        }
        let ids: Vec<_> = view.members.iter().map(|member| member.id.as_str()).collect();
        Failure::new(Exit::Error, format!("no member is named `{node}`"))
            .hint(suggest::hint(node.as_str(), &ids))
            .into()
    }

    /// The error for a node that was started here but is no member.
    async fn explain_absent(&self, node: &NodeRecord) -> Failure {
        let agent = self.client.within(NEXT_AFTER).at(&node.url());
        let answers = match agent {
            Ok(agent) => agent.agent_self().await.is_ok_and(|own| own.member.id == node.id),
            Err(_) => false,
        };
        if answers {
            return Failure::new(
                Exit::Conflict,
                format!("node {} is leaving, or lost sight of the others", node.id),
            )
            .hint("`ctl status` shows more; once it is gone, `ctl up` starts it again");
        }
        let process = node
            .process()
            .filter(|process| Processes::new().is_ok_and(|mut processes| processes.is_alive(process)));
        if let Some(process) = process {
            let message = format!(
                "node {} is no member now: its process {} is alive but not answering (stopped?)",
                node.id, process.pid
            );
            return Failure::new(Exit::NoAgent, message)
                .hint(format!("`ctl kill {} --signal CONT` resumes a stopped one", node.id));
        }
        Failure::new(Exit::NoAgent, format!("node {} was started here and is no member now", node.id))
            .hint(format!("`ctl logs {}` shows its end, `ctl up` starts it again", node.id))
    }
}

impl Cx {
    /// The records of all clusters on this machine, the newest first. Damaged ones are reported and skipped.
    pub(crate) fn records(&self) -> anyhow::Result<Vec<ClusterRecord>> {
        let mut records = Vec::new();
        for cluster in self.state.clusters()? {
            match ClusterRecord::load(&self.state, &cluster) {
                Ok(record) => records.extend(record),
                Err(error) => say(&format!("warning: {error:#}")),
            }
        }
        records.sort_by_key(|record| Reverse(record.started_at_ms));
        Ok(records)
    }

    /// The named cluster, else the newest that runs, else the newest that has a record.
    pub(crate) fn local(&self) -> anyhow::Result<Option<ClusterRecord>> {
        if let Some(cluster) = &self.cluster {
            return ClusterRecord::load(&self.state, cluster);
        }
        let records = self.records()?;
        let mut processes = Processes::new()?;
        let running = records.iter().find(|record| is_running(record, &mut processes));
        let chosen = running.or(records.first()).cloned();
        if let Some(record) = &chosen {
            hints::set_meant(Meant::Cluster(record.cluster.clone()));
        }
        Ok(chosen)
    }

    /// The same; fails if there is none.
    pub(crate) fn local_or_fail(&self) -> anyhow::Result<ClusterRecord> {
        if self.agent.is_some() && self.cluster.is_none() {
            return Err(Failure::new(Exit::Usage, "this works only for clusters on this machine")
                .hint("leave --agent and COTERIE_AGENT out, or name the cluster with --cluster")
                .into());
        }
        match self.local()? {
            Some(record) => Ok(record),
            None => Err(self.no_cluster()?.into()),
        }
    }

    /// An agent that answers: the named one, else the first that answers of the local cluster.
    pub(crate) async fn reach(&self) -> anyhow::Result<Reached> {
        if let (Some(agent), None) = (&self.agent, &self.cluster) {
            if let Some(path) = path_of(agent) {
                let message = format!("`{agent}` is not the URL of an agent: leave `{path}` out");
                return Err(Failure::new(Exit::Usage, message).into());
            }
            let client = Client::new(agent)?;
            client.agent_self().await?;
            return Ok(Reached { client, record: None });
        }
        let Some(record) = self.local()? else {
            return match by_hand::find(&self.state, self.cluster.as_ref()).await? {
                Some(client) => Ok(Reached { client, record: None }),
                None => Err(self.no_cluster()?.into()),
            };
        };
        let mut processes = Processes::new()?;
        for node in &record.nodes {
            if !node.is_running(&mut processes) {
                continue;
            }
            let client = Client::new(&node.url())?;
            if let Ok(found) = client.within(NEXT_AFTER).agent_self().await
                && found.cluster == record.cluster
            {
                return Ok(Reached { client, record: Some(record) });
            }
        }
        let message = format!(
            "no agent of cluster `{}` answers; {} recorded here",
            record.cluster,
            match record.nodes.len() {
                1 => "1 is".to_owned(),
                number => format!("{number} are"),
            }
        );
        Err(Failure::new(Exit::NoAgent, message)
            .hint("`ctl up` starts what is missing, `ctl logs` shows why it ended, `ctl down` cleans up")
            .into())
    }

    /// The members of the local cluster, as seen by one of its agents that `ctl up` started. Errors are not reported.
    pub(crate) async fn reach_recorded(&self) -> Option<Members> {
        let record = self.local().ok()??;
        for node in &record.nodes {
            if let Ok(client) = Client::new(&node.url())
                && let Ok(view) = client.within(NEXT_AFTER).members().await
                && view.cluster == record.cluster
            {
                return Some(view);
            }
        }
        None
    }

    fn no_cluster(&self) -> anyhow::Result<Failure> {
        let Some(cluster) = &self.cluster else {
            return Ok(Failure::new(Exit::NoAgent, "no cluster runs on this machine")
                .hint(manifest_file::how_to_start()));
        };
        let records = self.records()?;
        let names: Vec<_> = records.iter().map(|record| record.cluster.as_str()).collect();
        Ok(Failure::new(Exit::NoAgent, format!("no cluster named `{cluster}` runs on this machine"))
            .hint(suggest::hint(cluster.as_str(), &names)))
    }
}

/// The path in a URL, if it has one.
fn path_of(url: &str) -> Option<&str> {
    let start = url.find("://").map_or(0, |at| at + 3);
    let path = url[start..].find('/').map(|at| url[start + at..].trim())?;
    (!path.trim_matches('/').is_empty()).then_some(path)
}

/// Whether any of its processes runs.
pub(crate) fn is_running(record: &ClusterRecord, processes: &mut Processes) -> bool {
    record.nodes.iter().any(|node| node.is_running(processes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_a_url_is_found_and_a_slash_at_its_end_is_none() {
        for (url, expected) in [
            ("http://h:1", None),
            ("http://h:1/", None),
            ("h:1", None),
            ("http://h:1/v1", Some("/v1")),
            ("h:1/v1/", Some("/v1/")),
        ] {
            assert_eq!(path_of(url), expected, "{url}");
        }
    }
}
