//! Checks that the README's examples work.

use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::{Machine, eventually, repository};
use rustix::process::Signal;

/// Blocks that are run in order, as one script.
const TEST: &str = "#+begin_src sh :eval test";
/// Blocks of commands that run until they are stopped, started in every order.
const ORDERS: &str = "#+begin_src sh :eval orders";
const END: &str = "#+end_src";

/// The lines of the blocks that begin with this line.
fn lines<'a>(readme: &'a str, begin: &str) -> anyhow::Result<Vec<&'a str>> {
    let mut lines = Vec::new();
    let mut is_inside = false;
    for line in readme.lines() {
        match line.trim() {
            trimmed if trimmed == begin => is_inside = true,
            END => is_inside = false,
            _ if is_inside => lines.push(line),
            _ => {}
        }
    }
    ensure!(!is_inside, "a block is not closed");
    ensure!(!lines.is_empty(), "no block begins with `{begin}`");
    Ok(lines)
}

/// The blocks that are marked to be run. Each line is shown before it is run.
fn script(readme: &str) -> anyhow::Result<String> {
    Ok(format!("set -ev\n{}\n", lines(readme, TEST)?.join("\n")))
}

fn readme() -> anyhow::Result<String> {
    let path = repository().join("README.org");
    std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

/// All permutations of the numbers below this one.
fn orders(number: usize) -> Vec<Vec<usize>> {
    let Some(last) = number.checked_sub(1) else { return vec![Vec::new()] };
    let shorter = orders(last);
    let places = |order: Vec<usize>| {
        (0..number).map(move |at| {
            let mut longer = order.clone();
            longer.insert(at, last);
            longer
        })
    };
    shorter.into_iter().flat_map(places).collect()
}

#[tokio::test]
async fn the_examples_in_the_readme_work_in_their_order() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let script = machine.write("readme.sh", &script(&readme()?)?)?;
    let root = repository().to_str().context("the repository has a plain path")?;
    let run = format!("cd '{root}' && . '{script}'");
    let said = machine.start("sh", &["-c", &run])?.ends().await?.exits(0)?;
    let down = machine.ctl(&["down"]).await?.exits(0)?;
    machine.nothing_is_left().with_context(|| format!("{said:?} {down:?}"))
}

#[tokio::test]
async fn nodes_that_are_started_by_hand_are_all_ready_in_any_order() -> anyhow::Result<()> {
    let readme = readme()?;
    let commands: Vec<Vec<&str>> =
        lines(&readme, ORDERS)?.into_iter().map(|line| line.split_whitespace().collect()).collect();
    let all = format!("{0} members, {0} ready", commands.len());
    for order in orders(commands.len()) {
        let machine = Machine::new()?;
        let mut agents = Vec::new();
        for at in &order {
            let [program, arguments @ ..] = &commands[*at][..] else { continue };
            agents.push(machine.start(program, arguments)?);
        }
        let status = eventually("all of them are ready, and every shard has its owner", || async {
            let said = machine.ctl(&["--agent", "http://127.0.0.1:18470", "status"]).await.ok()?;
            (said.code() == Some(0) && said.out.contains(&all)).then_some(said)
        });
        let status = status.await.with_context(|| format!("begun in the order {order:?}"))?;
        ensure!(!status.out.contains("failed"), "{order:?}: {}", status.out);
        for agent in &agents {
            agent.signal(Signal::TERM);
        }
        for agent in agents {
            tokio::time::timeout(Duration::from_secs(30), agent.ends()).await??.exits(0)?;
        }
    }
    Ok(())
}

#[test]
fn only_marked_blocks_are_run() -> anyhow::Result<()> {
    let readme = "text\n#+begin_src sh\nno\n#+end_src\n#+begin_src sh :eval test\nyes\n#+end_src\nno\n";
    assert_eq!(script(readme)?, "set -ev\nyes\n");
    assert!(script("nothing").is_err());
    Ok(())
}
