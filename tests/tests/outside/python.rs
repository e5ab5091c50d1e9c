//! Python's HTTP clients. `COTERIE_HTTP_PYTHON` names a Python that has them; `python3` unless given.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::repository;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::front::{Front, HOST, Kind, authority, testdata};
use crate::tool::{is_missing, run};

/// A Python with these modules. If there is none, prints that and returns `None`; on CI that is an error.
pub(crate) async fn python(modules: &str) -> anyhow::Result<Option<PathBuf>> {
    let python = PathBuf::from(std::env::var_os("COTERIE_HTTP_PYTHON").unwrap_or_else(|| "python3".into()));
    if run(&python, &["-c", &format!("import {modules}")]).await.is_ok() {
        return Ok(Some(python));
    }
    is_missing(&format!("{} lacks some of the modules {modules}", python.display()))?;
    Ok(None)
}

/// The path of a script.
pub(crate) fn script(name: &str) -> String {
    repository().join("tests/fixtures").join(name).display().to_string()
}

/// How long a script may run.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs a script that is both server and client, with a front in between that reaches the server with this scheme. It prints
/// its port, reads where the front is, and prints `done`.
pub(crate) async fn converse(
    kind: Kind,
    modules: &str,
    (name, arguments): (&str, &[&str]),
    scheme: &str,
) -> anyhow::Result<()> {
    let Some(python) = python(modules).await? else { return Ok(()) };
    let mut child = Command::new(python)
        .arg(script(name))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut printed = BufReader::new(child.stdout.take().context("it is piped")?);
    let mut port = String::new();
    timeout(LIMIT, printed.read_line(&mut port)).await.context("the script prints its port")??;
    let to = format!("{scheme}://127.0.0.1:{}", port.trim());
    let front = Front::before(kind, &to, JoinSet::new()).await?;
    let told = format!("http://{} {HOST} {} {}\n", front.address("plain")?, front.port("web")?, authority());
    child.stdin.take().context("it is piped")?.write_all(told.as_bytes()).await?;
    let mut rest = String::new();
    timeout(LIMIT, printed.read_line(&mut rest)).await.context("the script ends")??;
    let ended = timeout(LIMIT, child.wait_with_output()).await.context("the script ends")??;
    ensure!(rest == "done\n" && ended.status.success(), "{rest}{}", String::from_utf8_lossy(&ended.stderr));
    front.machine.ctl(&["down"]).await?.exits(0)?;
    Ok(())
}

#[tokio::test]
async fn httpx_multiplexes_requests_over_http_2() -> anyhow::Result<()> {
    let Some(python) = python("httpx, h2").await? else { return Ok(()) };
    let front = Front::start(Kind::Gateway).await?;
    let (plain, port) = (format!("http://{}", front.address("plain")?), front.port("web")?);
    let clients = [front.port("clients")?, testdata("client.crt"), testdata("client.key")];
    let [clients, cert, key] = &clients;
    let arguments = [&script("httpx_client.py"), &plain, HOST, &port, &authority(), clients, cert, key];
    let shown = run(Path::new(&python), &arguments).await?;
    anyhow::ensure!(shown.ends_with("done\n"), "{shown}");
    front.machine.ctl(&["down"]).await?.exits(0)?;
    Ok(())
}
