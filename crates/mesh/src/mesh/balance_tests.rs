//! Who gets how many requests, over real connections: failures, ejections, slow members, panics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::Empty;
use tokio::task::JoinSet;
use types::api::Member;
use types::backends::BackendState;
use types::{Phase, Role, ShardId};

use super::*;
use crate::testing::{Upstream, closed_addr, closed_port, echo, member, mesh, text, view, whole as read};
use crate::{AffinityKey, Balance, RetryReason};

mod spare;

/// A server whose status and delay can be changed.
struct Server {
    upstream: Upstream,
    status: Arc<AtomicU16>,
    delay_ms: Arc<AtomicU64>,
}

impl Server {
    async fn new(status: u16) -> Self {
        let (status, delay_ms) = (Arc::new(AtomicU16::new(status)), Arc::new(AtomicU64::new(0)));
        let (now, delay) = (Arc::clone(&status), Arc::clone(&delay_ms));
        let upstream = Upstream::serving(move |_| {
            let (status, delay) = (now.load(Ordering::SeqCst), delay.load(Ordering::SeqCst));
            async move {
                tokio::time::sleep(Duration::from_millis(delay)).await;
                let mut answer = text("hello");
                *answer.status_mut() = StatusCode::from_u16(status).unwrap();
                answer
            }
        })
        .await;
        Self { upstream, status, delay_ms }
    }

    fn answers(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    fn takes(&self, millis: u64) {
        self.delay_ms.store(millis, Ordering::SeqCst);
    }

    fn hits(&self) -> usize {
        self.upstream.hits()
    }

    fn member(&self, id: &str) -> Member {
        member(id, self.upstream.addr, Phase::Ready)
    }
}

fn pool(servers: &[&Server]) -> Vec<Member> {
    servers.iter().zip(["a", "b", "c", "d"]).map(|(server, id)| server.member(id)).collect()
}

/// Lets time pass at once. Servers and connections are real, so the clock is stopped only for this.
async fn later(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

async fn ask(mesh: &Mesh, method: &str) -> u16 {
    let request = Request::builder().method(method).uri("/").body(Empty::<Bytes>::new()).unwrap();
    let answer = mesh.send(&echo(), request).await.unwrap();
    let status = answer.status().as_u16();
    read(answer.into_body()).await.unwrap();
    status
}

async fn burst(mesh: &Mesh, requests: usize) {
    let mut running = JoinSet::new();
    for _ in 0..requests {
        let mesh = mesh.clone();
        running.spawn(async move { ask(&mesh, "GET").await });
    }
    running.join_all().await;
}

fn states(mesh: &Mesh) -> Vec<BackendState> {
    mesh.backends(&echo()).backends.iter().map(|backend| backend.state).collect()
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn behaviour_10_one_failed_request_takes_no_member_out() {
    let (first, second) = (Server::new(200).await, Server::new(200).await);
    let (_view, mesh) = mesh(pool(&[&first, &second]), Limits::default());
    for status in [500, 502, 503] {
        first.answers(status);
        let before = first.hits();
        while first.hits() == before {
            // The estimates are forgotten, so the choice is left to chance.
            later(11 * SECOND).await;
            ask(&mesh, "POST").await;
        }
        first.answers(200);
        assert_eq!(states(&mesh), [BackendState::Serving; 2], "{status}");
    }
    let before = [first.hits(), second.hits()];
    for _ in 0..60 {
        later(11 * SECOND).await;
        assert_eq!(ask(&mesh, "POST").await, 200);
    }
    assert!(first.hits() - before[0] > 10 && second.hits() - before[1] > 10);
    assert_eq!(mesh.upstream_counts().ejections.map(|(_, count)| count), [0, 0, 0]);
}

#[tokio::test]
async fn behaviour_10_all_members_ejected_does_not_mean_503_for_all() {
    let (first, second) = (Server::new(500).await, Server::new(500).await);
    let (views, mesh) = mesh(pool(&[&first, &second]), Limits::default());
    for _ in 0..40 {
        assert_eq!(ask(&mesh, "POST").await, 500, "a member's own answer");
    }
    let ejected = states(&mesh).iter().filter(|state| **state == BackendState::Ejected).count();
    assert_eq!(ejected, 1, "at most half");
    assert_eq!(mesh.ejected(), [(echo(), 1)]);
    assert_eq!(mesh.upstream_counts().ejections.map(|(_, count)| count), [1, 0, 0]);

    // The one that is left goes, and only the ejected one remains.
    let (out, id) = if states(&mesh)[0] == BackendState::Ejected { (&first, "a") } else { (&second, "b") };
    views.send_replace(view([out.member(id)]));
    out.answers(200);
    assert_eq!(ask(&mesh, "POST").await, 200);
}

#[tokio::test]
async fn an_ejected_member_comes_back_by_one_probe_that_may_be_repeated() {
    let (bad, good) = (Server::new(500).await, Server::new(200).await);
    let (_view, mesh) = mesh(pool(&[&bad, &good]), Limits::default());
    while states(&mesh)[0] != BackendState::Ejected {
        ask(&mesh, "POST").await;
    }
    assert_eq!(bad.hits(), 5);
    later(5 * SECOND).await;
    assert_eq!(ask(&mesh, "GET").await, 200);
    assert_eq!(bad.hits(), 5, "its time has not passed");
    later(5 * SECOND).await;
    assert_eq!(ask(&mesh, "POST").await, 200);
    assert_eq!(bad.hits(), 5, "a POST is no probe");
    assert_eq!(ask(&mesh, "GET").await, 500, "the probe fails");
    assert_eq!(bad.hits(), 6);
    later(10 * SECOND).await;
    assert_eq!(ask(&mesh, "GET").await, 200);
    assert_eq!(bad.hits(), 6, "the second ejection is twice as long");
    bad.answers(200);
    later(10 * SECOND).await;
    assert_eq!(ask(&mesh, "GET").await, 200);
    assert_eq!((bad.hits(), states(&mesh)[0]), (7, BackendState::Serving));
    assert_eq!(mesh.upstream_counts().ejections.map(|(_, count)| count), [1, 0, 1]);
}

#[tokio::test]
async fn without_requests_that_may_be_repeated_any_request_is_the_probe_in_the_end() {
    let (bad, good) = (Server::new(500).await, Server::new(200).await);
    let (_view, mesh) = mesh(pool(&[&bad, &good]), Limits::default());
    while states(&mesh)[0] != BackendState::Ejected {
        ask(&mesh, "POST").await;
    }
    bad.answers(200);
    later(20 * SECOND).await;
    assert_eq!(ask(&mesh, "POST").await, 200);
    assert_eq!((bad.hits(), states(&mesh)[0]), (6, BackendState::Serving));
}

#[tokio::test]
async fn behaviour_11_a_member_that_answers_500_in_a_millisecond_gets_less() {
    let (bad, good) = (Server::new(500).await, Server::new(200).await);
    good.takes(3);
    let (_view, mesh) = mesh(pool(&[&bad, &good]), Limits::default());
    for _ in 0..100 {
        ask(&mesh, "POST").await;
    }
    assert!(bad.hits() * 4 < good.hits(), "{} of 100", bad.hits());
    assert_eq!(states(&mesh)[0], BackendState::Ejected);
}

#[tokio::test]
async fn a_member_that_answers_503_in_a_millisecond_gets_less() {
    for status in [503, 429] {
        let (bad, good) = (Server::new(status).await, Server::new(200).await);
        good.takes(3);
        let (_view, mesh) = mesh(pool(&[&bad, &good]), Limits::default());
        for _ in 0..100 {
            ask(&mesh, "POST").await;
        }
        assert!(bad.hits() * 4 < good.hits(), "{} of 100 with {status}", bad.hits());
        assert_eq!(states(&mesh)[0], BackendState::Serving, "its cost is enough");
    }
}

#[tokio::test]
async fn behaviour_11_a_slow_member_that_recovers_gets_its_share_back_within_30_seconds() {
    let (slow, fast) = (Server::new(200).await, Server::new(200).await);
    slow.takes(2_000);
    let (_view, mesh) = mesh(pool(&[&slow, &fast]), Limits::default());
    while slow.hits() == 0 {
        ask(&mesh, "GET").await;
    }
    let before = slow.hits();
    for _ in 0..5 {
        burst(&mesh, 20).await;
    }
    assert!(slow.hits() - before <= 10, "{} of 100", slow.hits() - before);

    slow.takes(0);
    let mut seconds = 0;
    loop {
        assert!(seconds < 30, "it never got its share back");
        later(SECOND).await;
        seconds += 1;
        let before = slow.hits();
        burst(&mesh, 40).await;
        if slow.hits() - before >= 10 {
            break;
        }
    }
}

#[tokio::test]
async fn a_new_member_gets_a_growing_part_of_its_share() {
    let (old, new) = (Server::new(200).await, Server::new(200).await);
    let (views, mesh) = mesh([old.member("a")], Limits::default());
    later(60 * SECOND).await;
    views.send_replace(view(pool(&[&old, &new])));
    assert_eq!(states(&mesh), [BackendState::Serving, BackendState::SlowStart]);
    later(11 * SECOND).await;
    assert_eq!(states(&mesh), [BackendState::Serving; 2]);

    let (_views, whole) = crate::testing::mesh(pool(&[&old, &new]), Limits::default());
    assert_eq!(states(&whole), [BackendState::Serving; 2], "a whole new pool has no slow start");
}

#[tokio::test]
async fn the_owner_of_a_shard_is_never_ejected() {
    let (owner, other) = (Server::new(500).await, Server::new(200).await);
    let of_shard = |server: &Server, id: &str, shard: u32| {
        let mut member = server.member(id);
        let role = Role::Service { service: echo(), shard: Some(shard.try_into().unwrap()) };
        member.state.as_mut().unwrap().role = role;
        member
    };
    let members = [of_shard(&owner, "a", 0), of_shard(&other, "b", 1)];
    let (_views, receiver) = watch::channel(view(members));
    let targets = Targets::new(|_, _| Target::Shard(ShardId::default()));
    let mesh = Mesh::new(receiver, targets, Limits::default());
    for _ in 0..20 {
        assert_eq!(ask(&mesh, "POST").await, 500);
    }
    assert_eq!(states(&mesh), [BackendState::Serving; 2]);
}

#[tokio::test]
async fn a_request_is_not_sent_to_the_same_member_again_while_another_stands() {
    let (busy, good) = (Upstream::writing("").await, Server::new(200).await);
    let members = [member("a", busy.addr, Phase::Ready), good.member("b")];
    let (_view, mesh) = mesh(members, Limits::default());
    while busy.hits() == 0 {
        later(11 * SECOND).await;
        assert_eq!(ask(&mesh, "GET").await, 200);
    }
    assert_eq!(busy.hits(), 1);
    let retries = mesh.upstream_counts().retries;
    assert_eq!(retries.iter().find(|(why, _)| *why == RetryReason::Reset).unwrap().1, 1, "{retries:?}");
}

/// A server that answers 503 with this `Retry-After` a number of times, and then 200.
async fn busy(times: usize, retry_after: &'static str) -> Upstream {
    let left = Arc::new(AtomicU64::new(times as u64));
    Upstream::serving(move |_| {
        let left = Arc::clone(&left);
        async move {
            let mut answer = text("x");
            let is_busy =
                left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
            if is_busy {
                *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                answer.headers_mut().insert("retry-after", http::HeaderValue::from_static(retry_after));
            }
            answer
        }
    })
    .await
}

#[tokio::test]
async fn a_short_retry_after_is_respected_and_a_long_one_forwarded() {
    for (times, retry_after, method, status, hits) in [
        (1, "0", "GET", 200, 2),
        (2, "0", "GET", 200, 3),
        (3, "0", "GET", 503, 3),
        (1, "1", "GET", 200, 2),
        (1, "2", "GET", 503, 1),
        (1, "soon", "GET", 503, 1),
        (1, "0", "POST", 503, 1),
    ] {
        let server = busy(times, retry_after).await;
        let (_view, mesh) = mesh([member("a", server.addr, Phase::Ready)], Limits::default());
        let began = Instant::now();
        assert_eq!(ask(&mesh, method).await, status, "{times} {retry_after} {method}");
        assert_eq!(server.hits(), hits, "{times} {retry_after} {method}");
        assert!(retry_after != "1" || began.elapsed() >= SECOND);
        assert_eq!(mesh.stats().waiting, 0);
    }
}

#[tokio::test]
async fn another_member_is_asked_at_once_instead_of_waiting() {
    let (first, good) = (busy(1_000, "1").await, Server::new(200).await);
    let members = [member("a", first.addr, Phase::Ready), good.member("b")];
    let (_view, mesh) = mesh(members, Limits::default());
    while first.hits() == 0 {
        later(11 * SECOND).await;
        assert_eq!(ask(&mesh, "GET").await, 200);
    }
    assert_eq!((first.hits(), mesh.stats().waiting), (1, 0));
}

#[tokio::test]
async fn members_that_disappear_at_once_still_get_requests_and_connects_decide() {
    let servers = [Server::new(200).await, Server::new(200).await, Server::new(200).await];
    let dead: std::net::SocketAddr = closed_port().await.authority().parse().unwrap();
    let mut members = pool(&[&servers[0], &servers[1], &servers[2]]);
    members.push(member("d", dead, Phase::Ready));
    let limits = Limits { detector: 600 * SECOND, ..Limits::default() };
    let (views, mesh) = mesh(members.clone(), limits);
    views.send_replace(view([members[0].clone()]));
    assert_eq!(mesh.panics(), [(echo(), true)]);
    for _ in 0..20 {
        // The estimates are forgotten, so the requests in flight decide.
        later(11 * SECOND).await;
        burst(&mesh, 30).await;
    }
    for server in &servers {
        assert!(server.hits() > 20, "{}", server.hits());
    }
    let shown = mesh.backends(&echo());
    assert!(shown.panic);
    let of = |id: &str| {
        let mut backends = shown.backends.iter();
        backends.find(|backend| backend.node.as_ref().is_some_and(|node| node.as_str() == id)).unwrap()
    };
    assert!(of("b").why.as_ref().unwrap().starts_with("kept"), "{:?}", of("b"));
    assert_eq!(of("d").state, BackendState::NotServing);
    later(1_200 * SECOND).await;
    assert_eq!((mesh.panics(), states(&mesh)), (vec![(echo(), false)], vec![BackendState::Serving]));
}

async fn with_deadline(mesh: &Mesh, left: Duration) -> Result<String, MeshError> {
    let mut request = Request::get("/").body(Empty::<Bytes>::new()).unwrap();
    request.extensions_mut().insert(Deadline(Instant::now() + left));
    let answer = mesh.send(&echo(), request).await?;
    Ok(read(answer.into_body()).await.unwrap())
}

#[tokio::test]
async fn a_deadline_is_handed_on_and_shrinks() {
    let upstream = Upstream::serving(|request| async move {
        text(
            request
                .headers()
                .get("coterie-deadline-ms")
                .map_or("none", |value| value.to_str().unwrap())
                .to_owned(),
        )
    })
    .await;
    let (_view, mesh) = mesh([member("a", upstream.addr, Phase::Ready)], Limits::default());
    let left: u64 = with_deadline(&mesh, 60 * SECOND).await.unwrap().parse().unwrap();
    assert!(left > 0 && left < 60_000, "{left}");
    let request =
        Request::get("/").header("coterie-deadline-ms", "70000").body(Empty::<Bytes>::new()).unwrap();
    let answer = mesh.send(&echo(), request).await.unwrap();
    let left: u64 = read(answer.into_body()).await.unwrap().parse().unwrap();
    assert!(left > 60_000 && left <= 70_000, "{left}");
    let request =
        Request::get("/").header("coterie-deadline-ms", "soon").body(Empty::<Bytes>::new()).unwrap();
    let answer = mesh.send(&echo(), request).await.unwrap();
    assert_eq!(read(answer.into_body()).await.unwrap(), "none", "a malformed one is not handed on");
}

#[tokio::test]
async fn a_request_whose_deadline_has_passed_is_not_sent() {
    let server = Server::new(200).await;
    let (_view, mesh) = mesh(pool(&[&server]), Limits::default());
    let error = with_deadline(&mesh, Duration::ZERO).await.unwrap_err();
    assert_eq!(error, MeshError::DeadlinePassed { address: None });
    assert_eq!((error.to_problem().status, server.hits()), (504, 0));
}

#[tokio::test]
async fn a_deadline_ends_every_wait() {
    let silent = Upstream::serving(|_| std::future::pending()).await;
    let (_view, asking) = mesh([member("a", silent.addr, Phase::Ready)], Limits::default());
    let error = with_deadline(&asking, Duration::from_millis(200)).await.unwrap_err();
    assert_eq!(error, MeshError::DeadlinePassed { address: Some(silent.addr.to_string()) });
    assert_eq!(asking.stats().in_flight, 0);
    assert_eq!(states(&asking), [BackendState::Serving]);

    let (_view, waiting) = mesh([member("a", silent.addr, Phase::Starting)], Limits::default());
    let error = with_deadline(&waiting, Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(error, MeshError::DeadlinePassed { address: None });
    assert_eq!(waiting.stats().waiting, 0);
}

#[tokio::test]
async fn a_member_without_requests_is_unreachable_only_while_it_is_avoided() {
    let limits = Limits { avoid: 5 * SECOND, attempts: 1, ..Limits::default() };
    let (_views, mesh) = mesh([member("a", closed_addr(), Phase::Ready)], limits);
    let asked = mesh.send(&echo(), Request::post("/").body(Empty::<Bytes>::new()).unwrap()).await;
    assert!(matches!(asked, Err(MeshError::Unreachable { .. })), "{asked:?}");
    assert_eq!(states(&mesh), [BackendState::Unreachable]);
    later(5 * SECOND).await;
    assert_eq!(states(&mesh), [BackendState::Serving]);
}
