//! The official Elasticsearch client indexes, updates, deletes and searches through a gateway, if it is installed.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::ensure;
use e2e::{eventually, repository};
use tokio::process::Command;

use crate::{ask, up, url};

const SEARCH: &str = "\
services:
  searcher: {shards: 2}
nodes:
  - {id: gateway, service: api_gateway}
  - {id: s, service: searcher, count: 2}
";

/// A Python that has the client. If there is none, prints that and returns `None`; on CI that is a failure.
async fn python() -> anyhow::Result<Option<PathBuf>> {
    let python =
        PathBuf::from(std::env::var_os("COTERIE_ELASTIC_PYTHON").unwrap_or_else(|| "python3".into()));
    let mut command = Command::new(&python);
    command
        .args(["-c", "import elasticsearch"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if command.status().await.is_ok_and(|status| status.success()) {
        return Ok(Some(python));
    }
    let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    ensure!(!is_ci, "{} has no module elasticsearch: pip install 'elasticsearch>=8,<9'", python.display());
    println!("skipped: {} has no module elasticsearch (pip install 'elasticsearch>=8,<9')", python.display());
    Ok(None)
}

#[tokio::test]
async fn the_official_elasticsearch_client_works_through_a_gateway() -> anyhow::Result<()> {
    let Some(python) = python().await? else { return Ok(()) };
    let machine = up(SEARCH).await?;
    let gateway = eventually("the gateway listens", || async {
        let own = ask(&format!("{}/v1/agent/self", url(&machine, "gateway").ok()?)).await.ok()?;
        own["member"]["state"]["endpoints"]["gateway"].as_str().map(str::to_owned)
    })
    .await?;
    let script = repository().join("tests/fixtures/elastic.py");
    let ran = Command::new(python).arg(script).arg(format!("{gateway}/searcher/es")).output().await?;
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    ensure!(ran.status.success() && out.contains("everything is as it should be"), "{out}{err}");
    machine.ctl(&["down"]).await?.exits(0)?;
    Ok(())
}
