//! Aliases: `/_aliases`, `/{index}/aliases` and `/{index}/aliases/{alias}`.

use axum::body::Body;
use http::Method;
use http::request::Parts;
use plugin::http::{Answer, json, method_not_allowed};
use serde_json::{Map, Value, json};

use super::indexes::{MAX_DEFINITION, no_parameters};
use super::path::is_read;
use super::refusal::Refusal;
use crate::catalog::{
    ActionError, AliasAction, AliasError, AliasOptions, AliasRecord, Change, Indexes, alias_actions,
    alias_options, change_aliases,
};
use crate::service::SearcherService;

impl From<ActionError> for Refusal {
    fn from(error: ActionError) -> Self {
        let hint = r#"send for example {"actions": [{"add": {"index": "logs-2", "alias": "logs"}}]}"#;
        Self::invalid("bad-alias", &error, hint)
    }
}

impl SearcherService {
    /// Answers `/_aliases`.
    pub(crate) async fn all_aliases(&self, head: &Parts, body: Body) -> Answer {
        no_parameters(head)?;
        if is_read(&head.method) {
            let indexes = self.catalog.fresh().await.map_err(Refusal::from)?;
            let shown = indexes.aliases.iter().map(|(name, alias)| (name.clone(), shown(alias)));
            return Ok(json(json!({ "aliases": shown.collect::<Map<_, _>>() }).to_string()));
        }
        if head.method != Method::POST {
            return Err(method_not_allowed("GET, HEAD, POST"));
        }
        let (body, _space) = self.read_body(head, body, MAX_DEFINITION, &self.bodies.outer).await?;
        let actions = alias_actions(&body).map_err(Refusal::from)?;
        self.changed(&actions).await
    }

    /// Answers `/{index}/aliases`.
    pub(crate) async fn aliases_of_index(&self, index: &str, head: &Parts) -> Answer {
        no_parameters(head)?;
        if !is_read(&head.method) {
            return Err(method_not_allowed("GET, HEAD"));
        }
        let indexes = self.index_itself_exists(index).await?;
        let shown = indexes.aliases_of(index).map(|(name, alias)| (name.to_owned(), shown(alias)));
        Ok(json(json!({ "aliases": shown.collect::<Map<_, _>>() }).to_string()))
    }

    /// Answers `/{index}/aliases/{alias}`.
    pub(crate) async fn one_alias(&self, index: &str, alias: &str, head: &Parts, body: Body) -> Answer {
        no_parameters(head)?;
        let (indexes, aliases) = (vec![index.to_owned()], vec![alias.to_owned()]);
        match head.method {
            Method::PUT => {
                let (body, _space) = self.read_body(head, body, MAX_DEFINITION, &self.bodies.outer).await?;
                let options = options(&body).map_err(Refusal::from)?;
                self.changed(&[AliasAction::Add { indexes, aliases, options }]).await
            }
            Method::DELETE => {
                self.changed(&[AliasAction::Remove { indexes, aliases, must_exist: true }]).await
            }
            Method::GET | Method::HEAD => {
                let found = self.index_itself_exists(index).await?;
                let known = found.aliases.get(alias).filter(|known| known.indexes.contains_key(index));
                let missing = || {
                    let names = found.aliases_of(index).map(|(name, _)| name);
                    let similar = types::did_you_mean(alias, names).map(str::to_owned);
                    Refusal::from(AliasError::Missing { name: alias.to_owned(), similar })
                };
                let known = known.ok_or_else(missing)?;
                let mut answer = shown(known);
                answer["alias"] = json!(alias);
                Ok(json(answer.to_string()))
            }
            _ => Err(method_not_allowed("GET, HEAD, PUT, DELETE")),
        }
    }

    async fn index_itself_exists(&self, index: &str) -> Result<std::sync::Arc<Indexes>, Refusal> {
        let found = self.lookup(|indexes| match (indexes.named(index), indexes.has(index)) {
            (Some(_), _) => Ok(()),
            (None, true) => Err(AliasError::IsAlias(index.to_owned())),
            (None, false) => Err(indexes
                .read(index)
                .err()
                .map_or_else(|| AliasError::IsAlias(index.to_owned()), AliasError::from)),
        });
        Ok(found.await?.0)
    }

    async fn changed(&self, actions: &[AliasAction]) -> Answer {
        let (is_changed, unreached) = self.change_aliases(actions).await?;
        Ok(json(json!({ "changed": is_changed, "unreached": unreached }).to_string()))
    }

    /// Does all of the actions in one change of the catalog, and makes all members read it. Returns whether anything was
    /// changed, and the members that did not answer.
    pub(crate) async fn change_aliases(
        &self,
        actions: &[AliasAction],
    ) -> Result<(bool, Vec<types::NodeId>), Refusal> {
        let change = |record: &_| -> Result<_, AliasError> {
            let change = change_aliases(record, actions, |index| self.declared.has(index))?;
            let is_changed = change != Change::Nothing;
            Ok((change, is_changed))
        };
        let (indexes, is_changed) = self.catalog.change(change).await?;
        let unreached = if is_changed { self.tell(indexes.number).await } else { Vec::new() };
        Ok((is_changed, unreached))
    }
}

/// The options in a body, which may be empty.
fn options(body: &[u8]) -> Result<AliasOptions, ActionError> {
    if body.trim_ascii().is_empty() {
        return Ok(AliasOptions::default());
    }
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| ActionError::Shape(format!("the body is no JSON: {error}")))?;
    alias_options(&value)
}

fn shown(alias: &AliasRecord) -> Value {
    json!({ "indexes": alias.indexes, "write_index": alias.write_index() })
}
