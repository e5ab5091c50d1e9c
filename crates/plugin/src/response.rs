//! Errors as HTTP answers: the one function that turns a problem into a response.

use axum::body::Body;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use types::{Problem, api};

/// The answer for a problem: `application/problem+json`.
pub fn problem(problem: &Problem) -> Response<Body> {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = serde_json::to_vec(problem).unwrap_or_default();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(Problem::MEDIA_TYPE));
    response
}

/// The same, marked as refused before any of the request was acted upon: whoever sent it may send it again.
pub fn not_processed(refusal: &Problem) -> Response<Body> {
    let mut response = problem(refusal);
    response.headers_mut().insert(HeaderName::from_static(api::NOT_PROCESSED), HeaderValue::from_static("1"));
    response
}
