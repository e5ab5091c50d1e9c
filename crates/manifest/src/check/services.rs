//! Checks `services`. What the settings mean is the plugins' business.

use std::collections::{BTreeMap, BTreeSet};

use types::{Role, ServiceType};

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
            let settings = self.settings(value);
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
            services.insert(service.clone(), ServiceSpec { settings: json });
            places.services.insert(service, (key.at, settings.cloned()));
        }
        services
    }

    /// The settings of a service, if there are any.
    fn settings<'n>(&mut self, service: &'n Node) -> Option<&'n Node> {
        let fields = self.fields(service, "a service", SERVICE_KEYS)?;
        let field: Field<'n> = fields.get("settings")?;
        self.entries(field)?;
        (!field.value.is_null()).then_some(field.value)
    }
}
