use super::*;

/// Records of a key: start, end, request, outcome.
fn records(steps: &[(u64, u64, Action, Outcome)]) -> Vec<Record> {
    let record = |(client, &(start, end, action, outcome)): (usize, &(u64, u64, Action, Outcome))| Record {
        client: u32::try_from(client).unwrap(),
        action,
        outcome,
        start,
        end,
    };
    steps.iter().enumerate().map(record).collect()
}

fn finding(steps: &[(u64, u64, Action, Outcome)]) -> Finding {
    check(&records(steps), STEPS)
}

fn put(value: u64) -> Action {
    Action::Put { value, on: Condition::Always }
}

fn create(value: u64) -> Action {
    Action::Put { value, on: Condition::Absent }
}

fn swap(version: u64, old: u64, value: u64) -> Action {
    Action::Put { value, on: Condition::Is { version, value: old } }
}

fn found(value: u64, version: u64) -> Outcome {
    Outcome::Found { value, version }
}

const DELETE: Action = Action::Delete { on: Condition::Always };
use Action::{Get, Scan, StaleRead};
use Outcome::{Acknowledged, Deleted, Missing, Open, Refused, Stored};

#[test]
fn a_merge_needs_a_value_and_a_delete_of_what_is_found_needs_that_value() {
    let patch = |value| Action::Put { value, on: Condition::Present };
    let delete = |value| Action::Delete { on: Condition::Value { value } };
    let right = [
        (0, 1, patch(1), Refused(None)),
        (2, 3, put(2), Acknowledged),
        (4, 5, patch(3), Stored(6)),
        (6, 7, delete(2), Missing),
        (8, 9, Get, found(3, 6)),
        (10, 11, put(4), Acknowledged),
        (12, 13, Get, found(4, 8)),
        (14, 15, delete(4), Deleted),
        (16, 17, patch(5), Open),
        (18, 19, Get, Missing),
    ];
    assert_eq!(finding(&right), Finding::Right);
    for wrong in [
        [(0, 1, put(1), Acknowledged), (2, 3, patch(2), Refused(None)), (4, 5, Get, found(1, 1))],
        [(0, 1, put(1), Acknowledged), (2, 3, delete(1), Missing), (4, 5, Get, found(1, 1))],
        [(0, 1, put(1), Acknowledged), (2, 3, delete(2), Deleted), (4, 5, Get, Missing)],
        [(0, 1, put(1), Acknowledged), (2, 3, Get, Missing), (4, 5, Get, Missing)],
        [(0, 1, DELETE, Missing), (2, 3, patch(1), Open), (4, 5, Get, found(1, 1))],
        [(0, 1, put(1), Stored(5)), (2, 3, put(2), Acknowledged), (4, 5, Get, found(2, 4))],
    ] {
        assert!(matches!(finding(&wrong), Finding::Wrong(_)), "{wrong:?}");
    }
}

#[test]
fn the_history_of_a_register_is_right() {
    assert_eq!(finding(&[]), Finding::Right);
    let all = [
        (0, 1, Get, Missing),
        (2, 3, create(1), Stored(5)),
        (4, 5, Get, found(1, 5)),
        (6, 7, create(2), Refused(Some(5))),
        (8, 9, swap(5, 1, 3), Stored(6)),
        (10, 11, swap(5, 1, 4), Refused(Some(6))),
        (12, 13, Scan, found(3, 6)),
        (14, 15, DELETE, Deleted),
        (16, 17, Scan, Missing),
        (18, 19, swap(6, 3, 5), Refused(None)),
        (20, 21, DELETE, Deleted),
        (22, 23, put(6), Stored(9)),
        (24, 25, Get, found(6, 9)),
    ];
    assert_eq!(finding(&all), Finding::Right);
}

#[test]
fn concurrent_operations_may_happen_in_any_order() {
    for seen in [found(1, 5), found(2, 4), Missing] {
        let all = [(0, 10, put(1), Stored(5)), (0, 10, put(2), Stored(4)), (1, 9, Get, seen)];
        assert_eq!(finding(&all), Finding::Right, "{seen:?}");
    }
}

#[test]
fn an_open_write_may_happen_later_or_never_but_only_once() {
    for seen in [[Missing, Missing], [Missing, found(1, 5)], [found(1, 5), found(1, 5)]] {
        let all = [(0, 1, put(1), Open), (2, 3, Get, seen[0]), (4, 5, Get, seen[1])];
        assert_eq!(finding(&all), Finding::Right, "{seen:?}");
    }
    let undone = [(0, 1, put(1), Open), (2, 3, Get, found(1, 5)), (4, 5, Get, Missing)];
    assert_eq!(finding(&undone), Finding::Wrong(2));
    let deleted =
        [(0, 1, put(1), Stored(5)), (2, 3, DELETE, Open), (4, 5, Get, found(1, 5)), (6, 7, Get, Missing)];
    assert_eq!(finding(&deleted), Finding::Right);
    // No client saw the value, but it explains the refusal of a conditional write.
    let hidden = [(0, 1, put(1), Open), (2, 3, create(2), Refused(Some(7))), (4, 5, DELETE, Deleted)];
    assert_eq!(finding(&hidden), Finding::Right);
}

#[test]
fn a_lost_write_is_found() {
    let all = [(0, 1, put(1), Stored(5)), (2, 3, Get, Missing)];
    assert_eq!(finding(&all), Finding::Wrong(1));
    let overwritten = [(0, 1, put(1), Stored(5)), (2, 3, put(2), Stored(6)), (9, 10, Get, found(1, 5))];
    assert_eq!(finding(&overwritten), Finding::Wrong(2));
}

#[test]
fn a_stale_read_is_found() {
    let all = [
        (0, 1, put(1), Stored(5)),
        (2, 9, put(2), Stored(6)),
        (3, 4, Get, found(2, 6)),
        (5, 6, Scan, found(1, 5)),
        (10, 11, Get, found(2, 6)),
    ];
    assert_eq!(finding(&all), Finding::Wrong(3));
}

#[test]
fn a_deleted_value_that_reappears_is_found() {
    let all =
        [(0, 1, put(1), Stored(5)), (2, 3, DELETE, Deleted), (4, 5, Get, Missing), (6, 7, Get, found(1, 5))];
    assert_eq!(finding(&all), Finding::Wrong(3));
}

#[test]
fn a_write_that_is_applied_twice_is_found() {
    // Its value reappears after another one, or gets a second version.
    let back = [
        (0, 1, put(1), Open),
        (2, 3, Get, found(1, 5)),
        (4, 5, put(2), Stored(6)),
        (6, 7, Get, found(2, 6)),
        (8, 9, Get, found(1, 7)),
    ];
    assert_eq!(finding(&back), Finding::Wrong(4));
    let again = [(0, 1, put(1), Stored(5)), (2, 3, Get, found(1, 5)), (4, 5, Get, found(1, 6))];
    assert_eq!(finding(&again), Finding::Wrong(2));
}

#[test]
fn two_writes_that_replace_the_same_version_are_found() {
    let swapped =
        [(0, 1, put(1), Stored(5)), (2, 9, swap(5, 1, 2), Stored(6)), (2, 9, swap(5, 1, 3), Stored(7))];
    assert!(matches!(finding(&swapped), Finding::Wrong(_)));
    let created = [(0, 9, create(1), Stored(5)), (0, 9, create(2), Stored(6))];
    assert!(matches!(finding(&created), Finding::Wrong(_)));
}

#[test]
fn a_version_that_does_not_increase_is_found() {
    let all = [(0, 1, put(1), Stored(5)), (2, 3, put(2), Stored(4))];
    assert_eq!(finding(&all), Finding::Wrong(1));
    let other = [(0, 1, put(1), Stored(5)), (2, 3, Get, found(1, 4))];
    assert_eq!(finding(&other), Finding::Wrong(1));
    let over_a_delete = [(0, 1, put(1), Stored(5)), (2, 3, DELETE, Deleted), (4, 5, put(2), Stored(5))];
    assert_eq!(finding(&over_a_delete), Finding::Wrong(2));
}

#[test]
fn a_value_that_no_client_put_is_found() {
    assert_eq!(finding(&[(0, 1, Get, found(u64::MAX, 5))]), Finding::Wrong(0));
}

#[test]
fn a_refusal_without_a_reason_is_found() {
    assert_eq!(finding(&[(0, 1, create(1), Refused(Some(5)))]), Finding::Wrong(0));
    let all = [(0, 1, put(1), Stored(5)), (2, 3, swap(5, 1, 2), Refused(Some(5)))];
    assert_eq!(finding(&all), Finding::Wrong(1));
}

#[test]
fn many_open_writes_do_not_stop_the_search() {
    let mut all = vec![(0, 1, put(1), Stored(5))];
    for number in 0..20 {
        all.push((2 + number, 3 + number, if number % 2 == 0 { put(100 + number) } else { DELETE }, Open));
    }
    all.push((50, 51, Get, found(1, 5)));
    assert_eq!(finding(&all), Finding::Right);
    all.push((52, 53, Get, found(102, 6)));
    all.push((54, 55, Get, Missing));
    assert_eq!(finding(&all), Finding::Right);
}

#[test]
fn a_search_that_takes_too_long_is_unclear_and_not_wrong() {
    let mut all: Vec<_> = (0..20).map(|number| (0, 1, put(number), Open)).collect();
    all.push((2, 3, create(50), Refused(Some(9))));
    all.push((4, 5, Get, found(99, 3)));
    assert_eq!(check(&records(&all), 1_000), Finding::Unclear);
}

#[test]
fn a_stale_read_returns_a_value_from_within_its_staleness() {
    let writes = [(0, 1, put(1), Stored(5)), (2, 3, put(2), Stored(6)), (4, 5, DELETE, Deleted)];
    for (since, outcome, expected) in [
        (1, found(1, 5), Finding::Right),
        (2, found(1, 5), Finding::Right),
        (4, found(1, 5), Finding::Wrong(3)),
        (4, found(2, 6), Finding::Right),
        (6, found(2, 6), Finding::Wrong(3)),
        (6, Missing, Finding::Right),
        (2, found(2, 5), Finding::Wrong(3)),
    ] {
        let mut all = writes.to_vec();
        all.push((since, 20, StaleRead, outcome));
        assert_eq!(finding(&all), expected, "{outcome} since {since}");
    }
    let wrong_without = [writes[0], writes[1], (4, 5, Get, found(1, 5)), (1, 9, StaleRead, found(1, 5))];
    assert_eq!(finding(&wrong_without), Finding::Wrong(2));
}

/// A value that was put, replaced and deleted, with searches for it between.
fn searched(search: impl Fn(u64) -> Action, second: Outcome, last: Outcome) -> Finding {
    finding(&[
        (0, 1, search(1), Missing),
        (2, 3, put(1), Stored(5)),
        (4, 5, search(1), found(1, 5)),
        (6, 7, put(2), Stored(6)),
        (8, 9, search(1), second),
        (10, 11, search(2), found(2, 6)),
        (12, 13, DELETE, Deleted),
        (14, 15, search(2), last),
        (16, 17, DELETE, Missing),
    ])
}

#[test]
fn a_search_finds_the_present_value_and_no_other() {
    for search in [|value| Action::Search { value }, |value| Action::StaleSearch { value }] {
        assert_eq!(searched(search, Missing, Missing), Finding::Right);
        assert_eq!(searched(search, found(1, 5), Missing), Finding::Wrong(4), "a replaced value is found");
        assert_eq!(searched(search, Missing, found(2, 6)), Finding::Wrong(7), "a deleted value is found");
    }
}

#[test]
fn a_search_that_misses_an_acknowledged_value_is_found() {
    let search = |value| Action::Search { value };
    let lost = |between: Action, outcome| {
        finding(&[(0, 1, put(1), Stored(5)), (2, 9, between, outcome), (4, 5, search(1), Missing)])
    };
    assert_eq!(lost(Get, found(1, 5)), Finding::Wrong(2));
    // It may have been replaced, deleted or refused already.
    for between in [put(2), DELETE] {
        assert_eq!(lost(between, Open), Finding::Right, "{between}");
    }
    assert_eq!(lost(create(2), Refused(Some(5))), Finding::Wrong(2));
    // The first read shows that a write was carried out although it was not acknowledged.
    let unacknowledged = [(0, 1, put(1), Open), (2, 3, Get, found(1, 5)), (4, 5, search(1), Missing)];
    assert_eq!(finding(&unacknowledged), Finding::Wrong(2));
}

#[test]
fn a_search_shows_that_a_write_without_an_answer_was_carried_out() {
    let search = |value| Action::Search { value };
    let first = [(0, 1, put(1), Open), (2, 3, search(1), found(1, 5))];
    let then = |read| finding(&[first[0], first[1], (4, 5, Get, read)]);
    assert_eq!(then(found(1, 5)), Finding::Right);
    assert_eq!(then(Missing), Finding::Wrong(2));
    assert_eq!(finding(&[(0, 1, search(1), found(1, 5))]), Finding::Wrong(0), "nobody put it");
    assert_eq!(
        finding(&[first[0], (2, 3, search(1), found(2, 5))]),
        Finding::Wrong(1),
        "not what was searched for"
    );
}

#[test]
fn the_first_version_may_be_0_and_the_next_is_greater() {
    assert_eq!(finding(&[(0, 1, put(1), Stored(0)), (2, 3, Get, found(1, 0))]), Finding::Right);
    assert_eq!(finding(&[(0, 1, put(1), Stored(0)), (2, 3, put(2), Stored(0))]), Finding::Wrong(1));
}

#[test]
fn a_delete_that_found_nothing_is_a_read() {
    assert_eq!(finding(&[(0, 1, DELETE, Missing), (2, 3, put(1), Stored(5))]), Finding::Right);
    assert_eq!(finding(&[(0, 1, put(1), Stored(5)), (2, 3, DELETE, Missing)]), Finding::Wrong(1));
}
