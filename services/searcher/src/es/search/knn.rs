//! `knn` and `rank` of a search in Elasticsearch's form. Pure.
//!
//! Vectors are compared exactly, so `num_candidates` and what else is about an approximate search has no effect. `k` counts over
//! all shards, even in a query, where Elasticsearch finds `k` in each.

use serde_json::{Map, Value, json};

use super::members::Members;
use crate::es::dsl;
use crate::es::error::EsError;

/// The members of `knn`.
const KNOWN: [&str; 9] = [
    "field",
    "query_vector",
    "k",
    "num_candidates",
    "filter",
    "boost",
    "similarity",
    "rescore_vector",
    "visit_percentage",
];
const REFUSED: [&str; 3] = ["query_vector_builder", "inner_hits", "_name"];

/// The vectors of a search.
#[derive(Debug, Clone, Default)]
pub(super) struct Vectors {
    /// As native searches have them, each with its filters as JSON texts.
    vectors: Vec<(Map<String, Value>, Vec<String>)>,
    /// Whether there is a query beside them, or nothing but a query.
    pub(super) has_query: bool,
    rrf: Option<Value>,
}

impl Vectors {
    /// Reads the vectors of a search that wants so many hits, and takes a query out that is one.
    pub(super) fn read(members: &mut Members, hits: usize, now: i64) -> Result<Self, EsError> {
        let given: Option<Value> = members.get("knn", "an object or a list of objects")?;
        let mut bodies = match given {
            None => Vec::new(),
            Some(Value::Array(bodies)) => bodies,
            Some(body) => vec![body],
        };
        let mut has_query = bodies.is_empty() || members.raw("query").is_some();
        let query: Option<Value> = members.get("query", "an object")?;
        if let Some(Value::Object(query)) = query
            && query.len() == 1
            && let Some(body) = query.get("knn")
        {
            bodies.push(body.clone());
            members.set("query", &json!({ "match_none": {} }));
            has_query = false;
        }
        let vectors = bodies.iter().map(|body| vector(body, hits, now)).collect::<Result<Vec<_>, _>>()?;
        let rrf = members.get("rank", "an object")?.map(|rank| rrf(&rank, hits)).transpose()?;
        if rrf.is_some() && vectors.len() + usize::from(has_query) < 2 {
            return Err(EsError::illegal(
                "[rank] requires a minimum of [2] result sets using a combination of sub searches and/or knn searches",
            ));
        }
        if !vectors.is_empty() && members.raw("post_filter").is_some() {
            return Err(EsError::illegal(
                "[post_filter] together with [knn] is not supported: use [filter] in [knn]",
            ));
        }
        if !vectors.is_empty() && !has_query && members.raw("query").is_none() {
            members.set("query", &json!({ "match_none": {} }));
        }
        Ok(Self { vectors, has_query, rrf })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.vectors.is_empty()
    }

    /// Adds the vectors to the members of a native search, and their filters to those of Elasticsearch's form.
    pub(super) fn add_to(&self, members: &mut Members, filters: &mut Vec<String>) {
        let mut vectors = Vec::with_capacity(self.vectors.len());
        for (vector, of_vector) in &self.vectors {
            let mut vector = vector.clone();
            let numbers = filters.len()..filters.len() + of_vector.len();
            vector.insert("filter".to_owned(), numbers.collect());
            filters.extend_from_slice(of_vector);
            vectors.push(Value::Object(vector));
        }
        if !vectors.is_empty() {
            members.set("knn", &Value::Array(vectors));
        }
        if let Some(rrf) = &self.rrf {
            members.set("rrf", rrf);
        }
    }
}

fn vector(body: &Value, hits: usize, now: i64) -> Result<(Map<String, Value>, Vec<String>), EsError> {
    let Value::Object(body) = body else { return Err(EsError::parsing("[knn] is an object")) };
    for key in body.keys().map(String::as_str) {
        if REFUSED.contains(&key) {
            return Err(EsError::illegal(format!("[{key}] in [knn] is not supported")));
        }
        if !KNOWN.contains(&key) {
            let near = types::did_you_mean(key, KNOWN);
            let near = near.map(|near| format!(" did you mean [{near}]?")).unwrap_or_default();
            return Err(EsError::parsing(format!("[knn] unknown field [{key}]{near}")));
        }
    }
    let needed = |key: &str| body.get(key).ok_or_else(|| EsError::parsing(format!("[knn] requires [{key}]")));
    let whole = |key: &str| match body.get(key) {
        None => Ok(None),
        Some(number) => match number.as_u64().filter(|number| *number > 0) {
            Some(number) => Ok(Some(number)),
            None => Err(EsError::illegal(format!("[{key}] must be greater than 0"))),
        },
    };
    let k = whole("k")?.unwrap_or_else(|| u64::try_from(hits.max(1)).unwrap_or(u64::MAX));
    if let Some(candidates) = whole("num_candidates")?
        && candidates < k
    {
        return Err(EsError::illegal(format!(
            "[num_candidates] cannot be less than [k]: {candidates} < {k}"
        )));
    }
    let mut native = Map::new();
    native.insert("field".to_owned(), needed("field")?.clone());
    native.insert("vector".to_owned(), needed("query_vector")?.clone());
    native.insert("k".to_owned(), json!(k));
    for (key, name) in [("boost", "boost"), ("similarity", "min_similarity")] {
        if let Some(value) = body.get(key) {
            native.insert(name.to_owned(), value.clone());
        }
    }
    let filters = match body.get("filter") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(filters)) => filters.iter().collect(),
        Some(filter) => vec![filter],
    };
    for filter in &filters {
        dsl::parse(filter, now)?;
    }
    Ok((native, filters.into_iter().map(Value::to_string).collect()))
}

/// Reads `rank`.
fn rrf(rank: &Map<String, Value>, hits: usize) -> Result<Value, EsError> {
    let (1, Some(Value::Object(body))) = (rank.len(), rank.get("rrf")) else {
        return Err(EsError::parsing("[rank] is an object with [rrf]"));
    };
    let known = ["rank_constant", "rank_window_size", "window_size"];
    if let Some(key) = body.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(EsError::parsing(format!("[rrf] unknown field [{key}]")));
    }
    let size = body.get("rank_window_size").or_else(|| body.get("window_size"));
    Ok(json!({
        "rank_constant": body.get("rank_constant").cloned().unwrap_or_else(|| json!(60)),
        "rank_window_size": size.cloned().unwrap_or_else(|| json!(hits.max(10))),
    }))
}
