//! Templates: what an index gets whose name matches a pattern, when a request creates it. Pure.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use types::did_you_mean;

use super::alias::AliasOptions;
use super::name::{NameError, check_name};
use super::record::{Change, Record};
use crate::definition::PartialDefinition;
use crate::glob::matches;

/// How many templates a service may have.
pub(crate) const MAX_TEMPLATES: usize = 200;
/// How many patterns a template may have.
const MAX_PATTERNS: usize = 10;
/// How much room all templates may take in the catalog, in bytes of JSON.
const MAX_BYTES: usize = 2 * 1024 * 1024;

/// What an index gets whose name matches.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Template {
    /// The names of the indexes, at least one pattern and at most 10; `*` stands for any characters.
    pub(crate) patterns: Vec<String>,
    /// Of the templates that match a name, the one with the highest priority is used. 0 unless given.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) priority: u32,
    /// What the index gets. What the request that creates it defines counts before that.
    pub(crate) definition: PartialDefinition,
    /// The aliases that the index gets.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) aliases: BTreeMap<String, AliasOptions>,
    /// A number for its users, without a meaning here.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    pub(crate) version: Option<i64>,
    /// Notes for its users, without a meaning here.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Map<String, Value>")]
    pub(crate) meta: Option<Map<String, Value>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(priority: &u32) -> bool {
    *priority == 0
}

/// Why a template is refused. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    /// Choose another name.
    #[error("a template can't be `{name}`: {error}")]
    Name { name: String, error: NameError },
    #[error("a template has 1 to {MAX_PATTERNS} patterns, and this one has {0}")]
    Patterns(usize),
    #[error("no index has a name that matches `{pattern}`: {error}")]
    Pattern { pattern: String, error: NameError },
    #[error("an alias can't be `{name}`: {error}")]
    Alias { name: String, error: NameError },
    /// The definition is wrong: each mistake with its place.
    #[error("{0}")]
    Definition(String),
    /// Choose another priority.
    #[error(
        "the template `{other}` has the same priority, {priority}, and its pattern `{theirs}` may match the same names as `{ours}`"
    )]
    Overlap { other: String, priority: u32, ours: String, theirs: String },
    /// Choose another name, or ask for a replacement.
    #[error("there is a template `{0}` already")]
    Exists(String),
    /// Delete one that is no longer needed.
    #[error("there are {MAX_TEMPLATES} templates already, as many as a service may have")]
    TooMany,
    /// Declare less in it, or delete one that is no longer needed.
    #[error("all templates together would take {0} bytes; at most {MAX_BYTES} are allowed")]
    TooLarge(usize),
}

/// There is no such template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no template `{name}`")]
pub(crate) struct NoSuchTemplate {
    pub(crate) name: String,
    /// A template with a similar name.
    pub(crate) similar: Option<String>,
}

impl NoSuchTemplate {
    pub(crate) fn among<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Self {
        Self { name: name.to_owned(), similar: did_you_mean(name, names).map(str::to_owned) }
    }
}

impl Template {
    /// Checks what concerns this template alone.
    pub(crate) fn check(&self, name: &str) -> Result<(), TemplateError> {
        check_name(name).map_err(|error| TemplateError::Name { name: name.to_owned(), error })?;
        if self.patterns.is_empty() || self.patterns.len() > MAX_PATTERNS {
            return Err(TemplateError::Patterns(self.patterns.len()));
        }
        for pattern in &self.patterns {
            // A star may stand for any letters, so one of them shows whether the rest can be in a name.
            check_name(&pattern.replace('*', "x"))
                .map_err(|error| TemplateError::Pattern { pattern: pattern.clone(), error })?;
        }
        for alias in self.aliases.keys() {
            check_name(alias).map_err(|error| TemplateError::Alias { name: alias.clone(), error })?;
        }
        self.definition.check().map_err(|error| TemplateError::Definition(error.to_string()))
    }

    /// The first of its patterns, and of another one's, that may match the same name.
    fn overlap<'a>(&'a self, other: &'a Self) -> Option<(&'a str, &'a str)> {
        let pairs =
            self.patterns.iter().flat_map(|ours| other.patterns.iter().map(move |theirs| (ours, theirs)));
        pairs
            .map(|(ours, theirs)| (ours.as_str(), theirs.as_str()))
            .find(|(ours, theirs)| overlap(ours, theirs))
    }
}

/// Whether there is a name that two patterns match.
fn overlap(one: &str, other: &str) -> bool {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    // For each place in the other pattern: whether what is before both places can be the same text.
    let mut row = vec![false; other.len() + 1];
    row[0] = true;
    let over_stars = |row: &mut Vec<bool>| {
        for at in 0..other.len() {
            row[at + 1] |= row[at] && other[at] == '*';
        }
    };
    over_stars(&mut row);
    for letter in one {
        let mut next = vec![false; other.len() + 1];
        for at in (0..=other.len()).filter(|at| row[*at]) {
            if letter == '*' {
                // It stands for nothing, or for what the other pattern goes on with.
                next[at..].fill(true);
                break;
            }
            match other.get(at) {
                Some('*') => next[at] = true,
                Some(theirs) if *theirs == letter => next[at + 1] = true,
                Some(_) | None => {}
            }
        }
        row = next;
        over_stars(&mut row);
        if !row.contains(&true) {
            return false;
        }
    }
    row[other.len()]
}

/// The template for a new index.
pub(crate) fn matching<'a>(record: &'a Record, name: &str) -> Option<(&'a str, &'a Template)> {
    let is_match = |template: &Template| template.patterns.iter().any(|pattern| matches(pattern, name));
    let matching = record.templates.iter().filter(|(_, template)| is_match(template));
    matching.max_by_key(|(_, template)| template.priority).map(|(name, template)| (name.as_str(), template))
}

/// Creates a template, or replaces it. Returns whether it was created.
pub(crate) fn put(
    record: &Record,
    name: &str,
    template: &Template,
    must_be_new: bool,
) -> Result<(Change, bool), TemplateError> {
    template.check(name)?;
    let former = record.templates.get(name);
    if must_be_new && former.is_some() {
        return Err(TemplateError::Exists(name.to_owned()));
    }
    if former == Some(template) {
        return Ok((Change::Nothing, false));
    }
    if former.is_none() && record.templates.len() >= MAX_TEMPLATES {
        return Err(TemplateError::TooMany);
    }
    let others = record.templates.iter().filter(|(other, _)| *other != name);
    for (other, theirs) in others.filter(|(_, other)| other.priority == template.priority) {
        if let Some((ours, theirs)) = template.overlap(theirs) {
            let (other, priority) = (other.clone(), template.priority);
            let (ours, theirs) = (ours.to_owned(), theirs.to_owned());
            return Err(TemplateError::Overlap { other, priority, ours, theirs });
        }
    }
    let mut next = record.clone();
    next.templates.insert(name.to_owned(), template.clone());
    let bytes = serde_json::to_vec(&next.templates).expect("strings and numbers are written to memory").len();
    if bytes > MAX_BYTES {
        return Err(TemplateError::TooLarge(bytes));
    }
    Ok((Change::To(next), former.is_none()))
}

/// Deletes templates: the one with a name, or all that match a pattern, which may be none.
pub(crate) fn delete_templates(record: &Record, name: &str) -> Result<Change, NoSuchTemplate> {
    let mut next = record.clone();
    next.templates.retain(|known, _| !matches(name, known));
    if next.templates.len() < record.templates.len() {
        return Ok(Change::To(next));
    }
    match name.contains('*') {
        true => Ok(Change::Nothing),
        false => Err(NoSuchTemplate::among(name, record.templates.keys().map(String::as_str))),
    }
}

#[cfg(test)]
mod tests;
