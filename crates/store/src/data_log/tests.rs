use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt;
use futures_util::future::join_all;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

use super::*;
use crate::faults::{Faults, Mode, Op, When};
use crate::testing::Place;

type Objects = Arc<dyn ObjectStore>;

async fn open(objects: &Objects, epoch: u64) -> Result<DataLog, DataLogError> {
    DataLog::open(Arc::clone(objects), "log", Epoch(epoch)).await
}

fn reader(objects: &Objects) -> DataLogReader {
    DataLogReader::new(Arc::clone(objects), "log")
}

fn path(number: u64) -> Path {
    Path::from(format!("log/{number:020}.entry"))
}

/// All entries from a number on.
async fn all(objects: &Objects, from: u64) -> Vec<DataEntry> {
    let (reader, mut entries) = (reader(objects), Vec::new());
    let mut next = from;
    loop {
        let read = reader.read(next).await.unwrap();
        let Some(last) = read.last() else { return entries };
        next = last.number + 1;
        entries.extend(read);
    }
}

fn fenced(result: Result<u64, DataLogError>) -> (u64, u64) {
    match result {
        Err(DataLogError::Fenced { epoch, number }) => (epoch.0, number),
        other => panic!("not fenced: {other:?}"),
    }
}

/// Owners with rising epochs. Former owners do not know that they were replaced; each appends and trims until it is
/// fenced. Each acknowledged record is there, once, under the number that was returned, and epochs never fall.
async fn owners_take_over_from_one_another(objects: Objects, seed: u64, owners: u64, each: u64) {
    let (epochs, acknowledged) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(BTreeMap::new())));
    let mut tasks = JoinSet::new();
    for owner in 0..owners {
        let (objects, epochs, acknowledged) =
            (Arc::clone(&objects), Arc::clone(&epochs), Arc::clone(&acknowledged));
        tasks.spawn(async move {
            let mut random = StdRng::seed_from_u64(seed * 31 + owner);
            let mut left = each;
            while left > 0 {
                let epoch = epochs.fetch_add(1, Ordering::SeqCst) + 1;
                let log = match open(&objects, epoch).await {
                    Ok(log) => log,
                    Err(DataLogError::Fenced { epoch: higher, .. }) => {
                        assert!(higher.0 > epoch);
                        continue;
                    }
                    Err(error) => panic!("{error}"),
                };
                while left > 0 {
                    let records: Vec<_> =
                        (0..random.random_range(1..4)).map(|n| format!("{epoch}/{left}/{n}")).collect();
                    let outcomes = join_all(records.iter().map(|record| log.append(record.clone()))).await;
                    for (record, outcome) in records.into_iter().zip(&outcomes) {
                        match outcome {
                            Ok(number) => drop(acknowledged.lock().unwrap().insert(record, *number)),
                            Err(DataLogError::Fenced { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                    if outcomes.iter().any(Result::is_err) {
                        break;
                    }
                    left -= 1;
                    if random.random_bool(0.2) {
                        let last = outcomes.into_iter().flatten().max().unwrap();
                        match log.trim(last.saturating_sub(random.random_range(0..9))).await {
                            Ok(_) => {}
                            Err(DataLogError::Fenced { .. }) => break,
                            Err(error) => panic!("{error}"),
                        }
                    }
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let first = match reader(&objects).read(1).await {
        Err(DataLogError::Trimmed { first }) => first,
        read => read.map(|_| 1).unwrap(),
    };
    let entries = all(&objects, first).await;
    assert!(entries.windows(2).all(|two| two[0].number + 1 == two[1].number), "no gap");
    assert!(entries.windows(2).all(|two| two[0].epoch <= two[1].epoch), "epochs never fall");
    let mut found = BTreeMap::new();
    for entry in &entries {
        for record in &entry.records {
            let text = String::from_utf8(record.to_vec()).unwrap();
            assert!(text.starts_with(&format!("{}/", entry.epoch)));
            assert_eq!(found.insert(text, entry.number), None, "twice");
        }
    }
    let acknowledged = acknowledged.lock().unwrap();
    for (record, number) in acknowledged.iter().filter(|(_, number)| **number >= first) {
        assert_eq!(found.get(record), Some(number), "{record} was acknowledged");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_acknowledged_record_is_in_the_log_once() {
    for seed in 0..20 {
        owners_take_over_from_one_another(Place::memory().store, seed, 4, 30).await;
    }
    let folder = Place::folder();
    owners_take_over_from_one_another(Arc::clone(&folder.store), 1, 4, 6).await;
}

/// Two owners. The first is held at each of its operations in turn, while the second takes over, writes, and trims all
/// that it may.
#[tokio::test]
async fn an_owner_that_was_paused_at_any_step_loses_no_acknowledged_record() {
    for (held, when) in (0..12).flat_map(|held| [(held, When::Before), (held, When::After)]) {
        let faults = Faults::new(Place::memory().store);
        let objects = faults.objects();
        let zero = open(&objects, 1).await.unwrap();
        zero.append("zero").await.unwrap();
        let mut pause = faults.pause_after(held, when);
        let acknowledged = Mutex::new(Vec::new());
        let slow = async {
            let first = open(&objects, 2).await?;
            for record in ["a", "b", "c"] {
                let number = first.append(record).await?;
                acknowledged.lock().unwrap().push((number, record));
            }
            first.trim(2).await?;
            Ok::<_, DataLogError>(first)
        };
        let mut before = Vec::new();
        let quick = async {
            pause.reached().await;
            let second = open(&objects, 3).await.unwrap();
            before = all(&objects, 1).await;
            for _ in 0..5 {
                second.append("second").await.unwrap();
            }
            let last = second.append("last").await.unwrap();
            second.trim(last).await.unwrap();
            pause.resume();
            (second, last)
        };
        // It may finish before it reaches that operation.
        let (slept, after) = {
            let mut quick = Box::pin(quick);
            let slept = Box::pin(slow);
            match futures_util::future::select(slept, &mut quick).await {
                futures_util::future::Either::Left((slept, _)) => (slept, None),
                futures_util::future::Either::Right((after, slept)) => (slept.await, Some(after)),
            }
        };
        let Some((second, last)) = after else { continue };
        if let Ok(first) = slept {
            assert_eq!(fenced(first.append("late").await).0, 3, "{held} {when:?}");
        }
        assert_eq!(second.append("after").await.unwrap(), last + 2, "{held} {when:?}");
        let opening = second.opening();
        for (number, record) in acknowledged.into_inner().unwrap() {
            assert!(number < opening, "{record} was acknowledged to an owner that was fenced");
            let entry = before.iter().find(|entry| entry.number == number);
            assert!(
                entry.is_some_and(|entry| entry.records == [record]),
                "the new owner reads {record}: {held} {when:?}"
            );
        }
        let left = all(&objects, last).await;
        let records: Vec<_> = left.iter().flat_map(|entry| &entry.records).collect();
        assert_eq!(records, ["last", "after"], "{held} {when:?}");
    }
}

#[tokio::test]
async fn a_new_owner_that_was_paused_while_its_number_was_trimmed_continues_at_the_end() {
    let faults = Faults::new(Place::memory().store);
    let objects = faults.objects();
    let first = open(&objects, 1).await.unwrap();
    let mut pause = faults.pause_next(Op::Create, When::Before);
    let meanwhile = async {
        pause.reached().await;
        let mut last = 0;
        for _ in 0..9 {
            last = first.append("x").await.unwrap();
        }
        first.trim(last).await.unwrap();
        pause.resume();
        last
    };
    let (second, last) = tokio::join!(open(&objects, 2), meanwhile);
    let second = second.unwrap();
    assert!(second.opening() > last);
    assert_eq!(fenced(first.append("late").await), (2, second.opening()));
}

#[tokio::test]
async fn the_same_claim_opens_the_log_anew_and_the_former_opening_is_fenced() {
    let objects = Place::memory().store;
    let first = open(&objects, 4).await.unwrap();
    assert_eq!(first.append("a").await.unwrap(), 2);
    let second = open(&objects, 4).await.unwrap();
    assert_eq!(second.opening(), 3);
    assert_eq!(fenced(first.append("b").await), (4, 3));
    assert_eq!(fenced(first.append("c").await), (4, 3), "it is closed");
    assert!(matches!(open(&objects, 3).await, Err(DataLogError::Fenced { epoch: Epoch(4), number: 3 })));
    assert_eq!(second.append("d").await.unwrap(), 4);
}

#[tokio::test]
async fn appends_that_wait_for_one_another_become_one_entry() {
    let faults = Faults::new(Place::memory().store);
    let objects = faults.objects();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let log =
        open(&objects, 1).await.unwrap().on_entry(move |entry| noted.lock().unwrap().push(entry.clone()));
    let records: Vec<String> = (0..50).map(|n| format!("record {n}")).collect();
    let mut pause = faults.pause_next(Op::Create, When::Before);
    let appends = join_all(records.iter().map(|record| log.append(record.clone())));
    let (numbers, ()) = tokio::join!(appends, async {
        pause.reached().await;
        pause.resume();
    });
    let numbers: Vec<u64> = numbers.into_iter().map(Result::unwrap).collect();
    let entries = all(&objects, 2).await;
    assert_eq!(entries.len(), 2, "the first alone, and all that arrived meanwhile: {numbers:?}");
    let written: Vec<_> = entries.iter().flat_map(|entry| &entry.records).collect();
    assert_eq!(written, records.iter().collect::<Vec<_>>());
    assert_eq!(*seen.lock().unwrap(), entries, "the callback receives them in order");
    assert!(numbers[0] == 2 && numbers[1..].iter().all(|number| *number == 3));
    let large = vec![7; MAX_RECORD];
    let (one, other) = tokio::join!(log.append(large.clone()), log.append("small"));
    assert_eq!((one.unwrap(), other.unwrap()), (4, 5), "an entry has an end");
    assert!(matches!(log.append(vec![7; MAX_RECORD + 1]).await, Err(DataLogError::TooLong(_))));
    assert_eq!(log.append("more").await.unwrap(), 6, "a record that is too long does not close the log");
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_its_entry_to_the_next() {
    for when in [When::Before, When::After] {
        let faults = Faults::new(Place::memory().store);
        let objects = faults.objects();
        let log = open(&objects, 1).await.unwrap();
        let mut pause = faults.pause_next(Op::Create, when);
        let mut leader = Box::pin(log.append("leader"));
        let mut follower = Box::pin(log.append("follower"));
        assert!((&mut leader).now_or_never().is_none() && (&mut follower).now_or_never().is_none());
        pause.reached().await;
        drop(leader);
        drop(pause);
        assert_eq!(follower.await.unwrap(), 3);
        let records: Vec<_> = all(&objects, 1).await.into_iter().flat_map(|entry| entry.records).collect();
        assert_eq!(records, ["leader", "follower"], "{when:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_entry_whose_answer_was_lost_is_recognized_as_our_own() {
    let faults = Faults::new(Place::memory().store);
    let objects = faults.objects();
    let log = open(&objects, 1).await.unwrap();
    let pause = faults.pause_next(Op::Create, When::After);
    assert_eq!(log.append("mine").await.unwrap(), 2);
    drop(pause);
    faults.repeat_create(true);
    assert_eq!(log.append("sent twice").await.unwrap(), 3);
    faults.repeat_create(false);
    faults.refuse_creates(3);
    assert_eq!(log.append("refused as if others wrote").await.unwrap(), 4);
}

#[tokio::test(start_paused = true)]
async fn an_error_closes_the_log_and_opening_it_again_finds_all_acknowledged_records() {
    let faults = Faults::new(Place::memory().store);
    let objects = faults.objects();
    let log = open(&objects, 1).await.unwrap();
    log.append("a").await.unwrap();
    faults.set(Mode::FailWrites(std::io::ErrorKind::StorageFull));
    let (one, other) = tokio::join!(log.append("b"), log.append("c"));
    for outcome in [one, other] {
        assert!(
            matches!(&outcome, Err(DataLogError::Store(error)) if error.fault() == Fault::Full),
            "{outcome:?}"
        );
    }
    faults.set(Mode::Work);
    assert!(matches!(log.append("d").await, Err(DataLogError::Store(_))), "b may be written yet");
    assert!(log.trim(2).await.is_err());
    let again = open(&objects, 1).await.unwrap();
    assert_eq!(again.append("e").await.unwrap(), 4);
    let records: Vec<_> = all(&objects, 1).await.into_iter().flat_map(|entry| entry.records).collect();
    assert_eq!(records, ["a", "e"]);
}

#[tokio::test]
async fn a_trimmed_entry_is_distinguished_from_a_lost_one() {
    let objects = Place::memory().store;
    let log = open(&objects, 1).await.unwrap();
    for number in 2..=10 {
        assert_eq!(log.append(format!("{number}")).await.unwrap(), number);
    }
    assert_eq!(log.trim(6).await.unwrap(), 4, "the opening stays");
    assert_eq!(log.trim(6).await.unwrap(), 0);
    let reader = reader(&objects);
    for from in 0..6 {
        let read = reader.read(from).await;
        assert!(matches!(read, Err(DataLogError::Trimmed { first: 6 })), "{from}: {read:?}");
    }
    let numbers: Vec<_> = reader.read(6).await.unwrap().iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, [6, 7, 8, 9, 10, 11]);
    assert!(reader.read(12).await.unwrap().is_empty());
    let next = open(&objects, 2).await.unwrap();
    assert!(matches!(reader.read(5).await, Err(DataLogError::Trimmed { first: 6 })));
    objects.delete(&path(8)).await.unwrap();
    let error = reader.read(7).await.unwrap_err().to_string();
    assert!(error.contains("00000000000000000008.entry") && error.contains("it is gone"), "{error}");
    assert_eq!(next.trim(u64::MAX).await.unwrap(), 5);
    let last = next.append("last").await.unwrap();
    assert_eq!(all(&objects, last).await.len(), 1);
}

#[tokio::test]
async fn a_listing_of_a_folder_that_misses_entries_hides_none_of_them() {
    let faults = Faults::new(Place::memory().store);
    let objects = faults.objects();
    let log = open(&objects, 1).await.unwrap();
    for number in 2..=5 {
        log.append(format!("{number}")).await.unwrap();
    }
    for missed in [&[5][..], &[4, 5], &[3, 5], &[2], &[1, 2, 3, 4, 5]] {
        faults.hide(missed.iter().map(|number| path(*number)));
        assert_eq!(all(&objects, 1).await.len(), 5, "{missed:?}");
    }
    faults.hide([4, 5].map(path));
    assert_eq!(open(&objects, 2).await.unwrap().opening(), 6);
}

#[tokio::test]
async fn a_damaged_entry_is_reported_and_never_read_as_something_else() {
    let objects = Place::memory().store;
    let log = open(&objects, 1).await.unwrap();
    log.append("whole").await.unwrap();
    let whole = objects.get(&path(2)).await.unwrap().bytes().await.unwrap();
    let other = objects.get(&path(1)).await.unwrap().bytes().await.unwrap();
    for content in [Bytes::new(), Bytes::from_static(b"garbage"), whole.slice(1..), whole.slice(..9), other] {
        objects.put(&path(2), content.into()).await.unwrap();
        for error in [reader(&objects).read(1).await.unwrap_err(), open(&objects, 2).await.unwrap_err()] {
            let DataLogError::Store(error) = error else { panic!("{error}") };
            assert_eq!(error.fault(), Fault::Damaged, "{error}");
            assert!(error.to_string().contains("00000000000000000002.entry"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_long_log_is_read_in_parts_and_other_files_are_not_entries() {
    let place = Place::memory();
    let objects = place.store;
    let log = open(&objects, 1).await.unwrap();
    for number in 2..=1_200 {
        assert_eq!(log.append("x").await.unwrap(), number);
    }
    for other in
        ["7.entry", "0000000000000000000x.entry", "00000000000000009999.json", "x/00000000000000009999.entry"]
    {
        objects.put(&Path::from(format!("log/{other}")), "x".into()).await.unwrap();
    }
    let reader = reader(&objects);
    let part = reader.read(1).await.unwrap();
    assert_eq!((part.len(), part[999].number), (1_000, 1_000));
    assert_eq!(reader.read(1_001).await.unwrap().len(), 200);
    assert_eq!(log.trim(1_201).await.unwrap(), 1_199);
    assert!(matches!(reader.read(2).await, Err(DataLogError::Trimmed { first: 1_201 })));
}

#[tokio::test]
async fn an_entry_is_there_from_its_append_until_it_is_trimmed() {
    let objects = Place::memory().store;
    let log = open(&objects, 1).await.unwrap();
    let number = log.append("a").await.unwrap();
    let reader = log.reader();
    assert!(reader.has(number).await.unwrap() && !reader.has(number + 1).await.unwrap());
    log.append("b").await.unwrap();
    assert!(reader.written_between(number, number + 1).await.unwrap().is_some());
    assert_eq!(reader.written_between(number, number + 2).await.unwrap(), None);
    log.trim(number + 1).await.unwrap();
    assert!(!reader.has(number).await.unwrap() && reader.has(number + 1).await.unwrap());
}

#[tokio::test]
async fn entries_without_records_are_distinguished_from_those_with_an_empty_one() {
    let objects = Place::memory().store;
    let log = open(&objects, 1).await.unwrap();
    let reader = log.reader();
    let first = log.append("").await.unwrap();
    log.append("a").await.unwrap();
    log.trim(first + 1).await.unwrap();
    let last = reader.end(0).await.unwrap();
    let mut without = Vec::new();
    for number in 0..=last + 1 {
        if reader.is_without_records(number).await.unwrap() {
            without.push(number);
        }
    }
    assert_eq!(without, [log.opening(), last], "the opening and the trim; the first record is trimmed");
    assert!(!reader.is_without_records(first + 1).await.unwrap());
    let empty = log.append("").await.unwrap();
    assert!(!reader.is_without_records(empty).await.unwrap());
}

#[tokio::test]
async fn the_end_of_the_log_is_found_from_any_entry() {
    let objects = Place::memory().store;
    let log = open(&objects, 1).await.unwrap();
    for last in 1..40 {
        for from in 0..=last {
            assert_eq!(log.reader().end(from).await.unwrap(), last, "from {from}");
        }
        log.append("a").await.unwrap();
    }
}

#[tokio::test]
async fn what_was_written_is_read_in_parts_without_a_listing() {
    let faults = Faults::new(Place::memory().store);
    let objects = faults.objects();
    let log = open(&objects, 1).await.unwrap();
    for number in 2..=1_100 {
        assert_eq!(log.append(format!("{number}")).await.unwrap(), number);
    }
    let listing = faults.pause_next(Op::List, When::Before);
    let reader = log.reader();
    let numbers = async |from, last| -> Vec<u64> {
        reader.read_written(from, last).await.unwrap().iter().map(|entry| entry.number).collect()
    };
    assert_eq!(numbers(1, 1_100).await, (1..=1_000).collect::<Vec<_>>());
    assert_eq!(numbers(1_001, 1_100).await, (1_001..=1_100).collect::<Vec<_>>());
    assert_eq!((numbers(7, 7).await, numbers(1_101, 1_100).await), (vec![7], vec![]));
    assert_eq!(reader.read_written(2, 2).await.unwrap()[0].records, ["2"]);
    listing.resume();
    log.trim(6).await.unwrap();
    assert!(matches!(reader.read_written(5, 9).await, Err(DataLogError::Trimmed { first: 6 })));
    objects.delete(&path(8)).await.unwrap();
    assert!(matches!(reader.read_written(7, 9).await, Err(DataLogError::Store(_))));
}

#[tokio::test]
async fn a_log_is_opened_after_any_entry_that_was_written() {
    let faults = Faults::new(Place::memory().store);
    let objects = faults.objects();
    let log = open(&objects, 1).await.unwrap();
    for _ in 0..9 {
        log.append("x").await.unwrap();
    }
    log.trim(5).await.unwrap();
    let mut last = 11;
    for (epoch, hidden) in (2..).zip([&[][..], &[11], &[9, 10, 11, 12, 13, 14, 15, 16, 17]]) {
        faults.hide(hidden.iter().map(|number| path(*number)));
        for known in [0, 1, 3, 5, 11, last] {
            let next = DataLog::open_after(Arc::clone(&objects), "log", Epoch(epoch), known).await.unwrap();
            assert_eq!(next.opening(), last + 1, "after {known}, hidden {hidden:?}");
            last += 1;
        }
    }
    let refused = DataLog::open_after(objects, "log", Epoch(1), last).await;
    assert!(matches!(refused, Err(DataLogError::Fenced { .. })), "{refused:?}");
}
