//! The agent's configuration, from four sources in this order: flags, environment, config file, defaults.

mod file;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use runtime::{Config, StoreUrl};
use serde_json::{Value, json};
use types::{ClusterId, Role, ServiceName, ShardId};

use crate::cli::{Flags, Output};
use crate::log::DEFAULT_FILTER;
use crate::settings::file::File;

/// The source of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Flag,
    Environment,
    File,
    Default,
    /// Derived from other values.
    Derived,
}

impl Origin {
    fn as_str(self) -> &'static str {
        match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::File => "file",
            Self::Default => "default",
            Self::Derived => "derived",
        }
    }
}

/// Why the configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// Correct the value as the message describes.
    #[error("{name} ({origin}): `{text}` {problem}")]
    Bad { name: String, origin: &'static str, text: String, problem: String },
    /// Give a file that can be read.
    #[error("config file {path} can't be read")]
    File { path: String, source: std::io::Error },
    /// Leave out the other flag.
    #[error("--demo chooses its own addresses, names and roles, so it can't be combined with --{0}")]
    DemoWith(String),
    /// Write it in UTF-8.
    #[error("{0} (environment) is not in UTF-8")]
    NotUtf8(String),
    /// Set --data-dir and --store.
    #[error("there is no home folder for data; set --data-dir and --store")]
    NoHome,
}

/// The keys whose value is one text: the name, and the default if there is one.
const TEXTS: [(&str, &str); 20] = [
    ("listen_addr", "127.0.0.1:10000"),
    ("gossip_addr", ""),
    ("advertise_addr", ""),
    ("node_id", ""),
    ("service", "api_gateway"),
    ("type", ""),
    ("shard", "0"),
    ("shards", ""),
    ("cluster", "coterie"),
    ("profile", "lan"),
    ("data_dir", ""),
    ("store", ""),
    ("zone", ""),
    ("hosts", ""),
    ("log", DEFAULT_FILTER),
    ("log_format", "text"),
    ("log_file", ""),
    ("insecure", "false"),
    ("reset_role", "false"),
    ("demo", "false"),
];
/// The keys whose value is a list.
const LISTS: [&str; 3] = ["seed", "label", "runs"];
/// Keys that only the file has.
const FILE_ONLY: [&str; 4] = ["seeds", "labels", "settings", "config"];

/// Every value with its origin.
#[derive(Debug)]
pub(crate) struct Settings {
    texts: BTreeMap<&'static str, (String, Origin)>,
    lists: BTreeMap<&'static str, (Vec<String>, Origin)>,
    settings: BTreeMap<ServiceName, Value>,
    file: Option<String>,
}

type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Checks that the agent's environment variables are UTF-8: others would be ignored silently.
pub(crate) fn check_environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<(), SettingsError> {
    for (name, value) in variables {
        let name = name.to_string_lossy();
        if name.starts_with("COTERIE_") && value.to_str().is_none() {
            return Err(SettingsError::NotUtf8(name.into_owned()));
        }
    }
    Ok(())
}

impl Settings {
    /// Gathers all values. Reads no other file than the config file.
    pub(crate) fn gather(flags: &Flags, environment: Environment<'_>) -> anyhow::Result<Self> {
        let from_env = |key: &str| environment(&variable(key)).filter(|value| !value.is_empty());
        let path = flags.config.clone().or_else(|| from_env("config"));
        let file = path.as_deref().map(|path| File::read(path, environment)).transpose()?.unwrap_or_default();
        let mut texts = BTreeMap::new();
        for (key, default) in TEXTS {
            let legacy_log = (key == "log").then(|| environment("RUST_LOG")).flatten();
            let value = flag_text(flags, key)
                .map(|value| (value, Origin::Flag))
                .or_else(|| from_env(key).or(legacy_log).map(|value| (value, Origin::Environment)))
                .or_else(|| file.texts.get(key).map(|value| (value.clone(), Origin::File)))
                .unwrap_or_else(|| (default.to_owned(), Origin::Default));
            texts.insert(key, value);
        }
        let mut lists = BTreeMap::new();
        for key in LISTS {
            let flag = match key {
                "seed" => &flags.seed,
                "label" => &flags.label,
                _ => &flags.runs,
            };
            let value = flag
                .clone()
                .map(|value| (value, Origin::Flag))
                .or_else(|| from_env(key).map(|value| (split(&value), Origin::Environment)))
                .or_else(|| file.lists.get(key).map(|value| (value.clone(), Origin::File)))
                .unwrap_or_else(|| (Vec::new(), Origin::Default));
            lists.insert(key, value);
        }
        let mut gathered = Self { texts, lists, settings: file.settings, file: path };
        gathered.derive(environment)?;
        Ok(gathered)
    }

    /// Fills in values that are derived from others.
    fn derive(&mut self, environment: Environment<'_>) -> Result<(), SettingsError> {
        let demo = self.is_demo()?;
        let listen: std::net::SocketAddr = self.parsed("listen_addr")?;
        let is_given = |key: &str| !self.texts[key].0.is_empty();
        let (has_data, has_store) = (is_given("data_dir"), is_given("store"));
        if demo || (has_data && has_store) {
            return Ok(());
        }
        let root = state_root(environment).ok_or(SettingsError::NoHome)?;
        if !has_store {
            let path = root.join("store").display().to_string();
            self.texts.insert("store", (path, Origin::Derived));
        }
        if has_data {
            return Ok(());
        }
        let (node, _) = &self.texts["node_id"];
        let folder = if !node.is_empty() {
            node.clone()
        } else if listen.port() != 0 {
            format!("port-{}", listen.port())
        } else {
            // The port is not known yet, so the node gets its name now, and its folder is named after it.
            let id = runtime::generated_id().to_string();
            self.texts.insert("node_id", (id.clone(), Origin::Derived));
            id
        };
        let path = root.join("data").join(&self.texts["cluster"].0).join(folder);
        self.texts.insert("data_dir", (path.display().to_string(), Origin::Derived));
        Ok(())
    }

    /// Whether to run the demo with five nodes instead of one node.
    pub(crate) fn is_demo(&self) -> Result<bool, SettingsError> {
        let demo = self.parsed("demo")?;
        let chosen = |key: &&&str| self.texts[**key].1 == Origin::Flag;
        if demo
            && let Some(key) = [
                "insecure",
                "listen_addr",
                "gossip_addr",
                "advertise_addr",
                "node_id",
                "service",
                "type",
                "shard",
                "shards",
                "data_dir",
                "store",
            ]
            .iter()
            .find(chosen)
        {
            return Err(SettingsError::DemoWith(key.replace('_', "-")));
        }
        if demo && self.lists["seed"].1 == Origin::Flag {
            return Err(SettingsError::DemoWith("seed".to_owned()));
        }
        Ok(demo)
    }

    /// What to log.
    pub(crate) fn log_filter(&self) -> &str {
        &self.texts["log"].0
    }

    /// Whether to log as JSON.
    pub(crate) fn log_json(&self) -> Result<bool, SettingsError> {
        match self.texts["log_format"].0.as_str() {
            "text" => Ok(false),
            "json" => Ok(true),
            _ => Err(self.bad("log_format", "is neither text nor json")),
        }
    }

    /// The file to log to, if it is not standard error. The path is absolute, since the working folder may change.
    pub(crate) fn log_file(&self) -> Result<Option<PathBuf>, SettingsError> {
        let (text, _) = &self.texts["log_file"];
        if text.is_empty() {
            return Ok(None);
        }
        manifest::absolute(Path::new(text))
            .map(Some)
            .map_err(|error| self.bad("log_file", &error.to_string()))
    }

    /// The configuration for the runtime.
    pub(crate) fn config(&self) -> Result<Config, SettingsError> {
        Ok(Config {
            cluster: self.parsed("cluster")?,
            node_id: self.optional("node_id")?,
            listen: self.parsed("listen_addr")?,
            gossip: self.optional("gossip_addr")?,
            advertise: self.optional("advertise_addr")?,
            seeds: self.seeds()?,
            role: self.role()?,
            service_type: self.optional("type")?,
            runs: self.runs()?,
            shards: self.shards()?,
            command: Some(command_line(std::env::args_os())),
            profile: self.parsed("profile")?,
            labels: self.labels()?,
            zone: self.optional("zone")?,
            hosts: self.parsed("hosts")?,
            store: self.store()?,
            settings: self.settings.clone(),
            insecure: self.parsed("insecure")?,
            reset_role: self.parsed("reset_role")?,
            ..Config::new(self.data_dir()?)
        })
    }

    /// The path is absolute, since the working folder may change.
    fn data_dir(&self) -> Result<PathBuf, SettingsError> {
        let (text, _) = &self.texts["data_dir"];
        if text.is_empty() {
            // The demo sets its own.
            return Ok(PathBuf::new());
        }
        manifest::absolute(Path::new(text)).map_err(|error| self.bad("data_dir", &error.to_string()))
    }

    /// The store's URL; a folder may be given as a path.
    pub(crate) fn store(&self) -> Result<Option<StoreUrl>, SettingsError> {
        let (text, _) = &self.texts["store"];
        if text.is_empty() {
            return Ok(None);
        }
        let is_path = !text.contains(':');
        let url = if is_path {
            manifest::absolute(Path::new(text))
                .map_err(|error| self.bad("store", &error.to_string()))
                .and_then(|path| {
                    StoreUrl::folder(&path).map_err(|error| self.bad("store", &error.to_string()))
                })?
        } else {
            self.parsed("store")?
        };
        Ok(Some(url))
    }

    /// The cluster's name.
    pub(crate) fn cluster(&self) -> Result<ClusterId, SettingsError> {
        self.parsed("cluster")
    }

    /// Shard 0 is left out: it is the default of sharded types, and the other types have none.
    fn role(&self) -> Result<Role, SettingsError> {
        let (service, _) = &self.texts["service"];
        let shard: ShardId = self.parsed("shard")?;
        let shard = (shard != ShardId::default()).then_some(shard);
        Role::new(service, shard).map_err(|error| self.bad("service", &format!("is not a role: {error}")))
    }

    fn shards(&self) -> Result<Option<NonZeroU32>, SettingsError> {
        let (text, _) = &self.texts["shards"];
        if text.is_empty() {
            return Ok(None);
        }
        let most = ShardId::MAX + 1;
        match text.parse::<NonZeroU32>() {
            Ok(number) if number.get() <= most => Ok(Some(number)),
            _ => Err(self.bad("shards", &format!("is not a number from 1 to {most}"))),
        }
    }

    fn seeds(&self) -> Result<Vec<String>, SettingsError> {
        let (seeds, origin) = &self.lists["seed"];
        for seed in seeds {
            let port = seed.rsplit_once(':').map(|(host, port)| (host.is_empty(), port.parse::<u16>()));
            if !matches!(port, Some((false, Ok(1..)))) {
                return Err(SettingsError::Bad {
                    name: "seed".to_owned(),
                    origin: origin.as_str(),
                    text: seed.clone(),
                    problem: "is not host:port".to_owned(),
                });
            }
        }
        Ok(seeds.clone())
    }

    /// The only services that the node takes over; an empty list that was given means none.
    fn runs(&self) -> Result<Option<Vec<ServiceName>>, SettingsError> {
        let (names, origin) = &self.lists["runs"];
        let parsed = |name: &String| {
            name.parse().map_err(|error: types::IdError| SettingsError::Bad {
                name: "runs".to_owned(),
                origin: origin.as_str(),
                text: name.clone(),
                problem: format!("can't be read: {error}"),
            })
        };
        let runs = names.iter().map(parsed).collect::<Result<Vec<_>, _>>()?;
        Ok((*origin != Origin::Default).then_some(runs))
    }

    fn labels(&self) -> Result<BTreeMap<String, String>, SettingsError> {
        let (labels, origin) = &self.lists["label"];
        let pair = |label: &String| match label.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(SettingsError::Bad {
                name: "label".to_owned(),
                origin: origin.as_str(),
                text: label.clone(),
                problem: "is not key=value".to_owned(),
            }),
        };
        labels.iter().map(pair).collect()
    }

    fn optional<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>, SettingsError>
    where
        T::Err: std::fmt::Display,
    {
        if self.texts[key].0.is_empty() { Ok(None) } else { self.parsed(key).map(Some) }
    }

    fn parsed<T: std::str::FromStr>(&self, key: &str) -> Result<T, SettingsError>
    where
        T::Err: std::fmt::Display,
    {
        let (text, _) = &self.texts[key];
        text.parse().map_err(|error: T::Err| self.bad(key, &format!("can't be read: {error}")))
    }

    fn bad(&self, key: &str, problem: &str) -> SettingsError {
        let (text, origin) = &self.texts[key];
        let name = match origin {
            Origin::Flag => format!("--{}", key.replace('_', "-")),
            Origin::Environment => variable(key),
            Origin::File | Origin::Default | Origin::Derived => key.to_owned(),
        };
        SettingsError::Bad { name, origin: origin.as_str(), text: text.clone(), problem: problem.to_owned() }
    }

    /// Every value with its origin, for people or programs.
    pub(crate) fn render(&self, output: Output) -> anyhow::Result<String> {
        let mut rows: Vec<(String, String, &str)> = Vec::new();
        for (key, (value, origin)) in &self.texts {
            rows.push(((*key).to_owned(), value.clone(), origin.as_str()));
        }
        for (key, (values, origin)) in &self.lists {
            rows.push(((*key).to_owned(), values.join(","), origin.as_str()));
        }
        for (service, settings) in &self.settings {
            rows.push((format!("settings.{service}"), settings.to_string(), Origin::File.as_str()));
        }
        if let Some(file) = &self.file {
            rows.push(("config".to_owned(), file.clone(), ""));
        }
        rows.sort();
        if output == Output::Json {
            let entries: serde_json::Map<_, _> = rows
                .into_iter()
                .map(|(key, value, origin)| (key, json!({ "value": value, "origin": origin })))
                .collect();
            return Ok(serde_json::to_string_pretty(&entries)? + "\n");
        }
        let width = |column: fn(&(String, String, &str)) -> usize| rows.iter().map(column).max().unwrap_or(0);
        let (keys, values) = (width(|row| row.0.len()), width(|row| row.1.len().max(1)).min(60));
        let mut out = format!("{:<keys$}  {:<values$}  ORIGIN\n", "KEY", "VALUE");
        for (key, value, origin) in &rows {
            let value = if value.is_empty() { "-" } else { value };
            writeln!(out, "{}", format!("{key:<keys$}  {value:<values$}  {origin}").trim_end())?;
        }
        Ok(out)
    }
}

/// A command line in a form that can be typed into a shell.
fn command_line(arguments: impl Iterator<Item = OsString>) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    let quoted = arguments.map(|argument| {
        let argument = argument.to_string_lossy();
        if !argument.is_empty() && argument.chars().all(plain) {
            argument.into_owned()
        } else {
            format!("'{}'", argument.replace('\'', r"'\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// The environment variable of a key.
fn variable(key: &str) -> String {
    format!("COTERIE_{}", key.to_uppercase())
}

fn split(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

fn flag_text(flags: &Flags, key: &str) -> Option<String> {
    let switch = |is_on: bool| is_on.then(|| "true".to_owned());
    match key {
        "listen_addr" => flags.listen_addr.clone(),
        "gossip_addr" => flags.gossip_addr.clone(),
        "advertise_addr" => flags.advertise_addr.clone(),
        "node_id" => flags.node_id.clone(),
        "service" => flags.service.clone(),
        "type" => flags.service_type.clone(),
        "shard" => flags.shard.clone(),
        "shards" => flags.shards.clone(),
        "cluster" => flags.cluster.clone(),
        "profile" => flags.profile.clone(),
        "data_dir" => flags.data_dir.clone(),
        "store" => flags.store.clone(),
        "zone" => flags.zone.clone(),
        "hosts" => flags.hosts.clone(),
        "log" => flags.log.clone(),
        "log_format" => flags.log_format.clone(),
        "log_file" => flags.log_file.clone(),
        "insecure" => switch(flags.insecure),
        "reset_role" => switch(flags.reset_role),
        "demo" => switch(flags.demo),
        _ => None,
    }
}

/// The folder for all data of Coterie on this machine.
fn state_root(environment: Environment<'_>) -> Option<PathBuf> {
    if let Some(root) = environment("COTERIE_STATE_DIR").filter(|root| !root.is_empty()) {
        return Some(PathBuf::from(root));
    }
    let strategy = etcetera::base_strategy::choose_base_strategy().ok()?;
    let state = strategy.state_dir().unwrap_or_else(|| strategy.data_dir());
    Some(state.join("coterie"))
}

#[cfg(test)]
#[path = "settings/tests.rs"]
mod tests;
