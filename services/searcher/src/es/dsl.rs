//! Elasticsearch's query DSL becomes a query tree. Pure.
//!
//! Every clause and key is known or refused by name. What the DSL says about values is checked against an index later, with the
//! other queries of a search.

mod compound;
mod function_score;
mod keys;
mod query_string;
mod simple_query_string;
mod term_level;
mod words;

#[cfg(test)]
mod tests;

use serde_json::Value;
use types::did_you_mean;

use self::keys::Keys;
use super::error::EsError;
use crate::query::{Ast, Node};

/// The deepest nesting of queries.
const MAX_DEPTH: usize = 30;
/// The most clauses of a query.
const MAX_CLAUSES: usize = 4_096;

/// Why a query is refused. Change it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct DslError {
    pub(crate) kind: DslErrorKind,
    pub(crate) reason: String,
}

/// The kinds that Elasticsearch tells apart. All are answered with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DslErrorKind {
    /// `parsing_exception`: the form is wrong, or something is not known.
    Parsing,
    /// `illegal_argument_exception`: a value can't be used, or something is not supported here.
    IllegalArgument,
    /// `query_shard_exception`: the text of a query can't be parsed.
    Query,
}

impl DslError {
    pub(crate) fn parsing(reason: impl Into<String>) -> Self {
        Self { kind: DslErrorKind::Parsing, reason: reason.into() }
    }

    pub(crate) fn illegal(reason: impl Into<String>) -> Self {
        Self { kind: DslErrorKind::IllegalArgument, reason: reason.into() }
    }
}

impl From<DslError> for EsError {
    fn from(error: DslError) -> Self {
        let kind = match error.kind {
            DslErrorKind::Parsing => "parsing_exception",
            DslErrorKind::IllegalArgument => "illegal_argument_exception",
            DslErrorKind::Query => "query_shard_exception",
        };
        Self::new(400, kind, error.reason)
    }
}

/// The queries that there are.
const QUERIES: [&str; 23] = [
    "bool",
    "boosting",
    "constant_score",
    "dis_max",
    "exists",
    "function_score",
    "fuzzy",
    "ids",
    "match",
    "match_all",
    "match_bool_prefix",
    "match_none",
    "match_phrase",
    "match_phrase_prefix",
    "multi_match",
    "prefix",
    "query_string",
    "range",
    "regexp",
    "simple_query_string",
    "term",
    "terms",
    "wildcard",
];

/// Elasticsearch's queries that are not offered here.
const REFUSED: [&str; 26] = [
    "combined_fields",
    "distance_feature",
    "geo_bounding_box",
    "geo_distance",
    "geo_grid",
    "geo_polygon",
    "geo_shape",
    "has_child",
    "has_parent",
    "intervals",
    "knn",
    "more_like_this",
    "nested",
    "parent_id",
    "percolate",
    "pinned",
    "rank_feature",
    "rule",
    "script",
    "script_score",
    "semantic",
    "shape",
    "span_near",
    "span_term",
    "sparse_vector",
    "terms_set",
];

/// Parses a query; `now` is in milliseconds since 1970.
pub(crate) fn parse(query: &Value, now: i64) -> Result<Ast, DslError> {
    let mut reader = Reader { now, depth: 0, clauses: 0 };
    Ok(Ast::of_tree(reader.query(query)?))
}

/// Reads a query and those in it.
struct Reader {
    now: i64,
    depth: usize,
    clauses: usize,
}

impl Reader {
    fn query(&mut self, query: &Value) -> Result<Node, DslError> {
        let Value::Object(members) = query else {
            return Err(DslError::parsing("[_na] query malformed, must start with start_object"));
        };
        let mut members = members.iter();
        let (Some((name, body)), None) = (members.next(), members.next()) else {
            let reason = "a query is an object with exactly one member, the name of the query";
            return Err(DslError::parsing(reason));
        };
        self.clauses += 1;
        if self.depth == MAX_DEPTH || self.clauses > MAX_CLAUSES {
            let reason = format!("a query has at most {MAX_CLAUSES} clauses, nested {MAX_DEPTH} deep");
            return Err(DslError::illegal(reason));
        }
        self.depth += 1;
        let node = self.named(name, body);
        self.depth -= 1;
        node
    }

    fn named(&mut self, name: &str, body: &Value) -> Result<Node, DslError> {
        match name {
            "bool" => self.bool(body),
            "boosting" => self.boosting(body),
            "constant_score" => self.constant_score(body),
            "dis_max" => self.dis_max(body),
            "function_score" => self.function_score(body),
            "match_all" => plain("match_all", body, Node::All),
            "match_none" => plain("match_none", body, Node::Nothing),
            "match" => words::of_match(body),
            "match_bool_prefix" => words::of_bool_prefix(body),
            "match_phrase" => words::of_phrase("match_phrase", body),
            "match_phrase_prefix" => words::of_phrase("match_phrase_prefix", body),
            "multi_match" => words::of_several(body),
            "query_string" => query_string::read(body, self.now),
            "simple_query_string" => simple_query_string::read(body),
            "exists" => term_level::exists(body),
            "ids" => term_level::ids(body),
            "term" => term_level::term(body),
            "terms" => term_level::terms(body),
            "range" => term_level::range(body, self.now),
            "prefix" => term_level::prefix(body),
            "wildcard" => term_level::wildcard(body),
            "regexp" => term_level::regexp(body),
            "fuzzy" => term_level::fuzzy(body),
            name => Err(unknown(name)),
        }
    }
}

fn unknown(name: &str) -> DslError {
    if name == "knn" {
        let reason = "the query [knn] is not supported within others: give it as the whole [query], or as [knn] beside it";
        return DslError::parsing(reason);
    }
    let family = name.starts_with("span_") || name.starts_with("geo_");
    if family || REFUSED.contains(&name) {
        return DslError::parsing(format!("the query [{name}] is not supported"));
    }
    let near =
        did_you_mean(name, QUERIES).map_or_else(String::new, |near| format!(" did you mean [{near}]?"));
    DslError::parsing(format!("unknown query [{}]{near}", keys::shortened(name)))
}

/// A query that only has a boost.
fn plain(name: &'static str, body: &Value, node: Node) -> Result<Node, DslError> {
    let keys = Keys::of(name, body, &["boost"])?;
    keys.boosted(node)
}

/// A node with a boost, if it has one.
fn boosted(node: Node, boost: f32) -> Node {
    if boost == 1.0 { node } else { Node::Boosted(Box::new(node), boost) }
}
