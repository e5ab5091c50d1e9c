//! The order of hits: Elasticsearch's sort keys, and its sort values in hits and in `search_after`.

use serde_json::{Map, Value, json};

use crate::definition::FieldDefinition;
use crate::es::error::EsError;
use crate::query::condition::base_of_keyword;
use crate::query::dates::DateReading;
use crate::schema::IndexSchema;
use crate::schema::addresses::Address;

/// A sort key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) field: String,
    is_descending: bool,
    is_missing_first: bool,
    /// Whether an index may lack the field.
    may_be_unmapped: bool,
}

impl Key {
    /// Reads `sort`: a key or a list of keys.
    pub(super) fn read_all(sort: &Value) -> Result<Vec<Self>, EsError> {
        let mut keys = Vec::new();
        let list = match sort {
            Value::Array(list) => list.as_slice(),
            one => std::slice::from_ref(one),
        };
        for key in list {
            match key {
                Value::String(field) => keys.push(Self::read(field, &Map::new())?),
                Value::Object(fields) => {
                    for (field, options) in fields {
                        keys.push(match options {
                            Value::String(order) => {
                                Self::read(field, &Map::from_iter([("order".to_owned(), json!(order))]))?
                            }
                            Value::Object(options) => Self::read(field, options)?,
                            _ => {
                                return Err(EsError::parsing(format!(
                                    "[sort] of [{field}] is an order or an object"
                                )));
                            }
                        });
                    }
                }
                _ => {
                    return Err(EsError::parsing(
                        "[sort] is a field, an object with a field, or a list of them",
                    ));
                }
            }
        }
        Ok(keys)
    }

    fn read(field: &str, options: &Map<String, Value>) -> Result<Self, EsError> {
        let field = match field {
            "_doc" | "_shard_doc" | "_seq_no" => "_seq",
            "_script" | "_geo_distance" => return Err(EsError::unsupported(&format!("sort by {field}"))),
            field => field,
        };
        let known = ["order", "missing", "mode", "unmapped_type", "numeric_type", "format", "nested"];
        for (option, value) in options {
            let is_fine = match option.as_str() {
                "order" => matches!(value.as_str(), Some("asc" | "desc")),
                "missing" => matches!(value.as_str(), Some("_first" | "_last")),
                "mode" => {
                    let default = if options.get("order") == Some(&json!("desc")) { "max" } else { "min" };
                    value.as_str() == Some(default)
                }
                "unmapped_type" => value.is_string(),
                "numeric_type" | "format" | "nested" => false,
                _ => {
                    let near = types::did_you_mean(option, known);
                    let near = near.map(|near| format!(" did you mean [{near}]?")).unwrap_or_default();
                    return Err(EsError::parsing(format!("[sort] has no option [{option}]{near}")));
                }
            };
            if !is_fine {
                return Err(EsError::illegal(format!("[sort] does not support [{option}] of [{value}]")));
            }
        }
        let is_descending = match options.get("order") {
            None => field == "_score",
            Some(order) => order == "desc",
        };
        Ok(Self {
            field: field.to_owned(),
            is_descending,
            is_missing_first: options.get("missing") == Some(&json!("_first")),
            may_be_unmapped: options.contains_key("unmapped_type"),
        })
    }

    pub(super) fn is_score(&self) -> bool {
        self.field == "_score"
    }

    /// The key in the form of native searches.
    pub(super) fn native(&self, schema: &IndexSchema) -> Value {
        let field = base_of_keyword(&self.field, schema).unwrap_or(&self.field);
        let is_known = matches!(field, "_score" | "_seq") || schema.places(field).is_ok();
        let field = if is_known || !self.may_be_unmapped { field } else { "_unmapped" };
        json!({
            "field": field,
            "order": if self.is_descending { "desc" } else { "asc" },
            "missing": if self.is_missing_first { "first" } else { "last" },
        })
    }

    /// A value of `search_after` as native searches have it: JSON text.
    pub(super) fn native_value(&self, text: &str, schema: &IndexSchema) -> String {
        let value: Value = serde_json::from_str(text).unwrap_or_default();
        if let (Value::String(address), Some(FieldDefinition::Ip {})) =
            (&value, schema.definition.fields.get(&self.field))
            && Address::parse(address).is_some()
        {
            return json!({ "ip": address }).to_string();
        }
        let date = match &value {
            Value::Number(number) if self.is_date(schema) => Some(number.to_string()),
            Value::String(date) if self.is_date(schema) || (self.is_dynamic(schema) && date.len() >= 20) => {
                Some(date.clone())
            }
            _ => None,
        };
        let millis = date.and_then(|date| DateReading::plain(0).read(&date));
        match millis.and_then(|span| crate::query::dates::written(span.first)) {
            Some(date) => json!({ "date": date }).to_string(),
            None => text.to_owned(),
        }
    }

    /// A sort value as Elasticsearch shows it: dates of declared fields are milliseconds since 1970.
    pub(super) fn shown(&self, value: Value, schema: &IndexSchema) -> Value {
        if let Some(address) = value.get("ip") {
            return address.clone();
        }
        let Some(date) = value.get("date") else { return value };
        match date.as_str().and_then(|date| DateReading::plain(0).read(date)) {
            Some(span) if self.is_date(schema) => json!(span.first),
            _ => date.clone(),
        }
    }

    fn is_date(&self, schema: &IndexSchema) -> bool {
        matches!(schema.definition.fields.get(&self.field), Some(FieldDefinition::Date {}))
    }

    fn is_dynamic(&self, schema: &IndexSchema) -> bool {
        schema.places(&self.field).is_ok_and(|places| places.len() > 1)
    }
}
