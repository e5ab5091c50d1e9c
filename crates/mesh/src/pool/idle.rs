//! The idle connections to one origin, most recently used last.
//!
//! Generic over the connection, so that its rules have tests without sockets.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// A connection that may be idle.
pub(super) trait Idle {
    /// Whether it is open and has no exchange.
    fn is_usable(&self) -> bool;
}

/// The idle connections to one origin.
#[derive(Debug)]
pub(super) struct IdleList<T>(VecDeque<Entry<T>>);

#[derive(Debug)]
struct Entry<T> {
    connection: T,
    until: Instant,
}

impl<T> Default for IdleList<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T: Idle> IdleList<T> {
    /// The usable connection that was used last. Older ones are more likely to be closed by the server.
    pub(super) fn take(&mut self, now: Instant) -> Option<T> {
        while let Some(entry) = self.0.pop_back() {
            if entry.until > now && entry.connection.is_usable() {
                return Some(entry.connection);
            }
        }
        None
    }

    /// Adds a connection that may be idle for this long. If there are too many, the oldest is returned, to be closed.
    pub(super) fn put(&mut self, connection: T, idle: Duration, most: usize, now: Instant) -> Option<T> {
        self.0.push_back(Entry { connection, until: now + idle });
        if self.0.len() > most { self.0.pop_front().map(|oldest| oldest.connection) } else { None }
    }

    /// Removes the connections that have been idle for too long or are closed.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<T> {
        let is_over = |entry: &Entry<T>| entry.until <= now || !entry.connection.is_usable();
        if !self.0.iter().any(is_over) {
            return Vec::new();
        }
        let (over, kept) = self.0.drain(..).partition(is_over);
        self.0 = kept;
        let over: VecDeque<Entry<T>> = over;
        over.into_iter().map(|entry| entry.connection).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|entry| &entry.connection)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    #[derive(Debug, Clone)]
    struct Fake(u32, Rc<Cell<bool>>);

    impl Idle for Fake {
        fn is_usable(&self) -> bool {
            self.1.get()
        }
    }

    fn open(number: u32) -> Fake {
        Fake(number, Rc::new(Cell::new(true)))
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_connection_that_was_used_last_is_used_first() {
        let (mut list, now) = (IdleList::default(), Instant::now());
        for number in 0..3 {
            assert!(list.put(open(number), SECOND, 9, now).is_none());
        }
        assert_eq!(
            std::array::from_fn(|_| list.take(now).map(|taken| taken.0)),
            [Some(2), Some(1), Some(0), None]
        );
    }

    #[test]
    fn a_connection_that_was_closed_or_idle_for_too_long_is_not_used() {
        let (mut list, now) = (IdleList::default(), Instant::now());
        let closed = open(2);
        list.put(open(0), 3 * SECOND, 9, now);
        list.put(open(1), SECOND, 9, now);
        list.put(closed.clone(), 3 * SECOND, 9, now);
        closed.1.set(false);
        assert_eq!(list.take(now + SECOND).map(|taken| taken.0), Some(0));
        assert!(list.is_empty());
        list.put(open(3), Duration::ZERO, 9, now);
        assert!(list.take(now).is_none());
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let (mut list, now) = (IdleList::default(), Instant::now());
        list.put(open(0), SECOND, 2, now);
        list.put(open(1), SECOND, 2, now);
        assert_eq!(list.put(open(2), SECOND, 2, now).map(|oldest| oldest.0), Some(0));
        assert_eq!(list.len(), 2);
        assert_eq!(IdleList::default().put(open(3), SECOND, 0, now).map(|oldest| oldest.0), Some(3));
    }

    #[test]
    fn only_those_whose_time_is_over_expire() {
        let (mut list, now) = (IdleList::default(), Instant::now());
        for (number, idle) in [(0, 3), (1, 1), (2, 2)] {
            list.put(open(number), idle * SECOND, 9, now);
        }
        let expired: Vec<_> = list.expire(now + 2 * SECOND).into_iter().map(|gone| gone.0).collect();
        assert_eq!(expired, [1, 2]);
        assert_eq!(list.len(), 1);
    }
}
