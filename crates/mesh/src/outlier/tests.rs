use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Reports failures until the address should be ejected, at most this many.
fn fail(outlier: &Outlier, times: u32, age: Duration) -> Option<EjectionReason> {
    (0..times).find_map(|_| outlier.failed(age))
}

/// Ejects an address in service by failures in a row.
fn ejected(outlier: &Outlier, age: Duration) -> Duration {
    let reason = fail(outlier, 5, age).expect("five failures in a row");
    outlier.eject(reason, age).expect("it was in service")
}

#[test]
fn an_address_that_fails_too_often_is_an_outlier() {
    use EjectionReason::{Consecutive, SuccessRate};
    for (in_a_row, successes, failures, expected) in [
        (1, 0, 1, None),
        (4, 100, 4, None),
        (5, 100, 5, Some(Consecutive)),
        (1, 15, 4, None),
        (1, 15, 5, Some(SuccessRate)),
        (1, 16, 4, None),
        (1, 79, 21, Some(SuccessRate)),
        (1, 80, 20, None),
    ] {
        assert_eq!(verdict(in_a_row, successes, failures), expected, "{in_a_row} {successes} {failures}");
    }
}

#[test]
fn at_most_half_are_ejected_and_never_the_last() {
    for (addresses, most) in [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (9, 4)] {
        let allowed = (0..=addresses).take_while(|&ejected| may_eject(addresses, ejected)).count();
        assert_eq!(allowed, most, "of {addresses}");
    }
}

#[test]
fn one_failed_request_ejects_nobody_and_a_success_begins_the_row_again() {
    let outlier = Outlier::default();
    assert_eq!(fail(&outlier, 4, SECOND), None);
    outlier.succeeded(SECOND);
    assert_eq!(fail(&outlier, 4, SECOND), None);
    assert_eq!(outlier.failed(SECOND), Some(EjectionReason::Consecutive));
    assert_eq!(outlier.service(SECOND), Service::In, "the caller decides");
}

#[test]
fn only_the_last_ten_seconds_count() {
    let outlier = Outlier::default();
    for second in 0..15 {
        assert_eq!(outlier.failed(SECOND * second), None);
        outlier.succeeded(SECOND * second);
    }
    assert_eq!(outlier.outcomes.sums(SECOND * 14), [10, 10]);
    assert_eq!(outlier.outcomes.sums(SECOND * 24), [0, 0]);
    let [reason] = [outlier.failed(SECOND * 14)];
    assert_eq!(reason, Some(EjectionReason::SuccessRate), "10 of 21");
}

#[test]
fn each_ejection_lasts_longer_and_a_minute_of_service_makes_it_shorter() {
    let outlier = Outlier::default();
    let mut age = SECOND;
    for times in 1..=40 {
        let length = if times == 1 {
            ejected(&outlier, age)
        } else {
            assert_eq!(outlier.failed(age), Some(EjectionReason::FailedProbe));
            outlier.eject(EjectionReason::FailedProbe, age).unwrap()
        };
        assert_eq!(length, SECOND * (10 * times).min(300), "the {times}th");
        assert_eq!(outlier.service(age + length - SECOND), Service::Ejected);
        age += length;
        assert_eq!(outlier.service(age), Service::Due);
    }
    outlier.succeeded(age);
    assert_eq!(outlier.service(age), Service::In);
    age += SECOND * 60 * 28;
    assert_eq!(ejected(&outlier, age), SECOND * 30, "30 less 28, and this one");
}

#[test]
fn a_success_during_an_ejection_does_not_end_it() {
    let outlier = Outlier::default();
    let length = ejected(&outlier, SECOND);
    outlier.succeeded(SECOND * 2);
    assert_eq!(outlier.service(SECOND * 2), Service::Ejected);
    assert_eq!(outlier.failed(SECOND * 2), None, "nor does a failure prolong it");
    assert_eq!(outlier.eject(EjectionReason::Consecutive, SECOND * 2), None);
    assert_eq!(outlier.ejection(SECOND * 3), Some((EjectionReason::Consecutive, SECOND * 8)));
    outlier.succeeded(SECOND + length);
    assert_eq!(outlier.service(SECOND + length), Service::In);
    assert_eq!(outlier.ejection(SECOND + length), None);
    assert_eq!(fail(&outlier, 4, SECOND + length), None, "it begins with a clean record");
}

#[test]
fn there_is_one_probe_at_a_time_and_after_as_long_again_any_request_will_do() {
    let outlier = Outlier::default();
    let length = ejected(&outlier, SECOND);
    let due = SECOND + length;
    assert_eq!((outlier.service(due), outlier.service(due + length)), (Service::Due, Service::Overdue));
    assert!(outlier.claim_probe());
    assert!(!outlier.claim_probe());
    outlier.release_probe();
    assert!(outlier.claim_probe());
    outlier.eject(EjectionReason::FailedProbe, due);
    assert!(outlier.claim_probe(), "the next ejection has a probe of its own");
}

proptest! {
    #[test]
    fn an_ejection_always_ends(
        steps in prop::collection::vec((any::<bool>(), 0_u64..40_000), 0..200),
    ) {
        let outlier = Outlier::default();
        let mut age = Duration::ZERO;
        let mut in_a_row = 0;
        for (is_success, pause) in steps {
            age += Duration::from_millis(pause);
            let before = outlier.service(age);
            if is_success {
                outlier.succeeded(age);
                in_a_row = 0;
                prop_assert!(outlier.service(age) == Service::In || before == Service::Ejected);
            } else {
                in_a_row = if before == Service::In { in_a_row + 1 } else { 0 };
                let reason = outlier.failed(age);
                prop_assert!(in_a_row < 5 || reason.is_some());
                if let Some(reason) = reason {
                    let length = outlier.eject(reason, age).unwrap();
                    prop_assert!(length >= FIRST && length <= FIRST * MOST_TIMES);
                    in_a_row = 0;
                }
            }
            if let Some((_, left)) = outlier.ejection(age) {
                prop_assert!(left <= FIRST * MOST_TIMES);
                prop_assert_ne!(outlier.service(age + left), Service::Ejected);
            }
        }
    }
}
