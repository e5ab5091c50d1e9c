//! The catalog's errors as answers.

use types::{ErrorKind, Problem};

use super::Refusal;
use crate::catalog::{
    AliasError, CatalogUnavailable, ChangeError, CreateError, NAME_RULE, NoSuchIndex, NoSuchTemplate,
    ResolveError, TemplateError,
};

/// The hint for a name that is unknown.
fn similar(similar: Option<&String>, otherwise: &str) -> String {
    similar.map_or_else(|| otherwise.to_owned(), |similar| format!("did you mean `{similar}`?"))
}

impl From<NoSuchIndex> for Refusal {
    fn from(error: NoSuchIndex) -> Self {
        let hint = similar(error.similar.as_ref(), "`PUT /{index}` creates an index, `GET /` lists them");
        Self::plain(Problem::new(ErrorKind::NotFound, "no-such-index", error.to_string()).hint(hint))
    }
}

impl From<NoSuchTemplate> for Refusal {
    fn from(error: NoSuchTemplate) -> Self {
        let hint = similar(error.similar.as_ref(), "`GET /_templates` lists them");
        Self::plain(Problem::new(ErrorKind::NotFound, "no-such-template", error.to_string()).hint(hint))
    }
}

impl From<CatalogUnavailable> for Refusal {
    fn from(error: CatalogUnavailable) -> Self {
        let problem = match error.kind {
            ErrorKind::Internal => Problem::new(error.kind, "damaged-catalog", error.to_string()),
            _ => Problem::new(error.kind, "catalog-unavailable", error.to_string()),
        };
        let hint =
            error.hint.unwrap_or_else(|| "try again in a moment; repeating it does no harm".to_owned());
        Self::plain(problem.hint(hint))
    }
}

impl From<CreateError> for Refusal {
    fn from(error: CreateError) -> Self {
        let conflict = |code, hint: &str| {
            Self::plain(Problem::new(ErrorKind::Conflict, code, error.to_string()).hint(hint))
        };
        match &error {
            CreateError::Name(_) => Self::invalid("bad-index-name", &error, NAME_RULE),
            CreateError::Exists { name, .. } => conflict("index-exists", &how_to_change(name, "SERVICE")),
            CreateError::TooMany => conflict("too-many-indexes", "delete one that is no longer needed"),
            CreateError::IsAlias(_) => conflict(
                "name-taken",
                "choose another name, or remove the alias; `GET /_aliases` shows its indexes",
            ),
            CreateError::Template { .. } => conflict(
                "template-conflict",
                "change the definition in the request or the template; `GET /_templates` shows it",
            ),
            CreateError::Alias(error) => error.clone().into(),
        }
    }
}

/// How to change what can't change in an index: in a new one.
pub(crate) fn how_to_change(index: &str, service: &str) -> String {
    let new = format!("{index}-2");
    format!(
        "fields can be added; for any other change create an index `{new}` with the new definition, and copy the documents: \
         `ctl index reindex {index} {new}`, or \
         `curl -X POST -d '{{\"to\":\"{new}\"}}' http://MEMBER/svc/{service}/{index}/reindex`"
    )
}

impl From<AliasError> for Refusal {
    fn from(error: AliasError) -> Self {
        let of = |kind, code, hint: &str| Self::plain(Problem::new(kind, code, error.to_string()).hint(hint));
        match &error {
            AliasError::Name { .. } => Self::invalid("bad-alias-name", &error, NAME_RULE),
            AliasError::IsIndex(_) => of(
                ErrorKind::Conflict,
                "name-taken",
                "choose another name, or delete the index in the same request with `remove_index`",
            ),
            AliasError::IsAlias(_) => of(
                ErrorKind::Invalid,
                "is-an-alias",
                "name an index of the alias; `GET /_aliases` shows them",
            ),
            AliasError::NoSuchIndex(error) => error.clone().into(),
            AliasError::Missing { similar: found, .. } => of(
                ErrorKind::NotFound,
                "no-such-alias",
                &similar(found.as_ref(), "`GET /_aliases` lists them"),
            ),
            AliasError::TwoWriteIndexes { .. } => of(
                ErrorKind::Conflict,
                "two-write-indexes",
                "add the former one again with `is_write_index: false` in the same request",
            ),
            AliasError::TooMany => {
                of(ErrorKind::Conflict, "too-many-aliases", "remove some that are no longer needed")
            }
            AliasError::Declared(_) => {
                of(ErrorKind::Conflict, "declared-index", "take it out of `indexes` in the settings first")
            }
        }
    }
}

impl From<ResolveError> for Refusal {
    fn from(error: ResolveError) -> Self {
        let invalid = |code, hint: &str| Self::invalid(code, &error, hint);
        match &error {
            ResolveError::NoSuchIndex(error) => error.clone().into(),
            ResolveError::Several { .. } => {
                invalid("alias-of-several", "name one of its indexes instead of the alias")
            }
            ResolveError::NoWriteIndex { .. } => invalid(
                "no-write-index",
                "name one of its indexes, or add one with `is_write_index: true` to the alias",
            ),
            ResolveError::Name { .. } => invalid("bad-index-name", NAME_RULE),
            ResolveError::Unsupported(_) => {
                invalid("bad-index-name", "name indexes and aliases; `*` stands for any characters")
            }
        }
    }
}

impl From<TemplateError> for Refusal {
    fn from(error: TemplateError) -> Self {
        let conflict = |code, hint: &str| {
            Self::plain(Problem::new(ErrorKind::Conflict, code, error.to_string()).hint(hint))
        };
        match &error {
            TemplateError::Name { .. } | TemplateError::Alias { .. } | TemplateError::Pattern { .. } => {
                Self::invalid("bad-template", &error, NAME_RULE)
            }
            TemplateError::Patterns(_) => Self::invalid(
                "bad-template",
                &error,
                r#"send for example {"patterns": ["logs-*"], "definition": {}}"#,
            ),
            TemplateError::Definition(_) => {
                Self::invalid("bad-template", &error, "correct the definition of the template")
            }
            TemplateError::Overlap { .. } => Self::invalid(
                "template-overlap",
                &error,
                "give it another `priority`: the highest one is used",
            ),
            TemplateError::Exists(_) => conflict("template-exists", "leave `create` out to replace it"),
            TemplateError::TooMany => conflict("too-many-templates", "delete one that is no longer needed"),
            TemplateError::TooLarge(_) => {
                conflict("too-many-templates", "declare less in it, or delete one that is no longer needed")
            }
        }
    }
}

impl<E: Into<Refusal>> From<ChangeError<E>> for Refusal {
    fn from(error: ChangeError<E>) -> Self {
        match error {
            ChangeError::Refused(error) => error.into(),
            ChangeError::Catalog(error) => error.into(),
        }
    }
}
