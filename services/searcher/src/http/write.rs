//! Writes many documents to one shard, here or at its owner, and keeps one outcome for each.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::Request;
use http::request::Parts;
use mesh::shards::ShardError as Unanswered;
use plugin::http::{Answer, json};
use serde::{Deserialize, Serialize};
use types::{ErrorKind, ShardId};

use super::bodies::largest_write;
use super::inner::{InnerQuery, Verb};
use super::path::DocumentId;
use super::refusal::{Reason, Refusal, RefusalKind};
use crate::catalog::Index;
use crate::document::DocumentError;
use crate::service::SearcherService;
use crate::shard::{Change, Condition, Outcome, Refresh, Refused, Write, Written};

/// How many bytes of documents are written in one record of the log. A record has at most 16 MiB.
const MAX_BATCH: usize = 8 * 1024 * 1024;
/// How many bytes an item takes beside its document and its id, in the request to an owner.
pub(crate) const BESIDE_ITEM: usize = 160;

/// A change of a document.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) id: DocumentId,
    pub(crate) change: Change,
    pub(crate) condition: Option<Condition>,
}

/// The same as a line of a request to the owner.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ItemLine {
    id: String,
    change: Change,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    condition: Option<Condition>,
}

/// What became of an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ItemOutcome {
    Written {
        seq: u64,
        term: u64,
        version: u64,
        outcome: Outcome,
        /// Why searches don't show it yet, if the request wanted to wait until they do.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        not_visible: Option<Reason>,
    },
    Refused(Reason),
}

/// The answer of an owner: an outcome for each item, in order.
#[derive(Debug, Serialize, Deserialize)]
struct Outcomes {
    outcomes: Vec<ItemOutcome>,
}

/// Items as the body of a request to their owner.
pub(crate) fn to_lines(items: &[Item]) -> Bytes {
    let mut body = Vec::new();
    for Item { id, change, condition } in items {
        let line = ItemLine { id: id.as_str().to_owned(), change: change.clone(), condition: *condition };
        serde_json::to_writer(&mut body, &line).expect("a string and a valid document are written to memory");
        body.push(b'\n');
    }
    body.into()
}

fn of_lines(body: &[u8]) -> Result<Vec<Item>, Refusal> {
    let bad =
        |detail: String| Refusal::invalid("bad-line", &detail, "members write these lines for each other");
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let items = lines.map(|line| {
        let ItemLine { id, change, condition } =
            serde_json::from_slice(line).map_err(|error| bad(error.to_string()))?;
        let id = DocumentId::new(id).map_err(|error| bad(error.to_string()))?;
        Ok(Item { id, change, condition })
    });
    items.collect()
}

/// The refusal of a document that does not fit its index.
pub(crate) fn bad_document(error: &DocumentError) -> Refusal {
    let hint = error.hint();
    let hint = hint.as_deref().unwrap_or("change the document; `GET /{index}` shows the fields of the index");
    Refusal::invalid("bad-document", error, hint)
}

impl From<&Refused> for Reason {
    fn from(refused: &Refused) -> Self {
        let (kind, code) = match refused {
            Refused::Changed { .. } => (ErrorKind::Conflict, "version-conflict"),
            Refused::NoDocument => (ErrorKind::NotFound, "no-such-document"),
            Refused::Document(_) => (ErrorKind::Invalid, "bad-document"),
        };
        Self { status: kind.status(), code: code.to_owned(), detail: refused.to_string() }
    }
}

impl SearcherService {
    /// Answers a request of another member to write to this shard.
    pub(crate) async fn write_for_member(&self, query: &InnerQuery, head: &Parts, body: Body) -> Answer {
        self.member.owner_only()?;
        let index = self.index_of(query).await?;
        let most = largest_write(self.max_body);
        let (body, _space) = self.read_body(head, body, most, &self.bodies.inner).await?;
        let items = of_lines(&body)?;
        drop(body);
        let outcomes = self.write_here(&index, &items, query.refresh).await?;
        Ok(json(serde_json::to_vec(&Outcomes { outcomes }).expect("outcomes are strings and numbers")))
    }

    /// Writes items to a shard, here or at its owner.
    pub(crate) async fn write_at(
        &self,
        shard: ShardId,
        index: &Arc<Index>,
        items: Vec<Item>,
        query: &InnerQuery,
    ) -> Result<Vec<ItemOutcome>, Unanswered> {
        let count = items.len();
        if shard == self.member.shard && self.member.is_owner() {
            match self.write_here(index, &items, query.refresh).await {
                Ok(outcomes) => return Ok(outcomes),
                // This member has lost the shard, or has not opened it yet: nothing was written.
                Err(refusal) if refusal.kind == RefusalKind::Elsewhere => {}
                Err(refusal) => return Err(Unanswered::Refused(Box::new(refusal.problem))),
            }
        }
        let request = Request::post(Verb::Write.uri(shard, query)).body(to_lines(&items));
        drop(items);
        let request = request.expect("the path and the query have no special characters");
        let target = Verb::Write.target(shard, query.level);
        let most = 64 * 1024 + count * 1024;
        let answer = self
            .cx
            .mesh
            .fetch::<Outcomes>(&self.member.service, target, request, most, query.timeout)
            .await?;
        let outcomes = answer.into_body().outcomes;
        if outcomes.len() != count {
            let detail = format!("it has {} outcomes for {count} documents", outcomes.len());
            return Err(Unanswered::BadAnswer(detail));
        }
        Ok(outcomes)
    }

    /// Writes items. If a part can't be written, its items get the reason. Fails only if nothing was written.
    async fn write_here(
        &self,
        index: &Arc<Index>,
        items: &[Item],
        refresh: Refresh,
    ) -> Result<Vec<ItemOutcome>, Refusal> {
        let mut outcomes = Vec::with_capacity(items.len());
        let mut failed: Option<Reason> = None;
        for batch in batches(items) {
            let count = batch.len();
            if let Some(reason) = &failed {
                // Nothing overtakes what was not written: a later line may be of the same id.
                outcomes.extend(std::iter::repeat_n(ItemOutcome::Refused(reason.clone()), count));
                continue;
            }
            let writes = batch.iter().map(|Item { id, change, condition }| Write {
                index: Arc::clone(index),
                id: id.as_str().to_owned(),
                change: change.clone(),
                condition: *condition,
            });
            match self.shard.write(writes.collect(), Refresh::Durable).await {
                Ok(done) => outcomes.extend(done.into_iter().map(|done| match done {
                    Ok(Written { seq, term, version, outcome }) => {
                        ItemOutcome::Written { seq, term, version, outcome, not_visible: None }
                    }
                    Err(refused) => ItemOutcome::Refused(Reason::from(&refused)),
                })),
                // Nothing was written yet, so the whole request may go elsewhere.
                Err(error) if outcomes.is_empty() => return Err(error.into()),
                Err(error) => {
                    let reason = Reason::of(&Refusal::from(error).problem);
                    outcomes.extend(std::iter::repeat_n(ItemOutcome::Refused(reason.clone()), count));
                    failed = Some(reason);
                }
            }
        }
        if let Err(error) = self.shard.until_visible(end_of(&outcomes), refresh).await {
            not_visible(&mut outcomes, &Reason::of(&Refusal::from(error).problem));
        }
        Ok(outcomes)
    }

    /// The index of another member's request.
    pub(crate) async fn index_of(&self, query: &InnerQuery) -> Result<Arc<Index>, Response> {
        let indexes = self.catalog.at_least(query.catalog).await.map_err(Refusal::from)?;
        match indexes.index(query.index) {
            Some(index) => Ok(Arc::clone(index)),
            None => {
                let gone = crate::shard::ShardError::NoIndex(query.name.clone());
                Err(Refusal::from(gone).into())
            }
        }
    }
}

impl ItemOutcome {
    /// The operation that searches must show. There is none if there was nothing to delete.
    fn operation(&self) -> Option<u64> {
        match self {
            Self::Written { outcome: Outcome::NotFound, .. } | Self::Refused(_) => None,
            Self::Written { seq, .. } => Some(*seq),
        }
    }
}

/// The number after the last operation of these items.
fn end_of(outcomes: &[ItemOutcome]) -> u64 {
    outcomes.iter().filter_map(ItemOutcome::operation).map(|seq| seq + 1).max().unwrap_or_default()
}

/// Gives what was written the reason why it is not visible.
fn not_visible(outcomes: &mut [ItemOutcome], reason: &Reason) {
    for outcome in outcomes.iter_mut().filter(|outcome| outcome.operation().is_some()) {
        if let ItemOutcome::Written { not_visible, .. } = outcome {
            *not_visible = Some(reason.clone());
        }
    }
}

/// Items in parts that fit into one record of the log each, in order.
fn batches(items: &[Item]) -> impl Iterator<Item = &[Item]> {
    let mut size = 0;
    items.chunk_by(move |before, next| {
        let bytes = |item: &Item| item.change.bytes() + item.id.as_str().len();
        if size == 0 {
            size = bytes(before);
        }
        size += bytes(next);
        let fits = size <= MAX_BATCH;
        if !fits {
            size = 0;
        }
        fits
    })
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    fn raw(source: &str) -> Box<RawValue> {
        RawValue::from_string(source.to_owned()).unwrap()
    }

    fn item(id: &str, source: &str) -> Item {
        Item { id: DocumentId::new(id).unwrap(), change: Change::Put(raw(source)), condition: None }
    }

    #[test]
    fn items_are_read_as_they_were_written() {
        let merge = Change::Merge { patch: raw("{\"n\":1.50}"), upsert: Some(raw("{}")), detect_noop: false };
        let items = [
            item("a\n/\"", "{\"n\":1.50}"),
            item(&"ü".repeat(256), "{}"),
            Item { change: merge, condition: Some(Condition::Is { seq: 7, term: 2 }), ..item("a", "{}") },
            Item { change: Change::Delete, condition: Some(Condition::Absent), ..item("a", "{}") },
        ];
        let read = of_lines(&to_lines(&items)).unwrap();
        let shown = |items: &[Item]| -> Vec<_> { items.iter().map(|item| format!("{item:?}")).collect() };
        assert_eq!(shown(&read), shown(&items));
        let line = |id: &str, more: &str| format!("{{\"id\":\"{id}\",\"change\":{{\"put\":{{}}}}{more}}}");
        assert!(of_lines(line("a", "").as_bytes()).is_ok());
        for wrong in ["{}", &line("", ""), &line("a", ",\"x\":1"), "x", &line(&"a".repeat(600), "")] {
            assert!(of_lines(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn large_requests_are_written_in_parts_that_fit_the_log() {
        let large = format!("{{\"x\":\"{}\"}}", "x".repeat(MAX_BATCH / 2));
        let sizes = |items: &[Item]| -> Vec<_> { batches(items).map(<[Item]>::len).collect() };
        assert_eq!(sizes(&[]), [0_usize; 0]);
        assert_eq!(sizes(&[item("a", "{}"), item("b", "{}")]), [2]);
        let items = [item("a", &large), item("b", &large), item("c", "{}"), item("d", &large)];
        assert_eq!(sizes(&items), [1, 2, 1]);
    }

    #[test]
    fn items_that_are_not_visible_yet_have_that_reason_and_those_that_wrote_nothing_keep_theirs() {
        let reason = |code: &str| Reason { status: 504, code: code.to_owned(), detail: String::new() };
        let of = |seq, outcome| ItemOutcome::Written { seq, term: 1, version: 1, outcome, not_visible: None };
        let written = |seq| of(seq, Outcome::Created);
        let missing = of(0, Outcome::NotFound);
        let mut outcomes = [written(7), ItemOutcome::Refused(reason("bad-document")), missing, written(8)];
        assert_eq!((end_of(&outcomes), end_of(&outcomes[1..3])), (9, 0));
        not_visible(&mut outcomes, &reason("not-visible-in-time"));
        let codes = outcomes.map(|outcome| match outcome {
            ItemOutcome::Refused(reason) | ItemOutcome::Written { not_visible: Some(reason), .. } => {
                reason.code
            }
            ItemOutcome::Written { not_visible: None, .. } => "written".to_owned(),
        });
        assert_eq!(codes, ["not-visible-in-time", "bad-document", "written", "not-visible-in-time"]);
    }

    /// The bound of a request between members is that of the largest one that a client can cause.
    #[test]
    fn a_request_to_an_owner_is_never_larger_than_its_bound() {
        let body = |id: &str| format!("{{\"name\":{}}}\n", serde_json::to_string(id).unwrap()).repeat(20);
        for id in ["i".repeat(512), "\u{1}".repeat(512), "\"\\".repeat(256), "a".to_owned()] {
            let (text, id) = (body(&id), id.as_str());
            let lines = text.lines().map(|line| item(id, line)).collect::<Vec<_>>();
            let sent = to_lines(&lines).len();
            assert!(sent <= 2 * text.len() + 20 * BESIDE_ITEM, "{sent} {}", text.len());
        }
    }
}
