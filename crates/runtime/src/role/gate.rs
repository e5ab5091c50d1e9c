//! Where a running service is mounted: a gate that lets requests in, counts them, and can be shut.
//!
//! The agent's router is built once and asks the mount for each request; changing a role swaps what is mounted.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use plugin::{Claim, Detach, Metrics, Service, on_end};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use types::{Role, ServiceName};

/// Set in a gate's state once it is shut; the rest of the state counts requests.
const SHUT: u64 = 1 << 63;

/// Counts the requests inside; once shut, it stays shut.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: AtomicU64,
    emptied: Notify,
    /// Cancelled once it is shut.
    shut: CancellationToken,
    /// Cancelled when the requests inside must end.
    cut: CancellationToken,
}

/// A request inside a gate; dropping it lets it out.
#[derive(Debug)]
#[must_use]
pub(crate) struct Pass(Arc<Gate>);

impl Gate {
    /// Lets a request in, unless the gate is shut.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Pass> {
        // Counted before the check, so that `shut` counts every request that gets in.
        let before = self.state.fetch_add(1, Ordering::SeqCst);
        let pass = Pass(self.clone());
        (before & SHUT == 0).then_some(pass)
    }

    /// Shuts the gate; returns how many requests are inside.
    pub(crate) fn shut(&self) -> u64 {
        let inside = self.state.fetch_or(SHUT, Ordering::SeqCst) & !SHUT;
        self.shut.cancel();
        inside
    }

    /// Waits until the gate is shut.
    pub(crate) async fn is_shut(&self) {
        self.shut.cancelled().await;
    }

    /// How many requests are inside.
    pub(crate) fn inside(&self) -> u64 {
        self.state.load(Ordering::SeqCst) & !SHUT
    }

    /// Ends the requests that are still inside.
    pub(crate) fn cut(&self) {
        self.cut.cancel();
    }

    /// Waits until the requests inside must end.
    pub(crate) async fn is_cut(&self) {
        self.cut.cancelled().await;
    }

    /// Waits until no request is inside. Meant for a gate that is shut.
    pub(crate) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if self.inside() == 0 {
                return;
            }
            emptied.await;
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.0.state.fetch_sub(1, Ordering::SeqCst) & !SHUT == 1 {
            self.0.emptied.notify_waiters();
        }
    }
}

/// A service behind its gate.
#[derive(Debug, Clone)]
pub(crate) struct Mounted {
    pub(crate) role: Role,
    pub(crate) service: ServiceName,
    pub(crate) router: axum::Router,
    pub(crate) gate: Arc<Gate>,
    /// The claim under which its shard is owned.
    pub(crate) claim: Option<Claim>,
    /// Whether shards of the service have owners, so that no client may delay its end.
    pub(crate) is_owned: bool,
    pub(crate) probe: Probe,
}

/// Reads the staleness of a running service.
#[derive(Clone)]
pub(crate) struct Probe(pub(crate) Arc<dyn Service>);

impl Probe {
    /// How far its replica may be behind the owner. None if the service panics.
    pub(crate) fn staleness(&self) -> Option<Duration> {
        std::panic::catch_unwind(AssertUnwindSafe(|| self.0.staleness())).ok().flatten()
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Probe")
    }
}

/// What is mounted now, if anything. Reading it never waits.
#[derive(Debug)]
pub(crate) struct Mount(ArcSwapOption<Mounted>);

impl Mount {
    /// Nothing is mounted.
    pub(crate) fn new(metrics: &Metrics) -> Arc<Self> {
        let mount = Arc::new(Self(ArcSwapOption::empty()));
        let counted = Arc::clone(&mount);
        let help = "Requests that the service is answering";
        metrics.observable_gauge("requests_in_flight", help, move || counted.in_flight());
        mount
    }

    /// What is mounted now.
    pub(crate) fn load(&self) -> Option<Arc<Mounted>> {
        self.0.load_full()
    }

    /// Mounts a service.
    pub(crate) fn set(&self, mounted: Mounted) {
        self.0.store(Some(Arc::new(mounted)));
    }

    /// Takes down what is mounted.
    pub(crate) fn clear(&self) {
        self.0.store(None);
    }

    /// Requests that the mounted service is answering.
    pub(crate) fn in_flight(&self) -> u64 {
        self.load().map_or(0, |mounted| mounted.gate.inside())
    }
}

/// Keeps the request inside its gate until the body of its answer has been sent or dropped, or the request is detached.
///
/// A connection that switches to another protocol, such as a WebSocket, stays inside as long as it is open: the listener keeps
/// the body of its answer for that time.
pub(crate) fn hold(response: Response<Body>, gate: &Gate, tie: Detach) -> Response<Body> {
    let is_switch = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if !is_switch && response.body().is_end_stream() {
        tie.detach();
        return response;
    }
    if tie.is_detached() {
        return response;
    }
    let cut = Box::pin(gate.cut.clone().cancelled_owned());
    response.map(|body| {
        let body = if is_switch { Body::new(Open) } else { body };
        let body = Cuttable { body, cut, tie: tie.clone() };
        Body::new(on_end(body, move |_| tie.detach()))
    })
}

/// The body of an answer that switches protocols. It ends with the connection, which drops it.
struct Open;

impl HttpBody for Open {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Pending
    }
}

/// A body that fails once the gate ends its requests, unless its request was detached.
struct Cuttable {
    body: Body,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    tie: Detach,
}

impl HttpBody for Cuttable {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if !self.tie.is_detached() && self.cut.as_mut().poll(cx).is_ready() {
            let error = std::io::Error::other("the service was stopped before the answer was complete");
            return Poll::Ready(Some(Err(axum::Error::new(error))));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_shut_gate_lets_no_request_in_and_waits_for_those_inside() {
        let gate = Arc::new(Gate::default());
        let first = gate.enter().unwrap();
        let second = gate.enter().unwrap();
        assert_eq!(gate.shut(), 2);
        assert!(gate.enter().is_none());
        assert_eq!(gate.inside(), 2, "a refused request is not counted");
        drop(first);
        let waiting = gate.empty();
        tokio::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        drop(second);
        waiting.await;
        gate.empty().await;
    }

    #[tokio::test]
    async fn a_cut_ends_the_bodies_that_are_still_sent() {
        let gate = Arc::new(Gate::default());
        let endless = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let response = hold(Response::new(endless), &gate, Detach::new(gate.enter().unwrap()));
        let mut body = response.into_body();
        assert!(futures_util::poll!(http_body_util::BodyExt::frame(&mut body)).is_pending());
        gate.cut();
        assert!(http_body_util::BodyExt::frame(&mut body).await.unwrap().is_err());
        drop(body);
        gate.empty().await;
    }

    #[tokio::test]
    async fn a_connection_that_switches_is_inside_until_it_is_closed_or_cut() {
        let gate = Arc::new(Gate::default());
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let mut body = hold(response, &gate, Detach::new(gate.enter().unwrap())).into_body();
        assert!(futures_util::poll!(http_body_util::BodyExt::frame(&mut body)).is_pending());
        assert_eq!(gate.inside(), 1);
        gate.cut();
        assert!(http_body_util::BodyExt::frame(&mut body).await.unwrap().is_err());
        drop(body);
        assert_eq!(gate.inside(), 0);
    }

    #[tokio::test]
    async fn a_request_is_inside_until_its_body_is_gone() {
        let gate = Arc::new(Gate::default());
        let hold = |body| hold(Response::new(body), &gate, Detach::new(gate.enter().unwrap()));
        let response = hold(Body::from("hello"));
        assert_eq!(gate.inside(), 1);
        drop(response);
        assert_eq!(gate.inside(), 0);
        let _ = hold(Body::empty());
        assert_eq!(gate.inside(), 0);
    }

    #[tokio::test]
    async fn an_answer_that_is_detached_is_neither_waited_for_nor_cut() {
        let gate = Arc::new(Gate::default());
        let tie = Detach::new(gate.enter().unwrap());
        let parts = futures_util::stream::iter(["a", "b"].map(Ok::<_, std::io::Error>));
        let response = hold(Response::new(Body::from_stream(parts)), &gate, tie.clone());
        gate.shut();
        tie.detach();
        gate.empty().await;
        gate.cut();
        let whole = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        assert_eq!(&whole[..], b"ab");
    }
}
