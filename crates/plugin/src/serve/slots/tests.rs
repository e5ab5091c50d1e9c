use tokio::runtime::Handle;

use super::*;

/// Long enough that the clock moves.
async fn later() {
    tokio::time::advance(Duration::from_millis(1)).await;
}

impl Slots {
    fn order_one(&self) -> bool {
        self.make_room(&mut locked(&self.room), Instant::now())
    }
}

fn ordered(all: &[Slot]) -> Vec<usize> {
    let going = all.iter().enumerate().filter(|(_, slot)| slot.activity.has(Order::MakeRoom));
    going.map(|(at, _)| at).collect()
}

#[tokio::test(start_paused = true)]
async fn the_connection_that_has_been_idle_longest_makes_room_whatever_its_core() {
    let slots = Slots::new(5, 2);
    let all: Vec<_> = (0..5).map(|at| slots.enter(at % 2).unwrap()).collect();
    assert!(slots.enter(0).is_none(), "the limit is one for all cores");
    for at in [3, 1, 4, 0] {
        later().await;
        all[at].activity.idle();
    }
    slots.order_one();
    assert_eq!(ordered(&all), [3]);
    // A request comes to the next one, and then it has been idle for less time than any other.
    all[1].activity.busy();
    later().await;
    all[1].activity.idle();
    slots.order_one();
    assert_eq!(ordered(&all), [3, 4]);
    slots.order_one();
    assert_eq!(ordered(&all), [0, 3, 4]);
    slots.order_one();
    assert_eq!(ordered(&all), [0, 1, 3, 4]);
    slots.order_one();
    assert_eq!(ordered(&all), [0, 1, 3, 4], "one that is busy, or has had no request yet, stays");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_gets_a_request_after_all_stays_and_may_be_asked_again() {
    let slots = Slots::new(1, 1);
    let slot = slots.enter(0).unwrap();
    slot.activity.idle();
    slots.order_one();
    slot.activity.busy();
    assert!(!slot.activity.makes_room());
    later().await;
    slot.activity.idle();
    assert!(!slot.activity.makes_room());
    slots.order_one();
    assert!(slot.activity.makes_room());
}

#[tokio::test(start_paused = true)]
async fn a_new_connection_waits_only_if_none_is_idle() {
    let slots = Slots::new(2, 1);
    let (first, second) = (slots.enter(0).unwrap(), slots.enter(0).unwrap());
    let (waiting, patience) = (Arc::clone(&slots), Duration::from_millis(10));
    let waits = Arc::new(Mutex::new(Vec::new()));
    let full = Arc::clone(&waits);
    let third = Handle::current()
        .spawn(async move { waiting.entered(0, patience, |limit| locked(&full).push(limit)).await });
    for _ in 0..3 {
        tokio::time::sleep(SELDOM).await;
    }
    assert!(!third.is_finished());
    first.activity.idle();
    tokio::time::sleep(SELDOM * 2).await;
    assert!(first.activity.makes_room() && !second.activity.has(Order::MakeRoom));
    drop(first);
    let third = third.await.unwrap();
    assert_eq!(slots.open(), 2);
    assert_eq!(*locked(&waits), [2], "it was reported once");
    third.activity.idle();
    let fourth = slots.entered(0, patience, |_| panic!("one is idle"));
    let going = async {
        while !third.activity.makes_room() {
            tokio::time::sleep(OFTEN).await;
        }
        drop(third);
    };
    let (_fourth, ()) = tokio::join!(fourth, going);
}

#[tokio::test(start_paused = true)]
async fn one_new_connection_closes_one_that_is_idle_however_long_that_takes_within_the_limit() {
    let patience = Duration::from_millis(250);
    for newcomers in [1, 2] {
        let slots = Slots::new(6, 2);
        let all: Vec<_> = (0..6).map(|at| slots.enter(at % 2).unwrap()).collect();
        for slot in &all {
            later().await;
            slot.activity.idle();
        }
        let entering: Vec<_> = (0..newcomers)
            .map(|core| {
                let slots = Arc::clone(&slots);
                Handle::current().spawn(async move { slots.entered(core, patience, |_| ()).await })
            })
            .collect();
        tokio::time::sleep(patience / 2).await;
        assert_eq!(ordered(&all), (0..newcomers).collect::<Vec<_>>());
        let mut staying = all;
        // The first place that is free may be taken by either of them.
        for going in staying.drain(..newcomers) {
            drop(going);
            tokio::time::sleep(OFTEN).await;
        }
        let mut entered = Vec::new();
        for one in entering {
            entered.push(one.await.unwrap());
        }
        assert_eq!(ordered(&staying), [0; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn connections_that_do_not_go_in_time_are_followed_by_twice_as_many_each_time() {
    let patience = Duration::from_millis(250);
    let slots = Slots::new(100, 1);
    let all: Vec<_> = (0..100).map(|_| slots.enter(0).unwrap()).collect();
    for slot in &all {
        slot.activity.idle();
    }
    let entering = Arc::clone(&slots);
    let new = Handle::current().spawn(async move { entering.entered(0, patience, |_| ()).await });
    for expected in [1, 2, 4, 8] {
        tokio::time::sleep(patience / 2).await;
        assert_eq!(ordered(&all).len(), expected);
        tokio::time::sleep(patience / 2 + OFTEN).await;
    }
    drop(all);
    let _new = new.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_became_busy_is_replaced_by_the_next_at_once() {
    let slots = Slots::new(2, 1);
    let all = [slots.enter(0).unwrap(), slots.enter(0).unwrap()];
    for slot in &all {
        later().await;
        slot.activity.idle();
    }
    let entering = Arc::clone(&slots);
    let new = Handle::current().spawn(async move { entering.entered(0, SELDOM, |_| ()).await });
    tokio::time::sleep(OFTEN).await;
    assert_eq!(ordered(&all), [0]);
    all[0].activity.busy();
    assert!(!all[0].activity.makes_room());
    tokio::time::sleep(OFTEN * 2).await;
    assert_eq!(ordered(&all), [1]);
    drop(all);
    let _new = new.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_higher_limit_lets_a_waiting_connection_in_and_a_lower_one_makes_idle_ones_go() {
    let slots = Slots::new(1, 1);
    let first = slots.enter(0).unwrap();
    let waiting = Arc::clone(&slots);
    let second =
        Handle::current().spawn(async move { waiting.entered(0, Duration::MAX / 100, |_| ()).await });
    tokio::task::yield_now().await;
    slots.resize(2);
    let second = second.await.unwrap();
    slots.resize(1);
    assert!(slots.enter(0).is_none());
    first.activity.idle();
    let third = slots.entered(0, Duration::from_millis(10), |_| ());
    let going = async {
        while !first.activity.makes_room() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Two have to go before one may come.
        drop((first, second));
    };
    let (_third, ()) = tokio::join!(third, going);
    assert_eq!(slots.open(), 1);
}

#[tokio::test(start_paused = true)]
async fn of_many_idle_connections_the_earliest_go_first() {
    let slots = Slots::new(1_000, 2);
    let all: Vec<_> = (0..1_000).map(|at| slots.enter(at % 2).unwrap()).collect();
    for slot in all.iter().rev() {
        later().await;
        slot.activity.idle();
    }
    for gone in 1..=200 {
        slots.order_one();
        assert_eq!(ordered(&all).len(), gone);
        assert!(all[1_000 - gone].activity.has(Order::MakeRoom));
    }
    drop(all);
    assert!(slots.cores.iter().all(|core| locked(core).is_empty()));
    assert_eq!(slots.open(), 0);
}

#[test]
fn a_drain_reaches_every_connection_and_those_that_come_later() {
    let slots = Slots::new(10, 2);
    let before = [slots.enter(0).unwrap(), slots.enter(1).unwrap()];
    slots.drain();
    let after = [slots.enter(1).unwrap(), slots.enter_last(0)];
    for slot in before.iter().chain(&after) {
        assert!(slot.activity.has(Order::Drain) && !slot.activity.has(Order::Stop));
    }
    assert_eq!(slots.opened(), 4);
}

#[test]
fn an_order_reaches_every_connection_of_its_core_and_no_other() {
    let slots = Slots::new(10, 2);
    let (one, other, last) = (slots.enter(0).unwrap(), slots.enter(1).unwrap(), slots.enter_last(0));
    slots.stop(0, Stopped::AllButLast);
    assert!(one.activity.has(Order::Stop) && !last.activity.has(Order::Stop));
    slots.stop(0, Stopped::All);
    assert!(last.activity.has(Order::Stop) && !other.activity.has(Order::Stop));
}
