use std::time::Duration;

use slatedb::object_store::memory::InMemory;
use store::faults::{Faults, Op, Pause, When};

use super::*;
use crate::engine::EngineError;
use crate::engine::testing::Owners;
use crate::engine::tests::Running;

const PATIENCE: Duration = Duration::from_secs(30);

/// Starts to open a database and pauses it at one of its steps. `None` if there are fewer steps.
async fn paused(
    way: &Faults,
    owners: &Arc<Owners>,
    op: Op,
    when: When,
    step: u32,
) -> Option<(Running, Pause)> {
    let mut pause = way.pause_next(op, when);
    let opening = Running::begin(way.objects(), owners.take().await);
    for _ in 0..step {
        tokio::select! {
            biased;
            () = pause.reached() => {}
            _ = opening.engine.opened(PATIENCE) => {}
        }
        // The next pause is requested before this step resumes, so that no step is missed.
        let next = way.pause_next(op, when);
        std::mem::replace(&mut pause, next).resume();
    }
    tokio::select! {
        biased;
        () = pause.reached() => Some((opening, pause)),
        _ = opening.engine.opened(PATIENCE) => {
            pause.resume();
            opening.stop().await;
            None
        }
    }
}

/// Pauses an opening at a step while another node takes over. Returns whether there is such a step.
async fn survives_a_pause(existed: bool, op: Op, when: When, step: u32) -> bool {
    let at = format!("{op:?} {when:?} {step}");
    let memory = Arc::new(InMemory::new());
    let owners = Arc::<Owners>::default();
    if existed {
        let before = Running::begin(memory.clone(), owners.take().await);
        before.engine.opened(PATIENCE).await.unwrap();
        before.put("before", "1").await.unwrap();
        before.stop().await;
    }
    // The paused process has its own handle to the store; only there requests are held.
    let way = Faults::new(memory.clone());
    let Some((old, pause)) = paused(&way, &owners, op, when, step).await else { return false };
    let owner = Running::begin(memory, owners.take().await);
    owner.engine.opened(PATIENCE).await.unwrap();
    owner.put("during", "1").await.unwrap();
    pause.resume();
    loop {
        match old.put("wrong", "1").await {
            Err(EngineError::Passed(_)) => break,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            Ok(()) => panic!("{at}: the paused process acknowledged a write"),
        }
    }
    assert!(old.get("during").await.is_err(), "{at}");
    owner.put("after", "1").await.unwrap_or_else(|error| panic!("{at}: {error}"));
    for name in ["during", "after"] {
        assert_eq!(owner.get(name).await.unwrap().as_deref(), Some("1"), "{at}");
    }
    assert_eq!(owner.get("wrong").await.unwrap(), None, "{at}");
    assert_eq!(owner.get("before").await.unwrap().is_some(), existed, "{at}");
    old.stop().await;
    owner.stop().await;
    true
}

#[tokio::test(start_paused = true)]
async fn an_opening_that_was_paused_at_any_step_never_harms_the_new_owner() {
    let mut pauses = 0;
    for existed in [false, true] {
        for op in [Op::Get, Op::Create, Op::List] {
            for when in [When::Before, When::After] {
                for step in 0.. {
                    if !survives_a_pause(existed, op, when, step).await {
                        break;
                    }
                    pauses += 1;
                }
            }
        }
    }
    assert!(pauses > 30, "it was paused at only {pauses} steps");
}
