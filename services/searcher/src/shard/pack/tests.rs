use store::faults::{Faults, Mode};
use store::object_store::memory::InMemory;

use super::*;

/// Files in a folder, each with this many bytes.
fn files(folder: &FilePath, sizes: &[usize]) -> Vec<NewFile> {
    let file = |(at, size): (usize, &usize)| {
        let bytes: Vec<u8> = (0..*size).map(|byte| u8::try_from((byte * 31 + at) % 251).unwrap()).collect();
        let path = folder.join(format!("{at}.bin"));
        std::fs::write(&path, &bytes).unwrap();
        let content = Content { len: u64::try_from(*size).unwrap(), crc: crc32fast::hash(&bytes) };
        NewFile { path, content }
    };
    sizes.iter().enumerate().map(file).collect()
}

#[tokio::test]
async fn files_are_fetched_as_they_were_uploaded() {
    let folder = tempfile::tempdir().unwrap();
    let objects = Faults::new(Arc::new(InMemory::new())).objects();
    for sizes in [&[1, 0, 100, 7][..], &[0], &[PART], &[PART - 1, 1, 1], &[3, 2 * PART + 5, 17, PART + 1, 0]]
    {
        let files = files(folder.path(), sizes);
        let stored = upload(&objects, &files).await.unwrap();
        let to = tempfile::tempdir().unwrap();
        let path = |at: usize| to.path().join(at.to_string());
        let wanted = |(at, stored): (usize, &StoredFile)| WantedFile { stored: *stored, path: path(at) };
        fetch(&objects, stored.iter().enumerate().map(wanted).collect()).await.unwrap();
        for (at, file) in files.iter().enumerate() {
            assert_eq!(
                std::fs::read(path(at)).unwrap(),
                std::fs::read(&file.path).unwrap(),
                "{sizes:?} {at}"
            );
        }
        // One of them alone.
        let last = stored.len() - 1;
        fetch(&objects, vec![WantedFile { stored: stored[last], path: path(99) }]).await.unwrap();
        assert_eq!(std::fs::read(path(99)).unwrap().len(), sizes[last]);
    }
}

#[tokio::test]
async fn a_local_file_that_is_not_what_was_written_is_not_uploaded() {
    let folder = tempfile::tempdir().unwrap();
    let objects = Faults::new(Arc::new(InMemory::new())).objects();
    let files = files(folder.path(), &[10, 10]);
    std::fs::write(&files[1].path, b"0123456789").unwrap();
    assert!(matches!(upload(&objects, &files).await, Err(PackError::Local { .. })));
    std::fs::remove_file(&files[1].path).unwrap();
    assert!(matches!(upload(&objects, &files).await, Err(PackError::Local { .. })));
    assert_eq!(objects.list(None).count().await, 0, "nothing is left on the store");
}

#[tokio::test]
async fn damage_is_named_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults::new(Arc::new(InMemory::new()));
    let objects = faults.objects();
    let stored = upload(&objects, &files(folder.path(), &[10, 20])).await.unwrap();
    let to = folder.path().join("fetched");
    let wanted = || vec![WantedFile { stored: stored[1], path: to.clone() }];
    let pack = location(stored[1].pack);
    faults.set(Mode::Unreachable);
    assert!(matches!(fetch(&objects, wanted()).await, Err(PackError::Store(_))));
    faults.set(Mode::Work);
    objects.put(&pack, vec![b'x'; 30].into()).await.unwrap();
    assert!(matches!(fetch(&objects, wanted()).await, Err(PackError::Damaged { .. })));
    objects.put(&pack, vec![b'x'; 15].into()).await.unwrap();
    assert!(matches!(fetch(&objects, wanted()).await, Err(PackError::Short { .. })));
    objects.delete(&pack).await.unwrap();
    assert!(matches!(fetch(&objects, wanted()).await, Err(PackError::Gone(_))));
    assert!(!to.exists());
}

#[test]
fn a_small_request_that_is_never_answered_ends_soon_and_a_large_one_may_take_longer() {
    for (bytes, seconds) in [(0, 5), (1_000, 5), (PART / 4, 11), (PART, 30), (usize::MAX, 30)] {
        assert_eq!(limit(bytes).as_secs(), seconds, "{bytes}");
    }
}
