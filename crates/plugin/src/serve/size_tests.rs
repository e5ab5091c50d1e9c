//! How much memory an idle connection takes of ours; the buffers of the parser come on top.

use std::mem::size_of_val;

use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::service_fn;

use super::connection::{Client, encrypted};
use super::first_bytes::Rewound;
use super::http1::{http1, with_refusals};
use super::link::Tcp;
use super::per_client::Accepted;
use super::progress::Progress;
use super::slots::Slots;
use super::*;

type Answering = BoxFuture<'static, Result<Response<Body>, Infallible>>;

fn service()
-> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = Answering> + Clone {
    service_fn(|_| Box::pin(async { Ok(Response::new(Body::empty())) }) as Answering)
}

#[tokio::test]
async fn the_tasks_of_a_connection_are_small() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let shared = Shared::new(ServeLimits::default(), Protocols::default());
    let slot = Slots::new(1, 1).enter(0).expect("there is room");
    let (peer, activity) = (stream.peer_addr().unwrap(), slot.activity());
    let stop = CancellationToken::new();
    let accepted = Accepted { peer, shared: Arc::clone(&shared), client: None };
    let whole = size_of_val(&connection(stream, accepted, service(), stop.clone(), slot));
    let stream = Arc::new(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
    let due = Instant::now();
    let tls =
        encrypted(Arc::clone(&stream), peer, due, service(), Arc::clone(&shared), stop, activity.clone());
    let tls = size_of_val(&tls);
    let client = Client { peer, session: None };
    let second = Tcp(Arc::clone(&stream));
    let transport = Rewound::new(bytes::Bytes::new(), Tcp(stream));
    let plain = size_of_val(&http1(
        transport,
        None,
        due,
        client.clone(),
        service(),
        Arc::clone(&shared),
        activity.clone(),
    ));
    let transport = Rewound::new(bytes::Bytes::new(), second);
    let http2 = size_of_val(&http2::serve(transport, due, client, service(), shared, activity));
    let sizes = [whole, tls, plain, http2];
    assert!(whole <= 640 && tls <= 384 && plain <= 1536 && http2 <= 2048, "{sizes:?} bytes");
}

#[test]
fn the_place_of_a_request_that_an_idle_connection_keeps_is_small() {
    fn kept<S: hyper::service::Service<Request<Incoming>>>(_: &S) -> usize {
        size_of::<S::Future>()
    }
    let client = Client { peer: SocketAddr::from(([127, 0, 0, 1], 1)), session: None };
    let shared = Shared::new(ServeLimits::default(), Protocols::default());
    let size = kept(&with_refusals(service(), client, Progress::default(), shared));
    assert!(size <= 512, "{size} bytes");
}
