//! The indexes of a service, their aliases and templates: one log on the store, in `data/{service}/catalog`.
//!
//! Each record has all indexes. A member polls for the next one, and reads at once when a request needs an index or a
//! record that it does not know. [`record`] decides what a change does; [`Catalog::change`] writes it.

mod alias;
mod alias_actions;
mod auto_create;
mod declared;
mod expiry;
mod indexes;
mod name;
mod record;
mod template;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plugin::{Context, ServiceError, SingleFlight};
use store::{AppendError, Entry, Log, StoreError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::warn;
use types::ErrorKind;
use uuid::Uuid;

pub(crate) use alias::{AliasAction, AliasError, AliasOptions, AliasRecord, change as change_aliases};
pub(crate) use alias_actions::{ActionError, actions as alias_actions, options as alias_options};
pub(crate) use auto_create::AutoCreate;
pub(crate) use declared::Declared;
pub(crate) use expiry::Expiry;
pub(crate) use indexes::{Indexes, ResolveError, Rule, has_pattern};
pub(crate) use name::{NAME_RULE, NameError, check_name};
pub(crate) use record::{
    Change, CreateError, MAX_INDEXES, NoSuchIndex, Record, create, create_by_request, delete,
};
pub(crate) use template::{NoSuchTemplate, Template, TemplateError, delete_templates, put as put_template};

use crate::definition::Definition;
use crate::schema::IndexSchema;

/// The name of the log.
const LOG: &str = "catalog";
/// How long after a read the next record can be read by its number. Later it may have been pruned already, so the log is
/// listed.
const TRUST_NEXT: Duration = Duration::from_secs(60);
/// How many records are read one by one before the log is listed.
const MOST_NEXT: usize = 16;
/// How often a change is decided again because another member changed the catalog first.
const TRIES: usize = 32;

/// An index, as of one record of the catalog.
#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) name: String,
    /// Unique for each creation; what the log, folders and manifests carry.
    pub(crate) uuid: Uuid,
    /// The definition with which it was created, which fixes its Tantivy schema.
    pub(crate) created: Definition,
    pub(crate) schema: Arc<IndexSchema>,
}

/// The catalog of a service, kept current by polls. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Catalog {
    now: watch::Receiver<Arc<Indexes>>,
    /// `None` for a catalog that never changes.
    reader: Option<Arc<Reader>>,
    /// The read in progress.
    reading: Arc<SingleFlight<(), Result<Arc<Indexes>, CatalogUnavailable>>>,
}

/// Reads the log and publishes what it finds.
#[derive(Debug)]
struct Reader {
    log: Log<Record>,
    now: watch::Sender<Arc<Indexes>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the latest successful read began.
    confirmed: Option<Instant>,
    /// Why the latest read failed.
    failure: Option<CatalogUnavailable>,
}

/// The catalog could not be read or changed. If `kind` is `Internal`, its record is damaged or a newer version's, and the
/// message names the object; else try again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the catalog of indexes can't be read or changed: {message}")]
pub(crate) struct CatalogUnavailable {
    pub(crate) message: String,
    pub(crate) kind: ErrorKind,
    pub(crate) hint: Option<String>,
}

impl From<StoreError> for CatalogUnavailable {
    fn from(error: StoreError) -> Self {
        Self { message: error.to_string(), kind: error.kind(), hint: error.hint() }
    }
}

/// Why the catalog was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChangeError<E> {
    /// See the reason; nothing was changed.
    #[error(transparent)]
    Refused(E),
    /// It may have been changed; repeating it does no harm.
    #[error(transparent)]
    Catalog(CatalogUnavailable),
}

impl Catalog {
    /// A catalog that never changes, for tests.
    #[cfg(test)]
    pub(crate) fn fixed(indexes: Indexes) -> Self {
        Self::watching(watch::channel(Arc::new(indexes)).1)
    }

    /// A catalog that a test changes.
    #[cfg(test)]
    pub(crate) fn watching(now: watch::Receiver<Arc<Indexes>>) -> Self {
        Self { now, reader: None, reading: Arc::default() }
    }

    /// Reads the catalog, and keeps it current in a task of the context.
    pub(crate) async fn start(cx: &Context) -> Result<Self, ServiceError> {
        let logs = cx
            .logs
            .as_ref()
            .ok_or_else(|| ServiceError::internal(format!("a member of `{}` was given no logs", cx.role)))?;
        let catalog = Self::over(logs.of_service(LOG));
        catalog.fresh().await.map_err(|error| {
            let hint = error.hint.clone();
            let error = ServiceError::new(error.kind, error.to_string());
            match hint {
                Some(hint) => error.hint(hint),
                None => error,
            }
        })?;
        let (polled, shutdown, pause) = (catalog.clone(), cx.shutdown.clone(), cx.objects_poll);
        cx.tasks.spawn("catalog", async move {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => Ok(()),
                () = polled.poll(pause) => Ok(()),
            }
        });
        Ok(catalog)
    }

    fn over(log: Log<Record>) -> Self {
        let (sender, now) = watch::channel(Arc::new(Indexes::default()));
        let reader = Reader { log, now: sender, state: Mutex::default() };
        Self { now, reader: Some(Arc::new(reader)), reading: Arc::default() }
    }

    async fn poll(&self, pause: Duration) {
        let mut was_failing = false;
        loop {
            sleep(pause).await;
            let outcome = self.fresh().await;
            if let Err(error) = &outcome
                && !was_failing
            {
                warn!(%error, "keeping the catalog that was read last");
            }
            was_failing = outcome.is_err();
        }
    }

    /// The indexes as of the last read.
    pub(crate) fn now(&self) -> Arc<Indexes> {
        Arc::clone(&self.now.borrow())
    }

    /// The indexes as of a read that begins now.
    pub(crate) async fn fresh(&self) -> Result<Arc<Indexes>, CatalogUnavailable> {
        let Some(reader) = &self.reader else { return Ok(self.now()) };
        let asked_at = Instant::now();
        loop {
            let begin = || {
                let reader = Arc::clone(reader);
                Box::pin(async move { reader.read().await }) as _
            };
            let read = self.reading.join((), begin, |_| ()).await;
            if read.since >= asked_at {
                return read.outcome;
            }
        }
    }

    /// The indexes as of a record with at least this number.
    pub(crate) async fn at_least(&self, number: u64) -> Result<Arc<Indexes>, CatalogUnavailable> {
        let now = self.now();
        if now.number >= number {
            return Ok(now);
        }
        let now = self.fresh().await?;
        if now.number >= number {
            return Ok(now);
        }
        let message = format!("record {number} is not there; the latest has number {}", now.number);
        Err(CatalogUnavailable { message, kind: ErrorKind::Unavailable, hint: None })
    }

    /// Waits until the catalog has changed.
    pub(crate) async fn changed(&mut self) {
        if self.now.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Why the latest read failed, if it did.
    pub(crate) fn failure(&self) -> Option<CatalogUnavailable> {
        self.reader.as_ref()?.state().failure.clone()
    }

    /// Changes the catalog: `decide` gets the latest record, again each time that another member was first. Returns the
    /// indexes after the change, and what `decide` returned beside it.
    pub(crate) async fn change<T, E>(
        &self,
        decide: impl Fn(&Record) -> Result<(Change, T), E>,
    ) -> Result<(Arc<Indexes>, T), ChangeError<E>> {
        let unavailable = |message: &str| {
            let message = message.to_owned();
            ChangeError::Catalog(CatalogUnavailable { message, kind: ErrorKind::Unavailable, hint: None })
        };
        let Some(reader) = &self.reader else { return Err(unavailable("it is fixed")) };
        for _ in 0..TRIES {
            let began = Instant::now();
            let latest = reader.latest_with_times().await;
            let (number, record) = latest.map_err(|error| ChangeError::Catalog(error.into()))?;
            let (change, value) = decide(&record).map_err(ChangeError::Refused)?;
            let next = match change {
                Change::Nothing => return Ok((reader.publish(number, record, began), value)),
                Change::To(next) => next,
            };
            match reader.log.append(number, &next).await {
                Ok(number) => {
                    if let Err(error) = reader.log.prune().await {
                        warn!(%error, "old records of the catalog stay for now");
                    }
                    return Ok((reader.publish(number, next, began), value));
                }
                Err(AppendError::Lost { .. }) => {}
                Err(AppendError::Store(error)) => return Err(ChangeError::Catalog(error.into())),
            }
        }
        Err(unavailable("other members changed it at the same time again and again"))
    }
}

impl Reader {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self) -> Result<Arc<Indexes>, CatalogUnavailable> {
        let began = Instant::now();
        let is_recent = self.state().confirmed.is_some_and(|at| at.elapsed() < TRUST_NEXT);
        let known = self.now.borrow().number;
        let read = match is_recent {
            true => self.following(known).await,
            false => self.latest().await,
        };
        match read {
            Ok(Some((number, record))) => Ok(self.publish(number, record, began)),
            Ok(None) => {
                self.confirm(began);
                Ok(Arc::clone(&self.now.borrow()))
            }
            Err(error) => {
                let error = CatalogUnavailable::from(error);
                self.state().failure = Some(error.clone());
                Err(error)
            }
        }
    }

    /// The latest record and its number. All of its indexes have the time at which the store had them.
    async fn latest_with_times(&self) -> Result<(u64, Record), StoreError> {
        let Some(Entry { number, value: mut record }) = self.log.latest().await? else {
            return Ok(Default::default());
        };
        if record.indexes.values().any(|index| index.stored_at.is_none())
            && let Some(time) = self.log.stored_at(number).await?
        {
            record.note_time(time.timestamp_millis());
        }
        Ok((number, record))
    }

    async fn latest(&self) -> Result<Option<(u64, Record)>, StoreError> {
        Ok(self.log.latest().await?.map(|entry| (entry.number, entry.value)))
    }

    /// The last record after the known one. Usually there is none, which costs one small request.
    async fn following(&self, known: u64) -> Result<Option<(u64, Record)>, StoreError> {
        let mut last = None;
        for number in (known + 1..).take(MOST_NEXT) {
            match self.log.entry(number).await? {
                Some(record) => last = Some((number, record)),
                None => return Ok(last),
            }
        }
        self.latest().await
    }

    fn confirm(&self, began: Instant) {
        let mut state = self.state();
        state.confirmed = state.confirmed.max(Some(began));
        state.failure = None;
    }

    /// Makes a record visible, unless a later one is already. Returns what is visible then.
    fn publish(&self, number: u64, record: Record, began: Instant) -> Arc<Indexes> {
        self.confirm(began);
        self.now.send_if_modified(|now| {
            let is_later = number > now.number;
            if is_later {
                *now = Arc::new(Indexes::of(number, record, now));
            }
            is_later
        });
        Arc::clone(&self.now.borrow())
    }
}

#[cfg(test)]
mod tests;
