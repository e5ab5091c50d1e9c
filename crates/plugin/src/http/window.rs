//! Flow control for one streamed answer: bounds the bytes that its connection holds unsent.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::CHUNK;

/// Bounds the unsent bytes of one stream in its connection to a [`CHUNK`], so that a stream with a slow reader waits
/// here and not in the connection's buffers.
#[derive(Debug, Clone)]
pub struct Window(Arc<Semaphore>);

impl Default for Window {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(CHUNK)))
    }
}

impl Window {
    /// Waits until the connection may get these bytes, at most a chunk. They count as unsent until the result is dropped.
    pub async fn admit(&self, bytes: Bytes) -> Bytes {
        let cost = u32::try_from(bytes.len().min(CHUNK)).expect("a chunk is small");
        let permit = Arc::clone(&self.0).acquire_many_owned(cost).await.expect("it is never closed");
        Bytes::from_owner(Unsent { bytes, _permit: permit })
    }
}

/// Bytes that the connection has not sent yet; it drops them after sending.
struct Unsent {
    bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Unsent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Unsent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_connection_holds_at_most_a_chunk_of_a_stream() {
        let window = Window::default();
        let first = window.admit(Bytes::from(vec![0; CHUNK])).await;
        assert!(window.admit(Bytes::from_static(b"x")).now_or_never().is_none());
        drop(first);
        assert_eq!(window.admit(Bytes::from_static(b"x")).now_or_never().as_deref(), Some(&b"x"[..]));
    }
}
