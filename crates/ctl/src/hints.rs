//! Commands in messages, as the user would type them.
//!
//! Messages name commands as `ctl up` in backquotes. They are printed with the binary as it was called and with the
//! cluster in use, so that the user can paste any hint, including one from an agent.

use std::sync::OnceLock;

use types::ClusterId;

/// Verbs that do not act on one cluster.
const WITHOUT_CLUSTER: [&str; 6] = ["completion", "help", "init", "ls", "validate", "version"];
/// Verbs that act only on clusters of this machine and refuse `--agent`.
const LOCAL: [&str; 7] = ["down", "kill", "logs", "restart", "start", "stop", "up"];

/// Which cluster the command line is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meant {
    /// One on this machine.
    Cluster(ClusterId),
    /// One elsewhere, by the URL of an agent.
    Agent(String),
}

static PROGRAM: OnceLock<String> = OnceLock::new();
static MEANT: OnceLock<Meant> = OnceLock::new();

/// Stores how ctl was called. Only the first call has an effect.
pub(crate) fn set_program(called: Option<std::ffi::OsString>) {
    let called = called.and_then(|called| called.into_string().ok()).filter(|called| !called.is_empty());
    let _ = PROGRAM.set(called.map_or_else(|| "ctl".to_owned(), |called| quoted(&called)));
}

/// Stores which cluster is meant. Only the first call has an effect.
pub(crate) fn set_meant(meant: Meant) {
    let _ = MEANT.set(meant);
}

/// A text, with its commands as the user would type them.
pub(crate) fn as_typed(text: &str) -> String {
    rewritten(text, program(), MEANT.get())
}

/// One command, passed without the program's name, as the user would type it.
pub(crate) fn command(rest: &str) -> String {
    line(rest, program(), MEANT.get())
}

/// The agent that the environment names.
pub(crate) fn agent_from_env() -> Option<String> {
    std::env::var("COTERIE_AGENT").ok().filter(|url| !url.is_empty())
}

fn program() -> &'static str {
    PROGRAM.get().map_or("ctl", String::as_str)
}

/// Pure.
fn rewritten(text: &str, program: &str, meant: Option<&Meant>) -> String {
    let mut parts = text.split('`');
    let mut typed = parts.next().unwrap_or_default().to_owned();
    let mut is_code = true;
    for part in parts {
        typed.push('`');
        match part.strip_prefix("ctl ").filter(|_| is_code) {
            Some(rest) => typed.push_str(&line(rest, program, meant)),
            None => typed.push_str(part),
        }
        is_code = !is_code;
    }
    typed
}

fn line(rest: &str, program: &str, meant: Option<&Meant>) -> String {
    let mut words = rest.split(' ');
    let verb = words.next().unwrap_or_default();
    let is_complete = WITHOUT_CLUSTER.contains(&verb)
        || verb.starts_with('-')
        || words.any(|word| matches!(word, "--cluster" | "--agent"));
    match meant {
        Some(Meant::Cluster(cluster)) if !is_complete => format!("{program} --cluster {cluster} {rest}"),
        Some(Meant::Agent(url)) if !is_complete && !LOCAL.contains(&verb) => {
            format!("{program} --agent {} {rest}", quoted(url))
        }
        _ => format!("{program} {rest}"),
    }
}

/// A word, quoted for a shell if needed.
pub(crate) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:@%+=,~".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_in_backquotes_name_the_program_as_called_and_the_cluster_meant() {
        let cluster = Meant::Cluster("demo".parse().unwrap());
        let agent = Meant::Agent("http://h:1".to_owned());
        for (text, meant, expected) in [
            ("`ctl up` starts it", None, "`target/debug/ctl up` starts it"),
            ("`ctl up` starts it", Some(&cluster), "`target/debug/ctl --cluster demo up` starts it"),
            ("`ctl up` starts it", Some(&agent), "`target/debug/ctl up` starts it"),
            ("see `ctl claims`", Some(&agent), "see `target/debug/ctl --agent http://h:1 claims`"),
            (
                "`ctl init` or `ctl validate`",
                Some(&cluster),
                "`target/debug/ctl init` or `target/debug/ctl validate`",
            ),
            ("`ctl down --cluster b`", Some(&cluster), "`target/debug/ctl down --cluster b`"),
            ("no `storage` here, ctl up", Some(&cluster), "no `storage` here, ctl up"),
            ("`a``ctl ls`", None, "`a``target/debug/ctl ls`"),
            ("an open `ctl members", Some(&cluster), "an open `target/debug/ctl --cluster demo members"),
        ] {
            assert_eq!(rewritten(text, "target/debug/ctl", meant), expected);
        }
    }

    #[test]
    fn a_word_is_quoted_where_a_shell_needs_it() {
        for (word, expected) in
            [("ctl", "ctl"), ("/a b/ctl", "'/a b/ctl'"), ("it's", r"'it'\''s'"), ("", "''"), ("a$b", "'a$b'")]
        {
            assert_eq!(quoted(word), expected);
        }
    }
}
