//! Broken manifests, each with its expected mistakes in a file beside it. `UPDATE_GOLDEN=1` rewrites those files: review
//! them as a user who made the mistake.

use std::fs;
use std::path::{Path, PathBuf};

use manifest::{Known, KnownType, parse};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken")
}

fn known() -> Known {
    let types = [("api_gateway", false), ("load_balancer", false), ("searcher", true), ("storage", true)];
    let service_types = types.map(|(name, is_sharded)| KnownType {
        name: name.parse().expect("a service type"),
        is_sharded,
        is_owned: is_sharded,
        is_replicated: is_sharded,
    });
    Known { service_types: service_types.into() }
}

fn variables(name: &str) -> Option<String> {
    (name == "PORT").then(|| "8080".to_owned())
}

#[test]
fn every_broken_manifest_is_reported_like_a_good_compiler_does() {
    let is_update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut names: Vec<PathBuf> =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    names.sort();
    assert!(names.len() >= 20, "{} broken manifests", names.len());
    let mut different = Vec::new();
    for path in names {
        let name = path.file_name().unwrap().to_str().unwrap();
        let source = fs::read_to_string(&path).unwrap();
        let Err(mistakes) = parse(name, &source, &variables, Some(&known())) else {
            panic!("{name} is not broken");
        };
        let answer = format!("{mistakes}\n");
        let golden = path.with_extension("txt");
        if is_update {
            fs::write(&golden, &answer).unwrap();
        }
        if fs::read_to_string(&golden).unwrap_or_default() != answer {
            different.push(format!("{name} is now answered with\n{answer}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}
