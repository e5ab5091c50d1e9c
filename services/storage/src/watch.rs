//! `GET /watch`: what is asked for, and the changes of one shard as events.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream, stream};
use http::Uri;
use http::header::HeaderName;
use http::request::Parts;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use tracing::debug;
use types::{ErrorKind, Problem, ShardId};

use crate::bounds::{Counted, Outbox, PATIENCE, Room};
use crate::cursor::{Cursor, Place};
use crate::engine::Engine;
use crate::key::{decode, encode};
use crate::parameters::{QueryError, parameters, shard};
use crate::record::Record;
use crate::refusal::Refusal;
use crate::scan;
use crate::stored::stored;
use crate::watcher::{Rows, WatchEnd, Watcher};

/// A comment is sent after so long without an event, so that nobody on the way takes the stream for dead.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(10);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const PARAMETERS: [&str; 4] = ["prefix", "from", "values", "shard"];

/// What is watched.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Watch {
    /// Only this shard.
    pub(crate) shard: Option<ShardId>,
    /// Keys that begin with it.
    pub(crate) prefix: Vec<u8>,
    /// Where to go on, as it came.
    pub(crate) from: Option<String>,
    /// Whether the values are sent.
    pub(crate) values: bool,
}

impl Watch {
    /// Reads the query of a URI: `prefix=user/&values=true`. A `+` is a plus.
    pub(crate) fn parse(query: &str) -> Result<Self, QueryError> {
        let mut found = Self::default();
        for (name, value) in parameters(query, &PARAMETERS)? {
            let bytes = decode(value).map_err(|error| QueryError::new(format!("`{name}`: {error}")))?;
            match name {
                "prefix" => found.prefix = bytes,
                "from" => {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    found.from = Some(text).filter(|text| !text.is_empty());
                }
                "values" => {
                    found.values = match value {
                        "true" => true,
                        "false" => false,
                        other => {
                            let message = format!("`values` is true or false, not `{other}`");
                            return Err(QueryError::new(message));
                        }
                    };
                }
                _ => found.shard = Some(shard(value)?),
            }
        }
        Ok(found)
    }

    /// The request of a client. What it has seen last by its own word is newer than what its URL says.
    pub(crate) fn of(head: &Parts) -> Result<Self, QueryError> {
        let mut watch = Self::parse(head.uri.query().unwrap_or_default())?;
        if let Some(id) = head.headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty()) {
            watch.from = Some(String::from_utf8_lossy(id.as_bytes()).into_owned());
        }
        Ok(watch)
    }

    /// The shard that a URI names, if it is well-formed.
    pub(crate) fn shard_of(uri: &Uri) -> Option<ShardId> {
        Self::parse(uri.query().unwrap_or_default()).ok()?.shard
    }

    /// The same for one shard alone, from a place in it, as it is written in a URI.
    pub(crate) fn for_shard(&self, shard: ShardId, from: Option<Place>) -> String {
        let mut text = format!("shard={shard}&values={}", self.values);
        if !self.prefix.is_empty() {
            text.push_str(&format!("&prefix={}", encode(&self.prefix)));
        }
        if let Some(place) = from {
            text.push_str(&format!("&from={}", Cursor::new([(shard, place)])));
        }
        text
    }
}

/// What a stream of changes sends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// A change, and the place behind it.
    Change { place: Place, kind: Kind, data: Text },
    /// Nothing for a while; what was not asked for is passed over up to this place.
    Silence(Place),
    /// The last one: what comes next is not kept any more.
    Gone(Box<Problem>),
}

/// The data of an event, and the room that was taken for it if it is large.
#[derive(Debug)]
pub(crate) struct Text {
    pub(crate) text: String,
    pub(crate) room: Option<Room>,
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self { text, room: None }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Text {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Put,
    Delete,
}

impl Kind {
    /// The name of the event.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Delete => "delete",
        }
    }
}

/// The data of an event.
#[derive(Debug, Serialize)]
struct Data<'a> {
    key: String,
    version: u64,
    shard: ShardId,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

/// Why a stream was not begun.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotBegun {
    /// Begin anew.
    #[error("{0}")]
    Gone(Box<Problem>),
    /// Try again.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// A stream of changes of a shard that has begun at a place.
pub(crate) struct Begun<S> {
    pub(crate) place: Place,
    pub(crate) changes: S,
}

/// Begins to watch the shard that this node owns, from a place or from now.
pub(crate) async fn begin(
    engine: &Engine,
    watch: &Watch,
    shard: ShardId,
    from: Option<Place>,
    events: &Outbox,
) -> Result<Begun<impl Stream<Item = Sent> + Send + 'static>, NotBegun> {
    let (feed, history) = engine.changes()?;
    let watcher = Watcher::begin(feed, history, from).await.map_err(|end| match end {
        WatchEnd::Gone(place) => NotBegun::Gone(Box::new(gone(shard, place))),
        WatchEnd::Closed => Refusal::NotOpen(end.to_string()).into(),
        WatchEnd::Unread(error) => Refusal::Unread(error.to_string()).into(),
    })?;
    let place = watcher.place();
    let meters = engine.meters();
    let strand = Strand {
        shard,
        prefix: stored(&watch.prefix),
        values: watch.values,
        events: events.clone(),
        place,
        sending: None,
        next: None,
        watcher: Some(watcher),
        silent_since: Instant::now(),
        changes: meters.changes.clone(),
        _counted: Counted::new(&meters.watchers),
    };
    let changes = stream::unfold(strand, |mut strand| async move {
        let sent = strand.next().await?;
        Some((sent, strand))
    });
    Ok(Begun { place, changes })
}

/// The changes of a shard on their way.
struct Strand {
    shard: ShardId,
    /// As keys lie in the database.
    prefix: Bytes,
    values: bool,
    events: Outbox,
    place: Place,
    sending: Option<Rows>,
    /// Follows the changes, unless it is on its way in `next`.
    watcher: Option<Watcher>,
    /// What comes after `sending`. It goes on while a heartbeat is sent.
    next: Option<BoxFuture<'static, (Watcher, Result<Step, WatchEnd>)>>,
    silent_since: Instant,
    changes: prometheus_client::metrics::counter::Counter,
    _counted: Counted,
}

/// What comes next.
enum Step {
    Rows(Rows),
    /// A row that is large, and the room for it.
    Large(Rows, Room),
    /// A row that is large, and there was no room for it.
    NoRoom,
}

/// Takes the next step. A large value that will be sent waits where it is until there is room for it.
async fn step(
    mut watcher: Watcher,
    sent: Option<Bytes>,
    events: Outbox,
) -> (Watcher, Result<Step, WatchEnd>) {
    let place = watcher.place();
    let mut room: Option<Room> = None;
    // Of all the waits for room together: what it was taken for may be gone from memory when it is there.
    let mut deadline = None;
    loop {
        let mut next = Box::pin(watcher.next());
        let rows = match (&mut next).now_or_never() {
            Some(rows) => rows,
            None => {
                // Whoever holds room waits for nothing.
                room = None;
                next.as_mut().await
            }
        };
        drop(next);
        let rows = match rows {
            Ok(rows) => rows,
            Err(end) => return (watcher, Err(end)),
        };
        let large = sent.as_ref().and_then(|prefix| rows.large(prefix));
        let Some(size) = large else { return (watcher, Ok(Step::Rows(rows))) };
        // The value, and what it becomes.
        let needed = 2 * size;
        if let Some(room) = room.or_else(|| events.try_take(needed)) {
            return (watcher, Ok(Step::Large(rows, room)));
        }
        drop(rows);
        watcher.back_to(place);
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
        room = events.take_until(needed, deadline).await;
        if room.is_none() {
            return (watcher, Ok(Step::NoRoom));
        }
    }
}

impl Strand {
    async fn next(&mut self) -> Option<Sent> {
        let mut room = None;
        loop {
            if let Some(sent) = self.send(&mut room) {
                self.silent_since = Instant::now();
                self.changes.inc();
                return Some(sent);
            }
            if self.silent_since.elapsed() >= HEARTBEAT {
                self.silent_since = Instant::now();
                return Some(Sent::Silence(self.place));
            }
            if let Some(watcher) = self.watcher.take() {
                let sent = self.values.then(|| self.prefix.clone());
                self.next = Some(step(watcher, sent, self.events.clone()).boxed());
            }
            let waiting = self.next.as_mut()?;
            let Ok((watcher, step)) = timeout_at(self.silent_since + HEARTBEAT, waiting).await else {
                continue;
            };
            self.next = None;
            match step {
                Ok(Step::Rows(rows)) => self.sending = Some(rows),
                Ok(Step::Large(rows, taken)) => (self.sending, room) = (Some(rows), Some(taken)),
                Ok(Step::NoRoom) => {
                    debug!(shard = %self.shard, "a stream of changes ends: there is no room for a large value");
                    return None;
                }
                Err(WatchEnd::Gone(place)) => return Some(Sent::Gone(Box::new(gone(self.shard, place)))),
                Err(end @ (WatchEnd::Closed | WatchEnd::Unread(_))) => {
                    debug!(shard = %self.shard, why = %end, "a stream of changes ends");
                    return None;
                }
            }
            self.watcher = Some(watcher);
        }
    }

    /// The next row that was asked for, if there is one in hand.
    fn send(&mut self, room: &mut Option<Room>) -> Option<Sent> {
        let mut rows = self.sending.take()?;
        while let Some((key, value)) = rows.take() {
            self.place = rows.place();
            if key.starts_with(&self.prefix) {
                let (kind, text) = describe(self.shard, rows.seq(), &key, value.as_ref(), self.values);
                self.sending = Some(rows);
                return Some(Sent::Change {
                    place: self.place,
                    kind,
                    data: Text { text, room: room.take() },
                });
            }
        }
        None
    }
}

/// A change as the data of an event.
fn describe(shard: ShardId, version: u64, key: &[u8], value: Option<&Bytes>, values: bool) -> (Kind, String) {
    // What can't be read is still a change; to read the key tells what is wrong with it.
    let record = value.and_then(|stored| Record::decode(stored).ok());
    let shown = record.as_ref().filter(|_| values).map(|record| record.value().as_ref());
    let text = shown.and_then(scan::text);
    let data = Data {
        key: encode(key.get(1..).unwrap_or_default()),
        version,
        shard,
        size: record.as_ref().map(|record| record.value().len()),
        content_type: record
            .as_ref()
            .map(|record| String::from_utf8_lossy(record.content_type().as_bytes()).into_owned()),
        value: text,
        value_base64: shown.filter(|_| text.is_none()).map(|value| STANDARD.encode(value)),
    };
    let kind = if value.is_some() { Kind::Put } else { Kind::Delete };
    (kind, serde_json::to_string(&data).expect("it is strings and numbers"))
}

/// What is told to whoever has been away for too long.
fn gone(shard: ShardId, place: Place) -> Problem {
    let detail = format!("changes of shard {shard} from {place} on are not kept any more");
    let mut problem = Problem::new(ErrorKind::NotFound, "history-gone", detail)
        .hint("watch anew without a cursor, then list the keys to see what they are now");
    problem.status = http::StatusCode::GONE.as_u16();
    problem
}

#[cfg(test)]
mod tests;
