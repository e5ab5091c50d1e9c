//! Documents and queries against a Tantivy index in memory.

mod documents;
mod generated;
mod queries;
mod values;
mod vectors;

use serde_json::json;
use tantivy::collector::TopDocs;
use tantivy::query::{PhraseQuery, Query, TermQuery};
use tantivy::schema::Value as _;
use tantivy::{IndexWriter, Searcher};

use super::query_text::phrases;
use super::*;

fn definition(json: serde_json::Value) -> Definition {
    serde_json::from_value(json).unwrap()
}

fn schema(json: serde_json::Value) -> IndexSchema {
    let created = definition(json);
    IndexSchema::new(&created.clone(), Arc::new(created))
}

/// An index of documents whose ids are `0`, `1`, ...
fn indexed(schema: &IndexSchema, sources: &[&str]) -> Searcher {
    let index = schema.create(tantivy::directory::RamDirectory::create()).unwrap();
    let mut writer: IndexWriter = index.writer_with_num_threads(1, 20_000_000).unwrap();
    for (number, source) in sources.iter().enumerate() {
        schema.check(source).unwrap();
        let id = number.to_string();
        let document = Document { id: &id, seq: number as u64, term: 1, version: 1, source };
        writer.add_document(schema.convert(&document)).unwrap();
    }
    writer.commit().unwrap();
    index.reader().unwrap().searcher()
}

/// The ids that a query finds, in order.
fn ids(schema: &IndexSchema, searcher: &Searcher, query: &dyn Query) -> Vec<String> {
    let found = searcher.search(query, &TopDocs::with_limit(100).order_by_score()).unwrap();
    let mut ids: Vec<_> = found
        .into_iter()
        .map(|(_, address)| {
            let document: TantivyDocument = searcher.doc(address).unwrap();
            document.get_first(schema.id).unwrap().as_str().unwrap().to_owned()
        })
        .collect();
    ids.sort();
    ids
}

/// The ids of documents that have a text in a field, as text or as a value.
fn find(schema: &IndexSchema, searcher: &Searcher, field: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for place in schema.places(field).unwrap() {
        let tokens = schema.analyze_query(&place, text);
        for phrase in phrases(&tokens) {
            let query: Box<dyn Query> = match phrase.as_slice() {
                [(_, term)] => Box::new(TermQuery::new(term.clone(), IndexRecordOption::Basic)),
                _ => Box::new(PhraseQuery::new_with_offset(phrase)),
            };
            found.extend(ids(schema, searcher, &*query));
        }
    }
    found.sort();
    found.dedup();
    found
}

#[test]
fn a_query_without_a_field_searches_the_default_fields_or_all_text() {
    let names = |json: serde_json::Value| -> Vec<String> {
        let schema = schema(json);
        let name = |(place, boost): (Place, f32)| {
            let field = schema.schema.get_field_name(place.field);
            format!("{field}/{}^{boost}", place.path.unwrap_or_default())
        };
        schema.default_places().into_iter().map(name).collect()
    };
    let fields =
        json!({"t": {"type": "text"}, "u": {"type": "text", "analyzer": "en"}, "k": {"type": "keyword"}});
    assert_eq!(names(json!({"fields": fields})), ["text.t/^1", "text.u/^1", "_all/^1"]);
    assert_eq!(names(json!({"fields": fields, "dynamic": false})), ["text.t/^1", "text.u/^1"]);
    assert_eq!(names(json!({"fields": {"j": {"type": "json"}}, "dynamic": "strict"})), ["_all/^1"]);
    let defaults = json!({"t": 2.5, "k": 1.0, "other": 3.0});
    assert_eq!(
        names(json!({"fields": fields, "default_fields": defaults})),
        ["_values/k^1", "_text_default/other^3", "text.t/^2.5"]
    );
}

#[test]
fn dynamic_text_is_found_without_a_field() {
    let schema = schema(json!({"fields": {"t": {"type": "text"}}}));
    let searcher =
        indexed(&schema, &[r#"{"t": "red"}"#, r#"{"a": "red"}"#, r#"{"b": {"c": ["x", "dark red"]}}"#, "{}"]);
    let mut found = Vec::new();
    for (place, _) in schema.default_places() {
        let term = schema.text_term(&place, "red");
        found.extend(ids(&schema, &searcher, &TermQuery::new(term, IndexRecordOption::Basic)));
    }
    assert_eq!(found, ["0", "1", "2"]);
}

#[test]
fn a_field_that_is_declared_later_changes_only_new_documents() {
    let created = definition(json!({"fields": {"t": {"type": "text"}}}));
    let later = json!({"fields": {"u": {"type": "text", "analyzer": "en"}, "n": {"type": "i64"}}});
    let later = created.extended(&serde_json::from_value(later).unwrap()).unwrap();
    let old = IndexSchema::new(&created, Arc::new(created.clone()));
    let new = IndexSchema::new(&created, Arc::new(later));
    assert_eq!(old.schema, new.schema);
    let index = old.create(tantivy::directory::RamDirectory::create()).unwrap();
    let mut writer: IndexWriter = index.writer_with_num_threads(1, 20_000_000).unwrap();
    let add = |schema: &IndexSchema, id, source| {
        let document = Document { id, seq: 0, term: 0, version: 1, source };
        writer.add_document(schema.convert(&document)).unwrap();
    };
    let source = r#"{"t": "one", "u": "running dogs", "n": 7}"#;
    add(&old, "old", source);
    add(&new, "new", source);
    // Accepted when `n` could be anything, and replayed now.
    add(&new, "odd", r#"{"u": "dog", "n": "many"}"#);
    writer.commit().unwrap();
    let searcher = index.reader().unwrap().searcher();
    assert_eq!(find(&new, &searcher, "u", "dog"), ["new", "odd"]);
    assert_eq!(find(&new, &searcher, "u", "running dogs"), ["new"]);
    assert_eq!(find(&old, &searcher, "u", "dogs"), ["old"]);
    assert_eq!(find(&new, &searcher, "n", "7"), ["new", "old"]);
}

#[test]
fn the_schema_depends_on_the_creating_definition_only() {
    let created = definition(
        json!({"fields": {"b": {"type": "text"}, "a.x": {"type": "text", "analyzer": "cjk"}, "k": {"type": "keyword"}}}),
    );
    let schema = IndexSchema::new(&created, Arc::new(created.clone())).schema;
    let names: Vec<_> = schema.fields().map(|(_, entry)| entry.name()).collect();
    let mut wanted = vec!["_id", "_seq", "_term", "_version", "_source", "_values"];
    let texts = Analyzer::ALL.map(|analyzer| format!("_text_{}", analyzer.name()));
    wanted.extend(texts.iter().map(String::as_str));
    wanted.extend(["_all", "_fields", "_vectors", "text.a.x", "text.b"]);
    assert_eq!(names, wanted);
    let json = |schema: &Schema| serde_json::to_string(schema).unwrap();
    assert_eq!(json(&schema), json(&IndexSchema::new(&created, Arc::new(Definition::default())).schema));
}
