//! Finds redirects that lead to their own route for ever.
//!
//! Pure: an example of each route follows its redirect in the finished table. A redirect to another host or port may lead to
//! another server, so nothing is said about it.

use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Uri};
use plugin::SettingsMistake;

use crate::host::{HostRule, MAX_NAME, name_of};
use crate::path::PathRule;
use crate::redirect::Redirect;
use crate::rule::{Asked, Scheme};
use crate::table::{Destination, RouteTable, Target, Way};

/// After how many redirects along the same route nothing else will come.
const HOPS: usize = 8;

/// The mistakes of redirects that lead to themselves.
pub(super) fn find(table: &RouteTable) -> Vec<SettingsMistake> {
    table.ways().iter().filter_map(|way| of_route(table, way)).collect()
}

fn of_route(table: &RouteTable, way: &Way) -> Option<SettingsMistake> {
    let Target::Redirect(redirect) = &way.target else { return None };
    if redirect.host.is_some() || redirect.port.is_some() {
        return None;
    }
    let to = redirect.to.as_ref()?;
    let paths = match &way.rule.path {
        PathRule::Exact(path) => vec![path.as_str().to_owned()],
        PathRule::Prefix(prefix) => vec![prefix.to_string(), format!("{}/x", prefix.as_str())],
    };
    let path = paths
        .into_iter()
        .find(|path| way.hosts.iter().any(|host| is_loop(table, way, redirect, host, path)))?;
    let message = format!("a request for `{path}` would be redirected along this route again and again");
    let hint = match &way.rule.path {
        PathRule::Prefix(prefix) => format!(
            "`{to}` begins with the prefix: write `path: {prefix}` instead of the prefix, or a route for the new path"
        ),
        PathRule::Exact(_) => "redirect it to another path".to_owned(),
    };
    Some(SettingsMistake::new(format!("/routes/{}/redirect/to", way.place), message).hint(hint))
}

fn is_loop(table: &RouteTable, way: &Way, redirect: &Redirect, host: &HostRule, path: &str) -> bool {
    let host = match host {
        HostRule::Any => None,
        HostRule::Below(suffix) => Some(format!("x{suffix}")),
        HostRule::Exact(host) => Some(host.clone()),
    };
    let method = way.rule.methods.first().unwrap_or(&Method::GET);
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
    }
    true
}

#[cfg(test)]
mod tests {
    use plugin::Plugin;
    use serde_json::{Value, json};

    use crate::ApiGateway;

    fn found(routes: &Value) -> Vec<String> {
        let settings = json!({"routes": routes});
        match ApiGateway.prepare(&settings) {
            Ok(_) => Vec::new(),
            Err(error) => error.mistakes.into_iter().map(|mistake| mistake.pointer).collect(),
        }
    }

    #[test]
    fn a_redirect_to_its_own_route_is_a_mistake_unless_it_ends() {
        let to = |prefix: &str, to: &str| json!({"prefix": prefix, "redirect": {"to": to}});
        let answer = |prefix: &str| json!({"prefix": prefix, "answer": {}});
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
            (json!([{"prefix": "/self", "methods": ["POST"], "redirect": {"to": "/self/a"}}]), true),
            (json!([{"prefix": "/self", "redirect": {"to": "/self", "scheme": "https"}}]), true),
            (json!([{"prefix": "/self", "redirect": {"to": "/self", "host": "b.example"}}]), false),
            (json!([{"prefix": "/", "redirect": {"scheme": "https"}}]), false),
        ] {
            let expected = if is_loop { vec!["/routes/0/redirect/to".to_owned()] } else { Vec::new() };
            assert_eq!(found(&routes), expected, "{routes}");
        }
    }
}
