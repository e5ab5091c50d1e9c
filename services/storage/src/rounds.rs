//! Many wait, one works: requests that came while a round ran are served together by the next.
//!
//! What a round does began after all that it serves had come. That makes one flush the commit of a whole group of
//! writes, and one look at the store the proof for a whole group of reads.

use tokio::sync::mpsc;
use tokio::task::yield_now;

/// Serves what comes through a queue, one round at a time and at most `most` of them in a round, until a round fails
/// or nobody can ask any more.
pub(crate) async fn rounds<T, E, R>(
    queue: &mut mpsc::Receiver<T>,
    most: usize,
    mut serve: impl FnMut(Vec<T>) -> R,
) -> Result<(), E>
where
    R: Future<Output = Result<(), E>>,
{
    loop {
        let mut served = Vec::new();
        if queue.recv_many(&mut served, most).await == 0 {
            return Ok(());
        }
        // A round costs about the same for one as for many. So who is about to ask, because a request of theirs lies in
        // a socket already, is let in as well.
        yield_now().await;
        while served.len() < most
            && let Ok(next) = queue.try_recv()
        {
            served.push(next);
        }
        serve(served).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::*;

    const ROUND: Duration = Duration::from_millis(10);

    #[tokio::test(start_paused = true)]
    async fn who_comes_during_a_round_is_served_by_the_next_one() {
        let (asks, mut queue) = mpsc::channel(10);
        let log = RefCell::new(Vec::new());
        let round = async |served: Vec<u32>| {
            let began = Instant::now();
            sleep(ROUND).await;
            log.borrow_mut().push((began, served));
            Ok::<_, ()>(())
        };
        let serving = rounds(&mut queue, 10, round);
        let start = Instant::now();
        let asking = async move {
            asks.send(1).await.unwrap();
            sleep(ROUND / 2).await;
            for ask in [2, 3, 4] {
                asks.send(ask).await.unwrap();
            }
        };
        let (served, ()) = tokio::join!(serving, asking);
        assert_eq!(served, Ok(()), "it ends when nobody can ask any more");
        assert_eq!(log.into_inner(), [(start, vec![1]), (start + ROUND, vec![2, 3, 4])]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_serves_no_more_than_it_may() {
        let (asks, mut queue) = mpsc::channel(10);
        for ask in 0..5 {
            asks.send(ask).await.unwrap();
        }
        drop(asks);
        let sizes = RefCell::new(Vec::new());
        let serve = async |served: Vec<u32>| {
            sizes.borrow_mut().push(served.len());
            Ok::<_, ()>(())
        };
        assert_eq!(rounds(&mut queue, 2, serve).await, Ok(()));
        assert_eq!(sizes.into_inner(), [2, 2, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_that_fails_is_the_last() {
        let (asks, mut queue) = mpsc::channel(10);
        asks.send(1).await.unwrap();
        assert_eq!(
            rounds(&mut queue, 2, |_: Vec<u32>| std::future::ready(Err("broken"))).await,
            Err("broken")
        );
        assert!(asks.send(2).await.is_ok(), "what came later is still in the queue");
        assert_eq!(queue.recv().await, Some(2));
    }
}
