//! Requests that a listener refuses for their heads alone, and why anything is refused.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::request::Parts;
use tokio::time::Instant;
use types::Problem;

use super::asked::Asked;
use crate::TlsSession;

/// Why a request or a connection is refused, as a label of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    /// Servers could disagree about where its body ends.
    Smuggling,
    /// Its host is missing, ambiguous or not allowed.
    Host,
    /// Servers could read its path differently, or it is too long.
    Path,
    /// Its method is not supported.
    Method,
    /// Its header fields are malformed, or too many.
    Headers,
    /// It is not HTTP, or of another version.
    Malformed,
    /// Its body has more bytes than its route accepts.
    BodySize,
    /// The rate limit of its route is used up.
    Rate,
    /// Its route has as many requests in flight as it may have.
    InFlight,
    /// It has no key that its route accepts.
    Key,
    /// It did not arrive, or was not answered, in time.
    Timeout,
    /// Its connection made the server work without a use.
    Flood,
    /// Its connection did not begin with an acceptable header of the PROXY protocol.
    ProxyProtocol,
    /// Its client has as many connections as it may have.
    PerClient,
}

impl RefusalReason {
    /// Every reason.
    pub const ALL: [Self; 14] = [
        Self::Smuggling,
        Self::Host,
        Self::Path,
        Self::Method,
        Self::Headers,
        Self::Malformed,
        Self::BodySize,
        Self::Rate,
        Self::InFlight,
        Self::Key,
        Self::Timeout,
        Self::Flood,
        Self::ProxyProtocol,
        Self::PerClient,
    ];

    /// The reason as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Smuggling => "smuggling",
            Self::Host => "host",
            Self::Path => "path",
            Self::Method => "method",
            Self::Headers => "headers",
            Self::Malformed => "malformed",
            Self::BodySize => "body_size",
            Self::Rate => "rate",
            Self::InFlight => "in_flight",
            Self::Key => "key",
            Self::Timeout => "timeout",
            Self::Flood => "flood",
            Self::ProxyProtocol => "proxy_protocol",
            Self::PerClient => "per_client",
        }
    }

    /// The reason for the refusal of a head with this code.
    fn of_head(code: &str) -> Self {
        match code {
            "transfer-coding" | "bad-length" => Self::Smuggling,
            "no-host" | "several-hosts" | "bad-host" => Self::Host,
            "user-name" | "bad-target" | "target-too-long" => Self::Path,
            "no-tunnels" | "no-trace" | "bad-method" => Self::Method,
            "bad-header" | "bad-expectation" | "head-too-large" => Self::Headers,
            "slow-head" => Self::Timeout,
            _ => Self::Malformed,
        }
    }
}

/// A request that was refused for its head alone.
#[derive(Debug)]
pub struct RefusedHead<'a> {
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// Its encryption.
    pub session: Option<&'a TlsSession>,
    /// What it asks for.
    pub asked: Asked,
    /// The header fields, if the head could be parsed.
    pub headers: Option<&'a HeaderMap>,
    /// Why. If it was sent, it has the id of the request.
    pub problem: &'a Problem,
    /// Why, as a label.
    pub reason: RefusalReason,
    /// How many bytes the body of the answer has.
    pub sent: u64,
    /// How long the head took to arrive, as far as that is known, and to be refused.
    pub took: Duration,
}

impl<'a> RefusedHead<'a> {
    /// A head that was parsed.
    pub(super) fn parsed(
        head: &'a Parts,
        peer: SocketAddr,
        problem: &'a Problem,
        began: Option<Instant>,
    ) -> Self {
        Self { headers: Some(&head.headers), ..Self::new(Asked::of_parts(head), peer, problem, began) }
    }

    /// A head that was not.
    pub(super) fn raw(head: &[u8], peer: SocketAddr, problem: &'a Problem, began: Option<Instant>) -> Self {
        Self::new(Asked::of_bytes(head), peer, problem, began)
    }

    fn new(asked: Asked, peer: SocketAddr, problem: &'a Problem, began: Option<Instant>) -> Self {
        let has_body = asked.method.as_deref() != Some("HEAD");
        let sent = if has_body { serde_json::to_vec(problem).map_or(0, |body| body.len()) } else { 0 };
        Self {
            peer,
            session: None,
            asked,
            headers: None,
            problem,
            reason: RefusalReason::of_head(problem.code()),
            sent: sent as u64,
            took: began.map_or(Duration::ZERO, |began| began.elapsed()),
        }
    }

    /// The same with nothing sent: its stream was reset.
    pub(super) fn reset(self) -> Self {
        Self { sent: 0, ..self }
    }
}

/// What is done about refused heads besides refusing them.
#[derive(Clone, Default)]
pub struct OnRefused(Option<Arc<Call>>);

type Call = dyn Fn(&RefusedHead<'_>) + Send + Sync;

impl OnRefused {
    /// Calls a function for each. It must not block.
    pub fn new(call: impl Fn(&RefusedHead<'_>) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(call)))
    }

    pub(super) fn call(&self, refused: &RefusedHead<'_>) {
        if let Some(call) = &self.0 {
            call(refused);
        }
    }
}

impl fmt::Debug for OnRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnRefused").field(&self.0.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use types::ErrorKind;

    use super::*;

    #[test]
    fn what_was_sent_is_the_problem_unless_only_its_head_was() {
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let problem = Problem::new(ErrorKind::Invalid, "bad-length", "x");
        let len = serde_json::to_vec(&problem).unwrap().len() as u64;
        for (head, sent) in [(&b"GET / HTTP/1.1\r\n"[..], len), (b"HEAD / HTTP/1.1\r\n", 0), (b"\x16", len)] {
            let refused = RefusedHead::raw(head, peer, &problem, None);
            assert_eq!((refused.sent, refused.took), (sent, Duration::ZERO));
            assert_eq!(refused.reason, RefusalReason::Smuggling);
            assert_eq!(refused.reset().sent, 0);
        }
    }

    #[test]
    fn a_reason_has_one_name() {
        let mut names: Vec<_> = RefusalReason::ALL.iter().map(|reason| reason.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), RefusalReason::ALL.len());
        assert!(RefusalReason::ALL.iter().enumerate().all(|(at, reason)| *reason as usize == at));
    }
}
