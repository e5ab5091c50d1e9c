//! The metrics of the requests that this node sends to members and to the addresses of routes.
//!
//! Labels have few values: reasons, classes of answers, and the services, routes, members and addresses that exist now.

use std::sync::Arc;

use mesh::{ConnectResult, EjectionReason, Mesh, RetryReason, UpstreamMember, UpstreamSeries};
use plugin::Metrics;

type Labels = Vec<(&'static str, String)>;

/// Declares the metrics of all meshes of this node.
pub(crate) fn declare(metrics: &Metrics, mesh: &Mesh) {
    let of = mesh.clone();
    // Walking through all members and routes takes a while.
    let series = metrics.once_per_scrape(move || of.upstream_series());
    declare_services(metrics, &series);
    declare_reasons(metrics, &series);
    declare_members(metrics, &series);
}

/// Reads the series of all services and routes.
trait Read: Fn() -> Arc<Vec<UpstreamSeries>> + Clone + Send + Sync + 'static {}
impl<F: Fn() -> Arc<Vec<UpstreamSeries>> + Clone + Send + Sync + 'static> Read for F {}

/// Those of each service, and of each route with addresses of its own.
fn declare_services(metrics: &Metrics, series: &impl Read) {
    let of = series.clone();
    let help = "Time from the begin of an attempt to the end of its answer, of a WebSocket to the end of its handshake, by \
                service or route";
    metrics.observable_histograms("upstream_request_duration_seconds", help, move || {
        let durations = |series: &UpstreamSeries| {
            let read = &series.read.durations;
            // Without a request there is none: there may be thousands of routes that never had one.
            (read.count() > 0).then(|| (service(series), read.clone()))
        };
        of().iter().filter_map(durations).collect::<Vec<_>>()
    });
    let of = series.clone();
    let help =
        "Requests that were not sent again because the retry budget was exhausted, by service or route";
    metrics.observable_counters("upstream_budget_exhausted", help, move || {
        each(&of(), |series| series.read.budget_exhausted)
    });
    let of = series.clone();
    let help = "Requests that wait for a member or for a pause, by service or route";
    metrics.observable_gauges("upstream_waiting", help, move || {
        each(&of(), |series| series.read.waiting as u64)
    });
    let of = series.clone();
    let help = "Whether most members of a service disappeared at once, so that they are kept for a while";
    metrics.observable_gauges("upstream_panic", help, move || each(&of(), |series| u64::from(series.panic)));
}

/// What happened to the requests and connections of each service and route, and why.
fn declare_reasons(metrics: &Metrics, series: &impl Read) {
    let counters = |name: &str,
                    help: &str,
                    label: &'static str,
                    read: fn(&UpstreamSeries) -> Vec<(&'static str, u64)>| {
        let of = series.clone();
        metrics.observable_counters(name, help, move || by(&of(), label, read));
    };
    let help = "Requests that were sent again, by service or route, and reason";
    counters("upstream_retries", help, "reason", |series| {
        RetryReason::ALL.map(RetryReason::as_str).into_iter().zip(series.read.retries).collect()
    });
    let help = "Ejections of members and addresses that failed too often, by service or route, and reason";
    counters("upstream_ejections", help, "reason", |series| {
        EjectionReason::ALL.map(EjectionReason::as_str).into_iter().zip(series.read.ejections).collect()
    });
    let help = "Attempts to open a connection, by service or route, and result";
    counters("upstream_connects", help, "result", |series| {
        ConnectResult::ALL.map(ConnectResult::as_str).into_iter().zip(series.read.connects).collect()
    });
    let of = series.clone();
    let help = "Open connections, by the service or route whose request opened them: those that carry requests (`active`), \
                and those that wait for one (`idle`)";
    metrics.observable_gauges("upstream_connections", help, move || {
        by(&of(), "state", |series| {
            let (open, idle) = (series.read.open as u64, series.read.idle as u64);
            vec![("active", open.saturating_sub(idle)), ("idle", idle)]
        })
    });
}

/// The values of each series, each with another label.
fn by(
    all: &[UpstreamSeries],
    label: &'static str,
    read: impl Fn(&UpstreamSeries) -> Vec<(&'static str, u64)>,
) -> Vec<(Labels, u64)> {
    let labelled = |series: &UpstreamSeries, value: &'static str| {
        let mut labels = service(series);
        labels.push((label, value.to_owned()));
        labels
    };
    let of =
        |series| read(series).into_iter().map(|(value, count)| (labelled(series, value), count)).collect();
    all.iter().flat_map(|series: &UpstreamSeries| -> Vec<_> { of(series) }).collect()
}

/// Those of each member, and of each address of a route.
fn declare_members(metrics: &Metrics, series: &impl Read) {
    let of = series.clone();
    let help = "Attempts by service or route, member or address, and class of the answer";
    metrics.observable_counters("upstream_requests", help, move || {
        let mut counts = Vec::new();
        for series in of().iter() {
            for member in &series.members {
                let known = member.attempts.iter().filter(|(_, count)| *count > 0);
                counts.extend(known.map(|(class, count)| {
                    let mut labels = labels(series, member);
                    labels.push(("code_class", (*class).to_owned()));
                    (labels, *count)
                }));
            }
        }
        counts
    });
    let gauge = |name: &str, help: &str, read: fn(&UpstreamMember) -> f64| {
        let of = series.clone();
        metrics.observable_gauges(name, help, move || {
            let mut gauges = Vec::new();
            for series in of().iter() {
                gauges.extend(series.members.iter().map(|member| (labels(series, member), read(member))));
            }
            gauges
        });
    };
    let help = "Attempts whose answers have not ended, by service or route, and member or address";
    gauge("upstream_in_flight", help, |member| f64::from(member.in_flight));
    gauge("upstream_up", "Whether a member or address gets requests", |member| flag(member.is_up));
    let help = "Whether a member or address gets no requests because it failed too often";
    gauge("upstream_ejected", help, |member| flag(member.is_ejected));
    let help = "The share of the requests that a member or address gets relative to the others";
    gauge("upstream_weight", help, |member| member.weight);
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

fn each(all: &[UpstreamSeries], read: impl Fn(&UpstreamSeries) -> u64) -> Vec<(Labels, u64)> {
    all.iter().map(|series| (service(series), read(series))).collect()
}

fn service(series: &UpstreamSeries) -> Labels {
    vec![("service", series.name.clone())]
}

fn labels(series: &UpstreamSeries, member: &UpstreamMember) -> Labels {
    vec![("service", series.name.clone()), ("member", member.name.clone())]
}
