//! Which backend a connection gets.

use std::collections::BTreeMap;

use super::*;

/// How many of these connections each backend gets; they stay open while they are counted.
async fn counts(running: &Running, connections: usize) -> BTreeMap<String, usize> {
    let (mut counts, mut open) = (BTreeMap::new(), Vec::new());
    for _ in 0..connections {
        let mut stream = running.connect().await;
        *counts.entry(greeting(&mut stream).await).or_default() += 1;
        open.push(stream);
    }
    counts
}

#[tokio::test]
async fn backends_get_connections_in_proportion_to_their_weights() {
    for balance in ["round_robin", "least_connections", "two_choices"] {
        let (a, b) = (Backend::greeting("a").await, Backend::greeting("b").await);
        let backends = json!([{"address": a.addr, "weight": 3}, {"address": b.addr}]);
        let listener = listener(json!({"backends": backends}), json!({"balance": balance}));
        let running = Running::with(json!([listener]), Vec::new()).await;
        let counts = counts(&running, 40).await;
        assert_eq!(counts, BTreeMap::from([("a".to_owned(), 30), ("b".to_owned(), 10)]), "{balance}");
    }
}

#[tokio::test]
async fn a_client_address_stays_with_its_backend_until_that_has_too_much() {
    let (a, b, c) =
        (Backend::greeting("a").await, Backend::greeting("b").await, Backend::greeting("c").await);
    let running = Running::over(&[&a, &b, &c], json!({"balance": "source"})).await;
    let mut used = BTreeMap::new();
    for last in 1..=12 {
        let from = format!("127.0.1.{last}");
        let first = greeting(&mut running.connect_from(&from).await).await;
        for _ in 0..3 {
            // Each ends before the next: otherwise the bound would count.
            eventually("no connection is left", async || running.metric("active", "") == 0).await;
            assert_eq!(greeting(&mut running.connect_from(&from).await).await, first, "{from}");
        }
        eventually("no connection is left", async || running.metric("active", "") == 0).await;
        *used.entry(first).or_insert(0) += 1;
    }
    assert!(used.len() > 1, "clients are spread: {used:?}");
    let (mut counts, mut open) = (BTreeMap::<_, usize>::new(), Vec::new());
    for _ in 0..30 {
        let mut stream = running.connect_from("127.0.1.1").await;
        *counts.entry(greeting(&mut stream).await).or_default() += 1;
        open.push(stream);
    }
    assert!(counts.values().all(|count| *count <= 13), "at most 1.25 times the share: {counts:?}");
}

#[tokio::test]
async fn a_backend_that_refuses_costs_no_client_anything_and_is_taken_out() {
    let (a, dead) = (Backend::greeting("a").await, closed_addr());
    let backends = json!([{"address": a.addr}, {"address": dead}]);
    let more = json!({"balance": "round_robin", "ejection": {"failures": 3, "for": "60s"}});
    let running = Running::with(json!([listener(json!({"backends": backends}), more)]), Vec::new()).await;
    for _ in 0..20 {
        assert_eq!(running.greeted().await, "a");
    }
    assert_eq!(running.states().await, ["up", "ejected"]);
    assert_eq!(running.metric("connect_failures_total", ""), 3, "nobody tries it any more");
    let shown = running.backends().await;
    let why = shown["listeners"][0]["targets"][0]["backends"][1]["why"].as_str().unwrap();
    assert_eq!(why, "3 failed connects in a row: it refuses connections");
    assert_eq!(running.service.health(), Health::Ready);
}

#[tokio::test]
async fn a_backend_that_dies_loses_its_own_connections_and_no_others() {
    let (a, b) = (Backend::greeting("a").await, Backend::greeting("b").await);
    let running = Running::over(&[&a, &b], json!({"balance": "round_robin"})).await;
    let mut open = Vec::new();
    for _ in 0..10 {
        let mut stream = running.connect().await;
        open.push((greeting(&mut stream).await, stream));
    }
    a.die().await;
    for (name, stream) in &mut open {
        if name == "a" {
            let ended = timeout(PATIENCE, stream.read_u8()).await.unwrap();
            assert!(ended.is_err(), "its connection ends");
        } else {
            stream.write_u8(9).await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), 9);
        }
    }
    for _ in 0..10 {
        assert_eq!(running.greeted().await, "b");
    }
}

#[tokio::test]
async fn a_backup_is_used_only_while_no_other_is_up() {
    let (a, spare) = (Backend::greeting("a").await, Backend::greeting("spare").await);
    let backends = json!([{"address": a.addr}, {"address": spare.addr, "backup": true}]);
    let more = json!({"check": {"tcp": {}, "every": "20ms", "fall": 1, "rise": 1, "timeout": "10s"}});
    let running = Running::with(json!([listener(json!({"backends": backends}), more)]), Vec::new()).await;
    for _ in 0..10 {
        assert_eq!(running.greeted().await, "a");
    }
    let port = a.addr;
    a.die().await;
    // A failed connect goes to the backup at once; once the check has failed nobody tries the other one.
    assert_eq!(running.greeted().await, "spare");
    running.until_states_are(&["down", "up"]).await;
    assert_eq!(running.greeted().await, "spare");
    let again = TcpListener::bind(port).await.unwrap();
    let mut accepting = JoinSet::new();
    accepting.spawn(async move {
        loop {
            let (mut stream, _) = again.accept().await.unwrap();
            let _ = stream.write_all(b"again\n").await;
        }
    });
    running.until_states_are(&["up", "up"]).await;
    assert_eq!(running.greeted().await, "again");
}

#[tokio::test]
async fn a_check_that_fails_takes_a_backend_out_and_says_why() {
    let answering = |status: &'static str| {
        Backend::serving(move |mut stream| async move {
            let mut byte = [0; 1024];
            let _ = stream.read(&mut byte).await;
            let _ = stream.write_all(status.as_bytes()).await;
        })
    };
    let good = answering("HTTP/1.1 200 OK\r\n\r\n").await;
    let bad = answering("HTTP/1.1 503 No\r\n\r\n").await;
    let check = json!({"http": {"path": "/healthz"}, "every": "20ms", "timeout": "10s"});
    let running = Running::over(&[&good, &bad], json!({"check": check})).await;
    running.until_states_are(&["up", "down"]).await;
    let shown = running.backends().await;
    assert_eq!(shown["listeners"][0]["targets"][0]["backends"][1]["why"], "its checks fail: it answers 503");
    let lonely =
        Running::over(&[&bad], json!({"check": {"http": {}, "every": "20ms", "timeout": "10s"}})).await;
    lonely.until_states_are(&["down"]).await;
    assert_eq!(lonely.greeted().await, "", "it is closed at once");
    let Health::Degraded(reason) = lonely.service.health() else { panic!("it has no backend") };
    assert_eq!(reason.code.as_str(), "no-backend");
    assert_eq!(reason.text, format!("listener main: {} answers 503", bad.addr));
    assert!(lonely.metric("refused_total", "no_backend") >= 1);
}

#[tokio::test]
async fn behaviour_8_a_name_is_resolved_and_one_that_fails_stops_no_other() {
    let a = Backend::greeting("a").await;
    let good = json!({"address": format!("localhost:{}", a.addr.port())});
    let bad = json!({"address": "no-such-host.invalid:80"});
    let running =
        Running::with(json!([listener(json!({"backends": [bad, good]}), json!({}))]), Vec::new()).await;
    for _ in 0..4 {
        assert_eq!(running.greeted().await, "a");
    }
    let bad = json!([{"address": "no-such-host.invalid:80"}]);
    let running = Running::with(json!([listener(json!({"backends": bad}), json!({}))]), Vec::new()).await;
    eventually("the name is not found", async || running.service.health() != Health::Ready).await;
    assert_eq!(running.greeted().await, "");
    running.until_states_are(&["unresolved"]).await;
    let Health::Degraded(reason) = running.service.health() else { panic!("it has no backend") };
    assert!(reason.text.contains("no-such-host.invalid:80 is a name that is not found"), "{}", reason.text);
}
