//! Settings of a gateway change while clients use it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use e2e::{Machine, eventually};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::ask;

/// A server that answers every request.
async fn upstream(server: &mut JoinSet<()>) -> anyhow::Result<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let routes = axum::Router::new().fallback(|| async { "here" });
    server.spawn(async move { axum::serve(listener, routes).await.unwrap_or_default() });
    Ok(format!("http://{address}"))
}

/// A server whose answers have an event every 10 ms and no end.
async fn events(server: &mut JoinSet<()>) -> anyhow::Result<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    server.spawn(async move {
        let mut clients = JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            clients.spawn(async move {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
                client.write_all(head.as_bytes()).await?;
                loop {
                    client.write_all(b"d\r\ndata: tick\n\n \r\n").await?;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                #[expect(unreachable_code, reason = "it names the type of the errors above")]
                std::io::Result::Ok(())
            });
        }
    });
    Ok(format!("http://{address}"))
}

async fn endpoint(machine: &Machine, node: &str, name: &str) -> anyhow::Result<String> {
    let record = machine.record()?;
    let nodes = record["nodes"].as_array().into_iter().flatten();
    let http = nodes.into_iter().find(|known| known["id"] == node).map(|known| known["http"].clone());
    let http = http.and_then(|http| http.as_str().map(str::to_owned)).unwrap_or_default();
    let own = ask(&format!("http://{http}/v1/agent/self")).await?;
    Ok(own["member"]["state"]["endpoints"][name].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn behaviour_2_a_change_of_settings_drops_no_connection_and_fails_no_request() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let mut tasks = JoinSet::new();
    let (upstream, ticking) = (upstream(&mut tasks).await?, events(&mut tasks).await?);
    let with = |more: &str| {
        machine.manifest(&format!(
            "services:\n  api_gateway:\n    settings:\n      {more}\n      routes:\n      \
             - {{prefix: /up, to: ['{upstream}']}}\n      - {{prefix: /events, to: ['{ticking}']}}\n      - {{prefix: /{}, answer: {{body: yes}}}}\n\
             nodes:\n  - {{id: gateway, service: api_gateway, count: 2}}\n",
            if more.is_empty() { "old" } else { "new" }
        ))
    };
    let manifest = with("")?;
    machine.ctl(&["up", &manifest]).await?.exits(0)?;
    let gateway = endpoint(&machine, "gateway-1", "gateway").await?;
    let http = client::plain_http().build()?;

    let (failed, sent, stop) =
        (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        let (http, url) = (http.clone(), format!("{gateway}/up/x"));
        let (failed, sent, stop) = (failed.clone(), sent.clone(), stop.clone());
        clients.spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let is_fine = match http.get(&url).send().await {
                    Ok(answer) if answer.status() == 200 => {
                        answer.text().await.is_ok_and(|text| text == "here")
                    }
                    Ok(_) | Err(_) => false,
                };
                failed.fetch_add(u64::from(!is_fine), Ordering::SeqCst);
                sent.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    let mut events = http.get(format!("{gateway}/events")).send().await?;
    events.chunk().await?;

    for round in 0..3_u64 {
        let before = sent.load(Ordering::SeqCst);
        with(if round == 1 { "" } else { "response_timeout: 50s" })?;
        let up = machine.ctl(&["up", &manifest]).await?.exits(0)?;
        for node in ["gateway-1", "gateway-2"] {
            let line = format!("applied: {node} runs with the new settings of api_gateway");
            assert!(up.err.contains(&line), "{}", up.err);
        }
        let (there, gone) = if round == 1 { ("old", "new") } else { ("new", "old") };
        for (path, status) in [(there, 200), (gone, 404)] {
            assert_eq!(http.get(format!("{gateway}/{path}")).send().await?.status(), status, "{path}");
        }
        assert!(events.chunk().await?.is_some(), "the stream goes on");
        eventually("requests go on", || async { (sent.load(Ordering::SeqCst) > before + 50).then_some(()) })
            .await?;
    }
    stop.store(true, Ordering::SeqCst);
    while clients.join_next().await.is_some() {}
    assert_eq!(failed.load(Ordering::SeqCst), 0, "of {}", sent.load(Ordering::SeqCst));
    assert_eq!(endpoint(&machine, "gateway-1", "gateway").await?, gateway, "the same socket");
    assert!(events.chunk().await?.is_some());
    machine.ctl(&["status"]).await?.exits(0)?;
    machine.ctl(&["down"]).await?.exits(0)?;
    machine.nothing_is_left()
}

#[tokio::test]
async fn ctl_says_on_which_node_settings_need_a_restart_or_failed_and_why() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let with = |watches: u32, gateway: &str| {
        machine.manifest(&format!(
            "services:\n  storage:\n    settings: {{max_watches: {watches}}}\n  api_gateway:\n    settings: {gateway}\n\
             nodes:\n  - {{id: g, service: api_gateway}}\n  - {{id: s, service: storage}}\n"
        ))
    };
    let manifest = with(100, "{max_connections: 100}")?;
    machine.ctl(&["up", &manifest]).await?.exits(0)?;

    with(200, "{max_connections: 100}")?;
    machine.ctl(&["up", &manifest]).await?.exits(0)?.tells(
        "drift: s keeps its old settings of storage, since settings.max_watches needs a restart; `ctl --cluster",
    )?;
    let json = machine.ctl(&["up", &manifest, "-o", "json"]).await?.exits(0)?.json()?;
    assert_eq!(json["outdated_specs"][0]["pending"]["needs_restart"][0], "/max_watches", "{json}");
    let status = machine.ctl(&["status"]).await?.exits(0)?;
    assert!(status.out.contains("settings.max_watches needs a restart"), "{}", status.out);
    machine.ctl(&["up", &manifest, "--reset"]).await?.exits(0)?.tells("renewed: s runs with spec 2")?;

    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let busy = taken.local_addr()?;
    let two = format!(
        "{{max_connections: 200, listeners: [{{name: gateway, address: '127.0.0.1:0'}}, {{name: b, address: '{busy}'}}]}}"
    );
    with(200, &two)?;
    let failed = machine.ctl(&["up", &manifest]).await?.exits(1)?;
    assert!(
        failed.err.contains("failed: g keeps its old settings of api_gateway: listener `b`"),
        "{}",
        failed.err
    );
    let members = machine.ctl(&["members"]).await?.exits(0)?;
    assert!(members.out.contains("settings-not-applied"), "{}", members.out);
    drop(taken);
    eventually("it is tried again and applied", || async {
        let again = machine.ctl(&["up", &manifest]).await.ok()?;
        (again.code() == Some(0)).then_some(())
    })
    .await?;
    assert!(endpoint(&machine, "g", "b").await?.ends_with(&busy.to_string()));
    machine.ctl(&["down"]).await?.exits(0)?;
    machine.nothing_is_left()
}

/// A gateway with a certificate for `shop.example`, and a route for a host that it does not cover as well.
fn with_an_uncovered_host(machine: &Machine) -> anyhow::Result<String> {
    let testdata = e2e::repository().join("crates/plugin/src/tls/testdata");
    for name in ["shop.crt", "shop.key"] {
        std::fs::copy(testdata.join(name), machine.folder().join(name))?;
    }
    machine.manifest(
        "services:\n  api_gateway:\n    settings:\n      listeners:\n        - name: web\n          address: 127.0.0.1:0\n          \
         tls: {certificates: [{cert: shop.crt, key: shop.key}]}\n      routes:\n        - prefix: /\n          \
         hosts: [shop.example, other.example]\n          answer: {body: ok}\nnodes:\n  - {id: g, service: api_gateway}\n",
    )
}

#[tokio::test]
async fn up_warns_as_validate_does_and_its_json_stays_clean() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let manifest = with_an_uncovered_host(&machine)?;
    let warnings = |err: &str| -> Vec<_> {
        err.lines().filter(|line| line.contains(": warning: ")).map(str::to_owned).collect()
    };
    let checked = warnings(&machine.ctl(&["validate", &manifest]).await?.exits(0)?.err);
    assert_eq!(checked.len(), 1, "{checked:?}");
    let up = machine.ctl(&["up", &manifest, "-o", "json"]).await?.exits(0)?;
    assert_eq!(warnings(&up.err), checked, "{}", up.err);
    let report: serde_json::Value = serde_json::from_str(&up.out)?;
    assert_eq!(report["started"], serde_json::json!(["g"]));
    machine.ctl(&["down"]).await?.exits(0)?;
    machine.nothing_is_left()
}

#[tokio::test]
async fn validate_reads_certificates_and_names_hosts_that_none_covers() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let manifest = with_an_uncovered_host(&machine)?;
    let said = machine.ctl(&["validate", &manifest]).await?.exits(0)?;
    let warnings: Vec<_> = said.err.lines().filter(|line| line.contains("warning")).collect();
    assert_eq!(warnings.len(), 1, "{}", said.err);
    assert!(warnings[0].contains(": warning: no certificate covers `other.example`"), "{}", said.err);
    let place = warnings[0].split(": warning").next().unwrap_or_default();
    let line = place.rsplit(':').nth(1).and_then(|line| line.parse::<usize>().ok()).unwrap_or(0);
    let text = std::fs::read_to_string(&manifest)?;
    assert!(text.lines().nth(line - 1).is_some_and(|line| line.contains("other.example")), "{place}");
    std::fs::remove_file(machine.folder().join("shop.key"))?;
    let said = machine.ctl(&["validate", &manifest]).await?.exits(0)?;
    assert!(said.err.contains("warning: no usable certificate: "), "{}", said.err);
    assert!(!said.err.contains("no certificate covers"), "its names are not known: {}", said.err);
    Ok(())
}

#[tokio::test]
async fn validate_reads_the_cas_of_a_balancer() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let testdata = e2e::repository().join("crates/plugin/src/tls/testdata");
    for name in ["shop.crt", "shop.key", "client-ca.crt", "ca.crt"] {
        std::fs::copy(testdata.join(name), machine.folder().join(name))?;
    }
    let manifest = machine.manifest(
        "services:\n  load_balancer:\n    settings:\n      listeners:\n        - name: front\n          mode: http\n          \
         address: 127.0.0.1:0\n          backends: [{address: https://shop.example}]\n          ca: ca.crt\n          \
         tls:\n            certificates: [{cert: shop.crt, key: shop.key}]\n            client_ca: client-ca.crt\n\
         nodes:\n  - {id: b, service: load_balancer}\n",
    )?;
    let said = machine.ctl(&["validate", &manifest]).await?.exits(0)?;
    assert!(!said.err.contains("warning"), "{}", said.err);
    std::fs::remove_file(machine.folder().join("ca.crt"))?;
    std::fs::copy(testdata.join("shop.key"), machine.folder().join("client-ca.crt"))?;
    let said = machine.ctl(&["validate", &manifest]).await?.exits(0)?;
    let text = std::fs::read_to_string(&manifest)?;
    for (setting, why) in [("ca: ca.crt", "can't be read"), ("client_ca: client-ca.crt", "no certificate")] {
        let (at, line) =
            text.lines().enumerate().find(|(_, line)| line.trim() == setting).expect("it is there");
        let value = setting.split(' ').next_back().and_then(|value| line.find(value)).expect("it is there");
        let place = format!("{manifest}:{}:{}: warning: ", at + 1, value + 1);
        let found = said.err.lines().find(|line| line.contains(&place));
        assert!(found.is_some_and(|found| found.contains(why)), "{place}{why} in\n{}", said.err);
    }
    Ok(())
}

#[tokio::test]
async fn validate_names_addresses_open_to_the_network_and_targets_that_cannot_work() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let with = |insecure: &str, target: &str| {
        machine.manifest(&format!(
            "{insecure}services:\n  api_gateway:\n    settings:\n      listeners: [{{name: web, address: '0.0.0.0:0'}}]\n  \
             load_balancer:\n    settings:\n      listeners:\n        - name: front\n          address: 127.0.0.1:0\n          \
             {target}\nnodes:\n  - {{service: api_gateway}}\n  - {{service: load_balancer}}\n  - {{service: storage}}\n"
        ))
    };
    let right = "service: api_gateway\n          listener: web";
    let open = with("", right)?;
    machine
        .ctl(&["validate", &open])
        .await?
        .exits(2)?
        .tells("0.0.0.0:0 is open to the network")?
        .tells("`insecure: true`")?;
    machine.ctl(&["up", &open]).await?.exits(2)?.tells("`insecure: true`")?;
    let insecure = "insecure: true\n";
    machine.ctl(&["validate", &with(insecure, right)?]).await?.exits(0)?;
    for (target, exit, words) in [
        ("service: storage", 2, "no listener of its own"),
        ("service: api_gateway", 2, "`listener: web`"),
        ("service: api_gateway\n          listener: wbe", 2, "did you mean `web`?"),
        ("service: load_balancer\n          listener: front", 2, "forward to itself"),
        ("service: storge", 0, "did you mean `storage`?"),
    ] {
        let manifest = with(insecure, target)?;
        let said = machine.ctl(&["validate", &manifest]).await?.exits(exit)?;
        assert!(said.err.contains(words), "{target}: {}", said.err);
        // The place of the setting that is wrong.
        let last =
            if words.contains("wbe") || words.contains("web`?") { "listener: wbe" } else { "service: " };
        let text = std::fs::read_to_string(&manifest)?;
        let line = 1 + text
            .lines()
            .enumerate()
            .skip(7)
            .find(|(_, line)| line.contains(last))
            .expect("it is there")
            .0;
        assert!(said.err.contains(&format!(":{line}:")), "{line} in {}", said.err);
    }
    Ok(())
}
