//! Finds redirects that lead to their own route for ever.
//!
//! Pure: an example of each route follows its redirect in the finished table. A redirect to another host or port may lead to
//! another server, so nothing is said about it; nor about one to another scheme, which has a port of its own, unless the gateway
//! may be reached under both.

use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode, Uri};
use plugin::SettingsMistake;

use super::headers::is_of_proxies;
use super::listener::ListenerPlan;
use crate::host::{HostRule, MAX_NAME, name_of};
use crate::path::PathRule;
use crate::redirect::Redirect;
use crate::rule::{Asked, Scheme};
use crate::table::{Destination, RouteTable, Target, Way};

/// After how many redirects along the same route nothing else will come.
const HOPS: usize = 8;

/// The mistakes of redirects that lead to themselves.
pub(super) fn find(table: &RouteTable, listeners: &[ListenerPlan]) -> Vec<SettingsMistake> {
    let has_schemes = listeners.iter().any(|plan| plan.is_tls() || !plan.trust.is_empty());
    table.ways().iter().filter_map(|way| of_route(table, way, has_schemes)).collect()
}

/// `has_schemes`: a listener has TLS, or a proxy in front of one may say which scheme its client uses.
fn of_route(table: &RouteTable, way: &Way, has_schemes: bool) -> Option<SettingsMistake> {
    let Target::Redirect(redirect) = &way.target else { return None };
    if redirect.host.is_some() || redirect.port.is_some() || redirect.scheme.is_some() && !has_schemes {
        return None;
    }
    // What a proxy in front says of each request may change with the redirect.
    if way.rule.headers.iter().any(|(name, _)| is_of_proxies(name)) {
        return None;
    }
    let to = redirect.to.as_ref()?;
    let paths = match &way.rule.path {
        PathRule::Exact(path) => vec![path.as_str().to_owned()],
        PathRule::Prefix(prefix) => vec![prefix.to_string(), format!("{}/x", prefix.as_str())],
    };
    let methods = if way.rule.methods.is_empty() { &[Method::GET][..] } else { &way.rule.methods };
    let path = paths.into_iter().find(|path| {
        let mut examples = way.hosts.iter().flat_map(|host| methods.iter().map(move |method| (host, method)));
        examples.any(|(host, method)| is_loop(table, way, redirect, host, method, path))
    })?;
    let message = format!("a request for `{path}` would be redirected along this route again and again");
    let hint = match &way.rule.path {
        PathRule::Prefix(prefix) => format!(
            "`{to}` begins with the prefix: write `path: {prefix}` instead of the prefix, or a route for the new path"
        ),
        PathRule::Exact(_) => "redirect it to another path".to_owned(),
    };
    Some(SettingsMistake::new(format!("/routes/{}/redirect/to", way.place), message).hint(hint))
}

fn is_loop(
    table: &RouteTable,
    way: &Way,
    redirect: &Redirect,
    host: &HostRule,
    mut method: &Method,
    path: &str,
) -> bool {
    let host = match host {
        HostRule::Any => None,
        HostRule::Below(suffix) => Some(format!("x{suffix}")),
        HostRule::Exact(host) => Some(host.clone()),
    };
    let headers: HeaderMap = way.rule.headers.iter().cloned().collect();
    let mut scheme = Scheme::Http;
    let Ok(mut path) = path.parse::<PathAndQuery>() else { return false };
    for _ in 0..HOPS {
        let mut buffer = [0; MAX_NAME];
        let host_name = host.as_deref().and_then(|host| name_of(host, &mut buffer));
        let asked = Asked { scheme, host: host_name, path: path.path(), method, headers: &headers };
        let Destination::Route(taken, matched) = table.destination(&asked) else { return false };
        if taken.place != way.place {
            return false;
        }
        let location = redirect.location(scheme, host.as_deref(), &path, matched);
        let location = location.and_then(|location| location.to_str().ok()?.parse::<Uri>().ok());
        let Some(next) = location.and_then(|uri| uri.path_and_query().cloned()) else { return false };
        path = next;
        scheme = redirect.scheme.unwrap_or(scheme);
        method = continues_as(method, redirect.status);
    }
    true
}

/// The method with which clients follow a redirect (RFC 9110, 15.4; as browsers and curl do).
fn continues_as(method: &Method, status: StatusCode) -> &Method {
    match status.as_u16() {
        301..=303 if *method != Method::HEAD => &Method::GET,
        _ => method,
    }
}

#[cfg(test)]
mod tests {
    use plugin::Plugin;
    use serde_json::{Value, json};

    use crate::ApiGateway;

    fn found(routes: &Value) -> Vec<String> {
        of_settings(&json!({"routes": routes}))
    }

    fn of_settings(settings: &Value) -> Vec<String> {
        match ApiGateway.prepare(settings) {
            Ok(_) => Vec::new(),
            Err(error) => error.mistakes.into_iter().map(|mistake| mistake.pointer).collect(),
        }
    }

    #[test]
    fn a_redirect_to_its_own_route_is_a_mistake_unless_it_ends() {
        let to = |prefix: &str, to: &str| json!({"prefix": prefix, "redirect": {"to": to}});
        let answer = |prefix: &str| json!({"prefix": prefix, "answer": {}});
        let with = |methods: &[&str], redirect: &Value| json!([{"prefix": "/self", "methods": methods, "redirect": redirect}]);
        for (routes, is_loop) in [
            (json!([to("/self", "/self")]), true),
            (json!([to("/self", "/self/new{rest}")]), true),
            (json!([to("/", "/app{rest}")]), true),
            (json!([to("/", "/app{rest}"), answer("/app")]), false),
            (json!([to("/old", "/new{rest}")]), false),
            (json!([to("/old", "{rest}")]), false),
            (json!([{"path": "/self", "redirect": {"to": "/self"}}]), true),
            (json!([{"path": "/", "redirect": {"to": "/self"}}]), false),
            (json!([{"prefix": "/self", "hosts": ["*.a.example"], "redirect": {"to": "/self/a"}}]), true),
            (with(&["POST"], &json!({"to": "/self/a"})), false),
            (with(&["POST"], &json!({"to": "/self", "status": 303})), false),
            (with(&["POST"], &json!({"to": "/self", "status": 307})), true),
            (with(&["HEAD"], &json!({"to": "/self"})), true),
            (with(&["POST", "GET"], &json!({"to": "/self"})), true),
            (with(&["PUT", "HEAD"], &json!({"to": "/self"})), true),
            (json!([{"prefix": "/self", "headers": {"x-a": "1"}, "redirect": {"to": "/self"}}]), true),
            (
                json!([{"prefix": "/self", "headers": {"x-forwarded-proto": "http"}, "redirect": {"to": "/self"}}]),
                false,
            ),
            (json!([{"prefix": "/self", "redirect": {"to": "/self", "host": "b.example"}}]), false),
            (json!([{"prefix": "/", "redirect": {"scheme": "https"}}]), false),
        ] {
            let expected = if is_loop { vec!["/routes/0/redirect/to".to_owned()] } else { Vec::new() };
            assert_eq!(found(&routes), expected, "{routes}");
        }
    }

    #[test]
    fn a_redirect_to_another_scheme_is_a_loop_only_where_the_gateway_may_have_both() {
        let with = |more: &Value| {
            let mut settings =
                json!({"routes": [{"prefix": "/self", "redirect": {"to": "/self", "scheme": "https"}}]});
            settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            of_settings(&settings)
        };
        let listener = |more: &Value| {
            let mut listener = json!({"name": "web", "address": "127.0.0.1:0"});
            listener.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"listeners": [listener]})
        };
        let tls = json!({"tls": {"certificates": [{"cert": "/c", "key": "/k"}]}});
        for (more, is_loop) in [
            (json!({}), false),
            (listener(&json!({})), false),
            (json!({"trust": ["10.0.0.0/8"]}), true),
            (listener(&json!({"trust": ["10.0.0.7"]})), true),
            (listener(&tls), true),
        ] {
            assert_eq!(!with(&more).is_empty(), is_loop, "{more}");
        }
    }
}
