//! Opens a shard at its owner, and serves it.
//!
//! # Why no acknowledged operation is lost
//!
//! The steps of an opening, in this order, but for 3 and 4, which are done side by side, and the reading of the log, which
//! is done beside 5. Between any two of them, the process may be paused or killed, and a former owner may still write.
//!
//! 1. *The claim is confirmed.* If it passes afterwards, the next owner opens the log under a higher epoch. If that has
//!    happened before step 2, step 2 fails; if it happens later, our next append fails.
//! 2. *The log is opened.* From now on a former owner acknowledges nothing more: it fails to append. All that it has
//!    acknowledged is in the log below our opening, or in its manifests. Until step 4 it may trim the log, but adds
//!    nothing to it.
//! 3. *The catalog is read.* An index whose operations are in the log, but which this read lacks, was deleted.
//! 4. *The latest manifest is written again, as ours.* A former owner may have written manifests between 2 and 4, and
//!    trimmed the log below them. If it wrote one after we read the latest, our number is taken and we read again. So what
//!    we continue from is the last manifest of all former owners, and the log has all that follows it: the log is trimmed
//!    only below what a manifest has.
//! 5. *The local folder is made what that manifest names.* Nothing else in the folder counts, so it does not matter what a
//!    former incarnation left there, at whatever step it was killed. Searches that accept old data are answered from now
//!    on. The packs stay: no former owner removes what that manifest names (see [`super::garbage`]).
//! 6. *The log is replayed* from the manifest to its end. An entry that was durable but not acknowledged is applied too.
//!    Then everything is served.
//!
//! If we are killed before the next manifest, the next opening repeats steps 5 and 6 with the same manifest. Entries that
//! are applied twice do no harm, as each has whole documents.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use plugin::queue::{Queue, group_commit, queue};
use plugin::shard::{Closing, Kept, Moment, Open, OpenError, Pauses, StallDetector};
use plugin::{Claim, ClaimLost};
use store::{DataEntry, DataLog, DataLogError, DataLogReader, ObjectStore, RoleLogs};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{info, warn};
use types::Backoff;

use super::garbage::Garbage;
use super::indexer::{Indexer, Local, Refresh, blocking, lock};
use super::local::ShardFolder;
use super::local_indexes::{LocalError, LocalIndexes};
use super::manifest::{self, Manifest, ManifestError, ManifestWriter};
use super::owner::{Answer, Writer};
use super::pack::PackError;
use super::pending::{Logged, Pending};
use super::segments::SegmentStore;
use super::status::Trouble;
use super::{ShardError, Shared, Write};
use crate::catalog::Indexes;
use crate::operation::Operations;

/// The folder of the log, below the shard's own folder on the store.
pub(crate) const LOG: &str = "log";
/// Pauses between attempts to open. Each attempt adds an entry to the log, and a manifest.
pub(crate) const PAUSES: Pauses = Pauses {
    backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(2)),
    damaged: Duration::from_secs(60),
    steady: Duration::from_secs(10),
};
/// How many requests may wait for the next group.
const QUEUE: usize = 16 * 1024;
/// The largest number of requests that become durable together.
const GROUP: usize = 1_024;
/// How long closing the index writers may take. No acknowledged operation depends on it.
const CLOSE: Duration = Duration::from_secs(2);
/// How far two of the store's timestamps may be from the time between them.
const STAMPS: Duration = Duration::from_secs(1);
/// Why a shard is closed after a stall.
const PAUSED: &str = "this process was paused for over a minute";

/// Opens and serves a shard at its owner.
pub(crate) struct Owner {
    pub(crate) shared: Arc<Shared>,
    pub(crate) claim: Claim,
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) logs: RoleLogs,
    pub(crate) folder: PathBuf,
}

/// An open shard.
pub(crate) struct Opened {
    folder: Arc<ShardFolder>,
    log: DataLog,
    pending: Arc<Pending>,
    local: Local,
    manifests: tokio::sync::Mutex<ManifestWriter>,
    catalog: Arc<Indexes>,
    /// The first entries after the manifest, until they are replayed.
    unapplied: std::sync::Mutex<Option<Result<Vec<DataEntry>, DataLogError>>>,
    /// All that was acknowledged before is in the log.
    at: Moment,
    /// Whether local files may not be what was written.
    is_suspect: AtomicBool,
}

/// What requests use of an open shard.
#[derive(Clone)]
pub(crate) struct Serving {
    pub(crate) writes: Queue<Vec<Write>, Answer>,
    pub(crate) pending: Arc<Pending>,
    /// Requests that wait until the claim is confirmed. The answer is why it could not be.
    pub(crate) proofs: mpsc::Sender<oneshot::Sender<Result<(), String>>>,
    pub(crate) local: Weak<std::sync::Mutex<LocalIndexes>>,
}

/// Ends the waits for what is pending, however serving ends.
struct CloseOnDrop<'a>(&'a Pending);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn of_log(error: &DataLogError) -> OpenError {
    let why = error.to_string();
    match error {
        DataLogError::Fenced { .. } => OpenError::Passed(why),
        // What follows the manifest is never trimmed.
        DataLogError::Trimmed { .. } => OpenError::Damaged(why),
        DataLogError::Store(error) if error.is_of_content() => OpenError::Damaged(why),
        DataLogError::Store(_) | DataLogError::TooLong(_) => OpenError::Failed(why),
    }
}

fn of_manifest(error: &ManifestError) -> OpenError {
    let why = error.to_string();
    match error {
        ManifestError::Fenced { .. } => OpenError::Passed(why),
        ManifestError::Store(error) if error.is_of_content() => OpenError::Damaged(why),
        ManifestError::Store(_) => OpenError::Failed(why),
    }
}

impl Open for Owner {
    type Opened = Opened;
    type Data = Serving;

    async fn open(&self) -> Result<Opened, OpenError> {
        if self.shared.status.why(Trouble::Damaged).is_some() {
            self.check_log().await?;
        }
        let local = |error: io::Error| OpenError::Failed(error.to_string());
        let path = self.folder.clone();
        let folder = spawn_blocking(move || ShardFolder::open(path)).await;
        let folder = Arc::new(folder.map_err(io::Error::other).flatten().map_err(local)?);
        let manifest_log = self.logs.of_shard::<Manifest>(manifest::LOG);
        let (confirmed, found) = tokio::join!(self.claim.confirm(), manifest_log.latest());
        confirmed.map_err(|lost| match lost {
            passed @ ClaimLost::Passed { .. } => OpenError::Passed(passed.to_string()),
            ClaimLost::Unknown(error) => OpenError::Failed(error.to_string()),
        })?;
        // Only where to look for the end of the log. The manifest that counts is read later.
        let known = found.ok().flatten().map_or(0, |found| found.value.applied);
        let epoch = self.claim.epoch();
        // No other node has acknowledged anything since.
        let opened_at = Moment::now();
        let log = DataLog::open_after(Arc::clone(&self.objects), LOG, epoch, known).await;
        let log = log.map_err(|error| of_log(&error))?;
        let manifests = ManifestWriter::open(manifest_log, epoch, log.opening());
        let (catalog, manifests) = tokio::join!(self.shared.catalog.fresh(), manifests);
        let catalog = catalog.map_err(|error| OpenError::Failed(error.to_string()))?;
        let manifests = manifests.map_err(|error| of_manifest(&error))?;
        let latest = manifests.latest();
        let reader = log.reader();
        // The log is read meanwhile, but old data is served as soon as it is open.
        let (local, unapplied) = tokio::join!(
            self.open_local(Arc::clone(&folder), &log, latest, &catalog, opened_at),
            reader.read_written(latest.applied + 1, log.opening())
        );
        let local = local?;
        let pending = Arc::new(Pending::new(latest.next_seq));
        let durable = Arc::clone(&pending);
        let log = log.on_entry(move |entry| durable.durable(entry.number, entry.records.len()));
        Ok(Opened {
            folder,
            log,
            pending,
            local: Arc::new(std::sync::Mutex::new(local)),
            manifests: tokio::sync::Mutex::new(manifests),
            catalog,
            unapplied: std::sync::Mutex::new(Some(unapplied)),
            at: opened_at,
            is_suspect: AtomicBool::new(false),
        })
    }

    async fn serve(&self, opened: &Opened, kept: &Kept<Serving>) -> String {
        self.shared.meters.openings.inc();
        self.serve_until_closed(opened, kept).await
    }

    async fn close(&self, opened: Opened, _reason: Closing) {
        let local = Arc::clone(&opened.local);
        let closed = timeout(CLOSE, spawn_blocking(move || lock(&local).close())).await;
        let is_clean = matches!(closed, Ok(Ok(()))) && !opened.is_suspect.load(Ordering::SeqCst);
        if is_clean && let Err(error) = opened.folder.mark_clean() {
            info!(%error, "local files will be verified by the next opening");
        }
    }

    fn passed(&self, why: &str) {
        self.claim.fenced(why.to_owned());
    }
}

impl Owner {
    /// Makes the local folder what the manifest names, opens it, and lets searches have it that accept old data.
    async fn open_local(
        &self,
        folder: Arc<ShardFolder>,
        log: &DataLog,
        latest: &Manifest,
        catalog: &Arc<Indexes>,
        opened_at: Moment,
    ) -> Result<LocalIndexes, OpenError> {
        let reader = log.reader();
        let (unapplied, synced) = tokio::join!(
            reader.written_between(latest.applied + 1, log.opening()),
            folder.sync(&self.objects, latest, None)
        );
        let unapplied = unapplied.map_err(|error| of_log(&error))?;
        synced.map_err(|error| self.of_pack(&error))?;
        let (of, heap) = (Arc::clone(&folder), self.shared.limits.heap);
        let (named, known) = (latest.clone(), Arc::clone(catalog));
        let local = spawn_blocking(move || LocalIndexes::open(of, heap, &named, &known)).await;
        let local = local.map_err(|error| OpenError::Failed(error.to_string()))?;
        let local = local.map_err(|error| match error {
            // The next attempt verifies all local files, as there is no mark any more that they are clean.
            LocalError::Tantivy(_) if folder.was_clean() => OpenError::Failed(error.to_string()),
            LocalError::Tantivy(_) | LocalError::Damaged { .. } => OpenError::Damaged(error.to_string()),
        })?;
        self.shared.views.publish_opened(local.refreshed().searchers);
        // Before the oldest entry that the manifest lacks, it had everything. If the store's clock was set back since, nobody
        // knows when that was.
        if let Some(unapplied) = unapplied {
            self.shared.views.note_current(opened_at.before(unapplied + STAMPS));
        }
        Ok(local)
    }

    fn of_pack(&self, error: &PackError) -> OpenError {
        let why = error.to_string();
        match error {
            // No owner removes what the latest manifest names.
            PackError::Gone(_) | PackError::Damaged { .. } | PackError::Short { .. } => {
                OpenError::Damaged(why)
            }
            PackError::Local { error, .. } => {
                if error.kind() == io::ErrorKind::StorageFull {
                    self.shared.status.set(Trouble::DiskFull, why.clone());
                }
                OpenError::Failed(why)
            }
            PackError::Store(_) => OpenError::Failed(why),
        }
    }

    /// Serves requests until the shard has to be opened again. Returns why.
    async fn serve_until_closed(&self, opened: &Opened, kept: &Kept<Serving>) -> String {
        let Opened { log, pending, local, .. } = opened;
        let Shared { limits, status, meters, views, catalog, .. } = &*self.shared;
        let _closed = CloseOnDrop(pending);
        let mut manifests = opened.manifests.lock().await;
        let latest = manifests.latest();
        let stall = StallDetector::new(Moment::now());
        let first = match blocking(local, |local| local.refreshed().committed).await {
            Ok(indexes) => Refresh { applied: latest.applied, next_seq: latest.next_seq, indexes },
            Err(why) => return why,
        };
        let (refreshed, to_store) = watch::channel(first);
        let mut indexer = Indexer {
            local: Arc::clone(local),
            pending: Arc::clone(pending),
            views: views.clone(),
            catalog: catalog.clone(),
            limits: *limits,
            status: Arc::clone(status),
            meters: meters.clone(),
            refreshed,
            was_full: false,
        };
        if let Err(why) = self.replay(opened, latest.applied, &mut indexer).await {
            if let Ok(true) = blocking(local, |local| local.was_full()).await {
                status.set(Trouble::DiskFull, format!("the disk of the local segments is full: {why}"));
            }
            return why;
        }
        views.note_current(opened.at);
        // All files were verified, or nothing is known against them.
        status.clear(Trouble::Verifying);
        let (writes, mut waiting) = queue(QUEUE);
        let (proofs, mut unproven) = mpsc::channel(QUEUE);
        kept.open(Serving { writes, pending: Arc::clone(pending), proofs, local: Arc::downgrade(local) });
        let (paths, suspicion) = (Arc::default(), &self.shared.suspicion);
        let writer = Writer { log, claim: &self.claim, pending, views, paths, meters, suspicion };
        let storing = SegmentStore {
            objects: &self.objects,
            log,
            claim: &self.claim,
            pending,
            status,
            meters,
            garbage: Garbage::default(),
        };
        let why = tokio::select! {
            biased;
            () = stall.stalled() => PAUSED.to_owned(),
            outcome = group_commit(&mut waiting, GROUP, |group| writer.write(group)) => said(outcome),
            outcome = group_commit(&mut unproven, usize::MAX, |waiting| self.prove(waiting)) => said(outcome),
            why = indexer.run() => {
                opened.is_suspect.store(true, Ordering::SeqCst);
                why
            }
            why = storing.run(&mut manifests, to_store) => why,
            why = suspicion.watch(local, status, meters) => {
                opened.is_suspect.store(true, Ordering::SeqCst);
                why
            }
        };
        kept.not(plugin::shard::NotOpen::Opening(Some(why.clone())));
        // Writes that still wait in the queue were not touched.
        while let Ok(write) = waiting.try_recv() {
            write.answer(Err(ShardError::Opening(why.clone())));
        }
        why
    }

    /// Applies what follows the manifest in the log.
    async fn replay(&self, opened: &Opened, applied: u64, indexer: &mut Indexer) -> Result<(), String> {
        let (reader, end) = (opened.log.reader(), opened.log.opening());
        let (mut next, mut count) = (applied + 1, 0);
        let taken = opened.unapplied.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut read = match taken {
            Some(read) => read,
            None => reader.read_written(next, end).await,
        };
        loop {
            let entries = read.map_err(|error| self.said_damaged(&of_log(&error)))?;
            let Some(last) = entries.last() else { break };
            next = last.number + 1;
            let (seq, catalog) = (opened.pending.next_seq(), Arc::clone(&opened.catalog));
            let replayed = spawn_blocking(move || replayed_all(&entries, seq, &catalog)).await;
            let replayed = replayed.map_err(|error| error.to_string())?;
            for (number, operations, end) in
                replayed.map_err(|why| self.said_damaged(&OpenError::Damaged(why)))?
            {
                count += operations.len();
                opened.pending.replayed(number, operations, end);
            }
            let fed;
            (read, fed) = tokio::join!(reader.read_written(next, end), indexer.feed_all());
            fed.map_err(|error| error.to_string())?;
        }
        indexer.refresh(true).await.map_err(|error| error.to_string())?;
        self.shared.status.clear(Trouble::Damaged);
        info!(from = applied + 1, to = next - 1, operations = count, "replayed the log");
        Ok(())
    }

    /// Finds out whether the log is still damaged, without writing anything.
    async fn check_log(&self) -> Result<(), OpenError> {
        let latest = self.logs.of_shard::<Manifest>(manifest::LOG).latest().await;
        let latest = latest.map_err(|error| of_manifest(&error.into()))?;
        let Manifest { applied, next_seq, .. } = latest.map(|entry| entry.value).unwrap_or_default();
        let (reader, catalog) = (DataLogReader::new(Arc::clone(&self.objects), LOG), Indexes::default());
        let (mut next, mut seq) = (applied + 1, next_seq);
        loop {
            let entries = reader.read(next).await.map_err(|error| of_log(&error))?;
            for entry in &entries {
                (_, seq) = replayed(entry, seq, &catalog).map_err(OpenError::Damaged)?;
            }
            match entries.last() {
                Some(last) => next = last.number + 1,
                None => return Ok(()),
            }
        }
    }

    /// Reports damage that was found after the opening.
    fn said_damaged(&self, error: &OpenError) -> String {
        if let OpenError::Damaged(why) = error {
            warn!(why, "the log is damaged");
            self.shared.status.set(Trouble::Damaged, why.clone());
        }
        if let OpenError::Passed(why) = error {
            self.claim.fenced(why.clone());
        }
        error.to_string()
    }

    /// Confirms the claim for all that wait. Fails if it has passed.
    async fn prove(&self, waiting: Vec<oneshot::Sender<Result<(), String>>>) -> Result<(), String> {
        let confirmed = if self.claim.poll_next().await { Ok(()) } else { self.claim.confirm().await };
        let (answer, outcome) = match confirmed {
            Ok(()) => (Ok(()), Ok(())),
            Err(ClaimLost::Unknown(error)) => (Err(error.to_string()), Ok(())),
            Err(passed @ ClaimLost::Passed { .. }) => (Err(passed.to_string()), Err(passed.to_string())),
        };
        for request in waiting {
            // The caller may have gone away.
            let _ = request.send(answer.clone());
        }
        outcome
    }
}

/// The operations of entries, each with its number and the number after its last operation.
fn replayed_all(
    entries: &[DataEntry],
    mut next: u64,
    catalog: &Indexes,
) -> Result<Vec<(u64, Vec<Logged>, u64)>, String> {
    let each = entries.iter().map(|entry| {
        let (operations, end) = replayed(entry, next, catalog)?;
        next = end;
        Ok((entry.number, operations, end))
    });
    each.collect()
}

/// The operations of an entry, of indexes that are in the catalog, and the number after the last one.
fn replayed(entry: &DataEntry, mut next: u64, catalog: &Indexes) -> Result<(Vec<Logged>, u64), String> {
    let number = entry.number;
    let mut operations = Vec::new();
    for record in &entry.records {
        let record =
            Operations::decode(record).map_err(|error| format!("entry {number} of the log: {error}"))?;
        if record.first != next {
            let first = record.first;
            return Err(format!("entry {number} of the log begins with operation {first} instead of {next}"));
        }
        next = record.end();
        for (seq, operation) in (record.first..).zip(record.operations) {
            let Some(index) = catalog.index(operation.index) else { continue };
            operations.push(Logged {
                index: Arc::clone(index),
                id: operation.id,
                seq,
                term: entry.epoch.0,
                version: operation.version,
                source: operation.source,
            });
        }
    }
    Ok((operations, next))
}

fn said(outcome: Result<(), String>) -> String {
    outcome.err().unwrap_or_else(|| "the last sender is gone".to_owned())
}
