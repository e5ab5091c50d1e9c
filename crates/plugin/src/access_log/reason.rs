//! Why a proxy itself answered a request or cut it, in the words of access logs.

use std::borrow::Cow;

/// Why a proxy answered a request itself, or cut it. The words are those of other proxies' logs where these have one.
pub type Reason = Cow<'static, str>;

/// The client left before it had its answer.
pub const CLIENT_GONE: Reason = Cow::Borrowed("client_gone");
/// The service ended before the exchange did.
pub const DRAINED: Reason = Cow::Borrowed("drained");
/// The member or address broke its answer off.
pub const UPSTREAM_RESET: Reason = Cow::Borrowed("upstream_reset");
/// The answer took too long.
pub const UPSTREAM_TIMEOUT: Reason = Cow::Borrowed("upstream_timeout");

/// The reason for a problem with this code. A code without a word of its own is its own reason.
pub fn of_code(code: &str) -> Reason {
    Cow::Borrowed(match code {
        "no-route" | "unknown-service" => "no_route",
        "no-serving-member" | "no-owner" | "no-address" | "no-backend" => "no_member",
        "queue-full" | "queue-timeout" | "client-limit" | "route-busy" => "overflow",
        "unreachable" | "no-tls-session" => "connect_failed",
        "broken-connection" => "upstream_reset",
        "no-answer-in-time" | "deadline-passed" | "too-slow" => "upstream_timeout",
        "body-aborted" => "client_gone",
        "rate-limited" => "rate_limited",
        // Those of heads, whoever refuses them.
        "transfer-coding" | "bad-length" | "no-host" | "several-hosts" | "bad-host" | "user-name"
        | "bad-target" | "target-too-long" | "no-tunnels" | "no-trace" | "bad-method" | "bad-header"
        | "bad-expectation" | "head-too-large" | "slow-head" | "http-version" | "bad-request-line"
        | "malformed-request" | "malformed-body" | "bad-handshake" | "websocket-version" | "tls"
        | "plain-http" | "bad-path" => "malformed",
        other => return Cow::Owned(other.replace('-', "_")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_a_word_of_the_log() {
        for (code, reason) in [
            ("no-route", "no_route"),
            ("no-serving-member", "no_member"),
            ("no-backend", "no_member"),
            ("route-busy", "overflow"),
            ("client-limit", "overflow"),
            ("unreachable", "connect_failed"),
            ("broken-connection", "upstream_reset"),
            ("no-answer-in-time", "upstream_timeout"),
            ("body-aborted", "client_gone"),
            ("malformed-body", "malformed"),
            ("rate-limited", "rate_limited"),
            ("bad-host", "malformed"),
            ("not-processed", "not_processed"),
            ("body-too-large", "body_too_large"),
        ] {
            assert_eq!(of_code(code), reason);
        }
    }
}
