//! A stream of changes as the body of an answer: server-sent events, no faster than they are read.

use std::pin::Pin;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use tokio::time::Instant;
use tracing::debug;
use types::ShardId;

use crate::bounds::{Bounds, Outbox, SLICE, Sending, Stalled, Watching, Window};
use crate::cursor::Cursor;
use crate::watch::{HEARTBEAT, Sent, Text};

/// An event of more bytes needs room, wherever it comes from.
const LARGE: usize = 4 * SLICE;

/// The answer: first where it begins, then what is sent, with the place in every shard as its id.
pub(crate) fn answer(
    cursor: Cursor,
    sent: impl Stream<Item = (ShardId, Sent)> + Send + 'static,
    bounds: &Bounds,
    watching: Watching,
) -> Response {
    let ready = event(&cursor, "ready", &serde_json::json!({ "cursor": cursor.to_string() }).to_string());
    let outgoing = Outgoing {
        cursor,
        sent: Box::pin(sent),
        silent_since: Instant::now(),
        rest: Rest::Small(ready),
        window: Window::default(),
        events: bounds.events.clone(),
        _watching: watching,
    };
    let bytes = stream::try_unfold(outgoing, |mut outgoing| async move {
        Ok::<_, Stalled>(outgoing.next().await?.map(|bytes| (bytes, outgoing)))
    });
    let mut answer = Response::new(Body::from_stream(bytes));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// A stream on its way.
struct Outgoing {
    cursor: Cursor,
    sent: Pin<Box<dyn Stream<Item = (ShardId, Sent)> + Send>>,
    silent_since: Instant,
    /// Of the last event.
    rest: Rest,
    window: Window,
    events: Outbox,
    _watching: Watching,
}

/// What is still to be sent of an event.
enum Rest {
    Small(Bytes),
    Large(Sending),
}

impl Outgoing {
    /// The next bytes; nothing at the end. None are made before the connection has sent what it has.
    async fn next(&mut self) -> Result<Option<Bytes>, Stalled> {
        loop {
            let slice = match &mut self.rest {
                Rest::Small(bytes) => {
                    let slice = bytes.split_to(bytes.len().min(SLICE));
                    (!slice.is_empty()).then_some(slice)
                }
                Rest::Large(sending) => sending.next()?,
            };
            if let Some(slice) = slice {
                return Ok(Some(self.window.admit(slice).await));
            }
            // Whoever holds room waits for nothing but its reader.
            self.rest = Rest::Small(Bytes::new());
            let Some((shard, sent)) = self.sent.next().await else { return Ok(None) };
            let Some(rest) = self.rest_of(shard, sent).await else { return Ok(None) };
            self.rest = rest;
        }
    }

    /// An event as it is sent. Nothing if there is no room for it.
    async fn rest_of(&mut self, shard: ShardId, sent: Sent) -> Option<Rest> {
        Some(match sent {
            Sent::Change { place, kind, data: Text { text, mut room } } => {
                self.cursor.set(shard, place);
                self.silent_since = Instant::now();
                let bytes = event(&self.cursor, kind.as_str(), &text);
                drop(text);
                if room.is_none() && bytes.len() > LARGE {
                    room = self.events.take(bytes.len()).await;
                    if room.is_none() {
                        debug!(%shard, "a stream of changes ends: there is no room for a large event");
                        return None;
                    }
                }
                match room {
                    Some(room) => Rest::Large(room.send(bytes)),
                    None => Rest::Small(bytes),
                }
            }
            Sent::Silence(place) => {
                self.cursor.set(shard, place);
                // Each shard is silent for itself, and one heartbeat is enough.
                if self.silent_since.elapsed() < HEARTBEAT / 2 {
                    return Some(Rest::Small(Bytes::new()));
                }
                self.silent_since = Instant::now();
                Rest::Small(format!(":\nid: {}\n\n", self.cursor).into())
            }
            Sent::Gone(problem) => {
                let data = serde_json::to_string(&problem).expect("it is strings and numbers");
                // Without an id: whoever goes on from the last one is told the same again.
                Rest::Small(format!("event: gone\ndata: {data}\n\n").into())
            }
        })
    }
}

fn event(cursor: &Cursor, name: &str, data: &str) -> Bytes {
    format!("id: {cursor}\nevent: {name}\ndata: {data}\n\n").into()
}
