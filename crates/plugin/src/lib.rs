//! What the author of a plugin sees.
//!
//! A service type is three objects, one for each of its lives: a [`Plugin`] that the process keeps, a [`Prepared`]
//! made of checked settings, and a [`Service`] that runs. The supervisor in the `runtime` crate drives them.
//! `docs/plugin-guide.org` goes from `cargo new` to a running cluster; `agent::main` is the main of an agent of your own.
//!
//! # Fencing
//!
//! Where shards have owners ([`Sharding::Owned`]), a node owns one by a [`Claim`] on the store. The claim says who *should*
//! write: a node that slept may believe for a while that it still has it. So the data itself must refuse a former owner.
//! [`DataLog`] does: its entries carry the claim's epoch, and whoever opened it under a lower one gets
//! [`DataLogError::Fenced`] and has written nothing.
//!
//! What to answer when the claim has passed: report it with [`Claim::fenced`], so that the supervisor looks at the store and
//! ends the role, and refuse the request with [`http::not_processed`], so that its sender may ask the next owner. Do so
//! only if nothing was done. Where the outcome of a write is not known, answer with [`http::problem`]: nobody may send it
//! again without a person's word.
//!
//! ```
//! use std::sync::{Arc, Mutex};
//!
//! use plugin::axum::{Router, extract::State, response::Response, routing::put};
//! use plugin::types::{ErrorKind, Problem, ReasonCode, ServiceType, Sharding};
//! use plugin::{
//!     Claim, Context, DataLog, DataLogError, Duty, Health, NoSettings, Plugin, Prepared, Service, ServiceError,
//!     SettingsError, async_trait, http, parse_settings, serde_json::Value,
//! };
//!
//! /// A note could not be written.
//! const LOG_CLOSED: ReasonCode = ReasonCode::new("log-closed");
//!
//! /// The service type `notes`: each shard keeps what is put into it.
//! struct Notes;
//!
//! impl Plugin for Notes {
//!     fn service_type(&self) -> ServiceType {
//!         "notes".parse().expect("the name follows the rule")
//!     }
//!     fn about(&self) -> &'static str {
//!         "keeps notes"
//!     }
//!     fn sharding(&self) -> Sharding {
//!         Sharding::Owned
//!     }
//!     fn prepare(&self, settings: &Value) -> Result<Box<dyn Prepared>, SettingsError> {
//!         parse_settings::<NoSettings>(settings)?;
//!         Ok(Box::new(Notes))
//!     }
//! }
//!
//! #[async_trait]
//! impl Prepared for Notes {
//!     async fn start(self: Box<Self>, cx: Context) -> Result<Arc<dyn Service>, ServiceError> {
//!         let (Duty::Primary(claim), Some(objects)) = (cx.duty, cx.objects) else {
//!             return Err(ServiceError::internal("notes have owners and no replicas"));
//!         };
//!         // From here on no former owner writes: what is read now is all that there is.
//!         let log = DataLog::open(objects, "log", claim.epoch()).await?;
//!         let (reader, mut notes, mut next) = (log.reader(), Vec::new(), 1);
//!         loop {
//!             let entries = reader.read(next).await?;
//!             let Some(last) = entries.last() else { break };
//!             next = last.number + 1;
//!             notes.extend(entries.into_iter().flat_map(|entry| entry.records));
//!         }
//!         let kept = Mutex::new(notes.len());
//!         Ok(Arc::new(Shard { log, claim, kept, failure: Mutex::default() }))
//!     }
//! }
//!
//! struct Shard {
//!     log: DataLog,
//!     claim: Claim,
//!     kept: Mutex<usize>,
//!     failure: Mutex<Option<String>>,
//! }
//!
//! async fn add(State(shard): State<Arc<Shard>>, note: String) -> Result<String, Response> {
//!     if let Err(error) = shard.log.append(note).await {
//!         *shard.failure.lock().expect("nobody panics with it") = Some(error.to_string());
//!         if let DataLogError::Fenced { .. } = error {
//!             shard.claim.fenced(error.to_string());
//!             let problem = Problem::new(ErrorKind::Misdirected, "misdirected", error.to_string());
//!             return Err(http::not_processed(&problem));
//!         }
//!         return Err(http::problem(&ServiceError::from(error).to_problem("not-kept")));
//!     }
//!     let mut kept = shard.kept.lock().expect("nobody panics with it");
//!     *kept += 1;
//!     Ok(format!("{kept} notes\n"))
//! }
//!
//! impl Service for Shard {
//!     fn routes(self: Arc<Self>) -> Router {
//!         Router::new().route("/", put(add)).with_state(self)
//!     }
//!     fn health(&self) -> Health {
//!         // Started again, it opens the log anew.
//!         let failure = self.failure.lock().expect("nobody panics with it");
//!         failure.clone().map_or(Health::Ready, |why| Health::failed(LOG_CLOSED, why))
//!     }
//! }
//!
//! # #[tokio::main]
//! # async fn main() {
//! plugin::conformance::check(&Notes, &plugin::serde_json::json!({})).await;
//! # }
//! ```

mod claim;
pub mod conformance;
mod context;
mod detach;
mod error;
pub mod http;
mod memory;
mod metrics;
mod net;
mod on_end;
pub mod queue;
mod registry;
mod replicated;
mod serve;
mod settings;
pub mod shard;
mod single_flight;
mod tasks;
pub mod testing;

// What an author of a plugin needs besides, in the versions that fit.
pub use async_trait::async_trait;
pub use store::object_store;
pub use {axum, bytes, schemars, serde, serde_json, tokio, tokio_util, tracing, types};

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use types::{Reason, ReasonCode, ServiceType, Sharding, Target};

pub use claim::{Claim, ClaimLost, Duty};
pub use context::{Context, Endpoints, Exposure};
pub use detach::Detach;
pub use error::ServiceError;
pub use memory::memory_limit;
pub use metrics::{Counter, Gauge, GaugeGuard, Histogram, Metrics};
pub use net::{BindError, bind};
pub use on_end::{BodyEnd, OnEnd, on_end};
pub use registry::{Registry, RegistryError};
pub use replicated::{Replicated, StateMachine};
pub use serve::{
    AcceptLimits, DrainingListener, InFlight, InFlightGuard, Peer, ServeLimits, Stop, accept, serve,
};
pub use settings::{
    NoSettings, SettingsError, SettingsMistake, check_settings, parse_settings, settings_schema,
};
pub use single_flight::{Landed, SingleFlight};
pub use store::{DataEntry, DataLog, DataLogError, DataLogReader, ObjectStore};
pub use tasks::{TaskFailure, Tasks};

/// A service type. Stateless; lives as long as the process.
pub trait Plugin: Send + Sync + 'static {
    /// Name in manifests, gossip and URLs. Never changes once released.
    fn service_type(&self) -> ServiceType;

    /// One line for people: what a node with this role does.
    fn about(&self) -> &'static str;

    /// Whether a role of this type has a shard.
    fn sharding(&self) -> Sharding;

    /// Which member may answer a request, told from its head alone. The path is the one below
    /// `/svc/{service}`.
    fn target(&self, head: &::http::request::Parts) -> Target {
        let _ = head;
        Target::Any
    }

    /// Whether a node may have a copy of a shard that another one owns. For types whose shards have owners.
    fn replicates(&self) -> bool {
        false
    }

    /// Whether a request may be sent again though it may have been acted on already, told from its head alone.
    ///
    /// By default what HTTP calls idempotent (RFC 9110, section 9.2.2). That is too much where the state is shared: a
    /// write that is repeated undoes what others wrote in between.
    fn may_repeat(&self, head: &::http::request::Parts) -> bool {
        head.method.is_idempotent()
    }

    /// The form of the settings as JSON Schema, for editors: [`settings_schema`] of their type. Each number has its range.
    fn settings_schema(&self) -> serde_json::Value {
        serde_json::json!({ "type": "object" })
    }

    /// The HTTP API of the service as the `paths` of an OpenAPI document, each below the service's own root: `/kv/{key}`.
    /// The agents' `/v1/openapi.json` shows them; `#/components/schemas/Problem` is there to be referred to.
    fn openapi_paths(&self) -> serde_json::Value {
        serde_json::json!({})
    }

    /// Checks settings. Pure: no I/O, no clock, no spawning. `agent validate` calls just this.
    fn prepare(&self, settings: &serde_json::Value) -> Result<Box<dyn Prepared>, SettingsError>;
}

/// Checked settings, ready to run once; the supervisor prepares anew for each start.
#[async_trait]
pub trait Prepared: Send + 'static {
    /// The addresses of its own that it will bind; port 0 is any free one. Two nodes on one machine that would bind the
    /// same are found before anything starts. Pure.
    fn listens(&self) -> Vec<SocketAddr> {
        Vec::new()
    }

    /// Acquires what the service needs. Background work goes through `cx.tasks`.
    async fn start(self: Box<Self>, cx: Context) -> Result<Arc<dyn Service>, ServiceError>;
}

/// A running service, owned by the supervisor.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// Mounted under `/svc/{service}` on the agent's listener.
    ///
    /// When the role ends, the requests inside are waited for, the bodies of their answers included, unless their
    /// handlers have [detached](Detach) them. Where shards have owners no client's pace may stretch the time without
    /// one: a request whose body still arrives 100 ms after the drain began is refused with `Coterie-Not-Processed`
    /// and its handler is dropped. So a handler there acts on nothing before it has the whole body.
    fn routes(self: Arc<Self>) -> axum::Router;

    /// Cheap, synchronous, asked on every probe.
    fn health(&self) -> Health;

    /// How far behind its owner's a replica's copy may be; nothing for all others.
    fn staleness(&self) -> Option<Duration> {
        None
    }

    /// Takes over new settings while it runs, or says that only a restart will do. Either way it goes on answering with
    /// what it had until then. Cancel-safe.
    async fn update(&self, prepared: Box<dyn Prepared>) -> Updated {
        let _ = prepared;
        Updated::NeedsRestart
    }

    /// Finishes queued work, within the deadline. New requests are already refused. Idempotent, cancel-safe.
    async fn drain(&self, deadline: Instant) {
        let _ = deadline;
    }

    /// Releases resources; runs after `drain` or its deadline. Idempotent.
    async fn stop(&self) -> Result<(), ServiceError> {
        Ok(())
    }
}

/// What became of new settings for a service that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Updated {
    /// It runs with them now.
    Updated,
    /// It runs as it did: to use them, it has to be stopped and started.
    NeedsRestart,
}

/// How a running service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Ready,
    /// It answers, but something is wrong.
    Degraded(Reason),
    /// It does not answer any more and must be restarted.
    Failed(Reason),
}

impl Health {
    /// It answers, but something is wrong. A service declares a code for each of its reasons; those that several services
    /// have are in [`types::reason`].
    pub fn degraded(code: ReasonCode, text: impl Into<String>) -> Self {
        Self::Degraded(Reason::new(code, text))
    }

    /// It does not answer any more and must be restarted.
    pub fn failed(code: ReasonCode, text: impl Into<String>) -> Self {
        Self::Failed(Reason::new(code, text))
    }
}
