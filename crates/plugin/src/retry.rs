//! Which failed requests a proxy sends again: the settings, their mistakes, and what follows from them.

use ::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use types::range::NumberIn;

use crate::SettingsMistake;

/// Repetitions of a request that failed. A request that may have been acted on is repeated only if its method is
/// idempotent and at most 256 KiB of its body were sent, and retries of all requests together are at most a fifth of the
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

/// Which failed requests are sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retries {
    /// How often a request may be sent, if not as often as the mesh does.
    pub attempts: Option<u32>,
    /// If no connection can be opened.
    pub connect: bool,
    /// If the connection ends before the answer.
    pub reset: bool,
    /// If the answer has one of these.
    pub codes: Vec<StatusCode>,
}

impl Default for Retries {
    fn default() -> Self {
        Self { attempts: None, connect: true, reset: true, codes: Vec::new() }
    }
}

impl RetrySettings {
    /// What they mean. `place` is the JSON pointer of these settings.
    pub fn plan(&self, place: &str, mistakes: &mut Vec<SettingsMistake>) -> Retries {
        let attempts = self.attempts.map(|attempts| u32::try_from(attempts.get()).unwrap_or(u32::MAX));
        let is_repeated = |one: RetryOn| self.on.as_ref().is_none_or(|on| on.contains(&one));
        let codes: Vec<_> = self.codes.iter().map(|code| code.get()).collect();
        for (at, code) in codes.iter().enumerate() {
            if codes[..at].contains(code) {
                let mistake =
                    SettingsMistake::new(format!("{place}/codes/{at}"), format!("{code} is there twice"));
                mistakes.push(mistake.hint("leave one of them out"));
            }
        }
        if attempts == Some(1) && !codes.is_empty() {
            let message = "it has no effect: with `attempts: 1` no request is sent a second time";
            let mistake = SettingsMistake::new(format!("{place}/codes"), message);
            mistakes.push(mistake.hint("raise `attempts`, or leave `codes` out"));
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
