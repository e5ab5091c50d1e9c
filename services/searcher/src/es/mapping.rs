//! Elasticsearch's mappings as definitions of indexes, and back. What a definition can't express is refused by name. Pure.

mod analysis;
mod shown;
mod vector;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::error::EsError;
use crate::definition::{
    Analyzer, Definition, Dynamic, FieldDefinition, Normalizer, PartialDefinition, SubField,
};
pub(crate) use analysis::Analysis;
pub(crate) use shown::{mappings_of, type_of};

/// Members of a field that can't change an answer here, or only how fast it comes.
const HINTS: [&str; 8] = [
    "store",
    "doc_values",
    "fielddata",
    "eager_global_ordinals",
    "index_phrases",
    "index_prefixes",
    "term_vector",
    "split_queries_on_whitespace",
];
/// Members of a field that have an effect in Elasticsearch and none here, with what is done instead.
const WITHOUT_EFFECT: [(&str, &str); 2] = [
    ("norms", "scores take the length of a text into account"),
    ("index_options", "frequencies and positions are indexed"),
];

/// A definition, and what of a mapping was accepted without an effect.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Mapped {
    pub(crate) definition: Definition,
    pub(crate) warnings: Vec<String>,
}

impl Mapped {
    /// What differs from the definition to which the mappings were added. The rest is left out, so that it stays as others
    /// change it meanwhile.
    pub(crate) fn changes(&self, base: &Definition) -> PartialDefinition {
        let Definition { fields, dynamic, coerce, .. } = &self.definition;
        let changed = fields.iter().filter(|(name, field)| base.fields.get(*name) != Some(*field));
        PartialDefinition {
            fields: changed.map(|(name, field)| (name.clone(), field.clone())).collect(),
            dynamic: (*dynamic != base.dynamic).then_some(*dynamic),
            coerce: *coerce,
            ..PartialDefinition::default()
        }
    }
}

fn refused(reason: String) -> EsError {
    EsError::new(400, "mapper_parsing_exception", reason)
}

/// The definition that mappings make of another one: fields are added to it.
pub(crate) fn define(
    base: &Definition,
    is_new: bool,
    mappings: &Value,
    analysis: &Analysis,
) -> Result<Mapped, EsError> {
    let mut mapped = Mapped { definition: base.clone(), warnings: Vec::new() };
    let members = object(mappings, "mappings")?;
    for (name, value) in members {
        match name.as_str() {
            "properties" => {}
            "dynamic" => {
                let dynamic = dynamic(value)?;
                if !is_new && dynamic != base.dynamic {
                    return Err(EsError::illegal("[dynamic] of an index can't change"));
                }
                mapped.definition.dynamic = dynamic;
            }
            "_source" if value == &serde_json::json!({ "enabled": true }) => {}
            "date_detection" if value == &Value::Bool(true) => {}
            "numeric_detection" if value == &Value::Bool(false) => {}
            "dynamic_templates" if value.as_array().is_some_and(Vec::is_empty) => {}
            _ => return Err(refused(format!("unsupported mapping parameter [{name}]"))),
        }
    }
    if let Some(properties) = members.get("properties") {
        fields(object(properties, "properties")?, "", analysis, &mut mapped)?;
    }
    mapped.definition.check().map_err(|error| refused(error.to_string()))?;
    mapped.warnings.sort();
    mapped.warnings.dedup();
    Ok(mapped)
}

fn object<'a>(value: &'a Value, what: &str) -> Result<&'a Map<String, Value>, EsError> {
    value.as_object().ok_or_else(|| refused(format!("Expected map for property [{what}]")))
}

fn dynamic(value: &Value) -> Result<Dynamic, EsError> {
    match value {
        Value::Bool(true) => Ok(Dynamic::Yes),
        Value::Bool(false) => Ok(Dynamic::No),
        Value::String(text) => match text.as_str() {
            "true" => Ok(Dynamic::Yes),
            "false" => Ok(Dynamic::No),
            "strict" => Ok(Dynamic::Strict),
            other => Err(refused(format!("[dynamic: {other}] is not supported"))),
        },
        other => Err(refused(format!("[dynamic: {other}] is not supported"))),
    }
}

/// Adds the properties of an object.
fn fields(
    properties: &Map<String, Value>,
    above: &str,
    analysis: &Analysis,
    mapped: &mut Mapped,
) -> Result<(), EsError> {
    for (name, value) in properties {
        let path = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        let members = object(value, &path)?;
        let is_object = match members.get("type") {
            None => true,
            Some(Value::String(name)) => name == "object",
            Some(_) => return Err(refused(format!("[type] of field [{path}] is no text"))),
        };
        if is_object {
            inner(members, &path, analysis, mapped)?;
        } else {
            let field = match members.get("type") == Some(&Value::from(vector::DENSE_VECTOR)) {
                true => vector::field(members, &path, &mut mapped.warnings)?,
                false => field(members, &path, analysis, &mut mapped.warnings)?,
            };
            mapped.definition.fields.insert(path, field);
        }
    }
    Ok(())
}

/// Adds an object: a definition has only the fields in it.
fn inner(
    members: &Map<String, Value>,
    path: &str,
    analysis: &Analysis,
    mapped: &mut Mapped,
) -> Result<(), EsError> {
    for (name, value) in members {
        match name.as_str() {
            "type" | "properties" => {}
            "enabled" if value == &Value::Bool(true) => {}
            "dynamic" => {
                let wanted = dynamic(value)?;
                let is_as_index = wanted == mapped.definition.dynamic;
                let has_properties =
                    members.get("properties").and_then(Value::as_object).is_some_and(|map| !map.is_empty());
                if !is_as_index && wanted == Dynamic::Yes && !has_properties {
                    mapped.definition.fields.insert(path.to_owned(), FieldDefinition::Json {});
                } else if !is_as_index {
                    return Err(refused(format!(
                        "[dynamic] of object [{path}] differs from that of the index, which is not supported"
                    )));
                }
            }
            _ => return Err(refused(unknown(path, "object", name))),
        }
    }
    match members.get("properties") {
        Some(properties) => fields(object(properties, path)?, path, analysis, mapped),
        None => Ok(()),
    }
}

fn unknown(path: &str, kind: &str, name: &str) -> String {
    format!("unsupported parameter [{name}] on mapper [{path}] of type [{kind}]")
}

/// A field that is no object.
fn field(
    members: &Map<String, Value>,
    path: &str,
    analysis: &Analysis,
    warnings: &mut Vec<String>,
) -> Result<FieldDefinition, EsError> {
    let kind = members.get("type").and_then(Value::as_str).unwrap_or_default();
    let mut sub_fields = BTreeMap::new();
    let (mut analyzer, mut search_analyzer) = (None, None);
    let (mut ignore_above, mut normalizer) = (None, Normalizer::None);
    let is_text = matches!(kind, "text" | "match_only_text");
    let is_string = is_text || kind == "keyword";
    for (name, value) in members {
        let text = || {
            let bad = || refused(format!("[{name}] of field [{path}] is no text"));
            value.as_str().ok_or_else(bad)
        };
        match name.as_str() {
            "type" => {}
            "index" if value == &Value::Bool(true) => {}
            "coerce" | "ignore_malformed" if value == &Value::Bool(false) && !is_string => {}
            "similarity" if is_text && value == "BM25" => {}
            name if HINTS.contains(&name) => {}
            "fields" if is_string => {
                for (name, value) in object(value, path)? {
                    let sub_path = format!("{path}.{name}");
                    let sub = field(object(value, &sub_path)?, &sub_path, analysis, warnings)?;
                    let sub = match sub {
                        FieldDefinition::Text { analyzer, fields } if fields.is_empty() => {
                            SubField::Text { analyzer }
                        }
                        FieldDefinition::Keyword { ignore_above, normalizer, fields }
                            if fields.is_empty() =>
                        {
                            SubField::Keyword { ignore_above, normalizer }
                        }
                        other => {
                            return Err(refused(format!(
                                "[{}] is not supported as the type of sub-field [{sub_path}]",
                                type_of(&other)
                            )));
                        }
                    };
                    sub_fields.insert(name.clone(), sub);
                }
            }
            "fields" if value.as_object().is_some_and(Map::is_empty) => {}
            "analyzer" if is_text => analyzer = Some(analysis.analyzer(text()?)?),
            "search_analyzer" if is_text => search_analyzer = Some(analysis.analyzer(text()?)?),
            "normalizer" if kind == "keyword" => normalizer = analysis.normalizer(text()?)?,
            "ignore_above" if kind == "keyword" => {
                let limit = value.as_u64().filter(|limit| *limit > 0);
                let limit =
                    limit.ok_or_else(|| refused(format!("[ignore_above] of field [{path}] is no number")))?;
                // Longer strings are left out by Elasticsearch, too.
                let most = crate::definition::MAX_KEYWORD as u64;
                ignore_above = u32::try_from(limit.min(most)).ok();
            }
            "format" if kind == "date" => {
                let formats = text()?;
                let known = [
                    "strict_date_optional_time",
                    "date_optional_time",
                    "epoch_millis",
                    "strict_date",
                    "date",
                ];
                if let Some(format) = formats.split("||").find(|format| !known.contains(format)) {
                    return Err(refused(format!("[format: {format}] of field [{path}] is not supported")));
                }
            }
            name => match WITHOUT_EFFECT.iter().find(|(known, _)| *known == name) {
                Some((_, instead)) if is_string => {
                    warnings.push(format!("[{name}] has no effect: {instead}"));
                }
                _ => return Err(refused(unknown(path, kind, name))),
            },
        }
    }
    if search_analyzer.is_some_and(|search| search != analyzer.unwrap_or_default()) {
        return Err(refused(format!(
            "[search_analyzer] of field [{path}] differs from [analyzer], which is not supported"
        )));
    }
    match kind {
        "text" | "match_only_text" => {
            Ok(FieldDefinition::Text { analyzer: analyzer.unwrap_or(analysis.default), fields: sub_fields })
        }
        "keyword" => Ok(FieldDefinition::Keyword { ignore_above, normalizer, fields: sub_fields }),
        "long" => Ok(FieldDefinition::I64 {}),
        "integer" | "short" | "byte" => {
            warnings.push(format!("[{kind}] is kept as [long]: larger numbers are not refused"));
            Ok(FieldDefinition::I64 {})
        }
        "double" => Ok(FieldDefinition::F64 {}),
        "float" | "half_float" => {
            warnings.push(format!("[{kind}] is kept as [double]"));
            Ok(FieldDefinition::F64 {})
        }
        "boolean" => Ok(FieldDefinition::Bool {}),
        "date" => Ok(FieldDefinition::Date {}),
        "ip" => Ok(FieldDefinition::Ip {}),
        other => Err(refused(format!("[{other}] is not supported as the type of field [{path}]"))),
    }
}

/// The analyzer with Elasticsearch's name, or our own.
pub(crate) fn built_in(name: &str) -> Option<Analyzer> {
    let known = analysis::BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, analyzer)| *analyzer);
    known.or_else(|| {
        Analyzer::ALL.into_iter().find(|analyzer| *analyzer == Analyzer::Ngram && analyzer.name() == name)
    })
}

#[cfg(test)]
mod tests;
