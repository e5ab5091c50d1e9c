//! `GET /metrics`: the node's own metrics and those of the service it runs, in the OpenMetrics text format.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use cluster::ClusterView;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue};
use plugin::Metrics;
use tokio::sync::watch;
use types::{ErrorKind, Problem};

use super::App;
use super::error::ApiError;
use crate::node::config::Config;

const MEDIA_TYPE: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// The node's own metrics and those of the service it runs.
#[utoipa::path(get, path = "/metrics", responses((status = 200, body = String)))]
pub(crate) async fn metrics(
    State(app): State<App>,
) -> Result<([(HeaderName, HeaderValue); 1], String), ApiError> {
    let service = app.service_metrics.load_full();
    let text = Metrics::encode_all([&app.metrics].into_iter().chain(service.as_deref()))
        .map_err(|error| Problem::new(ErrorKind::Internal, "not-encoded", error.to_string()))?;
    Ok(([(CONTENT_TYPE, MEDIA_TYPE)], text))
}

/// Declares the metrics of the process and of its view.
pub(crate) fn declare(
    metrics: &Metrics,
    config: &Config,
    started_at_ms: u64,
    view: watch::Receiver<ClusterView>,
) {
    metrics.observable_gauges("members", "Members in this node's view", move || members(&view.borrow()));
    let restarts = config.restarts;
    let help = "Starts of this node's process after it had ended without leaving";
    metrics.observable_counter("process_restarts", help, move || restarts);
    let dropped = Arc::clone(&config.dropped_log_lines);
    let help = "Lines that could not be logged in time";
    metrics.observable_counter("log_lines_dropped", help, move || dropped.load(Ordering::Relaxed));
    metrics.observable_gauge("start_time_seconds", "Unix time of the start", move || started_at_ms / 1_000);
}

/// Members of a view by service and phase.
fn members(view: &ClusterView) -> Vec<(Vec<(&'static str, String)>, u64)> {
    let mut members: BTreeMap<(String, &str), u64> = BTreeMap::new();
    for member in view.members() {
        let (role, phase) = match &member.state {
            Some(state) => (state.role.service_name().to_owned(), state.phase.as_str()),
            None => ("unknown".to_owned(), "unknown"),
        };
        *members.entry((role, phase)).or_default() += 1;
    }
    let labels = |(service, phase): (String, &str)| vec![("service", service), ("phase", phase.to_owned())];
    members.into_iter().map(|(key, count)| (labels(key), count)).collect()
}
