//! The table finds the route that precedence demands, whatever the order of the settings.

use http::{HeaderMap, HeaderName, Method};
use proptest::prelude::*;

use super::*;
use crate::path::PathRule;
use crate::rule::Scheme;

fn table(prefixes: &[&str]) -> RouteTable {
    RouteTable::new(prefixes.iter().map(|prefix| Way::to_addresses(prefix, Vec::new())).collect())
}

fn asked<'a>(host: Option<&'a str>, path: &'a str, method: &'a Method, headers: &'a HeaderMap) -> Asked<'a> {
    Asked { scheme: Scheme::Http, host, path, method, headers }
}

fn shown(table: &RouteTable, path: &str) -> String {
    let headers = HeaderMap::new();
    match table.destination(&asked(None, path, &Method::GET, &headers)) {
        Destination::Route(way, _) => way.label.clone(),
        Destination::Service(service) => format!("service {service}"),
        Destination::Nowhere => "nowhere".to_owned(),
    }
}

#[test]
fn the_longest_prefix_wins_and_matches_whole_segments() {
    let table = table(&["/files", "/files/deep", "/storage/"]);
    for (path, destination) in [
        ("/files", "/files"),
        ("/files/", "/files"),
        ("/files//x", "/files"),
        ("/files/a%2Fb/..%2f", "/files"),
        ("/files/deeper", "/files"),
        ("/files/deep", "/files/deep"),
        ("/files/deep/x", "/files/deep"),
        ("/filesystem", "service filesystem"),
        ("/storage", "/storage"),
        ("/storage/x", "/storage"),
        ("/searcher/x", "service searcher"),
        ("/api-gateway", "service api-gateway"),
        ("/Files", "nowhere"),
        ("/%66iles", "/files"),
        ("//files", "nowhere"),
        ("/", "nowhere"),
        ("*", "nowhere"),
    ] {
        assert_eq!(shown(&table, path), destination, "{path}");
    }
    assert_eq!(shown(&table.with_services(false), "/searcher/x"), "nowhere");
}

#[test]
fn the_root_prefix_takes_what_no_other_prefix_does() {
    let table = table(&["/", "/files"]);
    assert_eq!(shown(&table, "/files/x"), "/files");
    assert_eq!(shown(&table, "/storage/x"), "/");
    assert_eq!(shown(&table, "/"), "/");
}

#[test]
fn a_request_that_a_more_specific_host_does_not_take_falls_to_the_next_one() {
    let way = |label: &str, hosts: &[&str], prefix: &str, place| Way {
        label: label.to_owned(),
        place,
        hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
        ..Way::to_addresses(prefix, Vec::new())
    };
    let any = Way { label: "any".to_owned(), place: 4, ..Way::to_addresses("/", Vec::new()) };
    let table = RouteTable::new(vec![
        any,
        way("wide", &["*.example"], "/", 0),
        way("narrow", &["*.shop.example"], "/n", 1),
        way("exact", &["www.shop.example", "shop.example"], "/e", 2),
        way("exact deep", &["www.shop.example"], "/e/d", 3),
    ]);
    let headers = HeaderMap::new();
    for (host, path, label) in [
        ("www.shop.example", "/e/d/x", "exact deep"),
        ("www.shop.example", "/e", "exact"),
        ("shop.example", "/e/d", "exact"),
        ("www.shop.example", "/n", "narrow"),
        ("a.b.shop.example", "/n/e", "narrow"),
        ("www.shop.example", "/x", "wide"),
        ("shop.example", "/n", "wide"),
        ("example", "/n", "any"),
        (".example", "/n", "any"),
        ("other", "/e", "any"),
    ] {
        let asked = asked(Some(host), path, &Method::GET, &headers);
        let Destination::Route(way, _) = table.destination(&asked) else { panic!("{host}{path}") };
        assert_eq!(way.label, label, "{host}{path}");
    }
}

/// A route of few possible parts, so that many of them take the same requests.
fn any_way() -> impl Strategy<Value = Way> {
    let hosts = prop::sample::subsequence(vec!["a.b.c", "b.c", "*.b.c", "*.c"], 0..=2);
    let path = prop::sample::select(vec!["=/x", "=/x/y", "/x", "/x/y", "/", "/x/y/z"]);
    let methods = prop::sample::subsequence(vec![Method::GET, Method::PUT], 0..=2);
    let headers = prop::sample::subsequence(vec!["x-a", "x-b"], 0..=2);
    (hosts, path, methods, headers, any::<bool>()).prop_map(|(hosts, path, methods, headers, is_redirect)| {
        let path = match path.strip_prefix('=') {
            Some(path) => PathRule::Exact(path.parse().unwrap()),
            None => PathRule::Prefix(path.parse().unwrap()),
        };
        let headers =
            headers.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1")));
        let hosts: Vec<HostRule> = hosts.iter().map(|host| host.parse().unwrap()).collect();
        Way {
            hosts: if hosts.is_empty() { vec![HostRule::Any] } else { hosts },
            rule: Rule {
                path,
                methods,
                headers: headers.collect(),
                scheme_other_than: is_redirect.then_some(Scheme::Https),
            },
            ..Way::to_addresses("/", Vec::new())
        }
    })
}

/// Routes with their numbers as labels, in this order.
fn in_order(ways: &[(usize, Way)]) -> Vec<Way> {
    ways.iter()
        .enumerate()
        .map(|(place, (number, way))| Way {
            label: number.to_string(),
            place,
            hosts: way.hosts.clone(),
            rule: way.rule.clone(),
            ..Way::to_addresses("/", Vec::new())
        })
        .collect()
}

/// The best rank of a route for a request.
fn rank(way: &Way, asked: &Asked<'_>) -> Option<Rank> {
    let hosts = way.hosts.iter().filter(|host| host.takes(asked.host));
    way.rule.takes(asked)?;
    hosts.map(|host| Rank::new(host, &way.rule, way.place)).min()
}

proptest! {
    #[test]
    fn the_same_route_wins_in_whatever_order_they_are_declared(
        ways in prop::collection::vec(any_way(), 1..12),
        shuffled in any::<prop::sample::Index>(),
        host in prop::sample::select(vec![None, Some("a.b.c"), Some("b.c"), Some("z.b.c"), Some("z.c"), Some("z")]),
        path in prop::sample::select(vec!["/x", "/x/y", "/x/y/z/q", "/xy", "/%78", "/"]),
        method in prop::sample::select(vec![Method::GET, Method::PUT, Method::POST]),
        names in prop::sample::subsequence(vec!["x-a", "x-b"], 0..=2),
        is_https in any::<bool>(),
    ) {
        let headers: HeaderMap =
            names.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1"))).collect();
        let scheme = if is_https { Scheme::Https } else { Scheme::Http };
        let asked = Asked { scheme, ..asked(host, path, &method, &headers) };
        let mut ways: Vec<_> = ways.into_iter().enumerate().collect();
        let declared = RouteTable::new(in_order(&ways));
        let by = shuffled.index(ways.len());
        ways.rotate_left(by);
        ways.reverse();
        let other = RouteTable::new(in_order(&ways));
        let winner = |table: &RouteTable| -> Option<(String, Rank)> {
            let (way, _) = table.route(&asked)?;
            Some((way.label.clone(), rank(way, &asked).expect("the winner takes the request")))
        };
        match (winner(&declared), winner(&other)) {
            (None, None) => {}
            (Some((one, first)), Some((two, second))) => {
                prop_assert!(one == two || first.ties_with(second), "{} and {}", one, two);
            }
            (one, two) => prop_assert!(false, "{one:?} and {two:?}"),
        }
        // The index finds the route that the comparator alone would, and the explanation names the same.
        let best = declared.ways().iter().filter_map(|way| Some((rank(way, &asked)?, &way.label))).min();
        let found = declared.route(&asked).map(|(way, _)| &way.label);
        prop_assert_eq!(found, best.map(|(_, label)| label));
        let explained = declared.explain(&asked);
        let (last, earlier) = explained.split_last().expect("there are routes");
        prop_assert!(earlier.iter().all(|(_, _, mismatch)| mismatch.is_some()));
        let explained = last.2.is_none().then_some(&last.1.label);
        prop_assert_eq!(found, explained);
    }
}
