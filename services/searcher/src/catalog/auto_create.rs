//! Which indexes a first write creates. Pure.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::glob::matches;

/// Which indexes a first write creates.
///
/// In JSON: `true`, `false`, or a list of patterns such as `["-logs-private-*", "logs-*"]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Value", try_from = "Value")]
pub(crate) enum AutoCreate {
    All,
    None,
    /// Those whose first pattern that matches has no `-` before it.
    Patterns(Vec<String>),
}

impl AutoCreate {
    /// Whether an index is created.
    pub(crate) fn allows(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Patterns(patterns) => patterns
                .iter()
                .find_map(|pattern| {
                    let (is_allowed, pattern) = match pattern.strip_prefix('-') {
                        Some(pattern) => (false, pattern),
                        None => (true, pattern.strip_prefix('+').unwrap_or(pattern)),
                    };
                    matches(pattern, name).then_some(is_allowed)
                })
                .unwrap_or(false),
        }
    }

    /// As Elasticsearch writes it: `true`, `false`, or patterns with commas between them.
    pub(crate) fn of_text(text: &str) -> Self {
        match text.trim() {
            "true" => Self::All,
            "false" => Self::None,
            text => Self::Patterns(text.split(',').map(|pattern| pattern.trim().to_owned()).collect()),
        }
    }

    /// As [`of_text`](Self::of_text) reads it.
    pub(crate) fn to_text(&self) -> String {
        match self {
            Self::All => "true".to_owned(),
            Self::None => "false".to_owned(),
            Self::Patterns(patterns) => patterns.join(","),
        }
    }
}

impl From<AutoCreate> for Value {
    fn from(auto_create: AutoCreate) -> Self {
        match auto_create {
            AutoCreate::All => Self::Bool(true),
            AutoCreate::None => Self::Bool(false),
            AutoCreate::Patterns(patterns) => Self::from(patterns),
        }
    }
}

impl TryFrom<Value> for AutoCreate {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        const WANTED: &str = "`auto_create` is true, false or a list of patterns";
        match value {
            Value::Bool(true) => Ok(Self::All),
            Value::Bool(false) => Ok(Self::None),
            Value::Array(patterns) => {
                let pattern = |pattern: Value| match pattern {
                    Value::String(pattern) if !pattern.is_empty() => Ok(pattern),
                    _ => Err(WANTED),
                };
                Ok(Self::Patterns(patterns.into_iter().map(pattern).collect::<Result<_, _>>()?))
            }
            _ => Err(WANTED),
        }
    }
}

impl JsonSchema for AutoCreate {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "AutoCreate".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "anyOf": [{ "type": "boolean" }, { "type": "array", "items": { "type": "string" } }] })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_pattern_that_matches_decides() {
        let patterns = AutoCreate::of_text("-logs-private*, +logs-*,*-x");
        for (name, is_allowed) in [
            ("logs-1", true),
            ("logs-private", false),
            ("logs-private-x", false),
            ("a-x", true),
            ("a", false),
        ] {
            assert_eq!(patterns.allows(name), is_allowed, "{name}");
            assert!(AutoCreate::All.allows(name) && !AutoCreate::None.allows(name));
        }
        assert_eq!(AutoCreate::of_text(&patterns.to_text()), patterns);
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        for value in [json!(true), json!(false), json!(["a*", "-b"])] {
            let read: AutoCreate = serde_json::from_value(value.clone()).unwrap();
            assert_eq!(serde_json::to_value(read).unwrap(), value);
        }
        for wrong in [json!("true"), json!([1]), json!([""]), json!({}), json!(null)] {
            assert!(serde_json::from_value::<AutoCreate>(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
