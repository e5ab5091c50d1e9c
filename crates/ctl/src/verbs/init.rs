//! `ctl init`: a commented manifest to start from.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use anyhow::Context;

use crate::exit::{Exit, Failure};
use crate::out::say;
use crate::reach::Cx;

const STARTER: &str = include_str!("starter.yaml");

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl init
  ctl init clusters/test.yaml
  ctl init - > test.yaml")]
pub(crate) struct Args {
    /// Where to write it, `-` for standard output; an existing file is left alone
    #[arg(default_value = "coterie.yaml")]
    file: PathBuf,
}

pub(crate) fn run(args: &Args, cx: &Cx) -> anyhow::Result<Exit> {
    if args.file.as_os_str() == "-" {
        cx.out.line(STARTER)?;
        return Ok(Exit::Ok);
    }
    let shown = args.file.display();
    let mut file = match OpenOptions::new().write(true).create_new(true).open(&args.file) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(Failure::new(Exit::Error, format!("{shown} exists already"))
                .hint("name another file, as in `ctl init cluster.yaml`")
                .into());
        }
        Err(error) => return Err(error).with_context(|| format!("creating {shown}")),
    };
    file.write_all(STARTER.as_bytes()).with_context(|| format!("writing {shown}"))?;
    say(&format!("wrote {shown}; `ctl up {shown}` starts it"));
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_starter_is_a_manifest_without_mistakes() {
        let checked = manifest::parse("coterie.yaml", STARTER, &|_| None, None);
        let manifest = checked.unwrap_or_else(|mistakes| panic!("{mistakes}")).manifest;
        assert_eq!(manifest.nodes.len(), 4);
        let tree = manifest::read_tree("coterie.yaml", STARTER, &|_| None);
        assert!(tree.is_ok());
    }
}
