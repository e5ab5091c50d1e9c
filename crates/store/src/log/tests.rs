use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use object_store::ObjectStoreExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

use super::*;
use crate::faults::{Faults, Mode, Op, When};
use crate::testing::{Place, objects};

const TINY: Limits = Limits { keep: 4, age: Duration::ZERO };

fn log(objects: &Objects, limits: Limits) -> Log<String> {
    Log::new(objects.clone(), Path::from("log"), limits)
}

async fn fill(log: &Log<String>, from: u64, to: u64) {
    for number in from..=to {
        assert_eq!(log.append(number - 1, &format!("entry {number}")).await.unwrap(), number);
    }
}

fn lost(result: Result<u64, AppendError>) -> u64 {
    match result {
        Err(AppendError::Lost { latest }) => latest,
        other => panic!("not lost: {other:?}"),
    }
}

/// Many writers, one log: every number has one winner, there is no gap, and each value is there once, under the
/// number that was returned.
pub(crate) async fn racing_writers_share_a_log(objects: Objects, writers: usize, each: usize) {
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        let log = log(&objects, LIMITS);
        tasks.spawn(async move {
            let mut acknowledged = Vec::new();
            for nth in 0..each {
                let value = format!("{writer}/{nth}");
                let mut last = log.latest().await.unwrap().map_or(0, |entry| entry.number);
                loop {
                    match log.append(last, &value).await {
                        Ok(number) => break acknowledged.push((number, value)),
                        Err(AppendError::Lost { latest }) => last = latest,
                        Err(AppendError::Store(error)) => panic!("{error}"),
                    }
                }
            }
            acknowledged
        });
    }
    let acknowledged: BTreeMap<u64, String> = tasks.join_all().await.into_iter().flatten().collect();
    let log = log(&objects, LIMITS);
    let total = u64::try_from(writers * each).unwrap();
    assert_eq!(log.latest().await.unwrap().unwrap().number, total, "no value is there twice");
    assert_eq!(acknowledged.keys().copied().collect::<Vec<_>>(), (1..=total).collect::<Vec<_>>(), "no gap");
    for (number, value) in acknowledged {
        assert_eq!(log.entry(number).await.unwrap(), Some(value));
    }
}

/// Writers, some with a very stale state, while a pruner removes all that it may: no number is acknowledged twice,
/// and a reader of the latest entry only gets the value that was acknowledged for it.
pub(crate) async fn a_pruner_never_lets_a_stale_writer_win(objects: Objects, seed: u64, rounds: usize) {
    let acknowledged = Arc::new(Mutex::new(BTreeMap::<u64, String>::new()));
    let mut tasks = JoinSet::new();
    for writer in 0..4_u64 {
        let (log, acknowledged) = (log(&objects, TINY), Arc::clone(&acknowledged));
        tasks.spawn(async move {
            let mut random = StdRng::seed_from_u64(seed * 31 + writer);
            let mut memory = vec![0];
            let mut seen = BTreeMap::new();
            for nth in 0..rounds {
                let stale = random.random_bool(0.4);
                if let (false, Some(entry)) = (stale, log.latest().await.unwrap()) {
                    memory.push(entry.number);
                    seen.insert(entry.number, entry.value);
                }
                let last =
                    memory[if stale { random.random_range(0..memory.len()) } else { memory.len() - 1 }];
                let value = format!("{writer}/{nth}");
                match log.append(last, &value).await {
                    Ok(number) => {
                        let before = acknowledged.lock().unwrap().insert(number, value);
                        assert_eq!(before, None, "{number} was acknowledged twice");
                    }
                    Err(AppendError::Lost { latest }) => assert!(latest > last),
                    Err(AppendError::Store(error)) => panic!("{error}"),
                }
                if random.random_bool(0.3) {
                    log.prune().await.unwrap();
                }
            }
            seen
        });
    }
    let seen = tasks.join_all().await;
    let acknowledged = acknowledged.lock().unwrap();
    for (number, value) in seen.into_iter().flatten() {
        if let Some(expected) = acknowledged.get(&number) {
            assert_eq!(&value, expected, "{number} was read with another value than acknowledged");
        }
    }
    assert!(acknowledged.len() >= rounds / 2, "the writers made progress: {}", acknowledged.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_acknowledged_append_is_in_the_history_once() {
    racing_writers_share_a_log(Place::memory().objects(), 8, 40).await;
    let folder = Place::folder();
    racing_writers_share_a_log(folder.objects(), 8, 6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_acknowledged_append_survives_pruners_and_stale_writers() {
    for seed in 0..20 {
        a_pruner_never_lets_a_stale_writer_win(Place::memory().objects(), seed, 60).await;
    }
    let folder = Place::folder();
    a_pruner_never_lets_a_stale_writer_win(folder.objects(), 1, 15).await;
}

#[tokio::test]
async fn an_empty_log_has_no_latest_entry() {
    let place = Place::folder();
    let log = log(&place.objects(), LIMITS);
    assert_eq!(log.latest().await.unwrap(), None);
    assert_eq!(log.entry(1).await.unwrap(), None);
    assert_eq!(log.prune().await.unwrap(), 0);
}

#[tokio::test]
async fn a_second_writer_of_a_number_learns_the_latest_number() {
    let log = log(&Place::memory().objects(), LIMITS);
    fill(&log, 1, 5).await;
    assert_eq!(lost(log.append(1, &"late".to_owned()).await), 5);
    assert_eq!(log.entry(2).await.unwrap().unwrap(), "entry 2");
}

#[tokio::test]
async fn a_writer_that_was_paused_before_its_create_loses_even_if_its_number_was_pruned() {
    let faults = Faults::new(Place::memory().store);
    let log = log(&objects(faults.objects()), TINY);
    let value = "slept".to_owned();
    let mut pause = faults.pause_next(Op::Create, When::Before);
    let sleeper = log.append(0, &value);
    let others = async {
        pause.reached().await;
        fill(&log, 1, 10).await;
        assert_eq!(log.prune().await.unwrap(), 6);
        assert_eq!(log.entry(1).await.unwrap(), None);
        pause.resume();
    };
    let (slept, ()) = tokio::join!(sleeper, others);
    assert_eq!(lost(slept), 10);
    // The late entry is there, but is not the latest.
    assert_eq!(log.entry(1).await.unwrap().unwrap(), "slept");
    assert_eq!(log.latest().await.unwrap().unwrap(), Entry { number: 10, value: "entry 10".to_owned() });
    fill(&log, 11, 11).await;
    assert!(log.prune().await.unwrap() >= 1, "the late entry is pruned as well");
    assert_eq!(log.entry(1).await.unwrap(), None);
}

#[tokio::test]
async fn a_writer_that_was_paused_after_its_create_wins_unless_the_pause_was_too_long() {
    for (op, when) in [(Op::Create, When::After), (Op::List, When::Before)] {
        for (others_write, wins) in [(0, true), (3, true), (4, false), (9, false)] {
            let faults = Faults::new(Place::memory().store);
            let log = log(&objects(faults.objects()), TINY);
            let value = "slept".to_owned();
            let mut pause = faults.pause_next(op, when);
            let others = async {
                pause.reached().await;
                for number in 2..2 + others_write {
                    log.append(number - 1, &"other".to_owned()).await.unwrap();
                }
                pause.resume();
            };
            let (slept, ()) = tokio::join!(log.append(0, &value), others);
            match slept {
                Ok(number) => assert!(wins && number == 1, "{op:?} {others_write}"),
                Err(AppendError::Lost { latest }) => {
                    assert!(!wins && latest == 1 + others_write, "{op:?} {others_write}");
                }
                Err(AppendError::Store(error)) => panic!("{error}"),
            }
        }
    }
}

#[tokio::test]
async fn a_reader_whose_entry_was_pruned_reads_the_later_one() {
    let faults = Faults::new(Place::memory().store);
    let log = log(&objects(faults.objects()), TINY);
    fill(&log, 1, 3).await;
    let mut pause = faults.pause_next(Op::Get, When::Before);
    let others = async {
        pause.reached().await;
        fill(&log, 4, 12).await;
        log.prune().await.unwrap();
        pause.resume();
    };
    let (latest, ()) = tokio::join!(log.latest(), others);
    assert_eq!(latest.unwrap().unwrap().number, 12);
}

#[tokio::test]
async fn a_reader_that_was_paused_never_takes_a_late_entry_for_the_latest() {
    let faults = Faults::new(Place::memory().store);
    let log = log(&objects(faults.objects()), TINY);
    fill(&log, 1, 3).await;
    let mut reads = faults.pause_next(Op::Get, When::Before);
    let others = async {
        reads.reached().await;
        let mut writes = faults.pause_next(Op::Create, When::Before);
        let late = "late".to_owned();
        let meanwhile = async {
            writes.reached().await;
            // number 3 is pruned while the late writer is about to create it
            fill(&log, 4, 12).await;
            log.prune().await.unwrap();
            writes.resume();
        };
        let (late, ()) = tokio::join!(log.append(2, &late), meanwhile);
        assert_eq!(lost(late), 12);
        assert_eq!(log.entry(3).await.unwrap().unwrap(), "late");
        reads.resume();
    };
    let (latest, ()) = tokio::join!(log.latest(), others);
    assert_eq!(latest.unwrap().unwrap(), Entry { number: 12, value: "entry 12".to_owned() });
}

#[tokio::test(start_paused = true)]
async fn an_append_whose_answer_was_lost_is_recognized_as_our_own() {
    let faults = Faults::new(Place::memory().store);
    let log = log(&objects(faults.objects()), LIMITS);
    let pause = faults.pause_next(Op::Create, When::After);
    assert_eq!(log.append(0, &"mine".to_owned()).await.unwrap(), 1);
    drop(pause);
    faults.repeat_create(true);
    assert_eq!(log.append(1, &"sent twice".to_owned()).await.unwrap(), 2);
    assert_eq!(lost(log.append(1, &"late".to_owned()).await), 2);
}

#[tokio::test(start_paused = true)]
async fn an_append_that_did_not_arrive_in_time_is_an_error_and_can_be_retried() {
    let faults = Faults::new(Place::memory().store);
    let log = log(&objects(faults.objects()), LIMITS);
    let pause = faults.pause_next(Op::Create, When::Before);
    let began = tokio::time::Instant::now();
    let Err(AppendError::Store(error)) = log.append(0, &"mine".to_owned()).await else { panic!("appended") };
    assert_eq!(error.fault(), Fault::Timeout);
    assert_eq!(
        error.to_string(),
        "cannot write `log/00000000000000000001.json` in memory:///: no answer within 10s"
    );
    assert!(began.elapsed() <= Duration::from_secs(13), "{:?}", began.elapsed());
    drop(pause);
    assert_eq!(log.append(0, &"again".to_owned()).await.unwrap(), 1);
}

#[tokio::test]
async fn a_refusal_without_another_writer_is_retried() {
    let faults = Faults::new(Place::memory().store);
    let log = log(&objects(faults.objects()), LIMITS);
    faults.refuse_creates(3);
    assert_eq!(log.append(0, &"mine".to_owned()).await.unwrap(), 1);
    faults.refuse_creates(1_000);
    let Err(AppendError::Store(error)) = log.append(1, &"mine".to_owned()).await else { panic!("appended") };
    assert!(error.cause().contains("refused 8 times"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_call_to_a_hanging_store_times_out() {
    let faults = Faults::new(Place::memory().store);
    let log = log(&objects(faults.objects()), LIMITS);
    fill(&log, 1, 1).await;
    faults.set(Mode::Hang);
    for _ in 0..2 {
        let began = tokio::time::Instant::now();
        assert_eq!(log.latest().await.unwrap_err().fault(), Fault::Timeout);
        assert_eq!(log.entry(1).await.unwrap_err().fault(), Fault::Timeout);
        assert_eq!(log.prune().await.unwrap_err().fault(), Fault::Timeout);
        assert!(began.elapsed() < Duration::from_secs(31), "{:?}", began.elapsed());
    }
    faults.set(Mode::Work);
    assert_eq!(log.latest().await.unwrap().unwrap().number, 1);
}

#[tokio::test]
async fn a_damaged_entry_is_reported_and_never_read_as_something_else() {
    let place = Place::memory();
    let log = log(&place.objects(), LIMITS);
    fill(&log, 1, 1).await;
    let whole = place.objects().read(&log.path(1)).await.unwrap().unwrap();
    for content in
        [&b""[..], b"garbage", b"{}", b"null", &whole[..whole.len() / 2], &whole[..whole.len() - 1]]
    {
        place.objects().overwrite(&log.path(1), Bytes::copy_from_slice(content)).await.unwrap();
        let error = log.latest().await.unwrap_err();
        assert_eq!(error.fault(), Fault::Damaged, "{error}");
        assert!(error.to_string().contains("`log/00000000000000000001.json`"), "{error}");
        assert!(error.cause().contains("it is damaged"), "{error}");
        assert!(error.hint().is_some());
    }
}

#[tokio::test]
async fn an_entry_of_a_newer_version_is_reported_as_such() {
    let place = Place::memory();
    let theirs: Log<BTreeMap<String, u32>> = Log::new(place.objects(), Path::from("log"), LIMITS);
    theirs.append(0, &BTreeMap::new()).await.unwrap();
    let error = log(&place.objects(), LIMITS).latest().await.unwrap_err();
    assert_eq!(error.fault(), Fault::Newer);
    assert!(error.to_string().contains("written by a newer version"), "{error}");
}

#[tokio::test]
async fn other_files_are_not_entries() {
    let place = Place::folder();
    let log = log(&place.objects(), LIMITS);
    fill(&log, 1, 2).await;
    for other in
        ["7.json", "0000000000000000000x.json", "00000000000000000009.json~", "x/00000000000000000009.json"]
    {
        place.store.put(&Path::from(format!("log/{other}")), "x".into()).await.unwrap();
    }
    place.store.put(&Path::from("logs/00000000000000000009.json"), "x".into()).await.unwrap();
    assert_eq!(log.latest().await.unwrap().unwrap().number, 2);
    assert_eq!(log.append(2, &"three".to_owned()).await.unwrap(), 3);
}

#[tokio::test]
async fn pruning_keeps_the_last_entries_and_the_young_ones() {
    let place = Place::memory();
    let few = log(&place.objects(), TINY);
    fill(&few, 1, 10).await;
    assert_eq!(few.prune().await.unwrap(), 6);
    let left: BTreeSet<u64> = few
        .numbered(place.objects().list(&few.prefix).await.unwrap())
        .into_iter()
        .map(|(number, _)| number)
        .collect();
    assert_eq!(left, (7..=10).collect());
    fill(&few, 11, 20).await;
    assert_eq!(log(&place.objects(), LIMITS).prune().await.unwrap(), 0, "too few");
    let young = Limits { keep: 4, age: Duration::from_secs(600) };
    assert_eq!(log(&place.objects(), young).prune().await.unwrap(), 0, "too young");
}

#[tokio::test]
async fn a_listing_of_a_folder_that_misses_the_latest_entries_hides_none_of_them() {
    let faults = Faults::new(Place::memory().store);
    let log = log(&objects(faults.objects()), LIMITS);
    fill(&log, 1, 5).await;
    for missed in [&[5][..], &[4, 5], &[3, 5], &[1, 2, 3, 4, 5]] {
        faults.hide(missed.iter().map(|number| Path::from(format!("log/{number:020}.json"))));
        let latest = log.latest().await.unwrap().map(|entry| (entry.number, entry.value));
        assert_eq!(latest, Some((5, "entry 5".to_owned())), "{missed:?}");
        assert_eq!(lost(log.append(3, &"late".to_owned()).await), 5, "{missed:?}");
    }
}
