//! The loads of a balancer. Pure.

use crate::balancer::Part;
use crate::proxies::backend::Body;
use crate::proxies::measured::{Comparison, Group};
use crate::proxies::task::{CLIENTS, Kind, Task};
use crate::rows::Target;

/// Concurrent requests.
const MANY: usize = 64;

/// Bytes of long answers over TCP connections.
pub(super) fn transfers(parts: &[Part]) -> Vec<Task> {
    if !parts.iter().any(|part| matches!(part, Part::Transfer | Part::Splice)) {
        return Vec::new();
    }
    let transfer = |clients| {
        let mut task = Task::new("TCP, 64 KB", clients, Kind::Transfer(Body::SixtyFourKb));
        let latency = Some(Target::RatioOfP99(1.2));
        task.comparisons = vec![
            Comparison { latency, ..Comparison::with(Group::Peers) },
            cpu(Group::Nginx, 0.7),
            cpu(Group::Haproxy, 1.0),
            Comparison::ahead(),
        ];
        task
    };
    [MANY, 8 * MANY].map(transfer).into()
}

/// Requests over kept TCP connections, and new connections.
pub(super) fn connections(parts: &[Part]) -> Vec<Task> {
    let mut tasks = Vec::new();
    if parts.contains(&Part::Requests) {
        for clients in [1, MANY, 8 * MANY] {
            let mut task = Task::new("TCP, 1 KB", clients, Kind::Http1 { body: Body::OneKb, tls: false });
            let latency = (clients > 1).then_some(Target::RatioOfP99(1.2));
            task.comparisons =
                vec![Comparison { latency, ..Comparison::with(Group::Peers) }, Comparison::ahead()];
            tasks.push(task);
        }
    }
    if parts.contains(&Part::Connections) {
        let mut task = Task::new("new TCP connections", MANY, Kind::Connections);
        let rate = Some(Target::RatioAtLeast(0.95));
        task.comparisons = vec![Comparison { rate, ..Comparison::with(Group::Peers) }, Comparison::ahead()];
        tasks.push(task);
    }
    tasks
}

/// Requests through a balancer in HTTP mode.
pub(super) fn http() -> Vec<Task> {
    let mut tasks = Vec::new();
    for body in Body::ALL {
        for clients in CLIENTS {
            let mut task = Task::http1(body, clients);
            if clients > 1 {
                task.comparisons.insert(1, cpu(Group::Haproxy, 1.15));
            } else if body == Body::SixtyFourKb {
                continue;
            }
            tasks.push(task);
        }
    }
    tasks
}

/// A comparison of the CPU time alone.
fn cpu(group: Group, limit: f64) -> Comparison {
    Comparison { cpu: Some(Target::Ratio(limit)), ..Comparison::with(group) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::ValueEnum;

    use super::*;

    /// The targets of the CPU time.
    fn cpu_targets(task: &Task) -> Vec<(Group, String)> {
        task.comparisons.iter().filter_map(|each| Some((each.group, each.cpu?.to_string()))).collect()
    }

    #[test]
    fn the_cpu_of_transfers_is_compared_with_nginx_and_haproxy_apart() {
        for task in transfers(&[Part::Transfer]) {
            assert_eq!(
                cpu_targets(&task),
                [
                    (Group::Nginx, "ratio <= 0.7".to_owned()),
                    (Group::Haproxy, "ratio <= 1".to_owned()),
                    (Group::Others, "ratio <= 1".to_owned()),
                ]
            );
        }
    }

    #[test]
    fn many_requests_in_http_mode_may_cost_a_little_more_cpu_than_in_haproxy() {
        let tasks = http();
        let loads: Vec<_> = tasks.iter().map(|task| (task.what.as_str(), task.clients)).collect();
        let wanted = [("1 KB", 1), ("1 KB", 64), ("1 KB", 512), ("64 KB", 64), ("64 KB", 512)];
        let wanted = wanted.map(|(body, clients)| (format!("HTTP/1, {body}"), clients));
        assert_eq!(loads, wanted.each_ref().map(|(what, clients)| (what.as_str(), *clients)));
        for task in &tasks {
            let others = (Group::Others, "ratio <= 1".to_owned());
            let many = vec![(Group::Haproxy, "ratio <= 1.15".to_owned()), others.clone()];
            assert_eq!(cpu_targets(task), if task.clients == 1 { vec![others] } else { many });
            let latency = task.comparisons[0].latency.map(|target| target.to_string());
            assert_eq!(latency, (task.clients > 1).then(|| "ratio of p99 <= 1.2".to_owned()));
        }
    }

    #[test]
    fn loads_of_a_full_run_have_names_of_their_own() {
        let parts = Part::value_variants();
        let tasks = [transfers(parts), connections(parts), http()].concat();
        let names: BTreeSet<_> = tasks.iter().map(|task| (&task.what, task.clients)).collect();
        assert_eq!((names.len(), tasks.len()), (11, 11), "{names:?}");
        assert!([transfers(&[Part::Memory]), connections(&[Part::Memory])].concat().is_empty());
        assert_eq!(transfers(&[Part::Splice]).len(), transfers(&[Part::Transfer]).len());
    }
}
