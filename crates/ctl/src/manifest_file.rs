//! A manifest from its file to a checked model, with the agent's word on settings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use manifest::{Checked, Known, KnownType, Mistake, Mistakes};

use crate::agent_bin::{self, ApplyMistake, Validation};
use crate::exit::{Exit, Failure};

/// Tried in turn when no file is named.
const DEFAULTS: [&str; 2] = ["manifests/demo.yaml", "coterie.yaml"];

/// The file named, else the first default that exists.
pub(crate) fn choose(named: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    let found = DEFAULTS.iter().map(Path::new).find(|path| path.is_file());
    found.map(Path::to_owned).ok_or_else(|| {
        let [first, second] = DEFAULTS;
        Failure::new(Exit::Usage, format!("no manifest named, and neither {first} nor {second} exists here"))
            .hint("`ctl init` writes a commented one to start from")
    })
}

/// A manifest with the file it came from.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) checked: Checked,
    name: String,
    source: String,
}

/// Reads and checks a manifest: its shape here, its settings by the agent, where there is one.
pub(crate) async fn load(file: &Path, agent: Option<&Path>) -> anyhow::Result<Loaded> {
    let name = file.display().to_string();
    let source = std::fs::read_to_string(file).map_err(|error| {
        Failure::new(Exit::Usage, format!("reading {name}: {error}"))
            .hint("`ctl init` writes a commented manifest to start from")
    })?;
    let shape = parse(&name, &source, None);
    let Some(agent) = agent else {
        return Ok(Loaded { checked: shape?, name, source });
    };
    let settings = match &shape {
        Ok(checked) => {
            let services = checked.manifest.services.iter();
            services.map(|(service, spec)| (service.clone(), spec.settings.clone())).collect()
        }
        Err(_) => BTreeMap::new(),
    };
    let store = shape.as_ref().ok().and_then(|checked| checked.manifest.store.as_deref());
    let validation = agent_bin::validate(agent, store, &settings).await.context("checking settings")?;
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
    let checked = parse(&name, &source, Some(&known))?;
    let mistakes = settings_mistakes(&checked, &validation);
    if mistakes.is_empty() {
        Ok(Loaded { checked, name, source })
    } else {
        Err(Mistakes::new(name, source, mistakes).into())
    }
}

impl Loaded {
    /// What `agent apply` has to say, shown where it is meant.
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

fn settings_mistakes(checked: &Checked, validation: &Validation) -> Vec<Mistake> {
    let mistakes = validation.mistakes.iter().map(|found| {
        let at = checked.settings_position(&found.service, &found.pointer);
        let mistake = Mistake::new(at, found.message.clone());
        match &found.hint {
            Some(hint) => mistake.hint(hint.clone()),
            None => mistake,
        }
    });
    let store = validation
        .store
        .iter()
        .map(|message| Mistake::new(checked.store_position(), format!("`store`: {message}")));
    store.chain(mistakes).collect()
}
