//! A shard's stream of server-sent events at another member.

use std::collections::VecDeque;
use std::str::FromStr;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, BodyStream, Empty, Limited};
use types::{Frame, ServiceName, ShardId, SseParser, Target};

use super::{Beginning, Begun, Cursor, NotBegun, ShardError, Update};
use crate::Mesh;

/// The largest refusal.
const MAX_REFUSAL: usize = 64 * 1024;

/// Begins a shard's stream of events at its owner. The first event is `ready`, each has a cursor as its id, and `gone`,
/// with a problem as its data, is the last. No event is longer than `most` bytes.
pub async fn events<P: Copy + FromStr + Send + 'static>(
    mesh: &Mesh,
    service: &ServiceName,
    shard: ShardId,
    path_and_query: &str,
    most: usize,
) -> Beginning<P, Frame> {
    let later = |why: &dyn std::fmt::Display| NotBegun::Later(why.to_string());
    let request = Request::get(path_and_query).body(Empty::<Bytes>::new()).map_err(|error| later(&error))?;
    let answer = mesh.send_to(service, Target::Shard(shard), request).await.map_err(|error| later(&error))?;
    let status = answer.status();
    if status != StatusCode::OK {
        let body = Limited::new(answer.into_body(), MAX_REFUSAL).collect().await;
        let body = body.map_err(|error| later(&error))?.to_bytes();
        return Err(match ShardError::of_answer(status, &body) {
            ShardError::Refused(problem) if status == StatusCode::GONE => NotBegun::Gone(problem),
            error => later(&error),
        });
    }
    let bytes = BodyStream::new(answer.into_body()).filter_map(|frame| async move {
        match frame {
            Ok(frame) => frame.into_data().ok().map(Ok),
            Err(error) => Some(Err(error.to_string())),
        }
    });
    let mut events = Events::new(shard, bytes.boxed(), most);
    let ready = events.frame().await.map_err(NotBegun::Later)?;
    let ready = ready.filter(|frame| frame.event == "ready");
    let place = ready.and_then(|frame| place_of(frame.id.as_deref(), shard));
    let place = place.ok_or_else(|| later(&"its owner's answer is no stream of events"))?;
    let updates = stream::unfold(Some(events), |events| async move {
        let mut events = events?;
        match events.next().await {
            Ok(Some(update)) => Some((Ok(update), Some(events))),
            Ok(None) => None,
            Err(why) => Some((Err(why), None)),
        }
    });
    Ok(Begun { place, updates: updates.boxed() })
}

/// The events of another member's stream.
struct Events {
    shard: ShardId,
    bytes: BoxStream<'static, Result<Bytes, String>>,
    parser: SseParser,
    frames: VecDeque<Frame>,
}

impl Events {
    fn new(shard: ShardId, bytes: BoxStream<'static, Result<Bytes, String>>, most: usize) -> Self {
        Self { shard, bytes, parser: SseParser::new(most), frames: VecDeque::new() }
    }

    /// The next event that is not a heartbeat; `None` at the end of the stream.
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

    async fn next<P: Copy + FromStr>(&mut self) -> Result<Option<Update<P, Frame>>, String> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return self.update(frame).map(Some);
            }
            if !self.read().await? {
                return Ok(None);
            }
            // A heartbeat, or a part of an event. Either shows that the owner is alive.
            if self.frames.is_empty()
                && let Some(place) = place_of(self.parser.last_event_id(), self.shard)
            {
                return Ok(Some(Update::Silence(place)));
            }
        }
    }

    fn update<P: Copy + FromStr>(&self, frame: Frame) -> Result<Update<P, Frame>, String> {
        if frame.event == "gone" {
            let problem = serde_json::from_str(&frame.data).map_err(|error| error.to_string())?;
            return Ok(Update::Gone(Box::new(problem)));
        }
        let place = place_of(frame.id.as_deref(), self.shard);
        let place = place.ok_or_else(|| "its owner sent an event without a cursor".to_owned())?;
        Ok(Update::Item { place, item: frame })
    }
}

fn place_of<P: Copy + FromStr>(id: Option<&str>, shard: ShardId) -> Option<P> {
    Cursor::parse(id?, &[shard]).ok()?.place(shard)
}

#[cfg(test)]
mod tests {
    use types::{ErrorKind, Phase, Problem};

    use super::*;
    use crate::Limits;
    use crate::testing::{Upstream, echo, member, mesh, text};

    const MOST: usize = 1024 * 1024;

    fn one() -> ShardId {
        1.try_into().unwrap()
    }

    fn of(parts: &[&'static str]) -> Events {
        let parts: Vec<_> = parts.iter().map(|part| Ok(Bytes::from_static(part.as_bytes()))).collect();
        Events::new(one(), stream::iter(parts).boxed(), MOST)
    }

    #[tokio::test]
    async fn an_idle_shard_still_gives_an_update_at_every_heartbeat() {
        let mut events = of(&[
            "id: 1:5\nevent: ready\ndata: {}\n\n",
            ":\nid: 1:5\n\n",
            ":\nid: 1:5\n\n",
            "id: 1:7\nevent: put\ndata: {\"key\"",
            ":\"a\"}\n\n:\nid: 1:9\n\n",
            ":\nid: 1:9\n\n",
        ]);
        assert_eq!(events.frame().await.unwrap().unwrap().event, "ready");
        let put =
            Frame { id: Some("1:7".to_owned()), event: "put".to_owned(), data: "{\"key\":\"a\"}".to_owned() };
        let put = Update::Item { place: 7_u64, item: put };
        let silence = Update::Silence;
        for expected in [silence(5), silence(5), silence(5), put, silence(9)] {
            assert_eq!(events.next().await.unwrap(), Some(expected));
        }
        assert_eq!(events.next::<u64>().await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_event_that_is_not_of_the_shards_stream_is_an_error() {
        for stream in
            ["event: put\ndata: {}\n\n", "event: put\nid: 2:5\ndata: {}\n\n", "event: gone\ndata: {}\n\n"]
        {
            assert!(of(&[stream]).next::<u64>().await.is_err(), "{stream}");
        }
    }

    #[tokio::test]
    async fn a_stream_begins_at_its_owners_position_or_fails() {
        let gone = Problem { status: 410, ..Problem::new(ErrorKind::NotFound, "history-gone", "too old") };
        let gone_body = serde_json::to_string(&gone).unwrap();
        for (status, body, expected) in [
            (200, "id: 1:5\nevent: ready\ndata: {}\n\n".to_owned(), Ok(5)),
            (410, gone_body, Err(NotBegun::Gone(Box::new(gone)))),
            (
                200,
                "{}".to_owned(),
                Err(NotBegun::Later("its owner's answer is no stream of events".to_owned())),
            ),
            (
                404,
                "no".to_owned(),
                Err(NotBegun::Later(
                    "its owner's answer can't be used: it has the status 404 Not Found".to_owned(),
                )),
            ),
        ] {
            let upstream = Upstream::serving(move |_| {
                let body = body.clone();
                async move {
                    let mut answer = text(body);
                    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
                    answer
                }
            })
            .await;
            let mut member = member("a", upstream.addr, Phase::Ready);
            if let Some(state) = &mut member.state {
                state.role = types::Role::new("echo", Some(one())).unwrap();
            }
            let (_view, mesh) = mesh([member], Limits::default());
            let begun = events::<u64>(&mesh, &echo(), one(), "/watch?shard=1", MOST).await;
            assert_eq!(begun.map(|begun| begun.place), expected);
        }
    }
}
