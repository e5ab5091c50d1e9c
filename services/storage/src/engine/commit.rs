//! One group of writes: what waits becomes batches of the database in the order in which it came, then one flush.
//!
//! All rows of a batch get one sequence number, and that number is the version of what was put. So no two writes to
//! one key share a batch: each is acknowledged with a version of its own, and whoever watches sees both.
//!
//! Conditions are judged in that order too: against what the group's earlier writes have made of the key, else against
//! the database. A verdict shows that state to whoever asked, so it is answered like a write: once the state is
//! durable, and it is proven that nobody else had opened the database until then. The flush proves it, since a new
//! owner first takes the place in the log that the flush would write to; a group that wrote nothing asks the manifest.

use std::collections::BTreeMap;
use std::mem::take;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use plugin::queue::Queued;
use slatedb::{Db, ErrorKind, WriteBatch};

use crate::changes::feed::Feed;
use crate::data::change::{Change, Effect, Known, Unity, Unmet, Write, Written};
use crate::data::layout::stored;
use crate::data::record::Record;
use crate::engine::EngineError;
use crate::engine::expiry;
use crate::engine::shared::Shared;

/// Keys that are looked at together.
const LOOKS: usize = 64;
/// What one flush of the log holds at most, or one write: it is in memory twice while it is written to the store.
const FLUSH: usize = 8 * 1024 * 1024;
/// What a batch holds at most, unless its changes belong together.
const BATCH: usize = 4 * 1024 * 1024;

/// What was found out of a key that it had to look at.
type State = Result<Option<Known>, String>;

/// Rows of a batch; no value: deleted.
type Rows = Vec<(Bytes, Option<Bytes>)>;

/// A write that waits to become durable.
type Waiting = Queued<Write, Result<Written, EngineError>>;

/// A group on its way.
struct Group<'a> {
    db: &'a Db,
    /// The keys with conditions, as the batches that are in the database have left them.
    known: BTreeMap<Bytes, State>,
    batch: WriteBatch,
    /// The same, for those who watch.
    rows: Rows,
    /// What the batches had that are in the database.
    written: Vec<(u64, Rows)>,
    size: usize,
    /// What the batch makes of its keys: a value that expires or not, or none.
    touched: BTreeMap<Bytes, Option<Known>>,
    /// The writes that are in the batch, by their place in the group.
    pending: Vec<usize>,
    outcomes: Vec<Result<Written, EngineError>>,
    /// The earliest time at which something expires that was put.
    earliest: u64,
    has_written: bool,
}

/// Makes a group of writes durable, in their order, and answers them.
pub(crate) async fn commit(
    db: &Db,
    shared: &Shared,
    feed: &Feed,
    group: Vec<Waiting>,
) -> Result<(), slatedb::Error> {
    // Whoever does not wait any more was told that the outcome is open.
    let mut waiting = group.into_iter().filter(|write| !write.is_abandoned()).peekable();
    while let Some(first) = waiting.next() {
        let mut size = first.item.size();
        let mut part = vec![first];
        while let Some(next) = waiting.next_if(|next| size.saturating_add(next.item.size()) <= FLUSH) {
            size += next.item.size();
            part.push(next);
        }
        if let Err(error) = commit_part(db, shared, feed, part).await {
            for write in waiting {
                write.answer(Err(EngineError::NotOpen(error.to_string())));
            }
            return Err(error);
        }
    }
    Ok(())
}

/// Makes writes durable with one flush.
async fn commit_part(
    db: &Db,
    shared: &Shared,
    feed: &Feed,
    mut group: Vec<Waiting>,
) -> Result<(), slatedb::Error> {
    let mut changes: Vec<_> =
        group.iter_mut().map(|write| (write.item.unity, take(&mut write.item.changes))).collect();
    let committed = run(db, &mut changes).await;
    shared.meters.committed(group.len());
    match committed {
        Ok((outcomes, earliest, written)) => {
            for (version, rows) in written {
                feed.wrote(version, rows);
            }
            // Only now, so that whoever looks for what expires finds it.
            shared.expiry.expires_at(earliest);
            for (write, outcome) in group.into_iter().zip(outcomes) {
                shared.meters.became_durable(write.came.elapsed());
                write.answer(outcome);
            }
            Ok(())
        }
        Err(error) => {
            for write in group {
                write.answer(Err(EngineError::Unsettled(error.to_string())));
            }
            Err(error)
        }
    }
}

type Outcomes = (Vec<Result<Written, EngineError>>, u64, Vec<(u64, Rows)>);

async fn run(db: &Db, writes: &mut [(Unity, Vec<Change>)]) -> Result<Outcomes, slatedb::Error> {
    let mut group = Group {
        db,
        known: look(db, writes).await?,
        batch: WriteBatch::new(),
        rows: Vec::new(),
        written: Vec::new(),
        size: 0,
        touched: BTreeMap::new(),
        pending: Vec::new(),
        outcomes: Vec::with_capacity(writes.len()),
        earliest: u64::MAX,
        has_written: false,
    };
    for (unity, changes) in writes {
        group.take(*unity, take(changes)).await?;
    }
    group.cut().await?;
    if group.has_written {
        db.flush().await?;
    } else {
        db.refresh_manifest().await?;
    }
    Ok((group.outcomes, group.earliest, group.written))
}

/// What the keys hold that must be looked at, before the group.
async fn look(db: &Db, writes: &[(Unity, Vec<Change>)]) -> Result<BTreeMap<Bytes, State>, slatedb::Error> {
    let changes = writes.iter().flat_map(|(_, changes)| changes);
    let mut keys: Vec<_> =
        changes.filter(|change| change.needs_read()).map(|change| stored(change.key.bytes())).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut looks = stream::iter(keys)
        .map(|key| async move {
            let found = db.get_key_value(&key).await;
            (key, found)
        })
        .buffer_unordered(LOOKS);
    let mut known = BTreeMap::new();
    while let Some((key, found)) = looks.next().await {
        let state = match found {
            Ok(None) => Ok(None),
            Ok(Some(row)) => match Record::skim(&row.value) {
                Ok(record) => Ok(Some(Known { version: row.seq, expires_ms: record.expires_ms() })),
                Err(error) => Err(error.to_string()),
            },
            // One damaged table must not stop all writes.
            Err(error) if error.kind() == ErrorKind::Data => Err(error.to_string()),
            Err(error) => return Err(error),
        };
        known.insert(key, state);
    }
    Ok(known)
}

impl Group<'_> {
    /// Takes the next write into the batch, if its conditions hold.
    async fn take(&mut self, unity: Unity, changes: Vec<Change>) -> Result<(), slatedb::Error> {
        let keys: Vec<_> = changes.iter().map(|change| stored(change.key.bytes())).collect();
        if unity == Unity::Whole && keys.iter().any(|key| self.touched.contains_key(key)) {
            self.cut().await?;
        }
        let place = self.outcomes.len();
        self.outcomes.push(self.judge(unity, &changes, &keys));
        if self.outcomes[place].is_err() {
            return Ok(());
        }
        for (change, key) in changes.into_iter().zip(keys) {
            if unity == Unity::Apart && (self.size > BATCH || self.touched.contains_key(&key)) {
                self.cut().await?;
            }
            if self.apply(change, key) && self.pending.last() != Some(&place) {
                self.pending.push(place);
            }
        }
        Ok(())
    }

    /// Whether all conditions of a write hold, now that none of its keys is in the batch.
    fn judge(&self, unity: Unity, changes: &[Change], keys: &[Bytes]) -> Result<Written, EngineError> {
        let mut unmet = Vec::new();
        for (index, (change, key)) in changes.iter().zip(keys).enumerate() {
            let Some(condition) = change.condition else { continue };
            debug_assert_eq!(unity, Unity::Whole, "conditions are for all or nothing");
            match self.known.get(key).expect("a key with a condition was looked at") {
                Ok(known) if condition.holds(known.as_ref()) => {}
                Ok(known) => unmet.push(Unmet { index, version: known.map(|known| known.version) }),
                Err(why) => return Err(EngineError::Damaged(format!("{}: {why}", change.key))),
            }
        }
        if unmet.is_empty() { Ok(None) } else { Err(EngineError::Unmet(unmet)) }
    }

    /// Puts a change into the batch. Says whether it changes anything.
    fn apply(&mut self, change: Change, key: Bytes) -> bool {
        let known = self.known.get(&key).and_then(|state| *state.as_ref().ok()?);
        let old = known.and_then(|known| known.expires_ms);
        self.size += change.size();
        match change.effect {
            Effect::Check => return false,
            Effect::Put(value, expires_ms) => {
                self.put(key.clone(), value);
                if let Some(at) = expires_ms {
                    self.put(expiry::row(at, change.key.bytes()), Bytes::new());
                    self.earliest = self.earliest.min(at.get());
                }
                // The version comes when the batch is written.
                self.touched.insert(key, Some(Known { version: 0, expires_ms }));
                if let Some(old) = old.filter(|old| Some(*old) != expires_ms) {
                    self.delete(expiry::row(old, change.key.bytes()));
                }
            }
            Effect::Delete => {
                self.delete(key.clone());
                self.touched.insert(key, None);
                if let Some(old) = old {
                    self.delete(expiry::row(old, change.key.bytes()));
                }
            }
            Effect::Expire(at) => {
                self.delete(expiry::row(at, change.key.bytes()));
                if old == Some(at) {
                    self.delete(key.clone());
                    self.touched.insert(key, None);
                }
            }
        }
        true
    }

    fn put(&mut self, row: Bytes, value: Bytes) {
        self.batch.put_bytes(row.clone(), value.clone());
        self.rows.push((row, Some(value)));
    }

    fn delete(&mut self, row: Bytes) {
        self.batch.delete(&row);
        self.rows.push((row, None));
    }

    /// Writes the batch into the database and begins another one.
    async fn cut(&mut self) -> Result<(), slatedb::Error> {
        self.size = 0;
        if self.batch.is_empty() {
            return Ok(());
        }
        let version = self.db.write(take(&mut self.batch)).await?.seqnum();
        self.written.push((version, take(&mut self.rows)));
        self.has_written = true;
        for place in self.pending.drain(..) {
            self.outcomes[place] = Ok(Some(version));
        }
        for (key, made) in take(&mut self.touched) {
            if let Some(state) = self.known.get_mut(&key) {
                *state = Ok(made.map(|made| Known { version, ..made }));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
