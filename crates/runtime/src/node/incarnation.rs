//! The main task of a node: serve and supervise; on leave end the role, gossip the leave, stop serving.

use std::sync::Arc;
use std::time::Duration;

use cluster::{Cluster, Rival};
use mesh::Mesh;
use plugin::ServeLimits;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, warn};

use crate::api::Facts;
use crate::node::clock_skew::Clocks;
use crate::node::error::NodeError;
use crate::node::events::Events;
use crate::node::identity::DataDirError;
use crate::supervisor::Supervisor;
use crate::supervisor::control::Control;

/// How often another agent with this node's id is asked for its identity.
const RIVAL_PAUSE: Duration = Duration::from_millis(500);
/// How long that agent may take to answer.
const RIVAL_LIMIT: Duration = Duration::from_secs(1);
/// How long a node looks for its seeds before it becomes a member without having met one.
const FIRST_CONTACT_LIMIT: Duration = Duration::from_millis(300);
/// How long requests to the API, and values on their way to slow clients, may continue after the node has left.
const GRACE: Duration = Duration::from_secs(10);

/// Header fields and bytes of a request's head: more than a gateway takes, since it adds some.
const FIELDS: usize = 128;
const HEAD_SIZE: usize = 40 * 1024;

/// What the main task of a node needs.
pub(crate) struct Incarnation {
    pub(crate) facts: Arc<Facts>,
    pub(crate) cluster: Cluster,
    pub(crate) mesh: Mesh,
    pub(crate) control: Control,
    pub(crate) clocks: Clocks,
    pub(crate) stop_http: CancellationToken,
}

impl Incarnation {
    /// Serves and supervises; on leave ends the role, gossips the leave, then stops serving. `identity_kept` ends once this
    /// incarnation is recorded in the data folder.
    pub(crate) async fn run(
        self,
        identity_kept: JoinHandle<Result<(), DataDirError>>,
        supervisor: Supervisor,
        commands: tokio::sync::mpsc::Receiver<crate::supervisor::control::Command>,
        events: Events,
        router: axum::Router,
        listener: tokio::net::TcpListener,
    ) -> Result<(), NodeError> {
        let mut parts = JoinSet::new();
        parts.spawn(events.record(self.cluster.changes()).instrument(Span::current()));
        let limits = ServeLimits {
            grace: GRACE,
            fields: FIELDS,
            head_size: HEAD_SIZE,
            node: Some(self.facts.node.clone()),
            ..ServeLimits::default()
        };
        let http = plugin::serve(listener, router, self.stop_http.clone().into(), limits);
        parts.spawn(http.instrument(Span::current()));
        let clocks =
            self.clocks.clone().watch(self.cluster.clone(), self.mesh.clone(), self.stop_http.clone());
        parts.spawn(clocks.instrument(Span::current()));
        let mut role = JoinSet::new();
        let refused = tokio::select! {
            biased;
            () = self.control.until_leaving() => None,
            ended = self.may_become_a_member(identity_kept) => ended.err(),
        };
        if refused.is_some() || self.control.is_leaving() {
            // This node never became a member, so no other node has to learn that it leaves.
            self.cluster.leave().await;
            self.stop_http.cancel();
            while parts.join_next().await.is_some() {}
            return refused.map_or(Ok(()), Err);
        }
        role.spawn(supervisor.run(commands).instrument(Span::current()));
        let outcome = tokio::select! {
            biased;
            Some(ended) = role.join_next() => match ended {
                Ok(ended) => ended.map_err(NodeError::from),
                Err(_) => Err(NodeError::Panicked("supervisor")),
            },
            () = panicked(&mut parts) => Err(NodeError::Panicked("HTTP server")),
            reason = self.cluster.ended() => Err(NodeError::GossipEnded(reason)),
            rival = self.taken() => Err(NodeError::IdTaken { node: self.facts.node.clone(), http: rival.http }),
        };
        self.control.leave();
        if outcome.is_err() {
            // The role ends as it would on a signal.
            role.join_next().await;
        }
        self.cluster.leave().await;
        self.stop_http.cancel();
        while parts.join_next().await.is_some() {}
        outcome
    }

    /// Waits until this incarnation is on the disk, so that the next one gets a higher generation, and checks that no node
    /// that was met has this node's id.
    async fn may_become_a_member(
        &self,
        identity_kept: JoinHandle<Result<(), DataDirError>>,
    ) -> Result<(), NodeError> {
        let (identity_kept, owner) = tokio::join!(identity_kept, self.owner_of_the_id());
        identity_kept.map_err(|_| NodeError::Panicked("task that writes the data folder"))??;
        match owner {
            Some(owner) => Err(NodeError::IdTaken { node: self.facts.node.clone(), http: owner.http }),
            None => Ok(()),
        }
    }

    /// Looks for a live agent with this node's id among the nodes met first, before the node becomes a member.
    async fn owner_of_the_id(&self) -> Option<Rival> {
        if !self.facts.has_seeds {
            return None;
        }
        let met = tokio::time::timeout(FIRST_CONTACT_LIMIT, self.cluster.namesakes()).await;
        // On a timeout no node was met: the seeds are dead or not up yet. `taken` notices a rival that appears later.
        let asked = met.unwrap_or_default().into_iter().map(async |namesake| {
            let is_alive = self.is_alive(&namesake).await;
            is_alive.then_some(namesake)
        });
        futures_util::future::join_all(asked).await.into_iter().flatten().next()
    }

    /// Waits until gossip shows a live agent that has this node's id and started earlier.
    async fn taken(&self) -> Rival {
        let mut rivals = self.cluster.rival();
        loop {
            let noticed = rivals.wait_for(Option::is_some).await.map(|rival| rival.clone());
            let Ok(rival) = noticed else {
                // Gossip has ended, which `run` notices.
                std::future::pending().await
            };
            if let Some(rival) = rival
                && self.is_alive(&rival).await
            {
                if rival.generation < self.facts.generation {
                    return rival;
                }
                warn!(http = rival.http, "another agent was started with this node's id; it has to exit");
            }
            tokio::time::sleep(RIVAL_PAUSE).await;
        }
    }

    /// Whether a rival is alive: its URL answers with its generation. An earlier incarnation of this node does not.
    async fn is_alive(&self, rival: &Rival) -> bool {
        let answer = self.mesh.agent(&rival.http).itself(RIVAL_LIMIT).await;
        answer.is_ok_and(|agent| {
            agent.member.id == self.facts.node
                && agent.member.generation == rival.generation
                && agent.cluster == self.facts.cluster
        })
    }
}

/// Waits until one of the parts panics.
async fn panicked(parts: &mut JoinSet<()>) {
    while let Some(ended) = parts.join_next().await {
        if ended.is_err() {
            return;
        }
    }
    std::future::pending::<()>().await;
}
