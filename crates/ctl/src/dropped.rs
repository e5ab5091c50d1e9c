//! Services that have a spec and are no longer in the manifest: they keep it, and their data. Pure.

use manifest::Manifest;
use types::ServiceName;
use types::api::Specs;

/// The services that have a spec on the store and are not in the manifest.
pub(crate) fn dropped(manifest: &Manifest, specs: &Specs) -> Vec<ServiceName> {
    // If no agent checked the manifest, a type's name may still be written with hyphens.
    let written_as = |service: &ServiceName| {
        service.clone().normalized(|service_type| specs.specs.contains_key(&service_type.clone().into()))
    };
    let of_nodes = manifest.nodes.iter().filter_map(|node| node.role.service());
    let named: Vec<_> = manifest.services.keys().chain(of_nodes).map(written_as).collect();
    specs.specs.keys().filter(|service| !named.contains(service)).cloned().collect()
}

/// The note on one.
pub(crate) fn in_words(service: &ServiceName) -> String {
    format!(
        "the service {service} is not in the manifest; its spec and data are kept, `ctl spec rm {service}` removes both"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_is_dropped_when_neither_the_services_nor_the_nodes_name_it() {
        let text = "cluster: c\nservices:\n  sessions: {type: storage}\nnodes:\n  - {service: api-gateway}\n";
        let manifest = manifest::parse("test.yaml", text, &|_| None, None).unwrap().manifest;
        let spec = json!({ "number": 1, "spec": { "settings": {} } });
        let specs = json!({
            "store": { "id": "01a209b4-6f86-77d4-8835-3e907514f96d", "url": "file:///s" },
            "specs": { "sessions": spec, "api_gateway": spec, "users": spec, "storage": spec },
        });
        let found = dropped(&manifest, &serde_json::from_value(specs).unwrap());
        let found: Vec<_> = found.iter().map(ServiceName::as_str).collect();
        assert_eq!(found, ["storage", "users"]);
    }
}
