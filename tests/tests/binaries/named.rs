//! Named services, as a user runs them: two gateways on two ports, two stores, and takeover across them.

use std::path::Path;

use e2e::{Machine, eventually, free_port};
use rustix::process::{Signal, kill_process};

use crate::{agent_pid, ask, url};

/// Two stores with their own shards and settings, two gateways on these ports, and two standbys.
fn manifest(machine: &Machine, edge: u16, internal: u16, users: &str) -> anyhow::Result<String> {
    machine.manifest(&format!(
        "services:\n  sessions: {{type: storage, shards: 2, settings: {{write_queue: 16777216}}}}\n  \
         edge: {{type: api-gateway, settings: {{listen: '127.0.0.1:{edge}'}}}}\n  \
         internal: {{type: api_gateway, settings: {{listen: '127.0.0.1:{internal}', wait: 30s}}}}\n{users}\
         nodes:\n  - {{id: edge, service: edge}}\n  - {{id: internal, service: internal}}\n  \
         - {{id: sessions, service: sessions, count: 2}}\n  - {{id: spare, service: standby}}\n  \
         - {{id: limited, service: standby, runs: [edge]}}\n{}",
        if users.is_empty() { "" } else { "  - {id: users, service: users}\n" },
    ))
}

/// How many files are below a folder.
fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { 1 }).sum()
}

const USERS: &str = "  users: {type: storage, shards: 1, settings: {max_value: 1000}}\n";

#[tokio::test]
async fn two_gateways_and_two_stores_run_side_by_side_and_standbys_take_over_across_them()
-> anyhow::Result<()> {
    let machine = Machine::new()?;
    let (edge, internal) = (free_port()?, free_port()?);
    let file = manifest(&machine, edge, internal, USERS)?;
    machine.ctl(&["validate", &file]).await?.exits(0)?;
    machine
        .ctl(&["up", &file, "--timeout", "60s"])
        .await?
        .exits(0)?
        .tells("kv --service sessions put greeting")?;
    machine.ctl(&["status"]).await?.exits(0)?;
    let members = machine.ctl(&["members"]).await?.exits(0)?.out;
    let row = |node: &str| {
        let line = members.lines().find(|line| line.split_whitespace().next() == Some(node));
        line.map(|line| line.split_whitespace().take(4).collect::<Vec<_>>()).unwrap_or_default()
    };
    assert_eq!(row("NODE"), ["NODE", "ROLE", "TYPE", "PHASE"], "{members}");
    assert_eq!(row("edge"), ["edge", "edge", "api_gateway", "ready"], "{members}");
    assert_eq!(row("sessions-2"), ["sessions-2", "sessions/1", "storage", "ready"], "{members}");
    let specs = machine.ctl(&["spec"]).await?.exits(0)?.out;
    assert!(specs.contains("internal  api_gateway  1"), "{specs}");

    // A key belongs to one of the stores, through either gateway.
    let several = "several services have keys: sessions, users";
    machine.ctl(&["kv", "put", "user/1", "x"]).await?.exits(2)?.tells(several)?;
    machine.ctl(&["kv", "--service", "sessions", "put", "user/1", "session"]).await?.exits(0)?;
    machine.ctl(&["kv", "put", "--service", "users", "user/1", "user"]).await?.exits(0)?;
    let http = client::plain_http().build()?;
    for port in [edge, internal] {
        for (service, value) in [("sessions", "session"), ("users", "user")] {
            let key = format!("http://127.0.0.1:{port}/{service}/kv/user%2F1");
            assert_eq!(http.get(&key).send().await?.text().await?, value, "{key}");
        }
    }
    let large = http.put(format!("http://127.0.0.1:{edge}/users/kv/large")).body(vec![b'x'; 2_000]);
    assert_eq!(large.send().await?.status(), 413, "its own settings");

    // A type is ambiguous if several services have it.
    let several = "several services are of it: sessions, users";
    machine.ctl(&["set-service", "spare", "storage"]).await?.exits(2)?.tells(several)?;

    // The node that may run the service takes over, and keys outlive the owner.
    for node in ["sessions-1", "sessions-2"] {
        kill_process(agent_pid(&machine, node)?, Signal::KILL)?;
    }
    let value =
        http.get(format!("http://127.0.0.1:{internal}/sessions/kv/user%2F1")).send().await?.text().await?;
    assert_eq!(value, "session");
    let state = ask(&format!("{}/v1/members/limited", url(&machine, "edge")?)).await?;
    assert_eq!(state["member"]["state"]["role"]["service"], "standby", "it may not run the service: {state}");
    machine.ctl(&["down"]).await?.exits(0)?;
    machine.nothing_is_left()
}

#[tokio::test]
async fn a_service_that_is_no_longer_in_the_manifest_keeps_its_data_until_an_operator_removes_it()
-> anyhow::Result<()> {
    let machine = Machine::new()?;
    let (edge, internal) = (free_port()?, free_port()?);
    let file = manifest(&machine, edge, internal, USERS)?;
    machine.ctl(&["up", &file, "--timeout", "60s"]).await?.exits(0)?;
    machine.ctl(&["kv", "put", "--service", "users", "user/1", "user"]).await?.exits(0)?;
    machine.ctl(&["spec", "rm", "users", "--yes"]).await?.exits(5)?.tells("users is in the manifest")?;
    machine.ctl(&["down"]).await?.exits(0)?;
    let file = manifest(&machine, edge, internal, "")?;
    let kept = "the service users is not in the manifest; its spec and data are kept";
    machine.ctl(&["up", &file, "--timeout", "60s"]).await?.exits(0)?.tells(kept)?;
    let status = machine.ctl(&["status"]).await?;
    assert!(status.out.contains(kept), "{}", status.out);
    // The standby takes the shard over, so the kept data can be read.
    eventually("the key is read", || async {
        let said = machine.ctl(&["kv", "--service", "users", "get", "user/1"]).await.ok()?;
        (said.out == "user").then_some(())
    })
    .await?;
    machine.ctl(&["spec", "rm", "nosuch"]).await?.exits(1)?.tells("no service is called nosuch")?;
    machine.ctl(&["spec", "rm", "users"]).await?.exits(2)?.tells("there is no terminal")?;
    let removed = machine.ctl(&["spec", "rm", "users", "--yes"]).await?.exits(0)?;
    assert!(
        removed.err.contains("this deletes the spec of users (storage) and all data of its 1 shard"),
        "{}",
        removed.err
    );
    assert!(removed.err.contains(" stands by then"), "{}", removed.err);
    let specs = machine.ctl(&["spec", "-o", "name"]).await?.exits(0)?.out;
    assert_eq!(specs, "edge\ninternal\nsessions\n");
    let data = machine.state().join("store").join(machine.cluster()).join("data/users");
    assert_eq!(files(&data), 0, "{}", data.display());
    machine.ctl(&["status"]).await?.exits(0)?;
    machine.ctl(&["up", &file]).await?.exits(0)?;
    machine.ctl(&["down"]).await?.exits(0)?;
    machine.nothing_is_left()
}

#[tokio::test]
async fn nodes_of_different_services_that_would_listen_at_one_address_are_named_before_anything_starts()
-> anyhow::Result<()> {
    let machine = Machine::new()?;
    let port = free_port()?;
    let file = manifest(&machine, port, port, "")?;
    for verb in ["validate", "up"] {
        let said = machine.ctl(&[verb, &file]).await?.exits(2)?;
        let message = format!("node `internal` would listen on 127.0.0.1:{port}, as node `edge` does");
        let text = format!("{}{}", said.out, said.err);
        assert!(text.contains(&message) && text.contains("node `edge` is given here"), "{text}");
    }
    assert!(!machine.run_dir().exists(), "nothing was started");
    Ok(())
}
