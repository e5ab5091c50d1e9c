//! A search as users write it: closed JSON, or the query string of a GET. Pure.

mod dsl;
mod knn;
mod members;
mod read;
mod uri;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use plugin::shard::ReadLevel;
use serde_json::{Map, Value, json};
use types::ShardId;

pub(crate) use dsl::Dsl;
pub(crate) use knn::{Knn, Rrf};
pub(super) use members::shortened;
pub(super) use read::parse_filter;

use super::aggregations::Aggregations;
use super::highlight::HighlightOptions;
use super::sort::{Cursor, SortField, SortKey};
use crate::query::{self, Ast, QueryError};
use crate::schema::{IndexSchema, Place, PlaceKind};

/// The most hits in an answer.
pub(crate) const MAX_SIZE: usize = 1_000;
/// The most hits that can be reached by `from` and `size`; `search_after` has no such limit.
pub(crate) const MAX_WINDOW: usize = 10_000;
/// The most values of one facet.
pub(crate) const MAX_FACET: u32 = 1_000;
/// The longest time that a search may be given.
pub(crate) const MAX_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_SIZE: usize = 10;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// A search. Its queries are parsed; [`check`](Self::check) compares it with an index.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SearchRequest {
    pub(crate) q: Option<String>,
    /// Queries that all must match, without a score.
    pub(crate) filter: Vec<String>,
    /// The fields to search instead of the index's default fields, with their boosts.
    pub(crate) fields: BTreeMap<String, f32>,
    /// Whether all words must match, instead of any.
    pub(crate) all_words: bool,
    /// Whether words may be misspelled.
    pub(crate) typos: bool,
    pub(crate) size: usize,
    pub(crate) from: usize,
    /// By score if empty.
    pub(crate) sort: Vec<SortKey>,
    pub(crate) search_after: Option<Cursor>,
    pub(crate) highlight: Option<HighlightOptions>,
    /// How many values to count, by field.
    pub(crate) facets: BTreeMap<String, u32>,
    pub(crate) aggs: Aggregations,
    /// Vectors whose nearest ones are found, beside what `q` finds.
    pub(crate) knn: Vec<Knn>,
    pub(crate) rrf: Option<Rrf>,
    pub(crate) explain: bool,
    pub(crate) source: SourceFilter,
    /// Whether another spelling is proposed if there are no hits.
    pub(crate) did_you_mean: bool,
    /// How fresh the answer must be; the caller decides if the request does not.
    pub(crate) consistency: Option<ReadLevel>,
    pub(crate) timeout: Duration,
    /// Whether an answer may lack the hits of shards that failed.
    pub(crate) allow_partial: bool,
    /// What came in Elasticsearch's form; its query is searched instead of `q`.
    pub(crate) dsl: Option<Dsl>,
    /// The number of the index among those that are searched; it only travels between members.
    pub(crate) index: Option<u16>,
    /// `q`, parsed.
    pub(super) ast: Ast,
    /// `filter`, parsed.
    pub(super) filters: Vec<Ast>,
}

/// What of a document is returned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum SourceFilter {
    #[default]
    All,
    None,
    /// The values at these paths, and what is below them.
    Paths(Vec<String>),
    /// The values at paths that match patterns, and what is below them, but for others. No `includes` are all.
    Patterns {
        includes: Vec<String>,
        excludes: Vec<String>,
    },
}

impl SearchRequest {
    /// The request in JSON, as `from_wire` reads it. Members that have their default values are left out.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let mut members = Map::new();
        let mut set = |name: &str, value: Value| members.insert(name.to_owned(), value);
        if let Some(q) = &self.q {
            set("q", json!(q));
        }
        if !self.filter.is_empty() {
            set("filter", json!(self.filter));
        }
        if !self.fields.is_empty() {
            set("fields", json!(self.fields));
        }
        if self.all_words {
            set("default_operator", json!("and"));
        }
        if self.typos {
            set("typos", json!("auto"));
        }
        if self.size != DEFAULT_SIZE {
            set("size", json!(self.size));
        }
        if self.from != 0 {
            set("from", json!(self.from));
        }
        if !self.sort.is_empty() {
            set("sort", self.sort.iter().map(SortKey::to_json).collect());
        }
        if let Some(cursor) = &self.search_after {
            set("search_after", Value::Array(cursor.to_json()));
        }
        if let Some(highlight) = &self.highlight {
            set("highlight", highlight.to_json());
        }
        if !self.facets.is_empty() {
            set("facets", json!(self.facets));
        }
        if !self.aggs.is_empty() {
            set("aggs", self.aggs.to_json());
        }
        if self.explain {
            set("explain", json!(true));
        }
        match &self.source {
            SourceFilter::All => None,
            SourceFilter::None => set("source", json!(false)),
            SourceFilter::Paths(paths) => set("source", json!(paths)),
            SourceFilter::Patterns { includes, excludes } => {
                set("source", json!({ "includes": includes, "excludes": excludes }))
            }
        };
        if !self.did_you_mean {
            set("did_you_mean", json!(false));
        }
        if let Some(level) = self.consistency {
            set("consistency", json!(level.as_str()));
        }
        if self.timeout != DEFAULT_TIMEOUT {
            set("timeout", json!(humantime::format_duration(self.timeout).to_string()));
        }
        if !self.allow_partial {
            set("allow_partial", json!(false));
        }
        if let Some(dsl) = &self.dsl {
            set("dsl", json!(dsl));
        }
        if let Some(index) = self.index {
            set("index", json!(index));
        }
        self.knn_to_json(&mut members);
        Value::Object(members).to_string().into_bytes()
    }

    /// Checks fields, sort keys and aggregations against an index.
    pub(crate) fn check(&self, schema: &IndexSchema) -> Result<(), QueryError> {
        for ast in self.queries() {
            query::check(ast, schema)?;
        }
        for key in &self.sort {
            if let SortField::Field(field) = &key.field {
                values_place(schema, field, "`sort`")?;
            }
        }
        for field in self.facets.keys() {
            values_place(schema, field, "`facets`")?;
        }
        for field in self.highlight.iter().flat_map(|highlight| &highlight.fields) {
            if !field.contains('*') {
                places(schema, field, "`highlight`")?;
            }
        }
        for knn in &self.knn {
            knn.similarity(schema)?;
        }
        self.aggs.check(schema)
    }

    /// All queries, in the order in which their expansions are kept: `q`, the filters, and the filters of the aggregations and of
    /// `knn`.
    pub(super) fn queries(&self) -> impl Iterator<Item = &Ast> {
        std::iter::once(&self.ast)
            .chain(&self.filters)
            .chain(self.aggs.filters())
            .chain(self.knn.iter().flat_map(Knn::filters))
    }

    /// Whether all matches are looked at to count values.
    pub(crate) fn has_aggregations(&self) -> bool {
        !self.aggs.is_empty() || !self.facets.is_empty()
    }

    /// Whether hits are in the order of their scores.
    pub(super) fn is_by_score(&self) -> bool {
        match self.sort.as_slice() {
            [] => true,
            [key] => key.is_best_first(),
            _ => false,
        }
    }

    /// Whether hits have scores.
    pub(super) fn has_score(&self) -> bool {
        self.sort.is_empty() || self.sort.iter().any(|key| key.field == SortField::Score)
    }

    /// What stands for a shard in the order of hits: its number, above the number of the index if there are several.
    pub(crate) fn position(&self, shard: ShardId) -> u32 {
        let index = self.index.or(self.dsl.as_ref().map(|dsl| dsl.index));
        u32::from(index.unwrap_or_default()) << 16 | shard.as_u32() & 0xffff
    }

    /// The same search in one of several indexes, whose hits are merged.
    pub(crate) fn of_index(&self, number: u16) -> Self {
        Self { index: Some(number), size: self.window(), from: 0, ..self.clone() }
    }

    /// The number of hits that a shard has to find.
    pub(super) fn window(&self) -> usize {
        self.from.saturating_add(self.size)
    }
}

/// Where the whole values of a field are, which are its fast fields.
pub(super) fn values_place(schema: &IndexSchema, field: &str, used_by: &str) -> Result<Place, QueryError> {
    let mut found = places(schema, field, used_by)?;
    let error = |message, hint| QueryError { message, at: None, hint: Some(hint) };
    match found.iter().position(|place| place.kind == PlaceKind::Values) {
        Some(at) if schema.schema.get_field_entry(found[at].field).is_fast() => Ok(found.swap_remove(at)),
        Some(_) => Err(error(
            format!("{used_by}: `{field}` can only be searched"),
            "use a field of the documents, or `_seq`".to_owned(),
        )),
        None => Err(error(
            format!("{used_by}: `{field}` is text, which has no whole values"),
            format!(
                "declare a field of type `keyword` with the same content and use it instead of `{field}`"
            ),
        )),
    }
}

fn places(schema: &IndexSchema, field: &str, used_by: &str) -> Result<Vec<Place>, QueryError> {
    schema.places(field).map_err(|error| QueryError {
        message: format!("{used_by}: {error}"),
        at: None,
        hint: error.similar.map(|similar| format!("did you mean `{similar}`?")),
    })
}
