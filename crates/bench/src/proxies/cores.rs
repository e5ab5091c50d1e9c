//! The two cores: one for the proxy that is measured, the other for the load and the backends.

use std::process::Stdio;

use anyhow::{Context, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::process::Command;

/// Two different cores of this machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cores {
    pub(crate) proxy: usize,
    pub(crate) load: usize,
}

impl Cores {
    /// Checks that both cores can be used.
    pub(crate) async fn new(proxy: usize, load: usize) -> anyhow::Result<Self> {
        if proxy == load {
            bail!(
                "--proxy-core and --load-core are both {proxy}; the load would slow the proxies down, so name two cores"
            );
        }
        for core in [proxy, load] {
            let mut command = pinned(core, &Command::new("true"));
            let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
            let output =
                output.context("taskset can't be started; install it: apt-get install util-linux")?;
            if !output.status.success() {
                let why = String::from_utf8_lossy(&output.stderr);
                bail!("core {core} can't be used: {}", why.trim());
            }
        }
        Ok(Self { proxy, load })
    }
}

/// The same command, on one core.
pub(crate) fn pinned(core: usize, command: &Command) -> Command {
    let command = command.as_std();
    let mut pinned = Command::new("taskset");
    pinned.arg("-c").arg(core.to_string()).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => pinned.env(name, value),
            None => pinned.env_remove(name),
        };
    }
    pinned
}

/// Lets this process and those that it starts open as many files as the system allows.
pub(crate) fn raise_file_limit() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).context("raising the limit of open files")
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn a_pinned_command_keeps_its_arguments_and_environment() {
        let mut command = Command::new("agent");
        command.args(["--store", "x y"]).env("A", "1").env_remove("B");
        let pinned = pinned(3, &command);
        let pinned = pinned.as_std();
        assert_eq!(pinned.get_program(), "taskset");
        assert_eq!(pinned.get_args().collect::<Vec<_>>(), ["-c", "3", "agent", "--store", "x y"]);
        let envs: Vec<_> = pinned.get_envs().collect();
        assert_eq!(envs, [(OsStr::new("A"), Some(OsStr::new("1"))), (OsStr::new("B"), None)]);
    }

    #[tokio::test]
    async fn the_load_and_the_proxies_need_different_cores() {
        let error = Cores::new(0, 0).await.unwrap_err();
        assert!(error.to_string().contains("name two cores"), "{error}");
    }

    #[tokio::test]
    async fn a_core_that_does_not_exist_is_named() {
        let error = Cores::new(0, 100_000).await.unwrap_err();
        assert!(error.to_string().starts_with("core 100000 can't be used: "), "{error}");
    }
}
