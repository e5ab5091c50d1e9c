//! Group commit: what came while one group was served is served together by the next.
//!
//! The work for a group begins after all that is in it had come. That makes one flush the commit of a whole group of
//! writes, and one look at the store the proof for a whole group of reads.

use tokio::sync::mpsc;
use tokio::task::yield_now;

/// Serves what comes through a queue, one group at a time and at most `most` in a group, until a group fails or the
/// last sender is gone.
pub async fn group_commit<T, E, R>(
    queue: &mut mpsc::Receiver<T>,
    most: usize,
    mut serve: impl FnMut(Vec<T>) -> R,
) -> Result<(), E>
where
    R: Future<Output = Result<(), E>>,
{
    loop {
        let mut group = Vec::new();
        if queue.recv_many(&mut group, most).await == 0 {
            return Ok(());
        }
        // A group costs about the same for one as for many, so callers whose requests lie in a socket already are let in
        // as well.
        yield_now().await;
        while group.len() < most
            && let Ok(next) = queue.try_recv()
        {
            group.push(next);
        }
        serve(group).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::*;

    const COMMIT: Duration = Duration::from_millis(10);

    #[tokio::test(start_paused = true)]
    async fn what_comes_while_a_group_is_served_is_in_the_next_one() {
        let (asks, mut queue) = mpsc::channel(10);
        let log = RefCell::new(Vec::new());
        let commit = async |served: Vec<u32>| {
            let began = Instant::now();
            sleep(COMMIT).await;
            log.borrow_mut().push((began, served));
            Ok::<_, ()>(())
        };
        let serving = group_commit(&mut queue, 10, commit);
        let start = Instant::now();
        let asking = async move {
            asks.send(1).await.unwrap();
            sleep(COMMIT / 2).await;
            for ask in [2, 3, 4] {
                asks.send(ask).await.unwrap();
            }
        };
        let (served, ()) = tokio::join!(serving, asking);
        assert_eq!(served, Ok(()), "it ends with the last sender");
        assert_eq!(log.into_inner(), [(start, vec![1]), (start + COMMIT, vec![2, 3, 4])]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_has_no_more_than_it_may() {
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
        assert_eq!(group_commit(&mut queue, 2, serve).await, Ok(()));
        assert_eq!(sizes.into_inner(), [2, 2, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_that_fails_is_the_last() {
        let (asks, mut queue) = mpsc::channel(10);
        asks.send(1).await.unwrap();
        assert_eq!(
            group_commit(&mut queue, 2, |_: Vec<u32>| std::future::ready(Err("broken"))).await,
            Err("broken")
        );
        assert!(asks.send(2).await.is_ok(), "what came later is still in the queue");
        assert_eq!(queue.recv().await, Some(2));
    }
}
