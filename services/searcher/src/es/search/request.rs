//! The body and the parameters of a search. Pure.

use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::aggregations::Aggregations;
use super::highlight::{self, Highlight};
use super::knn::Vectors;
use super::members::Members;
use super::sort::Key;
use crate::es::dsl;
use crate::es::error::EsError;
use crate::es::parameters::Parameters;
use crate::query::condition::base_of_keyword;
use crate::schema::IndexSchema;
use crate::search::{MAX_WINDOW, SearchError, SearchRequest};

/// The parameters of a search, beside those that every request takes.
pub(super) const PARAMETERS: [&str; 29] = [
    "q",
    "df",
    "default_operator",
    "analyze_wildcard",
    "lenient",
    "from",
    "size",
    "sort",
    "_source",
    "_source_includes",
    "_source_excludes",
    "track_total_hits",
    "track_scores",
    "explain",
    "version",
    "seq_no_primary_term",
    "stored_fields",
    "scroll",
    "rest_total_hits_as_int",
    "typed_keys",
    "search_type",
    "batched_reduce_size",
    "max_concurrent_shard_requests",
    "pre_filter_shard_size",
    "ccs_minimize_roundtrips",
    "allow_partial_search_results",
    "terminate_after",
    "ignore_throttled",
    "include_named_queries_score",
];

const KNOWN: [&str; 22] = [
    "query",
    "post_filter",
    "from",
    "size",
    "sort",
    "search_after",
    "_source",
    "highlight",
    "aggs",
    "aggregations",
    "explain",
    "version",
    "seq_no_primary_term",
    "track_total_hits",
    "track_scores",
    "timeout",
    "terminate_after",
    "stored_fields",
    "pit",
    "profile",
    "knn",
    "rank",
];

/// What is refused by name, unless it is empty.
const REFUSED: [&str; 15] = [
    "fields",
    "docvalue_fields",
    "script_fields",
    "runtime_mappings",
    "collapse",
    "rescore",
    "suggest",
    "slice",
    "indices_boost",
    "retriever",
    "stats",
    "ext",
    "min_score",
    "script",
    "sub_searches",
];

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_TIMEOUT: Duration = Duration::from_secs(60);

/// A search of one or several indexes.
#[derive(Debug, Clone)]
pub(crate) struct EsSearch {
    /// As JSON text.
    query: String,
    pub(super) vectors: Vectors,
    pub(super) now: i64,
    pub(super) from: usize,
    pub(super) size: usize,
    /// By score if empty.
    pub(super) sort: Vec<Key>,
    /// A value for each key, as JSON texts.
    pub(super) after: Option<After>,
    pub(super) has_total: bool,
    pub(super) is_total_number: bool,
    explain: bool,
    pub(super) has_version: bool,
    pub(super) has_seq_no: bool,
    source: Value,
    highlight: Option<Highlight>,
    pub(super) aggregations: Option<Aggregations>,
    pub(super) timeout: Duration,
    allow_partial: bool,
    pub(super) pit: Option<String>,
}

/// Behind which place hits begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum After {
    /// Behind all hits with these values, which are JSON texts, one for each key; or behind the one with a number and a shard.
    Values(Vec<String>, Option<(u64, u32)>),
    /// Behind one hit: its values, its number and its shard, as native searches have them.
    Hit(String),
}

impl EsSearch {
    /// Reads a search from its members.
    pub(super) fn read(members: &Members, parameters: &Parameters, now: i64) -> Result<Self, EsError> {
        members.check(&KNOWN, &REFUSED)?;
        for (name, values) in [
            ("typed_keys", &["false"][..]),
            ("search_type", &["query_then_fetch", "dfs_query_then_fetch"]),
            ("include_named_queries_score", &["false"]),
        ] {
            if parameters.text(name).is_some_and(|value| !values.contains(&value)) {
                return Err(EsError::illegal(format!(
                    "[{name}] other than [{}] is not supported",
                    values[0]
                )));
            }
        }
        if members.flag("track_scores")? {
            return Err(EsError::illegal("[track_scores] is not supported: sort by _score, too"));
        }
        if members.flag("profile")? {
            return Err(EsError::unsupported("profile"));
        }
        members.number("terminate_after")?;
        let (from, size) = (members.number("from")?.unwrap_or(0), members.number("size")?.unwrap_or(10));
        if from.saturating_add(size) > MAX_WINDOW {
            return Err(EsError::illegal(format!(
                "Result window is too large, from + size must be less than or equal to: [{MAX_WINDOW}] but was [{}]. See the scroll api, or use search_after.",
                from.saturating_add(size)
            )));
        }
        let sort = members.get::<Value>("sort", "a list of keys")?;
        let sort = sort.map(|sort| Key::read_all(&sort)).transpose()?.unwrap_or_default();
        let pit: Option<Map<String, Value>> = members.get("pit", "an object with [id]")?;
        let pit = match pit {
            None => None,
            Some(pit) => Some(pit_id(&pit)?),
        };
        let after = after(members, &sort, from, pit.is_some())?;
        let aggregations =
            match (members.get("aggs", "an object")?, members.get("aggregations", "an object")?) {
                (Some(_), Some(_)) => return Err(EsError::parsing("[aggs] and [aggregations] are the same")),
                (one, other) => one.or(other),
            };
        let aggregations: Option<Value> = aggregations;
        let aggregations = aggregations.map(|all| Aggregations::read(&all, now)).transpose()?;
        let has_total = track_total_hits(members)?;
        let mut members = members.clone();
        let vectors = Vectors::read(&mut members, from.saturating_add(size), now)?;
        let members = &members;
        let highlight = members.get::<Value>("highlight", "an object")?;
        Ok(Self {
            query: query(members, now, aggregations.is_some())?,
            vectors,
            now,
            from,
            size,
            sort,
            after,
            has_total,
            is_total_number: parameters.flag("rest_total_hits_as_int")?.unwrap_or(false),
            explain: members.flag("explain")?,
            has_version: members.flag("version")?,
            has_seq_no: members.flag("seq_no_primary_term")?,
            source: source(members)?,
            highlight: highlight.map(|highlight| highlight::read(&highlight)).transpose()?,
            aggregations,
            timeout: timeout(members)?,
            allow_partial: parameters.flag("allow_partial_search_results")?.unwrap_or(true),
            pit,
        })
    }

    /// The search as one index takes it. Only one that is searched alone takes `from`.
    pub(super) fn of_index(
        &self,
        schema: &IndexSchema,
        number: usize,
        is_alone: bool,
    ) -> Result<SearchRequest, EsError> {
        let number = u16::try_from(number).map_err(|_| EsError::illegal("too many indexes are searched"))?;
        let (from, size) = if is_alone { (self.from, self.size) } else { (0, self.from + self.size) };
        let mut members = Members::default();
        members.set("from", &json!(from));
        members.set("size", &json!(size));
        members.set("did_you_mean", &json!(false));
        members.set("source", &self.source);
        members.set("timeout", &json!(format!("{}ms", self.timeout.as_millis())));
        members.set("allow_partial", &json!(self.allow_partial));
        members.set("explain", &json!(self.explain));
        members.set("sort", &self.sort.iter().map(|key| key.native(schema)).collect());
        match &self.after {
            None => {}
            Some(After::Hit(hit)) => members.set_raw("search_after", hit.clone()),
            Some(After::Values(values, place)) => {
                let values =
                    values.iter().zip(&self.sort).map(|(value, key)| key.native_value(value, schema));
                let (seq, position) = place.unwrap_or((u64::MAX, u32::MAX));
                let last = [seq.to_string(), position.to_string()];
                let values: Vec<String> = values.chain(last).collect();
                members.set_raw("search_after", format!("[{}]", values.join(",")));
            }
        }
        if let Some(highlight) = self.highlight(schema) {
            members.set("highlight", &highlight);
        }
        let mut filters = Vec::new();
        if let Some(aggregations) = &self.aggregations {
            members.set("aggs", &aggregations.native(schema));
            filters.clone_from(&aggregations.filters);
        }
        self.vectors.add_to(&mut members, &mut filters);
        let dsl = json!({
            "query": self.query,
            "filters": filters,
            "now": self.now,
            "index": number,
            "has_query": self.vectors.has_query,
            "has_numbers": self.has_version || self.has_seq_no,
        });
        members.set("dsl", &dsl);
        let request = SearchRequest::from_wire(members.to_json().as_bytes());
        let request = request.map_err(SearchError::from).map_err(crate::http::Refusal::from)?;
        Ok(request)
    }

    fn highlight(&self, schema: &IndexSchema) -> Option<Value> {
        let highlight = self.highlight.as_ref()?;
        let known =
            highlight.fields.iter().filter(|field| field.contains('*') || schema.places(field).is_ok());
        let known: Vec<&str> = known.map(|field| base_of_keyword(field, schema).unwrap_or(field)).collect();
        let mut native = highlight.options.clone();
        native.insert("fields".to_owned(), json!(known));
        (!known.is_empty()).then_some(Value::Object(native))
    }

    /// Whether hits have a score.
    pub(super) fn has_score(&self) -> bool {
        self.sort.is_empty() || self.sort.iter().any(Key::is_score)
    }
}

fn query(members: &Members, now: i64, has_aggregations: bool) -> Result<String, EsError> {
    let everything = || r#"{"match_all":{}}"#.to_owned();
    let query = members.raw("query").map_or_else(everything, str::to_owned);
    let query = match members.raw("post_filter") {
        None => query,
        // Elasticsearch would aggregate over what the filter leaves out, too.
        Some(_) if has_aggregations => {
            return Err(EsError::illegal("[post_filter] together with [aggs] is not supported"));
        }
        Some(filter) => format!(r#"{{"bool":{{"must":[{query}],"filter":[{filter}]}}}}"#),
    };
    let parsed = serde_json::from_str(&query).map_err(|error| EsError::parsing(error.to_string()))?;
    dsl::parse(&parsed, now)?;
    Ok(query)
}

/// The id in `pit`.
fn pit_id(pit: &Map<String, Value>) -> Result<String, EsError> {
    if let Some(key) = pit.keys().find(|key| !matches!(key.as_str(), "id" | "keep_alive")) {
        return Err(EsError::parsing(format!("[pit] has no [{key}]")));
    }
    if let Some(keep_alive) = pit.get("keep_alive") {
        super::token::keep_alive(keep_alive.as_str().unwrap_or_default())?;
    }
    let id = pit.get("id").and_then(Value::as_str).map(str::to_owned);
    id.ok_or_else(|| EsError::parsing("[pit] needs [id]"))
}

fn after(members: &Members, sort: &[Key], from: usize, has_pit: bool) -> Result<Option<After>, EsError> {
    let values: Option<Vec<Box<RawValue>>> = members.get("search_after", "a list of values")?;
    let Some(values) = values else { return Ok(None) };
    if from > 0 {
        return Err(EsError::illegal("`from` parameter must be set to 0 when `search_after` is used."));
    }
    if sort.is_empty() {
        return Err(EsError::illegal("Sort must contain at least one field when using search_after."));
    }
    let texts =
        |values: &[Box<RawValue>]| values.iter().map(|value| value.get().to_owned()).collect::<Vec<_>>();
    // A hit of a point in time has its place as its last value.
    let place = values.last().and_then(|last| serde_json::from_str::<String>(last.get()).ok());
    if has_pit && values.len() == sort.len() + 1 {
        let place = place.as_deref().and_then(|place| place.split_once('.'));
        let place = place.and_then(|(seq, position)| Some((seq.parse().ok()?, position.parse().ok()?)));
        let place =
            place.ok_or_else(|| EsError::illegal("[search_after] ends with the last value of [sort]"))?;
        return Ok(Some(After::Values(texts(&values[..sort.len()]), Some(place))));
    }
    if values.len() != sort.len() {
        return Err(EsError::illegal(format!(
            "search_after has {} value(s) but sort has {}.",
            values.len(),
            sort.len()
        )));
    }
    Ok(Some(After::Values(texts(&values), None)))
}

/// Whether the total is shown. It is always exact.
fn track_total_hits(members: &Members) -> Result<bool, EsError> {
    match members.raw("track_total_hits").map(|text| text.trim_matches('"')) {
        None | Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(number) if number.parse::<i64>().is_ok_and(|number| number >= -1) => Ok(number != "-1"),
        Some(_) => Err(EsError::illegal("[track_total_hits] is true, false or a number")),
    }
}

fn source(members: &Members) -> Result<Value, EsError> {
    let is_none = members.raw("stored_fields").is_some();
    if let Some(text) = members.raw("stored_fields")
        && !matches!(text, "\"_none_\"" | "[\"_none_\"]" | "[]")
    {
        return Err(EsError::illegal("[stored_fields] other than [_none_] is not supported"));
    }
    let wrong = || {
        EsError::parsing(
            "[_source] is true, false, a field, a list of fields, or an object with includes and excludes",
        )
    };
    let list = |value: &Value| match value {
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Array(list) => {
            list.iter().map(|path| path.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        _ => Err(wrong()),
    };
    let patterns =
        |includes: Vec<String>, excludes: Vec<String>| json!({ "includes": includes, "excludes": excludes });
    match members.get::<Value>("_source", "a value")? {
        None => Ok(json!(!is_none)),
        Some(Value::Bool(flag)) => Ok(json!(flag)),
        Some(Value::Object(object)) => {
            let known = ["includes", "include", "excludes", "exclude"];
            if let Some(key) = object.keys().find(|key| !known.contains(&key.as_str())) {
                return Err(EsError::parsing(format!("[_source] has no [{key}]")));
            }
            let part = |names: [&str; 2]| {
                let found = names.iter().find_map(|name| object.get(*name));
                found.map(list).transpose().map(Option::unwrap_or_default)
            };
            Ok(patterns(part(["includes", "include"])?, part(["excludes", "exclude"])?))
        }
        Some(value) => Ok(patterns(list(&value)?, Vec::new())),
    }
}

fn timeout(members: &Members) -> Result<Duration, EsError> {
    let Some(text) = members.get::<Value>("timeout", "a duration")? else { return Ok(DEFAULT_TIMEOUT) };
    let millis = match &text {
        Value::String(text) if text == "-1" => return Ok(MAX_TIMEOUT),
        Value::String(text) => crate::query::dates::duration(text),
        other => other.as_i64(),
    };
    let millis = millis.and_then(|millis| u64::try_from(millis).ok()).filter(|millis| *millis > 0);
    let millis = millis.ok_or_else(|| EsError::illegal(format!("failed to parse [timeout] of [{text}]")))?;
    Ok(Duration::from_millis(millis).min(MAX_TIMEOUT))
}
