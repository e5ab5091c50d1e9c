//! Whether and for how long a connection may wait for the next request.
//!
//! Pure. A connection is used again only if its exchange ended exactly, its server did not answer early, and neither side
//! logged in on the connection itself.

use std::time::Duration;

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName, WWW_AUTHENTICATE};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// The time that a request needs on its way to a server that is about to close the connection.
const MARGIN: Duration = Duration::from_secs(1);

/// Logins that belong to the connection rather than to the request (RFC 4559, section 5).
const CONNECTION_LOGINS: [&str; 2] = ["ntlm", "negotiate"];

/// How long a connection may be idle after an answer with these fields: at most `limit`, and one second less than the server
/// announces, but half of it if it announces less than two seconds.
pub(crate) fn idle_limit(answer: &HeaderMap, limit: Duration) -> Duration {
    let values = answer.get_all(KEEP_ALIVE).iter().filter_map(|value| value.to_str().ok());
    let announced = values.flat_map(|value| value.split(',')).filter_map(timeout);
    match announced.min() {
        Some(announced) => limit.min(announced.saturating_sub(MARGIN).max((announced / 2).min(MARGIN))),
        None => limit,
    }
}

/// `timeout=5`.
fn timeout(parameter: &str) -> Option<Duration> {
    let (name, value) = parameter.split_once('=')?;
    let seconds = value.trim().trim_matches('"').parse().ok()?;
    name.trim().eq_ignore_ascii_case("timeout").then(|| Duration::from_secs(seconds))
}

/// Whether a request with these fields logs in on the connection: it must carry no request of another client afterwards.
pub(crate) fn logs_in(request: &HeaderMap) -> bool {
    is_connection_login(request, &AUTHORIZATION)
}

/// Whether an answer with these fields begins or continues a login on the connection.
pub(crate) fn asks_to_log_in(answer: &HeaderMap) -> bool {
    is_connection_login(answer, &WWW_AUTHENTICATE)
}

fn is_connection_login(headers: &HeaderMap, name: &HeaderName) -> bool {
    // One field may hold several challenges.
    let words = |value: &[u8]| {
        value
            .split(|byte| matches!(byte, b' ' | b',' | b'\t'))
            .any(|word| CONNECTION_LOGINS.iter().any(|login| word.eq_ignore_ascii_case(login.as_bytes())))
    };
    headers.get_all(name).iter().any(|value| words(value.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::testing::headers;

    #[test]
    fn an_idle_connection_is_closed_before_its_server_does() {
        let ms = Duration::from_millis;
        for (line, expected) in [
            ("x: 1", ms(15_000)),
            ("keep-alive: timeout=5", ms(4_000)),
            ("keep-alive: max=100, Timeout = \"5\"", ms(4_000)),
            ("keep-alive: timeout=60", ms(15_000)),
            ("keep-alive: timeout=2", ms(1_000)),
            ("keep-alive: timeout=1", ms(500)),
            ("keep-alive: timeout=0", ms(0)),
            ("keep-alive: timeout=x", ms(15_000)),
            ("keep-alive: timeout=-1", ms(15_000)),
            ("keep-alive: timeout=99999999999999999999999", ms(15_000)),
            ("keep-alive: 5", ms(15_000)),
        ] {
            assert_eq!(idle_limit(&headers(&[line]), ms(15_000)), expected, "{line}");
        }
    }

    #[test]
    fn logins_of_a_connection_are_recognised() {
        for (line, expected) in [
            ("www-authenticate: NTLM", true),
            ("www-authenticate: Negotiate TlRMTVNT", true),
            ("www-authenticate: Basic realm=\"x\", negotiate", true),
            ("www-authenticate: Basic realm=\"x\"", false),
            ("www-authenticate: Bearer", false),
        ] {
            assert_eq!(asks_to_log_in(&headers(&[line])), expected, "{line}");
        }
        assert!(logs_in(&headers(&["authorization: NTLM TlRMTVNT"])));
        assert!(!logs_in(&headers(&["authorization: Basic bnRsbTpudGxt"])));
        assert!(!logs_in(&HeaderMap::new()));
    }
}
