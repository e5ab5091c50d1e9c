//! Damaged files on the store are reported, and never returned as data.

use std::fs;
use std::path::{Path, PathBuf};

use futures_util::{StreamExt, stream};
use slatedb::object_store::local::LocalFileSystem;
use types::reason::DAMAGED_DATA;

use super::tests::{Running, until};
use super::*;
use crate::engine::testing::Owners;

/// The number of places in a file at which a bit is flipped.
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

/// Whether a read failed because the disk was slow, which is no sign of damage.
fn is_busy(why: &str) -> bool {
    why.contains("has not answered")
}

/// Reads a key, again if the disk was too slow.
async fn read_key(running: &Running, number: usize) -> Result<Option<String>, EngineError> {
    loop {
        match running.get(&format!("key-{number}")).await {
            Err(EngineError::Unread(why)) if is_busy(&why) => {}
            answer => return answer,
        }
    }
}

/// Reads all keys of a damaged folder: how many reads failed, and whether health reported damage.
async fn read_all(folder: &Path, at: &str) -> (usize, bool) {
    let running = Running::begin(store(folder), Arc::<Owners>::default().take().await);
    running.engine.0.kept.tried(Duration::from_secs(60)).await;
    let mut refused = 0;
    for number in 0..KEYS {
        match read_key(&running, number).await {
            Ok(found) => assert_eq!(found, Some(value(number)), "{at}: key-{number}"),
            Err(error) => {
                let is_reported = matches!(
                    error,
                    EngineError::Damaged(_) | EngineError::Broken(_) | EngineError::NotOpen(_)
                );
                assert!(is_reported, "{at}: key-{number}: {error}");
                refused += 1;
            }
        }
    }
    let page =
        running.engine.scan(&ScanRange { values: true, ..ScanRange::default() }, ReadLevel::Strong).await;
    match page {
        Ok(page) => {
            assert_eq!((refused, page.value.keys.len()), (0, KEYS), "{at}: a listing shows all or fails");
        }
        Err(EngineError::Unread(why)) => assert!(is_busy(&why), "{at}: {why}"),
        Err(_) => {}
    }
    let is_degraded = matches!(running.engine.health(), Health::Degraded(_));
    running.stop().await;
    (refused, is_degraded)
}

/// Flips bits in the files of one kind. Returns how many flips health reported.
async fn flipped(whole: &Path, kind: &str) -> usize {
    let mut reported = 0;
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
        let (refused, is_reported) = read_all(folder.path(), &at).await;
        assert!(refused == 0 || is_reported, "{at}: health says nothing");
        reported += usize::from(is_reported);
    }
    reported
}

#[tokio::test]
async fn a_flipped_bit_in_a_table_or_in_the_log_is_reported_and_never_returned_as_data() {
    let folder = tempfile::tempdir().unwrap();
    let owners = Arc::<Owners>::default();
    let running = Running::start(store(folder.path()), &owners).await;
    let writes: Vec<_> = (0..KEYS).map(|number| (format!("key-{number}"), value(number))).collect();
    let puts = writes.iter().map(|(name, value)| running.put(name, value));
    for put in futures_util::future::join_all(puts).await {
        put.unwrap();
    }
    // The state after a kill: all is in the log, nothing in a table.
    let logged = copy(folder.path());
    running.stop().await;
    until(async || folder.path().join("db/compacted").is_dir()).await;

    let reported = flipped(logged.path(), "wal").await;
    assert!(reported > PLACES / 2, "{reported} of {PLACES} flips in the log were reported");
    let reported = flipped(folder.path(), "compacted").await;
    assert!(reported > PLACES / 2, "{reported} of {PLACES} flips in a table were reported");
}

#[tokio::test]
async fn a_database_that_can_not_be_opened_is_reported_as_damaged_until_it_is_restored() {
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
    let running = Running::begin(store(logged.path()), Arc::<Owners>::default().take().await);
    let opened = running.engine.opened(Duration::from_secs(60)).await;
    let Err(error @ EngineError::Broken(_)) = opened else { panic!("{opened:?}") };
    assert_eq!(running.engine.health(), Health::degraded(DAMAGED_DATA, error.to_string()));
    assert_eq!(running.get("key-0").await, Err(error.clone()));
    assert_eq!(running.put("key-0", "x").await, Err(error));

    fs::write(file, whole).unwrap();
    until(async || running.engine.health() == Health::Ready).await;
    assert_eq!(running.get("key-0").await.unwrap(), Some(value(0)));
    running.stop().await;
}

/// A way to damage a file.
#[derive(Debug, Clone, Copy)]
enum Harm {
    Removed,
    Emptied,
    Halved,
    /// The last byte is missing.
    Shortened,
    /// Every byte is changed.
    Replaced,
}

const HARMS: [Harm; 5] = [Harm::Removed, Harm::Emptied, Harm::Halved, Harm::Shortened, Harm::Replaced];

impl Harm {
    /// Damages a file. Returns whether that changed anything.
    fn apply(self, file: &Path) -> bool {
        let whole = fs::read(file).unwrap();
        let left = match self {
            Self::Removed => {
                fs::remove_file(file).unwrap();
                return true;
            }
            Self::Emptied => Vec::new(),
            Self::Halved => whole[..whole.len() / 2].to_vec(),
            Self::Shortened => whole[..whole.len().saturating_sub(1)].to_vec(),
            Self::Replaced => whole.iter().map(|byte| !byte).collect(),
        };
        fs::write(file, &left).unwrap();
        left != whole
    }
}

/// Writes all keys again, one by one, beginning with `first`.
async fn write_all(running: &Running, first: usize) {
    for number in 0..KEYS {
        let number = (first + number) % KEYS;
        running.put(&format!("key-{number}"), &value(number)).await.unwrap();
    }
}

/// Folders as owners left them: killed with everything in the log; with tables only; and both, after several owners.
async fn folders() -> Vec<(&'static str, tempfile::TempDir)> {
    let folder = tempfile::tempdir().unwrap();
    let owners = Arc::<Owners>::default();
    let running = Running::start(store(folder.path()), &owners).await;
    write_all(&running, 0).await;
    let logged = copy(folder.path());
    running.stop().await;
    let closed = copy(folder.path());
    for owner in 0..3 {
        let running = Running::start(store(folder.path()), &owners).await;
        write_all(&running, owner).await;
        if owner == 2 {
            let mixed = copy(folder.path());
            running.stop().await;
            return vec![("logged", logged), ("closed", closed), ("mixed", mixed)];
        }
        // The next owner fences it while it runs, so its stop closes nothing.
        let next = Running::start(store(folder.path()), &owners).await;
        write_all(&next, owner + 1).await;
        running.stop().await;
        next.stop().await;
    }
    unreachable!("it returns");
}

/// Whether all keys are read as written; if not, checks that damage is reported, with the file.
async fn is_whole(folder: &Path, victim: &Path, at: &str) -> bool {
    let running = Running::begin(store(folder), Arc::<Owners>::default().take().await);
    let opened = running.engine.opened(Duration::from_secs(60)).await;
    let mut is_whole = opened.is_ok();
    if let Err(error) = &opened {
        assert!(matches!(error, EngineError::Broken(_)), "{at}: {error}");
        let name = victim.file_name().unwrap().to_str().unwrap();
        let names_a_file = ["db/wal/", "db/manifest/", "db/compacted/", "db/compactions/"];
        let text = error.to_string();
        assert!(text.contains(name) || names_a_file.iter().any(|of| text.contains(of)), "{at}: {text}");
        assert_eq!(running.engine.health(), Health::degraded(DAMAGED_DATA, text), "{at}");
    }
    for number in 0..KEYS {
        match read_key(&running, number).await {
            Ok(found) => assert_eq!(found, Some(value(number)), "{at}: key-{number}"),
            Err(EngineError::Damaged(_) | EngineError::Broken(_)) => is_whole = false,
            Err(error) => panic!("{at}: key-{number}: {error}"),
        }
    }
    running.stop().await;
    is_whole
}

#[tokio::test]
async fn no_damage_to_a_file_silently_loses_an_acknowledged_write() {
    let states = folders().await;
    let mut cases = Vec::new();
    for (state, whole) in &states {
        let all = files(&whole.path().join("db"));
        assert!(all.len() > 3, "{state}: {all:?}");
        let newest = all.iter().filter(|file| file.parent().unwrap().ends_with("wal")).max().cloned();
        // All but the last few manifests and lists of compactions are not used any longer.
        let is_history = |file: &PathBuf| {
            let folder = file.parent().unwrap();
            let later = all.iter().filter(|other| *other > file && other.parent() == Some(folder)).count();
            !folder.ends_with("wal") && !folder.ends_with("compacted") && later > 2
        };
        for victim in all.iter().filter(|file| !is_history(file)) {
            for harm in HARMS {
                let folder = copy(whole.path());
                let name = victim.strip_prefix(whole.path()).unwrap();
                let damaged = folder.path().join(name);
                // Without a later note, the removal of the newest file of the log leaves no trace.
                let is_newest = newest.as_ref() == Some(victim);
                if (is_newest && matches!(harm, Harm::Removed)) || !harm.apply(&damaged) {
                    continue;
                }
                let at = format!("{state}: {} {harm:?}", name.display());
                cases.push(async move { is_whole(folder.path(), &damaged, &at).await });
            }
        }
    }
    let tried = cases.len();
    let outcomes: Vec<bool> = stream::iter(cases).buffer_unordered(16).collect().await;
    let found = outcomes.iter().filter(|is_whole| !**is_whole).count();
    assert!(tried > 150 && found > tried / 5, "{found} of {tried} were found");
}

#[tokio::test]
async fn a_removed_newest_file_is_reported_once_it_was_noted_and_can_be_declared_lost() {
    let folder = tempfile::tempdir().unwrap();
    let owners = Arc::<Owners>::default();
    let running = Running::start(store(folder.path()), &owners).await;
    running.put("key-0", &value(0)).await.unwrap();
    running.put("key-1", &value(1)).await.unwrap();
    let epoch = running.engine.db().manifest().writer_epoch();
    running.engine.0.seen.note().write(&store(folder.path()), epoch).await.unwrap();
    let noted = copy(folder.path());
    running.stop().await;

    let newest = files(&noted.path().join("db/wal")).pop().unwrap();
    fs::remove_file(&newest).unwrap();
    let running = Running::begin(store(noted.path()), Arc::<Owners>::default().take().await);
    let opened = running.engine.opened(Duration::from_secs(60)).await;
    let Err(EngineError::Broken(why)) = opened else { panic!("{opened:?}") };
    let (_, remedy) = why.split_once("create an empty file `").unwrap();
    let (lost, _) = remedy.split_once('`').unwrap();
    fs::write(noted.path().join(lost), "").unwrap();
    until(async || running.engine.health() == Health::Ready).await;
    assert_eq!(running.get("key-0").await.unwrap(), Some(value(0)));
    assert_eq!(running.get("key-1").await.unwrap(), None, "it was declared lost");
    running.put("key-1", "anew").await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn a_file_in_the_middle_of_the_log_can_be_declared_lost() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(store(folder.path()), &Arc::default()).await;
    write_all(&running, 0).await;
    for harm in [Harm::Removed, Harm::Emptied] {
        let logged = copy(folder.path());
        let log = files(&logged.path().join("db/wal"));
        harm.apply(&log[KEYS / 2]);
        let damaged = Running::begin(store(logged.path()), Arc::<Owners>::default().take().await);
        let opened = damaged.engine.opened(Duration::from_secs(60)).await;
        let Err(EngineError::Broken(why)) = opened else { panic!("{harm:?}: {opened:?}") };
        let (_, remedy) = why.split_once("create an empty file `").unwrap();
        fs::write(logged.path().join(remedy.split_once('`').unwrap().0), "").unwrap();
        until(async || damaged.engine.health() == Health::Ready).await;
        let mut left = 0;
        for number in 0..KEYS {
            let found = damaged.get(&format!("key-{number}")).await.unwrap();
            assert!(found.is_none() || found == Some(value(number)), "{harm:?}: key-{number}");
            left += usize::from(found.is_some());
        }
        assert_eq!(left, KEYS - 1, "{harm:?}");
        damaged.stop().await;
    }
    running.stop().await;
}

#[tokio::test]
async fn fences_of_openings_that_ended_early_are_no_damage() {
    let folder = tempfile::tempdir().unwrap();
    let owners = Arc::<Owners>::default();
    let running = Running::start(store(folder.path()), &owners).await;
    write_all(&running, 0).await;
    let logged = copy(folder.path());
    running.stop().await;
    // The state after each of these was killed before it wrote a note.
    for _ in 0..3 {
        let db = Db::builder("db", store(logged.path())).build().await.unwrap();
        drop(db);
    }
    let running = Running::start(store(logged.path()), &owners).await;
    write_all(&running, 3).await;
    let again = copy(logged.path());
    running.stop().await;
    assert!(is_whole(again.path(), again.path(), "after unfinished openings").await);
}
