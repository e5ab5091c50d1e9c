//! Requests that a listener refuses for their heads alone, and why anything is refused.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderMap;
use http::request::Parts;
use types::Problem;

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
}

impl RefusalReason {
    /// Every reason.
    pub const ALL: [Self; 13] = [
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
    /// The method, as far as it was read.
    pub method: String,
    /// The target, as far as it was read.
    pub target: String,
    /// The version that the client wrote: `HTTP/1.1`.
    pub protocol: String,
    /// The header fields, if the head could be parsed.
    pub headers: Option<&'a HeaderMap>,
    /// Why.
    pub problem: &'a Problem,
    /// Why, as a label.
    pub reason: RefusalReason,
}

impl<'a> RefusedHead<'a> {
    /// A head that was parsed.
    pub(super) fn parsed(head: &'a Parts, peer: SocketAddr, problem: &'a Problem) -> Self {
        Self {
            peer,
            session: None,
            method: head.method.to_string(),
            target: head.uri.to_string(),
            protocol: format!("{:?}", head.version),
            headers: Some(&head.headers),
            problem,
            reason: RefusalReason::of_head(problem.code()),
        }
    }

    /// A head that was not.
    pub(super) fn raw(head: &[u8], peer: SocketAddr, problem: &'a Problem) -> Self {
        let line = head.trim_ascii_start().split(|byte| *byte == b'\n').next().unwrap_or_default();
        let mut words = line.trim_ascii_end().splitn(3, |byte| *byte == b' ');
        let mut word = || String::from_utf8_lossy(words.next().unwrap_or_default()).into_owned();
        let (method, target, protocol) = (word(), word(), word());
        let reason = RefusalReason::of_head(problem.code());
        Self { peer, session: None, method, target, protocol, headers: None, problem, reason }
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
    fn the_words_of_a_line_that_is_no_request_are_shown_as_far_as_there_are_any() {
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let problem = Problem::new(ErrorKind::Invalid, "bad-length", "x");
        for (head, method, target, protocol) in [
            (&b"POST /a HTTP/1.1\r\nhost: x"[..], "POST", "/a", "HTTP/1.1"),
            (b"\r\nGET /a b HTTP/1.1\r\n", "GET", "/a", "b HTTP/1.1"),
            (b"GET", "GET", "", ""),
            (b"\x16\x03\x01", "\u{16}\u{3}\u{1}", "", ""),
            (b"", "", "", ""),
        ] {
            let refused = RefusedHead::raw(head, peer, &problem);
            assert_eq!(
                (&refused.method[..], &refused.target[..], &refused.protocol[..]),
                (method, target, protocol)
            );
            assert_eq!(refused.reason, RefusalReason::Smuggling);
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
