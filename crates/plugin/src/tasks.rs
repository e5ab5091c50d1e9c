//! Background tasks that have an owner: they are named and counted, and their failures are reported.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, error, info_span, warn};

use crate::ServiceError;

/// The background tasks of one owner. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    abort: CancellationToken,
    failures: mpsc::UnboundedSender<TaskFailure>,
    /// The runtime of the owner. Its tasks run there, wherever they are spawned.
    runtime: Option<Handle>,
}

/// A task that ended with an error or a panic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFailure {
    /// The task's name.
    pub task: &'static str,
    /// Why it failed.
    pub reason: String,
}

impl Tasks {
    /// The tasks of an owner, and the channel on which their failures arrive.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<TaskFailure>) {
        let (failures, receiver) = mpsc::unbounded_channel();
        let (tracker, abort) = (TaskTracker::new(), CancellationToken::new());
        (Self { tracker, abort, failures, runtime: Handle::try_current().ok() }, receiver)
    }

    /// Runs a future in the background, on the runtime in which [`new`](Self::new) was called. An error or a panic is reported
    /// to the owner.
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = Result<(), ServiceError>> + Send + 'static,
    {
        let failures = self.failures.clone();
        let guarded = async move {
            let reason = match AssertUnwindSafe(future).catch_unwind().await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(panic) => format!("panicked: {}", panic_text(&*panic)),
            };
            error!(task = name, reason, "a task failed");
            // The owner may be gone already; then the failure does not matter.
            let _ = failures.send(TaskFailure { task: name, reason });
        };
        let abort = self.abort.clone();
        let bounded = async move {
            tokio::select! {
                biased;
                () = guarded => {}
                () = abort.cancelled() => warn!(task = name, "a task did not end in time and was aborted"),
            }
        };
        let task = bounded.instrument(info_span!("task", name));
        match &self.runtime {
            Some(runtime) => self.tracker.spawn_on(task, runtime),
            None => self.tracker.spawn(task),
        };
    }

    /// Waits until every task has ended. Tasks end by watching their owner's cancellation token.
    pub async fn wait(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Drops every task at its current await point. For tasks that do not watch their owner's cancellation token.
    pub fn abort(&self) {
        self.abort.cancel();
    }

    /// How many tasks are running.
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Whether no task is running.
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cores::Cores;

    #[tokio::test]
    async fn a_panic_is_reported_with_the_name_of_its_task() {
        let (tasks, mut failures) = Tasks::new();
        tasks.spawn("doomed", async { panic!("out of luck") });
        tasks.wait().await;
        let failure = failures.recv().await.unwrap();
        assert_eq!(failure.task, "doomed");
        assert_eq!(failure.reason, "panicked: out of luck");
    }

    #[tokio::test]
    async fn what_a_core_spawns_for_a_service_runs_on_the_shared_runtime() {
        let (tasks, _failures) = Tasks::new();
        let (_own, cores) = Cores::of_test(1);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let from_core = tasks.clone();
        let spawning = cores[0].handle.spawn(async move {
            from_core.spawn("elsewhere", async move {
                let _ = sender.send(mesh::core::current());
                Ok(())
            });
        });
        spawning.await.unwrap();
        assert_eq!(receiver.await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_task_that_never_ends_can_be_aborted() {
        let (tasks, _failures) = Tasks::new();
        tasks.spawn("stubborn", std::future::pending());
        tasks.abort();
        tasks.wait().await;
    }

    #[tokio::test]
    async fn waiting_ends_with_the_last_task() {
        let (tasks, mut failures) = Tasks::new();
        tasks.spawn("fine", async { Ok(()) });
        tasks.spawn("broken", async { Err(ServiceError::internal("disk full")) });
        tasks.wait().await;
        assert!(tasks.is_empty());
        assert_eq!(failures.recv().await.unwrap().reason, "disk full");
    }
}
