//! The text of queries.

use serde_json::json;
use tantivy::Term;

use super::{find, indexed, schema};
use crate::schema::IndexSchema;
use crate::schema::query_text::{QueryToken, phrases};

/// What a query's text becomes: positions, lengths and alternatives.
fn analyzed(schema: &IndexSchema, field: &str, text: &str) -> Vec<String> {
    let place = schema.places(field).unwrap().remove(0);
    let term = |(at, term): &(usize, Term)| {
        let value = term.value();
        let text = value.as_str().map(str::to_owned);
        let text = text.unwrap_or_else(|| format!("{:?}", term).rsplit('"').nth(1).unwrap().to_owned());
        format!("{at}:{text}")
    };
    let sequence = |terms: &Vec<(usize, Term)>| terms.iter().map(term).collect::<Vec<_>>().join(" ");
    let token = |token: QueryToken| {
        let alternatives: Vec<_> = token.alternatives.iter().map(sequence).collect();
        format!("{}+{} {}", token.position, token.length, alternatives.join(" | "))
    };
    schema.analyze_query(&place, text).into_iter().map(token).collect()
}

#[test]
fn synonyms_are_applied_to_queries() {
    let schema = schema(json!({
        "fields": {"t": {"type": "text"}, "e": {"type": "text", "analyzer": "en"}},
        "synonyms": ["TV, television, the box", "usb => universal serial bus", "NYC, new york city", "new york, big apple", "the, a"],
    }));
    assert_eq!(analyzed(&schema, "t", "a tv"), ["0+1 0:a | 0:the", "1+1 0:tv | 0:television | 0:the 1:box"]);
    assert_eq!(analyzed(&schema, "e", "televisions"), ["0+1 0:televis | 0:tv | 0:box"]);
    assert_eq!(analyzed(&schema, "t", "usb x"), ["0+1 0:universal 1:serial 2:bus", "1+1 0:x"]);
    assert_eq!(analyzed(&schema, "t", "universal serial bus").len(), 3, "the arrow has one direction");
    assert_eq!(analyzed(&schema, "t", "in New York City"), ["0+1 0:in", "1+3 0:new 1:york 2:city | 0:nyc"]);
    assert_eq!(analyzed(&schema, "t", "new york, x")[0], "0+2 0:new 1:york | 0:big 1:apple");
    assert_eq!(analyzed(&schema, "other", "tv"), ["0+1 0:tv | 0:television | 0:the 1:box"]);
    assert_eq!(analyzed(&schema, "e", "the of"), [""; 0]);
}

#[test]
fn a_phrase_with_synonyms_is_found_in_each_wording() {
    let schema =
        schema(json!({"fields": {"t": {"type": "text"}}, "synonyms": ["usb, universal serial bus"]}));
    let searcher = indexed(
        &schema,
        &[
            r#"{"t": "a usb port here"}"#,
            r#"{"t": "a universal serial bus port here"}"#,
            r#"{"t": "a universal bus port here"}"#,
        ],
    );
    assert_eq!(find(&schema, &searcher, "t", "a usb port"), ["0", "1"]);
    assert_eq!(find(&schema, &searcher, "t", "universal serial bus port here"), ["0", "1"]);
    let place = schema.places("t").unwrap().remove(0);
    let tokens = schema.analyze_query(&place, &"usb ".repeat(20));
    assert_eq!(phrases(&tokens).len(), 64, "their number is bounded");
}

#[test]
fn parts_of_words_and_pairs_of_characters_are_found() {
    let schema = schema(json!({"fields": {
        "n": {"type": "text", "analyzer": "ngram"}, "c": {"type": "text", "analyzer": "cjk"},
    }}));
    let searcher = indexed(
        &schema,
        &[r#"{"n": "libNGINX-mod", "c": "東京都 abc"}"#, r#"{"n": "nginx gin", "c": "京都"}"#],
    );
    let find = |field, text| find(&schema, &searcher, field, text);
    assert_eq!(find("n", "nginx"), ["0", "1"]);
    assert_eq!(find("n", "bngin"), ["0"]);
    assert_eq!(find("n", "x-"), ["0"]);
    assert_eq!(find("n", "nginx gin"), ["1"]);
    assert_eq!(find("c", "京都"), ["0", "1"]);
    assert_eq!(find("c", "東"), ["0"]);
    assert_eq!(find("c", "東京都 abc"), ["0"]);
}
