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
async fn checks_begin_and_end_with_the_settings() {
    let (a, gone) = (Backend::greeting("a").await, mesh::testing::closed_port().await);
    let backends = |more| {
        json!([listener(json!({"backends": [{"address": a.addr}, {"address": gone.authority()}]}), more)])
    };
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
    use super::requests::{at, body, get, http, named};
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
