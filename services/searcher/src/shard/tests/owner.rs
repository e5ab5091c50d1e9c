//! What one owner does: conditions, versions, merges, refreshes, compaction.

use super::*;

#[tokio::test]
async fn an_acknowledged_write_is_read_at_once_and_found_by_a_strong_search() {
    let world = World::new().await;
    let (owner, one, two) = (world.owner("a").await, world.index("one"), world.index("two"));
    let written = owner.put(&one, "x", "red apple").await;
    let expected = Written { seq: 0, term: owner.epoch(), version: 1, outcome: Outcome::Created };
    assert_eq!(written, expected);
    assert_eq!(owner.body(&one, "x").await.as_deref(), Some("red apple"));
    assert_eq!(owner.search(&one, "apple", ReadLevel::Strong).await, ["x"]);
    let written = owner.put(&one, "x", "green pear").await;
    let expected = Written { seq: 1, term: owner.epoch(), version: 2, outcome: Outcome::Updated };
    assert_eq!(written, expected);
    assert_eq!(owner.search(&one, "apple", ReadLevel::Strong).await, [""; 0]);
    assert_eq!(owner.search(&one, "pear", ReadLevel::Strong).await, ["x"]);
    assert_eq!((owner.get(&two, "x").await.is_none(), owner.count(&two).await), (true, 0));
    let written = owner.write(delete(&one, "x")).await.unwrap().unwrap();
    let expected = Written { seq: 2, term: owner.epoch(), version: 3, outcome: Outcome::Deleted };
    assert_eq!(written, expected);
    assert!(owner.get(&one, "x").await.is_none());
    assert_eq!(owner.count(&one).await, 0);
    assert!(owner.get(&one, "x").await.is_none(), "neither from the index");
    let again = owner.write(delete(&one, "x")).await.unwrap().unwrap();
    assert_eq!(again.outcome, Outcome::NotFound);
    assert_eq!(owner.put(&one, "x", "plum").await.version, 1, "versions begin again after a delete");
    assert_eq!(owner.shard.health(), Health::Ready);
    assert_eq!(owner.shard.staleness(), None);
    owner.stop().await;
}

#[tokio::test]
async fn conditions_are_checked_against_pending_and_indexed_documents() {
    let world = World::new().await;
    let (owner, one) = (world.owner("a").await, world.index("one"));
    let first = owner.put(&one, "x", "1").await;
    for is_indexed in [false, true] {
        if is_indexed {
            owner.shard.refresh().await.unwrap();
        }
        let (seq, term) = (first.seq, first.term);
        for (id, condition, now) in [
            ("x", Condition::Absent, Some(Some(seq))),
            ("y", Condition::Absent, None),
            ("x", Condition::Is { seq, term }, None),
            ("x", Condition::Is { seq: seq + 1, term }, Some(Some(seq))),
            ("x", Condition::Is { seq, term: term + 1 }, Some(Some(seq))),
            ("y", Condition::Is { seq, term }, Some(None)),
            ("x", Condition::Unchanged { seq }, None),
            ("x", Condition::Unchanged { seq: 7_000 }, Some(Some(seq))),
            ("y", Condition::Unchanged { seq }, Some(None)),
        ] {
            // One that holds does nothing.
            let change = if id == "x" {
                Change::Merge { patch: raw(r#"{"body":"1"}"#), upsert: None, detect_noop: true }
            } else {
                Change::Delete
            };
            let write =
                Write { index: Arc::clone(&one), id: id.to_owned(), change, condition: Some(condition) };
            let outcome = owner.write(write).await.unwrap();
            let refused = outcome.err();
            assert_eq!(refused, now.map(|now| Refused::Changed { now }), "{id} {condition:?} {is_indexed}");
        }
    }
    owner.stop().await;
}

#[tokio::test]
async fn a_merge_replaces_what_the_patch_has_and_a_refused_one_changes_nothing() {
    let world = World::new().await;
    let (owner, one) = (world.owner("a").await, world.index("one"));
    let document = r#"{"body":"b","deep":{"a":1,"b":[1,2],"c":{"d":null}},"n":1}"#;
    let change = Change::Put(raw(document));
    owner
        .write(Write { index: Arc::clone(&one), id: "x".to_owned(), change, condition: None })
        .await
        .unwrap()
        .unwrap();
    owner.shard.refresh().await.unwrap();
    let same = owner.write(merge(&one, "x", r#"{"deep":{"b":[1,2],"c":{}},"n":1}"#)).await.unwrap().unwrap();
    assert_eq!((same.outcome, same.seq, same.version), (Outcome::Noop, 0, 1));
    let patch = r#"{"deep":{"b":[3],"c":{"d":{"e":2}},"f":null},"n":null}"#;
    let merged = owner.write(merge(&one, "x", patch)).await.unwrap().unwrap();
    assert_eq!((merged.outcome, merged.seq, merged.version), (Outcome::Updated, 1, 2));
    let now: serde_json::Value =
        serde_json::from_str(owner.get(&one, "x").await.unwrap().source.get()).unwrap();
    let expected = serde_json::json!({"body":"b","deep":{"a":1,"b":[3],"c":{"d":{"e":2}},"f":null},"n":null});
    assert_eq!(now, expected);

    assert_eq!(owner.write(merge(&one, "y", "{}")).await.unwrap(), Err(Refused::NoDocument));
    let change = Change::Merge { patch: raw("{}"), upsert: Some(raw(&body("new"))), detect_noop: true };
    let upsert = Write { index: Arc::clone(&one), id: "y".to_owned(), change, condition: None };
    assert_eq!(owner.write(upsert).await.unwrap().unwrap().outcome, Outcome::Created);
    assert_eq!(owner.body(&one, "y").await.as_deref(), Some("new"));
    for bad in ["[]", "null", "7", "\"x\""] {
        let change = Change::Put(raw(bad));
        let write = Write { index: Arc::clone(&one), id: "z".to_owned(), change, condition: None };
        assert!(matches!(owner.write(write).await.unwrap(), Err(Refused::Document(_))), "{bad}");
        let refused = owner.write(merge(&one, "x", bad)).await.unwrap();
        assert!(matches!(refused, Err(Refused::Document(_))), "a merge with {bad}");
    }
    let twice = owner.write(merge(&one, "x", r#"{"deep":{"b":1,"b":2}}"#)).await.unwrap().unwrap_err();
    assert_eq!(twice, Refused::Document("field `deep.b` is twice in one object".to_owned()));
    assert_eq!(owner.put(&one, "w", "w").await.seq, 3, "what was refused has no number");
    owner.stop().await;
}

#[tokio::test]
async fn the_writes_of_a_request_are_done_in_their_order_and_each_sees_those_before_it() {
    let world = World::new().await;
    let (owner, one, two) = (world.owner("a").await, world.index("one"), world.index("two"));
    let writes = vec![
        put(&one, "x", "first"),
        put(&two, "x", "other"),
        put(&one, "x", "second"),
        merge(&one, "x", r#"{"n":1}"#),
        delete(&one, "x"),
        Write { condition: Some(Condition::Absent), ..put(&one, "x", "third") },
        Write { condition: Some(Condition::Absent), ..put(&one, "x", "refused") },
        merge(&one, "gone", "{}"),
        put(&one, "y", "third too"),
    ];
    let results = owner.shard.write(writes, Refresh::Now).await.unwrap();
    let found: Vec<_> = results.iter().map(|result| result.clone().map(|w| (w.seq, w.version))).collect();
    let expected = [
        Ok((0, 1)),
        Ok((1, 1)),
        Ok((2, 2)),
        Ok((3, 3)),
        Ok((4, 4)),
        Ok((5, 1)),
        Err(Refused::Changed { now: Some(5) }),
        Err(Refused::NoDocument),
        Ok((6, 1)),
    ];
    assert_eq!(found, expected);
    assert_eq!(owner.search(&one, "third", ReadLevel::Primary).await, ["x", "y"], "it is visible");
    assert_eq!(owner.search(&two, "other", ReadLevel::Any).await, ["x"]);
    assert!(owner.search(&one, "second", ReadLevel::Primary).await.is_empty());
    let manifest = world.manifests().latest().await.unwrap().unwrap().value;
    assert_eq!(manifest.next_seq, 7, "and the manifest has it");
    owner.stop().await;
}

#[tokio::test]
async fn a_write_that_waits_for_the_next_refresh_is_visible_afterwards() {
    let world = World::new().await;
    let (owner, one) = (world.owner("a").await, world.index("one"));
    for number in 0..5 {
        let id = number.to_string();
        owner.shard.write(vec![put(&one, &id, "word")], Refresh::Wait).await.unwrap();
        assert_eq!(owner.search(&one, "word", ReadLevel::Primary).await.len(), number + 1);
    }
    owner.stop().await;
}

#[tokio::test]
async fn a_compaction_leaves_one_segment_with_all_documents_and_no_deleted_ones() {
    let world = World::new().await;
    let (owner, one) = (world.owner("a").await, world.index("one"));
    owner.shard.compact(&one).await.unwrap();
    for number in 0..20 {
        owner.put(&one, &format!("id-{}", number % 12), &format!("word n{number}")).await;
        owner.shard.refresh().await.unwrap();
    }
    owner.write(delete(&one, "id-3")).await.unwrap().unwrap();
    owner.shard.compact(&one).await.unwrap();
    let snapshot = owner.shard.snapshot(&one, ReadLevel::Primary).await.unwrap().value;
    let segments = snapshot.searcher.segment_readers();
    assert_eq!((segments.len(), segments[0].max_doc(), segments[0].num_docs()), (1, 11, 11));
    owner.put(&one, "id-4", "word again").await;
    // One that is sent while another one is under way merges the same segments.
    let (first, second) = tokio::join!(owner.shard.compact(&one), owner.shard.compact(&one));
    assert_eq!((first, second), (Ok(()), Ok(())));
    // The manifest follows without a new write.
    until(async || {
        let manifest = world.manifests().latest().await.unwrap().unwrap().value;
        let segments = &manifest.indexes[&one.uuid].meta["segments"];
        segments.as_array().unwrap().len() == 1 && segments[0]["max_doc"] == 11
    })
    .await;
    owner.stop().await;
    let next = world.owner("b").await;
    assert_eq!(next.search(&one, "word", ReadLevel::Primary).await.len(), 11);
    next.stop().await;
}

#[tokio::test]
async fn many_indexes_share_few_writers() {
    let world = World { limits: Limits { heap: 32_000_000, ..LIMITS }, ..World::new().await };
    let indexes: Vec<_> = (0..12).map(|number| index(&format!("i{number}"))).collect();
    world.indexes.send_replace(Arc::new(Indexes::new(2, indexes.clone())));
    let owner = world.owner("a").await;
    for round in 0..3 {
        let writes = indexes.iter().map(|index| put(index, &format!("r{round}"), "word")).collect();
        owner.shard.write(writes, Refresh::Durable).await.unwrap();
    }
    for index in &indexes {
        assert_eq!(
            owner.search(index, "word", ReadLevel::Strong).await,
            ["r0", "r1", "r2"],
            "{}",
            index.name
        );
    }
    owner.kill().await;
    let next = world.owner("a").await;
    for index in &indexes {
        assert_eq!(next.search(index, "word", ReadLevel::Strong).await, ["r0", "r1", "r2"], "{}", index.name);
    }
    next.stop().await;
}

#[tokio::test]
async fn a_deleted_index_leaves_nothing_behind_and_one_of_the_same_name_is_empty() {
    let world = World::new().await;
    let (owner, one, two) = (world.owner("a").await, world.index("one"), world.index("two"));
    owner.put(&one, "x", "word").await;
    owner.put(&two, "x", "word").await;
    owner.shard.refresh().await.unwrap();
    let folder = world.folder("a").join("searcher/search/0").join(one.uuid.to_string());
    assert!(folder.exists());
    owner.put(&one, "y", "word").await;
    let again = index("one");
    world.indexes.send_replace(Arc::new(Indexes::new(2, [Arc::clone(&again), Arc::clone(&two)])));
    let refused = owner.write(put(&one, "z", "word")).await;
    assert_eq!(refused, Err(ShardError::NoIndex("one".to_owned())));
    assert_eq!(owner.count(&again).await, 0);
    owner.put(&again, "x", "new").await;
    let stored = async || world.manifests().latest().await.unwrap().unwrap().value.indexes;
    until(async || !stored().await.contains_key(&one.uuid) && stored().await.contains_key(&again.uuid)).await;
    until(async || !folder.exists()).await;
    owner.kill().await;
    // What its log has is skipped.
    let next = world.owner("b").await;
    assert_eq!(next.search(&two, "word", ReadLevel::Strong).await, ["x"]);
    assert_eq!(next.count(&again).await, 1);
    next.shard.refresh().await.unwrap();
    assert!(!stored().await.contains_key(&one.uuid));
    next.stop().await;
}

#[tokio::test]
async fn documents_that_fill_several_records_are_all_written() {
    let world = World { limits: Limits { max_behind: (64 << 20, 1_000), ..LIMITS }, ..World::new().await };
    let (owner, one) = (world.owner("a").await, world.index("one"));
    // Random, so that it is not compressed to nothing, and in long words, which are not indexed.
    let number = |n: u32| format!("{:08x}", n.wrapping_mul(2_654_435_761));
    let text = |n: u32| {
        let word = |at: u32| (0..64).map(|i| number(i ^ at ^ n << 20)).collect::<String>() + " ";
        (0..5_000).map(|at| word(at << 6)).collect::<String>()
    };
    let writes = (0..6).map(|n| put(&one, &n.to_string(), &text(n))).collect();
    let results = owner.shard.write(writes, Refresh::Durable).await.unwrap();
    let seqs: Vec<_> = results.into_iter().map(|result| result.unwrap().seq).collect();
    assert_eq!(seqs, [0, 1, 2, 3, 4, 5]);
    owner.kill().await;
    let next = world.owner("b").await;
    for n in 0..6 {
        assert_eq!(next.body(&one, &n.to_string()).await.unwrap().len(), text(n).len());
    }
    next.stop().await;
}
