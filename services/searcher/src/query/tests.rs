//! Queries against small indexes in memory.

use std::sync::Arc;

use serde_json::json;
use tantivy::collector::{Count, TopDocs};
use tantivy::schema::Value as _;
use tantivy::{IndexWriter, TantivyDocument};

mod hostile;
mod ranking;

use super::*;
use crate::definition::Definition;
use crate::document::Document;

/// An index of documents whose ids are `0`, `1`, ..., with a segment for each group of documents.
pub(super) struct Indexed {
    pub(super) schema: IndexSchema,
    pub(super) searcher: Searcher,
}

impl Indexed {
    pub(super) fn segments(definition: serde_json::Value, segments: &[&[&str]]) -> Self {
        let definition: Definition = serde_json::from_value(definition).unwrap();
        let schema = IndexSchema::new(&definition.clone(), Arc::new(definition));
        let index = schema.create(tantivy::directory::RamDirectory::create()).unwrap();
        let mut writer: IndexWriter = index.writer_with_num_threads(1, 20_000_000).unwrap();
        writer.set_merge_policy(Box::new(tantivy::merge_policy::NoMergePolicy));
        let mut number = 0;
        for segment in segments {
            for source in *segment {
                schema.check(source).unwrap();
                let id = number.to_string();
                let document = Document { id: &id, seq: number, term: 1, version: 1, source };
                writer.add_document(schema.convert(&document)).unwrap();
                number += 1;
            }
            writer.commit().unwrap();
        }
        let searcher = index.reader().unwrap().searcher();
        Self { schema, searcher }
    }

    pub(super) fn new(definition: serde_json::Value, sources: &[&str]) -> Self {
        Self::segments(definition, &[sources])
    }

    fn parsed(&self, text: &str, options: &ParseOptions) -> (Ast, Expansions) {
        let ast = parse(text, options).unwrap();
        check(&ast, &self.schema).unwrap_or_else(|error| panic!("{text}: {error:?}"));
        let expansions = expand(&ast, &self.schema, &self.searcher).unwrap();
        (ast, Expansions::union([expansions]))
    }

    /// The ids with their scores, the best first.
    fn ranked(&self, text: &str, options: &ParseOptions) -> Vec<(String, f32)> {
        let (ast, expansions) = self.parsed(text, options);
        let compiled = compile(&ast, &self.schema, &expansions).unwrap();
        let ranked = self.top(&*compiled.query);
        let filter = compile_filter(&ast, &self.schema, &expansions).unwrap();
        assert_eq!(self.searcher.search(&filter, &Count).unwrap(), ranked.len(), "{text}");
        ranked
    }

    fn top(&self, query: &dyn Query) -> Vec<(String, f32)> {
        let top = self.searcher.search(query, &TopDocs::with_limit(1000).order_by_score()).unwrap();
        top.into_iter()
            .map(|(score, address)| {
                let document: TantivyDocument = self.searcher.doc(address).unwrap();
                let id = document.get_first(self.schema.id).unwrap().as_str().unwrap();
                (id.to_owned(), score)
            })
            .collect()
    }

    fn with(&self, text: &str, options: &ParseOptions) -> String {
        let mut ids: Vec<_> = self.ranked(text, options).into_iter().map(|(id, _)| id).collect();
        ids.sort_by_key(|id| id.parse::<u64>().unwrap());
        ids.join(" ")
    }

    /// The ids of what a query finds.
    fn find(&self, text: &str) -> String {
        self.with(text, &ParseOptions::default())
    }

    /// The ids of what a query finds, the best first.
    fn best(&self, text: &str, options: &ParseOptions) -> String {
        let ids: Vec<_> = self.ranked(text, options).into_iter().map(|(id, _)| id).collect();
        ids.join(" ")
    }

    fn refused(&self, text: &str) -> QueryError {
        let ast = parse(text, &ParseOptions::default()).unwrap();
        check(&ast, &self.schema).expect_err(text)
    }
}

fn all_words() -> ParseOptions {
    ParseOptions { all_words: true, ..ParseOptions::default() }
}

fn typos() -> ParseOptions {
    ParseOptions { typos: true, ..ParseOptions::default() }
}

fn packages() -> Indexed {
    let definition = json!({
        "fields": {
            "title": {"type": "text"},
            "body": {"type": "text", "analyzer": "en"},
            "tag": {"type": "keyword"},
            "size": {"type": "i64"},
            "price": {"type": "f64"},
            "free": {"type": "bool"},
            "at": {"type": "date"},
        },
        "synonyms": ["tv, television", "usb => universal serial bus"],
    });
    Indexed::segments(
        definition,
        &[
            &[
                r#"{"title": "nginx", "body": "a small web server", "tag": "net", "size": 5, "price": 1.5, "free": true, "at": "2024-01-01T10:00:00Z"}"#,
                r#"{"title": "Apache httpd", "body": "the web servers of old", "tag": "Net Tools", "size": 10, "free": false, "at": "2024-06-01T00:00:00Z"}"#,
                r#"{"title": "wi-fi tools", "body": "running a television", "size": -3, "price": 20, "author": {"name": "Ada Lovelace", "age": 36}}"#,
            ],
            &[
                r#"{"title": "proxy for nginx", "body": "http proxy", "tag": ["net", "proxy"], "author": {"name": "Grace", "age": 85.5}}"#,
                r#"{"title": "Universal Serial Bus", "body": "fast http caching proxy", "note": "The nginx", "stamp": "2024-03-01T00:00:00Z", "n": [1, "1", true]}"#,
            ],
        ],
    )
}

#[test]
fn words_and_phrases_are_found() {
    let index = packages();
    for (query, ids) in [
        ("*", "0 1 2 3 4"),
        ("", "0 1 2 3 4"),
        ("nginx", "0 3 4"),
        ("NGINX", "0 3 4"),
        ("title:nginx", "0 3"),
        ("+nginx +proxy", "3 4"),
        ("nginx -proxy", "0"),
        ("-proxy", "0 1 2"),
        ("NOT proxy AND NOT nginx", "1 2"),
        ("apache OR -nginx", "1 2"),
        ("nginx AND (proxy OR web)", "0 3 4"),
        ("\"http proxy\"", "3"),
        ("\"http proxy\"~1", "3 4"),
        ("\"proxy http\"~2", "3"),
        ("\"nginx\"", "0 3 4"),
        ("body:server", "0 1"),
        ("body:runs", "2"),
        ("wi-fi", "2"),
        ("\"wi fi tools\"", "2"),
        ("fi-wi", ""),
        ("NOT wi-fi", "0 1 3 4"),
        ("author.name:lovelace", "2"),
        ("author.name:\"Ada Lovelace\"", "2"),
        ("note:(the nginx)", "4"),
        ("body:tv", "2"),
        ("title:usb", "4"),
        ("title:(apache nginx)", "0 1 3"),
        ("unknown:x", ""),
    ] {
        assert_eq!(index.find(query), ids, "{query}");
    }
}

#[test]
fn values_are_found_as_whole_values_of_any_type() {
    let index = packages();
    for (query, ids) in [
        ("tag:net", "0 3"),
        ("tag:\"Net Tools\"", "1"),
        ("tag:Net", ""),
        ("size:5", "0"),
        ("size:-3", "2"),
        ("price:1.5", "0"),
        ("price:20", "2"),
        ("free:true", "0"),
        ("free:false", "1"),
        ("at:2024-01-01", "0"),
        ("at:2024-01-01T10:00:00Z", "0"),
        ("at:\"2024-01-01T11:00:00+01:00\"", "0"),
        ("at:2024-01-02", ""),
        ("stamp:2024-03-01", "4"),
        ("author.age:36", "2"),
        ("author.age:85.5", "3"),
        ("n:1", "4"),
        ("n:true", "4"),
        ("n:2", ""),
        ("_id:3", "3"),
        ("_seq:3", "3"),
        ("size:(5 OR 10)", "0 1"),
    ] {
        assert_eq!(index.find(query), ids, "{query}");
    }
}

#[test]
fn ranges_of_every_type_are_found() {
    let index = packages();
    for (query, ids) in [
        ("size:[5 TO 10]", "0 1"),
        ("size:{5 TO 10]", "1"),
        ("size:[5 TO 10}", "0"),
        ("size:>5", "1"),
        ("size:>=5", "0 1"),
        ("size:<5", "2"),
        ("size:<=5", "0 2"),
        ("size:[* TO 5]", "0 2"),
        ("size:(>0 AND <10)", "0"),
        ("-size:>0", "2 3 4"),
        ("price:>1", "0 2"),
        ("price:[1.5 TO 2]", "0"),
        ("price:<20", "0"),
        ("free:[false TO false]", "1"),
        ("free:>=false", "0 1"),
        ("free:>false", "0"),
        ("at:[2024-01-01 TO 2024-01-01]", "0"),
        ("at:>2024-01-01", "1"),
        ("at:>=2024-01-01T10:00:00Z", "0 1"),
        ("at:<2024-01-01T10:00:00Z", ""),
        ("at:[2024-01-01 TO *]", "0 1"),
        ("tag:[net TO nez]", "0 3"),
        ("tag:>net", "3"),
        ("author.age:>36", "3"),
        ("author.age:>=36", "2 3"),
        ("author.age:[36 TO 85.5]", "2 3"),
        ("author.age:[35.5 TO 80]", "2"),
        ("author.name:[A TO B]", "2"),
        ("stamp:[2024-02-01 TO 2024-04-01]", "4"),
        ("n:[0 TO 1]", "4"),
        ("n:>1", ""),
        ("n:[5 TO 1]", ""),
        ("n:{1 TO 1}", ""),
        ("stamp:[2025-01-01 TO 2024-01-01]", ""),
        ("_seq:[3 TO 4]", "3 4"),
        ("_seq:<1", "0"),
        ("_id:[3 TO 4]", "3 4"),
    ] {
        assert_eq!(index.find(query), ids, "{query}");
    }
}

#[test]
fn ranges_hold_over_integers_and_floats_of_one_path() {
    let index = Indexed::segments(
        json!({}),
        &[
            &[r#"{"n": 5}"#, r#"{"n": -1}"#],
            &[r#"{"n": 5.5}"#, r#"{"n": 18446744073709551615}"#, r#"{"n": "5"}"#],
            &[r#"{"n": 9223372036854775808}"#],
            &[r#"{"n": [1, 10]}"#],
        ],
    );
    for (query, ids) in [
        ("n:5", "0 4"),
        ("n:[5 TO 6]", "0 2 4"),
        ("n:>5", "2 3 5 6"),
        ("n:>5.2", "2 3 5 6"),
        ("n:<5.2", "0 1 4 6"),
        ("n:<=5", "0 1 4 6"),
        ("n:<0", "1"),
        ("n:>9223372036854775807", "3 5"),
        ("n:>=9223372036854775808", "3 5"),
        ("n:[0.5 TO 5]", "0 4 6"),
        ("n:[-1 TO 18446744073709551615]", "0 1 2 3 4 5 6"),
        ("n:[3 TO 4]", ""),
        ("n:[2 TO 4.5]", ""),
        ("n:[1.5 TO 9]", "0 2 4"),
        ("n:{5 TO 5.5]", "2"),
        ("n:<-1.5", ""),
        ("n:<-0.5", "1"),
        ("n:<1e300", "0 1 2 3 4 5 6"),
        ("n:<-1e300", ""),
        ("n:>1e300", ""),
        ("n:[-1e300 TO 1.5]", "1 6"),
    ] {
        let found = index.find(query);
        // The string "5" is in ranges of strings.
        let without = |ids: &str| ids.split(' ').filter(|id| *id != "4").collect::<Vec<_>>().join(" ");
        assert_eq!(without(&found), without(ids), "{query}");
    }
}

#[test]
fn a_field_exists_where_it_has_a_value() {
    let index = packages();
    for (query, ids) in [
        ("tag:*", "0 1 3"),
        ("-tag:*", "2 4"),
        ("author:*", "2 3"),
        ("author.name:*", "2 3"),
        ("title:*", "0 1 2 3 4"),
        ("size:[* TO *]", "0 1 2"),
        ("_id:*", "0 1 2 3 4"),
        ("nothing:*", ""),
    ] {
        assert_eq!(index.find(query), ids, "{query}");
    }
}

#[test]
fn prefixes_wildcards_and_misspelled_words_are_found() {
    let index = packages();
    for (query, ids) in [
        ("ngin*", "0 3 4"),
        ("NGIN*", "0 3 4"),
        ("title:ngin*", "0 3"),
        ("n?inx", "0 3 4"),
        ("*inx", "0 3 4"),
        ("title:*pach*", "1"),
        ("ngnix~", "0 3 4"),
        ("ngnxi~1", ""),
        ("nginx~0", "0 3 4"),
        ("ngnix~0", ""),
        ("ngnxi~2", "0 3 4"),
        ("tag:ne*", "0 3"),
        ("tag:Net?Tools", "1"),
        ("tag:nett~1", "0 3"),
        ("author.name:love*", "2"),
        ("author.name:Ada*", "2"),
        ("author.na*", ""),
        ("wi-f*", "2"),
        ("title:wi-*", "2"),
        ("title:no-f*", ""),
        ("_id:*", "0 1 2 3 4"),
        ("+ngin* -title:ngin*", "4"),
    ] {
        assert_eq!(index.find(query), ids, "{query}");
    }
    assert_eq!(index.find("ngnix"), "");
    assert_eq!(index.with("ngnix", &typos()), "0 3 4");
    assert_eq!(index.with("title:(ngnix AND proxi)", &typos()), "3");
    assert_eq!(index.with("\"ngnix\"", &typos()), "");
}

#[test]
fn a_stop_word_asks_for_nothing() {
    let index = packages();
    for (query, ids) in [
        ("body:the", ""),
        ("body:(the AND server)", "0 1"),
        ("body:(+the -server)", ""),
        ("-body:the", ""),
        ("body:\"the web\"", "0 1"),
        ("body:((the) AND server)", "0 1"),
        ("&& nginx", "0 3 4"),
    ] {
        assert_eq!(index.find(query), ids, "{query}");
    }
    // `the` is a word in `title`, and none in `body`.
    assert_eq!(index.with("the server", &all_words()), "0 1");
    assert_eq!(index.with("nginx & proxy", &all_words()), "3 4");
}
