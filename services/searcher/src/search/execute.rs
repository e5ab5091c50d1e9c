//! The second round of a search at a shard: its hits, their number, and its aggregations.
//!
//! Hits by score are found by [`top`](super::top), which skips most postings of frequent terms; their number is counted apart,
//! which costs next to nothing for a term. Queries that can't be pruned, sorts by fields and aggregations look at every match,
//! once for all of them.

use std::borrow::Cow;

use tantivy::columnar::Column;
use tantivy::query::{AllQuery, BooleanQuery, EmptyQuery, EnableScoring, Occur, Query, Weight};
use tantivy::{COLLECT_BLOCK_BUFFER_LEN, DocId, DocSet, Score, SegmentReader, TERMINATED};
use types::ShardId;

use super::aggregations::{self, Collecting};
use super::fusion::{Parts, Ranked};
use super::hits::HitReader;
use super::nearest::{Nearest, locate};
use super::order::{self, SegmentFirst, SortedDoc};
use super::prepare::{combine, prepare_and_compile};
use super::sort::{Cursor, SegmentKeys, SortField, SortKey, SortValue};
use super::top::{ScoredDoc, SegmentTop, Shape, Top, summands};
use super::{Cancel, Found, Plan, SearchError, SearchRequest};
use crate::query::{self, Compiled, Expansions, QueryError};
use crate::schema::IndexSchema;
use crate::shard::Snapshot;

/// A query that panics.
#[cfg(test)]
pub(crate) const PANIC: &str = "panic";
/// The most bytes of documents that a shard returns.
const MAX_BYTES: usize = 64 << 20;

/// Both rounds at the only shard. Blocking.
pub(crate) fn search_alone(
    snapshot: &Snapshot,
    request: &SearchRequest,
    shard: ShardId,
    cancel: &Cancel,
) -> Result<Found, SearchError> {
    let (prepared, scored) = prepare_and_compile(snapshot, request)?;
    let prepared = prepared.with_nearest(snapshot, request, shard, cancel)?;
    find(snapshot, request, &combine([prepared]), &scored, shard, cancel)
}

/// The second round at a shard. Blocking.
pub(crate) fn execute(
    snapshot: &Snapshot,
    request: &SearchRequest,
    plan: &Plan,
    shard: ShardId,
    cancel: &Cancel,
) -> Result<Found, SearchError> {
    if plan.expansions.len() != request.queries().count() {
        return Err(SearchError::Engine("the plan is for another request".to_owned()));
    }
    let scored = query::compile(&request.ast, &snapshot.index.schema, &plan.expansions[0])?;
    find(snapshot, request, plan, &scored, shard, cancel)
}

fn find(
    snapshot: &Snapshot,
    request: &SearchRequest,
    plan: &Plan,
    scored: &Compiled,
    shard: ShardId,
    cancel: &Cancel,
) -> Result<Found, SearchError> {
    #[cfg(test)]
    assert_ne!(request.q.as_deref(), Some(PANIC), "a test wants it");
    let schema = &snapshot.index.schema;
    plan.statistics.check()?;
    let (filters, agg_filters) = filters(request, schema, &plan.expansions)?;
    let collecting = aggregations::collect(request, schema, &snapshot.searcher, agg_filters)?;
    let nearest = nearest(snapshot, request, plan, shard, cancel)?;
    let of_query = request.has_query().then(|| scored.query.box_clone());
    let of_vectors = nearest.iter().map(|(_, nearest)| Box::new(nearest.clone()) as Box<dyn Query>);
    let whole = with_filters(either(of_query.into_iter().chain(of_vectors).collect()), &filters);
    let scoring = EnableScoring::enabled_from_statistics_provider(&plan.statistics, &snapshot.searcher);
    let limit = request.window();
    let run = Run { snapshot, request, query: whole.as_ref(), scoring, limit, shard, cancel };
    let has_explanations = request.explain && request.has_score();
    let (mut matched, rankings) = match request.fusion() {
        None if request.is_by_score() => (run.by_score(collecting)?, Vec::new()),
        None => (run.by_keys(collecting)?, Vec::new()),
        Some(rrf) => {
            let own = with_filters(scored.query.box_clone(), &filters);
            let own = request.has_query().then(|| own.as_ref());
            run.fused(own, nearest, request.rank_window(rrf), collecting)?
        }
    };
    let skipped =
        if plan.shards == 1 && rankings.is_empty() { request.from.min(matched.hits.len()) } else { 0 };
    let explaining = (has_explanations && rankings.is_empty()).then(|| whole.weight(scoring)).transpose()?;
    let mut reader = HitReader::new(snapshot, request, scored.query.as_ref(), explaining);
    let mut hits = Vec::with_capacity(matched.hits.len() - skipped);
    let mut bytes = 0_usize;
    for hit in matched.hits.drain(skipped..) {
        cancel.check()?;
        let hit = reader.read(hit)?;
        bytes += hit.source.as_ref().map_or(0, |source| source.get().len());
        if bytes > MAX_BYTES {
            return Err(SearchError::Query(too_large()));
        }
        hits.push(hit);
    }
    let q = request.q.as_deref().filter(|_| matched.total == 0 && request.did_you_mean);
    let did_you_mean = q.zip(plan.similar.as_ref()).and_then(|(q, similar)| similar.corrected(q));
    Ok(Found {
        total: matched.total,
        max_score: matched.best,
        hits,
        skipped,
        aggregations: matched.collecting.map(Collecting::finish).transpose()?,
        rankings,
        did_you_mean,
    })
}

fn too_large() -> QueryError {
    QueryError {
        message: format!("the documents of the hits are larger than {} MiB", MAX_BYTES >> 20),
        at: None,
        hint: Some("ask for fewer hits, or for parts of documents with `source`".to_owned()),
    }
}

type Queries = Vec<Box<dyn Query>>;

/// The filters of the search, and those of its aggregations.
fn filters(
    request: &SearchRequest,
    schema: &IndexSchema,
    expansions: &[Expansions],
) -> Result<(Queries, Queries), SearchError> {
    let asts = request.queries().zip(expansions).skip(1);
    let mut filters = asts
        .map(|(ast, expansions)| query::compile_filter(ast, schema, expansions))
        .collect::<Result<Vec<_>, _>>()?;
    // Those of `knn` have done their part in the first round.
    filters.truncate(request.filters.len() + request.aggs.filters().count());
    let of_aggregations = filters.split_off(request.filters.len());
    Ok((filters, of_aggregations))
}

/// The documents of this shard that are nearest to each vector, and the query for them.
type NearestDocs = Vec<(Vec<ScoredDoc>, Nearest)>;

fn nearest(
    snapshot: &Snapshot,
    request: &SearchRequest,
    plan: &Plan,
    shard: ShardId,
    cancel: &Cancel,
) -> Result<NearestDocs, SearchError> {
    if plan.nearest.len() != request.knn.len() {
        return Err(SearchError::Engine("the plan is for another request".to_owned()));
    }
    let located = request.knn.iter().zip(&plan.nearest).map(|(knn, neighbors)| {
        let docs = locate(snapshot, neighbors, request.position(shard), cancel)?;
        let query = Nearest::new(snapshot, knn, &docs);
        Ok((docs, query))
    });
    located.collect()
}

/// A query that matches what one of several does, whose scores are added up.
fn either(mut queries: Queries) -> Box<dyn Query> {
    match queries.pop() {
        Some(only) if queries.is_empty() => only,
        Some(last) => {
            queries.push(last);
            Box::new(BooleanQuery::union(queries))
        }
        None => Box::new(EmptyQuery),
    }
}

fn with_filters(query: Box<dyn Query>, filters: &[Box<dyn Query>]) -> Box<dyn Query> {
    if filters.is_empty() {
        return query;
    }
    let all = std::iter::once(query).chain(filters.iter().map(|filter| filter.box_clone()));
    Box::new(BooleanQuery::new(all.map(|query| (Occur::Must, query)).collect()))
}

/// What matched.
struct Matched {
    total: u64,
    best: Option<Score>,
    hits: Vec<SortedDoc>,
    collecting: Option<Collecting>,
}

#[derive(Clone, Copy)]
struct Run<'a> {
    snapshot: &'a Snapshot,
    request: &'a SearchRequest,
    query: &'a dyn Query,
    scoring: EnableScoring<'a>,
    /// How many hits are wanted.
    limit: usize,
    shard: ShardId,
    cancel: &'a Cancel,
}

impl Run<'_> {
    fn by_score(&self, mut collecting: Option<Collecting>) -> Result<Matched, SearchError> {
        let limit = self.limit;
        let shape = Shape::of(self.query);
        let position = self.request.position(self.shard);
        let after = self.request.search_after.as_ref().map(|cursor| after(cursor, position));
        let mut top = Top::new(limit, after);
        let looks_at_all = collecting.is_some() || (limit > 0 && shape == Shape::Full);
        let mut total = 0;
        if limit > 0 {
            let weight = self.query.weight(self.scoring)?;
            let summands = summands(self.query, shape, self.scoring)?;
            for (ordinal, reader) in segments(self.snapshot) {
                let seqs = self.seqs(reader)?;
                let mut segment = SegmentTop::open(&mut top, &summands, ordinal, reader, seqs)?;
                match shape {
                    Shape::Pruned { .. } => {
                        segment.prune(weight.as_ref(), reader, self.cancel)?;
                        self.cancel.check()?;
                    }
                    Shape::Constant => self.constant(weight.as_ref(), reader, &mut segment)?,
                    Shape::Full => {
                        total += self.each(
                            weight.as_ref(),
                            ordinal,
                            reader,
                            collecting.as_mut(),
                            |doc, score| {
                                if score > segment.threshold() {
                                    segment.offer(doc, score);
                                }
                            },
                        )?;
                    }
                }
            }
        }
        if !looks_at_all {
            total = self.count(shape)?;
        } else if limit == 0 || shape != Shape::Full {
            let weight = self.query.weight(EnableScoring::disabled_from_searcher(&self.snapshot.searcher))?;
            for (ordinal, reader) in segments(self.snapshot) {
                total += self.each_block(weight.as_ref(), ordinal, reader, collecting.as_mut(), |_| {})?;
            }
        }
        let best = top.best();
        let hits = top.into_hits().into_iter().map(|hit| SortedDoc {
            cursor: Cursor { values: vec![SortValue::F64(hit.score.into())], seq: hit.seq, shard: position },
            score: hit.score,
            address: hit.address,
        });
        Ok(Matched { total, best, hits: hits.collect(), collecting })
    }

    /// The parts of several rankings. Everything that one of them may have is counted and aggregated.
    fn fused(
        &self,
        own: Option<&dyn Query>,
        nearest: NearestDocs,
        window: usize,
        collecting: Option<Collecting>,
    ) -> Result<(Matched, Vec<Vec<Ranked>>), SearchError> {
        let all = Run { limit: 0, ..*self }.by_score(collecting)?;
        let (position, searcher) = (self.request.position(self.shard), &self.snapshot.searcher);
        let explaining = |query: &dyn Query| -> Result<_, SearchError> {
            Ok(self.request.explain.then(|| query.weight(self.scoring)).transpose()?)
        };
        let mut parts = Parts::default();
        if let Some(own) = own {
            let hits = Run { query: own, limit: window, ..*self }.by_score(None)?.hits;
            let docs = hits.into_iter().map(|hit| ScoredDoc {
                score: hit.score,
                seq: hit.cursor.seq,
                address: hit.address,
            });
            parts.add(docs, position, searcher, explaining(own)?.as_deref())?;
        }
        for (docs, query) in nearest {
            parts.add(docs, position, searcher, explaining(&query)?.as_deref())?;
        }
        let Parts { docs: hits, rankings, .. } = parts;
        Ok((Matched { hits, best: None, ..all }, rankings))
    }

    fn by_keys(&self, mut collecting: Option<Collecting>) -> Result<Matched, SearchError> {
        let keys: Cow<'_, [SortKey]> = Cow::Borrowed(&self.request.sort);
        let has_score = keys.iter().any(|key| key.field == SortField::Score);
        let scoring = match has_score {
            true => self.scoring,
            false => EnableScoring::disabled_from_searcher(&self.snapshot.searcher),
        };
        let (limit, shard) = (self.limit, self.request.position(self.shard));
        let weight = self.query.weight(scoring)?;
        let (mut total, mut best, mut hits) = (0, None, Vec::new());
        for (ordinal, reader) in segments(self.snapshot) {
            let values = SegmentKeys::open(&keys, &self.snapshot.index.schema, reader)?;
            let after = self.request.search_after.as_ref();
            let mut first = SegmentFirst::new(limit, values, self.seqs(reader)?, after, shard)?;
            total += if has_score {
                self.each(weight.as_ref(), ordinal, reader, collecting.as_mut(), |doc, score| {
                    best = Some(best.map_or(score, |best: Score| best.max(score)));
                    first.offer(doc, score);
                })?
            } else {
                self.each_block(weight.as_ref(), ordinal, reader, collecting.as_mut(), |docs| {
                    docs.iter().for_each(|doc| first.offer(*doc, 0.0));
                })?
            };
            hits.extend(first.into_hits(ordinal, shard)?);
        }
        Ok(Matched { total, best, hits: order::first(hits, &keys, limit), collecting })
    }

    fn seqs(&self, reader: &SegmentReader) -> Result<Column<u64>, SearchError> {
        let schema = &self.snapshot.index.schema;
        Ok(reader.fast_fields().u64(schema.schema.get_field_name(schema.seq))?)
    }

    /// Counts the matches without looking at hits.
    fn count(&self, shape: Shape) -> Result<u64, SearchError> {
        if self.query.is::<AllQuery>() {
            return Ok(self.snapshot.searcher.num_docs());
        }
        let weight = self.query.weight(EnableScoring::disabled_from_searcher(&self.snapshot.searcher))?;
        let mut total = 0;
        for (ordinal, reader) in segments(self.snapshot) {
            self.cancel.check()?;
            total += match shape {
                // Tantivy counts terms and unions of terms much faster than they can be gone through.
                Shape::Pruned { .. } => u64::from(weight.count(reader)?),
                Shape::Constant | Shape::Full => {
                    self.each_block(weight.as_ref(), ordinal, reader, None, |_| {})?
                }
            };
        }
        Ok(total)
    }

    /// All scores are equal: ends as soon as no later document can be better.
    fn constant(
        &self,
        weight: &dyn Weight,
        reader: &SegmentReader,
        segment: &mut SegmentTop<'_>,
    ) -> Result<(), SearchError> {
        let mut scorer = weight.scorer(reader, 1.0)?;
        let mut seen = 0_u32;
        let mut doc = scorer.doc();
        while doc != TERMINATED {
            self.pause(&mut seen)?;
            let score = scorer.score();
            if score <= segment.threshold() {
                break;
            }
            segment.offer(doc, score);
            doc = scorer.advance();
        }
        Ok(())
    }

    /// Goes through all matches with their scores; the number of those that are not deleted.
    fn each(
        &self,
        weight: &dyn Weight,
        ordinal: u32,
        reader: &SegmentReader,
        mut collecting: Option<&mut Collecting>,
        mut found: impl FnMut(DocId, Score),
    ) -> Result<u64, SearchError> {
        let mut segment = collecting.as_ref().map(|all| all.segment(ordinal, reader)).transpose()?;
        let mut block = Vec::with_capacity(COLLECT_BLOCK_BUFFER_LEN);
        let alive = reader.alive_bitset();
        let mut scorer = weight.scorer(reader, 1.0)?;
        let (mut seen, mut total) = (0_u32, 0);
        let mut doc = scorer.doc();
        while doc != TERMINATED {
            self.pause(&mut seen)?;
            if alive.is_none_or(|alive| alive.is_alive(doc)) {
                total += 1;
                found(doc, scorer.score());
                if let Some(segment) = &mut segment {
                    block.push(doc);
                    if block.len() == COLLECT_BLOCK_BUFFER_LEN {
                        segment.collect(&block);
                        block.clear();
                    }
                }
            }
            doc = scorer.advance();
        }
        if let (Some(mut segment), Some(all)) = (segment, collecting.take()) {
            if !block.is_empty() {
                segment.collect(&block);
            }
            all.add(segment);
        }
        Ok(total)
    }

    /// Goes through all matches in blocks; the number of those that are not deleted.
    fn each_block(
        &self,
        weight: &dyn Weight,
        ordinal: u32,
        reader: &SegmentReader,
        mut collecting: Option<&mut Collecting>,
        mut found: impl FnMut(&[DocId]),
    ) -> Result<u64, SearchError> {
        let mut segment = collecting.as_ref().map(|all| all.segment(ordinal, reader)).transpose()?;
        let alive = reader.alive_bitset();
        let mut scorer = weight.scorer(reader, 1.0)?;
        let mut buffer = [0; COLLECT_BLOCK_BUFFER_LEN];
        let (mut blocks, mut total) = (0_u32, 0);
        loop {
            if blocks.is_multiple_of(16) {
                self.cancel.check()?;
            }
            blocks += 1;
            let filled = scorer.fill_buffer(&mut buffer);
            let mut count = filled;
            if let Some(alive) = alive {
                count = 0;
                for at in 0..filled {
                    let doc = buffer[at];
                    buffer[count] = doc;
                    count += usize::from(alive.is_alive(doc));
                }
            }
            total += u64::try_from(count).expect("a block is short");
            found(&buffer[..count]);
            if let Some(segment) = &mut segment
                && count > 0
            {
                segment.collect(&buffer[..count]);
            }
            if filled < buffer.len() {
                break;
            }
        }
        if let (Some(segment), Some(all)) = (segment, collecting.take()) {
            all.add(segment);
        }
        Ok(total)
    }

    /// Looks from time to time whether the search has been cancelled.
    fn pause(&self, seen: &mut u32) -> Result<(), SearchError> {
        const EVERY: u32 = 1_024;
        *seen += 1;
        if seen.is_multiple_of(EVERY) { self.cancel.check() } else { Ok(()) }
    }
}

fn segments(snapshot: &Snapshot) -> impl Iterator<Item = (u32, &SegmentReader)> {
    (0_u32..).zip(snapshot.searcher.segment_readers())
}

/// A cursor by score, and whether this shard comes after its own.
fn after(cursor: &Cursor, shard: u32) -> (Score, u64, bool) {
    #[expect(clippy::cast_possible_truncation, reason = "it was a score, which fits")]
    let score = match cursor.values.first() {
        Some(SortValue::F64(score)) => *score as Score,
        #[expect(clippy::cast_precision_loss, reason = "it was a score, which fits")]
        Some(SortValue::I64(score)) => *score as Score,
        _ => Score::MAX,
    };
    (score, cursor.seq, shard > cursor.shard)
}
