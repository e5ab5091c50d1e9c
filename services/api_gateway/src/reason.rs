//! Which of the gateway's own answers are refusals that are counted as such.

use plugin::RefusalReason;

/// Whether a problem with this code is a refusal that is counted as such.
pub(crate) fn refusal_of(code: &str) -> Option<RefusalReason> {
    Some(match code {
        "bad-path" | "bad-target" | "target-too-long" => RefusalReason::Path,
        "foreign-host" | "foreign-page" | "misdirected-request" => RefusalReason::Host,
        "body-too-large" => RefusalReason::BodySize,
        "malformed-body" | "bad-handshake" | "websocket-version" => RefusalReason::Malformed,
        "rate-limited" => RefusalReason::Rate,
        "route-busy" | "queue-full" => RefusalReason::InFlight,
        "no-key" | "unknown-key" => RefusalReason::Key,
        "too-slow" | "body-stalled" | "slow-body" => RefusalReason::Timeout,
        _ => return None,
    })
}
