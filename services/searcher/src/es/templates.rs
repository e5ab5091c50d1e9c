//! `_index_template`: what indexes get whose names match patterns.

use axum::body::Body;
use http::Method;
use http::request::Parts;
use serde_json::{Map, Value, json};

use super::aliases::aliases_of;
use super::error::EsError;
use super::indices::{IndexSettings, body_of};
use super::mapping::{define, mappings_of};
use super::parameters::Parameters;
use super::path::allow;
use super::reply::{Answer, Reply};
use crate::catalog::{Change, NoSuchTemplate, Record, Template, delete_templates};
use crate::definition::Definition;
use crate::glob::matches;
use crate::http::Refusal;
use crate::service::SearcherService;

/// The largest body.
const MAX_BODY: usize = 1024 * 1024;

/// Reads the body of a template. Returns it with what of it has no effect.
fn template(body: &Map<String, Value>) -> Result<(Template, Vec<String>), EsError> {
    let mut template = Template::default();
    let mut settings = IndexSettings::default();
    let no_mappings = json!({});
    let mut mappings = &no_mappings;
    for (name, value) in body.iter().filter(|(_, value)| !value.is_null()) {
        match name.as_str() {
            "index_patterns" => template.patterns = patterns(value)?,
            "priority" => {
                let priority = value.as_u64().and_then(|priority| u32::try_from(priority).ok());
                template.priority =
                    priority.ok_or_else(|| EsError::illegal("[priority] is a whole number below 2^32"))?;
            }
            "version" => {
                let version =
                    value.as_i64().ok_or_else(|| EsError::illegal("[version] is a whole number"))?;
                template.version = Some(version);
            }
            "_meta" => {
                let meta = value.as_object().ok_or_else(|| EsError::illegal("[_meta] is an object"))?;
                template.meta = Some(meta.clone());
            }
            "template" => {
                let members = value.as_object().ok_or_else(|| EsError::parsing("[template] is no object"))?;
                for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
                    match name.as_str() {
                        "settings" => settings = IndexSettings::parse(value, true)?,
                        "mappings" => mappings = value,
                        "aliases" => template.aliases = aliases_of(Some(value))?,
                        "lifecycle" | "data_stream_options" => return Err(EsError::unsupported(name)),
                        _ => return Err(EsError::parsing(format!("[template] unknown field [{name}]"))),
                    }
                }
            }
            "composed_of" | "ignore_missing_component_templates"
                if value.as_array().is_some_and(Vec::is_empty) => {}
            "composed_of"
            | "ignore_missing_component_templates"
            | "data_stream"
            | "allow_auto_create"
            | "deprecated" => {
                return Err(EsError::unsupported(name));
            }
            _ => return Err(EsError::parsing(format!("[index_template] unknown field [{name}]"))),
        }
    }
    let base = Definition { coerce: true, ..Definition::default() };
    let mapped = define(&base, true, mappings, &settings.analysis)?;
    template.definition = mapped.changes(&base);
    Ok((template, [settings.warnings, mapped.warnings].concat()))
}

fn patterns(value: &Value) -> Result<Vec<String>, EsError> {
    let bad = || EsError::illegal("[index_patterns] is a text or a list of texts");
    match value {
        Value::String(pattern) => Ok(pattern.split(',').map(|pattern| pattern.trim().to_owned()).collect()),
        Value::Array(patterns) => {
            patterns.iter().map(|pattern| pattern.as_str().map(str::to_owned).ok_or_else(bad)).collect()
        }
        _ => Err(bad()),
    }
}

fn shown(name: &str, template: &Template) -> Value {
    let Template { patterns, priority, definition, aliases, version, meta } = template;
    let mut of = json!({
        "index_patterns": patterns,
        "priority": priority,
        "composed_of": [],
        "template": {
            "settings": {}, "mappings": mappings_of(&definition.complete()), "aliases": aliases,
        },
    });
    if let Some(version) = version {
        of["version"] = json!(version);
    }
    if let Some(meta) = meta {
        of["_meta"] = json!(meta);
    }
    json!({ "name": name, "index_template": of })
}

impl SearcherService {
    /// Answers `_index_template`, and of one template or several.
    pub(crate) async fn es_index_template(&self, name: Option<&str>, head: &Parts, body: Body) -> Answer {
        match (&head.method, name) {
            (&Method::PUT | &Method::POST, Some(name)) => {
                let parameters = Parameters::parse(head.uri.query(), &["create", "cause"])?;
                let must_be_new = parameters.flag("create")?.unwrap_or(false);
                let (body, _space) = self.es_body(head, body, MAX_BODY).await?;
                let (template, warnings) = template(&body_of(&body)?)?;
                let put = self.put_template(name, &template, must_be_new).await;
                put.map_err(super::aliases::refused)?;
                Ok(Reply::json(&json!({ "acknowledged": true })).warnings(warnings))
            }
            (&Method::DELETE, Some(names)) => {
                Parameters::parse(head.uri.query(), &[])?;
                let change = |record: &Record| -> Result<_, NoSuchTemplate> {
                    let mut next = record.clone();
                    for name in names.split(',').map(str::trim) {
                        if let Change::To(without) = delete_templates(&next, name)? {
                            next = without;
                        }
                    }
                    Ok((if next == *record { Change::Nothing } else { Change::To(next) }, ()))
                };
                self.catalog.change(change).await.map_err(|error| match Refusal::from(error) {
                    refusal if refusal.problem.code() == "no-such-template" => {
                        let reason = format!("index_template [{names}] missing");
                        EsError::new(404, "index_template_missing_exception", reason)
                    }
                    refusal => refusal.into(),
                })?;
                Ok(Reply::json(&json!({ "acknowledged": true })))
            }
            _ => {
                let read = [Method::GET, Method::HEAD];
                let all = [Method::GET, Method::HEAD, Method::PUT, Method::POST, Method::DELETE];
                allow(head, if name.is_some() { &all } else { &read })?;
                Parameters::parse(head.uri.query(), &[])?;
                let indexes = self.catalog.fresh().await.map_err(Refusal::from)?;
                let wanted = name.unwrap_or("*");
                let found = indexes.templates.iter().filter(|(name, _)| matches(wanted, name));
                let found: Vec<Value> = found.map(|(name, template)| shown(name, template)).collect();
                if found.is_empty() && !wanted.contains('*') {
                    let reason = format!("index template matching [{wanted}] not found");
                    return Err(EsError::new(404, "resource_not_found_exception", reason));
                }
                Ok(Reply::json(&json!({ "index_templates": found })))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &Value) -> Result<(Template, Vec<String>), EsError> {
        template(body.as_object().unwrap())
    }

    #[test]
    fn a_template_is_read_and_what_is_not_supported_is_refused_by_name() {
        let (read_template, warnings) = read(&json!({
            "index_patterns": "logs-*", "priority": 100, "version": 3, "_meta": {"by": "ops"}, "composed_of": [],
            "template": {
                "settings": {"number_of_shards": 1},
                "mappings": {"properties": {"level": {"type": "keyword"}}},
                "aliases": {"logs": {}},
            },
        }))
        .unwrap();
        assert_eq!((read_template.patterns.as_slice(), warnings.len()), (&["logs-*".to_owned()][..], 1));
        assert!(read_template.definition.coerce && read_template.definition.fields.contains_key("level"));
        let again = shown("x", &read_template);
        assert_eq!(again["index_template"]["template"]["mappings"]["properties"]["level"]["type"], "keyword");
        assert_eq!(again["index_template"]["template"]["aliases"], json!({"logs": {}}));
        for (body, words) in [
            (json!({"index_patterns": ["a"], "composed_of": ["b"]}), "[composed_of]"),
            (json!({"index_patterns": ["a"], "data_stream": {}}), "[data_stream]"),
            (json!({"index_patterns": ["a"], "allow_auto_create": true}), "[allow_auto_create]"),
            (json!({"index_patterns": 7}), "[index_patterns]"),
            (json!({"index_patterns": ["a"], "priority": -1}), "[priority]"),
            (json!({"index_patterns": ["a"], "order": 1}), "[order]"),
            (json!({"index_patterns": ["a"], "template": {"lifecycle": {}}}), "[lifecycle]"),
            (json!({"index_patterns": ["a"], "template": {"aliases": {"x": {"filter": {}}}}}), "[filter]"),
            (json!({"index_patterns": ["a"], "template": {"mappings": {"runtime": {}}}}), "[runtime]"),
        ] {
            let error = read(&body).unwrap_err().to_json().to_string();
            assert!(error.contains(words), "{body}: {error}");
        }
    }
}
