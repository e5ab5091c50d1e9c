//! Checks that the crates depend on one another as designed, and that heavy dependencies stay within the allowed
//! crates.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// From the lowest up: a crate uses only those before it in this list.
const ORDER: [&str; 10] =
    ["types", "manifest", "store", "cluster", "mesh", "plugin", "runtime", "client", "agent", "ctl"];
/// Crates that may use all others: end-to-end tests, and the benchmarks that use their sandbox.
const ON_TOP: [&str; 2] = ["e2e", "bench"];
/// A heavy dependency, and the crates that may name it.
const ALLOWED: [(&str, &[&str]); 9] = [
    ("chitchat", &["cluster"]),
    ("object_store", &["store"]),
    ("slatedb", &["storage"]),
    ("tantivy", &["searcher", "bench"]),
    // The store names it to enable a feature that object_store needs.
    ("reqwest", &["client", "bench", "e2e", "store"]),
    ("serde-saphyr", &["manifest"]),
    ("comfy-table", &["ctl", "bench"]),
    ("clap", &["agent", "ctl", "bench"]),
    ("tracing-subscriber", &["agent", "bench"]),
];

/// The dependencies of each crate of the workspace, without dev-dependencies.
fn edges() -> (BTreeMap<String, BTreeSet<String>>, BTreeSet<String>) {
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo describes this workspace");
    let mut services = BTreeSet::new();
    let mut edges = BTreeMap::new();
    for package in metadata.workspace_packages() {
        let name = package.name.to_string();
        if package.manifest_path.components().any(|part| part.as_str() == "services") {
            services.insert(name.clone());
        }
        let normal =
            package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal);
        edges.insert(name, normal.map(|dependency| dependency.name.clone()).collect());
    }
    (edges, services)
}

#[test]
fn a_crate_uses_only_those_before_it() {
    let (edges, services) = edges();
    let own: BTreeSet<_> = edges.keys().cloned().collect();
    let rank = |name: &str| ORDER.iter().position(|known| *known == name);
    for (name, dependencies) in &edges {
        for dependency in dependencies.intersection(&own) {
            let is_allowed = if ON_TOP.contains(&name.as_str()) {
                dependency != "bench"
            } else if services.contains(name) {
                rank(dependency).is_some_and(|rank| rank <= 5)
            } else if services.contains(dependency) {
                name == "agent"
            } else {
                matches!((rank(name), rank(dependency)), (Some(name), Some(dependency)) if dependency < name)
            };
            assert!(is_allowed, "{name} must not depend on {dependency}");
        }
        let is_known = rank(name).is_some() || services.contains(name) || ON_TOP.contains(&name.as_str());
        assert!(is_known, "{name} has no place in the order");
    }
    for forbidden in ["runtime", "plugin", "cluster", "store"].iter().map(ToString::to_string).chain(services)
    {
        assert!(!edges["ctl"].contains(&forbidden), "ctl must not link {forbidden}");
    }
}

#[test]
fn heavy_dependencies_stay_within_allowed_crates() {
    let (edges, _) = edges();
    for (heavy, allowed) in ALLOWED {
        for (name, dependencies) in &edges {
            let is_named = dependencies.contains(heavy);
            assert!(!is_named || allowed.contains(&name.as_str()), "{name} must not name {heavy}");
        }
    }
}
