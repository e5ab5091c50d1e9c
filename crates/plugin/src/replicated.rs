//! Replicated state, in memory and in a data log: the owner of a shard writes it, replicas follow.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use store::{DataEntry, DataLog, DataLogError, DataLogReader};
use tokio::time::{Instant, sleep};
use tracing::debug;
use types::reason::CLAIM_PASSED;
use types::{ErrorKind, KeyHash, NodeId, Problem, Reason, ReasonCode, ShardId};

use crate::{Claim, Context, Duty, Health, ServiceError, http};

/// An owner could not write its log, so that the log is closed.
const LOG_CLOSED: ReasonCode = ReasonCode::new("log-closed");
/// A replica can't read its owner's log.
const LOG_UNREADABLE: ReasonCode = ReasonCode::new("log-unreadable");

/// State that results from applying the records of a log in their order (state machine replication).
pub trait StateMachine: Default + Send + 'static {
    /// Applies a record. The result must depend on nothing else, so that the state is the same on every node.
    fn apply(&mut self, record: &[u8]);
}

/// A shard's state, at its owner or at a replica.
///
/// The service should return [`health`](Self::health) and [`staleness`](Self::staleness) as its own. The log is never
/// trimmed: if it would grow too long, use a [`DataLog`] with snapshots instead.
pub struct Replicated<S> {
    node: NodeId,
    /// The shard, and how many there are.
    shard: Option<(ShardId, std::num::NonZeroU32)>,
    /// The log, and the claim under which it is written; `None` at a replica.
    primary: Option<(DataLog, Claim)>,
    applied: Arc<Mutex<Applied<S>>>,
}

#[derive(Debug)]
struct Applied<S> {
    state: S,
    /// The number of the last entry that was applied.
    last: u64,
    /// When a replica last had all entries.
    current_at: Instant,
    /// Why the log can no longer be read or written.
    failure: Option<Reason>,
}

impl<S: StateMachine> Applied<S> {
    fn apply(&mut self, entry: &DataEntry) {
        entry.records.iter().for_each(|record| self.state.apply(record));
        self.last = entry.number;
    }
}

impl<S: StateMachine> Replicated<S> {
    /// Reads the log below `prefix` in [`Context::objects`]. An owner opens it first, so that no former owner can write any
    /// more. A replica follows it until the role ends.
    pub async fn start(cx: &Context, prefix: &str) -> Result<Self, ServiceError> {
        let objects = cx.objects.clone().ok_or_else(|| {
            ServiceError::internal("a service whose shards have no owners has no objects for a log")
        })?;
        let reader = DataLogReader::new(Arc::clone(&objects), prefix);
        let applied = Applied { state: S::default(), last: 0, current_at: Instant::now(), failure: None };
        let applied = Arc::new(Mutex::new(applied));
        let primary = match &cx.duty {
            Duty::Primary(claim) => {
                let log = DataLog::open(objects, prefix, claim.epoch()).await?;
                catch_up(&applied, &reader).await?;
                let writes = Arc::clone(&applied);
                Some((log.on_entry(move |entry| lock(&writes).apply(entry)), claim.clone()))
            }
            Duty::Replica | Duty::None => {
                catch_up(&applied, &reader).await?;
                cx.tasks.spawn("replica", follow(Arc::clone(&applied), reader, cx.clone()));
                None
            }
        };
        Ok(Self { node: cx.node.clone(), shard: cx.role.shard().zip(cx.shards), primary, applied })
    }

    /// Reads the state.
    pub fn read<T>(&self, look: impl FnOnce(&S) -> T) -> T {
        look(&lock(&self.applied).state)
    }

    /// Writes a record. Once this returns `Ok`, the record is durable and applied.
    ///
    /// # Errors
    /// The answer to send: a refusal as not processed at a replica and after the claim has passed; a problem with the code
    /// `outcome-unknown` if the record may or may not have been written.
    pub async fn write(&self, record: impl Into<Bytes>) -> Result<(), Response> {
        let (log, claim) = self.primary.as_ref().ok_or_else(|| self.elsewhere())?;
        let Err(error) = log.append(record).await else { return Ok(()) };
        if let DataLogError::TooLong(_) = error {
            return Err(http::problem(&ServiceError::from(error).to_problem("record-too-long")));
        }
        let is_fenced = matches!(error, DataLogError::Fenced { .. });
        let code = if is_fenced { CLAIM_PASSED } else { LOG_CLOSED };
        lock(&self.applied).failure = Some(Reason::new(code, error.to_string()));
        if is_fenced {
            claim.fenced(error.to_string());
            return Err(self.elsewhere());
        }
        let mut problem = ServiceError::from(error).to_problem("outcome-unknown");
        problem.hint.get_or_insert_with(|| "look whether it was done before you send it again".to_owned());
        Err(http::problem(&problem))
    }

    /// Refuses a key that belongs to another shard.
    pub fn check(&self, key: KeyHash) -> Result<(), Response> {
        let is_here = self.shard.is_none_or(|(shard, shards)| key.shard(shards) == shard);
        if is_here { Ok(()) } else { Err(self.elsewhere()) }
    }

    /// `Ready`, unless the log failed: then an owner is restarted, and a replica keeps trying.
    pub fn health(&self) -> Health {
        match (&lock(&self.applied).failure, &self.primary) {
            (None, _) => Health::Ready,
            (Some(why), Some(_)) => Health::Failed(why.clone()),
            (Some(why), None) => Health::Degraded(why.clone()),
        }
    }

    /// How far a replica may be behind the owner; `None` at the owner.
    pub fn staleness(&self) -> Option<Duration> {
        self.primary.is_none().then(|| lock(&self.applied).current_at.elapsed())
    }

    fn elsewhere(&self) -> Response {
        let detail = format!("{} does not own the shard", self.node);
        http::not_processed(&Problem::new(ErrorKind::Misdirected, "misdirected", detail))
    }
}

/// Reads and applies all entries.
async fn catch_up<S: StateMachine>(
    applied: &Mutex<Applied<S>>,
    log: &DataLogReader,
) -> Result<(), DataLogError> {
    loop {
        let (began, next) = (Instant::now(), lock(applied).last + 1);
        let entries = log.read(next).await?;
        let mut applied = lock(applied);
        if entries.is_empty() {
            applied.current_at = began;
            return Ok(());
        }
        entries.iter().for_each(|entry| applied.apply(entry));
    }
}

async fn follow<S: StateMachine>(
    applied: Arc<Mutex<Applied<S>>>,
    log: DataLogReader,
    cx: Context,
) -> Result<(), ServiceError> {
    while let Some(()) = cx.shutdown.run_until_cancelled(sleep(cx.objects_poll)).await {
        let Some(read) = cx.shutdown.run_until_cancelled(catch_up(&applied, &log)).await else { break };
        if let Err(error) = &read {
            debug!(%error, "a replica can't read its log");
        }
        lock(&applied).failure = read.err().map(|error| Reason::new(LOG_UNREADABLE, error.to_string()));
    }
    Ok(())
}

fn lock<S>(applied: &Mutex<Applied<S>>) -> MutexGuard<'_, Applied<S>> {
    applied.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S> fmt::Debug for Replicated<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let applied = lock(&self.applied);
        f.debug_struct("Replicated")
            .field("shard", &self.shard)
            .field("last", &applied.last)
            .field("failure", &applied.failure)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use ::http::StatusCode;
    use futures_util::future::join_all;
    use store::faults::{Faults, Mode};
    use store::{ObjectStore, Store};
    use types::Role;

    use super::*;

    /// All records, concatenated, so that their order matters.
    #[derive(Default)]
    struct Text(String);

    impl StateMachine for Text {
        fn apply(&mut self, record: &[u8]) {
            self.0 += &String::from_utf8_lossy(record);
        }
    }

    struct World {
        store: Store,
        faults: Faults,
    }

    fn role() -> Role {
        "text/0".parse().unwrap()
    }

    impl World {
        async fn new() -> Self {
            let faults = Faults::new(Arc::new(store::object_store::memory::InMemory::new()));
            let url = "memory:///".parse().unwrap();
            let objects: Arc<dyn ObjectStore> = faults.objects();
            let store = Store::over(objects, url, &"test".parse().unwrap()).await.unwrap();
            Self { store, faults }
        }

        async fn owner(&self) -> (Context, Replicated<Text>) {
            let (cx, _failures) = Context::for_owner_test(role(), &self.store).await;
            let state = Replicated::start(&cx, "log").await.unwrap();
            (cx, state)
        }
    }

    fn text(state: &Replicated<Text>) -> String {
        state.read(|text| text.0.clone())
    }

    #[tokio::test]
    async fn the_next_owner_has_all_in_the_same_order_and_the_former_one_writes_nothing_more() {
        let world = World::new().await;
        let (_, first) = world.owner().await;
        for outcome in join_all(["a", "b", "c", "d"].map(|record| first.write(record))).await {
            outcome.unwrap();
        }
        let (_, second) = world.owner().await;
        assert_eq!(text(&second), text(&first));
        second.write("e").await.unwrap();
        let refused = first.write("late").await.unwrap_err();
        assert_eq!(refused.status(), StatusCode::MISDIRECTED_REQUEST);
        assert!(refused.headers().contains_key(types::api::NOT_PROCESSED));
        assert!(matches!(first.health(), Health::Failed(why) if why.code == CLAIM_PASSED));
        assert_eq!(
            (text(&second).as_str(), second.health(), second.staleness()),
            ("abcde", Health::Ready, None)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_follows_and_says_how_far_behind_it_may_be() {
        let world = World::new().await;
        let (cx, _failures) = Context::for_replica_test(role(), &world.store);
        let replica = Replicated::<Text>::start(&cx, "log").await.unwrap();
        let (_, owner) = world.owner().await;
        owner.write("a").await.unwrap();
        while text(&replica) != "a" {
            sleep(cx.objects_poll).await;
        }
        assert_eq!(replica.write("b").await.unwrap_err().status(), StatusCode::MISDIRECTED_REQUEST);
        assert!(replica.staleness().unwrap() <= 3 * cx.objects_poll);
        world.faults.set(Mode::Unreachable);
        sleep(Duration::from_secs(60)).await;
        assert!(replica.staleness().unwrap() >= Duration::from_secs(50));
        assert!(matches!(replica.health(), Health::Degraded(why) if why.code == LOG_UNREADABLE));
        world.faults.set(Mode::Work);
        owner.write("b").await.unwrap();
        while text(&replica) != "ab" || replica.health() != Health::Ready {
            sleep(cx.objects_poll).await;
        }
        cx.shutdown.cancel();
        cx.tasks.wait().await;
    }

    #[tokio::test]
    async fn a_write_whose_outcome_is_not_known_is_answered_so_and_the_owner_starts_again() {
        let world = World::new().await;
        let (_, owner) = world.owner().await;
        world.faults.set(Mode::FailWrites(std::io::ErrorKind::StorageFull));
        let failed = owner.write("a").await.unwrap_err();
        assert_eq!(failed.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(!failed.headers().contains_key(types::api::NOT_PROCESSED), "it may have been written");
        assert!(matches!(owner.health(), Health::Failed(why) if why.code == LOG_CLOSED));
        world.faults.set(Mode::Work);
        let (_, again) = world.owner().await;
        again.write("b").await.unwrap();
        assert_eq!(text(&again), "b");
        let long = again.write(vec![b'x'; store::MAX_RECORD + 1]).await.unwrap_err();
        assert_eq!((long.status(), again.health()), (StatusCode::PAYLOAD_TOO_LARGE, Health::Ready));
    }

    #[tokio::test]
    async fn a_key_of_another_shard_is_refused() {
        let world = World::new().await;
        let (cx, _failures) = Context::for_owner_test("text/1".parse().unwrap(), &world.store).await;
        let shards = cx.shards.unwrap();
        let state = Replicated::<Text>::start(&cx, "log").await.unwrap();
        for key in ["a", "b", "c", "d", "e"].map(|key| KeyHash::of(key.as_bytes())) {
            assert_eq!(state.check(key).is_ok(), key.shard(shards).as_u32() == 1);
        }
    }
}
