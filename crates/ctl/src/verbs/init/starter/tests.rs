use serde_json::json;

use super::*;

fn shown(name: &str, sharded: bool, schema: Value) -> Shown {
    let about = format!("does what {name} does");
    Shown { name: name.parse().unwrap(), about, sharded, replicated: sharded, schema }
}

fn gateway() -> Shown {
    let schema = json!({ "properties": {
        "listen": { "default": "127.0.0.1:0", "description": "Where it listens. Port 0\nis any." },
        "routes": { "default": [], "description": "Where requests go." },
        "wait": { "default": "10s" },
    }});
    shown(GATEWAY, false, schema)
}

fn storage() -> Shown {
    let schema = json!({ "properties": {
        "cache": { "type": ["integer", "null"], "default": null, "description": "Memory." },
        "level": { "default": "on" },
        "max_value": { "default": 8_388_608 },
    }});
    shown("storage", true, schema)
}

fn check(text: &str) -> manifest::Manifest {
    let checked = manifest::parse("coterie.yaml", text, &|_| None, None);
    checked.unwrap_or_else(|mistakes| panic!("{mistakes}\n{text}")).manifest
}

/// The text with all services and settings uncommented that have a value.
fn uncommented(text: &str) -> String {
    let is_line = |line: &str| {
        let text = line.trim_start_matches(['#', ' ']);
        let key = text.split(':').next().unwrap_or_default();
        let is_key = !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        is_key && (text.ends_with(':') || text.contains(": "))
    };
    let (head, rest) = text.split_once("services:\n").unwrap();
    let (services, nodes) = rest.split_once("\n\n# One agent each").unwrap();
    let lines =
        services.lines().map(|line| if is_line(line) { line.replacen("# ", "", 1) } else { line.to_owned() });
    format!("{head}services:\n{}\n\n# One agent each{nodes}", lines.collect::<Vec<_>>().join("\n"))
}

#[test]
fn every_type_is_shown_with_the_defaults_of_its_settings() {
    let text = manifest(&[gateway(), storage()], None);
    assert_eq!(check(&text).nodes.len(), 4);
    let shown = "\
services:
  api_gateway:
    settings:
      # A path prefix to one or more URLs: `python3 -m http.server 8000` is then seen under GATEWAY/files/,
      # where GATEWAY is the address that `ctl members` shows under ENDPOINTS.
      routes:
        - prefix: /files
          to: [http://127.0.0.1:8000]
      # Where it listens.
      # listen: 127.0.0.1:0
      # wait: 10s

  # does what storage does
  # storage:
  #   shards: 2
  #   replicas: 1
  #   settings:
  #     # Memory.
  #     # cache:
  #     level: \"on\"
  #     max_value: 8388608
";
    assert!(text.contains(shown), "{text}");
}

#[test]
fn the_cluster_has_the_name_that_was_given() {
    for name in ["shop", "on", "7"] {
        let cluster = name.parse().unwrap();
        assert_eq!(check(&manifest(&[gateway()], Some(&cluster))).cluster, cluster);
    }
}

#[test]
fn what_is_uncommented_is_right_as_well() {
    let text = uncommented(&manifest(&[gateway(), storage()], None));
    let storage = &check(&text).services[&"storage".parse().unwrap()];
    assert_eq!(storage.settings, json!({ "level": "on", "max_value": 8_388_608 }), "{text}");
}

#[test]
fn an_agent_of_other_types_gets_a_manifest_that_it_can_run() {
    let strict = || shown("strict", false, json!({ "required": ["to"], "properties": { "to": {} } }));
    for (types, nodes) in [
        (vec![storage()], vec!["storage/0", "standby", "standby", "standby"]),
        (vec![shown("echo", false, json!({}))], vec!["echo", "standby", "standby", "standby"]),
        (vec![strict(), storage()], vec!["storage/0", "standby", "standby", "standby"]),
        (vec![strict()], vec!["standby", "standby", "standby"]),
        (vec![], vec!["standby", "standby", "standby"]),
    ] {
        let text = manifest(&types, None);
        let roles: Vec<_> = check(&text).nodes.iter().map(|node| node.role.to_string()).collect();
        assert_eq!(roles, nodes, "{text}");
        assert!(types.iter().all(|shown| text.contains(&format!("{}:", shown.name))), "{text}");
    }
}

#[test]
fn a_schema_that_is_strange_breaks_no_line() {
    for schema in [
        json!(null),
        json!({ "properties": { "a\nb: c": { "default": "x\ny", "description": "one\u{2028}two\nthree" } } }),
        json!({ "properties": { "key": { "default": { "a": ["${HOME}", "#", null] } } } }),
        json!({ "properties": { "key": { "default": "0x10" } }, "required": "no list" }),
    ] {
        for types in [vec![shown("odd", true, schema.clone())], vec![gateway(), shown("odd", true, schema)]] {
            check(&manifest(&types, None));
        }
    }
}

#[test]
fn text_stays_text() {
    for (text, expected) in [
        ("any", "any"),
        ("10s", "10s"),
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("on", r#""on""#),
        ("10", r#""10""#),
        ("1e3", r#""1e3""#),
        ("0x1f", r#""0x1f""#),
        ("", r#""""#),
        ("a: b", r#""a: b""#),
        ("[::1]:80", r#""[::1]:80""#),
    ] {
        assert_eq!(scalar(text), expected);
    }
}
