//! A body whose bytes are counted as they are read.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// A body that adds the bytes of its data to a count.
#[derive(Debug)]
pub struct CountedBody<B> {
    body: B,
    bytes: Option<Arc<AtomicU64>>,
}

impl<B: Body> CountedBody<B> {
    /// The body, and its count; an empty body needs none.
    pub fn new(body: B) -> (Self, Option<Arc<AtomicU64>>) {
        let bytes = (!body.is_end_stream()).then(Arc::default);
        (Self { body, bytes: bytes.clone() }, bytes)
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for CountedBody<B> {
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

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Empty, Full};

    use super::*;

    #[tokio::test]
    async fn what_is_read_is_counted_and_an_empty_body_needs_no_count() {
        let (body, bytes) = CountedBody::new(Full::new(Bytes::from_static(b"12345")));
        let bytes = bytes.unwrap();
        assert_eq!((bytes.load(Ordering::Relaxed), body.size_hint().exact()), (0, Some(5)));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "12345");
        assert_eq!(bytes.load(Ordering::Relaxed), 5);
        assert!(CountedBody::new(Empty::<Bytes>::new()).1.is_none());
    }
}
