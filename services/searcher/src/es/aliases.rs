//! `_alias` and `_aliases`: aliases are shown, added and removed, several at once.

use std::collections::BTreeMap;

use axum::body::Body;
use http::Method;
use http::request::Parts;
use serde_json::{Map, Value, json};
use types::ErrorKind;

use super::error::EsError;
use super::names::Rule;
use super::parameters::Parameters;
use super::path::allow;
use super::reply::{Answer, Reply};
use super::unique;
use crate::catalog::{ActionError, AliasAction, AliasOptions, alias_actions, alias_options};
use crate::glob::matches;
use crate::http::Refusal;
use crate::service::SearcherService;

/// The largest body.
const MAX_BODY: usize = 1024 * 1024;

impl From<ActionError> for EsError {
    fn from(error: ActionError) -> Self {
        match error {
            ActionError::Unsupported(member) => Self::unsupported(&member),
            ActionError::TooMany => Self::illegal(error.to_string()),
            ActionError::Shape(_) | ActionError::Unknown { .. } => Self::parsing(error.to_string()),
        }
    }
}

/// The aliases in the body of an index or of a template.
pub(crate) fn aliases_of(value: Option<&Value>) -> Result<BTreeMap<String, AliasOptions>, EsError> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(BTreeMap::new()) };
    let members = value.as_object().ok_or_else(|| EsError::parsing("[aliases] is no object"))?;
    members.iter().map(|(name, options)| Ok((name.clone(), alias_options(options)?))).collect()
}

/// Elasticsearch answers conflicts of names and of write indexes with 400.
pub(crate) fn refused(refusal: Refusal) -> EsError {
    let is_conflict = refusal.problem.status == ErrorKind::Conflict.status();
    let is_declared = refusal.problem.code() == "declared-index";
    let error = EsError::from(refusal);
    if is_conflict && !is_declared { error.with_status(400) } else { error }
}

/// The names of aliases in a path: patterns, after which others may be excluded.
pub(super) fn is_named(expression: &str, alias: &str) -> bool {
    let mut is_named = false;
    for part in expression.split(',').map(str::trim) {
        match part.strip_prefix('-') {
            Some(excluded) if is_named && matches(excluded, alias) => is_named = false,
            Some(_) => {}
            None => is_named |= part == "_all" || matches(part, alias),
        }
    }
    is_named
}

impl SearcherService {
    /// Answers `_aliases`.
    pub(crate) async fn es_aliases(&self, head: &Parts, body: Body) -> Answer {
        if head.method != Method::POST {
            allow(head, &[Method::GET, Method::HEAD, Method::POST])?;
            return self.es_show_aliases(None, None, head).await;
        }
        Parameters::parse(head.uri.query(), &[])?;
        let (body, _space) = self.es_body(head, body, MAX_BODY).await?;
        self.es_change_aliases(&alias_actions(&body)?).await
    }

    /// Answers `_alias`, also of some indexes, and of an alias or several.
    pub(crate) async fn es_alias(
        &self,
        index: Option<&str>,
        alias: Option<&str>,
        head: &Parts,
        body: Body,
    ) -> Answer {
        let is_change = matches!(head.method, Method::PUT | Method::POST | Method::DELETE);
        let (Some(alias), true) = (alias, is_change) else {
            allow(head, &[Method::GET, Method::HEAD])?;
            return self.es_show_aliases(index, alias, head).await;
        };
        Parameters::parse(head.uri.query(), &[])?;
        let missing = || EsError::invalid(&["index is missing".to_owned()]);
        let names = |text: &str| text.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>();
        let (indexes, aliases) = (names(index.ok_or_else(missing)?), names(alias));
        let action = if head.method == Method::DELETE {
            AliasAction::Remove { indexes, aliases, must_exist: false }
        } else {
            let (body, _space) = self.es_body(head, body, MAX_BODY).await?;
            let options = match body.trim_ascii() {
                [] => AliasOptions::default(),
                text => {
                    let value: Value = unique::read(text)
                        .map_err(|error| EsError::parsing(format!("the body is no JSON: {error}")))?;
                    alias_options(&value)?
                }
            };
            AliasAction::Add { indexes, aliases, options }
        };
        self.es_change_aliases(&[action]).await
    }

    async fn es_change_aliases(&self, actions: &[AliasAction]) -> Answer {
        self.change_aliases(actions).await.map_err(refused)?;
        Ok(Reply::json(&json!({ "acknowledged": true, "errors": false })))
    }

    async fn es_show_aliases(&self, index: Option<&str>, alias: Option<&str>, head: &Parts) -> Answer {
        let parameters = Parameters::parse(head.uri.query(), &[])?;
        let rule = Rule::of(&parameters)?;
        self.catalog.fresh().await.map_err(Refusal::from)?;
        let (indexes, named) = self.es_indexes(index, rule).await?;
        let mut shown = Map::new();
        let mut missing: Vec<&str> = alias.unwrap_or_default().split(',').map(str::trim).collect();
        missing.retain(|name| {
            !name.is_empty() && !name.starts_with('-') && *name != "_all" && !name.contains('*')
        });
        for index in named {
            let mut of_index = Map::new();
            for (name, record) in indexes.aliases_of(&index.name) {
                if alias.is_none_or(|expression| is_named(expression, name)) {
                    missing.retain(|missing| *missing != name);
                    of_index.insert(name.to_owned(), json!(record.indexes.get(&index.name)));
                }
            }
            if alias.is_none() || !of_index.is_empty() {
                shown.insert(index.name.clone(), json!({ "aliases": of_index }));
            }
        }
        if missing.is_empty() {
            return Ok(Reply::json(&shown));
        }
        let what = if missing.len() == 1 { "alias" } else { "aliases" };
        shown.insert("error".to_owned(), json!(format!("{what} [{}] missing", missing.join(","))));
        shown.insert("status".to_owned(), json!(404));
        Ok(Reply::json(&shown).status(404))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_names_aliases_by_patterns_and_without_exclusions() {
        for (expression, alias, expected) in [
            ("a", "a", true),
            ("a", "b", false),
            ("a,b", "b", true),
            ("*", "a", true),
            ("_all", "a", true),
            ("lo*,-logs", "logs", false),
            ("lo*,-logs", "lost", true),
            ("-logs", "logs", false),
        ] {
            assert_eq!(is_named(expression, alias), expected, "{expression} {alias}");
        }
    }
}
