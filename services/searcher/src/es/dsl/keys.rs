//! The keys of a clause, read as leniently as Elasticsearch does: numbers and booleans may be texts.

use serde_json::{Map, Value};
use types::did_you_mean;

use super::{DslError, boosted};
use crate::query::condition::{Minimum, Scalar};
use crate::query::{MAX_BOOST, Node};

/// The checked keys of a clause.
pub(super) struct Keys<'a> {
    name: &'static str,
    members: &'a Map<String, Value>,
}

/// A text for a message.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// The keys that are refused in every query.
const REFUSED: [(&str, &str); 4] = [
    ("_name", "named queries are not supported"),
    ("analyzer", "the analyzer of the field is used"),
    ("rewrite", "it is chosen here"),
    ("script", "scripts are not supported"),
];

impl<'a> Keys<'a> {
    /// The keys of a query's body.
    pub(super) fn of(name: &'static str, body: &'a Value, known: &[&str]) -> Result<Self, DslError> {
        let Value::Object(members) = body else {
            return Err(DslError::parsing(format!(
                "[{name}] query malformed, no start_object after query name"
            )));
        };
        for key in members.keys() {
            if !known.contains(&key.as_str()) {
                return Err(unknown(name, key, known));
            }
        }
        Ok(Self { name, members })
    }

    /// The field of a query and what is said of it: a value, which is the first of the keys, or an object with keys.
    pub(super) fn of_field(
        name: &'static str,
        body: &'a Value,
        known: &[&str],
    ) -> Result<(String, Field<'a>), DslError> {
        let Value::Object(members) = body else {
            return Err(DslError::parsing(format!(
                "[{name}] query malformed, no start_object after query name"
            )));
        };
        let mut members = members.iter();
        let (Some((field, body)), None) = (members.next(), members.next()) else {
            return Err(DslError::parsing(format!("[{name}] query wants exactly one field")));
        };
        let field = checked_field(name, field)?;
        let body = match body {
            Value::Object(_) => Field::Keys(Self::of(name, body, known)?),
            Value::Array(_) => {
                return Err(DslError::parsing(format!(
                    "[{name}] query does not support an array of values for [{field}]"
                )));
            }
            scalar => Field::Value(scalar),
        };
        Ok((field, body))
    }

    pub(super) fn raw(&self, key: &str) -> Option<&'a Value> {
        self.members.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn wrong(&self, key: &str, what: &str) -> DslError {
        let value = self.members.get(key).map_or_else(String::new, |value| shortened(&value.to_string()));
        DslError::parsing(format!("[{}] query: [{key}] is {what}, not [{value}]", self.name))
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, DslError> {
        match self.raw(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(key, "text")),
        }
    }

    /// One of some words, in any case.
    pub(super) fn word<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Result<Option<T>, DslError> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
        let names = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        found.map(|(_, value)| Some(*value)).ok_or_else(|| self.wrong(key, &format!("one of {}", names())))
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, DslError> {
        match self.raw(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(Value::String(text)) if text == "true" => Ok(Some(true)),
            Some(Value::String(text)) if text == "false" || text.is_empty() => Ok(Some(false)),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, DslError> {
        let Some(value) = self.raw(key) else { return Ok(None) };
        let number = match value {
            Value::String(text) => text.parse().ok(),
            value => value.as_f64(),
        };
        number.filter(|number: &f64| number.is_finite()).map(Some).ok_or_else(|| self.wrong(key, "a number"))
    }

    /// A whole number within a limit.
    pub(super) fn whole(&self, key: &str, most: usize) -> Result<Option<usize>, DslError> {
        let Some(value) = self.raw(key) else { return Ok(None) };
        let number = match value {
            Value::String(text) => text.parse().ok(),
            value => value.as_u64().and_then(|number| usize::try_from(number).ok()),
        };
        let number = number.filter(|number| *number <= most);
        number.map(Some).ok_or_else(|| self.wrong(key, &format!("a whole number from 0 to {most}")))
    }

    #[expect(clippy::cast_possible_truncation, reason = "it is within a small range")]
    pub(super) fn boost(&self, key: &str) -> Result<f32, DslError> {
        match self.number(key)? {
            None => Ok(1.0),
            Some(boost) if (0.0..=f64::from(MAX_BOOST)).contains(&boost) => Ok(boost as f32),
            Some(_) => Err(self.wrong(key, &format!("a number from 0 to {MAX_BOOST}"))),
        }
    }

    /// A node with the boost of the clause.
    pub(super) fn boosted(&self, node: Node) -> Result<Node, DslError> {
        Ok(boosted(node, self.boost("boost")?))
    }

    pub(super) fn minimum(&self) -> Result<Option<Minimum>, DslError> {
        const KEY: &str = "minimum_should_match";
        let text = match self.raw(KEY) {
            None => return Ok(None),
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        };
        let what = "a number, a percentage, or rules such as [2<75%]";
        Minimum::parse(&text).map(Some).ok_or_else(|| self.wrong(KEY, what))
    }

    pub(super) fn scalar(&self, key: &str) -> Result<Option<Scalar>, DslError> {
        self.raw(key).map(|value| scalar(self.name, value)).transpose()
    }

    pub(super) fn needed<T>(&self, key: &str, value: Option<T>) -> Result<T, DslError> {
        value.ok_or_else(|| DslError::parsing(format!("[{}] query needs [{key}]", self.name)))
    }

    /// Refuses everything but one value of a key.
    pub(super) fn only(&self, key: &str, wanted: &[&str]) -> Result<(), DslError> {
        let text = match self.raw(key) {
            None => return Ok(()),
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        };
        match wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(&text)) {
            true => Ok(()),
            false => {
                let reason =
                    format!("[{}] query does not support [{key}] of [{}]", self.name, shortened(&text));
                Err(DslError::illegal(reason))
            }
        }
    }
}

/// What is said of the field of a query.
pub(super) enum Field<'a> {
    Value(&'a Value),
    Keys(Keys<'a>),
}

impl<'a> Field<'a> {
    /// The value, and the keys beside it.
    pub(super) fn value(
        &self,
        name: &'static str,
        key: &str,
    ) -> Result<(Scalar, Option<&Keys<'a>>), DslError> {
        match self {
            Self::Value(Value::Null) => Err(DslError::parsing(format!("[{name}] query: the value is null"))),
            Self::Value(value) => Ok((scalar(name, value)?, None)),
            Self::Keys(keys) => Ok((keys.needed(key, keys.scalar(key)?)?, Some(keys))),
        }
    }
}

pub(super) fn scalar(name: &str, value: &Value) -> Result<Scalar, DslError> {
    let text = match value {
        Value::String(text) => return Ok(Scalar { text: text.clone(), is_text: true }),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            let reason = format!("[{name}] query wants a value, not [{}]", shortened(&value.to_string()));
            return Err(DslError::parsing(reason));
        }
    };
    Ok(Scalar { text, is_text: false })
}

/// The name of a field in an index: `_seq_no` is `_seq`.
pub(super) fn checked_field(name: &str, field: &str) -> Result<String, DslError> {
    match field {
        "" => Err(DslError::illegal(format!("[{name}] query: the name of the field is empty"))),
        "_id" => Ok("_id".to_owned()),
        "_seq_no" => Ok("_seq".to_owned()),
        field if field.starts_with('_') && RESERVED.contains(&field) => {
            Err(DslError::illegal(format!("[{name}] query does not support the field [{field}]")))
        }
        field if field.contains('*') => {
            let reason = format!(
                "[{name}] query does not support the pattern [{}]: name the fields",
                shortened(field)
            );
            Err(DslError::illegal(reason))
        }
        field => Ok(field.to_owned()),
    }
}

/// Elasticsearch's own fields that are not searched here.
const RESERVED: [&str; 10] = [
    "_index",
    "_source",
    "_routing",
    "_ignored",
    "_tier",
    "_type",
    "_version",
    "_primary_term",
    "_field_names",
    "_nested_path",
];

/// The refusal of a key that a clause does not have.
pub(super) fn unknown(name: &str, key: &str, known: &[&str]) -> DslError {
    if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == key) {
        return DslError::parsing(format!("[{name}] query does not support [{key}]: {why}"));
    }
    let near = did_you_mean(key, known.iter().copied());
    let near = near.map_or_else(String::new, |near| format!(" did you mean [{near}]?"));
    DslError::parsing(format!("[{name}] query does not support [{}]{near}", shortened(key)))
}
