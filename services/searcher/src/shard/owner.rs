//! The writer of a shard: one task decides, logs and answers writes, in groups.
//!
//! A write is answered once its record is durable. A group is decided in order, each write against what the ones before
//! it did, and becomes one record unless it is large. A request that becomes several records is not atomic: each of its
//! writes is durable or refused on its own.
//!
//! After a failed append nobody knows whether the record is durable, and the log is closed. So the shard is closed too,
//! and opened again from what is stored. A write whose record failed, or that was decided after one that failed, is
//! answered with [`ShardError::OutcomeUnknown`].

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use plugin::Claim;
use plugin::queue::Queued;
use store::{DataLog, DataLogError};
use tantivy::Searcher;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use uuid::Uuid;

use super::decide::{Decision, Present, decide, needs_source};
use super::lookup::{LookupError, locate, source};
use super::paths::KnownPaths;
use super::pending::{Logged, Pending};
use super::status::Meters;
use super::suspicion::Suspicion;
use super::view::Views;
use super::{Outcome, Refused, ShardError, Write, Written};
use crate::operation::{Operation, Operations};
use crate::query_pool::panic_message;

/// The answer to a request.
pub(crate) type Answer = Result<Vec<Result<Written, Refused>>, ShardError>;

/// Writes the log of a shard.
pub(crate) struct Writer<'a> {
    pub(crate) log: &'a DataLog,
    pub(crate) claim: &'a Claim,
    pub(crate) pending: &'a Arc<Pending>,
    pub(crate) views: &'a Views,
    pub(crate) paths: Arc<KnownPaths>,
    pub(crate) meters: &'a Meters,
    pub(crate) suspicion: &'a Suspicion,
}

/// What to log for a group, and how to answer it.
struct Decided {
    /// The operations of each record, and the record.
    records: Vec<(Vec<Logged>, Vec<u8>)>,
    answers: Vec<Result<Decisions, ShardError>>,
}

/// The answers to one request. They hold once this many operations of the group are durable.
struct Decisions {
    results: Vec<Result<Written, Refused>>,
    needs: usize,
    /// How many operations of the group are before it.
    before: usize,
}

impl Writer<'_> {
    /// Serves a group of requests. Fails if the shard has to be opened again.
    pub(crate) async fn write(&self, group: Vec<Queued<Vec<Write>, Answer>>) -> Result<(), String> {
        let began = group.iter().map(|request| request.came).min();
        let mut group: Vec<_> = group.into_iter().filter(|request| !request.is_abandoned()).collect();
        let writes = group.iter_mut().map(|request| std::mem::take(&mut request.item)).collect();
        let (pending, views, term) = (Arc::clone(self.pending), self.views.clone(), self.claim.epoch().0);
        let paths = Arc::clone(&self.paths);
        let deciding =
            spawn_blocking(move || Deciding::new(&pending, &views, &paths, term).decide_all(writes));
        let decided = match deciding.await {
            Ok(decided) => decided,
            Err(error) => return Err(not_decided(group, &error.to_string())),
        };
        let (mut durable, mut failed) = (0, None);
        for (operations, record) in decided.records {
            let count = operations.len();
            self.pending.begin(operations);
            if let Err(error) = self.log.append(record).await {
                failed = Some(error);
                break;
            }
            durable += count;
        }
        self.meters.operations.inc_by(u64::try_from(durable).unwrap_or(u64::MAX));
        for (request, answer) in group.into_iter().zip(decided.answers) {
            let Decisions { results, needs, before } = match answer {
                Ok(decisions) => decisions,
                Err(error) => {
                    self.suspicion.report(&error.to_string());
                    request.answer(Err(error));
                    continue;
                }
            };
            let refused = results.iter().filter(|result| result.is_err()).count();
            self.meters.refused.inc_by(u64::try_from(refused).unwrap_or(u64::MAX));
            request.answer(match &failed {
                Some(error) if needs > durable => Err(not_appended(error, before < durable)),
                Some(_) | None => Ok(results),
            });
        }
        if let Some(began) = began {
            self.meters.durable.observe(Instant::now().duration_since(began).as_secs_f64());
        }
        let Some(error) = failed else { return Ok(()) };
        if matches!(error, DataLogError::Fenced { .. }) {
            self.claim.fenced(error.to_string());
        }
        Err(error.to_string())
    }
}

/// The error for a request of which something was not appended, and something `begun` perhaps was.
fn not_appended(error: &DataLogError, begun: bool) -> ShardError {
    match error {
        // Another owner's entry has its number, so it was not written.
        DataLogError::Fenced { .. } if !begun => ShardError::Elsewhere(error.to_string()),
        DataLogError::Fenced { .. }
        | DataLogError::Trimmed { .. }
        | DataLogError::TooLong(_)
        | DataLogError::Store(_) => ShardError::OutcomeUnknown(error.to_string()),
    }
}

/// Answers a group that was not decided. Nothing of it was done.
fn not_decided(group: Vec<Queued<Vec<Write>, Answer>>, why: &str) -> String {
    let why = format!("the writes were not decided: {why}");
    for request in group {
        request.answer(Err(ShardError::Opening(why.clone())));
    }
    why
}

/// Decides a group.
struct Deciding<'a> {
    pending: &'a Pending,
    views: &'a Views,
    paths: &'a KnownPaths,
    term: u64,
    first: u64,
    operations: Vec<Logged>,
    /// The last operation of each id in this group.
    latest: BTreeMap<Uuid, BTreeMap<Arc<str>, usize>>,
}

impl<'a> Deciding<'a> {
    fn new(pending: &'a Pending, views: &'a Views, paths: &'a KnownPaths, term: u64) -> Self {
        let first = pending.next_seq();
        Self { pending, views, paths, term, first, operations: Vec::new(), latest: BTreeMap::new() }
    }

    fn decide_all(mut self, requests: Vec<Vec<Write>>) -> Decided {
        let mut answers = Vec::new();
        for writes in requests {
            let before = self.operations.len();
            let decide = || writes.into_iter().map(|write| self.decide(write)).collect::<Result<_, _>>();
            // A request that fails takes no other one with it.
            let results = catch_unwind(AssertUnwindSafe(decide));
            let results = match results {
                Ok(results) => results.map_err(ShardError::from),
                Err(panic) => Err(ShardError::Panicked(panic_message(&*panic))),
            };
            if results.is_err() {
                self.undo(before);
            }
            let needs = self.operations.len();
            answers.push(results.map(|results| Decisions { results, needs, before }));
        }
        let to_log = |logged: &Logged| Operation {
            index: logged.index.uuid,
            id: Arc::clone(&logged.id),
            version: logged.version,
            source: logged.source.clone(),
        };
        let operations = self.operations.iter().map(to_log).collect();
        let mut rest = self.operations.into_iter();
        let records = Operations::split(self.first, operations).into_iter().map(|record| {
            let operations = rest.by_ref().take(record.operations.len()).collect();
            (operations, record.encode())
        });
        Decided { records: records.collect(), answers }
    }

    /// Forgets the operations of a request that failed.
    fn undo(&mut self, before: usize) {
        self.operations.truncate(before);
        self.latest.clear();
        for (at, Logged { index, id, .. }) in self.operations.iter().enumerate() {
            self.latest.entry(index.uuid).or_default().insert(Arc::clone(id), at);
        }
    }

    fn decide(&mut self, write: Write) -> Result<Result<Written, Refused>, LookupError> {
        let present = self.present(&write)?;
        let decision = match decide(&write, present.as_ref()) {
            Ok(decision) => decision,
            Err(refused) => return Ok(Err(refused)),
        };
        let (version, source, outcome) = match decision {
            Decision::Nothing { seq, term, version, outcome } => {
                return Ok(Ok(Written { seq, term, version, outcome }));
            }
            Decision::Log { version, source, paths, outcome } => {
                if let Err(error) = self.paths.admit(&write.index, &paths, self.pending, self.views)? {
                    return Ok(Err(Refused::Document(error.to_string())));
                }
                (version, source, outcome)
            }
        };
        let seq = self.first + u64::try_from(self.operations.len()).unwrap_or(u64::MAX);
        let (term, id): (_, Arc<str>) = (self.term, write.id.into());
        let ids = self.latest.entry(write.index.uuid).or_default();
        ids.insert(Arc::clone(&id), self.operations.len());
        self.operations.push(Logged { index: write.index, id, seq, term, version, source });
        Ok(Ok(Written { seq, term, version, outcome }))
    }

    /// The document that an id has: what this group did, else what is pending, else what is in the index.
    fn present(&self, write: &Write) -> Result<Option<Present>, LookupError> {
        let uuid = write.index.uuid;
        let in_group =
            self.latest.get(&uuid).and_then(|ids| ids.get(&*write.id)).map(|at| &self.operations[*at]);
        if let Some(logged) = in_group {
            return Ok(present_of(logged));
        }
        if let Some(logged) = self.pending.latest(uuid, &write.id) {
            return Ok(present_of(&logged));
        }
        // Looked up after what is pending, which is forgotten only once searchers have it.
        let Some(searcher): Option<Searcher> = self.views.searcher(uuid) else { return Ok(None) };
        let schema = &write.index.schema;
        let Some(located) = locate(&searcher, schema, &write.id)? else { return Ok(None) };
        let source = needs_source(write).then(|| source(&searcher, schema, &located)).transpose()?;
        let (seq, term, version) = (located.seq, located.term, located.version);
        Ok(Some(Present { seq, term, version, source: source.map(Arc::from) }))
    }
}

fn present_of(logged: &Logged) -> Option<Present> {
    let Logged { seq, term, version, .. } = *logged;
    let source = logged.source.clone()?;
    Some(Present { seq, term, version, source: Some(source) })
}

/// The number after the last operation that a request needs to be visible.
pub(crate) fn end_of(results: &[Result<Written, Refused>]) -> u64 {
    let seqs = results.iter().flatten().filter(|written| written.outcome != Outcome::NotFound);
    seqs.map(|written| written.seq + 1).max().unwrap_or_default()
}
