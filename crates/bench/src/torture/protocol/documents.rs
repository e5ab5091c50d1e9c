//! The documents API.
//!
//! A key is the id of a document, a value is its token, which no other document ever has, and a version is the number of
//! the operation that wrote it. All documents of a group have a field with the group's name, and all share some words.

mod many;

use std::collections::BTreeSet;
use std::fmt;

use http::header::{CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use http::request::Builder;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::{Value, json};
use types::api;

use crate::torture::history::{Action, Condition, Key, Outcome, show_value, value};
use crate::torture::protocol::{Body, Call, Reads, Reply, code, refused, staleness, version};
use crate::wire::Answer;
pub(crate) use many::{bulk, bulk_replies};

const INDEX: &str = "torture";
/// A word that every document has.
const COMMON: &str = "common";
/// The most hits in an answer.
pub(crate) const MAX_HITS: usize = 1_000;
/// The header with the epoch of the claim under which a document was written.
const TERM: &str = "coterie-term";

/// A document that a search found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hit {
    pub(crate) key: Key,
    /// `u64::MAX`, which no client puts, if it is not a document that a client put under this key.
    pub(crate) value: u64,
    pub(crate) version: u64,
}

impl fmt::Display for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {} as \"{}\"", self.key, show_value(self.value), self.version)
    }
}

/// The answer to a search.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Page {
    pub(crate) total: usize,
    pub(crate) hits: Vec<Hit>,
    /// The place after which the next page begins, if there is one.
    pub(crate) next: Option<Value>,
}

/// The request that creates the index.
pub(crate) fn create_index(base: &str) -> http::Result<Request<Body>> {
    let keyword = json!({ "type": "keyword" });
    let fields = json!({ "key": keyword, "group": keyword, "token": keyword, "body": { "type": "text" } });
    let body = json!({ "id": "key", "fields": fields, "dynamic": "strict" });
    with_json(Request::put(format!("{base}/{INDEX}")), &body)
}

/// The request that makes everything visible that was acknowledged.
pub(crate) fn refresh(base: &str) -> http::Result<Request<Body>> {
    Request::post(format!("{base}/{INDEX}/refresh")).body(Body::default())
}

/// The request that merges all segments of each shard.
pub(crate) fn compact(base: &str) -> http::Result<Request<Body>> {
    Request::post(format!("{base}/{INDEX}/compact")).body(Body::default())
}

/// The request for one document, by its id or by its token.
pub(crate) fn request(base: &str, call: &Call) -> http::Result<Request<Body>> {
    let Call { key, action, reads, filling, .. } = *call;
    match action {
        Action::Put { value, on: Condition::Present } => {
            let patch = json!({ "token": token(value), "body": body(filling) });
            with_json(conditional(base, Method::PATCH, Condition::Always, call), &patch)
        }
        Action::Put { value, on } => {
            with_json(conditional(base, Method::PUT, on, call), &source(key, value, filling))
        }
        Action::Delete { on: Condition::Value { value } } => many::delete_found(base, value),
        Action::Delete { on } => conditional(base, Method::DELETE, on, call).body(Body::default()),
        Action::Get | Action::Scan | Action::StaleRead => {
            // Strong is the default.
            let level = match reads {
                Reads::Strong => String::new(),
                Reads::Primary | Reads::Any => format!("?consistency={}", reads.as_str()),
            };
            Request::get(format!("{base}/{INDEX}/docs/{key}{level}")).body(Body::default())
        }
        Action::Search { value } | Action::StaleSearch { value } => {
            let query = json!({ "q": format!("token:{}", token(value)), "sort": ["_seq"] });
            search(base, query, reads)
        }
    }
}

/// The search for all documents of a group.
pub(crate) fn listing(base: &str, lane: u32, group: u32, reads: Reads) -> http::Result<Request<Body>> {
    let filter = format!("group:{}", group_name(lane, group));
    search(base, json!({ "q": COMMON, "filter": filter }), reads)
}

/// The search for a page of all documents, by the order in which they were written, after a place.
pub(crate) fn all(base: &str, after: Option<&Value>) -> http::Result<Request<Body>> {
    let mut query = json!({ "q": "*", "sort": ["_seq"], "size": MAX_HITS });
    if let Some(after) = after {
        query["search_after"] = after.clone();
    }
    search(base, query, Reads::Strong)
}

/// The search for the documents with any of these values.
pub(crate) fn any_of(base: &str, values: &[u64]) -> http::Result<Request<Body>> {
    let words: Vec<_> = values.iter().map(|value| format!("token:{}", token(*value))).collect();
    search(base, json!({ "q": words.join(" "), "size": MAX_HITS }), Reads::Strong)
}

fn search(base: &str, mut query: Value, reads: Reads) -> http::Result<Request<Body>> {
    query["consistency"] = reads.as_str().into();
    // An answer without the hits of a shard would decide nothing.
    query["allow_partial"] = false.into();
    with_json(Request::post(format!("{base}/{INDEX}/search")), &query)
}

/// A write with its condition.
fn conditional(base: &str, method: Method, on: Condition, call: &Call) -> Builder {
    let Call { key, term, refresh, .. } = *call;
    let mut parameters = Vec::new();
    if let (Condition::Is { version, .. }, Some(term)) = (on, term) {
        parameters.push(format!("if_seq_no={version}&if_primary_term={term}"));
    }
    parameters.extend(refresh.map(|refresh| format!("refresh={refresh}")));
    let parameters = parameters.join("&");
    let mark = if parameters.is_empty() { "" } else { "?" };
    let request =
        Request::builder().method(method).uri(format!("{base}/{INDEX}/docs/{key}{mark}{parameters}"));
    match on {
        Condition::Absent => request.header(IF_NONE_MATCH, "*"),
        Condition::Is { version, .. } if term.is_none() => request.header(IF_MATCH, format!("\"{version}\"")),
        Condition::Always | Condition::Is { .. } | Condition::Present | Condition::Value { .. } => request,
    }
}

fn with_json(request: Builder, body: &Value) -> http::Result<Request<Body>> {
    request.header(CONTENT_TYPE, "application/json").body(Full::new(body.to_string().into()))
}

/// The meaning of an answer for one document.
pub(crate) fn reply(call: &Call, answer: &Answer) -> Reply {
    if let Some(reply) = not_done(answer) {
        return reply;
    }
    let (status, version) = (answer.status, version(&answer.headers));
    match call.action {
        Action::Search { value } | Action::StaleSearch { value } => {
            let hits = page(call.action, answer).and_then(|page| is_whole(&page).map(|()| page.hits));
            hits.map_or_else(|reply| reply, |hits| found(call.key, value, &hits))
        }
        // A stale read must state its staleness.
        Action::StaleRead if staleness(answer).is_none() => {
            Reply::Unexpected(format!("{status} without {}", api::STALENESS_MS))
        }
        Action::Put { on: Condition::Present, .. }
            if status == StatusCode::NOT_FOUND && code(answer) == "no-such-document" =>
        {
            Reply::Outcome(Outcome::Refused(None))
        }
        Action::Delete { on: Condition::Value { .. } } => many::deleted_found(answer),
        Action::Put { .. } | Action::Delete { .. }
            if matches!(status, StatusCode::PRECONDITION_FAILED | StatusCode::CONFLICT) =>
        {
            Reply::Outcome(Outcome::Refused(version))
        }
        Action::Put { .. } => match (status, version) {
            (StatusCode::OK | StatusCode::CREATED, Some(version)) => Reply::Outcome(Outcome::Stored(version)),
            _ => unexpected(answer),
        },
        Action::Delete { .. } => {
            let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
            let result =
                body.as_ref().filter(|_| status == StatusCode::OK).and_then(|body| body["result"].as_str());
            match result {
                Some("deleted") => Reply::Outcome(Outcome::Deleted),
                Some("not_found") => Reply::Outcome(Outcome::Missing),
                _ => unexpected(answer),
            }
        }
        Action::Get | Action::Scan | Action::StaleRead => match (status, version) {
            (StatusCode::OK, Some(version)) => {
                let value = serde_json::from_slice(&answer.body)
                    .map_or(u64::MAX, |source| value_in(call.key, &source));
                Reply::Outcome(Outcome::Found { value, version })
            }
            (StatusCode::NOT_FOUND, _) if code(answer) == "no-such-document" => {
                Reply::Outcome(Outcome::Missing)
            }
            _ => unexpected(answer),
        },
    }
}

/// The epoch of the claim under which a document was written.
pub(crate) fn term(answer: &Answer) -> Option<u64> {
    #[derive(Deserialize)]
    struct Written {
        term: u64,
    }
    let header = answer.headers.get(TERM).and_then(|term| term.to_str().ok()?.parse().ok());
    header.or_else(|| Some(serde_json::from_slice::<Written>(&answer.body).ok()?.term))
}

/// The outcomes for the documents of a group.
pub(crate) fn listed(action: Action, answer: &Answer) -> Result<Vec<(Key, Outcome)>, Reply> {
    if let Some(reply) = not_done(answer) {
        return Err(reply);
    }
    let page = page(action, answer)?;
    is_whole(&page)?;
    if let Some(twice) = twice(&page.hits) {
        return Err(Reply::Wrong(format!("a search found {twice} twice")));
    }
    let found = page.hits.iter().map(|hit| {
        let Hit { key, value, version } = *hit;
        (key, Outcome::Found { value, version })
    });
    Ok(found.collect())
}

/// A page of all documents.
pub(crate) fn read_page(answer: &Answer) -> Result<Page, Reply> {
    not_done(answer).map_or_else(|| page(Action::Scan, answer), Err)
}

/// All hits of a search whose answer has room for them.
pub(crate) fn read_hits(answer: &Answer) -> Result<Vec<Hit>, Reply> {
    let page = read_page(answer)?;
    is_whole(&page).map(|()| page.hits)
}

fn is_whole(page: &Page) -> Result<(), Reply> {
    let (hits, total) = (page.hits.len(), page.total);
    if hits == total { Ok(()) } else { Err(Reply::Wrong(format!("{hits} hits, but a total of {total}"))) }
}

/// The first document that is there twice.
pub(crate) fn twice(hits: &[Hit]) -> Option<Key> {
    let mut seen = BTreeSet::new();
    hits.iter().map(|hit| hit.key).find(|key| !seen.insert(*key))
}

/// What a search for one value says of its key.
fn found(key: Key, wanted: u64, hits: &[Hit]) -> Reply {
    match hits {
        [] => Reply::Outcome(Outcome::Missing),
        [Hit { key: found, value, version }] if (*found, *value) == (key, wanted) => {
            Reply::Outcome(Outcome::Found { value: *value, version: *version })
        }
        [hit] => Reply::Wrong(format!("a search for {} found another document: {hit}", token(wanted))),
        hits => {
            let shown: Vec<_> = hits.iter().map(ToString::to_string).collect();
            let (count, shown) = (hits.len(), shown.join(", "));
            Reply::Wrong(format!("a search for {} found {count} documents: {shown}", token(wanted)))
        }
    }
}

/// The meaning of answers that apply to any request.
fn not_done(answer: &Answer) -> Option<Reply> {
    match answer.status {
        // Nothing was done: the queue of writes is full, or indexing is too far behind.
        StatusCode::TOO_MANY_REQUESTS => Some(Reply::Nothing),
        // A failure that nobody injected.
        StatusCode::INTERNAL_SERVER_ERROR => Some(unexpected(answer)),
        // The index was created before the first request.
        StatusCode::NOT_FOUND if code(answer) == "no-such-index" => {
            Some(Reply::Wrong(format!("the index is gone: {}", answer.excerpt())))
        }
        _ => refused(answer),
    }
}

fn unexpected(answer: &Answer) -> Reply {
    Reply::Unexpected(format!("{} {}", answer.status, answer.excerpt()))
}

/// The shards that answered, and did not.
#[derive(Deserialize)]
struct Shards {
    failed: Vec<Value>,
}

/// The answer to a search.
fn page(action: Action, answer: &Answer) -> Result<Page, Reply> {
    #[derive(Deserialize)]
    struct Found {
        timed_out: bool,
        total: usize,
        shards: Shards,
        hits: Vec<FoundHit>,
        next: Option<Value>,
    }
    #[derive(Deserialize)]
    struct FoundHit {
        id: String,
        sort: Vec<Value>,
        source: Value,
    }
    if answer.status != StatusCode::OK {
        return Err(unexpected(answer));
    }
    let odd = |why: &str| Reply::Unexpected(format!("{why}: {} {}", answer.status, answer.excerpt()));
    let found: Found = serde_json::from_slice(&answer.body).map_err(|error| odd(&error.to_string()))?;
    if !found.shards.failed.is_empty() {
        return Err(Reply::Wrong(format!("a partial answer: {}", answer.excerpt())));
    }
    if found.timed_out {
        return Err(Reply::Open("timed out".to_owned()));
    }
    if action.is_stale() && staleness(answer).is_none() {
        return Err(Reply::Unexpected(format!("{} without {}", answer.status, api::STALENESS_MS)));
    }
    let hit = |hit: FoundHit| {
        let key = hit
            .id
            .parse()
            .map_err(|()| Reply::Wrong(format!("a document that no client put: {}", hit.id)))?;
        // A hit's place ends with the number of its operation and its shard.
        let version = hit.sort.iter().rev().nth(1).and_then(Value::as_u64);
        let version = version.ok_or_else(|| odd("a hit without the number of its operation"))?;
        Ok(Hit { key, value: value_in(key, &hit.source), version })
    };
    let hits = found.hits.into_iter().map(hit).collect::<Result<_, _>>()?;
    Ok(Page { total: found.total, hits, next: found.next })
}

/// The value of a document; `u64::MAX` if no client put such a document under this key.
fn value_in(key: Key, source: &Value) -> u64 {
    let is_ours = source["key"] == key.to_string().as_str()
        && source["group"] == group_name(key.lane, key.group).as_str()
        && source["body"].as_str().is_some_and(is_body);
    let value = source["token"].as_str().filter(|_| is_ours).and_then(read_token);
    value.unwrap_or(u64::MAX)
}

fn group_name(lane: u32, group: u32) -> String {
    format!("g{lane}x{group}")
}

/// The token of a value: `c3n17`.
fn token(value: u64) -> String {
    format!("c{}n{}", value >> 32, value & 0xffff_ffff)
}

fn read_token(token: &str) -> Option<u64> {
    let (client, number) = token.strip_prefix('c')?.split_once('n')?;
    Some(value(client.parse().ok()?, number.parse().ok()?))
}

/// A document.
fn source(key: Key, value: u64, filling: usize) -> Value {
    json!({
        "key": key.to_string(),
        "group": group_name(key.lane, key.group),
        "token": token(value),
        "body": body(filling),
    })
}

/// The text of a document, with filling so that sizes differ.
fn body(filling: usize) -> String {
    format!("{COMMON} words{}", " x".repeat(filling / 2))
}

fn is_body(text: &str) -> bool {
    let filling = text.strip_prefix(COMMON).and_then(|text| text.strip_prefix(" words"));
    filling.is_some_and(|filling| filling.split(" x").all(str::is_empty))
}

#[cfg(test)]
mod tests;
