//! Bits that flip on the store are told of, and never answered as data.

use std::fs;
use std::path::{Path, PathBuf};

use slatedb::object_store::local::LocalFileSystem;

use super::tests::{Running, until};
use super::*;
use crate::ownership::testing::Register;

/// Places in a file at which a bit is flipped.
const PLACES: usize = 24;
const KEYS: usize = 8;

fn store(folder: &Path) -> Arc<dyn ObjectStore> {
    Arc::new(LocalFileSystem::new_with_prefix(folder).unwrap().with_fsync(true))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for file in files(from) {
        let copied = to.path().join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(copied.parent().unwrap()).unwrap();
        fs::copy(file, copied).unwrap();
    }
    to
}

fn value(number: usize) -> String {
    format!("value {number} ").repeat(20)
}

/// What was found of a damaged folder: how many reads were refused, and whether it was told of.
async fn read_all(folder: &Path, at: &str) -> (usize, bool) {
    let running = Running::begin(store(folder), Arc::<Register>::default().take());
    let mut state = running.engine.0.state.subscribe();
    let _ = state.wait_for(|state| !matches!(state, State::Opening(None))).await;
    let mut refused = 0;
    for number in 0..KEYS {
        match running.get(&format!("key-{number}")).await {
            Ok(found) => assert_eq!(found, Some(value(number)), "{at}: key-{number}"),
            Err(refusal) => {
                let is_told =
                    matches!(refusal, Refusal::Damaged(_) | Refusal::Broken(_) | Refusal::NotOpen(_));
                assert!(is_told, "{at}: key-{number}: {refusal}");
                refused += 1;
            }
        }
    }
    let page = running.engine.page(&Query { values: true, ..Query::default() }).await;
    match page {
        Ok(page) => {
            assert_eq!((refused, page.value.keys.len()), (0, KEYS), "{at}: a listing shows all or fails");
        }
        Err(refusal) => assert!(!matches!(refusal, Refusal::Unread(_)), "{at}: {refusal}"),
    }
    let told = matches!(running.engine.health(), Health::Degraded(_));
    running.stop().await;
    (refused, told)
}

/// Flips bits in the files of one kind. How many flips were told of.
async fn flipped(whole: &Path, kind: &str) -> usize {
    let mut told = 0;
    let victims = files(&whole.join("db").join(kind));
    let victim = victims.iter().max_by_key(|file| fs::metadata(file).unwrap().len()).unwrap();
    let length = fs::read(victim).unwrap().len();
    for place in 0..PLACES {
        let folder = copy(whole);
        let damaged = folder.path().join(victim.strip_prefix(whole).unwrap());
        let mut bytes = fs::read(&damaged).unwrap();
        let byte = length * place / PLACES;
        bytes[byte] ^= 1 << (place % 8);
        fs::write(&damaged, bytes).unwrap();
        let at = format!("{kind}, byte {byte} of {length}");
        let (refused, is_told) = read_all(folder.path(), &at).await;
        assert!(refused == 0 || is_told, "{at}: health says nothing");
        told += usize::from(is_told);
    }
    told
}

#[tokio::test]
async fn a_bit_that_flips_in_a_table_or_in_the_log_is_told_of_and_never_shown_as_data() {
    let folder = tempfile::tempdir().unwrap();
    let register = Arc::<Register>::default();
    let running = Running::start(store(folder.path()), &register).await;
    let writes: Vec<_> = (0..KEYS).map(|number| (format!("key-{number}"), value(number))).collect();
    let puts = writes.iter().map(|(name, value)| running.put(name, value));
    for put in futures_util::future::join_all(puts).await {
        put.unwrap();
    }
    // As if it had been killed here: all is in the log, nothing in a table.
    let logged = copy(folder.path());
    running.stop().await;
    until(async || folder.path().join("db/compacted").is_dir()).await;

    let told = flipped(logged.path(), "wal").await;
    assert!(told > PLACES / 2, "{told} of {PLACES} flips in the log were told of");
    let told = flipped(folder.path(), "compacted").await;
    assert!(told > PLACES / 2, "{told} of {PLACES} flips in a table were told of");
}

#[tokio::test]
async fn what_can_not_be_opened_is_told_as_damaged_until_it_is_restored() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(store(folder.path()), &Arc::default()).await;
    running.put("key-0", &value(0)).await.unwrap();
    let logged = copy(folder.path());
    running.stop().await;

    let log = files(&logged.path().join("db/wal"));
    let file = log.iter().max_by_key(|file| fs::metadata(file).unwrap().len()).unwrap();
    let whole = fs::read(file).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 3] ^= 1;
    fs::write(file, damaged).unwrap();
    let running = Running::begin(store(logged.path()), Arc::<Register>::default().take());
    let opened = running.engine.opened(Duration::from_secs(60)).await;
    let Err(refusal @ Refusal::Broken(_)) = opened else { panic!("{opened:?}") };
    assert_eq!(running.engine.health(), Health::Degraded(refusal.to_string()));
    assert_eq!(running.get("key-0").await, Err(refusal.clone()));
    assert_eq!(running.put("key-0", "x").await, Err(refusal));

    fs::write(file, whole).unwrap();
    until(async || running.engine.health() == Health::Ready).await;
    assert_eq!(running.get("key-0").await.unwrap(), Some(value(0)));
    running.stop().await;
}
