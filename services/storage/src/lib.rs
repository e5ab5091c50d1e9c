//! The service type `storage`: a key-value store, each shard a SlateDB on the cluster's object store.
//!
//! Below `/svc/storage`, on any member:
//!
//! | request | what it does |
//! |---|---|
//! | `PUT /kv/{key}` | stores the body with its content type; 200 with its `ETag` once it is durable |
//! | `GET`, `HEAD /kv/{key}` | the value; 304 if its `ETag` is in `If-None-Match`; 404 if there is none |
//! | `DELETE /kv/{key}` | 204 once it is durable that there is none, whether there was one or not |
//! | `GET /kv?prefix=&start=&end=&after=&limit=` | keys of all shards in the order of their bytes, with size, `ETag` and content type |
//!
//! A *key* is 1 to 1024 bytes, any bytes: the rest of the path, percent-decoded once. `/` and `+` stand for themselves.
//! A listing writes keys so that they may be put into a path or a query as they are: letters, digits and `-._~`
//! stand for themselves, all else is percent-encoded, and so is `/` in keys in which a client could take a step for
//! empty or dotted. A *value* has at most 8 MiB.
//!
//! Reads are linearizable: what was answered before a read came is seen by it, whichever node owned the shard then. A
//! listing is that for each shard by itself. What was answered as written is durable on the object store. A write that
//! could not be made durable in time is answered with 503 and may still become durable. A 503 with
//! `Coterie-Not-Processed` was not touched at all.
//!
//! In a listing `start` is the first key that is shown, `end` the first one that is not, `after` leaves the key itself
//! out; `limit` is at most 10000. `next` is what to ask `after` for more, `null` at the end. A page may be shorter than
//! `limit` before the end. A listing that misses a shard fails.

mod engine;
mod garbage;
mod gather;
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
