//! Settings with mistakes, and what is said about them.

use serde_json::{Value, json};

use super::*;
use crate::table::Rewrite;

fn mistakes(settings: &Value) -> Vec<(String, String)> {
    plugin::check_settings(settings, Settings::check)
        .expect_err("these settings are wrong")
        .mistakes
        .into_iter()
        .map(|mistake| (mistake.pointer, mistake.message))
        .collect()
}

#[test]
fn the_defaults_are_right() {
    let plan = Settings::default().check().unwrap();
    assert_eq!(plan.listeners[0].address.to_string(), "127.0.0.1:0");
    assert_eq!(plan.limits, Limits::default(), "the documented defaults are those of the mesh");
    assert_eq!(plan.table.websocket_idle(None), crate::table::WEBSOCKET_IDLE);
    assert_eq!(plugin::parse_settings(&json!({})), Ok(Settings::default()));
}

#[test]
fn a_route_has_its_own_limit_for_idle_websockets_or_that_of_all() {
    let to = json!(["http://127.0.0.1:1"]);
    let settings = json!({
        "websocket_timeout": "1h",
        "routes": [{"prefix": "/a", "to": to, "timeouts": {"websocket": "1m"}}, {"prefix": "/b", "to": to}],
    });
    let table = plugin::parse_settings::<Settings>(&settings).unwrap().check().unwrap().table;
    let limits = table.ways().iter().map(Some).chain([None]).map(|way| table.websocket_idle(way).as_secs());
    assert_eq!(limits.collect::<Vec<_>>(), [60, 3_600, 3_600]);
}

#[test]
fn a_route_has_its_own_least_rate_or_that_of_the_gateway() {
    let to = ["http://127.0.0.1:1"];
    let settings = json!({
        "min_rate": "1kB",
        "routes": [
            {"prefix": "/a", "to": to, "limits": {"min_rate": "100B"}},
            {"prefix": "/b", "to": to},
            {"prefix": "/c", "to": to, "limits": {"min_rate": 0}},
        ],
    });
    let plan = plugin::parse_settings::<Settings>(&settings).unwrap().check().unwrap();
    assert_eq!(plan.limits.min_rate, MinRate::new(1000));
    let rates = plan.table.ways().iter().map(|way| way.min_rate.map(|rate| rate.bytes_per_second));
    assert_eq!(rates.collect::<Vec<_>>(), [Some(100), None, Some(0)]);
    let plan = plugin::parse_settings::<Settings>(&json!({})).unwrap().check().unwrap();
    assert_eq!(plan.limits.min_rate, MinRate::default());
}

#[test]
fn all_mistakes_are_reported_at_once_each_with_its_place() {
    let found = mistakes(&json!({
        "listen": "localhost",
        "routes": [
            {"prefix": "files", "to": ["http://127.0.0.1:1"]},
            {"prefix": "/a/../b", "to": []},
            {"prefix": "/c", "to": ["ftp://example.org", "127.0.0.1:8000", "http://a:1", "http://a:1/"]},
            {"prefix": "/c/", "to": ["http://127.0.0.1:1"], "max_in_flight": 0},
            {"prefix": "/d", "to": ["http://127.0.0.1:1"], "timeouts": {"websocket": "0s"}},
            {"prefix": "/e", "to": ["http://127.0.0.1:1"], "limits": {"min_rate": "100 B/s"}},
            {"prefix": "/f", "answer": {}, "limits": {"min_rate": "100B"}},
        ],
        "keep_alive": "0s",
        "send_timeout": "60",
        "min_rate": "-1B",
        "connect_timeout": "0s",
        "websocket_timeout": "never",
        "wait": "soon",
        "max_connections": 0,
        "max_connections_per_client": 0,
        "trust": ["10.0.0.7", "10.0.0.0/33", "proxy"],
    }));
    let places: Vec<_> = found.iter().map(|(pointer, _)| pointer.as_str()).collect();
    assert_eq!(
        places,
        [
            "/connect_timeout",
            "/keep_alive",
            "/max_connections",
            "/max_connections_per_client",
            "/min_rate",
            "/routes/3/max_in_flight",
            "/routes/4/timeouts/websocket",
            "/routes/5/limits/min_rate",
            "/send_timeout",
            "/wait",
            "/websocket_timeout",
            "/routes/0/prefix",
            "/routes/1/to",
            "/routes/1/prefix",
            "/routes/2/to/0",
            "/routes/2/to/1",
            "/routes/2/to/3",
            "/routes/3/prefix",
            "/routes/6/limits/min_rate",
            "/trust/1",
            "/trust/2",
            "/listen",
        ]
    );
    let message = |place: &str| &found.iter().find(|(pointer, _)| pointer == place).unwrap().1;
    assert_eq!(message("/wait"), "a duration from 0s to 365d (like `10s`) is wanted, found the text `soon`");
    assert!(message("/routes/2/to/0").contains("none of http://, https:// and h2c://"));
    assert!(message("/routes/3/prefix").contains("routed twice"));
    assert!(message("/routes/1/prefix").contains(".."));
}

#[test]
fn an_unknown_key_is_reported_with_its_place() {
    let found = mistakes(&json!({"routes": [{"prefix": "/a", "to": [], "strip": true}]}));
    assert_eq!(found[0], ("/routes/0/strip".to_owned(), "unknown key `strip`".to_owned()));
    let found = mistakes(&json!({"wait": 10}));
    assert_eq!(found[0].0, "/wait");
}

#[test]
fn a_route_has_one_way_to_match_and_one_destination() {
    let found = mistakes(&json!({"routes": [
        {"prefix": "/a"},
        {"to": ["http://a"]},
        {"prefix": "/b", "path": "/b", "service": "storage", "to": ["http://a"], "answer": {}},
    ]}));
    let words: Vec<_> = found.iter().map(|(place, words)| format!("{place}: {words}")).collect();
    assert_eq!(
        words,
        [
            "/routes/0: the route leads nowhere",
            "/routes/1: neither `path` nor `prefix` is given",
            "/routes/2/to: it excludes `service`",
            "/routes/2/answer: it excludes `service`",
            "/routes/2/path: it excludes `prefix`",
        ]
    );
}

#[test]
fn every_mistake_in_a_route_is_reported_at_its_place() {
    let found = mistakes(&json!({
        "keys": {"a": {"sha256": []}, "b/c": {"sha256": ["secret"]}},
        "routes": [
            {"name": "a b", "hosts": ["shop.example:80", "*", "a", "A"], "path": "/a?b", "methods": ["get", "TRACE", "G T", "GET", "GET"],
             "headers": {"host": "a", "connection": "close", "a b": "1", "x-a": " 1", "x-forwarded-proto": "https"}, "to": ["http://a"],
             "rewrite": {"prefix": "v2", "host": "a b"}, "strip_prefix": false,
             "request_headers": {"set": {"Host": "a", "x-a": "1\n"}, "add": {"x-forwarded-for": "1"}, "remove": ["content-length", "x-a"]},
             "limits": {"in_flight": 1, "rate": {"requests": 1, "by": {"header": "a b"}}}, "max_in_flight": 1, "keys": "partner"},
            {"name": "x", "prefix": "/b", "redirect": {}, "rewrite": {"prefix": "/c"}, "timeouts": {"total": "1s"}, "retry": {"attempts": 1}, "request_headers": {"remove": ["x-a"]}},
            {"name": "x", "prefix": "/c", "redirect": {"status": 200, "host": "*.a", "to": "b"}},
            {"prefix": "/d", "answer": {"status": 204, "body": "x"}, "affinity": "client", "check": {"tcp": {}}},
            {"prefix": "/e", "answer": {"content_type": "a\nb"}},
            {"prefix": "/f", "service": "no service", "rewrite": {"host": "a"}, "check": {"grpc": {"service": "a b"}}},
            {"prefix": "/g", "backends": [], "affinity": {"cookie": "a b"}, "balance": "round_robin"},
            {"prefix": "/h", "backends": [{"url": "http://a", "weight": 1}, {"url": "http://a"}, {"url": "a"}],
             "check": {"http": {"path": "up"}, "tcp": {}}},
        ],
    }));
    let places: Vec<_> = found.iter().map(|(place, _)| place.as_str()).collect();
    assert_eq!(
        places,
        [
            "/keys/a/sha256",
            "/keys/b~1c/sha256/0",
            "/routes/0/name",
            "/routes/0/path",
            "/routes/0/hosts/0",
            "/routes/0/hosts/1",
            "/routes/0/hosts/3",
            "/routes/0/methods/0",
            "/routes/0/methods/1",
            "/routes/0/methods/2",
            "/routes/0/methods/4",
            "/routes/0/headers/a b",
            "/routes/0/headers/connection",
            "/routes/0/headers/host",
            "/routes/0/headers/x-a",
            "/routes/0/rewrite/prefix",
            "/routes/0/strip_prefix",
            "/routes/0/rewrite/prefix",
            "/routes/0/rewrite/host",
            "/routes/0/request_headers/set/Host",
            "/routes/0/request_headers/set/x-a",
            "/routes/0/request_headers/add/x-forwarded-for",
            "/routes/0/request_headers/remove/0",
            "/routes/0/request_headers/remove/1",
            "/routes/0/limits/rate/by/header",
            "/routes/0/keys",
            "/routes/0/max_in_flight",
            "/routes/1/redirect",
            "/routes/1/rewrite",
            "/routes/1/timeouts",
            "/routes/1/retry",
            "/routes/1/request_headers",
            "/routes/2/name",
            "/routes/2/redirect/status",
            "/routes/2/redirect/host",
            "/routes/2/redirect/to",
            "/routes/3/answer/body",
            "/routes/3/affinity",
            "/routes/3/check",
            "/routes/4/answer/content_type",
            "/routes/5/service",
            "/routes/5/rewrite/host",
            "/routes/5/check",
            "/routes/5/check/grpc/service",
            "/routes/6/backends",
            "/routes/6/balance",
            "/routes/6/affinity/cookie",
            "/routes/7/backends/1/url",
            "/routes/7/backends/2/url",
            "/routes/7/check",
        ]
    );
    let message = |place: &str| &found.iter().find(|(pointer, _)| pointer == place).unwrap().1;
    assert_eq!(
        message("/routes/0/request_headers/add/x-forwarded-for"),
        "`x-forwarded-for` can't be changed: the gateway writes it itself"
    );
    assert_eq!(message("/routes/0/keys"), "there are no keys `partner`");
}

#[test]
fn retries_without_an_effect_and_compression_of_redirects_are_mistakes() {
    let found = mistakes(&json!({"routes": [
        {"prefix": "/a", "to": ["http://a"], "retry": {"codes": [502, 503, 502]}},
        {"prefix": "/b", "to": ["http://a"], "retry": {"codes": [502], "attempts": 1}},
        {"prefix": "/c", "redirect": {"to": "/d"}, "compress": true},
        {"prefix": "/e", "to": ["http://a"], "retry": {"codes": [502, 599], "on": []}, "compress": true},
    ]}));
    let places: Vec<_> = found.iter().map(|(place, _)| place.as_str()).collect();
    assert_eq!(places, ["/routes/0/retry/codes/2", "/routes/1/retry/codes", "/routes/2/compress"]);
    for (retry, place) in [
        (json!({"codes": [200]}), "/routes/0/retry/codes/0"),
        (json!({"codes": [600]}), "/routes/0/retry/codes/0"),
        (json!({"on": ["timeout"]}), "/routes/0/retry/on/0"),
        (json!({"code": [502]}), "/routes/0/retry/code"),
    ] {
        let found = mistakes(&json!({"routes": [{"prefix": "/a", "to": ["http://a"], "retry": retry}]}));
        assert_eq!(found[0].0, place, "{found:?}");
    }
}

#[test]
fn a_route_that_others_leave_nothing_for_is_a_mistake_that_names_them() {
    let to = json!(["http://a"]);
    let of = |routes: Value| -> Vec<String> {
        let mut routes = routes;
        for route in routes.as_array_mut().unwrap() {
            route["to"] = to.clone();
        }
        match plugin::check_settings(&json!({"routes": routes}), Settings::check) {
            Ok(_) => Vec::new(),
            Err(error) => error.mistakes.iter().map(ToString::to_string).collect(),
        }
    };
    let twice =
        |path: &str, by: &str| format!("`{path}` is routed twice: {by} every request that this route would");
    for (routes, mistake) in [
        (
            json!([{"prefix": "/a"}, {"prefix": "/a/"}]),
            format!("/routes/1/prefix: {}", twice("/a", "/routes/0 takes")),
        ),
        (
            json!([{"prefix": "/%61"}, {"prefix": "/a"}]),
            format!("/routes/1/prefix: {}", twice("/a", "/routes/0 takes")),
        ),
        (
            json!([{"path": "/a", "methods": ["GET"]}, {"path": "/a", "methods": ["PUT"]}, {"path": "/a", "methods": ["PUT", "GET"]}]),
            format!("/routes/2/path: {}", twice("/a", "/routes/0 and /routes/1 take")),
        ),
        (
            json!([{"prefix": "/", "hosts": ["a", "b"]}, {"prefix": "/", "hosts": ["c"]}, {"prefix": "/", "hosts": ["B", "c"]}]),
            format!("/routes/2/prefix: {}", twice("/", "/routes/0 and /routes/1 take")),
        ),
        (
            json!([{"prefix": "/", "headers": {"a": "1", "b": "2"}}, {"prefix": "/", "headers": {"B": "2", "A": "1"}}]),
            format!("/routes/1/prefix: {}", twice("/", "/routes/0 takes")),
        ),
    ] {
        assert_eq!(of(routes.clone()), [mistake], "{routes}");
    }
    for fine in [
        json!([{"prefix": "/a"}, {"path": "/a"}, {"prefix": "/a/b"}]),
        json!([{"prefix": "/", "hosts": ["a"]}, {"prefix": "/", "hosts": ["a", "b"]}, {"prefix": "/", "hosts": ["*.a"]}, {"prefix": "/"}]),
        json!([{"prefix": "/"}, {"prefix": "/", "methods": ["GET"]}, {"prefix": "/", "methods": ["GET", "PUT"]}]),
        json!([{"prefix": "/", "headers": {"a": "1"}}, {"prefix": "/", "headers": {"a": "2"}}]),
    ] {
        assert_eq!(of(fine.clone()), [""; 0], "{fine}");
    }
}

#[test]
fn a_redirect_of_the_scheme_stands_beside_the_route_that_it_leads_to() {
    let settings = json!({"routes": [
        {"hosts": ["shop.example"], "prefix": "/", "redirect": {"scheme": "https", "status": 308}},
        {"hosts": ["shop.example"], "prefix": "/", "service": "storage"},
    ]});
    assert!(plugin::check_settings(&settings, Settings::check).is_ok());
}

#[test]
fn a_misspelled_key_of_a_route_is_corrected() {
    let error = plugin::check_settings(
        &json!({"routes": [{"prefix": "/", "to": ["http://a"], "limits": {"boddy": "1MiB"}, "tiemouts": {}}]}),
        Settings::check,
    )
    .unwrap_err();
    let hints: Vec<_> =
        error.mistakes.iter().map(|mistake| (mistake.pointer.as_str(), mistake.hint.as_deref())).collect();
    assert_eq!(
        hints,
        [
            ("/routes/0/limits/boddy", Some("did you mean `body`?")),
            ("/routes/0/tiemouts", Some("did you mean `timeouts`?")),
        ]
    );
}

#[test]
fn the_routes_of_the_first_version_mean_the_same() {
    let settings = json!({"routes": [
        {"prefix": "/a", "to": ["http://a:1", "http://b:2/x"], "max_in_flight": 4},
        {"prefix": "/b", "to": ["http://a:1"], "strip_prefix": false},
    ]});
    let plan = plugin::check_settings(&settings, Settings::check).unwrap();
    let [first, second] = plan.table.ways() else { panic!("two routes") };
    assert_eq!(first.addresses().len(), 2);
    assert_eq!(
        (&first.rewrite, first.places.as_ref().map(|places| places.limit())),
        (&Rewrite::Strip, Some(4))
    );
    assert_eq!((&second.rewrite, second.label.as_str()), (&Rewrite::Keep, "/b"));
    assert!(first.rate.is_none() && first.body.is_none() && first.keys.is_none());
}

#[test]
fn trusted_certificates_belong_to_a_route_with_an_https_address() {
    let found = mistakes(&json!({"routes": [
        {"prefix": "/a", "to": ["http://a"], "ca": "ca.crt"},
        {"prefix": "/b", "to": ["https://a", "h2c://b:50051"], "ca": ""},
        {"prefix": "/c", "service": "storage", "ca": "ca.crt"},
        {"prefix": "/d", "backends": [{"url": "https://a"}], "ca": "ca.crt"},
    ]}));
    let words: Vec<_> = found.iter().map(|(place, words)| format!("{place}: {words}")).collect();
    assert_eq!(
        words,
        [
            "/routes/0/ca: it has no effect: no address of this route begins with `https://`",
            "/routes/1/ca: this is no path",
            "/routes/2/ca: it has no effect: the route has no address",
        ]
    );
}
