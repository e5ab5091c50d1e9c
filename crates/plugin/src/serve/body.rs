//! Bodies that report their end to the connection.

use axum::body::Body;
use http_body::Body as _;
use hyper::body::Incoming;

use super::progress::Progress;
use crate::{BodyEnd, on_end};

/// The body of a request. If it is dropped unread, the client may still be sending it.
pub(super) fn request(incoming: Incoming, progress: Progress) -> Body {
    if incoming.is_end_stream() {
        return Body::empty();
    }
    Body::new(on_end(incoming, move |end| match end {
        BodyEnd::Whole => progress.read_body(),
        BodyEnd::Broken | BodyEnd::Dropped => {}
    }))
}

/// The body of an answer.
pub(super) fn answer(body: Body, progress: Progress) -> Body {
    Body::new(on_end(body, move |_| progress.ended()))
}
