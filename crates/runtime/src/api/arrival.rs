//! Tracks whether the body of a request has arrived, and limits how long a role that ends waits for it.
//!
//! A shard has no owner between the end of its old one and the start of the next, and that time must not depend on how
//! fast a client sends. So a body that still arrives when its role ends gets [`GRACE`]; then the request is refused as not
//! processed, and the client, or the gateway in between, sends it to the next owner.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use http_body::Body as HttpBody;
use plugin::{BodyEnd, on_end};
use tokio::time::sleep;

use crate::role::gate::Gate;

/// How long a body may still arrive once the gate is shut.
const GRACE: Duration = Duration::from_millis(100);

/// Whether all of a body has arrived. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Arrival(Arc<AtomicBool>);

impl Arrival {
    /// Watches a body as it is read.
    pub(crate) fn of(body: Body) -> (Self, Body) {
        let arrival = Self(Arc::new(AtomicBool::new(body.is_end_stream())));
        if arrival.is_whole() {
            return (arrival, body);
        }
        let watched = arrival.clone();
        let body = on_end(body, move |end| match end {
            // Nothing more arrives of a body that broke off; its handler decides what that means.
            BodyEnd::Whole | BodyEnd::Broken => watched.0.store(true, Ordering::SeqCst),
            BodyEnd::Dropped => {}
        });
        (arrival, Body::new(body))
    }

    /// Whether all of it was read.
    pub(crate) fn is_whole(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Waits until the gate is shut and [`GRACE`] has passed. Never returns if the body has arrived by then.
    pub(crate) async fn is_late(&self, gate: &Gate) {
        gate.is_shut().await;
        sleep(GRACE).await;
        if self.is_whole() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::{FutureExt, StreamExt, stream};
    use http_body_util::BodyExt;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_still_arrives_gets_a_moment_and_one_that_came_is_never_late() {
        let gate = Gate::default();
        let first = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"a"))]);
        let (slow, mut body) = Arrival::of(Body::from_stream(first.chain(stream::pending())));
        body.frame().await.unwrap().unwrap();
        assert!(timeout(GRACE * 10, slow.is_late(&gate)).await.is_err(), "the gate is open");
        let (whole, body) = Arrival::of(Body::from("a"));
        assert!(!whole.is_whole());
        body.collect().await.unwrap();
        let (empty, _) = Arrival::of(Body::empty());
        gate.shut();
        assert!(slow.is_late(&gate).now_or_never().is_none());
        timeout(GRACE * 2, slow.is_late(&gate)).await.expect("its time is over");
        for arrival in [whole, empty] {
            assert!(timeout(GRACE * 10, arrival.is_late(&gate)).await.is_err());
        }
    }
}
