//! Sort keys, sort values and the position in an order at which the next page begins. Pure.
//!
//! An order is total: after its keys come the document's number (`_seq`) and its shard, ascending. The values of a field at
//! which a path has several types are in the order numbers, dates, booleans, text. Of several values in one document the first
//! in the direction of the order counts: the smallest ascending, the largest descending. Numbers are compared exactly, but in a
//! segment in which a path has fractions, too, whole numbers above 2^53 are rounded. The texts of a document that has a date at
//! the same path do not count, since a dynamic text that is a date is indexed as both.

mod columns;
mod value;

#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

pub(super) use self::columns::{Raw, SegmentKeys};
pub(crate) use self::value::SortValue;
use super::request::shortened;
use crate::query::QueryError;

/// The most sort keys of a request.
const MAX_KEYS: usize = 8;

/// The name of a key that no document has a value for.
const UNMAPPED: &str = "_unmapped";

/// One key of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SortKey {
    pub(crate) field: SortField,
    pub(crate) is_descending: bool,
    /// Whether documents without a value come first, in either direction.
    pub(crate) is_missing_first: bool,
}

/// What a key compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SortField {
    Score,
    Seq,
    /// Nothing: no document has a value.
    Unmapped,
    Field(String),
}

/// A hit's place in an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cursor {
    /// One for each key.
    pub(crate) values: Vec<SortValue>,
    pub(crate) seq: u64,
    pub(crate) shard: u32,
}

impl SortKey {
    /// The order of a request without sort keys.
    pub(crate) const BY_SCORE: Self =
        Self { field: SortField::Score, is_descending: true, is_missing_first: false };

    /// Whether the key puts the best score first.
    pub(crate) fn is_best_first(&self) -> bool {
        self.field == SortField::Score && self.is_descending
    }

    /// Reads `sort`: a key, or a list of keys that are `"field"`, `"-field"` or `{"field", "order", "missing"}`. The score is
    /// descending unless an object says otherwise.
    pub(super) fn read_all(raw: &RawValue) -> Result<Vec<Self>, QueryError> {
        let keys = match serde_json::from_str(raw.get()) {
            Ok(Value::Array(keys)) => keys,
            Ok(key) => vec![key],
            Err(error) => return Err(mistake(error.to_string(), None)),
        };
        if keys.len() > MAX_KEYS {
            return Err(mistake(format!("there are at most {MAX_KEYS} keys"), None));
        }
        keys.iter().map(Self::read).collect()
    }

    fn read(key: &Value) -> Result<Self, QueryError> {
        match key {
            Value::String(text) => {
                let (name, is_descending) =
                    text.strip_prefix('-').map_or((text.as_str(), false), |name| (name, true));
                let field = SortField::read(name)?;
                let is_descending = is_descending || field == SortField::Score;
                Ok(Self { field, is_descending, is_missing_first: false })
            }
            Value::Object(members) => {
                const KNOWN: [&str; 3] = ["field", "order", "missing"];
                if let Some(unknown) = members.keys().find(|name| !KNOWN.contains(&name.as_str())) {
                    let near =
                        types::did_you_mean(unknown, KNOWN).map(|near| format!("did you mean `{near}`?"));
                    let hint = near.unwrap_or_else(|| format!("there are {}", KNOWN.join(", ")));
                    return Err(mistake(format!("a key has no member {}", shortened(unknown)), Some(hint)));
                }
                let text = |name: &str| members.get(name).map(|value| value.as_str().unwrap_or_default());
                let field = SortField::read(text("field").unwrap_or_default())?;
                let is_descending = match text("order") {
                    None => field == SortField::Score,
                    Some("asc") => false,
                    Some("desc") => true,
                    Some(_) => return Err(mistake("`order` is \"asc\" or \"desc\"".to_owned(), None)),
                };
                let is_missing_first = match text("missing") {
                    None | Some("last") => false,
                    Some("first") => true,
                    Some(_) => return Err(mistake("`missing` is \"first\" or \"last\"".to_owned(), None)),
                };
                Ok(Self { field, is_descending, is_missing_first })
            }
            other => Err(mistake(
                format!("a key is text or an object, not {}", shortened(&other.to_string())),
                Some("write for example \"-size\" or {\"field\": \"size\", \"order\": \"desc\"}".to_owned()),
            )),
        }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "field": self.field.name(),
            "order": if self.is_descending { "desc" } else { "asc" },
            "missing": if self.is_missing_first { "first" } else { "last" },
        })
    }

    /// The order of two values: documents without a value come first or last, in either direction.
    pub(super) fn order<T>(
        &self,
        left: Option<T>,
        right: Option<T>,
        compare: impl Fn(&T, &T) -> Ordering,
    ) -> Ordering {
        let missing = if self.is_missing_first { Ordering::Less } else { Ordering::Greater };
        match (left, right) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => missing,
            (Some(_), None) => missing.reverse(),
            (Some(left), Some(right)) if self.is_descending => compare(&right, &left),
            (Some(left), Some(right)) => compare(&left, &right),
        }
    }
}

impl SortField {
    fn read(name: &str) -> Result<Self, QueryError> {
        match name {
            "" => Err(mistake("a key names no field".to_owned(), None)),
            "_score" => Ok(Self::Score),
            "_seq" => Ok(Self::Seq),
            UNMAPPED => Ok(Self::Unmapped),
            name => Ok(Self::Field(name.to_owned())),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Score => "_score",
            Self::Seq => "_seq",
            Self::Unmapped => UNMAPPED,
            Self::Field(name) => name,
        }
    }
}

impl Cursor {
    /// Reads `search_after`: a value for each key, the document's number and its shard.
    pub(super) fn read(raw: &RawValue, keys: &[SortKey]) -> Result<Self, QueryError> {
        let wrong = |message: String| QueryError {
            message: format!("`search_after`: {message}"),
            at: None,
            hint: Some(
                "send the `next` of the last answer, or the `sort` of a hit, with the same `sort`".to_owned(),
            ),
        };
        let values: Vec<Box<RawValue>> =
            serde_json::from_str(raw.get()).map_err(|_| wrong("it is a list".to_owned()))?;
        let keys = keys.len().max(1);
        let (values, position) = match values.len().checked_sub(2) {
            Some(count) if count == keys => values.split_at(count),
            _ => return Err(wrong(format!("it has {} values, not {}", keys + 2, values.len()))),
        };
        let read = |raw: &RawValue| {
            SortValue::read(raw).ok_or_else(|| wrong(format!("{} is not a sort value", shortened(raw.get()))))
        };
        let number = |raw: &RawValue| raw.get().parse::<u64>().ok();
        let (Some(seq), Some(shard)) =
            (number(&position[0]), number(&position[1]).and_then(|shard| u32::try_from(shard).ok()))
        else {
            return Err(wrong("its last two values are whole numbers".to_owned()));
        };
        Ok(Self { values: values.iter().map(|raw| read(raw)).collect::<Result<_, _>>()?, seq, shard })
    }

    /// As hits have it in `sort`, and answers in `next`.
    pub(crate) fn to_json(&self) -> Vec<Value> {
        let position = [Value::from(self.seq), Value::from(self.shard)];
        self.values.iter().map(SortValue::to_json).chain(position).collect()
    }

    /// The order of two places.
    pub(crate) fn order(&self, other: &Self, keys: &[SortKey]) -> Ordering {
        let values = keys.iter().zip(self.values.iter().zip(&other.values));
        let by_values = values
            .map(|(key, (left, right))| {
                key.order(left.known(), right.known(), |left, right| left.order(right))
            })
            .find(|order| order.is_ne());
        by_values
            .unwrap_or(Ordering::Equal)
            .then_with(|| (self.seq, self.shard).cmp(&(other.seq, other.shard)))
    }
}

fn mistake(mut message: String, hint: Option<String>) -> QueryError {
    message.insert_str(0, "`sort`: ");
    QueryError { message, at: None, hint }
}
