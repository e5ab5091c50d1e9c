//! The second round of a search at a shard: its hits, their number, and its aggregations.
//!
//! Hits by score are found by [`top`](super::top), which skips most postings of frequent terms; their number is counted apart,
//! which costs next to nothing for a term. Queries that can't be pruned, sorts by fields and aggregations look at every match,
//! once for all of them.

use std::borrow::Cow;

use tantivy::columnar::Column;
use tantivy::query::{AllQuery, BooleanQuery, EnableScoring, Occur, Query, Weight};
use tantivy::{COLLECT_BLOCK_BUFFER_LEN, DocId, DocSet, Score, SegmentReader, TERMINATED};
use types::ShardId;

use super::aggregations::{self, Collecting};
use super::hits::HitReader;
use super::order::{self, SegmentFirst, SortedDoc};
use super::sort::{Cursor, SegmentKeys, SortField, SortKey, SortValue};
use super::top::{SegmentTop, Shape, Top, summands};
use super::{Cancel, Found, Plan, SearchError, SearchRequest};
use crate::query::{self, Expansions, QueryError};
use crate::schema::IndexSchema;
use crate::shard::Snapshot;

/// The most bytes of documents that a shard returns.
const MAX_BYTES: usize = 64 << 20;

/// The second round at a shard. Blocking.
pub(crate) fn execute(
    snapshot: &Snapshot,
    request: &SearchRequest,
    plan: &Plan,
    shard: ShardId,
    cancel: &Cancel,
) -> Result<Found, SearchError> {
    let schema = &snapshot.index.schema;
    plan.statistics.check()?;
    if plan.expansions.len() != request.queries().count() {
        return Err(SearchError::Engine("the plan is for another request".to_owned()));
    }
    let scored = query::compile(&request.ast, schema, &plan.expansions[0])?;
    let (filters, agg_filters) = filters(request, schema, &plan.expansions)?;
    let collecting = aggregations::collect(request, schema, &snapshot.searcher, agg_filters)?;
    let whole = with_filters(scored.query.as_ref(), filters);
    let scoring = EnableScoring::enabled_from_statistics_provider(&plan.statistics, &snapshot.searcher);
    let run = Run { snapshot, request, query: whole.as_ref(), scoring, shard, cancel };
    let matched = if request.is_by_score() { run.by_score(collecting)? } else { run.by_keys(collecting)? };
    let skipped = if plan.shards == 1 { request.from.min(matched.hits.len()) } else { 0 };
    let mut reader = HitReader::new(snapshot, request, scored.query.as_ref(), whole.as_ref(), scoring)?;
    let mut hits = Vec::with_capacity(matched.hits.len() - skipped);
    let mut bytes = 0_usize;
    for hit in matched.hits.into_iter().skip(skipped) {
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
    let of_aggregations = filters.split_off(request.filters.len());
    Ok((filters, of_aggregations))
}

fn with_filters(query: &dyn Query, filters: Queries) -> Box<dyn Query> {
    if filters.is_empty() {
        return query.box_clone();
    }
    let all = std::iter::once(query.box_clone()).chain(filters);
    Box::new(BooleanQuery::new(all.map(|query| (Occur::Must, query)).collect()))
}

/// What matched.
struct Matched {
    total: u64,
    best: Option<Score>,
    hits: Vec<SortedDoc>,
    collecting: Option<Collecting>,
}

struct Run<'a> {
    snapshot: &'a Snapshot,
    request: &'a SearchRequest,
    query: &'a dyn Query,
    scoring: EnableScoring<'a>,
    shard: ShardId,
    cancel: &'a Cancel,
}

impl Run<'_> {
    fn by_score(&self, mut collecting: Option<Collecting>) -> Result<Matched, SearchError> {
        let limit = self.request.window();
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

    fn by_keys(&self, mut collecting: Option<Collecting>) -> Result<Matched, SearchError> {
        let keys: Cow<'_, [SortKey]> = Cow::Borrowed(&self.request.sort);
        let has_score = keys.iter().any(|key| key.field == SortField::Score);
        let scoring = match has_score {
            true => self.scoring,
            false => EnableScoring::disabled_from_searcher(&self.snapshot.searcher),
        };
        let (limit, shard) = (self.request.window(), self.request.position(self.shard));
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
