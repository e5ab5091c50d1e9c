//! Tools that may be missing, and what they print.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::process::Command;
use tokio::time::timeout;

/// How long a tool may run.
const LIMIT: Duration = Duration::from_secs(120);

/// On CI, a tool that is missing is a failure.
fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// Notes that a tool is missing; on CI that is an error.
pub(crate) fn is_missing(why: &str) -> anyhow::Result<()> {
    ensure!(!is_ci(), "{why}");
    println!("skipped: {why}");
    Ok(())
}

/// Whether a program runs with this argument. If not, prints that; on CI that is an error.
pub(crate) async fn has(program: &str, argument: &str, package: &str) -> anyhow::Result<bool> {
    let mut command = Command::new(program);
    command.arg(argument).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if command.status().await.is_ok() {
        return Ok(true);
    }
    is_missing(&format!("there is no {program}: apt-get install {package}"))?;
    Ok(false)
}

/// Runs a program to its end and returns its standard output. It must succeed.
pub(crate) async fn run(program: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let what = format!("{} {}", program.display(), arguments.join(" "));
    let ran = timeout(LIMIT, command.output()).await.with_context(|| format!("`{what}` does not end"))??;
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    ensure!(ran.status.success(), "`{what}`: {}\n{out}{err}", ran.status);
    Ok(out.into_owned())
}
