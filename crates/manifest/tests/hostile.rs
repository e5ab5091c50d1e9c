//! Any text results in a manifest or mistakes: no panic, no overflow, no unbounded growth.

use std::collections::BTreeSet;

use manifest::{Mistakes, parse, yaml};
use proptest::prelude::*;

const DEMO: &str = include_str!("../../../manifests/demo.yaml");

/// Reads the text as a manifest and uses everything in the result.
fn read(source: &str) -> Result<usize, Mistakes> {
    let variables = |name: &str| (name.len() == 1).then(|| name.to_owned());
    match parse("test.yaml", source, &variables, None) {
        Ok(checked) => {
            let ids: BTreeSet<_> = checked.manifest.nodes.iter().map(|node| &node.id).collect();
            assert_eq!(ids.len(), checked.manifest.nodes.len(), "ids are unique");
            assert!((1..=100).contains(&ids.len()));
            let written = yaml::to_yaml(&checked.manifest).expect("a manifest has a form in YAML");
            assert!(
                parse("written.yaml", &written.replace('$', "$$"), &variables, None).is_ok(),
                "{written}"
            );
            Ok(ids.len())
        }
        Err(mistakes) => {
            assert!(!mistakes.list().is_empty());
            assert!(mistakes.to_string().contains("test.yaml:"));
            serde_json::to_string(&mistakes).expect("mistakes have a form in JSON");
            Err(mistakes)
        }
    }
}

fn first_message(source: &str) -> String {
    read(source).expect_err("the text is broken").list()[0].message.clone()
}

/// Pieces of manifests, in any order.
fn manifest_like() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "cluster: ",
        "nodes:",
        "services:",
        "profile: ",
        "lan",
        "- ",
        "id: ",
        "service: ",
        "standby",
        "count: ",
        "listen: ",
        "gossip: ",
        "labels: ",
        "settings: ",
        "shard: ",
        "\n",
        "\n  ",
        "\n    ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        ": ",
        "a",
        "b",
        "${A}",
        "${NONE}",
        "${",
        "}",
        "$$",
        ":-",
        "1",
        "0",
        "-1",
        "1e9",
        "\"",
        "'",
        "&x ",
        "*x",
        "<<: ",
        "!!str ",
        "|\n",
        ">",
        "#",
        "---\n",
        "~",
        "true",
        "127.0.0.1:80",
        "\t",
        "日",
        "\u{0}",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

/// Manifests that are mostly correct, so that ids collide.
fn nearly_correct() -> impl Strategy<Value = String> {
    let id = prop::option::of(prop::sample::select(vec!["a", "a-1", "standby", "standby-1", "standby-2"]));
    let count = prop::option::of(0_u32..5);
    let node = (id, count).prop_map(|(id, count)| {
        let id = id.map_or(String::new(), |id| format!("id: {id}, "));
        let count = count.map_or(String::new(), |count| format!("count: {count}, "));
        format!("  - {{ {id}{count}service: standby }}\n")
    });
    prop::collection::vec(node, 1..6).prop_map(|nodes| format!("cluster: demo\nnodes:\n{}", nodes.concat()))
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(source in ".{0,200}") {
        let _ = read(&source);
    }

    #[test]
    fn text_made_of_the_pieces_of_manifests_never_panics(source in manifest_like()) {
        let _ = read(&source);
    }

    #[test]
    fn the_ids_of_a_checked_manifest_are_unique(source in nearly_correct()) {
        let _ = read(&source);
    }

    #[test]
    fn a_demo_that_is_cut_short_never_panics(length in 0..DEMO.len()) {
        let _ = read(&String::from_utf8_lossy(&DEMO.as_bytes()[..length]));
    }

    #[test]
    fn a_demo_with_other_bytes_in_it_never_panics(
        changes in prop::collection::vec((0..DEMO.len(), any::<u8>()), 1..8)
    ) {
        let mut bytes = DEMO.as_bytes().to_vec();
        for (index, byte) in changes {
            bytes[index] = byte;
        }
        let _ = read(&String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn text_that_is_nested_too_deep_is_refused_in_every_style() {
    let too_large = "the file is too large or too deep";
    assert_eq!(first_message(&"[".repeat(500_000)), too_large);
    assert_eq!(first_message(&"{a: ".repeat(100_000)), too_large);
    assert_eq!(first_message(&"- ".repeat(400_000)), too_large);
    assert_eq!(first_message(&"? ".repeat(400_000)), too_large);
    let block: String = (0..1_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert_eq!(first_message(&block), too_large);
    let chain: String = (1..3_000).map(|n| format!("a{n}: &a{n} [*a{}]\n", n - 1)).collect();
    assert_eq!(first_message(&format!("a0: &a0 [x]\n{chain}")), too_large);
}

#[test]
fn text_that_is_too_large_is_refused() {
    let too_large = "the file is too large or too deep";
    assert_eq!(first_message(&"- a\n".repeat(200_000)), too_large);
    assert!(first_message(&"a".repeat(yaml::MAX_LEN + 1)).contains("bytes"));
    let lines = format!("a: &a [{}]\nb:\n{}", "x, ".repeat(100), "- *a\n".repeat(100));
    assert_eq!(first_message(&lines), too_large);
}

#[test]
fn many_mistakes_are_reported_in_reasonable_time() {
    let started = std::time::Instant::now();
    let keys: String = (0..20_000).map(|n| format!("key{n}: ${{NONE}}\n")).collect();
    assert!(read(&keys).unwrap_err().list().len() >= 20_000);
    let nodes: String =
        (0..5_000).map(|n| format!("- {{ service: standby, listen: '127.0.0.1:{}' }}\n", n + 1)).collect();
    assert!(read(&format!("cluster: a\nnodes:\n{nodes}")).is_err());
    let one_line = format!("a: \"{}\"", "${NONE}".repeat(50_000));
    assert!(read(&one_line).is_err());
    assert!(started.elapsed().as_secs() < 30, "{:?}", started.elapsed());
}
