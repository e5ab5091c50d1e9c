use types::Generation;
use types::api::About;

use super::*;

fn state(role: &str, phase: Phase) -> RoleState {
    RoleState { phase, ..RoleState::starting(role.parse::<Role>().unwrap()) }
}

fn owner(phase: Phase, epoch: u64) -> RoleState {
    RoleState { duty: Some(Post::Primary), epoch: Some(Epoch(epoch)), ..state("storage/0", phase) }
}

fn replica(phase: Phase) -> RoleState {
    RoleState { duty: Some(Post::Replica), ..state("storage/0", phase) }
}

fn because(reason: &str, state: RoleState) -> RoleState {
    RoleState { reason: Some(reason.to_owned()), ..state }
}

fn member(version: u64, state: Option<RoleState>) -> Member {
    Member {
        id: "a".parse().unwrap(),
        generation: Generation(5),
        version,
        http: "http://10.0.0.1:1".to_owned(),
        gossip: "10.0.0.1:1".to_owned(),
        state,
        about: About::default(),
        store: None,
    }
}

fn change(before: RoleState, after: RoleState) -> Change {
    let (before, member) = (Some(member(1, Some(before))), member(2, Some(after)));
    Change { kind: EventKind::Changed, member, before }
}

/// The message of a change from one state to another; none if it is not worth an event.
fn event(before: RoleState, after: RoleState) -> Option<String> {
    let change = change(before, after);
    is_news(&change).then(|| message(&change))
}

#[test]
fn events_report_the_duty_of_a_node_for_its_shard() {
    use Phase::{Degraded, Draining, Ready, Starting};
    let mut resigned = because("no store", owner(Degraded, 4));
    (resigned.epoch, resigned.resigned) = (None, Some(Epoch(4)));
    for (before, after, expected) in [
        (state("standby", Ready), owner(Starting, 4), "a is now storage/0 (owner, epoch 4), starting"),
        (owner(Starting, 4), owner(Ready, 4), "a is now storage/0 (owner, epoch 4), ready"),
        (state("storage/0", Starting), owner(Starting, 4), "a is the owner of storage/0 under epoch 4"),
        (state("storage/0", Starting), replica(Starting), "a has a replica of storage/0"),
        (replica(Ready), owner(Starting, 5), "a is now storage/0 (owner, epoch 5), starting"),
        (
            owner(Ready, 4),
            because("leaving", owner(Draining, 4)),
            "a is now storage/0 (owner, epoch 4), draining: leaving",
        ),
        (owner(Starting, 4), state("storage/0", Starting), "a does not own storage/0 any more"),
        (replica(Starting), state("storage/0", Starting), "a has no replica of storage/0 any more"),
        (
            owner(Ready, 4),
            because("took over from b", owner(Ready, 6)),
            "a is the owner of storage/0 under epoch 6: took over from b",
        ),
        (
            because("slow", owner(Degraded, 4)),
            resigned,
            "a is now storage/0 (owner that resigned epoch 4), degraded: no store",
        ),
    ] {
        assert_eq!(event(before, after).as_deref(), Some(expected));
    }
}

#[test]
fn a_change_that_needs_no_action_is_no_event() {
    use Phase::{Degraded, Failed, Ready, Starting};
    let spec = RoleState { spec: Some(3), shards: Some(2), revision: 1, ..state("storage/0", Starting) };
    for (before, after) in [
        (state("storage/0", Starting), spec),
        (
            because("the replica may be 19 s behind", replica(Degraded)),
            because("the replica may be 20 s behind", replica(Degraded)),
        ),
        (
            because("x (failed 2 times, will be tried again)", state("echo", Failed)),
            because("x (failed 3 times, will be tried again)", state("echo", Failed)),
        ),
        (because("took over from b", owner(Ready, 4)), owner(Ready, 4)),
    ] {
        assert_eq!(event(before, after), None);
    }
    let (mut before, mut after) = (member(1, None), member(2, None));
    let store = serde_json::json!({ "id": "00000000-0000-0000-0000-000000000001", "url": "file:///x" });
    after.store = Some(serde_json::from_value(store).unwrap());
    let change = |before: &Member, after: &Member| Change {
        kind: EventKind::Changed,
        member: after.clone(),
        before: Some(before.clone()),
    };
    assert!(!is_news(&change(&before, &after)), "it opened its store");
    before.state = Some(state("standby", Ready));
    assert!(is_news(&change(&before, &after)));
    assert_eq!(message(&change(&before, &after)), "a is now in a role that this version does not know");
}

#[test]
fn another_cause_is_an_event_and_so_is_another_address() {
    use Phase::{Degraded, Ready};
    let degraded = |reason: &str| because(reason, state("api_gateway", Degraded));
    assert_eq!(
        event(degraded("b does not answer"), degraded("c does not answer")).as_deref(),
        Some("a is now api_gateway, degraded: c does not answer")
    );
    let mut listening = state("api_gateway", Ready);
    listening.endpoints.insert("gateway".to_owned(), "http://10.0.0.1:80".to_owned());
    assert_eq!(
        event(state("api_gateway", Ready), listening.clone()).as_deref(),
        Some("a listens at gateway=http://10.0.0.1:80")
    );
    assert_eq!(event(listening, state("api_gateway", Ready)).as_deref(), Some("a has closed its listeners"));
    let mut moved = change(state("standby", Ready), state("standby", Ready));
    moved.member.http = "http://10.0.0.2:1".to_owned();
    assert!(is_news(&moved));
    assert_eq!(message(&moved), "a has other addresses: http://10.0.0.2:1, gossip 10.0.0.1:1");
}

#[test]
fn a_node_that_joins_or_leaves_is_always_an_event() {
    let member = member(1, Some(state("standby", Phase::Ready)));
    for (kind, expected) in [
        (EventKind::Present, "a is standby, ready"),
        (EventKind::Joined, "a joined as standby, ready"),
        (EventKind::Restarted, "a was restarted and is standby, ready"),
        (EventKind::Left, "a left"),
        (EventKind::Lost, "a is lost: no sign of life"),
    ] {
        let change = Change { kind, member: member.clone(), before: Some(member.clone()) };
        assert!(is_news(&change));
        assert_eq!(message(&change), expected);
    }
}

/// A complete role change: no message repeats the one before it.
#[test]
fn no_phase_is_reported_twice() {
    use Phase::{Ready, Starting};
    let known = RoleState { spec: Some(1), shards: Some(2), ..state("storage/0", Starting) };
    let states = [
        state("standby", Ready),
        state("storage/0", Starting),
        known.clone(),
        RoleState { revision: 7, ..known },
        owner(Starting, 1),
        RoleState { spec: Some(1), ..owner(Starting, 1) },
        owner(Ready, 1),
    ];
    let events: Vec<_> =
        states.windows(2).filter_map(|pair| event(pair[0].clone(), pair[1].clone())).collect();
    assert_eq!(
        events,
        [
            "a is now storage/0, starting",
            "a is the owner of storage/0 under epoch 1",
            "a is now storage/0 (owner, epoch 1), ready",
        ]
    );
}

#[test]
fn amounts_are_distinguished_from_names_that_have_digits() {
    for amount in ["0", "19", "1.5s", "261.0ns", "1m30s", "2h", "1,024", "99%", "12ms", "3days", "8KiB"] {
        assert!(is_amount(amount), "{amount}");
    }
    for other in ["", "s", "a1", "1a", "10.0.0.1", "127.0.0.1:80", "n2", "1.2.3", ".5", "v1", "404ed"] {
        assert!(!is_amount(other), "{other}");
    }
    for (one, other) in [
        ("may be 19 s behind", "may be 20 s behind"),
        ("may be 59 s behind: slow", "may be 1m 4s behind: slow"),
        ("not answered for 999ms, so", "not answered for 1.2s, so"),
        ("1 route has no upstream", "2 routes has no upstream"),
        ("(1.5 GiB of 2 GiB)", "(1.7 GiB of 2 GiB)"),
        ("99% full", "100 % full"),
    ] {
        assert_eq!(without_numbers(one), without_numbers(other), "{one}");
    }
    for (one, other) in [
        ("storage-1 is gone", "storage-2 is gone"),
        ("127.0.0.1:80 refuses", "127.0.0.1:81 refuses"),
        ("10.0.0.1 refuses", "10.0.0.2 refuses"),
        ("may be 19 s behind", "may be 19 s behind: slow"),
    ] {
        assert_ne!(without_numbers(one), without_numbers(other), "{one}");
    }
}
