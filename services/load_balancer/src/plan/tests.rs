use serde_json::{Value, json};

use mesh::MinRate;
use plugin::check::Probe;

use super::*;

/// A listener with a target and these settings.
fn with(more: &Value) -> Value {
    let mut listener =
        json!({"name": "db", "address": "127.0.0.1:0", "backends": [{"address": "10.0.0.1:80"}]});
    let members = listener.as_object_mut().unwrap();
    for (key, value) in more.as_object().unwrap() {
        members.insert(key.clone(), value.clone());
    }
    members.retain(|_, value| !value.is_null());
    json!({ "listeners": [listener] })
}

fn planned(settings: &Value) -> Plan {
    plugin::check_settings(settings, check).unwrap_or_else(|error| panic!("{settings}: {error}"))
}

fn mistakes(settings: &Value) -> Vec<(String, String)> {
    let error = plugin::check_settings(settings, check).expect_err("these settings are wrong");
    assert!(error.mistakes.iter().all(|mistake| !mistake.message.is_empty()));
    error.mistakes.into_iter().map(|mistake| (mistake.pointer, mistake.message)).collect()
}

/// The settings in an example, through a manifest.
fn example(doc: &str, prefix: &str) -> Value {
    let (_, rest) = doc.split_once("```yaml\n").expect("there is an example");
    let (example, _) = rest.split_once("```").expect("the example ends");
    let mut source = "cluster: x\nservices:\n  load_balancer:\n    settings:\n".to_owned();
    for line in example.lines() {
        let line = line.strip_prefix(prefix).unwrap_or(line);
        source += &format!("      {}\n", line.strip_prefix(' ').unwrap_or(line));
    }
    source += "nodes: [{ id: a, service: load_balancer }]\n";
    let checked = manifest::parse("example.yaml", &source, &|_| None, None);
    let checked = checked.unwrap_or_else(|mistakes| panic!("{mistakes}"));
    checked.manifest.services[&"load_balancer".parse().unwrap()].settings.clone()
}

#[test]
fn the_examples_in_the_docs_are_right() {
    let plan = planned(&example(include_str!("../lib.rs"), "//!"));
    let names: Vec<_> = plan.listeners.iter().map(|listener| listener.name.as_str()).collect();
    assert_eq!(names, ["web", "db", "tls"]);
    assert_eq!(plan.listeners[2].targets.len(), 2);
    assert_eq!(plan.listeners[2].names.as_ref().unwrap().find("a.shop.example"), Some(0));
    let plan = planned(&example(include_str!("../settings.rs"), "///"));
    assert_eq!(plan.listeners.len(), 2);
}

#[test]
fn the_documented_defaults_are_right() {
    let plan = planned(&with(&json!({})));
    let ListenerPlan { limits, forward, trust, names, .. } = &plan.listeners[0];
    assert_eq!((limits.connections, limits.per_client, limits.queue), (10_000, None, 1000));
    assert_eq!(limits.wait, Duration::from_secs(5));
    assert_eq!((forward.balance, forward.send, forward.per_backend), (Balance::TwoChoices, None, None));
    let times = [forward.connect, forward.idle, forward.drain, forward.slow_start].map(|time| time.as_secs());
    assert_eq!(times, [4, 3600, 30, 10]);
    assert_eq!(forward.websocket, Duration::from_secs(300));
    assert_eq!(forward.ejection, Rules { failures: 5, success: 80, time: Duration::from_secs(10), most: 50 });
    assert!(forward.check.is_none() && trust.is_none() && names.is_none());
    let checked = planned(&with(&json!({"check": {"tcp": {}}})));
    let check = checked.listeners[0].forward.check.clone().unwrap();
    let two = Duration::from_secs(2);
    assert_eq!(check, Checking { probe: Probe::Tcp, every: two, rise: 2, fall: 3, timeout: two, send: None });
    let service = planned(&with(&json!({"backends": null, "service": "api-gateway"})));
    let Source::Service { listener, .. } = &service.listeners[0].targets[0].source else {
        panic!("a service")
    };
    assert_eq!(listener, "gateway");
}

#[test]
fn all_mistakes_are_reported_at_once_each_with_its_place() {
    let found = mistakes(&json!({"listeners": [
        {"name": "Web", "address": "localhost:80", "service": "api_gateway", "backends": []},
        {"name": "db", "address": "127.0.0.1:80"},
        {"name": "db", "address": "0.0.0.0:80", "service": "a b", "check": {"tcp": {}}},
        {"name": "x", "address": "127.0.0.1:0", "listener": "web", "backends": [
            {"address": "http://a:1"}, {"address": "a:1"}, {"address": "A:1"}, {"address": "b"},
        ], "trust": ["10.0.0.0/33"], "check": {"tcp": {}, "http": {}}},
        {"name": "y", "address": "127.0.0.1:0", "listener": "web", "sni": [
            {"hosts": [], "backends": [{"address": "a:1"}]},
            {"hosts": ["a.b", "A.b", "*"], "service": "s", "backends": [{"address": "a:1"}]},
            {"hosts": ["c"]},
        ], "proxy_protocol": true},
        {"name": "z", "address": "127.0.0.1:0", "backends": [{"address": "a:1"}],
         "check": {"http": {"path": "x", "host": "a b"}}},
        {"name": "w", "address": "127.0.0.1:0", "sni": []},
    ]}));
    let places: Vec<_> = found.iter().map(|(pointer, _)| pointer.as_str()).collect();
    assert_eq!(
        places,
        [
            "/listeners/0/name",
            "/listeners/0/address",
            "/listeners/0",
            "/listeners/0/backends",
            "/listeners/1",
            "/listeners/2/name",
            "/listeners/2/address",
            "/listeners/2/service",
            "/listeners/2/check",
            "/listeners/3/listener",
            "/listeners/3/backends/0/address",
            "/listeners/3/backends/2/address",
            "/listeners/3/backends/3/address",
            "/listeners/3/trust/0",
            "/listeners/3/trust",
            "/listeners/3/check",
            "/listeners/4/listener",
            "/listeners/4/sni/0/hosts",
            "/listeners/4/sni/1/hosts/1",
            "/listeners/4/sni/1/hosts/2",
            "/listeners/4/sni/1",
            "/listeners/4/sni/2",
            "/listeners/4/trust",
            "/listeners/5/check/http/path",
            "/listeners/5/check/http/host",
            "/listeners/6/sni",
        ]
    );
}

#[test]
fn settings_of_the_other_mode_are_refused() {
    let tls = json!({"certificates": [{"cert": "/a", "key": "/b"}]});
    let tcp = mistakes(&with(&json!({
        "tls": tls, "protocols": ["http1"], "hosts": "any", "retry": {},
        "timeouts": {"answer": "1s", "websocket": "1s", "keep_alive": "1s", "send": "1s"},
        "limits": {"min_rate": "100B"},
    })));
    let places =
        |found: &[(String, String)]| found.iter().map(|(place, _)| place.clone()).collect::<Vec<_>>();
    let at = |keys: &[&str]| keys.iter().map(|key| format!("/listeners/0/{key}")).collect::<Vec<_>>();
    assert_eq!(
        places(&tcp),
        at(&[
            "tls",
            "protocols",
            "hosts",
            "retry",
            "timeouts/answer",
            "timeouts/websocket",
            "timeouts/keep_alive",
            "timeouts/send",
            "limits/min_rate",
        ])
    );
    let http = mistakes(&with(&json!({
        "mode": "http", "send_proxy_protocol": "v2", "limits": {"per_backend": 1}, "ejection": {"failures": 9},
        "slow_start": "1s", "hosts": "any", "protocols": [], "tls": {"certificates": [{"cert": "a", "key": "/b"}]},
    })));
    let keys = ["send_proxy_protocol", "limits/per_backend", "ejection", "slow_start", "hosts", "protocols"];
    assert_eq!(places(&http), [at(&keys), at(&["tls/certificates/0/cert"])].concat());
    let sni = json!([{"hosts": ["a"], "backends": [{"address": "a:1"}]}]);
    let sni = mistakes(&with(&json!({"mode": "http", "backends": null, "sni": sni})));
    assert_eq!(places(&sni), at(&["sni"]));
}

#[test]
fn in_http_mode_a_service_without_a_listener_is_its_api() {
    let of = |more: Value| {
        let mut settings = json!({"mode": "http", "backends": null});
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        with(&settings)
    };
    let listener = planned(&of(json!({"service": "storage", "trust": ["10.0.0.1"]}))).listeners.remove(0);
    let http = listener.http.unwrap();
    assert_eq!(http.service.unwrap().0.as_str(), "storage");
    assert!(listener.targets.is_empty() && http.http1 && http.http2 && http.trust.len() == 1);
    assert_eq!([http.limits.idle, http.keep_alive, http.send_timeout], [Duration::from_secs(60); 3]);
    assert_eq!(http.limits.min_rate, MinRate::default());
    let limits = json!({"service": "storage", "limits": {"min_rate": "100B"}, "timeouts": {"keep_alive": "5s", "send": "6s"}});
    let http = planned(&of(limits)).listeners.remove(0).http.unwrap();
    assert_eq!([http.keep_alive, http.send_timeout].map(|time| time.as_secs()), [5, 6]);
    assert_eq!(http.limits.min_rate, MinRate::new(100));
    let listener = planned(&of(json!({"service": "api-gateway", "listener": "web"}))).listeners.remove(0);
    assert!(listener.http.unwrap().service.is_none() && listener.targets.len() == 1);
    for (more, place) in [
        (json!({"service": "api_gateway"}), "/listeners/0/service"),
        (json!({"service": "a b"}), "/listeners/0/service"),
        (json!({"service": "storage", "check": {"tcp": {}}}), "/listeners/0/check"),
        (json!({"service": "storage", "backends": [{"address": "a:1"}]}), "/listeners/0"),
    ] {
        let found = mistakes(&of(more.clone()));
        assert_eq!(found[0].0, place, "{more}: {found:?}");
    }
    for (service, hint) in [
        ("api-gateway", "write `listener: gateway`"),
        ("load_balancer", "write the name of one of its listeners"),
    ] {
        let error =
            plugin::check_settings(&of(json!({"service": service})), check).expect_err("it is a proxy");
        let found = error.mistakes[0].hint.as_deref();
        assert!(found.is_some_and(|found| found.starts_with(hint)), "{service}: {found:?}");
    }
}

#[test]
fn what_the_form_does_not_allow_is_refused() {
    for (more, place) in [
        (json!({"mode": "udp"}), "/listeners/0/mode"),
        (json!({"balance": "random"}), "/listeners/0/balance"),
        (json!({"send_proxy_protocol": true}), "/listeners/0/send_proxy_protocol"),
        (json!({"limits": {"connections": 0}}), "/listeners/0/limits/connections"),
        (json!({"limits": {"most": 1}}), "/listeners/0/limits/most"),
        (json!({"timeouts": {"idle": "0s"}}), "/listeners/0/timeouts/idle"),
        (json!({"mode": "http", "timeouts": {"keep_alive": "0s"}}), "/listeners/0/timeouts/keep_alive"),
        (json!({"mode": "http", "timeouts": {"send": "soon"}}), "/listeners/0/timeouts/send"),
        (json!({"mode": "http", "limits": {"min_rate": "fast"}}), "/listeners/0/limits/min_rate"),
        (json!({"backends": [{"address": "a:1", "weight": 0}]}), "/listeners/0/backends/0/weight"),
        (json!({"backends": [{"weight": 1}]}), "/listeners/0/backends/0"),
        (json!({"check": {"tcp": {"x": 1}}}), "/listeners/0/check/tcp/x"),
        (json!({"check": {"http": {"status": [99]}}}), "/listeners/0/check/http/status/0"),
        (json!({"ejection": {"failures": 0}}), "/listeners/0/ejection/failures"),
        (json!({"ejection": {"success": "0%"}}), "/listeners/0/ejection/success"),
        (json!({"ejection": {"most": 50}}), "/listeners/0/ejection/most"),
        (json!({"mode": "http", "retry": {"on": ["never"]}}), "/listeners/0/retry/on/0"),
        (json!({"mode": "http", "retry": {"codes": [200]}}), "/listeners/0/retry/codes/0"),
        (json!({"name": null}), "/listeners/0"),
        (json!({"name": "a-name-that-is-too-long"}), "/listeners/0/name"),
        (json!({"trust": ["10.0.0.1"]}), "/listeners/0/trust"),
    ] {
        let found = mistakes(&with(&more));
        assert_eq!(found[0].0, place, "{more}: {found:?}");
    }
    let default = &planned(&json!({})).listeners[0];
    assert_eq!((default.name.as_str(), default.address.to_string()), ("front", "127.0.0.1:0".to_owned()));
    assert_eq!(mistakes(&json!({"listeners": []}))[0].0, "/listeners");
    let one = |at: usize| json!({"name": format!("l{at}"), "address": "127.0.0.1:0", "service": "s"});
    let many = |count| json!({ "listeners": (0..count).map(one).collect::<Vec<_>>() });
    assert_eq!(planned(&many(16)).listeners.len(), 16);
    assert_eq!(mistakes(&many(17))[0].0, "/listeners");
}

#[test]
fn backends_with_tls_need_checks_that_work_and_a_file_of_use() {
    let https = json!([{"address": "https://shop.example"}, {"address": "h2c://10.0.0.1:50051"}]);
    let http = |more: Value| {
        let mut settings = json!({"mode": "http", "backends": https});
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        with(&settings)
    };
    let plan = planned(&http(json!({"ca": "/ca.pem", "check": {"tcp": {}}})));
    let Source::Backends(fixed) = &plan.listeners[0].targets[0].source else { panic!("they are fixed") };
    let tls = Protocol::Tls { host: "shop.example".to_owned(), ca: Some("/ca.pem".into()) };
    assert_eq!((&fixed[0].protocol, &fixed[1].protocol), (&tls, &Protocol::H2c));
    for (settings, pointer, message) in [
        (http(json!({"check": {"http": {}}})), "/listeners/0/check", "without TLS"),
        (http(json!({"check": {"grpc": {}}})), "/listeners/0/check", "without TLS"),
        (http(json!({"ca": "ca.pem"})), "/listeners/0/ca", "absolute"),
        (
            http(json!({"ca": "/ca.pem", "backends": [{"address": "h2c://a"}]})),
            "/listeners/0/ca",
            "no effect",
        ),
        (with(&json!({"ca": "/ca.pem"})), "/listeners/0/ca", "no effect"),
        (http(json!({"splice": true})), "/listeners/0/splice", "no effect"),
        (with(&json!({"backends": [{"address": "https://a"}]})), "/listeners/0/backends/0/address", "URL"),
    ] {
        let found = mistakes(&settings);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].0 == pointer && found[0].1.contains(message), "{found:?}");
    }
}

#[test]
fn a_file_of_certificates_may_be_relative_to_the_manifest() {
    let mut settings =
        with(&json!({"mode": "http", "backends": [{"address": "https://a"}], "ca": "tls/ca.pem"}));
    plugin::Plugin::resolve_files(&crate::LoadBalancer, &mut settings, std::path::Path::new("/m"));
    assert_eq!(settings["listeners"][0]["ca"], "/m/tls/ca.pem");
    planned(&settings);
}

#[test]
fn a_version_of_the_proxy_protocol_that_is_none_is_refused_with_those_that_there_are() {
    for wrong in [json!(true), json!(2)] {
        let settings = with(&json!({ "send_proxy_protocol": wrong }));
        let error = plugin::Plugin::prepare(&crate::LoadBalancer, &settings).err().unwrap();
        let error = error.to_string();
        assert!(error.contains("v1") && error.contains("v2"), "{wrong}: {error}");
    }
}

#[test]
fn retries_in_http_mode_are_those_of_a_route() {
    let http =
        |retry: Value| with(&json!({"mode": "http", "backends": [{"address": "a:1"}], "retry": retry}));
    let planned = planned(&http(json!({"attempts": 2, "on": ["connect"], "codes": [502, 503]})));
    let retries = &planned.listeners[0].http.as_ref().unwrap().retries;
    assert_eq!((retries.attempts, retries.connect, retries.reset), (Some(2), true, false));
    assert_eq!(retries.codes, [502, 503]);
    for (retry, place) in [
        (json!({"codes": [502, 502]}), "/listeners/0/retry/codes/1"),
        (json!({"attempts": 1, "codes": [502]}), "/listeners/0/retry/codes"),
    ] {
        assert_eq!(mistakes(&http(retry))[0].0, place);
    }
}
