//! The key-value API.

use http::header::{IF_MATCH, IF_NONE_MATCH};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde::Deserialize;
use types::api;

use crate::torture::history::{Action, Condition, Key, Outcome, prefix, read_value, write_value};
use crate::torture::protocol::{Body, Call, Reads, Reply, code, refused, staleness, version};
use crate::wire::Answer;

/// The request for one key.
pub(crate) fn request(base: &str, call: &Call) -> http::Result<Request<Body>> {
    let &Call { key, action, reads, filling, .. } = call;
    let read = || format!("?consistency={}", reads.as_str());
    let (method, on, query, body) = match action {
        Action::Put { value, on } => (Method::PUT, on, String::new(), write_value(value, filling)),
        Action::Delete { on } => (Method::DELETE, on, String::new(), String::new()),
        // Clients of storage search nothing.
        Action::Get
        | Action::Scan
        | Action::StaleRead
        | Action::Search { .. }
        | Action::StaleSearch { .. } => (Method::GET, Condition::Always, read(), String::new()),
    };
    let request = Request::builder().method(method).uri(format!("{base}/kv/{key}{query}"));
    let request = match on {
        // Only clients of documents have the latter two.
        Condition::Always | Condition::Present | Condition::Value { .. } => request,
        Condition::Absent => request.header(IF_NONE_MATCH, "*"),
        Condition::Is { version, .. } => request.header(IF_MATCH, format!("\"{version}\"")),
    };
    request.body(Full::new(body.into()))
}

/// The request for all keys of a group.
pub(crate) fn listing(base: &str, lane: u32, group: u32, reads: Reads) -> http::Result<Request<Body>> {
    let uri = format!("{base}/kv?prefix={}&values=true&consistency={}", prefix(lane, group), reads.as_str());
    Request::get(uri).body(Body::default())
}

/// The meaning of an answer for one key.
pub(crate) fn reply(action: Action, answer: &Answer) -> Reply {
    if let Some(reply) = refused(answer) {
        return reply;
    }
    let version = version(&answer.headers);
    match (action, answer.status, version) {
        (Action::Put { .. }, StatusCode::OK, Some(version)) => Reply::Outcome(Outcome::Stored(version)),
        (Action::Delete { .. }, StatusCode::NO_CONTENT, _) => Reply::Outcome(Outcome::Deleted),
        (Action::Put { .. } | Action::Delete { .. }, StatusCode::PRECONDITION_FAILED, version) => {
            Reply::Outcome(Outcome::Refused(version))
        }
        // A stale read must state its staleness.
        (Action::StaleRead, _, _) if staleness(answer).is_none() => {
            Reply::Unexpected(format!("{} without {}", answer.status, api::STALENESS_MS))
        }
        (Action::Get | Action::Scan | Action::StaleRead, StatusCode::OK, Some(version)) => {
            let value = read_value(&String::from_utf8_lossy(&answer.body));
            Reply::Outcome(Outcome::Found { value, version })
        }
        (Action::Get | Action::Scan | Action::StaleRead, StatusCode::NOT_FOUND, _)
            if code(answer) == "no-such-key" =>
        {
            Reply::Outcome(Outcome::Missing)
        }
        _ => Reply::Unexpected(format!("{} {}", answer.status, answer.excerpt())),
    }
}

/// The outcomes for the keys in a listing.
pub(crate) fn listed(action: Action, answer: &Answer) -> Result<Vec<(Key, Outcome)>, Reply> {
    #[derive(Deserialize)]
    struct Page {
        keys: Vec<Listed>,
        next: Option<String>,
    }
    #[derive(Deserialize)]
    struct Listed {
        key: String,
        version: u64,
        value: Option<String>,
    }
    if let Some(reply) = refused(answer) {
        return Err(reply);
    }
    let odd = |why: &str| Reply::Unexpected(format!("{why}: {} {}", answer.status, answer.excerpt()));
    let page: Page = serde_json::from_slice(&answer.body).map_err(|error| odd(&error.to_string()))?;
    if answer.status != StatusCode::OK || page.next.is_some() {
        return Err(odd("an incomplete listing"));
    }
    if action == Action::StaleRead && staleness(answer).is_none() {
        return Err(odd("a listing without its staleness"));
    }
    let found = |listed: Listed| {
        let key = listed.key.parse().map_err(|()| odd("a key that no client put"))?;
        let value = listed.value.as_deref().map_or(u64::MAX, read_value);
        Ok((key, Outcome::Found { value, version: listed.version }))
    };
    page.keys.into_iter().map(found).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torture::history::value;
    use crate::torture::protocol::answer;

    #[test]
    fn a_request_counts_as_done_or_not_done_only_if_the_answer_says_so() {
        let put = Action::Put { value: value(1, 1), on: Condition::Always };
        for (action, answer, expected) in [
            (put, answer(200, &[("etag", "\"17\"")], ""), Reply::Outcome(Outcome::Stored(17))),
            (put, answer(412, &[("etag", "\"17\"")], ""), Reply::Outcome(Outcome::Refused(Some(17)))),
            (put, answer(412, &[], ""), Reply::Outcome(Outcome::Refused(None))),
            (put, answer(503, &[], ""), Reply::Open("503 ".to_owned())),
            (put, answer(503, &[(api::NOT_PROCESSED, "1")], ""), Reply::Nothing),
            (put, answer(421, &[], ""), Reply::Nothing),
            (
                Action::Delete { on: Condition::Always },
                answer(204, &[], ""),
                Reply::Outcome(Outcome::Deleted),
            ),
            (
                Action::Get,
                answer(200, &[("etag", "\"17\"")], "1.2 xx"),
                Reply::Outcome(Outcome::Found { value: value(1, 2), version: 17 }),
            ),
            (
                Action::Get,
                answer(404, &[], r#"{"type": "urn:coterie:problem:no-such-key"}"#),
                Reply::Outcome(Outcome::Missing),
            ),
            (
                Action::StaleRead,
                answer(200, &[("etag", "\"17\""), (api::STALENESS_MS, "9")], "1.2"),
                Reply::Outcome(Outcome::Found { value: value(1, 2), version: 17 }),
            ),
        ] {
            assert_eq!(reply(action, &answer), expected);
        }
        for (action, odd) in [
            (put, answer(200, &[], "")),
            (Action::Get, answer(200, &[("etag", "\"x\"")], "1.2")),
            (Action::Get, answer(404, &[], "no route")),
            (Action::StaleRead, answer(200, &[("etag", "\"17\"")], "1.2")),
        ] {
            assert!(matches!(reply(action, &odd), Reply::Unexpected(_)));
        }
    }

    #[test]
    fn a_listing_is_a_read_of_each_key_that_it_shows() {
        let page = r#"{"keys": [{"key": "t-0-1-2", "size": 3, "etag": "\"5\"", "version": 5, "value": "1.2"}], "next": null}"#;
        let key = Key { lane: 0, group: 1, number: 2 };
        let found = Outcome::Found { value: value(1, 2), version: 5 };
        let scanned = |answer| listed(Action::Scan, &answer);
        assert_eq!(scanned(answer(200, &[], page)), Ok(vec![(key, found)]));
        assert!(matches!(scanned(answer(503, &[], page)), Err(Reply::Open(_))));
        assert!(matches!(scanned(answer(200, &[], "{")), Err(Reply::Unexpected(_))));
        assert!(matches!(listed(Action::StaleRead, &answer(200, &[], page)), Err(Reply::Unexpected(_))));
    }
}
