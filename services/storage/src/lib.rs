//! The service type `storage`: a key-value store, each shard a SlateDB on the cluster's object store.
//!
//! Below `/svc/storage`, on any member:
//!
//! | request | what it does |
//! |---|---|
//! | `PUT /kv/{key}?ttl=30s` | stores the body with its content type; 200 with its `ETag` once it is durable; `ttl`, 1 s to 10 years, may be left out |
//! | `GET`, `HEAD /kv/{key}` | the value; `Coterie-Expires-Ms` if it expires; 304 if its `ETag` is in `If-None-Match`; 404 if there is none |
//! | `DELETE /kv/{key}` | 204 once it is durable that there is none, whether there was one or not |
//! | `GET /kv?prefix=&start=&end=&after=&limit=&values=` | keys of all shards in the order of their bytes, with size, version, content type and, if wanted, value |
//! | `POST /batch` | up to 1000 operations on keys of one shard, all at one moment or none |
//! | `POST /import` | up to 10000 lines of JSON, each a key and its value; fast, and not atomic |
//!
//! # Keys and values
//!
//! A *key* is 1 to 1024 bytes, any bytes: the rest of the path, percent-decoded once. `/` and `+` stand for themselves.
//! A listing writes keys so that they may be put into a path or a query as they are: letters, digits and `-._~`
//! stand for themselves, all else is percent-encoded, and so is `/` in keys in which a client could take a step for
//! empty or dotted. Wherever JSON has a key it is written and read in this way too, so a percent sign is `%25`. A
//! *value* has at most 8 MiB.
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
//! A value with a `ttl` expires within about a second after its time; later while its shard has no owner or its
//! owner's clock is set back. Until it is deleted it is there for everybody.
//!
//! # Listings
//!
//! `start` is the first key that is shown, `end` the first one that is not, `after` leaves the key itself out; `limit` is
//! at most 10000. With `values=true` each key has its `value`, or `value_base64` if that is no text. `bytes`, at most
//! and by default 4 MiB, is about what a page has before its last key. `next` is what to ask `after` for more, `null` at
//! the end. A page may be shorter than `limit` before the end. A listing that misses a shard fails.
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
//! Any member takes an import of at most 8 MiB and splits it. Nothing is written if a line is bad: 400 with its number
//! in `line`. `{"imported": 2}` says that all is durable. If it fails some may be stored; repeating it does no harm.

mod batch;
mod change;
mod commit;
mod conditions;
mod engine;
mod expiry;
mod garbage;
mod gather;
mod given;
mod import;
mod inside;
mod keeper;
mod key;
mod meters;
mod open;
mod ownership;
mod page;
mod record;
mod refusal;
mod rounds;
mod routes;
mod scan;
mod service;
mod settings;
mod tuning;
mod vigil;
mod witness;

use plugin::{Plugin, Prepared, SettingsError, parse_settings};
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

    fn target(&self, head: &http::request::Parts) -> Target {
        routes::target(&head.uri)
    }

    /// A write that is sent twice would undo what others wrote in between.
    fn may_repeat(&self, head: &http::request::Parts) -> bool {
        head.method.is_safe()
    }

    fn prepare(&self, settings: &serde_json::Value) -> Result<Box<dyn Prepared>, SettingsError> {
        Ok(Box::new(parse_settings::<Settings>(settings)?.check()?))
    }
}

#[cfg(test)]
mod tests;
