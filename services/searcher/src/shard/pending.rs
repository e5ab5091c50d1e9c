//! Operations that are durable and not visible to searches yet. Reads by id find them here first.
//!
//! The log calls [`Pending::durable`] with each entry, in order and before its appends are answered. So what is
//! acknowledged is always here or in the index, and no entry is missed: neither those without operations nor those whose
//! callers have gone away.
//!
//! An entry stays here until its operations are committed *and* visible. If an index writer fails, what it had is fed
//! again from here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::error;
use uuid::Uuid;

use super::FoundDocument;
use crate::catalog::Index;

/// An operation with its numbers.
#[derive(Debug, Clone)]
pub(crate) struct Logged {
    pub(crate) index: Arc<Index>,
    pub(crate) id: Arc<str>,
    pub(crate) seq: u64,
    pub(crate) term: u64,
    pub(crate) version: u64,
    /// `None` if the document is deleted.
    pub(crate) source: Option<Arc<RawValue>>,
}

/// An entry of the log.
#[derive(Debug, Clone)]
pub(crate) struct LoggedEntry {
    pub(crate) number: u64,
    /// The number of the first operation after it.
    pub(crate) end: u64,
    pub(crate) operations: Arc<[Logged]>,
    bytes: usize,
    came: Instant,
}

/// What is durable and not visible yet. Shared by the log, the writer, the indexer and readers.
#[derive(Debug)]
pub(crate) struct Pending {
    state: Mutex<State>,
    /// Notified when something waits to be indexed.
    wake: Notify,
    /// A refresh is wanted that makes the operations below this number visible.
    wanted: AtomicU64,
    /// The number of the first operation that is not visible.
    visible: watch::Sender<u64>,
    /// The number of the first operation that is not in a manifest.
    stored: watch::Sender<u64>,
    /// How many refreshes were asked for that also make the results of merges visible, and how many of them were made.
    merges_wanted: AtomicU64,
    merges_visible: watch::Sender<u64>,
    /// Cancelled once nothing becomes visible or stored any more.
    closed: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    /// Records that were given to the log and are not durable yet.
    in_flight: VecDeque<Vec<Logged>>,
    /// The number of the first operation that is not durable.
    next_seq: u64,
    /// The latest operation of each id.
    latest: BTreeMap<Uuid, BTreeMap<Arc<str>, Logged>>,
    /// The entries that are not visible, and how many of them were given to index writers.
    entries: VecDeque<LoggedEntry>,
    fed: usize,
    /// The sizes of the entries that no manifest has.
    unstored: VecDeque<Size>,
    behind: Behind,
}

#[derive(Debug, Clone, Copy)]
struct Size {
    end: u64,
    operations: usize,
    bytes: usize,
}

/// How much is acknowledged, and in no manifest yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Behind {
    pub(crate) bytes: usize,
    pub(crate) operations: usize,
}

impl Logged {
    fn size(&self) -> usize {
        let fixed = 128;
        fixed + self.id.len() + self.source.as_ref().map_or(0, |source| source.get().len())
    }

    /// Whether its id had no document before.
    pub(crate) fn is_first(&self) -> bool {
        self.version == 1 && self.source.is_some()
    }

    /// The document, unless it is deleted.
    pub(crate) fn document(&self) -> Option<FoundDocument> {
        let source = self.source.as_deref()?.to_owned();
        Some(FoundDocument { seq: self.seq, term: self.term, version: self.version, source })
    }
}

impl Pending {
    /// Nothing is pending; the next operation has this number.
    pub(crate) fn new(next_seq: u64) -> Self {
        let state = Mutex::new(State { next_seq, ..State::default() });
        let number = |seq| watch::Sender::new(seq);
        let (wake, wanted) = (Notify::new(), AtomicU64::new(next_seq));
        Self {
            state,
            wake,
            wanted,
            visible: number(next_seq),
            stored: number(next_seq),
            merges_wanted: AtomicU64::new(0),
            merges_visible: number(0),
            closed: CancellationToken::new(),
        }
    }

    /// Announces a record that is about to be appended to the log. Records become durable in the order of these calls.
    pub(crate) fn begin(&self, operations: Vec<Logged>) {
        self.state().in_flight.push_back(operations);
    }

    /// Adds an entry of the log that became durable, with this many of the announced records.
    pub(crate) fn durable(&self, number: u64, records: usize) {
        let mut state = self.state();
        let mut operations = Vec::new();
        for _ in 0..records {
            match state.in_flight.pop_front() {
                Some(record) => operations.extend(record),
                None => error!(number, "the log has a record that was not announced"),
            }
        }
        let end = operations.last().map_or(state.next_seq, |last| last.seq + 1);
        state.add(number, operations, end);
        drop(state);
        self.wake.notify_one();
    }

    /// Adds an entry that was read from the log, in which the operations below `end` end. Some may be left out.
    pub(crate) fn replayed(&self, number: u64, operations: Vec<Logged>, end: u64) {
        self.state().add(number, operations, end);
    }

    /// The number of the next operation.
    pub(crate) fn next_seq(&self) -> u64 {
        self.state().next_seq
    }

    /// The latest operation of an id, if it is not visible yet.
    pub(crate) fn latest(&self, index: Uuid, id: &str) -> Option<Logged> {
        self.state().latest.get(&index)?.get(id).cloned()
    }

    /// The documents of an index that are not visible yet.
    pub(crate) fn sources(&self, index: Uuid) -> Vec<Arc<RawValue>> {
        let state = self.state();
        let latest = state.latest.get(&index).into_iter().flat_map(BTreeMap::values);
        latest.filter_map(|logged| logged.source.clone()).collect()
    }

    /// The next entries that were not given to index writers, about this many bytes.
    pub(crate) fn unfed(&self, bytes: usize) -> Vec<LoggedEntry> {
        let state = self.state();
        let mut taken = 0;
        let fits = |entry: &&LoggedEntry| {
            let fits = taken < bytes;
            taken += entry.bytes;
            fits
        };
        state.entries.iter().skip(state.fed).take_while(fits).cloned().collect()
    }

    /// These entries were given to index writers.
    pub(crate) fn fed(&self, entries: usize) {
        self.state().fed += entries;
    }

    /// The writers have failed: all that is not visible has to be given to them again.
    pub(crate) fn feed_again(&self) {
        self.state().fed = 0;
    }

    /// How far the writers have come: the last entry that they have, and the number of the operation after it. `None` if
    /// they have nothing new.
    pub(crate) fn fed_up_to(&self) -> Option<(u64, u64)> {
        let state = self.state();
        let last = state.entries.get(state.fed.checked_sub(1)?)?;
        Some((last.number, last.end))
    }

    /// All operations up to the end of this entry are visible. Called after readers can see them, so that each operation
    /// is here or there.
    pub(crate) fn visible(&self, applied: u64, next_seq: u64) {
        let mut state = self.state();
        while state.entries.front().is_some_and(|entry| entry.number <= applied) {
            let Some(entry) = state.entries.pop_front() else { break };
            state.fed = state.fed.saturating_sub(1);
            for operation in &*entry.operations {
                state.forget(operation);
            }
        }
        drop(state);
        self.visible
            .send_if_modified(|visible| std::mem::replace(visible, next_seq.max(*visible)) < next_seq);
    }

    /// All operations below this number are in a manifest.
    pub(crate) fn stored(&self, next_seq: u64) {
        let mut state = self.state();
        while state.unstored.front().is_some_and(|entry| entry.end <= next_seq) {
            let Some(entry) = state.unstored.pop_front() else { break };
            state.behind.bytes = state.behind.bytes.saturating_sub(entry.bytes);
            state.behind.operations = state.behind.operations.saturating_sub(entry.operations);
        }
        drop(state);
        self.stored.send_if_modified(|stored| std::mem::replace(stored, next_seq.max(*stored)) < next_seq);
    }

    pub(crate) fn behind(&self) -> Behind {
        self.state().behind
    }

    /// Waits until less than this many bytes and operations are behind. `false` if that can no longer happen.
    pub(crate) async fn until_less_behind(&self, (bytes, operations): (usize, usize)) -> bool {
        let mut stored = self.stored.subscribe();
        let is_less = |_: &u64| {
            let behind = self.behind();
            behind.bytes < bytes && behind.operations < operations
        };
        tokio::select! {
            biased;
            () = self.closed.cancelled() => false,
            stored = stored.wait_for(is_less) => stored.is_ok(),
        }
    }

    /// For how long the oldest operation has not been visible.
    pub(crate) fn lag(&self) -> Duration {
        let state = self.state();
        let oldest = state.entries.iter().find(|entry| !entry.operations.is_empty());
        oldest.map_or(Duration::ZERO, |entry| entry.came.elapsed())
    }

    /// How many entries of the log are not visible.
    pub(crate) fn entries(&self) -> usize {
        self.state().entries.len()
    }

    /// Asks for a refresh as soon as possible, until all operations below this number are visible.
    pub(crate) fn want(&self, seq: u64) {
        self.wanted.fetch_max(seq, Ordering::SeqCst);
        self.wake.notify_one();
    }

    /// Whether somebody waits for a refresh.
    pub(crate) fn is_wanted(&self) -> bool {
        let is_merge_wanted = *self.merges_visible.borrow() < self.merges_wanted();
        is_merge_wanted || !self.is_visible(self.wanted.load(Ordering::SeqCst))
    }

    /// Forgets the documents of an index that was deleted.
    pub(crate) fn drop_index(&self, index: Uuid) {
        self.state().latest.remove(&index);
    }

    /// Waits until something new may wait to be indexed.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits until all operations below this number are visible. `false` if that can no longer happen.
    pub(crate) async fn until_visible(&self, seq: u64) -> bool {
        self.until(&self.visible, seq).await
    }

    /// Waits until all operations below this number are in a manifest. `false` if that can no longer happen.
    pub(crate) async fn until_stored(&self, seq: u64) -> bool {
        self.until(&self.stored, seq).await
    }

    /// Waits until a refresh that begins now has made the results of merges visible. `false` if that can no longer happen.
    pub(crate) async fn until_merged(&self) -> bool {
        let wanted = self.merges_wanted.fetch_add(1, Ordering::SeqCst) + 1;
        self.wake();
        self.until(&self.merges_visible, wanted).await
    }

    async fn until(&self, reached: &watch::Sender<u64>, number: u64) -> bool {
        let mut reached = reached.subscribe();
        tokio::select! {
            biased;
            reached = reached.wait_for(|reached| *reached >= number) => reached.is_ok(),
            () = self.closed.cancelled() => false,
        }
    }

    /// How many refreshes for the results of merges were asked for.
    pub(crate) fn merges_wanted(&self) -> u64 {
        self.merges_wanted.load(Ordering::SeqCst)
    }

    /// A refresh has ended that began after this many were asked for.
    pub(crate) fn merges_visible(&self, wanted: u64) {
        self.merges_visible.send_replace(wanted);
    }

    /// Ends all waits.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    /// Whether all operations below this number are visible.
    pub(crate) fn is_visible(&self, seq: u64) -> bool {
        *self.visible.borrow() >= seq
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, number: u64, operations: Vec<Logged>, end: u64) {
        let bytes = operations.iter().map(Logged::size).sum();
        self.next_seq = end;
        for operation in &operations {
            let ids = self.latest.entry(operation.index.uuid).or_default();
            ids.insert(Arc::clone(&operation.id), operation.clone());
        }
        let size = Size { end, operations: operations.len(), bytes };
        if size.operations > 0 {
            self.unstored.push_back(size);
            self.behind.bytes += bytes;
            self.behind.operations += size.operations;
        }
        let operations = operations.into();
        self.entries.push_back(LoggedEntry { number, end, operations, bytes, came: Instant::now() });
    }

    fn forget(&mut self, operation: &Logged) {
        let uuid = operation.index.uuid;
        let Some(ids) = self.latest.get_mut(&uuid) else { return };
        if ids.get(&*operation.id).is_some_and(|latest| latest.seq == operation.seq) {
            ids.remove(&*operation.id);
        }
        if ids.is_empty() {
            self.latest.remove(&uuid);
        }
    }
}

#[cfg(test)]
mod tests;
