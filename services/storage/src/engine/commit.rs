//! Group commit: waiting writes become batches of the database in the order in which they arrived, and then one flush.
//!
//! All rows of a batch get one sequence number, which is the version of everything put in it. So two writes to one key
//! never share a batch: each is acknowledged with a version of its own, and watchers see both.
//!
//! Conditions are checked in that order too: against what the group's earlier writes have made of the key, else against
//! the database. The outcome of a condition shows the state of the key to the client, so it is answered like a write:
//! once that state is durable, and once it is certain that no other node had opened the database until then. The flush
//! ensures that, since a new owner first takes the place in the log that the flush would write to; a group that wrote
//! nothing checks the manifest.

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

/// How many keys are read concurrently.
const READS: usize = 64;
/// The most that one flush of the log holds, unless a single write is larger: it is in memory twice while it is written
/// to the store.
const FLUSH: usize = 8 * 1024 * 1024;
/// The most that a batch holds, unless its changes are atomic.
const BATCH: usize = 4 * 1024 * 1024;

/// The state of a key that had to be read, or why it can't be read.
type State = Result<Option<Known>, String>;

/// Rows of a batch; no value means deleted.
type Rows = Vec<(Bytes, Option<Bytes>)>;

/// A write that waits to become durable.
type Waiting = Queued<Write, Result<Written, EngineError>>;

/// A group that is being committed.
struct Group<'a> {
    db: &'a Db,
    /// The keys that had to be read, in the state in which the written batches have left them.
    known: BTreeMap<Bytes, State>,
    batch: WriteBatch,
    /// The rows of the batch, for watchers.
    rows: Rows,
    /// The rows of the batches already written, by version.
    written: Vec<(u64, Rows)>,
    size: usize,
    /// The state in which the batch leaves its keys.
    touched: BTreeMap<Bytes, Option<Known>>,
    /// The writes that are in the batch, by their index in the group.
    pending: Vec<usize>,
    outcomes: Vec<Result<Written, EngineError>>,
    /// The earliest time at which something that was put expires.
    earliest: u64,
    has_written: bool,
}

/// Makes a group of writes durable, in order, and answers them.
pub(crate) async fn commit(
    db: &Db,
    shared: &Shared,
    feed: &Feed,
    group: Vec<Waiting>,
) -> Result<(), slatedb::Error> {
    // An abandoned write was already answered: its outcome is unknown.
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
            // Only now, so that a sweep that starts after this finds the values.
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
        known: read_keys(db, writes).await?,
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

/// Reads the keys that must be read before the group is applied.
async fn read_keys(
    db: &Db,
    writes: &[(Unity, Vec<Change>)],
) -> Result<BTreeMap<Bytes, State>, slatedb::Error> {
    let changes = writes.iter().flat_map(|(_, changes)| changes);
    let mut keys: Vec<_> =
        changes.filter(|change| change.needs_read()).map(|change| stored(change.key.bytes())).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut reads = stream::iter(keys)
        .map(|key| async move {
            let found = db.get_key_value(&key).await;
            (key, found)
        })
        .buffer_unordered(READS);
    let mut known = BTreeMap::new();
    while let Some((key, found)) = reads.next().await {
        let state = match found {
            Ok(None) => Ok(None),
            Ok(Some(row)) => match Record::skim(&row.value) {
                Ok(record) => Ok(Some(Known { version: row.seq, expires_ms: record.expires_ms() })),
                Err(error) => Err(error.to_string()),
            },
            // One damaged table must not block all writes.
            Err(error) if error.kind() == ErrorKind::Data => Err(error.to_string()),
            Err(error) => return Err(error),
        };
        known.insert(key, state);
    }
    Ok(known)
}

impl Group<'_> {
    /// Adds the next write to the batch, if its conditions hold.
    async fn take(&mut self, unity: Unity, changes: Vec<Change>) -> Result<(), slatedb::Error> {
        let keys: Vec<_> = changes.iter().map(|change| stored(change.key.bytes())).collect();
        if unity == Unity::Whole && keys.iter().any(|key| self.touched.contains_key(key)) {
            self.cut().await?;
        }
        let place = self.outcomes.len();
        self.outcomes.push(self.check(unity, &changes, &keys));
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

    /// Whether all conditions of a write hold. None of its keys is in the batch.
    fn check(&self, unity: Unity, changes: &[Change], keys: &[Bytes]) -> Result<Written, EngineError> {
        let mut unmet = Vec::new();
        for (index, (change, key)) in changes.iter().zip(keys).enumerate() {
            let Some(condition) = change.condition else { continue };
            debug_assert_eq!(unity, Unity::Whole, "only atomic writes have conditions");
            match self.known.get(key).expect("a key with a condition was read") {
                Ok(known) if condition.holds(known.map(|known| known.version)) => {}
                Ok(known) => unmet.push(Unmet { index, version: known.map(|known| known.version) }),
                Err(why) => return Err(EngineError::Damaged(format!("{}: {why}", change.key))),
            }
        }
        if unmet.is_empty() { Ok(None) } else { Err(EngineError::Unmet(unmet)) }
    }

    /// Adds a change to the batch. Returns whether it changes anything.
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
                // The version is known once the batch is written.
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

    /// Writes the batch into the database and starts another one.
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
