//! `manifests/full.yaml` with the real binaries: every type of service, behind one address.

use std::time::Duration;

use anyhow::ensure;
use e2e::{Machine, eventually, repository};
use serde_json::Value;

use crate::{ask, url};

/// The manifest for another cluster, as the machine of a test starts it.
fn manifest(machine: &Machine) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(repository().join("manifests/full.yaml"))?;
    machine.manifest(&text.replace("cluster: full\nprofile: local\n", ""))
}

/// The types of service that the agent has, besides a standby.
async fn types(machine: &Machine) -> anyhow::Result<Vec<String>> {
    let about = ask(&format!("{}/v1/members/balancer", url(machine, "balancer")?)).await?;
    let runnable = about["member"]["about"]["runnable"].as_array().cloned().unwrap_or_default();
    Ok(runnable.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

#[tokio::test]
async fn every_type_of_service_is_reached_through_one_address() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    machine.ctl(&["up", &manifest(&machine)?, "--timeout", "60s"]).await?.exits(0)?;
    let members = ask(&format!("{}/v1/members", url(&machine, "balancer")?)).await?.to_string();
    for service in types(&machine).await? {
        ensure!(members.contains(&format!("\"{service}\"")), "no node of full.yaml is a {service}");
    }
    let front = crate::balancer::front(&machine).await?;
    let http = client::plain_http().timeout(Duration::from_secs(30)).build()?;
    let text =
        async |path: &str| http.get(format!("{front}{path}")).send().await?.error_for_status()?.text().await;
    eventually("a gateway answers", || async { text("/healthz").await.ok().filter(|body| body == "ok") })
        .await?;
    http.put(format!("{front}/storage/kv/greeting")).body("hello").send().await?.error_for_status()?;
    ensure!(text("/storage/kv/greeting").await? == "hello");
    let note = format!("{front}/searcher/notes/docs/1?refresh=true");
    http.put(note).body(r#"{"text": "a note to find"}"#).send().await?.error_for_status()?;
    let found: Value = serde_json::from_str(&text("/searcher/notes/search?q=find").await?)?;
    ensure!(found["hits"][0]["id"] == "1", "{found}");
    machine.ctl(&["down", "--purge", "--yes"]).await?.exits(0)?;
    machine.nothing_is_left()
}
