//! Bodies that report their end to the connection.

use std::error::Error as _;
use std::io;

use axum::body::Body;
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use mesh::MalformedBody;

use super::progress::Progress;
use crate::on_end::OnEnd;
use crate::{BodyEnd, on_end};

/// The body of a request. If it is dropped unread, the client may still be sending it.
pub(super) fn request(incoming: Incoming, progress: Progress) -> Body {
    if incoming.is_end_stream() {
        return Body::empty();
    }
    let body = incoming.map_err(explained);
    Body::new(on_end(body, move |end| match end {
        BodyEnd::Whole => progress.read_body(),
        BodyEnd::Broken => progress.broke_body(),
        BodyEnd::Dropped => {}
    }))
}

/// The body of an answer; none reports its end after a switch to another protocol. Not boxed: the connection has room for it.
pub(super) fn answer(
    body: Body,
    progress: Option<Progress>,
) -> OnEnd<Body, impl FnOnce(BodyEnd) + Send + Unpin + 'static> {
    on_end(body, move |_| {
        if let Some(progress) = progress {
            progress.ended();
        }
    })
}

/// The error of a body over HTTP/1.1, which says whether the client sent something that is no chunk or has only stopped.
fn explained(error: hyper::Error) -> axum::BoxError {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    match cause.filter(|cause| is_malformed(cause.kind())) {
        Some(cause) => Box::new(MalformedBody(cause.to_string())),
        None => Box::new(error),
    }
}

/// The kinds that hyper's decoder of chunks gives what it can't read. A body that ends early has another one.
fn is_malformed(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)
}
