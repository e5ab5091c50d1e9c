//! The Tantivy indexes of a shard in its local folder. Everything here blocks.
//!
//! An owner feeds them with operations in the order of the log, and commits all that were fed since the last commit. One
//! writer a index, opened with the first operation and closed when it is idle. If a writer fails, all of them are
//! dropped, and what was not committed is fed again. It does no harm to feed what was committed already: each operation
//! replaces or removes the document of its id, so the last one decides.
//!
//! The first operation of an id (version 1) has nothing to replace, since the owner looked for a document before it logged
//! the operation. Tantivy looks for a replaced document in every segment, so it is spared that, unless the operation is fed
//! again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use plugin::shard::Moment;
use tantivy::directory::error::OpenDirectoryError;
use tantivy::directory::{Directory, META_LOCK};
use tantivy::indexer::{IndexWriterOptions, LogMergePolicy};
use tantivy::{FutureResult, IndexMeta, IndexReader, IndexWriter, ReloadPolicy, Searcher, TantivyError};
use tracing::debug;
use uuid::Uuid;

use super::directory::LocalDirectory;
use super::local::ShardFolder;
use super::manifest::{Content, Manifest};
use super::pack::NewFile;
use super::pending::LoggedEntry;
use crate::catalog::{Index, Indexes};
use crate::document::Document;

/// A writer that was not used for this long is closed, unless it merges.
const IDLE: Duration = Duration::from_secs(60);
/// How many writers are open at most.
const WRITERS: usize = 8;
/// Tantivy's smallest heap of a writer, in bytes.
const SMALLEST: usize = 15_000_000;
/// Tantivy's largest heap of a writer, in bytes.
const LARGEST: usize = 2_000_000_000;
/// A segment of which more than this part is deleted is merged.
const DELETED: f32 = 0.3;

/// The indexes of a shard.
pub(crate) struct LocalIndexes {
    folder: Arc<ShardFolder>,
    heap: usize,
    /// How many indexes the catalog has.
    expected: usize,
    indexes: BTreeMap<Uuid, LocalIndex>,
    /// The last entry of the log that was fed.
    fed: u64,
    /// Indexes that were deleted: operations on them are skipped.
    dropped: BTreeSet<Uuid>,
}

struct LocalIndex {
    index: Arc<Index>,
    tantivy: tantivy::Index,
    directory: LocalDirectory,
    reader: IndexReader,
    writer: Option<OpenWriter>,
    /// The state of the last refresh.
    committed: Arc<Committed>,
    /// How often `meta.json` had been written by then; `None` if that is not known.
    metas: Option<u64>,
}

struct OpenWriter {
    writer: IndexWriter,
    heap: usize,
    used: Moment,
    is_touched: bool,
}

/// One committed state of an index. As long as this exists, Tantivy does not remove its files.
pub(crate) struct Committed {
    meta: IndexMeta,
    /// The files by name.
    pub(crate) files: BTreeMap<String, NewFile>,
}

impl Committed {
    /// Tantivy's `meta.json`.
    pub(crate) fn meta(&self) -> Result<serde_json::Value, serde_json::Error> {
        serde_json::to_value(&self.meta)
    }
}

/// What can be searched, and what to store for it.
#[derive(Default)]
pub(crate) struct Refreshed {
    pub(crate) searchers: BTreeMap<Uuid, Searcher>,
    pub(crate) committed: BTreeMap<Uuid, Arc<Committed>>,
}

/// Why an index can't be written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LocalError {
    /// Drop the writers ([`LocalIndexes::reset`]), and try again later.
    #[error("a local index can't be written: {0}")]
    Tantivy(#[from] TantivyError),
    /// Open the shard again.
    #[error("the local index {index}: {why}")]
    Damaged { index: Uuid, why: String },
}

impl From<OpenDirectoryError> for LocalError {
    fn from(error: OpenDirectoryError) -> Self {
        Self::Tantivy(error.into())
    }
}

impl LocalIndexes {
    /// Opens what a manifest names; it must be in the folder already. Indexes that the catalog lacks are left out.
    pub(crate) fn open(
        folder: Arc<ShardFolder>,
        heap: usize,
        manifest: &Manifest,
        catalog: &Indexes,
    ) -> Result<Self, LocalError> {
        let mut local =
            Self { folder, heap, expected: 1, indexes: BTreeMap::new(), fed: 0, dropped: BTreeSet::new() };
        local.expect(catalog.all().count());
        local.follow(manifest, None, catalog)?;
        Ok(local)
    }

    /// How many indexes to share the heap of writers between.
    pub(crate) fn expect(&mut self, indexes: usize) {
        self.expected = indexes;
    }

    /// Opens what a manifest names and is different in the manifest that was followed before.
    pub(crate) fn follow(
        &mut self,
        manifest: &Manifest,
        before: Option<&Manifest>,
        catalog: &Indexes,
    ) -> Result<(), LocalError> {
        self.indexes.retain(|uuid, _| manifest.indexes.contains_key(uuid));
        for (uuid, stored) in &manifest.indexes {
            let Some(index) = catalog.index(*uuid) else {
                self.indexes.remove(uuid);
                continue;
            };
            let is_same = before.is_some_and(|before| before.indexes.get(uuid) == Some(stored));
            if is_same && self.indexes.contains_key(uuid) {
                continue;
            }
            // Opened anew, as the mapped files of an open one are found by their names, and another owner may have given
            // a name to another content.
            let files = stored.files.iter().map(|(name, file)| (name.clone(), file.content()));
            let opened = LocalIndex::open(&self.folder, index, files.collect())?;
            self.indexes.insert(*uuid, opened);
        }
        Ok(())
    }

    /// Applies entries of the log.
    pub(crate) fn feed(&mut self, entries: &[LoggedEntry]) -> Result<(), LocalError> {
        for entry in entries {
            let is_again = entry.number <= self.fed;
            self.fed = self.fed.max(entry.number);
            self.feed_entry(entry, is_again)?;
        }
        Ok(())
    }

    fn feed_entry(&mut self, entry: &LoggedEntry, is_again: bool) -> Result<(), LocalError> {
        for operation in &*entry.operations {
            let index = &operation.index;
            if self.dropped.contains(&index.uuid) {
                continue;
            }
            let writer = self.writer(index)?;
            if is_again || !operation.is_first() {
                writer.delete_term(index.schema.id_term(&operation.id));
            }
            if let Some(source) = &operation.source {
                writer.add_document(index.schema.convert(&Document {
                    id: &operation.id,
                    seq: operation.seq,
                    term: operation.term,
                    version: operation.version,
                    source: source.get(),
                }))?;
            }
        }
        Ok(())
    }

    /// Commits what was fed, and opens what has changed since the last refresh, by commits or merges.
    pub(crate) fn refresh(&mut self) -> Result<Refreshed, LocalError> {
        for index in self.indexes.values_mut() {
            index.commit()?;
        }
        for (uuid, index) in &mut self.indexes {
            if index.has_changed() {
                index.metas = Some(index.directory.metas());
                index.reader.reload()?;
                index.committed = Arc::new(committed(*uuid, &index.tantivy, &index.directory)?);
            }
        }
        Ok(self.refreshed())
    }

    /// The state of the last refresh.
    pub(crate) fn refreshed(&self) -> Refreshed {
        let searcher = |(uuid, index): (&Uuid, &LocalIndex)| (*uuid, index.reader.searcher());
        let committed = |(uuid, index): (&Uuid, &LocalIndex)| (*uuid, Arc::clone(&index.committed));
        Refreshed {
            searchers: self.indexes.iter().map(searcher).collect(),
            committed: self.indexes.iter().map(committed).collect(),
        }
    }

    /// Whether a merge has ended since the last refresh.
    pub(crate) fn has_merged(&self) -> bool {
        self.indexes.values().any(LocalIndex::has_changed)
    }

    /// Closes writers that were not used for a while. What they had is committed.
    pub(crate) fn close_idle(&mut self) {
        for index in self.indexes.values_mut() {
            let is_idle = index.writer.as_ref().is_some_and(|open| {
                !open.is_touched
                    && open.used.elapsed() >= IDLE
                    && index.directory.last_write().elapsed() >= IDLE
            });
            if is_idle {
                index.writer = None;
            }
        }
    }

    /// Drops all writers and opens the indexes as of their last commits. All that was fed since is lost here.
    pub(crate) fn reset(&mut self) -> Result<(), LocalError> {
        let written = self.indexes.iter().filter(|(_, index)| index.writer.is_some());
        let written: Vec<Uuid> = written.map(|(uuid, _)| *uuid).collect();
        for uuid in written {
            let Some(mut old) = self.indexes.remove(&uuid) else { continue };
            old.directory.close();
            old.writer = None;
            let files = old.directory.files();
            let mut opened = LocalIndex::open(&self.folder, &old.index, files)?;
            // It may have committed what others have not.
            (opened.committed, opened.metas) = (old.committed, None);
            self.indexes.insert(uuid, opened);
        }
        Ok(())
    }

    /// Removes indexes that the catalog lacks. Returns them.
    pub(crate) fn drop_others(&mut self, catalog: &Indexes) -> Vec<Uuid> {
        let gone: Vec<_> =
            self.indexes.keys().filter(|uuid| catalog.index(**uuid).is_none()).copied().collect();
        for uuid in &gone {
            self.dropped.insert(*uuid);
            if let Some(mut index) = self.indexes.remove(uuid) {
                index.directory.close();
                index.writer = None;
                if let Err(error) = std::fs::remove_dir_all(index.directory.path()) {
                    debug!(%error, index = %uuid, "a deleted index is removed from the disk later");
                }
            }
        }
        gone
    }

    /// Starts to merge all segments of an index into one. `None` if they are one, and no document in it is deleted.
    pub(crate) fn merge(
        &mut self,
        index: &Arc<Index>,
    ) -> Result<Option<FutureResult<Option<tantivy::SegmentMeta>>>, LocalError> {
        let Some(local) = self.indexes.get(&index.uuid) else { return Ok(None) };
        let segments = local.tantivy.searchable_segment_metas()?;
        let is_one = match &segments[..] {
            [] => true,
            [one] => !one.has_deletes(),
            _ => false,
        };
        if is_one {
            return Ok(None);
        }
        let ids: Vec<_> = segments.iter().map(tantivy::SegmentMeta::id).collect();
        self.open_writer(index)?;
        let writer = self.indexes.get_mut(&index.uuid).and_then(|local| local.writer.as_mut());
        Ok(writer.map(|open| {
            open.used = Moment::now();
            open.writer.merge(&ids)
        }))
    }

    /// The bytes of all local files.
    pub(crate) fn bytes(&self) -> u64 {
        self.indexes.values().map(|index| index.directory.bytes()).sum()
    }

    /// Whether a write has failed since the last call because the disk is full.
    pub(crate) fn was_full(&self) -> bool {
        self.indexes.values().filter(|index| index.directory.was_full()).count() > 0
    }

    #[cfg(test)]
    pub(crate) fn folder(&self) -> &ShardFolder {
        &self.folder
    }

    /// How many writers are open.
    #[cfg(test)]
    pub(crate) fn writers(&self) -> usize {
        self.indexes.values().filter(|index| index.writer.is_some()).count()
    }

    /// The number of documents and of segments, as of the last refresh.
    pub(crate) fn counts(&self) -> (u64, usize) {
        let searchers = self.indexes.values().map(|index| index.reader.searcher());
        searchers.fold((0, 0), |(documents, segments), searcher| {
            (documents + searcher.num_docs(), segments + searcher.segment_readers().len())
        })
    }

    /// Closes everything, without waiting for merges.
    pub(crate) fn close(&mut self) {
        for index in self.indexes.values_mut() {
            index.directory.close();
            index.writer = None;
        }
    }

    fn writer(&mut self, index: &Arc<Index>) -> Result<&IndexWriter, LocalError> {
        self.open_writer(index)?;
        let open = self.indexes.get_mut(&index.uuid).and_then(|local| local.writer.as_mut());
        let open = open.expect("it was just opened");
        (open.used, open.is_touched) = (Moment::now(), true);
        Ok(&open.writer)
    }

    fn open_writer(&mut self, index: &Arc<Index>) -> Result<(), LocalError> {
        let uuid = index.uuid;
        if self.indexes.get(&uuid).is_some_and(|local| local.writer.is_some()) {
            return Ok(());
        }
        let most = WRITERS.min(self.heap / SMALLEST).max(1);
        let heap = (self.heap / self.expected.clamp(1, most)).clamp(SMALLEST, LARGEST);
        self.make_room(heap, most)?;
        if !self.indexes.contains_key(&uuid) {
            let created = LocalIndex::create(&self.folder, index)?;
            self.indexes.insert(uuid, created);
        }
        if let Some(local) = self.indexes.get_mut(&uuid) {
            local.open_writer(heap)?;
        }
        Ok(())
    }

    /// Closes the writers that were not used for longest, until there is room for another one.
    fn make_room(&mut self, heap: usize, most: usize) -> Result<(), LocalError> {
        loop {
            let open = self.indexes.values().filter_map(|local| local.writer.as_ref());
            let (count, used) = open.fold((0, 0), |(count, used), open| (count + 1, used + open.heap));
            if count == 0 || count < most && used + heap <= self.heap {
                return Ok(());
            }
            let age = |local: &&mut LocalIndex| local.writer.as_ref().map(|open| open.used.elapsed());
            let open = self.indexes.values_mut().filter(|local| local.writer.is_some());
            let Some(oldest) = open.max_by_key(age) else { return Ok(()) };
            // Its state may be ahead of the others until the next refresh, and is not used before.
            oldest.commit()?;
            oldest.writer = None;
        }
    }
}

impl Drop for LocalIndexes {
    fn drop(&mut self) {
        self.close();
    }
}

impl LocalIndex {
    /// Opens an index that is in its folder.
    fn open(
        folder: &ShardFolder,
        index: &Arc<Index>,
        files: BTreeMap<String, Content>,
    ) -> Result<Self, LocalError> {
        let directory = folder.directory(index.uuid, files)?;
        let tantivy = index.schema.open(directory.clone())?;
        if tantivy.schema() != index.schema.schema {
            let why = "it was made with another schema, by another version".to_owned();
            return Err(LocalError::Damaged { index: index.uuid, why });
        }
        Self::with(index, tantivy, directory)
    }

    /// Makes an empty index in an empty folder.
    fn create(folder: &ShardFolder, index: &Arc<Index>) -> Result<Self, LocalError> {
        let path = folder.of_index(index.uuid);
        empty(&path).map_err(TantivyError::from)?;
        let directory = folder.directory(index.uuid, BTreeMap::new())?;
        let tantivy = index.schema.create(directory.clone())?;
        Self::with(index, tantivy, directory)
    }

    fn with(
        index: &Arc<Index>,
        tantivy: tantivy::Index,
        directory: LocalDirectory,
    ) -> Result<Self, LocalError> {
        let metas = Some(directory.metas());
        let reader = tantivy.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        let committed = Arc::new(committed(index.uuid, &tantivy, &directory)?);
        Ok(Self { index: Arc::clone(index), tantivy, directory, reader, writer: None, committed, metas })
    }

    fn open_writer(&mut self, heap: usize) -> Result<(), LocalError> {
        let options = IndexWriterOptions::builder()
            .num_worker_threads(1)
            .num_merge_threads(1)
            .memory_budget_per_thread(heap)
            .build();
        let writer: IndexWriter = self.tantivy.writer_with_options(options)?;
        // Tantivy gives its first operation the number of the last commit. A merge of what was committed takes a delete with that
        // number for a part of the commit in some segments, and not in others, whose documents it then never deletes.
        writer.run([])?;
        let mut policy = LogMergePolicy::default();
        policy.set_del_docs_ratio_before_merge(DELETED);
        writer.set_merge_policy(Box::new(policy));
        self.writer = Some(OpenWriter { writer, heap, used: Moment::now(), is_touched: false });
        Ok(())
    }

    fn commit(&mut self) -> Result<(), LocalError> {
        if let Some(open) = self.writer.as_mut().filter(|open| open.is_touched) {
            open.writer.commit()?;
            open.is_touched = false;
        }
        Ok(())
    }

    fn has_changed(&self) -> bool {
        self.metas != Some(self.directory.metas())
    }
}

/// The committed state of an index. Only merges change it meanwhile, which change no document.
fn committed(
    uuid: Uuid,
    tantivy: &tantivy::Index,
    directory: &LocalDirectory,
) -> Result<Committed, LocalError> {
    let meta = {
        // No file is removed between reading the state and holding it.
        let _lock = directory.acquire_lock(&META_LOCK).map_err(|error| {
            TantivyError::LockFailure(error, Some("while its files are listed".to_owned()))
        })?;
        tantivy.load_metas()?
    };
    let mut files = BTreeMap::new();
    for path in meta.list_segment_files() {
        let name = path.to_string_lossy().into_owned();
        let path = directory.path().join(&path);
        match directory.content(&name) {
            Some(content) => {
                files.insert(name, NewFile { path, content });
            }
            // The list has the names of files that a segment may have.
            None if !path.exists() => {}
            None => {
                return Err(LocalError::Damaged { index: uuid, why: format!("file `{name}` is not whole") });
            }
        }
    }
    Ok(Committed { meta, files })
}

/// Makes a folder that is empty.
fn empty(path: &PathBuf) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    std::fs::create_dir_all(path)
}

#[cfg(test)]
mod tests;
