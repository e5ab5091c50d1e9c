//! Changes of all shards in one stream: watches each at its owner, and goes on at the next owner when one ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use futures_util::future::join_all;
use futures_util::stream::{BoxStream, select_all};
use futures_util::{Stream, StreamExt, stream};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::debug;
use types::{ErrorKind, Frame, Problem, ShardId, SseParser};

use crate::cursor::{Cursor, Place};
use crate::service::StorageService;
use crate::watch::{Begun, HEARTBEAT, Kind, NotBegun, Sent, Watch, begin};

/// How long a client waits at first until every shard is watched.
const PATIENCE: Duration = Duration::from_secs(10);
/// An owner that sends nothing for so long, not even a heartbeat, is asked anew.
const SILENCE: Duration = Duration::from_secs(25);
/// Pauses before a shard is watched again, the first and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));
/// The largest event: a value has at most 8 MiB, and its JSON not twice as much.
const MAX_EVENT: usize = 20 * 1024 * 1024;
/// The largest refusal.
const MAX_REFUSAL: usize = 64 * 1024;

/// A shard's stream, or why it broke off.
type Source = BoxStream<'static, Result<Sent, String>>;

/// Why a shard is not watched.
enum NotWatched {
    Gone(Box<Problem>),
    /// Try again.
    Not(String),
}

impl StorageService {
    /// Begins to watch all shards, from the places of a cursor or from now.
    pub(crate) async fn watch_all(
        self: &Arc<Self>,
        watch: &Watch,
        from: Option<&Cursor>,
    ) -> Result<(Cursor, impl Stream<Item = (ShardId, Sent)> + Send + use<>), Box<Problem>> {
        let deadline = Instant::now() + PATIENCE;
        let begun = join_all(self.all_shards().into_iter().map(|shard| {
            let from = from.and_then(|cursor| cursor.place(shard));
            let service = Arc::clone(self);
            let mut strand =
                Strand { service, watch: watch.clone(), shard, from, source: None, pause: PAUSE.0 };
            async move {
                let why = timeout_at(deadline, strand.begin()).await;
                match why.unwrap_or_else(|_| Err(strand.late())) {
                    Ok(place) => Ok((shard, place, strand)),
                    Err(problem) => Err(problem),
                }
            }
        }))
        .await;
        let begun = begun.into_iter().collect::<Result<Vec<_>, _>>()?;
        let cursor = Cursor::new(begun.iter().map(|(shard, place, _)| (*shard, *place)));
        let strands = begun.into_iter().map(|(shard, _, strand)| {
            stream::unfold(strand, |mut strand| async move {
                let sent = strand.next().await;
                Some((sent, strand))
            })
            .map(move |sent| (shard, sent))
            .boxed()
        });
        // All goes on, or nothing does.
        let merged = stream::unfold(Some(select_all(strands)), |strands| async move {
            let mut strands = strands?;
            let sent = strands.next().await?;
            let is_last = matches!(sent.1, Sent::Gone(_));
            Some((sent, (!is_last).then_some(strands)))
        });
        Ok((cursor, merged))
    }

    /// Every shard there is.
    pub(crate) fn all_shards(&self) -> Vec<ShardId> {
        (0..self.shards.get()).filter_map(|shard| ShardId::try_from(shard).ok()).collect()
    }

    /// Watches a shard at its owner.
    async fn source(
        &self,
        watch: &Watch,
        shard: ShardId,
        from: Option<Place>,
    ) -> Result<Begun<Source>, NotWatched> {
        if shard == self.shard && self.copy.is_none() {
            let begun =
                begin(&self.engine, watch, shard, from, &self.bounds.events).await.map_err(|error| {
                    match error {
                        NotBegun::Gone(problem) => NotWatched::Gone(problem),
                        NotBegun::Refused(refusal) => NotWatched::Not(refusal.to_string()),
                    }
                })?;
            return Ok(Begun { place: begun.place, changes: begun.changes.map(Ok).boxed() });
        }
        let not = |why: &dyn std::fmt::Display| NotWatched::Not(why.to_string());
        let uri = format!("/watch?{}", watch.for_shard(shard, from));
        let request = Request::get(uri).body(Body::empty()).map_err(|error| not(&error))?;
        let answer = self.mesh.send(&self.service, request).await.map_err(|error| not(&error))?;
        let status = answer.status();
        if status != StatusCode::OK {
            let body = Limited::new(answer.into_body(), MAX_REFUSAL).collect().await;
            let body = body.map_err(|error| not(&error))?.to_bytes();
            return Err(match serde_json::from_slice::<Problem>(&body) {
                Ok(problem) if status == StatusCode::GONE => NotWatched::Gone(Box::new(problem)),
                Ok(problem) => NotWatched::Not(problem.detail),
                Err(_) => NotWatched::Not(format!("its owner answered {status}")),
            });
        }
        let mut events = Events {
            shard,
            bytes: answer.into_body().into_data_stream().map(|part| part.map_err(|e| e.to_string())).boxed(),
            parser: SseParser::new(MAX_EVENT),
            frames: VecDeque::new(),
        };
        let ready = events.frame().await.map_err(NotWatched::Not)?;
        let ready = ready.filter(|frame| frame.event == "ready");
        let place = ready.and_then(|frame| place_of(frame.id.as_deref(), shard));
        let place = place.ok_or_else(|| not(&"its owner's answer is no stream of changes"))?;
        let changes = stream::unfold(Some(events), |events| async move {
            let mut events = events?;
            match events.next().await {
                Ok(Some(sent)) => Some((Ok(sent), Some(events))),
                Ok(None) => None,
                Err(why) => Some((Err(why), None)),
            }
        });
        Ok(Begun { place, changes: changes.boxed() })
    }
}

/// The changes of one shard, from whoever owns it.
struct Strand {
    service: Arc<StorageService>,
    watch: Watch,
    shard: ShardId,
    /// All below it was sent; from now if there is none.
    from: Option<Place>,
    source: Option<Source>,
    pause: Duration,
}

impl Strand {
    /// Tries until the shard is watched. Gives the place.
    async fn begin(&mut self) -> Result<Place, Box<Problem>> {
        loop {
            match self.service.source(&self.watch, self.shard, self.from).await {
                Ok(Begun { place, changes }) => {
                    self.from = Some(place);
                    self.source = Some(changes);
                    return Ok(place);
                }
                Err(NotWatched::Gone(problem)) => return Err(problem),
                Err(NotWatched::Not(why)) => {
                    debug!(shard = %self.shard, why, "a shard is not watched yet");
                    self.rest().await;
                }
            }
        }
    }

    /// What comes next, from this owner or a later one.
    async fn next(&mut self) -> Sent {
        loop {
            let Some(source) = &mut self.source else {
                // Whoever waits is told that the stream lives.
                let begun = timeout(HEARTBEAT, self.begin()).await;
                match (begun, self.from) {
                    (Ok(Ok(_)), _) => continue,
                    (Ok(Err(problem)), _) => return Sent::Gone(problem),
                    (Err(_), Some(place)) => return Sent::Silence(place),
                    (Err(_), None) => continue,
                }
            };
            match timeout(SILENCE, source.next()).await {
                Ok(Some(Ok(sent))) => {
                    self.pause = PAUSE.0;
                    match &sent {
                        Sent::Change { place, .. } | Sent::Silence(place) => self.from = Some(*place),
                        Sent::Gone(_) => {}
                    }
                    return sent;
                }
                ended => {
                    let why = match ended {
                        Ok(Some(Err(why))) => why,
                        Ok(_) => "its owner ended it".to_owned(),
                        Err(_) => format!("its owner was silent for {SILENCE:?}"),
                    };
                    debug!(shard = %self.shard, why, "a shard is watched anew");
                    self.source = None;
                    self.rest().await;
                }
            }
        }
    }

    async fn rest(&mut self) {
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE.1);
    }

    fn late(&self) -> Box<Problem> {
        let detail = format!("shard {} could not be watched within {PATIENCE:?}", self.shard);
        let problem = Problem::new(ErrorKind::Unavailable, "shard-missing", detail);
        Box::new(problem.hint("try again in a moment; GET /v1/claims shows who owns which shard"))
    }
}

/// The events of another node's stream.
struct Events {
    shard: ShardId,
    bytes: BoxStream<'static, Result<bytes::Bytes, String>>,
    parser: SseParser,
    frames: VecDeque<Frame>,
}

impl Events {
    /// The next one that is no heartbeat. Nothing at the end of the stream.
    async fn frame(&mut self) -> Result<Option<Frame>, String> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Ok(Some(frame));
            }
            if !self.read().await? {
                return Ok(None);
            }
        }
    }

    async fn read(&mut self) -> Result<bool, String> {
        let Some(part) = self.bytes.next().await else { return Ok(false) };
        self.frames = self.parser.push(&part?).map_err(|error| error.to_string())?.into();
        Ok(true)
    }

    async fn next(&mut self) -> Result<Option<Sent>, String> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return self.sent(frame).map(Some);
            }
            if !self.read().await? {
                return Ok(None);
            }
            // A heartbeat, or a part of an event. Whichever it is, the owner lives.
            if self.frames.is_empty()
                && let Some(place) = place_of(self.parser.last_event_id(), self.shard)
            {
                return Ok(Some(Sent::Silence(place)));
            }
        }
    }

    fn sent(&self, frame: Frame) -> Result<Sent, String> {
        let kind = match frame.event.as_str() {
            "put" => Kind::Put,
            "delete" => Kind::Delete,
            "gone" => {
                let problem = serde_json::from_str(&frame.data).map_err(|error| error.to_string())?;
                return Ok(Sent::Gone(Box::new(problem)));
            }
            other => return Err(format!("its owner sent an event `{other}`")),
        };
        let place = place_of(frame.id.as_deref(), self.shard);
        let place = place.ok_or_else(|| "its owner sent an event without a cursor".to_owned())?;
        Ok(Sent::Change { place, kind, data: frame.data.into() })
    }
}

fn place_of(id: Option<&str>, shard: ShardId) -> Option<Place> {
    Cursor::parse(id?, &[shard]).ok()?.place(shard)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(parts: &[&'static str]) -> Events {
        let parts: Vec<_> = parts.iter().map(|part| Ok(bytes::Bytes::from_static(part.as_bytes()))).collect();
        Events {
            shard: 1.try_into().unwrap(),
            bytes: stream::iter(parts).boxed(),
            parser: SseParser::new(MAX_EVENT),
            frames: VecDeque::new(),
        }
    }

    #[tokio::test]
    async fn an_owner_on_whose_shard_nothing_happens_is_heard_at_every_heartbeat() {
        let mut events = events(&[
            "id: 1:5.0\nevent: ready\ndata: {}\n\n",
            ":\nid: 1:5.0\n\n",
            ":\nid: 1:5.0\n\n",
            "id: 1:7.2\nevent: put\ndata: {\"key\"",
            ":\"a\"}\n\n:\nid: 1:9.0\n\n",
            ":\nid: 1:9.0\n\n",
        ]);
        assert_eq!(events.frame().await.unwrap().unwrap().event, "ready");
        let silence = |seq| Sent::Silence(Place { seq, row: 0 });
        let put = Sent::Change {
            place: Place { seq: 7, row: 2 },
            kind: Kind::Put,
            data: "{\"key\":\"a\"}".to_owned().into(),
        };
        for expected in [silence(5), silence(5), silence(5), put, silence(9)] {
            assert_eq!(events.next().await.unwrap(), Some(expected));
        }
        assert_eq!(events.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_no_stream_of_the_shard_is_not_passed_on() {
        for stream in [
            "event: surprise\nid: 1:5.0\ndata: {}\n\n",
            "event: put\ndata: {}\n\n",
            "event: put\nid: 2:5.0\ndata: {}\n\n",
            "event: gone\ndata: {}\n\n",
        ] {
            assert!(events(&[stream]).next().await.is_err(), "{stream}");
        }
    }
}
