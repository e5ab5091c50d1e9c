//! The indexes that names and expressions name: `books`, `logs-*,-logs-old*`, `_all`, and aliases wherever indexes are named.

use std::sync::Arc;

use super::error::EsError;
use super::parameters::Parameters;
pub(crate) use crate::catalog::Rule;
use crate::catalog::{Index, Indexes, NoSuchIndex, ResolveError, check_name, has_pattern};
use crate::definition::PartialDefinition;
use crate::http::Refusal;
use crate::service::SearcherService;

/// An index, and the record of the catalog that has it.
pub(crate) type Named = (Arc<Indexes>, Arc<Index>);

impl Rule {
    pub(crate) fn of(parameters: &Parameters) -> Result<Self, EsError> {
        Ok(Self {
            ignores_unavailable: parameters.flag("ignore_unavailable")?.unwrap_or(false),
            allows_none: parameters.flag("allow_no_indices")?.unwrap_or(true),
        })
    }
}

impl From<ResolveError> for EsError {
    fn from(error: ResolveError) -> Self {
        match &error {
            ResolveError::NoSuchIndex(NoSuchIndex { name, .. }) => Self::no_such_index(name),
            ResolveError::Several { alias, indexes } => Self::illegal(format!(
                "alias [{alias}] has more than one index associated with it [{}], can't execute a single index op",
                indexes.join(", ")
            )),
            ResolveError::NoWriteIndex { alias, .. } => Self::illegal(format!(
                "no write index is defined for alias [{alias}]. The write index may be explicitly disabled using \
                 is_write_index=false or the alias points to multiple indices without one being designated as a write index"
            )),
            ResolveError::Name { name, error } => Self::bad_name(name, error),
            ResolveError::Unsupported(what) => Self::unsupported(what),
        }
    }
}

/// What an expression names. With a rule that leaves out what does not exist, a member that does not know everything must
/// read the store first.
pub(crate) fn is_known(expression: &str, indexes: &Indexes, rule: Rule) -> bool {
    let strict = Rule { ignores_unavailable: false, ..rule };
    !has_pattern(expression) && indexes.resolve(expression, strict).is_ok()
}

fn one_name(name: &str) -> Result<(), EsError> {
    if name.contains(['*', ',']) {
        return Err(EsError::illegal(format!("one index is wanted here, not the expression [{name}]")));
    }
    check_name(name).map_err(|error| EsError::bad_name(name, &error))
}

impl SearcherService {
    /// The indexes that an expression names. Names that are not known here are looked up on the store.
    pub(crate) async fn es_indexes(
        &self,
        expression: Option<&str>,
        rule: Rule,
    ) -> Result<(Arc<Indexes>, Vec<Arc<Index>>), EsError> {
        let expression = expression.unwrap_or_default();
        let mut indexes = self.catalog.now();
        if !is_known(expression, &indexes, rule) {
            indexes = self.catalog.fresh().await.map_err(Refusal::from)?;
        }
        let named = indexes.resolve(expression, rule)?;
        Ok((indexes, named))
    }

    /// The one index with a name.
    pub(crate) async fn es_index(&self, name: &str) -> Result<Named, EsError> {
        one_name(name)?;
        let indexes = self.es_knowing(&[name]).await?;
        let index = indexes.one(name)?;
        Ok((indexes, index))
    }

    /// The index to which deletes of a name go; none is created for them.
    pub(crate) async fn es_index_for_delete(&self, name: &str) -> Result<Named, EsError> {
        one_name(name)?;
        let indexes = self.es_knowing(&[name]).await?;
        let index = indexes.to_write(name)?;
        Ok((indexes, index))
    }

    /// The indexes, as of a record that has some names if there is such a record: what these name is found in one record, so
    /// that a request sees a change of several aliases whole or not at all.
    pub(crate) async fn es_knowing(&self, names: &[&str]) -> Result<Arc<Indexes>, EsError> {
        let indexes = self.catalog.now();
        match names.iter().all(|name| indexes.has(name)) {
            true => Ok(indexes),
            false => Ok(self.catalog.fresh().await.map_err(Refusal::from)?),
        }
    }

    /// The index to which writes of a name go, which is created if it does not exist and may be.
    pub(crate) async fn es_index_to_write(&self, name: &str) -> Result<Named, EsError> {
        one_name(name)?;
        let indexes = self.es_knowing(&[name]).await?;
        let indexes = if indexes.has(name) { indexes } else { self.es_auto_create(name, &indexes).await? };
        let index = indexes.to_write(name)?;
        Ok((indexes, index))
    }

    /// Creates an index that does not exist for a first write, if that is allowed.
    pub(crate) async fn es_auto_create(&self, name: &str, known: &Indexes) -> Result<Arc<Indexes>, EsError> {
        one_name(name)?;
        if !self.may_auto_create(known, name) {
            let auto_create = known.auto_create.as_ref().unwrap_or(&self.auto_create);
            let reason = format!(
                "no such index [{name}] and [action.auto_create_index] is [{}]",
                auto_create.to_text()
            );
            return Err(EsError::new(404, "index_not_found_exception", reason).of_index(name));
        }
        let wanted = PartialDefinition { coerce: true, ..PartialDefinition::default() };
        Ok(self.auto_create(name, &wanted).await?)
    }
}
