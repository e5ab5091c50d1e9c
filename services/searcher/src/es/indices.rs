//! Indexes: created, shown, deleted; their mappings and settings.

use std::sync::Arc;

use axum::body::Body;
use http::Method;
use http::request::Parts;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::VERSION;
use super::aliases::{aliases_of, refused};
use super::error::EsError;
use super::mapping::{Analysis, define, mappings_of, type_of};
use super::names::Rule;
use super::parameters::Parameters;
use super::path::allow;
use super::reply::{Answer, Reply};
use super::unique;
use crate::catalog::{
    Change, ChangeError, CreateError, Index, Indexes, NameError, NoSuchIndex, Record, check_name, create,
    create_by_request, delete,
};
use crate::definition::Definition;
use crate::gather::Failures;
use crate::glob::matches;
use crate::http::{Refusal, Verb};
use crate::service::SearcherService;

/// The largest body.
const MAX_BODY: usize = 1024 * 1024;
/// Settings of an index that are decided for the service, or have no effect.
const WITHOUT_EFFECT: [(&str, &str); 6] = [
    ("number_of_shards", "the shards are the service's, for all its indexes"),
    ("number_of_replicas", "the replicas are the service's, for all its indexes"),
    ("auto_expand_replicas", "the replicas are the service's, for all its indexes"),
    ("refresh_interval", "the pause between refreshes is the service's, for all its indexes"),
    ("codec", "segments have one form"),
    ("max_result_window", "the limit is the service's"),
];

/// Why an index is not created through this API.
#[derive(Debug)]
enum CreateRefused {
    Exists(Uuid),
    Error(CreateError),
}

impl From<CreateRefused> for Refusal {
    fn from(refused: CreateRefused) -> Self {
        match refused {
            CreateRefused::Exists(uuid) => {
                Self::invalid("index-exists", &format!("it has the uuid {uuid}"), "choose another name")
            }
            CreateRefused::Error(error) => error.into(),
        }
    }
}

/// The settings in a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct IndexSettings {
    pub(super) analysis: Analysis,
    pub(super) warnings: Vec<String>,
}

impl IndexSettings {
    /// Settings may be nested or have dots, and begin with `index.` or not.
    pub(super) fn parse(value: &Value, may_have_analysis: bool) -> Result<Self, EsError> {
        let Value::Object(members) = value else { return Err(EsError::parsing("[settings] is no object")) };
        let mut parsed = Self::default();
        for (name, value) in members {
            if name == "index" && value.is_object() {
                let inner = Self::parse(value, may_have_analysis)?;
                parsed.warnings.extend(inner.warnings);
                if inner.analysis != Analysis::default() {
                    parsed.analysis = inner.analysis;
                }
                continue;
            }
            let short = name.strip_prefix("index.").unwrap_or(name);
            if short == "analysis" && may_have_analysis {
                parsed.analysis = Analysis::parse(value)?;
            } else if let Some((_, why)) = WITHOUT_EFFECT.iter().find(|(known, _)| *known == short) {
                parsed.warnings.push(format!("[index.{short}] has no effect: {why}"));
            } else {
                return Err(EsError::illegal(format!("unsupported setting [index.{short}]")));
            }
        }
        Ok(parsed)
    }
}

pub(super) fn body_of(body: &[u8]) -> Result<Map<String, Value>, EsError> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    unique::read(body).map_err(|error| EsError::parsing(format!("the body is no JSON object: {error}")))
}

impl SearcherService {
    /// Answers a request for an index itself.
    pub(crate) async fn es_index_itself(&self, name: &str, head: &Parts, body: Body) -> Answer {
        match head.method {
            Method::PUT => self.es_create(name, head, body).await,
            Method::DELETE => self.es_delete(name, head).await,
            _ => {
                allow(head, &[Method::GET, Method::HEAD, Method::PUT, Method::DELETE])?;
                self.es_show(Some(name), head, |indexes, index| {
                    let mappings = mappings_of(&index.schema.definition);
                    let aliases = indexes.aliases_of(&index.name);
                    let aliases =
                        aliases.map(|(name, alias)| (name.to_owned(), json!(alias.indexes.get(&index.name))));
                    let aliases: Map<String, Value> = aliases.collect();
                    json!({ "aliases": aliases, "mappings": mappings, "settings": self.settings_of(index) })
                })
                .await
            }
        }
    }

    /// Answers `_mapping`.
    pub(crate) async fn es_mapping(&self, name: Option<&str>, head: &Parts, body: Body) -> Answer {
        if matches!(head.method, Method::PUT | Method::POST) {
            let name = name.ok_or_else(|| EsError::invalid(&["index is missing".to_owned()]))?;
            return self.es_put_mapping(name, head, body).await;
        }
        allow(head, &[Method::GET, Method::PUT, Method::POST])?;
        self.es_show(name, head, |_, index| json!({ "mappings": mappings_of(&index.schema.definition) }))
            .await
    }

    /// Answers `_settings`.
    pub(crate) async fn es_settings(&self, name: Option<&str>, head: &Parts, body: Body) -> Answer {
        if head.method == Method::PUT {
            let parameters = Parameters::parse(head.uri.query(), &["preserve_existing"])?;
            let rule = Rule::of(&parameters)?;
            let (body, _space) = self.es_body(head, body, MAX_BODY).await?;
            let mut body = body_of(&body)?;
            let body = body.remove("settings").unwrap_or(Value::Object(body));
            let settings = IndexSettings::parse(&body, false)?;
            self.es_indexes(name, rule).await?;
            return Ok(Reply::json(&json!({ "acknowledged": true })).warnings(settings.warnings));
        }
        allow(head, &[Method::GET, Method::PUT])?;
        self.es_show(name, head, |_, index| json!({ "settings": self.settings_of(index) })).await
    }

    /// Shows something of each index.
    async fn es_show(
        &self,
        name: Option<&str>,
        head: &Parts,
        show: impl Fn(&Indexes, &Index) -> Value,
    ) -> Answer {
        let parameters = Parameters::parse(head.uri.query(), &[])?;
        let (indexes, named) = self.es_indexes(name, Rule::of(&parameters)?).await?;
        let shown = named.iter().map(|index| (index.name.clone(), show(&indexes, index)));
        Ok(Reply::json(&Value::Object(shown.collect())))
    }

    fn settings_of(&self, index: &Index) -> Value {
        // The uuid begins with the time in milliseconds.
        let created = index.uuid.as_u128() >> 80;
        json!({ "index": {
            "number_of_shards": self.member.shards.to_string(),
            "number_of_replicas": "0",
            "provided_name": index.name,
            "uuid": index.uuid,
            "creation_date": created.to_string(),
            "version": { "created": VERSION },
        } })
    }

    async fn es_create(&self, name: &str, head: &Parts, body: Body) -> Answer {
        Parameters::parse(head.uri.query(), &[])?;
        check_name(name).map_err(|error| EsError::bad_name(name, &error))?;
        let (body, _space) = self.es_body(head, body, MAX_BODY).await?;
        let body = body_of(&body)?;
        if let Some(unknown) =
            body.keys().find(|member| !matches!(member.as_str(), "settings" | "mappings" | "aliases"))
        {
            return Err(EsError::parsing(format!("unknown key [{unknown}] for create index")));
        }
        let aliases = aliases_of(body.get("aliases"))?;
        let settings = body
            .get("settings")
            .map_or_else(|| Ok(IndexSettings::default()), |value| IndexSettings::parse(value, true))?;
        let no_mappings = json!({});
        let mappings = body.get("mappings").unwrap_or(&no_mappings);
        let base = Definition { coerce: true, ..Definition::default() };
        let mapped = define(&base, true, mappings, &settings.analysis)?;
        let (wanted, uuid) = (mapped.changes(&base), Uuid::now_v7());
        let change = |record: &Record| -> Result<_, CreateRefused> {
            if let Some(index) = record.indexes.get(name) {
                return Err(CreateRefused::Exists(index.uuid));
            }
            let change = create_by_request(record, name, &wanted, &aliases, uuid);
            Ok((change.map_err(CreateRefused::Error)?, ()))
        };
        let (indexes, ()) = self.catalog.change(change).await.map_err(|error| match error {
            ChangeError::Refused(CreateRefused::Exists(_)) => {
                let reason = format!("index [{name}] already exists");
                EsError::new(400, "resource_already_exists_exception", reason).of_index(name)
            }
            ChangeError::Refused(CreateRefused::Error(CreateError::IsAlias(_))) => {
                let reason = format!("Invalid index name [{name}], already exists as alias");
                EsError::new(400, "invalid_index_name_exception", reason).of_index(name)
            }
            error => refused(error.into()),
        })?;
        if indexes.aliases_of(name).next().is_some() {
            // Other members know the aliases already, with other indexes.
            self.tell(indexes.number).await;
        }
        let warnings = [settings.warnings, mapped.warnings].concat();
        let body = json!({ "acknowledged": true, "shards_acknowledged": true, "index": name });
        Ok(Reply::json(&body).warnings(warnings))
    }

    async fn es_put_mapping(&self, name: &str, head: &Parts, body: Body) -> Answer {
        let parameters = Parameters::parse(head.uri.query(), &["write_index_only"])?;
        let (body, _space) = self.es_body(head, body, MAX_BODY).await?;
        let mappings = Value::Object(body_of(&body)?);
        let (indexes, mut named) = self.es_indexes(Some(name), Rule::of(&parameters)?).await?;
        if parameters.flag("write_index_only")? == Some(true) && indexes.has(name) {
            named = vec![indexes.to_write(name)?];
        }
        let mut warnings = Vec::new();
        for index in named {
            let base = &index.schema.definition;
            let mapped = define(base, false, &mappings, &Analysis::default())?;
            let wanted = mapped.changes(base);
            warnings.extend(mapped.warnings);
            let change = |record: &Record| -> Result<_, CreateRefused> {
                if record.indexes.get(&index.name).is_none_or(|now| now.uuid != index.uuid) {
                    return Err(CreateRefused::Error(CreateError::Name(NameError::Empty)));
                }
                let change = create(record, &index.name, &wanted, index.uuid);
                Ok((change.map_err(CreateRefused::Error)?, ()))
            };
            let changed = self.catalog.change(change).await.map_err(|error| {
                let refusal = Refusal::from(error);
                match refusal.problem.code() {
                    "index-exists" => EsError::illegal(refusal.problem.detail.clone()),
                    "bad-index-name" => EsError::no_such_index(&index.name),
                    _ => refusal.into(),
                }
            });
            // Documents with the new fields may arrive at other members right after this.
            self.tell(changed?.0.number).await;
        }
        warnings.dedup();
        Ok(Reply::json(&json!({ "acknowledged": true })).warnings(warnings))
    }

    async fn es_delete(&self, expression: &str, head: &Parts) -> Answer {
        let parameters = Parameters::parse(head.uri.query(), &[])?;
        if expression.contains('*') || expression == "_all" {
            return Err(EsError::illegal("Wildcard expressions or all indices are not allowed"));
        }
        let (indexes, named) = self.es_indexes(Some(expression), Rule::of(&parameters)?).await?;
        if let Some(alias) =
            expression.split(',').map(str::trim).find(|name| indexes.aliases.contains_key(*name))
        {
            return Err(EsError::illegal(format!(
                "The provided expression [{alias}] matches an alias, specify the corresponding concrete indices instead."
            )));
        }
        if let Some(declared) = named.iter().find(|index| self.declared.has(&index.name)) {
            let reason = format!(
                "the settings of the service declare the index [{}]: take it out of [indexes] there first",
                declared.name
            );
            return Err(EsError::new(409, "illegal_state_exception", reason).of_index(&declared.name));
        }
        let change = |record: &Record| -> Result<_, NoSuchIndex> {
            let mut next = record.clone();
            for index in &named {
                (next, _) = delete(&next, &index.name)?;
            }
            let change = if named.is_empty() { Change::Nothing } else { Change::To(next) };
            Ok((change, ()))
        };
        let (indexes, ()) = self.catalog.change(change).await.map_err(Refusal::from)?;
        self.tell(indexes.number).await;
        Ok(Reply::json(&json!({ "acknowledged": true })))
    }

    /// Answers `_refresh`, `_flush` and `_forcemerge`.
    pub(crate) async fn es_maintain(&self, name: Option<&str>, api: &str, head: &Parts) -> Answer {
        let allowed = if api == "_forcemerge" { &[Method::POST][..] } else { &[Method::POST, Method::GET] };
        allow(head, allowed)?;
        let known: &[&'static str] = match api {
            "_flush" => &["force", "wait_if_ongoing"],
            "_forcemerge" => &["max_num_segments", "flush", "wait_for_completion"],
            _ => &[],
        };
        let parameters = Parameters::parse(head.uri.query(), known)?;
        for (name, only) in [("max_num_segments", "1"), ("wait_for_completion", "true")] {
            if let Some(value) = parameters.text(name).filter(|value| *value != only) {
                return Err(EsError::illegal(format!(
                    "[{name}] can't be [{value}]: only [{only}] is supported"
                )));
            }
        }
        let (indexes, named) = self.es_indexes(name, Rule::of(&parameters)?).await?;
        let verb = if api == "_forcemerge" { Verb::Compact } else { Verb::Refresh };
        let total = self.member.all_shards().len();
        let mut failures = Vec::new();
        // A refresh is the shard's, for all its indexes.
        let asked = if verb == Verb::Refresh { named.get(..1).unwrap_or_default() } else { &named[..] };
        for index in asked {
            failures.push((index, self.each_owner(&indexes, index, verb).await));
        }
        let failed: Vec<Value> =
            failures.iter().flat_map(|(index, failures)| failed(index, total, failures)).collect();
        let total = total * named.len();
        let shards = json!({ "total": total, "successful": total.saturating_sub(failed.len()), "failed": failed.len() });
        let mut body = json!({ "_shards": shards });
        if !failed.is_empty() {
            body["_shards"]["failures"] = json!(failed);
        }
        Ok(Reply::json(&body))
    }

    /// Answers `_field_caps`: the declared fields.
    pub(crate) async fn es_field_caps(&self, name: Option<&str>, head: &Parts, body: Body) -> Answer {
        allow(head, &[Method::GET, Method::POST])?;
        let parameters = Parameters::parse(head.uri.query(), &["fields", "include_unmapped"])?;
        let (body, _space) = self.es_body(head, body, MAX_BODY).await?;
        let body = body_of(&body)?;
        if let Some(unknown) = body.keys().find(|member| *member != "fields") {
            return Err(EsError::parsing(format!("[field_caps] unsupported field [{unknown}]")));
        }
        let in_body = match body.get("fields") {
            None => Vec::new(),
            Some(Value::String(field)) => vec![field.as_str()],
            Some(Value::Array(fields)) => fields.iter().filter_map(Value::as_str).collect(),
            Some(_) => return Err(EsError::parsing("[fields] is a list of texts")),
        };
        let patterns = [parameters.list("fields").unwrap_or_default(), in_body].concat();
        if patterns.is_empty() {
            return Err(EsError::invalid(&["no fields specified".to_owned()]));
        }
        let (_, named) = self.es_indexes(name, Rule::of(&parameters)?).await?;
        let is_asked = |field: &str| patterns.iter().any(|pattern| matches(pattern, field));
        let mut fields = Map::new();
        let mut add = |index: &str, field: &str, kind: &str, is_metadata: bool| {
            if !is_asked(field) {
                return;
            }
            let kinds = fields.entry(field).or_insert_with(|| json!({}));
            let caps =
                kinds.as_object_mut().expect("it was made as an object").entry(kind).or_insert_with(|| {
                    let is_object = kind == "object";
                    json!({
                        "type": kind, "metadata_field": is_metadata, "searchable": !is_object,
                        "aggregatable": !is_object && !matches!(kind, "text" | "dense_vector"), "indices": [],
                    })
                });
            if let Some(indices) = caps["indices"].as_array_mut() {
                indices.push(json!(index));
            }
        };
        for index in &named {
            add(&index.name, "_id", "_id", true);
            for (path, field) in &index.schema.definition.fields {
                add(&index.name, path, type_of(field), false);
                for (name, sub) in field.sub_fields() {
                    let kind = match sub {
                        crate::definition::SubField::Text { .. } => "text",
                        crate::definition::SubField::Keyword { .. } => "keyword",
                    };
                    add(&index.name, &format!("{path}.{name}"), kind, false);
                }
            }
        }
        // The indexes are listed only where indexes differ in the type.
        for kinds in fields.values_mut().filter_map(Value::as_object_mut) {
            if kinds.len() == 1 {
                for caps in kinds.values_mut().filter_map(Value::as_object_mut) {
                    caps.remove("indices");
                }
            }
        }
        let names: Vec<&str> = named.iter().map(|index| index.name.as_str()).collect();
        Ok(Reply::json(&json!({ "indices": names, "fields": fields })))
    }
}

/// The shards that failed, as Elasticsearch lists them.
fn failed(index: &Arc<Index>, total: usize, failures: &Failures) -> Vec<Value> {
    let failed = failures.of(total).failed;
    let shown = failed.iter().map(|failure| {
        json!({
            "shard": failure.shard.as_u32(), "index": index.name, "status": "SERVICE_UNAVAILABLE",
            "reason": { "type": "unavailable_shards_exception", "reason": failure.reason },
        })
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_taken_in_any_form_and_refused_by_name() {
        let settings = IndexSettings::parse(
            &json!({
                "number_of_shards": 3, "index.number_of_replicas": 1,
                "index": {"refresh_interval": "1s", "analysis": {"analyzer": {"default": {"type": "german"}}}},
            }),
            true,
        )
        .unwrap();
        assert_eq!(settings.warnings.len(), 3);
        assert_ne!(settings.analysis, Analysis::default());
        for (settings, words) in [
            (json!([]), "[settings]"),
            (json!({"sort.field": "a"}), "[index.sort.field]"),
            (json!({"index": {"lifecycle": {}}}), "[index.lifecycle]"),
        ] {
            let error = IndexSettings::parse(&settings, true).unwrap_err().to_json().to_string();
            assert!(error.contains(words), "{settings}: {error}");
        }
        assert!(
            IndexSettings::parse(&json!({"analysis": {}}), false).is_err(),
            "an index that exists keeps its analysis"
        );
    }
}
