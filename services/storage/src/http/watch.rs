//! `GET /watch`: its query, and the changes of one shard or of all of them as server-sent events.

use std::sync::Arc;

use futures_util::StreamExt;
use http::Method;
use http::request::Parts;
use mesh::shards::{Beginning, Begun, Cursor, Follow, events, follow};
use plugin::Detach;
use plugin::http::query::{self, QueryError, parameters, percent_encode};
use plugin::http::{Answer, invalid, method_not_allowed, problem, sse};
use types::{Frame, ShardId};

use crate::changes::Place;
use crate::changes::stream::{Change, Filter, Kind, NotWatched, begin};
use crate::service::StorageService;

/// The largest event: a value has at most 8 MiB, and its JSON less than twice as much.
const MAX_EVENT: usize = 20 * 1024 * 1024;

const PARAMETERS: [&str; 4] = ["prefix", "from", "values", "shard"];

/// What is watched.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Watch {
    /// Only this shard.
    pub(crate) shard: Option<ShardId>,
    /// The cursor to begin at, as received.
    from: Option<String>,
    /// Which changes are sent.
    filter: Filter,
}

impl Watch {
    /// Reads the query of a URI: `prefix=user/&values=true`. A `+` is a plus.
    pub(crate) fn parse(query: &str) -> Result<Self, QueryError> {
        let mut found = Self::default();
        for (name, value) in parameters(query, &PARAMETERS)? {
            let bytes = query::bytes(name, value)?;
            match name {
                "prefix" => found.filter.prefix = bytes,
                "from" => {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    found.from = Some(text).filter(|text| !text.is_empty());
                }
                "values" => found.filter.values = query::flag(name, value)?,
                _ => found.shard = Some(query::shard(value)?),
            }
        }
        Ok(found)
    }

    /// The watch that a client requests. Its last event id is newer than the cursor in its URL.
    fn of(head: &Parts) -> Result<Self, QueryError> {
        let watch = Self::parse(head.uri.query().unwrap_or_default())?;
        let from = sse::last_event_id(&head.headers).or(watch.from);
        Ok(Self { from, ..watch })
    }

    /// The shard that a query names, if it is well-formed.
    pub(crate) fn shard_of(query: &str) -> Option<ShardId> {
        Self::parse(query).ok()?.shard
    }
}

/// The path and query for watching one shard, from a place in it.
fn for_shard(filter: &Filter, shard: ShardId, from: Option<Place>) -> String {
    let mut text = format!("/watch?shard={shard}&values={}", filter.values);
    if !filter.prefix.is_empty() {
        text.push_str(&format!("&prefix={}", percent_encode(&filter.prefix)));
    }
    if let Some(place) = from {
        text.push_str(&format!("&from={}", Cursor::new([(shard, place)])));
    }
    text
}

impl StorageService {
    /// Answers a watch.
    pub(crate) async fn watch(self: &Arc<Self>, head: &Parts) -> Answer {
        if head.method != Method::GET {
            return Err(method_not_allowed("GET"));
        }
        let watch = Watch::of(head).map_err(|error| error.to_response())?;
        self.member.has(watch.shard)?;
        let shards = watch.shard.map_or_else(|| self.member.all_shards(), |shard| vec![shard]);
        let from = watch.from.as_deref().map(|text| Cursor::<Place>::parse(text, &shards)).transpose();
        let from = from.map_err(|error| {
            let hint = "give the `id` of an event of this stream as it came, or none to begin now";
            invalid("bad-cursor", &error, hint)
        })?;
        let permit = self.buffers.watch()?;
        let (cursor, updates) = if let Some(shard) = watch.shard {
            self.member.owner_only()?;
            let from = from.and_then(|cursor| cursor.place(shard));
            let begun = begin(&self.engine, &watch.filter, shard, from, &self.buffers.events).await;
            let begun = begun.map_err(|why| match why {
                NotWatched::Gone(gone) => problem(&gone),
                NotWatched::Engine(error) => error.to_response(),
            })?;
            let updates = begun.updates.map(move |sent| (shard, sent));
            (Cursor::new([(shard, begun.place)]), updates.boxed())
        } else {
            let all = AllShards { service: Arc::clone(self), filter: watch.filter };
            let begun = follow(all, &shards, from.as_ref()).await;
            let (cursor, updates) = begun.map_err(|gone| problem(&gone))?;
            (cursor, updates.boxed())
        };
        // The stream ends when the role does, however slowly the rest of it is read.
        Detach::of(&head.extensions);
        let updates = updates.take_until(self.ending.clone().cancelled_owned());
        let data = |Change { kind, data, space }| (kind.as_str(), data, space);
        Ok(sse::answer(sse::of_updates(cursor, updates, data), self.buffers.events.clone(), permit))
    }
}

/// The changes of all shards.
#[derive(Clone)]
struct AllShards {
    service: Arc<StorageService>,
    filter: Filter,
}

impl Follow for AllShards {
    type Place = Place;
    type Item = Change;

    async fn begin(&self, shard: ShardId, from: Option<Place>) -> Beginning<Place, Change> {
        let Self { service, filter } = self;
        let member = &service.member;
        if shard == member.shard && member.is_owner() {
            let begun = begin(&service.engine, filter, shard, from, &service.buffers.events).await?;
            return Ok(Begun { place: begun.place, updates: begun.updates.map(Ok).boxed() });
        }
        let path = for_shard(filter, shard, from);
        let begun = events(&service.mesh, &member.service, shard, &path, MAX_EVENT).await?;
        let updates = begun.updates.map(|update| update.and_then(|update| update.try_map(change)));
        Ok(Begun { place: begun.place, updates: updates.boxed() })
    }
}

/// A change as another member sent it.
fn change(frame: Frame) -> Result<Change, String> {
    let kind = Kind::of_name(&frame.event);
    let kind = kind.ok_or_else(|| format!("its owner sent an event `{}`", frame.event))?;
    Ok(Change { kind, data: frame.data, space: None })
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn zero() -> ShardId {
        0.try_into().unwrap()
    }

    #[test]
    fn a_query_means_what_it_says_and_mistakes_are_reported() {
        let watch = Watch::parse("prefix=user%2F&from=0%3A1.0,1:2.3&values=true&shard=1").unwrap();
        assert_eq!((&watch.filter.prefix[..], watch.filter.values), (&b"user/"[..], true));
        assert_eq!(watch.from.as_deref(), Some("0:1.0,1:2.3"));
        let path = for_shard(&watch.filter, zero(), Some(Place { seq: 5, row: 1 }));
        let one = Watch::parse(path.strip_prefix("/watch?").unwrap()).unwrap();
        assert_eq!((one.shard, one.from.as_deref(), one.filter), (Some(zero()), Some("0:5.1"), watch.filter));
        for mistake in ["value=true", "values=1", "values", "shard=x", "prefix=%", "from=%", "from=1&from=2"]
        {
            assert!(Watch::parse(mistake).is_err(), "{mistake}");
        }
        assert_eq!(Watch::parse("form=1").unwrap_err().hint.as_deref(), Some("did you mean `from`?"));
    }

    #[test]
    fn the_last_event_id_takes_precedence_over_the_url() {
        let head = Request::get("/watch?from=0:1.0").header("last-event-id", "0:7.0").body(()).unwrap();
        assert_eq!(Watch::of(&head.into_parts().0).unwrap().from.as_deref(), Some("0:7.0"));
    }

    #[test]
    fn a_change_from_another_member_is_of_a_known_kind() {
        let frame = |event: &str| Frame { id: None, event: event.to_owned(), data: "{}".to_owned() };
        assert_eq!(change(frame("put")).unwrap().kind, Kind::Put);
        assert_eq!(change(frame("delete")).unwrap().kind, Kind::Delete);
        assert_eq!(change(frame("surprise")).unwrap_err(), "its owner sent an event `surprise`");
    }
}
