//! Decides which requests to a node the guard against web pages of other sites checks.
//!
//! All services are behind it, so that no service has to add it. A request to the node's own paths that changes the node must
//! not come from a page of another site; one that reads must use a host that no foreign site can have. Probes and metrics
//! are open to all.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use http::{HeaderMap, Method, Response};
use types::{ErrorKind, Problem};

use super::App;
use super::error::ApiError;

/// The layer of everything under `/svc`: lets a request through unless a page of another site may be behind it.
pub(crate) async fn services(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response<Body>, ApiError> {
    let (head, body) = request.into_parts();
    app.facts.guard.check(&head)?;
    Ok(next.run(Request::from_parts(head, body)).await)
}

/// The same for the node's own paths, as far as they need it.
pub(crate) async fn guard(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response<Body>, ApiError> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    match stake(&head.method, path) {
        Stake::Nothing => {}
        Stake::View => app.facts.guard.check_host(&head)?,
        Stake::State => app.facts.guard.check(&head)?,
    }
    if path == BY_GET {
        check_by_get(&head.headers)?;
    }
    Ok(next.run(Request::from_parts(head, body)).await)
}

/// What a request reaches.
#[derive(Debug, PartialEq, Eq)]
enum Stake {
    /// A path that is open to all, or that has a layer of its own.
    Nothing,
    /// What the node reports about itself and the cluster.
    View,
    /// The node's state.
    State,
}

fn stake(method: &Method, path: &str) -> Stake {
    if path.starts_with("/svc/") {
        Stake::Nothing
    } else if changes_state(method, path) {
        Stake::State
    } else if path == "/metrics" || path.starts_with("/health/") {
        Stake::Nothing
    } else {
        Stake::View
    }
}

/// The one path that changes state by GET.
const BY_GET: &str = "/update_service";

/// A page can have an image fetched without an Origin, and to plain addresses browsers do not send Sec-Fetch-Site either. So a
/// request that looks like a browser's must show that no page of another site is behind it.
fn check_by_get(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if headers.contains_key("sec-fetch-site") {
        return Ok(());
    }
    let host = text("host");
    let referer = text("referer");
    let is_own_page = referer.strip_prefix("http://").is_some_and(|rest| {
        rest.strip_prefix(host).is_some_and(|path| path.is_empty() || path.starts_with('/'))
    });
    if !referer.is_empty() && !is_own_page {
        return Err(refuse(format!("the request comes from a page of `{referer}`")));
    }
    if text("user-agent").starts_with("Mozilla/") && !is_own_page {
        return Err(refuse("a browser asks, and nothing says that no foreign page is behind it".to_owned()));
    }
    Ok(())
}

fn changes_state(method: &Method, path: &str) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) || path == BY_GET
}

fn refuse(detail: String) -> Problem {
    Problem::new(ErrorKind::Forbidden, "foreign-page", detail)
        .hint("use ctl or curl with this node's own address; web pages of others may not change it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_by_get_is_not_made_for_an_image_on_a_foreign_page() {
        let verdict = |pairs: &[(&'static str, &str)]| {
            let headers =
                pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            check_by_get(&headers).is_ok()
        };
        assert!(verdict(&[("host", "10.0.0.7:10000"), ("user-agent", "curl/8")]));
        assert!(verdict(&[("host", "10.0.0.7:10000"), ("referer", "http://10.0.0.7:10000/")]));
        assert!(!verdict(&[("host", "10.0.0.7:10000"), ("referer", "http://10.0.0.7:10000.evil.example/")]));
        assert!(!verdict(&[("host", "10.0.0.7:10000"), ("referer", "http://evil.example/")]));
        assert!(!verdict(&[("host", "10.0.0.7:10000"), ("user-agent", "Mozilla/5.0")]));
    }

    #[test]
    fn a_change_needs_more_than_a_look_and_a_probe_needs_nothing() {
        for (method, path, expected) in [
            (Method::DELETE, "/svc/storage/kv/a", Stake::Nothing),
            (Method::PUT, "/v1/members/a/service", Stake::State),
            (Method::GET, "/update_service", Stake::State),
            (Method::GET, "/v1/members", Stake::View),
            (Method::GET, "/", Stake::View),
            (Method::GET, "/metrics", Stake::Nothing),
            (Method::GET, "/health/livez", Stake::Nothing),
        ] {
            assert_eq!(stake(&method, path), expected, "{method} {path}");
        }
    }
}
