//! All indexes, aliases and templates as of one record of the catalog, and what names and expressions name in it. Pure.
//!
//! A request finds everything that it names in one of these, so it sees a change of several aliases whole or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use types::did_you_mean;
use uuid::Uuid;

use super::Index;
use super::alias::AliasRecord;
use super::auto_create::AutoCreate;
use super::name::{NameError, check_name};
use super::record::{NoSuchIndex, Record};
use super::template::Template;
use crate::glob::matches;
use crate::schema::IndexSchema;

/// All indexes, as of one record of the catalog.
#[derive(Debug, Default)]
pub(crate) struct Indexes {
    /// The number of the record; 0 if there is none yet.
    pub(crate) number: u64,
    /// Which indexes a first write creates, if a request has set it.
    pub(crate) auto_create: Option<AutoCreate>,
    /// The aliases by name.
    pub(crate) aliases: BTreeMap<String, AliasRecord>,
    /// The templates by name.
    pub(crate) templates: Arc<BTreeMap<String, Template>>,
    by_name: BTreeMap<String, Arc<Index>>,
    by_uuid: BTreeMap<Uuid, Arc<Index>>,
}

/// What an expression may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Whether names of indexes that do not exist are left out.
    pub(crate) ignores_unavailable: bool,
    /// Whether it may name no index at all.
    pub(crate) allows_none: bool,
}

/// Why a name or an expression does not name what is wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ResolveError {
    #[error(transparent)]
    NoSuchIndex(#[from] NoSuchIndex),
    /// Name one of the indexes.
    #[error("the alias `{alias}` has more than one index ({}), and one is wanted here", .indexes.join(", "))]
    Several { alias: String, indexes: Vec<String> },
    /// Set `is_write_index` for one of the indexes, or write to one of them by its name.
    #[error("the alias `{alias}` has no write index: none of its indexes ({}) takes its writes", .indexes.join(", "))]
    NoWriteIndex { alias: String, indexes: Vec<String> },
    #[error("`{name}` names no index: {error}")]
    Name { name: String, error: NameError },
    /// A part of Elasticsearch's expressions that is not supported.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
}

impl Indexes {
    pub(crate) fn new(number: u64, indexes: impl IntoIterator<Item = Arc<Index>>) -> Self {
        let by_name: BTreeMap<_, _> = indexes.into_iter().map(|index| (index.name.clone(), index)).collect();
        let by_uuid = by_name.values().map(|index| (index.uuid, Arc::clone(index))).collect();
        Self { number, by_name, by_uuid, ..Self::default() }
    }

    /// The indexes of a record. Those that are unchanged are shared with the former indexes.
    pub(super) fn of(number: u64, record: Record, former: &Self) -> Self {
        let Record { indexes, auto_create, aliases, templates } = record;
        let indexes = indexes.into_iter().map(|(name, index)| {
            let known = former.named(&name).filter(|known| {
                known.uuid == index.uuid
                    && known.created == index.created
                    && *known.schema.definition == index.now
            });
            known.map_or_else(
                || {
                    let schema = Arc::new(IndexSchema::new(&index.created, Arc::new(index.now)));
                    Arc::new(Index { name, uuid: index.uuid, created: index.created, schema })
                },
                Arc::clone,
            )
        });
        let indexes = Self::new(number, indexes.collect::<Vec<_>>());
        let templates = match *former.templates == templates {
            true => Arc::clone(&former.templates),
            false => Arc::new(templates),
        };
        Self { auto_create, aliases, templates, ..indexes }
    }

    /// The index with a name, which is no alias.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Index>> {
        self.by_name.get(name)
    }

    pub(crate) fn index(&self, uuid: Uuid) -> Option<&Arc<Index>> {
        self.by_uuid.get(&uuid)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Index>> {
        self.by_name.values()
    }

    /// Whether there is an index or an alias of that name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name) || self.aliases.contains_key(name)
    }

    /// The aliases of an index.
    pub(crate) fn aliases_of<'a>(
        &'a self,
        index: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a AliasRecord)> {
        let aliases = self.aliases.iter().filter(move |(_, alias)| alias.indexes.contains_key(index));
        aliases.map(|(name, alias)| (name.as_str(), alias))
    }

    fn of_alias(&self, alias: &AliasRecord) -> Vec<Arc<Index>> {
        alias.indexes.keys().filter_map(|name| self.by_name.get(name)).cloned().collect()
    }

    fn missing(&self, name: &str) -> NoSuchIndex {
        let names = self.by_name.keys().chain(self.aliases.keys()).map(String::as_str);
        NoSuchIndex { name: name.to_owned(), similar: did_you_mean(name, names).map(str::to_owned) }
    }

    /// The indexes that a name is for: one, or those of an alias.
    pub(crate) fn read(&self, name: &str) -> Result<Vec<Arc<Index>>, NoSuchIndex> {
        match (self.by_name.get(name), self.aliases.get(name)) {
            (Some(index), _) => Ok(vec![Arc::clone(index)]),
            (None, Some(alias)) => Ok(self.of_alias(alias)),
            (None, None) => Err(self.missing(name)),
        }
    }

    /// The only index that a name is for.
    pub(crate) fn one(&self, name: &str) -> Result<Arc<Index>, ResolveError> {
        let mut found = self.read(name)?;
        match (found.pop(), found.is_empty()) {
            (Some(index), true) => Ok(index),
            (Some(last), false) => {
                let indexes = found.iter().chain([&last]).map(|index| index.name.clone()).collect();
                Err(ResolveError::Several { alias: name.to_owned(), indexes })
            }
            (None, _) => Err(self.missing(name).into()),
        }
    }

    /// The index to which writes of a name go.
    pub(crate) fn to_write(&self, name: &str) -> Result<Arc<Index>, ResolveError> {
        let Some(alias) = self.aliases.get(name) else { return self.one(name) };
        let index = alias.write_index().and_then(|index| self.by_name.get(index)).cloned();
        let indexes = || alias.indexes.keys().cloned().collect();
        index.ok_or_else(|| ResolveError::NoWriteIndex { alias: name.to_owned(), indexes: indexes() })
    }

    /// The indexes that an expression names, each once, in the order of their names: a list of names and patterns of indexes
    /// and aliases, and after a pattern also of exclusions, such as `logs-*,-logs-old*`.
    pub(crate) fn resolve(&self, expression: &str, rule: Rule) -> Result<Vec<Arc<Index>>, ResolveError> {
        let mut named: Vec<Arc<Index>> = Vec::new();
        let mut has_seen_pattern = false;
        let expression = if expression.is_empty() { "_all" } else { expression };
        for part in expression.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            if part.starts_with('<') {
                return Err(ResolveError::Unsupported("date math in the names of indexes"));
            }
            if part.contains(':') {
                return Err(ResolveError::Unsupported("search across clusters"));
            }
            if let Some(excluded) = part.strip_prefix('-').filter(|_| has_seen_pattern) {
                let excluded = self.matching(excluded);
                named.retain(|index| excluded.iter().all(|excluded| excluded.uuid != index.uuid));
            } else if part == "_all" || part.contains('*') {
                has_seen_pattern = true;
                named.extend(self.matching(if part == "_all" { "*" } else { part }));
            } else if let Ok(found) = self.read(part) {
                named.extend(found);
            } else if let Err(error) = check_name(part) {
                return Err(ResolveError::Name { name: part.to_owned(), error });
            } else if !rule.ignores_unavailable {
                return Err(self.missing(part).into());
            }
        }
        named.sort_by(|one, other| one.name.cmp(&other.name));
        named.dedup_by(|one, other| one.uuid == other.uuid);
        if named.is_empty() && !rule.allows_none {
            return Err(self.missing(expression).into());
        }
        Ok(named)
    }

    /// The indexes whose names match a pattern, and those of the aliases whose names do.
    fn matching(&self, pattern: &str) -> Vec<Arc<Index>> {
        let indexes = self.all().filter(|index| matches(pattern, &index.name)).cloned();
        let aliases = self.aliases.iter().filter(|(name, _)| matches(pattern, name));
        indexes.chain(aliases.flat_map(|(_, alias)| self.of_alias(alias))).collect()
    }
}

/// Whether an expression has patterns, so that it can name indexes that this member does not know yet.
pub(crate) fn has_pattern(expression: &str) -> bool {
    expression.is_empty() || expression.split(',').any(|part| part.contains('*') || part == "_all")
}

#[cfg(test)]
mod tests;
