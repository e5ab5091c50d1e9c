//! Prepares a role, starts its service, and mounts it for requests.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use plugin::{COMMON_PREFIX, Context, Duty, Endpoints, Metrics, Prepared, ServiceError};
use tokio::time::Instant;
use types::{Role, Sharding};

use super::Supervisor;
use super::error::PrepareError;
use crate::node::cluster_store::Terms;
use crate::role::gate::Mounted;
use crate::role::lifecycle::Happening;
use crate::role::running::Running;

/// A role that is ready to be started.
pub(crate) struct Plan {
    /// The role as it is run: with a shard if the service's type is sharded.
    pub(super) role: Role,
    /// None for standby.
    pub(super) prepared: Option<Box<dyn Prepared>>,
    pub(super) terms: Option<Terms>,
    pub(super) is_owned: bool,
}

impl Supervisor {
    /// Reads what a role runs with and checks its settings, so that it can be started. Disturbs nothing. `is_wanted`: an
    /// operator wants the role.
    pub(super) async fn prepare(&self, role: &Role, is_wanted: bool) -> Result<Plan, PrepareError> {
        let Role::Service { service, shard } = role else {
            return Ok(Plan { role: Role::Standby, prepared: None, terms: None, is_owned: false });
        };
        let terms = self.tools.cluster_store.terms(service, *shard, is_wanted).await?;
        let registry = &self.tools.registry;
        let plugin = registry.check_type(service, &terms.service_type)?;
        let role = registry.check(role.clone(), &terms.service_type)?;
        let titled = service.with_type(&terms.service_type);
        let prepared = std::panic::catch_unwind(AssertUnwindSafe(|| plugin.prepare(&terms.settings)))
            .map_err(|_panic| PrepareError::Panicked(titled.clone()))?;
        let prepared = prepared.map_err(|error| PrepareError::Settings { titled: titled.clone(), error })?;
        let is_owned = plugin.sharding() == Sharding::Owned;
        Ok(Plan { role, prepared: Some(prepared), terms: Some(terms), is_owned })
    }

    /// Starts what was prepared.
    pub(super) async fn start(
        &self,
        prepared: Option<Box<dyn Prepared>>,
        role: &Role,
        duty: Duty,
    ) -> Result<Option<Running>, ServiceError> {
        let Some(prepared) = prepared else {
            return Ok(None);
        };
        let (mut objects, mut logs) = (None, None);
        let (mut objects_poll, mut objects_are_remote) = (Duration::ZERO, false);
        if let (Duty::Primary(_) | Duty::Replica, Some(shard)) = (&duty, role.shard_ref()) {
            let store = self.tools.cluster_store.store().await;
            let store = store.map_err(|error| ServiceError::unavailable(error.to_string()))?;
            objects = Some(store.data(&shard));
            logs = Some(store.logs(&shard));
            objects_poll = store.replica_poll();
            objects_are_remote = store.is_remote();
        }
        let shards = self.assigned.terms.as_ref().and_then(|terms| terms.shards);
        let plugin = self.assigned.terms.as_ref().and_then(|terms| {
            let plugin = self.tools.registry.plugin(&terms.service_type)?;
            Some((role.service()?, plugin.metrics_prefix()))
        });
        let metrics = match plugin {
            Some((service, prefix)) => Metrics::of_service(&prefix, service),
            None => Metrics::new(COMMON_PREFIX),
        };
        let context = |tasks, shutdown| Context {
            node: self.tools.node.clone(),
            role: role.clone(),
            duty,
            shards,
            objects,
            logs,
            objects_poll,
            objects_are_remote,
            cache_dir: self.tools.data.cache(),
            view: self.tools.cluster.watch(),
            mesh: self.tools.mesh.clone(),
            tasks,
            shutdown,
            metrics: metrics.clone(),
            seed: rand::random(),
            endpoints: Endpoints::new(self.tools.exposure.clone()),
        };
        Running::start(prepared, context).await.map(Some)
    }

    pub(super) fn mount(&mut self, running: Option<Running>) {
        if let Some(running) = running {
            if let Role::Service { service, .. } = &self.assigned.role {
                self.tools.mount.set(Mounted {
                    role: self.assigned.role.clone(),
                    service: service.clone(),
                    router: running.router.clone(),
                    gate: running.gate.clone(),
                    claim: self.assigned.duty.claim_watch().map(|claim_watch| claim_watch.claim().clone()),
                    is_owned: self.assigned.duty.of_service().is_of_an_owned_shard(),
                    probe: running.probe(),
                });
            }
            self.tools.service_metrics.store(Some(Arc::new(running.metrics.clone())));
            self.running = Some(running);
        }
        self.state = self.state.after(Happening::Started { at: Instant::now() });
    }

    pub(super) fn unmount(&self) {
        self.tools.mount.clear();
        self.tools.service_metrics.store(None);
    }
}
