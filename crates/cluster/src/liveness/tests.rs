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

fn names(verdict: &Verdict) -> Vec<(String, u64)> {
    verdict.members.values().map(|member| (member.id.to_string(), member.generation.0)).collect()
}

fn one(name: &str, generation: u64) -> Vec<(String, u64)> {
    vec![(name.to_owned(), generation)]
}

#[tokio::test]
async fn a_newcomer_is_a_member_once_its_heartbeat_rose() {
    let start = Instant::now();
    let mut liveness = Liveness::new(PATIENCE);
    let verdict = liveness.look(start, false, vec![sighting("a", 1, 5)]);
    assert_eq!((names(&verdict), verdict.pending), (vec![], 1));
    let verdict = liveness.look(start + 5 * MS, false, vec![sighting("a", 1, 6)]);
    assert_eq!((names(&verdict), verdict.pending), (one("a", 1), 0));
}

#[tokio::test]
async fn a_newcomer_without_its_keys_is_no_member() {
    let start = Instant::now();
    let mut liveness = Liveness::new(PATIENCE);
    liveness.look(start, false, vec![without_keys(sighting("a", 1, 5))]);
    let verdict = liveness.look(start + MS, false, vec![listed(without_keys(sighting("a", 1, 6)))]);
    assert_eq!(names(&verdict), vec![]);
}

#[tokio::test]
async fn a_dead_node_remembered_differently_by_two_peers_does_not_stay() {
    let start = Instant::now();
    let mut liveness = Liveness::new(PATIENCE);
    liveness.look(start, false, vec![sighting("ghost", 1, 5)]);
    let verdict = liveness.look(start + MS, false, vec![sighting("ghost", 1, 9)]);
    assert_eq!(names(&verdict), one("ghost", 1), "for a moment it looks alive");
    let verdict = liveness.look(start + 2 * PATIENCE, false, vec![sighting("ghost", 1, 9)]);
    assert_eq!(names(&verdict), vec![]);
}

#[tokio::test]
async fn once_listed_only_the_detector_takes_a_member_off() {
    let start = Instant::now();
    let mut liveness = Liveness::new(PATIENCE);
    liveness.look(start, false, vec![listed(sighting("a", 1, 5))]);
    let verdict = liveness.look(start + 10 * PATIENCE, false, vec![listed(sighting("a", 1, 5))]);
    assert_eq!(names(&verdict), one("a", 1), "silence alone is not for us to judge");
    let verdict = liveness.look(start + 10 * PATIENCE, false, vec![sighting("a", 1, 99)]);
    assert_eq!(names(&verdict), vec![], "a late heartbeat does not bring it back before the detector does");
}

#[tokio::test]
async fn of_two_lives_the_later_is_the_member_and_the_earlier_never_returns() {
    let start = Instant::now();
    let mut liveness = Liveness::new(PATIENCE);
    liveness.look(start, false, vec![listed(sighting("a", 1, 5))]);
    liveness.look(start, false, vec![listed(sighting("a", 1, 5)), sighting("a", 2, 1)]);
    let both = vec![listed(sighting("a", 1, 5)), sighting("a", 2, 2)];
    assert_eq!(names(&liveness.look(start + MS, false, both)), one("a", 2));
    let newer_died = vec![listed(sighting("a", 1, 5)), sighting("a", 2, 2)];
    assert_eq!(names(&liveness.look(start + 2 * PATIENCE, false, newer_died)), vec![]);
}

#[tokio::test]
async fn who_left_is_no_member_at_once_and_neither_is_an_earlier_life() {
    let start = Instant::now();
    let mut liveness = Liveness::new(PATIENCE);
    liveness.look(start, false, vec![listed(sighting("a", 1, 5)), listed(sighting("a", 2, 5))]);
    let sightings = vec![listed(sighting("a", 1, 5)), left(listed(sighting("a", 2, 6)))];
    let verdict = liveness.look(start, true, sightings);
    assert_eq!(names(&verdict), vec![]);
    assert_eq!(verdict.left.get(&"a".parse().unwrap()), Some(&Generation(2)));
}

#[tokio::test]
async fn an_earlier_life_that_left_says_nothing_about_the_present_one() {
    let start = Instant::now();
    let mut liveness = Liveness::new(PATIENCE);
    let sightings = vec![left(sighting("a", 1, 5)), listed(sighting("a", 2, 6))];
    let verdict = liveness.look(start, false, sightings);
    assert_eq!(names(&verdict), one("a", 2));
    assert!(verdict.left.is_empty());
}

#[tokio::test]
async fn while_held_nobody_is_given_up_but_who_left_is() {
    let start = Instant::now();
    let mut liveness = Liveness::new(PATIENCE);
    liveness.look(start, false, vec![listed(sighting("a", 1, 5)), listed(sighting("b", 1, 5))]);
    let verdict = liveness.look(start, true, vec![sighting("a", 1, 5), left(sighting("b", 1, 5))]);
    assert_eq!(names(&verdict), one("a", 1));
    let verdict = liveness.look(start, false, vec![sighting("a", 1, 5), left(sighting("b", 1, 5))]);
    assert_eq!(names(&verdict), vec![]);
}

#[tokio::test]
async fn an_earlier_life_whose_heart_still_beats_after_the_later_one_went_is_a_member_again() {
    let start = Instant::now();
    let mut liveness = Liveness::new(PATIENCE);
    liveness.look(start, false, vec![listed(sighting("a", 1, 5))]);
    liveness.look(start, false, vec![listed(sighting("a", 1, 6)), listed(sighting("a", 2, 1))]);
    let gone = |heartbeat| vec![listed(sighting("a", 1, heartbeat)), left(listed(sighting("a", 2, 9)))];
    assert_eq!(names(&liveness.look(start + MS, false, gone(6))), vec![], "not seen alive since");
    let verdict = liveness.look(start + 2 * MS, false, gone(7));
    assert_eq!(names(&verdict), one("a", 1));
    assert!(verdict.left.is_empty());
}
