//! What is different for one request: limits, the host that the server sees, and the shares of its addresses.

use std::time::Duration;

use http::HeaderValue;

use crate::limits::Limits;

/// Differences of one request from the mesh's defaults.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    /// The value of the `Host` header, instead of the address's host and port.
    pub host: Option<&'a HeaderValue>,
    /// The weight of each address, in their order: an address gets this share of the requests. Without any, each request
    /// goes to the less loaded of two addresses.
    pub weights: &'a [u32],
    /// Replaces [`Limits::head`].
    pub head: Option<Duration>,
    /// Replaces [`Limits::idle`].
    pub idle: Option<Duration>,
    /// Replaces [`Limits::attempts`].
    pub attempts: Option<u32>,
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
