//! Settings that only the HTTP mode has.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use types::range::NumberIn;

/// Repetitions of a request that failed. A request that may have been acted on is repeated only if its method is idempotent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// How often a request may be sent in all, including the first time. Unless given, 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<NumberIn<1, 10>>,
}

pub(super) fn hosts(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "anyOf": [
        { "const": "any" }, { "type": "array", "items": { "type": "string" } }, { "type": "null" },
    ] })
}
