//! The undeclared fields of each index in a shard, so that documents can't bring any number of them: each costs columns and
//! terms in every segment.
//!
//! They are read from the segments and from what is pending, with the first write of an index after the shard was opened, and
//! kept as hashes from then on. Those that only deleted documents had count until a merge has removed them and the shard is
//! opened again; those of a write that is not appended in the end, until the shard is opened again, which follows.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use tantivy::TantivyError;
use uuid::Uuid;

use super::lookup::LookupError;
use super::pending::Pending;
use super::view::Views;
use crate::catalog::Index;
use crate::document::{DocumentError, MAX_DYNAMIC_PATHS};

/// For how many indexes they are kept; they are read again for others.
const INDEXES: usize = 64;

/// The undeclared fields of the indexes of a shard.
#[derive(Debug, Default)]
pub(crate) struct KnownPaths {
    hasher: RandomState,
    indexes: Mutex<BTreeMap<Uuid, Known>>,
}

#[derive(Debug, Default)]
struct Known {
    /// How many fields were declared when they were read.
    declared: usize,
    paths: BTreeSet<u64>,
}

impl KnownPaths {
    /// Adds the undeclared fields of a document, unless there are too many then. Blocking.
    pub(crate) fn admit(
        &self,
        index: &Index,
        paths: &[String],
        pending: &Pending,
        views: &Views,
    ) -> Result<Result<(), DocumentError>, LookupError> {
        if paths.is_empty() {
            return Ok(Ok(()));
        }
        let mut indexes = self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
        let declared = index.schema.definition.fields.len();
        // Fields are only ever added, and those that are declared now count no more.
        if indexes.get(&index.uuid).is_none_or(|known| known.declared < declared) {
            if indexes.len() >= INDEXES {
                indexes.pop_first();
            }
            let paths = self.read(index, pending, views)?;
            indexes.insert(index.uuid, Known { declared, paths });
        }
        let known = &mut indexes.entry(index.uuid).or_default().paths;
        let new: Vec<_> = paths
            .iter()
            .map(|path| (self.hasher.hash_one(path), path))
            .filter(|(hash, _)| !known.contains(hash))
            .collect();
        if let Some((_, path)) = new.first()
            && known.len() + new.len() > MAX_DYNAMIC_PATHS
        {
            let (path, new, present) = ((*path).clone(), new.len(), known.len());
            return Ok(Err(DocumentError::TooManyPaths { path, new, present }));
        }
        known.extend(new.into_iter().map(|(hash, _)| hash));
        Ok(Ok(()))
    }

    /// The undeclared fields of an index now.
    fn read(&self, index: &Index, pending: &Pending, views: &Views) -> Result<BTreeSet<u64>, LookupError> {
        let schema = &index.schema;
        let mut paths = BTreeSet::new();
        // Before the segments: what is pending is forgotten only once searchers have it.
        for source in pending.sources(index.uuid) {
            let found = schema.dynamic_paths(source.get()).unwrap_or_default();
            paths.extend(found.iter().map(|path| self.hasher.hash_one(path)));
        }
        let Some(searcher) = views.searcher(index.uuid) else { return Ok(paths) };
        for reader in searcher.segment_readers() {
            let inverted = reader.inverted_index(schema.fields)?;
            let mut terms = inverted.terms().stream().map_err(TantivyError::from)?;
            while terms.advance() {
                if let Ok(path) = std::str::from_utf8(terms.key())
                    && schema.is_dynamic(path)
                {
                    // Hashed as the others are.
                    paths.insert(self.hasher.hash_one(path));
                }
            }
        }
        Ok(paths)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::definition::Definition;
    use crate::schema::IndexSchema;

    fn index(definition: &str) -> Index {
        let created: Definition = serde_json::from_str(definition).unwrap();
        let schema = Arc::new(IndexSchema::new(&Definition::default(), Arc::new(created.clone())));
        Index { name: "x".to_owned(), uuid: Uuid::from_u128(1), created, schema }
    }

    #[test]
    fn known_fields_go_on_when_there_is_no_room_for_new_ones() {
        let (known, pending, views) = (KnownPaths::default(), Pending::new(0), Views::new());
        let admit = |index: &Index, paths: &[&str]| {
            let paths: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
            known.admit(index, &paths, &pending, &views).unwrap()
        };
        let dynamic = index("{}");
        let all: Vec<_> = (0..MAX_DYNAMIC_PATHS - 1).map(|number| format!("f{number}")).collect();
        assert_eq!(known.admit(&dynamic, &all, &pending, &views).unwrap(), Ok(()));
        let refused = admit(&dynamic, &["f1", "new", "newer"]).unwrap_err();
        let shown = refused.to_string();
        assert!(shown.contains("`new`") && shown.contains("4999") && shown.contains("declare"), "{shown}");
        assert_eq!(admit(&dynamic, &["f1", "f2"]), Ok(()));
        assert_eq!(admit(&dynamic, &["new"]), Ok(()));
        assert!(admit(&dynamic, &["newer"]).is_err());
        assert_eq!(admit(&dynamic, &["new", "f4998"]), Ok(()));
        assert_eq!(admit(&index(r#"{"fields": {"f1": {"type": "i64"}}}"#), &["newer"]), Ok(()), "read again");
    }
}
