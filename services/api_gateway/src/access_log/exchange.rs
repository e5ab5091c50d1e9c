//! A request and its answer, as far as the log shows them. The line is written when this is dropped.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::SystemTime;

use axum::body::Body;
use bytes::Bytes;
use http::header::{HeaderName, REFERER, USER_AGENT};
use http::{Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use mesh::head::{REQUEST_ID, asked_host};
use plugin::http::ProblemCode;
use plugin::{BodyEnd, Peer, TlsSession, on_end};
use tokio::time::Instant;
use types::api;

use super::line::Line;
use super::{AccessLog, Notes};
use crate::client_addr::client_addr;
use crate::listeners::Arrival;
use crate::settings::QueryLog;

const NODE: HeaderName = HeaderName::from_static(api::NODE);

/// The status of a request whose client left before it was answered, as in nginx.
const CLIENT_LEFT: u16 = 499;

/// A request and its answer.
#[derive(Debug)]
pub(crate) struct Exchange {
    log: AccessLog,
    began: Instant,
    notes: Arc<Notes>,
    bytes_in: Arc<AtomicU64>,
    bytes_out: Arc<AtomicU64>,
    line: Line,
}

impl Exchange {
    /// A request that has arrived.
    pub(crate) fn begin(log: AccessLog, arrival: &Arrival, request: &mut Request<Body>) -> Self {
        let (head, body) = std::mem::take(request).into_parts();
        let peer = head.extensions.get::<Peer>().map(|peer| peer.0);
        let session = head.extensions.get::<TlsSession>();
        let text = |name: HeaderName| {
            head.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let target = match (head.uri.path_and_query(), log.0.plan.query) {
            (Some(target), QueryLog::Keep) => target.as_str(),
            _ => head.uri.path(),
        };
        let line = Line {
            time: SystemTime::now(),
            listener: arrival.listener.clone(),
            client: client_addr(peer.map(|peer| peer.ip()), &head.headers, &arrival.trust),
            peer,
            protocol: format!("{:?}", head.version),
            tls_version: session.map(|session| session.version),
            sni: session.and_then(|session| session.server_name.clone()),
            method: head.method.to_string(),
            host: asked_host(&head).map(ToOwned::to_owned),
            path: target.to_owned(),
            user_agent: text(USER_AGENT),
            referer: text(REFERER),
            ..Line::default()
        };
        *request = Request::from_parts(head, body);
        let notes = Arc::<Notes>::default();
        request.extensions_mut().insert(Arc::clone(&notes));
        let (bytes_in, bytes_out) = (Arc::default(), Arc::default());
        Self { log, began: Instant::now(), notes, bytes_in, bytes_out, line }
    }

    /// The body of the request, counted.
    pub(crate) fn counted(&self, body: Body) -> Body {
        if body.is_end_stream() {
            return body;
        }
        Body::new(Counted { body, bytes: Arc::clone(&self.bytes_in) })
    }

    /// The answer. The exchange ends with its body.
    pub(crate) fn answered(mut self, answer: Response<Body>) -> Response<Body> {
        let header =
            |name| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
        self.line.status = Some(answer.status());
        self.line.request_id = header(REQUEST_ID);
        match answer.extensions().get::<ProblemCode>() {
            // The gateway itself answers.
            Some(ProblemCode(code)) => self.line.reason = Some(code.clone()),
            None => self.line.member = header(NODE),
        }
        let bytes = Arc::clone(&self.bytes_out);
        answer.map(|body| {
            let ended = move |end| {
                match end {
                    BodyEnd::Whole => {}
                    BodyEnd::Broken => self.line.reason = Some("upstream-reset".to_owned()),
                    BodyEnd::Dropped => self.line.reason = Some("client-gone".to_owned()),
                }
                drop(self);
            };
            Body::new(on_end(Counted { body, bytes }, ended))
        })
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let line = &mut self.line;
        line.duration = self.began.elapsed();
        line.bytes_in = self.bytes_in.load(Ordering::Relaxed);
        line.bytes_out = self.bytes_out.load(Ordering::Relaxed);
        line.route = self.notes.route.get().cloned();
        line.service = self.notes.service.get().cloned();
        if line.status.is_none() {
            line.status = StatusCode::from_u16(CLIENT_LEFT).ok();
            line.reason = Some("client-gone".to_owned());
        }
        self.log.log(line.written(self.log.0.plan.format));
    }
}

/// A body whose bytes are counted.
struct Counted {
    body: Body,
    bytes: Arc<AtomicU64>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
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
