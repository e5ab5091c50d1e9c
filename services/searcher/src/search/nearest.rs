//! The documents whose vectors are nearest to those of a search, exactly: every vector is looked at that the filters leave.
//!
//! They are found in the first round, so that the second one knows which of them are nearest over all shards: only those match,
//! and are sorted, counted and aggregated. Documents travel by their `_seq`, which no other version of a document has, as a
//! shard may have been refreshed between the rounds.

mod query;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use serde::{Deserialize, Serialize};
use tantivy::columnar::Column;
use tantivy::index::SegmentId;
use tantivy::query::{BooleanQuery, EnableScoring, Query, Weight};
use tantivy::schema::IndexRecordOption;
use tantivy::{COLLECT_BLOCK_BUFFER_LEN, DocAddress, DocId, DocSet, Score, SegmentReader, TERMINATED, Term};
use types::ShardId;

pub(super) use self::query::Nearest;
use super::request::Knn;
use super::top::ScoredDoc;
use super::{Cancel, Prepared, SearchError, SearchRequest};
use crate::query::{Expansions, compile_filter};
use crate::schema::IndexSchema;
use crate::shard::Snapshot;
use crate::vectors::{Target, VectorField};

/// How many vectors are looked at between two looks at the time.
const AT_A_TIME: u32 = 2_048;

/// A document that is near to a vector.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Neighbor {
    /// Without the boost.
    score: Score,
    seq: u64,
    /// The [position](SearchRequest::position) of its shard.
    shard: u32,
    /// Where it was: the ordinal of the segment, and its number there.
    at: (u32, DocId),
}

/// The documents that are nearest to a vector, the nearest one first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Neighbors {
    /// How many are wanted.
    k: usize,
    docs: Vec<Neighbor>,
}

impl Neighbors {
    /// Adds those of another shard, for each vector.
    pub(super) fn add_all(all: &mut Vec<Self>, others: Vec<Self>) {
        for (at, other) in others.into_iter().enumerate() {
            match all.get_mut(at) {
                Some(one) => one.add(other.docs),
                None => all.push(other),
            }
        }
    }

    fn add(&mut self, docs: Vec<Neighbor>) {
        self.docs.extend(docs);
        self.docs.sort_by(|left, right| {
            right.score.total_cmp(&left.score).then((left.seq, left.shard).cmp(&(right.seq, right.shard)))
        });
        self.docs.truncate(self.k);
    }
}

impl Prepared {
    /// Adds the documents of a shard that are nearest to the vectors of a search. Blocking.
    pub(crate) fn with_nearest(
        self,
        snapshot: &Snapshot,
        request: &SearchRequest,
        shard: ShardId,
        cancel: &Cancel,
    ) -> Result<Self, SearchError> {
        if request.knn.is_empty() {
            return Ok(self);
        }
        let filters = compile(request, &snapshot.index.schema, &self.expansions)?;
        let position = request.position(shard);
        let nearest = request.knn.iter().zip(filters).map(|(knn, filters)| {
            let found = nearest(snapshot, knn, filters, cancel)?;
            let docs = found.iter().map(|found| neighbor(found, position)).collect();
            Ok(Neighbors { k: knn.k, docs })
        });
        Ok(Self { nearest: nearest.collect::<Result<_, SearchError>>()?, ..self })
    }
}

/// The filters for each vector.
fn compile(
    request: &SearchRequest,
    schema: &IndexSchema,
    expansions: &[Expansions],
) -> Result<Vec<Vec<Box<dyn Query>>>, SearchError> {
    let mut rest = request.queries().zip(expansions).skip(1);
    let mut take = |count: usize| -> Result<Vec<Box<dyn Query>>, SearchError> {
        let some = rest.by_ref().take(count);
        let compiled = some.map(|(ast, expansions)| compile_filter(ast, schema, expansions));
        Ok(compiled.collect::<Result<_, _>>()?)
    };
    let of_all = take(request.filters.len())?;
    take(request.aggs.filters().count())?;
    let of_vector = |knn: &Knn| {
        let own = take(knn.filters().count())?;
        Ok(of_all.iter().map(|filter| filter.box_clone()).chain(own).collect())
    };
    request.knn.iter().map(of_vector).collect()
}

fn neighbor(found: &ScoredDoc, shard: u32) -> Neighbor {
    let ScoredDoc { score, seq, address } = *found;
    Neighbor { score, seq, shard, at: (address.segment_ord, address.doc_id) }
}

/// The nearest documents of a shard, the nearest one first.
fn nearest(
    snapshot: &Snapshot,
    knn: &Knn,
    filters: Vec<Box<dyn Query>>,
    cancel: &Cancel,
) -> Result<Vec<ScoredDoc>, SearchError> {
    let schema = &snapshot.index.schema;
    let similarity = knn.similarity(schema)?;
    let least = knn.min_similarity.map_or(Score::MIN, |least| similarity.score(least));
    let scan = Scan { target: Target::new(&knn.vector, similarity), least, cancel };
    let weight = match filters.is_empty() {
        true => None,
        false => {
            let unscored = EnableScoring::disabled_from_searcher(&snapshot.searcher);
            Some(BooleanQuery::intersection(filters).weight(unscored)?)
        }
    };
    let mut top = Top { k: knn.k, heap: BinaryHeap::new() };
    for (ordinal, reader) in (0..).zip(snapshot.searcher.segment_readers()) {
        cancel.check()?;
        let Some(file) = snapshot.vectors.of(reader)? else { continue };
        let Some(field) = file.field(&knn.field)? else { continue };
        if field.dims != knn.vector.len() {
            let why = format!("the vectors of `{}` have {} numbers in a segment", knn.field, field.dims);
            return Err(SearchError::Engine(why));
        }
        let seqs = reader.fast_fields().u64(schema.schema.get_field_name(schema.seq))?;
        let mut offer = |doc: DocId, score: Score| {
            if top.is_good(score) {
                let seq = seqs.first(doc).unwrap_or(u64::MAX);
                top.offer(ScoredDoc { score, seq, address: DocAddress::new(ordinal, doc) });
            }
        };
        match &weight {
            None => scan.all(reader, field, &mut offer)?,
            Some(weight) => scan.some(weight.as_ref(), reader, field, &mut offer)?,
        }
    }
    Ok(top.into_docs())
}

/// Compares vectors with one.
struct Scan<'a> {
    target: Target<'a>,
    /// The lowest score that counts.
    least: Score,
    cancel: &'a Cancel,
}

impl Scan<'_> {
    /// All vectors of a segment.
    fn all(
        &self,
        reader: &SegmentReader,
        field: VectorField<'_>,
        offer: &mut impl FnMut(DocId, Score),
    ) -> Result<(), SearchError> {
        let alive = reader.alive_bitset();
        let mut seen = 0_u32;
        for (doc, vector) in field.all() {
            seen += 1;
            if seen.is_multiple_of(AT_A_TIME) {
                self.cancel.check()?;
            }
            if alive.is_none_or(|alive| alive.is_alive(doc)) {
                self.one(doc, vector, offer);
            }
        }
        Ok(())
    }

    /// The vectors of documents that match.
    fn some(
        &self,
        weight: &dyn Weight,
        reader: &SegmentReader,
        field: VectorField<'_>,
        offer: &mut impl FnMut(DocId, Score),
    ) -> Result<(), SearchError> {
        let (alive, mut vectors) = (reader.alive_bitset(), field.cursor());
        let mut scorer = weight.scorer(reader, 1.0)?;
        let mut buffer = [0; COLLECT_BLOCK_BUFFER_LEN];
        loop {
            self.cancel.check()?;
            let filled = scorer.fill_buffer(&mut buffer);
            for doc in &buffer[..filled] {
                if alive.is_none_or(|alive| alive.is_alive(*doc))
                    && let Some(vector) = vectors.vector(*doc)
                {
                    self.one(*doc, vector, offer);
                }
            }
            if filled < buffer.len() {
                return Ok(());
            }
        }
    }

    fn one(&self, doc: DocId, vector: &[u8], offer: &mut impl FnMut(DocId, Score)) {
        let score = self.target.score(vector);
        if score >= self.least {
            offer(doc, score);
        }
    }
}

/// The nearest documents so far.
struct Top {
    k: usize,
    heap: BinaryHeap<Reverse<ScoredDoc>>,
}

impl Top {
    fn is_good(&self, score: Score) -> bool {
        self.heap.len() < self.k || self.heap.peek().is_none_or(|Reverse(worst)| score >= worst.score)
    }

    fn offer(&mut self, doc: ScoredDoc) {
        self.heap.push(Reverse(doc));
        if self.heap.len() > self.k {
            self.heap.pop();
        }
    }

    fn into_docs(self) -> Vec<ScoredDoc> {
        self.heap.into_sorted_vec().into_iter().map(|Reverse(doc)| doc).collect()
    }
}

/// Where some neighbors are now in this shard. Those that were deleted since are left out.
pub(super) fn locate(
    snapshot: &Snapshot,
    neighbors: &Neighbors,
    position: u32,
    cancel: &Cancel,
) -> Result<Vec<ScoredDoc>, SearchError> {
    let schema = &snapshot.index.schema;
    let readers = snapshot.searcher.segment_readers();
    let seqs =
        readers.iter().map(|reader| reader.fast_fields().u64(schema.schema.get_field_name(schema.seq)));
    let seqs: Vec<Column<u64>> = seqs.collect::<Result<_, _>>()?;
    let mut located = Vec::new();
    for neighbor in neighbors.docs.iter().filter(|neighbor| neighbor.shard == position) {
        cancel.check()?;
        let Neighbor { score, seq, at: (ordinal, doc), .. } = *neighbor;
        let is_at = |ordinal: u32, doc: DocId| {
            let reader = readers.get(ordinal as usize).filter(|reader| doc < reader.max_doc());
            reader.is_some_and(|reader| reader.alive_bitset().is_none_or(|alive| alive.is_alive(doc)))
                && seqs[ordinal as usize].first(doc) == Some(seq)
        };
        let address = match is_at(ordinal, doc) {
            true => Some(DocAddress::new(ordinal, doc)),
            false => find(snapshot, seq)?,
        };
        located.extend(address.map(|address| ScoredDoc { score, seq, address }));
    }
    Ok(located)
}

/// The document that an operation wrote.
fn find(snapshot: &Snapshot, seq: u64) -> Result<Option<DocAddress>, SearchError> {
    let schema = &snapshot.index.schema;
    let term = Term::from_field_u64(schema.seq, seq);
    for (ordinal, reader) in (0..).zip(snapshot.searcher.segment_readers()) {
        let inverted = reader.inverted_index(schema.seq)?;
        let read = inverted.read_postings(&term, IndexRecordOption::Basic);
        let Some(mut postings) = read.map_err(|error| SearchError::Engine(error.to_string()))? else {
            continue;
        };
        let mut doc = postings.doc();
        while doc != TERMINATED {
            if reader.alive_bitset().is_none_or(|alive| alive.is_alive(doc)) {
                return Ok(Some(DocAddress::new(ordinal, doc)));
            }
            doc = postings.advance();
        }
    }
    Ok(None)
}

/// Documents by segment, in their order there.
fn by_segment(
    snapshot: &Snapshot,
    docs: &[ScoredDoc],
    boost: Score,
) -> BTreeMap<SegmentId, Vec<(DocId, Score)>> {
    let readers = snapshot.searcher.segment_readers();
    let mut segments: BTreeMap<SegmentId, Vec<(DocId, Score)>> = BTreeMap::new();
    for ScoredDoc { score, address, .. } in docs {
        if let Some(reader) = readers.get(address.segment_ord as usize) {
            let score = (score * boost).min(Score::MAX);
            segments.entry(reader.segment_id()).or_default().push((address.doc_id, score));
        }
    }
    for docs in segments.values_mut() {
        docs.sort_unstable_by_key(|(doc, _)| *doc);
    }
    segments
}
