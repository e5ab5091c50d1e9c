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

#[tokio::test]
async fn buffers_are_used_again() {
    let taken: Vec<_> = (0..2 * KEPT).map(|_| Buffer::take()).collect();
    drop(taken);
    let kept = FREE.with(|free| free.borrow().len());
    assert_eq!(kept, KEPT, "only so many are kept");
    drop((Buffer::take(), Buffer::take()));
    assert_eq!(FREE.with(|free| free.borrow().len()), KEPT);
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
