use std::collections::BTreeMap;

use proptest::prelude::*;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;

fn definition(json: Value) -> Definition {
    serde_json::from_value(json).unwrap()
}

/// The mistakes of a definition: pointer, message, hint.
fn mistakes(json: Value) -> Vec<String> {
    let error = definition(json).check().unwrap_err();
    let one = |mistake: plugin::SettingsMistake| match &mistake.hint {
        Some(hint) => format!("{mistake} ({hint})"),
        None => mistake.to_string(),
    };
    error.mistakes.into_iter().map(one).collect()
}

/// Settings with definitions in them, as the service has.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Sample {
    indexes: BTreeMap<String, PartialDefinition>,
}

#[test]
fn a_definition_reads_as_it_is_written() {
    let all = json!({
        "fields": {
            "title": {"type": "text", "analyzer": "en"},
            "body": {"type": "text", "analyzer": "default"},
            "tag": {"type": "keyword", "ignore_above": 256},
            "n": {"type": "i64"}, "x": {"type": "f64"}, "b": {"type": "bool"}, "at": {"type": "date"},
            "meta": {"type": "json"}, "meta.size": {"type": "i64"},
        },
        "dynamic": "strict",
        "id": "tag",
        "default_fields": {"title": 2.0, "meta.text": 1.0},
        "synonyms": ["tv, television", "usb => universal serial bus"],
    });
    let definition = definition(all.clone());
    assert_eq!(definition.check(), Ok(()));
    assert_eq!(serde_json::to_value(&definition).unwrap(), all);
    let default: Definition = serde_json::from_value(json!({})).unwrap();
    assert_eq!((default.check(), default), (Ok(()), Definition::default()));
    assert_eq!(serde_json::from_value::<Analyzer>(json!("nb")).unwrap(), Analyzer::No);
}

#[test]
fn every_analyzer_is_at_its_place_and_has_its_name() {
    for (number, analyzer) in Analyzer::ALL.into_iter().enumerate() {
        assert_eq!(analyzer as usize, number);
        assert_eq!(serde_json::to_value(analyzer).unwrap(), analyzer.name());
    }
}

#[test]
fn all_mistakes_are_found_at_once() {
    let long = "n".repeat(256);
    let found = mistakes(json!({
        "fields": {
            "": {"type": "bool"},
            "_seq": {"type": "i64"},
            "a": {"type": "text"},
            "a.b.c": {"type": "keyword"},
            "a..d": {"type": "keyword"},
            "line\n": {"type": "keyword"},
            long: {"type": "keyword"},
            "short": {"type": "keyword", "ignore_above": 0},
            "when": {"type": "date"},
            "x/y~z": {"type": "keyword", "ignore_above": 40_000},
        },
        "id": "when",
        "dynamic": "strict",
        "default_fields": {"shrt": 1.0, "short": 0.0, "other": 1.0, "when": 1e39, "a.x": 1.0},
        "synonyms": ["tv", "a => b => c", "a, , b", "a =>", "a, b"],
    }));
    let not_in = |list: &str, number: &str| {
        format!(
            "/fields/{list}/ignore_above: a whole number from 1 to 32766 is wanted, found the number {number}"
        )
    };
    let syntax = "(write `tv, television` or `usb => universal serial bus`)";
    assert_eq!(
        found,
        [
            "/fields/: the name is empty".to_owned(),
            "/fields/_seq: names that begin with `_` are the index's own (write `seq`)".to_owned(),
            "/fields/a..d: a part of the name, between dots, is empty".to_owned(),
            "/fields/a.b.c: `a` is text, so it can't have fields (make `a` a `json` field, or rename one of them)"
                .to_owned(),
            "/fields/line\n: the name has the control character U+000A".to_owned(),
            format!("/fields/{}: the name has 256 bytes, at most 255 are allowed", "n".repeat(256)),
            not_in("short", "0"),
            not_in("x~1y~0z", "40000"),
            "/id: field `when` is date; an id is a string or an integer (declare the field as `keyword` or `i64`)"
                .to_owned(),
            "/default_fields/a.x: there is no field `a.x` (declare the field in `fields`)".to_owned(),
            "/default_fields/other: there is no field `other` (declare the field in `fields`)".to_owned(),
            "/default_fields/short: a boost above 0 is wanted, found 0 (1 counts a field as much as others)".to_owned(),
            "/default_fields/shrt: there is no field `shrt` (did you mean `short`?)".to_owned(),
            "/default_fields/when: a boost above 0 is wanted, found inf (1 counts a field as much as others)".to_owned(),
            format!("/synonyms/0: there is only one text {syntax}"),
            format!("/synonyms/1: there is more than one `=>` {syntax}"),
            format!("/synonyms/2: a text is missing {syntax}"),
            format!("/synonyms/3: a text is missing {syntax}"),
        ]
    );
}

#[test]
fn the_number_of_fields_and_synonyms_is_bounded() {
    let fields = |count: usize| -> Value {
        (0..count)
            .map(|number| (format!("f{number}"), json!({"type": "bool"})))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    assert_eq!(definition(json!({"fields": fields(1_000)})).check(), Ok(()));
    let fields = json!({"fields": fields(1_001), "synonyms": vec!["a, b"; 1_001]});
    assert_eq!(
        mistakes(fields),
        [
            "/fields: there are 1001 fields, at most 1000 are allowed (use a `json` field for many fields)",
            "/synonyms: there are 1001 rules, at most 1000 are allowed",
        ]
    );
    let long = format!("a, {}", "b".repeat(2_000));
    let many = vec!["w"; 51].join(",");
    assert_eq!(mistakes(json!({"synonyms": [long, many]})).len(), 2);
}

#[test]
fn an_id_may_be_any_field_that_can_be_there() {
    let check = |id: &str, dynamic: Value| {
        let fields = json!({"key": {"type": "keyword"}, "meta": {"type": "json"}});
        definition(json!({"fields": fields, "id": id, "dynamic": dynamic})).check().is_ok()
    };
    assert!(check("other", json!(true)) && check("other", json!(false)) && !check("other", json!("strict")));
    assert!(
        check("key", json!("strict")) && check("meta.id", json!("strict")) && !check("key.id", json!(true))
    );
    assert!(!check("_id", json!(true)) && !check("", json!(true)) && !check("meta", json!(true)));
}

#[test]
fn settings_with_definitions_report_what_can_not_be_read_in_plain_words() {
    let settings = json!({"indexes": {"packages": {
        "fields": {
            "title": {"type": "txt"},
            "body": {"type": "text", "analyzer": "english"},
            "tag": {"type": "keyword", "ignore_abov": 3},
            "n": {"analyzer": "en"},
            "m": {"type": "i64", "analyzer": "en"},
        },
        "dynamc": true,
        "dynamic": "yes",
        "default_fields": {"title": "high"},
    }}});
    let error = plugin::parse_settings::<Sample>(&settings).unwrap_err();
    let found: Vec<_> = error.mistakes.iter().map(ToString::to_string).collect();
    let at = |rest: &str| format!("/indexes/packages/{rest}");
    assert_eq!(
        found,
        [
            at("default_fields/title: a number is wanted, found the text `high`"),
            at("dynamc: unknown key `dynamc`"),
            at("dynamic: `dynamic` is true, false or \"strict\""),
            at("fields/body: `english` is not known here"),
            at("fields/m/analyzer: unknown key `analyzer`"),
            at("fields/n: missing key `type`"),
            at("fields/tag/ignore_abov: unknown key `ignore_abov`"),
            at("fields/title/type: `txt` is not known here"),
        ]
    );
    let hints: Vec<_> =
        error.mistakes.iter().map(|mistake| mistake.hint.clone().unwrap_or_default()).collect();
    assert_eq!(
        [&*hints[1], &*hints[4], &*hints[6], &*hints[7]],
        ["did you mean `dynamic`?", "leave it out", "did you mean `ignore_above`?", "did you mean `text`?",]
    );
    assert!(hints[3].starts_with("known: default, ar, "), "{}", hints[3]);
    let schema = plugin::settings_schema::<Sample>();
    assert_eq!(
        schema.pointer("/properties/indexes/additionalProperties/properties/dynamic/enum"),
        Some(&json!([true, false, "strict"])),
        "{schema:#}"
    );
}

fn partial(json: Value) -> PartialDefinition {
    serde_json::from_value(json).unwrap()
}

#[test]
fn fields_may_come_and_what_queries_use_may_change() {
    let first = json!({
        "fields": {"title": {"type": "text"}, "tag": {"type": "keyword", "ignore_above": 5}},
        "synonyms": ["tv, television"], "default_fields": {"title": 2.0},
        "id": "tag", "dynamic": false,
    });
    let present = partial(first.clone()).complete();
    assert_eq!(present.extended(&partial(first.clone())), Ok(present.clone()), "the same again");
    assert_eq!(present.extended(&partial(json!({}))), Ok(present.clone()), "what is left out stays");
    let with = |changed: Value| {
        let mut all = first.clone();
        all.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
        Ok(definition(all))
    };
    for later in [
        json!({"synonyms": []}),
        json!({"default_fields": {"title": 3.0}}),
        json!({"default_fields": {}, "synonyms": ["a, b"], "id": "tag", "dynamic": false}),
    ] {
        assert_eq!(present.extended(&partial(later.clone())), with(later));
    }
    let fields = json!({"tag": {"type": "keyword"}, "n": {"type": "i64"}});
    let all = json!({"title": {"type": "text"}, "tag": {"type": "keyword"}, "n": {"type": "i64"}});
    assert_eq!(present.extended(&partial(json!({"fields": fields}))), with(json!({"fields": all})));
}

#[test]
fn sub_fields_and_conversions_come_and_stay() {
    let title = |fields: &Value| json!({"fields": {"title": {"type": "text", "fields": fields}}});
    let exact = json!({"exact": {"type": "keyword", "normalizer": "lowercase"}});
    let present = definition(title(&exact));
    let plain = json!({"fields": {"title": {"type": "text"}}});
    assert_eq!(present.extended(&partial(plain.clone())), Ok(present.clone()), "what is left out stays");
    let english = json!({"en": {"type": "text", "analyzer": "en"}});
    let both = json!({"exact": exact["exact"], "en": english["en"]});
    assert_eq!(present.extended(&partial(title(&english))), Ok(definition(title(&both))));
    for changed in [json!({"exact": {"type": "keyword"}}), json!({"exact": {"type": "text"}})] {
        let conflict = present.extended(&partial(title(&changed))).unwrap_err();
        assert!(conflict.to_string().contains("`title.exact`"), "{conflict}");
    }
    let (off, on) = (definition(plain), partial(json!({"coerce": true})));
    let converting = off.extended(&on).unwrap();
    assert!(!off.coerce && converting.coerce && on.complete().coerce);
    for later in [json!({}), json!({"coerce": false})] {
        assert_eq!(converting.extended(&partial(later)), Ok(converting.clone()), "once it is on, it stays");
    }
}

#[test]
fn a_changed_field_is_a_conflict_that_says_what_to_do() {
    let present = definition(json!({"fields": {"title": {"type": "text"}, "tag": {"type": "keyword"}}}));
    let conflict = |later: Value| present.extended(&partial(later)).unwrap_err().to_string();
    assert_eq!(
        conflict(json!({
            "fields": {"title": {"type": "text", "analyzer": "en"}, "tag": {"type": "text"}},
            "dynamic": false, "id": "tag",
        })),
        "`dynamic` can't change; `id` can't change; field `tag` is keyword, which can't become text; field `title` has the \
         analyzer `default`, which can't become `en`; make a new index and copy the documents into it"
    );
    assert_eq!(
        conflict(json!({"fields": {"tag.x": {"type": "bool"}}})),
        "/fields/tag.x: `tag` is keyword, so it can't have fields; make a new index and copy the documents into it"
    );
}

proptest! {
    #[test]
    fn the_field_above_a_path_is_the_nearest_declared_one(
        names in proptest::collection::vec("[a!é]{1,2}(\\.[a!é]{1,2}){0,4}", 0..8),
        path in "[a!é]{1,2}(\\.[a!é]{1,2}){0,5}",
    ) {
        let fields = names.iter().map(|name| (name.clone(), FieldDefinition::Bool {})).collect();
        let definition = Definition { fields, ..Definition::default() };
        let above = path.match_indices('.').rev().map(|(dot, _)| &path[..dot]);
        let wanted = above.into_iter().find(|above| names.iter().any(|name| name == above));
        prop_assert_eq!(definition.declared_above(&path).map(|(above, _)| above), wanted);
    }
}
