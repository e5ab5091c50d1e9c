//! Copies documents into another index: `POST /{index}/reindex`.
//!
//! A document belongs to the same shard in every index, so each owner copies its part, through the shard's own log. All
//! indexes share the numbers of that log. That makes "newer" exact: a copy replaces a document of the target only if it was
//! written before the one that is copied. So clients that write to the target win, a copy that is repeated skips what it has
//! done, and a later copy brings what has changed since.
//!
//! The member that takes the request asks each owner for a part at a time, and goes on where the last part ended.

mod copy;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::Method;
use http::request::Parts;
use mesh::shards::{ShardError as Unanswered, scatter};
use plugin::http::query::parameters;
use plugin::http::{Answer, json, method_not_allowed};
use plugin::shard::{Read, ReadLevel};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use types::ShardId;
use uuid::Uuid;

use super::inner::{InnerQuery, Verb};
use super::pages::page;
use super::refusal::{Reason, Refusal};
use super::search::MAX_SEARCH;
use super::shards::MAX_INNER;
use crate::catalog::{Index, Indexes};
use crate::gather::Failures;
use crate::search::{SearchError, ShardFailure, Shards};
use crate::service::SearcherService;

/// The members that say which documents are copied.
const SEARCH: [&str; 5] = ["q", "filter", "fields", "default_operator", "typos"];
/// The other members of a request.
const OTHERS: [&str; 3] = ["to", "after_seq", "timeout"];
/// How long it may take unless the request says so; less than a member or a gateway waits for an answer.
pub(crate) const LIMIT: Duration = Duration::from_secs(50);
/// How long it may take at most.
const MAX_LIMIT: Duration = Duration::from_secs(3_600);
/// How long an owner copies before it answers.
const PART: Duration = Duration::from_secs(5);
/// How many documents that were refused are listed.
const MAX_LISTED: usize = 100;

/// What to copy, and where to.
#[derive(Debug, Clone)]
pub(crate) struct Reindex {
    pub(crate) source: Arc<Index>,
    pub(crate) target: Arc<Index>,
    /// Members of a search for the documents; all if there are none.
    pub(crate) search: Map<String, Value>,
    /// Whether documents that the target has stay, however old they are.
    pub(crate) only_new: bool,
    /// The last operation of each shard that was copied before.
    pub(crate) after: BTreeMap<ShardId, u64>,
    pub(crate) timeout: Duration,
}

/// A part of the work, as one member sends it to another.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    target: Uuid,
    search: Map<String, Value>,
    only_new: bool,
    after: Option<u64>,
}

/// What was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Copied {
    /// Documents that the target did not have.
    pub(crate) created: u64,
    /// Documents of the target that were older.
    pub(crate) updated: u64,
    /// Documents that the target has in the same or a newer state.
    pub(crate) skipped: u64,
    /// Documents that do not fit the target.
    pub(crate) refused: u64,
    /// The first of them.
    pub(crate) refusals: Vec<RefusedCopy>,
    /// All documents of the source that were written up to this operation are done; `None` if the shard has no operations.
    pub(crate) seq: Option<u64>,
    /// Whether the time was up before all was done.
    pub(crate) timed_out: bool,
    /// Why it was not completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed: Option<Reason>,
}

/// A document that does not fit the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RefusedCopy {
    pub(crate) id: String,
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) detail: String,
}

impl Copied {
    fn refuse(&mut self, id: &str, Reason { status, code, detail }: Reason) {
        self.refused += 1;
        if self.refusals.len() < MAX_LISTED {
            self.refusals.push(RefusedCopy { id: id.to_owned(), status, code, detail });
        }
    }

    /// Adds what was done after this.
    fn add(&mut self, more: Self) {
        self.created += more.created;
        self.updated += more.updated;
        self.skipped += more.skipped;
        self.refused += more.refused;
        self.refusals.extend(more.refusals);
        self.refusals.truncate(MAX_LISTED);
        self.seq = more.seq.or(self.seq);
        self.timed_out = more.timed_out;
        self.failed = more.failed;
    }
}

/// What was copied at all shards.
#[derive(Debug)]
pub(crate) struct Total {
    pub(crate) copied: Copied,
    /// The last operation of each shard up to which all is done.
    pub(crate) seqs: BTreeMap<ShardId, Option<u64>>,
    pub(crate) shards: Shards,
}

/// The request of a client, with the name of the target.
#[derive(Debug, PartialEq)]
struct Wanted {
    to: String,
    search: Map<String, Value>,
    after: BTreeMap<ShardId, u64>,
    timeout: Duration,
}

fn parse(body: &[u8], shards: u32) -> Result<Wanted, Refusal> {
    let hint = r#"send for example {"to": "books-2"}"#;
    let bad = |detail: String| Refusal::invalid("bad-reindex", &detail, hint);
    let mut members: Map<String, Value> =
        serde_json::from_slice(body).map_err(|error| bad(format!("the body is no JSON object: {error}")))?;
    members.retain(|_, value| !value.is_null());
    let known = || SEARCH.into_iter().chain(OTHERS);
    if let Some(unknown) = members.keys().find(|name| known().all(|known| known != name.as_str())) {
        let similar = types::did_you_mean(unknown, known());
        let similar = similar.map(|similar| format!("did you mean `{similar}`?"));
        let detail = format!("there is no member `{unknown}`");
        return Err(Refusal::invalid("bad-reindex", &detail, similar.as_deref().unwrap_or(hint)));
    }
    let to = match members.remove("to") {
        Some(Value::String(to)) => to,
        Some(_) => return Err(bad("`to` is the name of an index".to_owned())),
        None => return Err(bad("`to` is missing: the index to copy into".to_owned())),
    };
    let timeout = match members.remove("timeout") {
        None => LIMIT,
        Some(text) => {
            let limit = text.as_str().and_then(|text| humantime::parse_duration(text).ok());
            limit.filter(|limit| !limit.is_zero() && *limit <= MAX_LIMIT).ok_or_else(|| {
                bad(format!("`timeout` is a duration such as \"50s\", at most an hour, not {text}"))
            })?
        }
    };
    let after = members.remove("after_seq").unwrap_or_else(|| json!({}));
    let after = after_seq(&after, shards).ok_or_else(|| {
        let detail = "`after_seq` is an object of shards and operations, such as {\"0\": 17, \"1\": 23}";
        Refusal::invalid("bad-reindex", detail, "send the `seqs` of the last answer")
    })?;
    Ok(Wanted { to, search: members, after, timeout })
}

/// Reads the `seqs` of an answer.
fn after_seq(value: &Value, shards: u32) -> Option<BTreeMap<ShardId, u64>> {
    let mut after = BTreeMap::new();
    for (shard, seq) in value.as_object()? {
        let shard: u32 = shard.parse().ok().filter(|shard| *shard < shards)?;
        match seq {
            Value::Null => {}
            seq => drop(after.insert(ShardId::try_from(shard).ok()?, seq.as_u64()?)),
        }
    }
    Some(after)
}

impl SearcherService {
    /// Answers a request to copy an index.
    pub(crate) async fn reindex(&self, name: &str, head: &Parts, body: Body) -> Answer {
        let (indexes, source) = self.index_named(name).await?;
        if head.method != Method::POST {
            return Err(method_not_allowed("POST"));
        }
        parameters(head.uri.query().unwrap_or_default(), &[]).map_err(|error| error.to_response())?;
        let (body, _space) = self.read_body(head, body, MAX_SEARCH, &self.bodies.outer).await?;
        let Wanted { to, search, after, timeout } = parse(&body, self.member.shards.get())?;
        if let Err(error) = crate::catalog::check_name(&to) {
            return Err(Refusal::invalid("bad-index-name", &error, crate::catalog::NAME_RULE).into());
        }
        let (newer, target) = self.index_to_write(&to).await.map_err(|mut refusal| {
            if refusal.problem.code() == "no-such-index" {
                let create = "create it first, with the definition that it should have: `PUT /{index}`";
                refusal.problem.hint = Some(match refusal.problem.hint {
                    Some(hint) if hint.starts_with("did you mean") => format!("{hint} Or {create}"),
                    _ => create.to_owned(),
                });
            }
            refusal
        })?;
        let order = Reindex { source, target, search, only_new: false, after, timeout };
        let indexes = if newer.number > indexes.number { newer } else { indexes };
        let Total { copied, seqs, shards } = self.reindex_everywhere(&indexes, &order).await?;
        let seqs: Map<_, _> = seqs.into_iter().map(|(shard, seq)| (shard.to_string(), json!(seq))).collect();
        let Copied { created, updated, skipped, refused, refusals, timed_out, seq: _, failed: _ } = copied;
        let answer = json!({
            "copied": created + updated, "skipped": skipped, "refused": refused, "refusals": refusals,
            "timed_out": timed_out, "seqs": seqs, "shards": shards,
        });
        Ok(json(answer.to_string()))
    }

    /// Copies at all shards. Fails only if none could begin.
    pub(crate) async fn reindex_everywhere(
        &self,
        indexes: &Indexes,
        order: &Reindex,
    ) -> Result<Total, Refusal> {
        if order.source.uuid == order.target.uuid {
            let detail = format!("`{}` can't be copied into itself", order.source.name);
            return Err(Refusal::invalid("bad-reindex", &detail, "name another index in `to`"));
        }
        let checked = page(&order.search, None)?.check(&order.source.schema);
        checked.map_err(SearchError::from)?;
        let deadline = Instant::now() + order.timeout;
        // A part ends by itself; this is for one that hangs.
        let limit = order.timeout + PART + Verb::Reindex.grace();
        let asked = scatter(self.member.all_shards(), limit, |shard| async move {
            let after = order.after.get(&shard).copied();
            self.reindex_shard(indexes, order, shard, after, deadline).await
        });
        let (done, failures) = Failures::split(asked.await);
        if done.is_empty()
            && let Some(refusal) = failures.refusal("copied")
        {
            return Err(refusal);
        }
        Ok(total(done, &failures, &order.after, self.member.all_shards().len()))
    }

    /// Copies at one shard, a part after the other, until all is done.
    async fn reindex_shard(
        &self,
        indexes: &Indexes,
        order: &Reindex,
        shard: ShardId,
        after: Option<u64>,
        deadline: Instant,
    ) -> Result<Copied, Unanswered> {
        let mut done = Copied { seq: after, timed_out: true, ..Copied::default() };
        let mut is_first = true;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if !is_first && (left.is_zero() || self.ending.is_cancelled()) {
                return Ok(done);
            }
            let query = InnerQuery::read(indexes, &order.source, ReadLevel::Strong, left.min(PART));
            let part = Part {
                target: order.target.uuid,
                search: order.search.clone(),
                only_new: order.only_new,
                after: done.seq,
            };
            let body = serde_json::to_vec(&part).expect("strings, numbers and JSON are written to memory");
            let here = async {
                let value = self.copy_here(&order.source, &order.target, &part, query.timeout).await?;
                Ok(Read { value, staleness: None })
            };
            match self.ask(shard, Verb::Reindex, &query, Bytes::from(body), here).await {
                Ok(read) => done.add(read.value),
                Err(error) if is_first => return Err(error),
                Err(error) => {
                    done.failed = Some(Reason::of_write(&error));
                    return Ok(done);
                }
            }
            if !done.timed_out || done.failed.is_some() {
                return Ok(done);
            }
            is_first = false;
        }
    }

    /// Answers a request of another member to copy at this shard.
    pub(crate) async fn reindex_for_member(&self, query: &InnerQuery, head: &Parts, body: Body) -> Answer {
        self.member.owner_only()?;
        let source = self.index_of(query).await?;
        let (body, _space) = self.read_body(head, body, MAX_INNER, &self.bodies.inner).await?;
        let part: Part = serde_json::from_slice(&body).map_err(|error| {
            Refusal::invalid("bad-reindex", &error, "members write these requests for each other")
        })?;
        let target = InnerQuery { index: part.target, ..query.clone() };
        let target = self.index_of(&target).await?;
        let copied = self.copy_here(&source, &target, &part, query.timeout).await?;
        Ok(json(serde_json::to_vec(&copied).expect("numbers and strings are written to memory")))
    }
}

/// What was copied at all shards, and which of them did not do their part. Where nothing was done, the next copy begins where
/// this one did.
fn total(
    done: Vec<(ShardId, Copied)>,
    failures: &Failures,
    after: &BTreeMap<ShardId, u64>,
    shards: usize,
) -> Total {
    let mut total = Total { copied: Copied::default(), seqs: BTreeMap::new(), shards: failures.of(shards) };
    let mut timed_out = failures.has_timed_out();
    for failure in &total.shards.failed {
        total.seqs.insert(failure.shard, after.get(&failure.shard).copied());
    }
    for (shard, copied) in done {
        timed_out |= copied.timed_out && copied.failed.is_none();
        total.seqs.insert(shard, copied.seq);
        if let Some(Reason { detail, .. }) = &copied.failed {
            total.shards.ok -= 1;
            total.shards.failed.push(ShardFailure { shard, reason: detail.clone() });
        }
        total.copied.add(copied);
    }
    total.copied.timed_out = timed_out;
    total
}

#[cfg(test)]
mod tests;
