use std::borrow::Cow;

use proptest::prelude::*;
use serde_json::json;

use super::compact::compact_json;
use super::id::{IdError, document_id};
use super::*;
use crate::definition::Definition;

/// What a reading hands over.
fn values(source: &str) -> Result<Vec<String>, DocumentError> {
    let mut values = Vec::new();
    read(source, Reading::Strict, |path, scalar| {
        values.push(format!("{path}={scalar}"));
        Ok(())
    })?;
    Ok(values)
}

#[test]
fn every_value_comes_with_its_path() {
    let source = r#" {"a": 1, "b": {"c": [true, null, [-2, 1.5]], "d.e": "x\ty"}, "f": {}, "g": [],
        "h": [{"i": 18446744073709551615}, {"i": "z"}], "": {"": 0}} "#;
    assert_eq!(
        values(source).unwrap(),
        [
            "a=the number 1",
            "b.c=true",
            "b.c=the number -2",
            "b.c=the number 1.5",
            r"b.d.e=the string `x\ty`",
            "h.i=the number 18446744073709551615",
            "h.i=the string `z`",
            ".=the number 0",
        ]
    );
}

#[test]
fn what_is_no_document_is_refused_with_the_reason() {
    let deep = |open: &str, close: &str, depth| {
        format!(r#"{{"a": {}1{}}}"#, open.repeat(depth), close.repeat(depth))
    };
    let cases = [
        ("", "the document is no JSON: EOF while parsing a value at line 1 column 0"),
        ("{\"a\": 1", "the document is no JSON: EOF while parsing an object at line 1 column 7"),
        ("{} {}", "the document is no JSON: trailing characters at line 1 column 4"),
        (r#"{"a": 1e999}"#, "the document is no JSON: number out of range at line 1 column 11"),
        (r#"{"a": NaN}"#, "the document is no JSON: expected value at line 1 column 7"),
        (r#"{"a": "\ud800"}"#, "the document is no JSON: unexpected end of hex escape at line 1 column 14"),
        ("[1]", "a document is a JSON object, found a list"),
        ("null", "a document is a JSON object, found null"),
        ("\"x\"", "a document is a JSON object, found the string `x`"),
        (r#"{"a": {"b": 1, "c": 2, "b": 3}}"#, "field `a.b` is twice in one object"),
        (r#"{"a": 1, "\u0061": 3}"#, "field `a` is twice in one object"),
        (
            &deep(r#"{"b":"#, "}", 100),
            &format!("field `a{}`: objects and lists are nested more than 100 deep", ".b".repeat(99)),
        ),
        (&deep("[", "]", 100), "field `a`: objects and lists are nested more than 100 deep"),
        (&deep("[", "]", 10_000), "field `a`: objects and lists are nested more than 100 deep"),
    ];
    for (source, wanted) in cases {
        assert_eq!(values(source).unwrap_err().to_string(), wanted, "{source:.80}");
    }
    assert_eq!(values(&deep("[", "]", 99)).unwrap(), ["a=the number 1"]);
    let mut sink = |_: &str, _: Scalar<'_>| Ok(());
    let lenient = read(&deep("[", "]", 10_000), Reading::Lenient, &mut sink).unwrap_err().to_string();
    assert_eq!(lenient, "the document is no JSON: recursion limit exceeded at line 1 column 133");
}

#[test]
fn compact_json_is_one_line_and_otherwise_the_same() {
    let cases = [
        ("{\n \"a b\" : [ 1,\t2 ]\r\n}", "{\"a b\":[1,2]}"),
        (r#"{"a\" b" : "\\" , "c": " \n "}"#, r#"{"a\" b":"\\","c":" \n "}"#),
        (r#"{"n":1.50e+3}"#, r#"{"n":1.50e+3}"#),
        ("", ""),
    ];
    for (json, compact) in cases {
        assert_eq!(compact_json(json), compact);
    }
    assert!(matches!(compact_json("{\"a\":\"b c\"}"), Cow::Borrowed(_)));
}

proptest! {
    #[test]
    fn compact_json_keeps_the_value(keys in proptest::collection::btree_map(".*", ".*", 0..8)) {
        let pretty = serde_json::to_string_pretty(&keys).unwrap();
        prop_assert_eq!(&*compact_json(&pretty), serde_json::to_string(&keys).unwrap());
    }
}

#[test]
fn an_id_is_the_field_s_or_the_given_one_or_a_new_one() {
    let by = |id: Option<&str>| Definition { id: id.map(str::to_owned), ..Definition::default() };
    let id = |field, source: serde_json::Value, given| {
        document_id(&by(field), &source.to_string(), given).map_err(|error| error.to_string())
    };
    let ok = |id: &str| Ok(id.to_owned());
    assert_eq!(id(Some("key"), json!({"key": "a"}), None), ok("a"));
    assert_eq!(id(Some("key"), json!({"key": "a"}), Some("a")), ok("a"));
    assert_eq!(id(Some("a.b"), json!({"a": {"b": -7}}), None), ok("-7"));
    assert_eq!(id(Some("a.b"), json!({"a.b": u64::MAX}), None), ok("18446744073709551615"));
    assert_eq!(id(Some("key"), json!({"key": null}), Some("given/ %#?\0é")), ok("given/ %#?\0é"));
    assert_eq!(id(None, json!({"key": "a"}), Some("given")), ok("given"));
    let new = id(Some("key"), json!({}), None).unwrap();
    assert_eq!(uuid::Uuid::parse_str(&new).unwrap().get_version_num(), 7);
    let refused = |message: &str| Err(message.to_owned());
    let given = id(Some("key"), json!({"key": "a"}), Some("b"));
    assert_eq!(given, refused("the request says id `b`, but field `key` of the document says `a`"));
    let wanted = "field `key` is the id of a document: a string or an integer is wanted, found";
    assert_eq!(id(Some("key"), json!({"key": 1.5}), None), refused(&format!("{wanted} the number 1.5")));
    assert_eq!(id(Some("key"), json!({"key": [true]}), None), refused(&format!("{wanted} true")));
    assert_eq!(
        id(Some("key"), json!({"key": ["a", "b"]}), None),
        refused(&format!("{wanted} more than one value, the string `a` and the string `b`"))
    );
    assert_eq!(id(Some("key"), json!({"key": {"a": 1}}), None), refused(&format!("{wanted} an object")));
    assert_eq!(id(Some("key"), json!({"key": ""}), None), refused("the id is empty"));
    let long = "i".repeat(600);
    assert_eq!(id(None, json!({}), Some(&long)), refused("the id has 600 bytes, at most 512 are allowed"));
    let broken = document_id(&by(Some("key")), "{", None);
    assert!(matches!(broken, Err(IdError::Document(DocumentError::Json(_)))));
}
