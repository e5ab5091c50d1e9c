use types::RoleState;
use types::api::{About, Member};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn storage() -> ServiceName {
    "storage".parse().unwrap()
}

fn shard() -> ShardRef {
    ShardRef::new(storage(), ShardId::default())
}

fn layouts(replicas: u32) -> BTreeMap<ServiceName, Layout> {
    let shards = NonZeroU32::new(2).unwrap();
    BTreeMap::from([(
        storage(),
        Layout { spec: 1, service_type: "storage".parse().unwrap(), shards, replicas },
    )])
}

fn pace() -> Pace {
    Pace { settle: SECOND, step: SECOND }
}

/// `storage/0*7` owns the shard under epoch 7, `storage/0+` has a replica, `storage/0` does neither.
fn member(id: &str, role: &str) -> Member {
    let (role, mark) = role.split_at(role.find(['*', '+']).unwrap_or(role.len()));
    let mut state = RoleState { phase: Phase::Ready, ..RoleState::starting(role.parse().unwrap()) };
    if let Some(epoch) = mark.strip_prefix('*') {
        (state.epoch, state.duty) = (Some(Epoch(epoch.parse().unwrap())), Some(Post::Primary));
    } else if mark == "+" {
        state.duty = Some(Post::Replica);
    }
    Member {
        id: id.parse().unwrap(),
        generation: Generation(1),
        version: 1,
        http: format!("http://{id}"),
        gossip: String::new(),
        state: Some(state),
        about: About { runnable: vec!["storage".parse().unwrap()], ..About::default() },
        store: None,
    }
}

/// The first member's view.
fn view(members: &[(&str, &str)]) -> ClusterView {
    let me = members[0].0.parse().unwrap();
    ClusterView::new("test".parse().unwrap(), me, members.iter().map(|(id, role)| member(id, role)))
}

/// Shard 1 always has an owner, so that only shard 0 matters.
fn with_the_other_shard<'a>(members: &[(&'a str, &'a str)]) -> ClusterView {
    view(&[members, &[("other", "storage/1*1")]].concat())
}

/// The same with a replica of shard 1.
fn with_the_other_replica<'a>(members: &[(&'a str, &'a str)]) -> ClusterView {
    with_the_other_shard(&[members, &[("other-replica", "storage/1+")]].concat())
}

fn next_action(
    vacancies: &Vacancies,
    view: &ClusterView,
    replicas: u32,
    now: Instant,
) -> Result<(ShardRef, Action), Option<Instant>> {
    vacancies.next_action(view, &layouts(replicas), &BTreeSet::new(), now)
}

#[tokio::test(start_paused = true)]
async fn a_shard_whose_owner_was_seen_is_taken_after_the_settle_time() {
    let mut vacancies = Vacancies::new(pace());
    let start = Instant::now();
    let owned = with_the_other_shard(&[("me", "standby"), ("a", "storage/0*3")]);
    vacancies.look(&owned, &Gone::new(), &layouts(0), start);
    assert_eq!(next_action(&vacancies, &owned, 0, start + 100 * SECOND), Err(None), "it has an owner");

    let gone = with_the_other_shard(&[("me", "standby")]);
    vacancies.look(&gone, &Gone::new(), &layouts(0), start + 10 * SECOND);
    let due = start + 11 * SECOND;
    assert_eq!(next_action(&vacancies, &gone, 0, due - SECOND / 2), Err(Some(due)));
    assert_eq!(next_action(&vacancies, &gone, 0, due), Ok((shard(), Action::Own)));
    let last = vacancies.last_owner(&shard()).unwrap();
    assert_eq!((last.node.as_str(), last.epoch, last.http.as_str()), ("a", Epoch(3), "http://a"));

    vacancies.look(&owned, &Gone::new(), &layouts(0), due);
    assert_eq!(next_action(&vacancies, &owned, 0, due + SECOND), Err(None), "it was a false alarm");
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_has_crashed_is_replaced_at_once() {
    let mut vacancies = Vacancies::new(pace());
    let start = Instant::now();
    let seen = with_the_other_shard(&[("me", "standby"), ("a", "storage/0*3")]);
    vacancies.look(&seen, &Gone::new(), &layouts(0), start);
    let gone = Gone::from([("a".parse().unwrap(), Generation(1))]);
    let view = seen.without(&gone);
    vacancies.look(&view, &gone, &layouts(0), start);
    assert_eq!(next_action(&vacancies, &view, 0, start), Ok((shard(), Action::Own)));

    vacancies.look(&seen, &Gone::new(), &layouts(0), start);
    assert_eq!(next_action(&vacancies, &seen, 0, start + SECOND), Err(None), "it was alive after all");
    let earlier = Gone::from([("a".parse().unwrap(), Generation(0))]);
    assert_eq!(seen.without(&earlier), seen, "an earlier incarnation does not count");
}

#[test]
fn the_first_two_candidates_watch_the_owner() {
    let members =
        [("a", "storage/0*3"), ("b", "standby"), ("c", "storage/0+"), ("d", "standby"), ("e", "standby")];
    let looks = |me: &str| {
        let all = members.iter().chain(&[("other", "storage/1*1")]).map(|(id, role)| member(id, role));
        let view = ClusterView::new("test".parse().unwrap(), me.parse().unwrap(), all);
        let mut owners: Vec<_> =
            owners_to_watch(&view, &layouts(1)).into_iter().map(|owner| owner.node.to_string()).collect();
        owners.retain(|owner| owner == "a");
        owners.len()
    };
    assert_eq!(looks("c"), 1, "the replica is the first one");
    assert_eq!(["b", "d", "e"].map(looks).iter().sum::<usize>(), 1, "one standby is the second");
    assert_eq!(looks("a"), 0, "no node watches itself");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_starts_with_the_shard_is_waited_for_longer() {
    let mut starting = member("a", "storage/0");
    starting.state.as_mut().unwrap().phase = Phase::Starting;
    let members = [member("me", "standby"), starting, member("other", "storage/1*1")];
    let awaited = ClusterView::new("test".parse().unwrap(), "me".parse().unwrap(), members);
    let mut vacancies = Vacancies::new(pace());
    let start = Instant::now();
    vacancies.look(&awaited, &Gone::new(), &layouts(0), start);
    assert_eq!(next_action(&vacancies, &awaited, 0, start + 2 * SECOND), Err(Some(start + UNSEEN)));
    assert_eq!(next_action(&vacancies, &awaited, 0, start + UNSEEN), Ok((shard(), Action::Own)));

    let given_up = with_the_other_shard(&[("me", "standby"), ("gateway", "api_gateway")]);
    assert_eq!(
        next_action(&vacancies, &given_up, 0, start + SECOND),
        Ok((shard(), Action::Own)),
        "the claim decides"
    );
}

#[tokio::test(start_paused = true)]
async fn a_refusal_counts_only_while_another_candidate_is_left() {
    let (alone, others) = (
        with_the_other_shard(&[("me", "standby")]),
        with_the_other_shard(&[("me", "standby"), ("b", "standby")]),
    );
    let mut vacancies = Vacancies::new(pace());
    let start = Instant::now();
    vacancies.look(&others, &Gone::new(), &layouts(0), start);
    vacancies.leave_to_others(&shard(), start + 30 * SECOND);
    assert_eq!(next_action(&vacancies, &others, 0, start + 5 * SECOND), Err(Some(start + 30 * SECOND)));
    assert_eq!(next_action(&vacancies, &alone, 0, start + 5 * SECOND), Ok((shard(), Action::Own)));

    vacancies.put_off(&shard(), start + 30 * SECOND, false);
    assert_eq!(
        next_action(&vacancies, &alone, 0, start + 5 * SECOND),
        Err(Some(start + 30 * SECOND)),
        "another reason"
    );

    for _ in 0..3 {
        vacancies.failed(&shard(), Action::Own, start + 20 * SECOND);
    }
    assert_eq!(next_action(&vacancies, &others, 0, start + 30 * SECOND), Err(Some(start + 60 * SECOND)));
    assert_eq!(next_action(&vacancies, &alone, 0, start + 30 * SECOND), Ok((shard(), Action::Own)));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_resigned_or_stopped_is_no_owner_but_one_that_restarts_is() {
    let change = |change: fn(&mut RoleState)| {
        let mut owner = member("a", "storage/0*3");
        change(owner.state.as_mut().unwrap());
        let others = [member("me", "standby"), member("other", "storage/1*1"), owner];
        ClusterView::new("test".parse().unwrap(), "me".parse().unwrap(), others)
    };
    let start = Instant::now();
    for (view, is_owned) in [
        (change(|state| state.phase = Phase::Starting), true),
        (change(|state| state.phase = Phase::Draining), true),
        (change(|state| state.phase = Phase::Degraded), true),
        (change(|state| state.phase = Phase::Failed), true),
        (change(|state| state.phase = Phase::Stopped), false),
        (change(|state| (state.resigned, state.epoch) = (state.epoch, None)), false),
        (change(|state| state.role = "storage/1".parse().unwrap()), false),
    ] {
        let mut vacancies = Vacancies::new(pace());
        vacancies.look(
            &with_the_other_shard(&[("me", "standby"), ("a", "storage/0*3")]),
            &Gone::new(),
            &layouts(0),
            start,
        );
        vacancies.look(&view, &Gone::new(), &layouts(0), start);
        let found = next_action(&vacancies, &view, 0, start + SECOND);
        assert_eq!(found.is_err(), is_owned, "{:?}", view.member(&"a".parse().unwrap()));
    }
}

/// The rank of each member, the first candidate first; members that are no candidates come last.
fn ranks(members: &[(&str, &str)], replicas: u32, action: Action) -> Vec<(String, Option<u32>)> {
    let all: Vec<_> = members.iter().map(|(id, role)| member(id, role)).collect();
    let rank_of = |id: &str| {
        let view = ClusterView::new("test".parse().unwrap(), id.parse().unwrap(), all.clone());
        rank(&view, &shard(), &layouts(replicas), action)
    };
    let mut ranks: Vec<_> = members.iter().map(|(id, _)| ((*id).to_owned(), rank_of(id))).collect();
    ranks.sort_by_key(|(_, rank)| rank.unwrap_or(u32::MAX));
    ranks
}

#[test]
fn replicas_of_the_shard_go_first_then_surplus_ones_then_standbys_then_replicas_of_others() {
    let members = [
        ("standby", "standby"),
        ("needed", "storage/1+"),
        ("replica", "storage/0+"),
        ("owner", "storage/1*1"),
        ("gateway", "api_gateway"),
    ];
    let found = ranks(&members, 1, Action::Own);
    let order: Vec<_> = found.iter().map(|(id, rank)| (id.as_str(), *rank)).collect();
    assert_eq!(order[..3], [("replica", Some(0)), ("standby", Some(1)), ("needed", Some(2))]);
    assert!(order[3..].iter().all(|(_, rank)| rank.is_none()), "{order:?}");

    let surplus = [("standby", "standby"), ("b", "storage/1+"), ("c", "storage/1+")];
    let found = ranks(&surplus, 1, Action::Own);
    assert_eq!(found[2].0, "standby", "{found:?}");
}

#[test]
fn a_standby_is_a_candidate_for_a_named_service_if_it_supports_these_and_may_run_it() {
    let sessions: ServiceName = "sessions".parse().unwrap();
    let shard = ShardRef::new(sessions.clone(), ShardId::default());
    let of = |service_type: &str| {
        let (service_type, shards) = (service_type.parse().unwrap(), NonZeroU32::MIN);
        BTreeMap::from([(sessions.clone(), Layout { spec: 1, service_type, shards, replicas: 0 })])
    };
    let before = member("me", "standby").about;
    let now = About { named_services: true, ..before.clone() };
    let limited = |runs: &str| About { runs: Some(vec![runs.parse().unwrap()]), ..now.clone() };
    for (about, layouts, expected) in [
        (before.clone(), of("storage"), None),
        (now.clone(), of("storage"), Some(0)),
        (now.clone(), of("searcher"), None),
        (now.clone(), BTreeMap::new(), None),
        (limited("sessions"), of("storage"), Some(0)),
        (limited("users"), of("storage"), None),
    ] {
        let me = Member { about, ..member("me", "standby") };
        let view = ClusterView::new("test".parse().unwrap(), me.id.clone(), [me]);
        assert_eq!(rank(&view, &shard, &layouts, Action::Own), expected, "{view:?}");
    }
}

#[test]
fn all_nodes_agree_on_the_order_of_standbys_and_each_shard_has_its_own() {
    let names: Vec<String> = (0..8).map(|number| format!("n{number}")).collect();
    let members: Vec<_> = names.iter().map(|name| (name.as_str(), "standby")).collect();
    let found = ranks(&members, 0, Action::Own);
    let numbers: Vec<_> = found.iter().map(|(_, rank)| rank.unwrap()).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7]);
    let firsts: BTreeSet<_> = (0..20)
        .map(|shard| {
            let shard = ShardRef::new(storage(), ShardId::try_from(shard).unwrap());
            names.iter().max_by_key(|name| weight(&name.parse().unwrap(), &shard)).unwrap()
        })
        .collect();
    assert!(firsts.len() > 3, "{firsts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_standby_becomes_a_missing_replica_once_there_is_an_owner() {
    let mut vacancies = Vacancies::new(pace());
    let start = Instant::now();
    let whole = with_the_other_replica(&[("me", "standby"), ("a", "storage/0*3"), ("b", "storage/0+")]);
    vacancies.look(&whole, &Gone::new(), &layouts(1), start);
    assert_eq!(next_action(&vacancies, &whole, 1, start), Err(None));

    let thin = with_the_other_replica(&[("me", "standby"), ("a", "storage/0*3")]);
    vacancies.look(&thin, &Gone::new(), &layouts(1), start);
    assert_eq!(next_action(&vacancies, &thin, 1, start + 4 * SECOND), Ok((shard(), Action::Replicate)));
    assert_eq!(next_action(&vacancies, &thin, 1, start + SECOND), Err(Some(start + 4 * SECOND)));

    let busy = with_the_other_replica(&[("me", "api_gateway"), ("a", "storage/0*3")]);
    assert_eq!(next_action(&vacancies, &busy, 1, start + 100 * SECOND), Err(None), "it has another role");
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_was_put_off_or_refused_is_left_alone() {
    let mut vacancies = Vacancies::new(pace());
    let (start, empty) = (Instant::now(), with_the_other_shard(&[("me", "standby")]));
    vacancies.look(&empty, &Gone::new(), &layouts(0), start);
    vacancies.put_off(&shard(), start + 60 * SECOND, true);
    assert_eq!(vacancies.rebuffs(&shard()), 1);
    assert_eq!(next_action(&vacancies, &empty, 0, start + UNSEEN), Err(Some(start + 60 * SECOND)));
    assert!(next_action(&vacancies, &empty, 0, start + 60 * SECOND).is_ok());
    let refused = BTreeSet::from([(shard(), Action::Own)]);
    assert_eq!(vacancies.next_action(&empty, &layouts(0), &refused, start + 60 * SECOND), Err(None));

    let back = with_the_other_shard(&[("me", "standby"), ("a", "storage/0*3")]);
    vacancies.look(&back, &Gone::new(), &layouts(0), start);
    vacancies.look(&empty, &Gone::new(), &layouts(0), start + SECOND);
    assert!(next_action(&vacancies, &empty, 0, start + 2 * SECOND).is_ok(), "a new owner is a new case");
}

#[tokio::test(start_paused = true)]
async fn a_false_alarm_does_not_delay_the_next_takeover_but_a_failed_takeover_does() {
    let (owned, empty) = (
        with_the_other_shard(&[("me", "standby"), ("a", "storage/0*3")]),
        with_the_other_shard(&[("me", "standby")]),
    );
    let mut vacancies = Vacancies::new(pace());
    let start = Instant::now();
    for view in [&owned, &empty] {
        vacancies.look(view, &Gone::new(), &layouts(0), start);
    }
    vacancies.put_off(&shard(), start + 60 * SECOND, true);
    for view in [&owned, &empty] {
        vacancies.look(view, &Gone::new(), &layouts(0), start);
    }
    assert!(next_action(&vacancies, &empty, 0, start + SECOND).is_ok(), "the same owner, once more");

    vacancies.failed(&shard(), Action::Own, start);
    let starting = {
        let mut other = member("b", "storage/0*4");
        other.state.as_mut().unwrap().phase = Phase::Starting;
        let others = [member("me", "standby"), member("other", "storage/1*1"), other];
        ClusterView::new("test".parse().unwrap(), "me".parse().unwrap(), others)
    };
    for view in [&starting, &empty] {
        vacancies.look(view, &Gone::new(), &layouts(0), start);
    }
    assert_eq!(
        next_action(&vacancies, &empty, 0, start + SECOND),
        Err(Some(start + FAILED.limit(1))),
        "another failed too"
    );
    for view in [&owned, &empty] {
        vacancies.look(view, &Gone::new(), &layouts(0), start);
    }
    assert!(
        next_action(&vacancies, &empty, 0, start + SECOND).is_ok(),
        "another node could run it meanwhile"
    );
}

#[tokio::test(start_paused = true)]
async fn a_missing_owner_goes_before_a_missing_replica() {
    let mut vacancies = Vacancies::new(pace());
    let start = Instant::now();
    let seen = view(&[("me", "standby"), ("a", "storage/0*3"), ("b", "storage/1*3")]);
    let thin = view(&[("me", "standby"), ("a", "storage/0*3")]);
    for view in [&seen, &thin] {
        vacancies.look(view, &Gone::new(), &layouts(1), start);
    }
    let shard_1 = ShardRef::new(storage(), ShardId::try_from(1).unwrap());
    assert_eq!(next_action(&vacancies, &thin, 1, start + 100 * SECOND), Ok((shard_1, Action::Own)));
}
