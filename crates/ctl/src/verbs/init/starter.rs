//! The text of a manifest to start from, for an agent with certain service types. Pure.

use serde_json::Value;
use types::{ClusterId, ServiceType};

use crate::render::clean;

/// Lines of prose are at most this long.
const WIDTH: usize = 100;
const GATEWAY: &str = "api_gateway";

const HEAD: &str = "\
# A Coterie cluster. `ctl validate` checks this file, `ctl up` starts its nodes on this machine.

# The cluster's name: gossip from other clusters is refused, and ctl's --cluster takes it.
cluster: NAME

# How fast it gossips: local (one machine), lan or wan.
profile: local

# What all nodes of a service have in common. A service has the name of its type, or says `type: TYPE`.
# Settings that are commented out have their defaults; `agent settings TYPE` describes each of them in full.
";

const ROUTES: [&str; 5] = [
    "# A path prefix to one or more URLs: `python3 -m http.server 8000` is then seen under GATEWAY/files/,",
    "# where GATEWAY is the address that `ctl members` shows under ENDPOINTS.",
    "routes:",
    "  - prefix: /files",
    "    to: [http://127.0.0.1:8000]",
];

const NODES: &str = "
# One agent each. Ports are chosen unless given: `listen: 127.0.0.1:10000`, `gossip: 127.0.0.1:10000`.
# Variables are replaced: ${NAME} or ${NAME:-default}.
nodes:
";

const STANDBY: &str = "  # Three standbys: standby-1, standby-2, standby-3.
  - id: standby
    service: standby
    count: 3
";

/// A service type that the agent has.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    pub(super) name: ServiceType,
    /// What it does, in a line.
    pub(super) about: String,
    pub(super) sharded: bool,
    pub(super) replicated: bool,
    /// The form of its settings.
    pub(super) schema: Value,
}

/// The manifest. It runs a gateway, or else the first type whose settings all have defaults; the other types are there to
/// be uncommented.
pub(super) fn manifest(types: &[Shown], cluster: Option<&ClusterId>) -> String {
    let head = HEAD.replace("NAME", &scalar(cluster.map_or("my-cluster", ClusterId::as_str)));
    let gateway = types.iter().find(|shown| shown.name.as_str() == GATEWAY);
    let used = gateway.or_else(|| types.iter().find(|shown| !shown.must_be_set()));
    let mut services = Vec::new();
    if let Some(used) = used {
        services.extend(used.used());
    }
    for other in types.iter().filter(|other| used.is_none_or(|used| used.name != other.name)) {
        services.push(String::new());
        services.extend(prose(&other.about));
        services.extend(other.service(2).iter().map(|line| format!("# {line}")));
    }
    let key = if used.is_some() { "services:" } else { "# services:" };
    let services = services.iter().map(|line| indented(2, line));
    let lines: Vec<_> = std::iter::once(key.to_owned()).chain(services).collect();
    format!("{head}{}\n{NODES}{}{STANDBY}", lines.join("\n"), used.map(Shown::node).unwrap_or_default())
}

impl Shown {
    /// The gateway, when nothing is known of its settings.
    pub(super) fn gateway() -> Self {
        let name = GATEWAY.parse().expect("the name follows the rule");
        Self { name, about: String::new(), sharded: false, replicated: false, schema: Value::Null }
    }

    /// A service of this type as lines of YAML. Settings without a default are commented out.
    fn service(&self, shards: u32) -> Vec<String> {
        let mut below = self.layout(shards);
        let settings = self.settings("");
        if !settings.is_empty() {
            // A key whose value is all commented out has none, which is a mistake.
            let is_bare = settings.iter().all(|line| is_comment(line));
            below.push(if is_bare { "# settings:" } else { "settings:" }.to_owned());
            below.extend(settings.iter().map(|line| indented(2, line)));
        }
        self.with(&below)
    }

    /// The same with all settings commented out, but for some routes of a gateway.
    fn used(&self) -> Vec<String> {
        let mut below = self.layout(1);
        if self.name.as_str() == GATEWAY {
            below.push("settings:".to_owned());
            below.extend(ROUTES.map(|line| indented(2, line)));
            below.extend(self.settings("routes").iter().map(|line| indented(2, &commented(line))));
        } else {
            let settings = self.settings("");
            below.extend((!settings.is_empty()).then(|| "# settings:".to_owned()));
            below.extend(settings.iter().map(|line| format!("#   {line}")));
        }
        self.with(&below)
    }

    fn with(&self, below: &[String]) -> Vec<String> {
        let is_bare = below.iter().all(|line| is_comment(line));
        let first = format!("{}:{}", self.name, if is_bare { " {}" } else { "" });
        std::iter::once(first).chain(below.iter().map(|line| indented(2, line))).collect()
    }

    fn layout(&self, shards: u32) -> Vec<String> {
        let shards = self.sharded.then(|| format!("shards: {shards}"));
        shards.into_iter().chain(self.replicated.then(|| "replicas: 1".to_owned())).collect()
    }

    /// Each setting but one, with what it is about.
    fn settings(&self, but: &str) -> Vec<String> {
        let properties = self.schema["properties"].as_object().into_iter().flatten();
        let shown = properties.filter(|(key, _)| *key != but).flat_map(|(key, form)| {
            let about = form["description"].as_str().unwrap_or_default();
            let setting = match form.get("default").filter(|default| !default.is_null()) {
                Some(default) => format!("{}: {}", scalar(key), value(default)),
                None => format!("# {}:", scalar(key)),
            };
            prose(first_sentence(about)).into_iter().chain([setting])
        });
        shown.collect()
    }

    /// Whether some setting has no default and must be given.
    fn must_be_set(&self) -> bool {
        self.schema["required"].as_array().is_some_and(|required| !required.is_empty())
    }

    fn node(&self) -> String {
        let shard = if self.sharded { "    shard: 0\n" } else { "" };
        let id = if self.name.as_str() == GATEWAY { "gateway" } else { self.name.as_str() };
        format!("  - id: {id}-1\n    service: {}\n{shard}    labels:\n      zone: a\n", self.name)
    }
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

fn commented(line: &str) -> String {
    if is_comment(line) { line.to_owned() } else { format!("# {line}") }
}

fn indented(by: usize, line: &str) -> String {
    if line.is_empty() { String::new() } else { format!("{}{line}", " ".repeat(by)) }
}

fn first_sentence(text: &str) -> &str {
    let end = text.find(". ").or_else(|| text.find(".\n"));
    end.map_or(text, |end| &text[..=end])
}

/// Text as comments of one or more lines.
fn prose(text: &str) -> Vec<String> {
    let text = clean(text);
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("# {word}")),
        }
    }
    lines
}

/// A default, as JSON where YAML could read it in another way: JSON is YAML as well.
fn value(default: &Value) -> String {
    match default {
        Value::String(text) => scalar(text),
        other => other.to_string(),
    }
}

fn scalar(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let begins = |c: char| c.is_ascii_alphabetic() || c == '_';
    // A number with a unit, or an address with a port, is text as well.
    let is_amount = text.starts_with(|c: char| c.is_ascii_digit())
        && text.ends_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_alphanumeric())
        && !text.contains(['e', 'x', 'o']);
    let is_address = text.parse::<std::net::SocketAddr>().is_ok_and(|address| address.is_ipv4());
    let is_plain = text.starts_with(begins) && text.chars().all(is_word) && !WORDS_OF_YAML.contains(&text);
    match is_plain || is_amount || is_address {
        true => text.to_owned(),
        false => Value::from(text).to_string(),
    }
}

/// Words that some reader of YAML does not take for text.
const WORDS_OF_YAML: [&str; 15] = [
    "true", "True", "TRUE", "false", "False", "FALSE", "null", "Null", "NULL", "yes", "no", "on", "off", "y",
    "n",
];

#[cfg(test)]
mod tests;
