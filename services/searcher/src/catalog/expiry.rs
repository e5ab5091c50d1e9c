//! Deletes indexes that are as old as their `delete_after`.
//!
//! Both times are the store's: that of the first record with the index, and that of an object just written. So the clocks of
//! members do not count. The clock of a store in a folder is that of a machine, which may jump. Therefore a member deletes
//! nothing until it has seen for a while that the store's time goes as fast as its own time, which does not jump. Each owner
//! looks; the catalog's compare-and-set lets one of them delete an index.

use std::sync::Arc;
use std::time::Duration;

use plugin::{Context, Counter};
use store::ObjectStore;
use store::object_store::path::Path;
use store::object_store::{self, ObjectStoreExt};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::record::{Change, NoSuchIndex, Record, delete};
use super::{Catalog, ChangeError, Declared};

/// The pause between two looks.
const PAUSE: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_mins(1) };
/// How long the store's time must have gone as fast as a member's.
const HOLD: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_mins(10) };
/// By how much the two may differ between two looks: requests to the store take time.
const SLACK: Duration = Duration::from_secs(30);
/// How long each request to the store may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Deletes the indexes of a service, as one of its owners.
pub(crate) struct Expiry {
    catalog: Catalog,
    declared: Declared,
    objects: Arc<dyn ObjectStore>,
    clock: SteadyClock,
    deleted: Counter,
}

/// Why no index was deleted. Try again later.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExpiryError {
    #[error("the store's time is not known: {0}")]
    Time(#[from] object_store::Error),
    #[error("the store's time is not known: there was no answer within {LIMIT:?}")]
    Late,
    #[error(transparent)]
    Catalog(#[from] ChangeError<NoSuchIndex>),
}

impl Expiry {
    /// As an owner; `None` if the member has no objects to write.
    pub(crate) fn new(cx: &Context, catalog: Catalog, declared: Declared) -> Option<Self> {
        let objects = cx.objects.clone()?;
        let deleted = cx.metrics.counter("indexes_expired", "Indexes deleted because of their delete_after");
        Some(Self { catalog, declared, objects, clock: SteadyClock::new(HOLD), deleted })
    }

    /// Looks again and again until it has deleted something. Returns the number of the catalog's record after that.
    pub(crate) async fn next(&mut self) -> u64 {
        let mut is_failing = false;
        loop {
            sleep(PAUSE).await;
            match self.look().await {
                Ok(Some(number)) => return number,
                Ok(None) => is_failing = false,
                Err(error) if is_failing => debug!(%error, "still can't look for indexes to delete"),
                Err(error) => {
                    warn!(%error, "can't look for indexes to delete; it is tried again");
                    is_failing = true;
                }
            }
        }
    }

    /// Deletes what is old enough. Returns the number of the record after it, if this member has deleted anything.
    async fn look(&mut self) -> Result<Option<u64>, ExpiryError> {
        let indexes = self.catalog.now();
        let may_expire = indexes.all().any(|index| {
            index.schema.definition.delete_after.age().is_some() && !self.declared.has(&index.name)
        });
        if !may_expire {
            return Ok(None);
        }
        let now = store_time(&self.objects).await?;
        if !self.clock.observe(Instant::now(), now) {
            return Ok(None);
        }
        self.delete_due(now).await
    }

    async fn delete_due(&self, now: i64) -> Result<Option<u64>, ExpiryError> {
        let decide = |record: &Record| {
            let due = due(record, now, |name| self.declared.has(name));
            if due.is_empty() {
                return Ok((Change::Nothing, due));
            }
            let mut next = record.clone();
            for (name, _) in &due {
                (next, _) = delete(&next, name)?;
            }
            Ok((Change::To(next), due))
        };
        let (indexes, deleted) = self.catalog.change(decide).await?;
        for (index, uuid) in &deleted {
            self.deleted.inc();
            info!(%index, %uuid, "deleted an index, which was as old as its `delete_after`");
        }
        Ok((!deleted.is_empty()).then_some(indexes.number))
    }
}

/// The indexes that are old enough at a time of the store, in milliseconds since 1970. Declared ones never are.
fn due(record: &Record, now: i64, is_declared: impl Fn(&str) -> bool) -> Vec<(String, Uuid)> {
    let is_due = |stored_at: i64, age: Duration| {
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        now >= stored_at.saturating_add(age)
    };
    let found = record.indexes.iter().filter(|(name, index)| {
        let limits = index.stored_at.zip(index.now.delete_after.age());
        limits.is_some_and(|(stored_at, age)| is_due(stored_at, age)) && !is_declared(name)
    });
    found.map(|(name, index)| (name.clone(), index.uuid)).collect()
}

/// The store's time, by an object that is written now.
async fn store_time(objects: &Arc<dyn ObjectStore>) -> Result<i64, ExpiryError> {
    let mark = Path::from("expiry").join("now");
    let written = async {
        objects.put(&mark, "{}".into()).await?;
        objects.head(&mark).await
    };
    let meta = timeout(LIMIT, written).await.map_err(|_| ExpiryError::Late)??;
    Ok(meta.last_modified.timestamp_millis())
}

/// Compares the store's clock with the time that passes here. Pure.
#[derive(Debug)]
struct SteadyClock {
    hold: Duration,
    /// The first of the looks without a jump between them, and the last look with the store's time at it.
    seen: Option<(Instant, Instant, i64)>,
}

impl SteadyClock {
    fn new(hold: Duration) -> Self {
        Self { hold, seen: None }
    }

    /// Notes the store's time, and returns whether it can be relied on.
    fn observe(&mut self, now: Instant, store: i64) -> bool {
        let first = match self.seen {
            Some((first, last, at)) => {
                let passed = i64::try_from((now - last).as_millis()).unwrap_or(i64::MAX);
                let jumped = store.saturating_sub(at).saturating_sub(passed);
                if u128::from(jumped.unsigned_abs()) <= SLACK.as_millis() {
                    first
                } else {
                    warn!(jumped_ms = jumped, "the store's clock jumped, so no index is deleted for a while");
                    now
                }
            }
            None => now,
        };
        self.seen = Some((first, now, store));
        now - first >= self.hold
    }
}

#[cfg(test)]
mod tests;
