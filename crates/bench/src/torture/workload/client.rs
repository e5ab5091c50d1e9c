//! One client: it sends one request after the other, and records every answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use http::header::HOST;
use http::{HeaderValue, Request};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{sleep, timeout};

use crate::torture::cluster::Endpoint;
use crate::torture::history::{Action, Condition, Key, Outcome, Record, seconds, value};
use crate::torture::protocol::{self, Body, Call, Reads, Reply, documents};
use crate::torture::service::Service;
use crate::torture::workload::{KEYS, LANES, Shared, lock};
use crate::wire::{Answer, Connection, Protocol};

const CONNECT: Duration = Duration::from_secs(2);
/// One in this many clients uses members directly, and only reads.
const DIRECT: u32 = 3;
/// The time limit of an answer, for most clients and for patient ones.
const PATIENCE: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(20)];
/// The longest pause between two requests of a client, in milliseconds.
const PAUSE: u64 = 25;
/// The number of attempts of a request that must succeed, and the pause between them.
const ATTEMPTS: u32 = 30;
const RETRY: Duration = Duration::from_millis(500);

/// A client with its own connection.
#[derive(Debug)]
pub(crate) struct Client {
    shared: Arc<Shared>,
    number: u32,
    rng: StdRng,
    patience: Duration,
    /// The server it uses, if one is selected.
    endpoint: Option<Endpoint>,
    connection: Option<Connection>,
    /// The number of its puts.
    puts: u32,
    /// What it last saw of each key.
    known: BTreeMap<Key, Known>,
}

/// A value that a client saw.
#[derive(Debug, Clone, Copy)]
struct Known {
    version: u64,
    value: u64,
    /// The epoch of the claim under which it was written, if the answer stated it.
    term: Option<u64>,
}

/// Why there is no answer.
enum Failure {
    /// The request was not sent.
    Unsent,
    /// The request may have arrived.
    Open(String),
}

impl Client {
    /// The number of the client for requests before and after the run.
    pub(crate) const LAST: u32 = 2_000;

    pub(crate) fn new(shared: &Arc<Shared>, number: u32, seed: u64) -> Self {
        let patient = usize::from(number.is_multiple_of(4));
        Self {
            shared: Arc::clone(shared),
            number,
            rng: StdRng::seed_from_u64(seed ^ u64::from(number) << 40),
            patience: PATIENCE[patient],
            endpoint: None,
            connection: None,
            puts: 0,
            known: BTreeMap::new(),
        }
    }

    /// The client for requests before and after the run, which uses gateways and is patient.
    pub(crate) fn last(shared: &Arc<Shared>) -> Self {
        Self::new(shared, Self::LAST, 0)
    }

    pub(crate) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        while !shared.stop.load(Ordering::Relaxed) {
            let lane = self.rng.random_range(0..LANES);
            let group = shared.group(lane);
            // The server it uses decides what it requests.
            self.base();
            self.known.retain(|key, _| key.lane != lane || key.group == group);
            if shared.service == Service::Searcher && self.rng.random_ratio(1, 100) {
                self.maintain().await;
            } else if self.rng.random_ratio(1, 10) {
                self.list(lane, group).await;
            } else if shared.service == Service::Searcher && self.rng.random_ratio(1, 20) {
                self.bulk(lane, group).await;
            } else {
                let key = Key { lane, group, number: self.rng.random_range(0..KEYS) };
                let action = self.choose(key);
                self.once(key, action).await;
                if shared.reads == Reads::Any && action.is_write() {
                    // A replica has hardly seen the write yet, so the check must find stale reads.
                    self.once(key, Action::Get).await;
                }
            }
            let is_direct = matches!(self.endpoint, Some(Endpoint::Member(_)));
            let pause = self.rng.random_range(0..=if is_direct { PAUSE / 4 } else { PAUSE });
            sleep(Duration::from_millis(pause)).await;
        }
    }

    /// The next request for a key.
    fn choose(&mut self, key: Key) -> Action {
        match (self.shared.service, matches!(self.endpoint, Some(Endpoint::Member(_)))) {
            // Reads only: a write would reveal at once to a former owner that it is not the owner any more.
            (Service::Storage, true) => {
                if self.rng.random_ratio(1, 2) {
                    Action::Get
                } else {
                    Action::StaleRead
                }
            }
            (Service::Storage, false) => match self.rng.random_range(0..100) {
                0..3 => Action::StaleRead,
                3..30 => Action::Get,
                choice => self.choose_write(key, choice),
            },
            (Service::Searcher, true) => match self.rng.random_range(0..4) {
                0 => Action::Get,
                1 => Action::StaleRead,
                2 => self.choose_search(key, false),
                _ => self.choose_search(key, true),
            },
            (Service::Searcher, false) => match self.rng.random_range(0..100) {
                0..3 => Action::StaleRead,
                3..13 => Action::Get,
                13..17 => self.choose_search(key, true),
                17..30 => self.choose_search(key, false),
                30..40 => self.put(Condition::Present),
                40..45 => match self.choose_search(key, false) {
                    Action::Search { value } => Action::Delete { on: Condition::Value { value } },
                    other => other,
                },
                choice => self.choose_write(key, choice),
            },
        }
    }

    /// A write, by a number from 30 to 99.
    fn choose_write(&mut self, key: Key, choice: u32) -> Action {
        let is =
            self.known.get(&key).map(|known| Condition::Is { version: known.version, value: known.value });
        match (choice, is) {
            (..52, _) => self.put(Condition::Always),
            (52..62, _) | (62..82, None) => self.put(Condition::Absent),
            (62..82, Some(is)) => self.put(is),
            (82..88, Some(is)) => Action::Delete { on: is },
            _ => Action::Delete { on: Condition::Always },
        }
    }

    /// A put of a value that nobody has put before.
    fn put(&mut self, on: Condition) -> Action {
        self.puts += 1;
        Action::Put { value: value(self.number, self.puts), on }
    }

    /// A search for the value that was put last, or for an earlier one.
    fn choose_search(&mut self, key: Key, is_stale: bool) -> Action {
        let values = self.shared.history.values_of(key);
        let value = match values.as_slice() {
            [] => return if is_stale { Action::StaleRead } else { Action::Get },
            [.., last] if self.rng.random_ratio(1, 2) => *last,
            all => all[self.rng.random_range(0..all.len())],
        };
        if is_stale { Action::StaleSearch { value } } else { Action::Search { value } }
    }

    /// Sends one request for a key. Returns whether the outcome is known.
    async fn once(&mut self, key: Key, action: Action) -> bool {
        let call = self.call(key, action);
        let Some(base) = self.base() else { return false };
        let service = self.shared.service;
        let Ok(request) = service.request(base, &call) else { return false };
        let mut start = self.shared.history.now();
        let mut term = None;
        let reply = match self.send(request).await {
            Ok(answer) => {
                start = self.since(start, action, &answer);
                term = service.term(&answer);
                service.reply(&call, &answer)
            }
            Err(Failure::Unsent) => Reply::Nothing,
            Err(Failure::Open(why)) => Reply::Open(why),
        };
        let end = self.shared.history.now();
        let outcome = self.count_reply(key, kind(action), action, reply);
        self.note(key, action, outcome, (start, end), term)
    }

    /// Puts all keys of a group with one request, which has an outcome for each.
    async fn bulk(&mut self, lane: u32, group: u32) {
        let Some(base) = self.base() else { return };
        if matches!(self.endpoint, Some(Endpoint::Member(_))) {
            return;
        }
        let keys = (0..KEYS).map(|number| Key { lane, group, number });
        let puts: Vec<_> = keys.map(|key| (key, self.put(Condition::Always))).collect();
        let values = puts.iter().filter_map(|(key, action)| match action {
            Action::Put { value, .. } => Some((*key, *value)),
            _ => None,
        });
        let call = self.call(Key { lane, group, number: 0 }, Action::Get);
        let values: Vec<_> = values.collect();
        let Ok(request) = documents::bulk(base, &values, call.filling, call.refresh) else { return };
        let start = self.shared.history.now();
        let replies = match self.send(request).await {
            Ok(answer) => documents::bulk_replies(&answer, puts.len()),
            Err(Failure::Unsent) => vec![Reply::Nothing; puts.len()],
            Err(Failure::Open(why)) => vec![Reply::Open(why); puts.len()],
        };
        let end = self.shared.history.now();
        for ((key, action), reply) in puts.into_iter().zip(replies) {
            let outcome = self.count_reply(key, "bulk", action, reply);
            self.note(key, action, outcome, (start, end), None);
        }
    }

    /// Records what became of a request for a key. Returns whether that is known.
    fn note(
        &mut self,
        key: Key,
        action: Action,
        outcome: Option<Outcome>,
        (start, end): (u64, u64),
        term: Option<u64>,
    ) -> bool {
        match outcome {
            Some(Outcome::Stored(_) | Outcome::Acknowledged | Outcome::Deleted) => {
                self.shared.acknowledge(key);
            }
            Some(Outcome::Open) if action.is_write() => self.shared.open(key),
            Some(Outcome::Open) | None => {}
            Some(Outcome::Found { .. } | Outcome::Missing | Outcome::Refused(_)) => {}
        }
        let Some(outcome) = outcome.filter(|outcome| action.is_write() || *outcome != Outcome::Open) else {
            return false;
        };
        self.learn(key, action, outcome, term);
        self.shared.history.note(key, Record { client: self.number, action, outcome, start, end });
        outcome != Outcome::Open
    }

    fn call(&mut self, key: Key, action: Action) -> Call {
        let filling = if self.rng.random_ratio(1, 20) { self.rng.random_range(1..20_000) } else { 0 };
        let mut call = Call { key, action, reads: self.reads(action), filling, term: None, refresh: None };
        if self.shared.service == Service::Searcher {
            let with_term = self.rng.random_ratio(1, 2);
            call.term = self.known.get(&key).filter(|_| with_term).and_then(|known| known.term);
            call.refresh = match self.rng.random_range(0..30) {
                0 => Some("true"),
                1 => Some("wait"),
                _ => None,
            };
        }
        call
    }

    /// Makes all documents visible, or merges all segments.
    async fn maintain(&mut self) {
        let Some(base) = self.base() else { return };
        let is_merge = self.rng.random_ratio(1, 4);
        let (kind, request) = if is_merge {
            ("compact", documents::compact(base))
        } else {
            ("refresh", documents::refresh(base))
        };
        let Ok(request) = request else { return };
        match self.send(request).await {
            Ok(answer) => self.shared.count(kind, answer.status.as_str()),
            Err(Failure::Unsent) => self.shared.count(kind, "not processed"),
            Err(Failure::Open(why)) => self.shared.count(kind, &why),
        }
    }

    /// Lists a group: a read of each of its keys.
    async fn list(&mut self, lane: u32, group: u32) {
        let action = if self.rng.random_ratio(1, 4) { Action::StaleRead } else { Action::Scan };
        let Some(base) = self.base() else { return };
        let service = self.shared.service;
        let Ok(request) = service.listing(base, lane, group, self.reads(action)) else { return };
        let mut start = self.shared.history.now();
        let reply = match self.send(request).await {
            Ok(answer) => {
                start = self.since(start, action, &answer);
                service.listed(action, &answer)
            }
            Err(Failure::Unsent) => Err(Reply::Nothing),
            Err(Failure::Open(why)) => Err(Reply::Open(why)),
        };
        let end = self.shared.history.now();
        match reply {
            Err(reply) => {
                self.count_reply(Key { lane, group, number: 0 }, kind(action), action, reply);
            }
            Ok(found) => {
                self.shared.count(kind(action), "ok");
                let found: BTreeMap<_, _> = found.into_iter().collect();
                for number in 0..KEYS {
                    let key = Key { lane, group, number };
                    let outcome = found.get(&key).copied().unwrap_or(Outcome::Missing);
                    self.learn(key, action, outcome, None);
                    let record = Record { client: self.number, action, outcome, start, end };
                    self.shared.history.note(key, record);
                }
            }
        }
    }

    /// The read level of a request. Final reads are always strong.
    fn reads(&self, action: Action) -> Reads {
        match action {
            _ if action.is_stale() => Reads::Any,
            _ if self.shared.stop.load(Ordering::Relaxed) => Reads::Strong,
            _ => self.shared.reads,
        }
    }

    /// The start of a request, moved back by the staleness that the answer states if it is a stale read.
    fn since(&self, sent: u64, action: Action, answer: &Answer) -> u64 {
        let Some(by) = protocol::staleness(answer).filter(|_| action.is_stale()) else {
            return sent;
        };
        lock(&self.shared.staleness).push(by);
        sent.saturating_sub(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Reads a key until the outcome is known.
    pub(crate) async fn read_until_known(&mut self, key: Key) -> anyhow::Result<()> {
        for _ in 0..ATTEMPTS {
            if self.once(key, Action::Get).await {
                return Ok(());
            }
            sleep(RETRY).await;
        }
        anyhow::bail!("{key} could not be read at the end")
    }

    /// Sends a request to the service, below this prefix of its paths, until `read` accepts an answer. The error has the
    /// reason for the last refusal.
    pub(crate) async fn insist<T>(
        &mut self,
        request: impl Fn(&str) -> http::Result<Request<Body>>,
        read: impl Fn(&Answer) -> Result<T, String>,
    ) -> anyhow::Result<T> {
        let mut why = String::new();
        for _ in 0..ATTEMPTS {
            let base = self.base().unwrap_or_default();
            match self.send(request(base)?).await {
                Ok(answer) => match read(&answer) {
                    Ok(read) => return Ok(read),
                    Err(refusal) => why = refusal,
                },
                Err(Failure::Open(error)) => why = error,
                Err(Failure::Unsent) => "no connection".clone_into(&mut why),
            }
            sleep(RETRY).await;
        }
        anyhow::bail!(why)
    }

    /// Counts a reply. Returns its outcome; `None` if nothing was done.
    fn count_reply(&mut self, key: Key, kind: &'static str, action: Action, reply: Reply) -> Option<Outcome> {
        let (word, outcome) = match reply {
            Reply::Outcome(outcome @ Outcome::Refused(_)) => ("refused".to_owned(), Some(outcome)),
            Reply::Outcome(outcome) => ("ok".to_owned(), Some(outcome)),
            Reply::Nothing => ("not processed".to_owned(), None),
            Reply::Open(why) => (why, Some(Outcome::Open)),
            Reply::Unexpected(what) => {
                self.shared.note_odd(format!("{kind}: {what}"));
                ("odd".to_owned(), Some(Outcome::Open))
            }
            Reply::Wrong(what) => {
                let (now, client) = (seconds(self.shared.history.now()), self.number);
                self.shared.note_wrong(key, format!("client {client} at {now} s: {action}: {what}"));
                ("wrong".to_owned(), Some(Outcome::Open))
            }
        };
        self.shared.count(kind, &word);
        outcome
    }

    fn learn(&mut self, key: Key, action: Action, outcome: Outcome, term: Option<u64>) {
        match (action, outcome) {
            // The client may know a later state.
            (Action::StaleRead | Action::StaleSearch { .. }, _) => {}
            (_, Outcome::Found { value, version }) => {
                self.known.insert(key, Known { version, value, term });
            }
            (Action::Put { value, .. }, Outcome::Stored(version)) => {
                self.known.insert(key, Known { version, value, term });
            }
            // The key may have another value.
            (Action::Search { .. } | Action::Delete { on: Condition::Value { .. } }, Outcome::Missing) => {}
            (_, Outcome::Missing | Outcome::Deleted | Outcome::Acknowledged) => {
                self.known.remove(&key);
            }
            // The known version may be outdated now, which is worth a try.
            _ => {}
        }
    }

    async fn send(&mut self, mut request: Request<Body>) -> Result<Answer, Failure> {
        request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
        let Some(endpoint) = self.endpoint else { return Err(Failure::Unsent) };
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let opening = Connection::open(endpoint.addr(), Protocol::Http1);
                match timeout(CONNECT, opening).await.context("too slow").flatten() {
                    Ok(connection) => connection,
                    Err(_) => {
                        self.endpoint = None;
                        let pause = self.rng.random_range(10..200);
                        sleep(Duration::from_millis(pause)).await;
                        return Err(Failure::Unsent);
                    }
                }
            }
        };
        let patience = match endpoint {
            Endpoint::Gateway(_) => self.patience,
            Endpoint::Member(_) => self.patience.min(CONNECT),
        };
        match timeout(patience, connection.send(request)).await {
            Ok(Ok(answer)) => {
                // Switch the server now and then; only a gateway can forward to the owner of another key.
                let stays = match endpoint {
                    Endpoint::Gateway(_) => {
                        !answer.status.is_server_error() && !self.rng.random_ratio(1, 200)
                    }
                    // Mostly keep owners, or former owners.
                    Endpoint::Member(_) if answer.status.is_success() => !self.rng.random_ratio(1, 200),
                    Endpoint::Member(_) => self.rng.random_ratio(1, 2),
                };
                if stays {
                    self.connection = Some(connection);
                } else {
                    self.endpoint = None;
                }
                Ok(answer)
            }
            Ok(Err(error)) => {
                self.endpoint = None;
                let cause = error.downcast_ref::<hyper::Error>();
                if cause.is_some_and(|cause| cause.is_canceled() || cause.is_closed()) {
                    return Err(Failure::Unsent);
                }
                Err(Failure::Open("connection broke".to_owned()))
            }
            Err(_) => {
                self.endpoint = None;
                Err(Failure::Open("no answer in time".to_owned()))
            }
        }
    }

    /// The prefix of paths on the server to use next; selects one if needed. `None` until a gateway is found.
    fn base(&mut self) -> Option<&'static str> {
        if self.endpoint.is_none() {
            let is_direct = self.number.is_multiple_of(DIRECT) && !self.shared.stop.load(Ordering::Relaxed);
            self.endpoint = if is_direct {
                Some(Endpoint::Member(self.shared.endpoints.member(self.rng.random_range(0..100))))
            } else {
                self.shared.gateway(&mut self.rng).ok().map(Endpoint::Gateway)
            };
        }
        self.endpoint.map(|endpoint| self.shared.service.base(endpoint))
    }
}

/// Accepts an answer that reports success.
pub(crate) fn success(answer: &Answer) -> Result<(), String> {
    let is_success = answer.status.is_success();
    is_success.then_some(()).ok_or_else(|| format!("{} {}", answer.status, answer.excerpt()))
}

fn kind(action: Action) -> &'static str {
    match action {
        Action::Put { on: Condition::Always, .. } => "put",
        Action::Put { on: Condition::Absent, .. } => "create",
        Action::Put { on: Condition::Present, .. } => "patch",
        Action::Put { on: Condition::Is { .. } | Condition::Value { .. }, .. } => "swap",
        Action::Delete { on: Condition::Always | Condition::Absent | Condition::Present } => "delete",
        Action::Delete { on: Condition::Value { .. } } => "delete found",
        Action::Delete { on: Condition::Is { .. } } => "delete if",
        Action::Get => "get",
        Action::Scan => "scan",
        Action::StaleRead => "any",
        Action::Search { .. } => "search",
        Action::StaleSearch { .. } => "search any",
    }
}
