//! Checks `services`. What the settings mean is the plugins' business.

use std::collections::{BTreeMap, BTreeSet};

use types::{Role, ServiceType, ShardId, Spec};

use super::fields::{Field, Fields};
use super::{Check, SERVICE_KEYS};
use crate::mistake::Mistake;
use crate::model::{Places, ServiceSpec};
use crate::render::quoted;
use crate::tree::Node;

impl Check<'_> {
    pub(super) fn services(
        &mut self,
        fields: &Fields<'_>,
        places: &mut Places,
    ) -> BTreeMap<ServiceType, ServiceSpec> {
        let entries = fields.get("services").and_then(|field| self.entries(field));
        let mut services = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (key, value) in entries.unwrap_or_default() {
            let fields = self.fields(value, "a service", SERVICE_KEYS);
            let settings = fields.as_ref().and_then(|fields| self.settings(fields));
            let shards = fields.as_ref().and_then(|fields| fields.get("shards"));
            if key.text == Role::STANDBY {
                let mistake = Mistake::new(key.at, "`standby` is no service type, it has no settings");
                self.report(mistake.hint("leave it out, nodes may stand by without it"));
                continue;
            }
            if !seen.insert(key.text.as_str()) {
                continue;
            }
            let Some(service) = self.service_type(&key.text, key.at, false) else {
                continue;
            };
            if let Some((first, _)) = places.services.get(&service) {
                let message = format!("{} is `{service}`, which has its settings already", quoted(&key.text));
                self.report(Mistake::new(key.at, message).related(*first, "first given here"));
                continue;
            }
            let json = settings.map_or_else(|| serde_json::json!({}), Node::to_json);
            let number = shards.and_then(|field| self.shards(&service, field));
            if let Some(field) = shards {
                places.shards.insert(service.clone(), field.at());
            }
            let copies = fields.as_ref().and_then(|fields| fields.get("replicas"));
            let replicas = copies.and_then(|field| self.replicas(&service, field)).unwrap_or(0);
            services.insert(service.clone(), ServiceSpec { settings: json, shards: number, replicas });
            places.services.insert(service, (key.at, settings.cloned()));
        }
        services
    }

    /// The settings of a service, if there are any.
    fn settings<'n>(&mut self, fields: &Fields<'n>) -> Option<&'n Node> {
        let field: Field<'n> = fields.get("settings")?;
        self.entries(field)?;
        (!field.value.is_null()).then_some(field.value)
    }

    /// The number of shards of a type whose shards have owners.
    fn shards(&mut self, service: &ServiceType, field: Field<'_>) -> Option<u32> {
        let known = self.known.and_then(|known| known.named(service));
        if known.is_some_and(|known| !known.is_owned) {
            let mistake = Mistake::new(field.key.at, format!("`{service}` has no fixed number of shards"));
            self.report(mistake.hint("leave it out"));
            return None;
        }
        self.number(field, 1..=ShardId::MAX + 1)
    }

    /// How many copies each shard has, of a type that can have some.
    fn replicas(&mut self, service: &ServiceType, field: Field<'_>) -> Option<u32> {
        let known = self.known.and_then(|known| known.named(service));
        if known.is_some_and(|known| !known.is_replicated) {
            let mistake = Mistake::new(field.key.at, format!("`{service}` has no replicas"));
            self.report(mistake.hint("leave it out"));
            return None;
        }
        self.number(field, 0..=Spec::MAX_REPLICAS)
    }
}
