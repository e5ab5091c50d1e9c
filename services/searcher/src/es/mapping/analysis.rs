//! `settings.analysis`: analyzers and normalizers of an index, as far as they are among ours.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::super::error::EsError;
use crate::definition::{Analyzer, Normalizer};

/// Elasticsearch's names of analyzers. `standard` removes diacritics here, too.
pub(super) const BUILT_IN: [(&str, Analyzer); 20] = [
    ("standard", Analyzer::Default),
    ("arabic", Analyzer::Ar),
    ("danish", Analyzer::Da),
    ("german", Analyzer::De),
    ("greek", Analyzer::El),
    ("english", Analyzer::En),
    ("spanish", Analyzer::Es),
    ("finnish", Analyzer::Fi),
    ("french", Analyzer::Fr),
    ("hungarian", Analyzer::Hu),
    ("italian", Analyzer::It),
    ("dutch", Analyzer::Nl),
    ("norwegian", Analyzer::No),
    ("portuguese", Analyzer::Pt),
    ("romanian", Analyzer::Ro),
    ("russian", Analyzer::Ru),
    ("swedish", Analyzer::Sv),
    ("turkish", Analyzer::Tr),
    ("tamil", Analyzer::Ta),
    ("cjk", Analyzer::Cjk),
];

/// The analyzers and normalizers that an index names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Analysis {
    analyzers: BTreeMap<String, Analyzer>,
    normalizers: BTreeMap<String, Normalizer>,
    /// That of text fields which name none.
    pub(crate) default: Analyzer,
}

fn refused(reason: String) -> EsError {
    EsError::illegal(reason)
}

impl Analysis {
    pub(crate) fn parse(value: &Value) -> Result<Self, EsError> {
        let mut analysis = Self::default();
        for (section, value) in object(value, "analysis")? {
            match section.as_str() {
                "analyzer" => {
                    for (name, value) in object(value, section)? {
                        let analyzer = analyzer(name, object(value, name)?)?;
                        if name == "default" {
                            analysis.default = analyzer;
                        }
                        analysis.analyzers.insert(name.clone(), analyzer);
                    }
                }
                "normalizer" => {
                    for (name, value) in object(value, section)? {
                        let normalizer = normalizer(name, object(value, name)?)?;
                        analysis.normalizers.insert(name.clone(), normalizer);
                    }
                }
                other => {
                    if value.as_object().is_none_or(|members| !members.is_empty()) {
                        return Err(EsError::unsupported(&format!("analysis.{other}")));
                    }
                }
            }
        }
        Ok(analysis)
    }

    pub(crate) fn analyzer(&self, name: &str) -> Result<Analyzer, EsError> {
        let found = self.analyzers.get(name).copied().or_else(|| super::built_in(name));
        found.ok_or_else(|| {
            refused(format!("analyzer [{name}] is not supported, or not in the settings of the index"))
        })
    }

    pub(crate) fn normalizer(&self, name: &str) -> Result<Normalizer, EsError> {
        let built_in = (name == "lowercase").then_some(Normalizer::Lowercase);
        let found = self.normalizers.get(name).copied().or(built_in);
        found.ok_or_else(|| refused(format!("normalizer [{name}] is not in the settings of the index")))
    }
}

fn object<'a>(value: &'a Value, what: &str) -> Result<&'a Map<String, Value>, EsError> {
    value.as_object().ok_or_else(|| refused(format!("[{what}] is no object")))
}

/// The names of filters; a single one may stand without a list.
fn filters<'a>(members: &'a Map<String, Value>, name: &str) -> Result<Vec<&'a str>, EsError> {
    let bad = || refused(format!("[filter] of [{name}] is no list of names"));
    match members.get("filter") {
        None => Ok(Vec::new()),
        Some(Value::String(filter)) => Ok(vec![filter]),
        Some(Value::Array(filters)) => filters.iter().map(|filter| filter.as_str().ok_or_else(bad)).collect(),
        Some(_) => Err(bad()),
    }
}

fn analyzer(name: &str, members: &Map<String, Value>) -> Result<Analyzer, EsError> {
    let unsupported = |what: String| refused(format!("{what} of analyzer [{name}] is not supported"));
    let kind = members.get("type").map_or(Some("custom"), Value::as_str).unwrap_or_default();
    let known: &[&str] =
        if kind == "custom" { &["type", "tokenizer", "filter", "char_filter"] } else { &["type"] };
    if let Some(member) = members.keys().find(|member| !known.contains(&member.as_str())) {
        return Err(unsupported(format!("[{member}]")));
    }
    if kind != "custom" {
        return super::built_in(kind).ok_or_else(|| unsupported(format!("[type: {kind}]")));
    }
    match members.get("tokenizer").and_then(Value::as_str) {
        Some("standard") => {}
        other => return Err(unsupported(format!("[tokenizer: {}]", other.unwrap_or_default()))),
    }
    let has_char_filter =
        members.get("char_filter").is_some_and(|value| value.as_array().is_none_or(|list| !list.is_empty()));
    if has_char_filter {
        return Err(unsupported("[char_filter]".to_owned()));
    }
    let filters = filters(members, name)?;
    if let Some(filter) = filters.iter().find(|filter| !matches!(**filter, "lowercase" | "asciifolding")) {
        return Err(unsupported(format!("[filter: {filter}]")));
    }
    if !filters.contains(&"lowercase") {
        return Err(unsupported(
            "text in upper and lower case: without the filter [lowercase], that".to_owned(),
        ));
    }
    Ok(Analyzer::Default)
}

fn normalizer(name: &str, members: &Map<String, Value>) -> Result<Normalizer, EsError> {
    let unsupported = |what: String| refused(format!("{what} of normalizer [{name}] is not supported"));
    let kind = members.get("type").map_or(Some("custom"), Value::as_str).unwrap_or_default();
    if kind == "lowercase" {
        return Ok(Normalizer::Lowercase);
    }
    if kind != "custom" {
        return Err(unsupported(format!("[type: {kind}]")));
    }
    if let Some(member) = members.keys().find(|member| !matches!(member.as_str(), "type" | "filter")) {
        return Err(unsupported(format!("[{member}]")));
    }
    match filters(members, name)?.as_slice() {
        [] => Ok(Normalizer::None),
        ["lowercase"] => Ok(Normalizer::Lowercase),
        other => Err(unsupported(format!("[filter: {}]", other.join(", ")))),
    }
}
