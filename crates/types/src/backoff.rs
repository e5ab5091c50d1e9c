//! How long to wait before a retry: exponential backoff with jitter.
//!
//! The upper half of each pause is random, so that callers that failed together do not retry together (Brooker,
//! "Exponential Backoff and Jitter", 2015). Pure: callers pass the random number, so every pause can be replayed.

use std::time::Duration;

/// More doublings than this exceed every limit here.
const MAX_DOUBLINGS: u32 = 16;

/// The first and the longest pause. The pause doubles with each failure in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

/// A backoff and the failures in a row so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    backoff: Backoff,
    failures: u32,
}

impl Backoff {
    /// Pauses from `first` to `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// The same with another longest pause.
    #[must_use]
    pub const fn up_to(self, longest: Duration) -> Self {
        Self { longest, ..self }
    }

    /// The longest pause after this many failures in a row; 0 counts as 1.
    pub fn limit(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(MAX_DOUBLINGS);
        self.first.saturating_mul(1 << doublings).min(self.longest)
    }

    /// The pause after this many failures in a row: from half of [`limit`](Self::limit) for a `random` of 0 to all of
    /// it for 1.
    pub fn pause(&self, failures: u32, random: f64) -> Duration {
        self.limit(failures).mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
    }

    /// A count of no failures.
    pub const fn retries(self) -> Retries {
        Retries { backoff: self, failures: 0 }
    }
}

impl Retries {
    /// Counts another failure. Returns the pause after it.
    pub fn failed(&mut self, random: f64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.backoff.pause(self.failures, random)
    }

    /// Resets the count after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));

    #[test]
    fn pauses_double_up_to_the_longest_and_never_fall_below_half() {
        for (failures, most) in
            [(0, 200), (1, 200), (2, 400), (3, 800), (8, 25_600), (9, 30_000), (u32::MAX, 30_000)]
        {
            let most = Duration::from_millis(most);
            assert_eq!(BACKOFF.limit(failures), most, "{failures}");
            for (random, share) in [(0.0, 0.5), (0.5, 0.75), (1.0, 1.0), (-3.0, 0.5), (9.0, 1.0)] {
                assert_eq!(BACKOFF.pause(failures, random), most.mul_f64(share), "{failures} {random}");
            }
        }
    }

    #[test]
    fn a_first_pause_above_the_longest_is_cut() {
        let backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(2));
        assert_eq!(backoff.limit(1), Duration::from_secs(2));
        assert_eq!(Backoff::new(Duration::MAX, Duration::MAX).limit(9), Duration::MAX);
    }

    #[test]
    fn success_resets_the_count() {
        let mut retries = BACKOFF.retries();
        let pauses = [1.0, 1.0, 0.0].map(|random| retries.failed(random).as_millis());
        assert_eq!(pauses, [200, 400, 400]);
        retries.reset();
        assert_eq!(retries.failed(1.0).as_millis(), 200);
    }

    #[test]
    fn another_longest_pause_keeps_the_first() {
        let mut retries = BACKOFF.up_to(Duration::from_millis(300)).retries();
        assert_eq!([1.0, 1.0].map(|random| retries.failed(random).as_millis()), [200, 300]);
    }
}
