//! Where a cluster differs from its manifest. An operator may have wanted it, so none of this is a warning.

use std::collections::BTreeSet;
use std::path::Path;

use manifest::Manifest;
use serde_json::Value;
use types::api::{Member, Specs};
use types::{PendingSpec, Phase, Spec};

use crate::dropped;
use crate::manifest_file;
use crate::record::ClusterRecord;
use crate::render;
use crate::spec_diff;

/// A value for every variable. A setting that it changes contains a variable.
const PROBE: &str = "1";

/// Nodes that run with an older spec than the store has.
pub(super) fn old_specs(members: &[Member], specs: &Specs) -> Vec<String> {
    let old = members.iter().filter_map(|member| {
        let state = member.state.as_ref().filter(|state| state.phase != Phase::Stopped)?;
        let service = state.role.service()?;
        let latest = specs.specs.get(service)?.number;
        let runs_with = state.spec.filter(|number| *number != latest)?;
        let why = match state.pending.as_ref().filter(|pending| pending.spec == latest) {
            Some(PendingSpec { why: Some(why), .. }) => {
                format!("it can't be applied: {}", render::clean(why))
            }
            Some(pending) => {
                format!("{}; `ctl up --reset` restarts its role", render::clean(&pending.restart_in_words()))
            }
            None => {
                "it is applied as soon as the node has read it; `ctl up --reset` restarts its role with it"
                    .to_owned()
            }
        };
        Some(format!("{} runs with spec {runs_with} of {service}, the store has {latest}: {why}", member.id))
    });
    old.collect()
}

/// Differences between the manifest and the cluster: settings, nodes that were never started, nodes that are not in the
/// manifest. Only one line if the manifest can't be read.
pub(super) fn differences(record: &ClusterRecord, members: &[Member], specs: &Specs) -> Vec<String> {
    let name = record.manifest.display().to_string();
    let Ok(source) = std::fs::read_to_string(&record.manifest) else {
        return vec![format!("the manifest {name} cannot be read any more")];
    };
    let parsed = |variables: manifest::Variables<'_>| manifest::parse(&name, &source, variables, None);
    let set = |variable: &str| std::env::var(variable).ok();
    // A variable that was set for `ctl up` alone must not hide all other differences.
    let checked = parsed(&set).or_else(|_| parsed(&|variable| set(variable).or_else(probe)));
    let Ok(checked) = checked else {
        return vec![format!("the manifest {name} has mistakes now; `ctl validate {name}` shows them")];
    };
    // Variables may have been set when the cluster was started and not be set now, or vice versa.
    let probed = parsed(&|_| probe()).ok();
    let manifest = &checked.manifest;
    let folder = manifest_file::folder(&record.manifest).unwrap_or_default();
    let mut lines = settings(manifest, probed.as_ref().map(|checked| &checked.manifest), specs, &folder);
    let in_manifest: BTreeSet<_> = manifest.nodes.iter().map(|node| &node.id).collect();
    let recorded: BTreeSet<_> = record.nodes.iter().map(|node| &node.id).collect();
    for node in
        in_manifest.difference(&recorded).filter(|node| !members.iter().any(|member| member.id == ***node))
    {
        lines.push(format!("{node} is in the manifest and does not run; `ctl up` starts it"));
    }
    for member in members.iter().filter(|member| !in_manifest.contains(&member.id)) {
        lines.push(format!("{0} is not in the manifest; `ctl leave {0}` ends it", member.id));
    }
    lines.extend(dropped::dropped(manifest, specs).iter().map(dropped::in_words));
    lines
}

#[expect(clippy::unnecessary_wraps, reason = "the form of a variable that is set")]
fn probe() -> Option<String> {
    Some(PROBE.to_owned())
}

/// The written settings, with those paths made absolute that are absolute in the settled ones: `ctl up` has done so, and
/// only a service's plugin knows which of its texts are paths.
fn with_absolute_paths(written: &Value, settled: &Value, folder: &Path) -> Value {
    match (written, settled) {
        (Value::String(path), Value::String(absolute)) if folder.join(path) == Path::new(absolute) => {
            settled.clone()
        }
        (Value::Array(written), Value::Array(settled)) => {
            let settled = settled.iter().chain(std::iter::repeat(&Value::Null));
            let items = written.iter().zip(settled);
            items.map(|(written, settled)| with_absolute_paths(written, settled, folder)).collect()
        }
        (Value::Object(written), Value::Object(settled)) => {
            let one = |(key, value): (&String, &Value)| {
                let settled = settled.get(key).unwrap_or(&Value::Null);
                (key.clone(), with_absolute_paths(value, settled, folder))
            };
            Value::Object(written.iter().map(one).collect())
        }
        _ => written.clone(),
    }
}

fn settings(manifest: &Manifest, probed: Option<&Manifest>, specs: &Specs, folder: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for (written, spec) in &manifest.services {
        // Without an agent the types are not known; the settled specs name them.
        let service = &written
            .clone()
            .normalized(|service_type| specs.specs.contains_key(&service_type.clone().into()));
        let has_variables = probed.and_then(|probed| probed.services.get(written)) != Some(spec);
        let Some(known) = specs.specs.get(service).filter(|_| !has_variables) else { continue };
        let wanted = Spec {
            service_type: spec.service_type.clone(),
            settings: with_absolute_paths(&spec.settings, &known.spec.settings, folder),
            shards: spec.shards.or(known.spec.shards),
            replicas: spec.replicas,
        };
        let changes = spec_diff::changes(service, &known.spec, &wanted);
        lines.extend(changes.iter().map(|changed| format!("{changed} in the manifest; `ctl up` applies it")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_that_was_made_absolute_is_no_difference() {
        let folder = Path::new("/m");
        let settled =
            json!({"list": [{"cert": "/m/tls/a", "name": "a"}, 7], "to": "/m/log", "other": "/else/x"});
        let written = json!({"list": [{"cert": "tls/a", "name": "a"}, 7], "to": "/m/log", "other": "x"});
        let mut expected = settled.clone();
        expected["other"] = json!("x");
        assert_eq!(with_absolute_paths(&written, &settled, folder), expected);
        let longer = json!({"list": [{"cert": "tls/a", "name": "a"}, 7, "tls/a"]});
        let found = with_absolute_paths(&longer, &settled, folder);
        assert_eq!(found, json!({"list": [{"cert": "/m/tls/a", "name": "a"}, 7, "tls/a"]}));
        assert_eq!(with_absolute_paths(&written, &json!([]), folder), written);
    }
}
