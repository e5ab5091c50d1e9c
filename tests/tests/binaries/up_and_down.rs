//! Starts clusters, reads them in every format, and stops them without a trace.

use std::net::{SocketAddr, TcpListener, UdpSocket};

use e2e::{Machine, is_free, repository};
use serde_json::Value;

use crate::{FIVE, FIVE_NAMES, ask, members_become, seen_by, up, url};

/// Every address of every node.
fn addresses(machine: &Machine) -> anyhow::Result<Vec<SocketAddr>> {
    let record = machine.record()?;
    let nodes = record["nodes"].as_array().into_iter().flatten();
    let texts = nodes.flat_map(|node| [node["http"].as_str(), node["gossip"].as_str()]).flatten();
    Ok(texts.map(str::parse).collect::<Result<_, _>>()?)
}

#[tokio::test]
async fn every_shipped_manifest_starts_and_stops() -> anyhow::Result<()> {
    for entry in std::fs::read_dir(repository().join("manifests"))? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let machine = Machine::new()?;
        let manifest = path.to_str().unwrap_or_default();
        let up = machine
            .ctl(&["up", manifest, "--cluster", machine.cluster(), "--timeout", "60s"])
            .await?
            .exits(0)?;
        let nodes = up.out.lines().count() - 1;
        assert_eq!(machine.members().await?.len(), nodes);
        machine.ctl(&["status"]).await?.exits(0)?;
        let ports = addresses(&machine)?;
        let down = machine.ctl(&["down", "--purge", "--yes"]).await?.exits(0)?;
        let agents = if nodes == 1 { "agent" } else { "agents" };
        assert_eq!(down.out, format!("stopped {nodes} {agents}, 0 left, {} ports free\n", nodes * 2));
        machine.nothing_is_left()?;
        assert!(ports.iter().all(|port| is_free(*port)), "{ports:?}");
        assert_eq!(std::fs::read_dir(machine.state().join("data"))?.count(), 0, "--purge removes the data");
    }
    Ok(())
}

#[tokio::test]
async fn a_second_up_starts_nothing_and_reports_what_an_operator_changed() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let manifest = machine.manifest(FIVE)?;
    let first = machine.ctl(&["up", &manifest]).await?.exits(0)?.tells("started 5 agents")?;
    let names: Vec<_> = first.out.lines().skip(1).filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, FIVE_NAMES);

    let again = machine.ctl(&["up", &manifest]).await?.exits(0)?.tells("nothing to start, 5 agents up")?;
    assert!(!again.err.contains("drift"), "{}", again.err);

    machine.ctl(&["set-service", "standby-1", "api_gateway"]).await?.exits(0)?.tells("receipt")?;
    let drift = "drift: standby-1 is api_gateway, the manifest says standby";
    machine.ctl(&["up", &manifest]).await?.exits(0)?.tells(drift)?;
    let status = machine.ctl(&["status"]).await?.exits(0)?;
    assert!(status.out.contains("standby-1 is api_gateway, its manifest says standby"), "{}", status.out);

    machine
        .ctl(&["up", &manifest, "--reset"])
        .await?
        .exits(0)?
        .tells("restored: standby-1 was api_gateway")?;
    machine.ctl(&["status"]).await?.exits(0)?;
    let last = machine.ctl(&["up", &manifest]).await?.exits(0)?;
    assert!(!last.err.contains("drift"), "{}", last.err);
    let ports = addresses(&machine)?;
    let down = machine.ctl(&["down"]).await?.exits(0)?;
    assert_eq!(down.out, "stopped 5 agents, 0 left, 10 ports free\n");
    machine.nothing_is_left()?;
    assert!(ports.iter().all(|port| is_free(*port)), "{ports:?}");
    machine.ctl(&["down"]).await?.exits(0)?.tells("nothing is running")?;
    Ok(())
}

#[tokio::test]
async fn files_in_settings_are_found_beside_the_manifest() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let testdata = repository().join("crates/plugin/src/tls/testdata");
    let cert = std::fs::read_to_string(testdata.join("shop.crt"))?;
    machine.write("shop.pem", &(cert + &std::fs::read_to_string(testdata.join("shop.key"))?))?;
    let manifest = machine.manifest(
        "services:\n  api_gateway:\n    settings:\n      listeners:\n        - name: web\n          \
         address: 127.0.0.1:0\n          tls: {certificates: [{cert: shop.pem, key: ./shop.pem}]}\n      \
         access_log: {to: access.log}\nnodes:\n  - {id: gateway, service: api_gateway}\n",
    )?;
    machine.ctl(&["validate", &manifest]).await?.exits(0)?;
    machine.ctl(&["up", &manifest]).await?.exits(0)?;
    // A gateway without its certificate would be degraded.
    let status = machine.ctl(&["status"]).await?.exits(0)?;
    assert!(!status.out.contains("in the manifest"), "{}", status.out);
    let again = machine.ctl(&["up", &manifest]).await?.exits(0)?;
    assert!(!again.err.contains("drift"), "{}", again.err);
    let own = ask(&format!("{}/v1/agent/self", url(&machine, "gateway")?)).await?;
    let web = own["member"]["state"]["endpoints"]["web"].as_str().unwrap_or_default().to_owned();
    assert!(web.starts_with("https://127.0.0.1:"), "{own}");
    machine.ctl(&["down"]).await?.exits(0)?;
    machine.nothing_is_left()
}

/// The status with which each gateway answers a path.
async fn answered(machine: &Machine, path: &str) -> anyhow::Result<Vec<u16>> {
    let http = client::plain_http().build()?;
    let mut found = Vec::new();
    for node in ["gateway-1", "gateway-2"] {
        let own = ask(&format!("{}/v1/agent/self", url(machine, node)?)).await?;
        let gateway = own["member"]["state"]["endpoints"]["gateway"].as_str().unwrap_or_default().to_owned();
        found.push(http.get(format!("{gateway}{path}")).send().await?.status().as_u16());
    }
    Ok(found)
}

#[tokio::test]
async fn changed_settings_are_applied_and_reset_restarts_nodes_with_another_address() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let upstream = listener.local_addr()?;
    let routes = axum::Router::new().fallback(|| async { "here" });
    let mut server = tokio::task::JoinSet::new();
    server.spawn(async move { axum::serve(listener, routes).await.unwrap_or_default() });
    let with = |prefix: &str, port: u16| {
        machine.manifest(&format!(
            "services:\n  api_gateway:\n    settings:\n      routes: [{{prefix: {prefix}, to: ['http://{upstream}']}}]\n\
             nodes:\n  - {{id: gateway, service: api_gateway, count: 2}}\n  \
             - {{id: s, service: standby, listen: '127.0.0.1:{port}'}}\n"
        ))
    };
    let manifest = with("/old", 0)?;
    machine.ctl(&["up", &manifest]).await?.exits(0)?;
    assert_eq!(answered(&machine, "/old").await?, [200, 200]);
    let again = machine.ctl(&["up", &manifest]).await?.exits(0)?;
    assert!(!again.err.contains("drift"), "{}", again.err);

    let port = e2e::free_port()?;
    with("/new", port)?;
    machine
        .ctl(&["up", &manifest])
        .await?
        .exits(0)?
        .tells("applied: gateway-1 runs with the new settings of api_gateway")?
        .tells("drift: s runs with another listen address than the manifest's; `ctl --cluster")?;
    assert_eq!(answered(&machine, "/new").await?, [200, 200]);

    let reset = machine.ctl(&["up", &manifest, "--reset"]).await?.exits(0)?.tells("restarted: s ran with")?;
    assert_eq!(reset.out.lines().filter(|line| line.contains("ready")).count(), 3, "{}", reset.out);
    assert_eq!(answered(&machine, "/new").await?, [200, 200]);
    assert_eq!(answered(&machine, "/old").await?, [404, 404]);
    assert_eq!(url(&machine, "s")?, format!("http://127.0.0.1:{port}"));
    machine.ctl(&["status"]).await?.exits(0)?;
    let last = machine.ctl(&["up", &manifest]).await?.exits(0)?;
    assert!(!last.err.contains("drift"), "{}", last.err);
    machine.ctl(&["down"]).await?.exits(0)?;
    machine.nothing_is_left()
}

#[tokio::test]
async fn a_node_that_was_drained_is_shown_and_given_back_its_role() -> anyhow::Result<()> {
    let machine = up(FIVE).await?;
    machine.ctl(&["drain", "gateway-2"]).await?.exits(0)?;
    let status = machine.ctl(&["status"]).await?.exits(1)?;
    assert!(status.out.contains("gateway-2 is stopped"), "{}", status.out);
    let manifest = machine.manifest(FIVE)?;
    machine.ctl(&["up", &manifest]).await?.exits(0)?.tells("drift: gateway-2 is api_gateway but stopped")?;
    machine.ctl(&["up", &manifest, "--reset"]).await?.exits(0)?;
    machine.ctl(&["status"]).await?.exits(0)?;
    Ok(())
}

#[tokio::test]
async fn a_node_that_leaves_is_not_reported_missing_and_returns_with_up() -> anyhow::Result<()> {
    let machine = up(FIVE).await?;
    machine.ctl(&["leave", "standby-2"]).await?.exits(0)?;
    members_become(&machine, &["gateway-1", "gateway-2", "standby-1", "standby-3"]).await?;
    machine.ctl(&["status"]).await?.exits(0)?;
    let manifest = machine.manifest(FIVE)?;
    machine.ctl(&["up", &manifest]).await?.exits(0)?.tells("started 1 agent,")?;
    assert_eq!(machine.members().await?, FIVE_NAMES);
    Ok(())
}

#[tokio::test]
async fn output_for_programs_can_be_parsed() -> anyhow::Result<()> {
    let machine = up(FIVE).await?;
    let manifest = machine.manifest(FIVE)?;
    for verb in [
        &["members"][..],
        &["status"],
        &["ls"],
        &["version"],
        &["up", &manifest],
        &["validate", &manifest],
        &["set-service", "standby-1", "standby"],
        &["drain", "standby-2"],
        &["kill", "standby-3", "--signal", "CONT"],
    ] {
        let with = |format| [verb, &["-o", format]].concat();
        let json = machine.ctl(&with("json")).await?;
        let value = json.json()?;
        let yaml = machine.ctl(&with("yaml")).await?.out;
        let tree = manifest::read_tree("stdout", &yaml, &|_| None)?.to_json();
        let keys = |value: &Value| value.as_object().map(|object| object.keys().cloned().collect::<Vec<_>>());
        assert_eq!(keys(&value), keys(&tree), "{verb:?}");
        let names = machine.ctl(&with("name")).await?.out;
        assert!(
            !names.is_empty() && names.lines().all(|name| !name.is_empty() && !name.contains(' ')),
            "{names}"
        );
    }
    for verb in ["events", "logs"] {
        let lines = machine.ctl(&[verb, "-o", "json"]).await?.exits(0)?.out;
        assert!(lines.lines().count() >= 5, "{lines}");
        for line in lines.lines() {
            assert!(serde_json::from_str::<Value>(line)?["node"].is_string(), "{line}");
        }
        assert!(machine.ctl(&[verb]).await?.exits(0)?.out.contains("gateway-1"), "{verb}");
    }
    let version = machine.ctl(&["version"]).await?.out;
    assert!(version.contains("agent ") && version.ends_with("on standby-3\n"), "{version}");
    Ok(())
}

#[tokio::test]
async fn two_clusters_run_side_by_side() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let first = machine.manifest("nodes:\n  - {id: a, service: standby, count: 2}\n")?;
    machine.ctl(&["up", &first]).await?.exits(0)?;
    let second = format!("{}-second", machine.cluster());
    let other =
        format!("cluster: {second}\nprofile: local\nnodes:\n  - {{id: b, service: standby, count: 2}}\n");
    let other = machine.write("second.yaml", &other)?;
    machine.ctl(&["up", &other]).await?.exits(0)?;

    let ls = machine.ctl(&["ls", "-o", "name"]).await?;
    assert_eq!(ls.out, format!("{second}\n{}\n", machine.cluster()), "the newest first");
    let members = async |arguments: &[&str]| -> anyhow::Result<String> {
        Ok(machine.ctl(&[&["members", "-o", "name"], arguments].concat()).await?.exits(0)?.out)
    };
    assert_eq!(members(&[]).await?, "b-1\nb-2\n", "the newest unless another is named");
    assert_eq!(members(&["--cluster", machine.cluster()]).await?, "a-1\na-2\n");
    assert_eq!(members(&["--agent", &url(&machine, "a-1")?]).await?, "a-1\na-2\n");
    machine
        .ctl(&["members", "--cluster", &format!("{second}x")])
        .await?
        .exits(4)?
        .tells(&format!("did you mean `{second}`?"))?;

    let down = machine.ctl(&["down", "--cluster", &second]).await?.exits(0)?;
    assert_eq!(down.out, "stopped 2 agents, 0 left, 4 ports free\n");
    assert_eq!(members(&[]).await?, "a-1\na-2\n");
    assert_eq!(seen_by(&url(&machine, "a-2")?).await?, ["a-1", "a-2"]);
    machine.ctl(&["status"]).await?.exits(0)?;
    Ok(())
}

#[tokio::test]
async fn a_busy_port_is_named_and_nothing_is_started() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let tcp = TcpListener::bind("127.0.0.1:0")?;
    let udp = UdpSocket::bind("127.0.0.1:0")?;
    for (kind, key, taken) in [("TCP", "listen", tcp.local_addr()?), ("UDP", "gossip", udp.local_addr()?)] {
        let nodes = format!(
            "nodes:\n  - {{id: a, service: standby}}\n  - {{id: b, service: standby, {key}: '{taken}'}}\n"
        );
        let manifest = machine.manifest(&nodes)?;
        let refused = machine.ctl(&["up", &manifest]).await?.exits(1)?;
        assert!(refused.err.contains(&format!("node b: {kind} port {taken} is busy")), "{}", refused.err);
        machine.nothing_is_left()?;
    }
    Ok(())
}

#[tokio::test]
async fn a_node_that_fails_reports_why_once_and_undoes_the_whole_start() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let taken = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let holder = TcpListener::bind(taken)?;
    let services = format!("services:\n  api_gateway:\n    settings: {{listen: '{taken}'}}\n{FIVE}");
    let services = services.replace("api_gateway, count: 2", "api_gateway, count: 1");
    let manifest = machine.manifest(&services)?;
    let failed = machine.ctl(&["up", &manifest]).await?.exits(1)?.tells("node gateway-1 failed: ")?;
    assert_eq!(failed.err.matches(&format!("{taken} is in use by")).count(), 1, "{}", failed.err);
    machine.nothing_is_left()?;

    let kept = machine.ctl(&["up", &manifest, "--keep"]).await?.exits(1)?;
    assert!(!kept.err.contains("undoing the start"), "{}", kept.err);
    drop(holder);
    machine.ctl(&["down"]).await?.exits(0)?;
    machine.nothing_is_left()
}
