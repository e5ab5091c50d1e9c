//! Answers that refuse a request.

use std::num::NonZeroU32;

use axum::body::Body;
use axum::response::Response;
use http::header::ALLOW;
use http::{HeaderValue, StatusCode};
use plugin::response;
use types::{ErrorKind, Problem, ShardId};

use crate::parameters::QueryError;

/// A problem with one more member for programs (RFC 9457, section 3.2).
pub(crate) fn extended(problem: &Problem, name: &str, value: serde_json::Value) -> Response {
    let mut whole = serde_json::to_value(problem).expect("a problem is strings and numbers");
    whole[name] = value;
    let (head, _) = response::problem(problem).into_parts();
    Response::from_parts(head, Body::from(whole.to_string()))
}

pub(crate) fn refused(problem: &Problem) -> Response {
    response::problem(problem)
}

pub(crate) fn invalid(code: &str, detail: &(impl ToString + ?Sized), hint: &str) -> Response {
    refused(&Problem::new(ErrorKind::Invalid, code, detail.to_string()).hint(hint))
}

pub(crate) fn bad_query(error: &QueryError) -> Response {
    let hint = error.hint.as_deref().unwrap_or("leave the parameter out, or percent-encode its value");
    invalid("bad-query", error, hint)
}

pub(crate) fn not_allowed(methods: &'static str) -> Response {
    let mut problem =
        Problem::new(ErrorKind::Invalid, "method-not-allowed", format!("allowed here: {methods}"))
            .hint("use one of these methods");
    problem.status = StatusCode::METHOD_NOT_ALLOWED.as_u16();
    let mut answer = refused(&problem);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    answer
}

pub(crate) fn unknown_shard(shard: ShardId, shards: NonZeroU32) -> Response {
    let last = shards.get() - 1;
    invalid("unknown-shard", &format!("there is no shard {shard}"), &format!("there are shards 0 to {last}"))
}
