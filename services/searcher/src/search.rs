//! Searches: at a shard in two rounds, and merged over shards.
//!
//! [`prepare()`] expands the query against a shard's dictionary and counts its terms; [`combine`] sums that up, so that all shards
//! search for the same terms and score as one index would; [`execute()`] finds a shard's hits, and [`merge()`] those of all. Scores
//! are those of one index, but for terms of a prefix that are not among the 250 most frequent of some shard.
//!
//! A search whose time is up fails at its shard with [`SearchError::Cancelled`]: an answer never has a total that was counted
//! half. The other shards' hits are answered, with `timed_out` set.

mod aggregations;
mod execute;
mod fusion;
mod highlight;
mod hits;
mod merge;
mod nearest;
mod order;
mod prepare;
mod quick;
mod request;
mod sort;
mod source;
mod statistics;
mod suggest;
mod top;
mod wire;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tantivy::TantivyError;

use self::sort::Cursor;
use self::statistics::Statistics;
use crate::query::{Expansions, QueryError, Suggestions};
use crate::shard::is_of_content;

pub(crate) use self::aggregations::fields_mut;
#[cfg(test)]
pub(crate) use self::execute::PANIC;
pub(crate) use self::execute::{execute, search_alone};
pub(crate) use self::merge::{Answer, AnswerHit, ShardFailure, Shards, merge};
pub(crate) use self::prepare::{combine, prepare};
pub(crate) use self::quick::is_quick;
pub(crate) use self::request::{Dsl, MAX_WINDOW, SearchRequest};
pub(crate) use self::suggest::{MAX_SUGGESTIONS, Suggestion, merge_suggestions, suggest};

/// Why a search fails at a shard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SearchError {
    /// Change the request.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// Ask again, with a longer limit or a narrower query.
    #[error("it took too long")]
    Cancelled,
    /// Try again in a moment: a local file is damaged.
    #[error("{0}")]
    Damaged(String),
    /// Tantivy failed, or this is a bug: see the message.
    #[error("{0}")]
    Engine(String),
}

impl From<TantivyError> for SearchError {
    fn from(error: TantivyError) -> Self {
        match error {
            // Limits of memory and buckets, and what only the values show.
            TantivyError::AggregationError(error) => Self::Query(QueryError {
                message: format!("`aggs`: {error}"),
                at: None,
                hint: Some("ask for fewer buckets, or filter first".to_owned()),
            }),
            // A query that has to look at too much, or an argument that only shows to be wrong with the values.
            TantivyError::InvalidArgument(message) => {
                Self::Query(QueryError { message, at: None, hint: None })
            }
            error if is_of_content(&error) => Self::Damaged(error.to_string()),
            error => Self::Engine(error.to_string()),
        }
    }
}

/// What a shard contributes to a plan: expansions and statistics. JSON between members.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Prepared {
    /// Of the request's queries, in their order.
    expansions: Vec<Expansions>,
    statistics: Statistics,
    /// Other spellings of words that no document of the shard has.
    similar: Option<Suggestions>,
    /// The documents of the shard that are nearest to each vector.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    nearest: Vec<nearest::Neighbors>,
}

/// Expansions and statistics of all shards. JSON between members.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The number of shards that were prepared.
    shards: usize,
    expansions: Vec<Expansions>,
    statistics: Statistics,
    similar: Option<Suggestions>,
    /// The documents of all shards that are nearest to each vector.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    nearest: Vec<nearest::Neighbors>,
}

/// What a shard found. JSON between members.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) total: u64,
    max_score: Option<f32>,
    /// The first hits, in order.
    hits: Vec<Hit>,
    /// How many hits before them were left out: those before `from`, if there is no other shard.
    skipped: usize,
    aggregations: Option<aggregations::Intermediate>,
    /// The shard's parts of several rankings, if hits are in the order of those.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rankings: Vec<Vec<fusion::Ranked>>,
    /// The query with other spellings, if there are no hits.
    did_you_mean: Option<String>,
}

/// A hit of a shard.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Hit {
    id: String,
    score: Option<f32>,
    cursor: Cursor,
    /// As it was stored; it is not parsed again.
    source: Option<Box<RawValue>>,
    highlight: Option<BTreeMap<String, Vec<String>>>,
    explanation: Option<Box<RawValue>>,
    /// Its term and version, if they are wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    numbers: Option<[u64; 2]>,
}

/// Ends a search early: set when its time is up or its client has left. Checked within segments.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cancel(pub(crate) Arc<AtomicBool>);

impl Cancel {
    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn check(&self) -> Result<(), SearchError> {
        if self.is_set() { Err(SearchError::Cancelled) } else { Ok(()) }
    }
}
