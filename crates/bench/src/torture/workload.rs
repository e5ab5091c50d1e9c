//! Clients that write, read, list and delete keys of small groups all the time, and note what they are told.

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

use crate::torture::cluster::{Door, Doors, SHARDS};
use crate::torture::history::{Action, Condition, History, Key, Outcome, Record, value};
use crate::torture::protocol::{self, Reads, Told};
use crate::wire::{Answer, Connection, Protocol};

/// Groups that are used at a time, each in a lane of its own.
pub(crate) const LANES: u32 = 4;
/// Keys of a group.
const KEYS: u32 = 3;
/// Requests for a group until it is retired: some 40 for each key.
const REQUESTS: u32 = 40 * KEYS;
/// Outcomes that are not known until it is retired: they are what makes the search long.
const OPEN: u32 = 6 * KEYS;
const CONNECT: Duration = Duration::from_secs(2);
/// One in so many asks members directly, and only reads.
const DIRECT: u32 = 3;
/// How long an answer may take, the most clients and the patient ones.
const PATIENCE: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(20)];
/// The longest pause between two requests of a client, in milliseconds.
const PAUSE: u64 = 25;
/// How often a key is asked for in the end.
const ATTEMPTS: u32 = 30;
/// Odd answers that are kept.
const KEPT: usize = 20;

/// How often what was asked, and what came of it.
pub(crate) type Counts = BTreeMap<(&'static str, String), u64>;

/// What clients share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) history: History,
    doors: Doors,
    reads: Reads,
    lanes: Vec<Mutex<Lane>>,
    stop: AtomicBool,
    counts: Mutex<Counts>,
    odd: Mutex<Vec<String>>,
    /// Of each shard.
    silences: Vec<Mutex<Silence>>,
    acknowledged: AtomicU64,
    /// How far behind answers may be by their own word.
    behind: Mutex<Vec<Duration>>,
}

/// The group of a lane.
#[derive(Debug, Clone, Copy, Default)]
struct Lane {
    group: u32,
    requests: u32,
    open: u32,
}

/// How long no write to a shard was acknowledged, in nanoseconds since the run began.
#[derive(Debug, Clone, Copy, Default)]
struct Silence {
    last: u64,
    /// From when to when it was longest.
    longest: (u64, u64),
}

/// A client with a connection of its own.
#[derive(Debug)]
struct Client {
    shared: Arc<Shared>,
    number: u32,
    rng: StdRng,
    patience: Duration,
    /// Whom it asks, with the connection once there is one.
    door: Option<Door>,
    connection: Option<Connection>,
    /// What it has put.
    puts: u32,
    /// What it has seen last at keys, with their versions.
    known: BTreeMap<Key, (u64, u64)>,
}

/// Why there is no answer.
enum Failure {
    /// The request was not sent.
    Unsent,
    /// It may have arrived.
    Open(String),
}

impl Shared {
    pub(crate) fn new(doors: Doors, reads: Reads) -> Self {
        let lanes = (0..LANES).map(|_| Mutex::default()).collect();
        Self {
            history: History::begin(),
            doors,
            reads,
            lanes,
            stop: AtomicBool::new(false),
            counts: Mutex::default(),
            odd: Mutex::default(),
            silences: (0..SHARDS).map(|_| Mutex::default()).collect(),
            acknowledged: AtomicU64::new(0),
            behind: Mutex::default(),
        }
    }

    /// Any gateway.
    pub(crate) fn gateway(&self, rng: &mut impl Rng) -> anyhow::Result<SocketAddr> {
        self.doors.gateway(rng.random_range(0..100)).context("there is no gateway")
    }

    pub(crate) fn counts(&self) -> Counts {
        lock(&self.counts).clone()
    }

    /// Answers that the API does not promise, the first of them.
    pub(crate) fn odd(&self) -> Vec<String> {
        lock(&self.odd).clone()
    }

    /// Writes that were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// The longest time without an acknowledged write, of each shard: from when to when.
    pub(crate) fn silences(&self) -> Vec<(u64, u64)> {
        self.silences.iter().map(|silence| lock(silence).longest).collect()
    }

    /// How far behind answers may be that said so.
    pub(crate) fn behind(&self) -> Vec<Duration> {
        lock(&self.behind).clone()
    }

    fn count(&self, what: &'static str, outcome: &str) {
        *lock(&self.counts).entry((what, outcome.to_owned())).or_default() += 1;
    }

    /// A lane's group; retires it when it has had enough.
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

    /// Lets each client finish its request.
    pub(crate) async fn stop(mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        while self.clients.join_next().await.is_some() {}
        for silence in &self.shared.silences {
            lock(silence).end(self.shared.history.now());
        }
    }
}

/// Reads each of these keys once more, by so many clients. Fails when one can't be read.
pub(crate) async fn last_look(shared: &Arc<Shared>, keys: Vec<Key>, clients: u32) -> anyhow::Result<()> {
    let keys = Arc::new(Mutex::new(keys));
    let mut looking = JoinSet::new();
    for number in 0..clients {
        let (mut client, keys) = (Client::new(shared, 1_000 + number, 0), Arc::clone(&keys));
        looking.spawn(async move {
            loop {
                let Some(key) = lock(&keys).pop() else { return anyhow::Ok(()) };
                client.insist(key).await?;
            }
        });
    }
    while let Some(looked) = looking.join_next().await {
        looked??;
    }
    Ok(())
}

/// Puts a value under a name that is none of the keys, until that is acknowledged.
pub(crate) async fn mark(shared: &Arc<Shared>, name: &str) -> anyhow::Result<()> {
    let mut client = Client::new(shared, 2_000, 0);
    let mut why = String::new();
    for _ in 0..ATTEMPTS {
        let base = client.base().unwrap_or_default();
        let request = Request::put(format!("{base}/kv/{name}")).body(Full::new("end".into()))?;
        match client.ask(request).await {
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
            door: None,
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
            // Whom it asks decides what it asks.
            self.base();
            self.known.retain(|key, _| key.lane != lane || key.group == group);
            if self.rng.random_ratio(1, 10) {
                self.list(lane, group).await;
            } else {
                let key = Key { lane, group, number: self.rng.random_range(0..KEYS) };
                let action = self.choose(key);
                self.once(key, action).await;
            }
            let is_direct = matches!(self.door, Some(Door::Member(_)));
            let pause = self.rng.random_range(0..=if is_direct { PAUSE / 4 } else { PAUSE });
            sleep(Duration::from_millis(pause)).await;
        }
    }

    /// What it asks of a key next.
    fn choose(&mut self, key: Key) -> Action {
        if matches!(self.door, Some(Door::Member(_))) {
            // A write would tell an owner of yesterday at once that it is none any more.
            return if self.rng.random_ratio(1, 2) { Action::Get } else { Action::Glance };
        }
        let known = self.known.get(&key).copied();
        let is = known.map(|(version, value)| Condition::Is { version, value });
        let mut put = |on| {
            self.puts += 1;
            Action::Put { value: value(self.number, self.puts), on }
        };
        match (self.rng.random_range(0..100), is) {
            (0..3, _) => Action::Glance,
            (3..30, _) => Action::Get,
            (30..52, _) => put(Condition::Always),
            (52..62, _) | (62..82, None) => put(Condition::Absent),
            (62..82, Some(is)) => put(is),
            (82..88, Some(is)) => Action::Delete { on: is },
            _ => Action::Delete { on: Condition::Always },
        }
    }

    /// Asks for a key once. Says whether there was an answer.
    async fn once(&mut self, key: Key, action: Action) -> bool {
        let filling = if self.rng.random_ratio(1, 20) { self.rng.random_range(1..20_000) } else { 0 };
        let Some(base) = self.base() else { return false };
        let Ok(request) = protocol::request(base, key, action, self.reads(action), filling) else {
            return false;
        };
        let mut start = self.shared.history.now();
        let told = match self.ask(request).await {
            Ok(answer) => {
                start = self.since(start, action, &answer);
                protocol::told(action, &answer)
            }
            Err(Failure::Unsent) => Told::Nothing,
            Err(Failure::Open(why)) => Told::Open(why),
        };
        let end = self.shared.history.now();
        let outcome = self.judge(kind(action), told);
        let is_write = matches!(action, Action::Put { .. } | Action::Delete { .. });
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
        let action = if self.rng.random_ratio(1, 4) { Action::Glance } else { Action::Scan };
        let Some(base) = self.base() else { return };
        let Ok(request) = protocol::listing(base, lane, group, self.reads(action)) else { return };
        let mut start = self.shared.history.now();
        let told = match self.ask(request).await {
            Ok(answer) => {
                start = self.since(start, action, &answer);
                protocol::listed(action, &answer)
            }
            Err(Failure::Unsent) => Err(Told::Nothing),
            Err(Failure::Open(why)) => Err(Told::Open(why)),
        };
        let end = self.shared.history.now();
        match told {
            Err(told) => {
                self.judge(kind(action), told);
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

    /// The last look is strong in any case.
    fn reads(&self, action: Action) -> Reads {
        match action {
            Action::Glance => Reads::Any,
            _ if self.shared.stop.load(Ordering::Relaxed) => Reads::Strong,
            _ => self.shared.reads,
        }
    }

    /// Since when what was answered was there for sure at some time, if it was asked for then.
    fn since(&self, asked: u64, action: Action, answer: &Answer) -> u64 {
        let Some(by) = protocol::behind(answer).filter(|_| action == Action::Glance) else { return asked };
        lock(&self.shared.behind).push(by);
        asked.saturating_sub(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Reads a key until there is an answer.
    async fn insist(&mut self, key: Key) -> anyhow::Result<()> {
        for _ in 0..ATTEMPTS {
            if self.once(key, Action::Get).await {
                return Ok(());
            }
            sleep(Duration::from_millis(500)).await;
        }
        anyhow::bail!("{key} could not be read in the end")
    }

    /// Counts what was told. Nothing if it says that nothing was done.
    fn judge(&mut self, kind: &'static str, told: Told) -> Option<Outcome> {
        let (word, outcome) = match told {
            Told::Outcome(outcome @ Outcome::Refused(_)) => ("refused".to_owned(), Some(outcome)),
            Told::Outcome(outcome) => ("ok".to_owned(), Some(outcome)),
            Told::Nothing => ("not processed".to_owned(), None),
            Told::Open(why) => (why, Some(Outcome::Open)),
            Told::Odd(what) => {
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
            // It may know better.
            (Action::Glance, _) => {}
            (_, Outcome::Found { value, version }) => {
                self.known.insert(key, (version, value));
            }
            (Action::Put { value, .. }, Outcome::Stored(version)) => {
                self.known.insert(key, (version, value));
            }
            (_, Outcome::Missing | Outcome::Deleted) => {
                self.known.remove(&key);
            }
            // What it knew may be old now, and is worth a try.
            _ => {}
        }
    }

    async fn ask(&mut self, mut request: Request<Full<bytes::Bytes>>) -> Result<Answer, Failure> {
        request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
        let Some(door) = self.door else { return Err(Failure::Unsent) };
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let opening = Connection::open(door.addr(), Protocol::Http1);
                match timeout(CONNECT, opening).await.context("too slow").flatten() {
                    Ok(connection) => connection,
                    Err(_) => {
                        self.door = None;
                        let pause = self.rng.random_range(10..200);
                        sleep(Duration::from_millis(pause)).await;
                        return Err(Failure::Unsent);
                    }
                }
            }
        };
        let patience = match door {
            Door::Gateway(_) => self.patience,
            Door::Member(_) => self.patience.min(CONNECT),
        };
        match timeout(patience, connection.ask(request)).await {
            Ok(Ok(answer)) => {
                // Now and then somebody else; the owner of another key is known to a gateway only.
                let stays = match door {
                    Door::Gateway(_) => !answer.status.is_server_error() && !self.rng.random_ratio(1, 200),
                    // Mostly owners, or whoever was one a moment ago.
                    Door::Member(_) if answer.status.is_success() => !self.rng.random_ratio(1, 200),
                    Door::Member(_) => self.rng.random_ratio(1, 2),
                };
                if stays {
                    self.connection = Some(connection);
                } else {
                    self.door = None;
                }
                Ok(answer)
            }
            Ok(Err(error)) => {
                self.door = None;
                let cause = error.downcast_ref::<hyper::Error>();
                if cause.is_some_and(|cause| cause.is_canceled() || cause.is_closed()) {
                    return Err(Failure::Unsent);
                }
                Err(Failure::Open("connection broke".to_owned()))
            }
            Err(_) => {
                self.door = None;
                Err(Failure::Open("no answer in time".to_owned()))
            }
        }
    }

    /// What paths begin with where it asks next. Nothing as long as no gateway was found.
    fn base(&mut self) -> Option<&'static str> {
        if self.door.is_none() {
            let is_direct = self.number.is_multiple_of(DIRECT) && !self.shared.stop.load(Ordering::Relaxed);
            self.door = if is_direct {
                Some(Door::Member(self.shared.doors.member(self.rng.random_range(0..100))))
            } else {
                self.shared.gateway(&mut self.rng).ok().map(Door::Gateway)
            };
        }
        self.door.map(Door::base)
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
        Action::Glance => "any",
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
