//! The errors of a request, and their problem details.

use std::time::Duration;

use types::{Epoch, ErrorKind, NodeId, Problem, ServiceName, ShardId};

use crate::head::MAX_HOPS;
use crate::min_rate::MinRate;
use crate::proxies::proxy_refusal;

/// What clients read instead of an address.
const SERVER: &str = "the server";

/// Why a request got no answer from a member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MeshError {
    /// Request a service that exists: no node runs this one, and none could.
    #[error("no node of this cluster has or can run the service `{service}`")]
    UnknownService {
        /// The service.
        service: ServiceName,
    },
    /// Use the listeners of that service: its API on its nodes is no destination of a proxy's requests.
    #[error("{}", proxy_refusal(service))]
    ForOperators {
        /// The service.
        service: ServiceName,
    },
    /// Give a node this role, or wait until a member is ready.
    #[error("no member serves `{service}`{}", after(*.waited))]
    NoServingMember {
        /// The service.
        service: ServiceName,
        /// A standby that can run it.
        spare: Option<NodeId>,
        /// How long the request waited.
        waited: Duration,
    },
    /// Find out which node owns the shard, or wait for its next owner.
    #[error("{}", no_owner(service, *shard, last.as_ref(), resigned.as_ref(), *waited))]
    NoOwner {
        /// The service.
        service: ServiceName,
        /// The shard that the request is for.
        shard: ShardId,
        /// The last owner that this node saw, and its epoch.
        last: Option<(NodeId, Epoch)>,
        /// The owner and its reason, if it has resigned.
        resigned: Option<(NodeId, String)>,
        /// A standby that can take the shard.
        spare: Option<NodeId>,
        /// How long the request waited.
        waited: Duration,
    },
    /// Every member that could answer refused to process the request; see the last refusal.
    #[error("{}{}", .last.detail, after(*.waited))]
    Refused {
        /// The last refusal.
        last: Box<Problem>,
        /// How long the request waited.
        waited: Duration,
    },
    /// Send fewer requests at once, or wait: too many requests are waiting for a member.
    #[error("{waiting} requests wait for a serving member already")]
    QueueFull {
        /// The number of requests that may wait.
        waiting: usize,
    },
    /// Send the request again: no member acted on it, but its body was too large to be kept for a retry.
    #[error(
        "the request was not processed ({}), and more of its body was sent than the {kept} bytes that are kept",
        .last.detail
    )]
    BodyTooLargeToResend {
        /// The member's refusal.
        last: Box<Problem>,
        /// The number of bytes kept for a retry.
        kept: usize,
    },
    /// Check whether the member runs: no connection could be opened.
    #[error("{address} can't be reached: {why}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// The operating system's error.
        why: String,
    },
    /// Look at the certificates: a connection was opened, and no TLS session on it.
    #[error("no TLS session with {address}: {why}")]
    NoTlsSession {
        /// Host and port.
        address: String,
        /// Why.
        why: String,
    },
    /// Check the member's log: it closed the connection before it answered, or it is gone.
    #[error("the connection to {address} ended before an answer came: {why}")]
    Broken {
        /// Host and port.
        address: String,
        /// The cause.
        why: String,
    },
    /// Send fewer or smaller header fields in the answer.
    #[error(
        "the head of the answer from {address} is too large: it may have {} fields and {} KiB",
        crate::wire::MAX_FIELDS,
        crate::wire::MAX_BUFFER / 1024
    )]
    HeadTooLarge {
        /// Host and port.
        address: String,
    },
    /// Change the server: it must frame the body of its answers plainly.
    #[error("the answer from {address} can't be forwarded: {why}")]
    BadAnswer {
        /// Host and port.
        address: String,
        /// The reason.
        why: crate::head::AnswerError,
    },
    /// Check whether the server speaks HTTP.
    #[error("the answer from {address} can't be read as HTTP: {why}")]
    Garbage {
        /// Host and port.
        address: String,
        /// The reason.
        why: String,
    },
    /// Change the server: it accepted a WebSocket handshake in a way that does not belong to it.
    #[error("the answer of {address} to a WebSocket handshake is not valid: {why}")]
    BadHandshake {
        /// Host and port.
        address: String,
        /// The reason.
        why: String,
    },
    /// Reach the server over HTTP/1.1.
    #[error(
        "{address} speaks HTTP/2, and does not allow WebSockets over it (SETTINGS_ENABLE_CONNECT_PROTOCOL)"
    )]
    NoWebSockets {
        /// Host and port.
        address: String,
    },
    /// Raise the limit, or find out why the member is slow.
    #[error("{address} did not answer within {limit:?}")]
    TimedOut {
        /// Host and port.
        address: String,
        /// The limit.
        limit: Duration,
    },
    /// Give the request more time.
    #[error("{}", deadline_passed(address.as_deref()))]
    DeadlinePassed {
        /// Host and port, if the request was sent and not answered.
        address: Option<String>,
    },
    /// The client closed its connection or its stream.
    #[error("the body of the request ended early: {why}")]
    BodyAborted {
        /// The cause.
        why: String,
    },
    /// Correct the client: the chunks or trailers that it sent are none.
    #[error("the body of the request is malformed: {why}")]
    BodyMalformed {
        /// The cause.
        why: String,
    },
    /// The client stopped sending the body.
    #[error("no part of the request's body arrived for {limit:?}")]
    BodyStalled {
        /// The limit.
        limit: Duration,
    },
    /// The client sent the body more slowly than it may.
    #[error(
        "{arrived} bytes of the request's body arrived in {:?}, at least {} bytes per second are expected",
        min.window, min.bytes_per_second
    )]
    BodyTooSlow {
        /// How many bytes came in a window.
        arrived: u64,
        /// The limit.
        min: MinRate,
    },
    /// Look for a route that leads back to its origin.
    #[error("the request was forwarded {MAX_HOPS} times already")]
    Loop,
    /// Change the request: its target is not a path, or a header is malformed.
    #[error("the request can't be forwarded: {why}")]
    Malformed {
        /// The reason.
        why: String,
    },
    /// Give at least one address.
    #[error("there is no address to send the request to")]
    NoAddress,
    /// Find out why the active checks of all addresses fail.
    #[error("the checks of every address fail{}", .why.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    AllDown {
        /// The addresses and why each fails.
        why: Option<String>,
    },
}

/// ` (waited 1.5s)`; empty if the request did not wait.
fn after(waited: Duration) -> String {
    let waited = Duration::from_millis(u64::try_from(waited.as_millis()).unwrap_or(u64::MAX));
    if waited.is_zero() { String::new() } else { format!(" (waited {waited:.1?})") }
}

fn deadline_passed(address: Option<&str>) -> String {
    match address {
        Some(address) => format!("{address} did not answer before the request's deadline"),
        None => "the request's deadline passed before it could be sent".to_owned(),
    }
}

fn no_owner(
    service: &ServiceName,
    shard: ShardId,
    last: Option<&(NodeId, Epoch)>,
    resigned: Option<&(NodeId, String)>,
    waited: Duration,
) -> String {
    let last = match (resigned, last) {
        (Some((node, why)), _) => format!("its owner {node} has {why}"),
        (None, Some((node, epoch))) => format!("its last known owner is {node} (epoch {epoch})"),
        (None, None) => "no owner was seen so far".to_owned(),
    };
    format!("no member in view owns `{service}/{shard}`{}; {last}", after(waited))
}

impl MeshError {
    /// The error as problem details, with a hint.
    pub fn to_problem(&self) -> Problem {
        let (kind, code, hint) = self.outline();
        let mut problem = Problem::new(kind, code, self.to_string()).hint(hint);
        match self {
            Self::NoOwner { resigned: Some(_), .. } => {
                problem = problem
                    .hint("try again in a moment: the shard is served as soon as the object store answers");
            }
            Self::NoOwner { service, shard, spare: Some(spare), .. } => {
                problem = problem.hint(format!(
                    "`ctl claims` shows its owner; an owner that reaches the store but no other member keeps the shard \
                     until `ctl set-service {spare} {service} --shard {shard} --take` moves it"
                ));
            }
            Self::NoServingMember { service, spare: Some(spare), .. } => {
                problem = problem.hint(format!(
                    "`ctl set-service {spare} {service}` gives a node this role; `ctl members` shows whether one is \
                     starting"
                ));
            }
            _ => {}
        }
        if matches!(self, Self::Loop) {
            problem.status = 508;
        } else if matches!(self, Self::BodyStalled { .. } | Self::BodyTooSlow { .. }) {
            problem.status = 408;
        }
        problem
    }

    /// The same for clients that need not know where their requests are sent: without addresses.
    #[must_use]
    pub fn without_address(mut self) -> Self {
        match &mut self {
            Self::Unreachable { address, .. }
            | Self::Broken { address, .. }
            | Self::HeadTooLarge { address }
            | Self::BadAnswer { address, .. }
            | Self::Garbage { address, .. }
            | Self::BadHandshake { address, .. }
            | Self::NoWebSockets { address }
            | Self::TimedOut { address, .. }
            | Self::DeadlinePassed { address: Some(address) } => SERVER.clone_into(address),
            Self::NoTlsSession { address, why } => {
                SERVER.clone_into(address);
                // It may name the hosts of the certificate.
                "the handshake failed".clone_into(why);
            }
            Self::AllDown { why } => *why = None,
            Self::UnknownService { .. }
            | Self::ForOperators { .. }
            | Self::NoServingMember { .. }
            | Self::NoOwner { .. }
            | Self::Refused { .. }
            | Self::QueueFull { .. }
            | Self::BodyTooLargeToResend { .. }
            | Self::DeadlinePassed { address: None }
            | Self::BodyAborted { .. }
            | Self::BodyMalformed { .. }
            | Self::BodyStalled { .. }
            | Self::BodyTooSlow { .. }
            | Self::Loop
            | Self::Malformed { .. }
            | Self::NoAddress => {}
        }
        self
    }

    fn outline(&self) -> (ErrorKind, &str, &str) {
        match self {
            Self::UnknownService { .. } => {
                (ErrorKind::NotFound, "unknown-service", "`ctl members` shows which services there are")
            }
            Self::ForOperators { .. } => (
                ErrorKind::Forbidden,
                "for-operators",
                "operators have `ctl routes` and `ctl backends`; `ctl members` shows the addresses of its listeners",
            ),
            Self::NoServingMember { .. } => (
                ErrorKind::Unavailable,
                "no-serving-member",
                "`ctl members` shows whether a node is about to; none that is seen stands by for it",
            ),
            Self::NoOwner { .. } => (
                ErrorKind::Unavailable,
                "no-owner",
                "`ctl claims` shows its owner; no standby in view can take it",
            ),
            Self::Refused { last, .. } => {
                (ErrorKind::Unavailable, last.code(), last.hint.as_deref().unwrap_or("try again in a moment"))
            }
            Self::HeadTooLarge { .. } => (
                ErrorKind::BadGateway,
                "answer-head-too-large",
                "have the server send fewer or smaller header fields",
            ),
            Self::BadAnswer { .. } => (
                ErrorKind::BadGateway,
                "bad-answer",
                "have the server send `Content-Length`, or `Transfer-Encoding: chunked` alone",
            ),
            Self::QueueFull { .. } => (
                ErrorKind::Unavailable,
                "queue-full",
                "try again when a member serves; `ctl members` shows the phases",
            ),
            Self::BodyTooLargeToResend { .. } => {
                (ErrorKind::Unavailable, "not-processed", "nothing was done; send the request again")
            }
            Self::Unreachable { .. } => {
                (ErrorKind::BadGateway, "unreachable", "see whether it runs and listens at its address")
            }
            Self::NoTlsSession { .. } => (
                ErrorKind::BadGateway,
                "no-tls-session",
                "let `ca` name the CA of its certificate, which must be for the host of the URL; write http:// if it \
                 does not speak TLS",
            ),
            Self::Broken { .. } => (
                ErrorKind::BadGateway,
                "broken-connection",
                "the request may have been acted on; look before you send it again",
            ),
            Self::Garbage { .. } => (
                ErrorKind::BadGateway,
                "bad-answer",
                "see whether it speaks HTTP at its address, with TLS if the URL begins with https://",
            ),
            Self::BadHandshake { .. } => (
                ErrorKind::BadGateway,
                "bad-handshake-answer",
                "see whether a WebSocket server listens at its address, or a cache stands before it",
            ),
            Self::NoWebSockets { .. } => (
                ErrorKind::BadGateway,
                "websockets-not-allowed",
                "write its address with http:// or https://, so that HTTP/1.1 is spoken to it",
            ),
            Self::TimedOut { .. } => (
                ErrorKind::Timeout,
                "no-answer-in-time",
                "the request may have been acted on; look before you send it again",
            ),
            Self::DeadlinePassed { address: None } => {
                (ErrorKind::Timeout, "deadline-passed", "nothing was done; give the request more time")
            }
            Self::DeadlinePassed { address: Some(_) } => (
                ErrorKind::Timeout,
                "deadline-passed",
                "it may have been acted on; look before you send it again, with more time",
            ),
            Self::BodyAborted { .. } => (ErrorKind::Invalid, "body-aborted", "send the whole body"),
            Self::BodyMalformed { .. } => (
                ErrorKind::Invalid,
                "malformed-body",
                "send chunks and trailers as RFC 9112, section 7.1, has them",
            ),
            Self::BodyStalled { .. } => (ErrorKind::Invalid, "body-stalled", "send the body without pausing"),
            Self::BodyTooSlow { .. } => (ErrorKind::Invalid, "slow-body", "send the body in smaller parts"),
            Self::Loop => {
                (ErrorKind::Internal, "loop-detected", "look for a route that leads back to this gateway")
            }
            Self::Malformed { .. } => (ErrorKind::Invalid, "malformed-request", "change the request"),
            Self::AllDown { .. } => {
                (ErrorKind::Unavailable, "no-backend", "`ctl backends` shows the state of each address")
            }
            Self::NoAddress => (ErrorKind::Internal, "no-address", "give the route an address"),
        }
    }
}

/// Why a call to one address failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No process listens at the address: the process is gone.
    #[error("connection refused")]
    Refused,
    /// The network, name resolution or the connection failed; the call may have been acted on.
    #[error("{0}")]
    Unreachable(String),
    /// No complete answer arrived in time; the call may have been acted on.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The answer is too large for a control call.
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
    /// Give an absolute `http://` URL.
    #[error("the call is malformed: {0}")]
    Malformed(String),
}

#[cfg(test)]
mod tests;
