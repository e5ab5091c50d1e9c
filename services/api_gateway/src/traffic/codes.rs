//! Counts by method and status, of those that have occurred.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// How many combinations have a place that needs no lock. A route rarely has more than a dozen.
const SLOTS: usize = 64;
/// Statuses are below this.
const CODES: u32 = 1000;

/// Counts by method and status. Without a lock up to [`SLOTS`] combinations.
#[derive(Debug)]
pub(super) struct Codes {
    slots: [Slot; SLOTS],
    rest: Mutex<BTreeMap<u32, u64>>,
}

#[derive(Debug, Default)]
struct Slot {
    /// Method and status, plus one; 0 while the slot is free.
    key: AtomicU32,
    count: AtomicU64,
}

impl Default for Codes {
    fn default() -> Self {
        Self { slots: std::array::from_fn(|_| Slot::default()), rest: Mutex::default() }
    }
}

impl Codes {
    /// Adds one.
    pub(super) fn add(&self, method: usize, code: u16) {
        let method = u32::try_from(method).unwrap_or(0);
        let key = 1 + method * CODES + u32::from(code).min(CODES - 1);
        // Fibonacci hashing: the six highest bits name the slot where the search begins.
        let first = (key.wrapping_mul(0x9e37_79b1) >> 26) as usize;
        for slot in self.slots.iter().cycle().skip(first).take(SLOTS) {
            let known = match slot.key.load(Ordering::Relaxed) {
                0 => match slot.key.compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_free) => key,
                    Err(taken) => taken,
                },
                known => known,
            };
            if known == key {
                slot.count.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        *self.rest.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
    }

    /// Shows each method and status with its count.
    pub(super) fn read(&self, mut show: impl FnMut(usize, u16, u64)) {
        let mut show = |key: u32, count: u64| {
            let key = key - 1;
            show((key / CODES) as usize, u16::try_from(key % CODES).unwrap_or(0), count);
        };
        for slot in &self.slots {
            let (key, count) = (slot.key.load(Ordering::Relaxed), slot.count.load(Ordering::Relaxed));
            if key > 0 && count > 0 {
                show(key, count);
            }
        }
        for (key, count) in self.rest.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            show(*key, *count);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_method_and_status_has_its_own_count(
            added in prop::collection::vec((0_usize..10, 0_u16..1000), 0..300),
        ) {
            let codes = Codes::default();
            let mut expected = BTreeMap::<_, u64>::new();
            for (method, code) in added {
                codes.add(method, code);
                *expected.entry((method, code)).or_default() += 1;
            }
            let mut found = BTreeMap::<_, u64>::new();
            codes.read(|method, code, count| *found.entry((method, code)).or_default() += count);
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn threads_that_need_a_slot_at_once_lose_nothing() {
        let codes = Codes::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..4000_u16).for_each(|at| codes.add(0, 200 + at % 40)));
            }
        });
        let mut total = 0;
        codes.read(|_, _, count| total += count);
        assert_eq!(total, 16_000);
    }
}
