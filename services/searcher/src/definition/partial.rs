//! A definition as a request or the settings give it: what is left out stays as it is in an index that exists.

use std::collections::BTreeMap;

use plugin::SettingsError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Definition, DeleteAfter, Dynamic, FieldDefinition, is_false};

/// What an index shall be, as users write it in JSON or YAML.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PartialDefinition {
    /// The declared fields, by path: `title`, `author.name`. At most 1000. Fields can be added later; the type of a field
    /// can't be changed.
    pub(crate) fields: BTreeMap<String, FieldDefinition>,
    /// What happens to fields that are not declared: `true` indexes them, `false` only stores them, `strict` refuses a document
    /// that has one. `true` unless given. It can't be changed later.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Dynamic")]
    pub(crate) dynamic: Option<Dynamic>,
    /// Whether values of another type than a field's are converted, as Elasticsearch does: numbers and booleans for text and
    /// keywords, texts for numbers and booleans, fractions for integers. `false` unless given. Once it is on, it stays.
    /// Indexes that are created through Elasticsearch's API have it.
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) coerce: bool,
    /// The field whose value, a string or an integer, is a document's id. Unless given, the id comes with the request, or
    /// is generated. It can't be changed later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    /// The fields that a query without a field name searches, with their boosts. All text if there are none. Unless given,
    /// those of an index that exists stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BTreeMap<String, f32>")]
    pub(crate) default_fields: Option<BTreeMap<String, f32>>,
    /// Synonyms that are applied when a query is analyzed. `tv, television` makes all of them equal; `usb => universal
    /// serial bus` replaces what is left of the arrow. Unless given, those of an index that exists stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<String>")]
    pub(crate) synonyms: Option<Vec<String>>,
    /// How long after its creation the index is deleted as a whole, with its documents: a duration such as `30d`, or `never`.
    /// Never unless given, and never if the settings declare the index. Unless given, that of an index that exists stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "DeleteAfter")]
    pub(crate) delete_after: Option<DeleteAfter>,
}

impl PartialDefinition {
    /// The definition of a new index.
    pub(crate) fn complete(&self) -> Definition {
        let Self { fields, dynamic, coerce, id, default_fields, synonyms, delete_after } = self.clone();
        Definition {
            fields,
            dynamic: dynamic.unwrap_or_default(),
            coerce,
            id,
            default_fields: default_fields.unwrap_or_default(),
            synonyms: synonyms.unwrap_or_default(),
            delete_after: delete_after.unwrap_or_default(),
        }
    }

    /// Both of them: where they differ, this one counts; fields count each as a whole.
    pub(crate) fn over(&self, base: &Self) -> Self {
        let Self { fields, dynamic, coerce, id, default_fields, synonyms, delete_after } = self.clone();
        let mut all = base.fields.clone();
        all.extend(fields);
        Self {
            fields: all,
            dynamic: dynamic.or(base.dynamic),
            coerce: coerce || base.coerce,
            id: id.or_else(|| base.id.clone()),
            default_fields: default_fields.or_else(|| base.default_fields.clone()),
            synonyms: synonyms.or_else(|| base.synonyms.clone()),
            delete_after: delete_after.or(base.delete_after),
        }
    }

    /// Finds all mistakes. Their pointers begin at the definition.
    pub(crate) fn check(&self) -> Result<(), SettingsError> {
        self.complete().check()
    }
}
