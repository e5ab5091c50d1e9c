//! Each failure of a command has the exit code that `ctl --help` documents, and a message that explains it.

use e2e::{Machine, eventually};
use rustix::process::Signal;
use tokio::net::TcpListener;

use crate::{FIVE, FIVE_NAMES, ask, up, url};

#[tokio::test]
async fn an_impossible_role_is_refused_with_2() -> anyhow::Result<()> {
    let machine = up(FIVE).await?;
    for (arguments, text) in [
        (
            &["set-service", "standby-1", "analytics"][..],
            "service type `analytics` does not exist here; there are",
        ),
        (&["set-service", "standby-1", "api_gatewy"], "api_gateway"),
        (&["set-service", "standby-1", "no such"], "character"),
        (&["set-service", "standby-1", "api_gateway", "--shard", "1"], "`api_gateway` has no shards"),
        (&["set-service", "standby-1", "api_gateway/7"], "`api_gateway` has no shards"),
        (&["set-service", "standby-1", "standby", "--shard", "0"], "shard"),
        (&["set-service", "standby-1", "api_gateway", "--shard", "70000"], "70000"),
    ] {
        machine.ctl(arguments).await?.exits(2)?.tells(text)?;
    }
    assert_eq!(machine.members().await?, FIVE_NAMES);
    machine.ctl(&["status"]).await?.exits(0)?;
    Ok(())
}

#[tokio::test]
async fn an_unknown_node_is_1_with_a_suggestion() -> anyhow::Result<()> {
    let machine = up(FIVE).await?;
    for verb in
        [&["set-service", "standby-9", "standby"][..], &["drain", "standby-9"], &["leave", "standby-9"]]
    {
        machine.ctl(verb).await?.exits(1)?.tells("no member is named `standby-9`")?.tells("did you mean")?;
    }
    for verb in ["kill", "logs"] {
        machine.ctl(&[verb, "standby-9"]).await?.exits(1)?.tells("did you mean")?;
    }
    Ok(())
}

#[tokio::test]
async fn a_dead_node_is_4_before_and_after_the_others_detect_it() -> anyhow::Result<()> {
    let machine = up(FIVE).await?;
    machine.ctl(&["kill", "standby-1", "--for-good"]).await?.exits(0)?;
    let change = ["set-service", "standby-1", "api_gateway"];
    machine.ctl(&change).await?.exits(4)?;
    eventually("it is gone", || async { (machine.members().await.ok()?.len() == 4).then_some(()) }).await?;
    for verb in [&change[..], &["drain", "standby-1"], &["leave", "standby-1"]] {
        machine.ctl(verb).await?.exits(4)?.tells(" up` starts it again")?;
    }
    machine.ctl(&["kill", "standby-1"]).await?.exits(1)?.tells("nothing was signalled")?;
    Ok(())
}

#[tokio::test]
async fn a_paused_node_is_reported_as_such() -> anyhow::Result<()> {
    let machine = up(FIVE).await?;
    machine.ctl(&["kill", "standby-1", "--signal", "STOP"]).await?.exits(0)?;
    let manifest = machine.manifest(FIVE)?;
    let again = ["up", &manifest, "--timeout", "1s"];
    machine
        .ctl(&again)
        .await?
        .exits(3)?
        .tells("standby-1 is stopped (process ")?
        .tells(" kill standby-1 --signal CONT`")?;
    eventually("it is gone", || async { (machine.members().await.ok()?.len() == 4).then_some(()) }).await?;
    let change = ["set-service", "standby-1", "api_gateway"];
    machine.ctl(&change).await?.exits(4)?.tells("is alive but not answering (stopped?)")?;
    machine.ctl(&["kill", "standby-1", "--signal", "CONT"]).await?.exits(0)?;
    machine.ctl(&["up", &manifest]).await?.exits(0)?;
    Ok(())
}

#[tokio::test]
async fn a_node_that_is_leaving_is_5() -> anyhow::Result<()> {
    // A server that accepts connections and never answers, so that a request keeps the gateway draining.
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let machine = Machine::new()?;
    let services = format!(
        "services:\n  api_gateway:\n    settings:\n      routes: [{{prefix: /slow, to: ['http://{}']}}]\n{FIVE}",
        silent.local_addr()?
    );
    let manifest = machine.manifest(&services)?;
    machine.ctl(&["up", &manifest]).await?.exits(0)?;
    let node = ask(&format!("{}/v1/agent/self", url(&machine, "gateway-2")?)).await?;
    let gateway = node["member"]["state"]["endpoints"]["gateway"].as_str().unwrap_or_default().to_owned();
    let mut requests = tokio::task::JoinSet::new();
    requests.spawn(client::plain_http().build()?.get(format!("{gateway}/slow")).send());
    let (held, _) = silent.accept().await?;
    let agent = url(&machine, "gateway-2")?;

    let leaving = machine.start("ctl", &["leave", "gateway-2", "--timeout", "60s"])?;
    eventually("it is leaving", || async {
        let own = ask(&format!("{agent}/v1/agent/self")).await.ok()?;
        (own["member"]["state"]["phase"] == "draining").then_some(())
    })
    .await?;
    for verb in [&["set-service", "gateway-2", "standby"][..], &["drain", "gateway-2"]] {
        machine.ctl(verb).await?.exits(5)?.tells("leaving")?;
    }
    machine.ctl(&["leave", "gateway-2", "--timeout", "1ms"]).await?.exits(3)?.tells("agreed to leave")?;
    drop((silent, held));
    leaving.ends().await?.exits(0)?;
    requests.join_all().await;
    Ok(())
}

#[tokio::test]
async fn a_change_that_was_overtaken_is_5() -> anyhow::Result<()> {
    let machine = up(FIVE).await?;
    let change = ["set-service", "standby-1", "api_gateway", "--if-match", "1.0"];
    machine.ctl(&change).await?.exits(5)?;
    Ok(())
}

#[tokio::test]
async fn two_commands_on_one_cluster_are_5() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let manifest = machine.manifest(FIVE)?;
    std::fs::create_dir_all(machine.run_dir())?;
    let lock = std::fs::File::create(machine.run_dir().join("lock"))?;
    lock.lock()?;
    machine.ctl(&["up", &manifest]).await?.exits(5)?.tells("another command works on this cluster")?;
    drop(lock);
    machine.ctl(&["up", &manifest]).await?.exits(0)?;
    let lock = std::fs::File::create(machine.run_dir().join("lock"))?;
    lock.lock()?;
    machine.ctl(&["down"]).await?.exits(5)?;
    drop(lock);
    machine.ctl(&["down"]).await?.exits(0)?;
    machine.nothing_is_left()
}

#[tokio::test]
async fn a_start_that_takes_too_long_is_3_and_undone() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let manifest = machine.manifest(FIVE)?;
    let late = machine.ctl(&["up", &manifest, "--timeout", "1ms"]).await?.exits(3)?;
    let late = late
        .tells("not every node sees every node ready after 1ms")?
        .tells("undoing the start of 5 agents")?;
    assert_eq!(late.out, "");
    machine.nothing_is_left()
}

#[tokio::test]
async fn a_manifest_with_mistakes_is_2_and_starts_nothing() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let broken = machine.write("broken.yaml", "cluster: x\nnods: []\n")?;
    for verb in ["up", "validate"] {
        machine
            .ctl(&[verb, &broken])
            .await?
            .exits(2)?
            .tells("broken.yaml:2:1")?
            .tells("did you mean `nodes`?")?;
        machine.ctl(&[verb, "missing.yaml"]).await?.exits(2)?.tells("missing.yaml")?;
    }
    machine.nothing_is_left()
}

#[tokio::test]
async fn no_reachable_agent_is_4() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    for verb in
        [&["members"][..], &["status"], &["leave", "a"], &["set-service", "a", "standby"], &["kill", "a"]]
    {
        // The cluster is named, since otherwise ctl would find agents that other tests have started.
        let verb = [verb, &["--cluster", machine.cluster()]].concat();
        machine.ctl(&verb).await?.exits(4)?.tells("no cluster named")?;
    }
    let free = format!("http://127.0.0.1:{}", e2e::free_port()?);
    machine.ctl(&["members", "--agent", &free]).await?.exits(4)?.tells("connection refused")?;
    Ok(())
}

#[tokio::test]
async fn a_stream_that_is_interrupted_is_130_and_the_cluster_stays() -> anyhow::Result<()> {
    let machine = up(FIVE).await?;
    for verb in ["events", "logs"] {
        let stream = machine.start("ctl", &[verb, "-f"])?;
        eventually("it prints", || async { stream.out().contains("standby-3").then_some(()) }).await?;
        stream.signal(Signal::INT);
        let said = stream.ends().await?.exits(130)?;
        assert_eq!(said.err, "");
    }
    let manifest = machine.manifest(FIVE)?;
    let follow = machine.start("ctl", &["up", &manifest, "--follow"])?;
    eventually("it follows", || async { follow.out().contains("present").then_some(()) }).await?;
    follow.signal(Signal::INT);
    follow.ends().await?.exits(0)?.tells("the cluster keeps running")?;
    assert_eq!(machine.members().await?, FIVE_NAMES);
    Ok(())
}

#[tokio::test]
async fn events_continue_when_the_agent_that_sends_them_dies() -> anyhow::Result<()> {
    let machine = up(FIVE).await?;
    let stream = machine.start("ctl", &["events", "-f", "-o", "json"])?;
    eventually("it prints", || async { stream.out().contains("standby-3").then_some(()) }).await?;
    machine.ctl(&["kill", "gateway-1", "--for-good"]).await?.exits(0)?;
    eventually("another agent is used", || async {
        stream.err().contains("from here on as seen by").then_some(())
    })
    .await?;
    machine.ctl(&["leave", "standby-3"]).await?.exits(0)?;
    eventually("the stream continues", || async { stream.out().contains("standby-3 left").then_some(()) })
        .await?;
    stream.signal(Signal::INT);
    stream.ends().await?.exits(130)?;
    Ok(())
}
