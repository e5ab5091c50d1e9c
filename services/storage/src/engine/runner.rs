//! Keeps the database open: opens it by the open rule, serves its queues, and opens it again when it has closed itself.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use plugin::queue::{group_commit, queue};
use plugin::shard::{self, Closing, Kept, Moment, OpenError, Pauses, keep_open};
use slatedb::config::{CloseOptions, FlushOptions, FlushType};
use slatedb::{CloseReason, Db};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use types::Backoff;

use super::EngineError;
use super::commit::commit;
use super::expiry::sweep;
use super::garbage::collect;
use super::measure::measure;
use super::open::{Opened, Opener};
use super::shared::{Open, Shared};
use super::table_cache::follow_tables;
use super::tuning;
use crate::changes::feed::Feed;

/// Pauses between attempts to open, the longest while data is damaged: each attempt leaves an empty file in the log.
const PAUSES: Pauses = Pauses {
    backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(2)),
    damaged: Duration::from_secs(60),
    steady: Duration::from_secs(10),
};
/// Why a database is closed after a stall.
const PAUSED: &str = "this process was paused for over a minute";
/// How many requests may wait for the next group.
const QUEUE: usize = 64 * 1024;
/// The largest number of writes that become durable together.
const GROUP: usize = 4096;
/// How long a flush into tables may take while the last requests are answered.
const EARLY_FLUSH: Duration = Duration::from_millis(100);
/// The same for a service that is stopped without a drain.
const FLUSH: Duration = Duration::from_millis(250);
/// How long closing may take at the end, since the shard has no owner meanwhile. No acknowledged write depends on it:
/// the log is on the store.
const CLOSE: Duration = Duration::from_millis(100);
/// How long an opening may still take after it was found that the process was paused.
const LAST_OPENING: Duration = Duration::from_secs(5);
/// How long closing a database that has failed may take.
const CLOSE_FAILED: Duration = Duration::from_millis(500);

/// Keeps the database open.
pub(crate) struct Runner {
    pub(crate) opener: Opener,
    pub(crate) shared: Arc<Shared>,
    pub(crate) stop: CancellationToken,
}

impl shard::Open for Runner {
    type Opened = Opened;
    type Data = Open;

    async fn open(&self) -> Result<Opened, OpenError> {
        // After a pause since it read the claim, a process can't rely on it.
        self.shared.stall.beat(Moment::now());
        let mut stalled = pin!(self.shared.stall.stalled());
        let mut opening = pin!(self.opener.open());
        tokio::select! {
            biased;
            () = &mut stalled => {}
            opened = &mut opening => return opened,
        }
        // A database that is dropped while it opens would continue its own work.
        if let Ok(Ok(opened)) = timeout(LAST_OPENING, opening).await {
            give_up(opened.db).await;
        }
        Err(OpenError::Failed(PAUSED.to_owned()))
    }

    async fn serve(&self, opened: &Opened, kept: &Kept<Open>) -> String {
        self.shared.meters.openings.inc();
        self.serve_until_closed(opened, kept).await
    }

    async fn close(&self, opened: Opened, reason: Closing) {
        match reason {
            Closing::Failed => give_up(opened.db).await,
            Closing::Unused => close(opened.db).await,
            Closing::Ending => {
                if !self.shared.is_flushed.load(Ordering::SeqCst) {
                    flush_tables(&opened.db, FLUSH).await;
                }
                close(opened.db).await;
            }
        }
    }

    fn passed(&self, why: &str) {
        self.opener.claim.fenced(why.to_owned());
    }
}

impl Runner {
    /// Runs until it is stopped or the shard has passed to another node.
    pub(crate) async fn run(self) {
        keep_open(&self, &self.shared.kept, PAUSES, &self.stop).await;
    }

    /// Serves requests until the database can't be trusted any longer. Returns why.
    async fn serve_until_closed(&self, opened: &Opened, kept: &Kept<Open>) -> String {
        let Opened { db, clock, .. } = opened;
        let clock = *clock;
        let (writes, mut waiting) = queue(QUEUE);
        let (proofs, mut unproven) = mpsc::channel(QUEUE);
        let mut status = db.subscribe();
        if self.shared.stall.beat(Moment::now()) {
            return PAUSED.to_owned();
        }
        let feed = Feed::new(status.borrow().durable_seq);
        // Watchers use the next database once this one is no longer served.
        let _end = feed.end_on_drop();
        kept.open(Open { db: db.clone(), writes: writes.clone(), proofs, feed: feed.clone(), clock });
        let Shared { expiry, queue: space, meters, .. } = &*self.shared;
        let epoch = db.manifest().writer_epoch();
        let committing = async {
            // Before any write is acknowledged; reads do not wait for it.
            self.note(opened, epoch).await;
            group_commit(&mut waiting, GROUP, |group| commit(db, &self.shared, &feed, group)).await
        };
        let proving = group_commit(&mut unproven, usize::MAX, |readers| self.prove(db, readers));
        let why = tokio::select! {
            biased;
            () = self.shared.stall.stalled() => PAUSED.to_owned(),
            outcome = committing => said(outcome),
            outcome = proving => said(outcome),
            () = sweep(db, &clock, expiry, space, meters, &writes) => "deleting what expired has ended".to_owned(),
            () = measure(db, &self.opener.recorder, &clock, &self.opener.place.wall, meters) => "measuring has ended".to_owned(),
            () = follow_tables(db, &self.opener.cache, meters) => "following its tables has ended".to_owned(),
            () = collect(&self.opener.place.objects, clock, &self.shared.seen, epoch) => "collecting garbage has ended".to_owned(),
            closed = status.wait_for(|status| status.close_reason.is_some()) => match closed {
                Ok(status) => format!("the database closed itself: {:?}", status.close_reason),
                Err(_) => "the database closed itself".to_owned(),
            },
        };
        if status.borrow().close_reason == Some(CloseReason::Fenced) {
            // It seems so; the supervisor finds out whether the claim has passed.
            self.opener.claim.fenced(why.clone());
        }
        // Writes that still wait in the queue were not touched.
        waiting.close();
        while let Ok(write) = waiting.try_recv() {
            write.answer(Err(EngineError::NotOpen(why.clone())));
        }
        why
    }

    /// Notes where the log of this owner begins. Retries until it succeeds: without a store no write would become
    /// durable either.
    async fn note(&self, opened: &Opened, epoch: u64) {
        let mut retries = PAUSES.backoff.retries();
        while let Err(error) = self.shared.seen.note().write(&self.opener.place.objects, epoch).await {
            warn!(%error, "could not note where the log begins");
            sleep(retries.failed(rand::random())).await;
        }
        if let Err(error) = opened.notes.prune(&self.opener.place.objects, opened.replay_after).await {
            debug!(%error, "could not delete notes of earlier owners");
        }
    }

    /// Proves by the manifest on the store that no other node has opened the database. Fails if one has.
    async fn prove(&self, db: &Db, readers: Vec<oneshot::Sender<()>>) -> Result<(), slatedb::Error> {
        let began = Moment::now();
        db.refresh_manifest().await?;
        self.shared.prove(began);
        for reader in readers {
            let _ = reader.send(());
        }
        Ok(())
    }
}

fn said(outcome: Result<(), slatedb::Error>) -> String {
    match outcome {
        Ok(()) => "the last sender is gone".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// Closes a database that can't be trusted any longer.
async fn give_up(db: Db) {
    let options = CloseOptions::default().with_flush_type(None);
    if timeout(CLOSE_FAILED, db.close_with_options(options)).await.is_err() {
        info!("the old database is still being closed; the new one fences it");
    }
}

/// Flushes the database into tables if there is room for one more table and it is quick, so that the next owner has
/// little to replay.
async fn flush_tables(db: &Db, limit: Duration) {
    let tables = FlushOptions { flush_type: FlushType::MemTable };
    if db.manifest().l0().len() + 1 < tuning::TABLES
        && let Ok(Err(error)) = timeout(limit, db.flush_with_options(tables)).await
    {
        info!(%error, "the database was closed already");
    }
}

/// What [`flush_tables`] does, while the last requests are answered.
pub(crate) async fn flush_early(shared: &Shared) {
    if let Ok(open) = shared.open()
        && !shared.is_flushed.swap(true, Ordering::SeqCst)
    {
        flush_tables(&open.db, EARLY_FLUSH).await;
    }
}

/// Closes the database with its whole log on the store.
async fn close(db: Db) {
    let log = CloseOptions::default().with_flush_type(Some(FlushType::Wal));
    if timeout(CLOSE, db.close_with_options(log)).await.is_err() {
        info!("the database is still being closed; its log is on the store");
    }
}
