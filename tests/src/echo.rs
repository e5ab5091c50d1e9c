//! The service type `echo`: echoes requests, and misbehaves on demand. It is the smallest complete plugin. `owned_echo`
//! is the same with shards that have owners and replicas.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::routing::{any, get, post};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use plugin::{Context, Duty, Health, Plugin, Prepared, Service, ServiceError, SettingsError, parse_settings};
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use types::{NodeId, ReasonCode, ServiceType, Sharding};

/// It was asked to say so.
const FORCED: ReasonCode = ReasonCode::new("forced");

/// The service type `echo`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Echo;

/// How to misbehave.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// Fails every start on the node with this id.
    fail_start_on: Option<String>,
    /// The same, for starts as the owner of a shard.
    fail_primary_on: Option<String>,
    /// Waits this long with each start, in milliseconds.
    start_ms: u64,
    /// Panics when the router is built.
    panic_in_routes: bool,
}

impl Plugin for Echo {
    fn service_type(&self) -> ServiceType {
        "echo".parse().expect("the name follows the rule")
    }

    fn about(&self) -> &'static str {
        "echoes requests"
    }

    fn sharding(&self) -> Sharding {
        Sharding::None
    }

    fn prepare(&self, settings: &serde_json::Value) -> Result<Box<dyn Prepared>, SettingsError> {
        Ok(Box::new(parse_settings::<Settings>(settings)?))
    }
}

/// The service type `owned_echo`: the same with shards that have owners and replicas.
#[derive(Debug, Clone, Copy, Default)]
pub struct OwnedEcho;

impl Plugin for OwnedEcho {
    fn service_type(&self) -> ServiceType {
        "owned_echo".parse().expect("the name follows the rule")
    }

    fn about(&self) -> &'static str {
        "echoes requests, on the owner of the shard"
    }

    fn sharding(&self) -> Sharding {
        Sharding::Owned
    }

    fn replicates(&self) -> bool {
        true
    }

    fn prepare(&self, settings: &serde_json::Value) -> Result<Box<dyn Prepared>, SettingsError> {
        Ok(Box::new(parse_settings::<Settings>(settings)?))
    }
}

#[async_trait]
impl Prepared for Settings {
    async fn start(self: Box<Self>, cx: Context) -> Result<Arc<dyn Service>, ServiceError> {
        tokio::time::sleep(Duration::from_millis(self.start_ms)).await;
        let is_owner = matches!(cx.duty, Duty::Primary(_));
        let fails = self.fail_primary_on.filter(|_| is_owner).or(self.fail_start_on);
        if fails.as_deref() == Some(cx.node.as_str()) {
            return Err(ServiceError::unavailable("forced failure"));
        }
        Ok(Arc::new(EchoService {
            node: cx.node.clone(),
            health: Mutex::new(Health::Ready),
            panic_in_routes: self.panic_in_routes,
            cx,
        }))
    }
}

struct EchoService {
    node: NodeId,
    health: Mutex<Health>,
    panic_in_routes: bool,
    cx: Context,
}

#[async_trait]
impl Service for EchoService {
    fn routes(self: Arc<Self>) -> Router {
        assert!(!self.panic_in_routes, "forced panic");
        Router::new()
            .route("/health/{how}", post(set_health))
            .route("/panic/task", post(panic_in_task))
            .route("/panic/handler", post(panic_in_handler))
            .route("/slow/{ms}", any(slow))
            .route("/websocket", get(websocket))
            .fallback(echo)
            .with_state(self)
    }

    fn health(&self) -> Health {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn staleness(&self) -> Option<Duration> {
        matches!(self.cx.duty, Duty::Replica).then_some(Duration::ZERO)
    }
}

/// Returns the body unchanged, with the node's id and the raw path in headers.
async fn echo(State(echo): State<Arc<EchoService>>, request: Request) -> Response<Body> {
    let path = request.uri().to_string();
    Response::builder()
        .header("echo-node", echo.node.as_str())
        .header("echo-path", path)
        .header("echo-method", request.method().as_str())
        .body(request.into_body())
        .expect("a URI and a name are valid header values")
}

async fn slow(
    State(echo): State<Arc<EchoService>>,
    axum::extract::Path(ms): axum::extract::Path<u64>,
) -> Response<Body> {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    Response::new(Body::from(echo.node.to_string()))
}

/// Takes over the connection of a WebSocket handshake, and sends back the bytes that come. Who wants to read messages uses
/// `axum::extract::ws`, which does the same first.
async fn websocket(mut request: Request) -> Response<Body> {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::runtime::Handle::current().spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    });
    let key = request.headers().get(SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok()).unwrap_or_default();
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_ACCEPT, mesh::head::websocket::accepts(key))
        .body(Body::empty())
        .expect("a hash is a valid header value")
}

async fn set_health(
    State(echo): State<Arc<EchoService>>,
    axum::extract::Path(how): axum::extract::Path<String>,
) {
    let health = match how.as_str() {
        "ready" => Health::Ready,
        "degraded" => Health::degraded(FORCED, "forced degradation"),
        behind if behind.starts_with("behind-") => {
            Health::degraded(FORCED, format!("may be {} s behind", behind.trim_start_matches("behind-")))
        }
        _ => Health::failed(FORCED, "forced failure"),
    };
    *echo.health.lock().unwrap_or_else(PoisonError::into_inner) = health;
}

async fn panic_in_task(State(echo): State<Arc<EchoService>>) {
    echo.cx.tasks.spawn("doomed", async { panic!("forced panic") });
}

async fn panic_in_handler() -> &'static str {
    panic!("forced panic")
}
