//! A syntax tree becomes a Tantivy query.
//!
//! Scores follow Elasticsearch's `query_string` with its defaults:
//! - A word in several places scores as in the best one (`best_fields`, `tie_breaker` 0).
//! - A word that was expanded scores as the best of its terms in a document, all of them taken as equally frequent: the word
//!   itself 1, other words with the prefix 0.8, words with one edit 0.6, with two 0.4.
//! - Strings of keyword fields score by their frequency over all documents, without a norm for length. Numbers, booleans, dates,
//!   ranges and `field:*` score 1; so does `*`.
//! - A word that has no terms, such as a stop word, asks for nothing: the other words decide. If there are no others, nothing
//!   matches. A word that has no terms in some places only (a stop word in one language) is optional where all words must match.

mod condition;

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use tantivy::Term;
use tantivy::query::{
    AllQuery, BooleanQuery, BoostQuery, ConstScoreQuery, DisjunctionMaxQuery, EmptyQuery,
    Occur as TantivyOccur, PhraseQuery, Query, TermQuery,
};
use tantivy::schema::IndexRecordOption;

use super::ast::{Ast, Bool, Clause, Leaf, Matches, Node, Occur};
use super::blended::Blended;
use super::excluded::Excluded;
use super::functions::Functions;
use super::place::{How, Selection, places, selection, term_text};
use super::selected::{Budget, Selected};
use super::{Compiled, Expansions, QueryError, check, range, scored};
use crate::schema::query_text::phrases;
use crate::schema::{IndexSchema, Place, PlaceKind};

const PREFIX_BOOST: f32 = 0.8;
const ONE_EDIT_BOOST: f32 = 0.6;
const TWO_EDITS_BOOST: f32 = 0.4;

pub(super) fn compile(
    ast: &Ast,
    schema: &IndexSchema,
    expansions: &Expansions,
    is_scored: bool,
) -> Result<Compiled, QueryError> {
    let mut compiler = Compiler {
        ast,
        schema,
        // The most frequent terms only, if this is the expansion of one shard.
        expansions: Expansions::union([expansions.clone()]),
        is_scored,
        scored: BTreeSet::new(),
        budget: Budget::new(),
    };
    let query = match compiler.node(&ast.root)? {
        Built::Query { query, .. } => query,
        Built::NoTerms => Box::new(EmptyQuery),
    };
    Ok(Compiled { query, scored: compiler.scored })
}

struct Compiler<'a> {
    ast: &'a Ast,
    schema: &'a IndexSchema,
    expansions: Expansions,
    /// Whether the present part of the tree contributes to scores.
    is_scored: bool,
    scored: BTreeSet<Term>,
    budget: Budget,
}

/// What a part of a tree, or a leaf in one place, became.
enum Built {
    Query {
        query: Box<dyn Query>,
        /// Whether it asks for a word that has no terms in some places.
        is_optional: bool,
    },
    /// It asks for nothing.
    NoTerms,
}

impl Built {
    fn query(query: impl Query) -> Self {
        Self::Query { query: Box::new(query), is_optional: false }
    }
}

impl Compiler<'_> {
    fn node(&mut self, node: &Node) -> Result<Built, QueryError> {
        match node {
            Node::All => Ok(Built::query(AllQuery)),
            Node::Leaf(leaf) => self.leaf(leaf),
            Node::Boosted(node, boost) => Ok(match self.node(node)? {
                Built::Query { query, is_optional } => {
                    Built::Query { query: Box::new(BoostQuery::new(query, *boost)), is_optional }
                }
                Built::NoTerms => Built::NoTerms,
            }),
            Node::Boolean(clauses) => self.boolean(clauses),
            Node::Nothing => Ok(Built::query(EmptyQuery)),
            Node::Bool(all) => self.bool(all),
            Node::Constant(node) => {
                let query = self.unscored(node)?;
                Ok(Built::query(ConstScoreQuery::new(query, 1.0)))
            }
            Node::Best(nodes, tie_breaker) => {
                let mut queries = nodes.iter().map(|node| self.query(node)).collect::<Result<Vec<_>, _>>()?;
                let query = match queries.len() {
                    0 | 1 => queries.pop().unwrap_or_else(|| Box::new(EmptyQuery)),
                    _ => Box::new(DisjunctionMaxQuery::with_tie_breaker(queries, *tie_breaker)),
                };
                Ok(Built::Query { query, is_optional: false })
            }
            Node::Functions(functions) => self.functions(functions),
            Node::Condition(condition) => Ok(self.condition(condition)),
        }
    }

    /// What asks for nothing matches nothing.
    fn query(&mut self, node: &Node) -> Result<Box<dyn Query>, QueryError> {
        Ok(match self.node(node)? {
            Built::Query { query, .. } => query,
            Built::NoTerms => Box::new(EmptyQuery),
        })
    }

    fn unscored(&mut self, node: &Node) -> Result<Box<dyn Query>, QueryError> {
        let was_scored = std::mem::replace(&mut self.is_scored, false);
        let query = self.query(node);
        self.is_scored = was_scored;
        query
    }

    fn bool(&mut self, all: &Bool) -> Result<Built, QueryError> {
        let mut clauses: Vec<(TantivyOccur, Box<dyn Query>)> = Vec::new();
        for node in &all.must {
            clauses.push((TantivyOccur::Must, self.query(node)?));
        }
        for node in &all.filter {
            let query = self.unscored(node)?;
            clauses.push((TantivyOccur::Must, Box::new(ConstScoreQuery::new(query, 0.0))));
        }
        let mut minimum = all.minimum.as_ref().map_or(0, |minimum| minimum.of(all.should.len()));
        if clauses.is_empty() && !all.should.is_empty() {
            minimum = minimum.max(1);
        }
        if minimum > all.should.len() {
            return Ok(Built::query(EmptyQuery));
        }
        let is_single = clauses.len() + all.should.len() == 1 && all.must_not.is_empty();
        for node in &all.should {
            clauses.push((TantivyOccur::Should, self.query(node)?));
        }
        if clauses.is_empty() {
            if all.must_not.is_empty() {
                return Ok(Built::query(AllQuery));
            }
            let everything = ConstScoreQuery::new(Box::new(AllQuery), 0.0);
            clauses.push((TantivyOccur::Must, Box::new(everything)));
        }
        if is_single && let Some((_, query)) = clauses.pop() {
            return Ok(Built::Query { query, is_optional: false });
        }
        for node in &all.must_not {
            let query = self.unscored(node)?;
            clauses.push((TantivyOccur::MustNot, Box::new(Excluded(query))));
        }
        Ok(Built::query(BooleanQuery::with_minimum_required_clauses(clauses, minimum)))
    }

    fn functions(&mut self, functions: &Functions) -> Result<Built, QueryError> {
        let mut compiled = Vec::with_capacity(functions.functions.len());
        for function in &functions.functions {
            let column = function.value.field().and_then(|field| self.column(field));
            compiled.push(scored::Function {
                filter: function.filter.as_ref().map(|filter| self.unscored(filter)).transpose()?,
                weight: function.weight,
                value: function.value.clone(),
                column,
            });
        }
        Ok(Built::query(scored::Scored {
            query: self.query(&functions.query)?,
            functions: compiled,
            score_mode: functions.score_mode,
            boost_mode: functions.boost_mode,
            max_boost: functions.max_boost,
        }))
    }

    /// The column of a field's numbers.
    fn column(&self, field: &str) -> Option<String> {
        let places = self.schema.places(field).unwrap_or_default();
        let place = places.iter().find(|place| place.kind == PlaceKind::Values)?;
        self.schema.schema.get_field_entry(place.field).is_fast().then(|| self.schema.column_name(place))
    }

    fn boolean(&mut self, clauses: &[Clause]) -> Result<Built, QueryError> {
        let (mut must, mut should, mut optional, mut must_not) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for clause in clauses {
            match clause.occur {
                Occur::MustNot => {
                    let was_scored = std::mem::replace(&mut self.is_scored, false);
                    let built = self.node(&clause.node);
                    self.is_scored = was_scored;
                    if let Built::Query { query, .. } = built? {
                        must_not.push(Box::new(Excluded(query)) as Box<dyn Query>);
                    }
                }
                Occur::Must | Occur::Should => match (clause.occur, self.node(&clause.node)?) {
                    (Occur::Must, Built::Query { query, is_optional: false }) => must.push(query),
                    (Occur::Must, Built::Query { query, is_optional: true }) => optional.push(query),
                    (_, Built::Query { query, .. }) => should.push(query),
                    (_, Built::NoTerms) => {}
                },
            }
        }
        if must.is_empty() && should.is_empty() {
            // Words that are stop words somewhere only: then they count.
            must.append(&mut optional);
        }
        if must.is_empty() && should.is_empty() {
            let all_negative = clauses.iter().all(|clause| clause.occur == Occur::MustNot);
            if !all_negative || must_not.is_empty() {
                return Ok(Built::NoTerms);
            }
            must.push(Box::new(ConstScoreQuery::new(Box::new(AllQuery), 0.0)));
        }
        let minimum = usize::from(must.is_empty());
        should.append(&mut optional);
        let with = |occur, queries: Vec<Box<dyn Query>>| queries.into_iter().map(move |query| (occur, query));
        let clauses: Vec<_> = with(TantivyOccur::Must, must)
            .chain(with(TantivyOccur::Should, should))
            .chain(with(TantivyOccur::MustNot, must_not))
            .collect();
        Ok(Built::query(BooleanQuery::with_minimum_required_clauses(clauses, minimum)))
    }

    fn leaf(&mut self, leaf: &Leaf) -> Result<Built, QueryError> {
        if let (Matches::Exists, Some(field)) = (&leaf.matches, &leaf.field) {
            return Ok(match field.as_str() {
                "_id" | "_seq" => Built::query(AllQuery),
                field => Built::Query { query: self.schema.exists_query(field), is_optional: false },
            });
        }
        let places =
            places(leaf, &self.ast.options, self.schema).map_err(|error| check::unknown(leaf, &error))?;
        let mut queries = Vec::new();
        let (mut has_no_terms, mut is_optional) = (true, false);
        for (place, boost) in &places {
            match self.in_place(leaf, place) {
                Some(Built::Query { query, .. }) if *boost == 1.0 => queries.push(query),
                Some(Built::Query { query, .. }) => queries.push(Box::new(BoostQuery::new(query, *boost))),
                Some(Built::NoTerms) => {
                    is_optional = true;
                    continue;
                }
                None => {}
            }
            has_no_terms = false;
        }
        if has_no_terms && is_optional {
            return Ok(Built::NoTerms);
        }
        Ok(Built::Query { query: best(queries), is_optional })
    }

    /// `None` if it can't match there.
    fn in_place(&mut self, leaf: &Leaf, place: &Place) -> Option<Built> {
        if let Some(selection) = selection(leaf, &self.ast.options, self.schema, place) {
            let before = selection.before.as_ref().and_then(|before| self.terms(place, before, 0));
            let query = self.expanded(leaf.number, place, &selection);
            let query = match before {
                Some(Built::Query { query: before, .. }) => {
                    Box::new(BooleanQuery::intersection(vec![before, query]))
                }
                Some(Built::NoTerms) | None => query,
            };
            return Some(Built::Query { query, is_optional: false });
        }
        match &leaf.matches {
            Matches::Word(text) | Matches::Prefix(text) | Matches::Fuzzy { word: text, .. } => {
                self.terms(place, text, 0)
            }
            Matches::Phrase { text, slop } => self.terms(place, text, *slop),
            Matches::Range { lower, upper } if place.kind == PlaceKind::Values => {
                let lower = lower.as_ref().map(String::as_str);
                let upper = upper.as_ref().map(String::as_str);
                let queries = range::queries(self.schema, place, lower, upper);
                (!queries.is_empty()).then(|| Built::Query { query: best(queries), is_optional: false })
            }
            Matches::Wildcard(_) | Matches::Regexp(_) | Matches::Range { .. } | Matches::Exists => None,
        }
    }

    /// The terms of a text in a place.
    fn terms(&mut self, place: &Place, text: &str, slop: u32) -> Option<Built> {
        if place.kind == PlaceKind::Values {
            let terms = self.schema.value_terms(place, text);
            let mut queries: Vec<_> = terms
                .into_iter()
                .map(|term| match term_text(&term) {
                    Some(_) => self.term(term, IndexRecordOption::Basic),
                    None => Box::new(constant(term)) as Box<dyn Query>,
                })
                .collect();
            let same = Bound::Included(text);
            queries.extend(range::dates(self.schema, place, same, same));
            queries.extend(range::network(self.schema, place, text));
            return (!queries.is_empty()).then(|| Built::Query { query: best(queries), is_optional: false });
        }
        let tokens = self.schema.analyze_query(place, text);
        if tokens.is_empty() {
            return Some(Built::NoTerms);
        }
        Some(self.phrase(phrases(&tokens), slop))
    }

    /// One of several phrases; those of one term are words.
    fn phrase(&mut self, phrases: Vec<Vec<(usize, Term)>>, slop: u32) -> Built {
        let (mut words, mut queries) = (Vec::new(), Vec::new());
        for mut phrase in phrases {
            if phrase.len() > 1 {
                if self.is_scored {
                    self.scored.extend(phrase.iter().map(|(_, term)| term.clone()));
                }
                queries.push(Box::new(PhraseQuery::new_with_offset_and_slop(phrase, slop)) as Box<dyn Query>);
            } else if let Some((_, term)) = phrase.pop() {
                words.push((term, 1.0));
            }
        }
        if !words.is_empty() {
            queries.push(self.blended(words, IndexRecordOption::WithFreqs));
        }
        Built::Query { query: best(queries), is_optional: false }
    }

    /// The terms that a word or pattern was expanded to, the best of which scores.
    fn expanded(&mut self, number: u32, place: &Place, selection: &Selection) -> Box<dyn Query> {
        let exact = selection.exact.as_ref();
        let mut terms: Vec<_> = exact.iter().map(|exact| ((*exact).clone(), 1.0)).collect();
        let mut expanded = self.expansions.terms(number);
        if let Some(most) = selection.most.filter(|most| *most < expanded.len()) {
            expanded.sort_by_key(|(_, documents)| std::cmp::Reverse(*documents));
            expanded.truncate(most);
        }
        for (term, _) in expanded {
            let is_here = term.field() == place.field
                && term.typ() == selection.kind
                && term.serialized_value_bytes().starts_with(&selection.prefix);
            if !is_here || exact == Some(&term) {
                continue;
            }
            let boost = match (&selection.how, exact.and_then(term_text), term_text(&term)) {
                (How::Pattern(_) | How::Regexp(_), _, _) => PREFIX_BOOST,
                (How::Fuzzy { .. }, Some(exact), Some(text)) if strsim::osa_distance(exact, text) <= 1 => {
                    ONE_EDIT_BOOST
                }
                (How::Fuzzy { .. }, _, _) => TWO_EDITS_BOOST,
            };
            terms.push((term, boost));
        }
        let option = match place.kind {
            PlaceKind::Text(_) => IndexRecordOption::WithFreqs,
            PlaceKind::Values => IndexRecordOption::Basic,
        };
        let query = self.blended(terms, option);
        if selection.most.is_some() || !self.expansions.incomplete.contains(&number) {
            return query;
        }
        // What has only other terms is found, too, and comes last. An automaton that can't be built has found no terms.
        let Ok(automaton) = selection.automaton() else {
            return query;
        };
        let others =
            Selected { field: place.field, automaton: Arc::new(automaton), budget: self.budget.clone() };
        best(vec![query, Box::new(ConstScoreQuery::new(Box::new(others), 0.0))])
    }

    /// Terms of one field that count as equally frequent, with their boosts.
    fn blended(&mut self, terms: Vec<(Term, f32)>, option: IndexRecordOption) -> Box<dyn Query> {
        let mut queries = Vec::with_capacity(terms.len());
        let mut all = Vec::with_capacity(terms.len());
        for (term, boost) in terms {
            all.push(term.clone());
            let query = self.term(term, option);
            queries.push(if boost == 1.0 { query } else { Box::new(BoostQuery::new(query, boost)) });
        }
        match queries.len() {
            0 | 1 => best(queries),
            _ => Box::new(Blended { query: best(queries), terms: all }),
        }
    }

    fn term(&mut self, term: Term, option: IndexRecordOption) -> Box<dyn Query> {
        if self.is_scored {
            self.scored.insert(term.clone());
        }
        Box::new(TermQuery::new(term, option))
    }
}

/// Documents that match any of some queries score as the best of them.
pub(super) fn best(mut queries: Vec<Box<dyn Query>>) -> Box<dyn Query> {
    match queries.len() {
        0 => Box::new(EmptyQuery),
        1 => queries.remove(0),
        _ => Box::new(DisjunctionMaxQuery::new(queries)),
    }
}

/// A term that scores 1.
pub(super) fn constant(term: Term) -> ConstScoreQuery {
    ConstScoreQuery::new(Box::new(TermQuery::new(term, IndexRecordOption::Basic)), 1.0)
}
