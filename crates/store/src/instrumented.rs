//! An object store that records failures and pending calls, so that a service can report why something takes long.
//!
//! Libraries retry failed calls without a report. So this keeps the last failure of reads and of writes until a call of
//! the same kind succeeds, and the calls that have not been answered yet.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use object_store::{Error, ObjectStore, Result};
use tokio::time::Instant;

use crate::{Access, Layer, Layered};

/// An answer that takes longer counts as trouble.
const SLOW: Duration = Duration::from_millis(2_500);
/// A call that moves many bytes may take a second more for each of these.
const BYTES_PER_SECOND: usize = 1024 * 1024;

/// An object store whose calls are recorded.
#[derive(Debug)]
pub struct Instrumented {
    inner: Arc<dyn ObjectStore>,
    health: Arc<StoreHealth>,
}

/// The health of an object store, derived from the calls to it.
#[derive(Debug, Default)]
pub struct StoreHealth(Mutex<Calls>);

#[derive(Debug, Default)]
struct Calls {
    /// The last failure of reads and of writes, if no call of that kind has succeeded since.
    failed: [Option<String>; 2],
    pending: BTreeMap<u64, Pending>,
    begun: u64,
}

/// A call that has not been answered yet.
#[derive(Debug, Clone, Copy)]
struct Pending {
    began: Instant,
    /// How long the answer may take.
    limit: Duration,
}

impl StoreHealth {
    /// What is wrong with the store, if anything: the last failure, else for how long the slowest call has been waiting.
    pub fn trouble(&self) -> Option<String> {
        let calls = self.calls();
        let late = calls.pending.values().filter(|call| call.began.elapsed() > call.limit);
        let slowest = late.map(|call| call.began.elapsed()).max();
        let [reads, writes] = &calls.failed;
        writes.clone().or_else(|| reads.clone()).or_else(|| {
            slowest.map(|waited| format!("the object store has not answered for {} s", waited.as_secs()))
        })
    }

    /// The number of calls so far.
    pub fn begun(&self) -> u64 {
        self.calls().begun
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_outcome<T>(&self, access: Access, outcome: &Result<T>) {
        let failure = outcome.as_ref().err().filter(|error| is_trouble(error)).map(in_words);
        let mut calls = self.calls();
        let slot = &mut calls.failed[access as usize];
        if *slot != failure {
            *slot = failure;
        }
    }

    /// Records the beginning of a call that moves this many bytes. Returns its number.
    fn begin(&self, bytes: usize) -> u64 {
        let transfer = Duration::from_secs(u64::try_from(bytes / BYTES_PER_SECOND).unwrap_or(u64::MAX));
        let limit = SLOW.saturating_add(transfer);
        let mut calls = self.calls();
        calls.begun += 1;
        let number = calls.begun;
        calls.pending.insert(number, Pending { began: Instant::now(), limit });
        number
    }

    fn end(&self, number: u64) {
        self.calls().pending.remove(&number);
    }

    async fn call<T>(
        &self,
        access: Access,
        bytes: usize,
        operation: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let pending = EndOnDrop { health: self, number: self.begin(bytes) };
        let outcome = operation.await;
        drop(pending);
        self.note_outcome(access, &outcome);
        outcome
    }
}

/// Whether an error means a failing store, rather than a regular answer.
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

/// An error and its causes, without repetitions.
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

/// A pending call, which ends when this is dropped, since callers may stop waiting.
struct EndOnDrop<'a> {
    health: &'a StoreHealth,
    number: u64,
}

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.health.end(self.number);
    }
}

/// A stream that records a pending call while it waits for its next item.
struct Recorded<T> {
    stream: BoxStream<'static, Result<T>>,
    health: Arc<StoreHealth>,
    access: Access,
    pending: Option<u64>,
}

impl<T> Stream for Recorded<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<T>>> {
        let next = self.stream.poll_next_unpin(cx);
        match &next {
            Poll::Pending if self.pending.is_none() => self.pending = Some(self.health.begin(0)),
            Poll::Pending => {}
            Poll::Ready(item) => {
                if let Some(number) = self.pending.take() {
                    self.health.end(number);
                }
                item.iter().for_each(|outcome| self.health.note_outcome(self.access, outcome));
            }
        }
        next
    }
}

impl<T> Drop for Recorded<T> {
    fn drop(&mut self) {
        if let Some(number) = self.pending.take() {
            self.health.end(number);
        }
    }
}

impl Instrumented {
    /// Records the calls to a store.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Layered<Self> {
        Layered::new(Self { inner, health: Arc::default() })
    }

    /// The health that the calls show, updated with each call.
    pub fn health(&self) -> Arc<StoreHealth> {
        Arc::clone(&self.health)
    }
}

impl Layer for Instrumented {
    fn inner(&self) -> &Arc<dyn ObjectStore> {
        &self.inner
    }

    async fn call<T: Send>(
        &self,
        access: Access,
        bytes: usize,
        operation: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.health.call(access, bytes, operation).await
    }

    fn stream<T: Send + 'static>(
        &self,
        access: Access,
        stream: BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        Recorded { stream, health: self.health(), access, pending: None }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;
    use object_store::path::Path;

    use super::*;
    use crate::faults::{Faults, Mode};

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_reported_until_a_call_of_the_same_kind_succeeds() {
        let faults = Faults::new(Arc::new(InMemory::new()));
        let store = Instrumented::new(faults.objects());
        let health = store.health();
        let path = Path::from("a");
        assert!(store.get(&path).await.is_err());
        assert_eq!(health.trouble(), None, "a missing object is an answer");

        faults.set(Mode::FailWrites(std::io::ErrorKind::StorageFull));
        assert!(store.put(&path, "1".into()).await.is_err());
        assert!(health.trouble().unwrap().contains("no storage space"), "{:?}", health.trouble());
        assert!(store.get(&path).await.is_err());
        assert!(health.trouble().is_some(), "a read proves nothing about writes");
        faults.set(Mode::Work);
        store.put(&path, "1".into()).await.unwrap();
        assert_eq!(health.trouble(), None);
        assert_eq!(health.begun(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_does_not_answer_is_reported_while_a_call_waits() {
        let faults = Faults::new(Arc::new(InMemory::new()));
        let store = Instrumented::new(faults.objects());
        let health = store.health();
        faults.set(Mode::Hang);
        let path = Path::from("a");
        let patience = tokio::time::timeout(SLOW * 2, store.put(&path, "1".into()));
        let look = async {
            tokio::time::sleep(SLOW * 3 / 2).await;
            health.trouble()
        };
        let (outcome, trouble) = tokio::join!(patience, look);
        assert!(outcome.is_err());
        assert_eq!(trouble.as_deref(), Some("the object store has not answered for 3 s"));
        assert_eq!(health.trouble(), None, "no call waits any more");
    }
}
