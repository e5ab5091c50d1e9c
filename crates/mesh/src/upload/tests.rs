//! A body that successive attempts read.

use std::future::poll_fn;
use std::task::Wake;
use std::time::Duration;

use futures_util::FutureExt;
use http_body_util::{BodyExt, Full};
use tokio::sync::mpsc;

use super::*;
use crate::testing::{Pieces, whole};

type Sender = mpsc::Sender<Result<Bytes, &'static str>>;

fn streamed(keep: usize) -> (Sender, Upload) {
    let (sender, body) = Pieces::new();
    (sender, Upload::new(body, keep))
}

async fn next(body: &mut AttemptBody) -> Option<Result<Bytes, String>> {
    let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
    Some(frame.map(|frame| frame.into_data().unwrap()).map_err(|error| error.to_string()))
}

async fn put(sender: &Sender, text: &'static str) {
    sender.send(Ok(Bytes::from_static(text.as_bytes()))).await.unwrap();
}

fn kept(upload: &Upload) -> usize {
    match upload {
        Upload::Empty => 0,
        Upload::Streamed(state) => lock(state).kept.len(),
    }
}

#[tokio::test]
async fn a_second_attempt_gets_the_kept_frames_and_then_the_rest() {
    let (sender, upload) = streamed(100);
    let mut first = upload.attempt();
    put(&sender, "one ").await;
    assert_eq!(next(&mut first).await.unwrap().unwrap(), "one ");
    let second = upload.attempt();
    assert_eq!(next(&mut first).await.unwrap().unwrap_err(), "the request is being sent again");
    put(&sender, "two").await;
    drop(sender);
    assert_eq!(whole(second).await.unwrap(), "one two");
    assert!(upload.can_replay());
    assert_eq!(whole(upload.attempt()).await.unwrap(), "one two");
}

#[tokio::test]
async fn a_second_attempt_that_is_aborted_loses_nothing() {
    let (sender, upload) = streamed(100);
    put(&sender, "one ").await;
    next(&mut upload.attempt()).await.unwrap().unwrap();
    put(&sender, "two ").await;
    let mut second = upload.attempt();
    assert_eq!(next(&mut second).await.unwrap().unwrap(), "one ");
    drop(upload.attempt());
    drop(second);
    drop(sender);
    assert_eq!(whole(upload.attempt()).await.unwrap(), "one two ");
}

#[tokio::test]
async fn data_over_the_limit_is_not_kept_and_still_arrives() {
    let (sender, upload) = streamed(5);
    let mut body = upload.attempt();
    put(&sender, "123").await;
    next(&mut body).await.unwrap().unwrap();
    assert!(upload.can_replay());
    put(&sender, "456").await;
    next(&mut body).await.unwrap().unwrap();
    assert!(!upload.can_replay());
    assert_eq!(kept(&upload), 0);
    put(&sender, "7").await;
    assert_eq!(next(&mut body).await.unwrap().unwrap(), "7");
    assert!(!upload.can_replay(), "dropped frames do not come back");
}

#[tokio::test]
async fn once_the_request_is_answered_nothing_is_kept() {
    let (sender, upload) = streamed(100);
    put(&sender, "one ").await;
    next(&mut upload.attempt()).await.unwrap().unwrap();
    let mut second = upload.attempt();
    upload.settle();
    assert_eq!(kept(&upload), 1, "the second attempt has not read it yet");
    assert_eq!(next(&mut second).await.unwrap().unwrap(), "one ");
    assert_eq!(kept(&upload), 0);
    put(&sender, "two").await;
    drop(sender);
    assert_eq!(whole(second).await.unwrap(), "two");
    assert_eq!(kept(&upload), 0);
}

#[tokio::test]
async fn a_client_that_fails_is_noticed() {
    let (sender, upload) = streamed(100);
    sender.send(Err("gone")).await.unwrap();
    let mut body = upload.attempt();
    assert_eq!(next(&mut body).await.unwrap().unwrap_err(), "gone");
    assert!(upload.is_failed() && !upload.can_replay());
    assert!(next(&mut body).await.is_none());
}

#[tokio::test]
async fn trailers_are_replayed_too() {
    let mut trailers = HeaderMap::new();
    trailers.insert("checksum", http::HeaderValue::from_static("7"));
    let with = trailers.clone();
    let body = Full::new(Bytes::from_static(b"data")).with_trailers(async move { Some(Ok(with)) });
    let upload = Upload::new(body, 100);
    for _ in 0..2 {
        let body = upload.attempt().collect().await.unwrap();
        assert_eq!(body.trailers(), Some(&trailers));
        assert_eq!(body.to_bytes(), "data");
    }
}

#[test]
fn the_length_is_known_to_every_attempt() {
    let upload = Upload::new(Full::new(Bytes::from_static(b"12345")), 100);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..2 {
        let mut body = upload.attempt();
        assert_eq!(body.size_hint().exact(), Some(5));
        assert!(!body.is_end_stream());
        assert!(Pin::new(&mut body).poll_frame(&mut cx).is_ready());
        assert_eq!(body.size_hint().exact(), Some(0));
        assert!(body.is_end_stream());
    }
    let empty = Upload::new(Full::new(Bytes::new()), 100);
    assert!(matches!(empty, Upload::Empty) && empty.attempt().is_end_stream());
}

#[test]
fn a_waiting_attempt_is_woken_when_it_is_detached() {
    struct Woken(std::sync::atomic::AtomicBool);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }
    let (_sender, upload) = streamed(100);
    let woken = Arc::new(Woken(false.into()));
    let waker = Waker::from(Arc::clone(&woken));
    let mut body = upload.attempt();
    assert!(Pin::new(&mut body).poll_frame(&mut Context::from_waker(&waker)).is_pending());
    assert!(upload.progress().unwrap().awaits_client);
    upload.detach();
    assert!(woken.0.load(std::sync::atomic::Ordering::SeqCst));
}

#[tokio::test(start_paused = true)]
async fn only_time_in_which_the_client_is_waited_for_makes_a_body_slow() {
    const HOUR: Duration = Duration::from_secs(3600);
    let (sender, upload) = streamed(100);
    let upload = upload.at_least(MinRate::new(100));
    let look = |upload: &Upload| upload.pace(Instant::now()).map(|at| at.map(|at| at - Instant::now()));
    assert_eq!(look(&upload), Ok(Some(MinRate::WINDOW)));
    // It is not sent yet: the request waits for a member.
    tokio::time::advance(HOUR).await;
    let mut body = upload.attempt();
    put(&sender, "one").await;
    assert_eq!(next(&mut body).await.unwrap().unwrap(), "one");
    // The server reads nothing, so nobody asks for the next piece.
    tokio::time::advance(HOUR).await;
    assert_eq!(look(&upload), Ok(Some(MinRate::WINDOW)));
    assert!(next(&mut body).now_or_never().is_none());
    tokio::time::advance(MinRate::WINDOW / 3).await;
    assert_eq!(look(&upload), Ok(Some(MinRate::WINDOW * 2 / 3)));
    // Another attempt begins, and reads what is kept first. What was waited before counts.
    let mut body = upload.attempt();
    tokio::time::advance(HOUR).await;
    assert_eq!(next(&mut body).await.unwrap().unwrap(), "one");
    assert_eq!(look(&upload), Ok(Some(MinRate::WINDOW * 2 / 3)));
    assert!(next(&mut body).now_or_never().is_none());
    tokio::time::advance(MinRate::WINDOW).await;
    assert_eq!(look(&upload), Err(TooSlow { arrived: 3 }));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_has_ended_and_a_request_that_was_answered_are_not_slow() {
    let (sender, upload) = streamed(100);
    let upload = upload.at_least(MinRate::new(100));
    drop(sender);
    assert!(next(&mut upload.attempt()).await.is_none());
    assert_eq!(upload.pace(Instant::now()), Ok(None));

    let (_sender, upload) = streamed(100);
    let upload = upload.at_least(MinRate::new(100));
    assert!(next(&mut upload.attempt()).now_or_never().is_none());
    upload.settle();
    tokio::time::advance(MinRate::WINDOW * 2).await;
    assert_eq!(upload.pace(Instant::now()), Ok(None));
}
