//! Limits, and the queue in front of them.

use super::*;

fn limits(limits: &Value) -> Value {
    json!({ "limits": limits })
}

/// Opens a connection that waits, as the one with this number in the queue.
async fn queued(running: &Running, number: u64) -> TcpStream {
    let stream = running.connect().await;
    eventually("it waits", async || running.metric("queue", "") == number).await;
    stream
}

#[tokio::test]
async fn connections_wait_first_in_first_out_and_the_one_too_many_is_closed() {
    let a = Backend::greeting("a").await;
    // The limit of the listener, and the one of each backend.
    for (per_listener, per_backend) in [(1, 1000), (1000, 1)] {
        let more =
            json!({"connections": per_listener, "per_backend": per_backend, "queue": 3, "wait": "30s"});
        let running = Running::over(&[&a], limits(&more)).await;
        let mut open = running.connect().await;
        assert_eq!(greeting(&mut open).await, "a");
        let mut waiting = Vec::new();
        for number in 1..=3 {
            waiting.push(queued(&running, number).await);
        }
        assert_eq!(running.greeted().await, "", "the queue is full");
        assert_eq!(running.metric("refused_total", "queue_full"), 1);
        let mut served = a.accepted();
        for (number, mut next) in waiting.into_iter().enumerate() {
            drop(open);
            assert_eq!(greeting(&mut next).await, "a", "{number}");
            served += 1;
            assert_eq!(a.accepted(), served, "one at a time");
            open = next;
        }
        assert_eq!(running.metric("queue", ""), 0);
        assert_eq!(running.metric("queue_seconds_count", ""), 3);
        drop(open);
        assert_eq!(running.greeted().await, "a", "the queue is empty again");
    }
}

#[tokio::test]
async fn a_connection_waits_only_for_a_time() {
    let a = Backend::greeting("a").await;
    for limit in ["connections", "per_backend"] {
        let running = Running::over(&[&a], limits(&json!({limit: 1, "wait": "50ms"}))).await;
        let mut open = running.connect().await;
        assert_eq!(greeting(&mut open).await, "a");
        assert_eq!(running.greeted().await, "", "{limit}");
        assert_eq!(running.metric("refused_total", "queue_timeout"), 1, "{limit}");
        open.write_u8(1).await.unwrap();
        assert_eq!(open.read_u8().await.unwrap(), 1, "the open one lives on");
        drop(open);
        eventually("it has ended", async || running.metric("active", "") == 0).await;
        assert_eq!(running.greeted().await, "a", "{limit}");
    }
}

#[tokio::test]
async fn without_a_queue_the_one_too_many_is_closed_at_once() {
    let a = Backend::greeting("a").await;
    let running = Running::over(&[&a], limits(&json!({"connections": 1, "queue": 0, "wait": "1h"}))).await;
    let mut open = running.connect().await;
    assert_eq!(greeting(&mut open).await, "a");
    assert_eq!(running.greeted().await, "");
}

#[tokio::test]
async fn a_client_has_at_most_its_number_of_connections() {
    let a = Backend::greeting("a").await;
    let running = Running::over(&[&a], limits(&json!({"per_client": 2}))).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = running.connect_from("127.0.0.7").await;
        assert_eq!(greeting(&mut stream).await, "a");
        open.push(stream);
    }
    assert_eq!(greeting(&mut running.connect_from("127.0.0.7").await).await, "");
    assert_eq!(running.metric("refused_total", "per_client"), 1);
    assert_eq!(greeting(&mut running.connect_from("127.0.0.8").await).await, "a", "another one");
    open.pop();
    eventually("one has ended", async || running.metric("active", "") == 1).await;
    assert_eq!(greeting(&mut running.connect_from("127.0.0.7").await).await, "a");
}

#[tokio::test]
async fn a_backend_with_room_takes_connections_while_another_is_full() {
    let (a, b) = (Backend::greeting("a").await, Backend::greeting("b").await);
    let more = json!({"limits": {"per_backend": 2, "queue": 0}, "balance": "source"});
    let running = Running::over(&[&a, &b], more).await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut stream = running.connect().await;
        assert_ne!(greeting(&mut stream).await, "");
        open.push(stream);
    }
    assert_eq!((a.accepted(), b.accepted()), (2, 2));
    assert_eq!(running.greeted().await, "", "both are full");
}

#[tokio::test]
async fn a_client_that_leaves_the_queue_gives_its_place_to_another() {
    let a = Backend::greeting("a").await;
    let running = Running::over(&[&a], limits(&json!({"connections": 1, "queue": 1, "wait": "1h"}))).await;
    let mut open = running.connect().await;
    assert_eq!(greeting(&mut open).await, "a");
    let leaving = queued(&running, 1).await;
    crate::relay::reset(&leaving);
    drop(leaving);
    eventually("its place is free", async || running.metric("queue", "") == 0).await;
    assert_eq!(running.metric("refused_total", "client_gone"), 1);
    let mut next = queued(&running, 1).await;
    drop(open);
    assert_eq!(greeting(&mut next).await, "a");
}
