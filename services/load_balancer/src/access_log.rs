//! What the balancer logs: a line for each connection, written when it ends.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use plugin::access_log::{JsonLine, LogFormat, rfc_3339};
use tokio::time::Instant;

use crate::listener::Listener;
use crate::plan::Source;
use crate::pool::{Lease, Pool};
use crate::refusal::Refusal;
use crate::relay::{End, Traffic};

/// A connection, as far as the log shows it. Its line is written when this is dropped, if lines are wanted.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    listener: &'a Listener,
    time: SystemTime,
    began: Instant,
    peer: SocketAddr,
    client: IpAddr,
    sni: Option<String>,
    service: Option<String>,
    member: Option<String>,
    /// The bytes of this connection.
    pub(crate) traffic: Traffic,
    queued: Option<Duration>,
    connecting: Option<Duration>,
    /// How many backends were tried.
    pub(crate) attempts: u32,
    reason: Option<&'static str>,
}

impl<'a> Entry<'a> {
    /// A connection that was accepted.
    pub(crate) fn begin(listener: &'a Listener, peer: SocketAddr, began: Instant) -> Self {
        Self {
            listener,
            time: SystemTime::now(),
            began,
            peer,
            client: peer.ip(),
            sni: None,
            service: None,
            member: None,
            traffic: Traffic::default(),
            queued: None,
            connecting: None,
            attempts: 0,
            // Of a connection whose task is dropped.
            reason: Some("drained"),
        }
    }

    /// The address of the client, which a trusted proxy may have named.
    pub(crate) fn client(&mut self, client: IpAddr) {
        self.client = client;
    }

    /// The server name in the TLS hello.
    pub(crate) fn sni(&mut self, name: Option<&str>) {
        self.sni = name.map(ToOwned::to_owned);
    }

    /// The target.
    pub(crate) fn target(&mut self, pool: &Pool) {
        if self.listener.lasting.log.is_on()
            && let Source::Service { service, .. } = &pool.target.load().source
        {
            self.service = Some(service.to_string());
        }
    }

    /// When the wait in the queue began, which has just ended.
    pub(crate) fn waited(&mut self, began: Option<Instant>) {
        self.queued = began.map(|began| began.elapsed());
    }

    /// When connecting began, which has just succeeded.
    pub(crate) fn connected(&mut self, lease: &Lease, began: Instant) {
        self.connecting = Some(began.elapsed());
        if self.listener.lasting.log.is_on() {
            self.member = Some(lease.member());
        }
    }

    /// It was closed instead of forwarded.
    pub(crate) fn refused(&mut self, refusal: Refusal) {
        self.reason = Some(match refusal {
            Refusal::ProxyProtocol | Refusal::Hello => "malformed",
            Refusal::UnknownName => "no_route",
            Refusal::PerClient | Refusal::QueueFull | Refusal::QueueTimeout => "overflow",
            Refusal::NoBackend => "no_member",
            Refusal::ConnectFailed => "connect_failed",
            Refusal::ClientGone => "client_gone",
            Refusal::Stopped => "drained",
        });
    }

    /// It was forwarded, and has ended.
    pub(crate) fn ended(&mut self, end: End) {
        self.reason = match end {
            End::Closed => None,
            End::ClientReset => Some("client_gone"),
            End::BackendReset => Some("upstream_reset"),
            End::Idle => Some("idle_timeout"),
            End::Cut => Some("drained"),
        };
    }

    fn write(&self, out: &mut Vec<u8>) {
        let Traffic { received, sent } = &self.traffic;
        let mut line = JsonLine::begin(out);
        line.plain("time", Some(rfc_3339(self.time)))
            .text("listener", Some(&self.listener.name))
            .plain("client_ip", Some(self.client.to_canonical()))
            .plain("peer", Some(self.peer))
            .text("protocol", Some("tcp"))
            .text("sni", self.sni.as_deref())
            .number("bytes_in", received.load(Ordering::Relaxed))
            .number("bytes_out", sent.load(Ordering::Relaxed))
            .milliseconds("duration_ms", Some(self.began.elapsed()))
            .milliseconds("queue_ms", self.queued)
            .milliseconds("connect_ms", self.connecting)
            .text("service", self.service.as_deref())
            .text("member", self.member.as_deref());
        if self.attempts > 0 {
            line.number("attempts", self.attempts);
        }
        line.text("reason", self.reason).end();
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let log = &self.listener.lasting.log;
        // Other formats have no form for connections. They are for balancers without a listener in TCP mode, but connections of
        // a former one may outlast it.
        if log.format() == LogFormat::Json {
            log.append(|out| self.write(out));
        }
    }
}
