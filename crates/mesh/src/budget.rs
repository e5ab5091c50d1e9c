//! How many requests may be sent again: a share of those that were sent, so that retries can't make a storm.
//!
//! A token bucket over a sliding window, as in Finagle's `RetryBudget`: each request puts a part of a token in, each
//! retry takes a whole one out. Pure: time comes in as an argument.

use tokio::time::Instant;

/// What was put in counts for this many seconds.
const WINDOW: u64 = 10;
/// A retry's price: a request puts in the percentage that may be sent again.
const PRICE: i64 = 100;

/// How many requests may be sent again.
#[derive(Debug)]
pub(crate) struct Budget {
    /// What one request puts in.
    deposit: i64,
    /// What is there without any request.
    reserve: i64,
    /// What was put in during each second of the window, less what was taken out.
    seconds: [i64; WINDOW as usize],
    /// The second that is being filled, counted from `start`.
    current: u64,
    start: Instant,
}

impl Budget {
    /// A percentage of the requests, and a number per second whatever the percentage says.
    pub(crate) fn new(percent: u32, floor_per_second: u32, now: Instant) -> Self {
        Self {
            deposit: i64::from(percent),
            reserve: i64::from(floor_per_second) * PRICE * WINDOW.cast_signed(),
            seconds: [0; WINDOW as usize],
            current: 0,
            start: now,
        }
    }

    /// A request was sent for the first time.
    pub(crate) fn deposit(&mut self, now: Instant) {
        self.advance(now);
        *self.second() += self.deposit;
    }

    /// Takes out the price of one retry, if it is there.
    pub(crate) fn withdraw(&mut self, now: Instant) -> bool {
        self.advance(now);
        let is_enough = self.reserve + self.seconds.iter().sum::<i64>() >= PRICE;
        if is_enough {
            *self.second() -= PRICE;
        }
        is_enough
    }

    fn second(&mut self) -> &mut i64 {
        &mut self.seconds[(self.current % WINDOW) as usize]
    }

    /// Forgets the seconds that have left the window.
    fn advance(&mut self, now: Instant) {
        let second = now.saturating_duration_since(self.start).as_secs();
        for _ in 0..second.saturating_sub(self.current).min(WINDOW) {
            self.current += 1;
            *self.second() = 0;
        }
        self.current = self.current.max(second);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn allowed(budget: &mut Budget, asked: u32, now: Instant) -> u32 {
        (0..asked).map(|_| u32::from(budget.withdraw(now))).sum()
    }

    #[test]
    fn a_fifth_of_the_requests_may_be_sent_again() {
        let now = Instant::now();
        let mut budget = Budget::new(20, 0, now);
        (0..50).for_each(|_| budget.deposit(now));
        assert_eq!(allowed(&mut budget, 50, now), 10);
    }

    #[test]
    fn a_few_may_be_sent_again_without_any_traffic() {
        let now = Instant::now();
        let mut budget = Budget::new(20, 3, now);
        assert_eq!(allowed(&mut budget, 100, now), 30);
        let later = now + Duration::from_secs(10);
        assert_eq!(allowed(&mut budget, 100, later), 30, "the window has passed");
    }

    #[test]
    fn what_was_put_in_long_ago_is_gone() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut budget = Budget::new(100, 0, now);
        budget.deposit(now);
        budget.deposit(now + second * 5);
        assert!(budget.withdraw(now + second * 9));
        assert!(!budget.withdraw(now + second * 12), "the first has left, the other one was taken");
        budget.deposit(now + second * 1_000_000);
        assert!(budget.withdraw(now + second * 1_000_009));
    }

    #[test]
    fn nothing_at_all_may_be_forbidden() {
        let now = Instant::now();
        let mut budget = Budget::new(0, 0, now);
        budget.deposit(now);
        assert!(!budget.withdraw(now));
    }
}
