//! A connection that has switched to another protocol: who has it now, and when it ends.
//!
//! The body of the answer 101 is polled as long as the connection is open: a proxy moves the bytes of both of its connections
//! in it, and a gate ends it with an error when its service ends. A handler may also keep the connection for itself, with
//! `hyper::upgrade::on` its request; then the body only holds what the request holds.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use axum::body::{Body, HttpBody};

use super::slots::{Activity, Order};

/// What the transport and the task of a connection share once it has switched.
#[derive(Debug, Default)]
pub(super) struct Switch(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The body of the answer 101.
    body: Option<Body>,
    /// Whether the transport fails from now on.
    is_cut: bool,
    /// Whether the transport is gone.
    is_closed: bool,
    /// Whether the client was sent the end of the connection.
    is_ended: bool,
    /// Tasks that wait for the end of the other one.
    user: [Option<Waker>; 2],
    connection: Option<Waker>,
}

/// Which half of the transport is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    Read,
    Write,
}

impl Switch {
    pub(super) fn new(body: Body) -> Self {
        Self(Mutex::new(State { body: Some(body), ..State::default() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails once the connection was cut; wakes the task when that happens.
    pub(super) fn check(&self, half: Half, cx: &Context<'_>) -> io::Result<()> {
        let mut state = self.state();
        if state.is_cut {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the listener closed the connection",
            ));
        }
        let waker = &mut state.user[half as usize];
        match waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        Ok(())
    }

    /// Notes that the transport is gone.
    pub(super) fn closed(&self) {
        let waker = {
            let mut state = self.state();
            state.is_closed = true;
            state.connection.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Notes that the client was sent the end of the connection.
    pub(super) fn ended(&self) {
        self.state().is_ended = true;
    }

    /// Ready once the transport is gone.
    fn poll_closed(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.is_closed {
            return Poll::Ready(());
        }
        state.connection = Some(cx.waker().clone());
        Poll::Pending
    }

    fn cut(&self) {
        let users = {
            let mut state = self.state();
            state.is_cut = true;
            std::mem::take(&mut state.user)
        };
        users.into_iter().flatten().for_each(Waker::wake);
    }
}

/// Cuts the connection when it is dropped.
struct Cut(Arc<Switch>);

impl Drop for Cut {
    fn drop(&mut self) {
        self.0.cut();
    }
}

/// Keeps a connection open that has switched, until it is closed by its user, by the body of its answer, or by a stop of the
/// listener. Returns whether the client must not take what it got for everything: then it should see a reset.
pub(super) async fn hold_open(switch: Arc<Switch>, activity: &Activity) -> bool {
    let mut body = switch.state().body.take();
    let (cut, mut has_ended) = (Cut(switch), false);
    let is_cut_short = poll_fn(|cx| {
        activity.watch(cx);
        // First: the body may fail, or a stop come, once all was sent.
        if cut.0.poll_closed(cx).is_ready() {
            return Poll::Ready(false);
        }
        if activity.has(Order::Stop) {
            return Poll::Ready(true);
        }
        if let (Some(answer), false) = (&mut body, has_ended) {
            match poll_body(answer, cx) {
                // What it holds is needed until the connection is closed.
                Poll::Ready(Ok(())) => has_ended = true,
                Poll::Ready(Err(_)) => return Poll::Ready(true),
                Poll::Pending => {}
            }
        }
        cut.0.poll_closed(cx).map(|()| false)
    })
    .await;
    // What was sent before the end is everything. A reset could take the last of it from the client.
    let is_ended = cut.0.state().is_ended;
    // First the tunnel, which still has the connection.
    drop(body);
    is_cut_short && !is_ended
}

/// Polls a body to its end. Call it no more after that.
pub(super) fn poll_body(body: &mut Body, cx: &mut Context<'_>) -> Poll<Result<(), axum::Error>> {
    loop {
        if body.is_end_stream() {
            return Poll::Ready(Ok(()));
        }
        match std::task::ready!(Pin::new(&mut *body).poll_frame(cx)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(error)),
            None => return Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests;
