//! The retry budget: a share of all requests may be sent again, so that retries can't overload the members.
//!
//! A token bucket over a sliding window, as in Finagle's `RetryBudget`: each request deposits part of a token, each
//! retry withdraws a whole one. The caller passes the time. Requests share atomics only, so withdrawals at the same moment may
//! overdraw the budget by one each.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

/// The length of the window, in seconds.
const WINDOW: u32 = 10;
/// The price of a retry. A request deposits the retry percentage.
const PRICE: i32 = 100;

/// The retry budget.
#[derive(Debug)]
pub(crate) struct Budget {
    /// The deposit of one request.
    deposit: i32,
    /// The balance available without any request.
    reserve: i64,
    /// Deposits less withdrawals in each second of the window, each in one word with the number of the second.
    seconds: [AtomicU64; WINDOW as usize],
    start: Instant,
}

impl Budget {
    /// A budget of `percent` of all requests, plus `floor_per_second` retries per second.
    pub(crate) fn new(percent: u32, floor_per_second: u32, now: Instant) -> Self {
        Self {
            deposit: i32::try_from(percent).unwrap_or(i32::MAX),
            reserve: i64::from(floor_per_second) * i64::from(PRICE) * i64::from(WINDOW),
            seconds: Default::default(),
            start: now,
        }
    }

    /// Records a request that was sent for the first time.
    pub(crate) fn deposit(&self, now: Instant) {
        self.add(self.deposit, self.second(now));
    }

    /// Pays for a retry. Returns whether the balance was sufficient.
    pub(crate) fn withdraw(&self, now: Instant) -> bool {
        let second = self.second(now);
        let words = self.seconds.iter().map(|word| unpacked(word.load(Ordering::Relaxed)));
        let recent = words.filter(|(of, _)| second.saturating_sub(*of) < WINDOW);
        let balance: i64 = recent.map(|(_, balance)| i64::from(balance)).sum();
        let is_enough = self.reserve.saturating_add(balance) >= i64::from(PRICE);
        if is_enough {
            self.add(-PRICE, second);
        }
        is_enough
    }

    fn second(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.start).as_secs() as u32
    }

    fn add(&self, amount: i32, second: u32) {
        let word = &self.seconds[(second % WINDOW) as usize];
        let mut before = word.load(Ordering::Relaxed);
        loop {
            let (of, balance) = unpacked(before);
            // A second of an earlier round has left the window.
            let balance = if of == second { balance } else { 0 };
            let after = packed(second, balance.saturating_add(amount));
            match word.compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(present) => before = present,
            }
        }
    }
}

fn packed(second: u32, balance: i32) -> u64 {
    u64::from(second) << 32 | u64::from(balance.cast_unsigned())
}

fn unpacked(word: u64) -> (u32, i32) {
    ((word >> 32) as u32, (word as u32).cast_signed())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn allowed(budget: &Budget, asked: u32, now: Instant) -> u32 {
        (0..asked).map(|_| u32::from(budget.withdraw(now))).sum()
    }

    #[test]
    fn a_fifth_of_the_requests_may_be_sent_again() {
        let now = Instant::now();
        let budget = Budget::new(20, 0, now);
        (0..50).for_each(|_| budget.deposit(now));
        assert_eq!(allowed(&budget, 50, now), 10);
    }

    #[test]
    fn the_floor_allows_retries_without_any_traffic() {
        let now = Instant::now();
        let budget = Budget::new(20, 3, now);
        assert_eq!(allowed(&budget, 100, now), 30);
        let later = now + Duration::from_secs(10);
        assert_eq!(allowed(&budget, 100, later), 30, "the window has passed");
    }

    #[test]
    fn deposits_expire_with_the_window() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let budget = Budget::new(100, 0, now);
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
        let budget = Budget::new(0, 0, now);
        budget.deposit(now);
        assert!(!budget.withdraw(now));
    }
}
