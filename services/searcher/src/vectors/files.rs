//! The files of vectors that searches have opened. Mapping one anew for each search would take as long as comparing a third
//! of its vectors.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use tantivy::index::SegmentId;
use tantivy::{Searcher, SegmentReader, TantivyError};

use super::VectorFile;

/// The opened files of a shard, as long as searches see their segments.
#[derive(Default)]
pub(crate) struct VectorFiles(Mutex<BTreeMap<SegmentId, Option<Arc<VectorFile>>>>);

impl VectorFiles {
    /// The file of a segment, if there is one.
    pub(crate) fn of(&self, reader: &SegmentReader) -> Result<Option<Arc<VectorFile>>, TantivyError> {
        let known = self.files().get(&reader.segment_id()).cloned();
        if let Some(file) = known {
            return Ok(file);
        }
        let file = VectorFile::open(reader)?.map(Arc::new);
        self.files().insert(reader.segment_id(), file.clone());
        Ok(file)
    }

    /// Closes the files of all other segments.
    pub(crate) fn retain<'a>(&self, searchers: impl Iterator<Item = &'a Searcher>) {
        let readers = searchers.flat_map(Searcher::segment_readers);
        let seen: BTreeSet<SegmentId> = readers.map(SegmentReader::segment_id).collect();
        self.files().retain(|segment, _| seen.contains(segment));
    }

    fn files(&self) -> std::sync::MutexGuard<'_, BTreeMap<SegmentId, Option<Arc<VectorFile>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.files().len()
    }
}
