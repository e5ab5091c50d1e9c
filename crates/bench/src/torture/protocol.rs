//! Requests of the key-value API, and what their answers mean for a history.
//!
//! Whatever may have been done though nobody said so has an open outcome. Only an answer that says that nothing was done
//! counts as nothing.

use std::time::Duration;

use http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::Full;
use serde::Deserialize;
use types::api;

use crate::torture::history::{Action, Condition, Key, Outcome, prefix, read_value, write_value};
use crate::wire::Answer;

type Body = Full<bytes::Bytes>;

/// What an answer says of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Outcome(Outcome),
    /// Certainly nothing was done.
    Nothing,
    /// Not known; a word for it.
    Open(String),
    /// What the API does not promise to answer.
    Odd(String),
}

/// What readers ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Reads {
    /// What is promised to be linearizable
    Strong,
    /// What an owner that was followed without its knowledge may answer wrongly
    Primary,
    /// What copies answer, which are a little behind
    Any,
}

impl Reads {
    fn as_str(self) -> &'static str {
        match self {
            Self::Strong => "strong",
            Self::Primary => "primary",
            Self::Any => "any",
        }
    }
}

/// The request for one key.
pub(crate) fn request(
    base: &str,
    key: Key,
    action: Action,
    reads: Reads,
    filling: usize,
) -> http::Result<Request<Body>> {
    let read = || format!("?consistency={}", reads.as_str());
    let (method, on, query, body) = match action {
        Action::Put { value, on } => (Method::PUT, on, String::new(), write_value(value, filling)),
        Action::Delete { on } => (Method::DELETE, on, String::new(), String::new()),
        Action::Get | Action::Scan | Action::Glance => {
            (Method::GET, Condition::Always, read(), String::new())
        }
    };
    let request = Request::builder().method(method).uri(format!("{base}/kv/{key}{query}"));
    let request = match on {
        Condition::Always => request,
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

/// What an answer for one key says.
pub(crate) fn told(action: Action, answer: &Answer) -> Told {
    if let Some(told) = refused(answer) {
        return told;
    }
    let version = version(&answer.headers);
    match (action, answer.status, version) {
        (Action::Put { .. }, StatusCode::OK, Some(version)) => Told::Outcome(Outcome::Stored(version)),
        (Action::Delete { .. }, StatusCode::NO_CONTENT, _) => Told::Outcome(Outcome::Deleted),
        (Action::Put { .. } | Action::Delete { .. }, StatusCode::PRECONDITION_FAILED, version) => {
            Told::Outcome(Outcome::Refused(version))
        }
        // Whoever does not say how far behind it may be does not keep the promise.
        (Action::Glance, _, _) if behind(answer).is_none() => {
            Told::Odd(format!("{} without {}", answer.status, api::STALENESS_MS))
        }
        (Action::Get | Action::Scan | Action::Glance, StatusCode::OK, Some(version)) => {
            let value = read_value(&String::from_utf8_lossy(&answer.body));
            Told::Outcome(Outcome::Found { value, version })
        }
        (Action::Get | Action::Scan | Action::Glance, StatusCode::NOT_FOUND, _)
            if code(answer) == "no-such-key" =>
        {
            Told::Outcome(Outcome::Missing)
        }
        _ => Told::Odd(format!("{} {}", answer.status, answer.excerpt())),
    }
}

/// What a listing says of the keys that it shows.
pub(crate) fn listed(action: Action, answer: &Answer) -> Result<Vec<(Key, Outcome)>, Told> {
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
    if let Some(told) = refused(answer) {
        return Err(told);
    }
    let odd = |why: &str| Told::Odd(format!("{why}: {} {}", answer.status, answer.excerpt()));
    let page: Page = serde_json::from_slice(&answer.body).map_err(|error| odd(&error.to_string()))?;
    if answer.status != StatusCode::OK || page.next.is_some() {
        return Err(odd("no whole listing"));
    }
    if action == Action::Glance && behind(answer).is_none() {
        return Err(odd("a listing that does not say how far behind it may be"));
    }
    let found = |listed: Listed| {
        let key = listed.key.parse().map_err(|()| odd("a key that nobody put"))?;
        let value = listed.value.as_deref().map_or(u64::MAX, read_value);
        Ok((key, Outcome::Found { value, version: listed.version }))
    };
    page.keys.into_iter().map(found).collect()
}

/// How far behind an answer may be by its own word.
pub(crate) fn behind(answer: &Answer) -> Option<Duration> {
    let ms = answer.headers.get(api::STALENESS_MS)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_millis(ms))
}

/// Answers that say nothing of any key.
fn refused(answer: &Answer) -> Option<Told> {
    if answer.headers.contains_key(api::NOT_PROCESSED) || answer.status == StatusCode::MISDIRECTED_REQUEST {
        return Some(Told::Nothing);
    }
    // The code, or what is there instead, tells kinds of failures apart.
    let is_open = answer.status.is_server_error() || answer.status == StatusCode::REQUEST_TIMEOUT;
    is_open.then(|| Told::Open(format!("{} {}", answer.status.as_u16(), code(answer))))
}

fn version(headers: &HeaderMap) -> Option<u64> {
    headers.get(ETAG)?.to_str().ok()?.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}

/// The code of a problem: the last part of its type.
fn code(answer: &Answer) -> String {
    let problem: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
    let kind = problem.as_ref().and_then(|problem| problem["type"].as_str());
    kind.and_then(|kind| kind.rsplit(['/', ':', '#']).next()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torture::history::value;

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &'static str) -> Answer {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers.collect(),
            body: body.into(),
            trailers: None,
        }
    }

    #[test]
    fn only_what_says_so_was_done_or_not_done() {
        let put = Action::Put { value: value(1, 1), on: Condition::Always };
        for (action, answer, expected) in [
            (put, answer(200, &[("etag", "\"17\"")], ""), Told::Outcome(Outcome::Stored(17))),
            (put, answer(412, &[("etag", "\"17\"")], ""), Told::Outcome(Outcome::Refused(Some(17)))),
            (put, answer(412, &[], ""), Told::Outcome(Outcome::Refused(None))),
            (put, answer(503, &[], ""), Told::Open("503 ".to_owned())),
            (put, answer(503, &[(api::NOT_PROCESSED, "1")], ""), Told::Nothing),
            (put, answer(421, &[], ""), Told::Nothing),
            (Action::Delete { on: Condition::Always }, answer(204, &[], ""), Told::Outcome(Outcome::Deleted)),
            (
                Action::Get,
                answer(200, &[("etag", "\"17\"")], "1.2 xx"),
                Told::Outcome(Outcome::Found { value: value(1, 2), version: 17 }),
            ),
            (
                Action::Get,
                answer(404, &[], r#"{"type": "urn:coterie:problem:no-such-key"}"#),
                Told::Outcome(Outcome::Missing),
            ),
            (
                Action::Glance,
                answer(200, &[("etag", "\"17\""), (api::STALENESS_MS, "9")], "1.2"),
                Told::Outcome(Outcome::Found { value: value(1, 2), version: 17 }),
            ),
        ] {
            assert_eq!(told(action, &answer), expected);
        }
        for (action, odd) in [
            (put, answer(200, &[], "")),
            (Action::Get, answer(200, &[("etag", "\"x\"")], "1.2")),
            (Action::Get, answer(404, &[], "no route")),
            (Action::Glance, answer(200, &[("etag", "\"17\"")], "1.2")),
        ] {
            assert!(matches!(told(action, &odd), Told::Odd(_)));
        }
    }

    #[test]
    fn a_listing_is_a_read_of_each_key_that_it_shows() {
        let page = r#"{"keys": [{"key": "t-0-1-2", "size": 3, "etag": "\"5\"", "version": 5, "value": "1.2"}], "next": null}"#;
        let key = Key { lane: 0, group: 1, number: 2 };
        let found = Outcome::Found { value: value(1, 2), version: 5 };
        let scanned = |answer| listed(Action::Scan, &answer);
        assert_eq!(scanned(answer(200, &[], page)), Ok(vec![(key, found)]));
        assert!(matches!(scanned(answer(503, &[], page)), Err(Told::Open(_))));
        assert!(matches!(scanned(answer(200, &[], "{")), Err(Told::Odd(_))));
        assert!(matches!(listed(Action::Glance, &answer(200, &[], page)), Err(Told::Odd(_))));
    }
}
