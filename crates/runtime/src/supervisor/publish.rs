//! What the node gossips of its role.

use std::num::NonZeroU32;
use std::time::Duration;

use plugin::Claim;
use tracing::{info, warn};
use types::api::{Seen, Wait};
use types::{Reason, RoleState, ServiceType};

use super::propagation::{Shown, ask_all, not_asked};
use super::{Supervisor, reload};

/// The longest reason that is gossiped, in characters.
const REASON_LIMIT: usize = 600;

impl Supervisor {
    pub(super) fn role_state(&self) -> RoleState {
        let (phase, reason) = self.state.phase();
        let reason = reason.or_else(|| self.assigned.note.clone()).or_else(|| self.left_over());
        let reason = both(reason, self.failed_change.clone());
        let pending = self.pending();
        let reason = both(reason, pending.as_ref().map(reload::reason));
        let (reason_code, reason) = reason.map(|Reason { code, text }| (code, shortened(text))).unzip();
        let epoch = self.assigned.duty.claim().map(Claim::epoch);
        let is_resigned = self.assigned.duty.is_resigned();
        let endpoints = self.running.as_ref().map(|running| running.endpoints.urls()).unwrap_or_default();
        RoleState {
            role: self.assigned.role.clone(),
            service_type: self.gossiped_type(),
            phase,
            reason,
            reason_code,
            revision: self.revision,
            duty: self.assigned.duty.post(),
            epoch: epoch.filter(|_| !is_resigned),
            resigned: epoch.filter(|_| is_resigned),
            shards: self.assigned.terms.as_ref().and_then(|terms| terms.shards).map(NonZeroU32::get),
            spec: self.assigned.terms.as_ref().and_then(|terms| terms.number),
            pending,
            endpoints,
        }
    }

    /// The type of the role's service, if that is not the service's name.
    pub(super) fn gossiped_type(&self) -> Option<ServiceType> {
        let service = self.assigned.role.service()?;
        let settled = self.assigned.terms.as_ref().map(|terms| terms.service_type.clone());
        let known = settled.or_else(|| self.tools.cluster_store.services().type_of(service));
        known.filter(|service_type| !service.is_named_after(service_type))
    }

    /// Gossips the present state if it has changed. Returns the version that shows it.
    pub(super) async fn publish(&mut self) -> u64 {
        let state = self.role_state();
        if let Some((published, version)) = &self.published
            && *published == state
        {
            return *version;
        }
        match self.tools.cluster.set_role(state.clone()).await {
            Ok(version) => {
                info!(role = %state.role, phase = %state.phase, reason = state.reason, code = state.reason_code.as_ref().map(tracing::field::display), "phase");
                self.published = Some((state, version));
                version
            }
            Err(error) => {
                warn!(%error, "the role could not be gossiped");
                self.published.as_ref().map_or(0, |(_, version)| *version)
            }
        }
    }

    pub(super) async fn confirm(&self, version: u64, wait: Wait, limit: Duration) -> Seen {
        let view = self.tools.cluster.view();
        let shown = Shown { node: self.tools.node.clone(), generation: self.tools.generation, version };
        match wait {
            Wait::Local => not_asked(&view),
            Wait::All => ask_all(&self.tools.mesh, &view, &shown, limit).await,
        }
    }
}

/// Two reasons as one, with the code of the first.
fn both(first: Option<Reason>, second: Option<Reason>) -> Option<Reason> {
    match (first, second) {
        (Some(first), Some(second)) => Some(Reason { text: format!("{first}; {second}"), ..first }),
        (first, second) => first.or(second),
    }
}

/// Cuts a reason to the longest that is gossiped.
fn shortened(mut reason: String) -> String {
    if let Some((end, _)) = reason.char_indices().nth(REASON_LIMIT) {
        reason.truncate(end);
        reason.push('…');
    }
    reason
}
