//! Parameters in the query of a request: known names, each at most once. Pure.

use std::collections::BTreeMap;

use plugin::http::query::percent_decode;
use types::did_you_mean;

use super::error::EsError;
use crate::shard::{Condition, Refresh};

/// Parameters that can't change an answer here, or that every request takes.
const EVERYWHERE: [&str; 19] = [
    "allow_no_indices",
    "error_trace",
    "expand_wildcards",
    "filter_path",
    "flat_settings",
    "human",
    "ignore_unavailable",
    "include_defaults",
    "local",
    "master_timeout",
    "preference",
    "pretty",
    "realtime",
    "request_cache",
    "timeout",
    "wait_for_active_shards",
    "include_type_name",
    "cluster_manager_timeout",
    "wait_for_completion_timeout",
];
/// Those that may only have the value that says what is done anyway.
const FIXED: [(&str, &[&str]); 4] = [
    ("include_type_name", &["false"]),
    ("flat_settings", &["false"]),
    ("include_defaults", &["false"]),
    ("expand_wildcards", &["open", "all", "hidden", "open,hidden"]),
];
/// Parts of Elasticsearch's API that are not supported, which have a message of their own.
const UNSUPPORTED: [&str; 9] = [
    "routing",
    "version",
    "version_type",
    "pipeline",
    "require_data_stream",
    "list_executed_pipelines",
    "include_source_on_error",
    "stored_fields",
    "force_synthetic_source",
];

/// The parameters of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Parameters(BTreeMap<String, String>);

impl Parameters {
    /// Parses a query whose parameters must be among these, or among those that every request takes.
    pub(crate) fn parse(query: Option<&str>, known: &[&'static str]) -> Result<Self, EsError> {
        let mut found = BTreeMap::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if UNSUPPORTED.contains(&name.as_str()) && !known.contains(&name.as_str()) {
                return Err(EsError::unsupported(&name));
            }
            if !known.contains(&name.as_str()) && !EVERYWHERE.contains(&name.as_str()) {
                let near = did_you_mean(&name, known.iter().chain(&EVERYWHERE).copied());
                let near = near.map(|near| format!(" -> did you mean [{near}]?")).unwrap_or_default();
                return Err(EsError::illegal(format!(
                    "request contains unrecognized parameter: [{name}]{near}"
                )));
            }
            let fixed = FIXED.iter().find(|(fixed, _)| *fixed == name && !known.contains(fixed));
            if fixed.is_some_and(|(_, values)| !values.contains(&value.as_str())) {
                return Err(EsError::illegal(format!("[{name}] can't be [{value}]: that is not supported")));
            }
            if found.contains_key(&name) {
                return Err(EsError::illegal(format!("parameter [{name}] is given twice")));
            }
            found.insert(name, value);
        }
        Ok(Self(found))
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A flag: `true`, `false`, or only its name.
    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, EsError> {
        match self.text(name) {
            None => Ok(None),
            Some("" | "true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(other) => Err(EsError::illegal(format!(
                "Failed to parse value [{other}] of [{name}] as only [true] or [false] are allowed."
            ))),
        }
    }

    /// A list with commas between its elements.
    pub(crate) fn list(&self, name: &str) -> Option<Vec<&str>> {
        self.text(name).map(|text| text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect())
    }

    /// A whole number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, EsError> {
        let parse = |text: &str| {
            text.parse()
                .map_err(|_| EsError::illegal(format!("Failed to parse [{name}] with value [{text}]")))
        };
        self.text(name).map(parse).transpose()
    }

    /// When a write is answered.
    pub(crate) fn refresh(&self) -> Result<Refresh, EsError> {
        match self.text("refresh") {
            None | Some("false") => Ok(Refresh::Durable),
            Some("" | "true") => Ok(Refresh::Now),
            Some("wait_for") => Ok(Refresh::Wait),
            Some(other) => Err(EsError::illegal(format!("Unknown value for refresh: [{other}]."))),
        }
    }

    /// The condition of a write.
    pub(crate) fn condition(&self) -> Result<Option<Condition>, EsError> {
        condition(self.number("if_seq_no")?, self.number("if_primary_term")?)
    }
}

/// The condition that two numbers are.
pub(crate) fn condition(seq: Option<u64>, term: Option<u64>) -> Result<Option<Condition>, EsError> {
    match (seq, term) {
        (Some(seq), Some(term)) => Ok(Some(Condition::Is { seq, term })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(EsError::invalid(&["ifSeqNo is set, but primary term is [0]".to_owned()])),
        (None, Some(term)) => {
            Err(EsError::invalid(&[format!("ifSeqNo is unassigned, but primary term is [{term}]")]))
        }
    }
}

/// In queries, a plus is a space.
fn decode(text: &str) -> Result<String, EsError> {
    let bytes =
        percent_decode(&text.replace('+', " ")).map_err(|error| EsError::illegal(error.to_string()))?;
    String::from_utf8(bytes).map_err(|_| EsError::illegal("the query is no UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_unsupported_parameters_are_refused_by_name() {
        let parse = |query| Parameters::parse(Some(query), &["refresh", "if_seq_no", "if_primary_term"]);
        assert!(parse("pretty&timeout=1s&filter_path=a.*,-b&wait_for_active_shards=all").is_ok());
        for (query, words) in [
            ("routing=a", "[routing] is not supported"),
            ("refesh=true", "did you mean [refresh]"),
            ("nothing=1", "unrecognized parameter: [nothing]"),
            ("pretty&pretty", "given twice"),
            ("expand_wildcards=none", "can't be [none]"),
            ("a%", "hexadecimal"),
        ] {
            let error = parse(query).unwrap_err().to_json().to_string();
            assert!(error.contains(words), "{query}: {error}");
        }
        let found = parse("refresh&if_seq_no=3&if_primary_term=2").unwrap();
        assert_eq!(found.refresh(), Ok(Refresh::Now));
        assert_eq!(found.condition(), Ok(Some(Condition::Is { seq: 3, term: 2 })));
        assert!(parse("if_seq_no=3").unwrap().condition().is_err());
        assert!(parse("refresh=maybe").unwrap().refresh().is_err());
        assert_eq!(parse("preference=a+b%2B").unwrap().text("preference"), Some("a b+"));
    }
}
