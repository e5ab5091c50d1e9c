//! Outlier detection: an address that fails too often is ejected for a while, and one probe brings it back.
//!
//! As in Envoy and Linkerd: five failures in a row, or a success rate below 80 % over at least 20 requests in ten seconds.
//! The n-th ejection lasts n times ten seconds; n falls by one for each minute without an ejection. Whether an address may
//! be ejected at all depends on the others and is decided by the caller with [`may_eject`].

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The number of failures in a row after which an address is ejected.
const IN_A_ROW: u32 = 5;
/// The success rate below which an address is ejected, in percent.
const SUCCESS_PERCENT: u64 = 80;
/// The smallest number of requests that have a success rate.
const LEAST_REQUESTS: u64 = 20;
/// The length of the window of the success rate, in seconds.
const WINDOW: u32 = 10;
/// The length of the first ejection.
const FIRST: Duration = Duration::from_secs(10);
/// The longest ejection, in lengths of the first one.
const MOST_TIMES: u32 = 30;
/// How long an address must serve until its earlier ejections count one less.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// Why an address was ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EjectionReason {
    /// Five requests in a row failed.
    Consecutive,
    /// Fewer than 80 % of at least 20 requests in ten seconds succeeded.
    SuccessRate,
    /// The request that was to find out whether it works again failed.
    FailedProbe,
}

impl EjectionReason {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::Consecutive, Self::SuccessRate, Self::FailedProbe];

    /// The reason as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Consecutive => "consecutive",
            Self::SuccessRate => "success_rate",
            Self::FailedProbe => "failed_probe",
        }
    }

    /// The reason in words.
    pub(crate) const fn in_words(self) -> &'static str {
        match self {
            Self::Consecutive => "5 requests in a row failed",
            Self::SuccessRate => "fewer than 80 % of its requests succeeded",
            Self::FailedProbe => "the probe after its ejection failed",
        }
    }
}

/// Whether an address gets requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    /// It does.
    In,
    /// It is ejected.
    Ejected,
    /// The ejection is over; one request that may be repeated is to find out whether the address works.
    Due,
    /// No such request came for as long again, so any request will do.
    Overdue,
}

/// Whether one more of these addresses may be ejected: at most half of them, and never the last.
pub(crate) fn may_eject(addresses: usize, ejected: usize) -> bool {
    (ejected + 1) * 2 <= addresses
}

/// Whether an address has failed too often.
fn verdict(in_a_row: u32, successes: u64, failures: u64) -> Option<EjectionReason> {
    let requests = successes + failures;
    if in_a_row >= IN_A_ROW {
        Some(EjectionReason::Consecutive)
    } else if requests >= LEAST_REQUESTS && successes * 100 < requests * SUCCESS_PERCENT {
        Some(EjectionReason::SuccessRate)
    } else {
        None
    }
}

/// The number of earlier ejections that still count after this time without one.
fn still_counted(times: u32, well_for: Duration) -> u32 {
    let forgiven = well_for.as_secs() / FORGIVEN_AFTER.as_secs();
    times.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
}

/// The outcomes of the last ten seconds, in one word for each second: its number and two counts.
#[derive(Debug, Default)]
struct Outcomes([AtomicU64; WINDOW as usize]);

impl Outcomes {
    fn add(&self, is_success: bool, age: Duration) {
        let second = age.as_secs() as u32;
        let word = &self.0[(second % WINDOW) as usize];
        let mut before = word.load(Ordering::Relaxed);
        loop {
            let (of, [mut successes, mut failures]) = unpacked(before);
            if of != second {
                [successes, failures] = [0, 0];
            }
            let count = if is_success { &mut successes } else { &mut failures };
            *count = count.saturating_add(1);
            let after = packed(second, [successes, failures]);
            match word.compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(present) => before = present,
            }
        }
    }

    /// The numbers of successes and failures.
    fn sums(&self, age: Duration) -> [u64; 2] {
        let second = age.as_secs() as u32;
        let words = self.0.iter().map(|word| unpacked(word.load(Ordering::Relaxed)));
        let recent = words.filter(|(of, _)| second.saturating_sub(*of) < WINDOW);
        recent.fold([0, 0], |sums, (_, counts)| {
            [sums[0] + u64::from(counts[0]), sums[1] + u64::from(counts[1])]
        })
    }

    fn clear(&self) {
        for word in &self.0 {
            word.store(0, Ordering::Relaxed);
        }
    }
}

fn packed(second: u32, [successes, failures]: [u16; 2]) -> u64 {
    u64::from(second) << 32 | u64::from(successes) << 16 | u64::from(failures)
}

fn unpacked(word: u64) -> (u32, [u16; 2]) {
    ((word >> 32) as u32, [(word >> 16) as u16, word as u16])
}

/// The detector of one address. Times are given as the age of the address. Only an ejection and a return take a lock.
#[derive(Debug, Default)]
pub(crate) struct Outlier {
    in_a_row: AtomicU32,
    outcomes: Outcomes,
    /// When the present ejection ends, in milliseconds of age; 0 without one.
    until_ms: AtomicU64,
    /// The length of the present ejection.
    length_ms: AtomicU64,
    /// Whether a probe is under way.
    is_probed: AtomicBool,
    history: Mutex<History>,
}

#[derive(Debug, Default)]
struct History {
    /// How many ejections counted at the last one.
    times: u32,
    /// When the last ejection ended.
    well_since: Duration,
    reason: Option<EjectionReason>,
}

impl Outlier {
    pub(crate) fn service(&self, age: Duration) -> Service {
        let until = self.until_ms.load(Ordering::Relaxed);
        let now = millis(age);
        if until == 0 {
            Service::In
        } else if now < until {
            Service::Ejected
        } else if now < until.saturating_add(self.length_ms.load(Ordering::Relaxed)) {
            Service::Due
        } else {
            Service::Overdue
        }
    }

    /// The reason of the present ejection, and how long it still lasts.
    pub(crate) fn ejection(&self, age: Duration) -> Option<(EjectionReason, Duration)> {
        let history = self.history();
        let until = self.until_ms.load(Ordering::Relaxed);
        let reason = history.reason.filter(|_| until != 0)?;
        Some((reason, Duration::from_millis(until.saturating_sub(millis(age)))))
    }

    /// Records an answer. It ends an ejection whose time has passed.
    pub(crate) fn succeeded(&self, age: Duration) {
        match self.service(age) {
            Service::In => {
                // Most successes follow a success; a read is cheaper than a write.
                if self.in_a_row.load(Ordering::Relaxed) != 0 {
                    self.in_a_row.store(0, Ordering::Relaxed);
                }
                self.outcomes.add(true, age);
            }
            Service::Ejected => {}
            Service::Due | Service::Overdue => {
                let mut history = self.history();
                history.well_since = age;
                self.begin_again();
                self.until_ms.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Records a failure. Returns the reason if the address should be ejected.
    pub(crate) fn failed(&self, age: Duration) -> Option<EjectionReason> {
        match self.service(age) {
            Service::In => {
                self.outcomes.add(false, age);
                let in_a_row = self.in_a_row.fetch_add(1, Ordering::Relaxed).saturating_add(1);
                let [successes, failures] = self.outcomes.sums(age);
                verdict(in_a_row, successes, failures)
            }
            Service::Ejected => None,
            Service::Due | Service::Overdue => Some(EjectionReason::FailedProbe),
        }
    }

    /// Ejects the address. Returns for how long; `None` if it is ejected already.
    pub(crate) fn eject(&self, reason: EjectionReason, age: Duration) -> Option<Duration> {
        let mut history = self.history();
        let times = match self.service(age) {
            Service::Ejected => return None,
            Service::In => still_counted(history.times, age.saturating_sub(history.well_since)),
            Service::Due | Service::Overdue => history.times,
        };
        history.times = (times + 1).min(MOST_TIMES);
        history.reason = Some(reason);
        let length = FIRST * history.times;
        self.begin_again();
        self.length_ms.store(millis(length), Ordering::Relaxed);
        self.until_ms.store(millis(age.saturating_add(length)), Ordering::Relaxed);
        Some(length)
    }

    /// Claims the probe, of which there is one at a time.
    pub(crate) fn claim_probe(&self) -> bool {
        !self.is_probed.swap(true, Ordering::Relaxed)
    }

    /// Ends a probe without an outcome.
    pub(crate) fn release_probe(&self) {
        self.is_probed.store(false, Ordering::Relaxed);
    }

    /// Forgets the outcomes so far.
    fn begin_again(&self) {
        self.in_a_row.store(0, Ordering::Relaxed);
        self.outcomes.clear();
        self.is_probed.store(false, Ordering::Relaxed);
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
