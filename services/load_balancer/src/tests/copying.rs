//! What one side sends, ends or breaks off arrives at the other side as such.

use std::io::ErrorKind;
use std::sync::Mutex;

use tokio::sync::oneshot;

use super::*;
use crate::relay::reset;

/// Whether the client is the first, and whether long transfers are spliced.
const WAYS: [(bool, bool); 4] = [(true, false), (false, false), (true, true), (false, true)];

/// A backend that hands its only connection to the test.
async fn handing_over() -> (Backend, oneshot::Receiver<TcpStream>) {
    let (sender, receiver) = oneshot::channel();
    let sender = Arc::new(Mutex::new(Some(sender)));
    let backend = Backend::serving(move |stream| {
        let sender = sender.lock().unwrap().take();
        async move {
            let _ = sender.unwrap().send(stream);
        }
    })
    .await;
    (backend, receiver)
}

/// Both ends of a connection through a balancer.
async fn connection(more: Value) -> (Running, Backend, TcpStream, TcpStream) {
    let (backend, receiver) = handing_over().await;
    let running = Running::over(&[&backend], more).await;
    let client = running.connect().await;
    let server = timeout(PATIENCE, receiver).await.unwrap().unwrap();
    (running, backend, client, server)
}

#[tokio::test]
async fn either_side_may_end_its_direction_and_still_receive() {
    for (client_first, splice) in WAYS {
        let (running, _backend, client, server) = connection(json!({"splice": splice})).await;
        let (mut first, mut second) = if client_first { (client, server) } else { (server, client) };
        let question = vec![7; 300_000];
        let asking = async {
            first.write_all(&question).await.unwrap();
            first.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let ((), read) = tokio::join!(asking, second.read_to_end(&mut got));
        read.unwrap();
        assert!(got == question, "{} bytes", got.len());
        assert_eq!(running.metric("active", ""), 1, "the other direction is open");
        second.write_all(b"answer").await.unwrap();
        second.shutdown().await.unwrap();
        got.clear();
        first.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"answer");
        eventually("the connection has ended", async || running.metric("active", "") == 0).await;
        let (sent, received) = if client_first { (300_000, 6) } else { (6, 300_000) };
        assert_eq!(running.metric("bytes_total", "\"in\""), sent);
        assert_eq!(running.metric("bytes_total", "\"out\""), received);
    }
}

#[tokio::test]
async fn a_reset_arrives_as_a_reset_after_what_was_sent_before() {
    for (client_first, splice) in WAYS {
        let (_running, _backend, client, server) = connection(json!({"splice": splice})).await;
        let (mut first, mut second) = if client_first { (client, server) } else { (server, client) };
        let part = vec![1; 300_000];
        let mut got = part.clone();
        let (written, read) = tokio::join!(first.write_all(&part), second.read_exact(&mut got));
        written.unwrap();
        read.unwrap();
        reset(&first);
        drop(first);
        let error = timeout(PATIENCE, second.read_u8()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "client_first={client_first}");
    }
}

#[tokio::test]
async fn what_a_backend_says_before_it_goes_arrives_although_it_did_not_take_everything() {
    let (_running, _backend, mut client, mut server) = connection(json!({})).await;
    client.write_all(&[7; 1000]).await.unwrap();
    server.read_u8().await.unwrap();
    server.write_all(b"enough").await.unwrap();
    // There is unread data, so this is a reset.
    drop(server);
    let mut got = Vec::new();
    let ended = timeout(PATIENCE, client.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"enough");
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// Writes until the other side takes no more for a while.
async fn fill(stream: &mut TcpStream) -> usize {
    let piece = vec![1_u8; 256 * 1024];
    let mut sent = 0;
    while let Ok(written) = timeout(Duration::from_millis(300), stream.write(&piece)).await {
        sent += written.unwrap();
        assert!(sent < 64 << 20, "somebody takes everything");
    }
    sent
}

#[tokio::test]
async fn a_slow_reader_slows_its_sender_down_and_gets_everything() {
    for (client_sends, splice) in WAYS {
        let (_running, _backend, client, server) = connection(json!({"splice": splice})).await;
        let (mut sender, mut reader) = if client_sends { (client, server) } else { (server, client) };
        let sent = fill(&mut sender).await;
        let reading = async {
            let mut got = Vec::new();
            reader.read_to_end(&mut got).await.unwrap();
            got.len()
        };
        let (ended, got) = tokio::join!(sender.shutdown(), timeout(PATIENCE, reading));
        ended.unwrap();
        assert_eq!(got.unwrap(), sent, "client_sends={client_sends}");
    }
}

#[tokio::test]
async fn much_data_goes_both_ways_at_once_unchanged() {
    for splice in [false, true] {
        much_data_goes_both_ways(splice).await;
    }
}

async fn much_data_goes_both_ways(splice: bool) {
    let backend = Backend::greeting("a").await;
    let running = Running::over(&[&backend], json!({"splice": splice})).await;
    let mut client = running.connect().await;
    assert_eq!(greeting(&mut client).await, "a");
    let sent: Vec<u8> = (0..10_000_000_u32).map(|number| number.wrapping_mul(2_654_435_761) as u8).collect();
    let (mut read, mut write) = client.split();
    let sending = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let receiving = async {
        let mut got = Vec::new();
        read.read_to_end(&mut got).await.unwrap();
        got
    };
    let ((), got) = timeout(PATIENCE, async { tokio::join!(sending, receiving) }).await.unwrap();
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
    eventually("it has ended", async || running.metric("active", "") == 0).await;
    assert_eq!(running.metric("bytes_total", "\"in\""), 10_000_000);
    assert_eq!(running.metric("bytes_total", "\"out\""), 10_000_002);
}

#[tokio::test]
async fn a_connection_on_which_nothing_moves_is_reset_and_one_that_moves_is_not() {
    for splice in [false, true] {
        let more = json!({"timeouts": {"idle": "1s"}, "splice": splice});
        let (_running, _backend, mut client, mut server) = connection(more).await;
        // Enough to be spliced.
        let much = vec![3; 300_000];
        let mut got = much.clone();
        let (written, read) = tokio::join!(server.write_all(&much), client.read_exact(&mut got));
        written.unwrap();
        read.unwrap();
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(1300) {
            server.write_u8(1).await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), 1);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for side in [&mut client, &mut server] {
            let error = timeout(PATIENCE, side.read_u8()).await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    }
}

#[tokio::test]
async fn a_client_that_resets_its_connection_is_noticed_while_its_backend_reads_nothing() {
    for splice in [false, true] {
        let (running, _backend, mut client, server) = connection(json!({"splice": splice})).await;
        fill(&mut client).await;
        assert_eq!(running.metric("active", ""), 1);
        reset(&client);
        drop(client);
        eventually("the connection has ended", async || running.metric("active", "") == 0).await;
        drop(server);
    }
}
