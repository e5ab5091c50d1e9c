//! Measures every combination of task, value length, key distribution and number of clients, on every server in every
//! round.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::kv::Args;
use crate::kv::drive::{self, Drive, Task, WARM_UP};
use crate::kv::floor::Floor;
use crate::kv::keys::{Choice, Keys};
use crate::kv::protocol::{ClientApi, Value};
use crate::kv::rounds::Measured;
use crate::kv::work::Work;
use crate::proc::on_cpu;
use crate::progress::progress;

/// The pause between two tasks, in which a server finishes its background work.
const PAUSE: Duration = Duration::from_millis(300);

/// A server and the API to call it by.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) api: ClientApi,
    pub(crate) addr: SocketAddr,
    /// The processes that take part in an answer.
    pub(crate) pids: Vec<u32>,
}

impl Server {
    /// A run of clients against this server.
    pub(crate) fn drive(
        &self,
        task: Task,
        clients: usize,
        keys: &Keys,
        value: &Arc<Value>,
        time: Duration,
    ) -> Drive {
        let (keys, value) = (keys.clone(), Arc::clone(value));
        Drive { api: self.api, addr: self.addr, task, clients, keys, value, time }
    }

    fn on_cpu(&self) -> anyhow::Result<Duration> {
        self.pids.iter().map(|pid| on_cpu(*pid)).sum()
    }
}

/// The plan and the results.
#[derive(Debug)]
pub(crate) struct Matrix {
    servers: Vec<Server>,
    works: BTreeSet<Work>,
    keys: BTreeMap<Choice, Keys>,
    rounds: u32,
    time: Duration,
    pub(crate) measured: Measured,
    pub(crate) floor: Floor,
}

impl Matrix {
    pub(crate) fn new(args: &Args, servers: Vec<Server>) -> anyhow::Result<Self> {
        let keys = args.choices.iter().map(|choice| Ok((*choice, Keys::new(args.keys, *choice)?)));
        let keys = keys.collect::<anyhow::Result<_>>()?;
        Ok(Self {
            servers,
            works: works(args),
            keys,
            rounds: args.rounds,
            time: args.time(),
            measured: Measured::new(),
            floor: Floor::default(),
        })
    }

    /// The expected time of all rounds, without filling.
    pub(crate) fn takes(&self) -> Duration {
        let each = u32::try_from(self.works.len() * self.servers.len()).unwrap_or(u32::MAX);
        (WARM_UP + self.time + PAUSE).saturating_mul(each).saturating_mul(self.rounds)
    }

    /// Fills all servers with values of each length, and measures them in all rounds.
    pub(crate) async fn measure(&mut self, folder: &Path) -> anyhow::Result<()> {
        for length in self.works.iter().map(|work| work.value).collect::<BTreeSet<_>>() {
            let value = Arc::new(Value::of_length(length));
            self.fill(&value).await?;
            let works: Vec<_> = self.works.iter().filter(|work| work.value == length).copied().collect();
            for round in 1..=self.rounds {
                self.floor.measure(folder).await?;
                for work in &works {
                    self.measure_work(round, *work, &value).await?;
                }
            }
        }
        Ok(())
    }

    async fn fill(&self, value: &Arc<Value>) -> anyhow::Result<()> {
        let mut filled = BTreeSet::new();
        let Some(keys) = self.keys.values().next() else { return Ok(()) };
        for server in &self.servers {
            if filled.insert(server.api.tree()) {
                let began = Instant::now();
                server.drive(Task::Put, 1, keys, value, self.time).fill().await?;
                progress(&format!("{}: filled in {:.1} s", server.api, began.elapsed().as_secs_f64()));
            }
        }
        Ok(())
    }

    /// Measures all servers with the same work, one after the other.
    async fn measure_work(&mut self, round: u32, work: Work, value: &Arc<Value>) -> anyhow::Result<()> {
        let ways = self.measured.entry(work).or_default();
        let keys = &self.keys[&work.choice];
        for server in &self.servers {
            sleep(PAUSE).await;
            let before = server.on_cpu()?;
            let driven = server.drive(work.task, work.clients, keys, value, self.time).run().await?;
            let used = server.on_cpu()?.saturating_sub(before);
            progress(&format!(
                "round {round}, {work}, {} clients, {}: {:.0}/s",
                work.clients, server.api, driven.per_second
            ));
            let rounds = ways.entry(server.api).or_default();
            rounds.cpu_us.push(drive::cpu_us(used, &driven));
            rounds.per_second.push(driven.per_second);
            rounds.took_ms.extend(driven.took_ms);
        }
        Ok(())
    }
}

/// The combinations, each once even if it is named twice.
fn works(args: &Args) -> BTreeSet<Work> {
    let mut works = BTreeSet::new();
    for value in &args.values {
        for choice in &args.choices {
            for clients in &args.clients {
                for task in &args.tasks {
                    let (value, clients) = (*value, usize::from(*clients));
                    works.insert(Work { value, choice: *choice, clients, task: *task });
                }
            }
        }
    }
    works
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn named(words: &str) -> Vec<(String, usize)> {
        let line = Line::try_parse_from(format!("kv {words}").split_whitespace()).unwrap();
        works(&line.args).iter().map(|work| (work.to_string(), work.clients)).collect()
    }

    #[test]
    fn everything_is_measured_unless_a_part_is_named() {
        assert_eq!(named("").len(), 2 * 2 * 3 * 3);
        let part = named("--values 4096,100,100 --choices zipf --clients 64 --tasks put,primary");
        let work = |name: &str| (name.to_owned(), 64);
        assert_eq!(
            part,
            [
                work("PUT 100 B, zipf"),
                work("GET primary 100 B, zipf"),
                work("PUT 4 KiB, zipf"),
                work("GET primary 4 KiB, zipf")
            ]
        );
    }

    #[test]
    fn a_combination_has_a_readable_name() {
        let each = [
            ("--values 100 --choices uniform", "GET strong 100 B"),
            ("--values 1000 --choices zipf", "GET strong 1000 B, zipf"),
            ("--values 8192 --choices uniform", "GET strong 8 KiB"),
        ];
        for (words, name) in each {
            assert_eq!(named(&format!("{words} --clients 1 --tasks get")), [(name.to_owned(), 1)]);
        }
    }

    #[test]
    fn livez_cannot_be_chosen_as_a_task() {
        assert!(Line::try_parse_from(["kv", "--tasks", "livez"]).is_err());
    }
}
