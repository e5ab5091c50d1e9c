//! The real agent with a gateway, or a balancer in HTTP mode, that has a plain listener, one with TLS, one for clients with
//! certificates and one with the PROXY protocol.

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use e2e::{Machine, eventually, free_port, repository};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// The host name in the certificate of the listener with TLS.
pub(crate) const HOST: &str = "shop.example";

/// Which service is in front, and how it reaches the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Gateway,
    /// A load balancer in HTTP mode, with the server as its fixed backend.
    Balancer,
    /// The same with a gateway in between, to which it speaks HTTP/2 without TLS.
    BalancerOverH2c,
}

/// A front before a server that sends `N` bytes for `/bytes/N`, `N` lines for `/lines/N`, which a gateway may compress,
/// and everything else back.
pub(crate) struct Front {
    /// Ended when this is dropped.
    pub(crate) machine: Machine,
    members: Value,
    _upstream: JoinSet<()>,
}

impl Front {
    pub(crate) async fn start(kind: Kind) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let to = format!("http://{}", listener.local_addr()?);
        let mut upstream = JoinSet::new();
        let routes = Router::new().route("/bytes/{count}", get(bytes)).route("/lines/{count}", get(lines));
        let routes = routes.fallback(echo);
        upstream.spawn(async move { axum::serve(listener, routes).await.unwrap_or_default() });
        Self::before(kind, &to, upstream).await
    }

    /// In front of another server.
    pub(crate) async fn before(kind: Kind, to: &str, upstream: JoinSet<()>) -> anyhow::Result<Self> {
        let machine = Machine::new()?;
        let (cert, key, ca) = (testdata("shop.crt"), testdata("shop.key"), testdata("client-ca.crt"));
        let certificate = format!("{{cert: '{cert}', key: '{key}'}}");
        let listeners = |more: &str| {
            format!(
                "      listeners:
        - {{name: plain, address: '127.0.0.1:0'{more}}}
        - {{name: web, address: '127.0.0.1:0', tls: {{certificates: [{certificate}]}}{more}}}
        - {{name: clients, address: '127.0.0.1:0', tls: {{certificates: [{certificate}], client_ca: '{ca}'}}{more}}}
        - {{name: proxied, address: '127.0.0.1:0', proxy_protocol: true, trust: ['127.0.0.0/8']{more}}}
"
            )
        };
        let balancer = |to: &str| listeners(&format!(", mode: http, backends: [{{address: '{to}'}}]"));
        let routes = format!(
            "      routes:\n        - {{prefix: /, to: ['{to}']}}\n        \
             - {{prefix: /lines, to: ['{to}'], strip_prefix: false, compress: true}}\n"
        );
        let services = match kind {
            Kind::Gateway => format!("  api_gateway:\n    settings:\n{}{routes}", listeners("")),
            Kind::Balancer => format!("  load_balancer:\n    settings:\n{}", balancer(to)),
            Kind::BalancerOverH2c => {
                let between = format!("127.0.0.1:{}", free_port()?);
                let gateway = format!("  api_gateway:\n    settings:\n      listen: '{between}'\n{routes}");
                let balancer = balancer(&format!("h2c://{between}"));
                format!("{gateway}  load_balancer:\n    settings:\n{balancer}")
            }
        };
        let nodes = match kind {
            Kind::Gateway => "  - {id: front, service: api_gateway}\n",
            Kind::Balancer => "  - {id: front, service: load_balancer}\n",
            Kind::BalancerOverH2c => {
                "  - {id: between, service: api_gateway}\n  - {id: front, service: load_balancer}\n"
            }
        };
        let manifest = machine.manifest(&format!("services:\n{services}nodes:\n{nodes}"))?;
        machine.ctl(&["up", &manifest, "--timeout", "60s"]).await?.exits(0)?;
        let members = eventually("the front listens", || async {
            let shown = machine.ctl(&["members", "-o", "json"]).await.ok()?.json().ok()?;
            let front = shown["members"].as_array()?.iter().find(|member| member["id"] == "front")?.clone();
            let endpoints = front["state"]["endpoints"].clone();
            (endpoints.as_object()?.len() == 4).then_some(endpoints)
        })
        .await?;
        Ok(Self { machine, members, _upstream: upstream })
    }

    /// Host and port of a listener.
    pub(crate) fn address(&self, listener: &str) -> anyhow::Result<String> {
        let url = self.members[listener].as_str().with_context(|| format!("no listener {listener}"))?;
        Ok(url.split_once("://").map_or(url, |(_, address)| address).to_owned())
    }

    /// The port of a listener.
    pub(crate) fn port(&self, listener: &str) -> anyhow::Result<String> {
        Ok(self.address(listener)?.rsplit(':').next().unwrap_or_default().to_owned())
    }
}

/// The certificate of the authority that signed the gateway's.
pub(crate) fn authority() -> String {
    testdata("ca.crt")
}

/// The path of a test certificate or key.
pub(crate) fn testdata(name: &str) -> String {
    repository().join("crates/plugin/src/tls/testdata").join(name).display().to_string()
}

/// The line that `/lines/N` repeats.
pub(crate) const LINE: &str = "a line that repeats itself\n";

async fn lines(Path(count): Path<usize>) -> Response {
    ([(CONTENT_TYPE, "text/plain")], LINE.repeat(count)).into_response()
}

async fn bytes(Path(count): Path<usize>) -> Vec<u8> {
    vec![b'x'; count]
}

/// Returns the body, and in a header what was asked and by whom.
async fn echo(request: Request) -> Response {
    let (head, body) = request.into_parts();
    let asked = format!("{} {}", head.method, head.uri);
    let mut answer = Response::builder().header("echo-asked", asked);
    for name in ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-client-cert"] {
        if let Some(value) = head.headers.get(name) {
            answer = answer.header(format!("echo-{name}"), value);
        }
    }
    // All of it first: a client that waits for `100 Continue` gets that only from a server that reads.
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    answer.body(Body::from(body)).expect("its fields are valid")
}
