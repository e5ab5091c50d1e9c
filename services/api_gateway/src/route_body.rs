//! Bodies on a route: a request's body with a limit, and an answer's body with a deadline.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use mesh::{MeshBody, MeshBodyError};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::compression::{CompressedBody, EncodeError, Encoder};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request's body that ends with an error once it has more bytes than it may have. Nothing of it is kept.
pub(crate) struct LimitedBody<B> {
    inner: Pin<Box<B>>,
    left: u64,
    exceeded: Exceeded,
}

/// Whether a body had more bytes than it may have.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exceeded(Arc<AtomicBool>);

/// The body has more bytes than the route accepts.
#[derive(Debug, thiserror::Error)]
#[error("the body has more bytes than the route accepts")]
struct TooLarge;

impl Exceeded {
    pub(crate) fn is_true(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl<B> LimitedBody<B> {
    /// The body with a limit in bytes, and whether it was exceeded.
    pub(crate) fn new(inner: B, limit: u64) -> (Self, Exceeded) {
        let exceeded = Exceeded::default();
        (Self { inner: Box::pin(inner), left: limit, exceeded: exceeded.clone() }, exceeded)
    }
}

impl<B> Body for LimitedBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.exceeded.is_true() {
            return Poll::Ready(Some(Err(Box::new(TooLarge))));
        }
        let polled = this.inner.as_mut().poll_frame(cx).map_err(Into::into);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            match this.left.checked_sub(data.len() as u64) {
                Some(left) => this.left = left,
                None => {
                    this.exceeded.0.store(true, Ordering::Relaxed);
                    return Poll::Ready(Some(Err(Box::new(TooLarge))));
                }
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        !self.exceeded.is_true() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of an answer on a route.
#[derive(Debug)]
pub(crate) struct RouteBody {
    content: Content,
    /// When it must have ended, and how long the whole exchange may take.
    deadline: Option<(Pin<Box<Sleep>>, Duration)>,
}

#[derive(Debug)]
enum Content {
    Forwarded(MeshBody),
    /// The gateway's own.
    Fixed(Bytes),
    /// Either of the others.
    Compressed(Box<CompressedBody<RouteBody>>),
}

/// Why the body of an answer ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RouteBodyError {
    #[error(transparent)]
    Broken(#[from] MeshBodyError),
    /// Raise the limit, or find out why the answer is slow.
    #[error("the exchange took longer than {0:?}")]
    TooLong(Duration),
    #[error(transparent)]
    NotCompressed(#[from] EncodeError),
}

impl RouteBody {
    /// A body that is forwarded, and must have ended at the deadline.
    pub(crate) fn forwarded(body: MeshBody, deadline: Option<(Instant, Duration)>) -> Self {
        let has_ended = body.is_end_stream();
        let deadline = deadline.filter(|_| !has_ended);
        let deadline = deadline.map(|(at, limit)| (Box::pin(sleep_until(at)), limit));
        Self { content: Content::Forwarded(body), deadline }
    }

    /// The gateway's own body.
    pub(crate) fn fixed(body: Bytes) -> Self {
        Self { content: Content::Fixed(body), deadline: None }
    }

    /// The same body, compressed while it is read.
    pub(crate) fn compressed(self, encoder: Encoder) -> Self {
        Self { content: Content::Compressed(Box::new(CompressedBody::new(self, encoder))), deadline: None }
    }
}

impl Body for RouteBody {
    type Data = Bytes;
    type Error = RouteBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RouteBodyError>>> {
        let this = self.get_mut();
        let body = match &mut this.content {
            Content::Forwarded(body) => body,
            Content::Fixed(bytes) => {
                let bytes = std::mem::take(bytes);
                return Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))));
            }
            Content::Compressed(body) => return Pin::new(&mut **body).poll_frame(cx),
        };
        if let Some((deadline, limit)) = &mut this.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err(RouteBodyError::TooLong(*limit))));
        }
        Pin::new(body).poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Forwarded(body) => body.is_end_stream(),
            Content::Fixed(bytes) => bytes.is_empty(),
            Content::Compressed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Forwarded(body) => body.size_hint(),
            Content::Fixed(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Compressed(body) => body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};

    use super::*;

    #[tokio::test]
    async fn a_body_within_its_limit_passes_and_a_longer_one_ends_with_an_error() {
        let (body, exceeded) = LimitedBody::new(Full::new(Bytes::from_static(b"12345")), 5);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "12345");
        assert!(!exceeded.is_true());
        let (body, exceeded) = LimitedBody::new(Full::new(Bytes::from_static(b"12345")), 4);
        assert!(body.collect().await.is_err() && exceeded.is_true());
    }

    #[tokio::test]
    async fn the_gateways_own_body_is_sent_once_with_its_length() {
        let body = RouteBody::fixed(Bytes::from_static(b"ok"));
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(2), false));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "ok");
        assert!(RouteBody::fixed(Bytes::new()).is_end_stream());
    }
}
