//! The service type `storage`: a key-value store, each shard a SlateDB on the cluster's object store.
//!
//! Below `/svc/storage`, on any member:
//!
//! | request | effect |
//! |---|---|
//! | `PUT /kv/{key}?ttl=30s` | stores the body with its content type; 200 with its `ETag` once it is durable; `ttl`, 1 s to 10 years, is optional |
//! | `GET`, `HEAD /kv/{key}?consistency=` | the value; `Coterie-Expires-Ms` if it expires; 304 if `If-None-Match` has its `ETag`, 412 if `If-Match` does not; 404 if there is none |
//! | `DELETE /kv/{key}` | 204 once it is durable that the key has no value, whether it had one or not |
//! | `GET /kv?prefix=&start=&end=&after=&limit=&values=&consistency=` | keys of all shards in the order of their bytes, with size, version, content type and, on request, value |
//! | `POST /batch` | up to 1000 operations on keys of one shard, atomically |
//! | `POST /import` | up to 10000 lines of JSON, each a key and its value; fast, and not atomic |
//! | `GET /watch?prefix=&from=&values=` | changes of keys as server-sent events, until either side ends the stream |
//!
//! # Keys and values
//!
//! A *key* is 1 to 1024 bytes, any bytes: the rest of the path, percent-decoded once. `/` and `+` stand for themselves.
//! Listings, and JSON in either direction, write a key so that it can be put into a path or a query unchanged: letters,
//! digits and `-._~` stand for themselves, and so does `/`, unless a client could take a segment of the key for empty
//! or dotted. Everything else is percent-encoded, so a percent sign is `%25`.
//!
//! A *value* has at most 8 MiB. Values over 32 KiB that are being sent share 32 MiB of the member's memory: one that
//! finds no room within five seconds is refused with 503 `too-busy`, and one of which the client has read nothing for
//! two seconds is cut off if others wait.
//!
//! The hash of a key decides its shard. If the key has braces with something between them, only that is hashed, so
//! `{user/1}/name` and `{user/1}/mail` are in the same shard.
//!
//! # Versions and conditions
//!
//! A value's `ETag` is its *version*, the number of the write that put it: `"17"`. Versions rise with each write to a
//! shard. `PUT` and `DELETE` take one condition: `If-None-Match: *` (the key has no value), `If-Match: *` (it has one)
//! or `If-Match: "17"` (it has this one). Conditions are checked and writes made one after the other, in the order in
//! which they arrive. A condition that does not hold is answered with 412 and the current `ETag`.
//!
//! # Guarantees
//!
//! Reads are linearizable: a read sees every write that was acknowledged before the read arrived, whichever node owned
//! the shard then. A listing is linearizable for each shard separately. Acknowledged writes are durable on the object
//! store. A write that could not be made durable in time is answered with 503 and may still become durable, even one
//! with a condition. A 503 with `Coterie-Not-Processed` means that nothing was done. Data that is damaged on the store
//! is answered with 500, never returned as a value.
//!
//! Bodies take room in memory as they arrive, at least 8 KiB per second measured over ten seconds; a slower one is
//! refused with 408 `slow-body`. When all room is taken, a body that finds no more for two seconds is refused with 503
//! `too-busy`, the youngest first.
//!
//! A value with a `ttl` expires within about a second after its time, or later while its shard has no owner. Every
//! reader sees it until it is deleted. Its age is measured by the shard's own clock, *data time*, which begins with the
//! wall clock of the first owner, advances steadily, never runs back and ignores changes of the wall clock; only a new
//! owner whose wall clock is ahead moves it forward. So a `ttl` is right even if wall clocks are wrong.
//! `Coterie-Expires-Ms` is in data time; the metric `data_time_ahead_seconds` is how far that is ahead of the owner's
//! wall clock.
//!
//! # Read levels
//!
//! `consistency=strong`, the default, gives the guarantees above. With `primary` the owner answers without checking on
//! the store that it still is the owner; one that lost the shard without noticing may miss later writes. With `any` the
//! owner or a *replica* answers, and states in `Coterie-Staleness-Ms` how stale the answer may be at most; a listing
//! states it for its stalest part. Only durable data is returned at any level. A replica polls the store ten times a
//! second on a folder, and once a second on a cloud store, where a poll that finds nothing costs two requests. It
//! writes nothing. It refuses everything but reads with `any` with 421, or forwards it.
//!
//! # Watching
//!
//! A watch sends every change of keys with the prefix once, in the order of the writes of each shard, after it is
//! durable: events `put` and `delete`, whose data is `{"key", "version", "shard", "size", "content_type"}`, with the
//! key as in a listing. A value that expires is deleted. With `values=true` there is also `value`, or `value_base64`,
//! as in a listing. The first event is `ready`. An event's id is a *cursor*, `0:123.0,1:77.2`: a watch with this `from`
//! or `Last-Event-ID` begins after that event. So a client that first watches and then lists misses nothing. While
//! nothing changes, a comment is sent every ten seconds, with the cursor as an id of its own. A move of a shard does
//! not end the stream; when the member that serves it ends it, any other member takes the cursor. Changes are kept for
//! two minutes at least. A cursor that is older is answered with 410 `history-gone`, or with that problem in a last
//! event, `gone`.
//!
//! A member serves at most `max_watches` at once; more are refused with 503 `too-many-watches`. A slow reader gets all
//! changes too, from the log once they are no longer in memory, and takes little memory of the member. Values over 32
//! KiB on their way to watches share 32 MiB: a stream from which nothing was read for two seconds ends when others
//! wait, perhaps in the middle of such a value. The id of its last whole event resumes it.
//! # Listings
//!
//! `start` is the first key that is listed, `end` the first one that is not, and `after` excludes the key itself.
//! `limit` is at most 10000. With `values=true` each key has its `value`, or `value_base64` if that is no text.
//! `bytes`, at most and by default 4 MiB, is about what a page has before its last key. `next` is the `after` of the
//! next page, `null` at the end. A page may be shorter than `limit` before the end. A listing that misses a shard
//! fails. Large pages share memory as well: one that finds no room within five seconds is refused with 503 `too-busy`.
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
//! The answer is `{"version": 18}`, the version of everything that was put, or `null` if there was nothing to change.
//! The `failed` of a 412 lists the conditions that do not hold, each with the number of the operation from 0, the key
//! and its current version. Keys of several shards are refused with 400, which lists the keys by shard in `shards`; so
//! is a key that appears twice. Any member takes a batch and forwards it to the owner. A batch has at most 8 MiB.
//!
//! # Imports
//!
//! ```json
//! {"key": "user/1", "value": "text", "content_type": "text/plain", "expires_ms": 1764000000000}
//! {"key": "user/2", "value_base64": "AP8="}
//! ```
//!
//! Any member takes an import of at most 12 MiB and splits it. A bad line is answered with 400 and its number in
//! `line`, and nothing is written. `{"imported": 2}` means that all lines are durable. If an import fails, some of it
//! may be stored; it is safe to repeat it.

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

    /// A write that is sent twice would undo writes made in between.
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
