//! The indexes that the settings declare: every member makes sure that they exist; the catalog makes each of them once.
//!
//! A member applies their definitions once, when it starts. If it did so after each change, members with different settings
//! would change an index back and forth without end, and a request's change would be undone at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plugin::{Context, Health};
use tokio::time::sleep;
use tracing::{info, warn};
use types::ReasonCode;
use uuid::Uuid;

use super::{Catalog, Change, ChangeError, CreateError, Record, create};
use crate::definition::{DeleteAfter, PartialDefinition};

/// An index has another definition than the settings declare.
pub(crate) const INDEX_CONFLICT: ReasonCode = ReasonCode::new("index-conflict");
/// The pause after the store did not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// The declared indexes. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Declared {
    definitions: Arc<BTreeMap<String, PartialDefinition>>,
    /// By index: why it can't be as it is declared.
    conflicts: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Declared {
    /// The catalog says that they are never deleted, also to members whose settings do not declare them yet.
    pub(crate) fn new(mut definitions: BTreeMap<String, PartialDefinition>) -> Self {
        for definition in definitions.values_mut() {
            definition.delete_after = Some(DeleteAfter::Never);
        }
        Self { definitions: Arc::new(definitions), conflicts: Arc::default() }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.definitions.contains_key(name)
    }

    /// Applies the definitions, then creates what is missing whenever the catalog changes, in a task of the context.
    pub(crate) fn start(&self, cx: &Context, catalog: &Catalog) {
        if self.definitions.is_empty() {
            return;
        }
        let (declared, mut catalog, shutdown) = (self.clone(), catalog.clone(), cx.shutdown.clone());
        cx.tasks.spawn("declared indexes", async move {
            let ensuring = async {
                while !declared.apply(&catalog).await {
                    sleep(PAUSE).await;
                }
                loop {
                    if declared.create_missing(&catalog).await {
                        catalog.changed().await;
                    } else {
                        sleep(PAUSE).await;
                    }
                }
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => Ok(()),
                () = ensuring => Ok(()),
            }
        });
    }

    /// Creates the indexes, or adds to those that exist. Returns whether the catalog could be read and changed.
    pub(crate) async fn apply(&self, catalog: &Catalog) -> bool {
        for (name, definition) in self.definitions.iter() {
            if !self.ensure(catalog, name, |record, uuid| create(record, name, definition, uuid)).await {
                return false;
            }
        }
        true
    }

    /// Creates the indexes that do not exist. Returns whether the catalog could be read and changed.
    pub(crate) async fn create_missing(&self, catalog: &Catalog) -> bool {
        let indexes = catalog.now();
        for (name, definition) in self.definitions.iter().filter(|(name, _)| indexes.named(name).is_none()) {
            let create = |record: &Record, uuid| match record.indexes.contains_key(name) {
                true => Ok(Change::Nothing),
                false => create(record, name, definition, uuid),
            };
            if !self.ensure(catalog, name, create).await {
                return false;
            }
        }
        true
    }

    /// Changes the catalog, and notes whether an index can be as it is declared. Returns whether the catalog could be read
    /// and changed.
    async fn ensure(
        &self,
        catalog: &Catalog,
        name: &str,
        decide: impl Fn(&Record, Uuid) -> Result<Change, CreateError>,
    ) -> bool {
        let uuid = Uuid::now_v7();
        let changed = catalog.change(|record| {
            decide(record, uuid).map(|change| {
                let is_new = change != Change::Nothing;
                (change, is_new)
            })
        });
        let conflict = match changed.await {
            Ok((_, is_new)) => {
                if is_new {
                    info!(index = %name, "created or extended a declared index");
                }
                None
            }
            Err(ChangeError::Refused(error)) => Some(error.to_string()),
            Err(ChangeError::Catalog(error)) => {
                warn!(index = %name, %error, "a declared index is not checked yet");
                return false;
            }
        };
        let mut conflicts = self.conflicts.lock().unwrap_or_else(PoisonError::into_inner);
        match conflict {
            Some(conflict) => conflicts.insert(name.to_owned(), conflict),
            None => conflicts.remove(name),
        };
        true
    }

    /// Degraded if an index can't be as it is declared.
    pub(crate) fn health(&self) -> Health {
        let conflicts = self.conflicts.lock().unwrap_or_else(PoisonError::into_inner);
        match conflicts.iter().next() {
            None => Health::Ready,
            Some((name, conflict)) => {
                let text = format!(
                    "the declared index `{name}` can't be made: {conflict}; change its definition in the settings, or take it \
                     out of them, delete the index and declare it again"
                );
                Health::degraded(INDEX_CONFLICT, text)
            }
        }
    }
}
