//! Random histories against a model.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

/// A document of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Modelled {
    word: String,
    seq: u64,
    term: u64,
    version: u64,
}

type Model = BTreeMap<(usize, String), Modelled>;

async fn check(running: &Running, indexes: &[Arc<Index>], model: &Model, context: &str) {
    for (at, index) in indexes.iter().enumerate() {
        let snapshot = running.shard.snapshot(index, ReadLevel::Strong).await.unwrap().value;
        let expected = model.keys().filter(|(of, _)| *of == at).count();
        assert_eq!(snapshot.searcher.num_docs(), u64::try_from(expected).unwrap(), "{context}");
    }
    for (at, index) in indexes.iter().enumerate() {
        for number in 0..8 {
            let id = format!("id-{number}");
            let found = running.get(index, &id).await;
            let modelled = model.get(&(at, id.clone()));
            let found = found.map(|found| {
                let value: serde_json::Value = serde_json::from_str(found.source.get()).unwrap();
                let word = value["body"].as_str().unwrap().to_owned();
                Modelled { word, seq: found.seq, term: found.term, version: found.version }
            });
            assert_eq!(found.as_ref(), modelled, "{context}: {id}");
            if let Some(modelled) = modelled {
                let found = running.search(index, &modelled.word, ReadLevel::Strong).await;
                assert_eq!(found, [id], "{context}");
            }
        }
    }
}

async fn history(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let world = World::new().await;
    let indexes = [world.index("one"), world.index("two")];
    let (mut model, mut next_seq) = (Model::new(), 0);
    let mut running = world.owner("n0").await;
    for step in 0..120 {
        let context = format!("seed {seed} step {step}");
        match random.random_range(0..100) {
            0..80 => {
                let count = random.random_range(1..6);
                let mut writes = Vec::new();
                let mut expected: Vec<Result<(Outcome, u64), ()>> = Vec::new();
                let term = running.epoch();
                for part in 0..count {
                    let at = random.random_range(0..indexes.len());
                    let id = format!("id-{}", random.random_range(0..8));
                    let word = format!("s{step}p{part}");
                    let (key, present) = ((at, id.clone()), model.get(&(at, id.clone())).cloned());
                    let condition = match random.random_range(0..7) {
                        0 => Some(Condition::Absent),
                        1 => present.as_ref().map(|now| Condition::Is { seq: now.seq, term: now.term }),
                        2 => Some(Condition::Unchanged { seq: random.random_range(0..=next_seq) }),
                        3 => Some(Condition::Older { seq: random.random_range(0..=next_seq) }),
                        _ => None,
                    };
                    let holds = match condition {
                        None | Some(Condition::Is { .. }) => true,
                        Some(Condition::Absent) => present.is_none(),
                        Some(Condition::Unchanged { seq }) => {
                            present.as_ref().is_some_and(|now| now.seq == seq)
                        }
                        Some(Condition::Older { seq }) => present.as_ref().is_none_or(|now| now.seq < seq),
                    };
                    let kind = random.random_range(0..3);
                    let write = match kind {
                        0 => put(&indexes[at], &id, &word),
                        1 => merge(&indexes[at], &id, &body(&word)),
                        _ => delete(&indexes[at], &id),
                    };
                    writes.push(Write { condition, ..write });
                    let version = present.as_ref().map_or(0, |now| now.version) + 1;
                    expected.push(match (holds, kind, &present) {
                        (false, _, _) | (true, 1, None) => Err(()),
                        (true, 2, None) => Ok((Outcome::NotFound, 0)),
                        (true, 2, Some(_)) => {
                            model.remove(&key);
                            next_seq += 1;
                            Ok((Outcome::Deleted, version))
                        }
                        (true, _, present) => {
                            model.insert(key, Modelled { word, seq: next_seq, term, version });
                            next_seq += 1;
                            let is_new = present.is_none();
                            Ok((if is_new { Outcome::Created } else { Outcome::Updated }, version))
                        }
                    });
                }
                let results = running.shard.write(writes, Refresh::Durable).await.unwrap();
                let found: Vec<_> = results
                    .into_iter()
                    .map(|result| result.map(|w| (w.outcome, w.version)).map_err(drop))
                    .collect();
                assert_eq!(found, expected, "{context}");
            }
            80..86 => running.shard.refresh().await.unwrap(),
            86..88 => running.shard.compact(&indexes[0]).await.unwrap(),
            88..92 => check(&running, &indexes, &model, &context).await,
            92..94 => {
                running.stop().await;
                running = world.owner(&format!("n{}", random.random_range(0..3))).await;
            }
            94..97 => {
                running.kill().await;
                running = world.owner(&format!("n{}", random.random_range(0..3))).await;
            }
            _ => {
                // A takeover while the former owner runs, in another folder.
                let next = world.owner("other").await;
                check(&next, &indexes, &model, &context).await;
                assert!(running.write(put(&indexes[0], "late", "late")).await.is_err(), "{context}");
                running.stop().await;
                next.stop().await;
                running = world.owner("n0").await;
            }
        }
    }
    check(&running, &indexes, &model, &format!("seed {seed} at the end")).await;
    running.kill().await;
    let last = world.owner("empty").await;
    check(&last, &indexes, &model, &format!("seed {seed} in an empty folder")).await;
    last.stop().await;
}

#[tokio::test]
async fn a_random_history_with_reopenings_and_takeovers_is_that_of_a_map() {
    for seed in 0..2 {
        history(seed).await;
    }
}
