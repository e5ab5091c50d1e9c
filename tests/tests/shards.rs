//! Shards with owners: they move without losing a write or a request, and no shard ever has two owners.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use e2e::{NodeOptions, Sandbox, eventually};
use http::StatusCode;
use serde_json::{Value, json};
use store::faults::{Faults, Mode, When};
use store::{Store, StoreUrl};
use tokio::task::JoinSet;
use types::api::{Claims, Member, Receipt};
use types::{Phase, Spec};

/// Requests a role; returns a problem as its status and its JSON.
async fn change(
    sandbox: &Sandbox,
    by: &str,
    node: &str,
    role: Value,
    take: bool,
) -> anyhow::Result<Result<Receipt, (u16, Value)>> {
    let url = format!("{}/v1/members/{node}/service?take={take}", sandbox.url(by)?);
    let answer = sandbox.http().put(url).json(&role).send().await?;
    let status = answer.status();
    Ok(if status.is_success() {
        Ok(answer.json().await?)
    } else {
        Err((status.as_u16(), answer.json().await?))
    })
}

async fn take(sandbox: &Sandbox, node: &str, shard: u32) -> anyhow::Result<Receipt> {
    let role = json!({ "service": "storage", "shard": shard });
    let outcome = change(sandbox, node, node, role, true).await?;
    outcome.map_err(|(status, problem)| anyhow::anyhow!("{status}: {problem}"))
}

async fn claims(sandbox: &Sandbox, by: &str) -> anyhow::Result<Vec<String>> {
    let claims: Claims =
        sandbox.http().get(format!("{}/v1/claims", sandbox.url(by)?)).send().await?.json().await?;
    let owner = |claim: &types::api::ClaimView| {
        claim.holder.as_ref().map_or_else(|| "-".to_owned(), |holder| holder.node.to_string())
    };
    Ok(claims.claims.iter().map(|claim| format!("{}={}", claim.shard, owner(claim))).collect())
}

async fn put(sandbox: &Sandbox, base: &str, key: &str, value: &str) -> anyhow::Result<StatusCode> {
    let request = sandbox.http().put(format!("{base}/storage/kv/{key}")).body(value.to_owned());
    let answer = request.send().await?;
    let status = answer.status();
    if !status.is_success() {
        // Shown if the test fails.
        println!("{status}: {}", answer.text().await?);
    }
    Ok(status)
}

async fn get(sandbox: &Sandbox, base: &str, key: &str) -> anyhow::Result<Option<String>> {
    let answer = sandbox.http().get(format!("{base}/storage/kv/{key}")).send().await?;
    if answer.status() == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    Ok(Some(answer.error_for_status()?.text().await?))
}

fn svc(sandbox: &Sandbox, node: &str) -> anyhow::Result<String> {
    Ok(format!("{}/svc", sandbox.url(node)?))
}

fn is_standby_because(member: &Member, why: &str) -> bool {
    member.state.as_ref().is_some_and(|state| {
        state.role.service().is_none() && state.reason.as_ref().is_some_and(|reason| reason.contains(why))
    })
}

/// Clients that write rising numbers through a gateway, each to its own key, until stopped.
struct Writers {
    stop: Arc<AtomicBool>,
    clients: JoinSet<anyhow::Result<(String, u64)>>,
}

impl Writers {
    fn begin(sandbox: &Sandbox, gateway: &str, number: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for client in 0..number {
            let (stop, http, gateway) = (stop.clone(), sandbox.http().clone(), gateway.to_owned());
            clients.spawn(async move {
                let url = format!("{gateway}/storage/kv/client-{client}");
                let mut acknowledged = 0;
                while !stop.load(Ordering::Relaxed) {
                    let next = acknowledged + 1;
                    let answer = http.put(&url).body(next.to_string()).send().await?;
                    let status = answer.status();
                    anyhow::ensure!(status.is_success(), "{status}: {}", answer.text().await?);
                    acknowledged = next;
                    let found: u64 =
                        http.get(&url).send().await?.error_for_status()?.text().await?.parse()?;
                    anyhow::ensure!(
                        found == acknowledged,
                        "{found} was read after {acknowledged} was written"
                    );
                }
                Ok((format!("client-{client}"), acknowledged))
            });
        }
        Self { stop, clients }
    }

    /// The last number that each has written.
    async fn end(mut self) -> anyhow::Result<BTreeMap<String, u64>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut acknowledged = BTreeMap::new();
        while let Some(client) = self.clients.join_next().await {
            let (key, last) = client??;
            acknowledged.insert(key, last);
        }
        Ok(acknowledged)
    }
}

const DEMO: [(&str, &str); 4] =
    [("gateway", "api_gateway"), ("a", "storage/0"), ("b", "storage/1"), ("spare", "standby")];

/// Storage in two shards.
async fn demo() -> anyhow::Result<Sandbox> {
    let mut sandbox = Sandbox::new()?;
    let spec = Spec { settings: json!({}), shards: Some(2), ..Spec::default() };
    sandbox.settle("storage", &spec).await?;
    for (name, role) in DEMO {
        sandbox.start(name, role, &NodeOptions::default()).await?;
    }
    sandbox.all_ready().await?;
    Ok(sandbox)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_moves_under_load_and_no_request_fails_and_no_write_is_lost() -> anyhow::Result<()> {
    let sandbox = demo().await?;
    let gateway = sandbox.gateway("gateway").await?;
    let writers = Writers::begin(&sandbox, &gateway, 8);
    let mut epoch = 1;
    for round in 0..10 {
        let to = ["spare", "a"][round % 2];
        let receipt = take(&sandbox, to, 0).await?;
        assert_eq!(receipt.state.phase, Phase::Ready);
        let taken = receipt.state.epoch.unwrap_or_default().0;
        assert!(taken > epoch, "epochs rise: {epoch}, {taken}");
        epoch = taken;
    }
    let acknowledged = writers.end().await?;
    for (key, last) in acknowledged {
        assert!(last > 0, "{key} was never written");
        assert_eq!(get(&sandbox, &gateway, &key).await?, Some(last.to_string()), "{key}");
    }
    assert_eq!(claims(&sandbox, "gateway").await?, ["0=a", "1=b"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_of_another_owner_is_refused_and_the_owner_is_named() -> anyhow::Result<()> {
    let sandbox = demo().await?;
    let role = json!({ "service": "storage", "shard": 0 });
    let (status, problem) = change(&sandbox, "gateway", "spare", role, false).await?.unwrap_err();
    assert_eq!((status, &problem["type"]), (409, &json!("urn:coterie:problem:owned")), "{problem}");
    assert!(problem["detail"].as_str().unwrap_or_default().contains("owned by a (epoch 1)"), "{problem}");
    assert!(problem["hint"].as_str().unwrap_or_default().contains("--take"), "{problem}");
    // Nothing was disturbed.
    sandbox.all_ready().await?;
    assert_eq!(claims(&sandbox, "spare").await?, ["0=a", "1=b"]);

    let beyond = json!({ "service": "storage", "shard": 2 });
    let (status, problem) = change(&sandbox, "spare", "spare", beyond, true).await?.unwrap_err();
    assert_eq!(status, 400, "{problem}");
    assert!(problem["detail"].as_str().unwrap_or_default().contains("there is no shard 2"), "{problem}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_a_shard_of_another_node_is_answered_with_its_owner() -> anyhow::Result<()> {
    let sandbox = demo().await?;
    let gateway = sandbox.gateway("gateway").await?;
    for number in 0..8 {
        let key = format!("key-{number}");
        assert_eq!(put(&sandbox, &gateway, &key, "x").await?, StatusCode::OK);
        let mut owners = Vec::new();
        for node in ["a", "b", "spare"] {
            let url = format!("{}/storage/kv/{key}", svc(&sandbox, node)?);
            let answer = sandbox.http().get(url).send().await?;
            if answer.status() == StatusCode::OK {
                owners.push(node.to_owned());
                continue;
            }
            assert_eq!(answer.status(), StatusCode::MISDIRECTED_REQUEST, "{node}");
            assert_eq!(answer.headers()["coterie-epoch"], "1");
            assert!(answer.headers().contains_key("coterie-not-processed"));
            owners.push(answer.headers()["coterie-owner"].to_str()?.to_owned());
        }
        owners.dedup();
        assert_eq!(owners.len(), 1, "all name the same owner of {key}: {owners:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_owner_resumes_its_shard_whatever_its_flags_say() -> anyhow::Result<()> {
    let mut sandbox = demo().await?;
    let gateway = sandbox.gateway("gateway").await?;
    take(&sandbox, "spare", 0).await?;
    for number in 0..20 {
        assert_eq!(
            put(&sandbox, &gateway, &format!("key-{number}"), &number.to_string()).await?,
            StatusCode::OK
        );
    }
    sandbox.kill("spare").await?;
    sandbox.kill("b").await?;
    // Restarted with their first flags, they resume the shards that they owned, and no other node has lost one.
    sandbox.start("b", "storage/1", &NodeOptions::default()).await?;
    sandbox.start("spare", "standby", &NodeOptions::default()).await?;
    sandbox.all_ready().await?;
    assert_eq!(claims(&sandbox, "a").await?, ["0=spare", "1=b"]);
    for number in 0..20 {
        assert_eq!(get(&sandbox, &gateway, &format!("key-{number}")).await?, Some(number.to_string()));
    }
    let spare = sandbox.seen("a", "spare", |member| member.state.is_some()).await?;
    assert!(spare.state.and_then(|state| state.epoch).is_some_and(|epoch| epoch.0 > 3), "a new take");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_may_take_a_shard_from_an_owner_that_is_gone() -> anyhow::Result<()> {
    let mut sandbox = demo().await?;
    let gateway = sandbox.gateway("gateway").await?;
    for number in 0..20 {
        assert_eq!(
            put(&sandbox, &gateway, &format!("key-{number}"), &number.to_string()).await?,
            StatusCode::OK
        );
    }
    sandbox.kill("a").await?;
    let role = || json!({ "service": "storage", "shard": 0 });
    let (status, problem) = change(&sandbox, "spare", "spare", role(), false).await?.unwrap_err();
    assert_eq!(status, 409, "{problem}");
    take(&sandbox, "spare", 0).await?;
    for number in 0..20 {
        assert_eq!(get(&sandbox, &gateway, &format!("key-{number}")).await?, Some(number.to_string()));
    }
    // The former owner finds another owner, and stands by.
    sandbox.start("a", "storage/0", &NodeOptions::default()).await?;
    sandbox.seen("spare", "a", |member| is_standby_because(member, "owned by spare")).await?;
    assert_eq!(claims(&sandbox, "a").await?, ["0=spare", "1=b"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_can_be_taken_from_a_live_node_that_does_not_run_it() -> anyhow::Result<()> {
    let mut sandbox = demo().await?;
    let gateway = sandbox.gateway("gateway").await?;
    for number in 0..20 {
        assert_eq!(put(&sandbox, &gateway, &format!("key-{number}"), "x").await?, StatusCode::OK);
    }
    // A claim of the live node `spare` that it does not know of, as after a take whose answer was lost.
    let claims_log = sandbox.store().await?.claims();
    let shard = "storage/0".parse()?;
    sandbox.leave("a").await?;
    let state = claims_log.read(&shard).await?;
    let spare = sandbox.seen("gateway", "spare", |_| true).await?;
    claims_log.take(&shard, &state, &spare.id, spare.generation).await?;
    sandbox.start("a", "standby", &NodeOptions::default()).await?;
    take(&sandbox, "a", 0).await?;
    assert_eq!(claims(&sandbox, "a").await?, ["0=a", "1=b"]);
    for number in 0..20 {
        assert_eq!(get(&sandbox, &gateway, &format!("key-{number}")).await?.as_deref(), Some("x"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_can_not_store_a_command_disturbs_no_other() -> anyhow::Result<()> {
    let sandbox = demo().await?;
    std::fs::write(sandbox.data_dir("spare").join("role.json"), "{")?;
    let role = json!({ "service": "storage", "shard": 0 });
    let (status, problem) = change(&sandbox, "spare", "spare", role, true).await?.unwrap_err();
    assert_eq!((status, &problem["type"]), (503, &json!("urn:coterie:problem:not-kept")), "{problem}");
    assert_eq!(claims(&sandbox, "spare").await?, ["0=a", "1=b"]);
    sandbox.all_ready().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_that_is_killed_owns_nothing_after_its_start() -> anyhow::Result<()> {
    let mut sandbox = demo().await?;
    let drain = format!("{}/v1/members/a:drain", sandbox.url("a")?);
    sandbox.http().post(drain).send().await?.error_for_status()?;
    let generation = sandbox.seen("b", "a", |_| true).await?.generation;
    sandbox.kill("a").await?;
    // As if it had been killed before it released its shard.
    let claims_log = sandbox.store().await?.claims();
    let shard = "storage/0".parse()?;
    let state = claims_log.read(&shard).await?;
    claims_log.take(&shard, &state, &"a".parse()?, generation).await?;
    sandbox.start("a", "storage/0", &NodeOptions::default()).await?;
    eventually("it releases the shard", || async {
        (claims(&sandbox, "b").await.ok()? == ["0=-", "1=b"]).then_some(())
    })
    .await?;
    let a = sandbox.seen("b", "a", |member| member.state.is_some()).await?;
    assert_eq!(a.state.map(|state| state.phase), Some(Phase::Stopped));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_swap_their_shards_at_once_end_with_one_owner_each() -> anyhow::Result<()> {
    let sandbox = demo().await?;
    let gateway = sandbox.gateway("gateway").await?;
    let writers = Writers::begin(&sandbox, &gateway, 2);
    let (one, two) = tokio::join!(take(&sandbox, "a", 1), take(&sandbox, "b", 0));
    // Both may be refused, since each is busy.
    for refused in [one, two].into_iter().filter_map(Result::err) {
        assert!(refused.to_string().contains("409"), "{refused}");
    }
    for (shard, node) in [(0, "a"), (1, "b")] {
        take(&sandbox, node, shard).await?;
    }
    assert_eq!(claims(&sandbox, "gateway").await?, ["0=a", "1=b"]);
    for (key, last) in writers.end().await? {
        assert_eq!(get(&sandbox, &gateway, &key).await?, Some(last.to_string()), "{key}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_leaves_or_is_drained_releases_its_shard() -> anyhow::Result<()> {
    let mut sandbox = demo().await?;
    let drain = format!("{}/v1/members/b:drain", sandbox.url("a")?);
    sandbox.http().post(drain).send().await?.error_for_status()?;
    sandbox.leave("a").await?;
    // The spare was offered the first shard, so it can't take the second.
    eventually("the shards are released", || async {
        let claims = claims(&sandbox, "spare").await.ok()?;
        (claims == ["0=-", "1=spare"]).then_some(())
    })
    .await?;
    let url = format!("{}/v1/claims", sandbox.url("spare")?);
    let listed = sandbox.http().get(url).send().await?.text().await?;
    assert!(listed.contains("released by a: leaving"), "{listed}");
    let spare = sandbox.seen("spare", "spare", |member| {
        member.state.as_ref().is_some_and(|state| state.epoch.is_some() && state.reason.is_some())
    });
    let reason = spare.await?.state.and_then(|state| state.reason).unwrap_or_default();
    assert_eq!(reason, "took over: released by b: drained");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spec_is_changed_by_compare_and_set_and_its_shards_never() -> anyhow::Result<()> {
    let sandbox = demo().await?;
    let url = format!("{}/v1/spec", sandbox.url("gateway")?);
    let specs: Value = sandbox.http().get(&url).send().await?.json().await?;
    assert_eq!(specs["specs"]["storage"]["spec"]["shards"], 2, "{specs}");
    let put = async |service: &str, condition: (&str, &str), body: Value| -> anyhow::Result<(u16, Value)> {
        let request = sandbox.http().put(format!("{url}/{service}")).header(condition.0, condition.1);
        let answer = request.json(&body).send().await?;
        Ok((answer.status().as_u16(), answer.json().await?))
    };
    let number = specs["specs"]["storage"]["number"].as_u64().unwrap_or_default();
    let latest = format!("\"{number}\"");
    let same = json!({ "settings": {}, "shards": 2 });
    for (service, condition, body, status, word) in [
        ("storage", ("if-match", latest.as_str()), json!({ "settings": {}, "shards": 3 }), 409, "2"),
        ("storage", ("if-match", latest.as_str()), json!({ "settings": {} }), 400, "shards"),
        (
            "storage",
            ("if-match", latest.as_str()),
            json!({ "settings": { "no_such": 1 }, "shards": 2 }),
            400,
            "no_such",
        ),
        ("storage", ("if-match", latest.as_str()), json!({ "setings": {}, "shards": 2 }), 400, "setings"),
        ("storage", ("if-match", "\"99\""), same.clone(), 412, "changed"),
        ("storage", ("if-none-match", "*"), same.clone(), 412, "changed"),
        ("storage", ("accept", "*/*"), same.clone(), 400, "If-Match"),
        ("analytics", ("if-none-match", "*"), same.clone(), 404, "analytics"),
        ("api_gateway", ("if-match", "\"1\""), same.clone(), 400, "shards"),
    ] {
        let (found, problem) = put(service, condition, body.clone()).await?;
        assert_eq!(found, status, "{body}: {problem}");
        assert!(problem.to_string().contains(word), "{body}: {problem}");
    }
    let (status, renewed) = put("storage", ("if-match", &latest), same).await?;
    assert_eq!((status, &renewed["number"]), (200, &json!(number + 1)), "{renewed}");
    // If the same role is set again, it restarts with the latest spec.
    let role = json!({ "service": "storage", "shard": 0 });
    let receipt = change(&sandbox, "b", "a", role, false)
        .await?
        .map_err(|(_, problem)| anyhow::anyhow!("{problem}"))?;
    assert_eq!((receipt.changed, receipt.state.spec), (true, Some(number + 1)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_another_store_owns_nothing_and_names_the_right_store() -> anyhow::Result<()> {
    let mut sandbox = demo().await?;
    let other = tempfile::tempdir()?;
    let options = NodeOptions { store: Some(other.path().to_owned()), ..NodeOptions::default() };
    sandbox.start("stranger", "storage/0", &options).await?;
    let stranger = sandbox
        .seen("gateway", "stranger", |member| {
            member.state.as_ref().is_some_and(|state| state.phase == Phase::Failed)
        })
        .await?;
    let reason = stranger.state.and_then(|state| state.reason).unwrap_or_default();
    assert!(reason.contains("uses the store"), "{reason}");
    let (status, problem) =
        change(&sandbox, "stranger", "stranger", json!({ "service": "storage", "shard": 0 }), true)
            .await?
            .unwrap_err();
    assert_eq!(status, 409, "{problem}");
    assert!(problem["hint"].as_str().unwrap_or_default().contains("wrong --store"), "{problem}");
    Ok(())
}

/// A cluster, one node of which reaches the store through faults.
struct Faulty {
    sandbox: Sandbox,
    a: Faults,
    folder: tempfile::TempDir,
}

async fn faulty() -> anyhow::Result<Faulty> {
    let folder = tempfile::tempdir()?;
    let store = Store::open(&StoreUrl::folder(folder.path())?, &"elsewhere".parse()?).await?;
    let shared = store.data(&"storage/0".parse()?);
    let a = Faults::new(shared.clone());
    let mut sandbox = Sandbox::new()?;
    let over = |objects| NodeOptions { objects: Some(objects), ..NodeOptions::default() };
    sandbox.start("gateway", "api_gateway", &over(shared.clone())).await?;
    sandbox.start("a", "standby", &over(a.objects())).await?;
    sandbox.start("b", "standby", &over(shared)).await?;
    sandbox.all_ready().await?;
    Ok(Faulty { sandbox, a, folder })
}

/// Moves a shard to `a` repeatedly, each time holding the next of `a`'s operations on the store. Meanwhile `b` takes
/// the shard back if it can, and gets a write.
async fn paused_at_each_step(when: When) -> anyhow::Result<()> {
    let Faulty { sandbox, a, folder: _folder } = faulty().await?;
    let gateway = sandbox.gateway("gateway").await?;
    let mut written = 0;
    let mut write = async |step: usize| -> anyhow::Result<()> {
        written += 1;
        assert_eq!(put(&sandbox, &gateway, "key", &written.to_string()).await?, StatusCode::OK, "{step}");
        assert_eq!(get(&sandbox, &gateway, "key").await?, Some(written.to_string()), "{step}");
        Ok(())
    };
    for step in 0.. {
        take(&sandbox, "b", 0).await?;
        let mut pause = a.pause_after(step, when);
        let taking = take(&sandbox, "a", 0);
        tokio::pin!(taking);
        let is_over = tokio::select! {
            outcome = &mut taking => {
                outcome?;
                true
            }
            () = pause.reached() => false,
        };
        if is_over {
            // The move has fewer steps than this.
            drop(pause);
            assert!(step > 20, "{step} steps were seen");
            return write(step).await;
        }
        // The shard may be `a`'s already, which is then busy and refuses.
        if take(&sandbox, "b", 0).await.is_ok() {
            write(step).await?;
        }
        pause.resume();
        // The move may fail, but `a` must not claim a shard that it does not have: then the next write would not be
        // read.
        let _ = taking.await;
        write(step).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_paused_before_any_step_of_a_take_never_answers_beside_the_owner() -> anyhow::Result<()> {
    paused_at_each_step(When::Before).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_paused_after_any_step_of_a_take_never_answers_beside_the_owner() -> anyhow::Result<()> {
    paused_at_each_step(When::After).await
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_fails_writes_are_refused_with_the_cause_and_nothing_acknowledged_is_lost()
-> anyhow::Result<()> {
    let Faulty { sandbox, a, folder: _folder } = faulty().await?;
    let gateway = sandbox.gateway("gateway").await?;
    take(&sandbox, "a", 0).await?;
    let base = svc(&sandbox, "a")?;
    assert_eq!(put(&sandbox, &gateway, "before", "1").await?, StatusCode::OK);
    for (mode, word) in [
        (Mode::FailWrites(std::io::ErrorKind::StorageFull), "no storage space"),
        (Mode::FailWrites(std::io::ErrorKind::ReadOnlyFilesystem), "read-only"),
        (Mode::Unreachable, "connection refused"),
        (Mode::Hang, ""),
    ] {
        a.set(mode);
        let request = sandbox.http().put(format!("{base}/storage/kv/during")).body(format!("{mode:?}"));
        let answer = request.send().await?;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{mode:?}");
        let detail = answer.text().await?;
        assert!(detail.contains(word), "{mode:?}: {detail}");
        a.set(Mode::Work);
        eventually("it recovers", || async {
            (put(&sandbox, &gateway, "after", &format!("{mode:?}")).await.ok()? == StatusCode::OK)
                .then_some(())
        })
        .await?;
        assert_eq!(get(&sandbox, &gateway, "before").await?, Some("1".to_owned()), "{mode:?}");
        assert_eq!(get(&sandbox, &gateway, "after").await?, Some(format!("{mode:?}")));
    }
    sandbox
        .seen("gateway", "a", |member| member.state.as_ref().is_some_and(|state| state.phase == Phase::Ready))
        .await?;
    // Late answers make it slow, but do no other harm.
    a.delay(std::time::Duration::from_millis(200));
    assert_eq!(put(&sandbox, &gateway, "late", "1").await?, StatusCode::OK);
    assert_eq!(get(&sandbox, &gateway, "late").await?, Some("1".to_owned()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_the_store_did_not_record_is_repeated_later() -> anyhow::Result<()> {
    let Faulty { sandbox, a, folder: _folder } = faulty().await?;
    take(&sandbox, "a", 0).await?;
    a.set(Mode::FailWrites(std::io::ErrorKind::StorageFull));
    change(&sandbox, "a", "a", json!({ "service": "standby" }), false)
        .await?
        .map_err(|(_, problem)| anyhow::anyhow!("{problem}"))?;
    assert_eq!(claims(&sandbox, "b").await?, ["0=a"]);
    sandbox.seen("b", "a", |member| is_standby_because(member, "not recorded yet that storage/0")).await?;
    a.set(Mode::Work);
    eventually("it is released", || async { (claims(&sandbox, "b").await.ok()? == ["0=-"]).then_some(()) })
        .await?;
    sandbox
        .seen("b", "a", |member| member.state.as_ref().is_some_and(|state| state.reason.is_none()))
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_could_not_read_the_store_at_its_start_resumes_its_shard_later() -> anyhow::Result<()> {
    let Faulty { mut sandbox, a, folder } = faulty().await?;
    let generation = sandbox.seen("b", "a", |_| true).await?.generation;
    sandbox.kill("a").await?;
    let url = StoreUrl::folder(folder.path())?;
    let shared = Store::open(&url, &"elsewhere".parse()?).await?.data(&"storage/0".parse()?);
    let claims_log = Store::over(shared, url, &"sandbox".parse()?).await?.claims();
    let shard = "storage/0".parse()?;
    let state = claims_log.read(&shard).await?;
    claims_log.take(&shard, &state, &"a".parse()?, generation).await?;
    a.set(Mode::Unreachable);
    let options = NodeOptions { objects: Some(a.objects()), ..NodeOptions::default() };
    sandbox.start("a", "standby", &options).await?;
    sandbox.all_ready().await?;
    a.set(Mode::Work);
    sandbox
        .seen("b", "a", |member| {
            member
                .state
                .as_ref()
                .is_some_and(|state| state.role.service_name() == "storage" && state.phase == Phase::Ready)
        })
        .await?;
    drop(folder);
    Ok(())
}
