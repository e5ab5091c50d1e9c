//! Replicas.

use store::DataLogReader;

use super::open::LOG;
use super::*;

#[tokio::test]
async fn a_replica_follows_and_says_how_far_behind_it_may_be() {
    let world = World::new().await;
    let (replica, one) = (world.replica("r").await, world.index("one"));
    // Also before the shard has data.
    until(async || replica.shard.snapshot(&one, ReadLevel::Any).await.is_ok()).await;
    let owner = world.owner("a").await;
    for number in 0..30 {
        owner.put(&one, &format!("id-{}", number % 10), &format!("word n{number}")).await;
        if number % 3 == 0 {
            owner.shard.refresh().await.unwrap();
        }
    }
    owner.write(delete(&one, "id-1")).await.unwrap().unwrap();
    owner.shard.compact(&one).await.unwrap();
    until(async || replica.search(&one, "word", ReadLevel::Any).await.len() == 9).await;
    let read = replica.shard.get(&one, "id-9", ReadLevel::Any).await.unwrap();
    let expected = owner.get(&one, "id-9").await.unwrap();
    let found = read.value.unwrap();
    assert_eq!((found.seq, found.term, found.version), (expected.seq, expected.term, expected.version));
    assert_eq!(found.source.get(), expected.source.get());
    until(async || replica.shard.staleness().is_some_and(|staleness| staleness < Duration::from_secs(1)))
        .await;
    for level in [ReadLevel::Primary, ReadLevel::Strong] {
        assert!(matches!(replica.shard.get(&one, "x", level).await, Err(ShardError::Elsewhere(_))));
        assert!(matches!(replica.shard.snapshot(&one, level).await, Err(ShardError::Elsewhere(_))));
    }
    assert!(matches!(replica.write(put(&one, "x", "y")).await, Err(ShardError::Elsewhere(_))));
    assert!(matches!(replica.shard.refresh().await, Err(ShardError::Elsewhere(_))));
    until(async || replica.shard.health() == Health::Ready).await;
    owner.stop().await;
    replica.stop().await;
}

#[tokio::test]
async fn a_replica_that_lacks_what_the_log_has_does_not_count_as_current() {
    let world = World::new().await;
    let late = World { limits: Limits { refresh: Duration::from_secs(3_600), ..LIMITS }, ..world };
    let (owner, one) = (late.owner("a").await, late.index("one"));
    owner.shard.get(&one, "x", ReadLevel::Strong).await.unwrap();
    let replica = late.replica("r").await;
    until(async || replica.shard.staleness().is_some_and(|staleness| staleness < Duration::from_millis(500)))
        .await;
    owner.put(&one, "x", "word").await;
    until(async || replica.shard.staleness().unwrap() > Duration::from_millis(500)).await;
    owner.shard.refresh().await.unwrap();
    until(async || replica.shard.staleness().unwrap() < Duration::from_millis(500)).await;
    assert_eq!(replica.search(&one, "word", ReadLevel::Any).await, ["x"]);
    late.faults.set(Mode::Unreachable);
    until(async || matches!(replica.shard.health(), Health::Degraded(_))).await;
    assert_eq!(replica.search(&one, "word", ReadLevel::Any).await, ["x"], "it still answers");
    late.faults.set(Mode::Work);
    until(async || replica.shard.health() == Health::Ready).await;
    owner.stop().await;
    replica.stop().await;
}

#[tokio::test]
async fn entries_without_operations_do_not_keep_a_replica_from_being_current() {
    let mut world = World::new().await;
    let one = world.index("one");
    let owner = world.owner("a").await;
    for number in 0..50 {
        owner.put(&one, &format!("id-{number}"), "word").await;
        owner.shard.refresh().await.unwrap();
    }
    owner.stop().await;
    world.limits.refresh = Duration::from_secs(3_600);
    // Its first act is to collect garbage, which trims the log.
    let owner = world.owner("a").await;
    let manifests = world.manifests();
    let log = DataLogReader::new(world.objects(), LOG);
    until(async || {
        let latest = manifests.latest().await.unwrap().unwrap().value;
        let end = log.end(latest.applied).await.unwrap();
        end > latest.applied && log.is_without_records(end).await.unwrap()
    })
    .await;
    let replica = world.replica("r").await;
    let is_current =
        async || replica.shard.staleness().is_some_and(|staleness| staleness < Duration::from_millis(500));
    until(is_current).await;
    assert_eq!(replica.search(&one, "word", ReadLevel::Any).await.len(), 50);
    owner.put(&one, "late", "word").await;
    until(async || replica.shard.staleness().unwrap() > Duration::from_millis(500)).await;
    owner.shard.refresh().await.unwrap();
    until(is_current).await;
    assert_eq!(replica.search(&one, "word", ReadLevel::Any).await.len(), 51);
    owner.stop().await;
    replica.stop().await;
}

#[tokio::test]
async fn a_replica_that_becomes_owner_and_an_owner_that_becomes_replica_use_their_folders() {
    let world = World::new().await;
    let one = world.index("one");
    let mut roles = (world.owner("a").await, world.replica("b").await);
    for round in 0..6 {
        let (owner, replica) = roles;
        for number in 0..4 {
            // Documents that are replaced, so that files of deleted documents are written by each owner.
            owner.put(&one, &format!("id-{number}"), &format!("word r{round}n{number}")).await;
            owner.shard.refresh().await.unwrap();
        }
        if round % 2 == 0 {
            until(async || !replica.search(&one, &format!("r{round}n3"), ReadLevel::Any).await.is_empty())
                .await;
        }
        let nodes = if round % 2 == 0 { ("b", "a") } else { ("a", "b") };
        replica.stop().await;
        if round % 3 == 0 {
            owner.kill().await;
        } else {
            owner.stop().await;
        }
        let next = world.owner(nodes.0).await;
        roles = (next, world.replica(nodes.1).await);
        for number in 0..4 {
            let word = format!("r{round}n{number}");
            assert_eq!(roles.0.search(&one, &word, ReadLevel::Strong).await, [format!("id-{number}")]);
        }
        assert_eq!(roles.0.search(&one, "word", ReadLevel::Strong).await.len(), 4);
        until(async || roles.1.search(&one, "word", ReadLevel::Any).await.len() == 4).await;
    }
    roles.1.stop().await;
    roles.0.stop().await;
}
