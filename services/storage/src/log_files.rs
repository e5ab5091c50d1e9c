//! Sees how the object store behaves, for whoever must say why something takes long.
//!
//! SlateDB tries what failed again and says nothing meanwhile. So its store is wrapped in one that remembers the last
//! failure of each kind until something of that kind succeeds, and what has not been answered yet.
//!
//! It also knows one answer without asking: there are no *boundaries*, see [`no_boundary`]. And it sees which files of the
//! log are written, for [`crate::notes`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use prometheus_client::metrics::counter::Counter;
use slatedb::object_store::path::Path;
use slatedb::object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::time::Instant;

use crate::notes::Note;
use crate::survey::log_number;

/// An answer that takes longer is trouble.
const SLOW: Duration = Duration::from_millis(2_500);
/// What moves many bytes may take longer: a second for so many.
const RATE: usize = 1024 * 1024;

/// An object store that is watched.
#[derive(Debug)]
pub(crate) struct Witness {
    inner: Arc<dyn ObjectStore>,
    seen: Arc<Seen>,
}

/// SlateDB's own collector can note up to which number it has deleted manifests, and each look at the newest manifest
/// asks for that note besides. Ours leaves none (see [`crate::garbage`]), so this saves half of what a look costs.
fn no_boundary(location: &Path) -> Option<Error> {
    let is_boundary = location.extension() == Some("boundary");
    is_boundary.then(|| Error::NotFound { path: location.to_string(), source: "none is ever written".into() })
}

/// What was seen of an object store.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    notes: Mutex<Notes>,
    deleted: Counter,
    log: Mutex<Log>,
}

/// What was written to the log since the last opening began.
#[derive(Debug, Default)]
struct Log {
    /// Numbers at which an empty file was put, or may have been.
    fences: BTreeSet<u64>,
    /// The highest number that was written.
    last: u64,
}

#[derive(Debug, Default)]
struct Notes {
    /// The last failure, of reads and of writes, that no success came after.
    failed: [Option<String>; 2],
    /// The operations that have not ended.
    pending: BTreeMap<u64, Asked>,
    begun: u64,
}

/// What was asked of the store.
#[derive(Debug, Clone, Copy)]
struct Asked {
    began: Instant,
    /// How long the answer may take.
    limit: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Read,
    Write,
}

impl Seen {
    /// What is wrong with the store, as far as can be seen.
    pub(crate) fn trouble(&self) -> Option<String> {
        let notes = self.notes();
        let late = notes.pending.values().filter(|asked| asked.began.elapsed() > asked.limit);
        let waits = late.map(|asked| asked.began.elapsed()).max();
        let [reads, writes] = &notes.failed;
        writes.clone().or_else(|| reads.clone()).or_else(|| {
            waits.map(|waited| format!("the object store has not answered for {} s", waited.as_secs()))
        })
    }

    /// The database is about to be opened.
    pub(crate) fn opening(&self) {
        *self.log() = Log::default();
    }

    /// What an owner notes of its log.
    pub(crate) fn note(&self) -> Note {
        let log = self.log();
        Note { fences: log.fences.clone(), last: log.last }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file of the log is written. Of one that fails it is not known whether it was, unless there was one already.
    async fn write_log(
        &self,
        number: u64,
        is_empty: bool,
        write: impl Future<Output = Result<PutResult>>,
    ) -> Result<PutResult> {
        let is_first = is_empty && self.log().fences.insert(number);
        let outcome = write.await;
        let mut log = self.log();
        match &outcome {
            Ok(_) => log.last = log.last.max(number),
            Err(Error::AlreadyExists { .. }) if is_first => {
                log.fences.remove(&number);
            }
            Err(_) => {}
        }
        outcome
    }

    /// How many objects were deleted. Only garbage is.
    pub(crate) fn deleted(&self) -> &Counter {
        &self.deleted
    }

    /// How many operations there have been.
    #[cfg(test)]
    pub(crate) fn asked(&self) -> u64 {
        self.notes().begun
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_outcome<T>(&self, kind: Kind, outcome: &Result<T>) {
        let failure = outcome.as_ref().err().filter(|error| is_trouble(error)).map(in_words);
        let mut notes = self.notes();
        let slot = &mut notes.failed[kind as usize];
        if *slot != failure {
            *slot = failure;
        }
    }

    /// Something was asked of the store that moves so many bytes. The number of the question.
    fn begin(&self, bytes: usize) -> u64 {
        let transfer = Duration::from_secs(u64::try_from(bytes / RATE).unwrap_or(u64::MAX));
        let limit = SLOW.saturating_add(transfer);
        let mut notes = self.notes();
        notes.begun += 1;
        let number = notes.begun;
        notes.pending.insert(number, Asked { began: Instant::now(), limit });
        number
    }

    fn end(&self, number: u64) {
        self.notes().pending.remove(&number);
    }

    async fn watch<T>(&self, kind: Kind, operation: impl Future<Output = Result<T>>) -> Result<T> {
        self.watch_transfer(0, kind, operation).await
    }

    /// The same for an operation that moves so many bytes.
    async fn watch_transfer<T>(
        &self,
        bytes: usize,
        kind: Kind,
        operation: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let pending = Pending { seen: self, number: self.begin(bytes) };
        let outcome = operation.await;
        drop(pending);
        self.note_outcome(kind, &outcome);
        outcome
    }
}

/// Whether an error is more than the answer to a question.
fn is_trouble(error: &Error) -> bool {
    !matches!(
        error,
        Error::NotFound { .. }
            | Error::AlreadyExists { .. }
            | Error::Precondition { .. }
            | Error::NotModified { .. }
            | Error::NotImplemented { .. }
            | Error::NotSupported { .. }
    )
}

/// An error with those below it, each said once.
fn in_words(error: &Error) -> String {
    let mut text = error.to_string();
    let mut below = std::error::Error::source(error);
    while let Some(cause) = below {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        below = cause.source();
    }
    text
}

/// An operation that has not ended. Dropping it ends it.
struct Pending<'a> {
    seen: &'a Seen,
    number: u64,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.seen.end(self.number);
    }
}

/// A stream whose next item is waited for as long as it is polled.
struct Watched<T> {
    stream: BoxStream<'static, Result<T>>,
    seen: Arc<Seen>,
    kind: Kind,
    pending: Option<u64>,
}

impl<T> Stream for Watched<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<T>>> {
        let next = self.stream.poll_next_unpin(cx);
        match &next {
            Poll::Pending if self.pending.is_none() => self.pending = Some(self.seen.begin(0)),
            Poll::Pending => {}
            Poll::Ready(item) => {
                if let Some(number) = self.pending.take() {
                    self.seen.end(number);
                }
                item.iter().for_each(|outcome| self.seen.note_outcome(self.kind, outcome));
            }
        }
        next
    }
}

impl<T> Drop for Watched<T> {
    fn drop(&mut self) {
        if let Some(number) = self.pending.take() {
            self.seen.end(number);
        }
    }
}

impl Witness {
    /// Watches a store.
    pub(crate) fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, seen: Arc::default() }
    }

    /// What it sees.
    pub(crate) fn seen(&self) -> Arc<Seen> {
        Arc::clone(&self.seen)
    }

    fn watched<T: 'static>(
        &self,
        kind: Kind,
        stream: BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        Watched { stream, seen: Arc::clone(&self.seen), kind, pending: None }.boxed()
    }
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Witness {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let (number, bytes) = (log_number(location), payload.content_length());
        let is_empty = bytes == 0;
        let put = self.inner.put_opts(location, payload, options);
        let write = self.seen.watch_transfer(bytes, Kind::Write, put);
        match number {
            Some(number) => self.seen.write_log(number, is_empty, write).await,
            None => write.await,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.seen.watch(Kind::Write, self.inner.put_multipart_opts(location, options)).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if let Some(answer) = no_boundary(location) {
            return Err(answer);
        }
        self.seen.watch(Kind::Read, self.inner.get_opts(location, options)).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let bytes = ranges
            .iter()
            .map(|range| usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX));
        let bytes = bytes.fold(0, usize::saturating_add);
        self.seen.watch_transfer(bytes, Kind::Read, self.inner.get_ranges(location, ranges)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let seen = Arc::clone(&self.seen);
        let count = move |outcome: &Result<Path>| {
            seen.deleted.inc_by(u64::from(outcome.is_ok()));
        };
        self.watched(Kind::Write, self.inner.delete_stream(locations).inspect(count).boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.watched(Kind::Read, self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.watched(Kind::Read, self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.seen.watch(Kind::Read, self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.seen.watch(Kind::Write, self.inner.copy_opts(from, to, options)).await
    }
}

#[cfg(test)]
mod tests {
    use slatedb::object_store::ObjectStoreExt;
    use slatedb::object_store::memory::InMemory;
    use store::faults::{Faults, Mode};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_told_until_the_same_kind_of_thing_works_again() {
        let faults = Faults::new(Arc::new(InMemory::new()));
        let witness = Witness::new(faults.objects());
        let seen = witness.seen();
        let path = Path::from("a");
        assert!(witness.get(&path).await.is_err());
        assert_eq!(seen.trouble(), None, "that something is not there is an answer");

        faults.set(Mode::FailWrites(std::io::ErrorKind::StorageFull));
        assert!(witness.put(&path, "1".into()).await.is_err());
        assert!(seen.trouble().unwrap().contains("no storage space"), "{:?}", seen.trouble());
        assert!(witness.get(&path).await.is_err());
        assert!(seen.trouble().is_some(), "a read tells nothing of writes");
        faults.set(Mode::Work);
        witness.put(&path, "1".into()).await.unwrap();
        assert_eq!(seen.trouble(), None);
        assert_eq!(seen.deleted().get(), 0);
        witness.delete(&path).await.unwrap();
        assert_eq!(seen.deleted().get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_does_not_answer_is_told() {
        let faults = Faults::new(Arc::new(InMemory::new()));
        let witness = Witness::new(faults.objects());
        let seen = witness.seen();
        faults.set(Mode::Hang);
        let path = Path::from("a");
        let patience = tokio::time::timeout(SLOW * 2, witness.put(&path, "1".into()));
        let look = async {
            tokio::time::sleep(SLOW * 3 / 2).await;
            seen.trouble()
        };
        let (outcome, trouble) = tokio::join!(patience, look);
        assert!(outcome.is_err());
        assert_eq!(trouble.as_deref(), Some("the object store has not answered for 3 s"));
        assert_eq!(seen.trouble(), None, "nobody waits any more");
    }
}
