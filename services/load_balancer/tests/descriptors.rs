//! Connections whose bytes the system moves through pipes. A process of its own, whose descriptors can be counted.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use load_balancer::LoadBalancer;
use plugin::{Context, Plugin};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(60);
/// How long a client writes before it leaves.
const SHORT: Duration = Duration::from_millis(500);
/// How many pipes a core keeps, each with two descriptors.
const KEPT: usize = 16;

fn open() -> usize {
    fs::read_dir("/proc/self/fd").expect("this is Linux").count()
}

/// Sends much through a connection, gets it back, and ends it; or leaves in the middle.
async fn use_once(address: SocketAddr, leaves: bool) {
    let mut stream = TcpStream::connect(address).await.expect("the balancer serves it");
    let much = vec![7; 1 << 20];
    let (mut read, mut write) = stream.split();
    if leaves {
        // Nobody reads what comes back, so the last of it may never be taken.
        if let Ok(written) = timeout(SHORT, write.write_all(&much)).await {
            written.expect("the balancer serves it");
        }
        return;
    }
    let sending = async {
        write.write_all(&much).await.expect("the balancer serves it");
        write.shutdown().await.expect("the balancer serves it");
    };
    let mut got = Vec::new();
    let ((), received) = tokio::join!(sending, read.read_to_end(&mut got));
    received.expect("the balancer serves it");
    assert!(got == much);
}

#[tokio::test]
async fn no_pipe_is_left_behind_by_connections_that_end_or_break() {
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend_address = backend.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut stream, _) = backend.accept().await.unwrap();
            connections.spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
            while connections.try_join_next().is_some() {}
        }
    });
    let (cx, _failures) = Context::for_test("load_balancer".parse().unwrap());
    let settings = json!({"listeners": [{
        "name": "main", "address": "127.0.0.1:0", "splice": true, "backends": [{"address": backend_address}],
    }]});
    let service = LoadBalancer.prepare(&settings).unwrap().start(cx.clone()).await.unwrap();
    let address: SocketAddr = cx.endpoints.urls()["main"].strip_prefix("tcp://").unwrap().parse().unwrap();
    use_once(address, false).await;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (before, kept) = (open(), 2 * KEPT * cores);
    for round in 0..3 {
        let mut using = JoinSet::new();
        for number in 0..40 {
            using.spawn(use_once(address, number % 4 == round));
        }
        timeout(LONG, using.join_all()).await.unwrap();
    }
    let returned = async {
        while open() > before + kept {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let returned = timeout(LONG, returned).await;
    assert!(returned.is_ok(), "{} descriptors were open, and {} are", before, open());
    service.stop().await.unwrap();
}
