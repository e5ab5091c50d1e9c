//! What is different for one request: limits, the host that the server sees, and the shares of its addresses.

use std::time::Duration;

use http::{HeaderValue, StatusCode};

use crate::balance::Balance;
use crate::limits::Limits;
use crate::min_rate::MinRate;
use crate::trail::Trail;
use crate::upstream::RoutePool;

/// Differences of one request from the mesh's defaults.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    /// The value of the `Host` header, instead of the address's host and port.
    pub host: Option<&'a HeaderValue>,
    /// The weight of each address, in their order. Without any, all weigh the same. An address of weight 0 gets requests only
    /// while all others have failed.
    pub weights: &'a [u32],
    /// How the destination is chosen.
    pub balance: Balance<'a>,
    /// Replaces [`Limits::head`].
    pub head: Option<Duration>,
    /// Replaces [`Limits::idle`].
    pub idle: Option<Duration>,
    /// Replaces [`Limits::min_rate`].
    pub min_rate: Option<MinRate>,
    /// Replaces [`Limits::attempts`].
    pub attempts: Option<u32>,
    /// Which failures are repeated.
    pub repeated: Repeated<'a>,
    /// Whether the request is a WebSocket handshake. It then gets a connection of its own, and its answer is 101 if the server
    /// accepted it: `hyper::upgrade::on` that answer returns the connection, and the request is in flight until its body is
    /// dropped.
    pub websocket: bool,
    /// Under which route requests to addresses are counted.
    pub pool: Option<&'a RoutePool>,
    /// Where it is noted what happens to the request.
    pub trail: Option<&'a Trail>,
}

/// The failures after which a request may be sent again. A request of which nothing was written to a connection, or that a member
/// refused without acting on it, is sent again whatever they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeated<'a> {
    /// No connection could be opened.
    pub connect: bool,
    /// The connection ended before the answer; only requests that may be acted on twice.
    pub reset: bool,
    /// The answer has one of these statuses; only requests that may be acted on twice.
    pub codes: &'a [StatusCode],
}

impl Default for Repeated<'_> {
    fn default() -> Self {
        Self { connect: true, reset: true, codes: &[] }
    }
}

impl Options<'_> {
    /// The limits for the request.
    pub(crate) fn limits(&self, limits: &Limits) -> Limits {
        Limits {
            head: self.head.unwrap_or(limits.head),
            idle: self.idle.unwrap_or(limits.idle),
            min_rate: self.min_rate.unwrap_or(limits.min_rate),
            attempts: self.attempts.unwrap_or(limits.attempts),
            ..limits.clone()
        }
    }
}
