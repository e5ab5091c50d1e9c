//! The agent as a daemon: a log that can't be written, signals, output without a reader.

use e2e::{Machine, Running, eventually, free_port};
use rustix::process::Signal;

use crate::{ask, seen_by};

/// A shell that runs a script in which `$A` is the agent with its usual arguments.
fn agent_in_a_shell(machine: &Machine, script: &str, url: &str) -> anyhow::Result<Running> {
    let agent = format!(
        "agent --listen-addr {} --service standby --profile local --cluster {} --data-dir data --store store",
        url.trim_start_matches("http://"),
        machine.cluster()
    );
    machine.start_with("sh", &["-c", script], &[("A", &agent)])
}

async fn serves(url: &str) -> anyhow::Result<()> {
    eventually("the agent serves", || async { seen_by(url).await.is_ok().then_some(()) }).await
}

async fn metric(url: &str, name: &str) -> anyhow::Result<u64> {
    let text = client::plain_http().build()?.get(format!("{url}/metrics")).send().await?.text().await?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.ok_or_else(|| anyhow::anyhow!("no {name} in {text}"))?.parse()?)
}

#[tokio::test]
async fn output_that_cannot_be_written_is_an_error_and_no_panic() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    for verb in ["config", "version", "validate", "apply --store store"] {
        let question = "echo '{\"services\": {}}'";
        let full = machine.start("sh", &["-c", &format!("{question} | agent {verb} > /dev/full")])?;
        full.ends().await?.exits(1)?.tells("standard output can't be written")?;
        // The reader is gone before anything is printed.
        let script = format!(
            "mkfifo p; : < p & exec 3> p; wait; {question} | agent {verb} >&3; code=$?; rm p; exit $code"
        );
        let closed = machine.start("sh", &["-c", &script])?.ends().await?.exits(0)?;
        assert_eq!(closed.err, "", "{verb}");
    }
    Ok(())
}

#[tokio::test]
async fn an_agent_whose_log_cannot_be_written_keeps_running_and_counts_the_lines() -> anyhow::Result<()> {
    for script in ["exec $A 2>/dev/full", "exec $A --log-file /dev/full"] {
        let machine = Machine::new()?;
        let url = format!("http://127.0.0.1:{}", free_port()?);
        let agent = agent_in_a_shell(&machine, script, &url)?;
        serves(&url).await?;
        eventually("the lines are counted", || async {
            (metric(&url, "coterie_log_lines_dropped_total").await.ok()? > 0).then_some(())
        })
        .await?;
        agent.signal(Signal::TERM);
        agent.ends().await?.exits(0)?;
        machine.nothing_is_left()?;
    }
    Ok(())
}

#[tokio::test]
async fn an_agent_keeps_running_when_the_reader_of_its_log_goes_away() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let url = format!("http://127.0.0.1:{}", free_port()?);
    let script = "mkfifo f; cat f >log & cat=$!; (while [ ! -e stop ]; do sleep .05; done; kill $cat) & exec $A >f 2>&1";
    let agent = agent_in_a_shell(&machine, script, &url)?;
    serves(&url).await?;
    let first_lines = || std::fs::read_to_string(machine.folder().join("log")).unwrap_or_default();
    eventually("the log is read", || async { first_lines().contains("started").then_some(()) }).await?;
    machine.write("stop", "")?;
    // Each role change logs lines.
    eventually("lines are dropped", || async {
        for role in ["api_gateway", "standby"] {
            ask(&format!("{url}/update_service?service={role}")).await.ok()?;
        }
        (metric(&url, "coterie_log_lines_dropped_total").await.ok()? > 0).then_some(())
    })
    .await?;
    agent.signal(Signal::TERM);
    agent.ends().await?.exits(0)?;
    machine.nothing_is_left()
}

#[tokio::test]
async fn a_hangup_reopens_the_log_and_other_signals_act_as_documented() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let url = format!("http://127.0.0.1:{}", free_port()?);
    // A new session has no terminal.
    let agent = agent_in_a_shell(&machine, "exec setsid $A --log-file n.log", &url)?;
    serves(&url).await?;
    let log = |name: &str| std::fs::read_to_string(machine.folder().join(name)).unwrap_or_default();
    eventually("it logs", || async { log("n.log").contains("started").then_some(()) }).await?;
    std::fs::rename(machine.folder().join("n.log"), machine.folder().join("moved"))?;
    agent.signal(Signal::HUP);
    eventually("the file is reopened", || async { machine.folder().join("n.log").exists().then_some(()) })
        .await?;
    for signal in [Signal::USR1, Signal::USR2, Signal::HUP] {
        agent.signal(signal);
    }
    ask(&format!("{url}/update_service?service=api_gateway")).await?;
    eventually("new lines go to the new file", || async {
        log("n.log").contains("api_gateway").then_some(())
    })
    .await?;
    assert!(!log("moved").contains("api_gateway"));
    agent.signal(Signal::QUIT);
    let said = agent.ends().await?.exits(0)?;
    assert!(log("n.log").contains("SIGQUIT"), "{}", log("n.log"));
    assert_eq!(said.err, "", "lines logged to a file are not printed");
    machine.nothing_is_left()
}

#[tokio::test]
async fn a_log_file_that_cannot_be_created_is_refused_with_its_path() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    for (file, why) in [("no/such/folder/n.log", "No such file"), ("/", "directory")] {
        let refused = machine.agent(&["--listen-addr", "127.0.0.1:0", "--log-file", file]).await?.exits(2)?;
        refused.tells(file)?.tells(why)?;
    }
    machine.nothing_is_left()
}

#[tokio::test]
async fn an_agent_without_descriptors_logs_that_once_a_second_and_recovers() -> anyhow::Result<()> {
    const WATCHED: std::time::Duration = std::time::Duration::from_secs(4);
    let machine = Machine::new()?;
    let url = format!("http://127.0.0.1:{}", free_port()?);
    let agent = agent_in_a_shell(&machine, "ulimit -n 60; exec $A --log-file n.log", &url)?;
    serves(&url).await?;
    let mut connections = Vec::new();
    for _ in 0..100 {
        connections.push(tokio::net::TcpStream::connect(url.trim_start_matches("http://")).await?);
    }
    let complaints = || {
        let log = std::fs::read_to_string(machine.folder().join("n.log")).unwrap_or_default();
        log.lines().filter(|line| line.contains("could not accept a connection")).count()
    };
    eventually("it logs the error", || async { (complaints() > 0).then_some(()) }).await?;
    // The test counts the lines in this time.
    tokio::time::sleep(WATCHED).await;
    let lines = complaints();
    assert!((2..=6).contains(&lines), "{lines} lines in {WATCHED:?}");
    drop(connections);
    serves(&url).await?;
    agent.signal(Signal::TERM);
    agent.ends().await?.exits(0)?;
    machine.nothing_is_left()
}
