//! Vectors on the store: they survive what their documents survive.

use serde_json::json;

use super::*;
use crate::search::{Cancel, SearchRequest, combine, execute, merge as merge_answers, prepare};

fn vector_index() -> Arc<Index> {
    let definition = json!({"fields": {"v": {"type": "vector", "dims": 2, "similarity": "l2_norm"}}});
    let created: Definition = serde_json::from_value(definition).unwrap();
    let schema = Arc::new(IndexSchema::new(&created, Arc::new(created.clone())));
    Arc::new(Index { name: "v".to_owned(), uuid: Uuid::now_v7(), created, schema })
}

async fn world() -> (World, Arc<Index>) {
    let world = World::new().await;
    let index = vector_index();
    world.indexes.send_replace(Arc::new(Indexes::new(2, [Arc::clone(&index)])));
    (world, index)
}

fn put_vector(index: &Arc<Index>, id: &str, x: u32) -> Write {
    let change = Change::Put(raw(&json!({"v": [x, 0]}).to_string()));
    Write { index: Arc::clone(index), id: id.to_owned(), change, condition: None }
}

/// The ids of the documents that are nearest to a point.
async fn nearest(running: &Running, index: &Arc<Index>, x: f32, k: usize, level: ReadLevel) -> Vec<String> {
    let snapshot = running.shard.snapshot(index, level).await.unwrap().value;
    let body = json!({"knn": {"field": "v", "vector": [x, 0.0], "k": k}}).to_string();
    let request = SearchRequest::from_json(body.as_bytes()).unwrap();
    let (shard, cancel) = (types::ShardId::try_from(0_u32).unwrap(), Cancel::default());
    let prepared = prepare(&snapshot, &request).unwrap();
    let prepared = prepared.with_nearest(&snapshot, &request, shard, &cancel).unwrap();
    let found = execute(&snapshot, &request, &combine([prepared]), shard, &cancel).unwrap();
    let answer = merge_answers(&request, &index.schema, vec![(0, found)]).unwrap();
    answer.hits.into_iter().map(|hit| hit.id).collect()
}

#[tokio::test]
async fn vectors_survive_merges_owners_and_folders() {
    let (world, index) = world().await;
    let first = world.owner("a").await;
    for number in 0..30_u32 {
        first.write(put_vector(&index, &format!("d{number}"), number)).await.unwrap().unwrap();
        if number % 5 == 0 {
            first.shard.refresh().await.unwrap();
        }
    }
    first.write(delete(&index, "d10")).await.unwrap().unwrap();
    first.write(put_vector(&index, "d11", 500)).await.unwrap().unwrap();
    let expected = ["d9", "d8", "d12"];
    assert_eq!(nearest(&first, &index, 9.6, 3, ReadLevel::Strong).await, expected);
    first.shard.compact(&index).await.unwrap();
    assert_eq!(nearest(&first, &index, 9.6, 3, ReadLevel::Strong).await, expected);
    assert_eq!(nearest(&first, &index, 499.0, 1, ReadLevel::Strong).await, ["d11"]);
    let snapshot = first.shard.snapshot(&index, ReadLevel::Primary).await.unwrap().value;
    assert_eq!(
        snapshot.vectors.len(),
        snapshot.searcher.segment_readers().len(),
        "no other file is kept open"
    );
    first.shard.refresh().await.unwrap();
    first.write(put_vector(&index, "late", 600)).await.unwrap().unwrap();
    first.kill().await;
    for node in ["a", "empty", "b"] {
        let next = world.owner(node).await;
        assert_eq!(nearest(&next, &index, 9.6, 3, ReadLevel::Strong).await, expected, "{node}");
        assert_eq!(nearest(&next, &index, 601.0, 1, ReadLevel::Strong).await, ["late"], "{node}");
        if node == "a" { next.kill().await } else { next.stop().await }
    }
    let manifest = world.manifests().latest().await.unwrap().unwrap().value;
    let files = &manifest.indexes[&index.uuid].files;
    assert!(files.keys().any(|name| name.ends_with(".vec")), "the manifest names them: {:?}", files.keys());
}

#[tokio::test]
async fn a_replica_finds_the_nearest_as_its_owner_does() {
    let (world, index) = world().await;
    let (owner, replica) = (world.owner("a").await, world.replica("r").await);
    for number in 0..12_u32 {
        owner.write(put_vector(&index, &format!("d{}", number % 8), number)).await.unwrap().unwrap();
        owner.shard.refresh().await.unwrap();
    }
    owner.shard.compact(&index).await.unwrap();
    let expected = nearest(&owner, &index, 0.0, 4, ReadLevel::Strong).await;
    assert_eq!(expected, ["d4", "d5", "d6", "d7"], "the others were written again, further away");
    until(async || {
        replica.shard.snapshot(&index, ReadLevel::Any).await.is_ok()
            && nearest(&replica, &index, 0.0, 4, ReadLevel::Any).await == expected
    })
    .await;
    owner.stop().await;
    replica.stop().await;
}

#[tokio::test]
async fn a_damaged_local_file_of_vectors_is_fetched_again() {
    let (world, index) = world().await;
    let owner = world.owner("a").await;
    for number in 0..10_u32 {
        owner.write(put_vector(&index, &format!("d{number}"), number)).await.unwrap().unwrap();
    }
    owner.shard.refresh().await.unwrap();
    let folder = world.folder("a");
    // Ended in the middle, so its files are not trusted.
    owner.kill().await;
    let mut damaged = 0;
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "vec") {
                let mut bytes = std::fs::read(&path).unwrap();
                bytes[9] ^= 0x40;
                std::fs::write(&path, bytes).unwrap();
                damaged += 1;
            }
        }
    }
    assert!(damaged > 0);
    let next = world.owner("a").await;
    for number in 0..10_u8 {
        let id = format!("d{number}");
        assert_eq!(nearest(&next, &index, f32::from(number), 1, ReadLevel::Strong).await, [id]);
    }
    next.stop().await;
}
