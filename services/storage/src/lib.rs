//! The service type `storage`: a key-value store, each shard a SlateDB on the cluster's object store.
//!
//! Below `/svc/storage`, on any member:
//!
//! | request | what it does |
//! |---|---|
//! | `PUT /kv/{key}?ttl=30s` | stores the body with its content type; 200 with its `ETag` once it is durable; `ttl`, 1 s to 10 years, may be left out |
//! | `GET`, `HEAD /kv/{key}?consistency=` | the value; `Coterie-Expires-Ms` if it expires; 304 if its `ETag` is in `If-None-Match`, 412 if it is not in `If-Match`; 404 if there is none |
//! | `DELETE /kv/{key}` | 204 once it is durable that there is none, whether there was one or not |
//! | `GET /kv?prefix=&start=&end=&after=&limit=&values=&consistency=` | keys of all shards in the order of their bytes, with size, version, content type and, if wanted, value |
//! | `POST /batch` | up to 1000 operations on keys of one shard, all at one moment or none |
//! | `POST /import` | up to 10000 lines of JSON, each a key and its value; fast, and not atomic |
//! | `GET /watch?prefix=&from=&values=` | changes of keys as server-sent events, until either side ends it |
//!
//! # Keys and values
//!
//! A *key* is 1 to 1024 bytes, any bytes: the rest of the path, percent-decoded once. `/` and `+` stand for themselves.
//! A listing writes keys so that they may be put into a path or a query as they are: letters, digits and `-._~`
//! stand for themselves, all else is percent-encoded, and so is `/` in keys in which a client could take a step for
//! empty or dotted. Wherever JSON has a key it is written and read in this way too, so a percent sign is `%25`. A
//! *value* has at most 8 MiB. Values over 32 KiB that are being sent take turns when they fill 32 MiB of the member's
//! memory: one that finds no room within five seconds is refused with 503 `too-busy`, and one of which nothing was read
//! for two seconds is broken off while others wait.
//!
//! The hash of a key decides its shard; if it has braces with something between them, the hash of that alone, so
//! `{user/1}/name` and `{user/1}/mail` lie together.
//!
//! # Versions and conditions
//!
//! A value's `ETag` is its *version*, the number of the write that put it: `"17"`. The writes of a shard have ever
//! higher ones. `PUT` and `DELETE` take one condition: `If-None-Match: *` (the key has no value), `If-Match: *` (it has
//! one) or `If-Match: "17"` (it has this one). Conditions and writes happen one after the other, in the order in which
//! they come; one that does not hold is answered with 412 and the present `ETag`.
//!
//! # What is promised
//!
//! Reads are linearizable: what was answered before a read came is seen by it, whichever node owned the shard then. A
//! listing is that for each shard by itself. What was answered as written is durable on the object store. A write that
//! could not be made durable in time is answered with 503 and may still become durable, also one with a condition. A
//! 503 with `Coterie-Not-Processed` was not touched at all. What was damaged on the store is answered with 500, never
//! as data.
//!
//! Bodies take room in memory as they arrive, at least 8 KiB per second measured over ten seconds; a slower one is
//! refused with 408 `slow-body`. When all room is taken, a body that finds no more for two seconds is refused with 503
//! `too-busy`, the youngest first.
//!
//! A value with a `ttl` expires within about a second after its time; later while its shard has no owner. Until it is
//! deleted it is there for everybody. Time is counted by the shard's own clock, *data time*: it begins with the wall
//! clock of the first owner, advances steadily, never runs back and does not follow a wall clock that is set; a new owner
//! whose wall clock is ahead takes it forward. So a `ttl` is right however wrong clocks are. `Coterie-Expires-Ms` is in
//! data time; the metric `data_time_ahead_seconds` says how far that is from the owner's wall clock.
//!
//! # Reading something older
//!
//! `consistency=strong` is what was said. With `primary` the owner answers without asking the store whether it still is
//! the owner; one that lost the shard and does not know it may miss what was written since. With `any` whoever has the
//! shard answers, its owner or a *replica*, and says in `Coterie-Staleness-Ms` how far behind the answer may be at most;
//! listings say it for the part that is furthest. In each case only what is durable is shown. A replica looks for news
//! ten times a second on a folder, once a second on a cloud store, where a look that finds nothing costs three
//! requests; it writes nothing. All but reads with `any` it refuses with 421, or passes on.
//!
//! # Watching
//!
//! A watch shows every change of keys with the prefix once, in the order of the writes of each shard, after it is
//! durable: events `put` and `delete`, whose data is `{"key", "version", "shard", "size", "content_type"}`, the key as
//! in a listing. What expires is deleted. With `values=true` there is `value` too, or `value_base64`, as in a listing.
//! The first event is `ready`. An event's id is a *cursor*, `0:123.0,1:77.2`: what comes after it is seen by whoever
//! asks with it as `from` or as `Last-Event-ID`. So nothing is missed by who watches first and lists then. In silence
//! there is a comment every ten seconds, with the cursor as an id of its own. That a shard moves is not noticed; when
//! the member that was asked ends the stream, another one takes the cursor. Changes are kept for two minutes at least.
//! Who was away for longer is answered with 410 `history-gone`, or gets an event `gone` with that problem as the last
//! one.
//!
//! A member takes `max_watches` at once; more are refused with 503 `too-many-watches`. Whoever reads slowly is told
//! all the same, from the log once memory has forgotten it. It holds little of the member's memory; the values over
//! 32 KiB that are on their way take turns: a stream that was not read for two seconds ends, or is broken off in the
//! middle of such a value, when others wait. It goes on from the last whole event's id.
//!
//! # Listings
//!
//! `start` is the first key that is shown, `end` the first one that is not, `after` leaves the key itself out; `limit` is
//! at most 10000. With `values=true` each key has its `value`, or `value_base64` if that is no text. `bytes`, at most
//! and by default 4 MiB, is about what a page has before its last key. `next` is what to ask `after` for more, `null` at
//! the end. A page may be shorter than `limit` before the end. A listing that misses a shard fails. Large pages take
//! turns as well: one that finds no room within ten seconds is refused with 503 `too-busy`.
//!
//! # Batches
//!
//! ```json
//! {"operations": [
//!   {"put": "{a}/1", "value": "text", "content_type": "text/plain", "ttl": "30s", "if_none_match": true},
//!   {"put": "{a}/2", "value_base64": "AP8=", "if_match": "17"},
//!   {"delete": "{a}/3", "if_match": "*"},
//!   {"check": "{a}/4", "if_match": "5"}
//! ]}
//! ```
//!
//! The answer is `{"version": 18}`, the version of all that was put; `null` if nothing was to be changed. Conditions
//! that do not hold are named in the `failed` of a 412: number of the operation from 0, key and present version. Keys
//! of several shards are refused with 400, which lists them in `shards`; so is a key that is there twice. Any member
//! takes a batch and passes it on. It has at most 8 MiB.
//!
//! # Imports
//!
//! ```json
//! {"key": "user/1", "value": "text", "content_type": "text/plain", "expires_ms": 1764000000000}
//! {"key": "user/2", "value_base64": "AP8="}
//! ```
//!
//! Any member takes an import of at most 12 MiB and splits it. Nothing is written if a line is bad: 400 with its number
//! in `line`. `{"imported": 2}` says that all is durable. If it fails some may be stored; repeating it does no harm.

mod changes;
mod data;
mod engine;
mod http;
mod meters;
mod replica;
mod service;
mod settings;

use plugin::{Plugin, Prepared, SettingsError, check_settings, settings_schema};
use types::{ServiceType, Sharding, Target};

pub use settings::Settings;

/// The service type `storage`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Storage;

impl Plugin for Storage {
    fn service_type(&self) -> ServiceType {
        "storage".parse().expect("the name follows the rule")
    }

    fn about(&self) -> &'static str {
        "stores values under keys, durably on the object store; reads see every answered write"
    }

    fn sharding(&self) -> Sharding {
        Sharding::Owned
    }

    fn target(&self, head: &::http::request::Parts) -> Target {
        http::target(head)
    }

    fn replicates(&self) -> bool {
        true
    }

    /// A write that is sent twice would undo what others wrote in between.
    fn may_repeat(&self, head: &::http::request::Parts) -> bool {
        head.method.is_safe()
    }

    fn settings_schema(&self) -> serde_json::Value {
        settings_schema::<Settings>()
    }

    fn openapi_paths(&self) -> serde_json::Value {
        serde_json::from_str(include_str!("../openapi.json")).expect("the file is JSON, as a test shows")
    }

    fn prepare(&self, settings: &serde_json::Value) -> Result<Box<dyn Prepared>, SettingsError> {
        Ok(Box::new(check_settings(settings, Settings::check)?))
    }
}

#[cfg(test)]
mod tests;
