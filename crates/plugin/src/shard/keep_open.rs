//! Keeps a shard's data open, at its owner or a replica: opens, serves, closes on failure, backs off and reports.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use types::Backoff;

use super::{Kept, NotOpen};

/// How long an opening in progress may still take after the stop.
const LAST_OPENING: Duration = Duration::from_secs(5);

/// How a shard's data is opened, served and closed.
pub trait Open: Send + Sync {
    /// What was opened.
    type Opened: Send + Sync;
    /// What requests use of it.
    type Data: Clone + Send + Sync;

    /// Opens the data. When the service has to end, this may take five more seconds; the result is then closed.
    fn open(&self) -> impl Future<Output = Result<Self::Opened, OpenError>> + Send;

    /// Lets requests use the data ([`Kept::open`]) until it can't be trusted any more, and returns why. Dropped when the
    /// service has to end.
    fn serve(&self, opened: &Self::Opened, kept: &Kept<Self::Data>) -> impl Future<Output = String> + Send;

    /// Closes the data.
    fn close(&self, opened: Self::Opened, reason: Closing) -> impl Future<Output = ()> + Send;

    /// Called last, if another node turns out to own the shard.
    fn passed(&self, why: &str) {
        let _ = why;
    }
}

/// Why the data is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// It can't be trusted any more, and is opened again.
    Failed,
    /// The service ends while requests may have been served.
    Ending,
    /// The service ended while it was being opened.
    Unused,
}

/// Why the data was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Stop: this node no longer owns the shard.
    #[error("{0}")]
    Passed(String),
    /// Try again later.
    #[error("{0}")]
    Failed(String),
    /// The stored data is damaged, so no other node could open it either.
    #[error("{0}")]
    Damaged(String),
}

/// The pauses between attempts to open.
#[derive(Debug, Clone, Copy)]
pub struct Pauses {
    /// The usual ones.
    pub backoff: Backoff,
    /// The longest one while the stored data is damaged.
    pub damaged: Duration,
    /// After the data was open for longer than this, the pauses begin with the first one again.
    pub steady: Duration,
}

/// Ends all waits for the data, however [`keep_open`] ends.
struct EndOnDrop<'a, T: Clone>(&'a Kept<T>);

impl<T: Clone> Drop for EndOnDrop<'_, T> {
    fn drop(&mut self) {
        self.0.not(NotOpen::Ended);
    }
}

/// Keeps the data open until `stop` is cancelled or the shard has passed to another node.
pub async fn keep_open<O: Open>(open: &O, kept: &Kept<O::Data>, pauses: Pauses, stop: &CancellationToken) {
    let _ended = EndOnDrop(kept);
    let (mut retries, mut was_damaged) = (pauses.backoff.retries(), false);
    let mut damage = pauses.backoff.up_to(pauses.damaged).retries();
    loop {
        let Some(outcome) = open_unless_stopped(open, stop).await else { return };
        let is_damaged = matches!(outcome, Err(OpenError::Damaged(_)));
        match outcome {
            Ok(opened) => {
                let began = Instant::now();
                let failed = tokio::select! {
                    biased;
                    why = open.serve(&opened, kept) => Some(why),
                    () = stop.cancelled() => None,
                };
                let Some(why) = failed else {
                    kept.not(NotOpen::Opening(Some("it is being closed".to_owned())));
                    return open.close(opened, Closing::Ending).await;
                };
                warn!(why, "the shard's data can't be trusted any more; it is opened again");
                kept.not(NotOpen::Opening(Some(why)));
                open.close(opened, Closing::Failed).await;
                if began.elapsed() > pauses.steady {
                    retries.reset();
                }
            }
            Err(OpenError::Passed(why)) => {
                info!(why, "the shard has passed to another node");
                open.passed(&why);
                return kept.not(NotOpen::Passed(why));
            }
            Err(OpenError::Failed(why)) => {
                let now = NotOpen::Opening(Some(why));
                // Logged once: a replica may wait a long time until there is data.
                if kept.get().err().as_ref() != Some(&now) {
                    warn!(why = %now, "could not open the shard's data");
                }
                kept.not(now);
            }
            // Damage that is gone at the next attempt was an unfinished change of another node.
            Err(OpenError::Damaged(why)) if !was_damaged => kept.not(NotOpen::Opening(Some(why))),
            Err(OpenError::Damaged(why)) => {
                error!(why, "what is stored is damaged, and can't be opened");
                kept.not(NotOpen::Damaged(why));
            }
        }
        // Damage has its own count: after a long outage, data that only looks damaged for a moment is opened again soon.
        let pause = if is_damaged && was_damaged {
            damage.failed(rand::random())
        } else {
            damage.reset();
            retries.failed(rand::random())
        };
        was_damaged = is_damaged;
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
    }
}

/// Opens the data, unless `stop` is cancelled. An opening is not dropped at once, since its own background work would
/// continue.
async fn open_unless_stopped<O: Open>(
    open: &O,
    stop: &CancellationToken,
) -> Option<Result<O::Opened, OpenError>> {
    let mut opening = std::pin::pin!(open.open());
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        opened = &mut opening => return Some(opened),
    }
    if let Ok(Ok(opened)) = timeout(LAST_OPENING, opening).await {
        open.close(opened, Closing::Unused).await;
    }
    None
}

#[cfg(test)]
mod tests;
