//! The loads of a gateway. Pure.

use crate::gateway::Part;
use crate::proxies::backend::Body;
use crate::proxies::measured::{Comparison, Group};
use crate::proxies::task::{CLIENTS, Kind, Task};
use crate::rows::Target;

/// Concurrent requests of the loads with one number only.
const MANY: usize = 64;
/// Concurrent new connections over TLS.
const HANDSHAKES: usize = 16;

/// The loads of these parts. Quick runs have fewer.
pub(crate) fn of(parts: &[Part], is_quick: bool) -> Vec<Task> {
    let mut tasks = Vec::new();
    if parts.contains(&Part::Http1) {
        tasks.extend(http1(is_quick));
    }
    if parts.contains(&Part::Http2) {
        let kind = |body| Kind::Http2 { body, tls: false };
        tasks.extend(Body::ALL.map(|body| plain(format!("HTTP/2, {}", body.name()), MANY, kind(body))));
    }
    if parts.contains(&Part::Tls) {
        let http1 = |body| Kind::Http1 { body, tls: true };
        let http2 = |body| Kind::Http2 { body, tls: true };
        tasks.extend(Body::ALL.map(|body| plain(format!("TLS, HTTP/1, {}", body.name()), MANY, http1(body))));
        tasks.push(plain("TLS, HTTP/2, 1 KB".to_owned(), MANY, http2(Body::OneKb)));
        tasks.push(plain("TLS, new connections".to_owned(), HANDSHAKES, Kind::Handshakes));
    }
    if parts.contains(&Part::Connections) {
        let mut task = plain("new connections".to_owned(), MANY, Kind::Connections);
        task.comparisons[0].rate = Some(Target::RatioAtLeast(0.95));
        tasks.push(task);
    }
    tasks
}

/// Requests over HTTP/1, with one connection also without a proxy.
fn http1(is_quick: bool) -> Vec<Task> {
    let mut tasks = Vec::new();
    for body in Body::ALL {
        for clients in CLIENTS {
            if is_quick && clients > MANY {
                continue;
            }
            let mut task = Task::http1(body, clients);
            if clients == 1 {
                task.is_direct = true;
            } else {
                task.comparisons[0].cpu = Some(Target::Ratio(1.15));
            }
            tasks.push(task);
        }
    }
    tasks
}

/// A load without a target beside nginx and HAProxy.
fn plain(what: String, clients: usize, kind: Kind) -> Task {
    let mut task = Task::new(what, clients, kind);
    task.comparisons = vec![Comparison::with(Group::Peers), Comparison::ahead()];
    task
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ALL: [Part; 6] =
        [Part::Http1, Part::Http2, Part::Tls, Part::Connections, Part::Memory, Part::Features];

    #[test]
    fn loads_of_a_full_run_have_names_of_their_own() {
        let tasks = of(&ALL, false);
        let names: BTreeSet<_> = tasks.iter().map(|task| (&task.what, task.clients, task.unit())).collect();
        assert_eq!((names.len(), tasks.len()), (13, 13), "{names:?}");
        assert!(of(&ALL, true).iter().all(|task| task.clients <= MANY));
        assert!(of(&[Part::Memory, Part::Features], false).is_empty());
    }

    #[test]
    fn the_targets_are_those_of_many_requests_at_once() {
        for task in of(&[Part::Http1], false) {
            let beside = task.comparisons[0];
            let targets: Vec<_> =
                [beside.rate, beside.latency, beside.cpu].iter().flatten().map(ToString::to_string).collect();
            let wanted: &[&str] =
                if task.clients == 1 { &[] } else { &["ratio of p99 <= 1.2", "ratio <= 1.15"] };
            assert_eq!(targets, wanted, "{task:?}");
            assert_eq!(task.is_direct, task.clients == 1);
        }
        let connections = of(&[Part::Connections], false);
        let rate = connections[0].comparisons[0].rate.map(|target| target.to_string());
        assert_eq!(rate.as_deref(), Some("ratio >= 0.95"));
    }

    #[test]
    fn everything_has_to_be_ahead_of_envoy_traefik_and_caddy() {
        for task in of(&ALL, false) {
            assert!(task.comparisons.iter().any(|each| each.group == Group::Others && each.cpu.is_some()));
        }
    }
}
