//! Checks `services`. Plugins check the settings.

use std::collections::{BTreeMap, BTreeSet};

use types::{Role, ServiceName, ServiceType, ShardId, Spec};

use super::fields::{Field, Fields};
use super::{Check, SERVICE_KEYS};
use crate::mistake::Mistake;
use crate::model::{Places, ServiceSpec};
use crate::render::quoted;
use crate::suggest;
use crate::tree::Node;

impl Check<'_> {
    pub(super) fn services(
        &mut self,
        fields: &Fields<'_>,
        places: &mut Places,
    ) -> BTreeMap<ServiceName, ServiceSpec> {
        let entries = fields.get("services").and_then(|field| self.entries(field));
        let mut services = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (key, value) in entries.unwrap_or_default() {
            let fields = self.fields(value, "a service", SERVICE_KEYS);
            let settings = fields.as_ref().and_then(|fields| self.settings(fields));
            let shards = fields.as_ref().and_then(|fields| fields.get("shards"));
            if key.text == Role::STANDBY {
                let mistake = Mistake::new(key.at, "`standby` is not a service and has no settings");
                self.report(mistake.hint("leave it out, nodes may stand by without it"));
                continue;
            }
            if !seen.insert(key.text.as_str()) {
                continue;
            }
            let types = self.type_names();
            let types: Vec<&str> = types.iter().map(String::as_str).collect();
            let Some(service) = self.service_name(&key.text, key.at, &types) else {
                continue;
            };
            if let Some((first, _)) = places.services.get(&service) {
                let message = format!("{} is `{service}`, which has its settings already", quoted(&key.text));
                self.report(Mistake::new(key.at, message).related(*first, "first given here"));
                continue;
            }
            let similar = places.services.iter().find(|(other, _)| other.is_similar(&service));
            if let Some((other, (first, _))) = similar {
                let message = format!("{} and `{other}` differ in `-` and `_` alone", quoted(&key.text));
                let mistake =
                    Mistake::new(key.at, message).related(*first, format!("`{other}` is given here"));
                self.report(mistake.hint("choose names that can't be taken for one another"));
                continue;
            }
            let named = fields.as_ref().and_then(|fields| fields.get("type"));
            let service_type = match named {
                Some(field) => match self.service_type(&service, field) {
                    Some(service_type) => Some(service_type),
                    None => continue,
                },
                None if self.known.is_none() || self.is_named_after_a_type(&service) => None,
                None => {
                    let message = format!("unknown service type {}", quoted(&key.text));
                    let hint = suggest::hint(&key.text, "service types", &types);
                    let hint = format!("{hint}; a service with another name needs its `type`");
                    self.report(Mistake::new(key.at, message).hint(hint));
                    continue;
                }
            };
            let json = settings.map_or_else(|| serde_json::json!({}), Node::to_json);
            let of_type = service_type.clone().or_else(|| service.default_type());
            let number = shards.and_then(|field| self.shards((&service, of_type.as_ref()), field));
            if let Some(field) = shards {
                places.shards.insert(service.clone(), field.at());
            }
            let replicas = fields.as_ref().and_then(|fields| fields.get("replicas"));
            let replicas = replicas.and_then(|field| self.replicas((&service, of_type.as_ref()), field));
            let service_type = service_type.filter(|service_type| !service.is_named_after(service_type));
            let spec =
                ServiceSpec { service_type, settings: json, shards: number, replicas: replicas.unwrap_or(0) };
            services.insert(service.clone(), spec);
            places.services.insert(service, (key.at, settings.cloned()));
        }
        services
    }

    fn is_named_after_a_type(&self, service: &ServiceName) -> bool {
        service.default_type().is_some_and(|service_type| self.is_known(&service_type))
    }

    /// The `type` of a service.
    fn service_type(&mut self, service: &ServiceName, field: Field<'_>) -> Option<ServiceType> {
        let text = self.text(field)?;
        let types = self.type_names();
        let types: Vec<&str> = types.iter().map(String::as_str).collect();
        let service_type = match text.parse::<ServiceType>() {
            Ok(service_type) if self.known.is_none() || self.is_known(&service_type) => service_type,
            Ok(_) => {
                let mistake = Mistake::new(field.at(), format!("unknown service type {}", quoted(text)));
                self.report(mistake.hint(suggest::hint(text, "service types", &types)));
                return None;
            }
            Err(error) => {
                let mistake = Mistake::new(field.at(), error.to_string());
                self.report(mistake.hint(suggest::hint(text, "service types", &types)));
                return None;
            }
        };
        if self.is_named_after_a_type(service) && !service.is_named_after(&service_type) {
            let message =
                format!("`{service}` is the name of a service type, so its type can't be `{service_type}`");
            self.report(Mistake::new(field.at(), message).hint("give the service another name"));
            return None;
        }
        Some(service_type)
    }

    /// The settings of a service, if there are any.
    fn settings<'n>(&mut self, fields: &Fields<'n>) -> Option<&'n Node> {
        let field: Field<'n> = fields.get("settings")?;
        self.entries(field)?;
        (!field.value.is_null()).then_some(field.value)
    }

    /// The number of shards of a type whose shards have owners.
    fn shards(
        &mut self,
        (service, service_type): (&ServiceName, Option<&ServiceType>),
        field: Field<'_>,
    ) -> Option<u32> {
        let known = self.known.zip(service_type).and_then(|(known, service_type)| known.named(service_type));
        if known.is_some_and(|known| !known.is_owned) {
            let mistake = Mistake::new(field.key.at, format!("`{service}` has no fixed number of shards"));
            self.report(mistake.hint("leave it out"));
            return None;
        }
        self.number(field, 1..=ShardId::MAX + 1)
    }

    /// The number of replicas of each shard, of a type that supports replicas.
    fn replicas(
        &mut self,
        (service, service_type): (&ServiceName, Option<&ServiceType>),
        field: Field<'_>,
    ) -> Option<u32> {
        let known = self.known.zip(service_type).and_then(|(known, service_type)| known.named(service_type));
        if known.is_some_and(|known| !known.is_replicated) {
            let mistake = Mistake::new(field.key.at, format!("`{service}` has no replicas"));
            self.report(mistake.hint("leave it out"));
            return None;
        }
        self.number(field, 0..=Spec::MAX_REPLICAS)
    }
}
