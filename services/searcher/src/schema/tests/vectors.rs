//! Vectors in documents.

use serde_json::json;

use super::*;

fn vectors() -> IndexSchema {
    let definition: Definition = serde_json::from_value(json!({"fields": {
        "v": {"type": "vector", "dims": 3},
        "unit": {"type": "vector", "dims": 2, "similarity": "dot_product"},
        "far": {"type": "vector", "dims": 2, "similarity": "l2_norm"},
        "o.w": {"type": "vector", "dims": 1, "similarity": "max_inner_product"},
    }, "coerce": true}))
    .unwrap();
    IndexSchema::new(&definition, Arc::new(definition.clone()))
}

#[test]
fn what_is_no_vector_is_refused_with_its_path() {
    let schema = vectors();
    let of = |value: &str| format!("{{\"a\": 1, \"v\": {value}}}");
    for (source, why) in [
        (of("[1, 2]"), "field `v`, a vector: 3 numbers are wanted, found 2"),
        (of("[]"), "field `v`, a vector: 3 numbers are wanted, found 0"),
        (of("[1, 2, 3, 4]"), "field `v`, a vector: 3 numbers are wanted, found more"),
        (of("[1, null, 3]"), "field `v`, a vector: number 1 of the list is null"),
        (of("[1, \"2\", 3]"), "field `v`, a vector: number 1 of the list is the string `2`"),
        (of("[1, true, 3]"), "field `v`, a vector: number 1 of the list is true"),
        (of("[[1, 2, 3]]"), "field `v`, a vector: number 0 of the list is a list"),
        (of("[1, 2, {\"x\": [1]}]"), "field `v`, a vector: number 2 of the list is an object"),
        (
            of("[1, 2, 1e39]"),
            "number 2 of the list is 1e39, which is beyond the range of 32-bit floating-point numbers",
        ),
        (of("[1, 2, -3.5e38]"), "number 2 of the list is -3.5e38, which is beyond the range"),
        (of("[1, 2, NaN]"), "field `v`, a vector: number 2 of the list can't be read: expected value"),
        (of("[1, Infinity, 3]"), "field `v`, a vector: number 1 of the list can't be read: expected value"),
        (of("[1, -Infinity, 3]"), "field `v`, a vector: number 1 of the list can't be read: invalid number"),
        (of("[1, 1e999, 3]"), "field `v`, a vector: number 1 of the list can't be read: number out of range"),
        (of("[0, 0.0, -0.0]"), "field `v`, a vector: it is all zeros"),
        (of("[1e-30, 0, 0]"), "field `v`, a vector: it is all zeros, or nearly so"),
        (of("[3e38, 3e38, 3e38]"), "field `v`, a vector: its numbers are too large"),
        (of("7"), "field `v`: a list of numbers is wanted, found the number 7"),
        (of("\"[1, 2, 3]\""), "field `v`: a list of numbers is wanted, found the string"),
        (of("{\"x\": 1}"), "field `v`: a list of numbers is wanted, found an object"),
        ("{\"unit\": [1, 1]}".to_owned(), "field `unit`, a vector: its length is 1.4142135"),
        ("{\"far\": [3e38, 0]}".to_owned(), "field `far`, a vector: its numbers are too large"),
        (
            "{\"o\": [{\"w\": [1]}, {\"w\": [2]}]}".to_owned(),
            "field `o.w`, a vector: a document has one vector",
        ),
        ("{\"o\": {\"w\": [\"x\"]}}".to_owned(), "field `o.w`, a vector: number 0"),
    ] {
        let error = schema.check(&source).unwrap_err().to_string();
        assert!(error.contains(why), "{source}: {error}");
    }
    let deep = format!("{{\"v\": {}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(schema.check(&deep).is_err());
    let long = format!("{{\"v\": [{}1]}}", "1,".repeat(1_000_000));
    assert!(schema.check(&long).unwrap_err().to_string().contains("found more"));
}

#[test]
fn vectors_are_kept_and_may_be_missing() {
    let schema = vectors();
    let vectors = |source: &str| -> Vec<Vec<u8>> {
        schema.check(source).unwrap();
        let document = Document { id: "a", seq: 1, term: 1, version: 1, source };
        let converted = schema.convert(&document);
        converted.get_all(schema.vectors).map(|value| value.as_custom().unwrap().to_vec()).collect()
    };
    assert_eq!(vectors(r#"{"v": [1, 2.5, -3]}"#), [crate::vectors::value("v", &[1.0, 2.5, -3.0])]);
    assert_eq!(vectors(r#"{"o": {"w": [0]}, "far": [0, 0]}"#).len(), 2);
    assert_eq!(vectors(r#"{"o.w": [9000000000000000000]}"#).len(), 1);
    for source in ["{}", r#"{"v": null}"#, r#"{"o": {"w": null}, "v": null}"#] {
        assert!(vectors(source).is_empty(), "{source}");
    }
}

#[test]
fn an_older_document_that_does_not_fit_has_no_vector() {
    let schema = vectors();
    for source in [r#"{"v": [1, 2], "t": "x"}"#, r#"{"v": "x", "t": "x"}"#, r#"{"v": [0, 0, 0], "t": "x"}"#] {
        let converted = schema.convert(&Document { id: "a", seq: 1, term: 1, version: 1, source });
        assert_eq!(converted.get_all(schema.vectors).count(), 0, "{source}");
        assert_eq!(converted.get_all(schema.all).count(), 1, "the rest of it is indexed: {source}");
    }
}

#[test]
fn a_vector_has_no_words_and_no_values() {
    let schema = vectors();
    let error = schema.places("v").unwrap_err();
    assert_eq!(error.to_string(), "`v` is a vector, which only `knn` searches");
    assert!(schema.places("v.x").is_err());
}
