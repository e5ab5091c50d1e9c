//! Keeps the database open: opens it by the open rule, runs its rounds, and opens it anew when it has closed itself.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use slatedb::config::{CloseOptions, FlushOptions, FlushType};
use slatedb::{CloseReason, Db};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::commit::commit;
use crate::expiry::sweep;
use crate::feed::Feed;
use crate::garbage::collect;
use crate::inside::measure;
use crate::open::{self, OpenError, Opener};
use crate::refusal::Refusal;
use crate::rounds::rounds;
use crate::shared::{Open, Shared, State};
use crate::table_cache::follow_tables;
use crate::tuning;
use crate::vigil::Moment;

/// Pauses between attempts to open, the first and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// The longest pause between looks at damaged data: each attempt to open it leaves an empty file in the log.
const DAMAGED: Duration = Duration::from_secs(60);
/// A database that was given up sooner is opened again only after a longer and longer pause.
const STEADY: Duration = Duration::from_secs(10);
/// Why a database is given up after a stall.
const PAUSED: &str = "this process was paused for over a minute";
/// How often it is looked whether the process was paused.
const BEAT: Duration = Duration::from_secs(1);
/// Requests that may wait for a round.
const QUEUE: usize = 64 * 1024;
/// Writes that become durable together at most.
const GROUP: usize = 4096;
/// How long flushing all into tables may take while the last requests are answered.
const EARLY_FLUSH: Duration = Duration::from_millis(100);
/// The same for a service that is stopped without a drain.
const FLUSH: Duration = Duration::from_millis(250);
/// How long closing may take at the end: the shard has no owner meanwhile. Nothing that was answered depends on it, for the
/// log is on the store.
const CLOSE: Duration = Duration::from_millis(100);
/// How long an opening may still take when it is told to stop.
const LAST_OPENING: Duration = Duration::from_secs(5);
/// How long closing a database that has failed may take.
const CLOSE_FAILED: Duration = Duration::from_millis(500);

/// Keeps the database open.
pub(crate) struct Keeper {
    pub(crate) opener: Opener,
    pub(crate) shared: Arc<Shared>,
    pub(crate) stop: CancellationToken,
}

/// What came of opening.
enum Opened {
    Is(open::Opened),
    Not(OpenError),
    /// It was told to stop.
    Told,
}

/// Says in the end that there is no database any more.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.state.send_if_modified(|state| {
            let is_news = !matches!(state, State::Passed(_));
            if is_news {
                *state = State::Closed;
            }
            is_news
        });
    }
}

impl Keeper {
    /// Runs until it is told to stop or the shard has passed.
    pub(crate) async fn run(self) {
        // Whatever ends it, nobody waits for it any more.
        let _ended = Ended(Arc::clone(&self.shared));
        let (mut pause, mut was_damaged) = (PAUSE.0, false);
        loop {
            let opened = self.open().await;
            let is_damaged = matches!(opened, Opened::Not(OpenError::Damaged(_)));
            match opened {
                Opened::Told => return,
                Opened::Is(opened) => {
                    let db = opened.db.clone();
                    let began = Instant::now();
                    self.shared.meters.openings.inc();
                    let given_up = tokio::select! {
                        biased;
                        why = self.serve(&opened) => Some(why),
                        () = self.stop.cancelled() => None,
                    };
                    let Some(why) = given_up else {
                        self.now(State::Opening(Some("it is being closed".to_owned())));
                        if !self.shared.is_flushed.load(Ordering::SeqCst) {
                            flush_tables(&db, FLUSH).await;
                        }
                        return close(db).await;
                    };
                    warn!(why, "the database was given up; it is opened again");
                    self.now(State::Opening(Some(why)));
                    give_up(db).await;
                    if began.elapsed() > STEADY {
                        pause = PAUSE.0;
                    }
                }
                Opened::Not(OpenError::Passed(why)) => {
                    info!(why, "the shard has passed to another node");
                    self.opener.ownership.fenced(why.clone());
                    return self.now(State::Passed(why));
                }
                Opened::Not(OpenError::Failed(why)) => {
                    warn!(why, "could not open the database");
                    self.now(State::Opening(Some(why)));
                }
                // What is gone at the next look was somebody else's half of a change.
                Opened::Not(OpenError::Damaged(why)) if !was_damaged => {
                    self.now(State::Opening(Some(why)));
                }
                Opened::Not(OpenError::Damaged(why)) => {
                    error!(why, "what is stored is damaged, and the database can't be opened");
                    self.now(State::Damaged(why));
                }
            }
            let longest = if is_damaged { DAMAGED } else { PAUSE.1 };
            was_damaged = is_damaged;
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = sleep(pause) => pause = (pause * 2).min(longest),
            }
        }
    }

    fn now(&self, state: State) {
        self.shared.state.send_replace(state);
    }

    /// Opens the database, unless it is told to stop.
    async fn open(&self) -> Opened {
        // A process that was paused since it looked at the claim knows nothing any more.
        self.shared.vigil.beat(Moment::now());
        let mut stalled = pin!(self.stalled());
        let mut opening = pin!(self.opener.open());
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {}
            () = &mut stalled => {
                if let Ok(Ok(opened)) = timeout(LAST_OPENING, opening).await {
                    give_up(opened.db).await;
                }
                return Opened::Not(OpenError::Failed(PAUSED.to_owned()));
            }
            opened = &mut opening => return opened.map_or_else(Opened::Not, Opened::Is),
        }
        // A database that is given up half open would go on with its own work.
        if let Ok(Ok(opened)) = timeout(LAST_OPENING, opening).await {
            close(opened.db).await;
        }
        Opened::Told
    }

    /// Waits until it is found that the process was paused.
    async fn stalled(&self) {
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            if self.shared.vigil.beat(Moment::now()) {
                return;
            }
        }
    }

    /// Serves requests until the database can't be trusted any more. Says why.
    async fn serve(&self, opened: &open::Opened) -> String {
        let open::Opened { db, clock, .. } = opened;
        let clock = *clock;
        let (writes, mut queue) = mpsc::channel(QUEUE);
        let (looks, mut lookers) = mpsc::channel(QUEUE);
        let mut status = db.subscribe();
        if self.shared.vigil.beat(Moment::now()) {
            return PAUSED.to_owned();
        }
        let feed = Feed::new(status.borrow().durable_seq);
        // Whoever watches looks elsewhere when this database is served no more.
        let _end = feed.end_on_drop();
        self.shared.state.send_replace(State::Open(Open {
            db: db.clone(),
            writes: writes.clone(),
            looks,
            feed: feed.clone(),
            clock,
        }));
        let Shared { expiry, queue: room, meters, .. } = &*self.shared;
        let epoch = db.manifest().writer_epoch();
        let committing = async {
            // Before anything is acknowledged; reads do not wait for it.
            self.note(opened, epoch).await;
            rounds(&mut queue, GROUP, |group| commit(db, &self.shared, &feed, group)).await
        };
        let looking = rounds(&mut lookers, usize::MAX, |waiting| self.look(db, waiting));
        let why = tokio::select! {
            biased;
            () = self.stalled() => PAUSED.to_owned(),
            outcome = committing => said(outcome),
            outcome = looking => said(outcome),
            () = sweep(db, &clock, expiry, room, meters, &writes) => "deleting what expired has ended".to_owned(),
            () = measure(db, &self.opener.recorder, &clock, &self.opener.wall, meters) => "measuring has ended".to_owned(),
            () = follow_tables(db, &self.opener.cache, meters) => "following its tables has ended".to_owned(),
            () = collect(&self.opener.objects, clock, &self.shared.seen, epoch) => "collecting garbage has ended".to_owned(),
            closed = status.wait_for(|status| status.close_reason.is_some()) => match closed {
                Ok(status) => format!("the database closed itself: {:?}", status.close_reason),
                Err(_) => "the database closed itself".to_owned(),
            },
        };
        if status.borrow().close_reason == Some(CloseReason::Fenced) {
            // So it seems; whether the claim has passed is for the supervisor to find out.
            self.opener.ownership.fenced(why.clone());
        }
        // What still waits in the queue was not touched.
        queue.close();
        while let Ok(write) = queue.try_recv() {
            let _ = write.answer.send(Err(Refusal::NotOpen(why.clone())));
        }
        why
    }

    /// Notes where the log of this owner begins. Tries until it works: without a store no write would be durable either.
    async fn note(&self, opened: &open::Opened, epoch: u64) {
        let mut pause = PAUSE.0;
        while let Err(error) = self.shared.seen.note().write(&self.opener.objects, epoch).await {
            warn!(%error, "could not note where the log begins");
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
        if let Err(error) = opened.notes.prune(&self.opener.objects, opened.replay_after).await {
            debug!(%error, "could not delete notes of earlier owners");
        }
    }

    /// Looks at the manifest on the store. Fails if somebody else has opened the database.
    async fn look(&self, db: &Db, waiting: Vec<oneshot::Sender<()>>) -> Result<(), slatedb::Error> {
        let began = Moment::now();
        db.refresh_manifest().await?;
        self.shared.prove(began);
        for waiter in waiting {
            let _ = waiter.send(());
        }
        Ok(())
    }
}

fn said(outcome: Result<(), slatedb::Error>) -> String {
    match outcome {
        Ok(()) => "nobody can ask any more".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// Lets go of a database that can't be trusted any more.
async fn give_up(db: Db) {
    let options = CloseOptions::default().with_flush_type(None);
    if timeout(CLOSE_FAILED, db.close_with_options(options)).await.is_err() {
        info!("the old database is still being closed; the new one fences it");
    }
}

/// If there is room for one more table and it takes no time, puts all that the database holds into tables, so that the
/// next owner has little to replay.
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

/// Closes the database with its log whole on the store.
async fn close(db: Db) {
    let log = CloseOptions::default().with_flush_type(Some(FlushType::Wal));
    if timeout(CLOSE, db.close_with_options(log)).await.is_err() {
        info!("the database is still being closed; its log is on the store");
    }
}
