//! The command line: global options and the list of verbs. Each verb's own arguments are in its file.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use types::ClusterId;

use crate::complete;
use crate::exit::Exit;
use crate::out::{ColorChoice, is_plain};
use crate::verbs::{
    backends, claims, completion, down, drain, events, index, init, kill, kv, leave, logs, ls, members, node,
    routes, search, set_service, spec, status, up, validate, version,
};

const GLOBAL: &str = "Global options";
const AFTER_HELP: &str = "\
Examples:
  ctl up manifests/demo.yaml             start a cluster on this machine
  ctl members                            list the members and what each one does
  ctl set-service standby-1 api_gateway  change what a node does, while it runs
  ctl kv put greeting hello              store a key
  ctl search packages http proxy         search an index
  ctl down                               stop the cluster

Which cluster: --agent URL or COTERIE_AGENT for one elsewhere, --cluster NAME for one on this machine, \
else the newest on this machine.

Exit codes:
  0    done
  1    error, or `status` found something wrong
  2    wrong usage, bad manifest, or refused as invalid
  3    the cluster did not converge in time
  4    no agent reachable
  5    conflict: another command or state is in the way
  130  interrupted

Files: $COTERIE_STATE_DIR, else $XDG_STATE_HOME/coterie, else ~/.local/state/coterie: run/ holds records \
and logs, data/ is what the agents keep, store/ the object store of clusters that name no other.";

/// Starts Coterie clusters on this machine, inspects them and changes them
#[derive(Debug, Parser)]
#[command(name = "ctl", version, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// Any agent of a cluster elsewhere: http://host:port [env: COTERIE_AGENT]
    #[arg(long, global = true, value_name = "URL", conflicts_with = "cluster", help_heading = GLOBAL)]
    pub(crate) agent: Option<String>,
    /// A cluster on this machine, by its name
    #[arg(long, global = true, value_name = "NAME", help_heading = GLOBAL, add = complete::clusters())]
    pub(crate) cluster: Option<ClusterId>,
    /// Colour: auto (on a terminal, unless NO_COLOR is set or TERM is dumb), always or never
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "WHEN",
        hide_possible_values = true,
        help_heading = GLOBAL
    )]
    pub(crate) color: ColorChoice,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Start a cluster on this machine, or its missing nodes
    Up(up::Args),
    /// Stop a cluster on this machine, and prove that nothing is left
    Down(down::Args),
    /// List the clusters on this machine
    Ls(ls::Args),
    /// List the members of a cluster
    Members(members::Args),
    /// Show the health of a cluster on one screen; exit code 1 if something is wrong
    Status(status::Args),
    /// Change what a node does, while it runs
    SetService(set_service::Args),
    /// Make a node finish its requests and refuse new ones
    Drain(drain::Args),
    /// Make a node leave the cluster and exit
    Leave(leave::Args),
    /// Start a stopped node on this machine
    Start(node::StartArgs),
    /// Make a node on this machine leave and exit, without a restart
    Stop(node::StopArgs),
    /// Make a node on this machine leave, and start it again
    Restart(node::RestartArgs),
    /// Send a signal to a node's process on this machine
    Kill(kill::Args),
    /// Show what nodes on this machine have logged
    Logs(logs::Args),
    /// Show what happened in a cluster
    Events(events::Args),
    /// Show what each service runs with
    Spec(spec::Args),
    /// Show who owns which shard
    Claims(claims::Args),
    /// Show where gateways send requests, and why a backend gets none
    Backends(backends::Args),
    /// Show the routes of a gateway, and which one takes a request
    Routes(routes::Args),
    /// Read and write keys of the cluster's storage
    Kv(kv::Args),
    /// Search the documents of an index
    Search(search::Args),
    /// Create and fill the indexes of the cluster's search
    Index(index::Args),
    /// Check a manifest
    Validate(validate::Args),
    /// Write a commented manifest to start from
    Init(init::Args),
    /// Print a completion script for a shell
    Completion(completion::Args),
    /// Print the version of ctl, and of each agent that is reached
    Version(version::Args),
}

/// Prints the candidates if a shell requests completion. Returns whether it did.
pub(crate) fn complete() -> Result<bool, clap::Error> {
    let words = std::env::args_os();
    clap_complete::CompleteEnv::with_factory(Cli::command).var(complete::VARIABLE).try_complete(words, None)
}

/// Parses the command line. Help and errors are coloured according to `--color` and the environment, which clap does
/// not read.
pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let words: Vec<OsString> = words.into_iter().collect();
    let command = Cli::command().color(help_color(&words));
    Cli::from_arg_matches(&command.try_get_matches_from(words)?)
}

/// The colour choice in the words, which need not be a valid command line.
fn help_color(words: &[OsString]) -> clap::ColorChoice {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let joined = words.iter().find_map(|word| word.strip_prefix("--color="));
    let apart = || words.iter().skip_while(|word| *word != "--color").nth(1).map(AsRef::as_ref);
    match joined.or_else(apart) {
        Some("never") => clap::ColorChoice::Never,
        Some("always") => clap::ColorChoice::Always,
        _ if is_plain() => clap::ColorChoice::Never,
        _ => clap::ColorChoice::Auto,
    }
}

/// Help and version go to stdout with exit code 0, mistakes to stderr with exit code 2.
pub(crate) fn print_clap_error(error: &clap::Error) -> ExitCode {
    let exit = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
    // If the reader is gone, the error is not needed.
    let _ = error.print();
    exit.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_is_coloured_according_to_the_flag() {
        let color = |words: &str| help_color(&words.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert_eq!(color("ctl --color never --help"), clap::ColorChoice::Never);
        assert_eq!(color("ctl --help --color=always"), clap::ColorChoice::Always);
    }

    #[test]
    fn the_command_line_is_valid_and_every_verb_has_examples() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Examples:\n  ctl "), "{}", verb.get_name());
        }
    }

    /// All verbs and verbs of verbs, with the words that call them.
    fn verbs(command: &clap::Command, words: &[String], all: &mut Vec<(Vec<String>, clap::Command)>) {
        for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
            let words = [words, &[verb.get_name().to_owned()]].concat();
            verbs(verb, &words, all);
            all.push((words, verb.clone()));
        }
    }

    #[test]
    fn every_duration_and_number_has_a_range_that_help_and_refusals_state() {
        let mut all = Vec::new();
        verbs(&Cli::command(), &["ctl".to_owned()], &mut all);
        let mut found = 0;
        for (words, verb) in &all {
            for arg in verb.get_arguments() {
                let names: Vec<_> = arg
                    .get_value_names()
                    .unwrap_or_default()
                    .iter()
                    .map(clap::builder::Str::as_str)
                    .collect();
                let (extremes, hint) = match names[..] {
                    ["TIME"] => (["18446744073709551615s", "99999999999999999999y", "soon"], "to "),
                    ["N"] => (["18446744073709551616", "1e9", "-1"], "to "),
                    _ => continue,
                };
                let Some(flag) = arg.get_long() else { panic!("{words:?}: {arg} has no long name") };
                found += 1;
                for extreme in extremes {
                    let given = words.iter().cloned().chain([format!("--{flag}={extreme}")]);
                    let error = Cli::try_parse_from(given).expect_err("it is beyond every range").to_string();
                    let is_stated = error.contains("a duration from ")
                        || error.contains("a whole number from ")
                        || error.contains("from 0 to 65535");
                    assert!(is_stated, "{words:?} --{flag}={extreme}: {error}");
                }
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains(hint) || help.contains("version"), "{words:?} --{flag}: {help}");
            }
        }
        assert!(found >= 9, "{found} of them");
    }

    #[test]
    fn every_example_is_a_valid_command_line() {
        let mut command = Cli::command();
        command.build();
        let mut texts = vec![AFTER_HELP.to_owned()];
        texts.extend(
            command.get_subcommands().filter_map(|verb| verb.get_after_help()).map(ToString::to_string),
        );
        for text in texts {
            for line in text.lines().filter(|line| line.starts_with("  ctl ")) {
                let words = line.trim().split("  ").next().unwrap().split(" | ").next().unwrap();
                let words = words.split(" > ").next().unwrap().split(" < ").next().unwrap();
                let parsed = Cli::try_parse_from(words.split(' ').filter(|word| !word.is_empty()));
                assert!(parsed.is_ok(), "{words}: {}", parsed.unwrap_err());
            }
        }
    }
}
