//! The service type `searcher`: full-text search over JSON documents, which are durable on the cluster's object store.
//!
//! Below `/svc/{service}`, on any member; JSON in both directions:
//!
//! | request | effect |
//! |---|---|
//! | `GET /` | the indexes, by name; with their documents and bytes, if all shards answer within a second |
//! | `PUT /{index}` | creates an index with the definition in the body, 201; adds to the definition of one that exists, 200 |
//! | `GET /{index}?consistency=` | its definition, its documents and bytes, in total and at each shard |
//! | `DELETE /{index}` | deletes it with its documents; 409 `declared-index` if the settings declare it |
//! | `PUT /{index}/docs/{id}?refresh=` | stores the body as the document, 201 if it is new, else 200 |
//! | `GET`, `HEAD /{index}/docs/{id}?consistency=` | the document as it was sent, without white space between its tokens; 304 if `If-None-Match` has its `ETag`, 412 if `If-Match` does not |
//! | `PATCH /{index}/docs/{id}?refresh=&upsert=` | merges the body into the document |
//! | `DELETE /{index}/docs/{id}?refresh=` | deletes the document; 200 whether there was one or not |
//! | `POST /{index}/docs?refresh=` | stores a document from each line of the body |
//! | `POST /{index}/delete` | deletes what a search finds |
//! | `GET`, `POST /{index}/search` | searches: parameters in the query, or a JSON body |
//! | `GET /{index}/suggest?field=&prefix=&size=&consistency=` | the most frequent values of a keyword field with a prefix, with their counts |
//! | `POST /{index}/refresh` | makes everything that was acknowledged visible to searches |
//! | `POST /{index}/compact` | merges the segments of each shard into one, without deleted documents |
//!
//! Errors are problem details with a code and, nearly always, a hint. Unknown parameters and unknown members of bodies are
//! refused with 400. Paths that begin with `/_` are for requests between members. A refresh may take 30 seconds, a compaction
//! 50; then they are answered with 504 `not-done-in-time`, and go on: the merges end, and the next refresh shows and stores
//! their results. Another compaction that is sent before that does no harm, but merges the same segments a second time.
//!
//! # Indexes
//!
//! An index has a name: lower case, at most 255 bytes, beginning with none of `-_+`, without `\ / * ? " < > | , # :`, spaces
//! and control characters, and not `.`, `..` or `es`. A service has at most 200 indexes. A *definition* is
//!
//! ```json
//! {"fields": {"name": {"type": "keyword"}, "text": {"type": "text", "analyzer": "en"}}, "id": "name", "dynamic": true,
//!  "default_fields": {"text": 1, "name": 3}, "synonyms": ["tv, television"]}
//! ```
//!
//! Types are `text`, `keyword`, `i64`, `f64`, `bool`, `date` and `json`. All members are optional. `id` names the field that
//! has a document's id. `dynamic` says what happens to fields that are not declared: they are indexed (`true`, the default),
//! only stored (`false`), or the document is refused (`"strict"`). `coerce` set to `true` converts values of other types than a
//! field's, as Elasticsearch does; once it is on, it stays.
//!
//! A `text` or a `keyword` may have sub-fields in its `fields`: the same text, indexed in other ways. With the sub-field
//! `exact` of `title`, queries name `title.exact`. A keyword with `"normalizer": "lowercase"` is compared in lower case.
//!
//! A later `PUT` adds fields, and replaces `default_fields` and `synonyms` if it has them. What it leaves out stays as it is. A
//! field that it names has its whole definition there, except for sub-fields: without `ignore_above` a keyword has none any
//! more. Types, analyzers, normalizers, `id` and `dynamic` can't change: a `PUT` that has others is refused with 409
//! `index-exists`. The answer is `{"name", "uuid", "created", "extended"}`. The definitions in the settings are applied in the
//! same way when a member starts.
//!
//! Any member takes requests for an index as soon as its creation is answered. After a deletion is answered, members refuse
//! its documents with 404. `unreached` lists members that could not be informed; they learn of it within seconds, once they
//! can read the store. An index that is created again under the same name is another one, and has none of the former
//! documents.
//!
//! The list of indexes, the *catalog*, is a log on the object store. If the store does not answer, requests that need to read
//! it are refused with 503 `catalog-unavailable`; if its latest record is damaged or a newer version's, with 500
//! `damaged-catalog`, which names the object. Running members keep the indexes that they know and report it in their health.
//!
//! # Documents
//!
//! A document is a JSON object of at most 8 MiB. Its *id* is 1 to 512 bytes of UTF-8, any characters: the rest of the path,
//! percent-decoded once; `/` and `+` stand for themselves. If the definition names a field as `id` and the document has it,
//! its value must be the id in the path. The hash of the id decides the shard.
//!
//! A write is answered with `{"id", "index", "seq", "term", "version", "result"}`. `seq` is the number of the operation in its
//! shard, which is also the `ETag`: `"17"`. `term` is the epoch of the owner's claim. `version` counts the writes of an id
//! since it last had no document. `result` is `created`, `updated`, `deleted`, `noop` (a patch that changed nothing) or
//! `not_found` (there was nothing to delete; the numbers are 0). A read has the numbers in `ETag`, `Coterie-Seq`,
//! `Coterie-Term` and `Coterie-Version`.
//!
//! A patch is merged deeply: objects member by member; everything else is replaced, and `null` is a value like any other.
//! Without a document it is refused with 404, unless `upsert=true` makes the patch the document.
//!
//! A write takes one condition: `If-None-Match: *` (there is no document), `If-Match: "17"`, or
//! `if_seq_no=17&if_primary_term=3`. A condition that does not hold is answered with the current `ETag`, if there is a
//! document: with 412 `precondition-failed` if it was in a header, with 409 `version-conflict` if it was in the parameters.
//!
//! `refresh=false`, the default, answers once the write is durable. `wait` answers once searches show it and its segments are
//! on the store; `true` does the same, and begins a refresh at once. If that takes more than 30 seconds after the write was
//! durable, because the store takes no segments, they are answered with 504 `not-visible-in-time`: the write is done, and
//! searches show it later.
//!
//! # Many documents
//!
//! `POST /{index}/docs` takes lines of JSON, each a document, at most 50000 lines and `max_body` bytes (32 MiB). The id is in
//! the field that the definition names; a document without one gets a generated id, so repeating the request adds it again.
//! More lines or bytes are refused with 413, and nothing is written. Otherwise the answer is 200
//!
//! ```json
//! {"indexed": 2, "refused": [{"line": 3, "id": "x", "status": 400, "code": "bad-document", "detail": ".."}]}
//! ```
//!
//! Every line has its own outcome: `indexed` counts those that are durable, and `refused` lists the others in their order,
//! with the status that a request of its own would have got, and with the `id` if it is known. Nothing was written of a line
//! with 503 `shard-missing` (its shard has no owner), `not-open` or `not-the-owner`, 429 `too-far-behind`, or 507 `no-space`.
//! A line with `outcome-unknown` or `not-durable-in-time` may have been written; sending it again with its id does no harm. A
//! line with 504 `not-visible-in-time` was written, and is not counted in `indexed`, because the request wanted to wait until
//! searches show it. Lines of one id are written in their order.
//!
//! `POST /{index}/delete` takes `q`, `filter`, `fields`, `default_operator`, `typos` and `timeout` of a search, `q` or
//! `filter` at least; its `timeout` is 50 s unless given. Each shard is looked at as of one moment, including everything
//! acknowledged before. A document that was written since is not deleted but counted: `{"deleted", "conflicts", "timed_out",
//! "shards"}`. If `timed_out` is true or `shards.failed` is not empty, something may be left; send the request again.
//!
//! # Searches
//!
//! | member | meaning |
//! |---|---|
//! | `q` | the query; everything matches unless given |
//! | `filter` | queries that all must match and do not score, each with all its words; a text or a list |
//! | `fields` | the fields to search, instead of the default fields: a list, or an object with boosts |
//! | `default_operator` | `or` (the default) or `and`: whether any word of `q` must match, or all |
//! | `typos` | `off` (the default) or `auto`: one wrong letter in words of 4 letters or more, two from 8 on |
//! | `sort` | up to 8 keys, `"field"`, `"-field"` or `{"field", "order", "missing"}`; by score unless given |
//! | `size`, `from` | how many hits, 10 unless given and at most 1000, and how many to skip; 10000 in total |
//! | `search_after` | the `next` of the last answer, for the next page; without the limit of `from` |
//! | `highlight` | `true`, or an object with options: fragments with the words that match |
//! | `facets` | how often values occur: a list of fields, or an object with the number of values of each, 10 unless given |
//! | `aggs` | aggregations as in Elasticsearch, those that Tantivy has; only in a body |
//! | `source` | `true` (the default), `false`, or a list of paths: what of the documents to return |
//! | `explain` | `true` explains each score |
//! | `did_you_mean` | `false` proposes no other spelling if there are no hits |
//! | `consistency`, `timeout`, `allow_partial` | see below |
//!
//! In the query of a `GET`, lists are separated by commas, and `filter` may be repeated.
//!
//! ```json
//! {"took_ms": 3, "timed_out": false, "total": 123, "max_score": 3.2, "shards": {"total": 2, "ok": 2, "failed": []},
//!  "hits": [{"id": "nginx", "score": 3.2, "sort": [3.2, 17, 0], "source": {}}], "next": [3.2, 17, 0]}
//! ```
//!
//! A search runs in two rounds at one holder of each shard, so that all shards expand and rank as one index would. A shard
//! that fails makes the answer partial, and `shards.failed` says why; with `allow_partial=false`, with `consistency=strong`,
//! or if all fail, the search is refused instead. `timeout` (`10s`, at most `60s`) limits all of it: a shard that is not done
//! by then is missing as a whole, and `timed_out` says so. A shard without an owner is waited for during half of that time.
//!
//! At most `query_threads` queries run at a member, and `max_queries` wait; more are refused with 429 `too-busy`. A client
//! that leaves ends its query. A query that fails with a panic is answered with 500 `query-panicked`, and the member goes on.
//!
//! # Read levels
//!
//! A document that is read by its id has `consistency=strong` by default: the read sees every write that was acknowledged
//! before it arrived, whichever node owned the shard then. With `primary` the owner answers without checking on the store that
//! it still is the owner. With `any` the owner or a *replica* answers; a replica sees only what the owner has uploaded.
//!
//! Searches and suggestions have `primary`: the owner answers from its last refresh. With `strong` it first confirms its claim
//! on the store and makes everything visible that was acknowledged before.
//!
//! With `any`, `Coterie-Staleness-Ms` states how stale the answer may be at most, for the stalest shard; it is missing if that
//! is not known. A replica refuses other requests for its shard with 421, or forwards them.
//!
//! # Guarantees
//!
//! An acknowledged write is durable on the object store, and survives the loss of any node. A write that could not be made
//! durable in time is answered with 503, and may still become durable. A 503 with `Coterie-Not-Processed` means that nothing
//! was done. 429 means that nothing was done and that `Retry-After` should be waited for, 507 that the disk is full or `disk`
//! is used up. Data that is damaged on the store is answered with 500, never returned.
//!
//! Bodies take room in memory as they arrive, at least 8 KiB per second measured over ten seconds; a slower one is refused
//! with 408 `slow-body`. All bodies of clients share twice `max_body`. When all room is taken, a body that finds no more for
//! two seconds is refused with 503 `too-busy`, the youngest first. Answers over 32 KiB that are being sent share 32 MiB of the
//! member's memory: one that finds no room within five seconds is refused with 503 `too-busy`, and one of which the client has
//! read nothing for two seconds is cut off if others wait.
//!
//! # Elasticsearch's API
//!
//! A part of Elasticsearch 8's API is below `/svc/{service}/es/`, for the same indexes; with the setting `es_listen` also
//! at `/` of a listener of its own, for clients that take only a host and a port. Each member opens it, so members on one
//! machine need different ports, or port 0. Errors have Elasticsearch's form. What is not supported is refused by name with
//! 400.
//!
//! - `/`, `_bulk`, `_doc`, `_create`, `_update`, `_source`, `_mget`, `_search`, `_msearch`, `_count`, scrolls and points in
//!   time, `_delete_by_query`; indexes with `mappings` and `settings.analysis`, `_mapping`, `_settings`, `_field_caps`,
//!   `_refresh`, `_flush`, `_forcemerge`, `_analyze`; `_cat/indices`, `_cat/health`, `_cluster/health`, and of
//!   `_cluster/settings` the setting `action.auto_create_index`. Bodies may be compressed with gzip: `max_body` limits them
//!   before and after that.
//! - A first write creates an index if `auto_create` allows it. Indexes that are created here convert values as
//!   Elasticsearch does: `coerce` in their definition. `integer`, `short` and `byte` are kept as `long`, `float` and
//!   `half_float` as `double`. `_mapping` and `_field_caps` show declared fields only.
//! - The analyzer `standard` removes diacritics, too. `number_of_shards`, `number_of_replicas`, `refresh_interval`, `norms`
//!   and `index_options` are accepted with a `Warning` header, and have no effect.
//! - `_bulk` checks the shape of all items first, else 400 or 413 for all. Then each has its own status. 503 means that an
//!   item may have been written: repeating it with its id does no harm, without one it may add a second document. The same
//!   goes for 504, which writes with `refresh` are answered with: the write is done, and searches show it later.
//! - `_delete_by_query` sees everything that was acknowledged before. With `conflicts=abort`, the default, it is answered
//!   with 409 if a document was written meanwhile, but only after it has deleted the others.
//! - A document that is read by its id is as fresh as with `consistency=strong`; searches are as with `primary`.

mod catalog;
mod definition;
mod document;
mod es;
mod gather;
mod http;
mod operation;
mod query;
mod query_pool;
mod schema;
mod search;
mod service;
mod settings;
mod shard;

use plugin::{Plugin, Prepared, SettingsError, check_settings, settings_schema};
use types::{ServiceType, Sharding, Target};

use crate::settings::Settings;

/// The service type `searcher`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Searcher;

impl Plugin for Searcher {
    fn service_type(&self) -> ServiceType {
        "searcher".parse().expect("the name follows the rule")
    }

    fn about(&self) -> &'static str {
        "searches documents by their text, ranked as one index; every acknowledged document is durable on the object store"
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
        http::may_repeat(head)
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
