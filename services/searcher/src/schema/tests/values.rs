//! Values of all types, and names of all kinds.

use std::ops::Bound;

use serde_json::json;
use tantivy::Searcher;
use tantivy::query::RangeQuery;
use tantivy::schema::Type;

use super::{find, ids, indexed, schema};
use crate::schema::{IndexSchema, PlaceKind};

#[test]
fn declared_and_dynamic_fields_are_found_by_text_and_by_value() {
    let schema =
        schema(json!({"fields": {"title": {"type": "text", "analyzer": "en"}, "tag": {"type": "keyword"}}}));
    let searcher = indexed(
        &schema,
        &[
            r#"{"title": "Running proxies", "tag": "A b", "brand": "Coca Cola", "n": 5}"#,
            r#"{"title": "other", "tag": "x", "a": {"b": [true, 1.5, "two words"]}}"#,
        ],
    );
    let find = |field, text| find(&schema, &searcher, field, text);
    assert_eq!(find("title", "run proxy"), ["0"]);
    assert_eq!(find("tag", "A b"), ["0"]);
    assert!(find("tag", "A").is_empty());
    assert_eq!(find("brand", "cola"), ["0"]);
    assert_eq!(find("n", "5"), ["0"]);
    assert_eq!(find("a.b", "true"), ["1"]);
    assert_eq!(find("a.b", "1.5"), ["1"]);
    assert_eq!(find("a.b", "two words"), ["1"]);
    assert_eq!(find("_id", "1"), ["1"]);
    let exists = |field| ids(&schema, &searcher, &*schema.exists_query(field));
    assert_eq!([exists("a"), exists("a.b"), exists("brand")], [["1"], ["1"], ["0"]]);
    assert_eq!(exists("title"), ["0", "1"]);
    assert!(exists("a.").is_empty() && exists("tit").is_empty());
}

#[test]
fn any_name_of_a_field_works() {
    let schema = schema(json!({"fields": {"-x": {"type": "text"}, "q w.\\": {"type": "keyword"}}}));
    let names = [
        "-x",
        "q w.\\",
        "a\\.b",
        "a b",
        "\"",
        "ü:*",
        "日本.語",
        "~/x",
        "_pid",
        "text.title",
        &"n".repeat(1_024),
    ];
    let source = |n: usize| json!({names[n]: "word", "n": n}).to_string();
    let sources: Vec<_> = (0..names.len()).map(source).collect();
    let searcher = indexed(&schema, &sources.iter().map(String::as_str).collect::<Vec<_>>());
    for (number, name) in names.iter().enumerate() {
        assert_eq!(find(&schema, &searcher, name, "word"), [number.to_string()], "{name}");
        assert_eq!(ids(&schema, &searcher, &*schema.exists_query(name)), [number.to_string()], "{name}");
        let places = schema.places(name).unwrap();
        if let Some(place) = places.iter().find(|place| place.kind == PlaceKind::Values) {
            let columns = searcher.segment_reader(0).fast_fields();
            let column = columns.str(&schema.column_name(place)).unwrap();
            assert_eq!(column.map(|column| column.num_terms()), Some(1), "{name}");
            let range = between(&schema, &searcher, name, Bound::Included("wora"), Bound::Unbounded);
            assert_eq!(range, [number.to_string()], "{name}");
        }
    }
}

#[test]
fn control_characters_in_values_neither_break_nor_hide_anything() {
    let schema =
        schema(json!({"fields": {"k": {"type": "keyword"}, "g": {"type": "text", "analyzer": "ngram"}}}));
    let source = r#"{"k": "a\u0000b\u0001c", "d": "x\u0000y \u0001", "g": "p\u0000q"}"#;
    let searcher = indexed(&schema, &[source, r#"{"k": "a", "d": "x", "g": "p"}"#]);
    assert_eq!(find(&schema, &searcher, "k", "a\0b\u{1}c"), ["0"]);
    assert_eq!(find(&schema, &searcher, "k", "a"), ["1"]);
    assert_eq!(find(&schema, &searcher, "d", "x\0y \u{1}"), ["0"]);
    assert_eq!(find(&schema, &searcher, "d", "x"), ["0", "1"]);
    assert_eq!(find(&schema, &searcher, "g", "p\0q"), ["0"]);
}

#[test]
fn numbers_are_found_however_they_are_written() {
    let schema = schema(json!({"fields": {"f": {"type": "f64"}, "i": {"type": "i64"}}}));
    let searcher = indexed(
        &schema,
        &[
            r#"{"f": 3, "i": -9223372036854775808, "d": 18446744073709551615}"#,
            r#"{"f": -0.0, "i": 9223372036854775807, "d": 2.0}"#,
            r#"{"f": 1e300, "i": [1, 2], "d": "2"}"#,
        ],
    );
    let find = |field, text| find(&schema, &searcher, field, text);
    assert_eq!(find("f", "3"), ["0"]);
    assert_eq!(find("f", "3.0"), ["0"]);
    assert_eq!(find("f", "0"), ["1"]);
    assert_eq!(find("f", "1e300"), ["2"]);
    assert_eq!(find("i", "-9223372036854775808"), ["0"]);
    assert_eq!(find("i", "9223372036854775807"), ["1"]);
    assert_eq!(find("i", "2"), ["2"]);
    assert_eq!(find("i", "2.0"), ["2"]);
    assert_eq!(find("d", "18446744073709551615"), ["0"]);
    assert_eq!(find("d", "2"), ["1", "2"]);
    assert_eq!(find("d", "nan"), [""; 0]);
}

/// The ids of documents in a range of a field.
fn between(
    schema: &IndexSchema,
    searcher: &Searcher,
    field: &str,
    lower: Bound<&str>,
    upper: Bound<&str>,
) -> Vec<String> {
    let places = schema.places(field).unwrap();
    let values = places.iter().filter(|place| place.kind == PlaceKind::Values);
    let mut found = Vec::new();
    for (lower, upper) in values.flat_map(|place| schema.range_bounds(place, lower, upper)) {
        // Tantivy refuses ranges of booleans.
        let is_bool =
            matches!(&lower, Bound::Included(term) if term.value().json_path_type() == Some(Type::Bool));
        if !is_bool {
            found.extend(ids(schema, searcher, &RangeQuery::new(lower, upper)));
        }
    }
    found.sort();
    found.dedup();
    found
}

#[test]
fn ranges_are_of_each_type_that_a_field_may_have() {
    use Bound::{Excluded, Included, Unbounded};
    let schema =
        schema(json!({"fields": {"i": {"type": "i64"}, "f": {"type": "f64"}, "k": {"type": "keyword"}}}));
    let searcher = indexed(
        &schema,
        &[
            r#"{"i": 1, "f": 1, "k": "apple", "d": 5}"#,
            r#"{"i": 5, "f": 2.5, "k": "banana", "d": 5.5}"#,
            r#"{"i": 9, "f": 4, "k": "cherry", "d": "51"}"#,
            r#"{"d": "2024-05-05T10:00:00+02:00"}"#,
            r#"{"d": true}"#,
        ],
    );
    let between = |field, lower, upper| between(&schema, &searcher, field, lower, upper);
    assert_eq!(between("i", Included("5"), Unbounded), ["1", "2"]);
    assert_eq!(between("i", Excluded("1"), Excluded("9")), ["1"]);
    assert_eq!(between("i", Included("x"), Unbounded), [""; 0]);
    assert_eq!(between("i", Included("1.5"), Excluded("8.5")), ["1"]);
    assert_eq!(between("f", Included("2.5"), Included("4.5")), ["1", "2"]);
    assert_eq!(between("f", Unbounded, Excluded("2")), ["0"]);
    assert_eq!(between("k", Included("b"), Excluded("cherry")), ["1"]);
    assert_eq!(between("d", Included("5"), Included("6")), ["0", "1", "2"]);
    assert_eq!(between("d", Included("2024-05-05T08:00:00Z"), Excluded("2024-05-05T08:00:00.001Z")), ["3"]);
    assert_eq!(between("_seq", Included("3"), Unbounded), ["3", "4"]);
    assert_eq!(between("i", Unbounded, Unbounded), [""; 0], "that is `exists`");
}

#[test]
fn ranges_of_dates_keep_milliseconds() {
    use Bound::Included;
    let schema = schema(json!({"fields": {"at": {"type": "date"}}}));
    let searcher =
        indexed(&schema, &[r#"{"at": "2024-01-01T00:00:00.500Z"}"#, r#"{"at": "2024-01-01T00:00:00.501Z"}"#]);
    let equal = |text| between(&schema, &searcher, "at", Included(text), Included(text));
    assert_eq!(equal("2024-01-01T00:00:00.500Z"), ["0"]);
    assert_eq!(equal("2024-01-01"), ["0", "1"]);
    assert_eq!(equal("1704067200501"), ["1"]);
}

#[test]
fn a_day_is_all_its_milliseconds() {
    use Bound::{Excluded, Included, Unbounded};
    let schema = schema(json!({"fields": {"at": {"type": "date"}}}));
    let searcher = indexed(
        &schema,
        &[
            r#"{"at": "2024-01-01"}"#,
            r#"{"at": "2024-01-01T23:59:59.999Z"}"#,
            r#"{"at": 1704153600000}"#,
            r#"{"at": "1677-09-22"}"#,
        ],
    );
    let between = |lower, upper| between(&schema, &searcher, "at", lower, upper);
    assert_eq!(between(Included("2024-01-01"), Unbounded), ["0", "1", "2"]);
    assert_eq!(between(Excluded("2024-01-01"), Unbounded), ["2"]);
    assert_eq!(between(Unbounded, Included("2024-01-01")), ["0", "1", "3"]);
    assert_eq!(between(Unbounded, Excluded("2024-01-01")), ["3"]);
}
