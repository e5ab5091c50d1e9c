//! Answers of handlers. [`problem`] is the only function that turns a problem into an HTTP response.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use types::{ErrorKind, Problem, api};

/// What a handler returns: its answer, or the refusal to send instead.
pub type Answer = Result<Response, Response>;

/// The code of the problem that an answer reports. Answers of [`problem`] have it as an extension, for logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProblemCode(pub String);

/// The answer that reports a problem: `application/problem+json`.
pub fn problem(problem: &Problem) -> Response {
    let body = serde_json::to_vec(problem).unwrap_or_default();
    let mut answer = written(problem.status, body);
    answer.extensions_mut().insert(ProblemCode(problem.code().to_owned()));
    answer
}

/// Like [`problem`], with an additional member for programs (RFC 9457, section 3.2).
pub fn problem_with(problem: &Problem, member: &str, value: serde_json::Value) -> Response {
    let mut whole = serde_json::to_value(problem).unwrap_or_default();
    if let Some(members) = whole.as_object_mut() {
        members.insert(member.to_owned(), value);
    }
    written(problem.status, whole.to_string())
}

/// Like [`problem`], with `Coterie-Not-Processed`: nothing of the request was done, so it can safely be sent again.
pub fn not_processed(refusal: &Problem) -> Response {
    let mut response = problem(refusal);
    response.headers_mut().insert(HeaderName::from_static(api::NOT_PROCESSED), HeaderValue::from_static("1"));
    response
}

/// Refuses a request that must be changed: 400.
pub fn invalid(code: &str, detail: &(impl ToString + ?Sized), hint: &str) -> Response {
    problem(&Problem::new(ErrorKind::Invalid, code, detail.to_string()).hint(hint))
}

/// Refuses a method: 405 with the allowed methods, such as `GET, HEAD`.
pub fn method_not_allowed(allowed: &'static str) -> Response {
    let detail = format!("allowed here: {allowed}");
    let mut refusal =
        Problem::new(ErrorKind::Invalid, "method-not-allowed", detail).hint("use one of these methods");
    refusal.status = StatusCode::METHOD_NOT_ALLOWED.as_u16();
    let mut answer = problem(&refusal);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

/// Adds `Retry-After: 1`, for refusals because something is full.
#[must_use]
pub fn retry_later(mut answer: Response) -> Response {
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

/// An answer in JSON.
pub fn json(body: impl Into<Body>) -> Response {
    let mut answer = Response::new(body.into());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn written(status: u16, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Body::from(body.into()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(Problem::MEDIA_TYPE));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_problem_may_carry_a_member_for_programs() {
        let refusal = Problem::new(ErrorKind::Invalid, "bad-line", "line 3: no value").hint("change it");
        let answer = problem_with(&refusal, "line", serde_json::json!(3));
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        assert_eq!(answer.headers()[CONTENT_TYPE], Problem::MEDIA_TYPE);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&body["title"], &body["line"]), (&"bad line".into(), &3.into()));
    }

    #[test]
    fn a_refused_method_names_those_that_are_allowed() {
        let answer = method_not_allowed("GET, HEAD");
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(answer.headers()[ALLOW], "GET, HEAD");
    }
}
