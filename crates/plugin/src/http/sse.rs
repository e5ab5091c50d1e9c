//! Server-sent events as the body of an answer (WHATWG HTML standard, section 9.2), with back-pressure.
//!
//! Each event carries an id from which the stream can be resumed: a client sends it back as `Last-Event-ID`. While there
//! are no events, a comment with the current id is sent regularly, so that no proxy takes the stream for dead.

use std::fmt::Display;
use std::pin::Pin;
use std::str::FromStr;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue};
use mesh::shards::{Cursor, Update};
use tokio::time::Instant;
use tracing::debug;
use types::ShardId;

use super::{AnswerBuffer, CHUNK, Outgoing, SlowReader, Space, Window};

/// How long a stream has no event before a heartbeat is sent.
pub use mesh::shards::HEARTBEAT;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// An event of more bytes needs space, whatever its source.
const LARGE: usize = 4 * CHUNK;

/// What a stream sends next.
#[derive(Debug)]
pub enum Event {
    /// Something happened.
    Data {
        /// The position after this event, from which a stream can be resumed.
        id: String,
        /// The event's name.
        name: &'static str,
        /// One line of text, as JSON is.
        data: String,
        /// Space that was already taken for it.
        space: Option<Space>,
    },
    /// Nothing happened for [`HEARTBEAT`]. If several sources of one stream report this, one heartbeat is sent for all.
    Silence {
        /// The position from which a stream can be resumed now.
        id: String,
    },
    /// The last event. It has no id: a client that resumes from the previous one gets it again.
    Last {
        /// The event's name.
        name: &'static str,
        /// One line of text.
        data: String,
    },
}

/// The id of the last event that the client has received, from its `Last-Event-ID` header.
pub fn last_event_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty())?;
    Some(String::from_utf8_lossy(id.as_bytes()).into_owned())
}

/// The events of shards' streams, as [`mesh::shards::events`] reads them: first `ready` with the cursor, then each item with
/// the cursor after it. `data` gives the name and the data of an item's event, and the space that was taken for it.
pub fn of_updates<P, T>(
    mut cursor: Cursor<P>,
    updates: impl Stream<Item = (ShardId, Update<P, T>)> + Send + 'static,
    data: impl Fn(T) -> (&'static str, String, Option<Space>) + Send + 'static,
) -> impl Stream<Item = Event> + Send + 'static
where
    P: Copy + Display + FromStr + Send + 'static,
    T: 'static,
{
    let ready = serde_json::json!({ "cursor": cursor.to_string() }).to_string();
    let ready = Event::Data { id: cursor.to_string(), name: "ready", data: ready, space: None };
    let updates = updates.map(move |(shard, update)| match update {
        Update::Item { place, item } => {
            cursor.set(shard, place);
            let (name, data, space) = data(item);
            Event::Data { id: cursor.to_string(), name, data, space }
        }
        Update::Silence(place) => {
            cursor.set(shard, place);
            Event::Silence { id: cursor.to_string() }
        }
        Update::Gone(gone) => {
            let data = serde_json::to_string(&gone).expect("it is strings and numbers");
            Event::Last { name: "gone", data }
        }
    });
    stream::iter([ready]).chain(updates)
}

/// The answer that sends these events. Large events take space in `buffer`; `guard` is dropped when the body ends.
pub fn answer(
    events: impl Stream<Item = Event> + Send + 'static,
    buffer: AnswerBuffer,
    guard: impl Send + 'static,
) -> Response {
    let body = Sending {
        events: Box::pin(events),
        silent_since: Instant::now(),
        rest: Rest::Small(Bytes::new()),
        window: Window::default(),
        buffer,
        _guard: guard,
    };
    let bytes = stream::try_unfold(body, |mut body| async move {
        Ok::<_, SlowReader>(body.next().await?.map(|bytes| (bytes, body)))
    });
    let mut answer = Response::new(Body::from_stream(bytes));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// A stream that is being sent.
struct Sending<G> {
    events: Pin<Box<dyn Stream<Item = Event> + Send>>,
    silent_since: Instant,
    /// The rest of the last event.
    rest: Rest,
    window: Window,
    buffer: AnswerBuffer,
    _guard: G,
}

/// The unsent rest of an event.
enum Rest {
    Small(Bytes),
    Large(Outgoing),
}

impl<G> Sending<G> {
    /// The next bytes; `None` at the end. Waits until the connection has sent what it has.
    async fn next(&mut self) -> Result<Option<Bytes>, SlowReader> {
        loop {
            let chunk = match &mut self.rest {
                Rest::Small(bytes) => {
                    let chunk = bytes.split_to(bytes.len().min(CHUNK));
                    (!chunk.is_empty()).then_some(chunk)
                }
                Rest::Large(outgoing) => outgoing.next()?,
            };
            if let Some(chunk) = chunk {
                return Ok(Some(self.window.admit(chunk).await));
            }
            // Space is released before the wait for the next event: a holder of space may only wait for its reader.
            self.rest = Rest::Small(Bytes::new());
            let Some(event) = self.events.next().await else { return Ok(None) };
            let Some(rest) = self.rest_of(event).await else { return Ok(None) };
            self.rest = rest;
        }
    }

    /// An event in the form that is sent; `None` if there is no space for it.
    async fn rest_of(&mut self, event: Event) -> Option<Rest> {
        Some(match event {
            Event::Data { id, name, data, mut space } => {
                self.silent_since = Instant::now();
                let bytes = Bytes::from(format!("id: {id}\nevent: {name}\ndata: {data}\n\n"));
                drop(data);
                if space.is_none() && bytes.len() > LARGE {
                    space = self.buffer.take(bytes.len()).await.ok();
                    if space.is_none() {
                        debug!(id, "a stream of events ends: there is no space for a large one");
                        return None;
                    }
                }
                match space {
                    Some(space) => Rest::Large(space.send(bytes)),
                    None => Rest::Small(bytes),
                }
            }
            Event::Silence { id } => {
                if self.silent_since.elapsed() < HEARTBEAT / 2 {
                    return Some(Rest::Small(Bytes::new()));
                }
                self.silent_since = Instant::now();
                Rest::Small(format!(":\nid: {id}\n\n").into())
            }
            Event::Last { name, data } => Rest::Small(format!("event: {name}\ndata: {data}\n\n").into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus_client::metrics::counter::Counter;
    use types::SseParser;

    use super::*;

    fn data(id: &str, data: String) -> Event {
        Event::Data { id: id.to_owned(), name: "put", data, space: None }
    }

    fn sent(events: Vec<Event>, guard: &Arc<()>) -> Response {
        answer(stream::iter(events), AnswerBuffer::new(8 * LARGE, &Counter::default()), Arc::clone(guard))
    }

    #[tokio::test(start_paused = true)]
    async fn events_have_ids_to_resume_from_and_the_last_one_has_none() {
        let guard = Arc::new(());
        let large = "x".repeat(2 * LARGE);
        let events = vec![
            data("0:1", "{}".to_owned()),
            Event::Silence { id: "0:2".to_owned() },
            data("0:3", large.clone()),
            Event::Last { name: "gone", data: "1".to_owned() },
        ];
        let answer = sent(events, &guard);
        assert_eq!(answer.headers()[CONTENT_TYPE], "text/event-stream");
        let (mut parser, mut frames) = (SseParser::new(8 * LARGE), Vec::new());
        let mut body = answer.into_body().into_data_stream();
        while let Some(bytes) = body.next().await {
            frames.extend(parser.push(&bytes.unwrap()).unwrap());
        }
        drop(body);
        let seen: Vec<_> = frames.iter().map(|frame| (frame.id.as_deref(), frame.event.as_str())).collect();
        assert_eq!(seen, [(Some("0:1"), "put"), (Some("0:3"), "put"), (None, "gone")]);
        assert_eq!(frames[1].data, large);
        assert_eq!((parser.last_event_id(), Arc::strong_count(&guard)), (Some("0:3"), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn one_heartbeat_is_sent_for_all_silent_sources() {
        let silence = |id: &str| Event::Silence { id: id.to_owned() };
        let events = stream::iter([silence("1"), silence("2"), silence("3")]).then(|event| async {
            tokio::time::sleep(HEARTBEAT / 2).await;
            event
        });
        let answer = answer(events, AnswerBuffer::new(LARGE, &Counter::default()), ());
        let bytes = axum::body::to_bytes(answer.into_body(), LARGE).await.unwrap();
        assert_eq!(bytes, ":\nid: 1\n\n:\nid: 2\n\n:\nid: 3\n\n", "each came after half a period");
        let events = stream::iter([data("0", String::new()), silence("1"), silence("2")]);
        let answer = sent_now(events);
        let bytes = axum::body::to_bytes(answer.into_body(), LARGE).await.unwrap();
        assert_eq!(bytes, "id: 0\nevent: put\ndata: \n\n", "an event was sent just now");
    }

    fn sent_now(events: impl Stream<Item = Event> + Send + 'static) -> Response {
        answer(events, AnswerBuffer::new(LARGE, &Counter::default()), ())
    }

    #[tokio::test(start_paused = true)]
    async fn each_event_of_several_shards_has_the_cursor_of_all() {
        let shard = |number: u32| ShardId::try_from(number).unwrap();
        let gone = types::Problem::new(types::ErrorKind::NotFound, "history-gone", "too old");
        let updates = stream::iter([
            (shard(1), Update::Item { place: 7, item: "a" }),
            (shard(0), Update::Silence(6)),
            (shard(0), Update::Gone(Box::new(gone))),
        ]);
        let cursor = Cursor::new([(shard(0), 5), (shard(1), 5)]);
        let events = of_updates(cursor, updates, |item| ("put", item.to_owned(), None));
        let shown: Vec<_> = events
            .map(|event| match event {
                Event::Data { id, name, data, .. } => format!("{name} {id} {data}"),
                Event::Silence { id } => id,
                Event::Last { name, data } => format!("{name} {}", data.contains("history-gone")),
            })
            .collect()
            .await;
        assert_eq!(shown, [r#"ready 0:5,1:5 {"cursor":"0:5,1:5"}"#, "put 0:5,1:7 a", "0:6,1:7", "gone true"]);
    }

    #[test]
    fn a_client_reports_the_last_event_that_it_has_received() {
        let headers =
            |id: &'static str| HeaderMap::from_iter([(LAST_EVENT_ID, HeaderValue::from_static(id))]);
        assert_eq!(last_event_id(&headers("0:1")).as_deref(), Some("0:1"));
        assert_eq!((last_event_id(&headers("")), last_event_id(&HeaderMap::new())), (None, None));
    }
}
