//! Keeps a claim confirmed: polls the store at an interval, and at once when something hints at a change.

use std::time::Duration;

use cluster::ClusterView;
use plugin::{Claim, ClaimLost};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{Instrument, Span, debug, warn};

use crate::takeover::isolation::Isolation;

/// The old entries of a claim's log are removed after this many new ones.
const PRUNE_EVERY: u64 = 64;
/// How often the new entries are counted.
const PRUNE_LOOK: Duration = Duration::from_mins(1);
/// How long a poll, reading the claim again and defending it may take together.
const CONFIRM_LIMIT: Duration = Duration::from_secs(2);

/// Watches a claim until it is dropped.
#[derive(Debug)]
pub(crate) struct ClaimWatch {
    claim: Claim,
    /// Whether others may take the shard, since the store has not answered for too long.
    pub(crate) is_resigned: bool,
    /// Dropping this aborts them.
    _tasks: JoinSet<()>,
}

impl ClaimWatch {
    pub(crate) fn new(
        claim: Claim,
        interval: Duration,
        view: watch::Receiver<ClusterView>,
        isolation: Isolation,
    ) -> Self {
        claim.yield_when(move |sees| sees > 0 && isolation.is_cut_off());
        let mut tasks = JoinSet::new();
        tasks.spawn(keep(claim.clone(), interval, view).instrument(Span::current()));
        // A task of its own, so that pruning delays no poll.
        tasks.spawn(prune(claim.clone()).instrument(Span::current()));
        Self { claim, is_resigned: false, _tasks: tasks }
    }

    pub(crate) fn claim(&self) -> &Claim {
        &self.claim
    }
}

/// Removes old entries now and whenever there are many new ones: each challenge and each defence adds one. Never ends.
async fn prune(claim: Claim) {
    loop {
        let latest = claim.latest();
        if let Err(error) = claim.prune().await {
            debug!(epoch = %claim.epoch(), %error, "old entries of the claim's log stay for now");
        }
        while claim.latest() < latest + PRUNE_EVERY {
            sleep(PRUNE_LOOK).await;
        }
    }
}

/// Polls until the claim is outdated.
async fn keep(claim: Claim, interval: Duration, mut view: watch::Receiver<ClusterView>) {
    loop {
        let is_suspect = tokio::select! {
            biased;
            why = claim.suspected() => {
                warn!(epoch = %claim.epoch(), why, "the service reports that it was fenced");
                true
            }
            () = surpassed(&claim, &mut view) => true,
            () = sleep(interval) => false,
        };
        let asked = async {
            // A challenger waits for two polls, so a poll that hangs must be followed soon.
            if !is_suspect && timeout(interval, claim.poll_next()).await.is_ok_and(|is_ours| is_ours) {
                return Ok(());
            }
            claim.confirm().await
        };
        match timeout(CONFIRM_LIMIT, asked).await {
            Ok(Ok(())) => {}
            Ok(Err(ClaimLost::Passed { .. })) => return,
            Ok(Err(ClaimLost::Unknown(error))) => {
                warn!(epoch = %claim.epoch(), %error, age = ?claim.age(), "the claim can't be read");
            }
            Err(_) => warn!(epoch = %claim.epoch(), age = ?claim.age(), "the store does not answer"),
        }
        if is_suspect {
            // A wrong hint must not cause a busy loop.
            sleep(interval).await;
        }
    }
}

/// Waits until gossip shows the shard under a higher epoch.
async fn surpassed(claim: &Claim, view: &mut watch::Receiver<ClusterView>) {
    let shard = claim.shard_ref();
    let is_higher = |view: &ClusterView| {
        view.peers()
            .filter_map(|peer| peer.state.as_ref())
            .any(|state| state.role.is_of(shard) && state.epoch.is_some_and(|epoch| epoch > claim.epoch()))
    };
    if view.wait_for(is_higher).await.is_err() {
        // Gossip has ended, and the node with it.
        std::future::pending::<()>().await;
    }
}
