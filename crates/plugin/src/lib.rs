//! The API for plugins: the traits that a service type implements, and the parts that services share.
//!
//! A service type is three objects, one for each stage: a [`Plugin`], which exists as long as the process; a
//! [`Prepared`], which holds checked settings; and a [`Service`], which runs. The supervisor in the `runtime` crate
//! drives them. `docs/plugin-guide.org` leads from `cargo new` to a running cluster; the `main` of your own agent calls
//! `agent::main`.
//!
//! # Fencing
//!
//! If shards have owners ([`Sharding::Owned`]), a node owns a shard through a [`Claim`] on the store. The claim only
//! states which node *should* write: a node that was paused may act on an outdated claim for a while. So the data itself
//! must reject writes of a former owner. [`DataLog`] does: its entries carry the claim's epoch, and a writer that opened
//! the log under a lower epoch gets [`DataLogError::Fenced`] and has written nothing.
//!
//! When the claim has passed to another node, report that with [`Claim::fenced`], so that the supervisor checks the store
//! and ends the role. If nothing was done, refuse the request with [`http::not_processed`], so that its sender can send it
//! to the new owner. If the outcome of a write is unknown, answer with [`http::problem`]: such a request must not be sent
//! again without a person's decision.
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
//! /// The service type `notes`: each shard stores the notes that are put into it.
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
//!         // From here on no former owner can write, so the entries read now are complete.
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
//!         *shard.failure.lock().expect("no holder of the lock panics") = Some(error.to_string());
//!         if let DataLogError::Fenced { .. } = error {
//!             shard.claim.fenced(error.to_string());
//!             let problem = Problem::new(ErrorKind::Misdirected, "misdirected", error.to_string());
//!             return Err(http::not_processed(&problem));
//!         }
//!         return Err(http::problem(&ServiceError::from(error).to_problem("not-kept")));
//!     }
//!     let mut kept = shard.kept.lock().expect("no holder of the lock panics");
//!     *kept += 1;
//!     Ok(format!("{kept} notes\n"))
//! }
//!
//! impl Service for Shard {
//!     fn routes(self: Arc<Self>) -> Router {
//!         Router::new().route("/", put(add)).with_state(self)
//!     }
//!     fn health(&self) -> Health {
//!         // After `Failed` the supervisor restarts the service, which reopens the log.
//!         let failure = self.failure.lock().expect("no holder of the lock panics");
//!         failure.clone().map_or(Health::Ready, |why| Health::failed(LOG_CLOSED, why))
//!     }
//! }
//!
//! # #[tokio::main]
//! # async fn main() {
//! plugin::conformance::check(&Notes, &plugin::serde_json::json!({})).await;
//! # }
//! ```

pub mod access_log;
mod buffer;
pub mod cache;
pub mod check;
mod claim;
mod client;
pub mod client_addr;
pub mod conformance;
mod context;
mod cores;
mod counted_body;
mod detach;
mod disk_cache;
mod error;
mod health;
pub mod http;
pub mod http_listener;
mod listen_setting;
mod listener_change;
mod listener_tls;
mod log_limit;
mod memory;
mod metrics;
mod net;
mod on_end;
pub mod proxy_protocol;
pub mod queue;
mod registry;
mod replicated;
pub mod retry;
mod serve;
mod server_ca;
mod settings;
pub mod shard;
mod single_flight;
mod size;
mod tasks;
pub mod testing;
mod tls;
pub mod tunnel;

// Crates that plugins use as well, in the versions that this crate uses.
pub use async_trait::async_trait;
pub use store::object_store;
pub use {axum, bytes, schemars, serde, serde_json, tokio, tokio_util, tracing, types};

use std::any::Any;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use types::{Reason, ReasonCode, ServiceType, Sharding, Target};

pub use buffer::Buffer;
pub use claim::{Claim, ClaimLost, Duty};
pub use client::{ClientGuard, ClientKey, Clients};
pub use context::{Context, Endpoints, Exposure};
pub use cores::CoreListener;
pub use counted_body::CountedBody;
pub use detach::Detach;
pub use disk_cache::DiskCache;
pub use error::ServiceError;
pub use listen_setting::{
    ExpectedHttp, Expects, ListenSetting, Sends, SentContent, TargetListener, TargetSetting,
};
pub use listener_change::{EndpointsBefore, OpenAddress, continued, overlaps, with_scheme};
pub use listener_tls::{NextTls, WantedTls, require_usable};
pub use memory::memory_limit;
pub use mesh::{is_proxy, proxy_refusal};
pub use metrics::{COMMON_PREFIX, Counter, Gauge, GaugeGuard, Histogram, Metrics};
pub use net::{BindError, bind};
pub use on_end::{BodyEnd, OnEnd, on_end};
pub use registry::{Registry, RegistryError};
pub use replicated::{Replicated, StateMachine};
pub use serve::{
    AcceptLimits, Asked, DrainingListener, InFlight, InFlightGuard, ListenerMeters, OnRefused, Peer,
    PerClient, Protocols, RefusalReason, RefusedHead, ServeLimits, Stop, accept, serve,
};
pub use server_ca::server_ca_warning;
pub use settings::{
    NoSettings, SettingsError, SettingsMistake, absolute_path, check_settings, parse_settings, resolve_path,
    settings_schema,
};
pub use single_flight::{Landed, SingleFlight};
pub use size::{Size, SizeError};
pub use store::{DataEntry, DataLog, DataLogError, DataLogReader, ObjectStore};
pub use tasks::{TaskFailure, Tasks};
pub use tls::{
    CertificateFacts, CertificateFiles, CertificateNames, ClientAuth, ClientCertificate, NewCertificates,
    Tls, TlsSession,
};

/// A service type. Stateless; exists as long as the process.
pub trait Plugin: Send + Sync + 'static {
    /// Name in manifests, gossip and URLs. Never changes once released.
    fn service_type(&self) -> ServiceType;

    /// What a node with this role does, in one line for people.
    fn about(&self) -> &'static str;

    /// Whether a role of this type has a shard.
    fn sharding(&self) -> Sharding;

    /// Which member may answer a request, judged by its head alone. The path in `head` is relative to `/svc/{service}`.
    fn target(&self, head: &::http::request::Parts) -> Target {
        let _ = head;
        Target::Any
    }

    /// Whether shards may have replicas besides their owner. Only for types whose shards have owners.
    fn replicates(&self) -> bool {
        false
    }

    /// Whether a request may be sent again although it may have been processed already, judged by its head alone.
    ///
    /// By default true for the methods that HTTP calls idempotent (RFC 9110, section 9.2.2). That is too permissive where
    /// clients share state: a repeated write undoes what others wrote in between.
    fn may_repeat(&self, head: &::http::request::Parts) -> bool {
        head.method.is_idempotent()
    }

    /// The JSON Schema of the settings, for editors: [`settings_schema`] of their type. Give each number its range.
    fn settings_schema(&self) -> serde_json::Value {
        serde_json::json!({ "type": "object" })
    }

    /// The HTTP API of the service as the `paths` of an OpenAPI document, each relative to the service's root: `/kv/{key}`.
    /// They become part of the agents' `/v1/openapi.json`, and may refer to `#/components/schemas/Problem`.
    fn openapi_paths(&self) -> serde_json::Value {
        serde_json::json!({})
    }

    /// Makes the paths of files in settings absolute that are relative to `folder`, that of the manifest. Whatever is no path
    /// stays as it is, even if it is wrong. Pure.
    fn resolve_files(&self, settings: &mut serde_json::Value, folder: &Path) {
        let (_, _) = (settings, folder);
    }

    /// Reads the files that checked settings name, and reports what would not work with them now. For `ctl validate`: these
    /// are warnings, since files may change, or be on another machine. Paths are absolute. May block.
    fn check_files(&self, settings: &serde_json::Value) -> Vec<SettingsMistake> {
        let _ = settings;
        Vec::new()
    }

    /// The prefix of the names of its metrics: `coterie_{type}` unless the plugin has a shorter one.
    fn metrics_prefix(&self) -> String {
        format!("{COMMON_PREFIX}_{}", self.service_type())
    }

    /// Checks settings. Pure: no I/O, no clock, no spawning. `agent validate` calls only this.
    fn prepare(&self, settings: &serde_json::Value) -> Result<Box<dyn Prepared>, SettingsError>;
}

/// Checked settings, ready to be started once. The supervisor calls [`Plugin::prepare`] again for each start.
///
/// A running service that applies new settings downcasts them to its own type: see [`prepared_as`].
#[async_trait]
pub trait Prepared: Any + Send + 'static {
    /// The addresses that the service itself will bind; port 0 is any free port. If two nodes on one machine would bind
    /// the same address, or other settings name a listener that is not among them, that is reported before anything starts.
    /// Pure.
    fn listens(&self) -> Vec<ListenSetting> {
        Vec::new()
    }

    /// The other services to which this one forwards. For `ctl validate`, which reports those that the manifest does not have.
    /// Pure.
    fn targets(&self) -> Vec<TargetSetting> {
        Vec::new()
    }

    /// Acquires what the service needs and starts it. Spawn background work with `cx.tasks`.
    async fn start(self: Box<Self>, cx: Context) -> Result<Arc<dyn Service>, ServiceError>;
}

/// A running service, owned by the supervisor.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// The routes that are mounted under `/svc/{service}` on the agent's listener.
    ///
    /// When the role ends, the supervisor waits for running requests, including the bodies of their answers, unless their
    /// handlers have [detached](Detach) them. If shards have owners, a slow client must not prolong the time without an
    /// owner: a request whose body is still arriving 100 ms after the drain began is refused with `Coterie-Not-Processed`
    /// and its handler is dropped. So a handler of such a service must have the whole body before it does anything.
    fn routes(self: Arc<Self>) -> axum::Router;

    /// The current health. Called on every probe, so it must be cheap.
    fn health(&self) -> Health;

    /// How far a replica may be behind the owner of its shard; `None` if this is no replica.
    fn staleness(&self) -> Option<Duration> {
        None
    }

    /// Applies new settings while the service runs: all of them, or none. Requests in flight finish with the settings that
    /// they began with, and open connections stay open.
    ///
    /// Called when the service's spec has changed, one call at a time. The supervisor limits the time
    /// ([`types::limits::UPDATE`]) and then drops the future, as it does when the node leaves: the service must then run
    /// with the old settings, or with the new ones.
    async fn update(&self, prepared: Box<dyn Prepared>) -> Updated {
        let _ = prepared;
        Updated::NeedsRestart(Vec::new())
    }

    /// Finishes queued work before the deadline. New requests are already refused. Idempotent, cancel-safe.
    async fn drain(&self, deadline: Instant) {
        let _ = deadline;
    }

    /// Releases resources. Called after `drain` has returned or its deadline has passed. Idempotent.
    async fn stop(&self) -> Result<(), ServiceError> {
        Ok(())
    }
}

/// The outcome of [`Service::update`].
#[derive(Debug)]
#[must_use]
pub enum Updated {
    /// The service now runs with the new settings.
    Applied,
    /// The service still runs with its old settings, all of them; it must be restarted to use the new ones. The list has the
    /// settings that need it, as JSON pointers (RFC 6901): `/listeners/0/protocols`. If it is empty, all that have changed do.
    NeedsRestart(Vec<String>),
    /// The service still runs with its old settings, all of them: the new ones can't be used here. If the error is of the
    /// kind [`Unavailable`](types::ErrorKind::Unavailable), the supervisor tries again from time to time.
    Failed(ServiceError),
}

/// The checked settings of a service's own type, for [`Service::update`].
///
/// # Errors
/// If they are another type's, which would be a bug of the caller.
pub fn prepared_as<T: Prepared>(prepared: Box<dyn Prepared>) -> Result<Box<T>, ServiceError> {
    let prepared: Box<dyn Any> = prepared;
    prepared.downcast().map_err(|_| ServiceError::internal("the settings are those of another service type"))
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
