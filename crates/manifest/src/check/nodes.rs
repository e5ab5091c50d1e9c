//! Checks `nodes`, and creates as many nodes from each entry as its count states.

mod ids;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use types::supervision::RestartPolicy;
use types::{NodeId, Role, ServiceName, ShardId, Spec};

use super::fields::{Field, Fields};
use super::{Check, NODE_KEYS, found, shown};
use crate::mistake::Mistake;
use crate::model::{NodeSpec, Places, ServiceSpec};
use crate::render::quoted;
use crate::suggest;
use crate::tree::{Node, Position, Value};

/// How many nodes a manifest may have. For more, one machine or one file is no longer the right tool.
const MAX_NODES: u32 = 100;
/// The limit for the keys and values of one node's labels, in bytes: gossip carries them to every member.
const MAX_LABELS: usize = 512;

/// An entry of `nodes`, without the parts that had a mistake.
struct Entry<'n> {
    at: Position,
    id: Name<'n>,
    role: Option<Role>,
    /// Whether the nodes of the entry get consecutive shards, because no shard was given.
    counts_shards: bool,
    listen: Option<SocketAddr>,
    gossip: Option<SocketAddr>,
    labels: BTreeMap<String, String>,
    runs: Option<Vec<ServiceName>>,
    restart: RestartPolicy,
    count: Option<u32>,
}

/// How an entry names its nodes.
enum Name<'n> {
    /// With this id.
    Given(&'n str, Position),
    /// Without an id: they are named after their service.
    Absent,
    /// With a value that is not text.
    Mistaken,
}

/// The kind of an address: TCP and UDP ports are separate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Port {
    Listen,
    Gossip,
}

impl Check<'_> {
    pub(super) fn nodes(
        &mut self,
        fields: &Fields<'_>,
        services: &BTreeMap<ServiceName, ServiceSpec>,
        places: &mut Places,
    ) -> Vec<NodeSpec> {
        let Some(field) = fields.get("nodes") else {
            let mistake = Mistake::new(fields.at(), "missing key `nodes`, the list of nodes");
            self.report(mistake.hint("add `nodes: [{ service: standby }]`"));
            return Vec::new();
        };
        let Some(items) = self.list(field) else {
            return Vec::new();
        };
        if items.is_empty() {
            let mistake = Mistake::new(field.key.at, "`nodes` is empty");
            self.report(mistake.hint("add at least one node: `- service: standby`"));
        }
        let mut taken = Vec::new();
        let entries: Vec<Entry<'_>> =
            items.iter().filter_map(|item| self.entry(item, services, &mut taken)).collect();
        let total: u64 = entries.iter().map(|entry| u64::from(entry.count.unwrap_or(1))).sum();
        if total > u64::from(MAX_NODES) {
            let message = format!("the nodes add up to {total}, at most {MAX_NODES} are allowed");
            self.report(Mistake::new(field.key.at, message));
            return Vec::new();
        }
        let (nodes, counted) = self.named(entries, services, places);
        let nodes_for_shards = self.surplus(&nodes, &counted, services, places);
        self.owners(&nodes_for_shards, services, places);
        nodes
    }

    /// Reports a service with more nodes than owners and replicas of its shards, if the shards of its nodes were assigned
    /// automatically: one mistake for all of them. Returns the nodes whose shards are still to be checked one by one.
    fn surplus<'n>(
        &mut self,
        nodes: &'n [NodeSpec],
        counted: &BTreeSet<NodeId>,
        services: &BTreeMap<ServiceName, ServiceSpec>,
        places: &Places,
    ) -> Vec<&'n NodeSpec> {
        let mut left: Vec<&NodeSpec> = nodes.iter().collect();
        for (service, spec) in services {
            let Some(shards) = spec.shards else { continue };
            let is_counted =
                |node: &NodeSpec| node.role.service() == Some(service) && counted.contains(&node.id);
            let of_service: Vec<&NodeSpec> = nodes.iter().filter(|node| is_counted(node)).collect();
            let have = u32::try_from(of_service.len()).unwrap_or(u32::MAX);
            let places_for_nodes = shards.saturating_mul(spec.replicas + 1);
            let Some(last) = of_service.last().filter(|_| have > places_for_nodes) else { continue };
            let replica_words = match spec.replicas {
                0 => "and none has a replica".to_owned(),
                1 => "each with a replica".to_owned(),
                replicas => format!("each with {replicas} replicas"),
            };
            let shard_words = if shards == 1 { "1 shard".to_owned() } else { format!("{shards} shards") };
            let message = format!("{have} nodes for `{service}`, which has {shard_words}, {replica_words}");
            let wanted = have.div_ceil(shards) - 1;
            let hint = if wanted <= Spec::MAX_REPLICAS {
                format!("write `replicas: {wanted}` for `{service}`, or let the other nodes stand by")
            } else {
                "let the other nodes stand by".to_owned()
            };
            let at = places.nodes.get(&last.id).copied().unwrap_or(Position::START);
            let mut mistake = Mistake::new(at, message).hint(hint);
            if let Some(place) = places.shards.get(service) {
                mistake = mistake.related(*place, "the number of shards is given here");
            }
            self.report(mistake);
            left.retain(|node| !is_counted(node));
        }
        left
    }

    /// Reports shards that do not exist, and shards with too many nodes.
    fn owners(
        &mut self,
        nodes: &[&NodeSpec],
        services: &BTreeMap<ServiceName, ServiceSpec>,
        places: &Places,
    ) {
        let mut owners: BTreeMap<&Role, Vec<&NodeSpec>> = BTreeMap::new();
        for &node in nodes {
            let (Some(service), Some(shard)) = (node.role.service(), node.role.shard()) else { continue };
            if !self.kind(service, services).is_some_and(|known| known.is_owned) {
                continue;
            }
            let at = places.nodes.get(&node.id).copied().unwrap_or(Position::START);
            let shards = services.get(service).and_then(|spec| spec.shards);
            if let Some(shards) = shards
                && shard.as_u32() >= shards
            {
                let message =
                    format!("node `{}` has shard {shard} of `{service}`, which has {shards}", node.id);
                let mut mistake = Mistake::new(at, message)
                    .hint(format!("shards are counted from 0, so the last one is {}", shards - 1));
                if let Some(place) = places.shards.get(service) {
                    mistake = mistake.related(*place, "given here");
                }
                self.report(mistake);
            }
            let replicas = services.get(service).map_or(0, |spec| spec.replicas);
            let have = owners.entry(&node.role).or_default();
            let is_enough = u32::try_from(have.len()).is_ok_and(|have| have > replicas);
            if let Some(first) = have.first().filter(|_| is_enough) {
                let (message, hint) = if replicas == 0 {
                    let message = format!("nodes `{}` and `{}` both own {}", first.id, node.id, node.role);
                    (message, "a shard has one owner: give one of them another shard, or let it stand by")
                } else {
                    let message = format!(
                        "node `{}` is one too many for {}, which has an owner and {replicas} {}",
                        node.id,
                        node.role,
                        if replicas == 1 { "replica" } else { "replicas" }
                    );
                    (message, "let it stand by: it takes over when it is needed")
                };
                self.report(Mistake::new(at, message).hint(hint));
            }
            have.push(node);
        }
    }

    fn entry<'n>(
        &mut self,
        item: &'n Node,
        services: &BTreeMap<ServiceName, ServiceSpec>,
        taken: &mut Vec<(Port, SocketAddr, Position)>,
    ) -> Option<Entry<'n>> {
        let fields = self.fields(item, "a node", NODE_KEYS)?;
        let id = match fields.get("id") {
            Some(field) => match self.text(field) {
                Some(text) => Name::Given(text, field.value.at),
                None => Name::Mistaken,
            },
            None => Name::Absent,
        };
        let role = self.role(&fields, services);
        let counts_shards = fields.get("shard").is_none();
        let count = fields.get("count").and_then(|field| self.number(field, 1..=MAX_NODES));
        let several = count.is_some_and(|count| count > 1);
        let mut address = |port: Port, key: &str| {
            let field = fields.get(key)?;
            let address = self.address(field)?;
            if address.port() != 0 {
                self.claim_port(port, address, field, several, taken);
            }
            Some(address)
        };
        let listen = address(Port::Listen, "listen");
        let gossip = address(Port::Gossip, "gossip");
        let labels = fields.get("labels").map(|field| self.labels(field));
        let runs = fields.get("runs").and_then(|field| self.runs(field, services));
        let restart = fields.get("restart").and_then(|field| self.restart(field));
        Some(Entry {
            at: fields.at(),
            id,
            role,
            counts_shards,
            listen,
            gossip,
            labels: labels.unwrap_or_default(),
            runs,
            restart: restart.unwrap_or_default(),
            count: fields.get("count").map(|_| count.unwrap_or(1)),
        })
    }

    fn role(&mut self, fields: &Fields<'_>, services: &BTreeMap<ServiceName, ServiceSpec>) -> Option<Role> {
        let shard_field = fields.get("shard");
        let shard = shard_field.map(|field| self.number(field, 0..=ShardId::MAX));
        let Some(field) = fields.get("service") else {
            let mistake = Mistake::new(fields.at(), "missing key `service` in a node");
            self.report(mistake.hint("name a service, or `service: standby` to wait until it is needed"));
            return None;
        };
        let text = self.text(field)?;
        if text == Role::STANDBY {
            if let Some(field) = shard_field {
                let mistake = Mistake::new(field.key.at, "a standby node has no shard");
                self.report(mistake.hint("leave it out"));
                return None;
            }
            return Some(Role::Standby);
        }
        let service = self.service(text, field.value.at, services, true)?;
        let sharded = self.kind(&service, services).map(|known| known.is_sharded);
        if let (Some(field), Some(false)) = (shard_field, sharded) {
            let mistake = Mistake::new(field.key.at, format!("`{service}` has no shards"));
            self.report(mistake.hint("leave it out"));
            return None;
        }
        let shard = match shard {
            // The mistake is already reported.
            Some(None) => return None,
            Some(Some(number)) => Some(number),
            None => (sharded == Some(true)).then_some(0),
        };
        let shard = shard.and_then(|number| ShardId::try_from(number).ok());
        Some(Role::Service { service, shard })
    }

    fn address(&mut self, field: Field<'_>) -> Option<SocketAddr> {
        let key = &field.key.text;
        let example = "an address such as `127.0.0.1:8080`";
        let Some(text) = field.value.as_str() else {
            let mistake = self.unlike(field, example);
            let mistake = match field.value.as_u64() {
                Some(port) => mistake.hint(format!("write `127.0.0.1:{port}`")),
                None => mistake,
            };
            self.report(mistake);
            return None;
        };
        let at = field.value.at;
        if let Ok(address) = text.parse::<SocketAddr>() {
            if types::is_loopback(address.ip()) {
                return Some(address);
            }
            let message = format!(
                "`{key}` {} is not on this machine alone, and nothing is encrypted yet",
                quoted(text)
            );
            self.report(Mistake::new(at, message).hint(format!("write `127.0.0.1:{}`", address.port())));
            return None;
        }
        let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
        let is_number = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
        let mistake = if is_number(text) {
            self.unlike(field, example).hint(format!("write `127.0.0.1:{text}`"))
        } else if is_number(port) && port.parse::<u16>().is_err() {
            Mistake::new(at, format!("port {} is out of range", quoted(port)))
                .hint("ports go from 0 to 65535, 0 is any free one")
        } else if text.parse::<std::net::IpAddr>().is_ok() {
            Mistake::new(at, format!("`{key}` {} has no port", quoted(text)))
                .hint("add `:8080`, or `:0` for a free one")
        } else if is_number(port) && (host.is_empty() || host == "localhost") {
            Mistake::new(at, format!("`{key}` {} is not an IP address and a port", quoted(text)))
                .hint(format!("write `127.0.0.1:{port}`"))
        } else {
            Mistake::new(at, format!("`{key}` {} is not an IP address and a port", quoted(text)))
                .hint("write an address such as `127.0.0.1:8080` or `[::1]:8080`, names are not looked up")
        };
        self.report(mistake);
        None
    }

    /// Reports a fixed port that another node has or that several nodes would share.
    fn claim_port(
        &mut self,
        port: Port,
        address: SocketAddr,
        field: Field<'_>,
        several: bool,
        taken: &mut Vec<(Port, SocketAddr, Position)>,
    ) {
        let at = field.value.at;
        if several {
            let message = format!("several nodes cannot share the port of `{}`", field.key.text);
            let hint = format!("leave `{}` out, use port 0, or write the nodes one by one", field.key.text);
            self.report(Mistake::new(at, message).hint(hint));
            return;
        }
        let earlier = taken.iter().find(|(of, other, _)| *of == port && *other == address);
        if let Some((_, _, first)) = earlier {
            let message = format!("`{}` {address} is taken by another node", field.key.text);
            self.report(Mistake::new(at, message).related(*first, "taken here"));
        } else {
            taken.push((port, address, at));
        }
    }

    /// The services that a node takes over on its own.
    fn runs(
        &mut self,
        field: Field<'_>,
        services: &BTreeMap<ServiceName, ServiceSpec>,
    ) -> Option<Vec<ServiceName>> {
        let mut runs = Vec::new();
        for item in self.list(field)? {
            let Some(text) = item.as_str() else {
                let message = format!("`runs` wants names of services, found {}", found(item));
                self.report(Mistake::new(item.at, message).hint("write it like `runs: [storage]`"));
                continue;
            };
            if let Some(service) = self.service(text, item.at, services, false) {
                runs.push(service);
            }
        }
        Some(runs)
    }

    fn restart(&mut self, field: Field<'_>) -> Option<RestartPolicy> {
        let names = RestartPolicy::NAMES;
        let Some(text) = field.value.as_str() else {
            let mistake = self.unlike(field, "when a node is started again");
            self.report(mistake.hint(format!("one of {}", names.join(", "))));
            return None;
        };
        let found = text.parse().ok();
        if found.is_none() {
            let message = format!("`restart` can't be {}", quoted(text));
            self.report(Mistake::new(field.value.at, message).hint(suggest::hint(text, "values", &names)));
        }
        found
    }

    fn labels(&mut self, field: Field<'_>) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        for (key, value) in self.entries(field).unwrap_or_default() {
            if key.text.is_empty() {
                self.report(Mistake::new(key.at, "a label has an empty name"));
            }
            let Some(text) = value.as_str() else {
                let message = format!("label {} wants text, found {}", quoted(&key.text), found(value));
                let mistake = Mistake::new(shown(key, value), message);
                self.report(match value.value {
                    Value::Number(_) | Value::Bool(_) => mistake.hint("put it in quotes to make it text"),
                    _ => mistake,
                });
                continue;
            };
            for (what, text, at) in [("name", key.text.as_str(), key.at), ("value", text, value.at)] {
                if let Some(odd) = text.chars().find(|c| !matches!(c, ' '..='~')) {
                    let message =
                        format!("the {what} of label {} has the character {odd:?}", quoted(&key.text));
                    let hint = "letters, digits, signs and spaces of ASCII are allowed";
                    self.report(Mistake::new(at, message).hint(hint));
                }
            }
            labels.insert(key.text.clone(), text.to_owned());
        }
        let bytes: usize = labels.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > MAX_LABELS {
            let message = format!("the labels have {bytes} bytes, at most {MAX_LABELS} are allowed");
            let hint = "gossip carries them to every member: keep them short";
            self.report(Mistake::new(field.key.at, message).hint(hint));
        }
        labels
    }
}
