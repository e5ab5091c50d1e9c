//! Every error answer of the API: problem details, made in one place.

use axum::body::Body;
use axum::response::IntoResponse;
use http::{Method, Response, StatusCode, Uri};
use types::{ErrorKind, Problem};

use crate::failure::{Explanation, Failure};

/// A problem as an answer; the outermost layer adds the node and the request's id, and writes it.
#[derive(Debug, Clone)]
pub(crate) struct ApiError(pub(crate) Problem);

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

/// The one place where an error of the runtime becomes problem details.
impl<F: Failure> From<F> for ApiError {
    fn from(error: F) -> Self {
        let Explanation { kind, code, hint } = error.explain();
        Self(Problem { hint, ..Problem::new(kind, &code, error.to_string()) })
    }
}

impl ApiError {
    /// A malformed request.
    pub(crate) fn invalid(code: &str, detail: impl Into<String>) -> Self {
        Self(Problem::new(ErrorKind::Invalid, code, detail))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.extensions_mut().insert(self);
        response
    }
}

pub(crate) async fn no_such_path(uri: Uri) -> ApiError {
    let problem =
        Problem::new(ErrorKind::NotFound, "no-such-path", format!("there is nothing at {}", uri.path()));
    ApiError(problem.hint("GET /v1/openapi.json describes the API"))
}

pub(crate) async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let mut problem =
        Problem::new(ErrorKind::Invalid, "wrong-method", format!("{} does not take {method}", uri.path()));
    problem.status = StatusCode::METHOD_NOT_ALLOWED.as_u16();
    ApiError(problem.hint("GET /v1/openapi.json describes the API"))
}
