use serde_json::{Value, json};

use crate::settings::{Plan, Settings};

fn plan(settings: &Value) -> Plan {
    plugin::check_settings(settings, Settings::check).unwrap()
}

fn mistakes(settings: &Value) -> Vec<(String, String)> {
    let error = plugin::check_settings(settings, Settings::check).expect_err("these settings are wrong");
    assert!(error.mistakes.iter().all(|mistake| mistake.hint.is_some()), "{error:?}");
    error.mistakes.into_iter().map(|mistake| (mistake.pointer, mistake.message)).collect()
}

fn places(settings: &Value) -> Vec<String> {
    mistakes(settings).into_iter().map(|(place, _)| place).collect()
}

#[test]
fn listen_is_one_listener_with_the_settings_of_the_gateway() {
    let plan = plan(&json!({"listen": "127.0.0.1:8080", "trust": ["10.0.0.0/8"], "max_connections": 7,
                              "keep_alive": "5s"}));
    let [listener] = &plan.listeners[..] else { panic!("{plan:?}") };
    assert_eq!((&listener.name[..], listener.scheme()), ("gateway", "http"));
    assert_eq!(listener.address.to_string(), "127.0.0.1:8080");
    assert_eq!((listener.max_connections, listener.trust.len()), (7, 1));
    assert_eq!([listener.keep_alive, listener.send_timeout].map(|time| time.as_secs()), [5, 60]);
    let pointers = ["keep_alive", "send_timeout"].map(|key| listener.pointer(key));
    assert_eq!(pointers, ["/keep_alive", "/send_timeout"]);
    assert_eq!(listener.max_connections_per_client, None);
    assert!(listener.ready.is_none() && listener.http1 && listener.http2);
}

#[test]
fn a_listener_overrides_the_settings_of_the_gateway() {
    let plan = plan(&json!({
        "trust": ["10.0.0.0/8"],
        "max_connections": 7,
        "keep_alive": "5s",
        "send_timeout": "6s",
        "max_connections_per_client": 3,
        "listeners": [
            {"name": "plain", "address": "127.0.0.1:0"},
            {"name": "web-2", "address": "[::1]:8443", "trust": [], "max_connections": 9, "keep_alive": "7s", "send_timeout": "8s", "ready": "/ready",
             "max_connections_per_client": 5,
             "protocols": ["http1"], "tls": {"certificates": [{"cert": "/a.crt", "key": "/a.key"}]}},
        ],
    }));
    let [plain, web] = &plan.listeners[..] else { panic!("{plan:?}") };
    assert_eq!((plain.trust.len(), plain.max_connections, plain.scheme()), (1, 7, "http"));
    assert_eq!((web.trust.len(), web.max_connections, web.scheme()), (0, 9, "https"));
    let times = [plain, web].map(|one| (one.keep_alive.as_secs(), one.send_timeout.as_secs()));
    assert_eq!(times, [(5, 6), (7, 8)]);
    assert_eq!(
        (plain.pointer("keep_alive"), web.pointer("keep_alive")),
        ("/keep_alive".to_owned(), "/listeners/1/keep_alive".to_owned())
    );
    assert_eq!((plain.max_connections_per_client, web.max_connections_per_client), (Some(3), Some(5)));
    let places = [plain, web].map(|listener| listener.pointer("max_connections_per_client"));
    assert_eq!(places, ["/max_connections_per_client", "/listeners/1/max_connections_per_client"]);
    assert_eq!((web.http1, web.http2), (true, false));
    assert_eq!(web.ready.as_deref(), Some("/ready"));
    assert_eq!(web.certificates[0].cert.to_str(), Some("/a.crt"));
}

#[test]
fn clients_are_verified_by_a_ca_that_is_given() {
    let with = |more: Value| {
        let mut tls = json!({"certificates": [{"cert": "/a.crt", "key": "/a.key"}]});
        tls.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"listeners": [{"name": "web", "address": "127.0.0.1:0", "tls": tls}]})
    };
    for (more, is_required) in [
        (json!({}), None),
        (json!({"client_ca": "/ca.crt"}), Some(true)),
        (json!({"client_ca": "/ca.crt", "client_certificates": "required"}), Some(true)),
        (json!({"client_ca": "/ca.crt", "client_certificates": "optional"}), Some(false)),
    ] {
        let auth = plan(&with(more.clone())).listeners[0].client_auth.clone();
        let ca = auth.as_ref().map(|auth| auth.ca.to_str().unwrap());
        assert_eq!(ca, is_required.map(|_| "/ca.crt"), "{more}");
        assert_eq!(auth.map(|auth| auth.is_required), is_required, "{more}");
    }
    for (more, place) in [
        (json!({"client_certificates": "optional"}), "client_certificates"),
        (json!({"client_ca": "ca.crt"}), "client_ca"),
        (json!({"client_ca": ""}), "client_ca"),
        (json!({"client_ca": "/ca.crt", "client_certificates": "none"}), "client_certificates"),
    ] {
        assert_eq!(places(&with(more)), [format!("/listeners/0/tls/{place}")]);
    }
}

#[test]
fn all_mistakes_of_listeners_are_reported_each_with_its_place() {
    let found = places(&json!({
        "listen": "127.0.0.1:8080",
        "listeners": [
            {"name": "web", "address": "127.0.0.1:8080"},
            {"name": "web", "address": "127.0.0.1:8080"},
            {"name": "Web", "address": "localhost", "trust": ["x"], "ready": "ready", "protocols": []},
            {"name": "a-name-of-21-letters-", "address": "127.0.0.1:0", "ready": "/a?b"},
            {"name": "1", "address": "127.0.0.1:0", "tls": {"certificates": []}},
            {"name": "t", "address": "127.0.0.1:0", "tls": {"certificates": [{"cert": "a.crt", "key": ""}]}},
        ],
        "access_log": {"to": "access.log"},
    }));
    let expected = [
        "/access_log/to",
        "/listen",
        "/listeners/1/name",
        "/listeners/1/address",
        "/listeners/2/name",
        "/listeners/2/address",
        "/listeners/2/trust/0",
        "/listeners/2/ready",
        "/listeners/2/protocols",
        "/listeners/3/name",
        "/listeners/3/ready",
        "/listeners/4/name",
        "/listeners/4/tls/certificates",
        "/listeners/5/tls/certificates/0/cert",
        "/listeners/5/tls/certificates/0/key",
    ];
    assert_eq!(found, expected);
}

#[test]
fn unknown_keys_and_values_are_reported() {
    for (listener, place) in [
        (json!({"name": "a", "adress": "127.0.0.1:0"}), "/listeners/0/adress"),
        (json!({"name": "a", "address": "127.0.0.1:0", "protocols": ["http3"]}), "/listeners/0/protocols/0"),
        (
            json!({"name": "a", "address": "127.0.0.1:0", "max_connections": 0}),
            "/listeners/0/max_connections",
        ),
        (json!({"name": "a", "address": "127.0.0.1:0", "keep_alive": "0s"}), "/listeners/0/keep_alive"),
        (json!({"name": "a", "address": "127.0.0.1:0", "send_timeout": 5}), "/listeners/0/send_timeout"),
        (
            json!({"name": "a", "address": "127.0.0.1:0", "max_connections_per_client": "many"}),
            "/listeners/0/max_connections_per_client",
        ),
        (json!({"name": "a", "address": "127.0.0.1:0", "tls": {}}), "/listeners/0/tls"),
        (
            json!({"name": "a", "address": "127.0.0.1:0", "tls": {"certificates": [{"cert": "/a"}]}}),
            "/listeners/0/tls/certificates/0",
        ),
    ] {
        let error = plugin::check_settings(&json!({"listeners": [listener]}), Settings::check).unwrap_err();
        assert_eq!(error.mistakes[0].pointer, place, "{error:?}");
    }
    let log = json!({"access_log": {"to": "stdout", "format": "xml", "query": "maybe"}});
    let error = plugin::check_settings(&log, Settings::check).unwrap_err();
    assert_eq!(error.mistakes.len(), 2, "{error:?}");
}

#[test]
fn listeners_do_not_fill_the_gossip() {
    let listeners = |count: usize, name: &str, address: &str| -> Value {
        let one = |at| json!({"name": format!("{name}{at:02}"), "address": address});
        json!({"listeners": (0..count).map(one).collect::<Vec<_>>()})
    };
    assert_eq!(plan(&listeners(16, "a-long-long-name-", "255.255.255.255:0")).listeners.len(), 16);
    let address = "[1111:2222:3333:4444:5555:6666:7777:8888]:0";
    assert_eq!(plan(&listeners(12, "a-long-long-name-", address)).listeners.len(), 12);
    assert_eq!(places(&listeners(16, "a-long-long-name-", address)), ["/listeners"]);
    assert_eq!(places(&listeners(16, "a-long-long-name-", "[::]:0")), ["/listeners"]);
    assert_eq!(places(&listeners(17, "a", "127.0.0.1:0")), ["/listeners"]);
}
