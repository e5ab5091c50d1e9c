//! Runs the blocking work of queries on a bounded number of threads, beside the async runtime.
//!
//! A query waits for a thread, and only a bounded number of them wait: the next one is refused. Its time limit counts from
//! its arrival. When the time is up or the client has left, the query is cancelled; its thread is free once it has noticed.
//!
//! A query that is known to be over soon runs on the thread that has its request: handing it to another thread and back would
//! take longer than the query.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plugin::{Counter, Histogram, Metrics};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, sleep_until, timeout};
use types::{ErrorKind, Problem};

use crate::http::Refusal;
use crate::search::Cancel;

/// How long a cancelled query may take to notice it and return what it has found.
const NOTICE: Duration = Duration::from_secs(1);
/// How long a query may take that runs on the thread with its request.
const SOON: Duration = Duration::from_millis(20);
/// How long all queries are handed to other threads after one took longer than that: documents are large, or the disk is slow.
const CAUTION: Duration = Duration::from_secs(1);

/// The threads for queries. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct QueryPool {
    threads: Arc<Semaphore>,
    /// One for each query that runs or waits.
    places: Arc<Semaphore>,
    /// Until when all queries are handed to other threads, in milliseconds after `began`.
    cautious_until: Arc<AtomicU64>,
    began: Instant,
    refused: Counter,
    seconds: Histogram,
}

/// Why the work of a query was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PoolError {
    /// Try again later; nothing was done.
    #[error("too many queries run and wait at this member")]
    Busy,
    /// Ask again, with a longer limit or a narrower query.
    #[error("the time for the query is up")]
    TimedOut,
    /// Report it: this is a bug. Other queries are not affected.
    #[error("the query failed with a panic: {0}")]
    Panicked(String),
}

impl PoolError {
    pub(crate) fn refusal(&self) -> Refusal {
        let problem = |kind, code, hint: &str| Problem::new(kind, code, self.to_string()).hint(hint);
        match self {
            Self::Busy => Refusal::later(problem(
                ErrorKind::TooManyRequests,
                "too-busy",
                "try again in a moment, or raise `query_threads` or `max_queries`",
            )),
            Self::TimedOut => Refusal::plain(problem(
                ErrorKind::Timeout,
                "query-timeout",
                "allow more time with `timeout`, or ask for less",
            )),
            Self::Panicked(_) => Refusal::plain(problem(
                ErrorKind::Internal,
                "query-panicked",
                "this is a bug; the log of the member has the place",
            )),
        }
    }
}

impl QueryPool {
    /// Threads for `threads` queries; `waiting` more may wait.
    pub(crate) fn new(threads: usize, waiting: usize, metrics: &Metrics) -> Self {
        Self {
            threads: Arc::new(Semaphore::new(threads)),
            places: Arc::new(Semaphore::new(threads.saturating_add(waiting))),
            cautious_until: Arc::default(),
            began: Instant::now(),
            refused: metrics.counter("queries_refused", "Queries that were refused because too many waited"),
            seconds: metrics.histogram(
                "query_seconds",
                "How long a query took on its thread, in seconds",
                0.000_1,
                4.0,
                10,
            ),
        }
    }

    /// Runs blocking work of a query. Dropping the future cancels it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        deadline: Instant,
        cancel: &Cancel,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.refused.inc();
            return Err(PoolError::Busy);
        };
        let thread = tokio::time::timeout_at(deadline, Arc::clone(&self.threads).acquire_owned()).await;
        let thread = thread.map_err(|_| PoolError::TimedOut)?.expect("the semaphore is never closed");
        let guard = CancelOnDrop(cancel);
        let seconds = self.seconds.clone();
        let mut running = spawn_blocking(move || {
            // Freed when the work ends, which may be later than the request.
            let _permits = (place, thread);
            let began = std::time::Instant::now();
            let done = work();
            seconds.observe(began.elapsed().as_secs_f64());
            done
        });
        let done = tokio::select! {
            biased;
            done = &mut running => done,
            () = sleep_until(deadline) => {
                guard.0.0.store(true, Ordering::Relaxed);
                timeout(NOTICE, running).await.map_err(|_| PoolError::TimedOut)?
            }
        };
        std::mem::forget(guard);
        done.map_err(panicked)
    }

    /// The same for work that may be over soon: then it runs on this thread.
    pub(crate) async fn run_soon<T: Send + 'static>(
        &self,
        deadline: Instant,
        cancel: &Cancel,
        is_soon: impl FnOnce() -> bool,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let began = Instant::now();
        let millis = |at: Instant| u64::try_from((at - self.began).as_millis()).unwrap_or(u64::MAX);
        if millis(began) < self.cautious_until.load(Ordering::Relaxed) || !caught(is_soon)? {
            return self.run(deadline, cancel, work).await;
        }
        let done = caught(work);
        let took = began.elapsed();
        if took > SOON {
            self.cautious_until.store(millis(began + took + CAUTION), Ordering::Relaxed);
        }
        self.seconds.observe(took.as_secs_f64());
        done
    }

    /// Runs the blocking work that completes a query, without waiting for others; here if it is over soon.
    pub(crate) async fn finish<T: Send + 'static>(
        is_soon: bool,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        if is_soon { caught(work) } else { spawn_blocking(work).await.map_err(panicked) }
    }
}

/// Ends a query whose client has left.
struct CancelOnDrop<'a>(&'a Cancel);

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

pub(crate) fn panicked(error: JoinError) -> PoolError {
    if !error.is_panic() {
        return PoolError::TimedOut;
    }
    PoolError::Panicked(panic_message(&*error.into_panic()))
}

fn caught<T>(work: impl FnOnce() -> T) -> Result<T, PoolError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| PoolError::Panicked(panic_message(&*panic)))
}

/// What a panic says.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn pool(threads: usize, waiting: usize) -> QueryPool {
        QueryPool::new(threads, waiting, &Metrics::new("test"))
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    /// Work that ends when its query is cancelled.
    fn endless(cancel: &Cancel) -> impl FnOnce() + Send + 'static {
        let cancel = cancel.clone();
        move || {
            while !cancel.0.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
        }
    }

    #[tokio::test]
    async fn a_query_that_panics_is_an_error_and_the_next_one_runs() {
        let pool = pool(1, 0);
        let cancel = Cancel::default();
        let panicked = pool.run(soon(), &cancel, || panic!("out of {}", "luck")).await;
        assert_eq!(panicked, Err::<(), _>(PoolError::Panicked("out of luck".to_owned())));
        assert_eq!(PoolError::Panicked(String::new()).refusal().problem.status, 500);
        assert_eq!(pool.run(soon(), &cancel, || 7).await, Ok(7));
        assert!(!cancel.0.load(Ordering::Relaxed), "a query that ended is not cancelled");
    }

    #[tokio::test]
    async fn a_query_that_is_over_soon_runs_on_the_thread_with_its_request() {
        let pool = pool(1, 0);
        let (cancel, here) = (Cancel::default(), std::thread::current().id());
        let thread = || std::thread::current().id();
        assert_eq!(pool.run_soon(soon(), &cancel, || true, thread).await, Ok(here));
        assert_ne!(pool.run_soon(soon(), &cancel, || false, thread).await, Ok(here));
        let panicked = pool.run_soon(soon(), &cancel, || true, || panic!("out of luck")).await;
        assert_eq!(panicked, Err::<(), _>(PoolError::Panicked("out of luck".to_owned())));
        assert_eq!(pool.run_soon(soon(), &cancel, || true, || 7).await, Ok(7));
    }

    #[tokio::test]
    async fn after_a_query_that_took_long_here_others_run_elsewhere_for_a_while() {
        let pool = pool(1, 0);
        let (cancel, here) = (Cancel::default(), std::thread::current().id());
        let long = || {
            let began = std::time::Instant::now();
            while began.elapsed() < 2 * SOON {
                std::thread::yield_now();
            }
        };
        assert_eq!(pool.run_soon(soon(), &cancel, || true, long).await, Ok(()));
        let thread = || std::thread::current().id();
        assert_ne!(pool.run_soon(soon(), &cancel, || true, thread).await, Ok(here));
        pool.cautious_until.store(0, Ordering::Relaxed);
        assert_eq!(pool.run_soon(soon(), &cancel, || true, thread).await, Ok(here));
    }

    #[tokio::test]
    async fn a_query_too_many_is_refused_with_429() {
        let pool = pool(1, 0);
        let cancel = Cancel::default();
        let running = pool.run(soon(), &cancel, endless(&cancel));
        tokio::pin!(running);
        assert!(futures_util::poll!(running.as_mut()).is_pending());
        let refused = pool.run(soon(), &Cancel::default(), || ()).await.unwrap_err();
        let answer = axum::response::Response::from(refused.refusal());
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["retry-after"]),
            (429, &"1".parse().unwrap())
        );
        cancel.0.store(true, Ordering::Relaxed);
        assert_eq!(running.await, Ok(()));
    }

    #[tokio::test]
    async fn a_query_ends_when_its_time_is_up_and_its_result_still_counts() {
        let pool = pool(1, 1);
        let cancel = Cancel::default();
        let deadline = Instant::now() + Duration::from_millis(5);
        assert_eq!(pool.run(deadline, &cancel, endless(&cancel)).await, Ok(()));
        assert!(cancel.0.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn a_query_that_waits_for_a_thread_does_so_within_its_time() {
        let pool = pool(1, 1);
        let cancel = Cancel::default();
        let running = pool.run(soon(), &cancel, endless(&cancel));
        tokio::pin!(running);
        assert!(futures_util::poll!(running.as_mut()).is_pending());
        let late = Instant::now() + Duration::from_millis(5);
        assert_eq!(pool.run(late, &Cancel::default(), || ()).await, Err(PoolError::TimedOut));
        cancel.0.store(true, Ordering::Relaxed);
        assert_eq!(running.await, Ok(()));
    }

    #[tokio::test]
    async fn a_client_that_leaves_cancels_its_query_and_frees_its_thread() {
        let pool = pool(1, 1);
        let cancel = Cancel::default();
        let (began, begins) = mpsc::channel();
        let work = endless(&cancel);
        let mut running = Box::pin(pool.run(soon(), &cancel, move || {
            began.send(()).unwrap();
            work();
        }));
        assert!(futures_util::poll!(running.as_mut()).is_pending());
        begins.recv().unwrap();
        drop(running);
        assert!(cancel.0.load(Ordering::Relaxed));
        assert_eq!(pool.run(soon(), &Cancel::default(), || 7).await, Ok(7));
    }
}
