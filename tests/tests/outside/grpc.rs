//! gRPC through the gateway: a script with Python's grpcio is both server and client.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::front::{Front, HOST, authority};
use crate::python::{python, script};

/// How long a script may run.
const LIMIT: Duration = Duration::from_secs(120);

#[tokio::test]
async fn grpc_calls_of_every_kind_pass_with_their_trailers() -> anyhow::Result<()> {
    let Some(python) = python("grpc, grpc_health").await? else { return Ok(()) };
    let mut child = Command::new(python)
        .arg(script("grpc_client.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut printed = BufReader::new(child.stdout.take().context("it is piped")?);
    let mut port = String::new();
    timeout(LIMIT, printed.read_line(&mut port)).await.context("the script prints its port")??;
    let front = Front::before(&format!("h2c://127.0.0.1:{}", port.trim()), JoinSet::new()).await?;
    let told = format!("http://{} {HOST} {} {}\n", front.address("plain")?, front.port("web")?, authority());
    child.stdin.take().context("it is piped")?.write_all(told.as_bytes()).await?;
    let mut rest = String::new();
    timeout(LIMIT, printed.read_line(&mut rest)).await.context("the script ends")??;
    let ended = timeout(LIMIT, child.wait_with_output()).await.context("the script ends")??;
    ensure!(rest == "done\n" && ended.status.success(), "{rest}{}", String::from_utf8_lossy(&ended.stderr));
    front.machine.ctl(&["down"]).await?.exits(0)?;
    Ok(())
}
