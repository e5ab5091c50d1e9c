//! Servers, members and bodies for the tests of this crate.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use cluster::ClusterView;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use types::api::{About, Member};
use types::{Generation, NodeId, Phase, Role, RoleState, ServiceName, api};

use crate::{BaseUrl, Limits, Mesh, Targets};

pub(crate) type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// A server that runs until it is dropped.
pub(crate) struct Upstream {
    pub(crate) addr: SocketAddr,
    /// The number of requests or connections received.
    pub(crate) hits: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Upstream {
    /// Answers each request with the handler's answer.
    pub(crate) async fn serving<F, A>(handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
        A: Future<Output = Answer> + Send + 'static,
    {
        let hits = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&hits);
        Self::accepting(hits, move |stream| {
            let (handler, count) = (handler.clone(), Arc::clone(&count));
            let service = service_fn(move |request| {
                count.fetch_add(1, Ordering::SeqCst);
                let answer = handler(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            async move {
                let _ = connection.await;
            }
        })
        .await
    }

    /// Reads the head of a request and any data that came with it, writes some bytes and closes the connection.
    pub(crate) async fn blurting(bytes: &'static [u8]) -> Self {
        Self::raw(move |mut stream| async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(bytes).await;
        })
        .await
    }

    /// Passes each connection to the handler.
    pub(crate) async fn raw<F, A>(handler: F) -> Self
    where
        F: Fn(TcpStream) -> A + Clone + Send + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        let hits = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&hits);
        Self::accepting(hits, move |stream| {
            count.fetch_add(1, Ordering::SeqCst);
            handler(stream)
        })
        .await
    }

    async fn accepting<F, A>(hits: Arc<AtomicUsize>, handler: F) -> Self
    where
        F: Fn(TcpStream) -> A + Send + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(handler(stream));
            }
        });
        Self { addr, hits, _tasks: tasks }
    }

    pub(crate) fn url(&self) -> BaseUrl {
        format!("http://{}", self.addr).parse().unwrap()
    }

    pub(crate) fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }
}

/// An address where no process listens.
pub(crate) async fn closed_port() -> BaseUrl {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap()).parse().unwrap()
}

/// Reads until the end of a request's head.
pub(crate) async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).await.is_ok_and(|read| read > 0) {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

pub(crate) fn text(text: impl Into<Bytes>) -> Answer {
    let body = Full::new(text.into()).map_err(|never| match never {});
    Response::new(BodyExt::boxed(body))
}

pub(crate) fn not_processed() -> Answer {
    let mut answer = text("not now");
    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    answer.headers_mut().insert(api::NOT_PROCESSED, http::HeaderValue::from_static("1"));
    answer
}

/// The whole body, as text.
pub(crate) async fn whole<B>(body: B) -> Result<String, B::Error>
where
    B: Body<Data = Bytes>,
{
    let bytes = body.collect().await?.to_bytes();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A body whose pieces arrive through a channel.
pub(crate) struct Pieces(mpsc::Receiver<Result<Bytes, &'static str>>);

impl Pieces {
    pub(crate) fn new() -> (mpsc::Sender<Result<Bytes, &'static str>>, Self) {
        let (sender, receiver) = mpsc::channel(1);
        (sender, Self(receiver))
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

pub(crate) fn echo() -> ServiceName {
    "echo".parse().unwrap()
}

pub(crate) fn member(id: &str, addr: SocketAddr, phase: Phase) -> Member {
    let role = Role::Service { service: echo(), shard: None };
    Member { state: Some(RoleState { phase, ..RoleState::starting(role) }), ..standby(id, addr, &[]) }
}

pub(crate) fn standby(id: &str, addr: SocketAddr, runnable: &[ServiceName]) -> Member {
    Member {
        id: id.parse().unwrap(),
        generation: Generation(1),
        version: 1,
        http: format!("http://{addr}"),
        gossip: String::new(),
        state: Some(RoleState { phase: Phase::Ready, ..RoleState::starting(Role::Standby) }),
        about: About {
            runnable: runnable.iter().filter_map(ServiceName::default_type).collect(),
            ..About::default()
        },
        store: None,
    }
}

pub(crate) fn view(members: impl IntoIterator<Item = Member>) -> ClusterView {
    let me: NodeId = "me".parse().unwrap();
    ClusterView::new("test".parse().unwrap(), me, members)
}

/// A mesh and the sender of its view.
pub(crate) fn mesh(
    members: impl IntoIterator<Item = Member>,
    limits: Limits,
) -> (watch::Sender<ClusterView>, Mesh) {
    let (sender, receiver) = watch::channel(view(members));
    (sender, Mesh::new(receiver, Targets::any(), limits))
}

/// Waits until a condition becomes true.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    let patience = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while !condition() {
        assert!(tokio::time::Instant::now() < patience, "it never became true");
        tokio::task::yield_now().await;
    }
}
