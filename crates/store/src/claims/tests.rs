use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

use super::*;
use crate::faults::{Faults, Mode, Op, When};
use crate::testing::{Place, objects};

fn claims(objects: &Objects) -> Claims {
    Claims::new(objects.clone(), Some("http://10.0.0.1:7400".into()))
}

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn shard() -> ShardRef {
    "storage/0".parse().unwrap()
}

fn why(why: &str) -> Farewell<'_> {
    Farewell { why: Some(why), ..Farewell::default() }
}

async fn take(claims: &Claims, seen: &ClaimState, name: &str) -> Result<Holder, ClaimError> {
    claims.take(&shard(), seen, &node(name), Generation(1)).await
}

fn lost<T: std::fmt::Debug>(result: Result<T, ClaimError>) -> ClaimState {
    match result {
        Err(ClaimError::Lost(state)) => state,
        other => panic!("not lost: {other:?}"),
    }
}

/// Nodes that take and release at random: epochs rise, one holder at a time, every release ends its own take.
pub(crate) async fn racing_nodes_share_a_shard(objects: Objects, seed: u64, nodes: u64, rounds: usize) {
    let mut tasks = JoinSet::new();
    for number in 0..nodes {
        let claims = claims(&objects);
        tasks.spawn(async move {
            let mut random = StdRng::seed_from_u64(seed * 31 + number);
            let (me, generation) = (node(&format!("n{number}")), Generation(number));
            let mut taken = Vec::<Holder>::new();
            for _ in 0..rounds {
                let seen = claims.read(&shard()).await.unwrap();
                let mine = seen.holder.as_ref().filter(|holder| holder.node == me).cloned();
                match mine {
                    Some(holder) if random.random_bool(0.5) => {
                        match claims.release(&shard(), &holder, why("tired")).await {
                            Ok(()) => {}
                            Err(ClaimError::Lost(now)) => assert!(now.number > holder.epoch.0),
                            Err(ClaimError::Store(error)) => panic!("{error}"),
                        }
                    }
                    Some(_) => {}
                    None => match claims.take(&shard(), &seen, &me, generation).await {
                        Ok(holder) => {
                            assert_eq!(holder.epoch.0, seen.number + 1);
                            assert!(taken.last().is_none_or(|last| last.epoch < holder.epoch));
                            taken.push(holder);
                        }
                        Err(ClaimError::Lost(now)) => assert!(now.number > seen.number),
                        Err(ClaimError::Store(error)) => panic!("{error}"),
                    },
                }
                // A take that another has followed cannot be released, unless its own holder had released it.
                let Some(passed) = taken.iter().rev().nth(1) else { continue };
                match claims.release(&shard(), passed, Farewell::default()).await {
                    Ok(()) => panic!("it has taken the shard again since"),
                    Err(ClaimError::Lost(now)) => assert!(now.number > passed.epoch.0),
                    Err(ClaimError::Store(error)) => panic!("{error}"),
                }
            }
            taken
        });
    }
    let taken: Vec<Holder> = tasks.join_all().await.into_iter().flatten().collect();
    let claims = claims(&objects);
    let mut history = BTreeMap::new();
    for number in 1..=claims.read(&shard()).await.unwrap().number {
        let record = claims.log(&shard()).entry(number).await.unwrap().expect("no gap");
        if let Record::Release { node, epoch, .. } = &record {
            assert_eq!(epoch.0, number - 1, "a release ends the take before it");
            assert!(matches!(&history[&epoch.0], Record::Take { node: taker, .. } if taker == node));
        }
        history.insert(number, record);
    }
    for holder in taken {
        let Record::Take { node, generation, .. } = &history[&holder.epoch.0] else {
            panic!("a take that succeeded is in the log");
        };
        assert_eq!((node, *generation), (&holder.node, holder.generation));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_nodes_never_own_a_shard_together() {
    for seed in 0..5 {
        racing_nodes_share_a_shard(Place::memory().objects(), seed, 6, 40).await;
    }
    let folder = Place::folder();
    racing_nodes_share_a_shard(folder.objects(), 1, 4, 8).await;
}

#[tokio::test]
async fn a_claim_passes_from_node_to_node_with_rising_epochs() {
    let claims = claims(&Place::memory().objects());
    let unowned = claims.read(&shard()).await.unwrap();
    assert_eq!(unowned, ClaimState::default());
    let a = take(&claims, &unowned, "a").await.unwrap();
    assert_eq!(a, Holder { node: node("a"), generation: Generation(1), epoch: Epoch(1) });
    let seen = claims.read(&shard()).await.unwrap();
    assert_eq!((seen.number, seen.holder.as_ref(), seen.latest.clone()), (1, Some(&a), Latest::Taken));
    assert_eq!(seen.note().as_deref(), Some("taken by a"));
    assert!(seen.since_ms.is_some());
    assert!(claims.is_latest(&shard(), a.epoch.0).await.unwrap());
    claims.release(&shard(), &a, Farewell { to: Some(&node("b")), ..why("moved") }).await.unwrap();
    assert!(!claims.is_latest(&shard(), a.epoch.0).await.unwrap());
    let seen = claims.read(&shard()).await.unwrap();
    assert_eq!((seen.holder.as_ref(), seen.note().as_deref()), (None, Some("released by a to b: moved")));
    assert_eq!(take(&claims, &seen, "b").await.unwrap().epoch, Epoch(3));
}

#[tokio::test]
async fn of_two_that_take_from_the_same_state_the_loser_learns_who_won() {
    let claims = claims(&Place::memory().objects());
    let unowned = ClaimState::default();
    take(&claims, &unowned, "a").await.unwrap();
    let error = take(&claims, &unowned, "b").await.unwrap_err();
    assert_eq!(error.to_string(), "the claim has changed: taken by a");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(lost::<()>(Err(error)).holder.unwrap().node, node("a"));
}

#[tokio::test]
async fn only_the_holder_itself_can_release_and_twice_is_no_error() {
    let claims = claims(&Place::memory().objects());
    let a = take(&claims, &ClaimState::default(), "a").await.unwrap();
    for other in [
        Holder { node: node("b"), ..a.clone() },
        Holder { generation: Generation(2), ..a.clone() },
        Holder { epoch: Epoch(2), ..a.clone() },
        Holder { epoch: Epoch(9), ..a.clone() },
    ] {
        lost(claims.release(&shard(), &other, Farewell::default()).await);
    }
    assert_eq!(claims.read(&shard()).await.unwrap().number, 1);
    claims.release(&shard(), &a, why("leaving")).await.unwrap();
    claims.release(&shard(), &a, why("leaving")).await.unwrap();
    let seen = claims.read(&shard()).await.unwrap();
    assert_eq!((seen.number, seen.note().as_deref()), (2, Some("released by a: leaving")));
    take(&claims, &seen, "b").await.unwrap();
    lost(claims.release(&shard(), &a, Farewell::default()).await);
    assert_eq!(claims.read(&shard()).await.unwrap().holder.unwrap().node, node("b"));
}

#[tokio::test]
async fn a_holder_that_is_challenged_keeps_its_shard_if_it_defends_itself() {
    let claims = claims(&Place::memory().objects());
    let shard = shard();
    let a = take(&claims, &ClaimState::default(), "a").await.unwrap();
    let seen = claims.read(&shard).await.unwrap();
    let challenged = claims.challenge(&shard, &seen, &node("b"), Generation(1), 1).await.unwrap();
    assert_eq!(
        (challenged.number, challenged.holder.as_ref(), challenged.since_ms),
        (2, Some(&a), seen.since_ms)
    );
    assert_eq!(challenged.note().as_deref(), Some("b challenges a"));
    assert!(!claims.is_latest(&shard, a.epoch.0).await.unwrap(), "the poll shows it");

    let known = claims.read(&shard).await.unwrap();
    assert_eq!(known, challenged);
    let defended = claims.defend(&shard, &known).await.unwrap();
    assert_eq!((defended.holder.as_ref(), &defended.latest), (Some(&a), &Latest::Defended));
    let now = lost(take(&claims, &challenged, "b").await);
    assert_eq!(now, defended, "the challenger learns of it");
    assert!(claims.is_latest(&shard, defended.number).await.unwrap());
    claims.release(&shard, &a, why("done")).await.unwrap();
}

#[tokio::test]
async fn a_challenger_without_an_answer_takes_the_shard_and_a_late_defence_fails() {
    let claims = claims(&Place::memory().objects());
    let shard = shard();
    let a = take(&claims, &ClaimState::default(), "a").await.unwrap();
    let seen = claims.read(&shard).await.unwrap();
    let challenged = claims.challenge(&shard, &seen, &node("b"), Generation(1), 1).await.unwrap();
    let b = take(&claims, &challenged, "b").await.unwrap();
    assert_eq!(b.epoch, Epoch(3));
    assert_eq!(lost(claims.defend(&shard, &challenged).await).holder, Some(b.clone()));
    assert_eq!(lost(claims.release(&shard, &a, why("late")).await).holder, Some(b));
}

#[tokio::test]
async fn of_two_challengers_one_succeeds() {
    let claims = claims(&Place::memory().objects());
    let shard = shard();
    take(&claims, &ClaimState::default(), "a").await.unwrap();
    let seen = claims.read(&shard).await.unwrap();
    claims.challenge(&shard, &seen, &node("b"), Generation(1), 1).await.unwrap();
    let second = claims.challenge(&shard, &seen, &node("c"), Generation(1), 0).await;
    assert_eq!(lost(second).latest, Latest::Challenged { by: node("b"), sees: 1 });
}

#[tokio::test]
async fn a_holder_that_is_challenged_can_still_release_its_shard() {
    let claims = claims(&Place::memory().objects());
    let shard = shard();
    let a = take(&claims, &ClaimState::default(), "a").await.unwrap();
    let seen = claims.read(&shard).await.unwrap();
    claims.challenge(&shard, &seen, &node("b"), Generation(1), 1).await.unwrap();
    let refused = Farewell { is_refused: true, ..why("no room") };
    claims.release(&shard, &a, refused).await.unwrap();
    let now = claims.read(&shard).await.unwrap();
    assert_eq!(now.note().as_deref(), Some("refused by a: no room"));
    assert_eq!(take(&claims, &now, "b").await.unwrap().epoch, Epoch(4));
}

#[tokio::test]
async fn a_taker_that_slept_at_any_step_learns_that_it_lost() {
    let steps = [(Op::Create, When::Before), (Op::Create, When::After), (Op::List, When::Before)];
    for (op, when) in steps {
        let faults = Faults::new(Place::memory().store);
        let claims = claims(&objects(faults.objects()));
        let mut pause = faults.pause_next(op, when);
        let unowned = ClaimState::default();
        let others = async {
            pause.reached().await;
            let seen = claims.read(&shard()).await.unwrap();
            take(&claims, &seen, "b").await.unwrap();
            pause.resume();
        };
        let (slept, ()) = tokio::join!(take(&claims, &unowned, "a"), others);
        assert_eq!(lost(slept).holder.unwrap().node, node("b"), "{op:?} {when:?}");
    }
}

#[tokio::test]
async fn a_taker_that_slept_before_its_answer_sees_it_at_its_first_poll() {
    let faults = Faults::new(Place::memory().store);
    let claims = claims(&objects(faults.objects()));
    // Its last read: on a folder the number after the highest listed one is read too.
    let mut pause = faults.pause_next(Op::Get, When::After);
    let unowned = ClaimState::default();
    let others = async {
        pause.reached().await;
        let seen = claims.read(&shard()).await.unwrap();
        take(&claims, &seen, "b").await.unwrap();
        pause.resume();
    };
    let (slept, ()) = tokio::join!(take(&claims, &unowned, "a"), others);
    assert!(!claims.is_latest(&shard(), slept.unwrap().epoch.0).await.unwrap());
}

#[tokio::test]
async fn a_holder_that_slept_at_any_step_of_its_release_never_ends_anothers_claim() {
    let steps = [
        (Op::Get, When::Before),
        (Op::Get, When::After),
        (Op::Create, When::Before),
        (Op::Create, When::After),
        (Op::List, When::Before),
        (Op::List, When::After),
    ];
    for (op, when) in steps {
        let faults = Faults::new(Place::memory().store);
        let claims = claims(&objects(faults.objects()));
        let a = take(&claims, &ClaimState::default(), "a").await.unwrap();
        let mut pause = faults.pause_next(op, when);
        let others = async {
            pause.reached().await;
            let seen = claims.read(&shard()).await.unwrap();
            take(&claims, &seen, "b").await.unwrap();
            pause.resume();
        };
        let shard = shard();
        let (released, ()) = tokio::join!(claims.release(&shard, &a, Farewell::default()), others);
        // Released and then taken, or the other way round: b owns it.
        let landed = (op, when) == (Op::Create, When::After);
        match released {
            Ok(()) => assert!(landed, "{op:?} {when:?}"),
            Err(ClaimError::Lost(state)) => {
                assert!(!landed && state.holder.unwrap().node == node("b"), "{op:?} {when:?}");
            }
            Err(ClaimError::Store(error)) => panic!("{error}"),
        }
        assert_eq!(claims.read(&shard).await.unwrap().holder.unwrap().node, node("b"));
    }
}

#[tokio::test]
async fn an_unknown_kind_of_entry_is_reported_as_one_of_a_newer_version() {
    let place = Place::memory();
    let newer: Log<serde_json::Value> = Log::new(place.objects(), path(&shard()), LIMITS);
    newer.append(0, &serde_json::json!({"kind": "auction", "node": "b"})).await.unwrap();
    let claims = claims(&place.objects());
    let error = claims.read(&shard()).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Newer);
    let message = error.to_string();
    assert!(message.contains("claims/storage/0/00000000000000000001.json"), "{message}");
    assert!(message.contains("written by a newer version"), "{message}");
    assert!(message.contains("unknown variant `auction`"), "{message}");
    assert_eq!(claims.all().await.unwrap()[&shard()].as_ref().unwrap_err().fault(), Fault::Newer);
}

#[tokio::test]
async fn the_address_of_a_holder_is_kept_until_it_releases_the_shard() {
    let claims = claims(&Place::memory().objects());
    let a = take(&claims, &ClaimState::default(), "a").await.unwrap();
    let taken = claims.read(&shard()).await.unwrap();
    let (b, none) = (node("b"), Generation(1));
    let challenged = claims.challenge(&shard(), &taken, &b, none, 1).await.unwrap();
    let defended = claims.defend(&shard(), &challenged).await.unwrap();
    let read = claims.read(&shard()).await.unwrap();
    for state in [taken, challenged, defended, read] {
        assert_eq!(state.http.as_deref(), Some("http://10.0.0.1:7400"), "{:?}", state.latest);
    }
    claims.release(&shard(), &a, Farewell::default()).await.unwrap();
    assert_eq!(claims.read(&shard()).await.unwrap().http, None);
}

#[tokio::test]
async fn claims_of_versions_that_record_no_address_are_read() {
    let place = Place::memory();
    let old = Log::<serde_json::Value>::new(place.objects(), path(&shard()), LIMITS);
    old.append(0, &serde_json::json!({"kind": "take", "node": "a", "generation": 3})).await.unwrap();
    let claims = claims(&place.objects());
    let taken = claims.read(&shard()).await.unwrap();
    assert_eq!(
        (taken.holder.as_ref().map(|holder| holder.generation), taken.http),
        (Some(Generation(3)), None)
    );
    let holder = serde_json::json!({"node": "a", "generation": 3, "epoch": 1});
    old.append(1, &serde_json::json!({"kind": "defend", "holder": holder})).await.unwrap();
    assert_eq!(claims.read(&shard()).await.unwrap().http, None);
}

#[tokio::test]
async fn all_claims_are_read_and_foreign_folders_are_not() {
    let place = Place::folder();
    let claims = claims(&place.objects());
    for service in ["storage", "searcher"] {
        for number in [0, 1, 10] {
            let shard = format!("{service}/{number}").parse().unwrap();
            claims.take(&shard, &ClaimState::default(), &node("a"), Generation(1)).await.unwrap();
        }
    }
    for other in ["claims/Storage/0/00000000000000000001.json", "claims/storage/x/00000000000000000001.json"]
    {
        place.objects().overwrite(&Path::from(other), "x".into()).await.unwrap();
    }
    let all = claims.all().await.unwrap();
    assert_eq!(all.len(), 6);
    let is_as = |state: &ClaimState| state.holder.as_ref().is_some_and(|holder| holder.node == node("a"));
    assert!(all.values().all(|state| state.as_ref().is_ok_and(is_as)));
}

#[tokio::test]
async fn a_missing_folder_does_not_count_as_a_claim_that_is_still_ours() {
    let place = Place::memory();
    let claims = claims(&place.objects());
    let a = take(&claims, &ClaimState::default(), "a").await.unwrap();
    claims.objects.delete(&path(&shard()).join("00000000000000000001.json")).await.unwrap();
    let error = claims.is_latest(&shard(), a.epoch.0).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Missing);
    assert!(error.to_string().contains("still mounted"), "{error}");
}

#[tokio::test]
async fn a_poll_of_a_failing_store_is_an_error_and_not_an_answer() {
    let faults = Faults::new(Place::memory().store);
    let claims = claims(&objects(faults.objects()));
    let a = take(&claims, &ClaimState::default(), "a").await.unwrap();
    faults.set(Mode::Unreachable);
    let error = claims.is_latest(&shard(), a.epoch.0).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Unreachable);
    faults.set(Mode::Work);
    assert!(claims.is_latest(&shard(), a.epoch.0).await.unwrap());
}

/// A step of a node: 0 to 2 are nodes; the state from which it acts may be stale.
#[derive(Debug, Clone, Copy)]
enum Step {
    Look(usize),
    Take(usize),
    Release(usize),
}

fn step() -> impl Strategy<Value = Step> {
    (0..3_usize, 0..3_u8).prop_map(|(node, kind)| match kind {
        0 => Step::Look(node),
        1 => Step::Take(node),
        _ => Step::Release(node),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn claims_do_what_a_plain_history_does(steps in proptest::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(follow(&steps));
    }
}

/// Does the same to a claim and to a list of who owned it.
async fn follow(steps: &[Step]) {
    let claims = claims(&Place::memory().objects());
    let names = ["a", "b", "c"];
    let mut history: Vec<Option<usize>> = Vec::new();
    let mut seen = vec![ClaimState::default(); 3];
    let mut held: Vec<Option<Holder>> = vec![None; 3];
    for step in steps {
        let number = u64::try_from(history.len()).unwrap();
        match *step {
            Step::Look(who) => seen[who] = claims.read(&shard()).await.unwrap(),
            Step::Take(who) => match take(&claims, &seen[who], names[who]).await {
                Ok(holder) => {
                    assert_eq!((seen[who].number, holder.epoch.0), (number, number + 1));
                    history.push(Some(who));
                    held[who] = Some(holder);
                }
                Err(error) => {
                    assert!(seen[who].number < number);
                    seen[who] = lost::<()>(Err(error));
                }
            },
            Step::Release(who) => {
                let Some(holder) = &held[who] else { continue };
                let latest = holder.epoch.0 == number;
                let again = number == holder.epoch.0 + 1 && history.last() == Some(&None);
                match claims.release(&shard(), holder, Farewell::default()).await {
                    Ok(()) if latest => history.push(None),
                    Ok(()) => assert!(again),
                    Err(_) => assert!(!latest && !again),
                }
            }
        }
        let now = claims.read(&shard()).await.unwrap();
        assert_eq!(now.number, u64::try_from(history.len()).unwrap());
        let owner = history.last().copied().flatten().map(|who| node(names[who]));
        assert_eq!(now.holder.map(|holder| holder.node), owner);
    }
}

#[tokio::test]
async fn a_damaged_latest_entry_is_never_skipped() {
    let place = Place::memory();
    let claims = claims(&place.objects());
    let a = take(&claims, &ClaimState::default(), "a").await.unwrap();
    let other: ShardRef = "storage/7".parse().unwrap();
    claims.take(&other, &ClaimState::default(), &node("a"), Generation(1)).await.unwrap();
    let before = claims.read(&shard()).await.unwrap();
    claims.release(&shard(), &a, Farewell::default()).await.unwrap();
    let released = claims.read(&shard()).await.unwrap();
    let latest = path(&shard()).join("00000000000000000002.json");
    let whole = place.objects().read(&latest).await.unwrap().unwrap();
    let mut harmed: Vec<Vec<u8>> = (0..whole.len()).map(|length| whole[..length].to_vec()).collect();
    for (at, bit) in (0..whole.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut flipped = whole.to_vec();
        flipped[at] ^= 1 << bit;
        harmed.push(flipped);
    }
    harmed.extend([b"null".to_vec(), b"{}".to_vec(), b"[]".to_vec(), vec![0; whole.len()]]);
    let mut silent = 0;
    for content in harmed {
        let shown = String::from_utf8_lossy(&content).into_owned();
        place.objects().overwrite(&latest, content.into()).await.unwrap();
        match claims.read(&shard()).await {
            // The name of an optional field may change, if the state stays the same.
            Ok(state) => {
                assert_eq!(state, released, "{shown}");
                silent += 1;
            }
            Err(error) => {
                assert!(error.is_of_content(), "{shown}: {error}");
                assert!(error.to_string().contains("00000000000000000002.json"), "{error}");
                let taken = claims.take(&shard(), &before, &node("b"), Generation(2)).await;
                assert!(
                    matches!(taken, Err(ClaimError::Store(_) | ClaimError::Lost(_))),
                    "{shown}: {taken:?}"
                );
                let all = claims.all().await.unwrap();
                assert!(all[&shard()].is_err() && all[&other].is_ok(), "{shown}");
            }
        }
    }
    // A damaged name of the checksum field counts as a field of a later version.
    assert!(silent < whole.len(), "{silent}");
}
