//! How long a connection waits for its client: for its first head, for the rest of a head, and between requests.
//!
//! One timer serves all requests of a connection. It is not set anew for each: when it fires, what the connection waits for
//! says whether it is too late, or when to look again.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::ServeLimits;
use super::progress::{Phase, Progress};

/// How often a busy connection looks at its clock at most.
const OFTEN: Duration = Duration::from_millis(100);

/// The wait of one connection.
pub(super) struct Waiting {
    /// When the first head must have arrived.
    first: Instant,
    /// Since when a head that is not the first one arrives.
    head_since: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl Waiting {
    /// The first head must have arrived at `first`.
    pub(super) fn new(first: Instant, limits: &ServeLimits) -> Self {
        // Its request may be over before that, and then the connection is idle.
        let next = first.min(Instant::now() + limits.keep_alive);
        Self { first, head_since: None, timer: Box::pin(sleep_until(next)) }
    }

    /// Ready once the client has taken too long. Call it whenever the connection makes no progress.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        progress: &Progress,
        limits: &ServeLimits,
    ) -> Poll<()> {
        let phase = progress.phase();
        match phase {
            Phase::Head => {
                self.head_since.get_or_insert_with(Instant::now);
            }
            Phase::New | Phase::Busy | Phase::Idle => self.head_since = None,
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let due = match phase {
                Phase::New => Some(self.first),
                Phase::Head if !progress.has_begun() => Some(self.first),
                Phase::Head => self.head_since.map(|since| since + limits.head_timeout),
                Phase::Idle => progress.activity().idle_since().map(|since| since + limits.keep_alive),
                Phase::Busy => None,
            };
            if due.is_some_and(|due| due <= now) {
                return Poll::Ready(());
            }
            // A head that begins right now, and a connection that becomes idle, have this long.
            let next = now + limits.head_timeout.min(limits.keep_alive).max(OFTEN);
            self.timer.as_mut().reset(due.map_or(next, |due| due.min(next)));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use http::Request;
    use tokio::time::timeout;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits() -> ServeLimits {
        ServeLimits { head_timeout: 10 * SECOND, keep_alive: 60 * SECOND, ..ServeLimits::default() }
    }

    fn waiting() -> (Waiting, Progress) {
        (Waiting::new(Instant::now() + 10 * SECOND, &limits()), Progress::default())
    }

    /// How long it takes until the client is too slow.
    async fn patience(waiting: &mut Waiting, progress: &Progress) -> Duration {
        patience_with(waiting, progress, &limits()).await
    }

    async fn patience_with(waiting: &mut Waiting, progress: &Progress, limits: &ServeLimits) -> Duration {
        let began = Instant::now();
        poll_fn(|cx| waiting.poll(cx, progress, limits)).await;
        began.elapsed()
    }

    fn exchange(progress: &Progress) {
        progress.received(b"GET / HTTP/1.1\r\n\r\n");
        progress.began(&Request::get("/").body(()).unwrap().into_parts().0, false);
        progress.answered();
        progress.ended();
        progress.flushed();
    }

    /// Nearly exact: the timer has a resolution of a millisecond.
    fn about(time: Duration, seconds: u32) -> bool {
        time.abs_diff(seconds * SECOND) < Duration::from_millis(10)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_head_has_its_time_from_the_begin_of_the_connection_on() {
        for first in [b"".as_slice(), b"GET"] {
            let (mut waiting, progress) = waiting();
            progress.received(first);
            assert!(timeout(7 * SECOND, patience(&mut waiting, &progress)).await.is_err());
            progress.received(b"/");
            assert!(about(patience(&mut waiting, &progress).await, 3));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn later_heads_have_theirs_from_their_first_byte_and_idle_connections_live_longer() {
        let (mut waiting, progress) = waiting();
        exchange(&progress);
        assert!(timeout(33 * SECOND, patience(&mut waiting, &progress)).await.is_err());
        exchange(&progress);
        assert!(timeout(55 * SECOND, patience(&mut waiting, &progress)).await.is_err());
        progress.received(b"GET /");
        assert!(about(patience(&mut waiting, &progress).await, 10));
        exchange(&progress);
        assert!(about(patience(&mut waiting, &progress).await, 60));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_closed_in_time_however_short_that_is() {
        for seconds in [1, 9, 60] {
            let limits = ServeLimits { keep_alive: seconds * SECOND, ..limits() };
            let first = Instant::now() + 10 * SECOND;
            let (mut waiting, progress) = (Waiting::new(first, &limits), Progress::default());
            assert!(timeout(5 * SECOND, patience_with(&mut waiting, &progress, &limits)).await.is_err());
            exchange(&progress);
            let idle = patience_with(&mut waiting, &progress, &limits).await;
            assert!(about(idle, seconds), "{idle:?} instead of {seconds} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_served_may_take_as_long_as_it_needs() {
        let (mut waiting, progress) = waiting();
        progress.received(b"GET / HTTP/1.1\r\n\r\n");
        progress.began(&Request::get("/").body(()).unwrap().into_parts().0, false);
        assert!(timeout(3_600 * SECOND, patience(&mut waiting, &progress)).await.is_err());
    }
}
