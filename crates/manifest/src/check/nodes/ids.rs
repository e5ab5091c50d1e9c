//! Gives each node of an entry its id, and its shard if the shards are counted.

use std::collections::{BTreeMap, BTreeSet};

use types::{NodeId, Role, ServiceName, ShardId};

use super::{Entry, MAX_NODES, Name};
use crate::check::Check;
use crate::mistake::Mistake;
use crate::model::{NodeSpec, Places, ServiceSpec};
use crate::tree::Position;

impl Check<'_> {
    /// The nodes of all entries, each with a unique id, and the ids of those whose shards were assigned automatically.
    /// Given ids are reserved first, so that no generated id takes one of them.
    pub(super) fn named(
        &mut self,
        entries: Vec<Entry<'_>>,
        services: &BTreeMap<ServiceName, ServiceSpec>,
        places: &mut Places,
    ) -> (Vec<NodeSpec>, BTreeSet<NodeId>) {
        let given: Vec<Option<Vec<NodeId>>> =
            entries.iter().map(|entry| self.given_ids(entry, places)).collect();
        let mut nodes = Vec::new();
        let mut counted = BTreeSet::new();
        for (entry, given) in entries.into_iter().zip(given) {
            let Some(role) = entry.role else {
                continue;
            };
            let ids = match (given, entry.id) {
                (Some(ids), _) => ids,
                (None, Name::Absent) => generated_ids(&role, entry.count.unwrap_or(1), entry.at, places),
                (None, Name::Given(..) | Name::Mistaken) => continue,
            };
            if entry.counts_shards {
                counted.extend(ids.iter().cloned());
            }
            nodes.extend((0..).zip(ids).map(|(number, id)| NodeSpec {
                id,
                role: if entry.counts_shards { shifted(&role, number, services) } else { role.clone() },
                listen: entry.listen,
                gossip: entry.gossip,
                labels: entry.labels.clone(),
                runs: entry.runs.clone(),
                restart: entry.restart,
            }));
        }
        (nodes, counted)
    }

    /// The ids that an entry gives its nodes; `None` if it gives none or a bad one.
    fn given_ids(&mut self, entry: &Entry<'_>, places: &mut Places) -> Option<Vec<NodeId>> {
        let Name::Given(text, at) = entry.id else {
            return None;
        };
        let names: Vec<String> = match entry.count {
            Some(count) if text.parse::<NodeId>().is_ok() => {
                (1..=count).map(|n| format!("{text}-{n}")).collect()
            }
            Some(_) | None => vec![text.to_owned()],
        };
        let mut ids = Vec::new();
        for name in names {
            match name.parse::<NodeId>() {
                Ok(id) => ids.push(id),
                Err(error) => {
                    self.report(Mistake::new(at, error.to_string()));
                    return None;
                }
            }
        }
        for id in &ids {
            if let Some(first) = places.nodes.get(id) {
                let message = format!("node id `{id}` is given twice");
                self.report(Mistake::new(at, message).related(*first, "first given here"));
                return None;
            }
            places.nodes.insert(id.clone(), at);
        }
        Some(ids)
    }
}

/// The role with its shard shifted by `number`, if it has one. If shards have replicas, the first shard follows the
/// last one.
fn shifted(role: &Role, number: u32, services: &BTreeMap<ServiceName, ServiceSpec>) -> Role {
    match role {
        Role::Service { service, shard: Some(shard) } => {
            let spec = services.get(service).filter(|spec| spec.replicas > 0);
            let number = match spec.and_then(|spec| spec.shards) {
                Some(shards) => number % shards,
                None => number,
            };
            // This is in range, since there are far fewer nodes than possible shards.
            let shard = ShardId::try_from(shard.as_u32() + number).ok();
            Role::Service { service: service.clone(), shard }
        }
        role => role.clone(),
    }
}

/// `api-gateway-1`, `api-gateway-2`: ids named after the role, except those that are taken.
fn generated_ids(role: &Role, count: u32, at: Position, places: &mut Places) -> Vec<NodeId> {
    let name = role.service_name().replace('_', "-");
    let mut ids = Vec::new();
    for n in 1..=2 * MAX_NODES {
        if ids.len() as u64 == u64::from(count) {
            break;
        }
        let id = format!("{name}-{n}").parse::<NodeId>();
        let id = id.expect("a service's name is short and has only characters that an id may have");
        if !places.nodes.contains_key(&id) {
            places.nodes.insert(id.clone(), at);
            ids.push(id);
        }
    }
    ids
}
