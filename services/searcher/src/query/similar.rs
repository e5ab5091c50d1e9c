//! Did you mean: the words of a query that no document has, and similar words that documents have.
//!
//! Only fields whose dictionary holds words as they are written take part: those of the analyzer `default`, and keywords that are
//! named by the query. Dictionaries of other analyzers hold stems or parts of words, which are no corrections. Where a query names no
//! field, the dynamic text and the declared text of the analyzer `default` are searched; if an index has none, nothing is suggested.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tantivy::{Searcher, TantivyError};

use super::ast::{Ast, Escaped, Leaf, Matches, Span};
use super::automaton::{Prefixed, Select};
use super::check::MAX_EXPANDED;
use super::expand::walk;
use super::parse::MAX_PATTERN;
use super::place::{distance_by_length, one_term, places, term_text};
use crate::definition::Analyzer;
use crate::schema::{IndexSchema, Place, PlaceKind};

/// The most similar words that a shard reports for a word.
const MAX_SIMILAR: usize = 20;

/// Words of a query with words of the index that are similar. The serialized form travels between members.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Suggestions(Vec<Suggestion>);

/// A word of a query. All shards have the same words in the same order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Suggestion {
    /// Where it was written: positions of characters.
    start: usize,
    end: usize,
    /// Whether it is in quotes.
    is_quoted: bool,
    /// Whether a document has it, or if nothing can be suggested for it.
    is_known: bool,
    /// Similar words, each with its edits and the documents that have it.
    similar: BTreeMap<String, (u8, u64)>,
}

/// Looks in one shard for the words of a query, and for similar words instead of those that no document has there.
pub(super) fn did_you_mean(
    ast: &Ast,
    schema: &IndexSchema,
    searcher: &Searcher,
) -> Result<Suggestions, TantivyError> {
    let mut suggestions = Vec::new();
    let mut walks = 0;
    for leaf in ast.leaves() {
        let places = places(leaf, &ast.options, schema).unwrap_or_default();
        let places: Vec<_> = places.into_iter().map(|(place, _)| place).collect();
        for word in words(leaf, &places) {
            let mut suggestion = Suggestion {
                start: word.start,
                end: word.end,
                is_quoted: word.is_quoted,
                is_known: true,
                similar: BTreeMap::new(),
            };
            if walks < MAX_EXPANDED {
                suggestion.look(&word, &places, schema, searcher)?;
                walks += usize::from(!suggestion.is_known);
            }
            suggestions.push(suggestion);
        }
    }
    Ok(Suggestions(suggestions))
}

/// A word that may be misspelled.
struct Written {
    text: String,
    start: usize,
    end: usize,
    is_quoted: bool,
    /// Whether it is a part of a phrase: then it is not a whole value.
    is_part: bool,
}

fn words(leaf: &Leaf, places: &[Place]) -> Vec<Written> {
    let Span { start, end } = leaf.span;
    let (text, is_whole) = match &leaf.matches {
        Matches::Word(text) | Matches::Fuzzy { word: text, .. } => {
            return vec![Written { text: text.clone(), start, end, is_quoted: false, is_part: false }];
        }
        Matches::Phrase { text, .. } => (text, places.iter().all(|place| place.kind == PlaceKind::Values)),
        Matches::Prefix(_)
        | Matches::Wildcard(_)
        | Matches::Regexp(_)
        | Matches::Range { .. }
        | Matches::Exists => return Vec::new(),
    };
    if is_whole {
        let (start, end) = (start + 1, end - 1);
        return vec![Written { text: text.clone(), start, end, is_quoted: true, is_part: false }];
    }
    // Escapes would move the words.
    if text.chars().count() + 2 != end - start {
        return Vec::new();
    }
    let mut start = start + 1;
    let mut words = Vec::new();
    for word in text.split(char::is_whitespace) {
        let end = start + word.chars().count();
        if !word.is_empty() {
            words.push(Written { text: word.to_owned(), start, end, is_quoted: true, is_part: true });
        }
        start = end + 1;
    }
    words
}

/// Whether the terms of a place are words as they are written.
fn has_words(place: &Place, is_part: bool) -> bool {
    match place.kind {
        PlaceKind::Text(analyzer) => analyzer == Analyzer::Default,
        PlaceKind::Values => place.path.is_some() && !is_part,
    }
}

impl Suggestion {
    fn look(
        &mut self,
        word: &Written,
        places: &[Place],
        schema: &IndexSchema,
        searcher: &Searcher,
    ) -> Result<(), TantivyError> {
        let distance = distance_by_length(&word.text);
        if distance == 0 || word.text.chars().count() > MAX_PATTERN {
            return Ok(());
        }
        // Whether any place has the word, also stemmed: then it is right.
        for place in places {
            let tokens = schema.analyze_query(place, &word.text);
            for (_, term) in tokens.iter().flat_map(|token| token.alternatives.iter().flatten()) {
                if searcher.doc_freq(term)? > 0 {
                    return Ok(());
                }
            }
        }
        for place in places.iter().filter(|place| has_words(place, word.is_part)) {
            let Some(exact) = one_term(schema, place, &word.text) else {
                continue;
            };
            let Some(text) = term_text(&exact) else {
                continue;
            };
            self.is_known = false;
            let prefix = schema.text_term(place, "").serialized_value_bytes().to_vec();
            let select = Select::fuzzy(text, distance, true)?;
            let automaton = Prefixed { prefix, select };
            walk(searcher, place.field, &automaton, |key, documents| {
                let Ok(similar) = std::str::from_utf8(&key[automaton.prefix.len()..]) else {
                    return;
                };
                let edits = u8::try_from(strsim::osa_distance(text, similar)).unwrap_or(u8::MAX);
                self.similar.entry(similar.to_owned()).or_insert((edits, 0)).1 += documents;
            })?;
        }
        self.cut();
        Ok(())
    }

    /// Keeps the best: fewer edits first, then more documents.
    fn cut(&mut self) {
        if self.similar.len() > MAX_SIMILAR {
            let mut all: Vec<_> = std::mem::take(&mut self.similar).into_iter().collect();
            all.sort_by_key(|(_, (edits, documents))| (*edits, Reverse(*documents)));
            all.truncate(MAX_SIMILAR);
            self.similar.extend(all);
        }
    }

    /// The similar word that most documents have.
    fn best(&self) -> Option<&str> {
        if self.is_known {
            return None;
        }
        // Of equally frequent ones the one with fewer edits, then the first.
        let key = |(edits, documents): &(u8, u64)| (*documents, Reverse(*edits));
        let best = self.similar.iter().max_by(|(a, x), (b, y)| key(x).cmp(&key(y)).then(b.cmp(a)));
        best.map(|(word, _)| word.as_str())
    }
}

impl Suggestions {
    /// The suggestions of several shards of an index for one query. The order of the shards does not matter.
    pub(crate) fn union(all: impl IntoIterator<Item = Self>) -> Self {
        let mut all = all.into_iter();
        let mut union = all.next().unwrap_or_default();
        for shard in all {
            for (word, other) in union.0.iter_mut().zip(shard.0) {
                word.is_known |= other.is_known;
                for (similar, (edits, documents)) in other.similar {
                    let entry = word.similar.entry(similar).or_insert((edits, 0));
                    entry.1 = entry.1.saturating_add(documents);
                }
            }
        }
        union
    }

    /// The text of a query with each word that no document has replaced by the most frequent similar word; `None` if there is
    /// none to replace.
    pub(crate) fn corrected(&self, text: &str) -> Option<String> {
        let chars: Vec<char> = text.chars().collect();
        let mut corrected = String::with_capacity(text.len());
        let mut copied = 0;
        for word in &self.0 {
            let Some(best) = word.best() else { continue };
            // Words are in the order of the text; other members' numbers may be anything.
            let Some(before) = chars.get(copied..word.start).filter(|_| word.end <= chars.len()) else {
                continue;
            };
            corrected.extend(before);
            if word.is_quoted {
                corrected.push_str(&best.replace('\\', "\\\\").replace('"', "\\\""));
            } else {
                corrected.push_str(&Escaped(best).to_string());
            }
            copied = word.end;
        }
        if copied == 0 {
            return None;
        }
        corrected.extend(chars.get(copied..)?);
        Some(corrected)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::Indexed;
    use super::super::{ParseOptions, parse};
    use super::*;

    fn suggestions(index: &Indexed, text: &str) -> Suggestions {
        let ast = parse(text, &ParseOptions::default()).unwrap();
        did_you_mean(&ast, &index.schema, &index.searcher).unwrap()
    }

    fn index(sources: &[&str]) -> Indexed {
        let fields = json!({"title": {"type": "text"}, "body": {"type": "text", "analyzer": "en"}, "tag": {"type": "keyword"}});
        Indexed::new(json!({"fields": fields}), sources)
    }

    #[test]
    fn misspelled_words_are_replaced_by_the_most_frequent_similar_word() {
        let index = index(&[
            r#"{"title": "nginx proxy", "body": "caching", "tag": "Net Tools"}"#,
            r#"{"title": "nginx server", "body": "connections"}"#,
            r#"{"title": "nginz", "note": "configuration"}"#,
        ]);
        for (text, corrected) in [
            ("ngnix", Some("nginx")),
            ("nginy", Some("nginx")),
            ("Ngnix  AND -porxy", Some("nginx  AND -proxy")),
            ("title:ngnix^2 OR \"ngnix proxy\"", Some("title:nginx^2 OR \"nginx proxy\"")),
            ("ngnix~1", Some("nginx~1")),
            ("confgurtion", Some("configuration")),
            ("tag:\"Net Tool\"", Some("tag:\"Net Tools\"")),
            ("tag:NetTools", Some("tag:Net\\ Tools")),
            ("nginx", None),
            ("nginz", None),
            ("cached", None),
            ("body:conections", None),
            ("ngn*", None),
            ("nig", None),
            ("unlike", None),
            ("*", None),
        ] {
            assert_eq!(suggestions(&index, text).corrected(text).as_deref(), corrected, "{text}");
        }
    }

    #[test]
    fn a_word_that_another_shard_has_is_right_and_documents_are_summed() {
        let shards = [
            index(&[r#"{"title": "nginx"}"#, r#"{"title": "nginy"}"#]),
            index(&[r#"{"title": "nginy web"}"#, r#"{"title": "proxy"}"#]),
        ];
        let union = |text: &str| {
            let all = || shards.iter().map(|shard| suggestions(shard, text));
            let union = Suggestions::union(all());
            assert_eq!(Suggestions::union(all().rev()), union);
            let json = serde_json::to_string(&union).unwrap();
            assert_eq!(serde_json::from_str::<Suggestions>(&json).unwrap(), union);
            union.corrected(text)
        };
        assert_eq!(union("nginz").as_deref(), Some("nginy"));
        assert_eq!(union("proxy nginx"), None);
    }

    #[test]
    fn numbers_from_elsewhere_do_not_panic() {
        for (start, end) in [(5, 9), (2, 1), (usize::MAX, 0), (0, usize::MAX)] {
            let similar = BTreeMap::from([("x".to_owned(), (1, 1))]);
            let suggestion = Suggestion { start, end, is_quoted: false, is_known: false, similar };
            let _ = Suggestions(vec![suggestion.clone(), suggestion]).corrected("abc");
        }
    }
}
