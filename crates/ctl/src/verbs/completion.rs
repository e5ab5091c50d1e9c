//! `ctl completion`: a script that completes ctl's command line in a shell.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::exit::Exit;
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
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ctl", &mut script);
    cx.out.line(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}
