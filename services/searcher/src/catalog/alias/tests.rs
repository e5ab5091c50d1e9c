use uuid::Uuid;

use super::super::record::{create, delete};
use super::*;
use crate::definition::PartialDefinition;

fn with(names: &[&str]) -> Record {
    let mut record = Record::default();
    for (number, name) in names.iter().enumerate() {
        let uuid = Uuid::from_u128(number as u128);
        match create(&record, name, &PartialDefinition::default(), uuid) {
            Ok(Change::To(next)) => record = next,
            other => panic!("{other:?}"),
        }
    }
    record
}

fn add_to(index: &str, alias: &str, is_write_index: Option<bool>) -> AliasAction {
    let options = AliasOptions { is_write_index };
    AliasAction::Add { indexes: vec![index.to_owned()], aliases: vec![alias.to_owned()], options }
}

fn remove_from(index: &str, alias: &str, must_exist: bool) -> AliasAction {
    AliasAction::Remove { indexes: vec![index.to_owned()], aliases: vec![alias.to_owned()], must_exist }
}

fn remove_index(index: &str) -> AliasAction {
    AliasAction::RemoveIndex { indexes: vec![index.to_owned()] }
}

fn done(record: &Record, actions: &[AliasAction]) -> Record {
    match change(record, actions, |_| false) {
        Ok(Change::To(next)) => next,
        other => panic!("{other:?}"),
    }
}

/// `alias: index index!`, where `!` marks the one that takes writes.
fn shown(record: &Record) -> String {
    let alias = |(name, alias): (&String, &AliasRecord)| {
        let indexes = alias.indexes.keys().map(|index| {
            let mark = if alias.write_index() == Some(index) { "!" } else { "" };
            format!(" {index}{mark}")
        });
        format!("{name}:{}", indexes.collect::<String>())
    };
    record.aliases.iter().map(alias).collect::<Vec<_>>().join("; ")
}

#[test]
fn an_alias_is_switched_at_once_and_indexes_are_removed_before_names_are_taken() {
    let record = done(&with(&["a-1", "a-2", "old"]), &[add_to("a-1", "a", None)]);
    assert_eq!(shown(&record), "a: a-1!");
    let switched = done(&record, &[remove_from("a-1", "a", false), add_to("a-2", "a", None)]);
    assert_eq!(shown(&switched), "a: a-2!");
    let swapped = done(&switched, &[add_to("a-1", "old", None), remove_index("old")]);
    assert_eq!((shown(&swapped).as_str(), swapped.indexes.len()), ("a: a-2!; old: a-1!", 2));
    assert_eq!(change(&swapped, &[add_to("a-1", "old", None)], |_| false), Ok(Change::Nothing));
    let all = done(&with(&["a-1", "a-2"]), &[add_to("a-*", "a", Some(false))]);
    assert_eq!(shown(&all), "a: a-1 a-2");
    let none = done(&all, &[remove_from("*", "*", true)]);
    assert_eq!(shown(&none), "");
}

#[test]
fn what_can_not_be_is_refused_and_changes_nothing() {
    let record = done(&with(&["a", "b"]), &[add_to("a", "x", Some(true))]);
    for (actions, message) in [
        (vec![add_to("a", "b", None)], "there is an index `b`"),
        (vec![add_to("x", "y", None)], "`x` is an alias"),
        (vec![add_to("c", "y", None)], "there is no index `c`"),
        (vec![add_to("c*", "y", None)], "there is no index `c*`"),
        (vec![add_to("a", "Y", None)], "an alias can't be `Y`"),
        (vec![add_to("a", "_all", None)], "an alias can't be `_all`"),
        (vec![add_to("b", "x", Some(true))], "more than one write index: `a` and `b`"),
        (vec![remove_from("a", "y", false)], "there is no alias `y`"),
        (vec![remove_from("b", "x", false)], "there is no alias `x`"),
        (vec![add_to("b", "z", None), remove_from("a", "y", true)], "there is no alias `y`"),
        (vec![remove_index("x")], "`x` is an alias"),
        (vec![remove_index("declared")], "there is no index `declared`"),
    ] {
        let error = change(&record, &actions, |_| false).unwrap_err();
        assert!(error.to_string().contains(message), "{actions:?}: {error}");
    }
    let declared = change(&record, &[remove_index("a")], |index| index == "a");
    assert_eq!(declared, Err(AliasError::Declared("a".to_owned())));
    // What is missing does no harm beside something that is there.
    assert_eq!(
        shown(&done(&record, &[remove_from("a", "y", false), add_to("b", "z", None)])),
        "x: a!; z: b!"
    );
}

#[test]
fn a_deleted_index_leaves_its_aliases_and_one_without_indexes_is_gone() {
    let record =
        done(&with(&["a", "b"]), &[add_to("a", "x", None), add_to("a", "y", None), add_to("b", "y", None)]);
    let (record, _) = delete(&record, "a").unwrap();
    assert_eq!(shown(&record), "y: b!");
    let error = create(&record, "y", &PartialDefinition::default(), Uuid::nil()).unwrap_err();
    assert_eq!(error.to_string(), "`y` is an alias, so no index can have that name");
}

#[test]
fn the_number_of_aliases_is_limited() {
    let record = with(&["a", "b"]);
    let many: Vec<_> = (0..MAX_ALIASES).map(|number| add_to("a", &format!("x{number}"), None)).collect();
    let full = done(&record, &many);
    assert_eq!(change(&full, &[add_to("b", "x0", None)], |_| false), Err(AliasError::TooMany));
}

#[test]
fn a_record_of_an_older_version_has_no_aliases_and_none_are_written_for_it() {
    let record = with(&["a"]);
    let written = serde_json::to_value(&record).unwrap();
    let members: Vec<&String> = written.as_object().unwrap().keys().collect();
    assert_eq!(members, ["indexes"]);
    let index = written["indexes"]["a"].as_object().unwrap();
    assert_eq!(index.keys().collect::<Vec<_>>(), ["created", "now", "uuid", "version"]);
    assert_eq!(serde_json::from_value::<Record>(written).unwrap(), record);
    let full = done(&record, &[add_to("a", "x", Some(true))]);
    assert_eq!(serde_json::from_value::<Record>(serde_json::to_value(&full).unwrap()).unwrap(), full);
}
