//! Services whose names differ from their types: two stores and two gateways in one cluster, which share nothing.

use e2e::{NodeOptions, Sandbox, eventually};
use serde_json::{Value, json};
use types::api::{About, Services};
use types::{Generation, Phase, Role, RoleState, Spec};

fn of_type(service_type: &str, shards: Option<u32>) -> anyhow::Result<Spec> {
    Ok(Spec { service_type: Some(service_type.parse()?), settings: json!({}), shards, ..Spec::default() })
}

/// Two stores and two gateways, before any node runs.
async fn settled() -> anyhow::Result<Sandbox> {
    let sandbox = Sandbox::new()?;
    sandbox.settle("sessions", &of_type("storage", Some(2))?).await?;
    sandbox.settle("users", &of_type("storage", Some(1))?).await?;
    sandbox.settle("edge", &of_type("api_gateway", None)?).await?;
    sandbox.settle("internal", &of_type("api_gateway", None)?).await?;
    Ok(sandbox)
}

async fn put(sandbox: &Sandbox, base: &str, key: &str, value: &str) -> anyhow::Result<()> {
    let answer = sandbox.http().put(format!("{base}/kv/{key}")).body(value.to_owned()).send().await?;
    anyhow::ensure!(answer.status().is_success(), "{base} {key}: {}", answer.text().await?);
    Ok(())
}

/// A value, or the status without one.
async fn get(sandbox: &Sandbox, base: &str, key: &str) -> anyhow::Result<Result<String, u16>> {
    let answer = sandbox.http().get(format!("{base}/kv/{key}")).send().await?;
    let status = answer.status();
    Ok(if status.is_success() { Ok(answer.text().await?) } else { Err(status.as_u16()) })
}

/// Waits until one node sees another as the ready owner of a shard.
async fn owner(sandbox: &Sandbox, by: &str, name: &str, role: &str) -> anyhow::Result<RoleState> {
    let role: Role = role.parse()?;
    let is_owner =
        |state: &RoleState| state.role == role && state.epoch.is_some() && state.phase == Phase::Ready;
    let member = sandbox.seen(by, name, |member| member.state.as_ref().is_some_and(is_owner)).await?;
    member.state.ok_or_else(|| anyhow::anyhow!("it has just been seen"))
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stores_and_two_gateways_share_nothing_but_their_types() -> anyhow::Result<()> {
    let mut sandbox = settled().await?;
    for (name, role) in [
        ("e", "edge"),
        ("i", "internal"),
        ("s0", "sessions/0"),
        ("s1", "sessions/1"),
        ("u", "users"),
        ("spare", "standby"),
    ] {
        sandbox.start(name, role, &NodeOptions::default()).await?;
    }
    sandbox.all_ready().await?;
    let (edge, internal) = (sandbox.gateway("e").await?, sandbox.gateway("i").await?);
    assert_ne!(edge, internal);
    for number in 0..10 {
        put(&sandbox, &format!("{edge}/sessions"), &format!("k{number}"), "session").await?;
    }
    put(&sandbox, &format!("{internal}/users"), "k0", "user").await?;
    for gateway in [&edge, &internal] {
        assert_eq!(get(&sandbox, &format!("{gateway}/sessions"), "k0").await?, Ok("session".to_owned()));
        assert_eq!(get(&sandbox, &format!("{gateway}/users"), "k0").await?, Ok("user".to_owned()));
        assert_eq!(get(&sandbox, &format!("{gateway}/users"), "k1").await?, Err(404), "another store");
        assert_eq!(get(&sandbox, &format!("{gateway}/storage"), "k0").await?, Err(503), "no such service");
    }
    // The type is gossiped, and the role has a shard although none was given.
    let users = owner(&sandbox, "e", "u", "users/0").await?;
    assert_eq!(users.service_type.as_ref().map(types::ServiceType::as_str), Some("storage"));

    // A standby takes over a shard of a named service, and the other store is not affected.
    sandbox.kill("s0").await?;
    for number in 0..10 {
        put(&sandbox, &format!("{internal}/sessions"), &format!("later{number}"), "session").await?;
    }
    let spare = owner(&sandbox, "e", "spare", "sessions/0").await?;
    assert_eq!(spare.service_type.as_ref().map(types::ServiceType::as_str), Some("storage"));
    for number in 0..10 {
        for key in [format!("k{number}"), format!("later{number}")] {
            let found = get(&sandbox, &format!("{edge}/sessions"), &key).await?;
            assert_eq!(found, Ok("session".to_owned()), "{key}");
        }
    }
    owner(&sandbox, "e", "u", "users/0").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_names_services_by_their_names() -> anyhow::Result<()> {
    let mut sandbox = settled().await?;
    for (name, role) in [("e", "edge"), ("s0", "sessions/0"), ("spare", "standby")] {
        sandbox.start(name, role, &NodeOptions::default()).await?;
    }
    sandbox.all_ready().await?;
    let (http, url) = (sandbox.http(), sandbox.url("e")?);
    let services = eventually("all services are listed", || async {
        let answer = http.get(format!("{url}/v1/services")).send().await.ok()?;
        let listed: Services = answer.json().await.ok()?;
        listed.services.contains_key("users").then_some(listed.services)
    })
    .await?;
    let sessions = &services["sessions"];
    assert_eq!(sessions.service_type.as_ref().map(types::ServiceType::as_str), Some("storage"));
    assert_eq!(
        (sessions.spec, sessions.wanted, sessions.ready, sessions.members.len()),
        (Some(1), Some(2), 1, 1)
    );
    assert!(sessions.members[0].url.ends_with("/svc/sessions"), "{sessions:?}");
    let users = &services["users"];
    assert_eq!((users.spec, users.wanted, users.ready, users.members.len()), (Some(1), Some(1), 0, 0));
    assert_eq!((services["standby"].ready, &services["standby"].service_type), (1, &None));
    assert!(services.contains_key("echo"), "a type that could be run");

    let metrics = http.get(format!("{}/metrics", sandbox.url("s0")?)).send().await?.text().await?;
    assert!(metrics.contains("coterie_storage_openings_total{service=\"sessions\"} 1"), "{metrics}");
    assert!(metrics.contains("coterie_members{service=\"sessions\",phase=\"ready\"} 1"), "{metrics}");

    // The type of a service can't change, and names must not be confusable.
    let put = async |service: &str, last: Option<u64>, body: Value| -> anyhow::Result<(u16, Value)> {
        let request = http.put(format!("{url}/v1/spec/{service}")).body(body.to_string());
        let request = match last {
            Some(number) => request.header("if-match", format!("\"{number}\"")),
            None => request.header("if-none-match", "*"),
        };
        let answer = request.send().await?;
        Ok((answer.status().as_u16(), answer.json().await?))
    };
    for (service, last, body, status, code) in [
        ("sessions", Some(1), json!({"type": "echo"}), 409, "type-fixed"),
        ("sessions", Some(1), json!({"type": "storage", "shards": 3}), 409, "shards-fixed"),
        ("sessions", Some(1), json!({"shards": 2}), 404, "unknown-service-type"),
        ("echo", None, json!({"type": "storage", "shards": 1}), 400, "bad-service-type"),
        ("my-echo", None, json!({"type": "echo", "settings": {"no_such": 1}}), 400, "bad-settings"),
        ("standby", None, json!({"type": "echo"}), 400, "bad-service-name"),
        ("my-echo", None, json!({"type": "echo"}), 200, ""),
        ("my_echo", None, json!({"type": "echo"}), 409, "similar-name"),
    ] {
        let (found, answer) = put(service, last, body.clone()).await?;
        let kind = answer["type"].as_str().unwrap_or_default();
        assert!(found == status && kind.contains(code), "{service} {body}: {found} {answer}");
        if code == "bad-settings" {
            let detail = answer["detail"].as_str().unwrap_or_default();
            assert!(detail.starts_with("the settings of my-echo (echo)"), "{detail}");
        }
    }

    // The type alone is ambiguous if several services have it.
    let role = json!({"service": "storage"}).to_string();
    let answer = http.put(format!("{url}/v1/members/spare/service")).body(role).send().await?;
    assert_eq!(answer.status(), 400);
    let detail = answer.json::<Value>().await?["detail"].as_str().unwrap_or_default().to_owned();
    assert_eq!(detail, "`storage` is a service type, and several services are of it: sessions, users");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_spelling_names_the_service_once_or_twice_and_forgives_a_shard() -> anyhow::Result<()> {
    let mut sandbox = settled().await?;
    sandbox.start("n", "standby", &NodeOptions::default()).await?;
    sandbox.all_ready().await?;
    let base = format!("{}/update_service", sandbox.url("n")?);
    for (query, status, role) in [
        ("service=edge&shard=3", 200, "edge"),
        ("service_type=echo", 200, "echo"),
        ("service=sessions&service_type=sessions&shard=1", 200, "sessions/1"),
        ("service=edge&service_type=echo", 400, "sessions/1"),
        ("service=sessions&shard=2", 400, "sessions/1"),
        ("service=sessions&shard=x", 400, "sessions/1"),
        ("shard=1", 400, "sessions/1"),
        ("service=nosuch", 400, "sessions/1"),
        ("service=standby", 200, "standby"),
    ] {
        let answer = sandbox.http().get(format!("{base}?{query}")).send().await?;
        let (found, body) = (answer.status(), answer.text().await?);
        assert_eq!(found, status, "{query}: {body}");
        let role: Role = role.parse()?;
        sandbox
            .seen("n", "n", |member| member.state.as_ref().is_some_and(|state| state.role == role))
            .await?;
    }
    // Everywhere else a wrong shard is an error.
    let url = format!("{}/v1/members/n/service", sandbox.url("n")?);
    let role = json!({"service": "edge", "shard": 3}).to_string();
    assert_eq!(sandbox.http().put(url).body(role).send().await?.status(), 400);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_keeps_a_named_role_and_a_type_that_it_lacks_ends_it() -> anyhow::Result<()> {
    let mut sandbox = settled().await?;
    sandbox.start("n", "standby", &NodeOptions::default()).await?;
    sandbox.all_ready().await?;
    let url = format!("{}/v1/members/n/service", sandbox.url("n")?);
    let role = json!({"service": "users"}).to_string();
    sandbox.http().put(&url).body(role).send().await?.error_for_status()?;
    sandbox.leave("n").await?;
    sandbox.start("n", "standby", &NodeOptions::default()).await?;
    owner(&sandbox, "n", "n", "users/0").await?;
    sandbox.leave("n").await?;

    sandbox.settle("archive", &of_type("analytics", Some(1))?).await?;
    for role in ["archive", "nosuch"] {
        sandbox.start(role, role, &NodeOptions::default()).await?;
        let failure =
            eventually("the node has ended", || async { sandbox.node(role).ok()?.failure() }).await?;
        assert!(failure.contains("does not exist here; there are api_gateway, echo"), "{failure}");
        // It has ended already.
        let _ = sandbox.leave(role).await;
    }
    Ok(())
}

/// A member as written by agents that do not know named services: a standby that has the type.
async fn member_of_before(sandbox: &Sandbox, seed: &str) -> anyhow::Result<cluster::Cluster> {
    let addr = ([127, 0, 0, 1], e2e::free_port()?).into();
    let config = cluster::ClusterConfig {
        cluster: "sandbox".parse()?,
        node: "old".parse()?,
        generation: Generation(1),
        listen: addr,
        advertise: addr,
        seeds: vec![sandbox.node(seed)?.gossip().to_owned()],
        profile: types::Profile::Local,
        http: format!("http://127.0.0.1:{}", e2e::free_port()?),
        about: About { version: "0.1.0".to_owned(), runnable: vec!["storage".parse()?], ..About::default() },
        max_members: cluster::MAX_MEMBERS,
    };
    let old = cluster::Cluster::join(config, cluster::Network::Udp).await?;
    old.set_role(RoleState { phase: Phase::Ready, ..RoleState::starting(Role::Standby) }).await?;
    Ok(old)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_does_not_know_named_services_is_shown_and_is_no_candidate_for_them()
-> anyhow::Result<()> {
    let mut sandbox = settled().await?;
    sandbox.start("s0", "sessions/0", &NodeOptions::default()).await?;
    sandbox.all_ready().await?;
    let _old = member_of_before(&sandbox, "s0").await?;
    let old = sandbox.seen("s0", "old", |member| member.state.is_some()).await?;
    assert!(!old.about.named_services && old.about.runnable.len() == 1, "{old:?}");
    // The old node is not a candidate for the other shard, so no hint names it.
    let view = sandbox.node("s0")?.view().borrow().clone();
    let (sessions, storage) = ("sessions".parse()?, "storage".parse()?);
    assert_eq!(view.spare(&sessions, &storage), None);
    let itself = "storage".parse()?;
    assert_eq!(view.spare(&itself, &storage).map(types::NodeId::as_str), Some("old"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_removed_with_its_data_once_no_node_runs_it() -> anyhow::Result<()> {
    let mut sandbox = settled().await?;
    for (name, role) in [("e", "edge"), ("u", "users/0"), ("spare", "standby")] {
        sandbox.start(name, role, &NodeOptions::default()).await?;
    }
    sandbox.all_ready().await?;
    let (url, edge) = (sandbox.url("e")?, sandbox.gateway("e").await?);
    put(&sandbox, &format!("{edge}/users"), "k", "user").await?;
    let remove = async |number: u64, stop: bool| -> anyhow::Result<(u16, Value)> {
        let request = sandbox.http().delete(format!("{url}/v1/spec/users?stop={stop}"));
        let answer = request.header("if-match", format!("\"{number}\"")).send().await?;
        Ok((answer.status().as_u16(), answer.json().await?))
    };
    let (status, problem) = remove(1, false).await?;
    assert_eq!((status, problem["detail"].as_str()), (409, Some("u runs users")), "{problem}");
    assert_eq!(remove(7, true).await?.0, 412, "another spec");
    owner(&sandbox, "e", "u", "users/0").await?;
    // The node that runs it becomes a standby, and no other standby takes it over.
    let (status, removed) = remove(1, true).await?;
    assert_eq!(status, 200, "{removed}");
    assert!(removed["objects"].as_u64().is_some_and(|objects| objects > 0), "{removed}");
    let specs = sandbox.store().await?.specs();
    assert!(!specs.all().await?.contains_key(&"users".parse()?));
    let claims: Value = sandbox.http().get(format!("{url}/v1/claims")).send().await?.json().await?;
    assert!(!claims.to_string().contains("users"), "{claims}");
    assert_eq!(remove(1, false).await?.0, 412, "there is nothing to remove");
    // A new service with its name begins empty, and its epochs continue.
    sandbox.settle("users", &of_type("storage", Some(1))?).await?;
    let role = json!({"service": "users"}).to_string();
    sandbox.http().put(format!("{url}/v1/members/u/service")).body(role).send().await?.error_for_status()?;
    let state = owner(&sandbox, "e", "u", "users/0").await?;
    assert!(state.epoch.is_some_and(|epoch| epoch.0 > 1), "{state:?}");
    assert_eq!(get(&sandbox, &format!("{edge}/users"), "k").await?, Err(404));
    Ok(())
}
