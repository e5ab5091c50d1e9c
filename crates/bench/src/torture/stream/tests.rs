use super::*;

const KEY: Key = Key { lane: 0, group: 0, number: 0 };
const OTHER: Key = Key { lane: 0, group: 0, number: 1 };

fn change(shard: u32, version: u64, key: Key, value: Option<u64>) -> Change {
    Change { shard, version, key, value, at: version }
}

fn put(value: u64, on: Condition, outcome: Outcome) -> Record {
    Record { client: 0, action: Action::Put { value, on }, outcome, start: value, end: value }
}

fn delete(at: u64, outcome: Outcome) -> Record {
    Record { client: 0, action: Action::Delete { on: Condition::Always }, outcome, start: at, end: at }
}

fn get(at: u64, outcome: Outcome) -> Record {
    Record { client: 0, action: Action::Get, outcome, start: at, end: at }
}

/// One key that was put, deleted, and created again; another one that may have been put.
fn requested() -> BTreeMap<Key, Vec<Record>> {
    let key = vec![
        put(1, Condition::Always, Outcome::Stored(5)),
        delete(2, Outcome::Deleted),
        put(3, Condition::Absent, Outcome::Stored(7)),
        put(4, Condition::Absent, Outcome::Refused(Some(7))),
        get(5, Outcome::Found { value: 3, version: 7 }),
    ];
    let other = vec![put(10, Condition::Always, Outcome::Open)];
    BTreeMap::from([(KEY, key), (OTHER, other)])
}

fn observed() -> Vec<Change> {
    vec![
        change(0, 5, KEY, Some(1)),
        change(1, 4, OTHER, Some(10)),
        change(0, 6, KEY, None),
        change(0, 7, KEY, Some(3)),
    ]
}

#[test]
fn every_change_once_and_in_order_is_right() {
    assert_eq!(check(&observed(), &requested()), []);
    let without_the_open_one: Vec<_> = observed().into_iter().filter(|change| change.key == KEY).collect();
    assert_eq!(check(&without_the_open_one, &requested()), []);
    let in_one_batch = [change(0, 4, KEY, Some(1)), change(0, 4, OTHER, Some(10))];
    assert_eq!(order(&in_one_batch), []);
}

#[test]
fn a_gap_is_found() {
    let mut observed = observed();
    let missed = observed.remove(3);
    let flaws = check(&observed, &requested());
    assert!(flaws.contains(&Flaw::Gap { key: KEY, value: 3, version: 7 }), "{flaws:?}");
    assert!(
        flaws.contains(&Flaw::Ends { key: KEY, observed: None, holds: Some(3) }),
        "{missed:?}: {flaws:?}"
    );
}

#[test]
fn a_missed_deletion_is_found() {
    let mut observed = observed();
    observed.remove(2);
    assert_eq!(check(&observed, &requested()), [Flaw::NoDeletion { key: KEY, created: 3, over: 1 }]);
}

#[test]
fn a_change_that_is_observed_twice_is_found() {
    let mut observed = observed();
    observed.push(observed[3]);
    assert!(check(&observed, &requested()).contains(&Flaw::Twice(observed[3])));
    let mut observed = self::observed();
    let deleted_again = change(0, 8, KEY, None);
    observed.insert(3, deleted_again);
    let flaws = check(&observed, &requested());
    assert!(flaws.contains(&Flaw::Deletions { key: KEY, observed: 2, requested: 1 }), "{flaws:?}");
}

#[test]
fn changes_out_of_order_are_found() {
    let swapped = [change(0, 5, KEY, Some(1)), change(0, 4, OTHER, Some(10)), change(1, 1, KEY, None)];
    assert_eq!(order(&swapped), [Flaw::Backwards { change: swapped[1], after: 5 }]);
}

#[test]
fn a_change_that_no_client_requested_is_found() {
    for (odd, why) in [
        (change(0, 8, KEY, Some(99)), "a value that no client put"),
        (change(0, 8, KEY, Some(4)), "one that was refused"),
        (change(0, 9, Key { lane: 0, group: 9, number: 9 }, None), "a key that no client used"),
    ] {
        let mut observed = observed();
        observed.push(odd);
        assert!(check(&observed, &requested()).contains(&Flaw::Unrequested(odd)), "{why}");
    }
    let mut observed = observed();
    observed[3].version = 8;
    let flaws = check(&observed, &requested());
    assert!(flaws.contains(&Flaw::Unrequested(observed[3])), "another version: {flaws:?}");
}
