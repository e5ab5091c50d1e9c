//! The body of an answer as it arrives; its end releases the connection.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::Leased;

/// The body of an answer. Dropped before its end, it closes the connection.
#[derive(Debug)]
pub(crate) struct Received {
    incoming: Incoming,
    connection: Option<Leased>,
}

impl Received {
    pub(crate) fn new(incoming: Incoming, connection: Leased) -> Self {
        let has_ended = incoming.is_end_stream();
        let mut body = Self { incoming, connection: Some(connection) };
        if has_ended {
            body.ended();
        }
        body
    }

    /// The body of the answer to a handshake, whose connection is not used again.
    pub(crate) fn alone(incoming: Incoming, connection: Leased) -> Self {
        Self { incoming, connection: Some(connection) }
    }

    fn ended(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.put_back();
        }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.incoming).poll_frame(cx);
        match &polled {
            Poll::Ready(None) => this.ended(),
            Poll::Ready(Some(Ok(frame))) if frame.is_trailers() || this.incoming.is_end_stream() => {
                this.ended();
            }
            Poll::Ready(Some(Err(_))) => this.connection = None,
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
