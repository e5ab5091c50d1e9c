//! Gives the running service the settings of a later spec, in place.
//!
//! The cache of the specs says that there is one; then it is read, checked and handed to the service. Role, claim and
//! readiness stay as they are. If it can't be applied, the service keeps its old settings and the node gossips why.

use std::collections::BTreeSet;
use std::time::Duration;

use plugin::{Counter, Metrics, Updated};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};
use types::{Backoff, ErrorKind, PendingSpec, Reason, Retries, ServiceName, setting_path};

use super::Supervisor;
use super::error::PrepareError;
use crate::failure::Failure;
use crate::node::services::Catalog;
use crate::role::reasons::{SETTINGS_NEED_RESTART, SETTINGS_NOT_APPLIED};

/// How long the store may take to return the spec.
const STORE_LIMIT: Duration = Duration::from_secs(5);
/// The pauses between attempts: while the store does not answer, or while something on this machine is in the way, such as
/// another process on a port.
const AGAIN: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));

/// Counts new settings of the running service.
#[derive(Debug, Clone)]
pub(crate) struct Reloads([Counter; 3]);

impl Reloads {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let help = "New settings for the running service, by what came of them";
        Self(metrics.counters("settings_reloads", help, "result", ["applied", "needs_restart", "failed"]))
    }

    fn count(&self, updated: &Updated) {
        let [applied, needs_restart, failed] = &self.0;
        match updated {
            Updated::Applied => applied.inc(),
            Updated::NeedsRestart(_) => needs_restart.inc(),
            Updated::Failed(_) => failed.inc(),
        };
    }
}

/// The service that runs, and the number of its spec; 0 if that is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RunsWith {
    pub(super) service: ServiceName,
    pub(super) number: u64,
}

/// Decides when a later spec is to be applied.
#[derive(Debug)]
pub(super) struct Reload {
    catalog: watch::Receiver<Catalog>,
    attempt: Option<Attempt>,
}

/// The last attempt to apply a spec that was not applied.
#[derive(Debug)]
struct Attempt {
    service: ServiceName,
    number: u64,
    /// What members see of it; nothing if the store did not answer.
    pending: Option<PendingSpec>,
    retries: Retries,
    /// When it is repeated, if that may help.
    again: Option<Instant>,
}

/// When a spec is to be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Now,
    At(Instant),
    Never,
}

/// When the latest spec is to be applied, given the last attempt. Pure.
fn due(latest: u64, runs_with: &RunsWith, attempt: Option<&Attempt>) -> Due {
    if latest <= runs_with.number {
        return Due::Never;
    }
    match attempt.filter(|attempt| attempt.service == runs_with.service) {
        Some(attempt) if attempt.number >= latest => attempt.again.map_or(Due::Never, Due::At),
        // A store that does not answer is not asked more often because there is news.
        Some(Attempt { pending: None, again: Some(again), .. }) => Due::At(*again),
        Some(_) | None => Due::Now,
    }
}

impl Reload {
    pub(super) fn new(catalog: watch::Receiver<Catalog>) -> Self {
        Self { catalog, attempt: None }
    }

    /// Waits until a spec is to be applied to the service that runs. Cancel-safe.
    pub(super) async fn due(&mut self, runs_with: Option<&RunsWith>) {
        let Some(runs_with) = runs_with else { return std::future::pending().await };
        loop {
            let latest = self.latest(&runs_with.service);
            let at = match due(latest, runs_with, self.attempt.as_ref()) {
                Due::Now => return,
                Due::At(at) => Some(at),
                Due::Never => None,
            };
            tokio::select! {
                biased;
                () = super::waits::until(at) => return,
                changed = self.catalog.changed() => if changed.is_err() {
                    return std::future::pending().await;
                },
            }
        }
    }

    fn latest(&mut self, service: &ServiceName) -> u64 {
        self.catalog.borrow_and_update().services.get(service).map_or(0, |entry| entry.spec)
    }

    /// Notes an attempt that did not succeed.
    fn note(&mut self, service: &ServiceName, number: u64, pending: Option<PendingSpec>, may_pass: bool) {
        let before =
            self.attempt.take().filter(|before| before.service == *service && before.number == number);
        let mut retries = before.map_or_else(|| AGAIN.retries(), |before| before.retries);
        let again = may_pass.then(|| Instant::now() + retries.failed(rand::random()));
        self.attempt = Some(Attempt { service: service.clone(), number, pending, retries, again });
    }
}

/// A spec that is not applied, as the reason of a phase.
pub(super) fn reason(pending: &PendingSpec) -> Reason {
    let number = pending.spec;
    match &pending.why {
        Some(why) => Reason::new(
            SETTINGS_NOT_APPLIED,
            format!("keeps its old settings, spec {number} can't be applied: {why}"),
        ),
        None => {
            let settings: Vec<_> =
                pending.needs_restart.iter().map(|setting| setting_path(setting)).collect();
            let settings = settings.join(", ");
            let text =
                format!("keeps its old settings, spec {number} needs a restart of the role for {settings}");
            Reason::new(SETTINGS_NEED_RESTART, text)
        }
    }
}

/// The places in which two settings differ, as JSON pointers. Of a list or a mapping that exists only once, its own. Pure.
fn differences(old: &Value, new: &Value) -> Vec<String> {
    let mut places = Vec::new();
    let none = Value::Object(serde_json::Map::new());
    let filled = |settings: &Value| if settings.is_null() { none.clone() } else { settings.clone() };
    compare(String::new(), &filled(old), &filled(new), &mut places);
    places
}

fn compare(place: String, old: &Value, new: &Value, places: &mut Vec<String>) {
    let below = |key: &str| format!("{place}/{}", key.replace('~', "~0").replace('/', "~1"));
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
            for key in keys {
                match (old.get(key), new.get(key)) {
                    (Some(old), Some(new)) => compare(below(key), old, new, places),
                    _ => places.push(below(key)),
                }
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            for at in 0..old.len().max(new.len()) {
                match (old.get(at), new.get(at)) {
                    (Some(old), Some(new)) => compare(below(&at.to_string()), old, new, places),
                    _ => places.push(below(&at.to_string())),
                }
            }
        }
        _ if old == new => {}
        _ => places.push(place),
    }
}

impl Supervisor {
    /// The service that runs, and its spec.
    pub(super) fn runs_with(&self) -> Option<RunsWith> {
        self.running.as_ref()?;
        let service = self.assigned.role.service()?.clone();
        let number = self.assigned.terms.as_ref().and_then(|terms| terms.number).unwrap_or(0);
        Some(RunsWith { service, number })
    }

    /// A later spec that was read and not applied.
    pub(super) fn pending(&self) -> Option<PendingSpec> {
        let runs_with = self.runs_with()?;
        let attempt = self.reload.attempt.as_ref().filter(|attempt| attempt.service == runs_with.service)?;
        attempt.pending.clone().filter(|pending| pending.spec > runs_with.number)
    }

    /// Reads the latest spec of the running service and applies it.
    pub(super) async fn apply_spec(&mut self) {
        let Some(RunsWith { service, number: runs_with }) = self.runs_with() else { return };
        let latest = self.reload.latest(&service);
        let role = self.assigned.role.clone();
        let plan = match timeout(STORE_LIMIT, self.prepare(&role, false)).await {
            Ok(Ok(plan)) => plan,
            Ok(Err(error)) => return self.not_prepared(&service, latest, &error).await,
            Err(_) => {
                debug!(%service, latest, limit = ?STORE_LIMIT, "the store does not answer; the spec is read later");
                return self.reload.note(&service, latest, None, true);
            }
        };
        let (Some(terms), Some(prepared)) = (plan.terms, plan.prepared) else { return };
        let Some(number) = terms.number.filter(|number| *number > runs_with) else {
            // Without the store, the spec that was kept has to do.
            return self.reload.note(&service, latest, None, true);
        };
        let Some(running) = &self.running else { return };
        let is_same = self.assigned.terms.as_ref().is_some_and(|now| now.settings == terms.settings);
        let updated = if is_same { Updated::Applied } else { running.update(prepared).await };
        self.tools.reloads.count(&updated);
        let old = self.assigned.terms.as_ref().map_or(&Value::Null, |terms| &terms.settings);
        match updated {
            Updated::Applied => {
                info!(%service, from = runs_with, to = number, "applied new settings");
                self.reload.attempt = None;
                self.assigned.terms = Some(terms);
            }
            Updated::NeedsRestart(settings) => {
                let settings = if settings.is_empty() { differences(old, &terms.settings) } else { settings };
                let pending = PendingSpec::needs_restart(number, settings);
                warn!(%service, spec = number, why = %reason(&pending), "settings need a restart of the role");
                self.reload.note(&service, number, Some(pending), false);
            }
            Updated::Failed(error) => {
                let may_pass = error.kind() == ErrorKind::Unavailable;
                let hint = error.next_step().map(|hint| format!("; {hint}")).unwrap_or_default();
                warn!(%service, spec = number, %error, may_pass, "settings can't be applied; the old ones stay");
                self.reload.note(
                    &service,
                    number,
                    Some(PendingSpec::failed(number, format!("{error}{hint}"))),
                    may_pass,
                );
            }
        }
        self.publish().await;
    }

    /// The spec could not be read, or its settings are wrong for this agent.
    async fn not_prepared(&mut self, service: &ServiceName, latest: u64, error: &PrepareError) {
        let may_pass = error.explain().kind.status() >= 500 && !matches!(error, PrepareError::Panicked(_));
        if may_pass {
            debug!(%service, latest, %error, "the spec can't be read; it is read later");
            return self.reload.note(service, latest, None, true);
        }
        warn!(%service, spec = latest, %error, "settings can't be applied; the old ones stay");
        self.tools.reloads.0[2].inc();
        let pending = PendingSpec::failed(latest, error.to_string());
        self.reload.note(service, latest, Some(pending), false);
        self.publish().await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_later_spec_is_applied_once_and_again_only_if_that_may_help() {
        let service: ServiceName = "edge".parse().unwrap();
        let runs_with = RunsWith { service: service.clone(), number: 3 };
        let soon = Instant::now() + Duration::from_secs(1);
        let attempt = |of: &str, number, is_read: bool, again| Attempt {
            service: of.parse().unwrap(),
            number,
            pending: is_read.then(|| PendingSpec::failed(number, "x")),
            retries: AGAIN.retries(),
            again,
        };
        for (latest, before, expected) in [
            (0, None, Due::Never),
            (3, None, Due::Never),
            (2, None, Due::Never),
            (4, None, Due::Now),
            (4, Some(attempt("edge", 4, true, None)), Due::Never),
            (4, Some(attempt("edge", 4, true, Some(soon))), Due::At(soon)),
            (5, Some(attempt("edge", 4, true, Some(soon))), Due::Now),
            (5, Some(attempt("edge", 4, true, None)), Due::Now),
            (4, Some(attempt("edge", 4, false, Some(soon))), Due::At(soon)),
            (5, Some(attempt("edge", 4, false, Some(soon))), Due::At(soon)),
            (4, Some(attempt("other", 4, true, None)), Due::Now),
            (3, Some(attempt("edge", 4, true, Some(soon))), Due::Never),
        ] {
            assert_eq!(due(latest, &runs_with, before.as_ref()), expected, "{latest} {before:?}");
        }
    }

    #[test]
    fn settings_that_differ_are_named_by_their_pointers() {
        let old = json!({"a": 1, "l": [{"x": 1}, 2], "gone": {"y": 1}, "s/l": {"t~": 1}});
        let new = json!({"a": 1, "l": [{"x": 2}, 2, 3], "new": 1, "s/l": {"t~": 2}});
        assert_eq!(differences(&old, &new), ["/gone", "/l/0/x", "/l/2", "/new", "/s~1l/t~0"]);
        assert_eq!(differences(&Value::Null, &json!({"a": 1})), ["/a"]);
    }
}
