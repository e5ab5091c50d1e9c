//! Keeps web pages of others from changing this node through a visitor's browser.
//!
//! A page of another site can make a browser send requests to a loopback address (cross-site request forgery), and
//! can point a name of its own at one (DNS rebinding). So what changes state must come from no page at all, or from
//! this node's own.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use http::{HeaderMap, Method, Response};
use types::{ErrorKind, Problem};

use super::App;
use super::error::ApiError;

/// Lets a request through unless a foreign page may be behind it.
pub(crate) async fn guard(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response<Body>, ApiError> {
    let path = request.uri().path();
    if changes_state(request.method(), path) {
        check(request.headers(), &app.facts.hosts)?;
    }
    if path == BY_GET {
        check_by_get(request.headers())?;
    }
    Ok(next.run(request).await)
}

/// The one path that changes state by GET.
const BY_GET: &str = "/update_service";

/// A page can have an image fetched without an Origin, and towards plain addresses browsers say nothing of the site
/// either: so what looks like a browser must say that it is no page of others.
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

fn check(headers: &HeaderMap, own_hosts: &[String]) -> Result<(), Problem> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text("host").unwrap_or_default();
    if !is_own(host, own_hosts) {
        return Err(refuse(format!("the Host header says `{host}`, which is not this node")));
    }
    if let Some(origin) = text("origin")
        && origin.strip_prefix("http://") != Some(host)
    {
        return Err(refuse(format!("the request comes from a page of `{origin}`")));
    }
    if let Some(site) = text("sec-fetch-site")
        && !matches!(site, "same-origin" | "none")
    {
        return Err(refuse(format!("a browser says that the request is {site}")));
    }
    Ok(())
}

/// An IP address can't be rebound; a name must be one of ours.
fn is_own(host: &str, own_hosts: &[String]) -> bool {
    let Ok(authority) = host.parse::<http::uri::Authority>() else {
        return false;
    };
    let name = authority.host();
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<std::net::IpAddr>().is_ok() || own_hosts.iter().any(|own| own.eq_ignore_ascii_case(bare))
}

fn refuse(detail: String) -> Problem {
    Problem::new(ErrorKind::Forbidden, "foreign-page", detail)
        .hint("use ctl or curl with this node's own address; web pages of others may not change it")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(pairs: &[(&'static str, &str)]) -> Result<(), String> {
        let headers =
            pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        check(&headers, &["localhost".to_owned()]).map_err(|problem| problem.detail)
    }

    #[test]
    fn programs_and_the_nodes_own_pages_may_change_it() {
        assert_eq!(verdict(&[("host", "127.0.0.1:10000")]), Ok(()));
        assert_eq!(verdict(&[("host", "localhost:10000"), ("origin", "http://localhost:10000")]), Ok(()));
        assert_eq!(verdict(&[("host", "[::1]:10000"), ("sec-fetch-site", "same-origin")]), Ok(()));
        assert_eq!(verdict(&[("host", "10.0.0.7:10000")]), Ok(()));
    }

    #[test]
    fn foreign_pages_may_not() {
        for pairs in [
            &[("host", "evil.example:10000")][..],
            &[("host", "127.0.0.1:10000"), ("origin", "http://evil.example")],
            &[("host", "127.0.0.1:10000"), ("origin", "null")],
            &[("host", "127.0.0.1:10000"), ("origin", "https://127.0.0.1:10000")],
            &[("host", "127.0.0.1:10000"), ("origin", "http://127.0.0.1:9999")],
            &[("host", "127.0.0.1:10000"), ("sec-fetch-site", "cross-site")],
            &[("host", "127.0.0.1:10000"), ("sec-fetch-site", "same-site")],
            &[],
        ] {
            assert!(verdict(pairs).is_err(), "{pairs:?}");
        }
    }

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
    fn looking_changes_nothing_but_the_first_spelling_of_a_change_does() {
        assert!(!changes_state(&Method::GET, "/v1/members"));
        assert!(changes_state(&Method::GET, "/update_service"));
        assert!(changes_state(&Method::PUT, "/v1/members/a/service"));
    }
}
