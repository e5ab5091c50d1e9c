//! A value for each core, on cache lines of its own, so that counting costs no traffic between cores.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;

thread_local! {
    /// The place of a thread that drives no core's runtime.
    static OTHER: Cell<Option<usize>> = const { Cell::new(None) };
}

/// A value for each core. Threads that drive no core's runtime are spread over them.
#[derive(Debug)]
pub struct PerCore<T>(Box<[Padded<T>]>);

/// Two lines, because processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

impl<T: Default> Default for PerCore<T> {
    fn default() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Self((0..cores).map(|_| Padded::default()).collect())
    }
}

impl<T> PerCore<T> {
    /// The value of this thread's core.
    pub fn here(&self) -> &T {
        let at = crate::core::current().unwrap_or_else(other);
        &self.0[at % self.0.len()].0
    }

    /// The values of all cores.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|padded| &padded.0)
    }
}

fn other() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    OTHER.get().unwrap_or_else(|| {
        let at = NEXT.fetch_add(1, Ordering::Relaxed);
        OTHER.set(Some(at));
        at
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn a_thread_keeps_its_place_and_all_places_are_summed() {
        let counts = PerCore::<AtomicU64>::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let first: *const AtomicU64 = counts.here();
                    for _ in 0..1000 {
                        counts.here().fetch_add(1, Ordering::Relaxed);
                    }
                    assert!(std::ptr::eq(first, counts.here()));
                });
            }
        });
        assert_eq!(counts.iter().map(|count| count.load(Ordering::Relaxed)).sum::<u64>(), 4000);
    }
}
