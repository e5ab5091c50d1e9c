//! What `GET /backends` shows: each backend of each listener, and why it gets connections or not.

use serde::Serialize;
use tokio::time::Instant;

use crate::backend::{Slot, Standing};
use crate::listener::Listener;
use crate::plan::Source;
use crate::pool::Pool;
use crate::service::Balancer;

/// All listeners of a balancer.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    node: String,
    listeners: Vec<ShownListener>,
}

#[derive(Debug, Serialize)]
struct ShownListener {
    name: String,
    address: String,
    mode: &'static str,
    balance: &'static str,
    connections: i64,
    queued: usize,
    targets: Vec<ShownTarget>,
}

#[derive(Debug, Serialize)]
struct ShownTarget {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    hosts: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    listener: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    backends: Vec<ShownBackend>,
}

#[derive(Debug, Serialize)]
struct ShownBackend {
    address: String,
    named: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<String>,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    weight: u32,
    backup: bool,
    connections: u32,
    connections_total: u64,
    failures_total: u64,
}

pub(crate) fn of(balancer: &Balancer) -> Shown {
    let listeners = balancer.listeners.iter().map(|(listener, _)| shown_listener(listener));
    Shown { node: balancer.node.to_string(), listeners: listeners.collect() }
}

fn shown_listener(listener: &Listener) -> ShownListener {
    ShownListener {
        name: listener.name.clone(),
        address: listener.address.to_string(),
        mode: "tcp",
        balance: listener.forward.balance.as_str(),
        connections: listener.meters.active(),
        queued: listener.admission.queued(),
        targets: listener.pools.iter().map(|pool| shown_target(pool)).collect(),
    }
}

fn shown_target(pool: &Pool) -> ShownTarget {
    let (service, listener) = match &pool.target.source {
        Source::Service { service, listener } => (Some(service.to_string()), Some(listener.clone())),
        Source::Backends(_) => (None, None),
    };
    let why = pool.trouble();
    let now = Instant::now();
    let backends = pool.look(|slots, lack| {
        let unresolved =
            lack.unresolved.iter().filter(|(name, _)| !slots.iter().any(|slot| slot.of.named == *name));
        let without_address = unresolved.map(|(name, why)| ShownBackend {
            address: String::new(),
            named: name.clone(),
            member: None,
            state: "unresolved",
            why: Some(why.clone()),
            weight: 0,
            backup: false,
            connections: 0,
            connections_total: 0,
            failures_total: 0,
        });
        slots.iter().map(|slot| shown_backend(slot, now)).chain(without_address).collect()
    });
    ShownTarget { hosts: pool.target.hosts.clone(), service, listener, why, backends }
}

fn shown_backend(slot: &Slot, now: Instant) -> ShownBackend {
    let standing = slot.standing(now);
    let why = match standing {
        Standing::Up => slot.failure.as_ref().map(|why| format!("the last connect failed: it {why}")),
        Standing::Ejected => {
            let last = slot.failure.as_deref().unwrap_or("accepts no connections");
            Some(format!("{} failed connects in a row: it {last}", slot.ejection.row() + 1))
        }
        Standing::Down => {
            Some(format!("its checks fail: it {}", slot.checked.why().unwrap_or("does not answer")))
        }
        Standing::Draining => {
            Some("it drains, or is not listed any more; its connections are ending".to_owned())
        }
    };
    ShownBackend {
        address: slot.of.address.to_string(),
        named: slot.of.named.clone(),
        member: slot.of.member.as_ref().map(|(node, _)| node.to_string()),
        state: standing.as_str(),
        why,
        weight: slot.of.weight,
        backup: slot.of.is_backup,
        connections: slot.connections,
        connections_total: slot.opened,
        failures_total: slot.failed,
    }
}
