//! Counts requests in flight, from the head to the end of the answer, and waits for the last one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use http::Response;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::on_end;

/// Counts requests in flight, of any protocol. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct InFlight(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    count: AtomicUsize,
    /// How many requests have ever begun.
    begun: AtomicUsize,
    became_idle: Notify,
    is_draining: AtomicBool,
    is_closing: AtomicBool,
}

/// A request in flight. It ends when this is dropped.
#[must_use]
#[derive(Debug)]
pub struct InFlightGuard(Arc<Shared>);

impl InFlight {
    /// Counts a request that begins.
    pub fn enter(&self) -> InFlightGuard {
        self.0.begun.fetch_add(1, Ordering::SeqCst);
        self.0.count.fetch_add(1, Ordering::SeqCst);
        InFlightGuard(Arc::clone(&self.0))
    }

    /// How many requests are in flight.
    pub fn count(&self) -> usize {
        self.0.count.load(Ordering::SeqCst)
    }

    /// Whether the listener is going to close. If so, readiness checks fail.
    pub fn is_draining(&self) -> bool {
        self.0.is_draining.load(Ordering::SeqCst)
    }

    /// Whether connections are to end. If so, send answers with `Connection: close`.
    pub fn is_closing(&self) -> bool {
        self.0.is_closing.load(Ordering::SeqCst)
    }

    pub(super) fn drain(&self) {
        self.0.is_draining.store(true, Ordering::SeqCst);
    }

    pub(super) fn close(&self) {
        self.0.is_closing.store(true, Ordering::SeqCst);
    }

    /// Waits until no request is in flight.
    pub async fn idle(&self) {
        loop {
            let notified = self.0.became_idle.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            notified.await;
        }
    }

    /// Waits until no request has been in flight for this long.
    pub async fn quiet(&self, time: Duration) {
        loop {
            self.idle().await;
            let begun = self.0.begun.load(Ordering::SeqCst);
            sleep(time).await;
            if self.count() == 0 && self.0.begun.load(Ordering::SeqCst) == begun {
                return;
            }
        }
    }
}

impl InFlightGuard {
    /// Whether the listener is going to close.
    pub fn is_draining(&self) -> bool {
        self.0.is_draining.load(Ordering::SeqCst)
    }

    /// Keeps the request in flight until the body of its answer has ended.
    pub fn hold(self, answer: Response<Body>) -> Response<Body> {
        answer.map(|body| Body::new(on_end(body, move |_| drop(self))))
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.became_idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_quiet_once_no_request_has_begun_for_the_given_time() {
        let (in_flight, time) = (InFlight::default(), Duration::from_millis(30));
        let first = in_flight.enter();
        let mut quiet = Box::pin(in_flight.quiet(time));
        assert!((&mut quiet).now_or_never().is_none(), "one is in flight");
        drop(first);
        assert!((&mut quiet).now_or_never().is_none());
        sleep(time / 2).await;
        drop(in_flight.enter());
        sleep(time * 3 / 4).await;
        assert!((&mut quiet).now_or_never().is_none(), "another request came in between");
        quiet.await;
    }

    #[tokio::test]
    async fn a_request_is_in_flight_until_its_answer_has_ended() {
        let in_flight = InFlight::default();
        let answer = in_flight.enter().hold(Response::new(Body::from("a")));
        assert_eq!(in_flight.count(), 1);
        drop(answer);
        in_flight.idle().await;
        let _empty = in_flight.enter().hold(Response::new(Body::empty()));
        assert_eq!(in_flight.count(), 0);
    }
}
