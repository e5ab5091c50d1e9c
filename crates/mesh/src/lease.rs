//! Counts of the requests in flight, for each address and in total.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::address::Outcome;
use crate::base_url::{BaseUrl, Lease};
use crate::upstream::Upstream;

/// A shared count of things in progress; dropping an [`Entered`] decrements it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gauge(Arc<AtomicUsize>);

impl Gauge {
    /// Adds one, whatever the count is.
    pub(crate) fn enter(&self) -> Entered {
        self.0.fetch_add(1, Ordering::Relaxed);
        Entered(self.clone())
    }

    /// Adds one unless the count is `limit` already.
    pub(crate) fn enter_below(&self, limit: usize) -> Option<Entered> {
        let entered = self.enter();
        (self.value() <= limit).then_some(entered)
    }

    pub(crate) fn value(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// One counted thing.
#[must_use]
#[derive(Debug)]
pub(crate) struct Entered(Gauge);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request in flight; it ends when this is dropped.
#[must_use]
#[derive(Debug)]
pub(crate) struct InFlight {
    address: Lease,
    _all: Entered,
    /// Until its duration is recorded.
    upstream: Option<Arc<Upstream>>,
    began: Instant,
}

impl InFlight {
    pub(crate) fn new(
        address: &BaseUrl,
        all: &Gauge,
        upstream: Option<Arc<Upstream>>,
        began: Instant,
    ) -> Self {
        Self { address: address.lease(), _all: all.enter(), upstream, began }
    }

    /// How long it has been in flight.
    pub(crate) fn took(&self) -> Duration {
        self.began.elapsed()
    }

    /// Its handshake was accepted: that is what its duration is. How long the WebSocket lasts says nothing about its server.
    pub(crate) fn switched(&mut self) {
        self.observe();
    }

    fn observe(&mut self) {
        if let Some(upstream) = self.upstream.take() {
            upstream.durations().observe(self.took());
        }
    }

    /// Records that the connection broke after the head of the answer. The next failure decides about an ejection.
    pub(crate) fn broke_off(&self) {
        let _reason = self.address.state().record(Outcome::Failed, Duration::ZERO, Instant::now());
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.observe();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_websocket_counts_with_its_handshake_however_long_it_lasts() {
        let (url, upstream) = ("http://a".parse().unwrap(), Arc::<Upstream>::default());
        let in_flight =
            || InFlight::new(&url, &Gauge::default(), Some(Arc::clone(&upstream)), Instant::now());
        let (mut websocket, request) = (in_flight(), in_flight());
        tokio::time::advance(Duration::from_millis(20)).await;
        websocket.switched();
        assert_eq!(upstream.durations().read().count(), 1, "at once");
        tokio::time::advance(Duration::from_secs(3_600)).await;
        drop(websocket);
        let read = upstream.durations().read();
        assert!(read.count() == 1 && (read.sum - 0.02).abs() < 1e-3, "{read:?}");
        drop(request);
        let read = upstream.durations().read();
        assert!(read.count() == 2 && read.sum > 3_600.0, "{read:?}");
    }

    #[test]
    fn no_more_than_the_limit_enter_at_once() {
        let gauge = Gauge::default();
        let first = gauge.enter_below(1);
        assert!(first.is_some());
        assert!(gauge.enter_below(1).is_none());
        drop(first);
        assert_eq!(gauge.value(), 0);
        assert!(gauge.enter_below(1).is_some());
    }
}
