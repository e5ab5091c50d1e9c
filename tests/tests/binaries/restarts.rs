//! Agents that crash are restarted, agents that were stopped are not, and agents keep no open file of the process that
//! started them.

use e2e::{Machine, eventually};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{agent_pid, ask, members_become, up, url};

const TWO: &str = "nodes:\n  - {id: a, service: standby}\n  - {id: b, service: standby}\n";

/// The process id of a node's parent.
fn parent_pid(machine: &Machine, node: &str) -> anyhow::Result<Pid> {
    let file: Value = serde_json::from_slice(&std::fs::read(machine.run_dir().join(format!("{node}.pid")))?)?;
    let pid = file["parent"]["pid"].as_i64().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    pid.ok_or_else(|| anyhow::anyhow!("{node} has no parent: {file}"))
}

fn is_alive(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// Waits until a node has another process than this one, and answers.
async fn comes_back(machine: &Machine, node: &str, before: Pid) -> anyhow::Result<Pid> {
    let url = url(machine, node)?;
    eventually(&format!("{node} is back"), || async {
        let pid = agent_pid(machine, node).ok().filter(|pid| *pid != before)?;
        let own = ask(&format!("{url}/v1/agent/self")).await.ok()?;
        (own["pid"].as_i64() == Some(i64::from(pid.as_raw_nonzero().get()))).then_some(pid)
    })
    .await
}

#[tokio::test]
async fn a_node_that_was_killed_is_restarted_and_reports_why_it_ended() -> anyhow::Result<()> {
    let machine = up(TWO).await?;
    let before = agent_pid(&machine, "b")?;
    let killed = machine.ctl(&["kill", "b"]).await?.exits(0)?;
    assert!(killed.out.contains("its parent starts it again"), "{}", killed.out);
    comes_back(&machine, "b", before).await?;
    members_become(&machine, &["a", "b"]).await?;
    let status = eventually("every node sees every node", || async {
        machine.ctl(&["status"]).await.ok()?.exits(0).ok()
    })
    .await?;
    assert!(
        status.out.contains("b was started again 1 time; it had ended: killed by SIGKILL"),
        "{}",
        status.out
    );
    let members = machine.ctl(&["members"]).await?.exits(0)?.out;
    assert!(members.contains("RESTARTS") && members.contains("1 (killed by SIGKILL)"), "{members}");
    let metrics = reqwest_text(&format!("{}/metrics", url(&machine, "b")?)).await?;
    assert!(metrics.contains("coterie_process_restarts_total 1\n"), "{metrics}");
    let log = machine.ctl(&["logs", "b", "-n", "100"]).await?.exits(0)?.out;
    assert!(log.contains("the agent ended: killed by SIGKILL; it is started again at once"), "{log}");
    machine.ctl(&["down"]).await?.exits(0)?;
    machine.nothing_is_left()
}

async fn reqwest_text(url: &str) -> anyhow::Result<String> {
    Ok(client::plain_http().build()?.get(url).send().await?.text().await?)
}

#[tokio::test]
async fn a_node_that_was_stopped_is_not_restarted_until_it_is_started() -> anyhow::Result<()> {
    let machine =
        up("nodes:\n  - {id: a, service: standby}\n  - {id: b, service: standby, restart: always}\n").await?;
    // As by a user who does not use ctl.
    let (agent, parent) = (agent_pid(&machine, "b")?, parent_pid(&machine, "b")?);
    kill_process(agent, Signal::TERM)?;
    eventually("both have ended", || async { (!is_alive(agent) && !is_alive(parent)).then_some(()) }).await?;
    let status = machine.ctl(&["status"]).await?.exits(1)?;
    assert!(status.out.contains("b is stopped: it left on request"), "{}", status.out);
    let started = machine.ctl(&["start", "b"]).await?.exits(0)?;
    assert!(started.out.starts_with("b started (process "), "{}", started.out);
    assert_eq!(machine.ctl(&["start", "b", "-o", "name"]).await?.exits(0)?.out, "b\n", "it runs already");
    members_become(&machine, &["a", "b"]).await?;

    machine.ctl(&["stop", "b"]).await?.exits(0)?;
    members_become(&machine, &["a"]).await?;
    machine.ctl(&["stop", "b"]).await?.exits(0)?;
    machine.ctl(&["kill", "b"]).await?.exits(1)?.tells("nothing was signalled")?;
    machine.ctl(&["stop", "nobody"]).await?.exits(1)?.tells("no node `nobody`")?;
    let manifest = machine.run_dir().join("../../../cluster.yaml");
    machine.ctl(&["up", manifest.to_str().unwrap_or_default()]).await?.exits(0)?.tells("started 1 agent")?;

    let before = agent_pid(&machine, "b")?;
    machine.ctl(&["restart", "b"]).await?.exits(0)?;
    assert_ne!(comes_back(&machine, "b", before).await?, before);
    let status = eventually("every node sees every node", || async {
        machine.ctl(&["status"]).await.ok()?.exits(0).ok()
    })
    .await?;
    assert!(!status.out.contains("started again"), "an orderly restart is no failure: {}", status.out);
    machine.ctl(&["down"]).await?.exits(0)?;
    machine.nothing_is_left()
}

#[tokio::test]
async fn an_agent_outlives_its_parent_and_the_next_up_gives_it_another() -> anyhow::Result<()> {
    let machine = up(TWO).await?;
    let manifest = machine.manifest(TWO)?;
    let (agent, parent) = (agent_pid(&machine, "b")?, parent_pid(&machine, "b")?);
    kill_process(parent, Signal::KILL)?;
    eventually("the parent has ended", || async { (!is_alive(parent)).then_some(()) }).await?;
    machine.ctl(&["up", &manifest]).await?.exits(0)?.tells("nothing to start")?;
    let adopted = eventually("b has another parent", || async {
        parent_pid(&machine, "b").ok().filter(|found| *found != parent && is_alive(*found))
    })
    .await?;
    assert_eq!(agent_pid(&machine, "b")?, agent);
    kill_process(agent, Signal::KILL)?;
    let second = comes_back(&machine, "b", agent).await?;
    assert_eq!(parent_pid(&machine, "b")?, adopted);

    // An orderly end of an adopted agent is recognised by the files that it left.
    kill_process(adopted, Signal::KILL)?;
    eventually("that one has ended", || async { (!is_alive(adopted)).then_some(()) }).await?;
    machine.ctl(&["up", &manifest]).await?.exits(0)?;
    let third = eventually("b has a third parent", || async {
        parent_pid(&machine, "b").ok().filter(|found| *found != adopted && is_alive(*found))
    })
    .await?;
    kill_process(second, Signal::TERM)?;
    eventually("both have ended", || async { (!is_alive(second) && !is_alive(third)).then_some(()) }).await?;
    machine.ctl(&["down"]).await?.exits(0)?;
    machine.nothing_is_left()
}

#[tokio::test]
async fn a_node_that_fails_too_often_is_left_alone_until_it_is_started() -> anyhow::Result<()> {
    let machine = up(TWO).await?;
    let mut pid = agent_pid(&machine, "b")?;
    for _ in 0..5 {
        kill_process(pid, Signal::KILL)?;
        pid = comes_back(&machine, "b", pid).await?;
    }
    let parent = parent_pid(&machine, "b")?;
    kill_process(pid, Signal::KILL)?;
    eventually("its parent gave up", || async { (!is_alive(parent)).then_some(()) }).await?;
    let status = machine.ctl(&["status"]).await?.exits(1)?;
    assert!(status.out.contains("it was started again 5 times within 10 minutes"), "{}", status.out);
    machine.ctl(&["start", "b"]).await?.exits(0)?;
    members_become(&machine, &["a", "b"]).await?;
    machine.ctl(&["down"]).await?.exits(0)?;
    machine.nothing_is_left()
}

#[tokio::test]
async fn a_node_with_restart_no_is_not_restarted() -> anyhow::Result<()> {
    let machine =
        up("nodes:\n  - {id: a, service: standby}\n  - {id: b, service: standby, restart: no}\n").await?;
    let parent = parent_pid(&machine, "b")?;
    let killed = machine.ctl(&["kill", "b"]).await?.exits(0)?;
    assert!(killed.out.contains("start b` starts it again"), "{}", killed.out);
    eventually("its parent has ended", || async { (!is_alive(parent)).then_some(()) }).await?;
    let status = machine.ctl(&["status"]).await?.exits(1)?;
    assert!(
        status.out.contains("killed by SIGKILL") && status.out.contains("`restart: no`"),
        "{}",
        status.out
    );

    let parent = parent_pid(&machine, "a")?;
    machine.ctl(&["start", "b"]).await?.exits(0)?;
    machine.ctl(&["kill", "a", "--for-good"]).await?.exits(0)?;
    eventually("both have ended", || async { (!is_alive(parent)).then_some(()) }).await?;
    members_become(&machine, &["b"]).await?;
    machine.ctl(&["status"]).await?.exits(1)?;
    machine.ctl(&["start", "a"]).await?.exits(0)?;
    members_become(&machine, &["a", "b"]).await?;
    machine.ctl(&["down"]).await?.exits(0)?;
    machine.nothing_is_left()
}

#[tokio::test]
async fn down_also_ends_a_parent_that_waits_to_start_its_agent_again() -> anyhow::Result<()> {
    let machine = up(TWO).await?;
    let mut pid = agent_pid(&machine, "b")?;
    // From the second restart on there is a pause.
    for _ in 0..2 {
        kill_process(pid, Signal::KILL)?;
        pid = comes_back(&machine, "b", pid).await?;
    }
    kill_process(pid, Signal::KILL)?;
    eventually("it has ended", || async { (!is_alive(pid)).then_some(()) }).await?;
    machine.ctl(&["down"]).await?.exits(0)?;
    machine.nothing_is_left()
}

#[tokio::test]
async fn agents_keep_no_open_file_of_their_starter() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let manifest = machine.manifest(TWO)?;
    let script = format!(
        "( flock -x 9; ctl up {manifest} >up.out 2>&1 ) 9>lock; flock -n lock echo free; \
         ctl down >/dev/null 2>&1; sh -c 'exec 3>&1; ctl up {manifest} >up.out 2>&1' | cat; echo read"
    );
    let said = machine.start("sh", &["-c", &script])?.ends().await?.exits(0)?;
    assert_eq!(said.out, "free\nread\n", "{}", std::fs::read_to_string(machine.folder().join("up.out"))?);
    for pid in [agent_pid(&machine, "a")?, parent_pid(&machine, "a")?] {
        assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd"))?, std::path::Path::new("/"));
        let session = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let terminal = session.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(4));
        assert_eq!(terminal, Some("0"), "no terminal");
    }
    machine.ctl(&["down"]).await?.exits(0)?;
    machine.nothing_is_left()
}

#[tokio::test]
async fn a_damaged_record_is_set_aside_and_rebuilt() -> anyhow::Result<()> {
    let machine = up(TWO).await?;
    let path = machine.run_dir().join("cluster.json");
    let text = std::fs::read(&path)?;
    std::fs::write(&path, &text[..text.len() / 2])?;
    let members = machine.ctl(&["members", "-o", "name"]).await?.exits(0)?;
    assert_eq!(members.out, "a\nb\n");
    members.tells("cluster.json is damaged")?.tells("rebuilt from the files and processes of 2 nodes")?;
    let quiet = machine.ctl(&["status"]).await?.exits(0)?;
    assert!(!quiet.err.contains("damaged"), "{}", quiet.err);
    std::fs::write(&path, "")?;
    let manifest = machine.manifest(TWO)?;
    machine.ctl(&["up", &manifest]).await?.exits(0)?.tells("nothing to start")?;
    std::fs::remove_file(&path)?;
    let down = machine.ctl(&["down"]).await?.exits(0)?;
    assert_eq!(down.out, "stopped 2 agents, 0 left, 4 ports free\n");
    machine.nothing_is_left()
}

#[tokio::test]
async fn a_state_folder_is_found_by_any_path_to_it() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let manifest = machine.manifest(TWO)?;
    std::fs::create_dir(machine.folder().join("sub"))?;
    for (folder, code) in [("../state", 0), ("$(printf '/tmp/\\351')", 2)] {
        let script =
            format!("cd sub; export COTERIE_STATE_DIR=\"{folder}\"; ctl up {manifest} --timeout 60s");
        let said = machine.start("sh", &["-c", &script])?.ends().await?.exits(code)?;
        if code == 2 {
            said.tells("is not in UTF-8")?.tells("COTERIE_STATE_DIR")?;
        }
    }
    assert!(machine.run_dir().join("cluster.json").exists(), "`..` is the folder above");
    // Through a link too, an agent that does not leave in time is killed, and its parent does not restart it.
    std::os::unix::fs::symlink(machine.state(), machine.folder().join("link"))?;
    let script =
        format!("kill -STOP {}; COTERIE_STATE_DIR=link ctl down --timeout 0s", agent_pid(&machine, "a")?);
    let down = machine.start("sh", &["-c", &script])?.ends().await?.exits(0)?;
    assert!(down.out.starts_with("stopped 2 agents, 0 left"), "{}", down.out);
    machine.nothing_is_left()
}

#[tokio::test]
async fn a_restart_uses_the_current_binary() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let (real, agent) = (e2e::binaries()?.join("agent"), machine.folder().join("agent"));
    let install = || std::fs::hard_link(&real, &agent).or_else(|_| std::fs::copy(&real, &agent).map(|_| ()));
    install()?;
    let (manifest, path) = (machine.manifest(TWO)?, agent.display().to_string());
    machine.ctl(&["up", &manifest, "--agent-bin", &path]).await?.exits(0)?;
    std::fs::remove_file(&agent)?;
    // ctl checks that the node can be started again before it leaves.
    machine.ctl(&["restart", "a"]).await?.exits(1)?.tells(&path)?.tells("--agent-bin")?;
    members_become(&machine, &["a", "b"]).await?;
    install()?;
    let status = machine.ctl(&["status"]).await?.exits(0)?;
    assert!(status.out.contains("the binary was replaced since these were started: a, b"), "{}", status.out);
    for node in ["a", "b"] {
        let before = agent_pid(&machine, node)?;
        machine.ctl(&["restart", node]).await?.exits(0)?;
        assert_ne!(agent_pid(&machine, node)?, before);
    }
    let status = eventually("every node sees every node", || async {
        machine.ctl(&["status"]).await.ok()?.exits(0).ok()
    })
    .await?;
    assert!(!status.out.contains("replaced"), "{}", status.out);
    machine.ctl(&["down"]).await?.exits(0)?;
    machine.nothing_is_left()
}

#[tokio::test]
async fn logs_are_followed_and_read_across_files_that_were_moved_away() -> anyhow::Result<()> {
    let machine = up(TWO).await?;
    let follow = machine.start("ctl", &["logs", "a", "-f", "-n", "1"])?;
    let log = machine.run_dir().join("a.log");
    // It does not follow lines that were logged before it opened the log.
    eventually("it follows", || async { (!follow.out().is_empty()).then_some(()) }).await?;
    for (number, role) in ["api_gateway", "standby", "api_gateway"].into_iter().enumerate() {
        // As logrotate does: the parent passes the signal on.
        for old in (0..number).rev() {
            let name = |number: usize| log.with_extension(format!("log.{}", number + 1));
            std::fs::rename(name(old), name(old + 1))?;
        }
        std::fs::rename(&log, log.with_extension("log.1"))?;
        kill_process(parent_pid(&machine, "a")?, Signal::HUP)?;
        eventually("a new file is created", || async { log.exists().then_some(()) }).await?;
        machine.ctl(&["set-service", "a", role]).await?.exits(0)?;
    }
    let changes = |text: &str| text.matches("carried out a command").count();
    eventually("no line is missed", || async { (changes(&follow.out()) == 3).then_some(()) }).await?;
    follow.signal(Signal::INT);
    follow.ends().await?.exits(130)?;
    let all = machine.ctl(&["logs", "a", "-n", "1000"]).await?.exits(0)?.out;
    assert!(all.contains("started") && changes(&all) == 3, "{all}");
    let last = machine.ctl(&["logs", "a", "-n", "1"]).await?.exits(0)?.out;
    assert_eq!(all.lines().last(), last.lines().last());
    machine.ctl(&["down"]).await?.exits(0)?;
    machine.nothing_is_left()
}
