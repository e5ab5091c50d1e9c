//! Finds a route that could never take a request, because earlier ones take all of those.
//!
//! Pure. Of two routes that differ in host, path or the number of headers, one takes precedence only for some requests;
//! so a route can be covered only by routes with the same host, path and headers, and with its methods.

use http::Method;
use plugin::SettingsMistake;

use crate::host::HostRule;
use crate::path::PathRule;
use crate::rule::Rule;

/// What a route takes.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    /// Its place in the settings.
    pub(super) place: usize,
    pub(super) hosts: Vec<HostRule>,
    pub(super) rule: Rule,
}

/// The mistake that other routes leave nothing for `route`; `earlier` come before it in the settings.
pub(super) fn find(route: &Shape, earlier: &[Shape]) -> Option<SettingsMistake> {
    let mut by = Vec::new();
    for host in &route.hosts {
        let rivals = earlier
            .iter()
            .filter(|other| other.hosts.contains(host) && other.rule.covers_all_but_methods(&route.rule));
        let mut left: Vec<&Method> = route.rule.methods.iter().collect();
        let mut is_covered = false;
        for rival in rivals {
            let takes = &rival.rule.methods;
            // A route with methods takes precedence over one without, so neither covers the other.
            if takes.is_empty() != route.rule.methods.is_empty() {
                continue;
            }
            let before = left.len();
            left.retain(|method| !takes.contains(method));
            is_covered = left.is_empty();
            if (left.len() < before || is_covered) && !by.contains(&rival.place) {
                by.push(rival.place);
            }
            if is_covered {
                break;
            }
        }
        if !is_covered {
            return None;
        }
    }
    Some(mistake(route, &by))
}

/// `by` are the places of the routes that take its requests.
fn mistake(route: &Shape, by: &[usize]) -> SettingsMistake {
    let key = match route.rule.path {
        PathRule::Exact(_) => "path",
        PathRule::Prefix(_) => "prefix",
    };
    let places: Vec<_> = by.iter().map(|place| format!("/routes/{place}")).collect();
    let take = if places.len() == 1 { "takes" } else { "take" };
    let message = format!(
        "`{}` is routed twice: {} {take} every request that this route would",
        route.rule.path,
        places.join(" and ")
    );
    SettingsMistake::new(format!("/routes/{}/{key}", route.place), message)
        .hint("write one route with all of the addresses, or ask for other hosts, methods or headers")
}
