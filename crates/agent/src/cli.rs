//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Every flag is also an environment variable (--listen-addr is COTERIE_LISTEN_ADDR) and a key of --config FILE \
(listen_addr). Flags beat the environment, the environment beats the file, the file beats the defaults; \
`agent config` shows the origin of each value.

Examples:
  agent --demo
  agent --listen-addr 127.0.0.1:8080 --service api_gateway
  agent --listen-addr 127.0.0.1:0 --seed 127.0.0.1:8080 --service standby
  agent --listen-addr 127.0.0.1:0 --seed 127.0.0.1:8080 --service storage --shard 1 --shards 2
  agent --listen-addr 127.0.0.1:0 --seed 127.0.0.1:8080 --service sessions --type storage
  agent config --listen-addr 127.0.0.1:8080

Signals: TERM, INT and QUIT leave the cluster, and a second one aborts; HUP reopens log files, or leaves if the agent's \
terminal was closed; USR1 and USR2 do nothing.

Exit codes: 0 left on request, 1 error, 2 wrong flag, variable or config file, 130 aborted.";

/// One node of a Coterie cluster: it gossips with the others, serves an HTTP API and runs one role.
#[derive(Debug, Parser)]
#[command(name = "agent", version, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
    #[command(flatten)]
    pub(crate) flags: Flags,
}

/// What to do instead of running a node.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Print every value with its origin: flag, environment, file or default
    Config {
        /// How to print it
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Print the settings of a service type, with their ranges and defaults
    #[command(after_help = "Examples:\n  \
        agent settings storage\n  \
        agent settings api_gateway -o json")]
    Settings {
        /// The service type
        #[arg(value_name = "TYPE")]
        service: String,
        /// How to print it: for people, or its JSON Schema
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Check settings of service types: JSON on standard input, JSON on standard output
    #[command(after_help = "Example:\n  \
        echo '{\"services\": {\"api_gateway\": {\"routes\": []}}}' | agent validate\n  \
        agent validate --schema")]
    Validate {
        /// Print the JSON Schema of each service type's settings, with the range of each number; read nothing
        #[arg(long)]
        schema: bool,
    },
    /// Write what services run with to the store: JSON on standard input, JSON on standard output
    #[command(after_help = "Example:\n  \
        echo '{\"services\": {\"storage\": {\"settings\": {}, \"shards\": 2}}}' | agent apply --cluster demo")]
    Apply,
    /// Print a completion script for a shell
    #[command(after_help = "Examples:\n  \
        agent completion bash > ~/.local/share/bash-completion/completions/agent\n  \
        agent completion zsh > ~/.zfunc/_agent")]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Run an agent as its parent, and restart it when it fails; `ctl up` starts this
    Supervise {
        /// What to run: a file that ctl wrote
        file: PathBuf,
        /// Take over an agent whose parent has died
        #[arg(long, value_name = "PID")]
        adopt: Option<u32>,
    },
    /// Print the version
    Version,
}

/// How to print something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

/// The flags of a node. Their values are texts, which are parsed together with those of the environment and the file.
#[derive(Debug, Default, Args)]
pub(crate) struct Flags {
    /// HTTP listener; port 0 takes any free one [default: 127.0.0.1:10000]
    #[arg(long, global = true, value_name = "ADDR")]
    pub(crate) listen_addr: Option<String>,
    /// Gossip address (UDP) [default: same as --listen-addr; port 0: the port number that HTTP got]
    #[arg(long, global = true, value_name = "ADDR")]
    pub(crate) gossip_addr: Option<String>,
    /// IP address under which the other nodes reach this one [default: derived from --listen-addr]
    #[arg(long, global = true, value_name = "IP")]
    pub(crate) advertise_addr: Option<String>,
    /// Name of the node, unique in its cluster [default: generated once, kept in the data folder]
    #[arg(long, global = true, value_name = "ID")]
    pub(crate) node_id: Option<String>,
    /// Gossip address of a node to join, host:port; repeat it, or separate with commas
    #[arg(long, global = true, value_name = "HOST:PORT", value_delimiter = ',')]
    pub(crate) seed: Option<Vec<String>>,
    /// Service to run, or standby [default: api_gateway]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) service: Option<String>,
    /// Type of the service, which determines what runs [default: the type in the service's spec, else the service's
    /// name]
    #[arg(long = "type", global = true, value_name = "TYPE")]
    pub(crate) service_type: Option<String>,
    /// Shard, for sharded service types, 0 to 65535 [default: 0]
    #[arg(long, global = true, value_name = "N")]
    pub(crate) shard: Option<String>,
    /// How many shards the service has, 1 to 65536, if the store has no number yet; it can't change once a node has
    /// started with it [default: 1]
    #[arg(long, global = true, value_name = "N")]
    pub(crate) shards: Option<String>,
    /// The only services that the node takes over on its own while it is a standby; repeat it, or separate with commas
    /// [default: all that it can run]
    #[arg(long, global = true, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) runs: Option<Vec<String>>,
    /// Cluster to belong to [default: coterie]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) cluster: Option<String>,
    /// How fast to gossip: local, lan or wan [default: lan]
    #[arg(long, global = true, value_name = "PROFILE")]
    pub(crate) profile: Option<String>,
    /// Where to keep what must survive a restart [default: XDG state folder, by cluster and node]
    #[arg(long, global = true, value_name = "FOLDER")]
    pub(crate) data_dir: Option<String>,
    /// Object store of the cluster: a folder or a URL, s3://bucket/prefix, gs://, az:// [default: folder `store` beside
    /// the data folders]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) store: Option<String>,
    /// Where the node is: a rack, a room, a region
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) zone: Option<String>,
    /// Host names that requests to the node may have, besides addresses, names without a dot, and those below
    /// .localhost, .local and .internal; separate them with commas, or write `any` [default: none]
    #[arg(long, global = true, value_name = "NAMES")]
    pub(crate) hosts: Option<String>,
    /// Label that the other nodes see, key=value; repeat it, or separate with commas
    #[arg(long, global = true, value_name = "KEY=VALUE", value_delimiter = ',')]
    pub(crate) label: Option<Vec<String>>,
    /// Config file (YAML) with the same keys in snake case, and `settings` by service
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<String>,
    /// What to log, as in RUST_LOG [default: info,chitchat=error]
    #[arg(long, global = true, value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// How to log: text or json [default: text]
    #[arg(long, global = true, value_name = "FORMAT")]
    pub(crate) log_format: Option<String>,
    /// File to log to instead of standard error; at 10 MiB it becomes FILE.1, up to FILE.4; SIGHUP reopens it
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) log_file: Option<String>,
    /// Allow addresses other than loopback, though nothing is encrypted or authenticated yet
    #[arg(long, global = true)]
    pub(crate) insecure: bool,
    /// Forget the role that an earlier command gave this node
    #[arg(long, global = true)]
    pub(crate) reset_role: bool,
    /// Run five nodes in this one process, on free ports, with data in a temporary folder
    #[arg(long, global = true)]
    pub(crate) demo: bool,
}

/// Accepts the underscore spelling of every flag: `--listen_addr` is `--listen-addr`.
pub(crate) fn with_hyphens(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    args.into_iter()
        .map(|arg| match arg.to_str() {
            Some(text) if text.starts_with("--") => {
                let (flag, value) = match text.split_once('=') {
                    Some((flag, value)) => (flag, Some(value)),
                    None => (text, None),
                };
                let flag = flag.replace('_', "-");
                OsString::from(value.map_or(flag.clone(), |value| format!("{flag}={value}")))
            }
            _ => arg,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Flags {
        let args = args.iter().map(OsString::from);
        Cli::try_parse_from(with_hyphens(args)).unwrap().flags
    }

    #[test]
    fn underscores_in_flags_are_hyphens_and_values_are_unchanged() {
        let flags =
            parse(&["agent", "--listen_addr", "a_b", "--node_id=c_d", "--seed", "x_1,y", "--seed", "z"]);
        assert_eq!(flags.listen_addr.as_deref(), Some("a_b"));
        assert_eq!(flags.node_id.as_deref(), Some("c_d"));
        assert_eq!(flags.seed.unwrap(), ["x_1", "y", "z"]);
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
