//! What any member does with all shards: its own one in process, the others through the mesh.

mod search;
mod several;

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::CONTENT_TYPE;
use mesh::shards::{ShardError as Unanswered, scatter};
use plugin::http::staleness;
use plugin::shard::{Read, ReadLevel};
use serde::de::DeserializeOwned;
use types::{ErrorKind, Problem, ShardId};

use crate::http::{InnerQuery, Refusal, RefusalKind, Verb};
use crate::search::{ShardFailure, Shards};
use crate::service::SearcherService;
pub(crate) use search::{Gathered, Search, level_of, read_second};

/// How much longer than all limits of a request to a shard the gathering member waits.
const SPARE: Duration = Duration::from_millis(100);
/// The largest answer of a shard to a search: as many hits as it may have, with documents of several kilobytes.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// The shards that did not do their part, and why.
#[derive(Debug, Default)]
pub(crate) struct Failures(Vec<(ShardId, Unanswered)>);

impl SearcherService {
    /// Whether this member may answer for a shard itself.
    fn may_answer(&self, shard: ShardId, level: ReadLevel) -> bool {
        shard == self.member.shard && (self.member.is_owner() || level == ReadLevel::Any)
    }

    /// Asks a member that has the shard: this one with `here`, or another one.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        shard: ShardId,
        verb: Verb,
        query: &InnerQuery,
        body: Bytes,
        here: impl Future<Output = Result<Read<T>, Refusal>>,
    ) -> Result<Read<T>, Unanswered> {
        if self.may_answer(shard, query.level) {
            match here.await {
                Ok(done) => return Ok(done),
                // This member has lost the shard, or has not opened it yet.
                Err(refusal) if refusal.kind == RefusalKind::Elsewhere => {}
                Err(refusal) => return Err(Unanswered::Refused(Box::new(refusal.problem))),
            }
        }
        let request =
            Request::post(verb.uri(shard, query)).header(CONTENT_TYPE, "application/json").body(body);
        let request = request.expect("the path and the query have no special characters");
        let (service, target) = (&self.member.service, verb.target(shard, query.level));
        let limit = query.timeout + verb.grace();
        let answer = self.cx.mesh.fetch(service, target, request, MAX_ANSWER, limit).await?;
        let staleness = staleness(answer.headers());
        Ok(Read { value: answer.into_body(), staleness })
    }

    /// Asks each shard for the same, and returns what they answered.
    pub(crate) async fn ask_all<T, F>(
        &self,
        verb: Verb,
        query: &InnerQuery,
        body: &Bytes,
        here: impl Fn() -> F,
    ) -> (Vec<(ShardId, Read<T>)>, Failures)
    where
        T: DeserializeOwned,
        F: Future<Output = Result<Read<T>, Refusal>>,
    {
        let asked = scatter(self.member.all_shards(), query.timeout + verb.grace() + SPARE, |shard| {
            self.ask(shard, verb, query, body.clone(), here())
        });
        Failures::split(asked.await)
    }
}

impl Failures {
    /// Separates what shards answered from why others did not.
    pub(crate) fn split<T>(all: Vec<(ShardId, Result<T, Unanswered>)>) -> (Vec<(ShardId, T)>, Self) {
        let (mut done, mut failures) = (Vec::new(), Self::default());
        for (shard, outcome) in all {
            match outcome {
                Ok(value) => done.push((shard, value)),
                Err(error) => failures.0.push((shard, error)),
            }
        }
        (done, failures)
    }

    fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
        self.0.sort_by_key(|(shard, _)| *shard);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a shard was not done in time.
    pub(crate) fn has_timed_out(&self) -> bool {
        self.0.iter().any(|(_, error)| match error {
            Unanswered::TimedOut(_) => true,
            Unanswered::Refused(problem) => problem.status == ErrorKind::Timeout.status(),
            Unanswered::Unreached(_) | Unanswered::BadAnswer(_) => false,
        })
    }

    /// How many shards there are, how many did their part, and why the others did not.
    pub(crate) fn of(&self, total: usize) -> Shards {
        let failed = self.0.iter();
        let failed: Vec<_> =
            failed.map(|(shard, error)| ShardFailure { shard: *shard, reason: error.to_string() }).collect();
        Shards { total, ok: total.saturating_sub(failed.len()), failed }
    }

    /// The refusal of a request that needed all shards. A mistake of the client is shown as it is.
    pub(crate) fn refusal(&self, could_not_be: &str) -> Option<Refusal> {
        let is_clients = |status: u16| matches!(status, 400 | 404 | 413);
        let of_client = self.0.iter().find_map(|(_, error)| match error {
            Unanswered::Refused(problem) if is_clients(problem.status) => Some((**problem).clone()),
            _ => None,
        });
        if let Some(problem) = of_client {
            return Some(Refusal::plain(problem));
        }
        let (shard, error) = self.0.first()?;
        match error {
            Unanswered::Refused(problem) if matches!(problem.status, 429 | 504 | 507) => {
                let detail = format!("shard {shard} could not be {could_not_be}: {}", problem.detail);
                let problem = Problem { detail, ..(**problem).clone() };
                let is_later = problem.status == ErrorKind::TooManyRequests.status();
                Some(if is_later { Refusal::later(problem) } else { Refusal::plain(problem) })
            }
            error => Some(Refusal::plain(error.to_problem(*shard, could_not_be))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(number: u32) -> ShardId {
        number.try_into().unwrap()
    }

    fn refused(kind: ErrorKind, code: &str) -> Unanswered {
        Unanswered::Refused(Box::new(Problem::new(kind, code, "why")))
    }

    #[test]
    fn shards_that_failed_are_listed_with_their_reasons() {
        let limit = Duration::from_secs(1);
        let (done, failures) = Failures::split(vec![
            (shard(0), Ok(7)),
            (shard(1), Err(Unanswered::TimedOut(limit))),
            (shard(2), Err(refused(ErrorKind::Internal, "damaged-data"))),
        ]);
        assert_eq!(done, [(shard(0), 7)]);
        assert!(failures.has_timed_out());
        let shards = failures.of(3);
        assert_eq!((shards.total, shards.ok, shards.failed[0].shard), (3, 1, shard(1)));
        assert!(shards.failed[0].reason.contains("within 1s"), "{:?}", shards.failed);
        assert_eq!(Failures::default().of(3), Shards { total: 3, ok: 3, failed: Vec::new() });
    }

    #[test]
    fn a_mistake_of_the_client_is_shown_before_a_failure_of_a_shard() {
        let of = |errors: Vec<Unanswered>| {
            let failures = Failures(errors.into_iter().map(|error| (shard(1), error)).collect());
            failures
                .refusal("searched")
                .map(|refusal| (refusal.problem.status, refusal.problem.code().to_owned()))
        };
        let of_code = |status, code: &str| Some((status, code.to_owned()));
        let timed_out = || Unanswered::TimedOut(Duration::from_secs(1));
        assert_eq!(of(Vec::new()), None);
        assert_eq!(of(vec![timed_out()]), of_code(503, "shard-missing"));
        assert_eq!(
            of(vec![timed_out(), refused(ErrorKind::Invalid, "bad-search")]),
            of_code(400, "bad-search")
        );
        assert_eq!(of(vec![refused(ErrorKind::TooManyRequests, "too-busy")]), of_code(429, "too-busy"));
        assert_eq!(of(vec![refused(ErrorKind::Internal, "query-panicked")]), of_code(500, "query-panicked"));
        assert_eq!(of(vec![refused(ErrorKind::Unavailable, "not-open")]), of_code(503, "shard-missing"));
    }
}
