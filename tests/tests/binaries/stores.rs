//! One suite on every kind of store: storage keeps its promises on a folder and on an S3 server.

use e2e::{Machine, Moto, eventually};
use http::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{agent_pid, ask, url};

const NODES: &str = "\
services:
  storage: {shards: 2, replicas: 1}
nodes:
  - {id: gateway, service: api_gateway}
  - {id: s, service: storage, count: 4, restart: no}
  - {id: spare, service: standby, count: 2}
";

/// A cluster, and what its processes need to reach their store.
struct Cluster {
    machine: Machine,
    environment: Vec<(&'static str, String)>,
    http: reqwest::Client,
    storage: String,
}

impl Cluster {
    async fn up(store: &str, environment: Vec<(&'static str, String)>) -> anyhow::Result<Self> {
        let machine = Machine::new()?;
        let manifest = machine.manifest(&format!("{store}{NODES}"))?;
        let mut cluster =
            Self { machine, environment, http: client::plain_http().build()?, storage: String::new() };
        cluster.ctl(&["up", &manifest, "--timeout", "60s"]).await?.exits(0)?;
        let gateway = eventually("the gateway listens", || async {
            let own = ask(&format!("{}/v1/agent/self", url(&cluster.machine, "gateway").ok()?)).await.ok()?;
            own["member"]["state"]["endpoints"]["gateway"].as_str().map(str::to_owned)
        });
        cluster.storage = format!("{}/storage", gateway.await?);
        Ok(cluster)
    }

    async fn ctl(&self, arguments: &[&str]) -> anyhow::Result<e2e::Said> {
        let environment: Vec<_> =
            self.environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.machine.start_with("ctl", arguments, &environment)?.ends().await
    }

    async fn put(&self, key: &str, value: &str) -> anyhow::Result<String> {
        let answer =
            self.http.put(format!("{}/kv/{key}", self.storage)).body(value.to_owned()).send().await?;
        let etag = answer.headers().get("etag").cloned();
        anyhow::ensure!(answer.status().is_success(), "{key}: {}", answer.text().await?);
        Ok(etag.ok_or_else(|| anyhow::anyhow!("no ETag"))?.to_str()?.to_owned())
    }

    async fn get(&self, key: &str) -> anyhow::Result<Option<String>> {
        let answer = self.http.get(format!("{}/kv/{key}", self.storage)).send().await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        Ok(Some(answer.error_for_status()?.text().await?))
    }

    async fn claims(&self) -> anyhow::Result<Vec<Value>> {
        let claims = self.ctl(&["claims", "-o", "json"]).await?.exits(0)?.json()?;
        Ok(claims["claims"].as_array().cloned().unwrap_or_default())
    }

    fn pid(&self, node: &str) -> anyhow::Result<Pid> {
        agent_pid(&self.machine, node)
    }
}

async fn writes_are_conditional_and_batches_whole(cluster: &Cluster) -> anyhow::Result<()> {
    let url = format!("{}/kv/lock", cluster.storage);
    let create = || cluster.http.put(&url).header("if-none-match", "*").body("held");
    let first = create().send().await?;
    assert_eq!(first.status(), StatusCode::OK);
    let version = first.headers()["etag"].clone();
    assert_eq!(create().send().await?.status(), StatusCode::PRECONDITION_FAILED);
    let swap = || cluster.http.put(&url).header("if-match", version.clone()).body("mine");
    assert_eq!(swap().send().await?.status(), StatusCode::OK);
    assert_eq!(swap().send().await?.status(), StatusCode::PRECONDITION_FAILED);
    assert_eq!(cluster.get("lock").await?.as_deref(), Some("mine"));

    let batch = |operations: Value| {
        cluster.http.post(format!("{}/batch", cluster.storage)).json(&json!({ "operations": operations }))
    };
    let whole =
        json!([{"put": "{u}/a", "value": "1"}, {"put": "{u}/b", "value": "2", "if_none_match": true}]);
    assert_eq!(batch(whole.clone()).send().await?.status(), StatusCode::OK);
    assert_eq!(batch(whole).send().await?.status(), StatusCode::PRECONDITION_FAILED, "b is there now");
    let spread: Vec<_> =
        (0..20).map(|number| json!({"put": format!("spread-{number}"), "value": "x"})).collect();
    let refused = batch(spread.into()).send().await?;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{}", refused.text().await?);
    assert_eq!(cluster.get("spread-0").await?, None);
    Ok(())
}

async fn values_expire_and_lines_are_exported_and_imported(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.ctl(&["kv", "put", "brief", "x", "--ttl", "1s"]).await?.exits(0)?;
    eventually("it has expired", || async { cluster.get("brief").await.ok()?.is_none().then_some(()) })
        .await?;
    let lines: String = (0..500)
        .map(|n| format!("{}\n", json!({"key": format!("lines/{n:03}"), "value": n.to_string()})))
        .collect();
    let file = cluster.machine.write("lines.ndjson", &lines)?;
    cluster.ctl(&["kv", "import", &file]).await?.exits(0)?.tells("imported 500 keys")?;
    let exported = cluster.ctl(&["kv", "export", "lines/"]).await?.exits(0)?.out;
    let keys: Vec<_> = exported
        .lines()
        .map(|line| Ok(serde_json::from_str::<Value>(line)?["key"].as_str().unwrap_or_default().to_owned()))
        .collect::<anyhow::Result<_>>()?;
    assert_eq!(keys, (0..500).map(|n| format!("lines/{n:03}")).collect::<Vec<_>>());
    Ok(())
}

async fn owners_die_and_nothing_is_lost(cluster: &Cluster) -> anyhow::Result<()> {
    for number in 0..20 {
        cluster.put(&format!("kept-{number}"), &number.to_string()).await?;
    }
    let copied = |claim: &Value| claim["replicas"].as_array().is_some_and(|replicas| !replicas.is_empty());
    let claims = eventually("each shard has a replica", || async {
        cluster.claims().await.ok().filter(|claims| claims.len() == 2 && claims.iter().all(copied))
    })
    .await?;
    let stale = cluster.http.get(format!("{}/kv/kept-0?consistency=any", cluster.storage)).send().await?;
    assert!(stale.headers().contains_key("coterie-staleness-ms"), "{stale:?}");
    for claim in &claims {
        let owner = claim["holder"]["node"].as_str().unwrap_or_default();
        kill_process(cluster.pid(owner)?, Signal::KILL)?;
    }
    for number in 0..20 {
        let key = format!("kept-{number}");
        assert_eq!(cluster.get(&key).await?, Some(number.to_string()), "{key}");
        cluster.put(&key, "again").await?;
    }
    eventually("standbys have become the replicas", || async {
        let now = cluster.claims().await.ok()?;
        let is_whole = |claim: &Value| claim["honoured"] == true && copied(claim);
        now.iter().all(is_whole).then_some(())
    })
    .await?;
    let status = cluster.ctl(&["status"]).await?.exits(1)?;
    for words in ["is gone: killed by SIGKILL", "no standby is left"] {
        assert!(status.out.contains(words), "{words}: {}", status.out);
    }
    Ok(())
}

async fn suite(cluster: &Cluster) -> anyhow::Result<()> {
    writes_are_conditional_and_batches_whole(cluster).await?;
    values_expire_and_lines_are_exported_and_imported(cluster).await?;
    owners_die_and_nothing_is_lost(cluster).await?;
    cluster.ctl(&["down"]).await?.exits(0)?;
    cluster.machine.nothing_is_left()
}

#[tokio::test]
async fn storage_keeps_its_promises_on_a_folder() -> anyhow::Result<()> {
    suite(&Cluster::up("", Vec::new()).await?).await
}

#[tokio::test]
async fn storage_keeps_its_promises_on_an_s3_server() -> anyhow::Result<()> {
    let Some(moto) = Moto::start().await? else { return Ok(()) };
    let environment = moto.environment().to_vec();
    suite(&Cluster::up(&format!("store: s3://{}/suite\n", Moto::BUCKET), environment).await?).await
}
