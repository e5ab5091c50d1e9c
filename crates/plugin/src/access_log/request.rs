//! A request, as far as the access log shows it: noted from its head on, and written when its exchange ends.
//!
//! Lines never contain credentials: neither `Authorization` nor `Cookie`, nor keys.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use http::header::{HOST, REFERER, USER_AGENT};
use http::request::Parts;
use http::uri::Authority;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};
use ipnet::IpNet;
use mesh::{RetryReason, Traced, Trail};

use super::line::Line;
use super::reason::{Reason, of_code};
use super::{AccessLog, QueryLog};
use crate::client_addr::client_addr;
use crate::http::trace::TraceId;
use crate::{Peer, RefusedHead, TlsSession};

/// A request whose line is written at its end.
#[derive(Debug)]
pub struct LoggedRequest {
    log: AccessLog,
    line: Line,
    trail: Trail,
    /// How long it waited in the service itself.
    waited: Duration,
}

/// The head of a request, wherever its parts are.
#[derive(Debug, Clone, Copy)]
pub struct LoggedHead<'a> {
    method: &'a Method,
    uri: &'a Uri,
    version: Version,
    headers: &'a HeaderMap,
    extensions: &'a Extensions,
}

impl<'a> From<&'a Parts> for LoggedHead<'a> {
    fn from(Parts { method, uri, version, headers, extensions, .. }: &'a Parts) -> Self {
        Self { method, uri, version: *version, headers, extensions }
    }
}

impl<'a, B> From<&'a Request<B>> for LoggedHead<'a> {
    fn from(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            version: request.version(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }
}

/// How an exchange ended.
#[derive(Debug)]
pub struct RequestEnd {
    /// The status of the answer.
    pub status: StatusCode,
    /// The bytes of the request's body.
    pub received: u64,
    /// The bytes of the answer's body.
    pub sent: u64,
    /// How long the exchange took.
    pub took: Duration,
    /// Why the service itself answered, or the answer broke off.
    pub reason: Option<Reason>,
}

impl LoggedRequest {
    /// A request that has arrived on a listener from this client, if lines are wanted.
    pub fn begin<'a>(
        log: &AccessLog,
        listener: &str,
        head: impl Into<LoggedHead<'a>>,
        client: Option<IpAddr>,
    ) -> Option<Box<Self>> {
        if !log.is_on() {
            return None;
        }
        let LoggedHead { method, uri, version, headers, extensions } = head.into();
        let session = extensions.get::<TlsSession>();
        let path = match (uri.path_and_query(), log.query()) {
            (Some(target), QueryLog::Keep) => target.as_str(),
            (Some(_), QueryLog::Omit) | (None, _) => uri.path(),
        };
        let host = uri.authority().map(Authority::as_str);
        let host = host.or_else(|| headers.get(HOST)?.to_str().ok());
        let line = Line {
            time: SystemTime::now(),
            listener: listener.to_owned(),
            client,
            peer: extensions.get::<Peer>().map(|peer| peer.0),
            protocol: Some(format!("{version:?}")),
            tls_version: session.map(|session| session.version),
            sni: session.and_then(|session| session.server_name.clone()),
            method: Some(method.to_string()),
            host: host.map(ToOwned::to_owned),
            path: Some(path.to_owned()),
            user_agent: text(headers, USER_AGENT),
            referer: text(headers, REFERER).map(|referer| shown_of(referer, log.query())),
            ..Line::default()
        };
        Some(Box::new(Self { log: log.clone(), line, trail: Trail::default(), waited: Duration::ZERO }))
    }

    /// The ids of the request, and of its trace.
    pub fn ids(&mut self, id: &HeaderValue, trace: TraceId) {
        self.line.request_id = id.to_str().ok().map(ToOwned::to_owned);
        self.line.trace_id = Some(trace);
    }

    /// The route that it goes along.
    pub fn route(&mut self, name: &str) {
        self.line.route = Some(name.to_owned());
    }

    /// The service that it goes to.
    pub fn service(&mut self, name: String) {
        self.line.service = Some(name);
    }

    /// How long it waited in the service itself, before it was sent.
    pub fn waited(&mut self, waited: Duration) {
        self.waited = waited;
    }

    /// Where the mesh notes what happens to it.
    pub fn trail(&self) -> &Trail {
        &self.trail
    }

    /// Appends the line.
    pub fn write(mut self: Box<Self>, end: RequestEnd) {
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
        line.retry_reason = retry_reason.map(RetryReason::as_str);
        line.reason = end.reason;
        let format = self.log.format();
        self.log.append(|out| line.write(format, out));
    }

    /// Logs a request that a listener refused for its head alone. `trust` are the listener's trusted proxies.
    pub fn refused(log: &AccessLog, listener: &str, trust: &[IpNet], refused: &RefusedHead<'_>) {
        if !log.is_on() {
            return;
        }
        let asked = refused.asked.clone();
        let path = asked.path.map(|path| shown_of(path, log.query()));
        let none = HeaderMap::new();
        let headers = refused.headers.unwrap_or(&none);
        let now = SystemTime::now();
        let line = Line {
            time: now.checked_sub(refused.took).unwrap_or(now),
            listener: listener.to_owned(),
            client: client_addr(Some(refused.peer.ip()), headers, trust),
            peer: Some(refused.peer),
            protocol: asked.protocol,
            tls_version: refused.session.map(|session| session.version),
            sni: refused.session.and_then(|session| session.server_name.clone()),
            method: asked.method,
            host: asked.host,
            path,
            status: StatusCode::from_u16(refused.problem.status).ok(),
            bytes_out: refused.sent,
            duration: refused.took,
            reason: Some(of_code(refused.problem.code())),
            request_id: refused.problem.request_id.clone(),
            user_agent: asked.user_agent,
            referer: asked.referer.map(|referer| shown_of(referer, log.query())),
            ..Line::default()
        };
        let format = log.format();
        log.append(|out| line.write(format, out));
    }
}

/// A path or URL as the log shows it.
fn shown_of(mut target: String, query: QueryLog) -> String {
    if let (QueryLog::Omit, Some(end)) = (query, target.find('?')) {
        target.truncate(end);
    }
    target
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}
