//! The indexes that an expression names: `books`, `logs-*,-logs-old*`, `_all`.

use std::sync::Arc;

use super::error::EsError;
use super::parameters::Parameters;
use crate::catalog::{Change, CreateError, Index, Indexes, check_name, create, matches};
use crate::definition::PartialDefinition;
use crate::http::Refusal;
use crate::service::SearcherService;
use uuid::Uuid;

/// An index, and the record of the catalog that has it.
pub(crate) type Named = (Arc<Indexes>, Arc<Index>);

/// What an expression may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Whether names of indexes that do not exist are left out.
    pub(crate) ignores_unavailable: bool,
    /// Whether it may name no index at all.
    pub(crate) allows_none: bool,
}

impl Rule {
    pub(crate) fn of(parameters: &Parameters) -> Result<Self, EsError> {
        Ok(Self {
            ignores_unavailable: parameters.flag("ignore_unavailable")?.unwrap_or(false),
            allows_none: parameters.flag("allow_no_indices")?.unwrap_or(true),
        })
    }
}

/// Whether an expression has patterns, so that it can name indexes that this member does not know yet.
fn has_pattern(expression: &str) -> bool {
    expression.is_empty() || expression.split(',').any(|part| part.contains('*') || part == "_all")
}

/// The indexes that an expression names, each once, in the order of their names.
pub(crate) fn resolve(expression: &str, indexes: &Indexes, rule: Rule) -> Result<Vec<Arc<Index>>, EsError> {
    let mut named: Vec<Arc<Index>> = Vec::new();
    let mut has_seen_pattern = false;
    let expression = if expression.is_empty() { "_all" } else { expression };
    for part in expression.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        if part.starts_with('<') {
            return Err(EsError::unsupported("date math in the names of indexes"));
        }
        if part.contains(':') {
            return Err(EsError::unsupported("search across clusters"));
        }
        if let Some(excluded) = part.strip_prefix('-').filter(|_| has_seen_pattern) {
            named.retain(|index| !matches(excluded, &index.name));
        } else if part == "_all" || part.contains('*') {
            has_seen_pattern = true;
            let pattern = if part == "_all" { "*" } else { part };
            named.extend(indexes.all().filter(|index| matches(pattern, &index.name)).cloned());
        } else if let Some(index) = indexes.named(part) {
            named.push(Arc::clone(index));
        } else if let Err(error) = check_name(part) {
            return Err(EsError::bad_name(part, &error));
        } else if !rule.ignores_unavailable {
            return Err(EsError::no_such_index(part));
        }
    }
    named.sort_by(|one, other| one.name.cmp(&other.name));
    named.dedup_by(|one, other| one.uuid == other.uuid);
    if named.is_empty() && !rule.allows_none {
        return Err(EsError::no_such_index(expression));
    }
    Ok(named)
}

impl SearcherService {
    /// The indexes that an expression names. Names that are not known here are looked up on the store.
    pub(crate) async fn es_indexes(
        &self,
        expression: Option<&str>,
        rule: Rule,
    ) -> Result<(Arc<Indexes>, Vec<Arc<Index>>), EsError> {
        let expression = expression.unwrap_or_default();
        if !has_pattern(expression) {
            let indexes = self.catalog.now();
            let strict = Rule { ignores_unavailable: false, ..rule };
            if let Ok(named) = resolve(expression, &indexes, strict) {
                return Ok((indexes, named));
            }
        }
        let indexes = self.catalog.fresh().await.map_err(Refusal::from)?;
        let named = resolve(expression, &indexes, rule)?;
        Ok((indexes, named))
    }

    /// The one index with a name.
    pub(crate) async fn es_index(&self, name: &str) -> Result<Named, EsError> {
        if name.contains(['*', ',']) {
            return Err(EsError::illegal(format!("one index is wanted here, not the expression [{name}]")));
        }
        check_name(name).map_err(|error| EsError::bad_name(name, &error))?;
        self.index_named(name).await.map_err(|refusal| match refusal.problem.code() {
            "no-such-index" => EsError::no_such_index(name),
            _ => refusal.into(),
        })
    }

    /// The index with a name, which is created if it does not exist and may be.
    pub(crate) async fn es_index_to_write(&self, name: &str) -> Result<Named, EsError> {
        let missing = match self.es_index(name).await {
            Err(error) if error.status == 404 => error,
            found => return found,
        };
        // The lookup has just read the catalog.
        let indexes = self.catalog.now();
        let auto_create = indexes.auto_create.as_ref().unwrap_or(&self.auto_create);
        if !auto_create.allows(name) {
            let reason = format!(
                "no such index [{name}] and [action.auto_create_index] is [{}]",
                auto_create.to_text()
            );
            return Err(EsError::new(404, "index_not_found_exception", reason).of_index(name));
        }
        let uuid = Uuid::now_v7();
        let change = |record: &crate::catalog::Record| -> Result<_, CreateError> {
            if record.indexes.contains_key(name) {
                return Ok((Change::Nothing, ()));
            }
            let wanted = PartialDefinition { coerce: true, ..PartialDefinition::default() };
            Ok((create(record, name, &wanted, uuid)?, ()))
        };
        let (indexes, ()) = self.catalog.change(change).await.map_err(Refusal::from)?;
        let index = indexes.named(name).cloned().ok_or(missing)?;
        Ok((indexes, index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::Definition;
    use crate::schema::IndexSchema;

    fn indexes(names: &[&str]) -> Indexes {
        let index = |(number, name): (usize, &&str)| {
            let created = Definition::default();
            let schema = Arc::new(IndexSchema::new(&created, Arc::new(created.clone())));
            Arc::new(Index {
                name: (*name).to_owned(),
                uuid: Uuid::from_u128(number as u128),
                created,
                schema,
            })
        };
        Indexes::new(1, names.iter().enumerate().map(index))
    }

    #[test]
    fn lists_patterns_and_exclusions_name_indexes_once() {
        let indexes = indexes(&["a", "logs-1", "logs-2"]);
        let rule = Rule { ignores_unavailable: false, allows_none: true };
        let named = |expression: &str, rule| {
            let found = resolve(expression, &indexes, rule);
            found.map(|found| found.iter().map(|index| index.name.clone()).collect::<Vec<_>>().join(" "))
        };
        for (expression, names) in [
            ("a", "a"),
            ("", "a logs-1 logs-2"),
            ("_all", "a logs-1 logs-2"),
            ("logs-*", "logs-1 logs-2"),
            ("logs-2,logs-*,a", "a logs-1 logs-2"),
            ("logs-*,-logs-2", "logs-1"),
            ("logs-*,-*-2", "logs-1"),
            ("*,-*", ""),
            ("nothing-*", ""),
        ] {
            assert_eq!(named(expression, rule).as_deref(), Ok(names), "{expression}");
        }
        let status = |found: Result<String, EsError>| found.map_err(|error| error.status);
        assert_eq!(status(named("a,b", rule)), Err(404));
        assert_eq!(status(named("a,b", Rule { ignores_unavailable: true, ..rule })), Ok("a".to_owned()));
        assert_eq!(status(named("b*", Rule { allows_none: false, ..rule })), Err(404));
        for wrong in ["A", "<logs-{now}>", "other:a", "-a"] {
            assert_eq!(status(named(wrong, rule)), Err(400), "{wrong}");
        }
    }
}
