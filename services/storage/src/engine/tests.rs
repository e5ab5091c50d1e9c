use std::collections::BTreeMap;

use bytes::Bytes;
use plugin::TaskFailure;
use proptest::prelude::*;
use slatedb::object_store::local::LocalFileSystem;
use slatedb::object_store::memory::InMemory;
use store::faults::{Faults, Mode};
use tokio::sync::mpsc;
use tokio::time::Instant;
use types::reason::{CLAIM_PASSED, STORE_UNAVAILABLE};

use super::*;
use crate::engine::TIMEOUT;
use crate::engine::testing::Owners;

/// A running engine.
pub(crate) struct Running {
    pub(crate) engine: Engine,
    pub(crate) claim: Claim,
    pub(crate) metrics: Metrics,
    tasks: Tasks,
    failures: mpsc::UnboundedReceiver<TaskFailure>,
}

/// As on a folder.
const POLL: Duration = Duration::from_millis(100);

impl Engine {
    /// The open database.
    pub(crate) fn db(&self) -> Db {
        self.0.open().unwrap().db
    }
}

impl Running {
    /// Starts an engine without waiting until it is open.
    pub(crate) fn begin(objects: Arc<dyn ObjectStore>, claim: Claim) -> Self {
        Self::begin_at(WallClock::system(), objects, claim)
    }

    /// The same with another wall clock.
    pub(crate) fn begin_at(wall: WallClock, objects: Arc<dyn ObjectStore>, claim: Claim) -> Self {
        let settings = Settings {
            write_queue: types::range::NumberIn::of::<{ 9 * 1024 * 1024 }>(),
            ..Settings::default()
        };
        let (tasks, failures) = Tasks::new();
        let (metrics, stop) = (Metrics::new("test"), CancellationToken::new());
        let place = Place { objects, folder: "data/storage/0".to_owned(), poll: POLL, wall, disk: None };
        let engine = Engine::start(place, claim.clone(), &settings, &metrics, &tasks, stop);
        Self { engine, claim, metrics, tasks, failures }
    }

    pub(crate) async fn start(objects: Arc<dyn ObjectStore>, owners: &Arc<Owners>) -> Self {
        let running = Self::begin(objects, owners.take().await);
        running.engine.opened(Duration::from_secs(30)).await.unwrap();
        running
    }

    pub(crate) async fn start_at(
        wall: WallClock,
        objects: Arc<dyn ObjectStore>,
        owners: &Arc<Owners>,
    ) -> Self {
        let running = Self::begin_at(wall, objects, owners.take().await);
        running.engine.opened(Duration::from_secs(30)).await.unwrap();
        running
    }

    pub(crate) async fn put(&self, key: &str, value: &str) -> Result<(), EngineError> {
        put(&self.engine, key, value).await
    }

    pub(crate) async fn get(&self, key: &str) -> Result<Option<String>, EngineError> {
        get(&self.engine, key).await
    }

    /// Puts the same value under this many keys.
    pub(crate) async fn rewrite(&self, keys: u64, value: &[u8]) {
        let record = Record::new(None, Bytes::copy_from_slice(value));
        let changes = (0..keys).map(|number| Change::put(key(&format!("key-{number}")), &record));
        let space = self.engine.reserve(value.len()).unwrap();
        self.engine.import(changes.collect(), space).await.unwrap();
    }

    /// Simulates a pause of the process of an hour, until now.
    pub(crate) fn simulate_pause(&self) {
        self.engine.0.stall.beat(Moment::ago(Duration::from_secs(3600)));
    }

    pub(crate) async fn stop(mut self) {
        self.engine.stop().await;
        self.tasks.wait().await;
        assert_eq!(self.failures.try_recv().ok(), None, "no task failed");
    }
}

pub(crate) fn key(text: &str) -> Key {
    Key::new(text.to_owned()).unwrap()
}

async fn put(engine: &Engine, name: &str, value: &str) -> Result<(), EngineError> {
    let space = engine.reserve(name.len() + value.len())?;
    engine.put(&key(name), Record::new(None, value.to_owned().into()), None, space).await.map(|_| ())
}

async fn get(engine: &Engine, name: &str) -> Result<Option<String>, EngineError> {
    let record = engine.get(&key(name), ReadLevel::Strong).await?.value;
    Ok(record.map(|found| String::from_utf8_lossy(found.record.value()).into_owned()))
}

/// Waits for a condition to become true.
pub(crate) async fn until(mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..10_000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it never became true");
}

pub(crate) fn memory() -> (Faults, Arc<Owners>) {
    (Faults::new(Arc::new(InMemory::new())), Arc::default())
}

#[tokio::test]
async fn an_acknowledged_write_is_read_at_once_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalFileSystem::new_with_prefix(folder.path()).unwrap().with_fsync(true);
    let (store, owners): (Arc<dyn ObjectStore>, Arc<Owners>) = (Arc::new(store), Arc::default());
    let first = Running::start(Arc::clone(&store), &owners).await;
    for round in 0..20 {
        first.put("a", &round.to_string()).await.unwrap();
        assert_eq!(first.get("a").await.unwrap(), Some(round.to_string()));
    }
    first.put("b", "1").await.unwrap();
    first.engine.delete(&key("b"), None).await.unwrap();
    assert_eq!(first.get("b").await.unwrap(), None);
    first.stop().await;

    let second = Running::start(store, &owners).await;
    assert_eq!(second.get("a").await.unwrap().as_deref(), Some("19"));
    assert_eq!(second.get("b").await.unwrap(), None);
    assert_eq!(second.engine.health(), Health::Ready);
    second.stop().await;
}

#[tokio::test]
async fn of_two_owners_only_the_second_answers_and_no_acknowledged_write_is_lost() {
    let (store, owners) = memory();
    let first = Running::start(store.objects(), &owners).await;
    let writer = async {
        let mut answered = 0;
        loop {
            match first.put(&format!("first-{answered}"), "1").await {
                Ok(()) => answered += 1,
                Err(_) => return answered,
            }
        }
    };
    let taker = async {
        until(async || first.get("first-5").await == Ok(Some("1".to_owned()))).await;
        Running::start(store.objects(), &owners).await
    };
    let (answered, second) = tokio::join!(writer, taker);
    assert!(answered > 5);
    for number in 0..answered {
        assert_eq!(second.get(&format!("first-{number}")).await.unwrap().as_deref(), Some("1"), "{number}");
    }
    until(async || matches!(first.get("first-0").await, Err(EngineError::Passed(_)))).await;
    assert!(matches!(first.put("late", "1").await, Err(EngineError::Passed(_))));
    first.claim.suspected().await;
    assert!(matches!(first.engine.health(), Health::Degraded(why) if why.code == CLAIM_PASSED));
    second.put("second", "1").await.unwrap();
    assert_eq!(second.get("late").await.unwrap(), None);
    first.stop().await;
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_replaced_owner_reads_nothing() {
    let (store, owners) = memory();
    let first = Running::start(store.objects(), &owners).await;
    first.put("a", "old").await.unwrap();
    let second = Running::start(store.objects(), &owners).await;
    second.put("a", "new").await.unwrap();
    // Time is paused, so the first owner has not polled since. Its next read must notice.
    assert!(first.get("a").await.is_err());
    let listed = first.engine.scan(&ScanRange::default(), ReadLevel::Strong).await;
    assert!(listed.is_err(), "nor does it list: {listed:?}");
    assert_eq!(second.get("a").await.unwrap().as_deref(), Some("new"));
    first.stop().await;
    second.stop().await;
}

/// Checks an engine while its store is in trouble, and afterwards.
async fn survives(trouble: Mode, cause: &str, reads: bool) {
    let (store, owners) = memory();
    let running = Running::start(store.objects(), &owners).await;
    running.put("before", "1").await.unwrap();
    store.set(trouble);
    let began = Instant::now();
    let error = running.put("during", "1").await.unwrap_err();
    assert!(matches!(&error, EngineError::Unsettled(why) if why.contains(cause)), "{error}");
    let answered = began.elapsed();
    assert!(
        (TIMEOUT.in_trouble..TIMEOUT.in_trouble * 3 / 2).contains(&answered),
        "before its client stops waiting: {answered:?}"
    );
    assert!(
        matches!(running.engine.health(), Health::Degraded(why) if why.code == STORE_UNAVAILABLE && why.text.contains(cause))
    );
    let began = Instant::now();
    let read = running.get("before").await;
    assert!(began.elapsed() < TIMEOUT.in_trouble * 3 / 2, "{:?}", began.elapsed());
    match read {
        Ok(value) => assert!(reads && value.as_deref() == Some("1")),
        Err(error) => assert!(!reads && error.to_string().contains(cause), "{error}"),
    }
    store.set(Mode::Work);
    until(async || running.put("after", "1").await.is_ok()).await;
    until(async || running.engine.health() == Health::Ready).await;
    for name in ["before", "after"] {
        assert_eq!(running.get(name).await.unwrap().as_deref(), Some("1"), "{name}");
    }
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_reported_until_it_recovers() {
    survives(Mode::FailWrites(std::io::ErrorKind::StorageFull), "no storage space", true).await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_store_is_reported_until_it_recovers() {
    survives(Mode::Unreachable, "connection refused", false).await;
}

#[tokio::test(start_paused = true)]
async fn a_hanging_store_is_reported_until_it_recovers() {
    survives(Mode::Hang, "has not answered", false).await;
}

#[tokio::test(start_paused = true)]
async fn a_read_without_writes_reports_in_time_that_the_store_hangs() {
    let (store, owners) = memory();
    let running = Running::start(store.objects(), &owners).await;
    running.put("a", "1").await.unwrap();
    store.set(Mode::Hang);
    let began = Instant::now();
    let error = running.get("a").await.unwrap_err();
    assert!(matches!(&error, EngineError::Unread(why) if why.contains("has not answered")), "{error}");
    assert!(began.elapsed() < TIMEOUT.in_trouble * 3 / 2, "{:?}", began.elapsed());
    store.set(Mode::Work);
    until(async || running.get("a").await.is_ok()).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_comes_back_after_an_hour_is_used_again() {
    let (store, owners) = memory();
    let running = Running::start(store.objects(), &owners).await;
    running.put("before", "1").await.unwrap();
    store.set(Mode::Unreachable);
    let hour = Instant::now() + Duration::from_secs(3600);
    while Instant::now() < hour {
        assert!(running.put("during", "1").await.is_err());
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    store.set(Mode::Work);
    until(async || running.put("after", "1").await.is_ok()).await;
    assert_eq!(running.get("before").await.unwrap().as_deref(), Some("1"));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_start_waits_for_a_store_that_comes_late() {
    let (store, owners) = memory();
    store.set(Mode::Unreachable);
    let running = Running::begin(store.objects(), owners.take().await);
    let error = running.engine.opened(Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(&error, EngineError::NotOpen(why) if why.contains("connection refused")), "{error}");
    store.set(Mode::Work);
    running.engine.opened(Duration::from_secs(30)).await.unwrap();
    running.put("a", "1").await.unwrap();
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_database_that_closed_itself_is_opened_again_by_its_owner() {
    let (store, owners) = memory();
    let running = Running::start(store.objects(), &owners).await;
    running.put("before", "1").await.unwrap();
    store.refuse_creates(1);
    // As after a write that succeeded although its answer was lost: SlateDB takes that for another owner.
    let error = running.put("during", "1").await.unwrap_err();
    assert!(matches!(error, EngineError::Unsettled(_)), "{error}");
    until(async || running.put("after", "1").await.is_ok()).await;
    assert_eq!(running.get("before").await.unwrap().as_deref(), Some("1"));
    // It only seemed so.
    running.claim.suspected().await;
    running.claim.confirm().await.unwrap();
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_process_opens_its_data_again_before_it_reads() {
    let (store, owners) = memory();
    let running = Running::start(store.objects(), &owners).await;
    running.put("a", "1").await.unwrap();
    running.simulate_pause();
    assert!(matches!(running.get("a").await, Err(EngineError::NotOpen(why)) if why.contains("paused")));
    until(async || running.get("a").await == Ok(Some("1".to_owned()))).await;
    assert_eq!(running.engine.0.meters.openings.get(), 2);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_process_that_was_paused_while_it_opened_starts_again() {
    let (store, owners) = memory();
    store.set(Mode::Hang);
    let running = Running::begin(store.objects(), owners.take().await);
    tokio::time::sleep(Duration::from_millis(500)).await;
    running.simulate_pause();
    store.set(Mode::Work);
    running.engine.opened(Duration::from_secs(30)).await.unwrap();
    let epoch = running.engine.db().manifest().writer_epoch();
    assert_eq!(epoch, 2, "what it had opened was never shown");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_an_opening_that_makes_no_progress() {
    let (store, owners) = memory();
    store.set(Mode::Hang);
    let running = Running::begin(store.objects(), owners.take().await);
    assert!(running.engine.opened(Duration::from_secs(1)).await.is_err());
    let began = Instant::now();
    running.stop().await;
    assert!(began.elapsed() < Duration::from_secs(10), "before the supervisor's time limit");
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_moves_too_often_for_compaction_still_closes_at_once() {
    let (store, owners) = memory();
    for owner in 0..40 {
        let running = Running::start(store.objects(), &owners).await;
        running.put("a", &owner.to_string()).await.unwrap();
        let began = Instant::now();
        running.stop().await;
        assert!(began.elapsed() < Duration::from_millis(200), "owner {owner}: {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn the_size_of_waiting_writes_is_bounded() {
    let (store, owners) = memory();
    let running = Running::start(store.objects(), &owners).await;
    store.set(Mode::Hang);
    let large = "x".repeat(4 * 1024 * 1024);
    let (first, second, third) = tokio::join!(running.put("1", &large), running.put("2", &large), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let began = Instant::now();
        (running.put("3", &large).await, began.elapsed())
    });
    assert!(matches!(third, (Err(EngineError::Full(_)), waited) if waited.is_zero()), "{third:?}");
    assert!(matches!((first, second), (Err(EngineError::Unsettled(_)), Err(EngineError::Unsettled(_)))));
    store.set(Mode::Work);
    until(async || running.put("3", &large).await.is_ok()).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn many_writes_become_durable_together() {
    let (store, owners) = memory();
    let running = Running::start(store.objects(), &owners).await;
    let writes = (0..500).map(|number| running.put(if number % 2 == 0 { "even" } else { "odd" }, "1"));
    let answers = futures_util::future::join_all(writes).await;
    assert!(answers.iter().all(Result::is_ok));
    let mut text = String::new();
    running.metrics.encode(&mut text).unwrap();
    assert!(text.contains("test_commit_writes_sum 500"), "{text}");
    assert!(text.contains("test_commit_writes_count 1\n"), "{text}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_listing_is_in_order_and_continues_where_it_ended() {
    let (store, owners) = memory();
    let running = Running::start(store.objects(), &owners).await;
    for name in ["b", "a/2", "a/1", "a/3", "c"] {
        running.put(name, name).await.unwrap();
    }
    running.engine.delete(&key("a/3"), None).await.unwrap();
    let all = ScanRange::default;
    let list = async |range: ScanRange| {
        let page = running.engine.scan(&range, ReadLevel::Strong).await.unwrap();
        let keys: Vec<_> = page.value.keys.into_iter().map(|listed| listed.key).collect();
        (keys.join(" "), page.value.next)
    };
    let (a2, b, c) = (|| b"a/2".to_vec(), || Some(b"b".to_vec()), || Some(b"c".to_vec()));
    assert_eq!(list(all()).await, ("a/1 a/2 b c".to_owned(), None));
    assert_eq!(list(ScanRange { prefix: b"a/".to_vec(), ..all() }).await, ("a/1 a/2".to_owned(), None));
    assert_eq!(list(ScanRange { limit: 3, ..all() }).await, ("a/1 a/2 b".to_owned(), Some("b".to_owned())));
    assert_eq!(list(ScanRange { limit: 3, after: b(), ..all() }).await, ("c".to_owned(), None));
    assert_eq!(list(ScanRange { start: a2(), end: c(), ..all() }).await, ("a/2 b".to_owned(), None));
    assert_eq!(list(ScanRange { start: b"c".to_vec(), end: c(), ..all() }).await, (String::new(), None));
    running.stop().await;
}

#[derive(Debug, Clone)]
enum Op {
    Put(u8, u16),
    Delete(u8),
    Get(u8),
    List,
    Reopen,
    /// A new owner opens it while the old one still runs.
    TakeOver,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0_u8..8, any::<u16>()).prop_map(|(key, value)| Op::Put(key, value)),
        2 => (0_u8..8).prop_map(Op::Delete),
        4 => (0_u8..8).prop_map(Op::Get),
        1 => Just(Op::List),
        1 => Just(Op::Reopen),
        1 => Just(Op::TakeOver),
    ]
}

async fn behaves_as_a_map(ops: Vec<Op>) {
    let (store, owners) = memory();
    let mut model = BTreeMap::new();
    let mut running = Running::start(store.objects(), &owners).await;
    for op in ops {
        match op {
            Op::Put(name, value) => {
                running.put(&name.to_string(), &value.to_string()).await.unwrap();
                model.insert(name.to_string(), value.to_string());
            }
            Op::Delete(name) => {
                running.engine.delete(&key(&name.to_string()), None).await.unwrap();
                model.remove(&name.to_string());
            }
            Op::Get(name) => {
                let name = name.to_string();
                assert_eq!(running.get(&name).await.unwrap(), model.get(&name).cloned());
            }
            Op::List => {
                let page = running.engine.scan(&ScanRange::default(), ReadLevel::Strong).await.unwrap();
                let keys: Vec<_> = page.value.keys.into_iter().map(|listed| listed.key).collect();
                assert_eq!(keys, model.keys().cloned().collect::<Vec<_>>());
            }
            Op::Reopen => {
                running.stop().await;
                running = Running::start(store.objects(), &owners).await;
            }
            Op::TakeOver => {
                let old = std::mem::replace(&mut running, Running::start(store.objects(), &owners).await);
                old.stop().await;
            }
        }
    }
    running.stop().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_shard_behaves_as_a_map(ops in prop::collection::vec(op(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(behaves_as_a_map(ops));
    }
}
