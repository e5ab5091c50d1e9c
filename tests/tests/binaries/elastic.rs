//! Clients of Elasticsearch write and search through a gateway or a listener, if they are installed.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, ensure};
use e2e::{Machine, eventually, repository};
use rustix::process::Signal;
use tokio::process::Command;

use crate::{ask, up, url};

const SEARCH: &str = "\
services:
  searcher: {shards: 2}
nodes:
  - {id: gateway, service: api_gateway}
  - {id: s, service: searcher, count: 2}
";

/// On CI, a client that is missing is a failure.
fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// A Python that has this version of the client: one of those in `COTERIE_ELASTIC_PYTHON`, or `python3`. If there is none,
/// prints that and returns `None`; on CI that is a failure.
async fn python(version: u32) -> anyhow::Result<Option<PathBuf>> {
    let named = std::env::var_os("COTERIE_ELASTIC_PYTHON").unwrap_or_else(|| "python3".into());
    let check = format!("import elasticsearch, sys; sys.exit(elasticsearch.__version__[0] != {version})");
    for python in std::env::split_paths(&named) {
        let mut command = Command::new(&python);
        command.args(["-c", &check]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if command.status().await.is_ok_and(|status| status.success()) {
            return Ok(Some(python));
        }
    }
    let (named, next) = (named.display(), version + 1);
    let lacks = format!(
        "{named} has no module elasticsearch {version}: pip install 'elasticsearch>={version},<{next}'"
    );
    ensure!(!is_ci(), lacks);
    println!("skipped: {lacks}");
    Ok(None)
}

/// Where a gateway answers Elasticsearch's API.
async fn elasticsearch(machine: &Machine) -> anyhow::Result<String> {
    let gateway = eventually("the gateway listens", || async {
        let own = ask(&format!("{}/v1/agent/self", url(machine, "gateway").ok()?)).await.ok()?;
        own["member"]["state"]["endpoints"]["gateway"].as_str().map(str::to_owned)
    });
    Ok(format!("{}/searcher/es", gateway.await?))
}

async fn uses_a_gateway(version: u32) -> anyhow::Result<()> {
    let Some(python) = python(version).await? else { return Ok(()) };
    let machine = up(SEARCH).await?;
    let script = repository().join("tests/fixtures/elastic.py");
    let ran = Command::new(python).arg(script).arg(elasticsearch(&machine).await?).output().await?;
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    ensure!(ran.status.success() && out.contains("everything is as it should be"), "{out}{err}");
    machine.ctl(&["down"]).await?.exits(0)?;
    Ok(())
}

#[tokio::test]
async fn version_8_of_the_official_elasticsearch_client_works_through_a_gateway() -> anyhow::Result<()> {
    uses_a_gateway(8).await
}

#[tokio::test]
async fn version_9_of_the_official_elasticsearch_client_works_through_a_gateway() -> anyhow::Result<()> {
    uses_a_gateway(9).await
}

/// Sends the lines of a file, as the manual of `omelasticsearch` shows it. An index name of its own for each year.
const RSYSLOG: &str = r#"
global(workDirectory="FOLDER")
module(load="imfile")
module(load="omelasticsearch")
template(name="document" type="list" option.jsonf="on") {
  property(outname="@timestamp" name="timereported" dateFormat="rfc3339" format="jsonf")
  property(outname="severity" name="syslogseverity-text" format="jsonf")
  property(outname="message" name="msg" format="jsonf")
}
template(name="index" type="list") { constant(value="logs-") property(name="timereported" dateFormat="year") }
input(type="imfile" File="FOLDER/app.log" Tag="app:")
action(type="omelasticsearch" server="127.0.0.1" serverport="PORT" template="document" searchIndex="index"
       dynSearchIndex="on" searchType="" bulkmode="on" errorfile="FOLDER/errors" action.resumeRetryCount="-1")
"#;

#[tokio::test]
async fn rsyslog_sends_lines_to_the_listener_of_a_searcher() -> anyhow::Result<()> {
    let modules = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
    let is_there = |folder: &&str| Path::new(folder).join("rsyslog/omelasticsearch.so").is_file();
    if !modules.iter().any(is_there) {
        let lacks = "there is no rsyslog with omelasticsearch (apt-get install rsyslog-elasticsearch)";
        ensure!(!is_ci(), lacks);
        println!("skipped: {lacks}");
        return Ok(());
    }
    let settings = "searcher: {shards: 2, settings: {es_listen: '127.0.0.1:0'}}";
    let machine = up(&SEARCH.replace("searcher: {shards: 2}", settings)).await?;
    let listener = eventually("the listener is published", || async {
        let own = ask(&format!("{}/v1/agent/self", url(&machine, "s-1").ok()?)).await.ok()?;
        own["member"]["state"]["endpoints"]["elasticsearch"].as_str().map(str::to_owned)
    })
    .await?;
    let port = listener.rsplit(':').next().unwrap_or_default();
    let folder = machine.folder().to_str().context("temporary folders have plain names")?;
    let lines: String = (0..200).map(|number| format!("line {number} \"quoted\" \\ ünicode\n")).collect();
    machine.write("app.log", &lines)?;
    let conf = machine.write("rsyslog.conf", &RSYSLOG.replace("FOLDER", folder).replace("PORT", port))?;
    let mut rsyslog =
        machine.start("rsyslogd", &["-n", "-f", &conf, "-i", &format!("{folder}/rsyslog.pid")])?;
    let found = eventually("all lines are found", || async {
        let answer = ask(&format!("{listener}/logs-*/_search?q=quoted&size=200")).await.ok()?;
        (answer["hits"]["total"]["value"] == 200).then_some(answer)
    })
    .await;
    let trouble = std::fs::read_to_string(machine.folder().join("errors")).unwrap_or_default();
    let found = found.with_context(|| format!("{}{}{trouble}", rsyslog.out(), rsyslog.err()))?;
    let mut messages: Vec<&str> = found["hits"]["hits"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|hit| hit["_source"]["message"].as_str())
        .collect();
    messages.sort_unstable();
    let mut wanted: Vec<&str> = lines.lines().collect();
    wanted.sort_unstable();
    ensure!(messages == wanted, "{messages:?}");
    ensure!(!rsyslog.has_ended()?);
    rsyslog.signal(Signal::TERM);
    rsyslog.ends().await?;
    machine.ctl(&["down"]).await?.exits(0)?;
    Ok(())
}
