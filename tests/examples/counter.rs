//! An agent with its own service type: `counter` counts by name, durably, in shards that have owners and replicas.
//!
//! Through a gateway, `POST /counter/NAME` adds one and `GET /counter/NAME` returns the count. It uses only the crate
//! `agent`. `docs/plugin-guide.org` explains it.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use agent::plugin::axum::http::{Uri, request::Parts};
use agent::plugin::axum::{Router, extract::State, response::Response, routing};
use agent::plugin::types::{KeyHash, ServiceType, Sharding, Target};
use agent::plugin::{
    Context, Health, NoSettings, Plugin, Prepared, Replicated, Service, ServiceError, SettingsError,
};
use agent::plugin::{StateMachine, async_trait, parse_settings, serde_json::Value};

fn main() -> ExitCode {
    agent::main(agent::builtin().with(Counter))
}

struct Counter;

impl Plugin for Counter {
    fn service_type(&self) -> ServiceType {
        "counter".parse().expect("the name follows the rule")
    }
    fn about(&self) -> &'static str {
        "counts by name: POST adds one, GET returns the count"
    }
    fn sharding(&self) -> Sharding {
        Sharding::Owned
    }
    fn replicates(&self) -> bool {
        true
    }
    /// The name decides the shard.
    fn target(&self, head: &Parts) -> Target {
        Target::Key(hash(&head.uri))
    }
    fn prepare(&self, settings: &Value) -> Result<Box<dyn Prepared>, SettingsError> {
        parse_settings::<NoSettings>(settings)?;
        Ok(Box::new(Counter))
    }
}

/// A name is the whole path, as written.
fn hash(uri: &Uri) -> KeyHash {
    KeyHash::of(uri.path().as_bytes())
}

#[async_trait]
impl Prepared for Counter {
    async fn start(self: Box<Self>, cx: Context) -> Result<Arc<dyn Service>, ServiceError> {
        Ok(Arc::new(Shard(Replicated::start(&cx, "log").await?)))
    }
}

/// How often each name was counted.
#[derive(Default)]
struct Counts(BTreeMap<String, u64>);

/// A record of the log is a name whose count rises by one.
impl StateMachine for Counts {
    fn apply(&mut self, name: &[u8]) {
        *self.0.entry(String::from_utf8_lossy(name).into_owned()).or_default() += 1;
    }
}

/// A shard of the counter, on its owner or on a replica.
struct Shard(Replicated<Counts>);

impl Shard {
    async fn add(State(shard): State<Arc<Self>>, uri: Uri) -> Result<String, Response> {
        shard.0.check(hash(&uri))?;
        shard.0.write(uri.path().to_owned()).await?;
        Ok(shard.count(&uri))
    }

    async fn get(State(shard): State<Arc<Self>>, uri: Uri) -> Result<String, Response> {
        shard.0.check(hash(&uri))?;
        Ok(shard.count(&uri))
    }

    fn count(&self, uri: &Uri) -> String {
        let count = self.0.read(|counts| counts.0.get(uri.path()).copied());
        format!("{}\n", count.unwrap_or_default())
    }
}

impl Service for Shard {
    fn routes(self: Arc<Self>) -> Router {
        Router::new().route("/{name}", routing::get(Self::get).post(Self::add)).with_state(self)
    }
    fn health(&self) -> Health {
        self.0.health()
    }
    fn staleness(&self) -> Option<Duration> {
        self.0.staleness()
    }
}
