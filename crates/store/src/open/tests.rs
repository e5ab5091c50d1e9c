use futures_util::TryStreamExt;
use object_store::{ObjectStoreExt, PutPayload};

use super::*;
use crate::faults::{Faults, Mode};
use crate::testing::Place as TestPlace;

fn cluster() -> ClusterId {
    "demo".parse().unwrap()
}

fn memory() -> StoreUrl {
    "memory:///".parse().unwrap()
}

async fn over(objects: &Arc<dyn ObjectStore>) -> Result<Store, OpenError> {
    Store::over(Arc::clone(objects), memory(), &cluster()).await
}

async fn everything(objects: &Arc<dyn ObjectStore>) -> Vec<String> {
    let mut names: Vec<String> =
        objects.list(None).map_ok(|meta| meta.location.to_string()).try_collect().await.unwrap();
    names.sort();
    names
}

#[tokio::test]
async fn a_store_keeps_its_identity_and_the_test_leaves_nothing() {
    for place in [TestPlace::memory(), TestPlace::folder()] {
        let first = over(&place.store).await.unwrap();
        let second = over(&place.store).await.unwrap();
        assert_eq!(first.info(), second.info());
        assert_eq!(everything(&place.store).await, ["demo/store.json"]);
        let other: ClusterId = "other".parse().unwrap();
        let other = Store::over(Arc::clone(&place.store), memory(), &other).await.unwrap();
        assert_ne!(other.info().id, first.info().id);
    }
}

#[tokio::test]
async fn a_folder_of_any_name_is_made() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("a b").join("100%20 #1?ü");
    let url = StoreUrl::folder(&folder).unwrap();
    let store = Store::open(&url, &cluster()).await.unwrap();
    assert_eq!(store.info().url, url.to_string());
    assert!(folder.join("demo/store.json").is_file());
    assert_eq!(std::fs::read_dir(folder.join("demo/probe")).unwrap().count(), 0, "empty folders are removed");
    let again: StoreUrl = url.to_string().parse().unwrap();
    assert_eq!(Store::open(&again, &cluster()).await.unwrap().info(), store.info());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_that_open_a_new_store_at_once_agree_on_its_identity() {
    for place in [TestPlace::memory(), TestPlace::folder()] {
        let openers = (0..6).map(|_| {
            let store = Arc::clone(&place.store);
            async move { over(&store).await.unwrap().info().clone() }
        });
        let infos = openers.collect::<tokio::task::JoinSet<_>>().join_all().await;
        assert!(infos.iter().all(|info| info == &infos[0]), "{infos:?}");
    }
}

#[tokio::test]
async fn a_role_has_its_own_data() {
    let place = TestPlace::memory();
    let store = over(&place.store).await.unwrap();
    let data = store.data(&"storage/7".parse().unwrap());
    data.put(&Path::from("wal/1"), PutPayload::from_static(b"x")).await.unwrap();
    assert!(everything(&place.store).await.contains(&"demo/data/storage/7/wal/1".to_owned()));
}

#[tokio::test]
async fn a_store_that_ignores_if_none_match_is_refused_when_it_is_new_and_when_it_is_not() {
    let place = TestPlace::memory();
    let faults = Faults::new(Arc::clone(&place.store));
    faults.ignore_create(true);
    let error = over(&faults.objects()).await.unwrap_err();
    let message = error.to_string();
    assert!(message.starts_with("the store memory:/// cannot hold a cluster: "), "{message}");
    assert!(message.contains("creators of one object"), "{message}");
    assert!(message.contains("two nodes could own one shard"), "{message}");
    assert!(error.hint().unwrap().contains("Amazon S3"));
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(everything(&place.store).await, Vec::<String>::new(), "the test is cleaned up");

    faults.ignore_create(false);
    over(&faults.objects()).await.unwrap();
    faults.ignore_create(true);
    let error = over(&faults.objects()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the store memory:/// cannot hold a cluster: 2 creators of one object both succeeded: it ignores \
         If-None-Match, so two nodes could own one shard"
    );
    assert_eq!(everything(&place.store).await, ["demo/store.json"]);
}

#[tokio::test(start_paused = true)]
async fn opening_a_hanging_store_times_out() {
    let faults = Faults::new(TestPlace::memory().store);
    faults.set(Mode::Hang);
    let began = tokio::time::Instant::now();
    let error = over(&faults.objects()).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot read `store.json` in memory:///: no answer within 10s");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(began.elapsed() < Duration::from_secs(11), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_can_be_opened() {
    let faults = Faults::new(TestPlace::memory().store);
    faults.delay(Duration::from_secs(2));
    over(&faults.objects()).await.unwrap();
}

#[tokio::test]
async fn a_store_that_fails_is_described() {
    let faults = Faults::new(TestPlace::memory().store);
    for (mode, cause) in [
        (Mode::Unreachable, "it cannot be reached (connection refused)"),
        (Mode::FailWrites(std::io::ErrorKind::StorageFull), "the disk is full"),
        (Mode::FailWrites(std::io::ErrorKind::ReadOnlyFilesystem), "it is read-only"),
        (Mode::FailWrites(std::io::ErrorKind::PermissionDenied), "access is denied (permission denied)"),
    ] {
        faults.set(mode);
        let error = over(&faults.objects()).await.unwrap_err();
        assert!(error.to_string().ends_with(cause), "{error}");
        assert!(error.hint().is_some(), "{error}");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    faults.set(Mode::Work);
    over(&faults.objects()).await.unwrap();
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_described() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    std::fs::write(&file, "x").unwrap();
    for path in [file.clone(), file.join("below"), "/proc/coterie".into()] {
        let url = StoreUrl::folder(&path).unwrap();
        let error = Store::open(&url, &cluster()).await.unwrap_err();
        assert!(error.to_string().starts_with(&format!("cannot open {url}: ")), "{error}");
        assert!(error.hint().is_some(), "{error}");
    }
}

#[tokio::test]
async fn a_damaged_identity_is_reported_and_left_alone() {
    let place = TestPlace::memory();
    let name = Path::from("demo/store.json");
    for content in ["", "garbage", "{}", r#"{"id": "01a2079d-73a6-77dd-af5b-00e4d17ff8e8"}"#] {
        place.store.put(&name, content.into()).await.unwrap();
        let error = over(&place.store).await.unwrap_err();
        assert!(error.to_string().starts_with("`demo/store.json` in memory:/// is damaged: "), "{error}");
        assert!(error.hint().unwrap().contains("backup"));
        let found = place.store.get(&name).await.unwrap().bytes().await.unwrap();
        assert_eq!(found, content);
        assert_eq!(everything(&place.store).await, ["demo/store.json"]);
    }
}

#[tokio::test]
async fn each_store_in_memory_is_a_new_one() {
    let first = Store::open(&memory(), &cluster()).await.unwrap();
    let second = Store::open(&memory(), &cluster()).await.unwrap();
    assert_ne!(first.info().id, second.info().id);
    let poll = Duration::from_millis(250);
    assert_eq!((first.poll_interval(), first.defence_slack()), (poll, poll));
}

#[tokio::test]
async fn a_patient_node_leaves_the_test_of_a_new_store_to_the_others() {
    let place = TestPlace::memory();
    let made = std::sync::Mutex::new(None);
    let cluster = cluster();
    let patient = Store::over_patiently(Arc::clone(&place.store), memory(), &cluster, async {
        let opened = over(&place.store).await.unwrap();
        *made.lock().unwrap() = Some(opened.info().id);
    });
    let patient = Box::pin(patient).await.unwrap();
    assert_eq!(*made.lock().unwrap(), Some(patient.info().id), "it was made meanwhile");
    let again = Store::over_patiently(Arc::clone(&place.store), memory(), &cluster, std::future::pending());
    assert_eq!(
        Box::pin(again).await.unwrap().info(),
        patient.info(),
        "an existing store is opened without waiting"
    );
}
