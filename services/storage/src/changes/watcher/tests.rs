use std::sync::Arc;

use slatedb::object_store::ObjectStore;
use slatedb::object_store::memory::InMemory;
use slatedb::{Db, WriteBatch};

use super::*;
use crate::engine::open::PATH;

/// Writes batches of one row each into one file of the log.
async fn write(db: &Db, feed: &Feed, batches: usize, value: &Bytes) {
    let mut written = Vec::new();
    for _ in 0..batches {
        let mut batch = WriteBatch::new();
        batch.put(b"ka", value);
        written.push(db.write(batch).await.unwrap().seqnum());
    }
    db.flush().await.unwrap();
    for seq in written {
        feed.wrote(seq, [(Bytes::from_static(b"ka"), Some(value.clone()))]);
    }
}

async fn database() -> (Db, History) {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let settings = slatedb::Settings { flush_interval: None, ..slatedb::Settings::default() };
    let db = Db::builder(PATH, Arc::clone(&objects)).with_settings(settings).build().await.unwrap();
    (db, History::new(objects))
}

async fn seqs(watcher: &mut Watcher, count: usize) -> Vec<u64> {
    let mut seqs = Vec::new();
    for _ in 0..count {
        seqs.push(watcher.next().await.unwrap().seq());
    }
    seqs
}

#[tokio::test]
async fn nothing_is_skipped_when_memory_drops_the_rest_of_a_file_that_is_being_read() {
    let (db, history) = database().await;
    let value = Bytes::from(vec![0; 1_000]);
    // Room for two batches.
    let feed = Feed::with_room(0, 2_500);
    write(&db, &feed, 4, &value).await;
    let begin = Some(Place { seq: 1, row: 0 });
    let mut watcher = Watcher::begin(feed.clone(), history, begin).await.unwrap();
    assert_eq!(seqs(&mut watcher, 2).await, [1, 2]);
    // Memory had the unseen batches of the first file; now it does not.
    write(&db, &feed, 4, &value).await;
    assert_eq!(seqs(&mut watcher, 6).await, [3, 4, 5, 6, 7, 8]);
    db.close().await.unwrap();
}

#[tokio::test]
async fn a_slow_watcher_holds_a_place_and_no_batch() {
    let (db, history) = database().await;
    let value = Bytes::from(vec![0; 1_000]);
    let feed = Feed::with_room(0, 1);
    write(&db, &feed, 2, &value).await;
    let last = match feed.lookup(Place { seq: 2, row: 0 }) {
        Lookup::Batch(last) => Arc::downgrade(&last),
        other => panic!("{other:?}"),
    };
    let mut watcher = Watcher::begin(feed.clone(), history, Some(Place { seq: 1, row: 0 })).await.unwrap();
    assert_eq!(seqs(&mut watcher, 2).await, [1, 2]);
    write(&db, &feed, 1, &value).await;
    assert!(last.upgrade().is_none());
    db.close().await.unwrap();
}

#[test]
fn rows_come_a_few_at_a_time_each_once() {
    let of = |size: usize| Some(Bytes::from(vec![0; size]));
    let sizes = [10, ROWS, 10, 10, 3 * ROWS, ROWS - 100, 10];
    let rows = sizes
        .iter()
        .enumerate()
        .map(|(at, size)| (Bytes::from(vec![b'a', u8::try_from(at).unwrap()]), of(*size)));
    let batch = Batch { seq: 7, rows: rows.collect() };
    let (mut place, mut taken, mut steps) = (Place { seq: 7, row: 0 }, Vec::new(), Vec::new());
    while place.seq == 7 {
        let mut rows = Rows::of(&batch, place.row);
        assert_eq!(rows.large(b"b"), None);
        steps.push((rows.rows.len(), rows.large(b"a").is_some()));
        place = rows.place_after(rows.rows.len());
        while let Some(row) = rows.take() {
            taken.push(row);
        }
        assert_eq!(rows.place(), place);
    }
    assert_eq!(taken, batch.rows);
    assert_eq!(steps, [(1, false), (1, true), (2, false), (1, true), (2, false)]);
}
