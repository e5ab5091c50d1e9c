//! Whether a shard's data is open, for requests.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// A shard's data for requests while it is open, and the reason while it is not.
#[derive(Debug)]
pub struct Kept<T>(watch::Sender<State<T>>);

#[derive(Debug, Clone)]
enum State<T> {
    Open(T),
    Not(NotOpen),
}

/// Why a shard's data is not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotOpen {
    /// Wait: it is being opened. Contains why it is not open yet, once that is known.
    #[error("{}", .0.as_deref().unwrap_or("it is being opened"))]
    Opening(Option<String>),
    /// Restore it: it can't be opened, since the stored data is damaged. Attempts to open it continue.
    #[error("{0}")]
    Damaged(String),
    /// Send the request to the owner: another node owns the shard. This is final.
    #[error("{0}")]
    Passed(String),
    /// Send the request to another member: the service has ended. This is final.
    #[error("the service has ended")]
    Ended,
}

impl NotOpen {
    fn is_final(&self) -> bool {
        matches!(self, Self::Passed(_) | Self::Ended)
    }
}

impl<T: Clone> Default for Kept<T> {
    fn default() -> Self {
        Self::new(NotOpen::Opening(None))
    }
}

impl<T: Clone> Kept<T> {
    /// Data that is not open, for this reason.
    pub fn new(why: NotOpen) -> Self {
        Self(watch::Sender::new(State::Not(why)))
    }

    /// The data, if it is open.
    pub fn get(&self) -> Result<T, NotOpen> {
        match &*self.0.borrow() {
            State::Open(data) => Ok(data.clone()),
            State::Not(why) => Err(why.clone()),
        }
    }

    /// Lets requests use the data.
    pub fn open(&self, data: T) {
        self.0.send_replace(State::Open(data));
    }

    /// Sets why the data is not open. A final reason is kept.
    pub fn not(&self, why: NotOpen) {
        self.0.send_if_modified(|state| {
            let stays = matches!(state, State::Not(known) if known.is_final());
            if !stays {
                *state = State::Not(why);
            }
            !stays
        });
    }

    /// Waits until the data is open, the reason why it is not is known, or the limit has passed.
    pub async fn tried(&self, limit: Duration) {
        self.wait(limit, |state| !matches!(state, State::Not(NotOpen::Opening(None)))).await;
    }

    /// Waits until the data is open. Fails once it is known that it won't be, or the limit has passed.
    pub async fn opened(&self, limit: Duration) -> Result<T, NotOpen> {
        self.wait(limit, |state| !matches!(state, State::Not(NotOpen::Opening(_)))).await;
        self.get()
    }

    /// Waits until the data is closed for a final reason.
    pub async fn ended(&self) {
        let mut state = self.0.subscribe();
        let _ = state.wait_for(|state| matches!(state, State::Not(why) if why.is_final())).await;
    }

    async fn wait(&self, limit: Duration, until: impl FnMut(&State<T>) -> bool) {
        let mut state = self.0.subscribe();
        let _ = timeout(limit, state.wait_for(until)).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_final_reason_is_kept() {
        let kept = Kept::default();
        assert_eq!(kept.get(), Err(NotOpen::Opening(None)));
        kept.open(7);
        assert_eq!(kept.get(), Ok(7));
        kept.not(NotOpen::Passed("node b has it".to_owned()));
        kept.not(NotOpen::Ended);
        assert_eq!(kept.get(), Err(NotOpen::Passed("node b has it".to_owned())));
        kept.ended().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_once_the_reason_is_known() {
        let kept = Kept::<u32>::default();
        let began = Instant::now();
        assert_eq!(kept.opened(LIMIT).await, Err(NotOpen::Opening(None)));
        kept.tried(LIMIT).await;
        assert_eq!(began.elapsed(), 2 * LIMIT);
        kept.not(NotOpen::Opening(Some("no store".to_owned())));
        kept.tried(LIMIT).await;
        assert_eq!(began.elapsed(), 2 * LIMIT, "it is known why it is not open");
        kept.not(NotOpen::Damaged("a file is gone".to_owned()));
        assert_eq!(kept.opened(LIMIT).await, Err(NotOpen::Damaged("a file is gone".to_owned())));
        assert_eq!(began.elapsed(), 2 * LIMIT);
    }
}
