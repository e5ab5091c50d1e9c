//! The balancer as its clients and backends see it: real connections on both sides.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use cluster::ClusterView;
use http::Request;
use http_body_util::BodyExt;
use mesh::testing::closed_addr;
use mesh::{Limits, Mesh, Targets};
use plugin::{Context, Endpoints, Exposure, Health, Plugin, Service, conformance};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tower::ServiceExt;
use types::api::{About, Member};
use types::{Generation, Phase, Role, RoleState};

use crate::LoadBalancer;

mod access_log;
mod choosing;
mod client_certificates;
mod copying;
mod described;
mod grpc;
mod introduction;
mod lifecycle;
mod limits;
mod listeners;
mod reload;
mod requests;
mod seen;
mod tls;
mod websocket;

/// How long a condition may take to hold.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn the_plugin_keeps_the_promises_of_every_plugin() {
    let backend = Backend::greeting("a").await;
    let fixed = json!({"name": "a", "address": "127.0.0.1:0", "backends": [{"address": backend.addr}], "check": {"tcp": {}}});
    let service = json!({"name": "b", "address": "127.0.0.1:0", "service": "api_gateway"});
    conformance::check(&LoadBalancer, &json!({"listeners": [fixed, service]})).await;
}

/// A running balancer with its context and the sender of its view.
struct Running {
    context: Context,
    service: Arc<dyn Service>,
    views: watch::Sender<ClusterView>,
}

impl Running {
    /// With these listeners.
    async fn with(listeners: Value, members: Vec<Member>) -> Self {
        Self::with_settings(listeners, json!({}), members).await
    }

    /// With these listeners and other settings.
    async fn with_settings(listeners: Value, settings: Value, members: Vec<Member>) -> Self {
        Self::exposed(listeners, settings, members, Exposure::default()).await
    }

    /// The same on a node that may listen on such addresses.
    async fn exposed(
        listeners: Value,
        mut settings: Value,
        members: Vec<Member>,
        exposure: Exposure,
    ) -> Self {
        let role = Role::Service { service: LoadBalancer.service_type().into(), shard: None };
        let (mut context, _failures) = Context::for_test(role);
        context.endpoints = Endpoints::new(exposure);
        let (views, receiver) = watch::channel(view(members));
        context.mesh = Mesh::new(receiver.clone(), Targets::any(), Limits::default());
        context.view = receiver;
        settings["listeners"] = listeners;
        let prepared = LoadBalancer.prepare(&settings).unwrap_or_else(|error| panic!("{error}"));
        let service = prepared.start(context.clone()).await.unwrap();
        Self { context, service, views }
    }

    /// With one listener for these backends, and further settings.
    async fn over(backends: &[&Backend], more: Value) -> Self {
        let backends: Vec<_> = backends.iter().map(|backend| json!({"address": backend.addr})).collect();
        Self::with(json!([listener(json!({"backends": backends}), more)]), Vec::new()).await
    }

    fn addr(&self, name: &str) -> SocketAddr {
        let url = self.context.endpoints.urls()[name].clone();
        url.strip_prefix("tcp://").unwrap().parse().unwrap()
    }

    async fn connect(&self) -> TcpStream {
        or_reset(TcpStream::connect(self.addr("main")).await).await
    }

    /// Connects from an address of this machine.
    async fn connect_from(&self, source: &str) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
        or_reset(socket.connect(self.addr("main")).await).await
    }

    /// The name of the backend that a new connection gets; empty if it is closed instead.
    async fn greeted(&self) -> String {
        greeting(&mut self.connect().await).await
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        self.context.metrics.encode(&mut text).unwrap();
        text
    }

    /// The value of a metric of the listener `main`, with one more label if it has one.
    fn metric(&self, name: &str, label: &str) -> u64 {
        let text = self.metrics();
        let line = text.lines().find(|line| {
            line.starts_with(&format!("coterie_test_{name}{{"))
                && line.contains("\"main\"")
                && line.contains(label)
        });
        let line = line.unwrap_or_else(|| panic!("no {name} {label} in {text}"));
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    /// What `GET /backends` shows.
    async fn backends(&self) -> Value {
        let request = Request::get("/backends").body(Body::empty()).unwrap();
        let answer = self.service.clone().routes().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    /// The states of the first listener's backends.
    async fn states(&self) -> Vec<String> {
        let shown = self.backends().await;
        let backends = shown["listeners"][0]["targets"][0]["backends"].as_array().unwrap();
        backends.iter().map(|backend| backend["state"].as_str().unwrap().to_owned()).collect()
    }

    async fn until_states_are(&self, wanted: &[&str]) {
        eventually(&format!("the states are {wanted:?}"), async || self.states().await == wanted).await;
    }
}

/// A connection. If the balancer has reset it before the system reported it as open, another one that is reset.
async fn or_reset(connected: std::io::Result<TcpStream>) -> TcpStream {
    match connected {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (other, _) = listener.accept().await.unwrap();
            crate::relay::reset(&other);
            stream
        }
        connected => connected.unwrap(),
    }
}

/// A listener named `main` with a target and further settings.
fn listener(target: Value, more: Value) -> Value {
    let mut listener = json!({"name": "main", "address": "127.0.0.1:0"});
    for part in [target, more] {
        let Value::Object(part) = part else { panic!("settings are mappings") };
        listener.as_object_mut().unwrap().extend(part);
    }
    listener
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let holding = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, holding).await.unwrap_or_else(|_| panic!("waited until {what}"));
}

/// The line with which a backend greets; empty if the connection ends without.
async fn greeting(stream: &mut TcpStream) -> String {
    let mut line = Vec::new();
    let reading = async {
        while let Ok(byte) = stream.read_u8().await {
            if byte == b'\n' {
                break;
            }
            line.push(byte);
        }
    };
    timeout(PATIENCE, reading).await.expect("the connection gets an end or a backend");
    String::from_utf8(line).unwrap()
}

/// A server behind the balancer. It ends, with its connections, when this is dropped.
struct Backend {
    addr: SocketAddr,
    accepted: Arc<AtomicUsize>,
    running: JoinSet<()>,
}

impl Backend {
    /// Serves each connection.
    async fn serving<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&accepted);
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                connections.spawn(serve(stream));
            }
        });
        Self { addr, accepted, running }
    }

    /// Greets with its name and a line end, then answers with what it gets, to the end.
    async fn greeting(name: &'static str) -> Self {
        Self::serving(move |mut stream| async move {
            let _ = stream.write_all(format!("{name}\n").as_bytes()).await;
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        })
        .await
    }

    /// How many connections it has accepted.
    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Ends it: its port refuses connections, and its connections break.
    async fn die(mut self) {
        self.running.shutdown().await;
    }
}

fn view(members: Vec<Member>) -> ClusterView {
    ClusterView::new("test".parse().unwrap(), "test-node".parse().unwrap(), members)
}

fn member(id: &str, service: &str, phase: Phase, endpoints: &[(&str, SocketAddr)]) -> Member {
    let state = RoleState::starting(service.parse().unwrap());
    let endpoints =
        endpoints.iter().map(|(name, addr)| ((*name).to_owned(), format!("http://{addr}"))).collect();
    Member {
        id: id.parse().unwrap(),
        generation: Generation(1),
        version: 1,
        http: "http://127.0.0.1:1".to_owned(),
        gossip: String::new(),
        state: Some(RoleState { phase, endpoints, ..state }),
        about: About::default(),
        store: None,
    }
}
