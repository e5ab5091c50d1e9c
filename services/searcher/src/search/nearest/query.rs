//! A query for documents that were found already, with their scores.

use std::collections::BTreeMap;
use std::sync::Arc;

use tantivy::index::SegmentId;
use tantivy::query::{EnableScoring, Explanation, Query, Scorer, Weight};
use tantivy::{DocId, DocSet, Score, SegmentReader, TERMINATED, TantivyError};

use super::by_segment;
use crate::search::request::Knn;
use crate::search::top::ScoredDoc;
use crate::shard::Snapshot;

/// Matches the documents that are nearest to a vector.
#[derive(Debug, Clone)]
pub(in crate::search) struct Nearest(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// How the score came about.
    what: String,
    segments: BTreeMap<SegmentId, Vec<(DocId, Score)>>,
}

impl Nearest {
    pub(in crate::search) fn new(snapshot: &Snapshot, knn: &Knn, docs: &[ScoredDoc]) -> Self {
        let similarity = knn.similarity(&snapshot.index.schema).map_or("", |similarity| similarity.name());
        let boost = if knn.boost == 1.0 { String::new() } else { format!(", with a boost of {}", knn.boost) };
        let what =
            format!("one of the {} nearest by `{}`, compared by {similarity}{boost}", knn.k, knn.field);
        Self(Arc::new(Inner { what, segments: by_segment(snapshot, docs, knn.boost) }))
    }
}

impl Query for Nearest {
    fn weight(&self, _: EnableScoring<'_>) -> Result<Box<dyn Weight>, TantivyError> {
        Ok(Box::new(self.clone()))
    }
}

impl Weight for Nearest {
    fn scorer(&self, reader: &SegmentReader, boost: Score) -> Result<Box<dyn Scorer>, TantivyError> {
        Ok(Box::new(NearestScorer { docs: Arc::clone(&self.0), segment: reader.segment_id(), at: 0, boost }))
    }

    fn explain(&self, reader: &SegmentReader, doc: DocId) -> Result<Explanation, TantivyError> {
        let mut scorer = self.scorer(reader, 1.0)?;
        if scorer.doc() > doc || scorer.seek(doc) != doc {
            return Err(TantivyError::InvalidArgument(format!("document {doc} does not match")));
        }
        Ok(Explanation::new_with_string(self.0.what.clone(), scorer.score()))
    }
}

struct NearestScorer {
    docs: Arc<Inner>,
    segment: SegmentId,
    at: usize,
    boost: Score,
}

impl NearestScorer {
    fn docs(&self) -> &[(DocId, Score)] {
        self.docs.segments.get(&self.segment).map_or(&[], Vec::as_slice)
    }
}

impl DocSet for NearestScorer {
    fn advance(&mut self) -> DocId {
        self.at = (self.at + 1).min(self.docs().len());
        self.doc()
    }

    fn doc(&self) -> DocId {
        self.docs().get(self.at).map_or(TERMINATED, |(doc, _)| *doc)
    }

    fn size_hint(&self) -> u32 {
        u32::try_from(self.docs().len()).unwrap_or(u32::MAX)
    }
}

impl Scorer for NearestScorer {
    fn score(&mut self) -> Score {
        self.docs().get(self.at).map_or(0.0, |(_, score)| score * self.boost)
    }
}
