//! Roles that move while requests run: no request fails or is answered twice, and a failed change leaves the node as it
//! was.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use e2e::{NodeOptions, Sandbox, eventually};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use types::api::Receipt;
use types::{Phase, ReasonCode};

async fn change(
    sandbox: &Sandbox,
    by: &str,
    node: &str,
    role: Value,
) -> anyhow::Result<Result<Receipt, Value>> {
    let url = format!("{}/v1/members/{node}/service", sandbox.url(by)?);
    let answer = sandbox.http().put(url).json(&role).send().await?;
    Ok(if answer.status().is_success() { Ok(answer.json().await?) } else { Err(answer.json().await?) })
}

async fn changed(sandbox: &Sandbox, by: &str, node: &str, service: &str) -> anyhow::Result<Receipt> {
    change(sandbox, by, node, json!({ "service": service }))
        .await?
        .map_err(|problem| anyhow::anyhow!("{problem}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_moves_between_two_nodes_and_no_request_fails() -> anyhow::Result<()> {
    let roles = [("gateway", "api_gateway"), ("a", "echo"), ("b", "standby")];
    let sandbox = Sandbox::of(&roles, &NodeOptions::default()).await?;
    let gateway = sandbox.gateway("gateway").await?;
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for client in 0..16 {
        let (stop, answered) = (stop.clone(), answered.clone());
        let (http, gateway) = (sandbox.http().clone(), gateway.clone());
        clients.spawn(async move {
            let mut number = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                let body =
                    format!("{client}.{number} ").repeat(if number.is_multiple_of(7) { 5_000 } else { 1 });
                let request = http.post(format!("{gateway}/echo/x%2Fy/{number}?q=%20")).body(body.clone());
                let answer = request.send().await?;
                anyhow::ensure!(
                    answer.status().is_success(),
                    "{}: {}",
                    answer.status(),
                    answer.text().await?
                );
                anyhow::ensure!(answer.headers()["echo-path"] == format!("/x%2Fy/{number}?q=%20").as_str());
                anyhow::ensure!(answer.text().await? == body, "the body came back changed");
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
    }
    for _ in 0..15 {
        for (to, from) in [("b", "a"), ("a", "b")] {
            assert_eq!(changed(&sandbox, "gateway", to, "echo").await?.state.phase, Phase::Ready);
            assert!(changed(&sandbox, "gateway", from, "standby").await?.changed);
        }
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(client) = clients.join_next().await {
        client??;
    }
    assert!(answered.load(Ordering::Relaxed) > 100, "only {answered:?} requests were sent");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_is_finished_before_its_service_goes() -> anyhow::Result<()> {
    let roles = [("gateway", "api_gateway"), ("a", "echo")];
    let sandbox = Sandbox::of(&roles, &NodeOptions::default()).await?;
    let gateway = sandbox.gateway("gateway").await?;
    let slow = JoinSet::from_iter([{
        let (http, url) = (sandbox.http().clone(), format!("{gateway}/echo/slow/800"));
        async move { http.get(url).send().await?.error_for_status()?.text().await }
    }]);
    let busy = sandbox.url("a")?;
    eventually("the request is in flight", || async {
        let agent: Value =
            sandbox.http().get(format!("{busy}/v1/agent/self")).send().await.ok()?.json().await.ok()?;
        (agent["in_flight"] == 1).then_some(())
    })
    .await?;
    let receipt = changed(&sandbox, "gateway", "a", "standby").await?;
    assert_eq!(receipt.in_flight, 1);
    assert_eq!(slow.join_all().await.remove(0)?, "a");
    let names: Vec<_> = receipt.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["prepare", "announce", "drain", "stop", "start", "mount", "receipt"]);
    assert_eq!((receipt.seen.by, receipt.seen.of), (2, 2), "{:?}", receipt.seen.missing);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_does_not_start_leaves_the_node_as_it_was() -> anyhow::Result<()> {
    let options =
        NodeOptions { settings: vec![("echo", json!({ "fail_start_on": "b" }))], ..NodeOptions::default() };
    let sandbox = Sandbox::of(&[("a", "standby"), ("b", "api_gateway")], &options).await?;
    let problem = change(&sandbox, "a", "b", json!({ "service": "echo" })).await?.unwrap_err();
    assert_eq!(problem["status"], 503);
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert!(
        detail.contains("forced failure") && detail.contains("the node is api_gateway again"),
        "{detail}"
    );
    let gateway = sandbox.gateway("b").await?;
    assert!(sandbox.http().get(gateway).send().await?.status().is_success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_command_runs_at_a_time_and_a_leave_takes_precedence() -> anyhow::Result<()> {
    let options =
        NodeOptions { settings: vec![("echo", json!({ "start_ms": 60_000 }))], ..NodeOptions::default() };
    let mut sandbox = Sandbox::of(&[("a", "standby"), ("b", "standby")], &options).await?;
    let first = {
        let (http, url) = (sandbox.http().clone(), format!("{}/v1/members/b/service", sandbox.url("a")?));
        JoinSet::from_iter([async move {
            http.put(url).json(&json!({ "service": "echo" })).send().await?.json::<Value>().await
        }])
    };
    sandbox
        .seen("a", "b", |member| member.state.as_ref().is_some_and(|state| state.phase == Phase::Starting))
        .await?;
    let refused = change(&sandbox, "a", "b", json!({ "service": "standby" })).await?.unwrap_err();
    assert_eq!(refused["status"], 409);
    assert!(refused["detail"].as_str().unwrap_or_default().contains("change to echo"), "{refused}");
    sandbox.leave("b").await?;
    let cut_short = first.join_all().await.remove(0)?;
    assert_eq!((&cut_short["status"], cut_short["title"].as_str()), (&json!(409), Some("leaving")));
    sandbox.all_ready().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_role_is_refused_before_anything_is_disturbed() -> anyhow::Result<()> {
    let sandbox = Sandbox::of(&[("a", "standby"), ("b", "echo")], &NodeOptions::default()).await?;
    for (body, status, code) in [
        (json!({ "service": "analytics" }), 400, "unknown service type"),
        (json!({ "service": "echo", "shard": 3 }), 400, "bad shard"),
        (json!({ "service": "echo", "shard": 70_000 }), 400, "bad role"),
        (json!({ "service": "standby", "shard": 0 }), 400, "bad role"),
        (json!({ "servce": "echo" }), 400, "bad role"),
        (json!({ "service": "echo", "shrad": 1 }), 400, "bad role"),
        (json!([]), 400, "bad role"),
    ] {
        let problem = change(&sandbox, "a", "b", body.clone()).await?.unwrap_err();
        assert_eq!((&problem["status"], problem["title"].as_str()), (&json!(status), Some(code)), "{body}");
        assert!(problem["hint"].is_string(), "{problem}");
    }
    let problem = change(&sandbox, "a", "nobody", json!({ "service": "echo" })).await?.unwrap_err();
    assert_eq!(problem["status"], 404);
    let receipt = changed(&sandbox, "a", "b", "echo").await?;
    assert!(!receipt.changed, "the role is the requested one already");
    assert_eq!(receipt.state.revision, 0, "and was never anything else");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_for_an_earlier_generation_is_refused() -> anyhow::Result<()> {
    let sandbox = Sandbox::of(&[("a", "standby"), ("b", "standby")], &NodeOptions::default()).await?;
    let url = format!("{}/v1/members/b/service", sandbox.url("a")?);
    let put = |tag: String| {
        sandbox.http().put(&url).header("if-match", tag).json(&json!({ "service": "echo" })).send()
    };
    assert_eq!(put("\"1.0\"".to_owned()).await?.status(), 412);
    assert_eq!(put("1.0".to_owned()).await?.status(), 400, "a tag has quotation marks");
    let member = sandbox.seen("a", "b", |_| true).await?;
    assert_eq!(put(format!("\"{}.0\"", member.generation)).await?.status(), 200);
    assert_eq!(put(format!("\"{}.0\"", member.generation)).await?.status(), 412, "it has changed since");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_keeps_its_role_until_a_command_starts_it_again() -> anyhow::Result<()> {
    let mut sandbox = Sandbox::of(&[("a", "standby"), ("b", "echo")], &NodeOptions::default()).await?;
    let url = format!("{}/v1/members/b:drain", sandbox.url("a")?);
    let receipt: Receipt = sandbox.http().post(&url).send().await?.error_for_status()?.json().await?;
    assert_eq!((receipt.state.phase, receipt.state.role.to_string()), (Phase::Stopped, "echo".to_owned()));
    let again: Receipt = sandbox.http().post(&url).send().await?.error_for_status()?.json().await?;
    assert!(!again.changed);
    sandbox.leave("b").await?;
    sandbox.start("b", "echo", &NodeOptions::default()).await?;
    sandbox
        .seen("a", "b", |member| member.state.as_ref().is_some_and(|state| state.phase == Phase::Stopped))
        .await?;
    assert_eq!(changed(&sandbox, "a", "b", "echo").await?.state.phase, Phase::Ready);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_command_beats_the_flags_after_a_restart() -> anyhow::Result<()> {
    let mut sandbox = Sandbox::of(&[("a", "standby"), ("b", "standby")], &NodeOptions::default()).await?;
    changed(&sandbox, "a", "b", "echo").await?;
    sandbox.kill("b").await?;
    sandbox.start("b", "standby", &NodeOptions::default()).await?;
    let member = sandbox
        .seen("a", "b", |member| member.state.as_ref().is_some_and(|state| state.phase == Phase::Ready))
        .await?;
    assert_eq!(member.state.map(|state| state.role.to_string()).as_deref(), Some("echo"));
    assert_eq!(sandbox.node("b")?.kept_role().map(ToString::to_string).as_deref(), Some("echo"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_fails_is_restarted_and_a_panic_harms_no_other() -> anyhow::Result<()> {
    let sandbox = Sandbox::of(&[("a", "echo"), ("b", "standby")], &NodeOptions::default()).await?;
    let a = sandbox.url("a")?;
    let post = |path: &str| sandbox.http().post(format!("{a}/svc/echo{path}")).send();

    let answer = post("/panic/handler").await?;
    assert_eq!(answer.status(), 500);
    assert_eq!(answer.json::<Value>().await?["title"], "handler panicked");

    post("/health/degraded").await?.error_for_status()?;
    let is = |phase: Phase| {
        move |member: &types::api::Member| member.state.as_ref().is_some_and(|s| s.phase == phase)
    };
    let member = sandbox.seen("b", "a", is(Phase::Degraded)).await?;
    let state = member.state.unwrap_or_else(|| unreachable!("it has just been seen"));
    assert_eq!(state.reason.as_deref(), Some("forced degradation"));
    assert_eq!(state.reason_code.as_ref().map(ReasonCode::as_str), Some("forced"));
    for path in ["/v1/agent/self", "/v1/members", "/v1/services"] {
        let answer = sandbox.http().get(format!("{a}{path}")).send().await?.text().await?;
        assert!(answer.contains(r#""reason_code":"forced""#), "{path}: {answer}");
    }
    post("/health/ready").await?.error_for_status()?;
    sandbox.seen("b", "a", is(Phase::Ready)).await?;

    for (path, code, reason) in [
        ("/panic/task", "task-failed", "task `doomed` failed: panicked: forced panic"),
        ("/health/failed", "forced", "forced failure"),
    ] {
        post(path).await?.error_for_status()?;
        let member = sandbox.seen("b", "a", is(Phase::Failed)).await?;
        let state = member.state.unwrap_or_else(|| unreachable!("it has just been seen"));
        assert_eq!(state.reason_code.as_ref().map(ReasonCode::as_str), Some(code));
        let shown = state.reason.unwrap_or_default();
        assert!(shown.starts_with(reason), "{shown}");
        sandbox.seen("b", "a", is(Phase::Ready)).await?;
    }
    let agent: Value = sandbox.http().get(format!("{a}/v1/agent/self")).send().await?.json().await?;
    assert_eq!(agent["restarts"], 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_hangs_in_its_first_start_still_leaves_at_once() -> anyhow::Result<()> {
    let options =
        NodeOptions { settings: vec![("echo", json!({ "start_ms": 60_000 }))], ..NodeOptions::default() };
    let mut sandbox = Sandbox::of(&[("a", "standby")], &NodeOptions::default()).await?;
    sandbox.start("b", "echo", &options).await?;
    sandbox
        .seen("a", "b", |member| member.state.as_ref().is_some_and(|state| state.phase == Phase::Starting))
        .await?;
    let began = std::time::Instant::now();
    sandbox.leave("b").await?;
    assert!(began.elapsed().as_secs() < 30, "took {:?}", began.elapsed());
    sandbox.all_ready().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_panics_while_it_starts_ends_no_node() -> anyhow::Result<()> {
    let options = NodeOptions {
        settings: vec![("echo", json!({ "panic_in_routes": true }))],
        ..NodeOptions::default()
    };
    let sandbox = Sandbox::of(&[("a", "standby"), ("b", "api_gateway")], &options).await?;
    let problem = change(&sandbox, "a", "b", json!({ "service": "echo" })).await?.unwrap_err();
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert!(
        detail.contains("panicked") && detail.contains("the node is api_gateway again, ready"),
        "{detail}"
    );
    assert!(
        !sandbox.data_dir("b").join("role.json").exists(),
        "no command requested the role that it went back to"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_can_not_be_stored_changes_nothing() -> anyhow::Result<()> {
    let sandbox = Sandbox::of(&[("a", "standby"), ("b", "standby")], &NodeOptions::default()).await?;
    // A folder in place of the file acts like a full disk, even for root.
    std::fs::create_dir(sandbox.data_dir("b").join("role.json"))?;
    let problem = change(&sandbox, "a", "b", json!({ "service": "echo" })).await?.unwrap_err();
    assert_eq!((&problem["status"], problem["title"].as_str()), (&json!(503), Some("not kept")));
    let member = sandbox.seen("a", "b", |_| true).await?;
    assert_eq!(
        member.state.map(|state| (state.role.to_string(), state.revision)),
        Some(("standby".to_owned(), 0))
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_stuck_in_a_service_that_failed_is_ended_with_it() -> anyhow::Result<()> {
    let sandbox = Sandbox::of(&[("a", "echo"), ("b", "standby")], &NodeOptions::default()).await?;
    let a = sandbox.url("a")?;
    let stuck = {
        let (http, url) = (sandbox.http().clone(), format!("{a}/svc/echo/slow/600000"));
        JoinSet::from_iter([async move { http.get(url).send().await }])
    };
    eventually("the request is in flight", || async {
        let agent: Value =
            sandbox.http().get(format!("{a}/v1/agent/self")).send().await.ok()?.json().await.ok()?;
        (agent["in_flight"] == 1).then_some(())
    })
    .await?;
    sandbox.http().post(format!("{a}/svc/echo/health/failed")).send().await?.error_for_status()?;
    let answer = stuck.join_all().await.remove(0)?;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.json::<Value>().await?["title"], "cut short");
    Ok(())
}
