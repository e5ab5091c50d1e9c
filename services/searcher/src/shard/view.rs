//! What of a shard searches see: a searcher for each index, replaced with each refresh.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plugin::shard::Moment;
use tantivy::directory::RamDirectory;
use tantivy::{ReloadPolicy, Searcher};
use tokio::sync::watch;
use uuid::Uuid;

use crate::catalog::Index;
use crate::vectors::VectorFiles;

/// The searchers of all indexes, as of one refresh.
#[derive(Default)]
struct View {
    searchers: BTreeMap<Uuid, Searcher>,
    vectors: Arc<VectorFiles>,
}

/// The present view, and how current it is. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Views {
    now: watch::Sender<Option<Arc<View>>>,
    /// A time at which the view had everything that was acknowledged; kept up to date at a replica.
    current: watch::Sender<Option<Moment>>,
    /// Searchers of indexes without documents here.
    empty: Arc<Mutex<BTreeMap<Uuid, Searcher>>>,
}

impl Views {
    /// Nothing can be searched yet.
    pub(crate) fn new() -> Self {
        Self { now: watch::Sender::new(None), current: watch::Sender::new(None), empty: Arc::default() }
    }

    /// Publishes the first view after an opening, which may have replaced files.
    pub(crate) fn publish_opened(&self, searchers: BTreeMap<Uuid, Searcher>) {
        self.replace(View { searchers, vectors: Arc::default() });
    }

    /// Publishes a refresh.
    pub(crate) fn publish(&self, searchers: BTreeMap<Uuid, Searcher>) {
        let vectors = self.vectors();
        vectors.retain(searchers.values());
        self.replace(View { searchers, vectors });
    }

    fn replace(&self, view: View) {
        let mut empty = self.empty.lock().unwrap_or_else(PoisonError::into_inner);
        empty.retain(|uuid, _| !view.searchers.contains_key(uuid));
        drop(empty);
        self.now.send_replace(Some(Arc::new(view)));
    }

    /// The files of vectors that searches of the present view have opened.
    pub(crate) fn vectors(&self) -> Arc<VectorFiles> {
        self.now.borrow().as_ref().map(|view| Arc::clone(&view.vectors)).unwrap_or_default()
    }

    /// Waits until something is published, and it is known how far behind that may be.
    pub(crate) async fn opened(&self) {
        // The senders are in `self`.
        let _ = self.now.subscribe().wait_for(Option::is_some).await;
        let _ = self.current.subscribe().wait_for(Option::is_some).await;
    }

    /// The searcher of an index, if it has documents here.
    pub(crate) fn searcher(&self, index: Uuid) -> Option<Searcher> {
        self.now.borrow().as_ref().and_then(|view| view.searchers.get(&index).cloned())
    }

    /// The searcher of an index, which may be empty.
    pub(crate) fn searcher_or_empty(&self, index: &Index) -> tantivy::Result<Searcher> {
        if let Some(searcher) = self.searcher(index.uuid) {
            return Ok(searcher);
        }
        let mut empty = self.empty.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(searcher) = empty.get(&index.uuid) {
            return Ok(searcher.clone());
        }
        let tantivy = index.schema.create(RamDirectory::create())?;
        let reader = tantivy.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        // Indexes come and go; those that are used are made again.
        if empty.len() >= 256 {
            empty.clear();
        }
        let searcher = reader.searcher();
        empty.insert(index.uuid, searcher.clone());
        Ok(searcher)
    }

    /// Notes a time at which what is published had everything.
    pub(crate) fn note_current(&self, at: Moment) {
        self.current.send_replace(Some(at));
    }

    /// How far what is published may be behind, if that is known.
    pub(crate) fn staleness(&self) -> Option<Duration> {
        self.now.borrow().as_ref()?;
        self.current.borrow().map(|at| at.elapsed())
    }
}
