//! The running balancer, and how it starts.

use std::sync::Arc;

use plugin::access_log::AccessLog;
use plugin::{Context, ServiceError};
use types::{ErrorKind, ServiceName};

use crate::listeners::{Listeners, OpenListener, Running};
use crate::meters;
use crate::plan::Plan;
use crate::resolve::Lookup;

/// A running balancer.
pub(crate) struct Balancer {
    pub(crate) cx: Context,
    pub(crate) listeners: Listeners,
    pub(crate) access_log: AccessLog,
    /// How names of backends are resolved.
    pub(crate) lookup: Lookup,
}

impl std::fmt::Debug for Balancer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Balancer").field("listeners", &self.listeners).finish_non_exhaustive()
    }
}

impl Balancer {
    pub(crate) async fn start(plan: Plan, cx: &Context, lookup: &Lookup) -> Result<Self, ServiceError> {
        leads_elsewhere(&plan, cx)?;
        let mut opened = Vec::new();
        for plan in plan.listeners {
            opened.push(OpenListener::open(plan, cx).await?);
        }
        let listeners = Listeners::default();
        meters::register::all(&cx.metrics, &listeners);
        let access_log = AccessLog::start(cx, plan.access_log);
        let serve = |opened| Running::serve(cx, opened, &access_log, lookup);
        listeners.lock().running = opened.into_iter().map(serve).collect();
        Ok(Self { cx: cx.clone(), listeners, access_log, lookup: Arc::clone(lookup) })
    }
}

/// A balancer whose target is its own service would forward to itself for ever.
pub(crate) fn leads_elsewhere(plan: &Plan, cx: &Context) -> Result<(), ServiceError> {
    let own =
        |service: &&ServiceName| cx.role.service() == Some(&cx.view.borrow().normalized((*service).clone()));
    for listener in &plan.listeners {
        let targets = listener.targets.iter().filter_map(|target| target.source.service());
        let api = listener.http.as_ref().and_then(|http| Some(&http.service.as_ref()?.0));
        if let Some(service) = targets.chain(api).find(own) {
            let message =
                format!("listener `{}` would forward to its own service `{service}`", listener.name);
            return Err(
                ServiceError::new(ErrorKind::Invalid, message).hint("name another service in its settings")
            );
        }
    }
    Ok(())
}
