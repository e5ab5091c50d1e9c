//! Queries: what users write becomes a syntax tree, and the tree becomes a Tantivy query.
//!
//! Prefixes, wildcards and misspelled words are expanded against the dictionary of each shard first, and all shards then use
//! the union of these expansions, so that every shard searches for the same terms and ranks as one index would.

use std::collections::{BTreeMap, BTreeSet};

use tantivy::query::{ConstScoreQuery, Query};
use tantivy::{Searcher, Term};

use crate::schema::IndexSchema;

mod ast;
mod automaton;
mod blended;
mod check;
mod compile;
pub(crate) mod condition;
pub(crate) mod dates;
mod excluded;
mod expand;
mod expansions;
pub(crate) mod functions;
mod parse;
mod place;
mod postings;
mod range;
pub(crate) mod regexp;
mod scored;
mod selected;
mod similar;

pub(crate) use ast::{Ast, Bool, Clause, Leaf, Matches, Node, Occur, Piece, Span};
pub(crate) use expansions::Expansions;
pub(crate) use parse::{MAX_BOOST, MAX_PATTERN};
pub(crate) use similar::Suggestions;

/// How the text of a query is understood.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct ParseOptions {
    /// Fields to search instead of the index's default fields, with their boosts.
    pub(crate) fields: BTreeMap<String, f32>,
    /// Whether all words must match, instead of any.
    pub(crate) all_words: bool,
    /// Whether words may be misspelled: by one letter from 4 letters on, by two from 8 on.
    pub(crate) typos: bool,
}

/// Why a query can't be used. Change the query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct QueryError {
    pub(crate) message: String,
    /// Where in the query: the position of a character, from 0.
    pub(crate) at: Option<usize>,
    pub(crate) hint: Option<String>,
}

/// A compiled query.
pub(crate) struct Compiled {
    pub(crate) query: Box<dyn Query>,
    /// The terms that contribute to the score: those whose statistics are needed.
    pub(crate) scored: BTreeSet<Term>,
}

/// Parses a query. An empty text, and `*`, match everything.
pub(crate) fn parse(text: &str, options: &ParseOptions) -> Result<Ast, QueryError> {
    parse::parse(text, options)
}

/// Parses a `query_string` of Elasticsearch to a tree whose leaves name the fields that the text names.
pub(crate) fn parse_elastic(text: &str, all_words: bool) -> Result<Node, QueryError> {
    parse::parse_tree(text, all_words, parse::Dialect::Elastic)
}

/// Checks the fields and values of a query against an index.
pub(crate) fn check(ast: &Ast, schema: &IndexSchema) -> Result<(), QueryError> {
    check::check(ast, schema)
}

/// Expands what must be expanded, from one shard's dictionaries.
///
/// At most 10,000 terms of a segment are looked at for a prefix, pattern or misspelled word, and a bounded part of its dictionary.
/// What comes after them in the dictionary is not among the expansions, which are marked as incomplete. Documents that have only
/// terms that are not listed are found all the same, with a score of 0; a query that has to look at too much for that fails in Tantivy
/// as an invalid argument.
pub(crate) fn expand(
    ast: &Ast,
    schema: &IndexSchema,
    searcher: &Searcher,
) -> Result<Expansions, tantivy::TantivyError> {
    expand::expand(ast, schema, searcher)
}

/// Turns a checked tree into a Tantivy query with the given expansions.
pub(crate) fn compile(
    ast: &Ast,
    schema: &IndexSchema,
    expansions: &Expansions,
) -> Result<Compiled, QueryError> {
    compile::compile(ast, schema, expansions, true)
}

/// Turns a checked tree into a Tantivy query that scores 0, and needs no statistics.
pub(crate) fn compile_filter(
    ast: &Ast,
    schema: &IndexSchema,
    expansions: &Expansions,
) -> Result<Box<dyn Query>, QueryError> {
    let compiled = compile::compile(ast, schema, expansions, false)?;
    Ok(Box::new(ConstScoreQuery::new(compiled.query, 0.0)))
}

/// The number of postings of a query's words at a shard. `None` if the query is more than words and phrases in text, or if a
/// word is unknown here.
pub(crate) fn postings(
    ast: &Ast,
    schema: &IndexSchema,
    searcher: &Searcher,
) -> Result<Option<u64>, tantivy::TantivyError> {
    postings::postings(ast, schema, searcher)
}

/// Looks for words similar to those of a query that no document of a shard has. [`Suggestions::union`] joins what the shards say,
/// and [`Suggestions::corrected`] is the corrected text.
pub(crate) fn did_you_mean(
    ast: &Ast,
    schema: &IndexSchema,
    searcher: &Searcher,
) -> Result<Suggestions, tantivy::TantivyError> {
    similar::did_you_mean(ast, schema, searcher)
}

#[cfg(test)]
mod tests;
