//! Counts the gateways of the same service that serve, for rate limits that they share.

use std::sync::Arc;

use cluster::ClusterView;
use plugin::Context;
use types::ServiceName;

use crate::rate::Gateways;

/// How many gateways of this service serve, kept up to date until the service ends.
pub(crate) fn count(cx: &Context) -> Arc<Gateways> {
    let gateways = Arc::<Gateways>::default();
    let Some(service) = cx.role.service().cloned() else { return gateways };
    let (mut view, shutdown, counted) = (cx.view.clone(), cx.shutdown.clone(), Arc::clone(&gateways));
    gateways.set(serving(&view.borrow_and_update(), &service));
    cx.tasks.spawn("count of gateways", async move {
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                // Without its owner, the view never changes again.
                changed = view.changed() => if changed.is_err() {
                    return Ok(());
                },
            }
            counted.set(serving(&view.borrow_and_update(), &service));
        }
    });
    gateways
}

/// The members that serve a service.
fn serving(view: &ClusterView, service: &ServiceName) -> usize {
    let states = view.members().filter_map(|member| member.state.as_ref());
    states.filter(|state| state.role.service() == Some(service) && state.phase.is_serving()).count()
}
