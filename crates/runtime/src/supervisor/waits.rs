//! What the supervisor waits for, of things that it may not have: then the wait never ends.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use types::NodeId;

use super::RESIGN;
use crate::role::running::Running;
use crate::takeover::claim_watch::ClaimWatch;

pub(super) async fn next_failure(running: Option<&mut Running>) -> plugin::TaskFailure {
    match running {
        Some(running) => running.failure().await,
        None => std::future::pending().await,
    }
}

pub(super) async fn passed(claim_watch: Option<&ClaimWatch>) {
    match claim_watch {
        Some(claim_watch) => claim_watch.claim().passed().await,
        None => std::future::pending().await,
    }
}

pub(super) async fn yielding(claim_watch: Option<&ClaimWatch>) -> NodeId {
    match claim_watch {
        Some(claim_watch) => claim_watch.claim().yielding().await,
        None => std::future::pending().await,
    }
}

/// Waits until the last confirmation of the claim is older than [`RESIGN`].
pub(super) async fn silent(claim_watch: Option<&ClaimWatch>) {
    let Some(claim_watch) = claim_watch else { return std::future::pending().await };
    loop {
        let age = claim_watch.claim().age();
        if age > RESIGN {
            return;
        }
        // A little longer, so that the age is surely above the limit then.
        sleep(RESIGN.saturating_sub(age) + Duration::from_millis(1)).await;
    }
}

pub(super) async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
