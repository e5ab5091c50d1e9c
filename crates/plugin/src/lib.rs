//! What the author of a plugin sees.
//!
//! A service type is three objects, one for each of its lives: a [`Plugin`] that the process keeps, a [`Prepared`]
//! made of checked settings, and a [`Service`] that runs. The supervisor in the `runtime` crate drives them.

mod claim;
pub mod conformance;
mod context;
mod detach;
mod error;
mod guard;
mod least_rate;
mod memory;
mod metrics;
mod net;
mod on_end;
mod registry;
pub mod response;
mod serve;
mod settings;
mod single_flight;
mod tasks;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use types::{ServiceType, Sharding, Target};

pub use claim::{Claim, ClaimLost, Duty};
pub use context::{Context, Endpoints, Exposure};
pub use detach::Detach;
pub use error::ServiceError;
pub use guard::{Guard, HostError, HostPattern, Hosts};
pub use least_rate::{LeastRate, TooSlow};
pub use memory::memory_limit;
pub use metrics::{Counter, Gauge, Histogram, Metrics};
pub use net::{BindError, bind};
pub use on_end::{BodyEnd, OnEnd, on_end};
pub use registry::{Registry, RegistryError};
pub use serve::{
    AcceptLimits, DrainingListener, InFlight, InFlightGuard, Peer, ServeLimits, Stop, accept, serve,
};
pub use settings::{SettingsError, SettingsMistake, check_settings, parse_settings, settings_schema};
pub use single_flight::{Landed, SingleFlight};
pub use store::ObjectStore;
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
    /// `/svc/{service_type}`.
    fn target(&self, head: &http::request::Parts) -> Target {
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
    fn may_repeat(&self, head: &http::request::Parts) -> bool {
        head.method.is_idempotent()
    }

    /// The form of the settings as JSON Schema, for editors: [`settings_schema`] of their type. Each number has its range.
    fn settings_schema(&self) -> serde_json::Value {
        serde_json::json!({ "type": "object" })
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
    /// Mounted under `/svc/{service_type}` on the agent's listener.
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

    /// Finishes queued work, within the deadline. New requests are already refused. Idempotent, cancel-safe.
    async fn drain(&self, deadline: Instant) {
        let _ = deadline;
    }

    /// Releases resources; runs after `drain` or its deadline. Idempotent.
    async fn stop(&self) -> Result<(), ServiceError> {
        Ok(())
    }
}

/// How a running service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Ready,
    /// It answers, but something is wrong.
    Degraded(String),
    /// It does not answer any more and must be restarted.
    Failed(String),
}
