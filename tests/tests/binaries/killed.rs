//! Kills at any time: of ctl, an agent, all of them. Also reused pids and paused processes.

use std::time::{Duration, Instant};

use e2e::{Machine, eventually};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::{FIVE, FIVE_NAMES, agent_pid, ask, members_become, seen_by, up, url};

/// The progress of a `ctl up` of five nodes: one for the record and one for each log, which is opened just before its
/// agent starts.
fn progress(machine: &Machine) -> usize {
    let entries = std::fs::read_dir(machine.run_dir()).into_iter().flatten().flatten();
    let names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let has_record = names.iter().any(|name| name == "cluster.json");
    usize::from(has_record) + names.iter().filter(|name| name.ends_with(".log")).count()
}

/// Starts `ctl up` and sends it a signal once it has made this progress.
async fn signalled(
    machine: &Machine,
    manifest: &str,
    moment: usize,
    signal: Signal,
) -> anyhow::Result<e2e::Said> {
    let mut ctl = machine.start("ctl", &["up", manifest])?;
    // Milliseconds count here, so this polls without a pause.
    while progress(machine) < moment && !ctl.has_ended()? {
        tokio::task::yield_now().await;
    }
    ctl.signal(signal);
    ctl.ends().await
}

#[tokio::test]
async fn down_finds_everything_that_a_killed_ctl_started() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let manifest = machine.manifest(FIVE)?;
    for moment in 0..=6 {
        signalled(&machine, &manifest, moment, Signal::KILL).await?;
        machine.ctl(&["down"]).await?.exits(0)?;
        machine.nothing_is_left()?;
    }
    Ok(())
}

#[tokio::test]
async fn down_continues_where_a_killed_one_stopped() -> anyhow::Result<()> {
    for left in (0..=5).rev() {
        let machine = up(FIVE).await?;
        let mut down = machine.start("ctl", &["down"])?;
        while machine.agents()?.len() > left && !down.has_ended()? {
            tokio::task::yield_now().await;
        }
        down.signal(Signal::KILL);
        down.ends().await?;
        machine.ctl(&["down"]).await?.exits(0)?;
        machine.nothing_is_left()?;
    }
    Ok(())
}

#[tokio::test]
async fn up_continues_where_a_killed_ctl_stopped() -> anyhow::Result<()> {
    for moment in [0, 3, 6] {
        let machine = Machine::new()?;
        let manifest = machine.manifest(FIVE)?;
        signalled(&machine, &manifest, moment, Signal::KILL).await?;
        machine.ctl(&["up", &manifest]).await?.exits(0)?;
        assert_eq!(machine.members().await?, FIVE_NAMES);
        assert_eq!(machine.agents()?.len(), 5);
        machine.ctl(&["status"]).await?.exits(0)?;
        machine.ctl(&["down"]).await?.exits(0)?;
        machine.nothing_is_left()?;
    }
    Ok(())
}

#[tokio::test]
async fn an_interrupt_halfway_leaves_nothing_behind() -> anyhow::Result<()> {
    let mut interrupted = 0;
    for signal in [Signal::INT, Signal::TERM] {
        for moment in 1..=6 {
            let machine = Machine::new()?;
            let manifest = machine.manifest(FIVE)?;
            let said = signalled(&machine, &manifest, moment, signal).await?;
            if said.code() == Some(0) {
                // It was done before the signal came.
                continue;
            }
            interrupted += 1;
            let said = said.exits(130)?;
            assert_eq!(said.out, "");
            machine.nothing_is_left()?;
            assert!(!machine.run_dir().exists(), "{said:?}");
            assert!(!machine.state().join("data").join(machine.cluster()).exists());
        }
    }
    assert!(interrupted > 0, "every signal came too late");
    Ok(())
}

#[tokio::test]
async fn a_killed_agent_is_gone_for_all_and_returns_once_with_its_id() -> anyhow::Result<()> {
    let machine = up(FIVE).await?;
    let before = ask(&format!("{}/v1/agent/self", url(&machine, "standby-2")?)).await?;
    machine.ctl(&["kill", "standby-2", "--for-good"]).await?.exits(0)?;
    let others = ["gateway-1", "gateway-2", "standby-1", "standby-3"];
    for other in others {
        let url = url(&machine, other)?;
        eventually("each of the others shows it", || async {
            (seen_by(&url).await.ok()? == others).then_some(())
        })
        .await?;
    }
    assert_eq!(machine.members().await?, others);
    let status = machine.ctl(&["status"]).await?.exits(1)?;
    assert!(status.out.contains("standby-2 is stopped: it was killed with --for-good"), "{}", status.out);

    let manifest = machine.manifest(FIVE)?;
    machine.ctl(&["up", &manifest]).await?.exits(0)?.tells("started 1 agent,")?;
    assert_eq!(machine.members().await?, FIVE_NAMES);
    machine.ctl(&["status"]).await?.exits(0)?;
    let after = ask(&format!("{}/v1/agent/self", url(&machine, "standby-2")?)).await?;
    assert!(
        after["member"]["generation"].as_u64() > before["member"]["generation"].as_u64(),
        "a new generation"
    );
    assert_eq!(machine.agents()?.len(), 5);
    Ok(())
}

#[tokio::test]
async fn an_agent_that_is_restarted_before_its_end_is_detected_is_a_member_once() -> anyhow::Result<()> {
    let machine = up(FIVE).await?;
    let manifest = machine.manifest(FIVE)?;
    for _ in 0..3 {
        machine.ctl(&["kill", "gateway-1", "--for-good"]).await?.exits(0)?;
        machine.ctl(&["up", &manifest]).await?.exits(0)?.tells("started 1 agent,")?;
        assert_eq!(machine.members().await?, FIVE_NAMES);
        machine.ctl(&["status"]).await?.exits(0)?;
    }
    Ok(())
}

#[tokio::test]
async fn after_everything_was_killed_down_confirms_the_end_and_up_works_again() -> anyhow::Result<()> {
    let machine = up(FIVE).await?;
    let manifest = machine.manifest(FIVE)?;
    let kill_all = async || -> anyhow::Result<()> {
        for name in FIVE_NAMES {
            machine.ctl(&["kill", name, "--for-good"]).await?.exits(0)?;
        }
        eventually("all of them have ended", || async { machine.processes().ok()?.is_empty().then_some(()) })
            .await
    };
    kill_all().await?;
    for verb in ["members", "status", "events"] {
        machine.ctl(&[verb]).await?.exits(4)?.tells(" up` starts what is missing")?;
    }
    assert!(machine.ctl(&["logs", "gateway-1"]).await?.exits(0)?.out.contains("gateway-1"));
    let down = machine.ctl(&["down"]).await?.exits(0)?;
    assert_eq!(down.out, "stopped 0 agents, 0 left, 10 ports free (5 were not running)\n");
    machine.nothing_is_left()?;

    machine.ctl(&["up", &manifest]).await?.exits(0)?;
    kill_all().await?;
    machine.ctl(&["up", &manifest]).await?.exits(0)?.tells("started 5 agents")?;
    machine.ctl(&["status"]).await?.exits(0)?;
    Ok(())
}

#[tokio::test]
async fn a_pid_that_was_given_to_another_process_is_never_signalled() -> anyhow::Result<()> {
    let mut other = std::process::Command::new("sleep").arg("600").spawn()?;
    let outcome = with_the_pid_of(other.id()).await;
    let survives = other.try_wait()?.is_none();
    other.kill()?;
    other.wait()?;
    assert!(survives, "the other process was killed");
    outcome
}

async fn with_the_pid_of(other_pid: u32) -> anyhow::Result<()> {
    let one = "nodes:\n  - {id: n1, service: standby}\n";
    // The agent runs under another pid, or has ended.
    for is_dead in [false, true] {
        let machine = up(one).await?;
        if is_dead {
            machine.ctl(&["kill", "n1", "--for-good"]).await?.exits(0)?;
            eventually("it has ended", || async { machine.agents().ok()?.is_empty().then_some(()) }).await?;
        }
        let path = machine.run_dir().join("n1.pid");
        let mut file: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        file["pid"] = json!(other_pid);
        file["start_time"] = json!(0);
        std::fs::write(&path, file.to_string())?;
        let data = machine.state().join("data").join(machine.cluster());
        std::fs::write(data.join("n1/lock"), other_pid.to_string())?;
        for signal in ["KILL", "TERM", "STOP"] {
            machine
                .ctl(&["kill", "n1", "--signal", signal])
                .await?
                .exits(1)?
                .tells("nothing was signalled")?;
        }
        let down = machine.ctl(&["down"]).await?.exits(0)?;
        let expected = if is_dead {
            "stopped 0 agents, 0 left, 2 ports free (1 was not running)\n"
        } else {
            "stopped 1 agent, 0 left, 2 ports free\n"
        };
        assert_eq!(down.out, expected);
        machine.nothing_is_left()?;
    }
    Ok(())
}

#[tokio::test]
async fn a_paused_agent_returns_and_declares_no_member_lost() -> anyhow::Result<()> {
    const PAUSE: Duration = Duration::from_millis(2_500);
    let machine = up(FIVE).await?;
    let pid = agent_pid(&machine, "standby-3")?;
    machine.ctl(&["kill", "standby-3", "--signal", "STOP"]).await?.exits(0)?;
    let stopped = Instant::now();
    members_become(&machine, &FIVE_NAMES[..4]).await?;
    machine.ctl(&["status"]).await?.exits(1)?;
    // The length of the pause matters here.
    tokio::time::sleep(PAUSE.saturating_sub(stopped.elapsed())).await;
    kill_process(pid, Signal::CONT)?;
    members_become(&machine, &FIVE_NAMES).await?;
    for node in FIVE_NAMES {
        let url = url(&machine, node)?;
        eventually("every node sees every node again", || async {
            (seen_by(&url).await.ok()? == FIVE_NAMES).then_some(())
        })
        .await?;
    }
    let kept = ask(&format!("{}/v1/events", url(&machine, "standby-3")?)).await?;
    let lost: Vec<&Value> =
        kept["events"].as_array().into_iter().flatten().filter(|event| event["kind"] == "lost").collect();
    assert!(lost.is_empty(), "{lost:#?}");
    machine.ctl(&["status"]).await?.exits(0)?;
    Ok(())
}

#[tokio::test]
async fn shards_have_owners_at_once_after_everything_was_killed_three_times() -> anyhow::Result<()> {
    const NODES: &str = "\
services: {storage: {shards: 2}}
nodes:
  - {id: gateway, service: api_gateway}
  - {id: storage, service: storage, count: 2}
  - {id: standby, service: standby}
";
    let machine = up(NODES).await?;
    let manifest = machine.manifest(NODES)?;
    machine.ctl(&["kv", "put", "greeting", "hello"]).await?.exits(0)?;
    for crash in 1..=4 {
        // Kill agents and their parents at once, so that nothing is restarted.
        for process in machine.processes()? {
            kill_process(process, Signal::KILL)?;
        }
        eventually("all of them have ended", || async { machine.processes().ok()?.is_empty().then_some(()) })
            .await?;
        // Candidates wait ten seconds for an owner that they have never seen alive, but not for one that has refused
        // the shard.
        let began = Instant::now();
        machine.ctl(&["up", &manifest, "--timeout", "9s"]).await?.exits(0)?.tells("started 4 agents")?;
        println!("crash {crash}: everything is up and owned after {:?}", began.elapsed());
        let claims = machine.ctl(&["claims", "-o", "json"]).await?.exits(0)?.json()?;
        for claim in claims["claims"].as_array().into_iter().flatten() {
            assert_eq!(claim["honoured"], true, "crash {crash}: {claims:#}");
        }
        let value = machine.ctl(&["kv", "get", "greeting"]).await?.exits(0)?;
        assert_eq!(value.out, "hello", "crash {crash}");
    }
    Ok(())
}

#[tokio::test]
async fn up_waits_for_owners_and_names_the_shards_that_have_none() -> anyhow::Result<()> {
    const NODES: &str = "\
services: {storage: {shards: 2}}
nodes:
  - {id: a, service: storage}
";
    let machine = Machine::new()?;
    let manifest = machine.manifest(NODES)?;
    let late = machine.ctl(&["up", &manifest, "--timeout", "2s", "--keep"]).await?.exits(3)?;
    late.tells("a shard has no running owner after 2s:\n  storage/1 (it never had an owner)")?;
    let late = machine.ctl(&["up", &manifest, "--timeout", "1s"]).await?.exits(3)?;
    late.tells("storage/1 (it never had an owner)")?.tells(" status --cluster ")?;
    // `ctl up` does not wait for a shard that an operator took from its node.
    machine.ctl(&["set-service", "a", "storage/1"]).await?.exits(0)?;
    machine.ctl(&["up", &manifest, "--timeout", "5s"]).await?.exits(0)?.tells("drift: a is storage/1")?;
    Ok(())
}
