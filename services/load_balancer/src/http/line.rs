//! The line of a request in the access log.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{HOST, HeaderMap, HeaderName, REFERER, USER_AGENT};
use http::request::Parts;
use mesh::head::asked_host;
use mesh::{RetryReason, Traced, Trail};
use plugin::access_log::reason::{Reason, of_code};
use plugin::access_log::{JsonLine, QueryLog, rfc_3339};
use plugin::client_addr::client_addr;
use plugin::http::trace::TraceId;
use plugin::{Peer, RefusedHead, TlsSession};
use types::ServiceName;

use crate::listener::Listener;

/// What a line shows besides counts.
#[derive(Debug)]
pub(super) struct Line {
    time: SystemTime,
    client: Option<IpAddr>,
    peer: Option<SocketAddr>,
    protocol: String,
    tls_version: Option<&'static str>,
    sni: Option<Arc<str>>,
    method: String,
    host: Option<String>,
    path: String,
    service: Option<String>,
    queued: Duration,
    /// What the mesh did.
    trail: Trail,
    request_id: Option<String>,
    trace_id: Option<TraceId>,
    user_agent: Option<String>,
    referer: Option<String>,
}

/// How an exchange ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: u16,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) took: Duration,
    pub(super) reason: Option<Reason>,
}

impl Line {
    /// A request that has arrived from this client, if lines are wanted.
    pub(super) fn begin(listener: &Listener, head: &Parts, client: Option<IpAddr>) -> Option<Box<Self>> {
        let log = &listener.lasting.log;
        if !log.is_on() {
            return None;
        }
        let session = head.extensions.get::<TlsSession>();
        let path = match (head.uri.path_and_query(), log.query()) {
            (Some(target), QueryLog::Keep) => target.as_str(),
            (Some(_), QueryLog::Omit) | (None, _) => head.uri.path(),
        };
        Some(Box::new(Self {
            time: SystemTime::now(),
            client,
            peer: head.extensions.get::<Peer>().map(|peer| peer.0),
            protocol: format!("{:?}", head.version),
            tls_version: session.map(|session| session.version),
            sni: session.and_then(|session| session.server_name.clone()),
            method: head.method.to_string(),
            host: asked_host(head).map(ToOwned::to_owned),
            path: path.to_owned(),
            service: listener.pools.first().and_then(|pool| pool.service()),
            queued: Duration::ZERO,
            trail: Trail::default(),
            request_id: None,
            trace_id: None,
            user_agent: text(&head.headers, USER_AGENT),
            referer: text(&head.headers, REFERER),
        }))
    }

    /// The ids of the request, and of its trace.
    pub(super) fn ids(&mut self, id: &http::HeaderValue, trace: TraceId) {
        self.request_id = id.to_str().ok().map(ToOwned::to_owned);
        self.trace_id = Some(trace);
    }

    /// The service whose API is the target.
    pub(super) fn service(&mut self, service: &ServiceName) {
        self.service = Some(service.to_string());
    }

    /// How long it waited for a place among the requests that are forwarded.
    pub(super) fn queued(&mut self, queued: Duration) {
        self.queued = queued;
    }

    /// Where the mesh notes what happens to it.
    pub(super) fn trail(&self) -> Trail {
        self.trail.clone()
    }

    /// Appends the line.
    pub(super) fn write(&self, listener: &Listener, ended: &Ended) {
        let Traced { member, attempts, retry_reason, queued, connect, first_byte, status } =
            self.trail.read();
        let queued = queued.unwrap_or_default() + self.queued;
        listener.lasting.log.append(|out| {
            let mut json = JsonLine::begin(out);
            json.plain("time", Some(rfc_3339(self.time)))
                .text("listener", Some(&listener.name))
                .plain("client_ip", self.client)
                .plain("peer", self.peer)
                .text("protocol", Some(&self.protocol))
                .text("tls_version", self.tls_version)
                .text("sni", self.sni.as_deref())
                .text("method", Some(&self.method))
                .text("host", self.host.as_deref())
                .text("path", Some(&self.path))
                .number("status", ended.status)
                .number("bytes_in", ended.received)
                .number("bytes_out", ended.sent)
                .milliseconds("duration_ms", Some(ended.took))
                .milliseconds("queue_ms", (!queued.is_zero()).then_some(queued))
                .milliseconds("connect_ms", connect)
                .milliseconds("upstream_ms", first_byte)
                .text("service", self.service.as_deref())
                .text("member", member.as_deref());
            if let Some(status) = status {
                json.number("upstream_status", status.as_u16());
            }
            if attempts > 0 {
                json.number("attempts", attempts);
            }
            json.text("retry_reason", retry_reason.map(RetryReason::as_str))
                .text("reason", ended.reason.as_deref())
                .text("request_id", self.request_id.as_deref())
                .text("trace_id", self.trace_id.as_ref().map(TraceId::as_str))
                .text("user_agent", self.user_agent.as_deref())
                .text("referer", self.referer.as_deref())
                .end();
        });
    }
}

/// Logs a request that the listener refused for its head alone.
pub(super) fn refused(listener: &Listener, refused: &RefusedHead<'_>) {
    let log = &listener.lasting.log;
    if !log.is_on() {
        return;
    }
    let path = match log.query() {
        QueryLog::Keep => refused.target.as_str(),
        QueryLog::Omit => refused.target.split(['?', '#']).next().unwrap_or_default(),
    };
    let none = HeaderMap::new();
    let headers = refused.headers.unwrap_or(&none);
    let trust = listener.front.as_ref().map_or(&[][..], |front| front.trust.as_slice());
    let line = Line {
        time: SystemTime::now(),
        client: client_addr(Some(refused.peer.ip()), headers, trust),
        peer: Some(refused.peer),
        protocol: refused.protocol.clone(),
        tls_version: refused.session.map(|session| session.version),
        sni: refused.session.and_then(|session| session.server_name.clone()),
        method: refused.method.clone(),
        host: text(headers, HOST),
        path: path.to_owned(),
        service: None,
        queued: Duration::ZERO,
        trail: Trail::default(),
        request_id: None,
        trace_id: None,
        user_agent: text(headers, USER_AGENT),
        referer: text(headers, REFERER),
    };
    let reason = Some(of_code(refused.problem.code()));
    let (status, took) = (refused.problem.status, Duration::ZERO);
    line.write(listener, &Ended { status, received: 0, sent: 0, took, reason });
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}
