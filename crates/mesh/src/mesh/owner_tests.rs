//! Requests for shards that have owners.

use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use types::api::Member;
use types::{Epoch, KeyHash, Phase, Post, Role, Target, api};

use super::*;
use crate::testing::{Upstream, echo, member, not_processed, text, until, view, whole};

fn owner(id: &str, upstream: &Upstream, shard: u32, epoch: u64) -> Member {
    let mut member = member(id, upstream.addr, Phase::Ready);
    if let Some(state) = &mut member.state {
        state.role = Role::Service { service: echo(), shard: Some(shard.try_into().unwrap()) };
        state.epoch = Some(Epoch(epoch));
        state.shards = Some(2);
    }
    member
}

fn by_key(members: impl IntoIterator<Item = Member>) -> (watch::Sender<ClusterView>, Mesh) {
    let (views, receiver) = watch::channel(view(members));
    let targets = Targets::new(|_, head| {
        let key = KeyHash::of(head.uri.path().as_bytes());
        if head.uri.query() == Some("stale") { Target::KeyReplica(key) } else { Target::Key(key) }
    });
    let limits = Limits { wait: Duration::from_secs(5), ..Limits::default() };
    (views, Mesh::new(receiver, targets, limits))
}

/// A path whose key is in this shard, of two.
fn path_in(shard: u32) -> String {
    let two = NonZeroU32::new(2).unwrap();
    let mut paths = (0..).map(|number| format!("/{number}"));
    paths.find(|path| KeyHash::of(path.as_bytes()).shard(two).as_u32() == shard).unwrap()
}

async fn ask(mesh: &Mesh, path: &str) -> String {
    let request = Request::get(path).body(Empty::<Bytes>::new()).unwrap();
    whole(mesh.send(&echo(), request).await.unwrap().into_body()).await.unwrap()
}

#[tokio::test]
async fn a_key_goes_to_the_owner_of_its_shard() {
    let zero = Upstream::serving(|_| async { text("0") }).await;
    let one = Upstream::serving(|_| async { text("1") }).await;
    let (_views, mesh) = by_key([owner("a", &zero, 0, 1), owner("b", &one, 1, 1)]);
    let two = NonZeroU32::new(2).unwrap();
    for number in 0..20 {
        let path = format!("/{number}");
        let shard = KeyHash::of(path.as_bytes()).shard(two);
        assert_eq!(ask(&mesh, &path).await, shard.to_string(), "{path}");
    }
    assert!(zero.hits() > 0 && one.hits() > 0);
}

#[tokio::test]
async fn of_two_claimed_owners_the_one_with_the_higher_epoch_gets_the_request() {
    let old = Upstream::serving(|_| async { text("old") }).await;
    let new = Upstream::serving(|_| async { text("new") }).await;
    let (_views, mesh) = by_key([owner("a", &old, 0, 3), owner("b", &new, 0, 4)]);
    for _ in 0..8 {
        assert_eq!(ask(&mesh, &path_in(0)).await, "new");
    }
    assert_eq!(old.hits(), 0);
}

#[tokio::test]
async fn after_a_refusal_with_a_higher_epoch_the_request_waits_for_that_owner() {
    let former = Upstream::serving(|_| async {
        let mut answer = not_processed();
        *answer.status_mut() = StatusCode::MISDIRECTED_REQUEST;
        answer.headers_mut().insert(api::EPOCH, 9.into());
        answer
    })
    .await;
    let next = Upstream::serving(|_| async { text("here") }).await;
    let path = path_in(0);
    let (views, mesh) = by_key([owner("a", &former, 0, 8)]);
    let asking = ask(&mesh, &path);
    let telling = async {
        until(|| former.hits() == 1 && mesh.stats().waiting == 1).await;
        views.send_replace(view([owner("a", &former, 0, 8), owner("b", &next, 0, 9)]));
    };
    let (answer, ()) = tokio::join!(asking, telling);
    assert_eq!((answer.as_str(), former.hits()), ("here", 1));
    assert_eq!(ask(&mesh, &path).await, "here");
    assert_eq!(former.hits(), 1);
}

#[tokio::test]
async fn only_stale_reads_go_to_a_replica() {
    let primary = Upstream::serving(|_| async { text("primary") }).await;
    let replica = Upstream::serving(|_| async { text("replica") }).await;
    let mut replica_member = owner("b", &replica, 0, 0);
    if let Some(state) = &mut replica_member.state {
        (state.epoch, state.duty) = (None, Some(Post::Replica));
    }
    let (views, mesh) = by_key([owner("a", &primary, 0, 3), replica_member.clone()]);
    let path = path_in(0);
    for _ in 0..20 {
        assert_eq!(ask(&mesh, &path).await, "primary");
        ask(&mesh, &format!("{path}?stale")).await;
    }
    assert!(primary.hits() < 40 && replica.hits() > 0, "both members hold the shard");

    views.send_replace(view([replica_member]));
    assert_eq!(ask(&mesh, &format!("{path}?stale")).await, "replica");
    let asking = ask(&mesh, &path);
    let returning = async {
        until(|| mesh.stats().waiting == 1).await;
        views.send_replace(view([owner("a", &primary, 0, 4)]));
    };
    assert_eq!(tokio::join!(asking, returning).0, "primary", "a replica alone is no owner");
}

#[tokio::test]
async fn a_key_waits_while_its_shard_has_no_owner() {
    let zero = Upstream::serving(|_| async { text("0") }).await;
    let one = Upstream::serving(|_| async { text("1") }).await;
    let path = path_in(1);
    let mut starting = owner("b", &one, 1, 1);
    if let Some(state) = &mut starting.state {
        state.phase = Phase::Starting;
    }
    let (views, mesh) = by_key([owner("a", &zero, 0, 1), starting]);
    let asking = ask(&mesh, &path);
    let starting = async {
        until(|| mesh.stats().waiting == 1).await;
        views.send_replace(view([owner("a", &zero, 0, 1), owner("b", &one, 1, 1)]));
    };
    let (answer, ()) = tokio::join!(asking, starting);
    assert_eq!((answer.as_str(), zero.hits()), ("1", 0));
}

#[tokio::test]
async fn a_key_waits_while_the_number_of_shards_is_unknown() {
    let zero = Upstream::serving(|_| async { text("0") }).await;
    let mut starting = owner("a", &zero, 0, 1);
    if let Some(state) = &mut starting.state {
        (state.phase, state.epoch, state.shards) = (Phase::Starting, None, None);
    }
    let (views, mesh) = by_key([starting]);
    let path = path_in(0);
    let asking = ask(&mesh, &path);
    let starting = async {
        until(|| mesh.stats().waiting == 1).await;
        views.send_replace(view([owner("a", &zero, 0, 1)]));
    };
    assert_eq!(tokio::join!(asking, starting).0, "0");
}
