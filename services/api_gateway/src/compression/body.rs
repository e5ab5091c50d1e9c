//! The compressed body of an answer. It flushes whenever the body behind it has nothing more for now, so that the first event of
//! a stream is at the client at once, and never holds more than one buffer of compressed bytes and one frame of the others.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::encoder::{EncodeError, Encoder, Room};

/// The most compressed bytes in one frame.
const BUFFER: usize = 8 * 1024;
/// The most bytes that become one frame: however well they compress, a long body does not hold its core for longer.
const MOST: usize = 64 * 1024;

/// A body that is compressed while it is read.
pub(crate) struct CompressedBody<B> {
    inner: B,
    encoder: Encoder,
    room: Room,
    /// What is left of the last frame.
    input: Bytes,
    /// The bytes that were compressed since the last flush.
    since_flush: usize,
    /// Whether the tasks that feed the body had their turn since it had nothing more.
    has_yielded: bool,
    stage: Stage,
    trailers: Option<HeaderMap>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Reading,
    Flushing,
    /// All was read.
    Finishing,
    /// The trailers are left, if there are any.
    Trailing,
    Ended,
}

impl<B> CompressedBody<B> {
    /// A body whose bytes this encoder has not seen yet.
    pub(crate) fn new(inner: B, encoder: Encoder) -> Self {
        Self {
            inner,
            encoder,
            room: Room::new(BUFFER),
            input: Bytes::new(),
            since_flush: 0,
            has_yielded: false,
            stage: Stage::Reading,
            trailers: None,
        }
    }

    #[cfg(test)]
    pub(super) fn inner_mut(&mut self) -> &mut B {
        &mut self.inner
    }
}

impl<B> CompressedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: From<EncodeError>,
{
    /// Compresses what is there, and reads on. Returns what can be sent, with `None` at the end.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, B::Error>> {
        loop {
            match self.stage {
                Stage::Reading if self.room.is_full() => return Poll::Ready(Ok(Some(self.frame()))),
                Stage::Reading if self.since_flush >= MOST => self.stage = Stage::Flushing,
                Stage::Reading if !self.input.is_empty() => {
                    let most = self.input.len().min(MOST - self.since_flush);
                    let taken = self.encoder.write(&self.input[..most], &mut self.room)?;
                    self.input.advance(taken);
                    self.since_flush += taken;
                }
                Stage::Reading => match Pin::new(&mut self.inner).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => self.take(frame),
                    Poll::Ready(Some(Err(error))) => {
                        self.stage = Stage::Ended;
                        return Poll::Ready(Err(error));
                    }
                    Poll::Ready(None) => self.stage = Stage::Finishing,
                    Poll::Pending if self.since_flush == 0 => return Poll::Pending,
                    Poll::Pending if !self.has_yielded => {
                        // The next piece may have arrived already: the connection to the server is a task of this core.
                        self.has_yielded = true;
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Poll::Pending => self.stage = Stage::Flushing,
                },
                Stage::Flushing => {
                    if self.encoder.flush(&mut self.room)? {
                        (self.stage, self.since_flush, self.has_yielded) = (Stage::Reading, 0, false);
                    }
                    if !self.room.filled().is_empty() {
                        return Poll::Ready(Ok(Some(self.frame())));
                    }
                }
                Stage::Finishing => {
                    if self.encoder.finish(&mut self.room)? {
                        self.stage = Stage::Trailing;
                    }
                    if !self.room.filled().is_empty() {
                        return Poll::Ready(Ok(Some(self.frame())));
                    }
                }
                Stage::Trailing => {
                    self.stage = Stage::Ended;
                    return Poll::Ready(Ok(self.trailers.take().map(Frame::trailers)));
                }
                Stage::Ended => return Poll::Ready(Ok(None)),
            }
        }
    }

    fn take(&mut self, frame: Frame<Bytes>) {
        match frame.into_data() {
            Ok(data) => self.input = data,
            Err(frame) => {
                self.trailers = frame.into_trailers().ok();
                self.stage = Stage::Finishing;
            }
        }
    }

    /// The compressed bytes so far.
    fn frame(&mut self) -> Frame<Bytes> {
        let bytes = Bytes::copy_from_slice(self.room.filled());
        self.room.clear();
        Frame::data(bytes)
    }
}

impl<B> Body for CompressedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: From<EncodeError>,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.get_mut().poll_next(cx).map(Result::transpose)
    }

    fn is_end_stream(&self) -> bool {
        match self.stage {
            Stage::Reading | Stage::Flushing | Stage::Finishing => false,
            Stage::Trailing => self.trailers.is_none(),
            Stage::Ended => true,
        }
    }

    /// Not known before it was compressed.
    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl<B> std::fmt::Debug for CompressedBody<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CompressedBody").field("stage", &self.stage).finish_non_exhaustive()
    }
}
