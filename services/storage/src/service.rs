//! The running service: a shard that opens, drains and closes.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use plugin::{Context, Duty, Health, Prepared, Service, ServiceError};
use tokio::time::Instant;
use types::{ErrorKind, ServiceType, ShardId};

use crate::engine::Engine;
use crate::refusal::Refusal;
use crate::routes;
use crate::settings::Settings;

/// How long the database may take to open before the start has failed.
const OPEN: Duration = Duration::from_secs(15);

/// A shard that this node owns.
pub(crate) struct StorageService {
    pub(crate) engine: Engine,
    pub(crate) mesh: mesh::Mesh,
    /// Its own type.
    pub(crate) service: ServiceType,
    pub(crate) shard: ShardId,
    /// How many there are.
    pub(crate) shards: NonZeroU32,
    pub(crate) max_value: usize,
}

#[async_trait]
impl Prepared for Settings {
    async fn start(self: Box<Self>, cx: Context) -> Result<Arc<dyn Service>, ServiceError> {
        let missing = |what| ServiceError::internal(format!("a member of `storage` was given no {what}"));
        let Duty::Primary(claim) = &cx.duty else { return Err(missing("claim")) };
        let objects = cx.objects.clone().ok_or_else(|| missing("object store"))?;
        let shards = cx.shards.ok_or_else(|| missing("number of shards"))?;
        let service = cx.role.service().cloned().ok_or_else(|| missing("service type"))?;
        let shard = cx.role.shard().ok_or_else(|| missing("shard"))?;
        let stop = cx.shutdown.child_token();
        let engine = Engine::start(objects, Arc::new(claim.clone()), &self, &cx.metrics, &cx.tasks, stop);
        engine.opened(OPEN).await.map_err(|refusal| match refusal {
            Refusal::Passed(_) => ServiceError::new(ErrorKind::Conflict, refusal.to_string()),
            other => ServiceError::unavailable(other.to_string()),
        })?;
        let max_value = self.max_value;
        Ok(Arc::new(StorageService { engine, mesh: cx.mesh, service, shard, shards, max_value }))
    }
}

#[async_trait]
impl Service for StorageService {
    fn routes(self: Arc<Self>) -> Router {
        routes::router(self)
    }

    fn health(&self) -> Health {
        self.engine.health()
    }

    async fn drain(&self, deadline: Instant) {
        self.engine.settle(deadline).await;
    }

    async fn stop(&self) -> Result<(), ServiceError> {
        self.engine.stop().await;
        Ok(())
    }
}
