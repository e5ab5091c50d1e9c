//! New settings for a balancer that runs.

use plugin::Updated;

use super::listeners::update;
use super::*;

fn to(backends: &[&Backend], more: Value) -> Value {
    let backends: Vec<_> = backends.iter().map(|backend| json!({"address": backend.addr})).collect();
    json!([listener(json!({"backends": backends}), more)])
}

async fn echoes(stream: &mut TcpStream) {
    stream.write_u8(5).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), 5, "the connection lives on");
}

#[tokio::test]
async fn behaviour_2_backends_and_algorithms_change_and_connections_stay_open() {
    let (a, b) = (Backend::greeting("a").await, Backend::greeting("b").await);
    let running = Running::over(&[&a], json!({})).await;
    let mut first = running.connect().await;
    assert_eq!(greeting(&mut first).await, "a");
    let address = running.addr("main");
    assert!(matches!(update(&running, to(&[&b], json!({}))).await, Updated::Applied));
    running.until_states_are(&["draining", "up"]).await;
    for _ in 0..3 {
        assert_eq!(running.greeted().await, "b");
    }
    echoes(&mut first).await;
    let robin = json!({"balance": "round_robin", "timeouts": {"idle": "1h"}});
    assert!(matches!(update(&running, to(&[&a, &b], robin)).await, Updated::Applied));
    running.until_states_are(&["up", "up"]).await;
    // The one that came later starts slowly.
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..40 {
        names.insert(running.greeted().await);
    }
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(running.backends().await["listeners"][0]["balance"], "round_robin");
    echoes(&mut first).await;
    let service = json!([listener(json!({"service": "api_gateway", "listener": "web"}), json!({}))]);
    assert!(matches!(update(&running, service).await, Updated::Applied));
    running.views.send_replace(view(vec![member("g", "api_gateway", Phase::Ready, &[("web", b.addr)])]));
    eventually("the member gets connections", async || running.greeted().await == "b").await;
    echoes(&mut first).await;
    assert_eq!((running.addr("main"), running.metric("cuts_total", "")), (address, 0));
}

#[tokio::test]
async fn connections_to_backends_that_another_target_replaces_are_not_cut() {
    let (a, b) = (Backend::greeting("a").await, Backend::greeting("b").await);
    let drain = json!({"timeouts": {"drain": "50ms"}});
    let running = Running::over(&[&a], drain.clone()).await;
    let mut first = running.connect().await;
    assert_eq!(greeting(&mut first).await, "a");
    assert!(matches!(update(&running, to(&[&b], drain.clone())).await, Updated::Applied));
    running.until_states_are(&["draining", "up"]).await;
    let unlisted = std::time::Instant::now();
    eventually("the drain is over", async || unlisted.elapsed() > Duration::from_millis(60)).await;
    running.views.send_replace(view(vec![member("g", "api_gateway", Phase::Ready, &[("web", b.addr)])]));
    let service = json!([listener(json!({"service": "api_gateway", "listener": "web"}), drain)]);
    assert!(matches!(update(&running, service).await, Updated::Applied));
    let shown = async || running.backends().await["listeners"][0]["targets"][0]["backends"].clone();
    eventually("the member is the target", async || {
        shown().await.as_array().unwrap().iter().any(|backend| backend["member"] == "g")
    })
    .await;
    echoes(&mut first).await;
    assert_eq!(running.metric("cuts_total", ""), 0);
}

#[tokio::test]
async fn of_members_that_backends_replace_only_those_that_drained_before_have_their_connections_cut() {
    let [a, b, c] =
        [Backend::greeting("a").await, Backend::greeting("b").await, Backend::greeting("c").await];
    let web = json!({"service": "api_gateway", "listener": "web"});
    let with_drain = |drain: &str| json!({"timeouts": {"drain": drain}});
    let of = |id, phase, at: &Backend| member(id, "api_gateway", phase, &[("web", at.addr)]);
    let running = Running::with(json!([listener(web, with_drain("1h"))]), Vec::new()).await;
    running.views.send_replace(view(vec![of("a", Phase::Ready, &a)]));
    running.until_states_are(&["up"]).await;
    let mut drained = running.connect().await;
    assert_eq!(greeting(&mut drained).await, "a");
    running.views.send_replace(view(vec![of("a", Phase::Draining, &a), of("b", Phase::Ready, &b)]));
    running.until_states_are(&["draining", "up"]).await;
    let mut healthy = running.connect().await;
    assert_eq!(greeting(&mut healthy).await, "b");
    assert!(matches!(update(&running, to(&[&c], with_drain("50ms"))).await, Updated::Applied));
    running.until_states_are(&["draining", "draining", "up"]).await;
    let replaced = std::time::Instant::now();
    assert!(timeout(PATIENCE, drained.read_u8()).await.expect("it is cut").is_err());
    eventually("it is counted", async || running.metric("cuts_total", "") == 1).await;
    eventually("the drain is over", async || replaced.elapsed() > Duration::from_millis(150)).await;
    echoes(&mut healthy).await;
    assert_eq!(running.metric("cuts_total", ""), 1);
}

#[tokio::test]
async fn checks_begin_and_end_with_the_settings() {
    let (a, gone) = (Backend::greeting("a").await, closed_addr());
    let backends =
        |more| json!([listener(json!({"backends": [{"address": a.addr}, {"address": gone}]}), more)]);
    let running = Running::with(backends(json!({})), Vec::new()).await;
    running.until_states_are(&["up", "up"]).await;
    let check = json!({"check": {"tcp": {}, "every": "20ms", "rise": 1, "fall": 1}});
    assert!(matches!(update(&running, backends(check)).await, Updated::Applied));
    running.until_states_are(&["up", "down"]).await;
    assert!(matches!(update(&running, backends(json!({}))).await, Updated::Applied));
    running.until_states_are(&["up", "up"]).await;
}

#[tokio::test]
async fn a_balancer_that_would_forward_to_itself_keeps_its_settings() {
    let a = Backend::greeting("a").await;
    let running = Running::over(&[&a], json!({})).await;
    let own = json!([listener(json!({"service": "load_balancer"}), json!({}))]);
    let updated = update(&running, own).await;
    let Updated::Failed(error) = updated else { panic!("{updated:?}") };
    assert!(error.to_string().contains("its own service"), "{error}");
    assert_eq!(running.greeted().await, "a");
}

#[tokio::test]
async fn in_http_mode_requests_go_where_the_new_settings_say() {
    use super::requests::{at, body, get, http, named, raw};
    let (a, b) = (named("a").await, named("b").await);
    let to = |server: &mesh::testing::Upstream, more: Value| {
        json!([http(json!({"backends": [{"address": server.addr}]}), more)])
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log");
    let running = Running::with(to(&a, json!({})), Vec::new()).await;
    assert_eq!(body(&get(&running).await), "a");
    let address = at(&running);
    let settings =
        json!({"listeners": to(&b, json!({"balance": "round_robin"})), "access_log": {"to": file}});
    let updated = running.service.update(LoadBalancer.prepare(&settings).unwrap()).await;
    assert!(matches!(updated, Updated::Applied), "{updated:?}");
    eventually("the new backend gets the requests", async || body(&get(&running).await) == "b").await;
    eventually("they are logged", async || !std::fs::read_to_string(&file).unwrap_or_default().is_empty())
        .await;
    assert_eq!(at(&running), address);
    let hurried = to(&b, json!({"timeouts": {"keep_alive": "1s"}}));
    assert!(matches!(update(&running, hurried).await, Updated::Applied));
    // The connection stays open after the answer, until it is idle for too long.
    let answer = raw(address, "GET /x HTTP/1.1\r\nhost: shop.example\r\n\r\n").await;
    assert!(answer.ends_with("\r\n\r\nb"), "{answer}");
}

#[tokio::test]
async fn in_http_mode_backends_that_were_down_get_requests_once_they_are_no_longer_checked() {
    use super::requests::{body, get, http, named};
    let a = named("a").await;
    let backends = |more| json!([http(json!({"backends": [{"address": a.addr}]}), more)]);
    // It answers, but not with the status that the check wants.
    let check = json!({"check": {"http": {"path": "/x", "status": [599]}, "every": "20ms", "fall": 1}});
    let running = Running::with(backends(check), Vec::new()).await;
    running.until_states_are(&["down"]).await;
    assert!(matches!(update(&running, backends(json!({}))).await, Updated::Applied));
    eventually("it gets requests", async || body(&get(&running).await) == "a").await;
}

/// Answers requests with its name, on connections that stay open.
async fn keeping(name: char) -> Backend {
    Backend::serving(move |mut stream| async move {
        while mesh::testing::read_head(&mut stream).await.ends_with("\r\n\r\n") {
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{name}");
            if stream.write_all(answer.as_bytes()).await.is_err() {
                break;
            }
        }
    })
    .await
}

#[tokio::test]
async fn in_http_mode_idle_connections_and_turns_survive_settings_that_do_not_concern_them() {
    use super::requests::{at, http};
    let (a, b) = (keeping('a').await, keeping('b').await);
    let folder = tempfile::tempdir().unwrap();
    let settings = |log: &str, timeouts: Value| {
        let target = json!({"backends": [{"address": a.addr}, {"address": b.addr}]});
        let main = http(target, json!({"balance": "round_robin", "timeouts": timeouts}));
        json!({"listeners": [main], "access_log": {"to": folder.path().join(log)}})
    };
    let first = settings("0", json!({}));
    let running = Running::with_settings(first["listeners"].clone(), first, Vec::new()).await;
    // One connection, so that one core serves all requests.
    let mut stream = TcpStream::connect(at(&running)).await.unwrap();
    let mut next = async || {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let head = timeout(PATIENCE, mesh::testing::read_head(&mut stream)).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        char::from(stream.read_u8().await.unwrap())
    };
    let apply = async |settings: Value| {
        let updated = running.service.update(LoadBalancer.prepare(&settings).unwrap()).await;
        assert!(matches!(updated, Updated::Applied), "{updated:?}");
    };
    let mut names = String::new();
    for round in 1..=6 {
        names.push(next().await);
        apply(settings(&round.to_string(), json!({}))).await;
    }
    assert!(["ababab", "bababa"].contains(&names.as_str()), "{names}");
    assert_eq!((a.accepted(), b.accepted()), (1, 1), "their connections are used again");
    apply(settings("6", json!({"answer": "9s"}))).await;
    names = [next().await, next().await].iter().collect();
    assert!(["ab", "ba"].contains(&names.as_str()), "{names}");
    assert_eq!((a.accepted(), b.accepted()), (2, 2), "other limits have connections of their own");
}
