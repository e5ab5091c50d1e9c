//! Finds what names and expressions in requests name, and creates an index for a first write.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::request::Parts;
use uuid::Uuid;

use super::refusal::Refusal;
use crate::catalog::{Change, CreateError, Index, Indexes, NoSuchIndex, Record, Rule, create_by_request};
use crate::definition::PartialDefinition;
use crate::service::SearcherService;

/// A native search names at least what it says, and a pattern may match nothing.
const RULE: Rule = Rule { ignores_unavailable: false, allows_none: true };

impl SearcherService {
    /// Finds something in the catalog that is known here, or else on the store. Everything that a request names is found at
    /// once, so that it sees a change of several aliases whole or not at all.
    pub(crate) async fn lookup<T, E: Into<Refusal>>(
        &self,
        find: impl Fn(&Indexes) -> Result<T, E>,
    ) -> Result<(Arc<Indexes>, T), Refusal> {
        let indexes = self.catalog.now();
        if let Ok(found) = find(&indexes) {
            return Ok((indexes, found));
        }
        let indexes = self.catalog.fresh().await?;
        match find(&indexes) {
            Ok(found) => Ok((indexes, found)),
            Err(error) => Err(error.into()),
        }
    }

    /// The only index that a name is for, which may be an alias.
    pub(crate) async fn index_named(&self, name: &str) -> Result<(Arc<Indexes>, Arc<Index>), Refusal> {
        self.lookup(|indexes| indexes.one(name)).await
    }

    /// The index to which writes of a name go.
    pub(crate) async fn index_to_write(&self, name: &str) -> Result<(Arc<Indexes>, Arc<Index>), Refusal> {
        self.lookup(|indexes| indexes.to_write(name)).await
    }

    /// The indexes from which reads of a name read.
    pub(crate) async fn indexes_to_read(
        &self,
        name: &str,
    ) -> Result<(Arc<Indexes>, Vec<Arc<Index>>), Refusal> {
        self.lookup(|indexes| indexes.read(name)).await
    }

    /// The indexes that a search names. A pattern may match indexes that are not known here yet.
    pub(crate) async fn indexes_to_search(
        &self,
        expression: &str,
    ) -> Result<(Arc<Indexes>, Vec<Arc<Index>>), Refusal> {
        if crate::catalog::has_pattern(expression) {
            self.catalog.fresh().await?;
        }
        self.lookup(|indexes| indexes.resolve(expression, RULE)).await
    }

    /// Whether a first write may create an index.
    pub(crate) fn may_auto_create(&self, indexes: &Indexes, name: &str) -> bool {
        indexes.auto_create.as_ref().unwrap_or(&self.auto_create).allows(name)
    }

    /// Creates an index for a first write, unless another request has created an index or an alias of that name.
    pub(crate) async fn auto_create(
        &self,
        name: &str,
        wanted: &PartialDefinition,
    ) -> Result<Arc<Indexes>, Refusal> {
        let uuid = Uuid::now_v7();
        let change = |record: &Record| -> Result<_, CreateError> {
            if record.indexes.contains_key(name) || record.aliases.contains_key(name) {
                return Ok((Change::Nothing, false));
            }
            Ok((create_by_request(record, name, wanted, &BTreeMap::new(), uuid)?, true))
        };
        let (indexes, is_created) = self.catalog.change(change).await?;
        if is_created && indexes.aliases_of(name).next().is_some() {
            // A template has added it to aliases, which other members know already.
            self.tell(indexes.number).await;
        }
        Ok(indexes)
    }

    /// Creates the index that a write names if there is none and `auto_create` allows it. Then the body is read, and only one
    /// that `is_document` takes creates an index. Returns the body for the write.
    pub(crate) async fn prepare_write(
        &self,
        name: &str,
        head: &Parts,
        body: Body,
        most: usize,
        is_document: impl Fn(&[u8]) -> bool,
    ) -> Result<Body, Response> {
        let known = self.lookup(|indexes| match indexes.has(name) {
            true => Ok(()),
            false => Err(NoSuchIndex::among(name, [])),
        });
        match known.await {
            Ok(_) => return Ok(body),
            Err(refusal) if refusal.problem.status != 404 => return Err(refusal.into()),
            Err(_) if !self.may_auto_create(&self.catalog.now(), name) => return Ok(body),
            Err(_) => {}
        }
        let (body, _space) = self.read_body(head, body, most, &self.bodies.outer).await?;
        if is_document(&body) {
            self.auto_create(name, &PartialDefinition::default()).await?;
        }
        Ok(Body::from(body))
    }
}
