//! The order in which a listener drains: others learn of it, open connections end, and only then new ones are refused.
//!
//! Pure. A client may have chosen this listener just before it learned that its node drains. Refused at once, that client
//! would fail; so the listener stays open until nobody comes any more, but for half of the drain's time at most: the requests
//! of those who came last need the rest.

use std::time::Duration;

use tokio::time::Instant;

/// How long a listener goes on as before: the announcement that its node drains reaches the others in this time.
const NOTICE: Duration = Duration::from_millis(250);
/// How long nobody must have connected before new connections are refused.
const SILENCE: Duration = Duration::from_millis(250);
/// How often it is looked at whether somebody has connected.
const LOOK: Duration = Duration::from_millis(50);

/// How long each step takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DrainOrder {
    pub(super) notice: Duration,
    pub(super) silence: Duration,
}

impl DrainOrder {
    /// That of listeners whose clients choose them from gossip or by readiness checks.
    pub(super) const ANNOUNCED: Self = Self { notice: NOTICE, silence: SILENCE };
    /// New connections are refused at once.
    pub(super) const AT_ONCE: Self = Self { notice: Duration::ZERO, silence: Duration::ZERO };
}

/// What a draining listener does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It serves as before. Only its readiness checks fail.
    Announced,
    /// Open connections, and new ones, end after their requests.
    Closing,
    /// New connections are refused.
    Refusing,
}

/// A drain in progress.
#[derive(Debug)]
pub(super) struct Draining {
    order: DrainOrder,
    /// From when on connections end.
    closing: Instant,
    /// When new connections are refused at the latest.
    latest: Instant,
    /// How many connections had been opened when it was looked at last.
    opened: u64,
    /// When that number was first seen.
    since: Instant,
}

impl Draining {
    /// A drain that begins now and must be over at the deadline.
    pub(super) fn new(order: DrainOrder, now: Instant, deadline: Instant, opened: u64) -> Self {
        let latest = now + deadline.saturating_duration_since(now) / 2;
        Self { order, closing: now + order.notice, latest, opened, since: now }
    }

    /// What to do now, and when to look again. `opened`: how many connections were ever opened.
    pub(super) fn step(&mut self, now: Instant, opened: u64) -> (Step, Instant) {
        if now >= self.latest {
            return (Step::Refusing, now);
        }
        if now < self.closing {
            return (Step::Announced, self.closing.min(self.latest));
        }
        if self.opened != opened {
            (self.opened, self.since) = (opened, now);
        }
        let end = self.since.max(self.closing) + self.order.silence;
        if now >= end { (Step::Refusing, now) } else { (Step::Closing, end.min(now + LOOK).min(self.latest)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// When each step begins, in milliseconds from the begin of the drain, if connections are opened at these times.
    fn steps(order: DrainOrder, deadline: u64, connections: &[u64]) -> Vec<(u64, Step)> {
        let began = Instant::now();
        let mut draining = Draining::new(order, began, began + ms(deadline), 7);
        let (mut now, mut steps) = (began, Vec::<(u64, Step)>::new());
        loop {
            let at = u64::try_from((now - began).as_millis()).unwrap();
            let opened = 7 + connections.iter().filter(|connection| **connection <= at).count() as u64;
            let (step, next) = draining.step(now, opened);
            if steps.last().is_none_or(|(_, last)| *last != step) {
                steps.push((at, step));
            }
            if step == Step::Refusing {
                return steps;
            }
            assert!(next > now && next <= began + ms(deadline) / 2, "it makes progress");
            now = next;
        }
    }

    #[test]
    fn a_listener_goes_on_for_250_ms_and_closes_when_nobody_has_come_for_250_ms_or_half_its_time_is_over() {
        use Step::{Announced, Closing, Refusing};
        let announced = DrainOrder::ANNOUNCED;
        for (order, deadline, connections, expected) in [
            (announced, 10_000, &[][..], vec![(0, Announced), (250, Closing), (500, Refusing)]),
            (announced, 10_000, &[100], vec![(0, Announced), (250, Closing), (500, Refusing)]),
            (announced, 10_000, &[300], vec![(0, Announced), (250, Closing), (550, Refusing)]),
            (announced, 10_000, &[300, 500, 700], vec![(0, Announced), (250, Closing), (950, Refusing)]),
            (announced, 800, &[], vec![(0, Announced), (250, Closing), (400, Refusing)]),
            (announced, 200, &[], vec![(0, Announced), (100, Refusing)]),
            (announced, 0, &[], vec![(0, Refusing)]),
            (DrainOrder::AT_ONCE, 10_000, &[0], vec![(0, Refusing)]),
        ] {
            assert_eq!(steps(order, deadline, connections), expected, "{deadline} {connections:?}");
        }
        let endless: Vec<_> = (0..100).map(|number| number * 100).collect();
        let expected = [(0, Announced), (250, Closing), (2_000, Refusing)];
        assert_eq!(steps(announced, 4_000, &endless), expected);
    }

    proptest! {
        #[test]
        fn every_drain_refuses_connections_by_half_of_its_time(
            // Steps have times in whole milliseconds here.
            half in 0_u64..3_000,
            connections in prop::collection::vec(0_u64..3_000, 0..30),
        ) {
            let steps = steps(DrainOrder::ANNOUNCED, 2 * half, &connections);
            let (at, last) = steps.last().copied().unwrap();
            prop_assert!(last == Step::Refusing && at <= half);
            prop_assert!(steps.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
    }
}
