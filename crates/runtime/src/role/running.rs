//! A service from its start to its end.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use plugin::{
    Context, Endpoints, Health, Metrics, Prepared, Service, ServiceError, TaskFailure, Tasks, Updated,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::warn;
use types::limits::{START, STOP, UPDATE};

use crate::role::gate::{Gate, Probe};
use crate::role::reasons::HEALTH_CHECK_PANICKED;

/// A service that runs, with everything that must end with it.
pub(crate) struct Running {
    service: Arc<dyn Service>,
    pub(crate) router: axum::Router,
    pub(crate) gate: Arc<Gate>,
    pub(crate) endpoints: Endpoints,
    pub(crate) metrics: Metrics,
    /// Ends the service's tasks when it is dropped, whatever the reason.
    shutdown: DropGuard,
    tasks: Tasks,
    failures: mpsc::UnboundedReceiver<TaskFailure>,
}

impl Running {
    /// Starts a service. `context` builds its context from the parts that end with it.
    pub(crate) async fn start(
        prepared: Box<dyn Prepared>,
        context: impl FnOnce(Tasks, CancellationToken) -> Context,
    ) -> Result<Self, ServiceError> {
        let (tasks, failures) = Tasks::new();
        let token = CancellationToken::new();
        // A start that is cancelled must not leave its tasks behind.
        let shutdown = token.clone().drop_guard();
        let context = context(tasks.clone(), token);
        let (endpoints, metrics) = (context.endpoints.clone(), context.metrics.clone());
        let start = AssertUnwindSafe(prepared.start(context)).catch_unwind();
        let outcome = match timeout(START, start).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_panic)) => Err(ServiceError::internal("the start panicked; the log says where")),
            Err(_) => Err(ServiceError::unavailable(format!("the start took longer than {START:?}"))),
        };
        match outcome.and_then(|service| routes(&service).map(|router| (service, router))) {
            Ok((service, router)) => Ok(Self {
                service,
                router,
                gate: Arc::default(),
                endpoints,
                metrics,
                shutdown,
                tasks,
                failures,
            }),
            Err(error) => {
                drop(shutdown);
                end_tasks(&tasks).await;
                Err(error)
            }
        }
    }

    /// Lets requests in flight and queued work finish, until the deadline. The gate is shut already.
    pub(crate) async fn drain(&self, deadline: Instant) {
        let drained = AssertUnwindSafe(self.service.drain(deadline)).catch_unwind();
        let emptied = self.gate.empty();
        if tokio::time::timeout_at(deadline, async { tokio::join!(drained, emptied) }).await.is_err() {
            warn!(in_flight = self.gate.inside(), "the drain did not finish in time");
        }
    }

    /// Ends the service. What does not end in time is dropped or aborted, with a warning.
    pub(crate) async fn stop(self) {
        drop(self.shutdown);
        match timeout(STOP, AssertUnwindSafe(self.service.stop()).catch_unwind()).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => warn!(%error, "the service did not stop cleanly"),
            Ok(Err(_panic)) => warn!("the service panicked while it stopped"),
            Err(_) => warn!(limit = ?STOP, "the service did not stop in time"),
        }
        // Requests that are still inside would wait for a service that has ended.
        self.gate.cut();
        drop(self.service);
        end_tasks(&self.tasks).await;
    }

    /// Applies new settings. Whatever goes wrong, the service runs with the old ones.
    pub(crate) async fn update(&self, prepared: Box<dyn Prepared>) -> Updated {
        let update = AssertUnwindSafe(self.service.update(prepared)).catch_unwind();
        match timeout(UPDATE, update).await {
            Ok(Ok(updated)) => updated,
            Ok(Err(_panic)) => {
                Updated::Failed(ServiceError::internal("applying the settings panicked; the log says where"))
            }
            Err(_) => Updated::Failed(ServiceError::unavailable(format!(
                "applying them took longer than {UPDATE:?}"
            ))),
        }
    }

    /// A handle that reads the staleness of the service.
    pub(crate) fn probe(&self) -> Probe {
        Probe(self.service.clone())
    }

    /// The health of the service; a panic counts as a failure.
    pub(crate) fn health(&self) -> Health {
        std::panic::catch_unwind(AssertUnwindSafe(|| self.service.health()))
            .unwrap_or_else(|_| Health::failed(HEALTH_CHECK_PANICKED, "the health check panicked"))
    }

    /// The next task of the service that fails. Cancel-safe.
    pub(crate) async fn failure(&mut self) -> TaskFailure {
        match self.failures.recv().await {
            Some(failure) => failure,
            // Every sender is gone: nothing can fail any more.
            None => std::future::pending().await,
        }
    }
}

/// The router of a service that has started; a panic of the service must not end the agent.
fn routes(service: &Arc<dyn Service>) -> Result<axum::Router, ServiceError> {
    let service = service.clone();
    std::panic::catch_unwind(AssertUnwindSafe(|| service.routes()))
        .map_err(|_panic| ServiceError::internal("making the routes panicked; the log says where"))
}

async fn end_tasks(tasks: &Tasks) {
    if timeout(STOP, tasks.wait()).await.is_err() {
        tasks.abort();
        warn!(left = tasks.len(), "tasks of the service did not end in time");
    }
}
