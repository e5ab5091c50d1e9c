use futures_util::StreamExt;
use futures_util::future::FutureExt;

use super::*;

fn outbox() -> (Outbox, Counter) {
    let cut = Counter::default();
    (Outbox::new(4 * SLICE, &cut), cut)
}

fn whole(slices: usize) -> Bytes {
    (0..slices * SLICE).map(|at| u8::try_from(at % 251).unwrap()).collect::<Vec<_>>().into()
}

#[tokio::test(start_paused = true)]
async fn an_answer_comes_whole_and_gives_its_room_back() {
    let (outbox, cut) = outbox();
    for round in 0..3 {
        let room = outbox.take(4 * SLICE).await.expect("there is room");
        assert!(outbox.try_take(1).is_none());
        let (mut slices, mut body) = (room.body(whole(3)).into_data_stream(), Vec::new());
        while let Some(slice) = slices.next().await {
            body.extend_from_slice(&slice.unwrap());
        }
        assert_eq!(body, whole(3), "{round}");
    }
    assert_eq!((outbox.0.room.available_permits(), cut.get()), (4 * SLICE, 0));
}

#[tokio::test(start_paused = true)]
async fn room_that_an_answer_does_not_need_is_given_back_at_once() {
    let (outbox, _) = outbox();
    let sending = outbox.take(4 * SLICE).await.unwrap().send(whole(1));
    assert!(outbox.try_take(3 * SLICE).is_some());
    assert!(outbox.try_take(3 * SLICE + 1).is_none());
    drop(sending);
    assert!(outbox.try_take(9 * SLICE).is_some(), "what is larger than all takes all");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_became_larger_takes_more_room_or_none() {
    let (outbox, _) = outbox();
    let mut room = outbox.take(SLICE).await.unwrap();
    assert!(room.try_grow(2 * SLICE) && room.try_grow(SLICE));
    assert!(outbox.try_take(2 * SLICE + 1).is_none());
    let other = outbox.try_take(2 * SLICE).unwrap();
    assert!(!room.try_grow(3 * SLICE));
    drop(other);
    assert!(room.try_grow(9 * SLICE), "what is larger than all takes all");
}

#[tokio::test(start_paused = true)]
async fn whoever_does_not_read_loses_its_room_to_whoever_waits_and_nobody_else_does() {
    let (outbox, cut) = outbox();
    let mut stalled = outbox.take(2 * SLICE).await.unwrap().body(whole(2)).into_data_stream();
    let reading = outbox.take(2 * SLICE).await.unwrap().send(whole(2));
    assert_eq!(stalled.next().await.unwrap().unwrap().len(), SLICE);
    sleep(STALLED * 2).await;
    assert_eq!(reading.next().unwrap().map(|slice| slice.len()), Some(SLICE));
    assert_eq!(cut.get(), 0, "nobody waits");
    let began = Instant::now();
    assert!(outbox.take(SLICE).await.is_some());
    assert!(began.elapsed() <= LOOK);
    assert!(stalled.next().await.unwrap().is_err());
    assert_eq!(reading.next().unwrap().map(|slice| slice.len()), Some(SLICE), "it has read lately");
    assert_eq!(cut.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_room_has_an_end() {
    let (outbox, _) = outbox();
    let _held = outbox.take(4 * SLICE).await.unwrap();
    let began = Instant::now();
    assert!(outbox.take(1).await.is_none());
    assert!((PATIENCE..PATIENCE * 2).contains(&began.elapsed()));
    let answer = no_room();
    assert_eq!((answer.status().as_u16(), &answer.headers()[RETRY_AFTER]), (503, &HeaderValue::from(1)));
}

#[tokio::test]
async fn a_connection_has_a_slice_of_a_stream_and_no_more() {
    let window = Window::default();
    let first = window.admit(whole(1)).await;
    assert!(window.admit(Bytes::from_static(b"x")).now_or_never().is_none());
    drop(first);
    assert_eq!(window.admit(Bytes::from_static(b"x")).now_or_never().as_deref(), Some(&b"x"[..]));
}

#[tokio::test]
async fn an_answer_waits_here_until_its_connection_has_sent_what_it_has() {
    let (outbox, _) = outbox();
    let mut slices = outbox.take(2 * SLICE).await.unwrap().body(whole(2)).into_data_stream();
    let first = slices.next().await.unwrap().unwrap();
    assert!(slices.next().now_or_never().is_none());
    assert!(outbox.try_take(3 * SLICE).is_none(), "it has its room still");
    drop(first);
    assert_eq!(slices.next().await.unwrap().unwrap().len(), SLICE);
}
