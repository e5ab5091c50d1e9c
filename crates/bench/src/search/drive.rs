//! Clients that send searches as fast as they are answered, all on one thread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::Full;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::kv::drive::{Driven, WARM_UP, joined, on_one_thread};
use crate::stats::millis;
use crate::wire::{Answer, Connection, Protocol};

/// How much longer than planned a run may take.
const LAST: Duration = Duration::from_secs(60);

/// The settings of one run of clients.
#[derive(Debug, Clone)]
pub(crate) struct Drive {
    pub(crate) addr: SocketAddr,
    /// What to get, in turn.
    pub(crate) paths: Arc<Vec<String>>,
    pub(crate) clients: usize,
    pub(crate) time: Duration,
}

impl Drive {
    /// Sends requests for the whole time. Fails at the first unexpected answer.
    pub(crate) async fn run(self) -> anyhow::Result<Driven> {
        let time = self.time;
        let each = on_one_thread(async move {
            let began = Instant::now() + WARM_UP;
            let mut clients = JoinSet::new();
            for number in 0..self.clients {
                clients.spawn(self.clone().client(number, began));
            }
            joined(clients, self.time + WARM_UP + LAST).await
        })
        .await?;
        let float = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        let all = float(each.iter().map(|(_, all)| all).sum());
        let took_ms: Vec<_> = each.into_iter().flat_map(|(took, _)| took).collect();
        Ok(Driven { per_second: float(took_ms.len()) / time.as_secs_f64(), took_ms, all })
    }

    async fn client(self, number: usize, began: Instant) -> anyhow::Result<(Vec<f64>, usize)> {
        let mut connection = Connection::open(self.addr, Protocol::Http1).await?;
        let host = self.addr.to_string();
        let (mut took, mut all) = (Vec::new(), 0);
        loop {
            let sent = Instant::now();
            get(&mut connection, &host, &self.paths[(number + all) % self.paths.len()]).await?;
            let now = Instant::now();
            all += 1;
            if now > began + self.time {
                return Ok((took, all));
            }
            if now > began {
                took.push(millis(now - sent));
            }
        }
    }
}

/// Gets a path; anything but 200 is an error.
pub(crate) async fn get(connection: &mut Connection, host: &str, path: &str) -> anyhow::Result<Answer> {
    let request = Request::builder().uri(path).header(HOST, host).body(Full::new(Bytes::new()))?;
    let answer = connection.send(request).await?;
    if answer.status != StatusCode::OK {
        bail!("{path}: {} {}", answer.status, answer.excerpt());
    }
    Ok(answer)
}
