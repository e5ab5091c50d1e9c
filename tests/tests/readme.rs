//! The README's examples do what the README says.

use anyhow::{Context, ensure};
use e2e::{Machine, repository};

const BEGIN: &str = "#+begin_src sh :eval test";
const END: &str = "#+end_src";

/// The blocks that are marked to be run, as one script. Each line is shown before it is run.
fn script(readme: &str) -> anyhow::Result<String> {
    let mut script = String::from("set -ev\n");
    let mut is_inside = false;
    for line in readme.lines() {
        match line.trim() {
            BEGIN => is_inside = true,
            END => is_inside = false,
            _ if is_inside => script.push_str(&format!("{line}\n")),
            _ => {}
        }
    }
    ensure!(!is_inside, "a block is not closed");
    ensure!(script.lines().count() > 1, "no block begins with `{BEGIN}`");
    Ok(script)
}

#[tokio::test]
async fn the_examples_in_the_readme_work_in_their_order() -> anyhow::Result<()> {
    let path = repository().join("README.org");
    let readme = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let machine = Machine::new()?;
    let script = machine.write("readme.sh", &script(&readme)?)?;
    let root = repository().to_str().context("the repository has a plain path")?;
    let run = format!("cd '{root}' && . '{script}'");
    let said = machine.start("sh", &["-c", &run])?.ends().await?.exits(0)?;
    let down = machine.ctl(&["down"]).await?.exits(0)?;
    machine.nothing_is_left().with_context(|| format!("{said:?} {down:?}"))
}

#[test]
fn only_marked_blocks_are_run() -> anyhow::Result<()> {
    let readme = "text\n#+begin_src sh\nno\n#+end_src\n#+begin_src sh :eval test\nyes\n#+end_src\nno\n";
    assert_eq!(script(readme)?, "set -ev\nyes\n");
    assert!(script("nothing").is_err());
    Ok(())
}
