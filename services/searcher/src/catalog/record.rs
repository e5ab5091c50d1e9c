//! What the catalog's log records, and how a request changes it. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use types::did_you_mean;
use uuid::Uuid;

use super::alias::{self, AliasError, AliasOptions, AliasRecord};
use super::auto_create::AutoCreate;
use super::name::{NameError, check_name};
use super::template::{Template, matching};
use crate::definition::extend::Conflict;
use crate::definition::{Definition, PartialDefinition};

/// The largest number of indexes of a service.
pub(crate) const MAX_INDEXES: usize = 200;

/// All indexes. A version of Coterie that does not know a member of it refuses the record.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) indexes: BTreeMap<String, IndexRecord>,
    /// Which indexes a first write creates, if a request has set it; else the settings say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) auto_create: Option<AutoCreate>,
    /// Names for indexes. None is the name of an index.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) aliases: BTreeMap<String, AliasRecord>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) templates: BTreeMap<String, Template>,
}

/// One index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IndexRecord {
    /// Unique for each creation.
    pub(crate) uuid: Uuid,
    /// The definition with which it was created.
    pub(crate) created: Definition,
    /// Its definition now.
    pub(crate) now: Definition,
    /// How often it was defined: 1 when it is created, and one more for each change.
    pub(crate) version: u64,
    /// When the store had the first record with it, in milliseconds since 1970 by the store's clock. The record after that one
    /// has it, for only then it is known. If an older version wrote that record, it is the time of a later one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stored_at: Option<i64>,
}

impl Record {
    /// Notes when the store had this record, for the indexes that it was the first one with.
    pub(crate) fn note_time(&mut self, stored_at: i64) {
        for index in self.indexes.values_mut() {
            index.stored_at.get_or_insert(stored_at);
        }
    }
}

/// What a request does to the record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    /// Nothing: the index is already as requested.
    Nothing,
    /// The record becomes this.
    To(Record),
}

/// Why an index is not created or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CreateError {
    /// Choose another name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Choose another name, or delete the index first.
    #[error("there is an index `{name}` with another definition: {conflict}")]
    Exists { name: String, conflict: Conflict },
    /// Delete an index that is no longer needed.
    #[error("there are {MAX_INDEXES} indexes already, as many as a service may have")]
    TooMany,
    /// Choose another name, or remove the alias first.
    #[error("`{0}` is an alias, so no index can have that name")]
    IsAlias(String),
    /// Change the definition or the template.
    #[error("the template `{template}` and the request do not fit together: {mistakes}")]
    Template { template: String, mistakes: String },
    /// An alias that the index would get can't be.
    #[error(transparent)]
    Alias(#[from] AliasError),
}

/// There is no index and no alias of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no index `{name}`")]
pub(crate) struct NoSuchIndex {
    pub(crate) name: String,
    /// An index with a similar name.
    pub(crate) similar: Option<String>,
}

impl NoSuchIndex {
    /// An index that is missing among others.
    pub(crate) fn among<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Self {
        Self { name: name.to_owned(), similar: did_you_mean(name, names).map(str::to_owned) }
    }
}

/// Creates an index, or adds to the definition of one that exists; what is left out stays. `uuid` is for a new one.
pub(crate) fn create(
    record: &Record,
    name: &str,
    wanted: &PartialDefinition,
    uuid: Uuid,
) -> Result<Change, CreateError> {
    check_name(name)?;
    if record.aliases.contains_key(name) {
        return Err(CreateError::IsAlias(name.to_owned()));
    }
    let mut next = record.clone();
    if let Some(index) = next.indexes.get_mut(name) {
        let exists = |conflict| CreateError::Exists { name: name.to_owned(), conflict };
        let extended = index.now.extended(wanted).map_err(exists)?;
        if extended == index.now {
            return Ok(Change::Nothing);
        }
        index.now = extended;
        index.version += 1;
        return Ok(Change::To(next));
    }
    if next.indexes.len() >= MAX_INDEXES {
        return Err(CreateError::TooMany);
    }
    let created = wanted.complete();
    let index = IndexRecord { uuid, now: created.clone(), created, version: 1, stored_at: None };
    next.indexes.insert(name.to_owned(), index);
    Ok(Change::To(next))
}

/// Creates an index at the request of a client, with what the template for its name adds; or adds to the definition of one that
/// exists, whose template is of no concern any more. A new one gets the aliases, too.
pub(crate) fn create_by_request(
    record: &Record,
    name: &str,
    wanted: &PartialDefinition,
    aliases: &BTreeMap<String, AliasOptions>,
    uuid: Uuid,
) -> Result<Change, CreateError> {
    let template = matching(record, name).filter(|_| !record.indexes.contains_key(name));
    let no_aliases = BTreeMap::new();
    let (wanted, of_template) = match template {
        None => (wanted.clone(), &no_aliases),
        Some((template, Template { definition, aliases, .. })) => {
            let wanted = wanted.over(definition);
            let template = template.to_owned();
            wanted
                .check()
                .map_err(|error| CreateError::Template { template, mistakes: error.to_string() })?;
            (wanted, aliases)
        }
    };
    let mut next = match create(record, name, &wanted, uuid)? {
        Change::To(next) if !record.indexes.contains_key(name) => next,
        change => return Ok(change),
    };
    for (alias, options) in of_template.iter().chain(aliases) {
        alias::add(&mut next, name, alias, *options)?;
    }
    alias::check(&next)?;
    Ok(Change::To(next))
}

/// Deletes an index, also in its aliases. Returns the record without it, and its uuid.
pub(crate) fn delete(record: &Record, name: &str) -> Result<(Record, Uuid), NoSuchIndex> {
    let mut next = record.clone();
    match next.indexes.remove(name) {
        Some(index) => {
            alias::forget(&mut next, name);
            Ok((next, index.uuid))
        }
        None => Err(NoSuchIndex::among(name, record.indexes.keys().map(String::as_str))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition(value: serde_json::Value) -> PartialDefinition {
        serde_json::from_value(value).unwrap()
    }

    fn uuid(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn with(name: &str, wanted: &PartialDefinition) -> Record {
        match create(&Record::default(), name, wanted, uuid(1)) {
            Ok(Change::To(record)) => record,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_same_definition_again_changes_nothing_and_added_fields_extend_it() {
        let one = definition(json!({"fields": {"a": {"type": "text"}}}));
        let record = with("x", &one);
        assert_eq!(create(&record, "x", &one, uuid(2)), Ok(Change::Nothing));
        let two = definition(json!({"fields": {"a": {"type": "text"}, "b": {"type": "i64"}}}));
        let Ok(Change::To(extended)) = create(&record, "x", &two, uuid(2)) else { panic!("it is extended") };
        let index = &extended.indexes["x"];
        let (created, now) = (one.complete(), two.complete());
        assert_eq!((index.uuid, &index.created, &index.now, index.version), (uuid(1), &created, &now, 2));
    }

    #[test]
    fn a_definition_that_changes_what_is_indexed_is_another_one() {
        let record = with("x", &definition(json!({"fields": {"a": {"type": "text"}}})));
        for (other, why) in [
            (json!({"fields": {"a": {"type": "keyword"}}}), "field `a` is text"),
            (json!({"dynamic": false}), "`dynamic` can't change"),
            (json!({"id": "a"}), "`id` can't change"),
        ] {
            let error = create(&record, "x", &definition(other), uuid(2)).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
    }

    #[test]
    fn an_index_keeps_the_fields_that_another_request_added() {
        let record = with("x", &definition(json!({"fields": {"a": {"type": "text"}, "b": {"type": "i64"}}})));
        let fewer = definition(json!({"fields": {"a": {"type": "text"}}}));
        assert_eq!(create(&record, "x", &fewer, uuid(2)), Ok(Change::Nothing));
        let more = definition(json!({"fields": {"c": {"type": "date"}}}));
        let Ok(Change::To(extended)) = create(&record, "x", &more, uuid(2)) else { panic!("it is extended") };
        assert_eq!(extended.indexes["x"].now.fields.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    }

    #[test]
    fn an_index_that_is_made_again_has_another_uuid() {
        let wanted = PartialDefinition::default();
        let (without, gone) = delete(&with("x", &wanted), "x").unwrap();
        assert_eq!((without.indexes.len(), gone), (0, uuid(1)));
        let Ok(Change::To(again)) = create(&without, "x", &wanted, uuid(2)) else { panic!("it is created") };
        assert_eq!(again.indexes["x"].uuid, uuid(2));
        let error = delete(&again, "y").unwrap_err();
        assert_eq!(error.to_string(), "there is no index `y`");
    }

    #[test]
    fn a_missing_name_suggests_a_similar_one() {
        let error = NoSuchIndex::among("pakages", ["logs", "packages"]);
        assert_eq!(error.similar.as_deref(), Some("packages"));
    }

    #[test]
    fn the_number_of_indexes_is_limited() {
        let mut record = Record::default();
        for number in 0..MAX_INDEXES {
            let wanted = PartialDefinition::default();
            match create(&record, &format!("x{number}"), &wanted, uuid(1)) {
                Ok(Change::To(next)) => record = next,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(
            create(&record, "one-more", &PartialDefinition::default(), uuid(1)),
            Err(CreateError::TooMany)
        );
        assert_eq!(create(&record, "x0", &PartialDefinition::default(), uuid(1)), Ok(Change::Nothing));
        assert!(matches!(
            create(&record, "X", &PartialDefinition::default(), uuid(1)),
            Err(CreateError::Name(_))
        ));
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_unknown_members_are_refused() {
        let record = with("x", &definition(json!({"fields": {"a": {"type": "text"}}})));
        let mut written = serde_json::to_value(&record).unwrap();
        assert_eq!(serde_json::from_value::<Record>(written.clone()).unwrap(), record);
        written["indexes"]["x"]["nothing"] = json!([]);
        assert!(serde_json::from_value::<Record>(written).is_err(), "a newer version wrote it");
    }
}
