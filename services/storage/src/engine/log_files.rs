//! The object store of a shard's database, with special treatment of the database's files.
//!
//! It observes which files of the log are written, for [`crate::engine::notes`], and counts deleted objects. And it
//! answers one request itself: there are no *boundaries*, see [`no_boundary`].

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use plugin::Counter;
use slatedb::object_store::path::Path;
use slatedb::object_store::{
    Error, GetOptions, GetResult, ObjectStore, PutOptions, PutPayload, PutResult, Result,
};
use store::{Instrumented, Layer, Layered, StoreHealth};

use crate::engine::notes::Note;
use crate::engine::survey::log_number;

/// The object store of a shard's database.
#[derive(Debug)]
pub(crate) struct LogFiles {
    inner: Arc<dyn ObjectStore>,
    seen: Arc<Seen>,
}

/// SlateDB's own collector can record up to which number it has deleted manifests, and each poll of the newest manifest
/// reads that record too. Ours writes none (see [`crate::engine::garbage`]), so this saves half of a poll's requests.
fn no_boundary(location: &Path) -> Option<Error> {
    let is_boundary = location.extension() == Some("boundary");
    is_boundary.then(|| Error::NotFound { path: location.to_string(), source: "none is ever written".into() })
}

/// What was observed of an object store.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    health: Arc<StoreHealth>,
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

impl Seen {
    /// The health of the store, from the calls to it.
    pub(crate) fn health(&self) -> &StoreHealth {
        &self.health
    }

    /// The known fault of the store, if any.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.health.trouble()
    }

    /// Records that the database is about to be opened.
    pub(crate) fn opening(&self) {
        *self.log() = Log::default();
    }

    /// The note of the owner about its log.
    pub(crate) fn note(&self) -> Note {
        let log = self.log();
        Note { fences: log.fences.clone(), last: log.last }
    }

    /// The number of objects deleted. Only garbage is.
    pub(crate) fn deleted(&self) -> &Counter {
        &self.deleted
    }

    /// The number of requests so far.
    #[cfg(test)]
    pub(crate) fn asked(&self) -> u64 {
        self.health.begun()
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a file of the log. If that fails, the file may exist or not, unless the error is that it existed already.
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
}

impl LogFiles {
    /// The store as the database uses it.
    pub(crate) fn new(inner: Arc<dyn ObjectStore>) -> Layered<Self> {
        let inner = Instrumented::new(inner);
        let seen = Arc::new(Seen { health: inner.health(), ..Seen::default() });
        Layered::new(Self { inner: Arc::new(inner), seen })
    }

    /// What it observes.
    pub(crate) fn seen(&self) -> Arc<Seen> {
        Arc::clone(&self.seen)
    }
}

impl Layer for LogFiles {
    fn inner(&self) -> &Arc<dyn ObjectStore> {
        &self.inner
    }

    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let is_empty = payload.content_length() == 0;
        let write = self.inner.put_opts(location, payload, options);
        match log_number(location) {
            Some(number) => self.seen.write_log(number, is_empty, write).await,
            None => write.await,
        }
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        match no_boundary(location) {
            Some(answer) => Err(answer),
            None => self.inner.get_opts(location, options).await,
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let seen = Arc::clone(&self.seen);
        let count = move |outcome: &Result<Path>| {
            seen.deleted.inc_by(u64::from(outcome.is_ok()));
        };
        self.inner.delete_stream(locations).inspect(count).boxed()
    }
}

#[cfg(test)]
mod tests {
    use slatedb::object_store::ObjectStoreExt;
    use slatedb::object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn deleted_objects_are_counted() {
        let files = LogFiles::new(Arc::new(InMemory::new()));
        let path = Path::from("a");
        files.put(&path, "1".into()).await.unwrap();
        assert_eq!(files.seen().deleted().get(), 0);
        files.delete(&path).await.unwrap();
        assert_eq!(files.seen().deleted().get(), 1);
    }
}
