//! A body that reports its end.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyEnd {
    /// All of it was read.
    Whole,
    /// It broke off with an error.
    Broken,
    /// It was dropped before all of it was read.
    Dropped,
}

/// A body that calls `F` once, when it ends. Made by [`on_end`].
#[derive(Debug)]
pub struct OnEnd<B, F: FnOnce(BodyEnd)> {
    body: B,
    call: Option<F>,
}

/// Returns the same body. It runs `call` once when it ends: immediately if there is nothing to read.
///
/// Move into `call` what must exist until an answer has been sent, such as a place in a queue or a guard that counts
/// requests in flight.
pub fn on_end<B: Body, F: FnOnce(BodyEnd)>(body: B, call: F) -> OnEnd<B, F> {
    let is_empty = body.is_end_stream();
    let mut body = OnEnd { body, call: Some(call) };
    if is_empty {
        body.ended(BodyEnd::Whole);
    }
    body
}

impl<B, F: FnOnce(BodyEnd)> OnEnd<B, F> {
    fn ended(&mut self, end: BodyEnd) {
        if let Some(call) = self.call.take() {
            call(end);
        }
    }
}

impl<B: Body + Unpin, F: FnOnce(BodyEnd) + Unpin> Body for OnEnd<B, F> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        match &polled {
            Poll::Ready(None) => this.ended(BodyEnd::Whole),
            Poll::Ready(Some(Ok(_))) if this.body.is_end_stream() => this.ended(BodyEnd::Whole),
            Poll::Ready(Some(Err(_))) => this.ended(BodyEnd::Broken),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
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

impl<B, F: FnOnce(BodyEnd)> Drop for OnEnd<B, F> {
    fn drop(&mut self) {
        self.ended(BodyEnd::Dropped);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io;

    use axum::body::Body as AnyBody;
    use futures_util::stream;
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn the_end_is_reported_once_and_as_soon_as_it_is_known() {
        let streamed = |parts: Vec<io::Result<&'static str>>| AnyBody::from_stream(stream::iter(parts));
        let broken = || vec![Err(io::Error::other("cut")), Ok("b")];
        for (body, frames, before_drop, end) in [
            (AnyBody::empty(), 0, Some(BodyEnd::Whole), BodyEnd::Whole),
            (AnyBody::from("a"), 0, None, BodyEnd::Dropped),
            (AnyBody::from("a"), 1, Some(BodyEnd::Whole), BodyEnd::Whole),
            (streamed(vec![Ok("a")]), 1, None, BodyEnd::Dropped),
            (streamed(vec![Ok("a")]), 2, Some(BodyEnd::Whole), BodyEnd::Whole),
            (streamed(broken()), 1, Some(BodyEnd::Broken), BodyEnd::Broken),
            (streamed(broken()), 3, Some(BodyEnd::Broken), BodyEnd::Broken),
        ] {
            let (known, calls) = (Cell::new(None), Cell::new(0));
            let mut body = on_end(body, |end| {
                known.set(Some(end));
                calls.set(calls.get() + 1);
            });
            for _ in 0..frames {
                let _ = body.frame().await;
            }
            assert_eq!(known.get(), before_drop);
            drop(body);
            assert_eq!((known.get(), calls.get()), (Some(end), 1));
        }
    }
}
