//! The metrics of the requests that this node sends to members and to the addresses of routes.
//!
//! Labels have few values: reasons, and the services that have members now.

use mesh::{Mesh, UpstreamCounts};
use plugin::Metrics;

/// Declares the metrics of all meshes of this node.
pub(crate) fn declare(metrics: &Metrics, mesh: &Mesh) {
    let counts = |mesh: &Mesh| {
        let mesh = mesh.clone();
        move || mesh.upstream_counts()
    };
    let reason = |reason: &str| vec![("reason", reason.to_owned())];
    let read = counts(mesh);
    let help = "Requests that were sent again, by reason";
    metrics.observable_counters("upstream_retries", help, move || {
        read().retries.map(|(why, count)| (reason(why.as_str()), count))
    });
    let read = counts(mesh);
    let help = "Ejections of members and addresses that failed too often, by reason";
    metrics.observable_counters("upstream_ejections", help, move || {
        read().ejections.map(|(why, count)| (reason(why.as_str()), count))
    });
    let read = counts(mesh);
    let help = "Requests that were not sent again because the retry budget was exhausted";
    metrics.observable_counter("upstream_budget_exhausted", help, move || read().budget_exhausted);
    let read = counts(mesh);
    let help = "Requests that wait for a serving member";
    metrics.observable_gauge("upstream_waiting", help, move || waiting(&read()));
    let service = |service: &types::ServiceName| vec![("service", service.to_string())];
    let of = mesh.clone();
    let help = "Members that get no requests because they failed too often";
    metrics.observable_gauges("upstream_ejected", help, move || {
        let ejected = of.ejected().into_iter();
        ejected.map(|(name, count)| (service(&name), count as u64)).collect::<Vec<_>>()
    });
    let of = mesh.clone();
    let help = "Whether most members of a service disappeared at once, so that they are kept for a while";
    metrics.observable_gauges("upstream_panic", help, move || {
        let panics = of.panics().into_iter();
        panics.map(|(name, is_panic)| (service(&name), u64::from(is_panic))).collect::<Vec<_>>()
    });
}

fn waiting(counts: &UpstreamCounts) -> u64 {
    counts.waiting as u64
}
