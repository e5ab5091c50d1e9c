//! The first hits by sort keys.
//!
//! Values are compared as each segment has them, where text is a number; what is left of a segment is compared as values.

use std::cmp::Ordering;

use tantivy::columnar::Column;
use tantivy::{DocAddress, DocId, Score, SegmentOrdinal, TantivyError};

use super::sort::{Cursor, Raw, SegmentKeys, SortKey};

/// A hit with its place in the order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SortedDoc {
    pub(super) cursor: Cursor,
    pub(super) score: Score,
    pub(super) address: DocAddress,
}

struct Entry {
    raws: Vec<Option<Raw>>,
    seq: u64,
    doc: DocId,
    score: Score,
}

/// The first hits of a segment.
pub(super) struct SegmentFirst<'a> {
    limit: usize,
    keys: SegmentKeys<'a>,
    seqs: Column<u64>,
    after: Option<(Vec<Option<Raw>>, u64, bool)>,
    /// At most twice as many as wanted; then the later half is dropped.
    entries: Vec<Entry>,
    /// The first value of the last entry that may stay.
    last: Option<Option<Raw>>,
}

impl<'a> SegmentFirst<'a> {
    pub(super) fn new(
        limit: usize,
        keys: SegmentKeys<'a>,
        seqs: Column<u64>,
        after: Option<&Cursor>,
        shard: u32,
    ) -> Result<Self, TantivyError> {
        let after = match after {
            Some(cursor) => Some((keys.cursor(cursor)?, cursor.seq, shard > cursor.shard)),
            None => None,
        };
        Ok(Self { limit, keys, seqs, after, entries: Vec::new(), last: None })
    }

    pub(super) fn offer(&mut self, doc: DocId, score: Score) {
        let first = self.keys.raw(0, doc, score);
        if self.last.is_some_and(|last| self.keys.order(0, first, last).is_gt()) {
            return;
        }
        let count = self.keys.count();
        let raws: Vec<_> =
            std::iter::once(first).chain((1..count).map(|key| self.keys.raw(key, doc, score))).collect();
        let entry = Entry { raws, seq: self.seqs.first(doc).unwrap_or(u64::MAX), doc, score };
        if !self.is_after(&entry) {
            return;
        }
        self.entries.push(entry);
        if self.entries.len() >= 2 * self.limit.max(1) {
            self.cut();
        }
    }

    fn is_after(&self, entry: &Entry) -> bool {
        self.after.as_ref().is_none_or(|(raws, seq, is_later_shard)| {
            match order(&self.keys, &entry.raws, raws).then(entry.seq.cmp(seq)) {
                Ordering::Less => false,
                Ordering::Equal => *is_later_shard,
                Ordering::Greater => true,
            }
        })
    }

    fn cut(&mut self) {
        if self.entries.len() <= self.limit {
            return;
        }
        let keys = &self.keys;
        let by_place =
            |left: &Entry, right: &Entry| order(keys, &left.raws, &right.raws).then(left.seq.cmp(&right.seq));
        if let Some(last) = self.limit.checked_sub(1) {
            let (_, entry, _) = self.entries.select_nth_unstable_by(last, by_place);
            self.last = entry.raws.first().copied();
        }
        self.entries.truncate(self.limit);
    }

    pub(super) fn into_hits(
        mut self,
        ordinal: SegmentOrdinal,
        shard: u32,
    ) -> Result<Vec<SortedDoc>, TantivyError> {
        self.cut();
        let hit = |entry: Entry| {
            let values = self.keys.values(&entry.raws)?;
            let cursor = Cursor { values, seq: entry.seq, shard };
            Ok(SortedDoc { cursor, score: entry.score, address: DocAddress::new(ordinal, entry.doc) })
        };
        self.entries.into_iter().map(hit).collect()
    }
}

fn order(keys: &SegmentKeys<'_>, left: &[Option<Raw>], right: &[Option<Raw>]) -> Ordering {
    let orders =
        left.iter().zip(right).enumerate().map(|(key, (left, right))| keys.order(key, *left, *right));
    orders.into_iter().find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

/// Keeps the first hits of several segments.
pub(super) fn first(mut hits: Vec<SortedDoc>, keys: &[SortKey], limit: usize) -> Vec<SortedDoc> {
    hits.sort_by(|left, right| left.cursor.order(&right.cursor, keys));
    hits.truncate(limit);
    hits
}
