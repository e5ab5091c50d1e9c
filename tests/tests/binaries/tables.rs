//! Compares all text that a user reads with `tests/golden`.

use e2e::{Machine, eventually, golden};

use crate::{FIVE, up};

const VERBS: [&str; 25] = [
    "up",
    "down",
    "ls",
    "members",
    "status",
    "set-service",
    "drain",
    "leave",
    "start",
    "stop",
    "restart",
    "kill",
    "logs",
    "events",
    "spec",
    "claims",
    "backends",
    "routes",
    "kv",
    "search",
    "index",
    "validate",
    "init",
    "completion",
    "version",
];

/// The command, what it printed, and how it ended.
async fn exactly(machine: &Machine, arguments: &[&str]) -> anyhow::Result<String> {
    let said = machine.ctl(arguments).await?;
    let code = said.code().unwrap_or(-1);
    Ok(format!("$ ctl {}\n{}{}exit code {code}\n\n", arguments.join(" "), said.out, said.err))
}

/// The same, without the parts that differ from run to run.
async fn said(machine: &Machine, arguments: &[&str]) -> anyhow::Result<String> {
    Ok(machine.normal(&exactly(machine, arguments).await?))
}

#[tokio::test]
async fn the_tables_of_a_cluster_match_the_golden_file() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let manifest = machine.manifest(FIVE)?;
    let mut text = String::new();
    for command in [
        &["up", &manifest][..],
        &["members"],
        &["status"],
        &["ls"],
        &["version"],
        &["routes"],
        &["routes", "--test", "PUT http://localhost/storage/kv/a"],
        &["routes", "--test", "http://localhost/nothing/here"],
        &["set-service", "standby-1", "api_gateway"],
        &["set-service", "standby-1", "api_gateway"],
        &["drain", "gateway-2"],
        &["members"],
        &["status"],
        &["up", &manifest],
        &["up", &manifest, "--reset"],
        &["leave", "standby-3"],
        &["kill", "standby-2", "--for-good"],
    ] {
        text.push_str(&said(&machine, command).await?);
    }
    eventually("it is gone", || async { (machine.members().await.ok()?.len() == 3).then_some(()) }).await?;
    for command in [&["status"][..], &["ls"], &["down"], &["down"], &["ls"]] {
        text.push_str(&said(&machine, command).await?);
    }
    golden("tables", &text)
}

#[tokio::test]
async fn the_errors_match_the_golden_file() -> anyhow::Result<()> {
    let machine = up(FIVE).await?;
    let mut text = String::new();
    for command in [
        &["set-service", "standby-1", "analytics"][..],
        &["set-service", "standby-1", "api_gatewy"],
        &["set-service", "standby-1", "api_gateway", "--shard", "1"],
        &["set-service", "standby-1", "storage/99999"],
        &["set-service", "standby-1", "standby", "--shard", "0"],
        &["set-service", "standby-9", "standby"],
        &["set-service", "standby-1", "standby", "--if-match", "1.0"],
        &["set-service", "standby-1"],
        &["kill", "standby-9"],
        &["kill", "standby-1", "--signal", "NOPE"],
        &["logs", "standby-9"],
        &["members", "--cluster", "other"],
        &["members", "--agent", "http://127.0.0.1:1"],
        &["members", "--agent", "ftp://127.0.0.1:1"],
        &["kill", "standby-1", "--agent", "http://127.0.0.1:1"],
        &["members", "-o", "xml"],
        &["up", "missing.yaml"],
        &["up", "--timeout", "soon"],
        &["memers"],
    ] {
        text.push_str(&said(&machine, command).await?);
    }
    golden("errors", &text)
}

#[tokio::test]
async fn the_mistakes_in_a_manifest_match_the_golden_file() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    // ctl reports mistakes of shape; the agent reports those in settings, once the shape is right.
    let shape = "\
cluster: my cluster
profile: locl
services:
  serchr: {shards: 2}
nodes:
  - id: a
    servce: api_gateway
  - {id: a, service: api_gateway, shard: 3}
  - {id: b, service: standby, listen: 127.0.0.1}
";
    let settings = "\
cluster: c
services:
  api_gateway:
    settings:
      listen: here
      wait: soon
      routes:
        - {prefix: files, to: ['ftp://example.org']}
nodes:
  - {id: a, service: api_gateway}
";
    let good = "cluster: c\nnodes:\n  - {id: a, service: standby, count: 2, listen: 127.0.0.1:0}\n";
    let mut text = String::new();
    for (name, manifest) in [("shape.yaml", shape), ("settings.yaml", settings), ("good.yaml", good)] {
        machine.write(name, manifest)?;
        text.push_str(&exactly(&machine, &["validate", name]).await?);
    }
    golden("validate", &text)
}

#[tokio::test]
async fn the_help_matches_the_golden_file() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let help = async |program: &str, arguments: &[&str]| -> anyhow::Result<String> {
        Ok(machine.start(program, arguments)?.ends().await?.exits(0)?.out)
    };
    golden("agent-help", &help("agent", &["--help"]).await?)?;
    golden("ctl-help", &help("ctl", &["--help"]).await?)?;
    let mut verbs = String::new();
    for verb in VERBS {
        verbs.push_str(&format!("$ ctl {verb} --help\n{}\n", help("ctl", &[verb, "--help"]).await?));
    }
    let overview = help("ctl", &["--help"]).await?;
    let listed =
        overview.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let listed: Vec<_> =
        listed.filter_map(|line| line.split_whitespace().next()).filter(|verb| *verb != "help").collect();
    assert_eq!(listed, VERBS);
    golden("ctl-verbs-help", &verbs)
}

#[tokio::test]
async fn a_shell_is_offered_the_existing_nodes_services_and_clusters() -> anyhow::Result<()> {
    let machine = up(FIVE).await?;
    let cluster = machine.cluster().to_owned();
    for (words, expected) in [
        (&["set-service", "st"][..], &["standby-1", "standby-2", "standby-3"][..]),
        (&["set-service", "standby-1", "s"], &["searcher", "standby", "storage"]),
        (&["--cluster", &cluster[..8]], &[&cluster]),
        (&["logs", "gateway-1", "gat"], &["gateway-1", "gateway-2"]),
    ] {
        let asked = [&["--", "ctl"], words].concat();
        let offered =
            machine.start_with("ctl", &asked, &[("_CTL_COMPLETE", "fish")])?.ends().await?.exits(0)?;
        let offered: Vec<_> = offered.out.lines().filter_map(|line| line.split('\t').next()).collect();
        assert_eq!(offered, expected, "{words:?}");
    }
    machine.ctl(&["down"]).await?.exits(0)?;
    machine.nothing_is_left()
}
