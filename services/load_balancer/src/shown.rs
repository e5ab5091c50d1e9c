//! What `GET /backends` shows: each backend of each listener, and why it gets connections or not.

use mesh::BaseUrl;
use serde::Serialize;
use tokio::time::Instant;
use types::ServiceName;
use types::backends::{Backend, BackendState};

use crate::backend::{Slot, Standing};
use crate::balancer::Balancer;
use crate::http::front::Front;
use crate::listener::Listener;
use crate::listeners::Running;
use crate::plan::Source;
use crate::pool::Pool;
use crate::settings::Mode;

/// Why a backup that is up may get nothing.
const BACKUP: &str = "a backup: it gets connections only while no other backend is up";

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
    weight: f64,
    backup: bool,
    connections: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    connections_total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failures_total: Option<u64>,
}

pub(crate) fn of(balancer: &Balancer) -> Shown {
    let listeners = balancer.listeners.lock().running.iter().map(shown_listener).collect();
    Shown { node: balancer.cx.node.to_string(), listeners }
}

fn shown_listener(running: &Running) -> ShownListener {
    let listener: &Listener = &running.live.load();
    let forward = &listener.forward;
    ShownListener {
        name: listener.name.clone(),
        address: running.address.to_string(),
        mode: if forward.is_http { Mode::Http } else { Mode::Tcp }.as_str(),
        balance: forward.balance.as_str(),
        connections: listener.lasting.meters.active(),
        queued: listener.lasting.admission.queued(),
        targets: match listener.front.as_ref().and_then(|front| Some((front, front.service.as_ref()?))) {
            Some((front, (service, _))) => vec![shown_service(front, service)],
            None => listener.pools.iter().map(|pool| shown_target(pool)).collect(),
        },
    }
}

/// The members of a service whose API is the target.
fn shown_service(front: &Front, service: &ServiceName) -> ShownTarget {
    let backends = front.mesh.backends(service).backends;
    let shown = |backend: &Backend| {
        let state = match backend.state {
            BackendState::Serving | BackendState::SlowStart => Standing::Up,
            BackendState::Unreachable => Standing::Unreachable,
            BackendState::Down | BackendState::NotServing => Standing::Down,
            BackendState::Ejected => Standing::Ejected,
            BackendState::Draining => Standing::Draining,
        };
        let member = backend.node.as_ref().map(ToString::to_string);
        ShownBackend {
            address: backend.address.clone(),
            named: member.clone().unwrap_or_else(|| backend.address.clone()),
            member,
            state: state.as_str(),
            why: backend.why.clone(),
            weight: backend.weight,
            backup: false,
            connections: backend.in_flight,
            connections_total: None,
            failures_total: None,
        }
    };
    let backends: Vec<_> = backends.iter().map(shown).collect();
    let is_up = |backend: &ShownBackend| backend.state == Standing::Up.as_str();
    let why = (!backends.iter().any(is_up)).then(|| format!("no member serves {service}"));
    ShownTarget { hosts: Vec::new(), service: Some(service.to_string()), listener: None, why, backends }
}

fn shown_target(pool: &Pool) -> ShownTarget {
    let target = pool.target.load();
    let (service, listener) = match &target.source {
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
            weight: 0.0,
            backup: false,
            connections: 0,
            connections_total: Some(0),
            failures_total: Some(0),
        });
        slots.iter().map(|slot| shown_backend(slot, now)).chain(without_address).collect()
    });
    ShownTarget { hosts: target.hosts.clone(), service, listener, why, backends }
}

fn shown_backend(slot: &Slot, now: Instant) -> ShownBackend {
    let standing = slot.shown_standing(now);
    let why = match standing {
        Standing::Up if slot.of.is_kept => {
            Some("gossip has lost it together with most others, so it is kept for a while".to_owned())
        }
        Standing::Up => {
            let failed = slot.failure.as_ref().map(|why| format!("the last connect failed: it {why}"));
            failed.or_else(|| slot.of.is_backup.then(|| BACKUP.to_owned()))
        }
        Standing::Ejected if slot.ejected().is_some() => slot.ejected().map(ToOwned::to_owned),
        Standing::Ejected => {
            let last = slot.failure.as_deref().unwrap_or("accepts no connections");
            Some(match slot.ejection.is_by_rate() {
                true => format!("too many of its connects failed: it {last}"),
                false => match slot.ejection.row() {
                    1 => format!("one failed connect: it {last}"),
                    more => format!("{more} failed connects in a row: it {last}"),
                },
            })
        }
        Standing::Down => {
            Some(format!("its checks fail: it {}", slot.checked.why().unwrap_or("does not answer")))
        }
        Standing::Unreachable => slot.url.as_ref().and_then(BaseUrl::why_unreachable),
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
        weight: f64::from(slot.of.weight),
        backup: slot.of.is_backup,
        connections: slot.connections + slot.url.as_ref().map_or(0, BaseUrl::in_flight),
        connections_total: Some(slot.opened + slot.url.as_ref().map_or(0, BaseUrl::reached)),
        failures_total: Some(slot.failed),
    }
}
