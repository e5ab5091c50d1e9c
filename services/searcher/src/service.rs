//! The running service: a shard that opens, drains and closes, and the catalog of indexes beside it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use plugin::http::AnswerBuffer;
use plugin::shard::ShardMember;
use plugin::{
    Context, DrainingListener, ExpectedHttp, Expects, Health, ListenSetting, Prepared, Service, ServiceError,
};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use types::ReasonCode;

use crate::catalog::{AutoCreate, Catalog, Declared, Expiry};
use crate::es;
use crate::http::{self, Bodies};
use crate::query_pool::QueryPool;
use crate::settings::Settings;
use crate::shard::Shard;

/// The catalog can't be read.
const CATALOG_UNAVAILABLE: ReasonCode = ReasonCode::new("catalog-unavailable");
/// The memory of a member for large answers to slow readers, in bytes.
const ANSWERS: usize = 32 * 1024 * 1024;

/// How many copies of indexes are under way at once at a shard; each takes several megabytes of memory.
const COPIES: usize = 2;

/// A shard that this node owns, or has a replica of.
pub(crate) struct SearcherService {
    pub(crate) member: ShardMember,
    pub(crate) catalog: Catalog,
    pub(crate) declared: Declared,
    pub(crate) shard: Shard,
    /// The members of the cluster and the mesh.
    pub(crate) cx: Context,
    pub(crate) pool: QueryPool,
    pub(crate) bodies: Bodies,
    pub(crate) answers: AnswerBuffer,
    pub(crate) max_body: usize,
    /// Which indexes a first write creates, unless a request has set it.
    pub(crate) auto_create: AutoCreate,
    /// Permits to copy documents of this shard into another index.
    pub(crate) copies: Semaphore,
    /// The listener for Elasticsearch's API, if there is one.
    es: OnceLock<DrainingListener>,
    /// When the service was started.
    began: Instant,
    /// Cancelled when requests that wait for others have to end.
    pub(crate) ending: CancellationToken,
}

#[async_trait]
impl Prepared for Settings {
    fn listens(&self) -> Vec<ListenSetting> {
        let http = Some(ExpectedHttp { tls: false, http1: true });
        let setting = |address| ListenSetting {
            pointer: "/es_listen".to_owned(),
            name: es::NAME.to_owned(),
            address,
            expects: Expects { proxies: None, http },
        };
        self.es_address().map(setting).into_iter().collect()
    }

    async fn start(self: Box<Self>, cx: Context) -> Result<Arc<dyn Service>, ServiceError> {
        let member = ShardMember::of(&cx)?;
        let catalog = Catalog::start(&cx).await?;
        let limits = self.limits();
        let es = match self.es_address() {
            Some(address) => Some(es::open(&cx, address).await?),
            None => None,
        };
        let declared = Declared::new(self.indexes.clone());
        let shard = Shard::start(&cx, catalog.clone(), limits).await?;
        declared.start(&cx, &catalog);
        let (threads, waiting) = (self.query_threads.as_usize(), self.max_queries.as_usize());
        let cut = cx.metrics.counter("answers_cut", "Answers that broke off because nobody read them");
        let max_body = self.max_body.as_usize();
        let service = Arc::new(SearcherService {
            member,
            catalog,
            declared,
            shard,
            pool: QueryPool::new(threads, waiting, &cx.metrics),
            bodies: Bodies::new(max_body),
            answers: AnswerBuffer::new(ANSWERS, &cut),
            max_body,
            began: Instant::now(),
            auto_create: self.auto_create,
            copies: Semaphore::new(COPIES),
            es: OnceLock::new(),
            ending: cx.shutdown.child_token(),
            cx,
        });
        service.delete_old_indexes();
        if let Some(socket) = es {
            let listener = es::serve(&service, socket, self.es_hosts);
            service.es.set(listener).expect("it is set once");
        }
        Ok(service)
    }
}

impl SearcherService {
    /// Deletes indexes that are as old as their `delete_after`, in a task of the context.
    fn delete_old_indexes(self: &Arc<Self>) {
        let expiry = Expiry::new(&self.cx, self.catalog.clone(), self.declared.clone());
        let Some(mut expiry) = expiry.filter(|_| self.member.is_owner()) else { return };
        let (service, ending) = (Arc::clone(self), self.ending.clone());
        self.cx.tasks.spawn("old indexes", async move {
            while let Some(number) = ending.run_until_cancelled(expiry.next()).await {
                ending.run_until_cancelled(service.tell(number)).await;
            }
            Ok(())
        });
    }
}

#[async_trait]
impl Service for SearcherService {
    fn routes(self: Arc<Self>) -> Router {
        http::router(self)
    }

    /// The shard's own health counts most.
    fn health(&self) -> Health {
        match self.shard.health() {
            Health::Ready => {}
            worse @ (Health::Degraded(_) | Health::Failed(_)) => return worse,
        }
        if let Some(Health::Failed(why)) = self.es.get().map(DrainingListener::health) {
            return Health::Failed(why);
        }
        match self.catalog.failure() {
            Some(error) => Health::degraded(CATALOG_UNAVAILABLE, error.to_string()),
            None => self.declared.health(),
        }
    }

    /// Until the replica is open, the time since it began to open.
    fn staleness(&self) -> Option<Duration> {
        let is_replica = !self.member.is_owner();
        is_replica.then(|| self.shard.staleness().unwrap_or_else(|| self.began.elapsed()))
    }

    async fn drain(&self, deadline: Instant) {
        if let Some(listener) = self.es.get() {
            listener.drain(deadline).await;
        }
        self.ending.cancel();
        self.shard.drain(deadline).await;
    }

    async fn stop(&self) -> Result<(), ServiceError> {
        if let Some(listener) = self.es.get() {
            listener.stop().await;
        }
        self.ending.cancel();
        self.shard.stop().await;
        Ok(())
    }
}
