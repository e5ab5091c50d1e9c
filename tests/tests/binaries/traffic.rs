//! A web server's file arrives intact through a gateway while the cluster changes.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use axum::Router;
use bytes::Bytes;
use e2e::{Machine, Running, eventually};
use tokio::task::JoinSet;

use crate::{FIVE, FIVE_NAMES, ask, url};

const CONNECTIONS: usize = 64;
const LOAD: Duration = Duration::from_secs(10);

/// The server of the file; it ends when this is dropped.
struct FileServer {
    _python: Option<Running>,
    _own: JoinSet<()>,
}

/// Serves a folder with Python, or one file with a server in this process if there is no Python.
async fn serve(machine: &Machine, content: &Bytes) -> anyhow::Result<(FileServer, String)> {
    let python = std::process::Command::new("python3").arg("--version").stdout(Stdio::null()).status();
    if python.is_ok_and(|status| status.success()) {
        let server = machine.start("python3", &["-u", "-m", "http.server", "0", "--bind", "127.0.0.1"])?;
        let port = eventually("python3 prints its port", || async {
            let said = server.out();
            let (_, rest) = said.split_once(" port ")?;
            rest.split_once(' ')?.0.parse::<u16>().ok()
        })
        .await?;
        let server = FileServer { _python: Some(server), _own: JoinSet::new() };
        return Ok((server, format!("http://127.0.0.1:{port}")));
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let content = content.clone();
    let routes = Router::new().fallback(move || async move { content });
    let mut own = JoinSet::new();
    own.spawn(async move { axum::serve(listener, routes).await.unwrap_or_default() });
    let server = FileServer { _python: None, _own: own };
    Ok((server, url))
}

/// Fetches the file until stopped; every answer must be complete.
async fn fetch(http: reqwest::Client, url: String, content: Bytes, load: Arc<Load>) -> anyhow::Result<()> {
    while !load.is_over.load(Ordering::Relaxed) {
        let answer = http.get(&url).send().await.context("no answer")?;
        let status = answer.status();
        let body = answer.bytes().await.context("an incomplete answer")?;
        ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
        ensure!(body == content, "the file was changed: {} of {} bytes", body.len(), content.len());
        load.answered.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    answered: AtomicU64,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_served_through_a_gateway_while_nodes_change_leave_and_join() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let content: Bytes = (0..50_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>().into();
    std::fs::create_dir(machine.folder().join("files"))?;
    std::fs::write(machine.folder().join("files/data.bin"), &content)?;
    let (server, upstream) = serve(&machine, &content).await?;
    let manifest = machine.manifest(&format!(
        "services:\n  api_gateway:\n    settings:\n      routes: [{{prefix: /served, to: ['{upstream}'], max_in_flight: 4}}]\n      wait: 60s\n{FIVE}"
    ))?;
    machine.ctl(&["up", &manifest]).await?.exits(0)?;
    let own = ask(&format!("{}/v1/agent/self", url(&machine, "gateway-1")?)).await?;
    let gateway =
        own["member"]["state"]["endpoints"]["gateway"].as_str().context("the gateway listens")?.to_owned();

    let load = Arc::new(Load::default());
    let mut clients = JoinSet::new();
    for _ in 0..CONNECTIONS {
        // One client each, so that each has its own connection.
        let http = client::plain_http().timeout(Duration::from_secs(60)).build()?;
        clients.spawn(fetch(http, format!("{gateway}/served/files/data.bin"), content.clone(), load.clone()));
    }
    let began = Instant::now();
    let mut rounds = 0;
    while began.elapsed() < LOAD {
        for change in [
            &["set-service", "standby-1", "api_gateway"][..],
            &["set-service", "gateway-2", "standby"],
            &["leave", "standby-2"],
            &["set-service", "standby-1", "standby"],
            &["drain", "standby-3"],
            &["up", &manifest, "--reset", "--timeout", "60s"],
        ] {
            machine.ctl(change).await?.exits(0)?;
        }
        rounds += 1;
    }
    load.is_over.store(true, Ordering::Relaxed);
    while let Some(client) = clients.join_next().await {
        client??;
    }
    let answered = load.answered.load(Ordering::Relaxed);
    assert!(rounds > 0 && answered > CONNECTIONS as u64, "{answered} requests during {rounds} rounds");
    assert_eq!(machine.members().await?, FIVE_NAMES);
    machine.ctl(&["status"]).await?.exits(0)?;
    drop(server);
    Ok(())
}
