//! Group commit: requests that arrive while one group is served form the next group.
//!
//! The work for a group begins after all its requests have arrived. So one flush commits a whole group of writes, and
//! one check of the store confirms a whole group of reads.

use tokio::sync::mpsc;
use tokio::task::yield_now;

/// Serves a queue in groups of at most `most` requests, one group at a time, until a group fails or the last sender is
/// dropped.
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
        // A large group costs about as much as a small one, so this lets callers join whose requests are already in a
        // socket.
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
    async fn requests_that_arrive_while_a_group_is_served_are_in_the_next_one() {
        let (requests, mut queue) = mpsc::channel(10);
        let log = RefCell::new(Vec::new());
        let commit = async |served: Vec<u32>| {
            let began = Instant::now();
            sleep(COMMIT).await;
            log.borrow_mut().push((began, served));
            Ok::<_, ()>(())
        };
        let serving = group_commit(&mut queue, 10, commit);
        let start = Instant::now();
        let sending = async move {
            requests.send(1).await.unwrap();
            sleep(COMMIT / 2).await;
            for request in [2, 3, 4] {
                requests.send(request).await.unwrap();
            }
        };
        let (served, ()) = tokio::join!(serving, sending);
        assert_eq!(served, Ok(()), "it ends with the last sender");
        assert_eq!(log.into_inner(), [(start, vec![1]), (start + COMMIT, vec![2, 3, 4])]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_is_not_larger_than_its_limit() {
        let (requests, mut queue) = mpsc::channel(10);
        for request in 0..5 {
            requests.send(request).await.unwrap();
        }
        drop(requests);
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
        let (requests, mut queue) = mpsc::channel(10);
        requests.send(1).await.unwrap();
        assert_eq!(
            group_commit(&mut queue, 2, |_: Vec<u32>| std::future::ready(Err("broken"))).await,
            Err("broken")
        );
        assert!(requests.send(2).await.is_ok(), "later requests are still in the queue");
        assert_eq!(queue.recv().await, Some(2));
    }
}
