use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use slatedb::object_store::ObjectStore;
use slatedb::object_store::memory::InMemory;
use store::faults::Mode;

use super::*;
use crate::engine::testing::Owners;
use crate::engine::tests::{Running, key, memory, until};
use plugin::shard::{Condition, ReadLevel};

fn record(value: &str) -> Record {
    Record::new(None, value.to_owned().into())
}

fn expiring(value: &str, at: u64) -> Record {
    record(value).expiring(NonZeroU64::new(at))
}

fn put(name: &str, value: &str) -> Change {
    Change::put(key(name), &record(value))
}

impl Running {
    async fn put_if(&self, name: &str, value: &str, condition: Condition) -> Result<Written, EngineError> {
        let space = self.engine.reserve(name.len() + value.len())?;
        self.engine.put(&key(name), record(value), Some(condition), space).await
    }

    async fn put_until(&self, name: &str, at: u64) -> Written {
        let space = self.engine.reserve(name.len()).unwrap();
        self.engine.put(&key(name), expiring("1", at), None, space).await.unwrap()
    }

    async fn batch(&self, changes: Vec<Change>) -> Result<Written, EngineError> {
        let space = self.engine.reserve(changes.iter().map(Change::size).sum())?;
        self.engine.batch(changes, space).await
    }

    async fn version(&self, name: &str) -> Option<u64> {
        self.engine.get(&key(name), ReadLevel::Strong).await.unwrap().value.map(|found| found.version)
    }

    /// The number of rows that record when something expires.
    async fn expiry_rows(&self) -> usize {
        let db = self.engine.db();
        let mut rows = db.scan(Bytes::from_static(b"x")..Bytes::from_static(b"y")).await.unwrap();
        let mut count = 0;
        while rows.next().await.unwrap().is_some() {
            count += 1;
        }
        count
    }
}

fn unmet(index: usize, version: Option<u64>) -> Result<Written, EngineError> {
    Err(EngineError::Unmet(vec![Unmet { index, version }]))
}

#[tokio::test(start_paused = true)]
async fn two_writes_to_a_key_have_their_own_versions_even_if_they_become_durable_together() {
    let (store, owners) = memory();
    let running = Running::start(store.objects(), &owners).await;
    let writes = (0..20).map(|number| {
        let space = running.engine.reserve(1).unwrap();
        let (key, record) = (key(["a", "b"][number % 2]), record(&number.to_string()));
        let engine = running.engine.clone();
        async move { engine.put(&key, record, None, space).await.unwrap().unwrap() }
    });
    let versions = futures_util::future::join_all(writes).await;
    for one in [0, 1] {
        let own: Vec<_> = versions.iter().skip(one).step_by(2).collect();
        assert!(own.is_sorted_by(|earlier, later| earlier < later), "{versions:?}");
    }
    assert_eq!(running.version("a").await, Some(versions[18]));
    assert_eq!(running.get("a").await.unwrap().as_deref(), Some("18"));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn conditions_are_checked_in_the_order_in_which_writes_arrived() {
    let (store, owners) = memory();
    let running = Running::start(store.objects(), &owners).await;
    let creators = (0..5).map(|number| {
        let running = &running;
        async move { running.put_if("a", &number.to_string(), Condition::Absent).await }
    });
    let answers = futures_util::future::join_all(creators).await;
    let first = answers[0].clone().unwrap();
    assert!(first.is_some());
    for answer in &answers[1..] {
        assert_eq!(*answer, unmet(0, first), "the first write of the same group counts");
    }
    assert_eq!(running.get("a").await.unwrap().as_deref(), Some("0"));

    // Of two writes on the condition of the same version, one wins.
    let both = Condition::Version(first.unwrap());
    let (one, other) = tokio::join!(running.put_if("a", "one", both), running.put_if("a", "other", both));
    assert_eq!(other, unmet(0, one.unwrap()));
    assert_eq!(running.engine.delete(&key("b"), Some(Condition::Present)).await, unmet(0, None));
    let name = key("a");
    let gone = running.engine.delete(&name, Some(Condition::Present));
    let (gone, again) = tokio::join!(gone, running.put_if("a", "again", Condition::Absent));
    assert!(gone.unwrap() < again.clone().unwrap());
    assert_eq!(running.version("a").await, again.unwrap());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_atomic_and_has_one_version() {
    let (store, owners) = memory();
    let running = Running::start(store.objects(), &owners).await;
    running.put("old", "1").await.unwrap();
    let version = running.version("old").await;
    let check =
        |name: &str, condition| Change { key: key(name), effect: Effect::Check, condition: Some(condition) };
    let changes = |at| {
        vec![
            put("a", "1"),
            Change::delete(key("old")).provided(Some(Condition::Present)),
            check("b", Condition::Absent),
            put("c", "1").provided(Some(Condition::Absent)),
            check("old", Condition::Version(at)),
        ]
    };
    // The last operation is on another key, since no key may appear twice.
    let mut wrong = changes(0);
    wrong[4].key = key("other");
    let (earlier, refused) = tokio::join!(running.put("b", "in the same group"), running.batch(wrong));
    earlier.unwrap();
    let of_b = running.version("b").await;
    assert!(of_b.is_some());
    assert_eq!(
        refused,
        Err(EngineError::Unmet(vec![Unmet { index: 2, version: of_b }, Unmet { index: 4, version: None }]))
    );
    assert_eq!((running.version("a").await, running.version("old").await), (None, version));

    let right =
        vec![put("a", "1"), Change::delete(key("old")), check("b", Condition::Version(of_b.unwrap()))];
    let written = running.batch(right).await.unwrap();
    assert_eq!((running.version("a").await, running.version("old").await), (written, None));
    let only_checked = running.batch(vec![check("a", Condition::Present)]).await;
    assert_eq!(only_checked, Ok(None));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_outcome_of_a_condition_waits_for_the_store_as_a_write_does() {
    let (store, owners) = memory();
    let running = Running::start(store.objects(), &owners).await;
    running.put("a", "1").await.unwrap();
    store.set(Mode::Hang);
    let outcome = running.put_if("a", "2", Condition::Absent).await;
    assert!(matches!(outcome, Err(EngineError::Unsettled(_))), "{outcome:?}");
    store.set(Mode::Work);
    until(async || matches!(running.put_if("a", "2", Condition::Absent).await, Err(EngineError::Unmet(_))))
        .await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_lost_the_shard_checks_no_condition() {
    let (store, owners) = memory();
    let first = Running::start(store.objects(), &owners).await;
    first.put("a", "1").await.unwrap();
    let second = Running::start(store.objects(), &owners).await;
    second.engine.delete(&key("a"), None).await.unwrap();
    let outcome = first.put_if("a", "2", Condition::Absent).await;
    assert!(outcome.is_err() && !matches!(outcome, Err(EngineError::Unmet(_))), "{outcome:?}");
    first.stop().await;
    assert!(second.put_if("a", "2", Condition::Absent).await.is_ok());
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn lines_of_an_import_are_stored_in_order() {
    let (store, owners) = memory();
    let running = Running::start(store.objects(), &owners).await;
    let changes: Vec<_> = (0..5_000).map(|n| put(&format!("key-{}", n % 4_000), &n.to_string())).collect();
    let space = running.engine.reserve(1).unwrap();
    let last = running.engine.import(changes, space).await.unwrap();
    assert_eq!(running.get("key-999").await.unwrap().as_deref(), Some("4999"));
    assert_eq!(running.get("key-1000").await.unwrap().as_deref(), Some("1000"));
    assert_eq!(running.version("key-999").await, last);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn expired_values_are_deleted_and_nothing_else_is() {
    let (store, owners) = memory();
    let running = Running::start(store.objects(), &owners).await;
    running.put_until("later", u64::MAX).await;
    running.put_until("replaced", 5).await;
    running.put("replaced", "by one that stays").await.unwrap();
    running.put_until("prolonged", 5).await;
    running.put_until("prolonged", u64::MAX).await;
    running.put_until("deleted", 5).await;
    running.engine.delete(&key("deleted"), None).await.unwrap();
    running.put_until("due", 5).await;
    until(async || running.version("due").await.is_none()).await;
    assert_eq!(running.get("replaced").await.unwrap().as_deref(), Some("by one that stays"));
    assert!(running.version("prolonged").await.is_some() && running.version("later").await.is_some());
    until(async || running.expiry_rows().await == 2).await;
    // So is a value that is due earlier, after everything known was swept.
    running.put_until("due again", 3).await;
    until(async || running.version("due again").await.is_none()).await;
    assert_eq!(running.expiry_rows().await, 2);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_prolonged_again_and_again_has_one_expiry_row() {
    let (store, owners) = memory();
    let running = Running::start(store.objects(), &owners).await;
    for number in 0..50 {
        running.put_until("session", u64::MAX - number).await;
    }
    assert_eq!(running.expiry_rows().await, 1);
    running.engine.delete(&key("session"), Some(Condition::Present)).await.unwrap();
    assert_eq!(running.expiry_rows().await, 0);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn more_values_than_a_sweep_holds_expire_too_under_the_next_owner() {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let owners = Arc::<Owners>::default();
    let running = Running::start(Arc::clone(&objects), &owners).await;
    let changes = (0..25_000).map(|n| Change::put(key(&n.to_string()), &expiring("1", 1 + n % 7)));
    let space = running.engine.reserve(1).unwrap();
    running.engine.import(changes.collect(), space).await.unwrap();
    running.stop().await;
    let running = Running::start(objects, &owners).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    until(async || running.expiry_rows().await == 0).await;
    assert_eq!(running.version("24999").await, None);
    running.stop().await;
}
