//! Shards outlive their owners: other nodes take them over if no member honours the claim, and only then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use e2e::{NodeOptions, Sandbox, eventually};
use serde_json::json;
use store::faults::{Faults, Mode, Op, When};
use store::{ObjectStore, Store};
use tokio::time::Instant;
use types::api::{Claims, Member};
use types::{Epoch, Phase, Post, Role, Spec};

/// `0=a`, `1=-` for each shard of a type, as on the store.
async fn claims(sandbox: &Sandbox, by: &str) -> anyhow::Result<Vec<String>> {
    let claims: Claims =
        sandbox.http().get(format!("{}/v1/claims", sandbox.url(by)?)).send().await?.json().await?;
    let owner = |claim: &types::api::ClaimView| {
        claim.holder.as_ref().map_or_else(|| "-".to_owned(), |holder| holder.node.to_string())
    };
    Ok(claims.claims.iter().map(|claim| format!("{}={}", claim.shard, owner(claim))).collect())
}

/// Waits until one node sees another as the ready owner of a shard.
async fn owner(sandbox: &Sandbox, by: &str, name: &str, role: &str) -> anyhow::Result<Member> {
    let role: Role = role.parse()?;
    sandbox
        .seen(by, name, |member| {
            member.state.as_ref().is_some_and(|state| {
                state.role == role && state.epoch.is_some() && state.phase == Phase::Ready
            })
        })
        .await
}

/// Waits until one node sees another as a replica of a shard.
async fn replica(sandbox: &Sandbox, by: &str, name: &str, role: &str) -> anyhow::Result<Member> {
    let role: Role = role.parse()?;
    sandbox
        .seen(by, name, |member| {
            member.state.as_ref().is_some_and(|state| {
                state.role == role && state.duty == Some(Post::Replica) && state.phase == Phase::Ready
            })
        })
        .await
}

async fn standby(sandbox: &Sandbox, by: &str, name: &str) -> anyhow::Result<Member> {
    sandbox
        .seen(by, name, |member| member.state.as_ref().is_some_and(|state| state.role == Role::Standby))
        .await
}

fn reason(member: &Member) -> &str {
    member.state.as_ref().and_then(|state| state.reason.as_deref()).unwrap_or_default()
}

fn epoch(member: &Member) -> Option<Epoch> {
    member.state.as_ref().and_then(|state| state.epoch)
}

fn spec(shards: u32, replicas: u32) -> Spec {
    Spec { settings: json!({}), shards: Some(shards), replicas, ..Spec::default() }
}

/// An empty store that several nodes can share.
async fn memory() -> anyhow::Result<Arc<dyn ObjectStore>> {
    let store = Store::open(&"memory:///".parse()?, &"elsewhere".parse()?).await?;
    Ok(store.data(&"any/0".parse()?))
}

async fn put(sandbox: &Sandbox, gateway: &str, key: &str, value: &str) -> anyhow::Result<()> {
    let url = format!("{gateway}/storage/kv/{key}");
    let answer = sandbox.http().put(url).body(value.to_owned()).send().await?;
    anyhow::ensure!(answer.status().is_success(), "{}: {}", answer.status(), answer.text().await?);
    Ok(())
}

async fn get(sandbox: &Sandbox, gateway: &str, key: &str) -> anyhow::Result<String> {
    let answer = sandbox.http().get(format!("{gateway}/storage/kv/{key}")).send().await?;
    Ok(answer.error_for_status()?.text().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_from_a_dead_owner_which_stands_by_when_it_returns() -> anyhow::Result<()> {
    let mut sandbox = Sandbox::new()?;
    sandbox.settle("storage", &spec(2, 0)).await?;
    for (name, role) in
        [("gateway", "api_gateway"), ("a", "storage/0"), ("b", "storage/1"), ("spare", "standby")]
    {
        sandbox.start(name, role, &NodeOptions::default()).await?;
    }
    sandbox.all_ready().await?;
    let gateway = sandbox.gateway("gateway").await?;
    for number in 0..20 {
        put(&sandbox, &gateway, &format!("key-{number}"), &number.to_string()).await?;
    }
    sandbox.kill("a").await?;
    // Writes wait for the next owner.
    for number in 0..20 {
        put(&sandbox, &gateway, &format!("later-{number}"), &number.to_string()).await?;
    }
    let spare = owner(&sandbox, "b", "spare", "storage/0").await?;
    assert_eq!(reason(&spare), "took over from a, which no longer ran it");
    assert_eq!(epoch(&spare), Some(Epoch(2)), "the owner had certainly crashed, so there was no challenge");
    for number in 0..20 {
        assert_eq!(get(&sandbox, &gateway, &format!("key-{number}")).await?, number.to_string());
        assert_eq!(get(&sandbox, &gateway, &format!("later-{number}")).await?, number.to_string());
    }
    sandbox.start("a", "storage/0", &NodeOptions::default()).await?;
    let a = standby(&sandbox, "b", "a").await?;
    assert!(reason(&a).contains("owned by spare"), "{a:?}");
    // And the other way round: `a` is a standby now.
    sandbox.leave("spare").await?;
    owner(&sandbox, "b", "a", "storage/0").await?;
    assert_eq!(claims(&sandbox, "b").await?, ["0=a", "1=b"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_takes_over_before_a_standby_and_a_standby_becomes_the_replica() -> anyhow::Result<()> {
    let mut sandbox = Sandbox::new()?;
    sandbox.settle("owned_echo", &spec(1, 1)).await?;
    for (name, role) in
        [("watcher", "echo"), ("a", "owned_echo/0"), ("replica", "owned_echo/0"), ("spare", "standby")]
    {
        sandbox.start(name, role, &NodeOptions::default()).await?;
        if name == "a" {
            owner(&sandbox, "watcher", "a", "owned_echo/0").await?;
        }
    }
    replica(&sandbox, "watcher", "replica", "owned_echo/0").await?;
    sandbox.kill("a").await?;
    let new_owner = owner(&sandbox, "watcher", "replica", "owned_echo/0").await?;
    assert_eq!(new_owner.state.and_then(|state| state.duty), Some(Post::Primary));
    replica(&sandbox, "watcher", "spare", "owned_echo/0").await?;
    // No replica is missing any more, so the returning node stands by.
    sandbox.start("a", "owned_echo/0", &NodeOptions::default()).await?;
    standby(&sandbox, "watcher", "a").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_whose_shard_was_taken_becomes_a_replica_if_one_is_missing() -> anyhow::Result<()> {
    let mut sandbox = Sandbox::new()?;
    sandbox.settle("owned_echo", &spec(1, 1)).await?;
    for (name, role) in [("watcher", "echo"), ("a", "owned_echo/0")] {
        sandbox.start(name, role, &NodeOptions::default()).await?;
    }
    owner(&sandbox, "watcher", "a", "owned_echo/0").await?;
    let log = sandbox.store().await?.claims();
    let shard = "owned_echo/0".parse()?;
    let seen = log.read(&shard).await?;
    log.take(&shard, &seen, &"other".parse()?, types::Generation(1)).await?;
    replica(&sandbox, "watcher", "a", "owned_echo/0").await?;
    // No node `other` runs to honour its claim, so the shard comes back.
    owner(&sandbox, "watcher", "a", "owned_echo/0").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_that_dies_while_it_takes_leaves_the_shard_to_the_next() -> anyhow::Result<()> {
    for (op, when) in [(Op::Create, When::Before), (Op::Create, When::After)] {
        let mut sandbox = Sandbox::new()?;
        let shared = memory().await?;
        let over = |objects| NodeOptions { objects: Some(objects), ..NodeOptions::default() };
        sandbox.start("watcher", "echo", &over(shared.clone())).await?;
        sandbox.start("a", "storage/0", &over(shared.clone())).await?;
        owner(&sandbox, "watcher", "a", "storage/0").await?;
        let spares = ["s1", "s2"].map(|name| (name, Faults::new(shared.clone())));
        for (name, faults) in &spares {
            sandbox.start(name, "standby", &over(faults.objects())).await?;
        }
        sandbox.all_ready().await?;
        let mut pauses = spares.clone().map(|(name, faults)| (name, faults.pause_next(op, when)));
        sandbox.kill("a").await?;
        let [(one, pause_one), (other, pause_other)] = &mut pauses;
        let (dies, survives) = tokio::select! {
            () = pause_one.reached() => (*one, *other),
            () = pause_other.reached() => (*other, *one),
        };
        sandbox.kill(dies).await?;
        for (name, pause) in pauses {
            if name == survives {
                pause.resume();
            }
        }
        owner(&sandbox, "watcher", survives, "storage/0").await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_that_can_not_run_the_shard_gives_it_to_the_next() -> anyhow::Result<()> {
    // The first candidate can't run it, whichever of the two it is.
    for fails in ["s1", "s2"] {
        let mut sandbox = Sandbox::new()?;
        let settings = json!({ "fail_start_on": fails });
        sandbox.settle("owned_echo", &Spec { settings, shards: Some(1), ..Spec::default() }).await?;
        for (name, role) in [("watcher", "echo"), ("a", "owned_echo/0"), ("s1", "standby"), ("s2", "standby")]
        {
            sandbox.start(name, role, &NodeOptions::default()).await?;
        }
        sandbox.all_ready().await?;
        sandbox.kill("a").await?;
        let other = if fails == "s1" { "s2" } else { "s1" };
        owner(&sandbox, "watcher", other, "owned_echo/0").await?;
        standby(&sandbox, "watcher", fails).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_whose_service_fails_repeatedly_moves_to_another_node() -> anyhow::Result<()> {
    let mut sandbox = Sandbox::new()?;
    sandbox.settle("owned_echo", &spec(1, 0)).await?;
    for (name, role) in [("a", "owned_echo/0"), ("spare", "standby")] {
        sandbox.start(name, role, &NodeOptions::default()).await?;
    }
    sandbox.all_ready().await?;
    eventually("the spare has it", || async {
        let fail = format!("{}/svc/owned_echo/health/failed", sandbox.url("a").ok()?);
        // The service may be down already, as wanted.
        let _ = sandbox.http().post(fail).send().await;
        (claims(&sandbox, "spare").await.ok()? == ["0=spare"]).then_some(())
    })
    .await?;
    owner(&sandbox, "a", "spare", "owned_echo/0").await?;
    standby(&sandbox, "spare", "a").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_is_cut_off_from_the_store_resigns_and_stands_by() -> anyhow::Result<()> {
    let mut sandbox = Sandbox::new()?;
    let shared = memory().await?;
    let a = Faults::new(shared.clone());
    let over = |objects| NodeOptions { objects: Some(objects), ..NodeOptions::default() };
    sandbox.start("gateway", "api_gateway", &over(shared.clone())).await?;
    sandbox.start("a", "storage/0", &over(a.objects())).await?;
    sandbox.start("spare", "standby", &over(shared.clone())).await?;
    sandbox.all_ready().await?;
    let gateway = sandbox.gateway("gateway").await?;
    put(&sandbox, &gateway, "key", "before").await?;
    a.set(Mode::Unreachable);
    let lost_at = Instant::now();
    let resigned = sandbox
        .seen("spare", "a", |member| member.state.as_ref().is_some_and(|state| state.resigned.is_some()))
        .await?;
    assert!(reason(&resigned).contains("the store has not answered"), "{resigned:?}");
    owner(&sandbox, "a", "spare", "storage/0").await?;
    put(&sandbox, &gateway, "key", "after").await?;
    // Three seconds until it resigns, and three quarters of a second in which it could defend its shard.
    let took = lost_at.elapsed();
    println!("an owner without its store was replaced after {took:?}");
    assert!(took < Duration::from_secs(7), "{took:?}");
    a.set(Mode::Work);
    let a = standby(&sandbox, "spare", "a").await?;
    assert!(reason(&a).contains("owned by spare"), "{a:?}");
    assert_eq!(get(&sandbox, &gateway, "key").await?, "after");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_is_unreachable_for_all_no_shard_moves_and_all_continue_when_it_is_back()
-> anyhow::Result<()> {
    let mut sandbox = Sandbox::new()?;
    let faults = Faults::new(memory().await?);
    let over = || NodeOptions { objects: Some(faults.objects()), ..NodeOptions::default() };
    for (name, role) in [("gateway", "api_gateway"), ("a", "storage/0"), ("spare", "standby")] {
        sandbox.start(name, role, &over()).await?;
    }
    sandbox.all_ready().await?;
    let gateway = sandbox.gateway("gateway").await?;
    put(&sandbox, &gateway, "key", "value").await?;
    faults.set(Mode::Unreachable);
    sandbox
        .seen("spare", "a", |member| member.state.as_ref().is_some_and(|state| state.resigned.is_some()))
        .await?;
    faults.set(Mode::Work);
    let a = owner(&sandbox, "spare", "a", "storage/0").await?;
    assert_eq!(epoch(&a), Some(Epoch(1)), "no other node ever owned it");
    assert_eq!(get(&sandbox, &gateway, "key").await?, "value");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_all_died_resume_their_shards_in_any_order() -> anyhow::Result<()> {
    let nodes = [("a", "storage/0"), ("b", "storage/1"), ("spare", "standby"), ("gateway", "api_gateway")];
    for rotation in 0..nodes.len() {
        let mut sandbox = Sandbox::new()?;
        sandbox.settle("storage", &spec(2, 0)).await?;
        for (name, role) in nodes {
            sandbox.start(name, role, &NodeOptions::default()).await?;
        }
        sandbox.all_ready().await?;
        let gateway = sandbox.gateway("gateway").await?;
        for number in 0..10 {
            put(&sandbox, &gateway, &format!("key-{number}"), &number.to_string()).await?;
        }
        for (name, _) in nodes {
            sandbox.kill(name).await?;
        }
        let mut order = nodes;
        order.rotate_left(rotation);
        for (name, role) in order {
            sandbox.start(name, role, &NodeOptions::default()).await?;
        }
        sandbox.all_ready().await?;
        let gateway = sandbox.gateway("gateway").await?;
        for number in 0..10 {
            assert_eq!(get(&sandbox, &gateway, &format!("key-{number}")).await?, number.to_string());
        }
        assert_eq!(claims(&sandbox, "gateway").await?, ["0=a", "1=b"], "rotation {rotation}");
    }
    Ok(())
}

/// Two sides of a partition that both reach the store are like two clusters with one name on one store: each side sees
/// claims of owners that it can't reach. (Here it could, but it does not know their addresses.)
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_is_not_seen_defends_its_shard_on_the_store() -> anyhow::Result<()> {
    let shared = memory().await?;
    let over = || NodeOptions { objects: Some(shared.clone()), ..NodeOptions::default() };
    let (mut one, mut other) = (Sandbox::new()?, Sandbox::new()?);
    one.start("a", "storage/0", &NodeOptions { is_unreachable: true, ..over() }).await?;
    owner(&one, "a", "a", "storage/0").await?;
    other.start("spare", "standby", &over()).await?;
    let log = Store::over(shared.clone(), "memory:///".parse()?, &"sandbox".parse()?).await?.claims();
    let shard = "storage/0".parse()?;
    eventually("it was challenged and has defended its shard", || async {
        (log.read(&shard).await.ok()?.latest == store::Latest::Defended).then_some(())
    })
    .await?;
    let a = owner(&one, "a", "a", "storage/0").await?;
    assert_eq!(epoch(&a), Some(Epoch(1)));
    standby(&other, "spare", "spare").await?;
    // Once it is gone, it does not defend its shard.
    one.kill("a").await?;
    owner(&other, "spare", "spare", "storage/0").await?;
    Ok(())
}

/// A node that has seeds but reaches only the store.
fn cut_off(objects: &Arc<dyn ObjectStore>) -> NodeOptions {
    NodeOptions {
        objects: Some(objects.clone()),
        // The port of the discard service, on which nothing listens.
        seeds: vec!["127.0.0.1:9".to_owned()],
        is_unreachable: true,
        ..NodeOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_isolated_owner_yields_to_a_node_that_sees_another_and_the_shard_moves_once() -> anyhow::Result<()>
{
    let shared = memory().await?;
    let over = || NodeOptions { objects: Some(shared.clone()), ..NodeOptions::default() };
    let (mut one, mut others) = (Sandbox::new()?, Sandbox::new()?);
    one.start("a", "storage/0", &cut_off(&shared)).await?;
    owner(&one, "a", "a", "storage/0").await?;
    others.start("gateway", "api_gateway", &over()).await?;
    others.start("b", "standby", &over()).await?;
    let log = Store::over(shared.clone(), "memory:///".parse()?, &"sandbox".parse()?).await?.claims();
    let shard = "storage/0".parse()?;
    let b = owner(&others, "gateway", "b", "storage/0").await?;
    assert_eq!(reason(&b), "took over: released by a to b: a saw no other member, and b does");
    let a = standby(&one, "a", "a").await?;
    assert!(reason(&a).contains("saw no other member"), "{a:?}");
    let moved = log.read(&shard).await?;
    assert_eq!(
        (moved.holder.map(|holder| holder.node.to_string()), moved.yielded),
        (Some("b".to_owned()), 1)
    );
    let gateway = others.gateway("gateway").await?;
    put(&others, &gateway, "key", "value").await?;
    // The isolated node leaves the shard alone, for longer than it takes to challenge an owner.
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(log.read(&shard).await?.number, moved.number);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn while_no_node_sees_another_nothing_moves() -> anyhow::Result<()> {
    let shared = memory().await?;
    let mut alone = Vec::new();
    for (name, role) in [("a", "storage/0"), ("b", "standby"), ("c", "standby")] {
        let mut sandbox = Sandbox::new()?;
        sandbox.start(name, role, &cut_off(&shared)).await?;
        if name == "a" {
            owner(&sandbox, "a", "a", "storage/0").await?;
        }
        alone.push(sandbox);
    }
    let log = Store::over(shared.clone(), "memory:///".parse()?, &"sandbox".parse()?).await?.claims();
    let shard = "storage/0".parse()?;
    // Each challenge and each defence is an entry.
    eventually("it was challenged and defended three times", || async {
        let state = log.read(&shard).await.ok()?;
        (state.number >= 7 && state.latest == store::Latest::Defended).then_some(())
    })
    .await?;
    let a = owner(&alone[0], "a", "a", "storage/0").await?;
    assert_eq!(epoch(&a), Some(Epoch(1)));
    for (sandbox, name) in alone.iter().zip(["a", "b", "c"]).skip(1) {
        standby(sandbox, name, name).await?;
    }
    let listed: Claims =
        alone[1].http().get(format!("{}/v1/claims", alone[1].url("b")?)).send().await?.json().await?;
    assert!(listed.claims[0].defended && !listed.claims[0].honoured, "{listed:?}");
    Ok(())
}

/// Opening the data races with the owner that still runs: each change that it makes to the manifest costs another
/// attempt.
#[tokio::test(flavor = "multi_thread")]
async fn taking_a_shard_from_a_live_owner_that_writes_on_a_slow_store_does_not_take_long()
-> anyhow::Result<()> {
    let shared = memory().await?;
    let slow = Faults::new(shared.clone());
    let over = || NodeOptions { objects: Some(slow.objects()), ..NodeOptions::default() };
    let (mut one, mut other) = (Sandbox::new()?, Sandbox::new()?);
    one.start("a", "storage/0", &NodeOptions { is_unreachable: true, ..over() }).await?;
    owner(&one, "a", "a", "storage/0").await?;
    other.start("spare", "standby", &over()).await?;
    let services = format!("{}/svc", one.url("a")?);
    slow.delay(Duration::from_millis(50));
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..16 {
        let (http, stop) = (one.http().clone(), stop.clone());
        let url = format!("{services}/storage/kv/key-{writer}");
        writers.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                // After `a` has lost the shard, it refuses writes.
                let _ = http.put(&url).body(vec![b'x'; 64 * 1024]).send().await;
            }
        });
    }
    put(&one, &services, "key", "value").await?;
    // Its owner is not a member here and can't be reached, so it is not asked.
    let url = format!("{}/v1/members/spare/service?take=true", other.url("spare")?);
    let role = json!({ "service": "storage", "shard": 0 });
    let began = Instant::now();
    let answer = other.http().put(url).json(&role).send().await?;
    let (status, took) = (answer.status(), began.elapsed());
    println!("took a shard from a live owner, on a store 50 ms away, in {took:?}");
    assert!(status.is_success(), "{status}: {}", answer.text().await?);
    assert!(took < Duration::from_secs(15), "{took:?}");
    stop.store(true, Ordering::Relaxed);
    while writers.join_next().await.is_some() {}
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_an_operator_took_from_a_node_goes_to_others_and_not_back() -> anyhow::Result<()> {
    let mut sandbox = Sandbox::new()?;
    for (name, role) in [("watcher", "echo"), ("a", "owned_echo/0")] {
        sandbox.start(name, role, &NodeOptions::default()).await?;
    }
    sandbox.all_ready().await?;
    let url = format!("{}/v1/members/a/service", sandbox.url("a")?);
    sandbox.http().put(url).json(&json!({ "service": "standby" })).send().await?.error_for_status()?;
    sandbox.start("spare", "standby", &NodeOptions::default()).await?;
    owner(&sandbox, "a", "spare", "owned_echo/0").await?;
    standby(&sandbox, "spare", "a").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_process_dies_repeatedly_leaves_its_shard_to_others() -> anyhow::Result<()> {
    let mut sandbox = Sandbox::new()?;
    for (name, role) in [("watcher", "echo"), ("a", "owned_echo/0")] {
        sandbox.start(name, role, &NodeOptions::default()).await?;
    }
    for incarnation in 1..=3 {
        sandbox.seen("watcher", "a", |member| epoch(member) == Some(Epoch(incarnation))).await?;
        sandbox.kill("a").await?;
        if incarnation == 3 {
            // The spare has never seen the owner, so it waits for it.
            sandbox.start("spare", "standby", &NodeOptions::default()).await?;
        }
        sandbox.start("a", "owned_echo/0", &NodeOptions::default()).await?;
    }
    let a = standby(&sandbox, "watcher", "a").await?;
    assert!(reason(&a).contains("this node ended 3 times in a row soon after"), "{a:?}");
    owner(&sandbox, "watcher", "spare", "owned_echo/0").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_with_one_id_do_not_take_a_shard_from_each_other() -> anyhow::Result<()> {
    let shared = memory().await?;
    let over = || NodeOptions { objects: Some(shared.clone()), ..NodeOptions::default() };
    let (mut one, mut other) = (Sandbox::new()?, Sandbox::new()?);
    one.start("a", "storage/0", &NodeOptions { is_unreachable: true, ..over() }).await?;
    owner(&one, "a", "a", "storage/0").await?;
    other.start("a", "storage/0", &over()).await?;
    let second = standby(&other, "a", "a").await?;
    assert!(reason(&second).contains("owned by a (epoch 1)"), "{second:?}");
    let log = Store::over(shared.clone(), "memory:///".parse()?, &"sandbox".parse()?).await?.claims();
    let shard = "storage/0".parse()?;
    eventually("it was challenged and has defended its shard", || async {
        (log.read(&shard).await.ok()?.latest == store::Latest::Defended).then_some(())
    })
    .await?;
    let first = owner(&one, "a", "a", "storage/0").await?;
    assert_eq!(epoch(&first), Some(Epoch(1)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_an_operator_took_a_shard_from_takes_it_over_once_the_next_owner_dies()
-> anyhow::Result<()> {
    let mut sandbox = Sandbox::new()?;
    for (name, role) in [("watcher", "echo"), ("a", "owned_echo/0"), ("b", "standby")] {
        sandbox.start(name, role, &NodeOptions::default()).await?;
    }
    sandbox.all_ready().await?;
    let url = format!("{}/v1/members/b/service?take=true", sandbox.url("b")?);
    let role = json!({ "service": "owned_echo", "shard": 0 });
    sandbox.http().put(url).json(&role).send().await?.error_for_status()?;
    owner(&sandbox, "a", "b", "owned_echo/0").await?;
    sandbox.kill("b").await?;
    owner(&sandbox, "watcher", "a", "owned_echo/0").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_can_not_own_the_shard_leaves_it_to_the_next_and_stays_a_replica() -> anyhow::Result<()>
{
    let mut sandbox = Sandbox::new()?;
    let settings = json!({ "fail_primary_on": "replica" });
    sandbox.settle("owned_echo", &Spec { settings, shards: Some(1), replicas: 1, ..Spec::default() }).await?;
    for (name, role) in [("watcher", "echo"), ("a", "owned_echo/0")] {
        sandbox.start(name, role, &NodeOptions::default()).await?;
        sandbox.all_ready().await?;
    }
    sandbox.start("replica", "owned_echo/0", &NodeOptions::default()).await?;
    replica(&sandbox, "watcher", "replica", "owned_echo/0").await?;
    sandbox.start("spare", "standby", &NodeOptions::default()).await?;
    sandbox.all_ready().await?;
    sandbox.kill("a").await?;
    owner(&sandbox, "watcher", "spare", "owned_echo/0").await?;
    replica(&sandbox, "watcher", "replica", "owned_echo/0").await?;
    Ok(())
}
