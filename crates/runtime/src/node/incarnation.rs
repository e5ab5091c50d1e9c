//! The order of things in a node's life: listen, serve, supervise; on leave end the role, say goodbye, stop serving.

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

/// How often another life of this node's id is asked who it is.
const RIVAL_PAUSE: Duration = Duration::from_millis(500);
/// How long it may take to answer.
const RIVAL_LIMIT: Duration = Duration::from_secs(1);
/// How long a node looks for its seeds before it becomes a member without having met one.
const FIRST_CONTACT_LIMIT: Duration = Duration::from_millis(300);
/// How long requests to the API, and values on their way to slow clients, may go on after the node has left.
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
    /// The order of things: serve and supervise; on leave end the role, say goodbye, then stop serving. `life_kept` ends
    /// once the data folder knows of this life.
    pub(crate) async fn run(
        self,
        life_kept: JoinHandle<Result<(), DataDirError>>,
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
            ended = self.may_become_a_member(life_kept) => ended.err(),
        };
        if refused.is_some() || self.control.is_leaving() {
            // Nobody has seen this node as a member, and nobody will: it leaves without a goodbye.
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

    /// Waits until this life is on the disk, so that the next one will be later, and nobody met has this node's id.
    async fn may_become_a_member(
        &self,
        life_kept: JoinHandle<Result<(), DataDirError>>,
    ) -> Result<(), NodeError> {
        let (life_kept, owner) = tokio::join!(life_kept, self.owner_of_the_name());
        life_kept.map_err(|_| NodeError::Panicked("task that writes the data folder"))??;
        match owner {
            Some(owner) => Err(NodeError::IdTaken { node: self.facts.node.clone(), http: owner.http }),
            None => Ok(()),
        }
    }

    /// Asks whoever is met first whether this node's id is taken, before the node becomes a member.
    async fn owner_of_the_name(&self) -> Option<Rival> {
        if !self.facts.has_seeds {
            return None;
        }
        let met = tokio::time::timeout(FIRST_CONTACT_LIMIT, self.cluster.namesakes()).await;
        // Nobody was met: the seeds are dead or not up yet. What is noticed later is judged later.
        let asked = met.unwrap_or_default().into_iter().map(async |namesake| {
            let is_alive = self.is_alive(&namesake).await;
            is_alive.then_some(namesake)
        });
        futures_util::future::join_all(asked).await.into_iter().flatten().next()
    }

    /// Waits until another live agent turns out to have this node's id and the older right to it.
    async fn taken(&self) -> Rival {
        let mut rivals = self.cluster.rival();
        loop {
            let noticed = rivals.wait_for(Option::is_some).await.map(|rival| rival.clone());
            let Ok(rival) = noticed else {
                // Gossip has ended, which others notice.
                std::future::pending().await
            };
            if let Some(rival) = rival
                && self.is_alive(&rival).await
            {
                if rival.generation < self.facts.generation {
                    return rival;
                }
                warn!(http = rival.http, "another agent was started with this node's id; it has to go");
            }
            tokio::time::sleep(RIVAL_PAUSE).await;
        }
    }

    /// Whether a rival is a process of its own: its URL answers with its generation. This node's earlier life does not.
    async fn is_alive(&self, rival: &Rival) -> bool {
        let told = self.mesh.agent(&rival.http).itself(RIVAL_LIMIT).await;
        told.is_ok_and(|agent| {
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
