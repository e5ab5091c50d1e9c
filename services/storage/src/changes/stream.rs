//! The changes of one shard as events, sent as fast as they are read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream, stream};
use mesh::shards::{Begun, HEARTBEAT, NotBegun, Update};
use plugin::http::query::percent_encode;
use plugin::http::{AnswerBuffer, Space};
use plugin::{Counter, GaugeGuard};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use tracing::debug;
use types::{ErrorKind, Problem, ShardId};

use super::Place;
use super::watcher::{Rows, WatchEnd, Watcher};
use crate::data::layout::stored;
use crate::data::record::Record;
use crate::engine::{Engine, EngineError, scan};

/// Which changes are sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Filter {
    /// Those of keys with this prefix.
    pub(crate) prefix: Vec<u8>,
    /// Whether the values are sent.
    pub(crate) values: bool,
}

/// A change that is sent.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) kind: Kind,
    /// The event's data, in JSON.
    pub(crate) data: String,
    /// The space that was taken for it, if it is large.
    pub(crate) space: Option<Space>,
}

impl PartialEq for Change {
    fn eq(&self, other: &Self) -> bool {
        (self.kind, &self.data) == (other.kind, &other.data)
    }
}

/// What a stream of changes sends.
pub(crate) type Sent = Update<Place, Change>;

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

    /// The kind with an event's name.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        [Self::Put, Self::Delete].into_iter().find(|kind| kind.as_str() == name)
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

/// Why a shard of this node can't be watched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotWatched {
    /// Start over.
    #[error("{0}")]
    Gone(Box<Problem>),
    /// Try again.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl From<NotWatched> for NotBegun {
    fn from(why: NotWatched) -> Self {
        match why {
            NotWatched::Gone(problem) => Self::Gone(problem),
            NotWatched::Engine(error) => Self::Later(error.to_string()),
        }
    }
}

/// Starts to watch the shard that this node owns, from a place or from now.
pub(crate) async fn begin(
    engine: &Engine,
    filter: &Filter,
    shard: ShardId,
    from: Option<Place>,
    events: &AnswerBuffer,
) -> Result<Begun<Place, impl Stream<Item = Sent> + Send + use<>>, NotWatched> {
    let (feed, history) = engine.changes()?;
    let watcher = Watcher::begin(feed, history, from).await.map_err(|end| match end {
        WatchEnd::Gone(place) => NotWatched::Gone(Box::new(gone(shard, place))),
        WatchEnd::Closed => EngineError::NotOpen(end.to_string()).into(),
        WatchEnd::Unread(error) => EngineError::Unread(error.to_string()).into(),
    })?;
    let place = watcher.place();
    let meters = engine.meters();
    let strand = Strand {
        shard,
        prefix: stored(&filter.prefix),
        values: filter.values,
        events: events.clone(),
        place,
        sending: None,
        next: None,
        watcher: Some(watcher),
        silent_since: Instant::now(),
        changes: meters.changes.clone(),
        _counted: GaugeGuard::new(&meters.watchers),
    };
    let changes = stream::unfold(strand, |mut strand| async move {
        let sent = strand.next().await?;
        Some((sent, strand))
    });
    Ok(Begun { place, updates: changes })
}

/// The state of a stream of changes.
struct Strand {
    shard: ShardId,
    /// The prefix of keys as stored in the database.
    prefix: Bytes,
    values: bool,
    events: AnswerBuffer,
    place: Place,
    sending: Option<Rows>,
    /// Follows the changes; `None` while `next` has it.
    watcher: Option<Watcher>,
    /// The step after `sending`. It continues while a heartbeat is sent.
    next: Option<BoxFuture<'static, (Watcher, Result<Step, WatchEnd>)>>,
    silent_since: Instant,
    changes: Counter,
    _counted: GaugeGuard,
}

/// The result of a step.
enum Step {
    Rows(Rows),
    /// A large row, and the space for it.
    Large(Rows, Space),
    /// A large row for which there was no space.
    NoSpace,
}

/// Takes the next step. A large value that will be sent is not held until there is space for it.
async fn step(
    mut watcher: Watcher,
    sent: Option<Bytes>,
    events: AnswerBuffer,
) -> (Watcher, Result<Step, WatchEnd>) {
    let place = watcher.place();
    let mut space: Option<Space> = None;
    // One deadline for all waits for space: when there is space, the value may be gone from memory.
    let mut deadline = None;
    loop {
        let mut next = Box::pin(watcher.next());
        let rows = match (&mut next).now_or_never() {
            Some(rows) => rows,
            None => {
                // A step that holds space waits for nothing else.
                space = None;
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
        // The value, and its JSON.
        let needed = 2 * size;
        if let Some(space) = space.or_else(|| events.try_take(needed)) {
            return (watcher, Ok(Step::Large(rows, space)));
        }
        drop(rows);
        watcher.back_to(place);
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + AnswerBuffer::WAIT);
        space = events.take_until(needed, deadline).await.ok();
        if space.is_none() {
            return (watcher, Ok(Step::NoSpace));
        }
    }
}

impl Strand {
    async fn next(&mut self) -> Option<Sent> {
        let mut space = None;
        loop {
            if let Some(sent) = self.send(&mut space) {
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
                Ok(Step::Large(rows, taken)) => (self.sending, space) = (Some(rows), Some(taken)),
                Ok(Step::NoSpace) => {
                    debug!(shard = %self.shard, "a stream of changes ends: there is no space for a large value");
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

    /// The next row that passes the filter, if one is in memory.
    fn send(&mut self, space: &mut Option<Space>) -> Option<Sent> {
        let mut rows = self.sending.take()?;
        while let Some((key, value)) = rows.take() {
            self.place = rows.place();
            if key.starts_with(&self.prefix) {
                let (kind, data) = describe(self.shard, rows.seq(), &key, value.as_ref(), self.values);
                self.sending = Some(rows);
                let change = Change { kind, data, space: space.take() };
                return Some(Sent::Item { place: self.place, item: change });
            }
        }
        None
    }
}

/// A change as the data of an event.
fn describe(shard: ShardId, version: u64, key: &[u8], value: Option<&Bytes>, values: bool) -> (Kind, String) {
    // A change with an unreadable value is still a change; a read of the key reports what is wrong.
    let record = value.and_then(|stored| Record::decode(stored).ok());
    let shown = record.as_ref().filter(|_| values).map(|record| record.value().as_ref());
    let text = shown.and_then(scan::text);
    let data = Data {
        key: percent_encode(key.get(1..).unwrap_or_default()),
        version,
        shard,
        size: record.as_ref().map(|record| record.value().len()),
        content_type: record
            .as_ref()
            .map(|record| String::from_utf8_lossy(&record.content_type()).into_owned()),
        value: text,
        value_base64: shown.filter(|_| text.is_none()).map(|value| STANDARD.encode(value)),
    };
    let kind = if value.is_some() { Kind::Put } else { Kind::Delete };
    (kind, serde_json::to_string(&data).expect("it is strings and numbers"))
}

/// The problem for a cursor that is too old.
fn gone(shard: ShardId, place: Place) -> Problem {
    let detail = format!("changes of shard {shard} from {place} on are not kept any more");
    let mut problem = Problem::new(ErrorKind::NotFound, "history-gone", detail)
        .hint("watch again without a cursor, then list the keys to get their present state");
    problem.status = 410;
    problem
}

#[cfg(test)]
mod tests;
