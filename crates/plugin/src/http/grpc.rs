//! gRPC requests: a proxy's own errors in the form that gRPC clients read, and the deadline that the client names.
//!
//! Pure. An error is an answer without a body whose head has the status (a trailers-only answer of gRPC over HTTP/2).

use std::fmt::Write;
use std::time::Duration;

use axum::body::Body;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use types::Problem;

use super::ProblemCode;

const GRPC: &str = "application/grpc";
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Longer timeouts are no timeouts.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);
/// The most digits of a timeout.
const MAX_DIGITS: usize = 8;

/// Whether a request is one of gRPC. `application/grpc-web` is another protocol.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let (begin, rest) = value.split_at_checked(GRPC.len()).unwrap_or_default();
    begin.eq_ignore_ascii_case(GRPC.as_bytes()) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

/// The time that the client gives the call. A malformed value is ignored.
pub fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (number, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let is_number =
        (1..=MAX_DIGITS).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = number.parse().ok().filter(|_| is_number)?;
    let timeout = match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    };
    Some(timeout).filter(|timeout| *timeout <= LONGEST)
}

/// The answer that reports a problem to a gRPC client.
pub fn refusal(problem: &Problem) -> Response<Body> {
    let text = match &problem.hint {
        Some(hint) => format!("{} ({hint})", problem.detail),
        None => problem.detail.clone(),
    };
    let mut answer = Response::new(Body::empty());
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    headers.insert(GRPC_STATUS, HeaderValue::from(status_of(problem.status)));
    if let Ok(message) = HeaderValue::try_from(encoded(&text)) {
        headers.insert(GRPC_MESSAGE, message);
    }
    answer.extensions_mut().insert(ProblemCode(problem.code().to_owned()));
    answer
}

/// The status of gRPC for one of HTTP, as gRPC's specification maps them, except where a proxy knows better: 504 is a
/// deadline, and 413 and 429 are limits.
fn status_of(status: u16) -> u16 {
    match StatusCode::from_u16(status) {
        Ok(StatusCode::BAD_REQUEST | StatusCode::INTERNAL_SERVER_ERROR | StatusCode::LOOP_DETECTED) => 13,
        Ok(StatusCode::UNAUTHORIZED) => 16,
        Ok(StatusCode::FORBIDDEN) => 7,
        Ok(StatusCode::NOT_FOUND) => 12,
        Ok(StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT) => 4,
        Ok(StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS) => 8,
        Ok(StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE) => 14,
        _ => 2,
    }
}

/// The text with every byte outside of printable ASCII, and `%`, percent-encoded.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use types::ErrorKind;

    use super::*;

    fn with(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn only_requests_of_grpc_itself_are_recognised() {
        for (value, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/gRPC; x=1", true),
            ("application/grpc-web", false),
            ("application/grp", false),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(is_grpc(&with(CONTENT_TYPE, value)), expected, "{value}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn a_timeout_has_up_to_eight_digits_and_a_unit() {
        for (value, expected) in [
            ("1S", Some(Duration::from_secs(1))),
            ("100m", Some(Duration::from_millis(100))),
            ("2M", Some(Duration::from_secs(120))),
            ("24H", Some(LONGEST)),
            ("25H", None),
            ("99999999H", None),
            ("5u", Some(Duration::from_micros(5))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("123456789n", None),
            ("S", None),
            ("1", None),
            ("1x", None),
            ("-1S", None),
            ("", None),
        ] {
            assert_eq!(timeout(&with(GRPC_TIMEOUT, value)), expected, "{value}");
        }
        assert_eq!(timeout(&HeaderMap::new()), None);
        let odd =
            HeaderMap::from_iter([(GRPC_TIMEOUT, HeaderValue::from_bytes("1\u{b5}".as_bytes()).unwrap())]);
        assert_eq!(timeout(&odd), None);
    }

    #[test]
    fn a_problem_becomes_a_status_and_a_message() {
        let problem =
            Problem::new(ErrorKind::Unavailable, "no-serving-member", "50% of `\u{e4}`\n").hint("wait");
        let answer = refusal(&problem);
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "application/grpc");
        assert_eq!(answer.headers()["grpc-status"], "14");
        assert_eq!(answer.headers()["grpc-message"], "50%25 of `%C3%A4`%0A (wait)");
        for (http, grpc) in
            [(400, 13), (401, 16), (403, 7), (404, 12), (413, 8), (429, 8), (504, 4), (418, 2)]
        {
            assert_eq!(status_of(http), grpc, "{http}");
        }
    }
}
