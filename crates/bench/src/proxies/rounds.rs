//! Runs loads in rounds, in each of them on every proxy.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;

use crate::progress::progress;
use crate::proxies::Addresses;
use crate::proxies::backend::Body;
use crate::proxies::cores::Cores;
use crate::proxies::load::{Latency, Load, count};
use crate::proxies::start::Running;
use crate::proxies::task::{Kind, Task};

/// The pause between two loads, in which proxies close connections.
const PAUSE: Duration = Duration::from_millis(300);
/// The first load of each proxy, which is not counted.
const WARM_UP_CLIENTS: usize = 64;
/// CPU time is reported for this many operations.
const OPERATIONS: f64 = 100_000.0;

/// How loads are run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Runner<'a> {
    pub(crate) cores: Cores,
    pub(crate) folder: &'a Path,
    pub(crate) seconds: u64,
    pub(crate) rounds: u32,
    /// The backend for loads without a proxy.
    pub(crate) direct: SocketAddr,
}

/// The results of one load on one proxy in all rounds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rounds {
    /// In the unit of the task.
    pub(crate) rates: Vec<f64>,
    pub(crate) latencies: Vec<Latency>,
    /// Operations in all rounds.
    pub(crate) operations: u64,
    /// CPU seconds for 100,000 operations.
    pub(crate) cpu: Vec<f64>,
    /// Why rounds failed.
    pub(crate) failed: Vec<String>,
}

/// The results of one load.
#[derive(Debug)]
pub(crate) struct Measured<K> {
    pub(crate) task: Task,
    pub(crate) rounds: BTreeMap<K, Rounds>,
    /// Without a proxy, if the task asks for it.
    pub(crate) direct: Rounds,
}

impl Runner<'_> {
    /// The expected time of these loads.
    pub(crate) fn takes(&self, tasks: &[Task], proxies: usize) -> Duration {
        let loads: usize = tasks.iter().map(|task| proxies + usize::from(task.is_direct)).sum();
        let loads = u32::try_from(loads).unwrap_or(u32::MAX);
        (Duration::from_secs(self.seconds) + PAUSE).saturating_mul(loads).saturating_mul(self.rounds)
    }

    /// Runs all loads on all proxies, in all rounds. A load that fails is noted and costs only its own round.
    pub(crate) async fn measure<K>(
        &self,
        running: &BTreeMap<K, Running>,
        tasks: Vec<Task>,
    ) -> anyhow::Result<Vec<Measured<K>>>
    where
        K: Copy + Ord + Display,
    {
        let minutes = self.takes(&tasks, running.len()).as_secs().div_ceil(60);
        progress(&format!("{} loads, {} rounds, about {minutes} min", tasks.len(), self.rounds));
        for proxy in running.values() {
            let warm_up =
                Task::new("warm-up", WARM_UP_CLIENTS, Kind::Http1 { body: Body::OneKb, tls: false });
            warm_up.run(&proxy.addresses, self.cores, self.folder, 1).await?;
        }
        let mut all: Vec<_> = tasks.into_iter().map(Measured::new).collect();
        for round in 1..=self.rounds {
            for measured in &mut all {
                self.round(round, running, measured).await?;
            }
        }
        Ok(all)
    }

    /// Runs one load on all proxies. Each round begins with another proxy.
    async fn round<K>(
        &self,
        round: u32,
        running: &BTreeMap<K, Running>,
        measured: &mut Measured<K>,
    ) -> anyhow::Result<()>
    where
        K: Copy + Ord + Display,
    {
        let Measured { task, rounds, direct } = measured;
        let told = |who: &str, words: &str| {
            progress(&format!("round {round}, {}, {} clients, {who}: {words}", task.what, task.clients));
        };
        if task.is_direct {
            sleep(PAUSE).await;
            let addresses = Addresses { http1: self.direct, http2: self.direct, tls: self.direct };
            let load = task.run(&addresses, self.cores, self.folder, self.seconds).await;
            told("no proxy", &direct.note(task, load, Duration::ZERO));
        }
        let first = usize::try_from(round)? % running.len().max(1);
        for (key, proxy) in running.iter().cycle().skip(first).take(running.len()) {
            sleep(PAUSE).await;
            let before = proxy.cpu()?;
            let load = task.run(&proxy.addresses, self.cores, self.folder, self.seconds).await;
            let used = proxy.cpu()?.saturating_sub(before);
            told(&key.to_string(), &rounds.entry(*key).or_default().note(task, load, used));
        }
        Ok(())
    }
}

impl<K> Measured<K> {
    fn new(task: Task) -> Self {
        Self { task, rounds: BTreeMap::new(), direct: Rounds::default() }
    }
}

impl Rounds {
    /// Adds a round, and describes it.
    fn note(&mut self, task: &Task, load: anyhow::Result<Load>, used: Duration) -> String {
        match load {
            Err(error) => {
                let why = format!("{error:#}");
                self.failed.push(why.clone());
                why
            }
            Ok(load) => {
                let rate = task.rate(&load);
                let cpu = used.as_secs_f64() / count(load.operations) * OPERATIONS;
                self.rates.push(rate);
                self.cpu.push(cpu);
                self.operations += load.operations;
                let told =
                    format!("{rate:.0} {}, p99 {:.2} ms, {cpu:.2} CPU s", task.unit(), load.latency.p99);
                self.latencies.push(load.latency);
                told
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_that_of_100000_operations_and_a_failed_round_counts_nothing() {
        let latency = Latency::of_micros(&mut [2_000]).unwrap();
        let load = Load { operations: 50_000, seconds: 2.0, latency };
        let task = Task::new("x", 1, Kind::Http1 { body: Body::OneKb, tls: false });
        let mut rounds = Rounds::default();
        let told = rounds.note(&task, Ok(load), Duration::from_millis(1_500));
        assert_eq!(told, "25000 req/s, p99 2.00 ms, 3.00 CPU s");
        assert_eq!(rounds.note(&task, Err(anyhow::anyhow!("no answer")), Duration::ZERO), "no answer");
        assert_eq!((rounds.rates, rounds.cpu, rounds.operations), (vec![25_000.0], vec![3.0], 50_000));
        assert_eq!(rounds.failed, ["no answer"]);
    }
}
