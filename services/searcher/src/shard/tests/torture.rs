//! Clients that write at the same time, while the owner is stopped, killed and replaced, and the store fails.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

/// What a client knows of one of its documents. `None` is no document.
#[derive(Debug, Clone)]
struct Known {
    acknowledged: Option<String>,
    /// Later writes without an answer.
    maybe: BTreeSet<Option<String>>,
}

impl Known {
    fn allows(&self, found: &Option<String>) -> bool {
        self.acknowledged == *found || self.maybe.contains(found)
    }
}

/// Writes and reads documents of its own until it is stopped.
async fn client(
    number: usize,
    index: Arc<Index>,
    shard: watch::Receiver<Shard>,
    stop: CancellationToken,
    mut random: StdRng,
) -> (BTreeMap<String, Known>, usize) {
    let mut known = BTreeMap::<String, Known>::new();
    let mut acknowledged = 0;
    for step in 0.. {
        if stop.is_cancelled() {
            break;
        }
        let shard = shard.borrow().clone();
        let id = format!("c{number}-{}", random.random_range(0..4));
        let state = known.entry(id.clone()).or_insert(Known { acknowledged: None, maybe: BTreeSet::new() });
        let limit = Duration::from_millis(500);
        if random.random_range(0..3) == 0 {
            if let Ok(Ok(read)) = timeout(limit, shard.get(&index, &id, ReadLevel::Strong)).await {
                let found = read.value.map(|found| {
                    let value: serde_json::Value = serde_json::from_str(found.source.get()).unwrap();
                    value["body"].as_str().unwrap().to_owned()
                });
                assert!(state.allows(&found), "client {number} step {step} {id}: {found:?} {state:?}");
                // It stays, as it was read. What got no answer may still become durable before the next write that does.
                state.maybe.insert(std::mem::replace(&mut state.acknowledged, found.clone()));
                state.maybe.remove(&found);
            }
            continue;
        }
        let word = format!("c{number}s{step}");
        let (write, value) = if random.random_range(0..4) == 0 {
            (delete(&index, &id), None)
        } else {
            (put(&index, &id, &word), Some(word))
        };
        match timeout(limit, shard.write(vec![write], Refresh::Durable)).await {
            Ok(Ok(results)) => {
                results[0].as_ref().unwrap();
                *state = Known { acknowledged: value, maybe: BTreeSet::new() };
                acknowledged += 1;
            }
            Ok(Err(ShardError::OutcomeUnknown(_))) | Err(_) => {
                state.maybe.insert(value);
            }
            // Nothing was done.
            Ok(Err(_)) => sleep(Duration::from_millis(2)).await,
        }
    }
    (known, acknowledged)
}

async fn torture(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let world = World::new().await;
    let one = world.index("one");
    let mut running = world.owner("n0").await;
    let (shard, shards) = watch::channel(running.shard.clone());
    let stop = CancellationToken::new();
    let clients = (0..4).map(|number| {
        let random = StdRng::seed_from_u64(seed * 100 + u64::try_from(number).unwrap());
        client(number, Arc::clone(&one), shards.clone(), stop.clone(), random)
    });
    let nemesis = async {
        for _ in 0..14 {
            sleep(Duration::from_millis(random.random_range(10..120))).await;
            let node = format!("n{}", random.random_range(0..3));
            match random.random_range(0..6) {
                0 => {
                    running.stop().await;
                    running = world.owner(&node).await;
                }
                1 => {
                    running.kill().await;
                    running = world.owner(&node).await;
                }
                2 => {
                    let next = world.owner("other").await;
                    shard.send_replace(next.shard.clone());
                    sleep(Duration::from_millis(random.random_range(0..60))).await;
                    running.stop().await;
                    running = next;
                    let next = world.owner("n0").await;
                    running.kill().await;
                    running = next;
                }
                3 => {
                    let pause = world.faults.pause_after(random.random_range(0..6), When::After);
                    sleep(Duration::from_millis(random.random_range(0..60))).await;
                    running.kill().await;
                    pause.resume();
                    running = world.owner(&node).await;
                }
                4 => {
                    world.faults.set(Mode::FailWrites(std::io::ErrorKind::PermissionDenied));
                    sleep(Duration::from_millis(random.random_range(0..60))).await;
                    world.faults.set(Mode::Work);
                }
                _ => {
                    world.faults.set(Mode::Unreachable);
                    sleep(Duration::from_millis(random.random_range(0..60))).await;
                    world.faults.set(Mode::Work);
                }
            }
            shard.send_replace(running.shard.clone());
        }
        stop.cancel();
        running
    };
    let (known, running) = futures_util::join!(futures_util::future::join_all(clients), nemesis);
    running.kill().await;
    let total: usize = known.iter().map(|(_, acknowledged)| acknowledged).sum();
    assert!(total > 10, "seed {seed}: only {total} writes were acknowledged");
    for node in ["n0", "other", "empty"] {
        let next = world.owner(node).await;
        let mut there = 0;
        for (id, state) in known.iter().flat_map(|(known, _)| known) {
            let found = next.body(&one, id).await;
            assert!(state.allows(&found), "seed {seed} {node} {id}: {found:?} {state:?}");
            if let Some(word) = found {
                there += 1;
                assert_eq!(
                    next.search(&one, &word, ReadLevel::Strong).await,
                    [id.as_str()],
                    "seed {seed} {node}"
                );
            }
        }
        assert_eq!(next.count(&one).await, there, "seed {seed} {node}");
        next.stop().await;
    }
}

#[tokio::test]
async fn under_faults_every_acknowledged_document_is_found_once_and_no_deleted_one() {
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(3);
    for seed in 0..seeds {
        torture(seed).await;
    }
}
