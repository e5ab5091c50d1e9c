//! The running service: a shard that opens, drains and closes.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use plugin::{Context, Duty, Health, Prepared, Service, ServiceError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use types::{ErrorKind, ServiceType, ShardId};

use crate::bounds::Bounds;
use crate::data_clock::WallClock;
use crate::disk_cache::DiskCache;
use crate::engine::{Engine, Place};
use crate::follower::{Follower, Source};
use crate::log_files::Seen;
use crate::meters::Meters;
use crate::refusal::Refusal;
use crate::routes;
use crate::settings::Settings;

/// How long the database may take to open before the start has failed.
const OPEN: Duration = Duration::from_secs(15);

/// How long a copy may take to open before the start is over without it.
const OPEN_COPY: Duration = Duration::from_secs(3);

/// A shard that this node owns, or has a copy of.
pub(crate) struct StorageService {
    /// The shard's data; refuses everything where this node has a copy.
    pub(crate) engine: Engine,
    /// The copy, if it is one.
    pub(crate) copy: Option<Follower>,
    pub(crate) mesh: mesh::Mesh,
    /// Its own type.
    pub(crate) service: ServiceType,
    pub(crate) shard: ShardId,
    /// How many there are.
    pub(crate) shards: NonZeroU32,
    pub(crate) max_value: usize,
    /// What slow readers may hold.
    pub(crate) bounds: Bounds,
    /// Cancelled when streams that would never end have to.
    pub(crate) ending: CancellationToken,
}

#[async_trait]
impl Prepared for Settings {
    async fn start(self: Box<Self>, cx: Context) -> Result<Arc<dyn Service>, ServiceError> {
        let missing = |what| ServiceError::internal(format!("a member of `storage` was given no {what}"));
        let objects = cx.objects.clone().ok_or_else(|| missing("object store"))?;
        let shards = cx.shards.ok_or_else(|| missing("number of shards"))?;
        let service = cx.role.service().cloned().ok_or_else(|| missing("service type"))?;
        let shard = cx.role.shard().ok_or_else(|| missing("shard"))?;
        let stop = cx.shutdown.child_token();
        let disk = DiskCache::of(&self, &cx);
        let (engine, copy) = match &cx.duty {
            Duty::Primary(claim) => {
                let claim = Arc::new(claim.clone());
                let folder = format!("{}/data/{service}/{shard}", cx.view.borrow().cluster());
                let place = Place { objects, folder, poll: cx.objects_poll, wall: WallClock::system(), disk };
                let engine = Engine::start(place, claim, &self, &cx.metrics, &cx.tasks, stop);
                match engine.opened(OPEN).await {
                    // Another node would find the same: the shard stays here, and says so.
                    Ok(()) | Err(Refusal::Broken(_)) => {}
                    Err(refusal @ Refusal::Passed(_)) => {
                        return Err(ServiceError::new(ErrorKind::Conflict, refusal.to_string()));
                    }
                    Err(refusal) => return Err(ServiceError::unavailable(refusal.to_string())),
                }
                (engine, None)
            }
            Duty::Replica => {
                let meters = Meters::new(&cx.metrics, &Seen::default());
                let engine = Engine::none(Arc::clone(&objects), &self, meters.clone());
                let source = Source { objects, poll: cx.objects_poll, disk };
                let copy = Follower::start(source, &self, meters, &cx.tasks, stop);
                // There may be no data yet, or no store; it goes on trying.
                copy.tried(OPEN_COPY).await;
                (engine, Some(copy))
            }
            Duty::None => return Err(missing("claim")),
        };
        let (max_value, bounds) = (self.max_value.as_usize(), Bounds::new(&self, engine.meters()));
        let ending = cx.shutdown.child_token();
        Ok(Arc::new(StorageService {
            engine,
            copy,
            mesh: cx.mesh,
            service,
            shard,
            shards,
            max_value,
            bounds,
            ending,
        }))
    }
}

#[async_trait]
impl Service for StorageService {
    fn routes(self: Arc<Self>) -> Router {
        routes::router(self)
    }

    fn health(&self) -> Health {
        self.copy.as_ref().map_or_else(|| self.engine.health(), Follower::health)
    }

    fn staleness(&self) -> Option<Duration> {
        self.copy.as_ref().map(Follower::staleness)
    }

    /// Ends streams and refuses reads that wait for others. Writes are waited for by their requests.
    async fn drain(&self, _deadline: Instant) {
        self.ending.cancel();
        self.engine.prepare_to_close().await;
    }

    async fn stop(&self) -> Result<(), ServiceError> {
        self.ending.cancel();
        match &self.copy {
            Some(copy) => copy.stop().await,
            None => self.engine.stop().await,
        }
        Ok(())
    }
}
