//! A condition becomes a Tantivy query.
//!
//! Scores are Elasticsearch's: several values, prefixes, patterns, ranges and `exists` score 1; a word, and the value of a keyword
//! field, by its frequency; a misspelled word as one that the words of a query were expanded to.

use std::collections::BTreeMap;
use std::sync::Arc;

use tantivy::Term;
use tantivy::query::{
    AllQuery, BooleanQuery, ConstScoreQuery, Occur as TantivyOccur, PhraseQuery, Query, TermQuery,
    TermSetQuery,
};
use tantivy::schema::IndexRecordOption;

use super::{Built, Compiler, best, constant, phrases, term_text};
use crate::definition::Analyzer;
use crate::query::Piece;
use crate::query::automaton::{Prefixed, Select};
use crate::query::condition::{
    Condition, Like, NoWords, Picked, Scalar, Spot, Takes, Test, Words, base_of_keyword, is_day,
    range_queries, selections, spots,
};
use crate::query::dates::DateReading;
use crate::query::place::Selection;
use crate::query::range::network;
use crate::query::regexp::Regexp;
use crate::query::selected::Selected;
use crate::schema::PlaceKind;
use crate::schema::query_text::QueryToken;

/// From so many values on they are looked up together.
const MANY: usize = 64;

type Queries = Vec<Box<dyn Query>>;

impl Compiler<'_> {
    pub(super) fn condition(&mut self, condition: &Condition) -> Built {
        if condition.test == Test::Exists {
            return self.exists(&condition.field);
        }
        let mut queries = Vec::new();
        let (mut has_no_words, mut has_others) = (false, false);
        for spot in spots(&condition.field, self.schema) {
            match self.in_spot(condition, &spot) {
                Ok(found) => {
                    has_others |= !found.is_empty();
                    queries.extend(found);
                }
                Err(NoTerms) => has_no_words = true,
            }
        }
        if has_no_words && !has_others {
            return Built::NoTerms;
        }
        Built::Query { query: best(queries), is_optional: false }
    }

    fn exists(&self, field: &str) -> Built {
        if matches!(field, "_id" | "_seq") {
            return Built::query(AllQuery);
        }
        let mut queries = vec![self.schema.exists_query(field)];
        queries.extend(base_of_keyword(field, self.schema).map(|base| self.schema.exists_query(base)));
        Built::Query { query: best(queries), is_optional: false }
    }

    fn in_spot(&mut self, condition: &Condition, spot: &Spot) -> Result<Queries, NoTerms> {
        let is_text = matches!(spot.place.kind, PlaceKind::Text(_));
        Ok(match &condition.test {
            Test::Exists => Vec::new(),
            Test::Values { values, any_case: false } if values.len() == 1 => self.value(spot, &values[0]),
            Test::Values { values, any_case } => self.values(spot, values, *any_case),
            Test::Range { lower, upper, dates } => match is_text {
                true => Vec::new(),
                false => range_queries(self.schema, spot, lower, upper, dates),
            },
            Test::Like { pattern, .. } => {
                let picked = selections(condition, self.schema, spot);
                match (picked.into_iter().next(), pattern) {
                    (Some(picked), Like::Fuzzy(..)) => {
                        vec![self.expanded(picked.number, &spot.place, &picked.selection)]
                    }
                    (Some(picked), _) => vec![self.constant_terms(picked.number, spot, &picked.selection)],
                    (None, Like::Fuzzy(word, _)) if spot.takes != Takes::Others => {
                        self.value(spot, &word.as_str().into())
                    }
                    (None, _) => Vec::new(),
                }
            }
            Test::Words(words) if is_text => return self.words(condition, words, spot),
            Test::Words(words) => match selections(condition, self.schema, spot).into_iter().next() {
                Some(picked) => vec![self.expanded(picked.number, &spot.place, &picked.selection)],
                None => self.value(spot, &words.text),
            },
            Test::Phrase { text, slop, is_last_prefix, no_words } if is_text => {
                let built = match is_last_prefix {
                    true => self.phrase_prefix(condition, &text.text, *slop, spot),
                    false => self.terms(&spot.place, &text.text, *slop).unwrap_or(Built::NoTerms),
                };
                match (built, no_words) {
                    (Built::Query { query, .. }, _) => vec![query],
                    (Built::NoTerms, NoWords::All) => vec![Box::new(AllQuery)],
                    (Built::NoTerms, NoWords::Nothing) => return Err(NoTerms),
                }
            }
            Test::Phrase { text, .. } => self.value(spot, &text.text.as_str().into()),
        })
    }

    /// A value that is not analyzed.
    fn value(&mut self, spot: &Spot, value: &Scalar) -> Queries {
        let place = &spot.place;
        if matches!(place.kind, PlaceKind::Text(_)) {
            let term = self.schema.text_term(place, &value.text);
            return vec![self.term(term, IndexRecordOption::WithFreqs)];
        }
        let mut queries = Vec::new();
        for term in self.value_terms(spot, value) {
            queries.push(match term_text(&term) {
                Some(_) => self.term(term, IndexRecordOption::Basic),
                None => Box::new(constant(term)),
            });
        }
        queries.extend(self.date(spot, value));
        queries.extend(network(self.schema, place, &value.text));
        queries
    }

    /// The terms of a value in a place with values.
    fn value_terms(&self, spot: &Spot, value: &Scalar) -> Vec<Term> {
        let terms = self.schema.value_terms(&spot.place, &value.text).into_iter();
        terms
            .filter(|term| match spot.takes {
                Takes::All => true,
                Takes::Texts => term_text(term).is_some(),
                Takes::Others => term_text(term).is_none() || is_day(&value.text),
            })
            .collect()
    }

    /// What has a date that a value means; if the place can have dates.
    fn date(&self, spot: &Spot, value: &Scalar) -> Queries {
        if spot.takes == Takes::Texts || !self.has_dates(spot) {
            return Vec::new();
        }
        let same = std::ops::Bound::Included(Scalar { is_text: false, ..value.clone() });
        // Only the dates: the other types are terms.
        let reading = DateReading::plain(0);
        match reading.read(&value.text) {
            Some(_) => {
                let dates = Spot { takes: Takes::Others, place: spot.place.clone() };
                crate::query::condition::date_queries(self.schema, &dates, &same, &same, &reading)
            }
            None => Vec::new(),
        }
    }

    fn has_dates(&self, spot: &Spot) -> bool {
        use crate::definition::FieldDefinition;
        spot.place.path.as_ref().is_some_and(|path| {
            matches!(
                self.schema.definition.fields.get(path),
                None | Some(FieldDefinition::Date {} | FieldDefinition::Json {})
            )
        })
    }

    /// One of several values.
    fn values(&mut self, spot: &Spot, values: &[Scalar], any_case: bool) -> Queries {
        let place = &spot.place;
        let is_text = matches!(place.kind, PlaceKind::Text(_));
        let mut queries: Queries = Vec::new();
        let mut terms = Vec::new();
        for value in values {
            if any_case && value.is_text && spot.takes != Takes::Others && !self.schema.has_addresses(place) {
                let Ok(regexp) = Regexp::of_pieces(&[Piece::Text(value.text.clone())]) else { continue };
                let prefix = self.schema.text_term(place, "").serialized_value_bytes().to_vec();
                let automaton = Arc::new(Prefixed { prefix, select: Select::Regexp(Arc::new(regexp)) });
                let budget = self.budget.clone();
                queries.push(Box::new(Selected { field: place.field, automaton, budget }));
            } else if is_text {
                terms.push(self.schema.text_term(place, &value.text));
            } else {
                terms.extend(self.value_terms(spot, value));
                queries.extend(self.date(spot, value));
                queries.extend(network(self.schema, place, &value.text));
            }
        }
        match terms.len() {
            MANY.. => queries.push(Box::new(TermSetQuery::new(terms))),
            _ => queries.extend(
                terms
                    .into_iter()
                    .map(|term| Box::new(TermQuery::new(term, IndexRecordOption::Basic)) as Box<dyn Query>),
            ),
        }
        match queries.len() {
            0 => queries,
            _ => vec![Box::new(ConstScoreQuery::new(Box::new(BooleanQuery::union(queries)), 1.0))],
        }
    }

    /// Terms that a pattern selects: all score 1.
    fn constant_terms(&mut self, number: u32, spot: &Spot, selection: &Selection) -> Box<dyn Query> {
        let terms: Vec<Box<dyn Query>> = self
            .expansions
            .terms(number)
            .into_iter()
            .filter(|(term, _)| is_selected(term, spot, selection))
            .map(|(term, _)| Box::new(TermQuery::new(term, IndexRecordOption::Basic)) as Box<dyn Query>)
            .collect();
        let is_listed =
            self.expansions.leaves.contains_key(&number) && !self.expansions.incomplete.contains(&number);
        let query: Box<dyn Query> = match selection.automaton() {
            _ if is_listed => Box::new(BooleanQuery::union(terms)),
            Ok(automaton) => Box::new(Selected {
                field: spot.place.field,
                automaton: Arc::new(automaton),
                budget: self.budget.clone(),
            }),
            Err(_) => Box::new(BooleanQuery::union(terms)),
        };
        Box::new(ConstScoreQuery::new(query, 1.0))
    }

    /// The words of a text.
    fn words(&mut self, condition: &Condition, words: &Words, spot: &Spot) -> Result<Queries, NoTerms> {
        let place = &spot.place;
        let mut clauses: Queries = Vec::new();
        if matches!(place.kind, PlaceKind::Text(Analyzer::Ngram | Analyzer::Cjk)) {
            // The parts of a word are a phrase.
            for word in words.text.text.split_whitespace() {
                if let Some(Built::Query { query, .. }) = self.terms(place, word, 0) {
                    clauses.push(query);
                }
            }
        } else {
            let picked: BTreeMap<usize, Picked> = selections(condition, self.schema, spot)
                .into_iter()
                .map(|picked| (picked.word, picked))
                .collect();
            let tokens = self.schema.analyze_query(place, &words.text.text);
            let last = tokens.len().saturating_sub(1);
            for (at, token) in tokens.into_iter().enumerate() {
                clauses.push(match picked.get(&at) {
                    Some(picked) if words.is_last_prefix && at == last => {
                        self.constant_terms(picked.number, spot, &picked.selection)
                    }
                    Some(picked) => self.expanded(picked.number, place, &picked.selection),
                    None => self.token(token),
                });
            }
        }
        let occur = if words.all { TantivyOccur::Must } else { TantivyOccur::Should };
        let minimum = match &words.minimum {
            Some(minimum) => minimum.of(clauses.len()).max(1),
            None => 1,
        };
        Ok(match clauses.len() {
            0 => match words.no_words {
                NoWords::All => vec![Box::new(AllQuery)],
                NoWords::Nothing => return Err(NoTerms),
            },
            1 if minimum == 1 || words.all => clauses,
            _ => {
                let minimum = if words.all { 0 } else { minimum };
                let clauses = clauses.into_iter().map(|clause| (occur, clause)).collect();
                vec![Box::new(BooleanQuery::with_minimum_required_clauses(clauses, minimum))]
            }
        })
    }

    /// One word, with its synonyms.
    fn token(&mut self, token: QueryToken) -> Box<dyn Query> {
        match self.phrase(phrases(&[token]), 0) {
            Built::Query { query, .. } => query,
            Built::NoTerms => best(Vec::new()),
        }
    }

    /// A phrase whose last word is the beginning of one.
    fn phrase_prefix(&mut self, condition: &Condition, text: &str, slop: u32, spot: &Spot) -> Built {
        let Some(picked) = selections(condition, self.schema, spot).pop() else {
            return self.terms(&spot.place, text, slop).unwrap_or(Built::NoTerms);
        };
        let tokens = self.schema.analyze_query(&spot.place, text);
        if tokens.len() == 1 {
            return Built::Query {
                query: self.expanded(picked.number, &spot.place, &picked.selection),
                is_optional: false,
            };
        }
        let mut ends: Vec<Term> = self
            .expansions
            .terms(picked.number)
            .into_iter()
            .map(|(term, _)| term)
            .filter(|term| is_selected(term, spot, &picked.selection))
            .collect();
        if let Some(exact) = picked.selection.exact.filter(|exact| !ends.contains(exact)) {
            ends.push(exact);
        }
        let mut queries: Queries = Vec::new();
        for phrase in phrases(&tokens) {
            for end in &ends {
                let mut phrase = phrase.clone();
                if let Some((_, last)) = phrase.last_mut() {
                    *last = end.clone();
                }
                if self.is_scored {
                    self.scored.extend(phrase.iter().map(|(_, term)| term.clone()));
                }
                if phrase.len() > 1 {
                    queries.push(Box::new(PhraseQuery::new_with_offset_and_slop(phrase, slop)));
                }
            }
        }
        Built::Query { query: best(queries), is_optional: false }
    }
}

/// A text has no words.
struct NoTerms;

/// Whether a term that a condition was expanded to is in a place.
fn is_selected(term: &Term, spot: &Spot, selection: &Selection) -> bool {
    term.field() == spot.place.field
        && term.typ() == selection.kind
        && term.serialized_value_bytes().starts_with(&selection.prefix)
}
