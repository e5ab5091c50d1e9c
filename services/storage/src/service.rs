//! The running service: a shard that opens, drains and closes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use mesh::Mesh;
use plugin::shard::ShardMember;
use plugin::{Context, Duty, Health, Prepared, Service, ServiceError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use types::ErrorKind;
use types::range::NumberIn;

use crate::engine::data_clock::WallClock;
use crate::engine::log_files::Seen;
use crate::engine::{Engine, EngineError, Place};
use crate::http::{self, Buffers};
use crate::meters::Meters;
use crate::replica::{Replica, Source};
use crate::settings::Settings;

/// How long the database may take to open; after that the start fails.
const OPEN: Duration = Duration::from_secs(15);

/// How long the start waits for a replica to open; after that it succeeds without it.
const OPEN_REPLICA: Duration = Duration::from_secs(3);

/// A shard that this node owns, or has a replica of.
pub(crate) struct StorageService {
    pub(crate) member: ShardMember,
    /// The shard's data; refuses everything where this node has a replica.
    pub(crate) engine: Engine,
    /// The replica, if this node has one.
    pub(crate) replica: Option<Replica>,
    pub(crate) mesh: Mesh,
    pub(crate) max_value: usize,
    /// The memory that answers to slow readers may hold.
    pub(crate) buffers: Buffers,
    /// Cancelled when endless streams have to end.
    pub(crate) ending: CancellationToken,
}

#[async_trait]
impl Prepared for Settings {
    async fn start(self: Box<Self>, cx: Context) -> Result<Arc<dyn Service>, ServiceError> {
        let member = ShardMember::of(&cx)?;
        let objects = cx.objects.clone().ok_or_else(|| {
            ServiceError::internal(format!("a member of `{}` was given no object store", cx.role))
        })?;
        let stop = cx.shutdown.child_token();
        let disk = cx.disk_cache("storage", self.disk_cache.map(NumberIn::as_usize));
        let (engine, replica) = if let Duty::Primary(claim) = &cx.duty {
            let folder = format!("{}/data/{}/{}", cx.view.borrow().cluster(), member.service, member.shard);
            let place = Place { objects, folder, poll: cx.objects_poll, wall: WallClock::system(), disk };
            let engine = Engine::start(place, claim.clone(), &self, &cx.metrics, &cx.tasks, stop);
            match engine.opened(OPEN).await {
                // Another node would find the same damage: the shard stays here, and its health reports it.
                Ok(()) | Err(EngineError::Broken(_)) => {}
                Err(error @ EngineError::Passed(_)) => {
                    return Err(ServiceError::new(ErrorKind::Conflict, error.to_string()));
                }
                Err(error) => return Err(ServiceError::unavailable(error.to_string())),
            }
            (engine, None)
        } else {
            let meters = Meters::new(&cx.metrics, &Seen::default());
            let engine = Engine::none(Arc::clone(&objects), &self, meters.clone());
            let source = Source { objects, poll: cx.objects_poll, disk };
            let replica = Replica::start(source, &self, meters, &cx.tasks, stop);
            // There may be no data yet, or no store; the replica keeps trying.
            replica.tried(OPEN_REPLICA).await;
            (engine, Some(replica))
        };
        let (max_value, buffers) = (self.max_value.as_usize(), Buffers::new(&self, engine.meters()));
        let ending = cx.shutdown.child_token();
        Ok(Arc::new(StorageService { member, engine, replica, mesh: cx.mesh, max_value, buffers, ending }))
    }
}

#[async_trait]
impl Service for StorageService {
    fn routes(self: Arc<Self>) -> Router {
        http::router(self)
    }

    fn health(&self) -> Health {
        self.replica.as_ref().map_or_else(|| self.engine.health(), Replica::health)
    }

    fn staleness(&self) -> Option<Duration> {
        self.replica.as_ref().map(Replica::staleness)
    }

    /// Ends streams, and refuses reads that wait for others. Writes end with their requests.
    async fn drain(&self, _deadline: Instant) {
        self.ending.cancel();
        self.engine.prepare_to_close().await;
    }

    async fn stop(&self) -> Result<(), ServiceError> {
        self.ending.cancel();
        match &self.replica {
            Some(replica) => replica.stop().await,
            None => self.engine.stop().await,
        }
        Ok(())
    }
}
