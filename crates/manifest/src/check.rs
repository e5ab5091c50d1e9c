//! Checks a tree and builds a manifest from it. Collects every mistake on the way.
//!
//! Each part returns `None` after a mistake, and the check continues with the rest, so that one run finds all mistakes.

mod fields;
mod nodes;
mod services;

use std::collections::{BTreeMap, BTreeSet};

use types::{Profile, Role, ServiceName, ServiceType};

use self::fields::Fields;
use crate::mistake::Mistake;
use crate::model::{Checked, Known, KnownType, Manifest, Places, ServiceSpec};
use crate::render::quoted;
use crate::suggest;
use crate::tree::{Key, Node, Position, Value};

/// Keys of a manifest with this prefix are ignored: they hold values that anchors share.
pub(crate) const ASIDE: &str = "x-";
pub(crate) const MANIFEST_KEYS: &[&str] = &["cluster", "profile", "store", "insecure", "services", "nodes"];
pub(crate) const SERVICE_KEYS: &[&str] = &["type", "settings", "shards", "replicas"];
pub(crate) const NODE_KEYS: &[&str] =
    &["id", "service", "shard", "listen", "gossip", "labels", "runs", "restart", "count"];

/// Builds the manifest that a tree describes; `None` only after a mistake.
///
/// Nothing is reported at the positions in `failed`: the mistakes in their values are reported already.
pub(crate) fn check(
    tree: &Node,
    known: Option<&Known>,
    failed: &BTreeSet<Position>,
    mistakes: &mut Vec<Mistake>,
) -> Option<Checked> {
    let mut check = Check { known, failed, mistakes };
    if tree.is_null() {
        let mistake = Mistake::new(Position::START, "the manifest is empty");
        check.report(mistake.hint("the least is `cluster: demo` and `nodes: [{ service: standby }]`"));
        return None;
    }
    let fields = check.fields_beside(tree, "a manifest", MANIFEST_KEYS, ASIDE)?;
    let cluster = check.cluster(&fields);
    let profile = check.profile(&fields);
    let mut places = Places::default();
    let store = check.store(&fields, &mut places);
    let insecure = fields.get("insecure").is_some_and(|field| check.switch(field).unwrap_or_default());
    let services = check.services(&fields, &mut places);
    let nodes = check.nodes(&fields, &services, &mut places);
    let manifest = Manifest { cluster: cluster?, profile: profile?, store, insecure, services, nodes };
    Some(Checked { manifest, places })
}

/// Reports every key that is given twice, anywhere in a tree.
pub(crate) fn duplicate_keys(node: &Node, mistakes: &mut Vec<Mistake>) {
    let mut first: BTreeMap<&str, Position> = BTreeMap::new();
    for (key, value) in node.entries() {
        if let Some(earlier) = first.get(key.text.as_str()) {
            let message = format!("key {} is given twice", quoted(&key.text));
            mistakes.push(Mistake::new(key.at, message).related(*earlier, "first given here"));
        } else {
            first.insert(&key.text, key.at);
        }
        duplicate_keys(value, mistakes);
    }
    for item in node.items() {
        duplicate_keys(item, mistakes);
    }
}

/// What all parts of the check share.
struct Check<'a> {
    known: Option<&'a Known>,
    failed: &'a BTreeSet<Position>,
    mistakes: &'a mut Vec<Mistake>,
}

impl Check<'_> {
    fn report(&mut self, mistake: Mistake) {
        if !self.failed.contains(&mistake.at) {
            self.mistakes.push(mistake);
        }
    }

    fn cluster(&mut self, fields: &Fields<'_>) -> Option<types::ClusterId> {
        let Some(field) = fields.get("cluster") else {
            let mistake = Mistake::new(fields.at(), "missing key `cluster`, the name of the cluster");
            self.report(mistake.hint("add `cluster: demo` or another name"));
            return None;
        };
        self.parsed(field)
    }

    fn profile(&mut self, fields: &Fields<'_>) -> Option<Profile> {
        let Some(field) = fields.get("profile") else {
            // `ctl up` starts all nodes on one machine.
            return Some(Profile::Local);
        };
        let names = Profile::ALL.map(Profile::as_str);
        let Some(text) = field.value.as_str() else {
            let mistake = self.unlike(field, "a profile");
            self.report(mistake.hint(format!("profiles: {}", names.join(", "))));
            return None;
        };
        let found = Profile::ALL.into_iter().find(|profile| profile.as_str() == text);
        if found.is_none() {
            let mistake = Mistake::new(field.value.at, format!("unknown profile {}", quoted(text)));
            self.report(mistake.hint(suggest::hint(text, "profiles", &names)));
        }
        found
    }

    /// The location of the store. Only an agent can check whether it is a valid store.
    fn store(&mut self, fields: &Fields<'_>, places: &mut Places) -> Option<String> {
        let field = fields.get("store")?;
        places.store = Some(field.at());
        let text = self.text(field)?;
        if text.is_empty() {
            let mistake = Mistake::new(field.at(), "`store` is empty");
            self.report(
                mistake.hint("leave it out for a folder on this machine, or write `s3://bucket/prefix`"),
            );
            return None;
        }
        Some(text.to_owned())
    }

    /// The name of a service, which need not exist.
    fn service_name(&mut self, text: &str, at: Position, names: &[&str]) -> Option<ServiceName> {
        match text.parse::<ServiceName>() {
            Ok(service) => Some(service.normalized(|service_type| self.is_known(service_type))),
            Err(error) => {
                let mut mistake = Mistake::new(at, error.to_string());
                if let Some(guess) = suggest::did_you_mean(text, names.iter().copied()) {
                    mistake = mistake.hint(format!("did you mean `{guess}`?"));
                }
                self.report(mistake);
                None
            }
        }
    }

    /// A service that a node may run: one of the manifest, or one that is named after a known type. `standby` is not a
    /// service.
    fn service(
        &mut self,
        text: &str,
        at: Position,
        services: &BTreeMap<ServiceName, ServiceSpec>,
        may_stand_by: bool,
    ) -> Option<ServiceName> {
        let types = self.type_names();
        let declared: Vec<String> = services.keys().map(ToString::to_string).collect();
        let mut names: Vec<&str> = declared.iter().map(String::as_str).collect();
        names.extend(
            types.iter().map(String::as_str).filter(|name| !declared.iter().any(|other| other == name)),
        );
        names.extend(may_stand_by.then_some(Role::STANDBY));
        let service = self.service_name(text, at, &names)?;
        if self.known.is_none() || services.contains_key(&service) || self.kind(&service, services).is_some()
        {
            return Some(service);
        }
        let mistake = Mistake::new(at, format!("unknown service {}", quoted(text)));
        self.report(mistake.hint(suggest::hint(text, "services", &names)));
        None
    }

    /// The names of the known types.
    fn type_names(&self) -> Vec<String> {
        let known = self.known.iter().flat_map(|known| &known.service_types);
        known.map(|known| known.name.to_string()).collect()
    }

    fn is_known(&self, service_type: &ServiceType) -> bool {
        self.known.is_some_and(|known| known.named(service_type).is_some())
    }

    /// The type of a service, if it is known.
    fn kind(
        &self,
        service: &ServiceName,
        services: &BTreeMap<ServiceName, ServiceSpec>,
    ) -> Option<&KnownType> {
        let declared_type = services.get(service).and_then(|spec| spec.service_type.clone());
        self.known?.named(&declared_type.or_else(|| service.default_type())?)
    }
}

/// Describes a value, for "wants a list, found ...".
fn found(node: &Node) -> String {
    match &node.value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => format!("`{value}`"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text {}", quoted(text)),
        Value::Sequence(_) => "a list".to_owned(),
        Value::Mapping(_) => "a mapping".to_owned(),
    }
}

/// The position at which a value is shown. For an absent value, a list or a mapping this is its key.
fn shown(key: &Key, value: &Node) -> Position {
    match &value.value {
        Value::Null | Value::Sequence(_) | Value::Mapping(_) => key.at,
        Value::Bool(_) | Value::Number(_) | Value::String(_) => value.at,
    }
}
