//! Which failed requests of a route are sent again.

use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use types::range::NumberIn;

use super::check::Checked;
use crate::table::Retries;

/// Repetitions of a request that failed. A request that may have been acted on is repeated only if its method is
/// idempotent and at most 256 KiB of its body were sent, and retries of all routes together are at most a fifth of the
/// requests, plus ten in each second.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetrySettings {
    /// How often a request may be sent in all, including the first time. Unless given, 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<NumberIn<1, 10>>,
    /// The failures that are repeated: `connect` if no connection can be opened, `reset` if the connection ends before the
    /// answer. A request of which nothing was written to a connection, or that a member refused without acting on it, is
    /// sent again either way. Unless given, both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<Vec<RetryOn>>,
    /// The statuses of answers that are repeated, such as `[502, 503, 504]`: the client gets the last answer. `Retry-After` is
    /// respected up to one second; an answer with a longer one is passed on, and so is every answer to a request whose method
    /// is not idempotent (on a route to a service: that the service does not declare repeatable). None unless given, but 429 and 503 with `Retry-After` of at most a second are always repeated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<NumberIn<400, 599>>,
}

/// A failure without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RetryOn {
    /// No connection could be opened.
    Connect,
    /// The connection ended before the answer.
    Reset,
}

impl Checked<'_> {
    pub(super) fn retries(&mut self) -> Retries {
        let retry = &self.route.retry;
        let attempts = retry.attempts.map(|attempts| u32::try_from(attempts.get()).unwrap_or(u32::MAX));
        let is_repeated = |one: RetryOn| retry.on.as_ref().is_none_or(|on| on.contains(&one));
        let codes: Vec<_> = retry.codes.iter().map(|code| code.get()).collect();
        for (at, code) in codes.iter().enumerate() {
            if codes[..at].contains(code) {
                let hint = "leave one of them out";
                self.wrong(&format!("retry/codes/{at}"), format!("{code} is there twice"), hint);
            }
        }
        if attempts == Some(1) && !codes.is_empty() {
            let message = "it has no effect: with `attempts: 1` no request is sent a second time";
            self.wrong("retry/codes", message, "raise `attempts`, or leave `codes` out");
        }
        let status = |code: &u64| u16::try_from(*code).ok().and_then(|code| StatusCode::from_u16(code).ok());
        Retries {
            attempts,
            connect: is_repeated(RetryOn::Connect),
            reset: is_repeated(RetryOn::Reset),
            codes: codes.iter().filter_map(status).collect(),
        }
    }
}
