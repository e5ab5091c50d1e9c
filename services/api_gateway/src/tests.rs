//! The gateway as its clients see it: real connections on both sides.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cluster::ClusterView;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use mesh::testing::{Answer, Upstream, closed_port, read_head, text};
use mesh::{Limits, Mesh, Targets};
use plugin::{Context, Endpoints, Exposure, Plugin, Service, conformance};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use types::api::{About, Member};
use types::{Generation, Phase, Problem, Role, RoleState, api};

use crate::ApiGateway;

mod access_log;
mod affinity;
mod along;
mod backends;
mod checks;
mod client_certificates;
mod compression;
mod described;
mod forwarded;
mod grpc;
mod http2;
mod listeners;
mod misdirected;
mod operators;
mod raw;
mod reload;
mod retry;
mod seen;
mod tls;
mod websocket;

#[tokio::test]
async fn the_plugin_keeps_the_promises_of_every_plugin() {
    conformance::check(&ApiGateway, &json!({})).await;
    let routes = json!({"routes": [{"prefix": "/", "to": ["http://127.0.0.1:1"]}]});
    conformance::check(&ApiGateway, &routes).await;
}

/// A running gateway with its context and the sender of its view.
struct Running {
    context: Context,
    service: Arc<dyn Service>,
    views: watch::Sender<ClusterView>,
    addr: SocketAddr,
}

impl Running {
    async fn with(settings: Value, members: Vec<Member>) -> Self {
        Self::exposed(settings, members, Exposure::default()).await
    }

    /// The same on a node that may listen on such addresses.
    async fn exposed(settings: Value, members: Vec<Member>, exposure: Exposure) -> Self {
        let role = Role::Service { service: ApiGateway.service_type().into(), shard: None };
        let (mut context, _failures) = Context::for_test(role);
        context.endpoints = Endpoints::new(exposure);
        let (views, receiver) = watch::channel(view(members));
        context.mesh = Mesh::new(receiver.clone(), Targets::any(), Limits::default());
        context.view = receiver;
        let prepared = ApiGateway.prepare(&settings).unwrap();
        let service = prepared.start(context.clone()).await.unwrap();
        let urls = context.endpoints.urls();
        let (_, url) = urls.get_key_value("gateway").or(urls.first_key_value()).unwrap();
        let addr = address(url);
        Self { context, service, views, addr }
    }

    /// The address of a named listener.
    fn listener(&self, name: &str) -> SocketAddr {
        address(&self.context.endpoints.urls()[name])
    }

    async fn routing(prefix: &str, to: &Upstream) -> Self {
        let route = json!({"prefix": prefix, "to": [to.url().to_string()]});
        Self::with(json!({"routes": [route]}), Vec::new()).await
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        self.context.metrics.encode(&mut text).unwrap();
        text
    }

    /// The sum of the lines of a metric that contain a text.
    fn metric(&self, name: &str, label: &str) -> u64 {
        let text = self.metrics();
        let begin = format!("coterie_test_{name}{{");
        let lines = text.lines().filter(|line| line.starts_with(&begin) && line.contains(label));
        lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
    }

    /// The number of requests with answers whose status begins like this.
    fn answered(&self, code: &str) -> u64 {
        self.metric("requests_total", &format!("code=\"{code}"))
    }

    fn in_flight(&self) -> bool {
        self.metric("in_flight", "") > 0
    }

    /// Sends bytes and reads until the gateway closes the connection.
    async fn raw(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        stream.write_all(request.as_ref()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    async fn get(&self, path: &str) -> Response<Incoming> {
        send(Request::get(format!("http://{}{path}", self.addr)), "").await
    }

    async fn problem(&self, path: &str) -> Problem {
        let answer = self.get(path).await;
        assert_eq!(answer.headers()["content-type"], Problem::MEDIA_TYPE);
        let status = answer.status();
        let problem: Problem = serde_json::from_str(&whole(answer).await).unwrap();
        assert_eq!(problem.status, status.as_u16());
        assert!(problem.hint.is_some(), "{problem:?}");
        assert_eq!(problem.node.as_deref(), Some("test-node"));
        assert!(problem.request_id.is_some());
        problem
    }
}

fn address(url: &str) -> SocketAddr {
    url.split_once("://").unwrap().1.parse().unwrap()
}

async fn send(request: http::request::Builder, body: &'static str) -> Response<Incoming> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    client.request(request.body(body.into()).unwrap()).await.unwrap()
}

async fn whole(answer: Response<Incoming>) -> String {
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn echoing(request: Request<Incoming>) -> Answer {
    Response::new(request.into_body().boxed())
}

/// Answers with the head of the request as it arrived.
async fn reflecting(request: Request<Incoming>) -> Answer {
    let mut reflected = format!("{} {}", request.method(), request.uri());
    for (name, value) in request.headers() {
        reflected += &format!("\n{name}: {}", value.to_str().unwrap());
    }
    text(reflected)
}

fn view(members: Vec<Member>) -> ClusterView {
    ClusterView::new("test".parse().unwrap(), "test-node".parse().unwrap(), members)
}

fn member(id: &str, service: &str, addr: SocketAddr, phase: Phase) -> Member {
    Member {
        id: id.parse().unwrap(),
        generation: Generation(1),
        version: 1,
        http: format!("http://{addr}"),
        gossip: String::new(),
        state: Some(RoleState { phase, ..RoleState::starting(service.parse().unwrap()) }),
        about: About::default(),
        store: None,
    }
}

async fn until(mut condition: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < patience, "it never became true");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_route_forwards_the_rest_of_the_path_byte_for_byte() {
    let upstream = Upstream::serving(reflecting).await;
    let gateway = Running::routing("/files", &upstream).await;
    for (asked, arrived) in [
        ("/files/a%2Fb/..%2f/x?q=%20", "/a%2Fb/..%2f/x?q=%20"),
        ("/files/x//;y/%252e%252e/", "/x//;y/%252e%252e/"),
        ("/files", "/"),
        ("/files/", "/"),
        ("/files?q", "/?q"),
    ] {
        let request = format!("GET {asked} HTTP/1.1\r\nhost: gw\r\nconnection: close\r\n\r\n");
        let answer = gateway.raw(&request).await;
        assert!(answer.contains(&format!("GET {arrived}\n")), "{asked}: {answer}");
        assert!(answer.contains("x-forwarded-prefix: /files"), "{answer}");
    }

    let absolute = "GET http://shop.example/files/x HTTP/1.1\r\nhost: gw\r\nconnection: close\r\n\r\n";
    let answer = gateway.raw(absolute).await;
    assert!(answer.contains("GET /x\n"), "{answer}");
    assert!(answer.contains("x-forwarded-host: shop.example"), "{answer}");
}

#[tokio::test]
async fn a_route_may_keep_its_prefix() {
    let upstream = Upstream::serving(reflecting).await;
    let route =
        json!({"prefix": "/api/v1", "to": [format!("{}/base", upstream.url())], "strip_prefix": false});
    let gateway = Running::with(json!({"routes": [route]}), Vec::new()).await;
    let reflected = whole(gateway.get("/api/v1/x?y").await).await;
    assert!(reflected.starts_with("GET /base/api/v1/x?y\n"), "{reflected}");
    assert!(!reflected.contains("x-forwarded-prefix"), "{reflected}");
}

#[tokio::test]
async fn a_service_type_leads_to_a_member_that_serves_it() {
    let upstream = Upstream::serving(reflecting).await;
    let members = vec![member("n1", "key_value", upstream.addr, Phase::Ready)];
    let gateway = Running::with(json!({}), members).await;
    for path in ["/key_value/a%2Fb?c", "/key-value/a%2Fb?c"] {
        let reflected = whole(gateway.get(path).await).await;
        assert!(reflected.starts_with("GET /svc/key_value/a%2Fb?c\n"), "{reflected}");
    }
    let reflected = whole(gateway.get("/key_value").await).await;
    assert!(reflected.starts_with("GET /svc/key_value/\n"), "{reflected}");
}

#[tokio::test]
async fn a_forwarded_request_names_its_client_and_keeps_its_id() {
    let upstream = Upstream::serving(reflecting).await;
    let route = json!({"prefix": "/", "to": [upstream.url().to_string()]});
    let settings = json!({"routes": [route], "trust": ["127.0.0.0/8"]});
    let gateway = Running::with(settings, Vec::new()).await;
    let request = Request::get(format!("http://{}/", gateway.addr))
        .header("x-forwarded-for", "192.0.2.1")
        .header("x-request-id", "mine");
    let answer = send(request, "").await;
    assert_eq!(answer.headers()[api::REQUEST_ID], "mine");
    let reflected = whole(answer).await;
    for line in [
        "x-forwarded-for: 192.0.2.1, 127.0.0.1".to_owned(),
        "x-forwarded-proto: http".to_owned(),
        format!("x-forwarded-host: {}", gateway.addr),
        format!("host: {}", upstream.addr),
        "x-request-id: mine".to_owned(),
        "cdn-loop: coterie".to_owned(),
    ] {
        assert!(reflected.lines().any(|other| other == line), "{line} is missing in {reflected}");
    }
    assert!(!reflected.contains("x-forwarded-prefix"), "no prefix was removed: {reflected}");
    let answer = gateway.get("/").await;
    let id = answer.headers()[api::REQUEST_ID].to_str().unwrap().to_owned();
    assert!(whole(answer).await.contains(&format!("x-request-id: {id}")));
}

#[tokio::test]
async fn an_unknown_path_is_answered_with_a_hint_and_the_root_with_the_list_of_routes_and_services() {
    let upstream = Upstream::serving(reflecting).await;
    let members = vec![member("n1", "storage", upstream.addr, Phase::Starting)];
    let route = json!({"prefix": "/files", "to": [upstream.url().to_string()]});
    let gateway = Running::with(json!({"routes": [route], "wait": "0s"}), members).await;
    for path in ["/no_such_type/x", "/NOT/a/type", "//"] {
        let problem = gateway.problem(path).await;
        assert_eq!(problem.status, 404, "{path}");
        let hint = if problem.code() == "no-route" { "`GET /` lists" } else { "`ctl members` shows" };
        assert!(problem.hint.as_ref().unwrap().starts_with(hint), "{path}: {problem:?}");
    }
    assert_eq!(gateway.problem("/storage/x").await.status, 503);

    let index: Value = serde_json::from_str(&whole(gateway.get("/").await).await).unwrap();
    assert_eq!(
        index,
        json!({"node": "test-node", "routes": [{"prefix": "/files"}], "services": {"storage": 0}})
    );
}

#[tokio::test]
async fn each_fault_behind_the_gateway_has_its_own_code() {
    let silent = Upstream::serving(|_| std::future::pending()).await;
    let strange = Upstream::raw(|mut stream: TcpStream| async move {
        let _ = stream.write_all(b"220 mail.example ESMTP\r\n\r\n").await;
        let _ = stream.read(&mut [0; 1024]).await;
    })
    .await;
    let settings = json!({
        "routes": [
            {"prefix": "/closed", "to": ["http://127.0.0.1:1"]},
            {"prefix": "/silent", "to": [silent.url().to_string()]},
            {"prefix": "/strange", "to": [strange.url().to_string()]},
        ],
        "response_timeout": "100ms",
    });
    let gateway = Running::with(settings, Vec::new()).await;
    for (path, status, code) in [
        ("/closed", 502, "unreachable"),
        ("/silent", 504, "no-answer-in-time"),
        ("/strange", 502, "bad-answer"),
    ] {
        let problem = gateway.problem(path).await;
        assert_eq!((problem.status, problem.code()), (status, code), "{problem:?}");
    }
}

#[tokio::test]
async fn tunnels_are_refused() {
    let gateway = Running::with(json!({}), Vec::new()).await;
    let request = "CONNECT example.org:443 HTTP/1.1\r\nhost: example.org\r\nconnection: close\r\n\r\n";
    let answer = gateway.raw(request).await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[tokio::test]
async fn a_forwarding_loop_is_detected() {
    let gateway = Running::with(json!({}), Vec::new()).await;
    let own = format!("http://{}", gateway.addr);
    reload::applied(&gateway, json!({"routes": [{"prefix": "/", "to": [own]}]})).await;
    let problem = gateway.problem("/round/and/round").await;
    assert_eq!((problem.status, problem.code()), (508, "loop-detected"));
    assert_eq!(gateway.answered("5"), 5);
}

#[tokio::test]
async fn a_large_body_flows_through_in_both_directions() {
    const LEN: usize = 32 * 1024 * 1024;
    let upstream = Upstream::serving(echoing).await;
    let gateway = Running::routing("/", &upstream).await;
    let stream = TcpStream::connect(gateway.addr).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let head = format!("POST / HTTP/1.1\r\nhost: gw\r\nconnection: close\r\ncontent-length: {LEN}\r\n\r\n");
    let sending = async {
        writer.write_all(head.as_bytes()).await.unwrap();
        let piece = vec![7; 1024 * 1024];
        for _ in 0..LEN / piece.len() {
            writer.write_all(&piece).await.unwrap();
        }
    };
    let mut answer = Vec::new();
    // No buffer in between can hold all of it: reading must continue while writing does.
    let ((), read) = tokio::join!(sending, reader.read_to_end(&mut answer));
    read.unwrap();
    let body = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    let text = String::from_utf8_lossy(&answer[..body]);
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    let sevens = answer[body..].iter().filter(|&&byte| byte == 7).count();
    assert_eq!(sevens, LEN);
}

#[tokio::test]
async fn an_answer_without_a_body_has_none_on_the_wire_either() {
    let upstream = Upstream::serving(|request: Request<Incoming>| async move {
        let mut answer = text("body");
        *answer.status_mut() = match request.uri().path() {
            "/204" => StatusCode::NO_CONTENT,
            "/304" => StatusCode::NOT_MODIFIED,
            _ => StatusCode::OK,
        };
        answer
    })
    .await;
    let gateway = Running::routing("/", &upstream).await;
    for request in ["HEAD /", "GET /204", "GET /304"] {
        let text = format!("{request} HTTP/1.1\r\nhost: gw\r\nconnection: close\r\n\r\n");
        let answer = gateway.raw(&text).await;
        assert!(answer.ends_with("\r\n\r\n"), "{request}: {answer}");
    }
    let answer = gateway.raw("HEAD / HTTP/1.1\r\nhost: gw\r\nconnection: close\r\n\r\n").await;
    assert!(answer.contains("content-length: 4\r\n"), "{answer}");
}

#[tokio::test]
async fn http_1_0_is_supported_on_both_sides() {
    let upstream = Upstream::raw(|mut stream: TcpStream| async move {
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nuntil the end").await;
    })
    .await;
    let gateway = Running::routing("/", &upstream).await;
    let answer = gateway.raw("GET / HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\nuntil the end"), "{answer}");
    assert_eq!(whole(gateway.get("/").await).await, "until the end");
}

#[tokio::test]
async fn a_drain_refuses_new_connections_and_answers_those_that_are_open() {
    let release = Arc::new(Notify::new());
    let held = Arc::clone(&release);
    let upstream = Upstream::serving(move |_| {
        let held = Arc::clone(&held);
        async move {
            held.notified().await;
            text("finished")
        }
    })
    .await;
    let gateway = Running::routing("/", &upstream).await;
    let mut kept = TcpStream::connect(gateway.addr).await.unwrap();
    kept.write_all(b"GET /nowhere HTTP/1.1\r\nhost: gw\r\n\r\n").await.unwrap();
    until(|| upstream.hits() == 1).await;
    release.notify_one();
    let mut first = [0; 64];
    assert!(kept.read(&mut first).await.unwrap() > 0);
    let mut running = JoinSet::new();
    running.spawn(send(Request::get(format!("http://{}/", gateway.addr)), ""));
    until(|| upstream.hits() == 2).await;

    let cut_short = gateway.service.drain(Instant::now() + Duration::from_millis(10));
    cut_short.await;
    assert!(gateway.in_flight(), "the deadline came first");

    let service = Arc::clone(&gateway.service);
    let draining = async move { service.drain(Instant::now() + Duration::from_secs(30)).await };
    let meanwhile = async {
        until(|| listeners::closed_now(gateway.addr)).await;
        kept.write_all(b"GET / HTTP/1.1\r\nhost: gw\r\n\r\n").await.unwrap();
        until(|| upstream.hits() == 3).await;
        release.notify_one();
        release.notify_one();
    };
    tokio::join!(draining, meanwhile);
    assert!(!gateway.in_flight());
    let answer = running.join_next().await.unwrap().unwrap();
    assert_eq!(whole(answer).await, "finished");
    let mut last = Vec::new();
    kept.read_to_end(&mut last).await.unwrap();
    let last = String::from_utf8_lossy(&last).to_lowercase();
    assert!(last.contains("200 ok") && last.contains("connection: close"), "{last}");

    gateway.service.stop().await.unwrap();
    assert!(TcpStream::connect(gateway.addr).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_nothing_behind() {
    let upstream = Upstream::serving(|request| async move {
        if request.uri().path() == "/silent" {
            std::future::pending::<()>().await;
        }
        echoing(request).await
    })
    .await;
    let gateway = Running::routing("/", &upstream).await;
    for (number, request) in [
        "GET /silent HTTP/1.1\r\nhost: gw\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: gw\r\ncontent-length: 9\r\n\r\nhalf",
    ]
    .into_iter()
    .enumerate()
    {
        let mut stream = TcpStream::connect(gateway.addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        until(|| upstream.hits() > number).await;
        assert!(gateway.in_flight());
        // A client that only ends its sending side may still read.
        stream.set_zero_linger().unwrap();
        drop(stream);
        until(|| !gateway.in_flight()).await;
    }
    assert!(gateway.answered("499") > 0);
}

#[tokio::test]
async fn while_a_role_moves_no_request_fails() {
    let (one, two) = (Upstream::serving(echoing).await, Upstream::serving(echoing).await);
    let at = |upstream: &Upstream| vec![member("n", "echo", upstream.addr, Phase::Ready)];
    let gateway = Running::with(json!({}), at(&one)).await;
    let url = format!("http://{}/echo/", gateway.addr);
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    for round in 0..20 {
        gateway.views.send_replace(view(Vec::new()));
        let request = Request::post(&url).body(Full::from("moved")).unwrap();
        let answer = client.request(request);
        let moving = async {
            tokio::task::yield_now().await;
            let next = if round % 2 == 0 { &two } else { &one };
            gateway.views.send_replace(view(at(next)));
        };
        let (answer, ()) = tokio::join!(answer, moving);
        assert_eq!(whole(answer.unwrap()).await, "moved");
    }
    let hits = [&one, &two].map(Upstream::hits);
    assert_eq!(hits, [10, 10]);
}

#[tokio::test]
async fn a_thousand_requests_at_once_are_all_answered() {
    let upstream = Upstream::serving(echoing).await;
    let gateway = Running::routing("/", &upstream).await;
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut requests = JoinSet::new();
    for number in 0..1000 {
        let body = Full::from(format!("body {number}"));
        let request = Request::post(format!("http://{}/", gateway.addr)).body(body).unwrap();
        let answer = client.request(request);
        requests
            .spawn(async move { assert_eq!(whole(answer.await.unwrap()).await, format!("body {number}")) });
    }
    requests.join_all().await;
    until(|| !gateway.in_flight()).await;
    assert_eq!(gateway.answered("200"), 1000, "{}", gateway.metrics());
    assert_eq!(gateway.metric("request_duration_seconds_count", ""), 1000);
    assert!(gateway.context.mesh.upstream_counts().retries.iter().all(|(_, count)| *count == 0));
}

#[tokio::test]
async fn the_agents_listener_forwards_nothing() {
    use tower::ServiceExt;
    let upstream = Upstream::serving(reflecting).await;
    let members = vec![member("n1", "key_value", upstream.addr, Phase::Ready)];
    let routes = json!([{"prefix": "/files", "to": [upstream.url().to_string()]}]);
    let gateway = Running::with(json!({"routes": routes}), members).await;
    for path in ["/", "/files/x", "/key_value/x", "/backends/x", "/routes/x"] {
        let request = Request::post(path).body(axum::body::Body::empty()).unwrap();
        let answer = Arc::clone(&gateway.service).routes().oneshot(request).await.unwrap();
        let problem = answer.into_body().collect().await.unwrap().to_bytes();
        let problem: Problem = serde_json::from_slice(&problem).unwrap();
        assert_eq!((problem.status, problem.code()), (404, "no-such-path"), "{path}");
        assert!(problem.hint.unwrap().contains("ctl members"), "{path}");
    }
    assert_eq!(upstream.hits(), 0);
}

#[tokio::test]
async fn a_route_with_a_limit_never_has_more_requests_at_once() {
    let now = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (seen, peak) = (now.clone(), most.clone());
    let upstream = Upstream::serving(move |_| {
        let (now, most) = (seen.clone(), peak.clone());
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            now.fetch_sub(1, Ordering::SeqCst);
            text("done")
        }
    })
    .await;
    let route = json!({"prefix": "/few", "to": [upstream.url().to_string()], "max_in_flight": 2});
    let gateway = Running::with(json!({"routes": [route]}), Vec::new()).await;
    let answers = futures_util::future::join_all((0..40).map(|_| gateway.get("/few/"))).await;
    assert!(answers.iter().all(|answer| answer.status() == StatusCode::OK));
    assert!(most.load(Ordering::SeqCst) <= 2, "{most:?} at once");
}

#[tokio::test]
async fn a_request_that_gets_no_permit_in_time_is_refused_as_route_busy() {
    let upstream = Upstream::serving(|_| std::future::pending()).await;
    let route = json!({"prefix": "/few", "to": [upstream.url().to_string()], "max_in_flight": 1});
    let gateway = Running::with(json!({"routes": [route], "wait": "50ms"}), Vec::new()).await;
    let first = gateway.get("/few/");
    tokio::pin!(first);
    let problem = tokio::select! {
        _ = &mut first => panic!("the server is silent"),
        problem = async {
            while upstream.hits() == 0 {
                tokio::task::yield_now().await;
            }
            gateway.problem("/few/").await
        } => problem,
    };
    assert_eq!((problem.status, problem.code()), (503, "route-busy"));
}
