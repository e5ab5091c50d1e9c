//! The agent alone: the command lines of the first sketch, the sources of its settings, and its exits.

use std::net::TcpListener;

use e2e::{Machine, Running, eventually, free_port};
use rustix::process::Signal;
use serde_json::json;

use crate::{ask, seen_by};

/// Waits until an agent has printed its address.
async fn banner(agent: &Running) -> anyhow::Result<String> {
    eventually("the agent shows its banner", || async {
        Some(agent.out()).filter(|out| out.contains("curl http"))
    })
    .await
    .map_err(|error| error.context(agent.err()))
}

#[tokio::test]
async fn a_single_node_starts_as_the_first_sketch_says() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let (listen, gossip) = (format!("127.0.0.1:{}", free_port()?), format!("127.0.0.1:{}", free_port()?));
    let arguments = ["--listen_addr", &listen, "--gossip_addr", &gossip, "--service", "api_gateway"];
    let agent = machine.start("agent", &arguments)?;
    let shown = banner(&agent).await?;
    for text in [
        format!("http://{listen}"),
        format!("{gossip} (UDP)"),
        "api_gateway, ready".to_owned(),
        "insecure".to_owned(),
        machine.state().display().to_string(),
    ] {
        assert!(shown.contains(&text), "{text}: {shown}");
    }
    let members = ask(&format!("http://{listen}/members")).await?;
    assert_eq!(members["members"][0]["state"]["role"], json!({ "service": "api_gateway" }));
    let changed = ask(&format!("http://{listen}/update_service?service=standby")).await?;
    assert_eq!(changed["to"], json!({ "service": "standby" }));
    agent.signal(Signal::TERM);
    agent.ends().await?.exits(0)?;
    machine.nothing_is_left()
}

#[tokio::test]
async fn an_agent_that_ctl_did_not_start_is_found_by_its_executable_and_port() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let addr = format!("127.0.0.1:{}", free_port()?);
    let cluster = machine.cluster().to_owned();
    let arguments =
        ["--listen-addr", &addr, "--service", "standby", "--cluster", &cluster, "--node-id", "alone"];
    let agent = machine.start("agent", &arguments)?;
    let status = eventually("it is found", || async {
        machine.ctl(&["status", "--cluster", &cluster]).await.ok().filter(|said| said.out.contains("1 ready"))
    })
    .await?;
    let status = status.exits(0)?.tells(&format!("started by hand, at http://{addr}"))?;
    assert!(status.out.contains("1/1    alone"), "{}", status.out);
    agent.signal(Signal::TERM);
    agent.ends().await?.exits(0)?;
    machine.ctl(&["status", "--cluster", &cluster]).await?.exits(4)?;
    machine.nothing_is_left()
}

#[tokio::test]
async fn two_nodes_meet_by_a_seed_and_the_one_that_gets_a_signal_leaves() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let [one, two] = [free_port()?, free_port()?].map(|port| format!("127.0.0.1:{port}"));
    let own = ["--cluster", machine.cluster(), "--profile", "local"];
    let start = |addr: &str, seed: &str, id: &str| {
        let arguments =
            ["--listen_addr", addr, "--gossip_addr", addr, "--seed", seed, "--service", "api_gateway"];
        machine.start("agent", &[&arguments[..], &["--node-id", id], &own].concat())
    };
    // Its own address and one at which nothing listens are harmless as seeds.
    let dead = format!("127.0.0.1:{}", free_port()?);
    let first = start(&one, &format!("{one},{dead}"), "one")?;
    let second = start(&two, &one, "two")?;
    for addr in [&one, &two] {
        let url = format!("http://{addr}");
        eventually("they see each other", || async {
            (seen_by(&url).await.ok()? == ["one", "two"]).then_some(())
        })
        .await?;
    }
    let ctl = machine.ctl(&["members", "--agent", &format!("http://{two}"), "-o", "name"]).await?.exits(0)?;
    assert_eq!(ctl.out, "one\ntwo\n");
    second.signal(Signal::TERM);
    second.ends().await?.exits(0)?;
    let url = format!("http://{one}/v1/events");
    let end = eventually("the other one has the event", || async {
        let kept = ask(&url).await.ok()?;
        // The first may have become ready after the second had gone.
        kept["events"].as_array()?.iter().rev().find(|event| event["member"].is_null()).cloned()
    })
    .await?;
    assert_eq!((&end["kind"], &end["node"]), (&json!("left"), &json!("two")));
    first.signal(Signal::INT);
    first.ends().await?.exits(0)?;
    machine.nothing_is_left()
}

#[tokio::test]
async fn a_type_that_does_not_exist_is_refused_with_those_that_do() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let addr = format!("127.0.0.1:{}", free_port()?);
    let arguments =
        ["--listen_addr", &addr, "--gossip_addr", &addr, "--service", "analytics", "--shard", "1"];
    machine
        .agent(&arguments)
        .await?
        .exits(2)?
        .tells("`analytics`")?
        .tells("api_gateway, load_balancer, searcher, storage, standby")?;
    let sharded = ["--listen-addr", &addr, "--service", "api-gateway", "--shard", "1"];
    machine.agent(&sharded).await?.exits(2)?.tells("has no shards")?;
    machine.nothing_is_left()
}

#[tokio::test]
async fn a_busy_port_is_reported_with_its_holder_and_the_flag_to_change() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let addr = taken.local_addr()?.to_string();
    let refused = machine.agent(&["--listen-addr", &addr]).await?.exits(1)?;
    refused
        .tells(&format!("{addr} is in use by"))?
        .tells(&format!("(pid {})", std::process::id()))?
        .tells("choose another port with --listen-addr")?;
    let udp = std::net::UdpSocket::bind("127.0.0.1:0")?;
    let gossip = udp.local_addr()?.to_string();
    let refused =
        machine.agent(&["--listen-addr", "127.0.0.1:0", "--gossip-addr", &gossip]).await?.exits(1)?;
    refused.tells(&format!("{gossip} is in use"))?.tells("choose another port with --gossip-addr")?;
    machine.nothing_is_left()
}

#[tokio::test]
async fn an_address_open_to_the_network_needs_the_insecure_flag() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let any = format!("0.0.0.0:{}", free_port()?);
    machine
        .agent(&["--listen-addr", &any])
        .await?
        .exits(1)?
        .tells("open to the network")?
        .tells("--insecure")?;
    let unreachable = ["--listen-addr", &any, "--insecure", "--advertise-addr", "0.0.0.0"];
    machine.agent(&unreachable).await?.exits(1)?.tells("--advertise-addr 0.0.0.0")?;
    let agent =
        machine.start("agent", &["--listen-addr", &any, "--insecure", "--advertise-addr", "127.0.0.1"])?;
    assert!(banner(&agent).await?.contains("insecure"));
    agent.signal(Signal::TERM);
    agent.ends().await?.exits(0)?;
    Ok(())
}

#[tokio::test]
async fn a_data_folder_in_use_is_named() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let arguments = ["--listen-addr", "127.0.0.1:0", "--data-dir", "data"];
    let agent = machine.start("agent", &arguments)?;
    let shown = banner(&agent).await?;
    machine.agent(&arguments).await?.exits(1)?.tells("data")?.tells("--data-dir")?;
    agent.signal(Signal::TERM);
    agent.ends().await?.exits(0)?;
    // The node's id is kept in the folder.
    let again = machine.start("agent", &arguments)?;
    let first_line = |text: &str| text.lines().next().map(str::to_owned);
    assert_eq!(first_line(&banner(&again).await?), first_line(&shown));
    again.signal(Signal::KILL);
    again.ends().await?;
    Ok(())
}

#[tokio::test]
async fn a_damaged_store_ends_the_agent_with_a_remedy() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let store = machine.folder().join("store");
    let folder = store.join(machine.cluster());
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("store.json"), "{")?;
    let store = store.display().to_string();
    let arguments = ["--listen-addr", "127.0.0.1:0", "--cluster", machine.cluster(), "--store", &store];
    let said = machine.agent(&arguments).await?.exits(1)?.tells("store.json` in ")?.tells("is damaged")?;
    said.tells("hint: restore `")?;
    machine.nothing_is_left()
}

/// The nodes of `agent --demo` and of `manifests/demo.yaml`.
const DEMO_NAMES: [&str; 5] = ["gateway", "standby-1", "standby-2", "storage-1", "storage-2"];

#[tokio::test]
async fn the_demo_shows_five_nodes_and_ends_without_a_trace() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let temporary = machine.folder().join("tmp");
    std::fs::create_dir(&temporary)?;
    let demo = machine.start_with("agent", &["--demo"], &[("TMPDIR", &temporary.display().to_string())])?;
    let shown = banner(&demo).await?;
    for node in DEMO_NAMES {
        let line = shown.lines().find(|line| line.trim_start().starts_with(node)).unwrap_or_default();
        assert!(line.contains(" ready ") && line.contains("http://127.0.0.1:"), "{node}: {shown}");
    }
    let url = shown.split_whitespace().find_map(|word| word.strip_suffix("/v1/members")).unwrap_or_default();
    let members = eventually("they see each other", || async {
        seen_by(url).await.ok().filter(|members| members.len() == 5)
    })
    .await?;
    assert_eq!(members, DEMO_NAMES);
    assert!(std::fs::read_dir(&temporary)?.count() > 0);
    demo.signal(Signal::TERM);
    demo.ends().await?.exits(0)?;
    assert_eq!(std::fs::read_dir(&temporary)?.count(), 0);
    assert!(!machine.state().exists(), "a demo keeps nothing");
    machine.nothing_is_left()?;
    machine.agent(&["--demo", "--service", "standby"]).await?.exits(2)?.tells("--service")?;
    Ok(())
}

#[tokio::test]
async fn flags_beat_the_environment_which_beats_the_file() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let file = machine.write(
        "agent.yaml",
        "listen_addr: 127.0.0.1:1\ncluster: file\nprofile: wan\nseeds: ['a:1', 'b:2']\nlabels: {rack: r1}\n",
    )?;
    let environment = [
        ("COTERIE_CONFIG", file.as_str()),
        ("COTERIE_CLUSTER", "env"),
        ("COTERIE_LISTEN_ADDR", "127.0.0.1:2"),
    ];
    let table = machine.start_with("agent", &["config", "--listen_addr", "127.0.0.1:3"], &environment)?;
    let table = table.ends().await?.exits(0)?.out;
    let config = machine.start_with(
        "agent",
        &["config", "-o", "json", "--listen_addr", "127.0.0.1:3"],
        &environment,
    )?;
    let config = config.ends().await?.exits(0)?.json()?;
    for (key, value, origin) in [
        ("listen_addr", "127.0.0.1:3", "flag"),
        ("cluster", "env", "environment"),
        ("profile", "wan", "file"),
        ("seed", "a:1,b:2", "file"),
        ("label", "rack=r1", "file"),
        ("service", "api_gateway", "default"),
    ] {
        assert_eq!(config[key], json!({ "value": value, "origin": origin }), "{key}");
        let row = table.lines().find(|line| line.starts_with(&format!("{key} "))).unwrap_or_default();
        assert_eq!(row.split_whitespace().collect::<Vec<_>>(), [key, value, origin]);
    }
    Ok(())
}

#[tokio::test]
async fn a_mistake_in_a_value_is_reported_with_its_place() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let file = machine.write("agent.yaml", "cluster: a\nlisten_adr: 127.0.0.1:1\nsede: x\n")?;
    let refused = machine.agent(&["--config", &file]).await?.exits(2)?;
    refused
        .tells("agent.yaml:2:1")?
        .tells("did you mean `listen_addr`?")?
        .tells("agent.yaml:3:1")?
        .tells("did you mean `seed`?")?;
    for (arguments, text) in [
        (&["--listen-addr", "nowhere"][..], "--listen-addr (flag): `nowhere`"),
        (&["--seed", "nowhere"], "is not host:port"),
        (&["--node-id", "a b"], "character"),
        (&["--profile", "moon"], "moon"),
        (&["--shard=-1"], "--shard"),
        (&["--config", "missing.yaml"], "missing.yaml"),
        (&["--bogus"], "--bogus"),
        (&["--listen_adr", "127.0.0.1:1"], "--listen-addr"),
    ] {
        machine.agent(arguments).await?.exits(2)?.tells(text)?;
    }
    let agent =
        machine.start_with("agent", &["--listen-addr", "127.0.0.1:0"], &[("COTERIE_PROFILE", "moon")])?;
    agent.ends().await?.exits(2)?.tells("COTERIE_PROFILE (environment)")?;
    machine.nothing_is_left()
}

#[tokio::test]
async fn settings_are_checked_for_any_caller() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let answered = async |question: &str| -> anyhow::Result<e2e::Said> {
        let file = machine.write("question.json", question)?;
        machine.start("sh", &["-c", &format!("agent validate < '{file}'")])?.ends().await
    };
    let said = answered(r#"{"services": {"api_gateway": {"listen": 5, "routs": []}}}"#).await?.exits(0)?;
    assert_eq!(said.err, "");
    let answer = said.json()?;
    assert_eq!(
        (&answer["types"][0]["name"], &answer["types"][0]["sharded"]),
        (&json!("api_gateway"), &json!(false))
    );
    assert_eq!(answer["mistakes"][0]["service"], "api_gateway");
    assert!(answer["mistakes"][0]["pointer"].is_string(), "{answer}");
    let refused = answered("no JSON").await?.exits(1)?;
    assert_eq!(refused.out, "");
    Ok(())
}

#[tokio::test]
async fn a_storage_node_without_ctl_needs_the_number_of_shards() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let [one, two] = [free_port()?, free_port()?].map(|port| format!("127.0.0.1:{port}"));
    let reason = async |addr: &str, text: &str| {
        let url = format!("http://{addr}/v1/agent/self");
        eventually(&format!("{addr} says `{text}`"), || async {
            let state = ask(&url).await.ok()?["member"]["state"].clone();
            let reason = state["reason"].as_str()?.to_owned();
            (state["phase"] == "failed" && reason.contains(text)).then_some(reason)
        })
        .await
    };
    let arguments = ["--listen-addr", &one, "--profile", "local", "--service", "storage", "--shard", "1"];
    let first = machine.start("agent", &arguments)?;
    let shown = reason(&one, "shard 1 alone does not tell").await?;
    assert!(shown.contains(&format!("agent {} --shards 2`", arguments.join(" "))), "{shown}");
    let arguments = ["--listen-addr", &two, "--profile", "local", "--service", "storage", "--seed", &one];
    let second = machine.start("agent", &[&arguments[..], &["--shards", "2"]].concat())?;
    let url = format!("http://{one}");
    eventually("both are ready, the first one without a command", || async {
        let said = machine.ctl(&["--agent", &url, "status"]).await.ok()?;
        // There is a warning, since the first one was retried.
        said.out.contains("2 members, 2 ready").then_some(())
    })
    .await?;
    second.signal(Signal::TERM);
    second.ends().await?.exits(0)?;
    let second = machine.start("agent", &[&arguments[..], &["--shards", "3"]].concat())?;
    let shown = reason(&two, "storage has 2 shards on the store, and --shards says 3").await?;
    assert!(shown.contains("start this agent with --shards 2 or without it"), "{shown}");
    for agent in [second, first] {
        agent.signal(Signal::TERM);
        agent.ends().await?.exits(0)?;
    }
    for (wrong, text) in [
        (&["--service", "storage", "--shard", "2", "--shards", "2"][..], "there is no shard 2 of 2"),
        (&["--service", "api_gateway", "--shards", "2"], "`api_gateway` has no fixed number of shards"),
        (&["--service", "standby", "--shards", "2"], "`standby` has no fixed number of shards"),
        (&["--service", "storage", "--shards", "0"], "`0` is not a number from 1 to 65536"),
    ] {
        machine.agent(wrong).await?.exits(2)?.tells(text)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_standby_that_is_given_a_shard_of_an_empty_store_names_a_command_that_works() -> anyhow::Result<()>
{
    let machine = Machine::new()?;
    let addr = format!("127.0.0.1:{}", free_port()?);
    let agent =
        machine.start("agent", &["--listen-addr", &addr, "--service", "standby", "--node-id", "a"])?;
    banner(&agent).await?;
    let url = format!("http://{addr}");
    let change = ["--agent", &url, "set-service", "a", "storage", "--shard", "1"];
    let refused = machine.ctl(&change).await?.exits(2)?.tells("shard 1 alone does not tell")?;
    let hint = refused.err.split('`').find(|part| part.starts_with("curl ")).unwrap_or_default();
    machine.start("sh", &["-c", &format!("{hint} --silent --fail")])?.ends().await?.exits(0)?;
    machine.ctl(&change).await?.exits(0)?;
    agent.signal(Signal::TERM);
    agent.ends().await?.exits(0)?;
    Ok(())
}
