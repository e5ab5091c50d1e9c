//! A listener of a process without file descriptors. A process of its own, whose limit can be lowered.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use plugin::{AcceptLimits, Context, DrainingListener, InFlight, ListenerMeters};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(60);

/// Few enough to use all of them.
const DESCRIPTORS: u64 = 256;

#[tokio::test]
async fn without_descriptors_accepting_pauses_and_goes_on_once_there_are_some() {
    let (cx, mut failures) = Context::for_test("gateway".parse().unwrap());
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(DESCRIPTORS), maximum }).unwrap();
    let listener = cx.listen_on_cores("bytes", "tcp", "127.0.0.1:0".parse().unwrap()).unwrap();
    let (address, meters): (SocketAddr, _) = (listener.address(), ListenerMeters::default());
    let limits = AcceptLimits { connections: 100, grace: Duration::from_secs(1), setting: None };
    let counted = meters.clone();
    let connection = |mut stream: tokio::net::TcpStream, _, _| async move {
        while let Ok(byte) = stream.read_u8().await {
            let _ = stream.write_u8(byte).await;
        }
    };
    let running = DrainingListener::connections(
        &cx,
        "bytes",
        listener,
        InFlight::default(),
        limits,
        counted,
        connection,
    );

    let mut held = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        held.push(file);
    }
    assert!(held.len() > 16, "the limit is the test's own");
    drop(held.pop());
    let client = TcpStream::connect(address).expect("the system accepts it for the listener");
    let pauses = || meters.accept_pauses();
    timeout(LONG, async {
        while pauses() < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("every pause is counted");
    drop(held);
    client.set_nonblocking(true).unwrap();
    let mut client = tokio::net::TcpStream::from_std(client).unwrap();
    client.write_u8(7).await.unwrap();
    assert_eq!(timeout(LONG, client.read_u8()).await.expect("it is served after all").unwrap(), 7);
    let before = pauses();
    for _ in 0..5 {
        let mut another = tokio::net::TcpStream::connect(address).await.unwrap();
        another.write_u8(8).await.unwrap();
        assert_eq!(timeout(LONG, another.read_u8()).await.unwrap().unwrap(), 8);
    }
    assert_eq!(pauses(), before, "it has recovered");
    assert_eq!(running.health(), plugin::Health::Ready);
    assert!(failures.try_recv().is_err());
    drop(client);
    timeout(LONG, running.stop()).await.unwrap();
}
