//! Detects another cluster that uses the same store: the owner of a shard answers at the address in its claim, and is no
//! member of this cluster.
//!
//! The store keeps the data correct in any case. The detection keeps two clusters from taking each other's shards, since
//! each sees no member that runs them. A partition of one cluster's gossip looks the same from inside, and needs the same: a
//! shard whose owner answers stays with it.

use std::fmt;
use std::time::Duration;

use cluster::{Cluster, ClusterView};
use futures_util::future::join_all;
use mesh::Mesh;
use store::{ClaimState, Store};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};
use types::{Backoff, ErrorKind, Holder, Post, Problem, Role, ShardRef};

use crate::node::cluster_store::ClusterStore;
use crate::takeover::layouts::Layouts;
use crate::takeover::vacancy::ownerless;

/// How long a shard must have no owner in the view before a node looks for it elsewhere. Starts and failovers take less.
const UNSEEN: Duration = Duration::from_secs(3);
/// The pause after each search that found no such owner.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(30));
/// How often an owner that was found is asked again.
const STILL_THERE: Duration = Duration::from_secs(2);
/// After this many requests in a row without an answer, the search starts again.
const MISSES: u32 = 2;
/// How long an owner may take to answer.
const ANSWER: Duration = Duration::from_millis(300);
/// How long the store may take to answer.
const STORE_ANSWER: Duration = Duration::from_secs(5);

/// The owner of a shard that answers and is no member of this cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Twin {
    shard: ShardRef,
    holder: Holder,
    /// Where it answers.
    http: String,
    /// The store that both use.
    store: String,
}

impl fmt::Display for Twin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shard, holder, http, store } = self;
        write!(
            f,
            "{shard} is owned by {} (epoch {}), which answers at {http} and is no member here: another cluster \
             of the same name uses the store {store}, or gossip does not get through; end one of the two, or let them \
             meet",
            holder.node, holder.epoch
        )
    }
}

impl Twin {
    /// The refusal to take its shard.
    pub(crate) fn to_problem(&self) -> Problem {
        Problem::new(ErrorKind::Conflict, "another-cluster", self.to_string())
            .hint("no node takes a shard from an owner that is alive in another cluster")
    }
}

/// The owner of a shard, if the view does not show it, and the incarnation that took the shard answers at the address in
/// the claim. A claim from an older version has no address.
pub(crate) async fn find(
    mesh: &Mesh,
    view: &ClusterView,
    store: &Store,
    (shard, state): (&ShardRef, &ClaimState),
) -> Option<Twin> {
    let (holder, http) = suspect(view, state)?;
    let agent = mesh.agent(http).itself(ANSWER).await.ok()?;
    // Another process may have the address by now.
    holder.is(&agent.member).then(|| Twin {
        shard: shard.clone(),
        holder: holder.clone(),
        http: http.to_owned(),
        store: store.info().url.clone(),
    })
}

/// The owner, if the view does not show it, and the address in its claim. Pure.
pub(crate) fn suspect<'a>(view: &ClusterView, state: &'a ClaimState) -> Option<(&'a Holder, &'a str)> {
    let holder = state.holder.as_ref()?;
    let is_seen = view.member(&holder.node).is_some_and(|member| holder.is(member));
    Some((holder, state.http.as_deref()?)).filter(|_| !is_seen)
}

/// Looks for owners outside the cluster while shards have none in it.
pub(crate) struct Watch {
    pub(crate) cluster: Cluster,
    pub(crate) mesh: Mesh,
    pub(crate) cluster_store: ClusterStore,
    pub(crate) layouts: watch::Receiver<Layouts>,
}

impl Watch {
    /// Keeps `found` up to date. Never ends.
    pub(crate) async fn keep(mut self, found: watch::Sender<Option<Twin>>) {
        let mut view = self.cluster.watch();
        loop {
            self.until_unseen(&mut view).await;
            let mut looks = BACKOFF.retries();
            while let Some(shards) = self.wanting(&self.cluster.view()) {
                let twin = self.look(&shards).await;
                found.send_if_modified(|known| {
                    let is_news = *known != twin;
                    match (known.as_ref(), &twin) {
                        (_, Some(twin)) if is_news => warn!(%twin, "another cluster uses the store"),
                        (Some(_), None) => info!("the other cluster on the store is gone"),
                        _ => {}
                    }
                    known.clone_from(&twin);
                    is_news
                });
                if let Some(twin) = &twin {
                    self.while_there(twin).await;
                    looks.reset();
                } else {
                    sleep(looks.failed(rand::random())).await;
                }
            }
            found.send_if_modified(|known| known.take().is_some());
        }
    }

    /// The shards without an owner in the view, while this node might run one.
    fn wanting(&self, view: &ClusterView) -> Option<Vec<ShardRef>> {
        let is_free = view.member(view.me()).and_then(|me| me.state.as_ref()).is_some_and(|state| {
            state.phase.is_serving() && (state.role == Role::Standby || state.duty == Some(Post::Replica))
        });
        let shards = ownerless(view, &self.layouts.borrow());
        Some(shards).filter(|shards| is_free && !shards.is_empty())
    }

    /// Waits until shards have been without an owner for a while.
    async fn until_unseen(&mut self, view: &mut watch::Receiver<ClusterView>) {
        let mut since = None;
        loop {
            let now = view.borrow_and_update().clone();
            let shards = self.wanting(&now);
            since = shards.is_some().then(|| since.unwrap_or_else(Instant::now));
            if since.is_some_and(|since| since.elapsed() >= UNSEEN) {
                return;
            }
            let ripe = async {
                match since {
                    Some(since) => sleep_until(since + UNSEEN).await,
                    None => std::future::pending().await,
                }
            };
            let is_open = tokio::select! {
                biased;
                () = ripe => true,
                changed = view.changed() => changed.is_ok(),
                changed = self.layouts.changed() => changed.is_ok(),
            };
            if !is_open {
                // The node ends.
                return std::future::pending().await;
            }
        }
    }

    /// Reads the claims of these shards, and asks their owners.
    async fn look(&self, shards: &[ShardRef]) -> Option<Twin> {
        let store = self.cluster_store.store().await.ok()?;
        let claims = store.claims();
        let view = self.cluster.view();
        let looks = shards.iter().map(async |shard| match timeout(STORE_ANSWER, claims.read(shard)).await {
            Ok(Ok(state)) => find(&self.mesh, &view, store, (shard, &state)).await,
            Ok(Err(error)) => {
                debug!(%shard, %error, "a claim can't be read");
                None
            }
            Err(_) => None,
        });
        join_all(looks).await.into_iter().flatten().next()
    }

    /// Returns once an owner has not answered [`MISSES`] times in a row or is in the view, or no shard lacks an owner.
    async fn while_there(&self, twin: &Twin) {
        let mut misses = 0;
        while misses < MISSES {
            sleep(STILL_THERE).await;
            let view = self.cluster.view();
            let is_seen = view.member(&twin.holder.node).is_some_and(|member| twin.holder.is(member));
            let agent = self.mesh.agent(&twin.http).itself(ANSWER).await;
            let owns = agent.is_ok_and(|agent| {
                let epoch = agent.member.state.as_ref().and_then(|state| state.epoch);
                twin.holder.is(&agent.member) && epoch == Some(twin.holder.epoch)
            });
            misses = if owns { 0 } else { misses + 1 };
            if is_seen || self.wanting(&view).is_none() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use types::api::{About, Member};
    use types::{Epoch, Generation, NodeId, RoleState};

    use super::*;

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn member(name: &str, generation: u64) -> Member {
        Member {
            id: node(name),
            generation: Generation(generation),
            version: 1,
            http: "http://10.0.0.1:1".to_owned(),
            gossip: "10.0.0.1:1".to_owned(),
            state: Some(RoleState::starting(Role::Standby)),
            about: About::default(),
            store: None,
        }
    }

    fn claim(name: &str, generation: u64, http: Option<&str>) -> ClaimState {
        let holder = Holder { node: node(name), generation: Generation(generation), epoch: Epoch(2) };
        ClaimState { number: 2, holder: Some(holder), http: http.map(str::to_owned), ..ClaimState::default() }
    }

    #[test]
    fn an_owner_that_the_view_does_not_show_is_suspect_if_its_claim_has_an_address() {
        let view = ClusterView::new("c".parse().unwrap(), node("me"), vec![member("me", 7), member("a", 4)]);
        let there = Some("http://10.0.0.9:1");
        for (state, is_suspect, why) in [
            (claim("a", 4, there), false, "it is a member"),
            (claim("a", 5, there), true, "another node has the name of a member"),
            (claim("b", 4, there), true, "it is no member"),
            (claim("b", 4, None), false, "an older version took it"),
            (claim("me", 7, there), false, "it is this node"),
            (claim("me", 5, there), true, "another node has this one's name"),
            (ClaimState::default(), false, "it has no owner"),
        ] {
            assert_eq!(suspect(&view, &state).is_some(), is_suspect, "{why}");
        }
    }

    #[test]
    fn the_refusal_names_the_owner_its_address_and_the_store() {
        let state = claim("a", 4, None);
        let twin = Twin {
            shard: "storage/0".parse().unwrap(),
            holder: state.holder.unwrap(),
            http: "http://10.0.0.9:1".to_owned(),
            store: "file:///var/lib/coterie".to_owned(),
        };
        let problem = twin.to_problem();
        assert_eq!((problem.status, problem.code()), (409, "another-cluster"));
        for word in ["storage/0", "a (epoch 2)", "http://10.0.0.9:1", "file:///var/lib/coterie"] {
            assert!(problem.detail.contains(word), "{}", problem.detail);
        }
    }
}
