//! Settings that only the HTTP mode has.

pub(super) fn hosts(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "anyOf": [
        { "const": "any" }, { "type": "array", "items": { "type": "string" } }, { "type": "null" },
    ] })
}
