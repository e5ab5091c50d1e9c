//! `ctl completion`: a script that completes ctl's command line in a shell, including nodes and clusters.

use clap_complete::Shell;
use clap_complete::env::Shells;

use crate::complete;
use crate::exit::{Exit, Failure};
use crate::reach::Cx;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl completion bash > ~/.local/share/bash-completion/completions/ctl
  ctl completion zsh > ~/.zfunc/_ctl
  ctl completion fish > ~/.config/fish/completions/ctl.fish")]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: &Args, cx: &Cx) -> anyhow::Result<Exit> {
    let shell = args.shell.to_string();
    let shells = Shells::builtins();
    let shell = shells.completer(&shell).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("`{shell}` is not completed"))
            .hint(format!("known are {}", shells.names().collect::<Vec<_>>().join(", ")))
    })?;
    let mut script = Vec::new();
    // The script calls the ctl on the PATH, in whatever version it then has.
    shell.write_registration(complete::VARIABLE, "ctl", "ctl", "ctl", &mut script)?;
    cx.out.line(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}
