use super::*;
use crate::shard::manifest::StoredFile;

fn index(files: &[(&str, u64, u32)]) -> StoredIndex {
    let stored = |&(name, len, crc): &(&str, u64, u32)| {
        (name.to_owned(), StoredFile { len, crc, pack: Uuid::nil(), offset: 0 })
    };
    StoredIndex { meta: serde_json::Value::Null, files: files.iter().map(stored).collect() }
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_file_stays_only_with_the_right_length_and_checksum() {
    let index = index(&[("good", 3, 1), ("short", 3, 1), ("bad", 3, 9), ("missing", 3, 1)]);
    let found = [("good", 3), ("short", 2), ("bad", 3), ("other", 3), (META, 7)];
    let found = found.map(|(name, len)| (name.to_owned(), len)).into();
    let plan = plan(&index, &found, |_, content| Ok(content.crc == 1)).unwrap();
    assert_eq!(plan.fetch, names(&["short", "bad", "missing"]));
    assert_eq!(plan.remove, names(&["short", "bad", "other", META]));
}

#[test]
fn a_folder_is_clean_only_after_it_was_marked_and_only_once() {
    let folder = tempfile::tempdir().unwrap();
    let open = || ShardFolder::open(folder.path().join("a/b")).unwrap();
    assert!(!open().was_clean());
    let first = open();
    first.mark_clean().unwrap();
    assert!(ShardFolder::open(folder.path().join("a/b")).is_err(), "it is locked");
    drop(first);
    assert_eq!(open().was_clean(), boot_id().is_some());
    assert!(!open().was_clean(), "the mark is gone");
    replace(&folder.path().join("a/b").join(CLEAN), b"another start of the machine").unwrap();
    assert!(!open().was_clean());
}

#[test]
fn names_that_lead_out_of_the_folder_are_bad() {
    for (name, is_bad) in [
        ("0a.idx", false),
        ("0a.17.del", false),
        ("../x", true),
        ("/etc/x", true),
        (".managed.json", true),
        ("", true),
        ("a b", true),
        ("a\\b", true),
    ] {
        let indexes = [(Uuid::nil(), index(&[(name, 1, 1)]))].into();
        let manifest = Manifest { indexes, ..Manifest::default() };
        assert_eq!(manifest.bad_name().is_some(), is_bad, "{name}");
    }
}
