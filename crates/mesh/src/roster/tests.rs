//! Views that change: which members a roster has, and what becomes of requests for those that left.

use std::net::SocketAddr;

use tokio::time::advance;
use types::api::Member;
use types::{Generation, Phase, Post, Role, ServiceType, Target};

use super::*;
use crate::targets::Kind;
use crate::testing::{echo, member, standby, until, view};

const DETECTOR: Duration = Duration::from_secs(2);

fn addr() -> SocketAddr {
    ([127, 0, 0, 1], 1).into()
}

fn made_of(members: impl IntoIterator<Item = Member>, before: &Catalog, now: Instant) -> Catalog {
    Catalog::new(&view(members), before, &Learned::new(), DETECTOR, now)
}

fn prospect(catalog: &Catalog, now: Instant) -> Prospect {
    prospect_of(catalog, &Kind::Assumed("echo".parse().unwrap()), now)
}

fn prospect_of(catalog: &Catalog, kind: &Kind, now: Instant) -> Prospect {
    catalog.prospect(&echo(), Target::Any, kind, now)
}

#[test]
fn the_prospect_depends_on_the_members() {
    let now = Instant::now();
    let nothing = Catalog::default();
    for phase in [Phase::Starting, Phase::Draining, Phase::Stopped, Phase::Failed] {
        let found = made_of([member("a", addr(), phase)], &nothing, now);
        assert!(!found.members(&echo())[0].serves(Target::Any), "{phase}");
        assert_eq!(prospect(&found, now), Prospect::Soon, "{phase}");
    }
    let could = made_of([standby("a", addr(), &[echo()])], &nothing, now);
    assert_eq!(prospect(&could, now), Prospect::IfAssigned);
    let never = made_of([standby("a", addr(), &[])], &nothing, now);
    assert_eq!(prospect(&never, now), Prospect::Never);
}

#[test]
fn requests_wait_for_a_service_that_may_exist_even_if_no_node_can_run_it() {
    let now = Instant::now();
    let service_type: ServiceType = "echo".parse().unwrap();
    let incapable = made_of([standby("a", addr(), &[])], &Catalog::default(), now);
    let capable = made_of([standby("a", addr(), &[echo()])], &Catalog::default(), now);
    for (catalog, kind, expected) in [
        (&incapable, Kind::Settled(service_type.clone()), Prospect::Soon),
        (&incapable, Kind::NotYetKnown, Prospect::Soon),
        (&incapable, Kind::Assumed(service_type.clone()), Prospect::Never),
        (&incapable, Kind::Unknown, Prospect::Never),
        (&capable, Kind::Settled(service_type.clone()), Prospect::IfAssigned),
        (&capable, Kind::Assumed(service_type), Prospect::IfAssigned),
        (&capable, Kind::Unknown, Prospect::Never),
    ] {
        assert_eq!(prospect_of(catalog, &kind, now), expected, "{kind:?}");
    }
}

#[test]
fn a_role_that_disappeared_is_expected_back_for_ten_seconds() {
    let (then, second) = (Instant::now(), Duration::from_secs(1));
    let there = made_of([member("a", addr(), Phase::Ready)], &Catalog::default(), then);
    let gone = made_of([], &there, then + second);
    assert_eq!(prospect(&gone, then + second * 10), Prospect::Soon);
    assert_eq!(prospect(&gone, then + second * 11), Prospect::Never);

    let still_gone = made_of([], &gone, then + second * 9);
    assert_eq!(
        prospect(&still_gone, then + second * 11),
        Prospect::Never,
        "a change of the view does not prolong it"
    );
    let back = made_of([member("b", addr(), Phase::Draining)], &still_gone, then + second * 9);
    let gone_again = made_of([], &back, then + second * 15);
    assert_eq!(prospect(&gone_again, then + second * 20), Prospect::Soon);
}

#[test]
fn the_state_of_an_address_survives_a_change_of_the_view() {
    let now = Instant::now();
    let one = made_of([member("a", addr(), Phase::Ready)], &Catalog::default(), now);
    let url = |catalog: &Catalog| catalog.members(&echo())[0].url.clone();
    let two = made_of([member("a", addr(), Phase::Degraded)], &one, now);
    assert!(url(&two).is_same(&url(&one)));
    let moved = made_of([member("a", ([127, 0, 0, 1], 2).into(), Phase::Ready)], &two, now);
    assert!(!url(&moved).is_same(&url(&two)));
}

#[test]
fn a_member_that_starts_again_at_its_address_is_not_unreachable_any_more() {
    let now = Instant::now();
    let one = made_of([member("a", addr(), Phase::Ready)], &Catalog::default(), now);
    let url = |catalog: &Catalog| catalog.members(&echo())[0].url.clone();
    url(&one).state().mark_unreachable(refused(), now);
    let same = made_of([member("a", addr(), Phase::Degraded)], &one, now);
    assert!(url(&same).why_unreachable().is_some());
    let again = Member { generation: Generation(2), ..member("a", addr(), Phase::Ready) };
    let again = made_of([again], &same, now);
    assert!(url(&again).is_same(&url(&one)));
    assert_eq!(url(&again).why_unreachable(), None);
}

#[tokio::test(start_paused = true)]
async fn a_request_does_not_wait_for_a_role_that_disappeared_long_ago() {
    let (views, receiver) = watch::channel(view([member("a", addr(), Phase::Ready)]));
    let mesh = crate::Mesh::new(receiver, crate::Targets::any(), crate::Limits::default());
    views.send_replace(view([standby("a", addr(), &[echo()])]));
    // The watching task sees the change before the time passes.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    advance(RECENT).await;
    let request = http::Request::new(http_body_util::Empty::new());
    let began = Instant::now();
    assert!(mesh.send(&echo(), request).await.is_err());
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn the_last_change_of_a_view_is_seen_after_its_owner_is_gone() {
    let (views, receiver) = watch::channel(view([]));
    let roster = Roster::new(receiver, DETECTOR);
    views.send_replace(view([member("a", addr(), Phase::Ready)]));
    drop(views);
    until(|| roster.catalog().members(&echo()).len() == 1).await;
}

/// Members named by letters, each at a port of its own.
fn pool(letters: &str) -> Vec<Member> {
    let of = |letter: char| {
        let addr = ([127, 0, 0, 1], u16::try_from(u32::from(letter)).unwrap()).into();
        member(&letter.to_string(), addr, Phase::Ready)
    };
    letters.chars().map(of).collect()
}

/// The members that a request may be sent to, as letters.
fn serving(catalog: &Catalog) -> String {
    let members = catalog.members(&echo()).iter();
    members.filter(|member| member.serves(Target::Any)).map(|member| member.node.as_str()).collect()
}

#[test]
fn members_that_disappear_at_once_are_kept_for_two_intervals() {
    let now = Instant::now();
    let four = made_of(pool("abcd"), &Catalog::default(), now);
    let one = made_of(pool("a"), &four, now);
    assert_eq!((serving(&one).as_str(), one.has_panic(&echo())), ("abcd", true));
    let url = |catalog: &Catalog, node: &str| {
        let mut members = catalog.members(&echo()).iter();
        members.find(|member| member.node.as_str() == node).unwrap().url.clone()
    };
    assert!(url(&one, "b").is_same(&url(&four, "b")));
    assert_eq!(one.next_end(), Some(now + DETECTOR * 2));

    let later = made_of(pool("ab"), &one, now + DETECTOR);
    assert_eq!(serving(&later), "abcd");
    assert!(url(&later, "b").is_same(&url(&four, "b")), "a member that is back keeps its state");
    let over = made_of(pool("ab"), &later, now + DETECTOR * 2);
    assert_eq!((serving(&over).as_str(), over.has_panic(&echo())), ("ab", false));
    assert_eq!(over.next_end(), None);
}

#[test]
fn connects_decide_about_members_that_are_kept() {
    let now = Instant::now();
    let three = made_of(pool("abc"), &Catalog::default(), now);
    three.members(&echo())[1].url.state().mark_unreachable(refused(), now);
    let later = now + DETECTOR * 2;
    let one = made_of(pool("a"), &three, later);
    assert_eq!(serving(&one), "abc", "an old failure does not count");
    let [b, c] = [1, 2].map(|at| three.members(&echo())[at].url.clone());
    b.state().mark_unreachable(refused(), later - Duration::from_millis(100));
    assert_eq!(serving(&one), "ac", "it failed just before it disappeared");
    c.state().mark_unreachable(refused(), later + Duration::from_secs(1));
    assert_eq!(serving(&one), "a");
    c.mark_reached();
    assert_eq!(serving(&one), "ac");
}

#[test]
fn a_member_that_leaves_moves_or_crashes_alone_is_not_kept() {
    let now = Instant::now();
    let three = made_of(pool("abc"), &Catalog::default(), now);
    assert_eq!(serving(&made_of(pool("ab"), &three, now)), "ab", "one crash");

    let mut moved = pool("a");
    moved.extend(["b", "c"].map(|id| standby(id, addr(), &[])));
    assert_eq!(serving(&made_of(moved, &three, now)), "a", "two roles moved");

    let left = ["b", "c"].map(|id| (id.parse().unwrap(), Generation(1)));
    let members = pool("a").into_iter().map(|member| (member.id.clone(), member)).collect();
    let (cluster, me) = ("test".parse().unwrap(), "me".parse().unwrap());
    let view = ClusterView::with_left(cluster, me, members, left.into_iter().collect());
    let catalog = Catalog::new(&view, &three, &Learned::new(), DETECTOR, now);
    assert_eq!(serving(&catalog), "a", "two left");
}

#[test]
fn the_owner_of_a_shard_is_never_kept() {
    let now = Instant::now();
    let of_shard = |mut member: Member, shard: u32, duty| {
        let state = member.state.as_mut().unwrap();
        state.role = Role::Service { service: echo(), shard: Some(shard.try_into().unwrap()) };
        (state.epoch, state.duty) = (Some(Epoch(1)), duty);
        member
    };
    let owners = pool("abc").into_iter().zip(0..).map(|(member, shard)| of_shard(member, shard, None));
    let all = made_of(owners, &Catalog::default(), now);
    assert_eq!(serving(&made_of([], &all, now)), "");
    let replicas = pool("abc").into_iter().map(|member| of_shard(member, 0, Some(Post::Replica)));
    let all = made_of(replicas, &Catalog::default(), now);
    assert_eq!(serving(&made_of([], &all, now)), "abc");
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_without_a_change_of_the_view() {
    let (views, receiver) = watch::channel(view(pool("abc")));
    let roster = Roster::new(receiver, DETECTOR);
    views.send_replace(view(pool("a")));
    assert_eq!(serving(&roster.catalog()), "abc");
    advance(DETECTOR * 2).await;
    assert_eq!(serving(&roster.catalog()), "a");
}

#[test]
fn a_member_has_served_since_it_became_ready() {
    let now = Instant::now();
    let in_phase = |phase| [member("a", addr(), phase)];
    let second = Duration::from_secs(1);
    let age = |catalog: &Catalog, at| catalog.members(&echo())[0].serving_for(at);
    let starting = made_of(in_phase(Phase::Starting), &Catalog::default(), now);
    let ready = made_of(in_phase(Phase::Ready), &starting, now + second);
    let degraded = made_of(in_phase(Phase::Degraded), &ready, now + second * 3);
    assert_eq!(age(&degraded, now + second * 3), second * 2);
    let draining = made_of(in_phase(Phase::Draining), &degraded, now + second * 4);
    let again = made_of(in_phase(Phase::Ready), &draining, now + second * 5);
    assert_eq!(age(&again, now + second * 5), Duration::ZERO);
}

fn refused() -> crate::address::Unreachable {
    crate::address::Unreachable { why: "it refuses connections".to_owned(), is_tls: false }
}
