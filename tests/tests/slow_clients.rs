//! No slow client prolongs the time in which a shard has no owner: neither slow uploads, slow downloads, watches that
//! are not read, nor listings that wait for other shards.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use e2e::{NodeOptions, Sandbox, eventually};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use types::Spec;

/// Far above what a change takes here, far below what waiting for one of the clients would cost.
const LONGEST: Duration = Duration::from_secs(3);
const BIG: usize = 4 * 1024 * 1024;
const LONG: Duration = Duration::from_secs(30);

async fn sandbox(replicas: u32) -> anyhow::Result<Sandbox> {
    let mut sandbox = Sandbox::new()?;
    let spec = Spec { settings: json!({}), shards: Some(2), replicas, ..Spec::default() };
    sandbox.settle("storage", &spec).await?;
    for (name, role) in
        [("gateway", "api_gateway"), ("a", "storage/0"), ("b", "storage/1"), ("spare", "standby")]
    {
        sandbox.start(name, role, &NodeOptions::default()).await?;
    }
    sandbox.all_ready().await?;
    Ok(sandbox)
}

/// A key of shard 0 of two.
fn key_of_0(name: &str) -> String {
    let two = std::num::NonZeroU32::new(2).expect("two is not zero");
    let key = |number: u32| format!("{name}-{number}");
    let is_0 = |key: &String| types::KeyHash::of(key.as_bytes()).shard(two).as_u32() == 0;
    (0..).map(key).find(is_0).expect("half of all keys are")
}

/// Sends a head and the given part of a body, and reads nothing.
async fn ask(base: &str, request: &str) -> anyhow::Result<TcpStream> {
    let address = base.strip_prefix("http://").context("a URL")?;
    let (address, prefix) = address.split_once('/').map_or((address, ""), |(address, path)| (address, path));
    let mut stream = TcpStream::connect(address).await?;
    let prefix = if prefix.is_empty() { String::new() } else { format!("/{prefix}") };
    let (method, rest) = request.split_once(' ').context("a request")?;
    let head = format!("{method} {prefix}{rest}");
    stream.write_all(head.as_bytes()).await?;
    Ok(stream)
}

/// Clients that would each delay a role change that waited for them.
struct Slow {
    uploads: JoinSet<String>,
    downloads: Vec<TcpStream>,
    _watches: Vec<TcpStream>,
    stop: Arc<AtomicBool>,
    listings: JoinSet<anyhow::Result<u64>>,
}

impl Slow {
    async fn begin(sandbox: &Sandbox, bases: &[String]) -> anyhow::Result<Self> {
        let big = key_of_0("big");
        let put = sandbox.http().put(format!("{}/storage/kv/{big}", bases[0])).body(vec![b'x'; BIG]);
        put.send().await?.error_for_status()?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut slow = Self {
            uploads: JoinSet::new(),
            downloads: Vec::new(),
            _watches: Vec::new(),
            stop: stop.clone(),
            listings: JoinSet::new(),
        };
        for base in bases {
            let key = key_of_0("slow");
            let head =
                format!("PUT /storage/kv/{key} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\na");
            let mut upload = ask(base, &head).await?;
            slow.uploads.spawn(async move {
                let mut answer = [0; 512];
                loop {
                    tokio::select! {
                        read = upload.read(&mut answer) => {
                            let length = read.unwrap_or(0);
                            return String::from_utf8_lossy(&answer[..length]).into_owned();
                        }
                        () = sleep(Duration::from_secs(1)) => if upload.write_all(b"b").await.is_err() {
                            return String::new();
                        }
                    }
                }
            });
            let get =
                format!("GET /storage/kv/{big} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
            let mut download = ask(base, &get).await?;
            anyhow::ensure!(download.read_u8().await? == b'H');
            slow.downloads.push(download);
            let watch = "GET /storage/watch?values=true HTTP/1.1\r\nhost: localhost\r\n\r\n";
            let mut watch = ask(base, watch).await?;
            anyhow::ensure!(watch.read_u8().await? == b'H');
            slow._watches.push(watch);
            let (http, stop) = (sandbox.http().clone(), stop.clone());
            let url = format!("{}/storage/kv?limit=10", bases[0]);
            slow.listings.spawn(async move {
                let mut listed = 0;
                while !stop.load(Ordering::Relaxed) {
                    let answer = http.get(&url).send().await?;
                    let status = answer.status();
                    anyhow::ensure!(status.is_success(), "{status}: {}", answer.text().await?);
                    listed += 1;
                }
                Ok(listed)
            });
        }
        Ok(slow)
    }

    /// Checks that data in transit to a slow client arrives complete.
    async fn end(mut self) -> anyhow::Result<()> {
        for mut download in self.downloads {
            let mut rest = Vec::new();
            timeout(LONG, download.read_to_end(&mut rest)).await.context("a download ends")??;
            anyhow::ensure!(rest.len() > BIG, "a download has {} bytes", rest.len());
        }
        self.stop.store(true, Ordering::Relaxed);
        while let Some(listed) = self.listings.join_next().await {
            anyhow::ensure!(listed?? > 0, "nothing was listed");
        }
        Ok(())
    }
}

/// Writers to shard 0, and the time at which each write was acknowledged.
struct Writers {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<Instant>>>,
    clients: JoinSet<anyhow::Result<()>>,
}

impl Writers {
    fn begin(sandbox: &Sandbox, gateway: &str) -> Self {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let mut clients = JoinSet::new();
        for writer in 0..4 {
            let url = format!("{gateway}/storage/kv/{}", key_of_0(&format!("writer-{writer}")));
            let (http, stop, acknowledged) = (sandbox.http().clone(), stop.clone(), acknowledged.clone());
            clients.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let answer = http.put(&url).body("value").send().await?;
                    let status = answer.status();
                    anyhow::ensure!(status.is_success(), "{status}: {}", answer.text().await?);
                    acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
                }
                Ok(())
            });
        }
        Self { stop, acknowledged, clients }
    }

    async fn wait_for_more(&self) -> anyhow::Result<()> {
        let count = || self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).len();
        let before = count();
        eventually("writes are acknowledged", || async { (count() > before + 20).then_some(()) }).await
    }

    /// The longest time without an acknowledged write.
    async fn end(mut self) -> anyhow::Result<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(client) = self.clients.join_next().await {
            client??;
        }
        let mut moments = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone();
        moments.sort_unstable();
        Ok(moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default())
    }
}

async fn change(sandbox: &Sandbox, node: &str, role: Value, take: bool) -> anyhow::Result<Value> {
    let url = format!("{}/v1/members/{node}/service?take={take}", sandbox.url(node)?);
    let answer = sandbox.http().put(url).json(&role).send().await?;
    let status = answer.status();
    let body: Value = answer.json().await?;
    anyhow::ensure!(status.is_success(), "{status}: {body}");
    Ok(body)
}

fn shard_0() -> Value {
    json!({ "service": "storage", "shard": 0 })
}

fn bases(sandbox: &Sandbox, gateway: &str, owner: &str) -> anyhow::Result<Vec<String>> {
    Ok(vec![gateway.to_owned(), format!("{}/svc", sandbox.url(owner)?)])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_moves_at_once_despite_slow_clients_and_their_data_arrives() -> anyhow::Result<()> {
    let sandbox = sandbox(0).await?;
    let gateway = sandbox.gateway("gateway").await?;
    let mut slow = Slow::begin(&sandbox, &bases(&sandbox, &gateway, "a")?).await?;
    let writers = Writers::begin(&sandbox, &gateway);
    writers.wait_for_more().await?;
    let receipt = change(&sandbox, "spare", shard_0(), true).await?;
    let names: Vec<_> = receipt["steps"].as_array().into_iter().flatten().map(|step| &step["name"]).collect();
    assert_eq!(names, ["prepare", "ask", "take", "start", "mount", "receipt"]);
    writers.wait_for_more().await?;
    let longest = writers.end().await?;
    println!("{longest:?} without an acknowledged write");
    assert!(longest < LONGEST, "{longest:?} without an acknowledged write");
    // The upload sent to the owner is refused as not processed; the gateway forwards the other one to the new owner.
    let refused = timeout(LONG, slow.uploads.join_next()).await?.context("it ends")??;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("coterie-not-processed"), "{refused}");
    slow.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_change_and_a_leave_give_the_shard_to_a_replica_at_once() -> anyhow::Result<()> {
    let mut sandbox = sandbox(1).await?;
    let gateway = sandbox.gateway("gateway").await?;
    for name in ["replica", "more"] {
        sandbox.start(name, "standby", &NodeOptions::default()).await?;
    }
    let has_replica = |name: &'static str| {
        let sandbox = &sandbox;
        async move {
            let claims = sandbox.http().get(format!("{}/v1/claims", sandbox.url(name).ok()?));
            let claims: Value = claims.send().await.ok()?.json().await.ok()?;
            let replicas = claims["claims"][0]["replicas"].as_array()?.len();
            (replicas > 0).then_some(())
        }
    };
    eventually("shard 0 has a replica", || has_replica("a")).await?;
    for way in ["change", "leave"] {
        let view = sandbox.node("gateway")?.view();
        let owner = {
            let view = view.borrow();
            let owner = view.members().find(|member| {
                member.state.as_ref().is_some_and(|state| {
                    state.epoch.is_some() && state.role.shard().is_some_and(|shard| shard.as_u32() == 0)
                })
            });
            owner.context("shard 0 has an owner")?.id.to_string()
        };
        let slow = Slow::begin(&sandbox, &bases(&sandbox, &gateway, &owner)?).await?;
        let writers = Writers::begin(&sandbox, &gateway);
        writers.wait_for_more().await?;
        if way == "change" {
            change(&sandbox, &owner, json!({ "service": "standby" }), false).await?;
            writers.wait_for_more().await?;
            slow.end().await?;
            eventually("shard 0 has a replica again", || has_replica("gateway")).await?;
        } else {
            // Answers that it still sends do not keep the shard.
            sandbox.node(&owner)?.leaver().leave();
            writers.wait_for_more().await?;
            slow.end().await?;
        }
        let longest = writers.end().await?;
        println!("{way}: {longest:?} without an acknowledged write");
        assert!(longest < LONGEST, "{way}: {longest:?} without an acknowledged write");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_gateway_takes_a_shard_without_waiting_for_itself() -> anyhow::Result<()> {
    let mut sandbox = sandbox(0).await?;
    sandbox.start("busy", "api_gateway", &NodeOptions::default()).await?;
    sandbox.all_ready().await?;
    let gateway = sandbox.gateway("gateway").await?;
    let busy = sandbox.gateway("busy").await?;
    let through_busy = Writers::begin(&sandbox, &busy);
    let slow = Slow::begin(&sandbox, &bases(&sandbox, &gateway, "a")?).await?;
    let writers = Writers::begin(&sandbox, &gateway);
    writers.wait_for_more().await?;
    through_busy.wait_for_more().await?;
    through_busy.stop.store(true, Ordering::Relaxed);
    change(&sandbox, "busy", shard_0(), true).await?;
    writers.wait_for_more().await?;
    let longest = writers.end().await?;
    println!("{longest:?} without an acknowledged write");
    assert!(longest < LONGEST, "{longest:?} without an acknowledged write");
    slow.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_can_not_get_a_new_shard_keeps_its_old_one_all_the_time() -> anyhow::Result<()> {
    let sandbox = sandbox(0).await?;
    let epochs = || async {
        let claims = sandbox.http().get(format!("{}/v1/claims", sandbox.url("gateway")?));
        let claims: Value = claims.send().await?.json().await?;
        let epoch = |shard: usize| claims["claims"][shard]["holder"].clone();
        anyhow::Ok((epoch(0), epoch(1)))
    };
    let before = epochs().await?;
    // It is owned, and the command does not take it: refused before anything is disturbed.
    let refused = change(&sandbox, "a", json!({ "service": "storage", "shard": 1 }), false).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("409") && refused.contains("owned by b"), "{refused}");
    assert_eq!(epochs().await?, before);
    Ok(())
}
