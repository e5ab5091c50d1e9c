//! The root, `_cluster/health` and `_cluster/settings`.

use std::time::Duration;

use axum::body::Body;
use http::Method;
use http::request::Parts;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout_at};
use types::ShardRef;

use super::VERSION;
use super::error::EsError;
use super::names::Rule;
use super::parameters::Parameters;
use super::path::allow;
use super::reply::{Answer, Reply};
use super::unique;
use crate::catalog::{AutoCreate, Change, Record};
use crate::http::Refusal;
use crate::service::SearcherService;

/// How long a request waits for a status, unless it says so.
const WAIT: Duration = Duration::from_secs(30);
/// The longest time that a request may wait.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// The largest body.
const MAX_BODY: usize = 64 * 1024;
/// The only setting.
const AUTO_CREATE: &str = "action.auto_create_index";

/// The state of the shards, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Status {
    /// A shard has no owner.
    Red,
    /// A shard lacks the replicas that others have.
    Yellow,
    Green,
}

impl Status {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Red => "red",
            Self::Yellow => "yellow",
            Self::Green => "green",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Red, Self::Yellow, Self::Green].into_iter().find(|status| status.as_str() == text)
    }
}

/// The health of the service, as its members see each other.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Health {
    pub(crate) cluster: String,
    pub(crate) status: Status,
    /// How many nodes the cluster has.
    pub(crate) nodes: u64,
    /// How many of them are members of the service.
    pub(crate) members: u64,
    /// How many shards of indexes have an owner.
    pub(crate) primaries: u64,
    /// How many replicas of them there are.
    pub(crate) replicas: u64,
    /// How many shards of indexes have no owner.
    pub(crate) unassigned: u64,
}

impl Health {
    pub(crate) fn active(&self) -> u64 {
        self.primaries + self.replicas
    }

    #[expect(clippy::cast_precision_loss, reason = "there are few shards")]
    pub(crate) fn percent(&self) -> f64 {
        let all = self.active() + self.unassigned;
        if all == 0 { 100.0 } else { self.active() as f64 * 100.0 / all as f64 }
    }
}

impl SearcherService {
    /// How many replicas the shards have, at most.
    pub(crate) fn replicas(&self) -> u64 {
        let view = self.cx.view.borrow();
        let shards = self.member.all_shards().into_iter();
        let counts = shards.map(|shard| {
            let shard = ShardRef { service: self.member.service.clone(), shard };
            view.replicas(&shard).count() as u64
        });
        counts.max().unwrap_or(0)
    }

    /// The health for a number of indexes.
    pub(crate) fn es_health(&self, indexes: usize) -> Health {
        let most = self.replicas();
        let view = self.cx.view.borrow();
        let (mut owned, mut replicas, mut missing, mut is_whole) = (0, 0, 0, true);
        for shard in self.member.all_shards() {
            let here = shard == self.member.shard && self.member.is_owner();
            let shard = ShardRef { service: self.member.service.clone(), shard };
            if here || view.owner(&shard).is_some() {
                owned += 1;
            } else {
                missing += 1;
            }
            let count = view.replicas(&shard).count() as u64;
            is_whole &= count == most;
            replicas += count;
        }
        let status = match (missing, is_whole) {
            (0, true) => Status::Green,
            (0, false) => Status::Yellow,
            _ => Status::Red,
        };
        let times = indexes as u64;
        Health {
            cluster: view.cluster().to_string(),
            status,
            nodes: view.members().count() as u64,
            members: view.of_service(&self.member.service).count() as u64,
            primaries: owned * times,
            replicas: replicas * times,
            unassigned: missing * times,
        }
    }

    /// Answers the root.
    pub(crate) fn es_root(&self, head: &Parts) -> Answer {
        allow(head, &[Method::GET, Method::HEAD])?;
        Parameters::parse(head.uri.query(), &[])?;
        Ok(Reply::json(&json!({
            "name": self.cx.node,
            "cluster_name": self.cx.view.borrow().cluster(),
            "cluster_uuid": self.member.service,
            "version": {
                "number": VERSION,
                "build_flavor": "default",
                "build_type": "coterie",
                "build_snapshot": false,
                "minimum_wire_compatibility_version": "7.17.0",
                "minimum_index_compatibility_version": "7.0.0",
            },
            "tagline": "You Know, for Search",
        })))
    }

    /// Answers `_cluster/health`.
    pub(crate) async fn es_cluster_health(&self, name: Option<&str>, head: &Parts) -> Answer {
        allow(head, &[Method::GET, Method::HEAD])?;
        let known = [
            "wait_for_status",
            "level",
            "wait_for_nodes",
            "wait_for_events",
            "wait_for_no_relocating_shards",
            "wait_for_no_initializing_shards",
        ];
        let parameters = Parameters::parse(head.uri.query(), &known)?;
        if let Some(level) = parameters.text("level").filter(|level| *level != "cluster") {
            return Err(EsError::unsupported(&format!("level={level}")));
        }
        if parameters.text("wait_for_nodes").is_some() {
            return Err(EsError::unsupported("wait_for_nodes"));
        }
        let wanted = match parameters.text("wait_for_status") {
            None => None,
            Some(text) => {
                let bad = || EsError::illegal(format!("unknown cluster health status [{text}]"));
                Some(Status::parse(text).ok_or_else(bad)?)
            }
        };
        let limit = match parameters.text("timeout") {
            None => WAIT,
            Some(text) => {
                let bad =
                    |_| EsError::illegal(format!("failed to parse setting [timeout] with value [{text}]"));
                humantime::parse_duration(text).map_err(bad)?.min(MAX_WAIT)
            }
        };
        let (_, named) = self.es_indexes(name, Rule::of(&parameters)?).await?;
        let deadline = Instant::now() + limit;
        let mut view = self.cx.view.clone();
        let mut is_late = false;
        let health = loop {
            view.mark_unchanged();
            let health = self.es_health(named.len());
            if is_late || wanted.is_none_or(|wanted| health.status >= wanted) {
                break health;
            }
            is_late = !matches!(timeout_at(deadline, view.changed()).await, Ok(Ok(())));
        };
        let has_timed_out = wanted.is_some_and(|wanted| health.status < wanted);
        let body = json!({
            "cluster_name": health.cluster,
            "status": health.status.as_str(),
            "timed_out": has_timed_out,
            "number_of_nodes": health.nodes,
            "number_of_data_nodes": health.members,
            "active_primary_shards": health.primaries,
            "active_shards": health.active(),
            "relocating_shards": 0,
            "initializing_shards": 0,
            "unassigned_shards": health.unassigned,
            "delayed_unassigned_shards": 0,
            "number_of_pending_tasks": 0,
            "number_of_in_flight_fetch": 0,
            "task_max_waiting_in_queue_millis": 0,
            "active_shards_percent_as_number": health.percent(),
        });
        Ok(Reply::json(&body).status(if has_timed_out { 408 } else { 200 }))
    }

    /// Answers `_cluster/settings`.
    pub(crate) async fn es_cluster_settings(&self, head: &Parts, body: Body) -> Answer {
        allow(head, &[Method::GET, Method::PUT])?;
        Parameters::parse(head.uri.query(), &[])?;
        if head.method == Method::GET {
            let indexes = self.catalog.fresh().await.map_err(Refusal::from)?;
            let mut persistent = Map::new();
            if let Some(auto_create) = &indexes.auto_create {
                persistent.insert(AUTO_CREATE.to_owned(), json!(auto_create.to_text()));
            }
            return Ok(Reply::json(&json!({ "persistent": persistent, "transient": {} })));
        }
        let (body, _space) = self.es_body(head, body, MAX_BODY).await?;
        let wanted = settings(&body)?;
        if let Some(auto_create) = &wanted {
            let change = |record: &Record| -> Result<_, crate::catalog::CreateError> {
                if record.auto_create == *auto_create {
                    return Ok((Change::Nothing, ()));
                }
                Ok((Change::To(Record { auto_create: auto_create.clone(), ..record.clone() }), ()))
            };
            let (indexes, ()) = self.catalog.change(change).await.map_err(Refusal::from)?;
            self.tell(indexes.number).await;
        }
        let shown: Map<String, Value> = wanted
            .iter()
            .flatten()
            .map(|auto_create| (AUTO_CREATE.to_owned(), json!(auto_create.to_text())))
            .collect();
        Ok(Reply::json(&json!({ "acknowledged": true, "persistent": shown, "transient": {} })))
    }
}

/// The setting in a body, if there is one: `Some(None)` takes it back.
fn settings(body: &[u8]) -> Result<Option<Option<AutoCreate>>, EsError> {
    let members: Map<String, Value> = unique::read(body)
        .map_err(|error| EsError::parsing(format!("the body is no JSON object: {error}")))?;
    let mut found = None;
    for (kind, settings) in members {
        let Value::Object(settings) = settings else {
            return Err(EsError::parsing(format!("[{kind}] is no object")));
        };
        if !matches!(kind.as_str(), "persistent" | "transient") {
            return Err(EsError::parsing(format!("unknown field [{kind}]")));
        }
        for (name, value) in flat(settings) {
            if name != AUTO_CREATE {
                return Err(EsError::illegal(format!("setting [{name}] is not supported")));
            }
            found = Some(match value {
                Value::Null => None,
                Value::Bool(true) => Some(AutoCreate::All),
                Value::Bool(false) => Some(AutoCreate::None),
                Value::String(text) => Some(AutoCreate::of_text(&text)),
                _ => return Err(EsError::illegal(format!("[{name}] is true, false, or a text of patterns"))),
            });
        }
    }
    Ok(found)
}

/// Settings with dots in their names, however they were nested.
fn flat(settings: Map<String, Value>) -> Vec<(String, Value)> {
    let mut flattened = Vec::new();
    for (name, value) in settings {
        match value {
            Value::Object(below) => {
                flattened
                    .extend(flat(below).into_iter().map(|(below, value)| (format!("{name}.{below}"), value)));
            }
            value => flattened.push((name, value)),
        }
    }
    flattened
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_setting_can_be_set() {
        let patterns = AutoCreate::Patterns(vec!["a*".to_owned(), "-b".to_owned()]);
        for (body, expected) in [
            (r#"{"transient": {"action.auto_create_index": "a*,-b"}}"#, Some(Some(patterns))),
            (r#"{"persistent": {"action": {"auto_create_index": false}}}"#, Some(Some(AutoCreate::None))),
            (r#"{"persistent": {"action.auto_create_index": null}}"#, Some(None)),
            (r#"{"persistent": {}}"#, None),
        ] {
            assert_eq!(settings(body.as_bytes()), Ok(expected), "{body}");
        }
        for body in
            ["", "[]", r#"{"x": {}}"#, r#"{"persistent": {"cluster.name": "x"}}"#, r#"{"persistent": 1}"#]
        {
            assert_eq!(settings(body.as_bytes()).map_err(|error| error.status), Err(400), "{body}");
        }
    }
}
