//! The minimum rate at which a client has to send the body of a request.
//!
//! Pure: callers pass the time. Only the time in which we wait for the client counts, so a server that reads slowly makes no
//! client look slow. Apache httpd has it as `MinRate`, Kestrel as `MinRequestBodyDataRate`.

use std::time::Duration;

use tokio::time::Instant;

/// The minimum rate of a body, on average over a window. The default is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinRate {
    /// In bytes; 0 is no minimum.
    pub bytes_per_second: u64,
    /// How long the client is waited for in a window.
    pub window: Duration,
}

impl MinRate {
    /// The default window.
    pub const WINDOW: Duration = Duration::from_secs(30);

    /// A minimum rate over windows of the default length; none if it is 0.
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, window: Self::WINDOW }
    }

    /// How many bytes have to arrive in a window.
    fn least(self) -> u128 {
        u128::from(self.bytes_per_second) * self.window.as_millis() / 1000
    }
}

impl Default for MinRate {
    fn default() -> Self {
        Self::new(0)
    }
}

/// What has arrived of a body in the present window, and how long the client was waited for.
#[derive(Debug)]
pub(crate) struct Pace {
    min: MinRate,
    arrived: u64,
    /// How long it was waited for before `since`.
    waited: Duration,
    /// Since when it is waited for, if it is its turn.
    since: Option<Instant>,
    too_slow: Option<TooSlow>,
}

/// In a window, fewer bytes came than have to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooSlow {
    /// The number that came.
    pub(crate) arrived: u64,
}

/// How often a window that stands still is looked at in its length.
const LOOKS: u32 = 30;

impl Pace {
    /// Of a body that was not read yet; none without a minimum.
    pub(crate) fn new(min: MinRate) -> Option<Self> {
        let pace = Self { min, arrived: 0, waited: Duration::ZERO, since: None, too_slow: None };
        (min.bytes_per_second > 0).then_some(pace)
    }

    /// Notes that the client has to send something before anything goes on.
    pub(crate) fn waits(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// Notes that it is not waited for any more.
    pub(crate) fn rests(&mut self, now: Instant) {
        self.end_window(now);
        self.waited = self.waited(now);
        self.since = None;
    }

    /// Notes bytes that have arrived.
    pub(crate) fn arrived(&mut self, bytes: usize, now: Instant) {
        self.rests(now);
        self.arrived = self.arrived.saturating_add(bytes as u64);
    }

    /// When the window ends at the earliest: it is not complete before.
    pub(crate) fn check(&mut self, now: Instant) -> Result<Instant, TooSlow> {
        self.end_window(now);
        let left = self.min.window.saturating_sub(self.waited(now));
        // The window stands still while the client is not waited for, perhaps just before its end.
        let left = if self.since.is_some() { left } else { left.max(self.min.window / LOOKS) };
        self.too_slow.map_or(Ok(now + left), Err)
    }

    fn waited(&self, now: Instant) -> Duration {
        self.waited + self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Judges the window if it is complete, and begins the next one.
    fn end_window(&mut self, now: Instant) {
        if self.waited(now) < self.min.window {
            return;
        }
        if u128::from(self.arrived) < self.min.least() {
            self.too_slow.get_or_insert(TooSlow { arrived: self.arrived });
        }
        (self.arrived, self.waited) = (0, Duration::ZERO);
        self.since = self.since.map(|_| now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A step of a body.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        /// The client is waited for as long, and then sends this many bytes.
        Sends(Duration, usize),
        /// The server reads nothing for as long.
        ServerPauses(Duration),
        /// The client sends nothing for as long, and the attempt to send the request fails.
        AttemptFails(Duration),
    }

    /// After how many seconds the body is too slow, and how many bytes had arrived in the window.
    fn judged(rate: u64, steps: impl IntoIterator<Item = Step>) -> Option<(u64, u64)> {
        let begin = Instant::now();
        let (mut now, mut pace) = (begin, Pace::new(MinRate::new(rate)).unwrap());
        for step in steps {
            let (Step::Sends(time, _) | Step::AttemptFails(time) | Step::ServerPauses(time)) = step;
            if !matches!(step, Step::ServerPauses(_)) {
                pace.waits(now);
            }
            let end = now + time;
            // As the timer of an attempt does.
            loop {
                match pace.check(now) {
                    Err(slow) => return Some(((now - begin).as_secs(), slow.arrived)),
                    Ok(next) if next <= end => now = next,
                    Ok(_) => break,
                }
            }
            now = end;
            match step {
                Step::Sends(_, bytes) => pace.arrived(bytes, now),
                Step::AttemptFails(_) => pace.rests(now),
                Step::ServerPauses(_) => {}
            }
        }
        None
    }

    #[test]
    fn a_body_is_too_slow_if_a_window_of_waiting_has_too_few_bytes() {
        use Step::{AttemptFails, Sends, ServerPauses};
        let each = |seconds: u32, bytes: usize| Sends(seconds * SECOND, bytes);
        let repeated = |step: Step, count: usize| vec![step; count];
        for (name, steps, expected) in [
            ("1 byte each second", repeated(each(1, 1), 100), Some((30, 29))),
            ("100 bytes each second", repeated(each(1, 100), 100), Some((30, 2900))),
            ("101 bytes at shorter intervals", repeated(Sends(SECOND / 2, 52), 1000), None),
            ("nothing at all", vec![each(100, 1)], Some((30, 0))),
            ("all at once, late", vec![each(29, 3000), each(29, 3000), each(29, 1)], None),
            ("fast, then a byte at a time", [vec![each(1, 9999)], repeated(each(1, 1), 100)].concat(), {
                Some((60, 30))
            }),
            ("a slow one that ends soon enough", repeated(each(1, 1), 29), None),
            ("a server that pauses for an hour", repeated(ServerPauses(3600 * SECOND), 3), None),
            (
                "a server that pauses between the bytes",
                [each(10, 1600), ServerPauses(60 * SECOND), each(10, 1600), ServerPauses(60 * SECOND)]
                    .repeat(4),
                None,
            ),
            (
                "a slow client of a slow server",
                [each(10, 1), ServerPauses(60 * SECOND)].repeat(4),
                Some((150, 2)),
            ),
            ("attempts that fail", repeated(AttemptFails(10 * SECOND), 4), Some((30, 0))),
        ] {
            assert_eq!(judged(100, steps), expected, "{name}");
        }
    }

    #[test]
    fn a_rate_of_0_is_no_minimum() {
        assert!(Pace::new(MinRate::default()).is_none());
        assert_eq!(MinRate::new(u64::MAX).least(), u128::from(u64::MAX) * 30);
    }

    proptest! {
        #[test]
        fn a_body_that_is_never_waited_for_is_never_too_slow(pauses in prop::collection::vec(0_u32..1000, 1..50)) {
            let steps = pauses.into_iter().flat_map(|seconds| {
                [Step::ServerPauses(seconds * SECOND), Step::Sends(Duration::ZERO, 1)]
            });
            prop_assert_eq!(judged(1_000_000, steps), None);
        }

        #[test]
        fn a_body_with_twice_the_rate_in_each_second_is_never_too_slow(
            bytes in prop::collection::vec(200_usize..100_000, 1..200),
        ) {
            let steps = bytes.into_iter().map(|bytes| Step::Sends(SECOND, bytes));
            prop_assert_eq!(judged(100, steps), None);
        }

        #[test]
        fn a_slow_body_is_found_out_at_the_end_of_a_window(bytes in prop::collection::vec(0_usize..90, 31..100)) {
            let steps = bytes.into_iter().map(|bytes| Step::Sends(SECOND, bytes));
            prop_assert_eq!(judged(100, steps).map(|(after, _)| after), Some(30));
        }
    }
}
