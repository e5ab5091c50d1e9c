//! Documents outlive the owners of their shards, and searches find each of them once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::{NodeOptions, Sandbox, eventually};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use types::Spec;

/// Two shards with a replica each, two standbys and a gateway. Returns the URL of the service.
async fn cluster(sandbox: &mut Sandbox) -> anyhow::Result<String> {
    let settings =
        json!({"indexes": {"books": {"fields": {"title": {"type": "text"}, "token": {"type": "keyword"}}}}});
    let spec = Spec { settings, shards: Some(2), replicas: 1, ..Spec::default() };
    sandbox.settle("searcher", &spec).await?;
    for (name, role) in [
        ("gateway", "api_gateway"),
        ("a", "searcher/0"),
        ("b", "searcher/1"),
        ("c", "standby"),
        ("d", "standby"),
        ("e", "standby"),
    ] {
        sandbox.start(name, role, &NodeOptions::default()).await?;
    }
    sandbox.all_ready().await?;
    Ok(format!("{}/searcher", sandbox.gateway("gateway").await?))
}

/// The ids of the documents that a search finds, in the order of the answer.
async fn found(http: &reqwest::Client, service: &str, query: &str) -> anyhow::Result<Vec<String>> {
    let answer =
        http.get(format!("{service}/books/search?size=1000&allow_partial=false&{query}")).send().await?;
    let (status, body) = (answer.status(), answer.text().await?);
    ensure!(status == StatusCode::OK, "{status}: {body}");
    let answer: Value = serde_json::from_str(&body)?;
    let hits = answer["hits"].as_array().context("hits")?;
    let ids: Vec<_> = hits.iter().filter_map(|hit| hit["id"].as_str().map(str::to_owned)).collect();
    ensure!(answer["total"].as_u64() == u64::try_from(ids.len()).ok(), "{body}");
    Ok(ids)
}

/// What is known of an id: the numbers that its document may have; `None` stands for no document.
type Known = BTreeMap<String, BTreeSet<Option<u32>>>;

/// Writes documents of its own ids one after the other, and notes what may be there.
async fn write(http: reqwest::Client, service: String, client: u32, known: Arc<Mutex<Known>>) {
    for round in 0..40 {
        let id = format!("{client}-{}", round % 10);
        let number = client * 1_000 + round;
        let url = format!("{service}/books/docs/{id}");
        let (sent, now) = if round % 7 == 6 {
            (http.delete(&url), None)
        } else {
            (
                http.put(&url)
                    .json(&json!({"title": format!("a book {number}"), "token": format!("t{number}")})),
                Some(number),
            )
        };
        let is_acknowledged = match sent.timeout(Duration::from_secs(20)).send().await {
            Ok(answer) if answer.status().is_success() || answer.status() == StatusCode::NOT_FOUND => true,
            // It may or may not be done.
            Ok(_) | Err(_) => false,
        };
        let mut known = known.lock().expect("no test panics while it holds this");
        let may_be = known.entry(id).or_insert_with(|| BTreeSet::from([None]));
        if is_acknowledged {
            may_be.clear();
        }
        may_be.insert(now);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_documents_outlive_the_owners_of_their_shards() -> anyhow::Result<()> {
    let mut sandbox = Sandbox::new()?;
    let service = cluster(&mut sandbox).await?;
    let http = sandbox.http().clone();
    let known = Arc::new(Mutex::new(Known::new()));
    let mut writers = JoinSet::new();
    for client in 0..4 {
        writers.spawn(write(http.clone(), service.clone(), client, Arc::clone(&known)));
    }
    // Owners die while documents arrive.
    for owner in ["a", "b"] {
        let count = || known.lock().map_or(0, |known| known.len());
        let before = count();
        eventually("more documents are written", || async { (count() > before.min(30)).then_some(()) })
            .await?;
        sandbox.kill(owner).await?;
    }
    while let Some(ended) = writers.join_next().await {
        ended?;
    }
    let known = std::mem::take(&mut *known.lock().expect("the writers have ended"));
    for (id, may_be) in &known {
        let answer = http.get(format!("{service}/books/docs/{id}")).send().await?;
        let number = match answer.status() {
            StatusCode::NOT_FOUND => None,
            status => {
                let body = answer.text().await?;
                ensure!(status == StatusCode::OK, "{id}: {status} {body}");
                let document: Value = serde_json::from_str(&body)?;
                let token = document["token"].as_str().context("a token")?;
                Some(token.trim_start_matches('t').parse()?)
            }
        };
        ensure!(may_be.contains(&number), "{id} has {number:?}, may have {may_be:?}");
        // A search finds just that version.
        if let Some(number) = number {
            let with_token = found(&http, &service, &format!("q=token:t{number}&consistency=strong")).await?;
            ensure!(with_token == [id.clone()], "{id}: {with_token:?}");
        }
    }
    let all = found(&http, &service, "consistency=strong").await?;
    let distinct: BTreeSet<_> = all.iter().collect();
    ensure!(distinct.len() == all.len(), "a document was found twice");
    ensure!(all.iter().all(|id| known[id].iter().any(Option::is_some)), "a deleted document was found");
    Ok(())
}
