//! Deletes what a search finds: `POST /{index}/delete`.
//!
//! Each owner looks at its shard as of one moment, and deletes a document only if nobody has written it since then; those
//! that were written are counted as conflicts.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::Method;
use http::request::Parts;
use plugin::http::query::parameters;
use plugin::http::{Answer, json, method_not_allowed};
use plugin::shard::{Read, ReadLevel};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};
use types::{ErrorKind, ShardId};

use super::inner::{InnerQuery, Verb};
use super::pages::{PAGE, found, page};
use super::refusal::{Reason, Refusal};
use super::search::MAX_SEARCH;
use super::shards::MAX_INNER;
use crate::catalog::{Index, Indexes};
use crate::gather::{Failures, Search};
use crate::search::{SearchError, ShardFailure, Shards};
use crate::service::SearcherService;
use crate::shard::{Change, Condition, Outcome, Refresh, Refused, ShardError, Write};

/// The members of a request.
const MEMBERS: [&str; 6] = ["q", "filter", "fields", "default_operator", "typos", "timeout"];
/// How long it may take unless the request says so.
pub(crate) const LIMIT: Duration = Duration::from_secs(50);
/// The pause when the shard takes no more writes for now.
const PAUSE: Duration = Duration::from_millis(200);

/// What was deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Deleted {
    pub(crate) deleted: u64,
    pub(crate) conflicts: u64,
    /// Whether the time was up before all was deleted.
    pub(crate) timed_out: bool,
    /// Why it was not completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed: Option<Reason>,
}

/// The search in a request of another member, which has been checked.
fn parse_inner(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    let hint = "members write these requests for each other";
    serde_json::from_slice(body).map_err(|error| Refusal::invalid("bad-search", &error, hint))
}

/// The search in a request. It names what to delete: an empty one would delete everything by mistake.
fn parse(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    let hint = r#"send for example {"q": "name:nginx"}; {"q": "*"} deletes everything"#;
    let bad = |detail: String| Refusal::invalid("bad-search", &detail, hint);
    let members: Map<String, Value> =
        serde_json::from_slice(body).map_err(|error| bad(format!("the body is no JSON object: {error}")))?;
    if let Some(unknown) = members.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
        let detail = format!("there is no member `{unknown}`");
        let similar = types::did_you_mean(unknown, MEMBERS);
        let similar = similar.map(|similar| format!("did you mean `{similar}`?"));
        return Err(Refusal::invalid("bad-search", &detail, similar.as_deref().unwrap_or(hint)));
    }
    if !is_given(&members, "q") && !is_given(&members, "filter") {
        return Err(bad("neither `q` nor `filter` says what to delete".to_owned()));
    }
    Ok(members)
}

/// Whether a member is there. `null` stands for its default, as in a search.
fn is_given(members: &Map<String, Value>, name: &str) -> bool {
    members.get(name).is_some_and(|value| !value.is_null())
}

/// What was deleted at all shards, and which of them did not do their part or were not done.
fn total(done: Vec<(ShardId, Read<Deleted>)>, failures: &Failures, shards: usize) -> (Deleted, Shards) {
    let mut sum = Deleted { timed_out: failures.has_timed_out(), ..Deleted::default() };
    let mut shards = failures.of(shards);
    for (shard, Read { value, .. }) in done {
        sum.deleted += value.deleted;
        sum.conflicts += value.conflicts;
        sum.timed_out |= value.timed_out;
        if let Some(Reason { detail, .. }) = value.failed {
            shards.ok -= 1;
            shards.failed.push(ShardFailure { shard, reason: detail });
        }
    }
    (sum, shards)
}

impl SearcherService {
    /// Answers a request to delete by query.
    pub(crate) async fn delete_by_query(&self, name: &str, head: &Parts, body: Body) -> Answer {
        let (indexes, named) = self.indexes_to_read(name).await?;
        if head.method != Method::POST {
            return Err(method_not_allowed("POST"));
        }
        parameters(head.uri.query().unwrap_or_default(), &[]).map_err(|error| error.to_response())?;
        let (body, _space) = self.read_body(head, body, MAX_SEARCH, &self.bodies.outer).await?;
        let members = parse(&body)?;
        let request = page(&members, None)?;
        for index in &named {
            let checked = request.check(&index.schema);
            checked.map_err(|error| Refusal::from(SearchError::from(error)))?;
        }
        let timeout = if is_given(&members, "timeout") { request.timeout } else { LIMIT };
        let deadline = Instant::now() + timeout;
        let (mut deleted, mut conflicts, mut timed_out, mut shards) = (0, 0, false, Shards::default());
        for index in &named {
            let left = deadline.saturating_duration_since(Instant::now());
            let (sum, of_index) = self.delete_everywhere(&indexes, index, &members, left).await?;
            deleted += sum.deleted;
            conflicts += sum.conflicts;
            timed_out |= sum.timed_out;
            shards.add(of_index);
        }
        let answer =
            json!({ "deleted": deleted, "conflicts": conflicts, "timed_out": timed_out, "shards": shards });
        Ok(json(answer.to_string()))
    }

    /// Deletes what a search finds, in all shards. Fails only if none could begin.
    pub(crate) async fn delete_everywhere(
        &self,
        indexes: &Indexes,
        index: &Arc<Index>,
        members: &Map<String, Value>,
        timeout: Duration,
    ) -> Result<(Deleted, Shards), Refusal> {
        let query = InnerQuery::read(indexes, index, ReadLevel::Strong, timeout);
        let body = Bytes::from(Value::Object(members.clone()).to_string());
        let here = || async {
            let value = self.delete_found(index, members, Instant::now() + timeout).await?;
            Ok(Read { value, staleness: None })
        };
        let (done, failures) = self.ask_all::<Deleted, _>(Verb::Delete, &query, &body, here).await;
        if done.is_empty()
            && let Some(refusal) = failures.refusal("deleted from")
        {
            return Err(refusal);
        }
        Ok(total(done, &failures, self.member.all_shards().len()))
    }

    /// Answers a request of another member to delete from this shard.
    pub(crate) async fn delete_for_member(&self, query: &InnerQuery, head: &Parts, body: Body) -> Answer {
        self.member.owner_only()?;
        let index = self.index_of(query).await?;
        let (body, _space) = self.read_body(head, body, MAX_INNER, &self.bodies.inner).await?;
        let members = parse_inner(&body)?;
        let deleted = self.delete_found(&index, &members, Instant::now() + query.timeout).await?;
        Ok(json(serde_json::to_vec(&deleted).expect("numbers and strings are written to memory")))
    }

    /// Deletes what a search finds in this shard, a page at a time.
    async fn delete_found(
        &self,
        index: &Arc<Index>,
        members: &Map<String, Value>,
        deadline: Instant,
    ) -> Result<Deleted, Refusal> {
        let mut done = Deleted::default();
        let search =
            |after| Ok(Search::new(Arc::clone(index), page(members, after)?, ReadLevel::Strong, deadline));
        let first: Result<Search, Refusal> = search(None);
        let snapshot = self.snapshot(&first?).await?.value;
        let mut after = None;
        loop {
            let search: Result<Search, Refusal> = search(after.take());
            let answer = match self.search_snapshot(&search?, snapshot.clone()).await {
                Ok(answer) => answer,
                Err(refusal) if done == Deleted::default() => return Err(refusal),
                Err(refusal) => {
                    done.timed_out = refusal.problem.status == ErrorKind::Timeout.status();
                    done.failed = Some(Reason::of(&refusal.problem));
                    return Ok(done);
                }
            };
            let page = found(&answer)?;
            let is_last = page.len() < PAGE;
            match self.delete_unchanged(index, page, deadline).await {
                Ok((deleted, conflicts)) => {
                    done.deleted += deleted;
                    done.conflicts += conflicts;
                }
                Err(error) if done == Deleted::default() => return Err(error.into()),
                Err(error) => {
                    done.failed = Some(Reason::of(&Refusal::from(error).problem));
                    return Ok(done);
                }
            }
            done.timed_out = !is_last && Instant::now() >= deadline;
            after = answer.next.map(Value::Array);
            if is_last || done.timed_out || after.is_none() {
                return Ok(done);
            }
        }
    }

    /// Deletes documents that are unchanged. Returns how many were deleted, and how many had changed.
    async fn delete_unchanged(
        &self,
        index: &Arc<Index>,
        page: Vec<(String, u64)>,
        deadline: Instant,
    ) -> Result<(u64, u64), ShardError> {
        if page.is_empty() {
            return Ok((0, 0));
        }
        let delete = |(id, seq)| Write {
            index: Arc::clone(index),
            id,
            change: Change::Delete,
            condition: Some(Condition::Unchanged { seq }),
        };
        let writes: Vec<_> = page.into_iter().map(delete).collect();
        let outcomes = loop {
            match self.shard.write(writes.clone(), Refresh::Durable).await {
                Err(ShardError::Behind(_)) if Instant::now() + PAUSE < deadline => sleep(PAUSE).await,
                outcomes => break outcomes?,
            }
        };
        let (mut deleted, mut conflicts) = (0, 0);
        for outcome in outcomes {
            match outcome {
                Ok(written) if written.outcome == Outcome::Deleted => deleted += 1,
                // Someone else has deleted or replaced it.
                Ok(_) | Err(Refused::Changed { .. } | Refused::NoDocument | Refused::Document(_)) => {
                    conflicts += 1;
                }
            }
        }
        Ok((deleted, conflicts))
    }
}

#[cfg(test)]
mod tests {
    use mesh::shards::ShardError as Unanswered;

    use super::*;

    #[test]
    fn a_shard_that_was_not_done_in_time_is_a_failed_one_and_the_answer_says_so() {
        let shard = |number: u32| number.try_into().unwrap();
        let deleted = |timed_out, failed| {
            Ok(Read { value: Deleted { deleted: 2, conflicts: 1, timed_out, failed }, staleness: None })
        };
        let reason = Reason { status: 503, code: "not-open".to_owned(), detail: "why".to_owned() };
        let late = || Err(Unanswered::TimedOut(LIMIT));
        for (last, timed_out, failed) in [
            (deleted(false, None), false, 0),
            (deleted(true, None), true, 0),
            (deleted(false, Some(reason)), false, 1),
            (late(), true, 1),
        ] {
            let (done, failures) = Failures::split(vec![(shard(0), deleted(false, None)), (shard(1), last)]);
            let (sum, shards) = total(done, &failures, 2);
            assert_eq!((sum.timed_out, shards.failed.len(), shards.ok), (timed_out, failed, 2 - failed));
        }
        assert!(!is_given(parse(br#"{"q": "a", "timeout": null}"#).as_ref().unwrap(), "timeout"));
    }

    #[test]
    fn a_request_says_what_to_delete() {
        assert!(parse(br#"{"q": "a"}"#).is_ok());
        assert!(parse(br#"{"filter": ["a:1"], "timeout": "5s"}"#).is_ok());
        for (body, detail) in [
            ("", "no JSON object"),
            ("[]", "no JSON object"),
            ("{}", "neither `q` nor `filter`"),
            (r#"{"q": null}"#, "neither `q` nor `filter`"),
            (r#"{"query": "a"}"#, "no member `query`"),
            (r#"{"q": "a", "size": 3}"#, "no member `size`"),
        ] {
            let refusal = parse(body.as_bytes()).unwrap_err();
            assert_eq!(refusal.problem.status, 400);
            assert!(refusal.problem.detail.contains(detail), "{body}: {}", refusal.problem);
        }
        let refusal = parse(br#"{"filte": "a"}"#).unwrap_err();
        assert_eq!(refusal.problem.hint.as_deref(), Some("did you mean `filter`?"));
    }
}
