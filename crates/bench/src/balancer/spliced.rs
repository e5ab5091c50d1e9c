//! Our balancer with `splice: true`, in the rounds of all other proxies.
//!
//! Its results become rows of their own, beside the same results of the others.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde_json::{Value, json};

use crate::balancer::{SERVICE, tcp};
use crate::proxies::backend::Site;
use crate::proxies::measured::{Comparison, Group};
use crate::proxies::options::Setting;
use crate::proxies::rounds::{Measured, Rounds};
use crate::proxies::start::Running;
use crate::proxies::{Addresses, Layer, Proxy};

/// What a load is run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Candidate {
    /// With the default settings.
    Proxy(Proxy),
    /// Ours, with `splice: true`.
    Spliced,
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proxy(proxy) => proxy.fmt(f),
            Self::Spliced => f.write_str("ours, spliced"),
        }
    }
}

/// These proxies as candidates.
pub(super) fn candidates(running: BTreeMap<Proxy, Running>) -> BTreeMap<Candidate, Running> {
    running.into_iter().map(|(proxy, running)| (Candidate::Proxy(proxy), running)).collect()
}

/// Adds our balancer with `splice: true`, if ours is measured at all.
pub(super) async fn start(
    setting: &Setting,
    running: &mut BTreeMap<Candidate, Running>,
) -> anyhow::Result<()> {
    if running.contains_key(&Candidate::Proxy(Proxy::Ours)) {
        let started = setting.stage(Layer::Tcp).start_ours(SERVICE, settings, "spliced").await?;
        running.insert(Candidate::Spliced, started);
    }
    Ok(())
}

/// Ends our balancer with `splice: true`, if there is one.
pub(super) async fn end(running: &mut BTreeMap<Candidate, Running>) -> anyhow::Result<()> {
    match running.remove(&Candidate::Spliced) {
        Some(spliced) => spliced.end().await,
        None => Ok(()),
    }
}

/// The results with the default settings and, if there are any, those with `splice: true`. These have no targets, which are for
/// the default.
pub(super) fn split(measured: Measured<Candidate>) -> Vec<Measured<Proxy>> {
    let Measured { task, rounds: all, direct } = measured;
    let (mut rounds, mut spliced): (BTreeMap<Proxy, Rounds>, _) = (BTreeMap::new(), None);
    for (candidate, each) in all {
        match candidate {
            Candidate::Proxy(proxy) => drop(rounds.insert(proxy, each)),
            Candidate::Spliced => spliced = Some(each),
        }
    }
    let spliced = spliced.map(|ours| {
        let mut task = task.clone();
        task.what.push_str(", spliced");
        task.comparisons = vec![Comparison::with(Group::Peers)];
        let mut rounds = rounds.clone();
        rounds.insert(Proxy::Ours, ours);
        Measured { task, rounds, direct: Rounds::default() }
    });
    std::iter::once(Measured { task, rounds, direct }).chain(spliced).collect()
}

fn settings(addresses: &Addresses, site: &Site, folder: &Path) -> Value {
    let mut settings = tcp(addresses, site, folder);
    settings["listeners"][0]["splice"] = json!(true);
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::{Part, tasks};
    use crate::proxies::measured::compared;

    fn measured(all: &[(Candidate, f64)]) -> Measured<Candidate> {
        let rounds = |cpu: f64| Rounds { cpu: vec![cpu], ..Rounds::default() };
        let task = tasks::transfers(&[Part::Transfer]).remove(0);
        let rounds = all.iter().map(|(candidate, cpu)| (*candidate, rounds(*cpu))).collect();
        Measured { task, rounds, direct: Rounds::default() }
    }

    #[test]
    fn spliced_bytes_have_rows_of_their_own_beside_the_same_peers_and_no_target() {
        let all = [
            (Candidate::Proxy(Proxy::Ours), 3.0),
            (Candidate::Proxy(Proxy::Haproxy), 4.0),
            (Candidate::Spliced, 2.0),
        ];
        let split = split(measured(&all));
        let cpu = |at: usize| {
            let Measured { task, rounds, .. } = &split[at];
            (task.what.as_str(), rounds[&Proxy::Ours].cpu[0], rounds[&Proxy::Haproxy].cpu[0])
        };
        assert_eq!(split.len(), 2);
        assert_eq!((cpu(0), cpu(1)), (("TCP, 64 KB", 3.0, 4.0), ("TCP, 64 KB, spliced", 2.0, 4.0)));
        let targets = |at: usize| {
            compared(&split[at])
                .iter()
                .flat_map(|each| &each.comparisons)
                .filter(|(_, each)| each.is_some())
                .count()
        };
        assert!(targets(0) > 0);
        assert_eq!(targets(1), 0);
    }

    #[test]
    fn without_splice_the_results_are_those_of_the_proxies() {
        let split = split(measured(&[(Candidate::Proxy(Proxy::Ours), 3.0)]));
        assert_eq!(split.len(), 1);
        assert_eq!(split[0].task.what, "TCP, 64 KB");
    }
}
