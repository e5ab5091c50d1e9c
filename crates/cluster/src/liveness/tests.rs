use types::api::About;
use types::{Role, RoleState};

use super::*;

const MS: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_millis(1_500);

fn sighting(node: &str, generation: u64, heartbeat: u64) -> Sighting {
    let id: NodeId = node.parse().unwrap();
    Sighting {
        node: id.clone(),
        generation: Generation(generation),
        heartbeat,
        listed: false,
        left: false,
        http: None,
        member: Some(Member {
            id,
            generation: Generation(generation),
            version: 3,
            http: "http://127.0.0.1:1".to_owned(),
            gossip: "127.0.0.1:1".to_owned(),
            state: Some(RoleState::starting(Role::Standby)),
            about: About::default(),
            store: None,
        }),
    }
}

fn listed(mut sighting: Sighting) -> Sighting {
    sighting.listed = true;
    sighting
}

fn left(mut sighting: Sighting) -> Sighting {
    sighting.left = true;
    sighting
}

fn without_keys(mut sighting: Sighting) -> Sighting {
    sighting.member = None;
    sighting
}

fn names(evaluation: &Evaluation) -> Vec<(String, u64)> {
    evaluation.members.values().map(|member| (member.id.to_string(), member.generation.0)).collect()
}

fn one(name: &str, generation: u64) -> Vec<(String, u64)> {
    vec![(name.to_owned(), generation)]
}

#[tokio::test]
async fn a_newcomer_is_a_member_once_its_heartbeat_rose() {
    let start = Instant::now();
    let mut liveness = Liveness::new(PATIENCE);
    let evaluation = liveness.evaluate(start, false, vec![sighting("a", 1, 5)]);
    assert_eq!((names(&evaluation), evaluation.pending), (vec![], 1));
    let evaluation = liveness.evaluate(start + 5 * MS, false, vec![sighting("a", 1, 6)]);
    assert_eq!((names(&evaluation), evaluation.pending), (one("a", 1), 0));
}

#[tokio::test]
async fn a_newcomer_without_its_keys_is_not_a_member() {
    let start = Instant::now();
    let mut liveness = Liveness::new(PATIENCE);
    liveness.evaluate(start, false, vec![without_keys(sighting("a", 1, 5))]);
    let evaluation = liveness.evaluate(start + MS, false, vec![listed(without_keys(sighting("a", 1, 6)))]);
    assert_eq!(names(&evaluation), vec![]);
}

#[tokio::test]
async fn a_dead_node_remembered_differently_by_two_peers_does_not_stay() {
    let start = Instant::now();
    let mut liveness = Liveness::new(PATIENCE);
    liveness.evaluate(start, false, vec![sighting("ghost", 1, 5)]);
    let evaluation = liveness.evaluate(start + MS, false, vec![sighting("ghost", 1, 9)]);
    assert_eq!(names(&evaluation), one("ghost", 1), "it looks alive at first");
    let evaluation = liveness.evaluate(start + 2 * PATIENCE, false, vec![sighting("ghost", 1, 9)]);
    assert_eq!(names(&evaluation), vec![]);
}

#[tokio::test]
async fn once_listed_only_the_detector_removes_a_member() {
    let start = Instant::now();
    let mut liveness = Liveness::new(PATIENCE);
    liveness.evaluate(start, false, vec![listed(sighting("a", 1, 5))]);
    let evaluation = liveness.evaluate(start + 10 * PATIENCE, false, vec![listed(sighting("a", 1, 5))]);
    assert_eq!(names(&evaluation), one("a", 1), "silence alone does not remove a listed member");
    let evaluation = liveness.evaluate(start + 10 * PATIENCE, false, vec![sighting("a", 1, 99)]);
    assert_eq!(names(&evaluation), vec![], "a late heartbeat alone does not bring it back");
}

#[tokio::test]
async fn of_two_incarnations_the_later_is_the_member_and_the_earlier_never_returns() {
    let start = Instant::now();
    let mut liveness = Liveness::new(PATIENCE);
    liveness.evaluate(start, false, vec![listed(sighting("a", 1, 5))]);
    liveness.evaluate(start, false, vec![listed(sighting("a", 1, 5)), sighting("a", 2, 1)]);
    let both = vec![listed(sighting("a", 1, 5)), sighting("a", 2, 2)];
    assert_eq!(names(&liveness.evaluate(start + MS, false, both)), one("a", 2));
    let newer_died = vec![listed(sighting("a", 1, 5)), sighting("a", 2, 2)];
    assert_eq!(names(&liveness.evaluate(start + 2 * PATIENCE, false, newer_died)), vec![]);
}

#[tokio::test]
async fn a_node_that_left_is_removed_at_once_and_its_earlier_incarnation_stays_out() {
    let start = Instant::now();
    let mut liveness = Liveness::new(PATIENCE);
    liveness.evaluate(start, false, vec![listed(sighting("a", 1, 5)), listed(sighting("a", 2, 5))]);
    let sightings = vec![listed(sighting("a", 1, 5)), left(listed(sighting("a", 2, 6)))];
    let evaluation = liveness.evaluate(start, true, sightings);
    assert_eq!(names(&evaluation), vec![]);
    assert_eq!(evaluation.left.get(&"a".parse().unwrap()), Some(&Generation(2)));
}

#[tokio::test]
async fn an_earlier_incarnation_that_left_does_not_affect_the_present_one() {
    let start = Instant::now();
    let mut liveness = Liveness::new(PATIENCE);
    let sightings = vec![left(sighting("a", 1, 5)), listed(sighting("a", 2, 6))];
    let evaluation = liveness.evaluate(start, false, sightings);
    assert_eq!(names(&evaluation), one("a", 2));
    assert!(evaluation.left.is_empty());
}

#[tokio::test]
async fn on_hold_no_member_is_declared_dead_but_one_that_left_is_removed() {
    let start = Instant::now();
    let mut liveness = Liveness::new(PATIENCE);
    liveness.evaluate(start, false, vec![listed(sighting("a", 1, 5)), listed(sighting("b", 1, 5))]);
    let evaluation = liveness.evaluate(start, true, vec![sighting("a", 1, 5), left(sighting("b", 1, 5))]);
    assert_eq!(names(&evaluation), one("a", 1));
    let evaluation = liveness.evaluate(start, false, vec![sighting("a", 1, 5), left(sighting("b", 1, 5))]);
    assert_eq!(names(&evaluation), vec![]);
}

#[tokio::test]
async fn an_earlier_incarnation_still_alive_after_the_later_one_left_is_a_member_again() {
    let start = Instant::now();
    let mut liveness = Liveness::new(PATIENCE);
    liveness.evaluate(start, false, vec![listed(sighting("a", 1, 5))]);
    liveness.evaluate(start, false, vec![listed(sighting("a", 1, 6)), listed(sighting("a", 2, 1))]);
    let gone = |heartbeat| vec![listed(sighting("a", 1, heartbeat)), left(listed(sighting("a", 2, 9)))];
    assert_eq!(names(&liveness.evaluate(start + MS, false, gone(6))), vec![], "not seen alive since");
    let evaluation = liveness.evaluate(start + 2 * MS, false, gone(7));
    assert_eq!(names(&evaluation), one("a", 1));
    assert!(evaluation.left.is_empty());
}
