//! An etcd cluster of three members with default settings.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::kv::etcd::command;
use crate::ports;
use crate::process::Process;

const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// Three members. Dropping it kills them.
#[derive(Debug)]
pub(crate) struct EtcdCluster {
    members: Vec<Member>,
    folder: PathBuf,
    http: reqwest::Client,
}

#[derive(Debug)]
struct Member {
    client: SocketAddr,
    peer: SocketAddr,
    process: Option<Process>,
}

impl EtcdCluster {
    /// Starts all members, and waits for a leader.
    pub(crate) async fn start(folder: &Path) -> anyhow::Result<Self> {
        let member =
            || Ok::<_, anyhow::Error>(Member { client: ports::free()?, peer: ports::free()?, process: None });
        let members = vec![member()?, member()?, member()?];
        let http = client::plain_http().timeout(Duration::from_secs(2)).build()?;
        let mut cluster = Self { members, folder: folder.to_owned(), http };
        for number in 0..3 {
            cluster.spawn(number)?;
        }
        cluster.leader().await?;
        Ok(cluster)
    }

    fn spawn(&mut self, number: usize) -> anyhow::Result<()> {
        let all: Vec<_> =
            (0..3).map(|other| format!("m{other}=http://{}", self.members[other].peer)).collect();
        let member = &self.members[number];
        let name = format!("m{number}");
        let mut command = command(&name, member.client, member.peer, &all.join(","));
        command.arg("--data-dir").arg(self.folder.join(&name));
        let process = Process::spawn(command, self.folder.join(format!("{name}.log")))?;
        self.members[number].process = Some(process);
        Ok(())
    }

    pub(crate) fn url(&self, number: usize) -> String {
        format!("http://{}", self.members[number].client)
    }

    /// The leader, once all three members agree on it.
    pub(crate) async fn leader(&self) -> anyhow::Result<usize> {
        let began = Instant::now();
        loop {
            let mut statuses = Vec::new();
            for number in 0..3 {
                statuses.extend(self.status(number).await);
            }
            if statuses.len() == 3
                && statuses.iter().all(|(_, leader)| *leader == statuses[0].1)
                && let Some(leader) = statuses.iter().position(|(id, leader)| id == leader)
            {
                return Ok(leader);
            }
            if began.elapsed() > LIMIT {
                bail!("etcd has no leader: {statuses:?}");
            }
            sleep(PAUSE).await;
        }
    }

    /// The member's id, and the id of its leader.
    async fn status(&self, number: usize) -> Option<(String, String)> {
        let url = format!("{}/v3/maintenance/status", self.url(number));
        let answer = self.http.post(url).body("{}").send().await.ok()?;
        let status: Value = answer.json().await.ok()?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Some((text(&status["header"]["member_id"])?, text(&status["leader"])?))
    }

    /// Kills a member with SIGKILL.
    pub(crate) async fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        let mut process = self.members[number].process.take().context("the member does not run")?;
        process.signal(Signal::KILL)?;
        process.ended().await
    }

    /// Restarts a member, and waits until it follows the leader.
    pub(crate) async fn restart(&mut self, number: usize) -> anyhow::Result<()> {
        self.spawn(number)?;
        self.leader().await.map(|_| ())
    }

    pub(crate) async fn end(mut self) {
        for number in 0..3 {
            // The member may have exited already.
            let _ = self.kill(number).await;
        }
    }
}
