use super::*;

const SIZE: usize = 100 * 1024;

/// A body of which this many bytes have arrived.
async fn arrived(queue: &QueueBytes, bytes: usize) -> Arriving {
    let mut body = queue.begin(0).await.unwrap();
    body.grow(bytes).await.unwrap();
    body
}

fn free(queue: &QueueBytes) -> usize {
    queue.0.state().free
}

#[tokio::test(start_paused = true)]
async fn only_what_has_arrived_takes_space_and_it_is_free_again_at_the_end() {
    let queue = QueueBytes::new(SIZE);
    let body = arrived(&queue, 1_000).await;
    assert_eq!(free(&queue), SIZE - 1_000 - OVERHEAD);
    let space = body.arrived();
    assert!(queue.0.state().arriving.is_empty());
    drop(space);
    assert_eq!(free(&queue), SIZE);
    drop(arrived(&queue, 1_000).await);
    assert_eq!(free(&queue), SIZE, "a body that broke off holds nothing");
    assert!(queue.0.state().arriving.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_larger_than_all_space_holds_all_of_it() {
    let queue = QueueBytes::new(SIZE);
    let mut body = arrived(&queue, SIZE * 2).await;
    assert_eq!(free(&queue), 0);
    body.grow(1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_write_that_finds_no_space_is_refused_after_two_seconds() {
    let queue = QueueBytes::new(SIZE);
    let held = queue.reserve(SIZE).unwrap();
    assert!(queue.reserve(0).is_none());
    let began = Instant::now();
    assert_eq!(queue.begin(0).await.err(), Some(QueueFull));
    assert_eq!(began.elapsed(), WAIT);
    drop(held);
    assert!(queue.begin(0).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_youngest_waiting_body_is_refused_and_the_oldest_completes() {
    let queue = QueueBytes::new(SIZE);
    let mut bodies = Vec::new();
    for _ in 0..4 {
        bodies.push(arrived(&queue, SIZE / 4 - OVERHEAD).await);
    }
    assert!(free(&queue) < 1_024);
    // Each wants three times its share of the space, a kibibyte at a time.
    let ends = bodies.into_iter().enumerate().map(|(number, mut body)| async move {
        for _ in 0..SIZE / 2 / 1024 {
            if body.grow(1024).await.is_err() {
                return (number, false);
            }
        }
        let _space = body.arrived();
        (number, true)
    });
    let began = Instant::now();
    let ends = futures_util::future::join_all(ends).await;
    assert_eq!(ends[0], (0, true), "{ends:?}");
    assert_eq!(ends[3], (3, false), "{ends:?}");
    assert!(began.elapsed() < WAIT * 4, "{:?}", began.elapsed());
    assert_eq!(free(&queue), SIZE);
}

#[tokio::test(start_paused = true)]
async fn what_becomes_free_goes_to_the_oldest_body() {
    let queue = QueueBytes::new(SIZE);
    let mut old = arrived(&queue, 0).await;
    let mut young = arrived(&queue, 0).await;
    let held = queue.reserve(free(&queue) - OVERHEAD).unwrap();
    let waits = async {
        let young = young.grow(1_000);
        tokio::pin!(young);
        // The younger one begins to wait first.
        assert!(tokio::time::timeout(POLL, &mut young).await.is_err());
        let frees = async move {
            tokio::time::sleep(POLL).await;
            drop(held);
        };
        let old_first = async {
            old.grow(SIZE / 2).await.unwrap();
            Instant::now()
        };
        let (old, young, ()) = tokio::join!(old_first, young, frees);
        assert_eq!(young, Ok(()));
        old
    };
    assert_eq!(waits.await, Instant::now());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_broke_off_while_it_waited_leaves_the_space_to_the_next() {
    let queue = QueueBytes::new(SIZE);
    let held = queue.reserve(SIZE).unwrap();
    let (mut first, second) = (Box::pin(queue.begin(0)), queue.begin(0));
    assert!(tokio::time::timeout(POLL, &mut first).await.is_err());
    let ends = async {
        tokio::time::sleep(POLL).await;
        drop(first);
        drop(held);
    };
    let (second, ()) = tokio::join!(second, ends);
    assert!(second.is_ok());
}
