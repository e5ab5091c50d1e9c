//! Members, views and bodies for the tests of this crate.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use cluster::ClusterView;
use http::StatusCode;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::sync::{mpsc, watch};
use types::api::{About, Member};
use types::{Generation, NodeId, Phase, Role, RoleState, ServiceName, api};

use super::{Answer, text};
use crate::{Limits, Mesh, Targets};

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
    let patience = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    while !condition() {
        assert!(tokio::time::Instant::now() < patience, "it never became true");
        tokio::task::yield_now().await;
    }
}
