//! Which documents are refused.

use serde_json::json;

use super::{find, indexed, schema};
use crate::document::{Document, DocumentError};
use crate::schema::IndexSchema;

#[test]
fn what_does_not_fit_the_definition_is_refused_with_its_path() {
    let schema = schema(json!({"fields": {
        "t": {"type": "text"}, "k": {"type": "keyword"}, "s": {"type": "keyword", "ignore_above": 3},
        "i": {"type": "i64"}, "f": {"type": "f64"}, "b": {"type": "bool"}, "d": {"type": "date"},
        "o.i": {"type": "i64"}, "j": {"type": "json"}, "j.i": {"type": "i64"},
    }}));
    let date = "a date from 1677-09-22 to 2262-04-10 (RFC 3339, YYYY-MM-DD, or milliseconds since 1970) is wanted, found";
    let integer = "an integer from -9223372036854775808 to 9223372036854775807 is wanted, found";
    let long = json!({"k": "x".repeat(32_767)}).to_string();
    let deep_name = json!({"n".repeat(1_025): 1}).to_string();
    let mut cases = vec![
        (r#"{"t": 5}"#, "field `t`: a string is wanted, found the number 5".to_owned()),
        (r#"{"t": ["a", {"b": 1}]}"#, "field `t`: a string is wanted, found an object".to_owned()),
        (r#"{"k": true}"#, "field `k`: a string is wanted, found true".to_owned()),
        (
            &long,
            format!(
                "field `k`: a string of at most 32766 bytes is wanted, found the string `{}…` of 32767 bytes",
                "x".repeat(50)
            ),
        ),
        (r#"{"i": "5"}"#, format!("field `i`: {integer} the string `5`")),
        (r#"{"i": 5.0}"#, format!("field `i`: {integer} the number 5.0")),
        (r#"{"i": 9223372036854775808}"#, format!("field `i`: {integer} the number 9223372036854775808")),
        (r#"{"o": {"i": [1, "x"]}}"#, format!("field `o.i`: {integer} the string `x`")),
        (r#"{"j": {"i": 1.5}}"#, format!("field `j.i`: {integer} the number 1.5")),
        (r#"{"f": "1"}"#, "field `f`: a number is wanted, found the string `1`".to_owned()),
        (r#"{"b": "true"}"#, "field `b`: true or false is wanted, found the string `true`".to_owned()),
        (r#"{"b": 0}"#, "field `b`: true or false is wanted, found the number 0".to_owned()),
        (r#"{"d": 1.5}"#, format!("field `d`: {date} the number 1.5")),
        (r#"{"d": 9223372036854775807}"#, format!("field `d`: {date} the number 9223372036854775807")),
        (r#"{"a\n": 1}"#, r"field `a\n`: the name has the control character U+000A".to_owned()),
        (
            r#"{"a\u0000b": {"c": 1}}"#,
            r"field `a\u{0}b.c`: the name has the control character U+0000".to_owned(),
        ),
        (r#"{"": 1}"#, "field ``: the name is empty".to_owned()),
        (r#"{"a..b": 1}"#, "field `a..b`: a part of the name, between dots, is empty".to_owned()),
        (r#"{"_id": "x"}"#, "field `_id`: `_id` is the index's own name".to_owned()),
        (r#"{"_source": {"a": 1}}"#, "field `_source.a`: `_source` is the index's own name".to_owned()),
        (&deep_name, format!("field `{}…`: the name has more than 1024 bytes", "n".repeat(60))),
    ];
    let dates = [
        "2024-13-01",
        "2024-02-30",
        "2024-1-1",
        "24-01-01",
        "2024/01/01",
        "yesterday",
        "",
        "2024",
        "1600-01-01",
        "2300-01-01",
        "2024-01-01 10:00:00Z",
        "2024-01-01T10:00:00",
        "2024-01-01T25:00:00Z",
        "2024-01-01T10:00Z",
        "12024-01-01",
        "+024-01-01",
        "2024-01-01T10:00:00+99:00",
        "éé24-01-01",
    ];
    let dates =
        dates.map(|text| (json!({"d": text}).to_string(), format!("field `d`: {date} the string `{text}`")));
    cases.extend(dates.iter().map(|(source, wanted)| (source.as_str(), wanted.clone())));
    for (source, wanted) in cases {
        let error = schema.check(source).expect_err(source);
        assert_eq!(error.to_string(), wanted, "{source:.80}");
        // What was checked with another definition is converted as far as it can be.
        let document = Document { id: "x", seq: 1, term: 1, version: 1, source };
        assert!(schema.convert(&document).get_first(schema.id).is_some());
    }
    let good = json!({
        "t": ["a", null, "b"], "k": "x".repeat(32_766), "s": "x".repeat(40_000), "i": i64::MIN, "f": u64::MAX, "b": [true, false],
        "d": ["2024-02-29", "2024-01-01T10:00:00.123456+02:00", "2024-01-01t10:00:00z", -1, 0],
        "o": {"i": null, "x": {}}, "j": {"i": 3, "x": "dynamic"}, "big": "y".repeat(40_000), "_pid": 7,
    });
    assert_eq!(schema.check(&good.to_string()), Ok(()));
}

#[test]
fn a_document_s_size_and_number_of_fields_are_bounded() {
    let schema = schema(json!({"fields": {"t": {"type": "text"}}}));
    let document = |count: usize| {
        let fields = (0..count).map(|number| (format!("f{number}"), json!([number, {"x": null}])));
        serde_json::Value::from(fields.collect::<serde_json::Map<_, _>>()).to_string()
    };
    assert_eq!(schema.check(&document(1_000)), Ok(()));
    assert_eq!(schema.check(&document(1_001)), Err(DocumentError::TooManyFields { path: "f999".to_owned() }));
    let searcher = indexed(&schema, &[&document(1_000)]);
    assert_eq!(find(&schema, &searcher, "f999", "999"), ["0"]);
    let large = |bytes: usize| format!(r#"{{"t":"{}"}}"#, "x".repeat(bytes - 8));
    assert_eq!(schema.check(&large(8 * 1024 * 1024)), Ok(()));
    let bytes = 8 * 1024 * 1024 + 1;
    assert_eq!(schema.check(&large(bytes)), Err(DocumentError::TooLarge { bytes }));
}

#[test]
fn documents_that_are_made_to_be_slow_are_not() {
    let fields: serde_json::Map<_, _> =
        (0..1_000).map(|number| (format!("a.a.{number}.x"), json!({"type": "json"}))).collect();
    let schema = schema(json!({"fields": fields, "dynamic": false}));
    let many = vec!["1"; 100_000].join(",");
    let keys: Vec<_> = (0..100_000).map(|number| format!("\"{number}\":1")).collect();
    let name = "a.".repeat(500);
    let start = std::time::Instant::now();
    assert_eq!(schema.check(&format!(r#"{{"{name}b": [{many}]}}"#)), Ok(()));
    assert_eq!(schema.check(&format!(r#"{{"{name}b": {{{}}}}}"#, keys.join(","))), Ok(()));
    let error = schema.check(&format!(r#"{{"{}": [{many}]}}"#, "a.".repeat(1_000_000))).unwrap_err();
    assert!(error.to_string().len() < 200, "{error}");
    // A bound on steps, not on time: this takes a tenth of it, and took minutes when each value cost its path's length.
    assert!(start.elapsed().as_secs() < 20);
}

#[test]
fn fields_that_are_not_declared_are_indexed_or_stored_or_refused() {
    let fields =
        json!({"title": {"type": "text"}, "meta": {"type": "json"}, "author.name": {"type": "keyword"}});
    let source = r#"{"title": "a", "meta": {"x": "word"}, "other": "word"}"#;
    let no = schema(json!({"fields": fields, "dynamic": false}));
    let searcher = indexed(&no, &[source]);
    assert_eq!(find(&no, &searcher, "meta.x", "word"), ["0"]);
    let unknown = |schema: &IndexSchema, field: &str| {
        let error = schema.places(field).unwrap_err();
        (error.to_string(), error.similar)
    };
    assert_eq!(unknown(&no, "other"), ("there is no field `other`".to_owned(), None));
    assert_eq!(unknown(&no, "titel").1.as_deref(), Some("title"));
    assert_eq!(unknown(&no, "author").1, None);
    assert_eq!(no.check(r#"{"a\u0000": 1, "_id": 2, "": {"": 1}}"#), Ok(()), "it is only stored");
    let strict = schema(json!({"fields": fields, "dynamic": "strict"}));
    let error = strict.check(r#"{"titel": "x"}"#).unwrap_err();
    assert_eq!(error.to_string(), "field `titel` is not declared, and the index takes declared fields only");
    assert_eq!(error.hint().as_deref(), Some("did you mean `title`?"));
    assert_eq!(strict.check(r#"{"title": "x", "other": null, "more": [{}]}"#), Ok(()));
    let yes = schema(json!({"fields": fields}));
    assert_eq!(yes.places("other").unwrap().len(), 2);
    for never in ["title.x", "_version", "_source", "", "a..b", "author.name.x"] {
        assert!(yes.places(never).is_err(), "{never}");
    }
}
