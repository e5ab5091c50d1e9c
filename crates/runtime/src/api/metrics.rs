//! `GET /metrics`: the node's own numbers and those of the service it runs, in the OpenMetrics text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue};
use types::{ErrorKind, Problem};

use super::App;
use super::error::ApiError;

const MEDIA_TYPE: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// The node's own numbers and those of the service it runs.
#[utoipa::path(get, path = "/metrics", responses((status = 200, body = String)))]
pub(crate) async fn metrics(
    State(app): State<App>,
) -> Result<([(HeaderName, HeaderValue); 1], String), ApiError> {
    let mut out = String::new();
    let service = app.service_metrics.load_full();
    own(&app, &mut out)
        .and_then(|()| service.map_or(Ok(()), |service| service.encode(&mut out)))
        .map_err(|error| Problem::new(ErrorKind::Internal, "not-encoded", error.to_string()))?;
    out.push_str("# EOF\n");
    Ok(([(CONTENT_TYPE, MEDIA_TYPE)], out))
}

/// Few enough to be written by hand; they are read from where they live, so nothing has to be kept up to date.
fn own(app: &App, out: &mut String) -> std::fmt::Result {
    let view = app.cluster.view();
    let mut members: BTreeMap<(String, &str), u64> = BTreeMap::new();
    for member in view.members() {
        let (role, phase) = match &member.state {
            Some(state) => (state.role.service_name().to_owned(), state.phase.as_str()),
            None => ("unknown".to_owned(), "unknown"),
        };
        *members.entry((role, phase)).or_default() += 1;
    }
    writeln!(out, "# HELP coterie_members Members in this node's view.\n# TYPE coterie_members gauge")?;
    for ((service, phase), count) in members {
        writeln!(out, "coterie_members{{service=\"{service}\",phase=\"{phase}\"}} {count}")?;
    }
    let clocks = app.clocks.ahead_us();
    if !clocks.is_empty() {
        writeln!(
            out,
            "# HELP coterie_clock_skew_seconds How far a peer's clock is ahead of this node's, as estimated.\n\
             # TYPE coterie_clock_skew_seconds gauge"
        )?;
    }
    for (peer, ahead_us) in clocks {
        let seconds = Duration::from_micros(ahead_us.unsigned_abs()).as_secs_f64();
        let sign = if ahead_us < 0 { "-" } else { "" };
        writeln!(out, "coterie_clock_skew_seconds{{peer=\"{peer}\"}} {sign}{seconds:.6}")?;
    }
    let numbers = [
        (
            "coterie_requests_in_flight",
            "gauge",
            "Requests that the service is answering.",
            app.mount.in_flight(),
        ),
        (
            "coterie_service_restarts",
            "counter",
            "Restarts after a failure.",
            app.restarts.load(Ordering::Relaxed),
        ),
        (
            "coterie_process_restarts",
            "counter",
            "Starts of this node's process after it had ended without leaving.",
            app.facts.process_restarts,
        ),
        (
            "coterie_log_lines_dropped",
            "counter",
            "Lines that could not be logged in time.",
            app.facts.dropped_log_lines.load(Ordering::Relaxed),
        ),
        ("coterie_events", "counter", "Changes seen in this node's view.", app.events.last()),
        ("coterie_start_time_seconds", "gauge", "Unix time of the start.", app.facts.started_at_ms / 1_000),
    ];
    for (name, kind, help, value) in numbers {
        let suffix = if kind == "counter" { "_total" } else { "" };
        writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{suffix} {value}")?;
    }
    Ok(())
}
