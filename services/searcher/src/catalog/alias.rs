//! Aliases: names for one index or several, and how a request changes them. Pure.
//!
//! Reads of an alias go to all of its indexes, writes to one: the only index, or the one whose `is_write_index` is true.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use types::did_you_mean;

use super::name::{NameError, check_name};
use super::record::{Change, NoSuchIndex, Record};
use crate::glob::matches;

/// How many aliases a service may have, each counted once for each of its indexes.
pub(crate) const MAX_ALIASES: usize = 1_000;

/// An alias: its indexes by name, at least one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AliasRecord {
    pub(crate) indexes: BTreeMap<String, AliasOptions>,
}

/// What an alias says of one of its indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AliasOptions {
    /// Whether writes of the alias go to this index. Unless given, they do if it is the only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    pub(crate) is_write_index: Option<bool>,
}

impl AliasRecord {
    /// The index that takes the writes.
    pub(crate) fn write_index(&self) -> Option<&str> {
        let mut declared = self.indexes.iter().filter(|(_, options)| options.is_write_index == Some(true));
        if let Some((name, _)) = declared.next() {
            return Some(name);
        }
        let mut all = self.indexes.iter();
        match (all.next(), all.next()) {
            (Some((name, options)), None) if options.is_write_index.is_none() => Some(name),
            _ => None,
        }
    }
}

/// One of the things that a request does to aliases. In names of indexes, `*` stands for any characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AliasAction {
    Add {
        indexes: Vec<String>,
        aliases: Vec<String>,
        options: AliasOptions,
    },
    /// In names of aliases, `*` stands for any characters, too.
    Remove {
        indexes: Vec<String>,
        aliases: Vec<String>,
        /// Whether each index must have it.
        must_exist: bool,
    },
    /// Deletes the indexes.
    RemoveIndex {
        indexes: Vec<String>,
    },
}

/// Why aliases are not changed. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AliasError {
    /// Choose another name for the alias.
    #[error("an alias can't be `{name}`: {error}")]
    Name { name: String, error: NameError },
    /// Choose another name, or delete the index.
    #[error("there is an index `{0}`, so no alias can have that name")]
    IsIndex(String),
    /// Name the indexes of the alias.
    #[error("`{0}` is an alias, and an index is wanted here")]
    IsAlias(String),
    #[error(transparent)]
    NoSuchIndex(#[from] NoSuchIndex),
    /// There is nothing to remove.
    #[error("there is no alias `{name}`")]
    Missing {
        name: String,
        /// An alias with a similar name.
        similar: Option<String>,
    },
    /// Set it to false for the former one in the same request.
    #[error("the alias `{alias}` would have more than one write index: `{one}` and `{other}`")]
    TwoWriteIndexes { alias: String, one: String, other: String },
    /// Remove some that are no longer needed.
    #[error("the service would have more than {MAX_ALIASES} aliases, counted for each of their indexes")]
    TooMany,
    /// Take it out of the settings first.
    #[error("the settings of the service declare the index `{0}`, so it can't be deleted")]
    Declared(String),
}

/// Adds an index to an alias, or replaces what the alias says of it.
pub(crate) fn add(
    record: &mut Record,
    index: &str,
    alias: &str,
    options: AliasOptions,
) -> Result<(), AliasError> {
    check_name(alias).map_err(|error| AliasError::Name { name: alias.to_owned(), error })?;
    if record.indexes.contains_key(alias) {
        return Err(AliasError::IsIndex(alias.to_owned()));
    }
    let known = record.aliases.entry(alias.to_owned()).or_default();
    known.indexes.insert(index.to_owned(), options);
    Ok(())
}

/// Takes an index out of all its aliases. An alias without indexes is gone.
pub(crate) fn forget(record: &mut Record, index: &str) {
    record.aliases.retain(|_, alias| {
        alias.indexes.remove(index);
        !alias.indexes.is_empty()
    });
}

/// Checks what must hold of all aliases together.
pub(crate) fn check(record: &Record) -> Result<(), AliasError> {
    if record.aliases.values().map(|alias| alias.indexes.len()).sum::<usize>() > MAX_ALIASES {
        return Err(AliasError::TooMany);
    }
    for (name, alias) in &record.aliases {
        let mut write = alias.indexes.iter().filter(|(_, options)| options.is_write_index == Some(true));
        if let (Some((one, _)), Some((other, _))) = (write.next(), write.next()) {
            let (alias, one, other) = (name.clone(), one.clone(), other.clone());
            return Err(AliasError::TwoWriteIndexes { alias, one, other });
        }
    }
    Ok(())
}

/// Does all of the actions at once: indexes are deleted first, then aliases are added and removed in the order of the list.
/// `is_declared` says which indexes can't be deleted.
pub(crate) fn change(
    record: &Record,
    actions: &[AliasAction],
    is_declared: impl Fn(&str) -> bool,
) -> Result<Change, AliasError> {
    let mut next = record.clone();
    let mut is_done = false;
    let mut missing = None;
    for action in actions {
        let AliasAction::RemoveIndex { indexes } = action else { continue };
        for index in named(record, indexes)? {
            if is_declared(&index) {
                return Err(AliasError::Declared(index));
            }
            next.indexes.remove(&index);
            forget(&mut next, &index);
            is_done = true;
        }
    }
    for action in actions {
        match action {
            AliasAction::RemoveIndex { .. } => {}
            AliasAction::Add { indexes, aliases, options } => {
                for index in named(&next, indexes)? {
                    for alias in aliases {
                        add(&mut next, &index, alias, *options)?;
                    }
                }
                is_done = true;
            }
            AliasAction::Remove { indexes, aliases, must_exist } => {
                let indexes = named(record, indexes)?;
                for pattern in aliases {
                    let removed = remove(&mut next, &indexes, pattern);
                    is_done |= removed;
                    if !removed {
                        let similar = did_you_mean(pattern, record.aliases.keys().map(String::as_str));
                        let error = AliasError::Missing {
                            name: pattern.clone(),
                            similar: similar.map(str::to_owned),
                        };
                        if *must_exist {
                            return Err(error);
                        }
                        missing.get_or_insert(error);
                    }
                }
            }
        }
    }
    if let Some(missing) = missing.filter(|_| !is_done) {
        return Err(missing);
    }
    check(&next)?;
    Ok(if next == *record { Change::Nothing } else { Change::To(next) })
}

/// The indexes that names and patterns name. Each of them names at least one.
fn named(record: &Record, names: &[String]) -> Result<BTreeSet<String>, AliasError> {
    let mut found = BTreeSet::new();
    for name in names {
        let pattern = if name == "_all" { "*" } else { name };
        let mut matching = record.indexes.keys().filter(|index| matches(pattern, index)).peekable();
        if matching.peek().is_none() {
            if record.aliases.contains_key(name) {
                return Err(AliasError::IsAlias(name.clone()));
            }
            return Err(NoSuchIndex::among(name, record.indexes.keys().map(String::as_str)).into());
        }
        found.extend(matching.cloned());
    }
    Ok(found)
}

/// Takes indexes out of the aliases that match. Returns whether there was anything to remove.
fn remove(record: &mut Record, indexes: &BTreeSet<String>, pattern: &str) -> bool {
    let pattern = if pattern == "_all" { "*" } else { pattern };
    let mut is_removed = false;
    record.aliases.retain(|name, alias| {
        if matches(pattern, name) {
            let before = alias.indexes.len();
            alias.indexes.retain(|index, _| !indexes.contains(index));
            is_removed |= alias.indexes.len() < before;
        }
        !alias.indexes.is_empty()
    });
    is_removed
}

#[cfg(test)]
mod tests;
