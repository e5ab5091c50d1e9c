//! The members of a body with their JSON as it was sent, and the parameters of a request among them. Pure.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use types::did_you_mean;

use crate::es::error::EsError;
use crate::es::parameters::Parameters;
use crate::es::unique;

/// The members of a body by name; numbers keep all their digits.
#[derive(Debug, Clone, Default)]
pub(super) struct Members(BTreeMap<String, Box<RawValue>>);

impl Members {
    /// Reads a body, which may be empty.
    pub(super) fn read(body: &[u8]) -> Result<Self, EsError> {
        if body.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let members = unique::read(body);
        members.map(Self).map_err(|error| EsError::parsing(format!("the body is not a JSON object: {error}")))
    }

    /// Refuses members that are not known. Those that are refused by name may be there if they are empty or `false`.
    pub(super) fn check(&self, known: &[&str], refused: &[&str]) -> Result<(), EsError> {
        for (name, value) in &self.0 {
            if known.contains(&name.as_str()) {
                continue;
            }
            if refused.contains(&name.as_str()) {
                if matches!(value.get(), "null" | "false" | "[]" | "{}") {
                    continue;
                }
                return Err(EsError::illegal(format!("[{name}] is not supported")));
            }
            let near = did_you_mean(name, known.iter().copied());
            let near = near.map(|near| format!(" did you mean [{near}]?")).unwrap_or_default();
            return Err(EsError::parsing(format!("unknown key [{name}] in the body of a search{near}")));
        }
        Ok(())
    }

    pub(super) fn raw(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|raw| raw.get()).filter(|text| *text != "null")
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    pub(super) fn set(&mut self, name: &str, value: &Value) {
        self.0.insert(name.to_owned(), to_raw_value(value).expect("a JSON value is JSON"));
    }

    pub(super) fn set_raw(&mut self, name: &str, text: String) {
        if let Ok(raw) = RawValue::from_string(text) {
            self.0.insert(name.to_owned(), raw);
        }
    }

    /// Reads a member; `what` says what it must be.
    pub(super) fn get<T: DeserializeOwned>(&self, name: &str, what: &str) -> Result<Option<T>, EsError> {
        let Some(text) = self.raw(name) else { return Ok(None) };
        let value = serde_json::from_str(text);
        value.map(Some).map_err(|_| EsError::parsing(format!("[{name}] is {what}")))
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, EsError> {
        match self.raw(name) {
            None | Some("false" | "\"false\"") => Ok(false),
            Some("true" | "\"true\"") => Ok(true),
            Some(_) => Err(EsError::parsing(format!("[{name}] is true or false"))),
        }
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<usize>, EsError> {
        let Some(text) = self.raw(name) else { return Ok(None) };
        let number = text.trim_matches('"').parse();
        number.map(Some).map_err(|_| EsError::parsing(format!("[{name}] is a whole number, not [{text}]")))
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(&self.0).expect("JSON texts by name are JSON")
    }

    /// Adds the parameters of a request, which come before the members of its body.
    pub(super) fn add(&mut self, parameters: &Parameters) -> Result<(), EsError> {
        for name in ["from", "size"] {
            if let Some(number) = parameters.number(name)? {
                self.set(name, &json!(number));
            }
        }
        for name in ["explain", "version", "seq_no_primary_term", "track_scores"] {
            if let Some(flag) = parameters.flag(name)? {
                self.set(name, &json!(flag));
            }
        }
        if let Some(text) = parameters.text("track_total_hits") {
            let value = text.parse::<u64>().map_or_else(|_| json!(text), |number| json!(number));
            self.set("track_total_hits", &if text.is_empty() { json!(true) } else { value });
        }
        for name in ["timeout", "stored_fields"] {
            if let Some(text) = parameters.text(name) {
                self.set(name, &json!(text));
            }
        }
        if let Some(keys) = parameters.list("sort") {
            let key = |key: &&str| match key.rsplit_once(':') {
                Some((field, order)) => json!({ field: order }),
                None => json!(key),
            };
            self.set("sort", &keys.iter().map(key).collect());
        }
        match parameters.list("_source") {
            None => {}
            Some(list) if list == ["true"] || list.is_empty() => self.set("_source", &json!(true)),
            Some(list) if list == ["false"] => self.set("_source", &json!(false)),
            Some(list) => self.set("_source", &json!(list)),
        }
        let (includes, excludes) = (parameters.list("_source_includes"), parameters.list("_source_excludes"));
        if includes.is_some() || excludes.is_some() {
            let includes = includes.or_else(|| parameters.list("_source").filter(|list| list != &["true"]));
            let patterns = json!({
                "includes": includes.unwrap_or_default(),
                "excludes": excludes.unwrap_or_default(),
            });
            self.set("_source", &patterns);
        }
        if let Some(query) = text_query(parameters)? {
            self.set("query", &query);
        }
        Ok(())
    }
}

/// The query of the parameter `q`.
pub(super) fn text_query(parameters: &Parameters) -> Result<Option<Value>, EsError> {
    let Some(text) = parameters.text("q") else { return Ok(None) };
    let mut query = json!({ "query": text });
    for (parameter, key) in [("df", "default_field"), ("default_operator", "default_operator")] {
        if let Some(value) = parameters.text(parameter) {
            query[key] = json!(value);
        }
    }
    for flag in ["lenient", "analyze_wildcard"] {
        if let Some(value) = parameters.flag(flag)? {
            query[flag] = json!(value);
        }
    }
    Ok(Some(json!({ "query_string": query })))
}
