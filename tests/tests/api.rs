//! The HTTP API: its own description, problem details for every error, streams that resume, and no access for pages of
//! other sites.

use e2e::{NodeOptions, Sandbox, eventually};
use serde_json::{Value, json};

async fn one() -> anyhow::Result<(Sandbox, String)> {
    let sandbox = Sandbox::of(&[("a", "echo")], &NodeOptions::default()).await?;
    let url = sandbox.url("a")?;
    Ok((sandbox, url))
}

#[tokio::test]
async fn every_described_path_exists_and_every_error_is_a_problem() -> anyhow::Result<()> {
    let (sandbox, url) = one().await?;
    let http = sandbox.http();
    let document: Value = http.get(format!("{url}/v1/openapi.json")).send().await?.json().await?;
    let paths = document["paths"].as_object().cloned().unwrap_or_default();
    assert!(paths.len() >= 14, "{:?}", paths.keys());
    assert_eq!(paths["/svc/storage/kv/{key}"]["put"]["tags"], json!(["storage"]));
    assert_eq!(paths["/svc/api_gateway/backends"]["get"]["tags"], json!(["api_gateway"]));
    let text = document.to_string();
    for name in text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(
            document["components"]["schemas"].get(name).is_some(),
            "{name} is referred to and not described"
        );
    }
    for (template, methods) in &paths {
        let path = template.replace("{id}", "a").replace("{verb}", "drain").replace("{service}", "echo");
        for operation in methods.as_object().into_iter().flatten().map(|(_, operation)| operation) {
            for (status, response) in operation["responses"].as_object().into_iter().flatten() {
                assert!(
                    response["description"].as_str().is_some_and(|text| !text.is_empty()),
                    "{path} {status}"
                );
                // Elasticsearch's clients want errors in its own form.
                let is_foreign = template.starts_with("/svc/searcher/es/");
                let is_problem = response["content"].get("application/problem+json").is_some();
                let is_error = status.starts_with('4') || status.starts_with('5');
                assert_eq!(is_problem, is_error && !is_foreign, "{path} {status}");
            }
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let is_in_path = parameter["in"] == "path";
                let name = parameter["name"].as_str().unwrap_or_default();
                assert_eq!(is_in_path, template.contains(&format!("{{{name}}}")), "{path} {name}");
            }
        }
        // The answers of a service belong in its own tests; it does not run here.
        let is_elsewhere = ["/svc/storage/", "/svc/searcher/", "/svc/api_gateway/", "/svc/load_balancer/"]
            .iter()
            .any(|of| path.starts_with(of));
        let methods = methods.as_object().filter(|_| !is_elsewhere);
        for method in methods.into_iter().flatten().map(|(method, _)| method.to_uppercase()) {
            let answer = http.request(method.parse()?, format!("{url}{path}")).send().await?;
            assert!(
                !matches!(answer.status().as_u16(), 404 | 405 | 500..),
                "{method} {path}: {}",
                answer.status()
            );
        }
    }
    for (method, path, status) in [
        ("GET", "/nothing/here", 404),
        ("DELETE", "/v1/members", 405),
        ("GET", "/v1/members/a?wait=1", 400),
        ("GET", "/v1/members/b", 404),
        ("GET", "/v1/members/%20", 400),
        ("POST", "/v1/members/a:explode", 400),
        ("GET", "/update_service", 400),
        ("GET", "/update_service?service=analytics", 400),
        ("GET", "/svc/analytics/x", 404),
        ("GET", "/svc/storage/kv/x", 503),
        ("PUT", "/v1/spec/no-such-type", 400),
        ("POST", "/v1/members/a:release", 400),
        ("GET", "/svc/api-gateway/x", 503),
        ("GET", "/v1/members/%FF", 400),
        ("HEAD", "/update_service?service=echo", 405),
    ] {
        let answer = http.request(method.parse()?, format!("{url}{path}")).send().await?;
        assert_eq!(answer.status(), status, "{method} {path}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{method} {path}");
        let id = answer.headers()["x-request-id"].to_str()?.to_owned();
        if method == "HEAD" {
            continue;
        }
        let problem: Value = answer.json().await?;
        assert_eq!(problem["status"], status);
        assert!(!problem["detail"].as_str().unwrap_or_default().is_empty());
        assert_eq!((&problem["request_id"], &problem["node"]), (&json!(id), &json!("a")));
    }
    let answer = http.put(format!("{url}/v1/members/a/service")).body(vec![b' '; 70_000]).send().await?;
    assert_eq!(answer.status(), 413);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    Ok(())
}

#[tokio::test]
async fn the_root_of_a_service_is_its_own() -> anyhow::Result<()> {
    let (mut sandbox, url) = one().await?;
    sandbox.start("gateway", "api_gateway", &NodeOptions::default()).await?;
    sandbox.all_ready().await?;
    let gateway = sandbox.gateway("gateway").await?;
    for root in [
        format!("{url}/svc/echo"),
        format!("{url}/svc/echo/"),
        format!("{gateway}/echo"),
        format!("{gateway}/echo/"),
    ] {
        let answer = sandbox.http().get(&root).send().await?.error_for_status()?;
        assert_eq!(answer.headers()["echo-path"], "/", "{root}");
    }
    Ok(())
}

#[tokio::test]
async fn a_long_poll_waits_for_the_version_but_no_longer_than_requested() -> anyhow::Result<()> {
    let (sandbox, url) = one().await?;
    let version = sandbox.seen("a", "a", |_| true).await?.version;
    let poll = |version: u64, wait: u64| {
        sandbox.http().get(format!("{url}/v1/members/a?min_version={version}&wait_ms={wait}")).send()
    };
    let began = std::time::Instant::now();
    assert_eq!(poll(version, 30_000).await?.status(), 200);
    assert!(began.elapsed().as_secs() < 20, "an existing version is not waited for");
    let began = std::time::Instant::now();
    assert_eq!(poll(version + 1_000, 300).await?.status(), 200);
    assert!(began.elapsed().as_millis() >= 300, "a later version is");
    let refused = poll(version, 30_001).await?;
    assert_eq!(refused.status(), 400);
    let problem = refused.text().await?;
    assert!(problem.contains("a whole number from 0 to 30000 is wanted, not `30001`"), "{problem}");
    Ok(())
}

#[tokio::test]
async fn a_request_id_is_taken_from_the_caller_or_made() -> anyhow::Result<()> {
    let (sandbox, url) = one().await?;
    let answer = sandbox.http().get(&url).header("x-request-id", "mine").send().await?;
    assert_eq!(answer.headers()["x-request-id"], "mine");
    assert_eq!(answer.headers()["coterie-node"], "a");
    let answer = sandbox.http().get(&url).send().await?;
    assert_eq!(answer.headers()["x-request-id"].len(), 36);
    Ok(())
}

#[tokio::test]
async fn the_first_spelling_of_a_role_change_still_works() -> anyhow::Result<()> {
    let (sandbox, url) = one().await?;
    let answer = sandbox.http().get(format!("{url}/update_service?service=api-gateway")).send().await?;
    assert_eq!(answer.error_for_status()?.json::<Value>().await?["to"], json!({ "service": "api_gateway" }));
    let members: Value = sandbox.http().get(format!("{url}/members")).send().await?.json().await?;
    assert_eq!(members["members"][0]["state"]["role"]["service"], "api_gateway");
    Ok(())
}

#[tokio::test]
async fn pages_of_other_sites_may_read_but_not_change() -> anyhow::Result<()> {
    let (sandbox, url) = one().await?;
    let http = sandbox.http();
    let foreign =
        http.get(format!("{url}/update_service?service=standby")).header("origin", "http://evil.example");
    assert_eq!(foreign.send().await?.status(), 403);
    let rebound = http.post(format!("{url}/v1/members/a:leave")).header("host", "evil.example");
    assert_eq!(rebound.send().await?.status(), 403);
    let cross = http.post(format!("{url}/v1/members/a:drain")).header("sec-fetch-site", "cross-site");
    assert_eq!(cross.send().await?.status(), 403);
    let looking = http.get(format!("{url}/v1/members")).header("origin", "http://evil.example");
    assert_eq!(looking.send().await?.status(), 200);
    Ok(())
}

#[tokio::test]
async fn no_service_is_reached_through_a_page_of_another_site() -> anyhow::Result<()> {
    let (sandbox, url) = one().await?;
    let http = sandbox.http();
    for path in ["/svc/api_gateway", "/svc/api_gateway/", "/svc/api_gateway/storage/kv/a", "/svc/nothing/x"] {
        for (name, value) in
            [("origin", "http://evil.example"), ("host", "evil.example"), ("sec-fetch-site", "cross-site")]
        {
            for method in [reqwest::Method::GET, reqwest::Method::POST] {
                let asked = http.request(method.clone(), format!("{url}{path}")).header(name, value);
                assert_eq!(asked.send().await?.status(), 403, "{method} {path} {name}");
            }
        }
        let own = http.get(format!("{url}{path}")).send().await?.status();
        assert_ne!(own, 403, "{path}");
    }
    Ok(())
}

/// Reads a stream of events until it has as many as wanted.
async fn read(sandbox: &Sandbox, url: &str, last: Option<&str>, count: usize) -> anyhow::Result<Vec<Value>> {
    let mut request = sandbox.http().get(format!("{url}/v1/events")).header("accept", "text/event-stream");
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let mut answer = request.send().await?.error_for_status()?;
    let mut text = String::new();
    loop {
        let events: Vec<Value> =
            text.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect();
        if events.len() >= count {
            return Ok(events);
        }
        let chunk = answer.chunk().await?;
        text.push_str(std::str::from_utf8(&chunk.unwrap_or_default())?);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_begin_with_the_present_and_resume_where_they_stopped() -> anyhow::Result<()> {
    let (mut sandbox, url) = one().await?;
    sandbox.start("b", "standby", &NodeOptions::default()).await?;
    sandbox.all_ready().await?;
    let present = read(&sandbox, &url, None, 2).await?;
    assert_eq!((&present[0]["kind"], &present[1]["kind"]), (&json!("present"), &json!("present")));
    let last = eventually("the newcomer's last change is recorded", || async {
        let kept: Value =
            sandbox.http().get(format!("{url}/v1/events")).send().await.ok()?.json().await.ok()?;
        let last = kept["events"].as_array()?.last()?.clone();
        (last["node"] == "b" && last["member"]["state"]["phase"] == "ready")
            .then(|| last["id"].as_str().map(str::to_owned))?
    })
    .await?;
    sandbox.leave("b").await?;
    let after = read(&sandbox, &url, Some(&last), 1).await?;
    let left = after.last().cloned().unwrap_or_default();
    assert_eq!((&left["kind"], &left["node"]), (&json!("left"), &json!("b")), "{after:?}");
    let from_the_future = format!("{}.99999", last.split('.').next().unwrap_or_default());
    let afresh = read(&sandbox, &url, Some(&from_the_future), 1).await?;
    assert_eq!(afresh[0]["kind"], "present", "with an unknown id the stream begins afresh");
    let again = read(&sandbox, &url, Some(&last), 1).await?;
    assert_eq!(after, again, "a stream can be resumed any number of times");
    Ok(())
}

/// The messages about a node in the events that another node keeps.
async fn messages_about(sandbox: &Sandbox, by: &str, node: &str) -> anyhow::Result<Vec<String>> {
    let url = format!("{}/v1/events", sandbox.url(by)?);
    let kept: Value = sandbox.http().get(url).send().await?.json().await?;
    let events = kept["events"].as_array().into_iter().flatten().filter(|event| event["node"] == node);
    Ok(events.filter_map(|event| event["message"].as_str().map(str::to_owned)).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn events_give_owner_and_reason_and_nothing_twice() -> anyhow::Result<()> {
    let options =
        NodeOptions { settings: vec![("echo", json!({ "fail_start_on": "c" }))], ..NodeOptions::default() };
    let sandbox = Sandbox::of(&[("a", "standby"), ("b", "echo"), ("c", "standby")], &options).await?;
    for behind in [19, 20, 21] {
        let url = format!("{}/svc/echo/health/behind-{behind}", sandbox.url("b")?);
        sandbox.http().post(url).send().await?.error_for_status()?;
        let reason = format!("may be {behind} s behind");
        sandbox
            .seen("a", "b", |member| {
                member.state.as_ref().is_some_and(|state| state.reason.as_deref() == Some(reason.as_str()))
            })
            .await?;
    }
    let put = async |role: Value| -> anyhow::Result<u16> {
        let url = format!("{}/v1/members/c/service", sandbox.url("a")?);
        Ok(sandbox.http().put(url).json(&role).send().await?.status().as_u16())
    };
    assert_eq!(put(json!({ "service": "echo" })).await?, 503);
    let failed = "c is now standby, ready: it could not become echo: forced failure";
    eventually("the change that failed is reported with its reason", || async {
        messages_about(&sandbox, "a", "c").await.ok()?.last().is_some_and(|last| last == failed).then_some(())
    })
    .await?;
    assert_eq!(put(json!({ "service": "owned_echo", "shard": 0 })).await?, 200);
    let owns = "c is now owned_echo/0 (owner, epoch 1), ready";
    eventually("the claim is reported", || async {
        messages_about(&sandbox, "a", "c").await.ok()?.last().is_some_and(|last| last == owns).then_some(())
    })
    .await?;
    let b = messages_about(&sandbox, "a", "b").await?;
    let behind: Vec<_> = b.iter().filter(|message| message.contains("behind")).collect();
    assert_eq!(behind, ["b is now echo, degraded: may be 19 s behind"]);
    for node in ["a", "b", "c"] {
        let mut messages = messages_about(&sandbox, "a", node).await?;
        let all = messages.len();
        messages.dedup();
        assert_eq!(messages.len(), all, "{messages:?}");
    }
    Ok(())
}

#[tokio::test]
async fn metrics_are_well_formed_and_health_shows_the_phase() -> anyhow::Result<()> {
    let (sandbox, url) = one().await?;
    let text = sandbox.http().get(format!("{url}/metrics")).send().await?.text().await?;
    assert!(text.ends_with("# EOF\n"));
    assert!(text.contains("coterie_members{service=\"echo\",phase=\"ready\"} 1"), "{text}");
    assert_eq!(sandbox.http().get(format!("{url}/health/livez")).send().await?.status(), 200);
    assert_eq!(sandbox.http().get(format!("{url}/health/readyz")).send().await?.status(), 200);
    sandbox.http().post(format!("{url}/v1/members/a:drain")).send().await?.error_for_status()?;
    let answer = sandbox.http().get(format!("{url}/health/readyz")).send().await?;
    assert_eq!(answer.status(), 503);
    assert!(answer.text().await?.contains("drained"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn members_estimate_how_far_their_clocks_are_apart() -> anyhow::Result<()> {
    let nodes = [("a", "standby"), ("b", "standby"), ("c", "standby")];
    let sandbox = Sandbox::of(&nodes, &NodeOptions::default()).await?;
    let url = sandbox.url("a")?;
    let text = eventually("both peers were asked", || async {
        let answer = sandbox.http().get(format!("{url}/metrics")).send().await.ok()?.text().await.ok()?;
        let both =
            ["b", "c"].iter().all(|peer| answer.contains(&format!("clock_skew_seconds{{peer=\"{peer}\"}} ")));
        both.then_some(answer)
    })
    .await?;
    assert!(text.contains("# TYPE coterie_clock_skew_seconds gauge"), "{text}");
    let own: Value = sandbox.http().get(format!("{url}/v1/agent/self")).send().await?.json().await?;
    assert!(own["now_us"].as_i64().is_some_and(|now| now > 1_700_000_000_000_000), "{own}");
    // They have one clock, so the error is at most half a round trip on a busy machine.
    assert!(own["clock_ahead_ms"].as_i64().is_some_and(|ahead| ahead.abs() < 1_000), "{own}");
    Ok(())
}
