//! Reads the config file, YAML, and reports all mistakes at once.

use std::collections::BTreeMap;

use manifest::{Mistake, Mistakes, Value as Tree};
use serde_json::Value;
use types::{ServiceName, did_you_mean};

use super::{Environment, FILE_ONLY, LISTS, SettingsError, TEXTS, split};
use crate::output::bounded;

/// The limit for a config file, which people write, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;

/// The content of the config file.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) texts: BTreeMap<&'static str, String>,
    pub(super) lists: BTreeMap<&'static str, Vec<String>>,
    pub(super) settings: BTreeMap<ServiceName, Value>,
}

impl File {
    pub(super) fn read(path: &str, environment: Environment<'_>) -> anyhow::Result<Self> {
        let bytes = std::fs::File::open(path)
            .and_then(|file| bounded(file, MAX_BYTES))
            .map_err(|source| SettingsError::File { path: path.to_owned(), source })?;
        let source = manifest::text(path, bytes)?;
        Ok(Self::parse(path, &source, environment)?)
    }

    fn parse(path: &str, source: &str, environment: Environment<'_>) -> Result<Self, Mistakes> {
        let tree = manifest::read_tree(path, source, environment)?;
        let mut file = Self::default();
        let mut mistakes = Vec::new();
        if tree.is_null() {
            return Ok(file);
        }
        let Some(entries) = mapping(&tree) else {
            let mistake = Mistake::new(tree.at, "the config file is not a mapping of keys to values");
            return Err(Mistakes::new(path, source, vec![mistake]));
        };
        for (key, node) in entries {
            if let Err(mistake) = file.take(key, node) {
                mistakes.extend(mistake);
            }
        }
        if mistakes.is_empty() { Ok(file) } else { Err(Mistakes::new(path, source, mistakes)) }
    }

    fn take(&mut self, key: &manifest::Key, node: &manifest::Node) -> Result<(), Vec<Mistake>> {
        let name = key.text.replace('-', "_");
        if let Some((text, _)) = TEXTS.iter().find(|(text, _)| *text == name) {
            let value = if name == "hosts" { list(node).map(|hosts| hosts.join(",")) } else { scalar(node) };
            let value = value.ok_or_else(|| vec![Mistake::new(node.at, format!("`{name}` is one value"))])?;
            self.texts.insert(text, value);
            return Ok(());
        }
        match name.as_str() {
            "seed" | "seeds" => {
                self.lists
                    .insert("seed", list(node).ok_or_else(|| vec![not_a(node, &name, "list of host:port")])?);
            }
            "label" | "labels" => {
                self.lists.insert(
                    "label",
                    pairs(node).ok_or_else(|| vec![not_a(node, &name, "mapping of texts")])?,
                );
            }
            "runs" => {
                self.lists
                    .insert("runs", list(node).ok_or_else(|| vec![not_a(node, &name, "list of services")])?);
            }
            "settings" => self.take_settings(node)?,
            _ => {
                let known = TEXTS.iter().map(|(text, _)| *text).chain(LISTS).chain(FILE_ONLY);
                let mistake = Mistake::new(key.at, format!("unknown key `{}`", key.text));
                return Err(vec![match did_you_mean(&name, known) {
                    Some(better) => mistake.hint(format!("did you mean `{better}`?")),
                    None => mistake.hint("`agent config` lists the keys"),
                }]);
            }
        }
        Ok(())
    }

    fn take_settings(&mut self, node: &manifest::Node) -> Result<(), Vec<Mistake>> {
        let entries =
            mapping(node).ok_or_else(|| vec![not_a(node, "settings", "mapping of services to settings")])?;
        let mut mistakes = Vec::new();
        for (service, settings) in entries {
            match service.text.parse::<ServiceName>() {
                Ok(known) => {
                    self.settings.insert(known, settings.to_json());
                }
                Err(error) => mistakes.push(Mistake::new(service.at, error.to_string())),
            }
        }
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }
}

fn not_a(node: &manifest::Node, name: &str, what: &str) -> Mistake {
    Mistake::new(node.at, format!("`{name}` is a {what}"))
}

fn scalar(node: &manifest::Node) -> Option<String> {
    match node.to_json() {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(is_set) => Some(is_set.to_string()),
        Value::Null => Some(String::new()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

fn mapping(node: &manifest::Node) -> Option<&[(manifest::Key, manifest::Node)]> {
    match &node.value {
        Tree::Mapping(entries) => Some(entries),
        _ => None,
    }
}

fn list(node: &manifest::Node) -> Option<Vec<String>> {
    match &node.value {
        Tree::Sequence(items) => items.iter().map(scalar).collect(),
        _ => scalar(node).map(|text| split(&text)),
    }
}

fn pairs(node: &manifest::Node) -> Option<Vec<String>> {
    mapping(node)?.iter().map(|(key, value)| Some(format!("{}={}", key.text, scalar(value)?))).collect()
}
