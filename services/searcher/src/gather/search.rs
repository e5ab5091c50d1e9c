//! A search over all shards, in two rounds: what they contribute to the plan, and what they find with it.
//!
//! The first round has half of the time, so that a shard without an owner leaves the other half to the others. A shard that
//! fails in either round makes the answer partial.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mesh::shards::scatter;
use plugin::shard::{Read, ReadLevel};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};
use types::{ErrorKind, Problem, ShardId};

use super::{Failures, SPARE};
use crate::catalog::{Index, Indexes};
use crate::http::{InnerQuery, Refusal, RefusalKind, Verb};
use crate::query_pool::{PoolError, QueryPool};
use crate::search::{
    Answer, Cancel, Found, Plan, Prepared, SearchError, SearchRequest, combine, execute, is_quick, merge,
    prepare, search_alone,
};
use crate::service::SearcherService;
use crate::shard::Snapshot;

/// The read level of a search that names none.
const DEFAULT_LEVEL: ReadLevel = ReadLevel::Primary;

/// The body of a request for the second round.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Second {
    request: Box<RawValue>,
    plan: Plan,
}

/// The answer to the first round.
#[derive(Serialize, Deserialize)]
pub(crate) struct First {
    prepared: Prepared,
    /// The epoch of the owner that has answered.
    epoch: Option<u64>,
}

/// A search that is under way at this member.
pub(crate) struct Search {
    pub(crate) index: Arc<Index>,
    pub(crate) request: Arc<SearchRequest>,
    pub(crate) level: ReadLevel,
    pub(crate) deadline: Instant,
    pub(crate) cancel: Cancel,
}

/// What shards found, by their [positions](SearchRequest::position), and which did not answer.
pub(crate) struct Gathered {
    pub(crate) found: Vec<(u32, Found)>,
    pub(crate) failures: Failures,
    pub(crate) staleness: Option<Duration>,
}

impl Search {
    pub(crate) fn new(
        index: Arc<Index>,
        request: SearchRequest,
        level: ReadLevel,
        deadline: Instant,
    ) -> Self {
        Self { index, request: Arc::new(request), level, deadline, cancel: Cancel::default() }
    }
}

/// The level at which a request is answered.
pub(crate) fn level_of(request: &SearchRequest) -> ReadLevel {
    request.consistency.unwrap_or(DEFAULT_LEVEL)
}

impl SearcherService {
    /// Searches all shards. The answer is complete, or says what it lacks.
    pub(crate) async fn search(
        &self,
        indexes: &Indexes,
        index: &Arc<Index>,
        request: SearchRequest,
    ) -> Result<Read<Answer>, Refusal> {
        request.check(&index.schema).map_err(SearchError::from)?;
        let began = Instant::now();
        let level = level_of(&request);
        let deadline = began + request.timeout;
        let search = Search::new(Arc::clone(index), request, level, deadline);
        let shards = self.member.all_shards().len();
        let (mut answer, failures, staleness) = match self.search_whole_here(&search).await? {
            Some(read) => (read.value, Failures::default(), read.staleness),
            None => self.search_everywhere(indexes, &search, began).await?,
        };
        let is_partial = !failures.is_empty();
        if is_partial && (level == ReadLevel::Strong || !search.request.allow_partial) {
            return Err(failures.refusal("searched").unwrap_or_else(nothing_found));
        }
        answer.timed_out |= failures.has_timed_out();
        answer.shards = failures.of(shards);
        answer.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(Read { value: answer, staleness })
    }

    /// The whole search at once, if this member may answer for the only shard.
    async fn search_whole_here(&self, search: &Search) -> Result<Option<Read<Answer>>, Refusal> {
        if self.member.shards.get() > 1 || !self.may_answer(self.member.shard, search.level) {
            return Ok(None);
        }
        match self.search_shard(search).await {
            Ok(read) => Ok(Some(read)),
            Err(refusal) if refusal.kind == RefusalKind::Elsewhere => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// All of a search at this member's shard alone.
    pub(crate) async fn search_shard(&self, search: &Search) -> Result<Read<Answer>, Refusal> {
        let Read { value: snapshot, staleness } = self.snapshot(search).await?;
        let value = self.search_snapshot(search, snapshot).await?;
        Ok(Read { value, staleness })
    }

    /// All of a search in one snapshot.
    pub(crate) async fn search_snapshot(
        &self,
        search: &Search,
        snapshot: Snapshot,
    ) -> Result<Answer, Refusal> {
        let (cancel, shard) = (search.cancel.clone(), self.member.shard);
        let work = move |snapshot: &Snapshot, request: &SearchRequest| {
            let found = search_alone(snapshot, request, shard, &cancel)?;
            merge(request, &snapshot.index.schema, vec![(request.position(shard), found)])
        };
        self.run(search, snapshot, work).await
    }

    /// Runs a part of a search, on this thread if it is over soon.
    async fn run<T: Send + 'static>(
        &self,
        search: &Search,
        snapshot: Snapshot,
        work: impl FnOnce(&Snapshot, &SearchRequest) -> Result<T, SearchError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (request, seen) = (Arc::clone(&search.request), snapshot.clone());
        let is_soon = || is_quick(&snapshot, &search.request);
        let work = move || work(&seen, &request);
        let done = self.pool.run_soon(search.deadline, &search.cancel, is_soon, work).await;
        self.outcome(search.level, done)
    }

    async fn search_everywhere(
        &self,
        indexes: &Indexes,
        search: &Search,
        began: Instant,
    ) -> Result<(Answer, Failures, Option<Duration>), Refusal> {
        let Gathered { found, failures, staleness } = self.find_everywhere(indexes, search, began).await?;
        let (request, index) = (Arc::clone(&search.request), Arc::clone(&search.index));
        let is_soon = !request.has_aggregations();
        let merged = QueryPool::finish(is_soon, move || merge(&request, &index.schema, found)).await;
        let merged = merged.map_err(|error| error.refusal())??;
        Ok((merged, failures, staleness))
    }

    /// What the shards of one index find, to be merged with what is found in others. Complete, unless the request allows less.
    pub(crate) async fn find(&self, indexes: &Indexes, search: &Search) -> Result<Gathered, Refusal> {
        search.request.check(&search.index.schema).map_err(SearchError::from)?;
        let gathered = match self.find_whole_here(search).await? {
            Some(gathered) => gathered,
            None => self.find_everywhere(indexes, search, Instant::now()).await?,
        };
        let may_be_partial = search.level != ReadLevel::Strong && search.request.allow_partial;
        match gathered.failures.is_empty() || may_be_partial {
            true => Ok(gathered),
            false => Err(gathered.failures.refusal("searched").unwrap_or_else(nothing_found)),
        }
    }

    /// What the only shard finds, if this member may answer for it.
    async fn find_whole_here(&self, search: &Search) -> Result<Option<Gathered>, Refusal> {
        if self.member.shards.get() > 1 || !self.may_answer(self.member.shard, search.level) {
            return Ok(None);
        }
        let Read { value: snapshot, staleness } = match self.snapshot(search).await {
            Err(refusal) if refusal.kind == RefusalKind::Elsewhere => return Ok(None),
            read => read?,
        };
        let (cancel, shard) = (search.cancel.clone(), self.member.shard);
        let work = move |snapshot: &Snapshot, request: &SearchRequest| {
            search_alone(snapshot, request, shard, &cancel)
        };
        let found = match self.run(search, snapshot, work).await {
            Err(refusal) if refusal.kind == RefusalKind::Elsewhere => return Ok(None),
            found => found?,
        };
        let found = vec![(search.request.position(shard), found)];
        Ok(Some(Gathered { found, failures: Failures::default(), staleness }))
    }

    async fn find_everywhere(
        &self,
        indexes: &Indexes,
        search: &Search,
        began: Instant,
    ) -> Result<Gathered, Refusal> {
        let query = |timeout| InnerQuery::read(indexes, &search.index, search.level, timeout);
        let text = search.request.to_json();
        let first = query(search.deadline.saturating_duration_since(began) / 2);
        // The second round at this member sees what the first one saw.
        let own = Mutex::new(None);
        let (prepared, mut failures) = self
            .ask_all(Verb::Prepare, &first, &Bytes::from(text.clone()), || async {
                let (read, snapshot) = self.prepare_here(search).await?;
                let snapshot = Read { value: snapshot, staleness: read.staleness };
                *own.lock().unwrap_or_else(PoisonError::into_inner) = Some(snapshot);
                Ok(read)
            })
            .await;
        if prepared.is_empty() {
            return Err(failures.refusal("searched").unwrap_or_else(nothing_found));
        }
        let of = |(shard, read): (ShardId, Read<First>)| ((shard, read.value.epoch), read.value.prepared);
        let (shards, prepared): (BTreeMap<ShardId, Option<u64>>, Vec<Prepared>) =
            prepared.into_iter().map(of).unzip();
        let plan = Arc::new(combine(prepared));
        let request = RawValue::from_string(String::from_utf8_lossy(&text).into_owned());
        let request = request.map_err(|error| SearchError::Engine(error.to_string()))?;
        let body = serde_json::to_vec(&Second { request, plan: (*plan).clone() });
        let body = Bytes::from(body.map_err(|error| SearchError::Engine(error.to_string()))?);
        let left = search.deadline.saturating_duration_since(Instant::now());
        let second = query(left);
        let mut own = own.into_inner().unwrap_or_else(PoisonError::into_inner);
        let asked = scatter(shards.keys().copied(), left + Verb::Execute.grace() + SPARE, |shard| {
            let snapshot = own.take_if(|_| shard == self.member.shard);
            let (plan, body) = (Arc::clone(&plan), body.clone());
            let second = InnerQuery { seen_by: shards[&shard], ..second.clone() };
            async move {
                let here = async move {
                    let read = match snapshot {
                        Some(read) => read,
                        None => self.snapshot(search).await?,
                    };
                    self.execute_here(search, read, plan).await
                };
                self.ask(shard, Verb::Execute, &second, body, here).await
            }
        });
        let (found, more) = Failures::split(asked.await);
        failures.extend(more);
        if found.is_empty() {
            return Err(failures.refusal("searched").unwrap_or_else(nothing_found));
        }
        let mut staleness = Some(Duration::ZERO);
        let mut parts: Vec<(u32, Found)> = Vec::with_capacity(found.len());
        for (shard, read) in found {
            staleness = staleness.and_then(|most| Some(most.max(read.staleness?)));
            parts.push((search.request.position(shard), read.value));
        }
        Ok(Gathered { found: parts, failures, staleness })
    }

    /// What this member's shard shows of the index, at the read level.
    pub(crate) async fn snapshot(&self, search: &Search) -> Result<Read<Snapshot>, Refusal> {
        let snapshot = timeout_at(search.deadline, self.shard.snapshot(&search.index, search.level)).await;
        let snapshot = snapshot.map_err(|_| {
            let detail = "the shard did not become ready in time";
            let problem = Problem::new(ErrorKind::Timeout, "query-timeout", detail);
            Refusal::plain(problem.hint("allow more time with `timeout`, or search with `consistency=any`"))
        })?;
        snapshot.map_err(|error| Refusal::from(error).of_read(search.level))
    }

    /// Runs the blocking work of a query at this member's shard. If it fails as it does if a local file is damaged, they are
    /// verified.
    pub(crate) async fn query<T: Send + 'static>(
        &self,
        deadline: Instant,
        cancel: &Cancel,
        level: ReadLevel,
        work: impl FnOnce() -> Result<T, SearchError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let done = self.pool.run(deadline, cancel, work).await;
        self.outcome(level, done)
    }

    fn outcome<T>(
        &self,
        level: ReadLevel,
        done: Result<Result<T, SearchError>, PoolError>,
    ) -> Result<T, Refusal> {
        match done {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => {
                if matches!(error, SearchError::Damaged(_) | SearchError::Engine(_)) {
                    self.shard.suspect(&error.to_string());
                }
                Err(Refusal::from(error).of_read(level))
            }
            Err(error) => {
                if matches!(error, PoolError::Panicked(_)) {
                    self.shard.suspect(&error.to_string());
                }
                Err(error.refusal())
            }
        }
    }

    /// The first round at this member's shard.
    pub(crate) async fn prepare_here(&self, search: &Search) -> Result<(Read<First>, Snapshot), Refusal> {
        let epoch = self.shard.epoch();
        let Read { value: snapshot, staleness } = self.snapshot(search).await?;
        let (cancel, shard) = (search.cancel.clone(), self.member.shard);
        let work = move |snapshot: &Snapshot, request: &SearchRequest| {
            prepare(snapshot, request)?.with_nearest(snapshot, request, shard, &cancel)
        };
        let prepared = self.run(search, snapshot.clone(), work).await?;
        Ok((Read { value: First { prepared, epoch }, staleness }, snapshot))
    }

    /// The second round at this member's shard.
    pub(crate) async fn execute_here(
        &self,
        search: &Search,
        Read { value: snapshot, staleness }: Read<Snapshot>,
        plan: Arc<Plan>,
    ) -> Result<Read<Found>, Refusal> {
        let (cancel, shard) = (search.cancel.clone(), self.member.shard);
        let work = move |snapshot: &Snapshot, request: &SearchRequest| {
            execute(snapshot, request, &plan, shard, &cancel)
        };
        Ok(Read { value: self.run(search, snapshot, work).await?, staleness })
    }
}

/// The request and the plan in the body of a request for the second round.
pub(crate) fn read_second(body: &[u8]) -> Result<(SearchRequest, Plan), Refusal> {
    let Second { request, plan } = serde_json::from_slice(body).map_err(|error| {
        let detail = format!("the body is no request with a plan: {error}");
        Refusal::invalid("bad-search", &detail, "members write these bodies for each other")
    })?;
    Ok((SearchRequest::from_wire(request.get().as_bytes()).map_err(SearchError::from)?, plan))
}

/// There was no answer, and no reason either.
fn nothing_found() -> Refusal {
    Refusal::plain(Problem::new(ErrorKind::Internal, "search-failed", "no shard answered"))
}
