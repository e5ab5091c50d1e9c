//! The body of one attempt: what is kept, then the rest, until a newer attempt reads it.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{BoxError, State, lock};

/// The body of one attempt.
pub(crate) enum AttemptBody {
    /// In memory; `None` once it was read.
    Whole(Option<Bytes>),
    /// The kept part of a streamed body, then the rest.
    Part { state: Arc<Mutex<State>>, attempt: u32 },
}

/// A newer attempt reads the body now.
#[derive(Debug, thiserror::Error)]
#[error("the request is being sent again")]
struct Detached;

impl Body for AttemptBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Part { state, attempt } => {
                let mut state = lock(state);
                if state.attempt != *attempt {
                    return Poll::Ready(Some(Err(Box::new(Detached))));
                }
                if state.is_held {
                    state.held = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                state.poll_next(cx)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Part { state, attempt } => {
                let state = lock(state);
                state.attempt == *attempt && state.has_ended()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Part { state, .. } => lock(state).size_hint(),
        }
    }
}
