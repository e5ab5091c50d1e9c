use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use plugin::shard::Key;
use slatedb::object_store::ObjectStore;
use slatedb::object_store::memory::InMemory;
use store::faults::{Faults, Mode};

use super::*;
use crate::engine::garbage::testing::collect_now;
use crate::engine::testing::Owners;
use crate::engine::tests::Running;

/// A change as the watcher received it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Received {
    place: Place,
    kind: Kind,
    key: String,
    version: u64,
    value: Option<String>,
}

struct Seen(Pin<Box<dyn Stream<Item = Sent> + Send>>, Place);

fn zero() -> ShardId {
    0.try_into().unwrap()
}

/// All changes of keys with the prefix, with their values.
fn with_values(prefix: &str) -> Filter {
    Filter { prefix: prefix.as_bytes().to_vec(), values: true }
}

/// The same without values.
fn without_values(prefix: &str) -> Filter {
    Filter { values: false, ..with_values(prefix) }
}

/// Space for large events, in bytes.
fn space(bytes: usize) -> AnswerBuffer {
    AnswerBuffer::new(bytes, &Default::default())
}

async fn watch(running: &Running, filter: Filter, from: Option<Place>) -> Result<Seen, NotWatched> {
    let Begun { place, updates } =
        begin(&running.engine, &filter, zero(), from, &space(64 * 1024 * 1024)).await?;
    Ok(Seen(Box::pin(updates), place))
}

impl Seen {
    async fn next(&mut self) -> Option<Received> {
        loop {
            match self.0.next().await? {
                Sent::Item { place, item: Change { kind, data, .. } } => {
                    assert!(place > self.1, "{place} after {}", self.1);
                    self.1 = place;
                    let data: serde_json::Value = serde_json::from_str(&data).unwrap();
                    let string = |name: &str| data[name].as_str().map(str::to_owned);
                    return Some(Received {
                        place,
                        kind,
                        key: string("key").unwrap(),
                        version: data["version"].as_u64().unwrap(),
                        value: string("value"),
                    });
                }
                Sent::Silence(place) => self.1 = place,
                Sent::Gone(problem) => panic!("gone: {problem}"),
            }
        }
    }

    async fn take(&mut self, count: usize) -> Vec<Received> {
        let mut received = Vec::new();
        for _ in 0..count {
            received.push(self.next().await.unwrap());
        }
        received
    }
}

fn memory() -> (Arc<dyn ObjectStore>, Arc<Owners>) {
    (Arc::new(InMemory::new()), Arc::default())
}

fn names(received: &[Received]) -> Vec<&str> {
    received.iter().map(|received| received.key.as_str()).collect()
}

async fn delete(running: &Running, name: &str) {
    running.engine.delete(&Key::new(name.to_owned()).unwrap(), None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_change_is_sent_once_and_in_the_order_of_writes_with_concurrent_writers() {
    const WRITERS: usize = 8;
    const EACH: usize = 50;
    let (objects, owners) = memory();
    let running = Running::start(objects, &owners).await;
    let mut all = watch(&running, with_values(""), None).await.unwrap();
    let writers = (0..WRITERS).map(|writer| {
        let running = &running;
        async move {
            for number in 0..EACH {
                running.put(&format!("{writer}"), &number.to_string()).await.unwrap();
            }
        }
    });
    let (received, _) = tokio::join!(all.take(WRITERS * EACH), futures_util::future::join_all(writers));
    let mut last = BTreeMap::new();
    for received in &received {
        let number: usize = received.value.as_ref().unwrap().parse().unwrap();
        let expected = last.get(&received.key).map_or(0, |last| last + 1);
        assert_eq!(number, expected, "writer {}", received.key);
        last.insert(received.key.clone(), number);
    }
    assert_eq!(last.values().sum::<usize>(), WRITERS * (EACH - 1));
    let cut = received.iter().find(|received| received.place.row > 0);
    assert!(cut.is_some(), "some were written together");

    // A watch that begins at any of these places receives the rest, and nothing else.
    for (at, from) in received.iter().enumerate().step_by(7) {
        let mut again = watch(&running, with_values(""), Some(from.place)).await.unwrap();
        assert_eq!(again.take(received.len() - at - 1).await, received[at + 1..], "from {}", from.place);
    }
    running.stop().await;
}

#[tokio::test]
async fn both_writes_of_a_key_are_sent_and_its_deletion_too() {
    let (objects, owners) = memory();
    let running = Running::start(objects, &owners).await;
    let mut all = watch(&running, with_values(""), None).await.unwrap();
    for value in ["1", "2"] {
        running.put("a", value).await.unwrap();
    }
    delete(&running, "a").await;
    let received = all.take(3).await;
    let seen: Vec<_> = received.iter().map(|received| (received.kind, received.value.as_deref())).collect();
    assert_eq!(seen, [(Kind::Put, Some("1")), (Kind::Put, Some("2")), (Kind::Delete, None)]);
    let versions: BTreeSet<_> = received.iter().map(|received| received.version).collect();
    assert_eq!(versions.len(), 3);
    running.stop().await;
}

#[tokio::test]
async fn only_keys_with_the_prefix_are_sent_and_places_do_not_depend_on_it() {
    let (objects, owners) = memory();
    let running = Running::start(objects, &owners).await;
    let mut all = watch(&running, without_values(""), None).await.unwrap();
    let mut some = watch(&running, without_values("b/"), None).await.unwrap();
    let names = ["a", "b/1", "b", "b/2", "c", "b0"];
    futures_util::future::join_all(names.map(|name| running.put(name, "1"))).await;
    let received = all.take(names.len()).await;
    let expected: Vec<_> = received.into_iter().filter(|received| received.key.starts_with("b/")).collect();
    assert_eq!(some.take(2).await, expected);
    running.stop().await;
}

/// Writes in three incarnations of the database; returns what a watcher of each received.
async fn three_incarnations(objects: &Arc<dyn ObjectStore>, owners: &Arc<Owners>) -> Vec<Received> {
    let mut received = Vec::new();
    let mut from = None;
    for incarnation in 0..3 {
        let running = Running::start(Arc::clone(objects), owners).await;
        let mut all = watch(&running, with_values(""), from).await.unwrap();
        for number in 0..5 {
            let names = ["x", "y", "z"].map(|name| format!("{incarnation}-{number}-{name}"));
            futures_util::future::join_all(names.iter().map(|name| running.put(name, "1"))).await;
        }
        received.extend(all.take(15).await);
        from = received.last().map(|received: &Received| received.place);
        running.stop().await;
        assert_eq!(all.next().await, None, "it ends with the database");
    }
    received
}

#[tokio::test]
async fn the_next_owner_continues_where_the_last_one_ended_and_has_all_earlier_changes() {
    let (objects, owners) = memory();
    let received = three_incarnations(&objects, &owners).await;
    assert_eq!(names(&received).into_iter().collect::<BTreeSet<_>>().len(), 45);
    let running = Running::start(objects, &owners).await;
    let mut from = Place { seq: 0, row: 0 };
    for at in 0..=received.len() {
        let mut again = watch(&running, with_values(""), Some(from)).await.unwrap();
        assert_eq!(again.take(received.len() - at).await, received[at..], "from {from}");
        let Some(next) = received.get(at) else { break };
        from = next.place;
    }
    let mut all = watch(&running, without_values(""), Some(from)).await.unwrap();
    running.put("new", "1").await.unwrap();
    assert_eq!(all.next().await.unwrap().key, "new");
    running.stop().await;
}

#[tokio::test]
async fn a_listing_that_misses_files_of_the_log_ends_no_watch() {
    let (objects, owners) = memory();
    let received = three_incarnations(&objects, &owners).await;
    let files = objects.list(Some(&"db/wal".into())).map(|file| file.unwrap().location);
    let mut files: Vec<_> = files.collect().await;
    files.sort();
    assert!(files.len() > 10);
    let way = Faults::new(Arc::clone(&objects));
    let (every, half) = (files.len(), files.len() / 2);
    let missed: [Vec<usize>; 6] = [
        vec![half],
        vec![every - 2],
        vec![1, half, every - 3],
        (0..half).collect(),
        (half..every - 1).collect(),
        (0..every - 1).filter(|number| number % 2 == 0).collect(),
    ];
    for missed in missed {
        let running = Running::start(way.objects(), &owners).await;
        way.hide(missed.iter().map(|number| files[*number].clone()));
        let from = Some(Place { seq: 0, row: 0 });
        let mut all = watch(&running, with_values(""), from).await.unwrap();
        assert_eq!(all.take(received.len()).await, received, "{missed:?}");
        let mut rest = watch(&running, with_values(""), Some(received[20].place)).await.unwrap();
        assert_eq!(rest.take(received.len() - 21).await, received[21..], "{missed:?}");
        way.hide([]);
        running.stop().await;
    }
}

#[tokio::test]
async fn a_cursor_older_than_the_log_is_refused_as_gone() {
    let (objects, owners) = memory();
    let received = three_incarnations(&objects, &owners).await;
    let running = Running::start(Arc::clone(&objects), &owners).await;
    collect_now(&objects).await;
    for from in [Place { seq: 0, row: 0 }, received[3].place] {
        let Err(NotWatched::Gone(problem)) = watch(&running, without_values(""), Some(from)).await else {
            panic!("it is gone: {from}")
        };
        assert_eq!((problem.status, problem.code()), (410, "history-gone"));
        assert!(problem.hint.unwrap().contains("list"));
    }
    // A cursor after all changes misses nothing.
    let mut last =
        watch(&running, without_values(""), received.last().map(|received| received.place)).await.unwrap();
    running.put("new", "1").await.unwrap();
    assert_eq!(last.next().await.unwrap().key, "new");
    // A place in the future is not one of this history, and neither is one after the end of a batch.
    let last = last.1;
    for never in
        [Place { seq: last.seq + 9, row: 0 }, Place { row: 1, ..last }, Place { seq: last.seq - 1, row: 7 }]
    {
        assert!(
            matches!(watch(&running, without_values(""), Some(never)).await, Err(NotWatched::Gone(_))),
            "{never}"
        );
    }
    running.stop().await;
}

/// Writes more than is kept in memory.
async fn write_much(running: &Running) -> usize {
    let value = "v".repeat(4 * 1024 * 1024);
    for number in 0..8 {
        running.put(&format!("{number}"), &value).await.unwrap();
    }
    8
}

#[tokio::test]
async fn a_slow_reader_receives_all_changes_from_the_log() {
    let (objects, owners) = memory();
    let running = Running::start(objects, &owners).await;
    let mut slow = watch(&running, without_values(""), None).await.unwrap();
    let begun = slow.1;
    running.put("first", "1").await.unwrap();
    assert_eq!(slow.next().await.unwrap().key, "first");
    let count = write_much(&running).await;
    assert_eq!(names(&slow.take(count).await), ["0", "1", "2", "3", "4", "5", "6", "7"]);
    running.put("last", "1").await.unwrap();
    assert_eq!(slow.next().await.unwrap().key, "last");
    let mut again = watch(&running, without_values(""), Some(begun)).await.unwrap();
    assert_eq!(again.take(count + 2).await.last().unwrap().key, "last");
    running.stop().await;
}

#[tokio::test]
async fn a_reader_that_is_too_slow_receives_gone_in_its_stream() {
    let (objects, owners) = memory();
    let running = Running::start(Arc::clone(&objects), &owners).await;
    let mut slow = watch(&running, without_values(""), None).await.unwrap();
    write_much(&running).await;
    running.stop().await;
    let running = Running::start(Arc::clone(&objects), &owners).await;
    assert_eq!(slow.next().await, None, "its database is closed");
    let place = slow.1;
    let mut slow = watch(&running, without_values(""), Some(place)).await.unwrap();
    collect_now(&objects).await;
    let Some(Sent::Gone(problem)) = slow.0.next().await else { panic!("it is gone") };
    assert_eq!(problem.code(), "history-gone");
    assert!(slow.0.next().await.is_none());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_durable_is_not_sent() {
    let (objects, owners) = memory();
    let way = Faults::new(objects);
    let running = Running::start(way.objects(), &owners).await;
    let mut all = watch(&running, without_values(""), None).await.unwrap();
    way.set(Mode::Hang);
    let received = tokio::time::timeout(Duration::from_secs(5), all.next());
    let (written, received) = tokio::join!(running.put("a", "1"), received);
    assert!(written.is_err() && received.is_err());
    way.set(Mode::Work);
    assert_eq!(all.next().await.unwrap().key, "a", "it was not lost");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_an_owner_wrote_after_it_was_replaced_is_sent_by_no_owner() {
    let (objects, owners) = memory();
    let way = Faults::new(Arc::clone(&objects));
    let old = Running::start(way.objects(), &owners).await;
    let mut before = watch(&old, without_values(""), None).await.unwrap();
    let begun = before.1;
    old.put("a", "1").await.unwrap();
    assert_eq!(before.next().await.unwrap().key, "a");
    way.set(Mode::Hang);
    let (late, new) = tokio::join!(old.put("late", "1"), async {
        let new = Running::start(objects, &owners).await;
        new.put("b", "1").await.unwrap();
        way.set(Mode::Work);
        new
    });
    late.unwrap_err();
    let mut after = watch(&new, without_values(""), Some(begun)).await.unwrap();
    assert_eq!(names(&after.take(2).await), ["a", "b"]);
    assert_eq!(before.next().await, None);
    old.stop().await;
    new.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_large_value_that_finds_no_space_ends_its_stream_and_no_other() {
    let (objects, owners) = memory();
    let running = Running::start(objects, &owners).await;
    let events = space(1024 * 1024);
    let full = events.try_take(1024 * 1024);
    let open = async |filter: Filter, from: Option<Place>| {
        let Begun { place, updates } = begin(&running.engine, &filter, zero(), from, &events).await.unwrap();
        Seen(Box::pin(updates), place)
    };
    let mut large = open(with_values(""), None).await;
    let mut others = [open(without_values(""), None).await, open(with_values("b"), None).await];
    running.put("a", "1").await.unwrap();
    running.put("a", &"v".repeat(100 * 1024)).await.unwrap();
    running.put("b", "1").await.unwrap();
    assert_eq!(names(&others[0].take(3).await), ["a", "a", "b"]);
    assert_eq!(names(&others[1].take(1).await), ["b"]);
    assert_eq!(large.next().await.unwrap().value.as_deref(), Some("1"));
    assert_eq!(large.next().await, None);
    // A watch from that place receives everything once there is space again.
    drop(full);
    let mut again = open(with_values(""), Some(large.1)).await;
    let received = again.take(2).await;
    assert_eq!(received[0].value.as_ref().map(String::len), Some(100 * 1024));
    assert_eq!(received[1].key, "b");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_stream_sends_its_place() {
    let (objects, owners) = memory();
    let running = Running::start(objects, &owners).await;
    let mut some = watch(&running, without_values("b"), None).await.unwrap();
    running.put("a", "1").await.unwrap();
    let began = Instant::now();
    let Some(Sent::Silence(place)) = some.0.next().await else { panic!("no key matches the prefix") };
    assert!(began.elapsed() <= HEARTBEAT, "{:?}", began.elapsed());
    assert!(place > some.1, "filtered rows count");
    running.stop().await;
}

#[test]
fn a_value_is_sent_as_text_if_it_is_text() {
    let received = |value: &'static [u8]| {
        let stored = Record::new(None, Bytes::from_static(value)).encode();
        let (_, data) = describe(zero(), 3, b"ka/b", Some(&stored), true);
        serde_json::from_str::<serde_json::Value>(&data).unwrap()
    };
    assert_eq!(
        received("grüße\n\"".as_bytes()),
        serde_json::json!({
            "key": "a/b", "version": 3, "shard": 0, "size": 9, "content_type": "application/octet-stream",
            "value": "grüße\n\"",
        })
    );
    for binary in [&b"\xff"[..], b"\0", b"\x1b[2J"] {
        let received = received(binary);
        assert_eq!(received["value_base64"], STANDARD.encode(binary));
        assert!(received.get("value").is_none());
    }
}

#[tokio::test]
async fn a_place_is_the_same_in_memory_and_in_the_log_despite_rows_of_other_kinds() {
    let (objects, owners) = memory();
    let running = Running::start(Arc::clone(&objects), &owners).await;
    let mut all = watch(&running, without_values(""), None).await.unwrap();
    let begun = all.1;
    for round in 1..4_u64 {
        let puts = ["a", "b", "c"].map(|name| {
            let expires = std::num::NonZeroU64::new(4_000_000_000_000 + round);
            let record = Record::new(None, Bytes::from_static(b"1")).expiring(expires);
            let engine = &running.engine;
            async move {
                let space = engine.reserve(8).unwrap();
                engine.put(&Key::new(name.to_owned()).unwrap(), record.clone(), None, space).await.unwrap();
            }
        });
        futures_util::future::join_all(puts).await;
    }
    let received = all.take(9).await;
    running.stop().await;
    let running = Running::start(objects, &owners).await;
    let mut again = watch(&running, without_values(""), Some(begun)).await.unwrap();
    assert_eq!(again.take(9).await, received);
    running.stop().await;
}
