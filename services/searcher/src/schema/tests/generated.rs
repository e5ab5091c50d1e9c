//! Generated documents and texts.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;
use tantivy::collector::TopDocs;
use tantivy::query::TermQuery;
use tantivy::schema::{IndexRecordOption, Value as _};
use tantivy::{IndexWriter, TantivyDocument};

use super::{definition, find, indexed, schema};
use crate::definition::Analyzer;
use crate::document::Document;
use crate::schema::IndexSchema;

/// Any JSON, with names that are declared, dynamic or odd.
fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let text = prop_oneof![
        "(?s).{0,12}",
        "[a-z東京 ]{0,300}",
        Just("2024-01-01T00:00:00.123Z".to_owned()),
        Just("2024-01-01".to_owned()),
        Just("x".repeat(32_767)),
        Just("x".repeat(66_000)),
    ];
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        any::<u64>().prop_map(serde_json::Value::from),
        any::<f64>().prop_map(serde_json::Value::from),
        (-1_000_i64..1_000).prop_map(serde_json::Value::from),
        text.prop_map(serde_json::Value::from),
    ];
    let name = prop_oneof![
        20 => "[abtkifsdn]",
        2 => "[ab]\\.[ab]",
        1 => "(?s).{0,4}",
        1 => Just("_id".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            object(name.clone(), inner),
        ]
    })
}

fn object(
    name: impl Strategy<Value = String>,
    value: impl Strategy<Value = serde_json::Value>,
) -> impl Strategy<Value = serde_json::Value> {
    proptest::collection::btree_map(name, value, 0..6)
        .prop_map(|entries| entries.into_iter().collect::<serde_json::Map<_, _>>().into())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A document is refused, or found by its id with its source.
    #[test]
    fn every_accepted_document_is_indexed(
        documents in proptest::collection::vec(object("[abctkifsdnz]", any_json()), 1..30),
        dynamic in prop_oneof![Just(json!(true)), Just(json!(false)), Just(json!("strict"))],
    ) {
        let created = definition(json!({"dynamic": dynamic, "fields": {
            "t": {"type": "text"}, "k": {"type": "keyword"}, "i": {"type": "i64"}, "f": {"type": "f64"},
            "s": {"type": "text", "analyzer": "ngram"}, "d": {"type": "date"}, "n": {"type": "json"}, "n.t": {"type": "text", "analyzer": "cjk"},
        }}));
        let later = json!({"fields": {"c": {"type": "text", "analyzer": "en"}, "z": {"type": "keyword", "ignore_above": 5}}, "dynamic": dynamic});
        let later = created.extended(&serde_json::from_value(later).unwrap()).unwrap();
        let schema = IndexSchema::new(&created, Arc::new(later));
        let index = schema.create(tantivy::directory::RamDirectory::create()).unwrap();
        let mut writer: IndexWriter = index.writer_with_num_threads(1, 20_000_000).unwrap();
        let mut accepted = Vec::new();
        for (number, document) in documents.iter().enumerate() {
            let (id, source) = (format!("{number}\0/é"), document.to_string());
            let document = Document { id: &id, seq: number as u64, term: 1, version: 1, source: &source };
            // What is refused may be in the log, from before a field was declared.
            let converted = schema.convert(&document);
            let is_refused = schema.check(&source).is_err();
            writer.add_document(converted).unwrap();
            if number % 7 == 6 {
                writer.commit().unwrap();
            }
            accepted.push((id, source, is_refused));
        }
        writer.commit().unwrap();
        writer.merge(&index.searchable_segment_ids().unwrap()).wait().unwrap();
        let reader = index.reader().unwrap();
        let searcher = reader.searcher();
        prop_assert!(accepted.iter().any(|(_, _, is_refused)| !is_refused) || accepted.len() < 30);
        for (id, source, _) in accepted {
            let query = TermQuery::new(schema.id_term(&id), IndexRecordOption::Basic);
            let found = searcher.search(&query, &TopDocs::with_limit(2).order_by_score()).unwrap();
            prop_assert_eq!(found.len(), 1);
            let document: TantivyDocument = searcher.doc(found[0].1).unwrap();
            prop_assert_eq!(document.get_first(schema.source).unwrap().as_str(), Some(&*source));
        }
    }

    /// Every word of a text is found, whatever the analyzer.
    #[test]
    fn a_text_finds_its_document(text in "(?s)(.|[a-z東京ß\u{301} ]){1,30}", number in 0..Analyzer::ALL.len()) {
        let analyzer = Analyzer::ALL[number].name();
        let schema = schema(json!({"fields": {"t": {"type": "text", "analyzer": analyzer}}}));
        let source = json!({"t": text, "u": text}).to_string();
        let searcher = indexed(&schema, &["{}", &source]);
        for field in ["t", "u"] {
            let places = schema.places(field).unwrap();
            if !schema.analyze_query(&places[0], &text).is_empty() {
                prop_assert_eq!(find(&schema, &searcher, field, &text), ["1"]);
            }
        }
    }
}
