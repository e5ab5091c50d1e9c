use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connecting = TcpStream::connect(listener.local_addr().unwrap());
    let (one, other) = tokio::join!(connecting, listener.accept());
    (one.unwrap(), other.unwrap().0)
}

#[tokio::test]
async fn a_direction_has_a_buffer_only_while_bytes_arrive_or_wait() {
    let (mut writer, from) = pair().await;
    let (to, mut reader) = pair().await;
    let mut direction = Direction::default();
    let mut step = async |wanted: u64, has_buffer: bool| {
        poll_fn(|cx| {
            direction.poll(cx, &from, &to);
            let is_there = direction.moved >= wanted && direction.buffer.is_some() == has_buffer;
            if is_there { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    };
    step(0, false).await;
    for round in 1..=3_u64 {
        writer.write_all(b"piece").await.unwrap();
        step(round * 5, false).await;
        let mut got = [0; 5];
        reader.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"piece");
    }
    // A reader that does not read: one buffer waits, whatever the writer sends.
    let piece = vec![7; 1 << 20];
    let filling = async { while writer.write_all(&piece).await.is_ok() {} };
    let stuck = async {
        step(16, true).await;
    };
    tokio::select! {
        () = filling => panic!("the writer has no end"),
        () = stuck => {}
    }
}

#[test]
fn the_end_of_a_relay_follows_from_both_directions() {
    use State::{Ended, Lost, Reading, Refused, Writing};
    for (up, down, wanted) in [
        (Reading, Reading, None),
        (Ended, Writing, None),
        (Ended, Ended, Some(End::Closed)),
        (Lost, Writing, Some(End::ClientReset)),
        (Reading, Lost, Some(End::BackendReset)),
        // What the other side has sent before it refused to read is still on its way.
        (Refused, Reading, None),
        (Reading, Refused, None),
        (Refused, Ended, Some(End::BackendReset)),
        (Ended, Refused, Some(End::ClientReset)),
        (Refused, Lost, Some(End::BackendReset)),
        (Lost, Refused, Some(End::ClientReset)),
    ] {
        assert_eq!(end(&up, &down), wanted, "{up:?} {down:?}");
    }
}

/// What went through a relay: all that the client sent, all that it got, and the bytes that were counted.
async fn relayed(may_splice: bool, up: &[Vec<u8>], down: &[Vec<u8>]) -> (Vec<u8>, Vec<u8>, [u64; 2]) {
    let ((mut client, mut from_client), (mut to_backend, mut backend)) = (pair().await, pair().await);
    let (traffic, other) = (Traffic::default(), Traffic::default());
    let idle = Duration::from_secs(60);
    let relaying = relay(
        &mut from_client,
        &mut to_backend,
        idle,
        may_splice,
        [&traffic, &other],
        std::future::pending(),
    );
    let (end, sent, got) = tokio::join!(relaying, exchange(&mut backend, down), exchange(&mut client, up));
    assert_eq!(end, End::Closed);
    let counts = [&traffic.received, &traffic.sent].map(|count| count.load(Ordering::Relaxed));
    (sent, got, counts)
}

/// Sends pieces, with pauses for others in between, then ends; returns all that came.
async fn exchange(stream: &mut TcpStream, pieces: &[Vec<u8>]) -> Vec<u8> {
    let (mut read, mut write) = stream.split();
    let sending = async {
        for piece in pieces {
            write.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        write.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let ((), read) = tokio::join!(sending, read.read_to_end(&mut got));
    read.unwrap();
    got
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_relay_that_splices_moves_the_same_bytes_as_one_that_copies(
        up in proptest::collection::vec((0_usize..200_000, any::<u8>()), 0..12),
        down in proptest::collection::vec((0_usize..200_000, any::<u8>()), 0..12),
    ) {
        let pieces = |sizes: &[(usize, u8)]| -> Vec<Vec<u8>> {
            let piece = |(size, first): &(usize, u8)| (0..*size).map(|at| first.wrapping_add((at % 251) as u8)).collect();
            sizes.iter().map(piece).collect()
        };
        let (up, down) = (pieces(&up), pieces(&down));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (copied, spliced) =
            runtime.block_on(async { (relayed(false, &up, &down).await, relayed(true, &up, &down).await) });
        prop_assert!(copied == spliced, "{:?} {:?}", copied.2, spliced.2);
        prop_assert!(copied.0 == up.concat() && copied.1 == down.concat());
        prop_assert_eq!(copied.2, [up.concat().len() as u64, down.concat().len() as u64]);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_direction_splices_once_it_has_much_to_move_and_has_a_pipe_only_while_bytes_wait() {
    let (mut writer, from) = pair().await;
    let (to, mut reader) = pair().await;
    let mut direction = Direction::new(true);
    let mut moved = async |bytes: &[u8], splice: Splice| {
        let wanted = direction.moved + bytes.len() as u64;
        let moving = poll_fn(|cx| {
            direction.poll(cx, &from, &to);
            if direction.moved < wanted { Poll::Pending } else { Poll::Ready(()) }
        });
        let mut got = vec![0; bytes.len()];
        let (written, (), read) = tokio::join!(writer.write_all(bytes), moving, reader.read_exact(&mut got));
        written.unwrap();
        read.unwrap();
        assert!(got == bytes && direction.splice == splice, "{:?} after {wanted} bytes", direction.splice);
        poll_fn(|cx| {
            direction.poll(cx, &from, &to);
            Poll::Ready(())
        })
        .await;
        assert!(direction.buffer.is_none() && direction.pipe.is_none(), "it is idle");
    };
    moved(b"hello", Splice::Later).await;
    moved(&vec![5; 100_000], Splice::On).await;
    moved(b"more", Splice::On).await;
    moved(&vec![6; 300_000], Splice::On).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn bytes_in_a_pipe_are_copied_if_the_system_refuses_to_move_them() {
    let (mut writer, from) = pair().await;
    let (to, mut reader) = pair().await;
    let mut direction = Direction { splice: Splice::On, ..Direction::new(true) };
    writer.write_all(b"on their way").await.unwrap();
    let next = poll_fn(|cx| direction.step(cx, &from, &to)).await;
    assert_eq!((next, direction.pipe.is_some()), (State::Writing, true));
    direction.state = direction.copy_instead();
    assert_eq!((direction.splice, direction.pipe.is_none()), (Splice::Off, true));
    writer.write_all(b", and more").await.unwrap();
    writer.shutdown().await.unwrap();
    poll_fn(|cx| {
        direction.poll(cx, &from, &to);
        if direction.state == State::Ended { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let mut got = String::new();
    drop(to);
    reader.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "on their way, and more");
}
