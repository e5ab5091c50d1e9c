use std::time::Duration;

use slatedb::object_store::memory::InMemory;
use store::faults::{Faults, Op, Pause, When};

use super::*;
use crate::engine::EngineError;
use crate::engine::testing::Owners;
use crate::engine::tests::Running;

const PATIENCE: Duration = Duration::from_secs(30);

/// Begins to open a database and holds it at one of its steps. Nothing if there are fewer.
async fn asleep(
    way: &Faults,
    owners: &Arc<Owners>,
    op: Op,
    when: When,
    step: u32,
) -> Option<(Running, Pause)> {
    let mut pause = way.pause_next(op, when);
    let sleeper = Running::begin(way.objects(), owners.take().await);
    for _ in 0..step {
        tokio::select! {
            biased;
            () = pause.reached() => {}
            _ = sleeper.engine.opened(PATIENCE) => {}
        }
        // The next one is asked for before this one goes on, so that none gets through.
        let next = way.pause_next(op, when);
        std::mem::replace(&mut pause, next).resume();
    }
    tokio::select! {
        biased;
        () = pause.reached() => Some((sleeper, pause)),
        _ = sleeper.engine.opened(PATIENCE) => {
            pause.resume();
            sleeper.stop().await;
            None
        }
    }
}

/// Sleeps at a step while another takes over. Whether there is such a step.
async fn survives_a_sleeper(existed: bool, op: Op, when: When, step: u32) -> bool {
    let at = format!("{op:?} {when:?} {step}");
    let memory = Arc::new(InMemory::new());
    let owners = Arc::<Owners>::default();
    if existed {
        let before = Running::begin(memory.clone(), owners.take().await);
        before.engine.opened(PATIENCE).await.unwrap();
        before.put("before", "1").await.unwrap();
        before.stop().await;
    }
    // The sleeper has its own way to the store; only there things are held.
    let way = Faults::new(memory.clone());
    let Some((sleeper, pause)) = asleep(&way, &owners, op, when, step).await else { return false };
    let owner = Running::begin(memory, owners.take().await);
    owner.engine.opened(PATIENCE).await.unwrap();
    owner.put("during", "1").await.unwrap();
    pause.resume();
    loop {
        match sleeper.put("wrong", "1").await {
            Err(EngineError::Passed(_)) => break,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            Ok(()) => panic!("{at}: the sleeper answered a write"),
        }
    }
    assert!(sleeper.get("during").await.is_err(), "{at}");
    owner.put("after", "1").await.unwrap_or_else(|error| panic!("{at}: {error}"));
    for name in ["during", "after"] {
        assert_eq!(owner.get(name).await.unwrap().as_deref(), Some("1"), "{at}");
    }
    assert_eq!(owner.get("wrong").await.unwrap(), None, "{at}");
    assert_eq!(owner.get("before").await.unwrap().is_some(), existed, "{at}");
    sleeper.stop().await;
    owner.stop().await;
    true
}

#[tokio::test(start_paused = true)]
async fn who_slept_at_any_step_of_opening_never_harms_the_one_who_took_over() {
    let mut slept = 0;
    for existed in [false, true] {
        for op in [Op::Get, Op::Create, Op::List] {
            for when in [When::Before, When::After] {
                for step in 0.. {
                    if !survives_a_sleeper(existed, op, when, step).await {
                        break;
                    }
                    slept += 1;
                }
            }
        }
    }
    assert!(slept > 30, "it slept at {slept} steps only");
}
