//! The bodies of an exchange, whose bytes are counted, and whose end is the request's.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use mesh::MeshBodyError;

use crate::reason::{Reason, UPSTREAM_RESET, UPSTREAM_TIMEOUT};
use crate::route_body::{RouteBody, RouteBodyError};
use crate::ticket::Ticket;

/// The body of a request whose bytes are counted.
pub(crate) struct Received<B> {
    body: B,
    bytes: Option<Arc<AtomicU64>>,
}

impl<B: Body> Received<B> {
    /// The body, and its count; an empty body has none.
    pub(crate) fn new(body: B) -> (Self, Option<Arc<AtomicU64>>) {
        let bytes = (!body.is_end_stream()).then(Arc::default);
        (Self { body, bytes: bytes.clone() }, bytes)
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Received<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let (Poll::Ready(Some(Ok(frame))), Some(bytes)) = (&polled, &self.bytes)
            && let Some(data) = frame.data_ref()
        {
            bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer. The request ends with it.
pub(crate) struct Sent {
    body: RouteBody,
    /// Until the end.
    ticket: Option<Ticket>,
}

impl Sent {
    pub(crate) fn new(body: RouteBody, ticket: Ticket) -> Self {
        let mut sent = Self { body, ticket: Some(ticket) };
        sent.end_if_ended();
        sent
    }

    /// The caller may not read on after the end.
    fn end_if_ended(&mut self) {
        if self.body.is_end_stream() {
            self.ended(None);
        }
    }

    fn ended(&mut self, reason: Option<Reason>) {
        if let Some(ticket) = self.ticket.take() {
            ticket.ended(reason);
        }
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = RouteBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RouteBodyError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(data), Some(ticket)) = (frame.data_ref(), &mut this.ticket) {
                    ticket.sent(data.len() as u64);
                }
                this.end_if_ended();
            }
            Poll::Ready(Some(Err(error))) => this.ended(Some(reason(error))),
            Poll::Ready(None) => this.ended(None),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn reason(error: &RouteBodyError) -> Reason {
    match error {
        RouteBodyError::Broken(MeshBodyError::Broken(_)) => UPSTREAM_RESET,
        RouteBodyError::Broken(MeshBodyError::Idle(_)) | RouteBodyError::TooLong(_) => UPSTREAM_TIMEOUT,
    }
}
