use serde_json::value::RawValue;

use super::*;
use crate::definition::Definition;
use crate::schema::IndexSchema;
use crate::shard::pending::{Logged, Pending};

fn index() -> Arc<Index> {
    let created = Definition::default();
    let schema = Arc::new(IndexSchema::new(&created, Arc::new(created.clone())));
    Arc::new(Index { name: "one".to_owned(), uuid: Uuid::now_v7(), created, schema })
}

/// A writer that fails after a commit is fed what it has already.
#[test]
fn operations_that_are_fed_again_after_a_commit_leave_one_document_of_each_id() {
    let (index, path) = (index(), tempfile::tempdir().unwrap());
    let folder = Arc::new(ShardFolder::open(path.path().join("shard")).unwrap());
    let catalog = Indexes::new(1, [Arc::clone(&index)]);
    let mut local = LocalIndexes::open(folder, SMALLEST, &Manifest::default(), &catalog).unwrap();
    let pending = Pending::new(0);
    let entry = |number: u64, operations: &[(&str, u64)]| {
        let logged = |(seq, (id, version)): (u64, &(&str, u64))| Logged {
            index: Arc::clone(&index),
            id: (*id).into(),
            seq,
            term: 1,
            version: *version,
            source: Some(Arc::from(RawValue::from_string("{}".to_owned()).unwrap())),
        };
        let first = pending.next_seq();
        let operations: Vec<_> = (first..).zip(operations).map(logged).collect();
        let end = first + u64::try_from(operations.len()).unwrap();
        pending.replayed(number, operations, end);
    };
    let documents = |refreshed: Refreshed| refreshed.searchers[&index.uuid].num_docs();
    entry(4, &[("a", 1), ("b", 1), ("a", 2)]);
    local.feed(&pending.unfed(usize::MAX)).unwrap();
    assert_eq!(documents(local.refresh().unwrap()), 2);
    entry(5, &[("b", 2), ("c", 1)]);
    for _ in 0..2 {
        local.reset().unwrap();
        local.feed(&pending.unfed(usize::MAX)).unwrap();
        assert_eq!(documents(local.refresh().unwrap()), 3);
    }
}
