use std::collections::BTreeMap;

use serde_json::json;
use store::Store;

use super::super::record::{IndexRecord, create};
use super::*;
use crate::definition::Definition;

const DAY: i64 = 86_400_000;

fn record(indexes: &[(&str, Option<i64>, &str)]) -> Record {
    let index = |(name, stored_at, delete_after): &(&str, Option<i64>, &str)| {
        let now: Definition = serde_json::from_value(json!({ "delete_after": delete_after })).unwrap();
        let index =
            IndexRecord { uuid: Uuid::nil(), created: now.clone(), now, version: 1, stored_at: *stored_at };
        ((*name).to_owned(), index)
    };
    Record { indexes: indexes.iter().map(index).collect(), ..Record::default() }
}

#[test]
fn an_index_is_due_once_it_is_old_enough_by_the_stores_time() {
    let record = record(&[
        ("old", Some(0), "1d"),
        ("young", Some(1), "1d"),
        ("kept", Some(0), "never"),
        ("unknown", None, "1s"),
        ("declared", Some(0), "1s"),
        ("future", Some(i64::MAX), "1d"),
    ]);
    let names = |now| -> Vec<String> {
        due(&record, now, |name| name == "declared").into_iter().map(|(name, _)| name).collect()
    };
    assert_eq!(names(DAY - 1), [""; 0]);
    assert_eq!(names(DAY), ["old"]);
    assert_eq!(names(DAY + 1), ["old", "young"]);
    assert_eq!(names(-DAY), [""; 0]);
}

#[test]
fn a_clock_that_jumps_is_not_relied_on_until_it_has_been_steady_for_a_while() {
    let hold = Duration::from_secs(600);
    let (begin, mut clock) = (Instant::now(), SteadyClock::new(hold));
    let mut observe =
        |second: u64, store: i64| clock.observe(begin + Duration::from_secs(second), store * 1_000);
    assert!(!observe(0, 0), "a member that has just started knows nothing of the clock");
    assert!(!observe(300, 310));
    assert!(observe(600, 600));
    assert!(!observe(660, 90_000), "a jump ahead");
    assert!(!observe(720, 90_060));
    assert!(!observe(780, 780), "the jump back");
    assert!(!observe(1_379, 1_379));
    assert!(observe(1_380, 1_380));
}

async fn made(catalog: &Catalog, name: &str, delete_after: &str) {
    let wanted = serde_json::from_value(json!({ "delete_after": delete_after })).unwrap();
    let uuid = Uuid::now_v7();
    let created = catalog.change(|record| create(record, name, &wanted, uuid).map(|change| (change, ())));
    created.await.unwrap();
}

fn expiry(store: &Store, catalog: &Catalog, declared: &[&str]) -> Expiry {
    let role = "searcher/0".parse().unwrap();
    let (cx, _) = Context::for_replica_test(role, store);
    let declared = declared.iter().map(|name| ((*name).to_owned(), Default::default()));
    let mut expiry =
        Expiry::new(&cx, catalog.clone(), Declared::new(declared.collect::<BTreeMap<_, _>>())).unwrap();
    expiry.objects = store.data(&"searcher/0".parse().unwrap());
    expiry
}

#[tokio::test]
async fn the_time_of_an_index_is_that_of_its_first_record_by_the_stores_clock() {
    let store = Store::open(&"memory:///".parse().unwrap(), &"test".parse().unwrap()).await.unwrap();
    let shard = "searcher/0".parse().unwrap();
    let catalog = Catalog::over(store.logs(&shard).of_service(super::super::LOG));
    made(&catalog, "a", "1d").await;
    let log = store.logs(&shard).of_service::<Record>(super::super::LOG);
    let first = log.stored_at(1).await.unwrap().unwrap().timestamp_millis();
    made(&catalog, "b", "1d").await;
    made(&catalog, "c", "1d").await;
    let latest = log.latest().await.unwrap().unwrap().value;
    let second = log.stored_at(2).await.unwrap().unwrap().timestamp_millis();
    let times = ["a", "b", "c"].map(|name| latest.indexes[name].stored_at);
    assert_eq!(times, [Some(first), Some(second), None]);
}

/// The indexes are due tomorrow, by a time that the members are given.
#[tokio::test]
async fn of_many_members_one_deletes_an_index_that_is_due_and_none_a_declared_one() {
    let store = Store::open(&"memory:///".parse().unwrap(), &"test".parse().unwrap()).await.unwrap();
    let shard = "searcher/0".parse().unwrap();
    let catalogs: Vec<_> =
        (0..4).map(|_| Catalog::over(store.logs(&shard).of_service(super::super::LOG))).collect();
    for (name, delete_after) in [("old", "1d"), ("kept", "30d"), ("declared", "1d")] {
        made(&catalogs[0], name, delete_after).await;
    }
    let members: Vec<_> = catalogs.iter().map(|catalog| expiry(&store, catalog, &["declared"])).collect();
    let now = store_time(&members[0].objects).await.unwrap();
    let early = members[0].delete_due(now).await.unwrap();
    assert_eq!(early, None);
    let deleting = members.iter().map(|member| member.delete_due(now + 2 * DAY));
    let deleted: Vec<_> =
        futures_util::future::join_all(deleting).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(deleted.iter().flatten().collect::<Vec<_>>(), [&4], "{deleted:?}");
    assert_eq!(members.iter().map(|member| member.deleted.get()).sum::<u64>(), 1);
    let left = catalogs[0].fresh().await.unwrap();
    let left: Vec<_> = left.all().map(|index| index.name.as_str()).collect();
    assert_eq!(left, ["declared", "kept"]);
}
