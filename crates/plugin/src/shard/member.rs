//! Which shard this member has, and which requests it therefore refuses.

use std::num::NonZeroU32;
use std::time::Duration;

use axum::response::Response;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use types::{ErrorKind, KeyHash, Problem, ServiceName, ShardId};

use crate::http::{Answer, invalid, not_processed, problem};
use crate::{Context, Duty, ServiceError};

/// How long reads may still take once the role ends. Some wait for members whose shards move as well, or for space that
/// slow readers hold.
const LAST_READS: Duration = Duration::from_millis(50);

/// The shard that this member has, as its owner or as a replica.
#[derive(Debug, Clone)]
pub struct ShardMember {
    /// The service.
    pub service: ServiceName,
    /// The shard.
    pub shard: ShardId,
    /// How many shards the service has.
    pub shards: NonZeroU32,
    /// What this member does with its shard.
    pub duty: Duty,
}

impl ShardMember {
    /// The member as which a service is started.
    ///
    /// # Errors
    ///
    /// If the service's type has no owned shards.
    pub fn of(cx: &Context) -> Result<Self, ServiceError> {
        let missing =
            |what: &str| ServiceError::internal(format!("a member of `{}` was given no {what}", cx.role));
        let service = cx.role.service().cloned().ok_or_else(|| missing("service"))?;
        let shard = cx.role.shard().ok_or_else(|| missing("shard"))?;
        let shards = cx.shards.ok_or_else(|| missing("number of shards"))?;
        match &cx.duty {
            Duty::None => Err(missing("claim")),
            duty @ (Duty::Primary(_) | Duty::Replica) => {
                Ok(Self { service, shard, shards, duty: duty.clone() })
            }
        }
    }

    /// Whether this member owns the shard.
    pub fn is_owner(&self) -> bool {
        matches!(self.duty, Duty::Primary(_))
    }

    /// The shard of a key.
    pub fn shard_of(&self, key: KeyHash) -> ShardId {
        key.shard(self.shards)
    }

    /// All shards of the service.
    pub fn all_shards(&self) -> Vec<ShardId> {
        (0..self.shards.get()).filter_map(|shard| ShardId::try_from(shard).ok()).collect()
    }

    /// Refuses the request if this member is a replica. The mesh then sends it to the owner.
    pub fn owner_only(&self) -> Result<(), Response> {
        if self.is_owner() { Ok(()) } else { Err(self.replica()) }
    }

    /// The refusal of a request that only the owner answers: 421 `owner-only`, not processed.
    pub fn replica(&self) -> Response {
        let detail = format!("this node has a replica of shard {}; only its owner answers that", self.shard);
        let refusal = Problem::new(ErrorKind::Misdirected, "owner-only", detail);
        not_processed(&refusal.hint("send it to the owner or a gateway, or read with `?consistency=any`"))
    }

    /// The refusal of a request for another shard: 421 `misdirected`.
    pub fn elsewhere(&self, shard: ShardId) -> Response {
        let detail = format!("that belongs to shard {shard}; this node has shard {}", self.shard);
        let refusal = Problem::new(ErrorKind::Misdirected, "misdirected", detail);
        problem(&refusal.hint("send it to the owner of the shard, or to a gateway, which finds the owner"))
    }

    /// Refuses a shard that does not exist or that this member does not have.
    pub fn has(&self, shard: Option<ShardId>) -> Result<(), Response> {
        match self.existing(shard)? {
            Some(shard) if shard != self.shard => Err(self.elsewhere(shard)),
            _ => Ok(()),
        }
    }

    /// Refuses a shard that does not exist: 400 `unknown-shard`.
    pub fn existing(&self, shard: Option<ShardId>) -> Result<Option<ShardId>, Response> {
        let Some(unknown) = shard.filter(|shard| shard.as_u32() >= self.shards.get()) else {
            return Ok(shard);
        };
        let hint = format!("there are shards 0 to {}", self.shards.get() - 1);
        Err(invalid("unknown-shard", &format!("there is no shard {unknown}"), &hint))
    }

    /// The answer to a request that changes nothing, or a refusal as not processed, 503 `not-here`, if there is none shortly
    /// after `ending` was cancelled: another member can answer it.
    pub async fn unless_ended(
        &self,
        ending: &CancellationToken,
        answering: impl Future<Output = Response>,
    ) -> Response {
        let ended = async {
            ending.cancelled().await;
            sleep(LAST_READS).await;
        };
        tokio::select! {
            biased;
            answer = answering => answer,
            () = ended => {
                let detail = format!("this member's role as shard {} is ending", self.shard);
                let refusal = Problem::new(ErrorKind::Unavailable, "not-here", detail);
                not_processed(&refusal.hint("ask again; GET /v1/claims shows the owner"))
            }
        }
    }

    /// The answer of another member to a forwarded request, or a refusal if there was none. The refusal is marked as not
    /// processed if the request was not sent to any member.
    pub fn passed_on<B>(sent: Result<::http::Response<B>, mesh::MeshError>) -> Answer
    where
        B: axum::body::HttpBody<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        match sent {
            Ok(answer) => Ok(answer.map(axum::body::Body::new)),
            Err(error) => {
                let refusal = error.to_problem();
                let is_untouched = refusal.status == ErrorKind::Unavailable.status();
                Err(if is_untouched { not_processed(&refusal) } else { problem(&refusal) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh::MeshError;
    use types::{Role, api};

    use super::*;

    fn replica(shard: u32, shards: u32) -> ShardMember {
        let (mut context, _) = Context::for_test(format!("storage/{shard}").parse::<Role>().unwrap());
        context.shards = NonZeroU32::new(shards);
        context.duty = Duty::Replica;
        ShardMember::of(&context).unwrap()
    }

    #[test]
    fn a_member_refuses_shards_that_it_does_not_have() {
        let member = replica(1, 3);
        let shard = |number: u32| ShardId::try_from(number).ok();
        let status = |shard| member.has(shard).map_err(|refusal| refusal.status().as_u16());
        assert_eq!(
            [status(None), status(shard(1)), status(shard(2)), status(shard(3))],
            [Ok(()), Ok(()), Err(421), Err(400)]
        );
        assert_eq!(member.all_shards(), [shard(0), shard(1), shard(2)].map(Option::unwrap));
        assert!(member.all_shards().contains(&member.shard_of(KeyHash::of(b"a"))));
    }

    #[test]
    fn a_replica_refuses_requests_for_the_owner_as_not_processed() {
        let refusal = replica(0, 1).owner_only().unwrap_err();
        assert_eq!(refusal.status().as_u16(), 421);
        assert!(refusal.headers().contains_key(api::NOT_PROCESSED));
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_without_an_answer_is_refused_as_not_processed_once_the_role_ends() {
        let (member, ending) = (replica(0, 1), CancellationToken::new());
        let answer = || axum::response::IntoResponse::into_response("value");
        let quick = member.unless_ended(&ending, async { answer() }).await;
        ending.cancel();
        let soon = member.unless_ended(&ending, async {
            sleep(LAST_READS / 2).await;
            answer()
        });
        assert_eq!((quick.status().as_u16(), soon.await.status().as_u16()), (200, 200));
        let refusal = member.unless_ended(&ending, std::future::pending()).await;
        assert_eq!(refusal.status().as_u16(), 503);
        assert!(refusal.headers().contains_key(api::NOT_PROCESSED));
    }

    #[test]
    fn a_role_without_an_owned_shard_is_refused() {
        let (context, _) = Context::for_test("storage/0".parse().unwrap());
        let error = ShardMember::of(&context).unwrap_err();
        assert_eq!(error.to_string(), "a member of `storage/0` was given no number of shards");
    }

    #[test]
    fn a_request_that_was_sent_to_no_member_was_not_processed() {
        type Sent = Result<::http::Response<axum::body::Body>, MeshError>;
        for (error, status, is_untouched) in [
            (MeshError::QueueFull { waiting: 1 }, 503, true),
            (MeshError::Broken { address: "a:1".to_owned(), why: "reset".to_owned() }, 502, false),
        ] {
            let refusal = ShardMember::passed_on(Sent::Err(error)).unwrap_err();
            assert_eq!(refusal.status().as_u16(), status);
            assert_eq!(refusal.headers().contains_key(api::NOT_PROCESSED), is_untouched);
        }
    }
}
