//! `agent apply`: writes the specs of services to the store before any node of the cluster runs.

mod owners;

use std::collections::BTreeMap;

use anyhow::Context;
use plugin::Registry;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{OpenError, SpecError, Specs, Store, StoreUrl};
use types::api::StoreInfo;
use types::apply::{Held, Ours};
use types::{ClusterId, ServiceName, ServiceType, Sharding, Spec};

use crate::output;

/// How often a write of a spec is attempted while others change the spec.
const ATTEMPTS: u32 = 5;

/// The request on standard input.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    /// The store that the cluster already uses, if it runs.
    #[serde(default)]
    uses: Option<StoreInfo>,
    /// What belongs to the cluster: nothing is written while a live owner of a shard does not belong to it. If absent,
    /// owners are not checked.
    #[serde(default)]
    ours: Option<Ours>,
    services: BTreeMap<ServiceName, Wanted>,
}

/// What a service should run with.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// Its type; if absent, the type that it is named after.
    #[serde(rename = "type", default)]
    service_type: Option<ServiceType>,
    #[serde(default)]
    settings: Value,
    /// Exactly this many shards.
    #[serde(default)]
    shards: Option<u32>,
    /// At least this many shards, if the store has no number yet.
    #[serde(default)]
    at_least: Option<u32>,
    /// Replicas of each shard.
    #[serde(default)]
    replicas: u32,
}

/// The answer on standard output.
#[derive(Debug, Default, Serialize)]
struct Answer {
    /// The numbers of the current specs.
    specs: BTreeMap<ServiceName, u64>,
    /// How many shards the services have, if that is fixed.
    shards: BTreeMap<ServiceName, u32>,
    /// The specs that were replaced.
    replaced: BTreeMap<ServiceName, Spec>,
    /// Live owners of shards that do not belong to the cluster.
    held: Vec<Held>,
    /// All mistakes.
    mistakes: Vec<Mistake>,
}

/// Why a spec was not written.
#[derive(Debug, Serialize)]
struct Mistake {
    /// The service; `None` for the store itself.
    service: Option<ServiceName>,
    message: String,
    hint: Option<String>,
}

/// Reads a request from standard input, writes its specs, and answers on standard output.
pub(crate) async fn run(registry: &Registry, url: &StoreUrl, cluster: &ClusterId) -> anyhow::Result<()> {
    let text = output::request()?;
    let request: Request = serde_json::from_str(&text)
        .context("standard input is not {\"services\": {NAME: {\"settings\": {}, \"shards\": 1}}}")?;
    let answer = match Store::open(url, cluster).await {
        Ok(store) => match request.uses.as_ref().filter(|uses| uses.id != store.info().id) {
            Some(uses) => another_store(uses),
            None => apply(registry, &store, request).await,
        },
        Err(error) => refused(&error),
    };
    output::print(&(serde_json::to_string(&answer)? + "\n"))
}

async fn apply(registry: &Registry, store: &Store, request: Request) -> Answer {
    match &request.ours {
        Some(ours) => match owners::others(store, ours).await {
            Ok(held) if held.is_empty() => settle(registry, store, request).await,
            Ok(held) => Answer { held, ..Answer::default() },
            Err(error) => {
                let mistake = Mistake { service: None, message: error.to_string(), hint: error.hint() };
                Answer { mistakes: vec![mistake], ..Answer::default() }
            }
        },
        None => settle(registry, store, request).await,
    }
}

fn refused(error: &OpenError) -> Answer {
    let mistake = Mistake { service: None, message: error.to_string(), hint: error.hint() };
    Answer { mistakes: vec![mistake], ..Answer::default() }
}

fn another_store(uses: &StoreInfo) -> Answer {
    let message = format!("the cluster runs on another store, {} at {}", uses.id, uses.url);
    let hint = "data does not move between stores: name that store, or run `ctl down` first to start over on this one";
    let mistake = Mistake { service: None, message, hint: Some(hint.to_owned()) };
    Answer { mistakes: vec![mistake], ..Answer::default() }
}

async fn settle(registry: &Registry, store: &Store, request: Request) -> Answer {
    let mut answer = Answer::default();
    let specs = store.specs();
    for (service, wanted) in request.services {
        let service = registry.normalized(service);
        let service_type = wanted.service_type.clone().or_else(|| service.default_type());
        let plugin = service_type.and_then(|service_type| registry.plugin(&service_type));
        let is_owned = plugin.is_some_and(|plugin| plugin.sharding() == Sharding::Owned);
        match settle_one(&specs, &service, &wanted, is_owned).await {
            Ok(Settled { number, shards, replaced }) => {
                answer.shards.extend(shards.map(|shards| (service.clone(), shards)));
                answer.replaced.extend(replaced.map(|spec| (service.clone(), spec)));
                answer.specs.insert(service, number);
            }
            Err((message, hint)) => {
                answer.mistakes.push(Mistake { service: Some(service), message, hint });
            }
        }
    }
    answer
}

/// The current spec of a service.
struct Settled {
    number: u64,
    shards: Option<u32>,
    /// The previous spec, if it was different.
    replaced: Option<Spec>,
}

/// Returns the current spec; or the mistake and a hint.
async fn settle_one(
    specs: &Specs,
    service: &ServiceName,
    wanted: &Wanted,
    is_owned: bool,
) -> Result<Settled, (String, Option<String>)> {
    let failed = |error: &store::StoreError| (error.to_string(), error.hint());
    for _ in 0..ATTEMPTS {
        let known = specs.latest(service).await.map_err(|error| failed(&error))?;
        let fixed = known.as_ref().and_then(|known| known.spec.shards);
        let shards = is_owned.then(|| wanted.shards.or(fixed).or(wanted.at_least).unwrap_or(1));
        if let (Some(fixed), Some(least)) = (fixed, wanted.at_least)
            && fixed < least
        {
            let message =
                format!("{service} has {fixed} shards on the store, and a node wants shard {}", least - 1);
            return Err((message, Some("the number of shards never changes once it is written".to_owned())));
        }
        let spec = Spec {
            service_type: wanted.service_type.clone(),
            settings: wanted.settings.clone(),
            shards,
            replicas: wanted.replicas,
        };
        let spec = spec.written_for(service);
        let last = match &known {
            Some(known) if known.spec == spec => {
                return Ok(Settled { number: known.number, shards, replaced: None });
            }
            Some(known) => known.number,
            None => 0,
        };
        match specs.put(service, last, &spec).await {
            Ok(number) => {
                return Ok(Settled { number, shards, replaced: known.map(|known| known.spec) });
            }
            Err(SpecError::Changed { .. }) => {}
            Err(error @ SpecError::ShardsFixed { .. }) => {
                let hint = "the number determines which shard a key belongs to; for another number use another cluster or another store";
                return Err((error.to_string(), Some(hint.to_owned())));
            }
            Err(error @ (SpecError::TypeFixed { .. } | SpecError::Similar { .. })) => {
                return Err((error.to_string(), error.hint()));
            }
            Err(SpecError::Store(error)) => return Err(failed(&error)),
        }
    }
    Err((format!("others kept changing the spec of {service}"), Some("try again in a moment".to_owned())))
}
