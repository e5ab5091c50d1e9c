use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::super::record::{CreateError, create_by_request};
use super::*;
use crate::definition::DeleteAfter;

fn template(value: Value) -> Template {
    serde_json::from_value(value).unwrap()
}

fn with(record: &Record, name: &str, value: Value) -> Record {
    match put(record, name, &template(value), false) {
        Ok((Change::To(next), _)) => next,
        other => panic!("{other:?}"),
    }
}

fn created(record: &Record, name: &str, definition: Value) -> Result<Record, CreateError> {
    let wanted: PartialDefinition = serde_json::from_value(definition).unwrap();
    match create_by_request(record, name, &wanted, &BTreeMap::new(), Uuid::nil())? {
        Change::To(next) => Ok(next),
        Change::Nothing => panic!("nothing was created"),
    }
}

#[test]
fn the_template_with_the_highest_priority_counts_and_the_request_before_it() {
    let record =
        with(&Record::default(), "all", json!({"patterns": ["*"], "definition": {"dynamic": "strict"}}));
    let of_logs = json!({
        "patterns": ["logs-*", "traces-*"], "priority": 10, "aliases": {"logs": {}},
        "definition": {"fields": {"level": {"type": "keyword"}, "n": {"type": "i64"}}, "delete_after": "7d"},
    });
    let record = with(&record, "logs", of_logs);
    let record =
        created(&record, "logs-1", json!({"fields": {"n": {"type": "f64"}, "x": {"type": "bool"}}})).unwrap();
    let index = &record.indexes["logs-1"];
    let types: Vec<_> =
        index.now.fields.iter().map(|(name, field)| (name.as_str(), field.type_name())).collect();
    assert_eq!(types, [("level", "keyword"), ("n", "f64"), ("x", "bool")]);
    assert_eq!(index.created, index.now);
    assert_eq!(serde_json::to_value(&index.now).unwrap()["delete_after"], "7d");
    assert!(record.aliases["logs"].indexes.contains_key("logs-1"));
    let never = created(&record, "logs-2", json!({"delete_after": "never"})).unwrap();
    assert_eq!(never.indexes["logs-2"].now.delete_after, DeleteAfter::Never);
    let other = created(&record, "other", json!({})).unwrap();
    assert_eq!(other.indexes["other"].now.dynamic, crate::definition::Dynamic::Strict);
    // A template has no part in an index that exists.
    let same =
        create_by_request(&record, "logs-1", &PartialDefinition::default(), &BTreeMap::new(), Uuid::nil());
    assert_eq!(same, Ok(Change::Nothing));
}

#[test]
fn a_request_that_does_not_fit_the_template_is_refused() {
    let fields = json!({"fields": {"a.b": {"type": "keyword"}}, "id": "a.b"});
    let record = with(&Record::default(), "t", json!({"patterns": ["x*"], "definition": fields}));
    let error = created(&record, "x1", json!({"fields": {"a.b": {"type": "bool"}}})).unwrap_err();
    assert!(matches!(&error, CreateError::Template { template, .. } if template == "t"), "{error}");
    let record = with(&Record::default(), "t", json!({"patterns": ["*"], "aliases": {"x": {}}}));
    let error = created(&record, "x", json!({})).unwrap_err();
    assert!(error.to_string().contains("there is an index `x`"), "{error}");
}

#[test]
fn two_templates_that_may_match_the_same_name_need_different_priorities() {
    let record = with(&Record::default(), "one", json!({"patterns": ["logs-*"], "priority": 1}));
    let put = |name: &str, value| put(&record, name, &template(value), false);
    let error = put("two", json!({"patterns": ["x", "*-private"], "priority": 1})).unwrap_err();
    assert!(error.to_string().contains("`one` has the same priority, 1"), "{error}");
    assert!(put("two", json!({"patterns": ["*-private"]})).is_ok());
    assert!(put("two", json!({"patterns": ["trace-*"], "priority": 1})).is_ok());
    assert!(matches!(put("one", json!({"patterns": ["*"], "priority": 1})), Ok((Change::To(_), false))));
    assert_eq!(put("one", json!({"patterns": ["logs-*"], "priority": 1})), Ok((Change::Nothing, false)));
}

#[test]
fn what_no_template_can_be_is_refused() {
    for (name, value, message) in [
        ("T", json!({"patterns": ["a"]}), "can't be `T`"),
        ("t", json!({}), "this one has 0"),
        ("t", json!({"patterns": vec!["a"; 11]}), "this one has 11"),
        ("t", json!({"patterns": [""]}), "``"),
        ("t", json!({"patterns": ["-a*"]}), "`-a*`"),
        ("t", json!({"patterns": ["A*"]}), "`A*`"),
        ("t", json!({"patterns": ["a".repeat(256)]}), "256 bytes"),
        ("t", json!({"patterns": ["a"], "aliases": {"_x": {}}}), "can't be `_x`"),
        ("t", json!({"patterns": ["a"], "definition": {"id": "nothing", "dynamic": "strict"}}), "nothing"),
    ] {
        let error = put(&Record::default(), name, &template(value.clone()), false).unwrap_err();
        assert!(error.to_string().contains(message), "{value}: {error}");
    }
    let mut record = Record::default();
    for number in 0..MAX_TEMPLATES {
        record = with(&record, &format!("t{number}"), json!({"patterns": [format!("x{number}")]}));
    }
    let one_more = template(json!({"patterns": ["y"]}));
    assert_eq!(put(&record, "one-more", &one_more, false), Err(TemplateError::TooMany));
    assert_eq!(put(&record, "t0", &one_more, true), Err(TemplateError::Exists("t0".to_owned())));
    let large = json!({"patterns": ["y"], "meta": {"x": "x".repeat(MAX_BYTES)}});
    assert!(matches!(put(&Record::default(), "t", &template(large), false), Err(TemplateError::TooLarge(_))));
}

#[test]
fn templates_are_deleted_by_name_or_pattern() {
    let record = with(&Record::default(), "a-1", json!({"patterns": ["a"]}));
    let record = with(&record, "a-2", json!({"patterns": ["b"]}));
    let left = |change: Result<Change, NoSuchTemplate>| match change {
        Ok(Change::To(next)) => Ok(next.templates.len()),
        Ok(Change::Nothing) => Ok(2),
        Err(error) => Err(error.similar),
    };
    assert_eq!(left(delete_templates(&record, "a-1")), Ok(1));
    assert_eq!(left(delete_templates(&record, "a-*")), Ok(0));
    assert_eq!(left(delete_templates(&record, "b-*")), Ok(2));
    assert!(left(delete_templates(&record, "a-3")).is_err());
}

#[test]
fn patterns_overlap_if_a_name_matches_both() {
    for (one, other, expected) in [
        ("a", "a", true),
        ("a", "b", false),
        ("*", "", true),
        ("a*", "*b", true),
        ("a*", "b*", false),
        ("a*c", "ab*", true),
        ("*a", "*b", false),
        ("a*b*c", "*x*", true),
        ("ab", "a*b*b", false),
        ("a*a", "a", false),
        ("**", "a*", true),
    ] {
        assert_eq!((overlap(one, other), overlap(other, one)), (expected, expected), "{one} {other}");
    }
}

proptest! {
    #[test]
    fn a_name_that_matches_both_patterns_shows_that_they_overlap(
        one in "[ab*]{0,6}", other in "[ab*]{0,6}", names in prop::collection::vec("[ab]{0,8}", 1..40),
    ) {
        if names.iter().any(|name| matches(&one, name) && matches(&other, name)) {
            prop_assert!(overlap(&one, &other));
        }
    }

    /// A short pattern that overlaps another one has a short name in common with it.
    #[test]
    fn patterns_overlap_only_if_some_name_matches_both(one in "[ab*]{0,3}", other in "[ab*]{0,3}") {
        let mut names = vec![String::new()];
        for at in 0..127 {
            let longer = [format!("{}a", names[at]), format!("{}b", names[at])];
            names.extend(longer);
        }
        let is_common = names.iter().any(|name| matches(&one, name) && matches(&other, name));
        prop_assert_eq!(overlap(&one, &other), is_common);
    }
}
