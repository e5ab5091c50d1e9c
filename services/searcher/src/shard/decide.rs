//! Decides what a write does to the document that its id has. Pure.

use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;

use super::{Change, Condition, Outcome, Refused, Write};
use crate::document::{DocumentError, Reading, read};
use crate::operation::{MAX_SOURCE, in_one_line};
use crate::schema::IndexSchema;

/// What a write does.
#[derive(Debug, Clone)]
pub(crate) enum Decision {
    /// It is written with this version and source.
    Log {
        version: u64,
        source: Option<Arc<RawValue>>,
        /// The undeclared fields of the document.
        paths: Vec<String>,
        outcome: Outcome,
    },
    /// Nothing is written.
    Nothing { seq: u64, term: u64, version: u64, outcome: Outcome },
}

/// The document that an id has.
#[derive(Debug, Clone)]
pub(crate) struct Present {
    pub(crate) seq: u64,
    pub(crate) term: u64,
    pub(crate) version: u64,
    /// Left out unless [`needs_source`].
    pub(crate) source: Option<Arc<RawValue>>,
}

/// Whether the decision needs the source of the present document.
pub(crate) fn needs_source(write: &Write) -> bool {
    matches!(write.change, Change::Merge { .. })
}

/// Decides a write, given the document that its id has now.
pub(crate) fn decide(write: &Write, present: Option<&Present>) -> Result<Decision, Refused> {
    check(write.condition, present)?;
    let schema = &write.index.schema;
    let put = |source: Box<RawValue>| {
        let (source, paths) = fitting(source, schema)?;
        let outcome = if present.is_some() { Outcome::Updated } else { Outcome::Created };
        let version = present.map_or(0, |present| present.version) + 1;
        Ok(Decision::Log { version, source: Some(source), paths, outcome })
    };
    match (&write.change, present) {
        (Change::Put(source), _) => put(source.clone()),
        (Change::Delete, Some(present)) => {
            let (version, paths) = (present.version + 1, Vec::new());
            Ok(Decision::Log { version, source: None, paths, outcome: Outcome::Deleted })
        }
        (Change::Delete, None) => {
            Ok(Decision::Nothing { seq: 0, term: 0, version: 0, outcome: Outcome::NotFound })
        }
        (Change::Merge { upsert, .. }, None) => put(upsert.clone().ok_or(Refused::NoDocument)?),
        (Change::Merge { patch, detect_noop, .. }, Some(present)) => {
            let source = present.source.as_deref().expect("it is looked up for every merge");
            // What is wrong with the patch itself would not show in the merged document.
            read(patch.get(), Reading::Strict, |_, _| Ok(())).map_err(|error| of_document(&error))?;
            let before = parse(source)?;
            let mut after = before.clone();
            merge(&mut after, parse(patch)?);
            if *detect_noop && after == before {
                let Present { seq, term, version, .. } = *present;
                return Ok(Decision::Nothing { seq, term, version, outcome: Outcome::Noop });
            }
            let merged = serde_json::value::to_raw_value(&after);
            put(merged.map_err(|error| Refused::Document(error.to_string()))?)
        }
    }
}

fn check(condition: Option<Condition>, present: Option<&Present>) -> Result<(), Refused> {
    let now = present.map(|present| present.seq);
    let holds = match condition {
        None => true,
        Some(Condition::Absent) => present.is_none(),
        Some(Condition::Is { seq, term }) => {
            present.is_some_and(|present| (present.seq, present.term) == (seq, term))
        }
        Some(Condition::Unchanged { seq }) => now == Some(seq),
        Some(Condition::Older { seq }) => now.is_none_or(|now| now < seq),
    };
    if holds { Ok(()) } else { Err(Refused::Changed { now }) }
}

/// Checks everything for which a document can be refused by itself, since nothing can be refused once it is durable. Returns its
/// undeclared fields, too.
fn fitting(source: Box<RawValue>, schema: &IndexSchema) -> Result<(Arc<RawValue>, Vec<String>), Refused> {
    let len = source.get().len();
    if len > MAX_SOURCE {
        return Err(Refused::Document(format!("it has {len} bytes; at most {MAX_SOURCE} are allowed")));
    }
    if !source.get().trim_ascii_start().starts_with('{') {
        return Err(Refused::Document("it is no JSON object".to_owned()));
    }
    let source = in_one_line(source);
    let paths = schema.dynamic_paths(source.get());
    Ok((source, paths.map_err(|error| of_document(&error))?))
}

fn of_document(error: &DocumentError) -> Refused {
    Refused::Document(error.to_string())
}

fn parse(source: &RawValue) -> Result<Value, Refused> {
    serde_json::from_str(source.get()).map_err(|error| Refused::Document(error.to_string()))
}

/// Merges a patch: objects deeply, everything else is replaced; `null` is a value.
fn merge(into: &mut Value, patch: Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (name, value) in patch {
                match into.get_mut(&name) {
                    Some(present) => merge(present, value),
                    None => {
                        into.insert(name, value);
                    }
                }
            }
        }
        (into, patch) => *into = patch,
    }
}

#[cfg(test)]
mod tests;
