//! Python's HTTP clients. `COTERIE_HTTP_PYTHON` names a Python that has them; `python3` unless given.

use std::path::{Path, PathBuf};

use e2e::repository;

use crate::front::{Front, HOST, authority, testdata};
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

#[tokio::test]
async fn httpx_multiplexes_requests_over_http_2() -> anyhow::Result<()> {
    let Some(python) = python("httpx, h2").await? else { return Ok(()) };
    let front = Front::start().await?;
    let (plain, port) = (format!("http://{}", front.address("plain")?), front.port("web")?);
    let clients = [front.port("clients")?, testdata("client.crt"), testdata("client.key")];
    let [clients, cert, key] = &clients;
    let arguments = [&script("httpx_client.py"), &plain, HOST, &port, &authority(), clients, cert, key];
    let shown = run(Path::new(&python), &arguments).await?;
    anyhow::ensure!(shown.ends_with("done\n"), "{shown}");
    front.machine.ctl(&["down"]).await?.exits(0)?;
    Ok(())
}
