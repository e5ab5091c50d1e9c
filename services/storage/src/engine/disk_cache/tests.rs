use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use plugin::{Metrics, Tasks};
use slatedb::object_store::ObjectStore;
use slatedb::object_store::memory::InMemory;
use store::faults::{Faults, Mode};
use tokio_util::sync::CancellationToken;
use types::range::NumberIn;

use super::*;
use crate::data::change::Change;
use crate::data::record::Record;
use crate::engine::data_clock::WallClock;
use crate::engine::testing::Owners;
use crate::engine::tests::{key, until};
use crate::engine::{Engine, Place};
use crate::settings::Settings;
use plugin::shard::ReadLevel;

const MIB: usize = 1024 * 1024;

/// An owner whose reads all miss the cache in memory.
struct Owner {
    engine: Engine,
    tasks: Tasks,
}

const KEYS: u64 = 200;

impl Owner {
    async fn start(objects: Arc<dyn ObjectStore>, folder: &Path, owners: &Arc<Owners>) -> Self {
        let settings = Settings { cache: Some(NumberIn::of::<0>()), ..Settings::default() };
        let (tasks, _failures) = Tasks::new();
        let place = Place {
            objects,
            folder: "data/storage/0".to_owned(),
            poll: Duration::from_millis(100),
            wall: WallClock::system(),
            disk: Some(DiskCache { folder: folder.to_owned(), bytes: 64 * MIB }),
        };
        let (metrics, stop) = (Metrics::new("test"), CancellationToken::new());
        let engine = Engine::start(place, owners.take().await, &settings, &metrics, &tasks, stop);
        engine.opened(Duration::from_secs(30)).await.unwrap();
        Self { engine, tasks }
    }

    /// Writes keys and puts them into a table.
    async fn fill(&self) {
        let record = |number: u64| Record::new(None, Bytes::from(number.to_string().repeat(1_000)));
        let changes = (0..KEYS).map(|number| Change::put(key(&number.to_string()), &record(number)));
        let space = self.engine.reserve(MIB).unwrap();
        self.engine.import(changes.collect(), space).await.unwrap();
        let tables = slatedb::config::FlushOptions { flush_type: slatedb::config::FlushType::MemTable };
        self.engine.db().flush_with_options(tables).await.unwrap();
        until(async || self.engine.db().manifest().all_sst_views().count() > 0).await;
    }

    /// Reads every key, and checks that it is as it was written.
    async fn read(&self) -> Result<(), String> {
        for number in 0..KEYS {
            let found = self.engine.get(&key(&number.to_string()), ReadLevel::Primary).await;
            let record = found.map_err(|error| error.to_string())?.value.ok_or("there is none")?.record;
            assert_eq!(record.value(), number.to_string().repeat(1_000).as_bytes(), "{number}");
        }
        Ok(())
    }

    async fn stop(self) {
        self.engine.stop().await;
        self.tasks.wait().await;
    }
}

/// The files in a folder and below it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// A kind of damage, and a function that does it to a file.
type Damage = (&'static str, fn(&Path));

fn is_part(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("_part"))
}

#[tokio::test]
async fn data_read_once_is_read_from_disk_even_after_a_restart() {
    let (faults, owners) = (Faults::new(Arc::new(InMemory::new())), Arc::default());
    let folder = tempfile::tempdir().unwrap();
    let first = Owner::start(faults.objects(), folder.path(), &owners).await;
    first.fill().await;
    first.read().await.unwrap();
    until(async || files(folder.path()).iter().any(|path| is_part(path))).await;
    first.read().await.unwrap();
    faults.set(Mode::Unreachable);
    first.read().await.expect("no request to the store is needed");
    faults.set(Mode::Work);
    first.stop().await;

    let second = Owner::start(faults.objects(), folder.path(), &owners).await;
    faults.set(Mode::Unreachable);
    second.read().await.expect("no request to the store is needed");
    faults.set(Mode::Work);
    second.stop().await;
}

#[tokio::test]
async fn a_cache_on_disk_may_be_damaged_and_deleted_while_it_is_used() {
    let (objects, owners): (Arc<dyn ObjectStore>, _) = (Arc::new(InMemory::new()), Arc::default());
    let around = tempfile::tempdir().unwrap();
    let folder = around.path().join("cache");
    let owner = Owner::start(objects, &folder, &owners).await;
    owner.fill().await;
    let damages: [Damage; 5] = [
        ("bits flipped", |file| {
            let damaged: Vec<u8> = fs::read(file).unwrap().iter().map(|byte| !byte).collect();
            fs::write(file, damaged).unwrap();
        }),
        ("cut short", |file| fs::write(file, b"x").unwrap()),
        ("emptied", |file| fs::write(file, b"").unwrap()),
        ("replaced by zeros", |file| {
            let length = fs::metadata(file).unwrap().len();
            fs::remove_file(file).unwrap();
            fs::write(file, vec![0; usize::try_from(length).unwrap()]).unwrap();
        }),
        ("deleted", |file| fs::remove_file(file).unwrap()),
    ];
    for (what, damage) in damages {
        owner.read().await.unwrap();
        until(async || files(&folder).iter().any(|path| is_part(path))).await;
        for file in files(&folder) {
            damage(&file);
        }
        owner.read().await.unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    fs::remove_dir_all(&folder).unwrap();
    owner.read().await.unwrap();
    owner.read().await.unwrap();
    // A file is in the place of the folder.
    let _ = fs::remove_dir_all(&folder);
    fs::write(&folder, "a file").unwrap();
    owner.read().await.unwrap();
    assert_eq!(owner.engine.health(), plugin::Health::Ready);
    owner.stop().await;
}
