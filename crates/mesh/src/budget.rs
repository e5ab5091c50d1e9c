//! The retry budget: a share of all requests may be sent again, so that retries can't overload the members.
//!
//! A token bucket over a sliding window, as in Finagle's `RetryBudget`: each request deposits part of a token, each
//! retry withdraws a whole one. Pure: the caller passes the time.

use tokio::time::Instant;

/// The length of the window, in seconds.
const WINDOW: u64 = 10;
/// The price of a retry. A request deposits the retry percentage.
const PRICE: i64 = 100;

/// The retry budget.
#[derive(Debug)]
pub(crate) struct Budget {
    /// The deposit of one request.
    deposit: i64,
    /// The balance available without any request.
    reserve: i64,
    /// Deposits less withdrawals in each second of the window.
    seconds: [i64; WINDOW as usize],
    /// The present second, counted from `start`.
    current: u64,
    start: Instant,
}

impl Budget {
    /// A budget of `percent` of all requests, plus `floor_per_second` retries per second.
    pub(crate) fn new(percent: u32, floor_per_second: u32, now: Instant) -> Self {
        Self {
            deposit: i64::from(percent),
            reserve: i64::from(floor_per_second) * PRICE * WINDOW.cast_signed(),
            seconds: [0; WINDOW as usize],
            current: 0,
            start: now,
        }
    }

    /// Records a request that was sent for the first time.
    pub(crate) fn deposit(&mut self, now: Instant) {
        self.advance(now);
        *self.second() += self.deposit;
    }

    /// Withdraws the price of one retry if the balance allows it. Returns whether it did.
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

    /// Clears the seconds that have left the window.
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
    fn the_floor_allows_retries_without_any_traffic() {
        let now = Instant::now();
        let mut budget = Budget::new(20, 3, now);
        assert_eq!(allowed(&mut budget, 100, now), 30);
        let later = now + Duration::from_secs(10);
        assert_eq!(allowed(&mut budget, 100, later), 30, "the window has passed");
    }

    #[test]
    fn deposits_expire_with_the_window() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut budget = Budget::new(100, 0, now);
        budget.deposit(now);
        budget.deposit(now + second * 5);
        assert!(budget.withdraw(now + second * 9));
        assert!(!budget.withdraw(now + second * 12), "the first has expired, the other was withdrawn");
        budget.deposit(now + second * 1_000_000);
        assert!(budget.withdraw(now + second * 1_000_009));
    }

    #[test]
    fn a_budget_of_zero_allows_no_retry() {
        let now = Instant::now();
        let mut budget = Budget::new(0, 0, now);
        budget.deposit(now);
        assert!(!budget.withdraw(now));
    }
}
