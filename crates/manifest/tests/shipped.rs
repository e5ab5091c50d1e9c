//! The manifests in the repository, and the guarantees of a checked manifest.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use manifest::{Checked, Known, KnownType, Node, Value, parse, yaml};
use types::Profile;

fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests").join(name);
    fs::read_to_string(path).expect("the manifest is in the repository")
}

fn known() -> Known {
    let types = [("api_gateway", false), ("load_balancer", false), ("searcher", true), ("storage", true)];
    Known {
        service_types: types
            .map(|(name, is_sharded)| KnownType {
                name: name.parse().expect("a service type"),
                is_sharded,
                is_owned: is_sharded,
                is_replicated: is_sharded,
            })
            .into(),
    }
}

fn checked(source: &str) -> Checked {
    parse("test.yaml", source, &|_| None, Some(&known())).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// The nodes in a line: `a=standby b=searcher/0`.
fn nodes(checked: &Checked) -> String {
    let nodes = checked.manifest.nodes.iter();
    nodes.map(|node| format!("{}={}", node.id, node.role)).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_demo_has_a_gateway_two_shards_of_storage_and_two_standbys() {
    let demo = checked(&shipped("demo.yaml"));
    assert_eq!(demo.manifest.cluster.as_str(), "demo");
    assert_eq!(demo.manifest.profile, Profile::Local);
    assert_eq!(
        nodes(&demo),
        "gateway=api_gateway storage-1=storage/0 storage-2=storage/1 standby-1=standby standby-2=standby"
    );
    let storage = &demo.manifest.services[&"storage".parse().unwrap()];
    assert_eq!(storage.shards, Some(2));
}

#[test]
fn the_storage_example_has_two_shards_with_a_replica_each_and_two_standbys() {
    let storage = checked(&shipped("storage.yaml"));
    assert_eq!(
        nodes(&storage),
        "gateway=api_gateway storage-1=storage/0 storage-2=storage/1 storage-3=storage/0 storage-4=storage/1 \
         standby-1=standby standby-2=standby"
    );
    let spec = &storage.manifest.services[&"storage".parse().unwrap()];
    assert_eq!((spec.shards, spec.replicas), (Some(2), 1));
}

#[test]
fn the_example_of_names_has_two_stores_two_gateways_and_two_standbys() {
    let named = checked(&shipped("named.yaml"));
    assert_eq!(
        nodes(&named),
        "edge=edge internal=internal sessions-1=sessions/0 sessions-2=sessions/1 users-1=users/0 users-2=users/0 \
         spare=standby spare-sessions=standby"
    );
    let types = ["sessions", "users", "edge", "internal"]
        .map(|name| named.manifest.type_of(&name.parse().unwrap()).unwrap().to_string());
    assert_eq!(types, ["storage", "storage", "api_gateway", "api_gateway"]);
    assert_eq!(named.manifest.nodes[7].runs, Some(vec!["sessions".parse().unwrap()]));
}

#[test]
fn the_front_door_has_a_balancer_two_gateways_and_two_shards_with_replicas() {
    assert_eq!(
        nodes(&checked(&shipped("front-door.yaml"))),
        "balancer=load_balancer gateway-1=api_gateway gateway-2=api_gateway storage-1=storage/0 \
         storage-2=storage/1 storage-3=storage/0 storage-4=storage/1 standby=standby"
    );
}

#[test]
fn the_example_in_the_demo_is_yaml_once_it_is_uncommented() {
    let source = shipped("demo.yaml");
    let (before, example) = source.split_once("      # routes:").unwrap();
    let (example, after) = example.split_once("\n\n").unwrap();
    let example = example.replace("      # ", "      ");
    let demo = checked(&format!("{before}      routes:{example}\n\n{after}"));
    let settings = &demo.manifest.services[&"api_gateway".parse().unwrap()].settings;
    assert_eq!(
        *settings,
        serde_json::json!({
            "listen": "127.0.0.1:0",
            "routes": [{"prefix": "/files", "to": ["http://127.0.0.1:8000"]}]
        })
    );
}

#[test]
fn the_single_node_is_a_gateway() {
    assert_eq!(nodes(&checked(&shipped("single.yaml"))), "gateway-1=api_gateway");
}

#[test]
fn the_shipped_manifests_have_only_keys_that_the_schema_describes() {
    let schema = manifest::json_schema(&std::collections::BTreeMap::new());
    let described = |object: &serde_json::Value, node: &Node| {
        for (key, _) in node.entries() {
            assert!(object["properties"].get(&key.text).is_some(), "`{}` is not in the schema", key.text);
        }
    };
    for name in ["demo.yaml", "single.yaml", "storage.yaml", "named.yaml", "front-door.yaml"] {
        let tree = yaml::parse_tree(&shipped(name)).unwrap().0;
        described(&schema, &tree);
        for node in tree.get("nodes").unwrap().items() {
            described(&schema["$defs"]["Node"], node);
        }
        for (_, service) in tree.get("services").map(Node::entries).unwrap_or_default() {
            described(&schema["$defs"]["Service"], service);
        }
    }
}

#[test]
fn a_manifest_written_as_yaml_is_the_same_manifest() {
    let source = "
cluster: demo
profile: wan
services:
  sessions: { type: storage, shards: 2 }
  api_gateway: { settings: { idle: 30s, port: 80, odd: 'true', empty: {}, text: \"a: b\\n# c\" } }
nodes:
  - { service: searcher, listen: '127.0.0.1:80', gossip: '[::1]:0', labels: { zone: '1' } }
  - { service: standby, count: 2, runs: [sessions] }
  - { service: standby, runs: [] }
";
    let manifest = checked(source).manifest;
    let written = yaml::to_yaml(&manifest).unwrap();
    assert_eq!(checked(&written).manifest, manifest, "{written}");
}

#[test]
fn nodes_without_an_id_are_named_after_their_service_and_leave_given_ids_alone() {
    let source = "
cluster: demo
nodes:
  - service: api_gateway
  - { service: standby, count: 2 }
  - { id: standby-1, service: standby }
  - service: standby
  - { id: spare, service: standby, count: 1 }
";
    assert_eq!(
        nodes(&checked(source)),
        "api-gateway-1=api_gateway standby-2=standby standby-3=standby standby-1=standby standby-4=standby \
         spare-1=standby"
    );
}

#[test]
fn the_default_shard_is_0_for_sharded_types_and_none_for_others() {
    let source = "{ cluster: demo, nodes: [{ service: searcher }, { service: searcher, shard: 3 }, { service: api-gateway }] }";
    let expected = "searcher-1=searcher/0 searcher-2=searcher/3 api-gateway-1=api_gateway";
    assert_eq!(nodes(&checked(source)), expected);
}

#[test]
fn without_known_types_any_service_type_is_accepted() {
    let source = "{ cluster: demo, nodes: [{ service: anything, shard: 2 }, { service: other }] }";
    let checked = parse("test.yaml", source, &|_| None, None).unwrap();
    assert_eq!(nodes(&checked), "anything-1=anything/2 other-1=other");
}

#[test]
fn every_value_may_contain_variables() {
    let source = "
cluster: ${CLUSTER:-demo}
insecure: ${OPEN:-true}
services: { api_gateway: { settings: { limit: '${LIMIT}', price: $$5 } } }
nodes:
  - service: standby
    count: ${COUNT}
    labels: { zone: \"${COUNT}\" }
  - service: searcher
    shard: ${COUNT}
    listen: 127.0.0.1:${PORT:-8080}
";
    let variables = |name: &str| match name {
        "COUNT" => Some("2".to_owned()),
        "LIMIT" => Some("10".to_owned()),
        _ => None,
    };
    let checked = parse("test.yaml", source, &variables, Some(&known())).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(nodes(&checked), "standby-1=standby standby-2=standby searcher-1=searcher/2");
    assert!(checked.manifest.insecure);
    assert_eq!(checked.manifest.nodes[0].labels["zone"], "2");
    assert_eq!(checked.manifest.nodes[2].listen, Some("127.0.0.1:8080".parse().unwrap()));
    let settings = &checked.manifest.services[&"api_gateway".parse().unwrap()].settings;
    assert_eq!(*settings, serde_json::json!({"limit": "10", "price": "$5"}));
}

#[test]
fn anchors_aliases_and_merge_keys_work() {
    let source = "
cluster: demo
nodes:
  - &base
    id: a
    service: standby
    labels: &labels { zone: north }
  - <<: *base
    id: b
  - { id: c, service: searcher, labels: *labels }
";
    let checked = checked(source);
    assert_eq!(nodes(&checked), "a=standby b=standby c=searcher/0");
    assert!(checked.manifest.nodes.iter().all(|node| node.labels["zone"] == "north"));
}

#[test]
fn a_setting_is_found_by_its_json_pointer() {
    let source = "cluster: demo
services:
  api_gateway:
    settings:
      idle: 30s
      routes:
        - prefix: /files
          a/b: [1, 2]
  searcher:
nodes: [{ id: a, service: standby }]
";
    let checked = checked(source);
    let gateway = "api_gateway".parse().unwrap();
    for (pointer, expected) in [
        ("/idle", (5, 13)),
        ("/routes", (6, 7)),
        ("/routes/0", (7, 11)),
        ("/routes/0/prefix", (7, 19)),
        ("/routes/0/a~1b", (8, 11)),
        ("/routes/0/a~1b/1", (8, 20)),
        ("/routes/0/missing", (7, 11)),
        ("/routes/9/prefix", (6, 7)),
        ("/routes/x", (6, 7)),
        ("/idle/deeper", (5, 13)),
        ("", (5, 7)),
        ("/missing", (5, 7)),
    ] {
        let at = checked.settings_position(&gateway, pointer);
        assert_eq!((at.line, at.column), expected, "{pointer}");
    }
    assert_eq!(checked.settings_position(&"searcher".parse().unwrap(), "/x").line, 9);
    assert_eq!(checked.settings_position(&"analytics".parse().unwrap(), "/x").line, 1);
    let at = checked.node_position(&"a".parse().unwrap());
    assert_eq!((at.line, at.column), (10, 15));
}

#[test]
fn a_config_that_is_not_a_manifest_is_read_as_a_tree() {
    let tree = manifest::read_tree("agent.yaml", "listen: ${L:-x}\nn: 3\nyes: yes\n", &|_| None).unwrap();
    assert_eq!(tree.get("listen").and_then(Node::as_str), Some("x"));
    assert_eq!(tree.get("n").and_then(Node::as_u64), Some(3));
    assert_eq!(tree.get("yes").map(|node| &node.value), Some(&Value::String("yes".to_owned())));
    assert!(tree.get("other").is_none());
    let mistakes = manifest::read_tree("agent.yaml", "a: 1\na: ${B}\n", &|_| None).unwrap_err();
    assert_eq!(mistakes.list().len(), 2, "{mistakes}");
}

#[test]
fn ids_stay_unique_when_counts_and_names_overlap() {
    let source = "
cluster: demo
nodes:
  - { id: a, service: standby, count: 3 }
  - { id: a-1-1, service: standby }
  - { service: searcher, count: 50 }
  - { id: searcher-7, service: standby }
";
    let manifest = checked(source).manifest;
    let ids: BTreeSet<_> = manifest.nodes.iter().map(|node| &node.id).collect();
    assert_eq!(ids.len(), manifest.nodes.len());
    assert_eq!(ids.len(), 55);
}

#[test]
fn line_ends_and_byte_order_marks_of_other_systems_change_nothing() {
    let source = shipped("demo.yaml");
    let windows = source.replace('\n', "\r\n");
    assert_eq!(checked(&windows).manifest, checked(&source).manifest);
    assert_eq!(checked(&format!("\u{feff}{source}")).manifest, checked(&source).manifest);
    let broken = windows.replace("profile", "profil");
    let mistakes = parse("test.yaml", &broken, &|_| None, None).unwrap_err();
    let (line, _) = (1..).zip(source.lines()).find(|(_, line)| line.starts_with("profile")).unwrap();
    let at = mistakes.list()[0].at;
    assert_eq!((at.line, at.column, at.len), (line, 1, 6), "{mistakes}");
    assert!(!mistakes.to_string().contains('\r'), "{mistakes}");
}

#[test]
fn a_restart_policy_is_one_of_three_words_and_needs_no_quotes() {
    let manifest = |source: &str| parse("c.yaml", source, &|_| None, None);
    let policy = |text: &str| {
        let source = format!("cluster: c\nnodes:\n  - {{ service: standby, restart: {text} }}\n");
        manifest(&source).map(|checked| checked.manifest.nodes[0].restart)
    };
    for text in ["on-failure", "always", "no", "'no'"] {
        assert_eq!(policy(text).unwrap().as_str(), text.trim_matches('\''), "{text}");
    }
    let default = manifest("cluster: c\nnodes: [{ service: standby }]\n");
    assert_eq!(default.unwrap().manifest.nodes[0].restart.as_str(), "on-failure");
    for text in ["alway", "false", "[no]", "3"] {
        let mistakes = policy(text).unwrap_err().to_string();
        assert!(mistakes.contains("c.yaml:3:") && mistakes.contains("on-failure, always, no"), "{mistakes}");
    }
}
