//! Estimates the response time of an address: a moving average that follows a peak at once and forgets it within ten
//! seconds.
//!
//! Peak EWMA, as in Finagle and Linkerd. A sample above the estimate replaces it, so one stalled answer is enough to move
//! load away. While the estimate is only read, it falls linearly to zero within ten seconds: an exponential would take 85
//! seconds from the penalty of 5 seconds to 1 ms, and an address that nobody asks never gets a sample that would clear it
//! (traefik#12306). Below the estimate, a sample leaves `(1 - t/10 s)^3` of the excess, close to `e^(-3t/10 s)`: a twentieth
//! after ten seconds. So an address that is asked all the time gets from 5 seconds to 1 ms within 30 seconds too.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// How long a peak is remembered.
pub(crate) const DECAY: Duration = Duration::from_secs(10);

/// The lowest sample of a failure. Without it, an address that fails at once would look fast.
pub(crate) const PENALTY: Duration = Duration::from_secs(5);

/// The resolution of times, in milliseconds. The 32 bits of a tick last two years, and only differences count.
const TICK_MS: u128 = 16;

/// An estimate in microseconds, and when its last sample came.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Estimate {
    micros: f32,
    at: Tick,
}

/// A time, counted from the creation of the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tick(u32);

impl Tick {
    fn of(age: Duration) -> Self {
        // The low bits: a tick that wraps around is later than one that has not yet.
        Self((age.as_millis() / TICK_MS) as u32)
    }

    /// The part of an excess that is left of what it was at `self`: 1 at that time, 0 from ten seconds later on.
    fn left_at(self, now: Self) -> f32 {
        let passed = now.0.wrapping_sub(self.0);
        // Another thread may have read its clock later than this one.
        if passed > u32::MAX / 2 {
            return 1.0;
        }
        let millis = passed as f32 * TICK_MS as f32;
        (1.0 - millis / (DECAY.as_secs_f32() * 1_000.0)).max(0.0)
    }

    fn later(self, other: Self) -> Self {
        if other.0.wrapping_sub(self.0) > u32::MAX / 2 { self } else { other }
    }
}

impl Estimate {
    /// The estimate after another sample.
    fn after(self, sample: f32, now: Tick) -> Self {
        let micros = if sample >= self.micros {
            sample
        } else {
            sample + (self.micros - sample) * self.at.left_at(now).powi(3)
        };
        Self { micros, at: now }
    }

    fn to_bits(self) -> u64 {
        u64::from(self.at.0) << 32 | u64::from(self.micros.to_bits())
    }

    /// `None` if there was no sample yet.
    fn from_bits(bits: u64) -> Option<Self> {
        let micros = f32::from_bits(bits as u32);
        (micros > 0.0).then_some(Self { micros, at: Tick((bits >> 32) as u32) })
    }
}

/// The estimated response time of one address. Times are given as the age of the address.
#[derive(Debug, Default)]
pub(crate) struct PeakEwma {
    /// An [`Estimate`] in one word, so that no sample is lost and no reader sees half of one.
    estimate: AtomicU64,
    /// The [`Tick`] of the last request. Until it is answered the estimate does not fall further: the whole load would
    /// follow the one request that was sent to find out.
    asked_at: AtomicU32,
}

impl PeakEwma {
    /// The estimate, in microseconds; `None` if no request was answered yet.
    pub(crate) fn micros(&self, age: Duration) -> Option<f32> {
        let estimate = Estimate::from_bits(self.estimate.load(Ordering::Relaxed))?;
        let asked_at = Tick(self.asked_at.load(Ordering::Relaxed));
        Some(estimate.micros * estimate.at.later(asked_at).left_at(Tick::of(age)))
    }

    /// Call when a request is sent.
    pub(crate) fn asked(&self, age: Duration) {
        self.asked_at.store(Tick::of(age).0, Ordering::Relaxed);
    }

    /// Adds the time that an answer took.
    pub(crate) fn observe(&self, sample: Duration, age: Duration) {
        self.update(sample, age, |_| true);
    }

    /// Adds the time that a request has taken so far: its answer, had it come, would have taken longer.
    pub(crate) fn observe_at_least(&self, sample: Duration, age: Duration) {
        self.update(sample, age, |estimate| estimate.is_some_and(|estimate| estimate < micros(sample)));
    }

    fn update(&self, sample: Duration, age: Duration, is_wanted: impl Fn(Option<f32>) -> bool) {
        let (sample, now) = (micros(sample), Tick::of(age));
        let mut bits = self.estimate.load(Ordering::Relaxed);
        loop {
            let before = Estimate::from_bits(bits);
            if !is_wanted(before.map(|before| before.micros * before.at.left_at(now))) {
                return;
            }
            let after =
                before.map_or(Estimate { micros: sample, at: now }, |before| before.after(sample, now));
            match self.estimate.compare_exchange_weak(
                bits,
                after.to_bits(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(present) => bits = present,
            }
        }
    }
}

/// In microseconds, at least one: zero means that there was no sample.
fn micros(time: Duration) -> f32 {
    (time.as_secs_f32() * 1e6).max(1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);

    fn millis(ewma: &PeakEwma, age: Duration) -> f32 {
        ewma.micros(age).unwrap() / 1_000.0
    }

    fn near(found: f32, wanted: f32) -> bool {
        (found - wanted).abs() <= wanted * 0.02
    }

    #[test]
    fn nothing_is_known_before_the_first_sample() {
        let ewma = PeakEwma::default();
        assert_eq!(ewma.micros(SECOND), None);
        ewma.observe(3 * MS, SECOND);
        assert!(near(millis(&ewma, SECOND), 3.0), "the first sample is the estimate");
    }

    #[test]
    fn a_higher_sample_replaces_the_estimate_at_once() {
        let ewma = PeakEwma::default();
        ewma.observe(MS, SECOND);
        ewma.observe(900 * MS, SECOND);
        assert!(near(millis(&ewma, SECOND), 900.0));
    }

    #[test]
    fn lower_samples_bring_the_estimate_down_over_ten_seconds() {
        let ewma = PeakEwma::default();
        ewma.observe(SECOND, Duration::ZERO);
        let mut shown = Vec::new();
        for number in 1..=300_u32 {
            let age = 100 * MS * number;
            ewma.asked(age);
            ewma.observe(10 * MS, age);
            if number % 100 == 0 {
                shown.push(millis(&ewma, age));
            }
        }
        // 10 ms plus what is left of the excess of 990 ms: e^-3, e^-6, e^-9 of it.
        assert!((45.0..65.0).contains(&shown[0]), "{shown:?}");
        assert!((11.0..14.0).contains(&shown[1]), "{shown:?}");
        assert!((10.0..11.0).contains(&shown[2]), "{shown:?}");
    }

    #[test]
    fn an_estimate_falls_while_it_is_only_read() {
        let ewma = PeakEwma::default();
        ewma.observe(PENALTY, SECOND);
        for (seconds, wanted) in [(1, 5_000.0), (6, 2_500.0), (10, 500.0), (11, 0.0), (99, 0.0)] {
            let found = millis(&ewma, SECOND * seconds);
            assert!(near(found, wanted) || (found - wanted).abs() < 10.0, "{seconds} s: {found}");
        }
        assert!(near(millis(&ewma, SECOND), 5_000.0), "a clock that is behind does no harm");
    }

    #[test]
    fn one_answer_in_time_clears_an_estimate_that_has_fallen() {
        let ewma = PeakEwma::default();
        ewma.observe(PENALTY, Duration::ZERO);
        let later = SECOND * 10;
        assert_eq!(ewma.micros(later), Some(0.0));
        ewma.asked(later);
        assert!(near(millis(&ewma, later + MS), 5_000.0), "only one request is sent to find out");
        ewma.observe(2 * MS, later + 2 * MS);
        assert!(near(millis(&ewma, later + 2 * MS), 2.0));
    }

    #[test]
    fn a_request_without_an_answer_counts_only_if_it_took_longer_than_the_estimate() {
        let ewma = PeakEwma::default();
        ewma.observe_at_least(SECOND, SECOND);
        assert_eq!(ewma.micros(SECOND), None, "a client that leaves says nothing about an unknown address");
        ewma.observe(100 * MS, SECOND);
        ewma.observe_at_least(10 * MS, SECOND);
        assert!(near(millis(&ewma, SECOND), 100.0));
        ewma.observe_at_least(2 * SECOND, SECOND);
        assert!(near(millis(&ewma, SECOND), 2_000.0));
    }

    #[test]
    fn ticks_may_wrap_around() {
        let before = Tick(u32::MAX - 100);
        let after = Tick(100);
        assert!(before.left_at(after) > 0.6, "201 ticks are 3.2 seconds");
        assert_eq!(before.later(after), after);
        assert_eq!(after.later(before), after);
    }

    proptest! {
        #[test]
        fn an_estimate_stays_between_the_last_sample_and_the_highest(
            steps in prop::collection::vec((1_u64..10_000_000, 0_u64..20_000), 1..60),
        ) {
            let ewma = PeakEwma::default();
            let (mut age, mut highest) = (Duration::ZERO, 0.0_f32);
            for (sample, pause) in steps {
                age += MS * u32::try_from(pause).unwrap();
                let sample = Duration::from_micros(sample);
                ewma.observe(sample, age);
                highest = highest.max(micros(sample));
                let found = ewma.micros(age).unwrap();
                prop_assert!(found >= micros(sample) * 0.999 && found <= highest * 1.001, "{found}");
                prop_assert!(ewma.micros(age + SECOND).unwrap() <= found, "it never rises by itself");
                prop_assert_eq!(ewma.micros(age + DECAY + SECOND), Some(0.0));
            }
        }
    }
}
