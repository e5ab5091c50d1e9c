//! Aggregations at a shard, and the answer from what several shards found.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};
use tantivy::aggregation::agg_req::{self, Aggregation, AggregationVariants};
use tantivy::aggregation::bucket::{FilterAggregation, QueryBuilder};
use tantivy::aggregation::intermediate_agg_result::{
    IntermediateAggregationResult, IntermediateAggregationResults, IntermediateBucketResult, PruneMode,
};
use tantivy::aggregation::{
    AggContextParams, AggregationLimitsGuard, AggregationSegmentCollector, DistributedAggregationCollector,
};
use tantivy::collector::{Collector, SegmentCollector};
use tantivy::columnar::ColumnType;
use tantivy::query::Query;
use tantivy::schema::Schema;
use tantivy::tokenizer::TokenizerManager;
use tantivy::{DocId, Searcher, SegmentOrdinal, SegmentReader, TantivyError};

use super::several::completed;
use super::{MAX_BUCKETS, addresses, fields_mut};
use crate::query::QueryError;
use crate::schema::IndexSchema;
use crate::search::request::values_place;
use crate::search::{SearchError, SearchRequest, wire};

/// The memory of the aggregations of one search at one shard.
const MEMORY: u64 = 256 << 20;
/// The highest number of a bucket from zero: the largest number up to which all whole numbers are floating-point numbers.
const MAX_POSITION: f64 = 9_007_199_254_740_992.0;
/// How many values of each segment a `terms` aggregation counts at least: counts are exact up to that many values.
const SEGMENT_SIZE: u64 = 10_000;

/// What a shard found, to be merged. Base64 of postcard in JSON.
#[derive(Clone)]
pub(crate) struct Intermediate {
    results: IntermediateAggregationResults,
    /// The fields with dates and without numbers.
    dates: BTreeSet<String>,
}

impl fmt::Debug for Intermediate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.results.keys().collect::<Vec<_>>();
        f.debug_struct("Intermediate").field("results", &names).field("dates", &self.dates).finish()
    }
}

impl Serialize for Intermediate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = postcard::to_allocvec(&(&self.results, &self.dates));
        serializer.serialize_str(&wire::encode(&bytes.map_err(serde::ser::Error::custom)?))
    }
}

impl<'de> Deserialize<'de> for Intermediate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = wire::decode(&String::deserialize(deserializer)?)?;
        let (results, dates) = postcard::from_bytes(&bytes).map_err(serde::de::Error::custom)?;
        Ok(Self { results, dates })
    }
}

/// The aggregations and facets of an answer.
#[derive(Debug, Default)]
pub(in crate::search) struct Results {
    pub(in crate::search) aggs: Option<Map<String, Value>>,
    pub(in crate::search) facets: Option<Map<String, Value>>,
    /// The fields of aggregations that have dates.
    pub(in crate::search) dates: BTreeSet<String>,
}

/// Aggregations that are being collected at a shard.
pub(in crate::search) struct Collecting {
    request: agg_req::Aggregations,
    dates: BTreeSet<String>,
    collector: DistributedAggregationCollector,
    segments: Vec<Result<IntermediateAggregationResults, TantivyError>>,
}

/// Begins to collect, if the request has facets or aggregations. The queries are those of the `filter` aggregations.
pub(in crate::search) fn collect(
    request: &SearchRequest,
    schema: &IndexSchema,
    searcher: &Searcher,
    filters: Vec<Box<dyn Query>>,
) -> Result<Option<Collecting>, SearchError> {
    let dates = dates(request, schema, searcher)?;
    let request = translate(request, schema, filters)?;
    if request.is_empty() {
        return Ok(None);
    }
    let context = AggContextParams::new(limits(), searcher.index().tokenizers().clone());
    let collector = DistributedAggregationCollector::from_aggs(request.clone(), context);
    Ok(Some(Collecting { request, dates, collector, segments: Vec::new() }))
}

/// The fields of aggregations that have dates and no numbers: a field that was not declared may have both.
fn dates(
    request: &SearchRequest,
    schema: &IndexSchema,
    searcher: &Searcher,
) -> Result<BTreeSet<String>, SearchError> {
    let mut dates = BTreeSet::new();
    for (_, field) in &request.aggs.fields {
        let column = schema.column_name(&values_place(schema, field, "`aggs`")?);
        let (mut has_dates, mut has_numbers) = (false, false);
        for reader in searcher.segment_readers() {
            for handle in reader.fast_fields().dynamic_column_handles(&column)? {
                has_dates |= handle.column_type() == ColumnType::DateTime;
                has_numbers |= handle.column_type().numerical_type().is_some();
            }
        }
        if has_dates && !has_numbers {
            dates.insert(field.clone());
        }
    }
    Ok(dates)
}

impl Collecting {
    pub(in crate::search) fn segment(
        &self,
        ordinal: SegmentOrdinal,
        reader: &SegmentReader,
    ) -> Result<CollectingSegment, TantivyError> {
        self.collector.for_segment(ordinal, reader).map(CollectingSegment)
    }

    pub(in crate::search) fn add(&mut self, segment: CollectingSegment) {
        self.segments.push(segment.0.harvest());
    }

    pub(in crate::search) fn finish(self) -> Result<Intermediate, SearchError> {
        let mut merged = self.collector.merge_fruits(self.segments)?;
        merged.prune_intermediate_results(&self.request, PruneMode::Intermediate)?;
        Ok(Intermediate { results: merged, dates: self.dates })
    }
}

/// A segment whose documents are collected.
pub(in crate::search) struct CollectingSegment(AggregationSegmentCollector);

impl CollectingSegment {
    /// Collects documents, which must not be deleted.
    pub(in crate::search) fn collect(&mut self, docs: &[DocId]) {
        self.0.collect_block(docs);
    }
}

/// The aggregations and facets of an answer.
pub(in crate::search) fn results(
    request: &SearchRequest,
    schema: &IndexSchema,
    found: Vec<Intermediate>,
) -> Result<Results, SearchError> {
    let translated = translate(request, schema, Vec::new())?;
    let (mut merged, mut dates) = (IntermediateAggregationResults::default(), BTreeSet::new());
    for Intermediate { results: shard, dates: of_shard } in found {
        dates.extend(of_shard);
        if let Some(unknown) = shard.keys().find(|name| !translated.contains_key(*name)) {
            return Err(SearchError::Engine(format!(
                "a shard sent an aggregation that is not asked: {unknown}"
            )));
        }
        merged.merge_fruits(shard)?;
    }
    check_spans(&merged, &translated)?;
    let finished = merged.into_final_result(translated, limits())?;
    let Ok(Value::Object(finished)) = serde_json::to_value(&finished) else {
        return Err(SearchError::Engine("aggregations can't be written as JSON".to_owned()));
    };
    let mut results = Results { dates, ..Results::default() };
    for (name, result) in finished {
        if let Some(name) = name.strip_prefix(AGGREGATION) {
            results.aggs.get_or_insert_default().insert(name.to_owned(), result);
        } else if let Some(field) = name.strip_prefix(FACET) {
            let mut values = facet(&result);
            addresses::show_facet(field, &mut values, schema);
            results.facets.get_or_insert_default().insert(field.to_owned(), values);
        }
    }
    if let Some(aggs) = &mut results.aggs {
        addresses::show(&request.aggs.request, aggs, schema);
    }
    Ok(results)
}

/// Before the names of aggregations, which could be those of facets.
const AGGREGATION: &str = "a.";
const FACET: &str = "f.";

fn limits() -> AggregationLimitsGuard {
    AggregationLimitsGuard::new(Some(MEMORY), Some(MAX_BUCKETS))
}

fn facet(result: &Value) -> Value {
    let buckets = result.get("buckets").and_then(Value::as_array);
    let value = |bucket: &Value| match (bucket.get("key_as_string"), bucket.get("key")) {
        (Some(text), Some(Value::Number(_))) if text == "true" || text == "false" => json!(text == "true"),
        (Some(text), _) => text.clone(),
        (None, key) => key.cloned().unwrap_or_default(),
    };
    let counted = |bucket| json!({ "value": value(bucket), "count": bucket.get("doc_count") });
    buckets.into_iter().flatten().map(counted).collect()
}

/// Tantivy's request. Without queries, filters match everything, which is enough to merge.
fn translate(
    request: &SearchRequest,
    schema: &IndexSchema,
    filters: Vec<Box<dyn Query>>,
) -> Result<agg_req::Aggregations, SearchError> {
    let mut filters = filters.into_iter();
    let mut translated = agg_req::Aggregations::default();
    for (name, aggregation) in &request.aggs.request {
        let aggregation = translate_one(aggregation, schema, &mut filters, false)?;
        translated.insert(format!("{AGGREGATION}{name}"), aggregation);
    }
    for (field, size) in &request.facets {
        let aggregation = json!({ "terms": { "field": field, "size": size } });
        translated
            .insert(format!("{FACET}{field}"), translate_one(&aggregation, schema, &mut filters, false)?);
    }
    Ok(translated)
}

fn translate_one(
    aggregation: &Value,
    schema: &IndexSchema,
    filters: &mut std::vec::IntoIter<Box<dyn Query>>,
    is_below_range: bool,
) -> Result<Aggregation, SearchError> {
    let unchecked = || SearchError::Engine("an aggregation was not checked".to_owned());
    let members = aggregation.as_object().ok_or_else(unchecked)?;
    let (kind, body) = members.iter().find(|(name, _)| *name != "aggs").ok_or_else(unchecked)?;
    let agg = match body {
        Value::Object(body) => {
            let mut body = body.clone();
            let mut has_addresses = false;
            for field in fields_mut(kind, &mut body) {
                let place = values_place(schema, field, "`aggs`")?;
                has_addresses |= schema.has_addresses(&place);
                *field = schema.column_name(&place);
            }
            if has_addresses {
                addresses::to_terms(&mut body);
            }
            if is_below_range && matches!(kind.as_str(), "histogram" | "date_histogram") {
                // What is below a range or a composite can't be looked at before empty buckets are added; see
                // `check_spans`.
                let least = body.get("min_doc_count").and_then(Value::as_u64).unwrap_or(0).max(1);
                body.insert("min_doc_count".to_owned(), json!(least));
                body.remove("extended_bounds");
            }
            let invalid = |message| QueryError { message, at: None, hint: None };
            parse(kind, &body).map_err(invalid)?
        }
        _ => AggregationVariants::Filter(match filters.next() {
            Some(query) => FilterAggregation::new_with_builder(Box::new(CompiledFilter(query))),
            None => FilterAggregation::new("*".to_owned()),
        }),
    };
    let mut sub_aggregation = agg_req::Aggregations::default();
    for (name, below) in members.get("aggs").and_then(Value::as_object).into_iter().flatten() {
        let is_hidden = is_below_range || matches!(kind.as_str(), "range" | "composite");
        let below = translate_one(below, schema, filters, is_hidden)?;
        sub_aggregation.insert(name.clone(), below);
    }
    Ok(Aggregation { agg, sub_aggregation })
}

/// Reads one aggregation over columns, and checks what depends on several keys.
pub(super) fn parse(kind: &str, body: &Map<String, Value>) -> Result<AggregationVariants, String> {
    let mut body = completed(kind, body);
    if matches!(kind, "terms" | "multi_terms") {
        let number = |name: &str| body.get(name).and_then(Value::as_u64).unwrap_or(0);
        let most = number("size").max(number("segment_size")).max(number("shard_size")).max(SEGMENT_SIZE);
        body.remove("shard_size");
        body.insert("segment_size".to_owned(), json!(most));
    }
    if kind == "date_histogram" {
        let interval = body.get("fixed_interval").and_then(Value::as_str);
        let interval = interval.ok_or("`date_histogram` needs a `fixed_interval`, such as \"1d\"")?;
        if milliseconds(interval).is_none_or(|interval| interval <= 0) {
            return Err(format!("`fixed_interval` is a number with ms, s, m, h or d, not `{interval}`"));
        }
        if let Some(offset) = body.get("offset").and_then(Value::as_str)
            && milliseconds(offset).is_none()
        {
            return Err(format!("`offset` is a number with ms, s, m, h or d, not `{offset}`"));
        }
    }
    if kind == "histogram" && !body.contains_key("interval") {
        return Err("`histogram` needs an `interval`".to_owned());
    }
    let parsed = serde_json::from_value(json!({ kind: body })).map_err(|error| error.to_string())?;
    if let AggregationVariants::Histogram(histogram) = &parsed
        && histogram
            .extended_bounds
            .is_some_and(|bounds| !is_small((bounds.max - bounds.min) / histogram.interval))
    {
        return Err(format!("`extended_bounds` has more than {MAX_BUCKETS} buckets"));
    }
    if let (AggregationVariants::DateHistogram(_), Some(bounds)) = (&parsed, body.get("extended_bounds")) {
        let histogram: AggregationVariants = serde_json::from_value(
            json!({ "histogram": { "field": "", "interval": interval_of(&parsed), "extended_bounds": bounds } }),
        )
        .map_err(|error| error.to_string())?;
        if let AggregationVariants::Histogram(histogram) = histogram
            && histogram
                .extended_bounds
                .is_some_and(|bounds| !is_small((bounds.max - bounds.min) / histogram.interval))
        {
            return Err(format!("`extended_bounds` has more than {MAX_BUCKETS} buckets"));
        }
    }
    Ok(parsed)
}

fn is_small(buckets: f64) -> bool {
    buckets < f64::from(MAX_BUCKETS)
}

/// Reads a duration as Tantivy does, perhaps with a sign.
pub(super) fn milliseconds(text: &str) -> Option<i64> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit);
    let unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    // As nanoseconds it has to fit, too.
    number.parse::<i64>().ok()?.checked_mul(unit).filter(|ms| ms.checked_mul(1_000_000).is_some())
}

/// The interval of a histogram, in milliseconds for dates.
fn interval_of(aggregation: &AggregationVariants) -> Option<f64> {
    match aggregation {
        AggregationVariants::Histogram(histogram) => Some(histogram.interval),
        AggregationVariants::DateHistogram(histogram) =>
        {
            #[expect(clippy::cast_precision_loss, reason = "an estimate is enough")]
            histogram.fixed_interval.as_deref().and_then(milliseconds).map(|interval| interval as f64)
        }
        _ => None,
    }
}

/// Refuses histograms with too many empty buckets, which Tantivy would add before it counts them: with 2^60 of them its
/// check of memory overflows.
fn check_spans(
    results: &IntermediateAggregationResults,
    request: &agg_req::Aggregations,
) -> Result<(), SearchError> {
    for (name, aggregation) in request {
        let Some(IntermediateAggregationResult::Bucket(bucket)) = results.get(name) else { continue };
        let below = &aggregation.sub_aggregation;
        match bucket {
            IntermediateBucketResult::Histogram { is_date_agg, buckets } => {
                let keys = || buckets.iter().map(|bucket| bucket.key);
                let (first, last) = (keys().fold(f64::MAX, f64::min), keys().fold(f64::MIN, f64::max));
                // Tantivy has dates in nanoseconds.
                let scale = if *is_date_agg { 1e6 } else { 1.0 };
                let interval = interval_of(&aggregation.agg).unwrap_or(1.0) * scale;
                // Beyond it the numbers of buckets have gaps.
                let is_beyond = (first / interval).abs().max((last / interval).abs()) > MAX_POSITION;
                if !buckets.is_empty() && (is_beyond || !is_small((last - first) / interval)) {
                    return Err(SearchError::Query(QueryError {
                        message: format!("the histogram has more than {MAX_BUCKETS} buckets"),
                        at: None,
                        hint: Some("use a longer interval, or a filter on the field's range".to_owned()),
                    }));
                }
                buckets.iter().try_for_each(|bucket| check_spans(&bucket.sub_aggregation, below))?;
            }
            IntermediateBucketResult::Terms { buckets } => {
                buckets
                    .entries()
                    .iter()
                    .try_for_each(|(_, bucket)| check_spans(&bucket.sub_aggregation, below))?;
            }
            IntermediateBucketResult::Filter { sub_aggregations, .. } => {
                check_spans(sub_aggregations, below)?;
            }
            IntermediateBucketResult::MultiTerms { buckets } => {
                let mut entries = buckets.entries().values();
                entries.try_for_each(|bucket| check_spans(&bucket.sub_aggregation, below))?;
            }
            IntermediateBucketResult::Range(_) | IntermediateBucketResult::Composite { .. } => {}
        }
    }
    Ok(())
}

/// A query for Tantivy's filter aggregation. It never leaves the process.
#[derive(Debug)]
struct CompiledFilter(Box<dyn Query>);

impl Serialize for CompiledFilter {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("a compiled filter stays in its process"))
    }
}

// Without the macro of `typetag`, which registers a type to be deserialized; the last two functions are what it adds.
impl QueryBuilder for CompiledFilter {
    fn build_query(&self, _: &Schema, _: &TokenizerManager) -> Result<Box<dyn Query>, TantivyError> {
        Ok(self.0.box_clone())
    }

    fn box_clone(&self) -> Box<dyn QueryBuilder> {
        Box::new(Self(self.0.box_clone()))
    }

    fn typetag_name(&self) -> &'static str {
        "CompiledFilter"
    }

    fn typetag_deserialize(&self) {}
}
