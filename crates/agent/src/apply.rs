//! `agent apply`: settles on the store what services run with, before any node of the cluster runs.

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

/// How often a spec is written while others change it.
const ATTEMPTS: u32 = 5;

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    /// The store that the cluster uses already, if it runs.
    #[serde(default)]
    uses: Option<StoreInfo>,
    /// Who belongs to the cluster: nothing is written while anybody else who answers owns a shard. Without it nobody is
    /// asked.
    #[serde(default)]
    ours: Option<Ours>,
    services: BTreeMap<ServiceName, Wanted>,
}

/// What a service should run with.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// Its type; the one that it is named after if absent.
    #[serde(rename = "type", default)]
    service_type: Option<ServiceType>,
    #[serde(default)]
    settings: Value,
    /// Exactly so many shards.
    #[serde(default)]
    shards: Option<u32>,
    /// At least so many, for a store that says nothing yet.
    #[serde(default)]
    at_least: Option<u32>,
    /// Copies of each shard.
    #[serde(default)]
    replicas: u32,
}

/// What is answered.
#[derive(Debug, Default, Serialize)]
struct Answer {
    /// The numbers of the specs that hold now.
    specs: BTreeMap<ServiceName, u64>,
    /// How many shards they have, where that is fixed.
    shards: BTreeMap<ServiceName, u32>,
    /// The specs that were replaced.
    replaced: BTreeMap<ServiceName, Spec>,
    /// Owners of shards that answer and do not belong to the cluster.
    held: Vec<Held>,
    /// All that is wrong.
    mistakes: Vec<Mistake>,
}

/// What could not be settled.
#[derive(Debug, Serialize)]
struct Mistake {
    /// The service, or none for the store itself.
    service: Option<ServiceName>,
    message: String,
    hint: Option<String>,
}

/// Reads a question from standard input, settles it, and answers on standard output.
pub(crate) async fn run(registry: &Registry, url: &StoreUrl, cluster: &ClusterId) -> anyhow::Result<()> {
    let text = output::question()?;
    let question: Question = serde_json::from_str(&text)
        .context("standard input is not {\"services\": {NAME: {\"settings\": {}, \"shards\": 1}}}")?;
    let answer = match Store::open(url, cluster).await {
        Ok(store) => match question.uses.as_ref().filter(|uses| uses.id != store.info().id) {
            Some(uses) => another_store(uses),
            None => apply(registry, &store, question).await,
        },
        Err(error) => refused(&error),
    };
    output::print(&(serde_json::to_string(&answer)? + "\n"))
}

async fn apply(registry: &Registry, store: &Store, question: Question) -> Answer {
    match &question.ours {
        Some(ours) => match owners::others(store, ours).await {
            Ok(held) if held.is_empty() => settle(registry, store, question).await,
            Ok(held) => Answer { held, ..Answer::default() },
            Err(error) => {
                let mistake = Mistake { service: None, message: error.to_string(), hint: error.hint() };
                Answer { mistakes: vec![mistake], ..Answer::default() }
            }
        },
        None => settle(registry, store, question).await,
    }
}

fn refused(error: &OpenError) -> Answer {
    let mistake = Mistake { service: None, message: error.to_string(), hint: error.hint() };
    Answer { mistakes: vec![mistake], ..Answer::default() }
}

fn another_store(uses: &StoreInfo) -> Answer {
    let message = format!("the cluster runs on another store, {} at {}", uses.id, uses.url);
    let hint =
        "keys do not move by themselves: name that store, or `ctl down` first to begin anew on this one";
    let mistake = Mistake { service: None, message, hint: Some(hint.to_owned()) };
    Answer { mistakes: vec![mistake], ..Answer::default() }
}

async fn settle(registry: &Registry, store: &Store, question: Question) -> Answer {
    let mut answer = Answer::default();
    let specs = store.specs();
    for (service, wanted) in question.services {
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

/// The spec that holds.
struct Settled {
    number: u64,
    shards: Option<u32>,
    /// The one before, if it was another one.
    replaced: Option<Spec>,
}

/// The spec that holds; or what is wrong and what to do about it.
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
                let hint =
                    "keys lie in their shards; for another number use another cluster or another store";
                return Err((error.to_string(), Some(hint.to_owned())));
            }
            Err(error @ (SpecError::TypeFixed { .. } | SpecError::Similar { .. })) => {
                return Err((error.to_string(), error.hint()));
            }
            Err(SpecError::Store(error)) => return Err(failed(&error)),
        }
    }
    Err((format!("the spec of {service} is changed all the time"), Some("try again in a moment".to_owned())))
}
