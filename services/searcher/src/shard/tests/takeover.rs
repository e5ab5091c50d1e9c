//! Owners that follow one another, paused and killed at every step.

use std::collections::BTreeSet;

use super::*;

/// All documents of an index by id, found by their id and by their word.
async fn all(running: &Running, index: &Arc<Index>, ids: &BTreeSet<String>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for id in ids {
        if let Some(body) = running.body(index, id).await {
            let word = body.split(' ').next().unwrap().to_owned();
            assert_eq!(running.search(index, &word, ReadLevel::Strong).await, [id.as_str()], "{word}");
            found.insert(id.clone(), body);
        }
    }
    assert_eq!(running.count(index).await, u64::try_from(found.len()).unwrap(), "nothing else is found");
    found
}

#[tokio::test]
async fn the_next_owner_finds_all_and_only_what_was_acknowledged_in_any_folder() {
    let world = World::new().await;
    let (first, one) = (world.owner("a").await, world.index("one"));
    for number in 0..30 {
        first.put(&one, &format!("id-{number}"), &format!("w{number} common")).await;
        if number % 7 == 0 {
            first.shard.refresh().await.unwrap();
        }
    }
    first.write(delete(&one, "id-4")).await.unwrap().unwrap();
    first.write(put(&one, "id-5", "changed")).await.unwrap().unwrap();
    let ids: BTreeSet<_> = (0..30).map(|number| format!("id-{number}")).collect();
    let before = all(&first, &one, &ids).await;
    first.stop().await;
    let seqs = async |running: &Running| {
        running.get(&one, "id-5").await.map(|found| (found.seq, found.term, found.version))
    };
    let mut known = None;
    for node in ["a", "b", "a", "empty"] {
        let next = world.owner(node).await;
        assert_eq!(all(&next, &one, &ids).await, before, "{node}");
        let now = seqs(&next).await;
        assert_eq!(*known.get_or_insert(now), now, "its numbers stay");
        if node == "b" { next.kill().await } else { next.stop().await }
    }
}

/// The first owner is held at each of its operations on the store in turn, while the second takes over. Then it goes on.
#[tokio::test]
async fn an_owner_that_was_paused_at_any_step_loses_no_acknowledged_document() {
    let mut paused = 0;
    for (held, when) in (0..40).flat_map(|held| [(held, When::Before), (held, When::After)]) {
        let world = World::new().await;
        let one = world.index("one");
        let zero = world.owner("a").await;
        zero.put(&one, "zero", "wzero").await;
        zero.shard.refresh().await.unwrap();
        zero.put(&one, "one", "wone").await;
        zero.kill().await;
        let claimed = world.claim("a").await;
        let mut pause = world.faults.pause_after(held, when);
        let acknowledged =
            Mutex::new(vec![("zero".to_owned(), "wzero".to_owned()), ("one".to_owned(), "wone".to_owned())]);
        let first = world.run(claimed).await;
        let slow = async {
            for number in 0..4 {
                let (id, text) = (format!("id-{number}"), format!("w{number}"));
                let refresh = if number == 1 { Refresh::Now } else { Refresh::Durable };
                let written = first.shard.write(vec![put(&one, &id, &text)], refresh).await;
                if written.is_err() {
                    return;
                }
                acknowledged.lock().unwrap().push((id, text));
            }
            // Until the background has made its operations too.
            let _ = timeout(Duration::from_millis(60), std::future::pending::<()>()).await;
        };
        let quick = async {
            pause.reached().await;
            let second = world.owner("b").await;
            second.put(&one, "second", "wsecond").await;
            let before = acknowledged.lock().unwrap().clone();
            second.shard.refresh().await.unwrap();
            pause.resume();
            (second, before)
        };
        let (slow, quick) = (Box::pin(slow), Box::pin(quick));
        let (second, before) = match futures_util::future::select(slow, quick).await {
            futures_util::future::Either::Left(((), quick)) => {
                match timeout(Duration::from_millis(200), quick).await {
                    Ok(done) => done,
                    // It made fewer operations.
                    Err(_) => continue,
                }
            }
            futures_util::future::Either::Right((done, slow)) => {
                slow.await;
                done
            }
        };
        paused += 1;
        let late = first.write(put(&one, "late", "wlate")).await;
        assert!(late.is_err(), "{held} {when:?}: {late:?}");
        let acknowledged = acknowledged.into_inner().unwrap();
        // The record that was on its way may have been stored before the takeover, and so be answered after it.
        let later = acknowledged.strip_prefix(before.as_slice()).unwrap();
        assert!(later.len() <= 1, "{held} {when:?}: acknowledged after the takeover: {later:?}");
        first.stop().await;
        second.put(&one, "after", "wafter").await;
        for (id, text) in &acknowledged {
            assert_eq!(second.body(&one, id).await.as_ref(), Some(text), "{held} {when:?}: {id}");
            assert_eq!(second.search(&one, text, ReadLevel::Strong).await, [id.as_str()], "{held} {when:?}");
        }
        second.kill().await;
        let third = world.owner("empty").await;
        for (id, text) in &acknowledged {
            assert_eq!(third.body(&one, id).await.as_ref(), Some(text), "{held} {when:?}: {id}");
            assert_eq!(third.search(&one, text, ReadLevel::Strong).await, [id.as_str()], "{held} {when:?}");
        }
        assert!(third.body(&one, "second").await.is_some() && third.body(&one, "after").await.is_some());
        assert!(third.body(&one, "late").await.is_none());
        third.stop().await;
    }
    assert!(paused > 50, "it was paused at {paused} steps");
}

/// The owner is killed at each of its operations on the store in turn; what is in flight may still arrive.
#[tokio::test]
async fn an_owner_that_is_killed_at_any_step_loses_no_acknowledged_document() {
    let mut killed = 0;
    for (held, when) in (0..36).flat_map(|held| [(held, When::Before), (held, When::After)]) {
        let world = World::new().await;
        let (one, two) = (world.index("one"), world.index("two"));
        let claimed = world.claim("a").await;
        let mut pause = world.faults.pause_after(held, when);
        let first = world.run(claimed).await;
        let mut acknowledged = BTreeMap::new();
        let mut maybe = BTreeMap::new();
        let writing = async {
            for number in 0..6 {
                let (id, text) = (format!("id-{}", number % 4), format!("w{number}"));
                maybe.insert(id.clone(), text.clone());
                let writes = vec![put(&one, &id, &text), put(&two, &id, &text)];
                let refresh = if number % 2 == 0 { Refresh::Now } else { Refresh::Durable };
                if first.shard.write(writes, refresh).await.is_err() {
                    return;
                }
                acknowledged.insert(id, text);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = writing => {}
            () = pause.reached() => killed += 1,
            () = sleep(Duration::from_millis(400)) => {}
        }
        first.kill().await;
        drop(pause);
        for node in ["a", "empty"] {
            let next = world.owner(node).await;
            for (id, last) in &maybe {
                for index in [&one, &two] {
                    let found = next.body(index, id).await;
                    let is_known = found.as_ref() == acknowledged.get(id) || found.as_ref() == Some(last);
                    assert!(is_known, "{held} {when:?} {node} {id}: {found:?}");
                    if let Some(text) = found {
                        let found = next.search(index, &text, ReadLevel::Strong).await;
                        assert_eq!(found, [id.as_str()], "{held} {when:?} {node}");
                    }
                }
            }
            next.kill().await;
        }
    }
    assert!(killed > 50, "it was killed at {killed} steps");
}

#[tokio::test]
async fn a_fenced_owner_acknowledges_nothing_and_reports_it() {
    let world = World::new().await;
    let (first, one) = (world.owner("a").await, world.index("one"));
    first.put(&one, "x", "word").await;
    let second = world.owner("b").await;
    second.put(&one, "y", "word").await;
    let refused = first.write(put(&one, "z", "word")).await;
    assert!(matches!(refused, Err(ShardError::Elsewhere(_))), "{refused:?}");
    let Duty::Primary(claim) = &first.cx.duty else { panic!() };
    claim.suspected().await;
    until(async || matches!(first.write(put(&one, "z", "word")).await, Err(ShardError::Elsewhere(_)))).await;
    assert!(matches!(first.shard.get(&one, "x", ReadLevel::Strong).await, Err(ShardError::Elsewhere(_))));
    assert!(matches!(first.shard.health(), Health::Degraded(why) if why.code == types::reason::CLAIM_PASSED));
    assert_eq!(second.search(&one, "word", ReadLevel::Strong).await, ["x", "y"]);
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn a_fenced_owner_answers_no_strong_read() {
    let world = World::new().await;
    let (first, one) = (world.owner("a").await, world.index("one"));
    first.put(&one, "x", "word").await;
    let second = world.owner("b").await;
    second.put(&one, "x", "newer").await;
    assert!(first.shard.get(&one, "x", ReadLevel::Strong).await.is_err());
    assert!(first.shard.snapshot(&one, ReadLevel::Strong).await.is_err());
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn old_data_is_served_before_the_replay_and_everything_after_it() {
    let world = World::new().await;
    let (first, one) = (world.owner("a").await, world.index("one"));
    first.put(&one, "x", "stored").await;
    first.shard.refresh().await.unwrap();
    first.kill().await;
    // Acknowledged by an owner that was killed before its refresh.
    let late = World { limits: Limits { refresh: Duration::from_secs(3_600), ..LIMITS }, ..world };
    let second = late.owner("b").await;
    second.put(&one, "y", "logged").await;
    second.kill().await;
    let claimed = late.claim("c").await;
    let third = late.run(claimed).await;
    // It reads the log last.
    let mut pause = late.faults.pause_next(Op::Get, When::Before);
    let _ = timeout(Duration::from_secs(5), pause.reached()).await;
    pause.resume();
    until(async || third.shard.snapshot(&one, ReadLevel::Any).await.is_ok()).await;
    assert_eq!(third.search(&one, "stored", ReadLevel::Any).await, ["x"]);
    assert_eq!(third.search(&one, "logged", ReadLevel::Primary).await, ["y"]);
    assert_eq!(third.body(&one, "y").await.as_deref(), Some("logged"));
    third.stop().await;
}

#[tokio::test]
async fn a_drained_owner_refuses_writes_and_leaves_nothing_to_replay() {
    let late =
        World { limits: Limits { refresh: Duration::from_secs(3_600), ..LIMITS }, ..World::new().await };
    let (first, one) = (late.owner("a").await, late.index("one"));
    first.put(&one, "x", "word").await;
    first.shard.drain(tokio::time::Instant::now() + Duration::from_secs(20)).await;
    first.shard.drain(tokio::time::Instant::now() + Duration::from_secs(20)).await;
    assert!(matches!(first.write(put(&one, "y", "word")).await, Err(ShardError::Elsewhere(_))));
    let manifest = late.manifests().latest().await.unwrap().unwrap().value;
    assert_eq!((manifest.next_seq, manifest.indexes.len()), (1, 1));
    first.shard.stop().await;
    first.stop().await;
}
