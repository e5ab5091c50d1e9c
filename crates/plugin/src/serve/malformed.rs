//! Requests over HTTP/2 that h2 accepts although they are malformed (RFC 9113, section 8.1.1). Their stream is reset with
//! `PROTOCOL_ERROR`.
//!
//! What h2 does not pass on can't be checked here: it drops pseudo header fields of trailers.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use http::header::HOST;
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use mesh::MalformedBody;
use mesh::head::HeadError;
use types::{ErrorKind, Problem};

/// The error with which a service resets its stream.
pub(super) fn reset() -> h2::Error {
    h2::Reason::PROTOCOL_ERROR.into()
}

/// What is malformed in the head of a request. Pure.
pub(super) fn of_head(head: &Parts) -> Option<Problem> {
    if head.method == Method::CONNECT && head.uri.authority().is_none() {
        let problem = Problem::new(ErrorKind::Invalid, "no-host", "the CONNECT request has no `:authority`");
        return Some(problem.hint("send `:authority` with CONNECT"));
    }
    if let Some(name) = padded(&head.headers) {
        let detail = format!("the value of the header field `{name}` begins or ends with a space or a tab");
        let problem = Problem::new(ErrorKind::Invalid, "bad-header", detail);
        return Some(problem.hint("send values without white space around them"));
    }
    is_other_host(head).then(|| HeadError::SeveralHosts.to_problem())
}

/// The name of a field whose value begins or ends with white space (section 8.2.1).
fn padded(fields: &HeaderMap) -> Option<&HeaderName> {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let mut padded = fields.iter().filter(|(_, value)| {
        let bytes = value.as_bytes();
        is_space(bytes.first()) || is_space(bytes.last())
    });
    padded.next().map(|(name, _)| name)
}

/// Whether `Host` names another host than `:authority` (section 8.3.1), or another port than the default one of the scheme.
fn is_other_host(head: &Parts) -> bool {
    let Some((authority, host)) = head.uri.authority().zip(head.headers.get(HOST)) else { return false };
    let port = match head.uri.scheme_str() {
        Some("https") => &b":443"[..],
        _ => b":80",
    };
    let plain = |host: &[u8]| {
        let without = host.strip_suffix(port).or_else(|| host.strip_suffix(b":")).unwrap_or(host);
        without.to_ascii_lowercase()
    };
    plain(authority.as_str().as_bytes()) != plain(host.as_bytes())
}

/// Whether the trailers of a request are malformed. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Trailers(Arc<AtomicBool>);

impl Trailers {
    pub(super) fn are_malformed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The body of a request, which ends with an error if its trailers are malformed. With it, what notes that; none without a body.
pub(super) fn checked(body: Incoming) -> (Body, Option<Trailers>) {
    if body.is_end_stream() {
        return (Body::empty(), None);
    }
    let trailers = Trailers::default();
    (Body::new(Checked { body, trailers: trailers.clone() }), Some(trailers))
}

struct Checked {
    body: Incoming,
    trailers: Trailers,
}

impl HttpBody for Checked {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let this = self.get_mut();
        let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(cx)).transpose()? else {
            return Poll::Ready(None);
        };
        if let Some(name) = frame.trailers_ref().and_then(padded) {
            this.trailers.0.store(true, Ordering::Relaxed);
            let why = format!("the value of the trailer field `{name}` begins or ends with a space or a tab");
            return Poll::Ready(Some(Err(Box::new(MalformedBody(why)))));
        }
        Poll::Ready(Some(Ok(frame)))
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
    use http::Request;
    use http::header::HeaderValue;

    use super::*;

    #[test]
    fn a_head_is_malformed_by_its_host_or_by_white_space_around_a_value() {
        for (method, target, field, code) in [
            ("GET", "http://x/", ("a", "b c"), None),
            ("GET", "http://x/", ("a", ""), None),
            ("GET", "http://x/", ("a", " b"), Some("bad-header")),
            ("GET", "http://x/", ("a", "b\t"), Some("bad-header")),
            ("GET", "http://x/", ("a", "\t"), Some("bad-header")),
            ("GET", "http://x/", ("host", "X"), None),
            ("GET", "http://x/", ("host", "x:80"), None),
            ("GET", "http://x:80/", ("host", "x"), None),
            ("GET", "https://x/", ("host", "x:443"), None),
            ("GET", "https://x/", ("host", "x:80"), Some("several-hosts")),
            ("GET", "http://x/", ("host", "y"), Some("several-hosts")),
            ("GET", "http://x/", ("host", "x:81"), Some("several-hosts")),
            ("GET", "/", ("host", "y"), None),
            ("CONNECT", "x:443", ("a", "b"), None),
            ("CONNECT", "/", ("a", "b"), Some("no-host")),
        ] {
            let request = Request::builder().method(method).uri(target);
            let value = HeaderValue::from_bytes(field.1.as_bytes()).unwrap();
            let (head, ()) = request.header(field.0, value).body(()).unwrap().into_parts();
            let problem = of_head(&head);
            assert_eq!(problem.as_ref().map(Problem::code), code, "{method} {target} {field:?}");
        }
    }
}
