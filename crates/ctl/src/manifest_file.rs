//! Reads a manifest and checks it, its settings with the help of the agent.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use manifest::{Checked, Known, KnownType, Mistake, Mistakes};
use types::{ClusterId, Role};

use crate::agent_bin::{self, ApplyMistake, SettingsMistake, Validation, Whole};
use crate::exit::{Exit, Failure};
use crate::listens::{Binding, Collision, Listens, collisions};
use crate::out::say;
use crate::render;

/// Tried in order if no file is named.
const DEFAULTS: [&str; 2] = ["coterie.yaml", "manifests/demo.yaml"];
/// Names standard input.
const STDIN: &str = "-";
/// How much of a file is read; a longer one is refused as too large.
const MAX_BYTES: u64 = manifest::yaml::MAX_LEN as u64;

/// The named file, else the first default that exists.
pub(crate) fn choose(named: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    default().ok_or_else(|| {
        let [first, second] = DEFAULTS;
        Failure::new(Exit::Usage, format!("no manifest named, and neither {first} nor {second} exists here"))
            .hint("`ctl init` writes a commented one to start from")
    })
}

fn default() -> Option<PathBuf> {
    DEFAULTS.iter().map(PathBuf::from).find(|path| path.is_file())
}

/// A hint for a user without a cluster on this machine.
pub(crate) fn how_to_start() -> String {
    let start = match default() {
        Some(file) => format!("`ctl up {}` starts one", file.display()),
        None => "`ctl init` writes a manifest to start one from".to_owned(),
    };
    format!("{start}; --agent URL names an agent elsewhere")
}

/// Whether standard input is named.
pub(crate) fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == STDIN
}

/// The folder to which paths in a manifest are relative: that of its file.
pub(crate) fn folder(file: &Path) -> io::Result<PathBuf> {
    if is_stdin(file) {
        return std::env::current_dir();
    }
    let mut folder = manifest::absolute(file)?;
    folder.pop();
    Ok(folder)
}

/// The file's name in messages, and its text.
fn read(file: &Path) -> anyhow::Result<(String, String)> {
    let name = if is_stdin(file) { "standard input".to_owned() } else { file.display().to_string() };
    let mut bytes = Vec::new();
    let read = if is_stdin(file) {
        io::stdin().take(MAX_BYTES + 1).read_to_end(&mut bytes)
    } else {
        File::open(file).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
    };
    if let Err(error) = read {
        let failure = Failure::new(Exit::Usage, format!("reading {name}: {error}"));
        return Err(match error.kind() {
            io::ErrorKind::NotFound => failure.hint("`ctl init` writes a commented manifest to start from"),
            _ => failure,
        }
        .into());
    }
    let text = manifest::text(&name, bytes)?;
    Ok((name, text))
}

/// A manifest with the file it came from.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) checked: Checked,
    /// The addresses that services bind besides their nodes' APIs; none if no agent checked the manifest.
    pub(crate) listens: Listens,
    /// The agent that checked the manifest.
    pub(crate) agent: Option<PathBuf>,
    /// What would not work with the files that settings name, such as certificates.
    warnings: Vec<Mistake>,
    name: String,
    pub(crate) source: String,
}

/// Reads and checks a manifest: ctl checks its shape, and the agent of its cluster, if there is one, its settings.
pub(crate) async fn load(
    file: &Path,
    agent_of: impl FnOnce(Option<&ClusterId>) -> anyhow::Result<Option<PathBuf>>,
) -> anyhow::Result<Loaded> {
    let (name, source) = read(file)?;
    let shape = parse(&name, &source, None);
    let Some(agent) = agent_of(shape.as_ref().ok().map(|checked| &checked.manifest.cluster))? else {
        return Ok(Loaded {
            checked: shape?,
            listens: Listens::new(),
            agent: None,
            warnings: Vec::new(),
            name,
            source,
        });
    };
    let (mut settings, mut types) = (BTreeMap::new(), BTreeMap::new());
    for (service, spec) in shape.iter().flat_map(|checked| &checked.manifest.services) {
        settings.insert(service.clone(), spec.settings.clone());
        types.extend(spec.service_type.clone().map(|service_type| (service.clone(), service_type)));
    }
    let store = shape.as_ref().ok().and_then(|checked| checked.manifest.store.as_deref());
    let folder = folder(file)?;
    let whole = shape.as_ref().ok().map(|checked| Whole {
        insecure: checked.manifest.insecure,
        roles: checked.manifest.nodes.iter().filter_map(|node| node.role.service().cloned()).collect(),
        has_standbys: checked.manifest.nodes.iter().any(|node| node.role == Role::Standby),
    });
    let validation = agent_bin::validate(&agent, store, &settings, &types, Some(&folder), whole)
        .await
        .context("checking settings")?;
    let known = Known {
        service_types: validation
            .types
            .iter()
            .map(|known| KnownType {
                name: known.name.clone(),
                is_sharded: known.sharded,
                is_owned: known.owned,
                is_replicated: known.replicated,
            })
            .collect(),
    };
    let mut checked = parse(&name, &source, Some(&known))?;
    let mut mistakes = settings_mistakes(&checked, &validation);
    mistakes.extend(taken_addresses(&checked, &validation.listens));
    let warnings = at_their_places(&checked, &validation.warnings).collect();
    if mistakes.is_empty() {
        for (service, settings) in validation.resolved {
            if let Some(spec) = checked.manifest.services.get_mut(&service) {
                spec.settings = settings;
            }
        }
        Ok(Loaded { checked, listens: validation.listens, agent: Some(agent), warnings, name, source })
    } else {
        Err(Mistakes::new(name, source, mistakes).into())
    }
}

impl Loaded {
    /// Prints the warnings on stderr: `coterie.yaml:7:15: warning: no certificate covers ...`, with hints.
    pub(crate) fn warn(&self) {
        for Mistake { at, message, hint, .. } in &self.warnings {
            let hint = hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
            let warning = format!("{}:{}:{}: warning: {message}{hint}", self.name, at.line, at.column);
            say(&render::clean(&warning));
        }
    }

    /// The mistakes that `agent apply` found, at their places in the manifest.
    pub(crate) fn refused(&self, mistakes: &[ApplyMistake]) -> Mistakes {
        let list = mistakes.iter().map(|found| {
            let at = match &found.service {
                Some(service) => self.checked.shards_position(service),
                None => self.checked.store_position(),
            };
            let mistake = Mistake::new(at, found.message.clone());
            match &found.hint {
                Some(hint) => mistake.hint(hint.clone()),
                None => mistake,
            }
        });
        Mistakes::new(self.name.clone(), self.source.clone(), list.collect())
    }
}

fn parse(name: &str, source: &str, known: Option<&Known>) -> Result<Checked, Mistakes> {
    manifest::parse(name, source, &|variable| std::env::var(variable).ok(), known)
}

/// Fixed addresses that several nodes would bind on this machine.
fn taken_addresses(checked: &Checked, listens: &Listens) -> Vec<Mistake> {
    let nodes = &checked.manifest.nodes;
    let bindings = nodes.iter().map(|node| Binding { node: &node.id, role: &node.role, api: node.listen });
    let mistake = |found: Collision| {
        let Collision { first, second, address } = found;
        let message = format!("node `{second}` would listen on {address}, as node `{first}` does");
        Mistake::new(checked.node_position(&second), message)
            .related(checked.node_position(&first), format!("node `{first}` is given here"))
            .hint("use port 0 for a free one each, or let one of them stand by")
    };
    collisions(bindings, listens).into_iter().map(mistake).collect()
}

/// The mistake in a setting; with the service and its type if their names differ.
fn titled(checked: &Checked, found: &SettingsMistake) -> String {
    let spec = checked.manifest.services.get(&found.service);
    match spec.and_then(|spec| spec.service_type.as_ref()) {
        Some(service_type) => format!("{}: {}", found.service.with_type(service_type), found.message),
        None => found.message.clone(),
    }
}

/// What an agent says of settings, each at its place in the manifest.
fn at_their_places<'a>(
    checked: &'a Checked,
    found: &'a [SettingsMistake],
) -> impl Iterator<Item = Mistake> + 'a {
    found.iter().map(|found| {
        let at = if found.at_key {
            checked.settings_key_position(&found.service, &found.pointer)
        } else {
            checked.settings_position(&found.service, &found.pointer)
        };
        let mistake = Mistake::new(at, titled(checked, found));
        match &found.hint {
            Some(hint) => mistake.hint(hint.clone()),
            None => mistake,
        }
    })
}

fn settings_mistakes(checked: &Checked, validation: &Validation) -> Vec<Mistake> {
    let mistakes = at_their_places(checked, &validation.mistakes);
    let store = validation
        .store
        .iter()
        .map(|message| Mistake::new(checked.store_position(), format!("`store`: {message}")));
    store.chain(mistakes).collect()
}
