//! `highlight`: Elasticsearch's options become those of native searches.

use serde_json::{Map, Value, json};
use types::did_you_mean;

use crate::es::error::EsError;

const KNOWN: [&str; 19] = [
    "fields",
    "pre_tags",
    "post_tags",
    "fragment_size",
    "number_of_fragments",
    "encoder",
    "type",
    "order",
    "require_field_match",
    "fragmenter",
    "boundary_scanner",
    "boundary_chars",
    "boundary_max_scan",
    "boundary_scanner_locale",
    "max_analyzed_offset",
    "phrase_limit",
    "no_match_size",
    "tags_schema",
    "highlight_query",
];

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Highlight {
    pub(super) fields: Vec<String>,
    /// The options of native searches.
    pub(super) options: Map<String, Value>,
}

pub(super) fn read(highlight: &Value) -> Result<Highlight, EsError> {
    let Value::Object(members) = highlight else {
        return Err(EsError::parsing("[highlight] is an object"));
    };
    let mut fields: Vec<(String, Map<String, Value>)> = Vec::new();
    let mut add = |members: &Map<String, Value>| {
        for (field, options) in members {
            let options = options.as_object().cloned();
            let options =
                options.ok_or_else(|| EsError::parsing(format!("[highlight] of [{field}] is an object")))?;
            fields.push((field.clone(), options));
        }
        Ok::<_, EsError>(())
    };
    match members.get("fields") {
        Some(Value::Object(members)) => add(members)?,
        Some(Value::Array(list)) => {
            for one in list {
                add(one.as_object().ok_or_else(|| EsError::parsing("[highlight] fields are objects"))?)?;
            }
        }
        _ => return Err(EsError::parsing("[highlight] needs [fields]")),
    }
    let common: Map<String, Value> = members
        .iter()
        .filter(|(name, _)| *name != "fields")
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let mut options: Option<Map<String, Value>> = None;
    for (_, own) in &fields {
        let mut all = common.clone();
        all.extend(own.clone());
        let native = native(&all)?;
        if options.as_ref().is_some_and(|options| *options != native) {
            return Err(EsError::illegal("[highlight] does not support different options for each field"));
        }
        options = Some(native);
    }
    let options = match options {
        Some(options) => options,
        None => native(&common)?,
    };
    Ok(Highlight { fields: fields.into_iter().map(|(field, _)| field).collect(), options })
}

fn native(options: &Map<String, Value>) -> Result<Map<String, Value>, EsError> {
    let mut native = Map::new();
    native.insert("fragment_size".to_owned(), json!(100));
    native.insert("number_of_fragments".to_owned(), json!(5));
    native.insert("escape".to_owned(), json!(false));
    for (name, value) in options {
        if !KNOWN.contains(&name.as_str()) {
            let near = did_you_mean(name, KNOWN).map(|near| format!(" did you mean [{near}]?"));
            return Err(EsError::parsing(format!(
                "[highlight] has no option [{name}]{}",
                near.unwrap_or_default()
            )));
        }
        let wrong = || EsError::illegal(format!("[highlight] does not support [{name}] of [{value}]"));
        match name.as_str() {
            "pre_tags" | "post_tags" => {
                let tag = match value {
                    Value::Array(tags) if tags.len() == 1 => &tags[0],
                    tag => tag,
                };
                let tag = tag.as_str().ok_or_else(wrong)?;
                native.insert(name.trim_end_matches("_tags").to_owned(), json!(tag));
            }
            "fragment_size" => {
                let size = value.as_u64().ok_or_else(wrong)?;
                // None means the whole text.
                match size {
                    0 => native.insert("number_of_fragments".to_owned(), json!(0)),
                    size => native.insert("fragment_size".to_owned(), json!(size.clamp(10, 10_000))),
                };
            }
            "number_of_fragments" => {
                let number = value.as_u64().filter(|number| *number <= 100).ok_or_else(wrong)?;
                native.insert(name.clone(), json!(number));
            }
            "encoder" => match value.as_str() {
                Some("default") => {}
                Some("html") => {
                    native.insert("escape".to_owned(), json!(true));
                }
                _ => return Err(wrong()),
            },
            "require_field_match" if value.as_bool() != Some(true) => return Err(wrong()),
            "no_match_size" if value.as_u64() != Some(0) => return Err(wrong()),
            "tags_schema" | "highlight_query" => return Err(wrong()),
            // They choose between ways to the same fragments.
            _ => {}
        }
    }
    Ok(native)
}
