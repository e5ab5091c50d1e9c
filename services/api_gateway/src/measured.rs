//! The body of an answer: its bytes are counted, and its end is the request's.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use mesh::MeshBodyError;

use crate::route_body::{RouteBody, RouteBodyError};
use crate::ticket::Ticket;
use plugin::access_log::reason::{Reason, UPSTREAM_RESET, UPSTREAM_TIMEOUT};

/// The body of an answer. The request ends with it.
pub(crate) struct Sent {
    body: RouteBody,
    /// Until the end.
    ticket: Option<Ticket>,
}

impl Sent {
    /// `is_head`: the request was HEAD, so nobody reads the body.
    pub(crate) fn new(body: RouteBody, ticket: Ticket, is_head: bool) -> Self {
        let mut sent = Self { body, ticket: Some(ticket) };
        if is_head {
            sent.ended(None);
        }
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
        RouteBodyError::Broken(MeshBodyError::Idle(_) | MeshBodyError::DeadlinePassed(_))
        | RouteBodyError::TooLong(_) => UPSTREAM_TIMEOUT,
        RouteBodyError::NotCompressed(_) => Reason::Borrowed("not_compressed"),
    }
}
