//! A definition as Elasticsearch's mappings.

use serde_json::{Map, Value, json};

use super::analysis::BUILT_IN;
use crate::definition::{Analyzer, Definition, Dynamic, FieldDefinition, Normalizer, SubField};

/// Elasticsearch's name of a field's type.
pub(crate) fn type_of(field: &FieldDefinition) -> &'static str {
    match field {
        FieldDefinition::Text { .. } => "text",
        FieldDefinition::Keyword { .. } => "keyword",
        FieldDefinition::I64 {} => "long",
        FieldDefinition::F64 {} => "double",
        FieldDefinition::Bool {} => "boolean",
        FieldDefinition::Date {} => "date",
        FieldDefinition::Ip {} => "ip",
        FieldDefinition::Json {} => "object",
        FieldDefinition::Vector { .. } => "dense_vector",
    }
}

/// The mappings of a definition: declared fields only.
pub(crate) fn mappings_of(definition: &Definition) -> Value {
    let mut mappings = Map::new();
    match definition.dynamic {
        Dynamic::Yes => {}
        Dynamic::No => drop(mappings.insert("dynamic".to_owned(), json!("false"))),
        Dynamic::Strict => drop(mappings.insert("dynamic".to_owned(), json!("strict"))),
    }
    let mut properties = Map::new();
    for (path, field) in &definition.fields {
        let mut at = &mut properties;
        let mut parts = path.split('.').peekable();
        while let Some(part) = parts.next() {
            let entry = at.entry(part).or_insert_with(|| json!({}));
            let Value::Object(members) = entry else { break };
            if parts.peek().is_none() {
                members.extend(members_of(field, definition.dynamic));
                break;
            }
            let below = members.entry("properties").or_insert_with(|| json!({}));
            let Value::Object(below) = below else { break };
            at = below;
        }
    }
    if !properties.is_empty() {
        mappings.insert("properties".to_owned(), Value::Object(properties));
    }
    Value::Object(mappings)
}

fn members_of(field: &FieldDefinition, dynamic: Dynamic) -> Map<String, Value> {
    let mut members = match field {
        FieldDefinition::Text { analyzer, .. } => text(*analyzer),
        FieldDefinition::Keyword { ignore_above, normalizer, .. } => keyword(*ignore_above, *normalizer),
        FieldDefinition::Json {} if dynamic != Dynamic::Yes => {
            Map::from_iter([("type".to_owned(), json!("object")), ("dynamic".to_owned(), json!("true"))])
        }
        FieldDefinition::Vector { dims, similarity } => Map::from_iter([
            ("type".to_owned(), json!(type_of(field))),
            ("dims".to_owned(), json!(dims)),
            ("index".to_owned(), json!(true)),
            ("similarity".to_owned(), json!(similarity.name())),
        ]),
        other => Map::from_iter([("type".to_owned(), json!(type_of(other)))]),
    };
    if !field.sub_fields().is_empty() {
        let sub_fields = field.sub_fields().iter().map(|(name, field)| {
            let members = match field {
                SubField::Text { analyzer } => text(*analyzer),
                SubField::Keyword { ignore_above, normalizer } => keyword(*ignore_above, *normalizer),
            };
            (name.clone(), Value::Object(members))
        });
        members.insert("fields".to_owned(), Value::Object(sub_fields.collect()));
    }
    members
}

fn text(analyzer: Analyzer) -> Map<String, Value> {
    let mut members = Map::from_iter([("type".to_owned(), json!("text"))]);
    if analyzer != Analyzer::Default {
        let name = BUILT_IN.iter().find(|(_, known)| *known == analyzer).map(|(name, _)| *name);
        members.insert("analyzer".to_owned(), json!(name.unwrap_or_else(|| analyzer.name())));
    }
    members
}

fn keyword(ignore_above: Option<u32>, normalizer: Normalizer) -> Map<String, Value> {
    let mut members = Map::from_iter([("type".to_owned(), json!("keyword"))]);
    if let Some(limit) = ignore_above {
        members.insert("ignore_above".to_owned(), json!(limit));
    }
    if normalizer == Normalizer::Lowercase {
        members.insert("normalizer".to_owned(), json!("lowercase"));
    }
    members
}
