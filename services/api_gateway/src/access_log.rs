//! What the gateway logs: a line for each request, written when its exchange ends. The machinery is `plugin`'s.
//!
//! Lines never contain credentials: neither `Authorization` nor `Cookie`, nor keys.

mod line;

use std::time::{Duration, SystemTime};

use axum::body::Body;
use http::header::{HOST, HeaderName, HeaderValue, REFERER, USER_AGENT};
use http::uri::Authority;
use http::{HeaderMap, Request, StatusCode};
use mesh::{Traced, Trail};
use plugin::access_log::{AccessLog, QueryLog};
use plugin::client_addr::client_addr;
use plugin::http::trace::TraceId;
use plugin::{Peer, RefusedHead, TlsSession};
use types::ServiceName;

use crate::listeners::Arrival;
use crate::table::Way;
use line::Line;
use plugin::access_log::reason::{Reason, of_code};

/// A request, as far as the log shows it.
#[derive(Debug)]
pub(crate) struct Logged {
    log: AccessLog,
    line: Line,
    trail: Trail,
    /// How long it waited for a place on its route.
    waited: Duration,
}

impl Logged {
    /// A request that has arrived, if lines are wanted.
    pub(crate) fn begin(log: &AccessLog, arrival: &Arrival, request: &Request<Body>) -> Option<Box<Self>> {
        if !log.is_on() {
            return None;
        }
        let extensions = request.extensions();
        let peer = extensions.get::<Peer>().map(|peer| peer.0);
        let session = extensions.get::<TlsSession>();
        let target = match (request.uri().path_and_query(), log.query()) {
            (Some(target), QueryLog::Keep) => target.as_str(),
            _ => request.uri().path(),
        };
        let headers = request.headers();
        let host = request.uri().authority().map(Authority::as_str);
        let host = host.or_else(|| headers.get(HOST)?.to_str().ok());
        let line = Line {
            time: SystemTime::now(),
            listener: arrival.listener.clone(),
            client: client_addr(peer.map(|peer| peer.ip()), headers, &arrival.trust),
            peer,
            protocol: format!("{:?}", request.version()),
            tls_version: session.map(|session| session.version),
            sni: session.and_then(|session| session.server_name.clone()),
            method: request.method().to_string(),
            host: host.map(ToOwned::to_owned),
            path: target.to_owned(),
            user_agent: text(headers, USER_AGENT),
            referer: text(headers, REFERER),
            ..Line::default()
        };
        Some(Box::new(Self { log: log.clone(), line, trail: Trail::default(), waited: Duration::ZERO }))
    }

    /// The ids of the request, and of its trace.
    pub(crate) fn ids(&mut self, id: &HeaderValue, trace: TraceId) {
        self.line.request_id = id.to_str().ok().map(ToOwned::to_owned);
        self.line.trace_id = Some(trace);
    }

    pub(crate) fn route(&mut self, way: &Way) {
        self.line.route = Some(way.label.clone());
    }

    pub(crate) fn service(&mut self, service: &ServiceName) {
        self.line.service = Some(service.to_string());
    }

    /// It waited for a place on its route.
    pub(crate) fn waited(&mut self, waited: Duration) {
        self.waited = waited;
    }

    /// Where the mesh notes what happens to it.
    pub(crate) fn trail(&self) -> &Trail {
        &self.trail
    }

    /// Appends the line.
    pub(crate) fn write(mut self: Box<Self>, end: &End) {
        let Traced { member, attempts, retry_reason, queued, connect, first_byte, status } =
            self.trail.read();
        let line = &mut self.line;
        line.status = Some(end.status);
        (line.bytes_in, line.bytes_out) = (end.received, end.sent);
        line.duration = end.took;
        let queued = queued.unwrap_or_default() + self.waited;
        line.queued = (!queued.is_zero()).then_some(queued);
        (line.connect, line.first_byte) = (connect, first_byte);
        (line.member, line.upstream_status) = (member, status);
        line.attempts = attempts;
        line.retry_reason = retry_reason.map(mesh::RetryReason::as_str);
        line.reason.clone_from(&end.reason);
        let format = self.log.format();
        self.log.append(|out| line.write(format, out));
    }
}

/// How an exchange ended.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) status: StatusCode,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) took: Duration,
    pub(crate) reason: Option<Reason>,
}

/// Logs a request that the listener refused for its head alone.
pub(crate) fn refused(log: &AccessLog, arrival: &Arrival, refused: &RefusedHead<'_>) {
    if !log.is_on() {
        return;
    }
    let path = match log.query() {
        QueryLog::Keep => refused.target.as_str(),
        QueryLog::Omit => refused.target.split(['?', '#']).next().unwrap_or_default(),
    };
    let none = HeaderMap::new();
    let headers = refused.headers.unwrap_or(&none);
    let line = Line {
        time: SystemTime::now(),
        listener: arrival.listener.clone(),
        client: client_addr(Some(refused.peer.ip()), headers, &arrival.trust),
        peer: Some(refused.peer),
        protocol: refused.protocol.clone(),
        tls_version: refused.session.map(|session| session.version),
        sni: refused.session.and_then(|session| session.server_name.clone()),
        method: refused.method.clone(),
        host: text(headers, HOST),
        path: path.to_owned(),
        status: StatusCode::from_u16(refused.problem.status).ok(),
        reason: Some(of_code(refused.problem.code())),
        user_agent: text(headers, USER_AGENT),
        referer: text(headers, REFERER),
        ..Line::default()
    };
    let format = log.format();
    log.append(|out| line.write(format, out));
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}
