//! Copies documents of one shard, at its owner.
//!
//! Memory is bounded: a page has ids and numbers only, and documents are read and written a few megabytes at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout_at};
use types::ErrorKind;

use super::super::pages::{PAGE, found, page};
use super::super::refusal::{Reason, Refusal};
use super::super::write::bad_document;
use super::{Copied, Part};
use crate::catalog::Index;
use crate::document::id::document_id;
use crate::gather::Search;
use crate::query_pool::panicked;
use crate::service::SearcherService;
use crate::shard::{Change, Condition, Outcome, Refused, ShardError, Snapshot, Write};
use plugin::shard::ReadLevel;

/// How many documents, and bytes of documents, are read and written together, except that one document is always.
const BATCH: (usize, usize) = (500, 4 * 1024 * 1024);
/// The pause when the shard takes no more writes for now.
const PAUSE: Duration = Duration::from_millis(100);
/// How much longer than its time a part may wait for the shard, or look for its next page.
const SPARE: Duration = Duration::from_secs(1);

/// Documents that were read and fit, and those that do not.
#[derive(Default)]
struct Batch {
    fitting: Vec<(String, u64, Box<RawValue>)>,
    refused: Vec<(String, Reason)>,
    /// How many ids it took.
    taken: usize,
}

/// Reads the next documents and checks them. Blocking.
fn read_batch(snapshot: &Snapshot, target: &Index, ids: &[(String, u64)]) -> Result<Batch, ShardError> {
    let (most, most_bytes) = BATCH;
    let (mut batch, mut bytes) = (Batch::default(), 0);
    for (id, seq) in ids.iter().take(most) {
        if bytes >= most_bytes {
            break;
        }
        batch.taken += 1;
        let Some(document) = snapshot.document(id)? else { continue };
        let source = document.source.get();
        bytes += source.len();
        let checked = match document_id(&target.schema.definition, source, Some(id)) {
            Ok(_) => target.schema.check(source).map_err(|error| Reason::of(&bad_document(&error).problem)),
            Err(error) => Err(Reason { status: 400, code: "bad-id".to_owned(), detail: error.to_string() }),
        };
        match checked {
            Ok(()) => batch.fitting.push((id.clone(), *seq, document.source)),
            Err(reason) => batch.refused.push((id.clone(), reason)),
        }
    }
    Ok(batch)
}

/// One copy under way.
struct Copying<'a> {
    service: &'a SearcherService,
    source: &'a Arc<Index>,
    target: &'a Arc<Index>,
    only_new: bool,
    snapshot: Snapshot,
    deadline: Instant,
    /// Documents of the present page that are not copied, by their operations; counted once the copy has come that far.
    skipped: VecDeque<u64>,
    done: Copied,
}

impl SearcherService {
    /// Copies documents until all that were acknowledged before are done, or the time is up.
    pub(super) async fn copy_here(
        &self,
        source: &Arc<Index>,
        target: &Arc<Index>,
        part: &Part,
        limit: Duration,
    ) -> Result<Copied, Refusal> {
        let deadline = Instant::now() + limit;
        // Nothing is done, so the next part begins where this one did.
        let late = || Copied { seq: part.after, timed_out: true, ..Copied::default() };
        // Few copy at a time, so that their memory is bounded.
        let Ok(_permit) = timeout_at(deadline + SPARE, self.copies.acquire()).await else {
            return Ok(late());
        };
        let looking = timeout_at(deadline + SPARE, self.shard.snapshot_of_all(source)).await;
        let (snapshot, end) = match looking {
            Ok(looking) => looking?,
            Err(_) => return Ok(late()),
        };
        let done = Copied { seq: part.after, ..Copied::default() };
        let only_new = part.only_new;
        let mut copying = Copying {
            service: self,
            source,
            target,
            only_new,
            snapshot,
            deadline,
            skipped: VecDeque::new(),
            done,
        };
        match copying.run(part).await {
            Ok(true) => {
                let last = end.checked_sub(1).max(part.after);
                copying.done.seq = last;
                Ok(copying.done)
            }
            Ok(false) => Ok(Copied { timed_out: true, ..copying.done }),
            Err(refusal) if copying.done.seq == part.after => Err(refusal),
            // What was done before is done.
            Err(refusal) => Ok(Copied { failed: Some(Reason::of(&refusal.problem)), ..copying.done }),
        }
    }
}

impl Copying<'_> {
    /// Whether all is done.
    async fn run(&mut self, part: &Part) -> Result<bool, Refusal> {
        // Behind all places of that operation.
        let mut after = part.after.map(|seq| json!([seq, seq, u32::MAX]));
        let mut is_first = true;
        loop {
            if !is_first && Instant::now() >= self.deadline {
                return Ok(false);
            }
            let deadline = self.deadline + SPARE;
            let request = page(&part.search, after.take())?;
            let search = Search::new(Arc::clone(self.source), request, ReadLevel::Strong, deadline);
            let answer = match self.service.search_snapshot(&search, self.snapshot.clone()).await {
                Err(refusal) if refusal.problem.status == ErrorKind::Timeout.status() && !is_first => {
                    return Ok(false);
                }
                answer => answer?,
            };
            let ids = found(&answer)?;
            let is_last = ids.len() < PAGE;
            if !self.copy_page(ids).await? {
                return Ok(false);
            }
            after = answer.next.map(Value::Array);
            if is_last || after.is_none() {
                return Ok(true);
            }
            is_first = false;
        }
    }

    /// Copies documents with these ids. Returns whether the time sufficed.
    async fn copy_page(&mut self, page: Vec<(String, u64)>) -> Result<bool, Refusal> {
        let Some(last) = page.last().map(|(_, seq)| *seq) else { return Ok(true) };
        let mut wanted = self.wanted(page).await?;
        while !wanted.is_empty() {
            let (snapshot, target) = (self.snapshot.clone(), Arc::clone(self.target));
            let reading = spawn_blocking(move || {
                let batch = read_batch(&snapshot, &target, &wanted);
                (batch, wanted)
            });
            let (batch, ids) = reading.await.map_err(|error| panicked(error).refusal())?;
            let batch = batch?;
            if !self.write(batch.fitting).await? {
                return Ok(false);
            }
            for (id, reason) in batch.refused {
                self.done.refuse(&id, reason);
            }
            let mut ids = ids;
            let rest = ids.split_off(batch.taken);
            if let Some((_, seq)) = ids.last() {
                self.advance(*seq);
            }
            wanted = rest;
            if !wanted.is_empty() && Instant::now() >= self.deadline {
                return Ok(false);
            }
        }
        self.advance(last);
        Ok(true)
    }

    /// All up to this operation is done.
    fn advance(&mut self, seq: u64) {
        self.done.seq = Some(seq).max(self.done.seq);
        while self.skipped.pop_front_if(|skipped| *skipped <= seq).is_some() {
            self.done.skipped += 1;
        }
    }

    /// Those of a page that have to be copied: the others were deleted meanwhile, or are in the target already.
    async fn wanted(&mut self, page: Vec<(String, u64)>) -> Result<Vec<(String, u64)>, Refusal> {
        let ids: Arc<[String]> = page.iter().map(|(id, _)| id.clone()).collect();
        let sources = self.service.shard.present(self.source, &ids).await?;
        let targets = self.service.shard.present(self.target, &ids).await?;
        let mut wanted = Vec::new();
        self.skipped.clear();
        for ((id, seq), (source, target)) in page.into_iter().zip(sources.into_iter().zip(targets)) {
            let is_done = target.is_some_and(|target| self.only_new || target >= seq);
            if is_done {
                self.skipped.push_back(seq);
            } else if source.is_some() {
                wanted.push((id, seq));
            }
        }
        Ok(wanted)
    }

    /// Writes documents, unless the target has newer ones. Returns whether there was room for them in time.
    async fn write(&mut self, documents: Vec<(String, u64, Box<RawValue>)>) -> Result<bool, Refusal> {
        if documents.is_empty() {
            return Ok(true);
        }
        let write = |(id, seq, source): (String, u64, Box<RawValue>)| Write {
            index: Arc::clone(self.target),
            id,
            change: Change::Put(source),
            condition: Some(if self.only_new { Condition::Absent } else { Condition::Older { seq } }),
        };
        let writes: Vec<_> = documents.into_iter().map(write).collect();
        let ids: Vec<_> = writes.iter().map(|write| write.id.clone()).collect();
        let outcomes = loop {
            match self.service.shard.write(writes.clone(), crate::shard::Refresh::Durable).await {
                Err(ShardError::Behind(_)) if Instant::now() + PAUSE < self.deadline => sleep(PAUSE).await,
                Err(ShardError::Behind(_)) => return Ok(false),
                outcomes => break outcomes?,
            }
        };
        for (id, outcome) in ids.iter().zip(outcomes) {
            match outcome {
                Ok(written) if written.outcome == Outcome::Created => self.done.created += 1,
                Ok(_) => self.done.updated += 1,
                Err(Refused::Changed { .. }) => self.done.skipped += 1,
                Err(refused) => self.done.refuse(id, Reason::from(&refused)),
            }
        }
        Ok(true)
    }
}
