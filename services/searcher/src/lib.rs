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
//! | `POST /{index}/reindex` | copies documents into another index |
//! | `GET`, `POST /{index}/search` | searches: parameters in the query, or a JSON body |
//! | `GET /{index}/suggest?field=&prefix=&size=&consistency=` | the most frequent values of a keyword field with a prefix, with their counts |
//! | `POST /{index}/refresh` | makes everything that was acknowledged visible to searches |
//! | `POST /{index}/compact` | merges the segments of each shard into one, without deleted documents |
//! | `GET /_aliases`, `GET /{index}/aliases` | the aliases with their indexes, all or those of an index |
//! | `POST /_aliases` | adds and removes aliases and removes indexes, all at once |
//! | `PUT`, `GET`, `DELETE /{index}/aliases/{alias}` | adds the index to the alias, shows the alias, takes the index out of it |
//! | `GET /_templates` | the templates |
//! | `PUT`, `GET`, `DELETE /_templates/{name}` | creates or replaces a template, shows it, deletes it |
//!
//! Errors are problem details with a code and, nearly always, a hint. Unknown parameters and unknown members of bodies are
//! refused with 400. Paths that begin with `/_shard` and `/_catalog` are for requests between members. A refresh may take 30
//! seconds, a compaction 50; then they are answered with 504 `not-done-in-time`, and go on: the merges end, and the next refresh
//! shows and stores their results. Another compaction that is sent before that does no harm, but merges the same segments a
//! second time.
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
//! Types are `text`, `keyword`, `i64`, `f64`, `bool`, `date`, `ip`, `json` and [`vector`](#vectors). All members are optional. `id` names
//! the field that
//! has a document's id. `dynamic` says what happens to fields that are not declared: they are indexed (`true`, the default),
//! only stored (`false`), or the document is refused (`"strict"`). `coerce` set to `true` converts values of other types than a
//! field's, as Elasticsearch does; once it is on, it stays.
//!
//! A `text` or a `keyword` may have sub-fields in its `fields`: the same text, indexed in other ways. With the sub-field
//! `exact` of `title`, queries name `title.exact`. A keyword with `"normalizer": "lowercase"` is compared in lower case.
//!
//! An `ip` is an address of version 4 or 6, as a string; `::ffff:10.0.0.1` is the same as `10.0.0.1`. Queries name an address, a
//! network (`ip:10.0.0.0/8`, `ip:"2001:db8::/32"`) or a range; there are no prefixes. Facets and the aggregations `terms`,
//! `cardinality` and `value_count` count addresses, and they are sorted as numbers are; in `sort` of a hit one is
//! `{"ip": "10.0.0.1"}`. A text that is not declared is no address, whatever it looks like; where the
//! field is declared later, documents that were written before keep their text until they are written again.
//!
//! Each field costs memory in every segment. So the documents of an index may have at most 5000 different fields in a shard that
//! are not declared, and one document 1000 in all. A document that would bring more is refused with 400 `bad-document`; others go
//! on. Fields that only deleted documents had may count until the shard is opened again after a merge.
//!
//! A later `PUT` adds fields, and replaces `default_fields` and `synonyms` if it has them. What it leaves out stays as it is. A
//! field that it names has its whole definition there, except for sub-fields: without `ignore_above` a keyword has none any
//! more. Types, analyzers, normalizers, `id` and `dynamic` can't change: a `PUT` that has others is refused with 409
//! `index-exists`; [copy the documents](#copies) into a new index instead. The answer is `{"name", "uuid", "created", "extended"}`. The definitions in the settings are applied in the
//! same way when a member starts.
//!
//! Any member takes requests for an index as soon as its creation is answered. After a deletion is answered, members refuse
//! its documents with 404, unless a write creates the index again because `auto_create` allows it. `unreached` lists members that
//! could not be informed; they learn of it within seconds, once they can read the store. An index that is created again under
//! the same name is another one, and has none of the former documents.
//!
//! A first write to an index that does not exist creates it, if the setting `auto_create` allows that: `true`, the default,
//! `false`, or a list of patterns. It is a `PUT` of a document, a `PATCH` with `upsert=true` or a `POST` of documents whose body
//! has a JSON object. `_cluster/settings` of Elasticsearch's API can override the setting for both APIs.
//!
//! `delete_after` in a definition, such as `"30d"`, deletes an index as a whole that long after its creation; `"never"` keeps it.
//! Both times are the store's own, so no member's clock counts. The owners look once a minute, after they have been running for
//! ten minutes in which the store's clock did not jump. Each deletion is logged and counted in the metric `indexes_expired`. An
//! index that the settings declare is never deleted.
//!
//! # Aliases
//!
//! An alias is another name for an index or for several. Indexes and aliases share one set of names: one that is taken is
//! refused with 409 `name-taken`. An alias is taken wherever the name of an index is. Searches, suggestions, deletions by query,
//! refreshes and compactions of it go to all of its indexes. Writes go to one: the only index, or the one with
//! `is_write_index: true`; without such an index they are refused with 400 `no-write-index`. A document is read by its id, and
//! an index shown, only under an alias of one index, else 400 `alias-of-several`.
//!
//! ```json
//! {"actions": [{"remove": {"index": "logs-1", "alias": "logs"}}, {"add": {"index": "logs-2", "alias": "logs"}}]}
//! ```
//!
//! All actions are one change: a request sees all of it or nothing. `remove_index` deletes an index. In the names of indexes,
//! and in the names of aliases that are removed, `*` stands for any characters. Both names may be lists, in `indices` and
//! `aliases`. An alias takes no filter and no routing. A deleted index is taken out of its aliases in the same change; an alias
//! without indexes is gone. There are at most 1000 aliases, counted for each of their indexes.
//!
//! # Templates
//!
//! A template says what an index gets whose name matches one of its patterns, when a request or a first write creates it:
//!
//! ```json
//! {"patterns": ["logs-*"], "priority": 100, "aliases": {"logs": {}},
//!  "definition": {"fields": {"level": {"type": "keyword"}}, "delete_after": "30d"}}
//! ```
//!
//! The matching one with the highest priority is used, 0 unless given. What the request defines counts before it, each field as
//! a whole. Two templates with the same priority whose patterns may match the same name are refused with 400
//! `template-overlap`. A template has no part in indexes that exist, and none in those that the settings declare. There are at
//! most 200, which take at most 2 MiB together. `version` and `meta` are for notes of their users.
//!
//! # The catalog
//!
//! The list of indexes, aliases and templates, the *catalog*, is a log on the object store. If the store does not answer,
//! requests that need to read it are refused with 503 `catalog-unavailable`; if its latest record is damaged or a newer
//! version's, with 500 `damaged-catalog`, which names the object. Running members keep the indexes that they know and report it
//! in their health.
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
//! # Copies
//!
//! `POST /{index}/reindex` copies documents with their ids into another index, which must exist: usually one with another
//! definition. Its body has `to`, the other index; `q`, `filter`, `fields`, `default_operator` and `typos` as a search has them,
//! all documents without them; `timeout`, `50s` unless given and at most an hour; and `after_seq`. The answer is
//!
//! ```json
//! {"copied": 2, "skipped": 0, "refused": 1, "refusals": [{"id": "x", "status": 400, "code": "bad-document", "detail": ".."}],
//!  "timed_out": false, "seqs": {"0": 17, "1": 23}, "shards": {"total": 2, "ok": 2, "failed": []}}
//! ```
//!
//! A copy never replaces what is newer: a document of the other index stays if it was written after the one that would replace it,
//! by a client or by an earlier copy, and is counted in `skipped`. So clients may write to both indexes meanwhile, and a copy may
//! be repeated. `refused` counts documents that do not fit the other index, and `refusals` has the first hundred of them.
//!
//! Everything that was acknowledged before the request is copied. `seqs` says up to which operation of each shard that is so; it
//! is `null` for a shard without operations. With these numbers in `after_seq`, the next copy takes only what was written
//! later. If `timed_out` is true or `shards.failed` is not empty, go on in the same way. A gateway waits a minute for an answer, so
//! ask for less or a member itself. If the client leaves, the copy ends.
//!
//! Deletions are not copied: a document that is deleted from the first index while or after it is copied may stay in the other one,
//! and one that is deleted from the other index comes back with the next copy of the same document. Segments of both indexes take
//! space until the first one is deleted.
//!
//! To change the type of a field without losing writes: create an index with the new definition; copy; copy again with `after_seq`,
//! until little is left; let writers use the new index; copy once more, for what was written in between; then let readers
//! use it. Documents that clients have written to the new index meanwhile stay.
//!
//! # Searches
//!
//! `{index}` may be a list of indexes and aliases, with `*` for any characters and exclusions after that: `logs-*,-logs-old*`.
//! Then each hit names its `index`, scores count words within each index, and `shards` has the shards of each.
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
//! | `knn`, `rrf` | the nearest [vectors](#vectors), and how they are ranked together with `q`; only in a body |
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
//! At most `query_threads` queries run at a member, and `max_queries` wait; more are refused with 429 `too-busy`. A search
//! for words that few documents have runs at once, beside those. A client that leaves ends its query. A query that fails with a
//! panic is answered with 500 `query-panicked`, and the member goes on.
//! After that, and after a request that finds corrupt data in a local file (500 `damaged-local-files`), the checksums of the
//! shard's local files are verified, at most once a minute; damaged ones are fetched from the store again. Health says so
//! meanwhile. A file that is cut short while it is in use ends the process; its next start fetches the file.
//!
//! # Vectors
//!
//! A field `{"type": "vector", "dims": 384, "similarity": "cosine"}` has a list of that many numbers, 1 to 4096, which the client
//! computes. A document without it, or with `null`, has no vector. A list of another length is refused, and so are nested lists,
//! numbers beyond those of 32 bits, and vectors whose squares sum up to infinity. The source keeps the list as it was sent. The
//! field may be declared later; then documents have no vector until they are written again.
//!
//! | `similarity` | score | refused |
//! |---|---|---|
//! | `cosine`, the default | `(1 + cos) / 2` | zeros |
//! | `dot_product` | `(1 + dot) / 2` | a length other than 1 |
//! | `l2_norm` | `1 / (1 + distance * distance)` | |
//! | `max_inner_product` | `1 + dot`; `1 / (1 - dot)` if `dot` is below 0 | |
//!
//! ```json
//! {"knn": {"field": "embedding", "vector": [0.1, 0.2], "k": 10, "filter": "lang:en", "boost": 1, "min_similarity": 0.5}}
//! ```
//!
//! finds the `k` documents, 10 unless given and at most 1000, that are nearest over all shards, of those that match the
//! `filter` of the search and that of `knn`. It is exact: all their vectors are compared. `min_similarity` is the lowest cosine or
//! product, and for `l2_norm` the greatest distance. Only the nearest match: they are what `total`, facets and aggregations
//! count, and what `sort` and `search_after` put in order. In the first round of a search over several shards there is half of
//! `timeout` for it.
//!
//! Together with `q`, or with a list of up to 5 vectors, hits are ranked by *reciprocal rank fusion*: a document has the score
//! `boost / (rank_constant + rank)` from each ranking in which it is one of the first `rank_window_size`, and these are added up;
//! `q` counts with a boost of 1. `rrf` sets them: `{"rank_constant": 60, "rank_window_size": 100}` unless given, from 1 to
//! 1000000 and from 1 to 1000; without `rank_window_size` it is at least `from` and `size` together. `total`, facets and
//! aggregations count what matches `q` or is nearest. `sort` and `search_after` are refused; `highlight` and `explain` work.
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
//!   `_reindex`, `_refresh`, `_flush`, `_forcemerge`, `_analyze`; `_alias`, `_aliases`, `_index_template` without component
//!   templates and data streams; `_cat/indices`, `_cat/aliases`, `_cat/health`, `_cluster/health`, and of
//!   `_cluster/settings` the setting `action.auto_create_index`. Bodies may be compressed with gzip: `max_body` limits them
//!   before and after that.
//! - A first write creates an index if `auto_create` allows it. Indexes that are created here convert values as
//!   Elasticsearch does: `coerce` in their definition. `integer`, `short` and `byte` are kept as `long`, `float` and
//!   `half_float` as `double`. `_mapping` and `_field_caps` show declared fields only.
//! - The analyzer `standard` removes diacritics, too. `number_of_shards`, `number_of_replicas`, `refresh_interval`, `norms`
//!   and `index_options` are accepted with a `Warning` header, and have no effect.
//! - `_bulk` checks the shape of all items first, else 400 or 413 for all. Then each has its own status. 503 means that an
//!   item may have been written: repeating it with its id does no harm, without one it may add a second document.
//! - A write with `refresh` that is durable, but not visible to searches after 30 seconds, is answered as done, with
//!   `"forced_refresh": false`: an error would make clients repeat it.
//! - Aggregations are `terms`, `multi_terms`, `composite` (on the top level; histograms in it have documents without a value
//!   first), `range`, `date_range`, `histogram`, `date_histogram` with `fixed_interval`, `filter`, `filters`, `missing`,
//!   `avg`, `min`, `max`, `sum`, `stats`, `extended_stats`, `value_count`, `cardinality` and `percentiles`. Time zones are
//!   offsets, and formats write numbers with all their digits. A field that was not declared counts as a date if only dates
//!   are in it.
//! - `_delete_by_query` sees everything that was acknowledged before. With `conflicts=abort`, the default, it is answered
//!   with 409 if a document was written meanwhile, but only after it has deleted the others.
//! - `_reindex` takes `source.index` (one), `source.query`, `dest.index`, `dest.op_type` and `conflicts`. It takes 50 s at most, then
//!   `timed_out` is true; repeat it, and it goes on. It never replaces what is newer: such documents are `noops`, or with
//!   `op_type=create` conflicts. `_mapping` refuses another type for a field; `ip_range` and `ignore_malformed` are not supported.
//! - `dense_vector` with `element_type: float`, and `knn`: beside `query`, where the scores are added up, as the whole `query`, or
//!   with `rank: {rrf}`. Searches are exact, so `index_options` has no effect. `k` counts over all shards, also in a query. Not over
//!   several indexes, and not within other queries.
//! - A document that is read by its id is as fresh as with `consistency=strong`; searches are as with `primary`.

mod catalog;
mod definition;
mod document;
mod es;
mod gather;
mod glob;
mod http;
mod operation;
mod query;
mod query_pool;
mod schema;
mod search;
mod service;
mod settings;
mod shard;
mod vectors;

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
        let files = [include_str!("../openapi.json"), include_str!("../openapi_es.json")];
        let paths = files.into_iter().flat_map(|file| {
            let paths: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(file).expect("the file is a JSON object, as a test shows");
            paths
        });
        serde_json::Value::Object(paths.collect())
    }

    fn prepare(&self, settings: &serde_json::Value) -> Result<Box<dyn Prepared>, SettingsError> {
        Ok(Box::new(check_settings(settings, Settings::check)?))
    }
}

#[cfg(test)]
mod tests;
