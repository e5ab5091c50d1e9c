//! The scripts of `tests/fixtures/vtc`: raw clients and raw servers on both ends of a gateway, and of a balancer.

use std::path::Path;

use anyhow::ensure;
use e2e::{free_port, repository};
use tokio::task::JoinSet;

use crate::front::{Front, Kind};
use crate::tool::{has, run};

#[tokio::test]
async fn varnishtest_sees_what_its_scripts_expect() -> anyhow::Result<()> {
    plays(Kind::Gateway).await
}

#[tokio::test]
async fn varnishtest_sees_what_its_scripts_expect_of_a_balancer() -> anyhow::Result<()> {
    plays(Kind::Balancer).await
}

async fn plays(kind: Kind) -> anyhow::Result<()> {
    if !has("varnishtest", "-h", "varnish").await? {
        return Ok(());
    }
    // The scripts listen on this port, one after the other.
    let server = format!("127.0.0.1:{}", free_port()?);
    let front = Front::before(kind, &format!("http://{server}"), JoinSet::new()).await?;
    let macros = [format!("front={}", front.address("plain")?), format!("server={server}")];
    let mut scripts = Vec::new();
    for entry in std::fs::read_dir(repository().join("tests/fixtures/vtc"))? {
        scripts.push(entry?.path().display().to_string());
    }
    scripts.sort();
    ensure!(!scripts.is_empty());
    let mut failures = Vec::new();
    for script in &scripts {
        let arguments = ["-D", &macros[0], "-D", &macros[1], "-t", "60", "-v", script];
        if let Err(error) = run(Path::new("varnishtest"), &arguments).await {
            failures.push(format!("{error:#}"));
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    front.machine.ctl(&["down"]).await?.exits(0)?;
    Ok(())
}
