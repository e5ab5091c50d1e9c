//! A later spec is applied by the members of its service while they run.

use e2e::{NodeOptions, Sandbox, eventually};
use runtime::StoreUrl;
use serde_json::{Value, json};
use store::Store;
use store::faults::{Faults, Mode};
use types::api::Member;
use types::{Phase, RoleState, Spec};

/// Settings whose only route answers with a text.
fn answering(body: &str) -> Value {
    json!({"routes": [{"prefix": "/text", "answer": {"body": body}}]})
}

fn spec(settings: Value) -> Spec {
    Spec { settings, ..Spec::default() }
}

/// Two gateways and a standby.
async fn gateways(options: &NodeOptions) -> anyhow::Result<Sandbox> {
    let mut sandbox = Sandbox::new()?;
    let settings = vec![("api_gateway", answering("first"))];
    let options = NodeOptions { settings, ..options.clone() };
    for (name, role) in [("g1", "api_gateway"), ("g2", "api_gateway"), ("spare", "standby")] {
        sandbox.start(name, role, &options).await?;
    }
    sandbox.all_ready().await?;
    Ok(sandbox)
}

/// Writes a spec through a node. Returns the status and the answer.
async fn put(sandbox: &Sandbox, by: &str, last: u64, settings: &Value) -> anyhow::Result<(u16, Value)> {
    let url = format!("{}/v1/spec/api_gateway", sandbox.url(by)?);
    let request = sandbox.http().put(url).header("if-match", format!("\"{last}\""));
    let answer = request.body(json!({"settings": settings}).to_string()).send().await?;
    Ok((answer.status().as_u16(), answer.json().await?))
}

async fn text(sandbox: &Sandbox, gateway: &str) -> anyhow::Result<String> {
    let url = format!("{}/text", sandbox.gateway(gateway).await?);
    Ok(sandbox.http().get(url).send().await?.text().await?)
}

/// Waits until a node sees that a gateway runs with a spec.
async fn runs_with(sandbox: &Sandbox, by: &str, gateway: &str, number: u64) -> anyhow::Result<Member> {
    let is_it = |member: &Member| {
        let state = member.state.as_ref();
        state.is_some_and(|state| state.spec == Some(number) && state.phase == Phase::Ready)
    };
    sandbox.seen(by, gateway, is_it).await
}

/// What the last node sees of a gateway once that has read a spec and does not run with it.
async fn kept(sandbox: &Sandbox, gateway: &str, number: u64) -> anyhow::Result<RoleState> {
    let is_read = |member: &Member| {
        let pending = member.state.as_ref().and_then(|state| state.pending.as_ref());
        pending.is_some_and(|pending| pending.spec == number)
    };
    let state = sandbox.seen("spare", gateway, is_read).await?.state;
    Ok(state.unwrap_or_else(|| unreachable!("it has just been seen")))
}

/// Settings with a listener on every address of the machine, at the port of a gateway.
fn wide(gateway: &str) -> Value {
    let port = gateway.rsplit(':').next().unwrap_or_else(|| unreachable!("a URL with a port"));
    let mut settings = answering("wide");
    settings["listeners"] = json!([{"name": "gateway", "address": format!("0.0.0.0:{port}")}]);
    settings
}

async fn metrics(sandbox: &Sandbox, node: &str) -> anyhow::Result<String> {
    Ok(sandbox.http().get(format!("{}/metrics", sandbox.url(node)?)).send().await?.text().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spec_that_is_written_through_any_node_is_applied_by_all_members() -> anyhow::Result<()> {
    let sandbox = gateways(&NodeOptions::default()).await?;
    let addresses = [sandbox.gateway("g1").await?, sandbox.gateway("g2").await?];
    let revision = |member: &Member| member.state.as_ref().map(|state| (state.revision, state.role.clone()));
    let before = runs_with(&sandbox, "g1", "g2", 1).await?;
    let (status, answer) = put(&sandbox, "spare", 1, &answering("second")).await?;
    assert_eq!((status, &answer["number"]), (200, &json!(2)), "{answer}");
    for gateway in ["g1", "g2"] {
        let now = runs_with(&sandbox, "spare", gateway, 2).await?;
        assert_eq!(text(&sandbox, gateway).await?, "second");
        assert_eq!(revision(&now), revision(&before), "no role was changed");
        let metrics = metrics(&sandbox, gateway).await?;
        assert!(metrics.contains("coterie_settings_reloads_total{result=\"applied\"} 1"), "{metrics}");
    }
    assert_eq!(addresses, [sandbox.gateway("g1").await?, sandbox.gateway("g2").await?], "the sockets stay");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_writers_one_is_refused_and_all_members_run_with_the_last_spec() -> anyhow::Result<()> {
    let sandbox = gateways(&NodeOptions::default()).await?;
    let mut last = 1;
    for round in 0..5 {
        let (one, other) = (answering(&format!("{round} one")), answering(&format!("{round} other")));
        let (first, second) =
            tokio::try_join!(put(&sandbox, "g1", last, &one), put(&sandbox, "g2", last, &other))?;
        let mut statuses = [first.0, second.0];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 412], "{first:?} {second:?}");
        last += 1;
    }
    let winner = sandbox.store().await?.specs().latest(&"api_gateway".parse()?).await?;
    let winner = winner.map(|known| known.spec.settings["routes"][0]["answer"]["body"].clone());
    for gateway in ["g1", "g2"] {
        runs_with(&sandbox, "spare", gateway, last).await?;
        assert_eq!(Some(json!(text(&sandbox, gateway).await?)), winner);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spec_that_nobody_announced_is_applied_once_any_node_reads_it() -> anyhow::Result<()> {
    let sandbox = gateways(&NodeOptions::default()).await?;
    let service = "api_gateway".parse()?;
    runs_with(&sandbox, "spare", "g1", 1).await?;
    sandbox.store().await?.specs().put(&service, 1, &spec(answering("aside"))).await?;
    let listed = sandbox.http().get(format!("{}/v1/spec", sandbox.url("spare")?)).send().await?;
    assert!(listed.status().is_success());
    for gateway in ["g1", "g2"] {
        runs_with(&sandbox, "spare", gateway, 2).await?;
        assert_eq!(text(&sandbox, gateway).await?, "aside");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_keeps_its_old_settings_and_says_why() -> anyhow::Result<()> {
    let sandbox = gateways(&NodeOptions::default()).await?;
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let busy = taken.local_addr()?.to_string();
    let with = |more: Value| {
        let mut settings = answering("new");
        settings["listeners"] = json!([{"name": "gateway", "address": "127.0.0.1:0"}]);
        settings["listeners"].as_array_mut().into_iter().for_each(|listeners| listeners.push(more.clone()));
        settings
    };
    put(&sandbox, "g1", 1, &with(json!({"name": "b", "address": busy}))).await?;
    for gateway in ["g1", "g2"] {
        let failed = |member: &Member| {
            member
                .state
                .as_ref()
                .and_then(|state| state.pending.as_ref())
                .is_some_and(|pending| pending.why.is_some())
        };
        let state =
            sandbox.seen("spare", gateway, failed).await?.state.unwrap_or_else(|| unreachable!("seen"));
        assert_eq!((state.phase, state.spec), (Phase::Ready, Some(1)), "{state:?}");
        assert_eq!(state.reason_code.as_ref().map(types::ReasonCode::as_str), Some("settings-not-applied"));
        assert!(state.reason.as_ref().is_some_and(|reason| reason.contains(&busy)), "{state:?}");
        assert_eq!(text(&sandbox, gateway).await?, "first");
        let metrics = metrics(&sandbox, gateway).await?;
        assert!(metrics.contains("coterie_settings_reloads_total{result=\"failed\"}"), "{metrics}");
    }
    // The port becomes free: it is tried again without a new spec. Only one of the two gateways gets it.
    drop(taken);
    eventually("one gateway has applied it", || async {
        let mut numbers = Vec::new();
        for gateway in ["g1", "g2"] {
            let member = sandbox.seen("spare", gateway, |_| true).await.ok()?;
            numbers.push(member.state?.spec?);
        }
        (numbers == [1, 2] || numbers == [2, 1]).then_some(())
    })
    .await?;
    // An address that is open to the network is refused, although it overlaps with that of the first gateway: a restart would
    // be in vain.
    let (status, answer) = put(&sandbox, "g1", 2, &wide(&sandbox.gateway("g1").await?)).await?;
    assert_eq!(status, 200, "{answer}");
    for gateway in ["g1", "g2"] {
        let state = kept(&sandbox, gateway, 3).await?;
        assert_eq!(state.reason_code.as_ref().map(types::ReasonCode::as_str), Some("settings-not-applied"));
        assert!(
            state.reason.as_ref().is_some_and(|reason| reason.contains("open to the network")),
            "{state:?}"
        );
    }
    // A later spec that can be applied ends all of that.
    put(&sandbox, "g2", 3, &answering("last")).await?;
    for gateway in ["g1", "g2"] {
        let state = runs_with(&sandbox, "spare", gateway, 4).await?.state;
        assert!(state.is_some_and(|state| state.pending.is_none() && state.reason.is_none()));
        assert_eq!(text(&sandbox, gateway).await?, "last");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_needs_a_restart_is_named() -> anyhow::Result<()> {
    let sandbox = gateways(&NodeOptions { is_insecure: true, ..NodeOptions::default() }).await?;
    let (status, answer) = put(&sandbox, "g1", 1, &wide(&sandbox.gateway("g1").await?)).await?;
    assert_eq!(status, 200, "{answer}");
    // The other gateway has no such listener. It finds the port in use.
    for (gateway, code) in [("g1", "settings-need-restart"), ("g2", "settings-not-applied")] {
        let state = kept(&sandbox, gateway, 2).await?;
        assert_eq!(state.reason_code.as_ref().map(types::ReasonCode::as_str), Some(code), "{state:?}");
        let named = state.pending.map(|pending| pending.needs_restart).unwrap_or_default();
        assert_eq!(named == ["/listeners/0/address"], gateway == "g1", "{gateway}: {named:?}");
        assert_eq!(text(&sandbox, gateway).await?, "first");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_restarts_meanwhile_begins_with_the_latest_spec() -> anyhow::Result<()> {
    let mut sandbox = gateways(&NodeOptions::default()).await?;
    sandbox.kill("g2").await?;
    put(&sandbox, "g1", 1, &answering("second")).await?;
    sandbox.start("g2", "api_gateway", &NodeOptions::default()).await?;
    for gateway in ["g1", "g2"] {
        runs_with(&sandbox, "spare", gateway, 2).await?;
        assert_eq!(text(&sandbox, gateway).await?, "second");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_store_does_not_answer_applies_the_spec_once_it_does() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let store = Store::open(&StoreUrl::folder(folder.path())?, &"elsewhere".parse()?).await?;
    let shared = store.data(&"any/0".parse()?);
    let faults = Faults::new(shared.clone());
    let mut sandbox = Sandbox::new()?;
    let settings = vec![("api_gateway", answering("first"))];
    for (name, objects) in [("g1", shared), ("g2", faults.objects())] {
        let options =
            NodeOptions { settings: settings.clone(), objects: Some(objects), ..NodeOptions::default() };
        sandbox.start(name, "api_gateway", &options).await?;
    }
    sandbox.all_ready().await?;
    for mode in [Mode::Unreachable, Mode::Hang] {
        let last = sandbox.seen("g1", "g2", |_| true).await?.state.and_then(|state| state.spec).unwrap_or(0);
        faults.set(mode);
        let body = format!("{mode:?}");
        put(&sandbox, "g1", last, &answering(&body)).await?;
        runs_with(&sandbox, "g1", "g1", last + 1).await?;
        assert_eq!(text(&sandbox, "g1").await?, body);
        assert_ne!(text(&sandbox, "g2").await?, body);
        let state = sandbox.seen("g1", "g2", |_| true).await?.state;
        assert!(
            state.is_some_and(|state| state.phase == Phase::Ready && state.pending.is_none()),
            "it goes on"
        );
        faults.set(Mode::Work);
        runs_with(&sandbox, "g1", "g2", last + 1).await?;
        assert_eq!(text(&sandbox, "g2").await?, body);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_takes_no_settings_while_it_runs_names_those_that_changed() -> anyhow::Result<()> {
    let mut sandbox = Sandbox::new()?;
    sandbox.settle("storage", &Spec { shards: Some(1), settings: json!({}), ..Spec::default() }).await?;
    sandbox.start("s", "storage/0", &NodeOptions::default()).await?;
    sandbox.all_ready().await?;
    let store = sandbox.store().await?;
    let service = "storage".parse()?;
    // More replicas need nothing of the owner.
    let replicas = Spec { shards: Some(1), settings: json!({}), replicas: 1, ..Spec::default() };
    store.specs().put(&service, 1, &replicas).await?;
    sandbox.http().get(format!("{}/v1/spec", sandbox.url("s")?)).send().await?;
    let epoch = |member: &Member| member.state.as_ref().and_then(|state| state.epoch);
    let is_applied = |member: &Member| member.state.as_ref().is_some_and(|state| state.spec == Some(2));
    let owner = sandbox.seen("s", "s", is_applied).await?;
    assert!(epoch(&owner).is_some(), "it still owns its shard");
    let changed = Spec { settings: json!({"no_such_setting_at_all": 1}), ..replicas };
    store.specs().put(&service, 2, &changed).await?;
    sandbox.http().get(format!("{}/v1/spec", sandbox.url("s")?)).send().await?;
    let is_read = |member: &Member| member.state.as_ref().is_some_and(|state| state.pending.is_some());
    let kept = sandbox.seen("s", "s", is_read).await?;
    assert_eq!(epoch(&kept), epoch(&owner), "the same claim");
    let why = kept.state.and_then(|state| state.pending?.why);
    assert!(why.is_some_and(|why| why.contains("no_such_setting_at_all")), "an older agent may not know it");
    Ok(())
}
