//! What is different for one request: limits, the host that the server sees, and the shares of its addresses.

use std::time::Duration;

use http::HeaderValue;

use crate::balance::Balance;
use crate::limits::Limits;
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
    /// Replaces [`Limits::attempts`].
    pub attempts: Option<u32>,
    /// Under which route requests to addresses are counted.
    pub pool: Option<&'a RoutePool>,
    /// Where it is noted what happens to the request.
    pub trail: Option<&'a Trail>,
}

impl Options<'_> {
    /// The limits for the request.
    pub(crate) fn limits(&self, limits: &Limits) -> Limits {
        Limits {
            head: self.head.unwrap_or(limits.head),
            idle: self.idle.unwrap_or(limits.idle),
            attempts: self.attempts.unwrap_or(limits.attempts),
            ..limits.clone()
        }
    }
}
