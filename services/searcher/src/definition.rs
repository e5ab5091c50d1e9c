//! What an index is: its fields and how they are analyzed. Pure.

mod analyzer;
mod check;
mod delete_after;
pub(crate) mod extend;
mod partial;
mod synonyms;
mod vector;

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use analyzer::Analyzer;
pub(crate) use check::{path_problem, similar};
pub(crate) use delete_after::DeleteAfter;
pub(crate) use partial::PartialDefinition;
pub(crate) use synonyms::SynonymRule;
pub(crate) use vector::{MAX_DIMS, Similarity};

/// How many fields an index may declare.
pub(crate) const MAX_FIELDS: usize = 1_000;
/// The longest name of a declared field, in bytes.
pub(crate) const MAX_NAME: usize = 255;
/// The longest keyword that is indexed, in bytes; as Elasticsearch's limit.
pub(crate) const MAX_KEYWORD: usize = 32_766;
/// Names at the top of a document that the index uses itself.
pub(crate) const RESERVED: [&str; 6] = ["_id", "_seq", "_term", "_version", "_source", "_score"];

/// What an index is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Definition {
    /// The declared fields, by path.
    pub(crate) fields: BTreeMap<String, FieldDefinition>,
    pub(crate) dynamic: Dynamic,
    /// Whether values of another type than a field's are converted.
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) coerce: bool,
    /// The field whose value, a string or an integer, is a document's id.
    pub(crate) id: Option<String>,
    /// The fields that a query without a field name searches, with their boosts. All text if there are none.
    pub(crate) default_fields: BTreeMap<String, f32>,
    /// Synonyms that are applied when a query is analyzed.
    pub(crate) synonyms: Vec<String>,
    /// When the index is deleted.
    #[serde(skip_serializing_if = "DeleteAfter::is_never")]
    pub(crate) delete_after: DeleteAfter,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// A declared field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum FieldDefinition {
    /// Text that is searched by its words.
    Text {
        /// How text becomes terms.
        #[serde(default)]
        analyzer: Analyzer,
        /// The same text, indexed in other ways: with a sub-field `exact` of `title`, queries name `title.exact`.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        fields: BTreeMap<String, SubField>,
    },
    /// A string that is searched, sorted and counted as a whole. One over 32766 bytes is refused.
    Keyword {
        /// The longest string that is indexed, in bytes; a longer one is only stored, instead of refused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ignore_above: Option<u32>,
        /// What is done to the string before it is indexed, and to strings in queries.
        #[serde(default, skip_serializing_if = "Normalizer::is_none")]
        normalizer: Normalizer,
        /// The same string, indexed in other ways.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        fields: BTreeMap<String, SubField>,
    },
    /// An integer of 64 bits.
    I64 {},
    /// A floating-point number of 64 bits.
    F64 {},
    /// `true` or `false`.
    Bool {},
    /// A point in time: an RFC 3339 string, `YYYY-MM-DD` (midnight UTC), or an integer, the milliseconds since 1970.
    Date {},
    /// An IP address, of version 4 or 6: a string.
    Ip {},
    /// An object, or a value, whose fields are indexed as dynamic ones.
    Json {},
    /// A list of numbers, which `knn` compares with others.
    Vector {
        /// How many numbers it has, from 1 to 4096.
        dims: u16,
        /// How vectors are compared.
        #[serde(default)]
        similarity: Similarity,
    },
}

/// Another way in which the text of a field is indexed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum SubField {
    /// Text that is searched by its words.
    Text {
        /// How text becomes terms.
        #[serde(default)]
        analyzer: Analyzer,
    },
    /// A string that is searched, sorted and counted as a whole.
    Keyword {
        /// The longest string that is indexed, in bytes; a longer one is left out, instead of refused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ignore_above: Option<u32>,
        /// What is done to the string before it is indexed, and to strings in queries.
        #[serde(default, skip_serializing_if = "Normalizer::is_none")]
        normalizer: Normalizer,
    },
}

/// What is done to a keyword before it is indexed, and to the strings in queries that are compared with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Normalizer {
    /// Nothing.
    #[default]
    None,
    /// It is put into lower case.
    Lowercase,
}

impl Normalizer {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// The string as it is indexed.
    pub(crate) fn apply(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::None => Cow::Borrowed(text),
            Self::Lowercase => Cow::Owned(text.to_lowercase()),
        }
    }
}

impl Definition {
    /// The sub-field that a path names, such as `title.exact`.
    pub(crate) fn sub_field(&self, path: &str) -> Option<&SubField> {
        let (above, name) = path.rsplit_once('.')?;
        self.fields.get(above)?.sub_fields().get(name)
    }
}

impl FieldDefinition {
    /// Its sub-fields by name.
    pub(crate) fn sub_fields(&self) -> &BTreeMap<String, SubField> {
        static NONE: BTreeMap<String, SubField> = BTreeMap::new();
        match self {
            Self::Text { fields, .. } | Self::Keyword { fields, .. } => fields,
            Self::I64 {} | Self::F64 {} | Self::Bool {} | Self::Date {} | Self::Ip {} => &NONE,
            Self::Json {} | Self::Vector { .. } => &NONE,
        }
    }

    /// The name of the type, as users write it.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Text { .. } => "text",
            Self::Keyword { .. } => "keyword",
            Self::I64 {} => "i64",
            Self::F64 {} => "f64",
            Self::Bool {} => "bool",
            Self::Date {} => "date",
            Self::Ip {} => "ip",
            Self::Json {} => "json",
            Self::Vector { .. } => "vector",
        }
    }
}

/// What happens to fields that are not declared.
///
/// In JSON: `true`, `false` or `"strict"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "Value", try_from = "Value")]
pub(crate) enum Dynamic {
    /// They are indexed.
    #[default]
    Yes,
    /// They are stored, and not indexed.
    No,
    /// A document that has one is refused.
    Strict,
}

impl From<Dynamic> for Value {
    fn from(dynamic: Dynamic) -> Self {
        match dynamic {
            Dynamic::Yes => Self::Bool(true),
            Dynamic::No => Self::Bool(false),
            Dynamic::Strict => Self::from("strict"),
        }
    }
}

impl TryFrom<Value> for Dynamic {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        match value {
            Value::Bool(true) => Ok(Self::Yes),
            Value::Bool(false) => Ok(Self::No),
            Value::String(text) if text == "strict" => Ok(Self::Strict),
            _ => Err("`dynamic` is true, false or \"strict\""),
        }
    }
}

impl JsonSchema for Dynamic {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Dynamic".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "enum": [true, false, "strict"] })
    }
}

#[cfg(test)]
mod tests;
