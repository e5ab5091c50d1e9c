//! Stores and disks that fail, and damage.

use std::fs;

use futures_util::TryStreamExt;
use store::object_store::ObjectStoreExt;
use store::object_store::path::Path;

use super::*;

#[tokio::test]
async fn a_write_whose_outcome_is_not_known_is_answered_so_and_the_shard_recovers() {
    let world = World::new().await;
    let (owner, one) = (world.owner("a").await, world.index("one"));
    owner.put(&one, "x", "word").await;
    for round in 0..3 {
        world.faults.set(Mode::FailWrites(std::io::ErrorKind::StorageFull));
        let failed = owner.write(put(&one, "y", &format!("maybe{round}"))).await;
        assert!(matches!(failed, Err(ShardError::OutcomeUnknown(_))), "{failed:?}");
        until(async || owner.shard.health() != Health::Ready).await;
        world.faults.set(Mode::Work);
        until(async || owner.shard.health() == Health::Ready).await;
        let written = owner.put(&one, "x", "word").await;
        assert_eq!(written.version, round + 2, "no number is lost, and none is given twice");
    }
    assert_eq!(owner.search(&one, "word", ReadLevel::Strong).await, ["x"]);
    owner.stop().await;
}

#[tokio::test]
async fn an_answer_that_is_lost_hides_no_write() {
    let world = World::new().await;
    let (owner, one) = (world.owner("a").await, world.index("one"));
    world.faults.repeat_create(true);
    for number in 0..10 {
        owner.put(&one, &number.to_string(), "word").await;
        owner.shard.refresh().await.unwrap();
    }
    assert_eq!(owner.search(&one, "word", ReadLevel::Strong).await.len(), 10);
    owner.kill().await;
    let next = world.owner("b").await;
    assert_eq!(next.search(&one, "word", ReadLevel::Strong).await.len(), 10);
    next.stop().await;
}

#[tokio::test]
async fn a_store_that_takes_no_segments_is_reported_and_searches_go_on() {
    let world = World::new().await;
    let (owner, one) = (world.owner("a").await, world.index("one"));
    owner.put(&one, "x", "word").await;
    owner.shard.refresh().await.unwrap();
    // Each second write to the store is that of a pack.
    world.faults.set(Mode::FailWrites(std::io::ErrorKind::PermissionDenied));
    owner.shard.compact(&one).await.unwrap();
    let failed = owner.write(put(&one, "y", "word")).await;
    assert!(matches!(failed, Err(ShardError::OutcomeUnknown(_))));
    assert_eq!(owner.search(&one, "word", ReadLevel::Any).await, ["x"]);
    world.faults.set(Mode::Work);
    until(async || owner.shard.health() == Health::Ready).await;
    owner.put(&one, "z", "word").await;
    owner.shard.refresh().await.unwrap();
    assert_eq!(owner.shard.health(), Health::Ready);
    owner.stop().await;
}

#[tokio::test]
async fn too_much_that_is_not_stored_is_refused_until_it_is() {
    let refresh = Duration::from_millis(20);
    let world =
        World { limits: Limits { max_behind: (1 << 20, 10), refresh, ..LIMITS }, ..World::new().await };
    let (owner, one) = (world.owner("a").await, world.index("one"));
    owner.put(&one, "x", "word").await;
    owner.shard.refresh().await.unwrap();
    // The next put is that of a pack: entries of the log and manifests are created.
    let mut pause = world.faults.pause_next(Op::Put, When::Before);
    owner.put(&one, "y", "word").await;
    pause.reached().await;
    let mut refused = None;
    for number in 0..20 {
        if let Err(error) = owner.write(put(&one, &number.to_string(), "word")).await {
            refused = Some(error);
            break;
        }
    }
    assert!(matches!(refused, Some(ShardError::Behind(_))), "{refused:?}");
    assert_eq!(owner.search(&one, "word", ReadLevel::Strong).await.len(), 11, "it is visible nevertheless");
    let waiting = owner.write(put(&one, "z", "word"));
    let storing = async {
        tokio::task::yield_now().await;
        pause.resume();
    };
    let (waited, ()) = tokio::join!(waiting, storing);
    assert_eq!(waited.unwrap().unwrap().outcome, Outcome::Created, "it waited for room");
    owner.stop().await;
}

#[tokio::test]
async fn a_write_waits_a_while_to_become_visible_and_is_then_said_to_be_durable() {
    let visible = Duration::from_millis(100);
    let world = World { limits: Limits { visible, ..LIMITS }, ..World::new().await };
    let (owner, one) = (world.owner("a").await, world.index("one"));
    owner.put(&one, "x", "word").await;
    owner.shard.refresh().await.unwrap();
    for refresh in [Refresh::Wait, Refresh::Now] {
        // The next put is that of a pack.
        let mut pause = world.faults.pause_next(Op::Put, When::Before);
        let answer = owner.shard.write(vec![put(&one, "y", "word")], refresh).await;
        assert!(matches!(&answer, Err(ShardError::NotVisible(why)) if why.contains("durable")), "{answer:?}");
        assert_eq!(owner.body(&one, "y").await.as_deref(), Some("word"));
        let refused = Write { condition: Some(Condition::Absent), ..put(&one, "y", "other") };
        assert!(owner.shard.write(vec![refused], refresh).await.unwrap()[0].is_err(), "nothing to wait for");
        pause.reached().await;
        pause.resume();
        owner.shard.refresh().await.unwrap();
    }
    owner.stop().await;
}

/// Local files that can't be read are no failure of the store.
#[tokio::test]
async fn unreadable_local_files_are_reported_as_such() {
    let world = World::new().await;
    let (owner, one) = (world.owner("a").await, world.index("one"));
    owner.put(&one, "x", "word").await;
    // The next put is that of a pack; it waits, so that the next refresh is stored after the damage.
    let mut pause = world.faults.pause_next(Op::Put, When::Before);
    owner.put(&one, "y", "word").await;
    pause.reached().await;
    owner.put(&one, "z", "word").await;
    assert_eq!(owner.search(&one, "word", ReadLevel::Strong).await.len(), 3);
    for entry in fs::read_dir(folder(&world, "a", &one)).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    pause.resume();
    until(async || {
        let health = owner.shard.health();
        matches!(health, Health::Degraded(why) if why.code.as_str() == "local-files-unreadable")
    })
    .await;
    owner.kill().await;
}

#[tokio::test]
async fn over_the_disk_budget_writes_are_refused_and_reads_answered() {
    let world = World { limits: Limits { disk: 1, ..LIMITS }, ..World::new().await };
    let (owner, one) = (world.owner("a").await, world.index("one"));
    owner.put(&one, "x", "word").await;
    until(async || matches!(owner.write(put(&one, "y", "word")).await, Err(ShardError::NoSpace(_)))).await;
    assert!(matches!(owner.shard.health(), Health::Degraded(why) if why.code.as_str() == "disk-full"));
    assert_eq!(owner.body(&one, "x").await.as_deref(), Some("word"));
    let ids: Vec<_> = owner.search(&one, "word", ReadLevel::Any).await;
    assert!(ids.len() <= 2);
    owner.stop().await;
    let larger = World { limits: LIMITS, ..world };
    let owner = larger.owner("a").await;
    owner.put(&one, "z", "word").await;
    assert_eq!(owner.body(&one, "x").await.as_deref(), Some("word"));
    assert_eq!(owner.shard.health(), Health::Ready);
    owner.stop().await;
}

/// Makes the disk of a running shard full, or not.
fn set_full(running: &Running, is_full: bool) {
    set_fault(running, directory::FULL, is_full);
}

#[tokio::test]
async fn on_a_full_disk_writes_are_refused_and_what_was_acknowledged_is_indexed_once_there_is_room() {
    let world = World::new().await;
    let (owner, one, two) = (world.owner("a").await, world.index("one"), world.index("two"));
    owner.put(&one, "x", "word").await;
    owner.shard.refresh().await.unwrap();
    for round in 0..3 {
        set_full(&owner, true);
        let mut acknowledged = Vec::new();
        until(async || {
            let id = format!("r{round}n{}", acknowledged.len());
            let writes = vec![
                put(&one, &id, "word"),
                put(&two, &id, "word"),
                put(&one, "x", &format!("word r{round}")),
            ];
            match owner.shard.write(writes, Refresh::Durable).await {
                Ok(_) => acknowledged.push(id),
                Err(error) => {
                    assert!(matches!(error, ShardError::NoSpace(_)), "{error:?}");
                    return true;
                }
            }
            false
        })
        .await;
        assert!(!acknowledged.is_empty());
        assert!(matches!(owner.shard.health(), Health::Degraded(why) if why.code.as_str() == "disk-full"));
        assert!(matches!(owner.shard.snapshot(&one, ReadLevel::Strong).await, Err(ShardError::NoSpace(_))));
        for id in &acknowledged {
            assert_eq!(owner.body(&two, id).await.as_deref(), Some("word"));
        }
        set_full(&owner, false);
        until(async || owner.shard.health() == Health::Ready).await;
        for id in &acknowledged {
            assert!(owner.search(&one, "word", ReadLevel::Strong).await.contains(id));
            assert!(owner.search(&two, "word", ReadLevel::Strong).await.contains(id));
        }
        assert_eq!(owner.search(&one, &format!("r{round}"), ReadLevel::Strong).await, ["x"]);
    }
    let (before, documents) = (owner.search(&one, "word", ReadLevel::Strong).await, owner.count(&two).await);
    owner.kill().await;
    let next = world.owner("empty").await;
    assert_eq!(next.search(&one, "word", ReadLevel::Strong).await, before);
    assert_eq!(next.count(&two).await, documents);
    next.stop().await;
}

/// The folder of an index at a node.
fn folder(world: &World, node: &str, index: &Index) -> PathBuf {
    world.folder(node).join("searcher/search/0").join(index.uuid.to_string())
}

#[tokio::test]
async fn damaged_and_foreign_local_files_are_fetched_again() {
    let world = World::new().await;
    let (owner, one) = (world.owner("a").await, world.index("one"));
    for from in [0, 2] {
        let writes = (from..4).map(|number| put(&one, &format!("id-{number}"), "word")).collect();
        owner.shard.write(writes, Refresh::Now).await.unwrap();
    }
    owner.kill().await;
    let names = || {
        let entries = fs::read_dir(folder(&world, "a", &one)).unwrap().map(|entry| entry.unwrap().path());
        let mut names: Vec<_> = entries.collect();
        names.sort();
        names
    };
    assert!(names().iter().any(|name| name.extension().is_some_and(|extension| extension == "del")));
    for how in ["other content", "cut", "gone", "more files"] {
        for name in names() {
            let content = fs::read(&name).unwrap();
            match how {
                "other content" => fs::write(&name, vec![b'x'; content.len()]).unwrap(),
                "cut" => fs::write(&name, &content[..content.len() / 2]).unwrap(),
                "gone" => fs::remove_file(&name).unwrap(),
                _ => fs::write(name.with_extension("more"), b"x").unwrap(),
            }
        }
        let owner = world.owner("a").await;
        assert_eq!(owner.search(&one, "word", ReadLevel::Strong).await.len(), 4, "{how}");
        assert!(!names().iter().any(|name| name.extension().is_some_and(|extension| extension == "more")));
        owner.kill().await;
    }
    // After a clean end only files of deleted documents are read again.
    world.owner("a").await.stop().await;
    for name in names() {
        if name.extension().is_some_and(|extension| extension == "del") {
            let len = fs::read(&name).unwrap().len();
            fs::write(&name, vec![b'x'; len]).unwrap();
        }
    }
    let owner = world.owner("a").await;
    assert_eq!(owner.search(&one, "word", ReadLevel::Strong).await.len(), 4);
    owner.stop().await;
}

#[tokio::test]
async fn a_pack_that_is_gone_or_damaged_is_named() {
    let world = World::new().await;
    let (owner, one) = (world.owner("a").await, world.index("one"));
    owner.put(&one, "x", "word").await;
    owner.shard.refresh().await.unwrap();
    owner.stop().await;
    let objects = world.objects();
    let packs: Vec<_> = objects.list(Some(&Path::from(pack::FOLDER))).try_collect().await.unwrap();
    let content = objects.get(&packs[0].location).await.unwrap().bytes().await.unwrap();
    for damage in [None, Some(vec![b'x'; content.len()]), Some(vec![])] {
        match damage {
            None => objects.delete(&packs[0].location).await.unwrap(),
            Some(bytes) => drop(objects.put(&packs[0].location, bytes.into()).await.unwrap()),
        }
        let owner = world.owner("empty").await;
        until(async || {
            let health = owner.shard.health();
            matches!(health, Health::Degraded(why) if why.code == types::reason::DAMAGED_DATA && why.text.contains(packs[0].location.filename().unwrap()))
        })
        .await;
        assert!(matches!(owner.write(put(&one, "y", "z")).await, Err(ShardError::Damaged(_))));
        owner.stop().await;
    }
    objects.put(&packs[0].location, content.into()).await.unwrap();
    let owner = world.owner("empty").await;
    assert_eq!(owner.search(&one, "word", ReadLevel::Strong).await, ["x"]);
    owner.stop().await;
}

#[tokio::test]
async fn a_damaged_log_is_named_and_old_data_still_served() {
    let world = World::new().await;
    let (owner, one) = (world.owner("a").await, world.index("one"));
    owner.put(&one, "x", "word").await;
    owner.shard.refresh().await.unwrap();
    owner.stop().await;
    // A record of another number.
    let (cx, _failures) = world.claim("a").await;
    let Duty::Primary(claim) = &cx.duty else { panic!() };
    let log = store::DataLog::open(world.objects(), open::LOG, claim.epoch()).await.unwrap();
    let operations =
        vec![crate::operation::Operation { index: one.uuid, id: "y".into(), version: 1, source: None }];
    log.append(crate::operation::Operations { first: 7, operations }.encode()).await.unwrap();
    let owner = world.owner("a").await;
    until(async || matches!(owner.write(put(&one, "y", "z")).await, Err(ShardError::Damaged(why)) if why.contains("begins with operation 7 instead of 1"))).await;
    assert_eq!(owner.search(&one, "word", ReadLevel::Any).await, ["x"]);
    assert!(matches!(owner.shard.health(), Health::Degraded(why) if why.code == types::reason::DAMAGED_DATA));
    owner.stop().await;
}

#[tokio::test]
async fn garbage_goes_and_what_the_last_manifests_need_stays() {
    let world = World::new().await;
    let (owner, one) = (world.owner("a").await, world.index("one"));
    for number in 0..40 {
        owner.put(&one, &format!("id-{}", number % 5), &format!("word n{number}")).await;
        owner.shard.refresh().await.unwrap();
    }
    owner.shard.compact(&one).await.unwrap();
    for _ in 0..12 {
        owner.put(&one, "id-0", "word last").await;
        owner.shard.refresh().await.unwrap();
    }
    owner.kill().await;
    let objects = world.objects();
    let count = async |folder: &str| {
        let listed: Vec<_> = objects.list(Some(&Path::from(folder))).try_collect().await.unwrap();
        listed.len()
    };
    let before = (count(pack::FOLDER).await, count(open::LOG).await);
    let (cx, _failures) = world.claim("b").await;
    let Duty::Primary(claim) = &cx.duty else { panic!() };
    let log = store::DataLog::open(Arc::clone(&objects), open::LOG, claim.epoch()).await.unwrap();
    let manifests =
        manifest::ManifestWriter::open(world.manifests(), claim.epoch(), log.opening()).await.unwrap();
    let mut collector = garbage::Garbage::impatient();
    collector.collect(&objects, &manifests, &log).await.unwrap();
    let after = (count(pack::FOLDER).await, count(open::LOG).await);
    assert!(after.0 < before.0 / 2 && after.1 < before.1 / 2, "{before:?} {after:?}");
    // Young packs stay.
    let mut young = garbage::Garbage::default();
    young.collect(&objects, &manifests, &log).await.unwrap();
    assert_eq!(count(pack::FOLDER).await, after.0);
    // Each of the last manifests can be opened.
    let latest = manifests.number();
    for number in latest - 9..=latest {
        let manifest = world.manifests().entry(number).await.unwrap().unwrap();
        for pack in manifest.packs() {
            objects.head(&pack::location(pack)).await.unwrap();
        }
        log.reader().read(manifest.applied + 1).await.unwrap();
    }
    // A later owner's packs are left alone.
    let next = world.owner("c").await;
    assert_eq!(next.search(&one, "word", ReadLevel::Strong).await.len(), 5);
    assert_eq!(next.search(&one, "last", ReadLevel::Strong).await, ["id-0"]);
    next.put(&one, "id-9", "word").await;
    next.shard.refresh().await.unwrap();
    let fenced = collector.collect(&objects, &manifests, &log).await;
    assert!(matches!(fenced, Err(garbage::GarbageError::Fenced(_))), "{fenced:?}");
    assert_eq!(next.search(&one, "word", ReadLevel::Strong).await.len(), 6);
    next.stop().await;
}
