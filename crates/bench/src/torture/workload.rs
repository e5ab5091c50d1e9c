//! Clients that write, read, list and delete keys of small groups all the time, and record every answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use http::header::HOST;
use http::{HeaderValue, Request};
use http_body_util::Full;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::torture::cluster::{Endpoint, Endpoints, SHARDS};
use crate::torture::history::{Action, Condition, History, Key, Outcome, Record, value};
use crate::torture::protocol::{self, Reads, Reply};
use crate::wire::{Answer, Connection, Protocol};

/// The number of lanes. Each has one group in use at a time.
pub(crate) const LANES: u32 = 4;
/// The number of keys of a group.
const KEYS: u32 = 3;
/// The number of requests after which a group is retired: some 40 for each key.
const REQUESTS: u32 = 40 * KEYS;
/// The number of open outcomes after which a group is retired: they make the search long.
const OPEN: u32 = 6 * KEYS;
const CONNECT: Duration = Duration::from_secs(2);
/// One in this many clients uses members directly, and only reads.
const DIRECT: u32 = 3;
/// The time limit of an answer, for most clients and for patient ones.
const PATIENCE: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(20)];
/// The longest pause between two requests of a client, in milliseconds.
const PAUSE: u64 = 25;
/// The number of attempts to read a key at the end.
const ATTEMPTS: u32 = 30;
/// The number of unexpected answers kept.
const KEPT: usize = 20;

/// The number of requests by kind and outcome.
pub(crate) type Counts = BTreeMap<(&'static str, String), u64>;

/// The state that clients share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) history: History,
    endpoints: Endpoints,
    reads: Reads,
    lanes: Vec<Mutex<Lane>>,
    stop: AtomicBool,
    counts: Mutex<Counts>,
    odd: Mutex<Vec<String>>,
    /// The silence of each shard.
    silences: Vec<Mutex<Silence>>,
    acknowledged: AtomicU64,
    /// The staleness that answers stated.
    staleness: Mutex<Vec<Duration>>,
}

/// The present group of a lane.
#[derive(Debug, Clone, Copy, Default)]
struct Lane {
    group: u32,
    requests: u32,
    open: u32,
}

/// The time without an acknowledged write to a shard, in nanoseconds since the run began.
#[derive(Debug, Clone, Copy, Default)]
struct Silence {
    last: u64,
    /// The start and end of the longest one.
    longest: (u64, u64),
}

/// A client with its own connection.
#[derive(Debug)]
struct Client {
    shared: Arc<Shared>,
    number: u32,
    rng: StdRng,
    patience: Duration,
    /// The server it uses, if one is selected.
    endpoint: Option<Endpoint>,
    connection: Option<Connection>,
    /// The number of its puts.
    puts: u32,
    /// The version and value that it last saw of each key.
    known: BTreeMap<Key, (u64, u64)>,
}

/// Why there is no answer.
enum Failure {
    /// The request was not sent.
    Unsent,
    /// The request may have arrived.
    Open(String),
}

impl Shared {
    pub(crate) fn new(endpoints: Endpoints, reads: Reads) -> Self {
        let lanes = (0..LANES).map(|_| Mutex::default()).collect();
        Self {
            history: History::begin(),
            endpoints,
            reads,
            lanes,
            stop: AtomicBool::new(false),
            counts: Mutex::default(),
            odd: Mutex::default(),
            silences: (0..SHARDS).map(|_| Mutex::default()).collect(),
            acknowledged: AtomicU64::new(0),
            staleness: Mutex::default(),
        }
    }

    /// A random gateway.
    pub(crate) fn gateway(&self, rng: &mut impl Rng) -> anyhow::Result<SocketAddr> {
        self.endpoints.gateway(rng.random_range(0..100)).context("there is no gateway")
    }

    pub(crate) fn counts(&self) -> Counts {
        lock(&self.counts).clone()
    }

    /// The first unexpected answers.
    pub(crate) fn odd(&self) -> Vec<String> {
        lock(&self.odd).clone()
    }

    /// The number of writes acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// The start and end of the longest time without an acknowledged write, for each shard.
    pub(crate) fn silences(&self) -> Vec<(u64, u64)> {
        self.silences.iter().map(|silence| lock(silence).longest).collect()
    }

    /// The staleness that answers stated.
    pub(crate) fn staleness(&self) -> Vec<Duration> {
        lock(&self.staleness).clone()
    }

    fn count(&self, what: &'static str, outcome: &str) {
        *lock(&self.counts).entry((what, outcome.to_owned())).or_default() += 1;
    }

    /// A lane's group. Starts a new one when the present one has reached its limits.
    fn group(&self, lane: u32) -> u32 {
        let mut lane = lock(&self.lanes[usize::try_from(lane).unwrap_or_default()]);
        lane.requests += 1;
        if lane.requests > REQUESTS || lane.open > OPEN {
            *lane = Lane { group: lane.group + 1, requests: 1, open: 0 };
        }
        lane.group
    }

    fn open(&self, key: Key) {
        let mut lane = lock(&self.lanes[usize::try_from(key.lane).unwrap_or_default()]);
        lane.open += u32::from(lane.group == key.group);
    }

    fn acknowledge(&self, key: Key) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        let shard = usize::try_from(key.shard()).unwrap_or_default();
        lock(&self.silences[shard]).end(self.history.now());
    }
}

impl Silence {
    fn end(&mut self, now: u64) {
        if now.saturating_sub(self.last) > self.longest.1 - self.longest.0 {
            self.longest = (self.last, now);
        }
        self.last = self.last.max(now);
    }
}

/// Running clients. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Workload {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
}

impl Workload {
    pub(crate) fn start(shared: &Arc<Shared>, clients: u32, seed: u64) -> Self {
        let mut running = JoinSet::new();
        for number in 1..=clients {
            running.spawn(Client::new(shared, number, seed).run());
        }
        Self { shared: Arc::clone(shared), clients: running }
    }

    /// Stops the clients after their present requests.
    pub(crate) async fn stop(mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        while self.clients.join_next().await.is_some() {}
        for silence in &self.shared.silences {
            lock(silence).end(self.shared.history.now());
        }
    }
}

/// Reads each key once more, with `clients` clients. Fails if a key can't be read.
pub(crate) async fn final_reads(shared: &Arc<Shared>, keys: Vec<Key>, clients: u32) -> anyhow::Result<()> {
    let keys = Arc::new(Mutex::new(keys));
    let mut reading = JoinSet::new();
    for number in 0..clients {
        let (mut client, keys) = (Client::new(shared, 1_000 + number, 0), Arc::clone(&keys));
        reading.spawn(async move {
            loop {
                let Some(key) = lock(&keys).pop() else { return anyhow::Ok(()) };
                client.read_until_known(key).await?;
            }
        });
    }
    while let Some(read) = reading.join_next().await {
        read??;
    }
    Ok(())
}

/// Puts a value under a name that is not one of the keys, until it is acknowledged.
pub(crate) async fn mark(shared: &Arc<Shared>, name: &str) -> anyhow::Result<()> {
    let mut client = Client::new(shared, 2_000, 0);
    let mut why = String::new();
    for _ in 0..ATTEMPTS {
        let base = client.base().unwrap_or_default();
        let request = Request::put(format!("{base}/kv/{name}")).body(Full::new("end".into()))?;
        match client.send(request).await {
            Ok(answer) if answer.status.is_success() => return Ok(()),
            Ok(answer) => why = format!("{} {}", answer.status, answer.excerpt()),
            Err(Failure::Open(error)) => why = error,
            Err(Failure::Unsent) => "no connection".clone_into(&mut why),
        }
        sleep(Duration::from_millis(500)).await;
    }
    anyhow::bail!("{name} could not be put: {why}")
}

impl Client {
    fn new(shared: &Arc<Shared>, number: u32, seed: u64) -> Self {
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

    async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        while !shared.stop.load(Ordering::Relaxed) {
            let lane = self.rng.random_range(0..LANES);
            let group = shared.group(lane);
            // The server it uses decides what it requests.
            self.base();
            self.known.retain(|key, _| key.lane != lane || key.group == group);
            if self.rng.random_ratio(1, 10) {
                self.list(lane, group).await;
            } else {
                let key = Key { lane, group, number: self.rng.random_range(0..KEYS) };
                let action = self.choose(key);
                self.once(key, action).await;
                if shared.reads == Reads::Any && is_write(action) {
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
        if matches!(self.endpoint, Some(Endpoint::Member(_))) {
            // Reads only: a write would reveal at once to a former owner that it is not the owner any more.
            return if self.rng.random_ratio(1, 2) { Action::Get } else { Action::StaleRead };
        }
        let known = self.known.get(&key).copied();
        let is = known.map(|(version, value)| Condition::Is { version, value });
        let mut put = |on| {
            self.puts += 1;
            Action::Put { value: value(self.number, self.puts), on }
        };
        match (self.rng.random_range(0..100), is) {
            (0..3, _) => Action::StaleRead,
            (3..30, _) => Action::Get,
            (30..52, _) => put(Condition::Always),
            (52..62, _) | (62..82, None) => put(Condition::Absent),
            (62..82, Some(is)) => put(is),
            (82..88, Some(is)) => Action::Delete { on: is },
            _ => Action::Delete { on: Condition::Always },
        }
    }

    /// Sends one request for a key. Returns whether the outcome is known.
    async fn once(&mut self, key: Key, action: Action) -> bool {
        let filling = if self.rng.random_ratio(1, 20) { self.rng.random_range(1..20_000) } else { 0 };
        let Some(base) = self.base() else { return false };
        let Ok(request) = protocol::request(base, key, action, self.reads(action), filling) else {
            return false;
        };
        let mut start = self.shared.history.now();
        let reply = match self.send(request).await {
            Ok(answer) => {
                start = self.since(start, action, &answer);
                protocol::reply(action, &answer)
            }
            Err(Failure::Unsent) => Reply::Nothing,
            Err(Failure::Open(why)) => Reply::Open(why),
        };
        let end = self.shared.history.now();
        let outcome = self.count_reply(kind(action), reply);
        let is_write = is_write(action);
        match outcome {
            Some(Outcome::Stored(_) | Outcome::Deleted) => self.shared.acknowledge(key),
            Some(Outcome::Open) if is_write => self.shared.open(key),
            Some(Outcome::Open) | None => {}
            Some(Outcome::Found { .. } | Outcome::Missing | Outcome::Refused(_)) => {}
        }
        let Some(outcome) = outcome.filter(|outcome| is_write || *outcome != Outcome::Open) else {
            return false;
        };
        self.learn(key, action, outcome);
        self.shared.history.note(key, Record { client: self.number, action, outcome, start, end });
        outcome != Outcome::Open
    }

    /// Lists a group: a read of each of its keys.
    async fn list(&mut self, lane: u32, group: u32) {
        let action = if self.rng.random_ratio(1, 4) { Action::StaleRead } else { Action::Scan };
        let Some(base) = self.base() else { return };
        let Ok(request) = protocol::listing(base, lane, group, self.reads(action)) else { return };
        let mut start = self.shared.history.now();
        let reply = match self.send(request).await {
            Ok(answer) => {
                start = self.since(start, action, &answer);
                protocol::listed(action, &answer)
            }
            Err(Failure::Unsent) => Err(Reply::Nothing),
            Err(Failure::Open(why)) => Err(Reply::Open(why)),
        };
        let end = self.shared.history.now();
        match reply {
            Err(reply) => {
                self.count_reply(kind(action), reply);
            }
            Ok(found) => {
                self.shared.count(kind(action), "ok");
                let found: BTreeMap<_, _> = found.into_iter().collect();
                for number in 0..KEYS {
                    let key = Key { lane, group, number };
                    let outcome = found.get(&key).copied().unwrap_or(Outcome::Missing);
                    self.learn(key, action, outcome);
                    let record = Record { client: self.number, action, outcome, start, end };
                    self.shared.history.note(key, record);
                }
            }
        }
    }

    /// The read level of a request. Final reads are always strong.
    fn reads(&self, action: Action) -> Reads {
        match action {
            Action::StaleRead => Reads::Any,
            _ if self.shared.stop.load(Ordering::Relaxed) => Reads::Strong,
            _ => self.shared.reads,
        }
    }

    /// The start of a request, moved back by the staleness that the answer states if it is a stale read.
    fn since(&self, sent: u64, action: Action, answer: &Answer) -> u64 {
        let Some(by) = protocol::staleness(answer).filter(|_| action == Action::StaleRead) else {
            return sent;
        };
        lock(&self.shared.staleness).push(by);
        sent.saturating_sub(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Reads a key until the outcome is known.
    async fn read_until_known(&mut self, key: Key) -> anyhow::Result<()> {
        for _ in 0..ATTEMPTS {
            if self.once(key, Action::Get).await {
                return Ok(());
            }
            sleep(Duration::from_millis(500)).await;
        }
        anyhow::bail!("{key} could not be read at the end")
    }

    /// Counts a reply. Returns its outcome; `None` if nothing was done.
    fn count_reply(&mut self, kind: &'static str, reply: Reply) -> Option<Outcome> {
        let (word, outcome) = match reply {
            Reply::Outcome(outcome @ Outcome::Refused(_)) => ("refused".to_owned(), Some(outcome)),
            Reply::Outcome(outcome) => ("ok".to_owned(), Some(outcome)),
            Reply::Nothing => ("not processed".to_owned(), None),
            Reply::Open(why) => (why, Some(Outcome::Open)),
            Reply::Unexpected(what) => {
                let mut odd = lock(&self.shared.odd);
                if odd.len() < KEPT {
                    odd.push(format!("{kind}: {what}"));
                }
                ("odd".to_owned(), Some(Outcome::Open))
            }
        };
        self.shared.count(kind, &word);
        outcome
    }

    fn learn(&mut self, key: Key, action: Action, outcome: Outcome) {
        match (action, outcome) {
            // The client may know a later state.
            (Action::StaleRead, _) => {}
            (_, Outcome::Found { value, version }) => {
                self.known.insert(key, (version, value));
            }
            (Action::Put { value, .. }, Outcome::Stored(version)) => {
                self.known.insert(key, (version, value));
            }
            (_, Outcome::Missing | Outcome::Deleted) => {
                self.known.remove(&key);
            }
            // The known version may be outdated now, which is worth a try.
            _ => {}
        }
    }

    async fn send(&mut self, mut request: Request<Full<bytes::Bytes>>) -> Result<Answer, Failure> {
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
        self.endpoint.map(Endpoint::base)
    }
}

fn is_write(action: Action) -> bool {
    match action {
        Action::Put { .. } | Action::Delete { .. } => true,
        Action::Get | Action::StaleRead | Action::Scan => false,
    }
}

fn kind(action: Action) -> &'static str {
    match action {
        Action::Put { on: Condition::Always, .. } => "put",
        Action::Put { on: Condition::Absent, .. } => "create",
        Action::Put { on: Condition::Is { .. }, .. } => "swap",
        Action::Delete { on: Condition::Always | Condition::Absent } => "delete",
        Action::Delete { on: Condition::Is { .. } } => "delete if",
        Action::Get => "get",
        Action::Scan => "scan",
        Action::StaleRead => "any",
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
