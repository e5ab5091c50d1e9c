use futures_util::StreamExt;
use futures_util::future::FutureExt;
use http::HeaderValue;
use http::header::RETRY_AFTER;

use super::*;

fn buffer() -> (AnswerBuffer, Counter) {
    let disconnected = Counter::default();
    (AnswerBuffer::new(4 * CHUNK, &disconnected), disconnected)
}

fn whole(chunks: usize) -> Bytes {
    (0..chunks * CHUNK).map(|at| u8::try_from(at % 251).unwrap()).collect::<Vec<_>>().into()
}

#[tokio::test(start_paused = true)]
async fn an_answer_arrives_whole_and_returns_its_space() {
    let (buffer, disconnected) = buffer();
    for attempt in 0..3 {
        let space = buffer.take(4 * CHUNK).await.unwrap();
        assert!(buffer.try_take(1).is_none());
        let (mut chunks, mut body) = (space.body(whole(3)).into_data_stream(), Vec::new());
        while let Some(chunk) = chunks.next().await {
            body.extend_from_slice(&chunk.unwrap());
        }
        assert_eq!(body, whole(3), "{attempt}");
    }
    assert_eq!((buffer.0.space.available_permits(), disconnected.get()), (4 * CHUNK, 0));
}

#[tokio::test(start_paused = true)]
async fn space_that_an_answer_does_not_need_is_returned_at_once() {
    let (buffer, _) = buffer();
    let outgoing = buffer.take(4 * CHUNK).await.unwrap().send(whole(1));
    assert!(buffer.try_take(3 * CHUNK).is_some());
    assert!(buffer.try_take(3 * CHUNK + 1).is_none());
    drop(outgoing);
    assert!(buffer.try_take(9 * CHUNK).is_some(), "what is larger than all takes all");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_became_larger_takes_more_space_or_none() {
    let (buffer, _) = buffer();
    let mut space = buffer.take(CHUNK).await.unwrap();
    assert!(space.try_grow(2 * CHUNK) && space.try_grow(CHUNK));
    assert!(buffer.try_take(2 * CHUNK + 1).is_none());
    let other = buffer.try_take(2 * CHUNK).unwrap();
    assert!(!space.try_grow(3 * CHUNK));
    drop(other);
    assert!(space.try_grow(9 * CHUNK), "what is larger than all takes all");
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_json_grows_within_the_buffer_and_a_small_one_needs_no_space() {
    let (buffer, _) = buffer();
    let answer = buffer.take(1).await.unwrap().json(vec![b'1'; 3 * CHUNK]).unwrap();
    assert_eq!(answer.headers()[CONTENT_LENGTH], (3 * CHUNK).to_string());
    assert!(buffer.try_take(CHUNK + 1).is_none());
    let more = buffer.try_take(1).unwrap();
    assert_eq!(more.json(vec![b'1'; 2 * CHUNK]).unwrap_err(), NoSpace);
    assert!(buffer.try_take(1).unwrap().json(b"{}".to_vec()).is_ok());
    assert!(buffer.try_take(CHUNK).is_some(), "it is in no buffer");
}

#[tokio::test(start_paused = true)]
async fn only_a_paused_reader_loses_its_space_to_waiting_answers() {
    let (buffer, disconnected) = buffer();
    let mut paused = buffer.take(2 * CHUNK).await.unwrap().body(whole(2)).into_data_stream();
    let reading = buffer.take(2 * CHUNK).await.unwrap().send(whole(2));
    assert_eq!(paused.next().await.unwrap().unwrap().len(), CHUNK);
    sleep(PAUSED * 2).await;
    assert_eq!(reading.next().unwrap().map(|chunk| chunk.len()), Some(CHUNK));
    assert_eq!(disconnected.get(), 0, "no answer waits");
    let began = Instant::now();
    assert!(buffer.take(CHUNK).await.is_ok());
    assert!(began.elapsed() <= POLL);
    assert!(paused.next().await.unwrap().is_err());
    assert_eq!(reading.next().unwrap().map(|chunk| chunk.len()), Some(CHUNK), "it has read lately");
    assert_eq!(disconnected.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_space_has_an_end() {
    let (buffer, _) = buffer();
    let _held = buffer.take(4 * CHUNK).await.unwrap();
    let began = Instant::now();
    let error = buffer.take(1).await.unwrap_err();
    assert!((AnswerBuffer::WAIT..AnswerBuffer::WAIT * 2).contains(&began.elapsed()));
    let answer = error.to_response("try again in a moment");
    assert_eq!((answer.status().as_u16(), &answer.headers()[RETRY_AFTER]), (503, &HeaderValue::from(1)));
}

#[tokio::test]
async fn an_answer_waits_until_its_connection_has_sent_the_previous_chunk() {
    let (buffer, _) = buffer();
    let mut chunks = buffer.take(2 * CHUNK).await.unwrap().body(whole(2)).into_data_stream();
    let first = chunks.next().await.unwrap().unwrap();
    assert!(chunks.next().now_or_never().is_none());
    assert!(buffer.try_take(3 * CHUNK).is_none(), "it still has its space");
    drop(first);
    assert_eq!(chunks.next().await.unwrap().unwrap().len(), CHUNK);
}

#[test]
fn no_more_streams_than_the_limit_are_let_in_at_once() {
    let open = Gauge::default();
    let limit = StreamLimit::new(1, &open);
    let first = limit.enter();
    assert!(first.is_some() && limit.enter().is_none());
    assert_eq!((limit.most(), open.get()), (1, 1));
    drop(first);
    assert_eq!(open.get(), 0);
    assert!(limit.enter().is_some());
}
