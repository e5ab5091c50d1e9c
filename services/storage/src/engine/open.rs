//! Opens the database so that only the owner of the shard ever holds it.
//!
//! The claim on the shard and the writer's epoch in SlateDB's manifest are two things, and an opener may sleep at any
//! moment between looking at one and the other. So there is one order, the *open rule*: read the writer's epoch, then
//! read the claim, then open with exactly the epoch that was read. Who took the shard over while we slept has opened
//! it since, with a higher epoch, and our opening fails. Then all begins anew, and the claim tells.
//!
//! Together with the epoch it is read how far data time has come, see [`crate::engine::data_clock`]. A predecessor that still
//! writes may go on by as much as passes until it is fenced; SlateDB waits for twice that.

use std::sync::Arc;
use std::time::Duration;

use plugin::shard::OpenError;
use plugin::{Claim, ClaimLost};
use slatedb::object_store::ObjectStore;
use slatedb::object_store::path::Path;
use slatedb::{CloseReason, Db, ErrorKind};
use slatedb_common::metrics::DefaultMetricsRecorder;
use store::IncrementalListing;
use tracing::{debug, info};

use crate::engine::cache::Part;
use crate::engine::data_clock::{DataClock, WallClock};
use crate::engine::disk_cache::DiskCache;
use crate::engine::log_files::Seen;
use crate::engine::notes::Notes;
use crate::engine::survey::{Damage, Survey, SurveyError, find_damage, survey};
use crate::engine::tuning;

/// Where the database lies, below the shard's own part of the store.
pub(crate) const PATH: &str = "db";

/// How often the rule is begun anew before it counts as a failure. Each time somebody else opened meanwhile, though the
/// shard is ours; that can only be someone who slept.
const ATTEMPTS: u32 = 5;

/// Opens the database of a shard.
pub(crate) struct Opener {
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) claim: Claim,
    pub(crate) cache: Part,
    pub(crate) disk: Option<DiskCache>,
    /// How often a reader may look at the store.
    pub(crate) poll: Duration,
    /// Where data time begins, unless it is further already.
    pub(crate) wall: WallClock,
    /// Where the shard's data lies on the store, for messages.
    pub(crate) folder: String,
    /// What is seen of the store.
    pub(crate) seen: Arc<Seen>,
    /// What the database counts of its own work.
    pub(crate) recorder: Arc<DefaultMetricsRecorder>,
}

/// An open database and the time that it lives in.
pub(crate) struct Opened {
    pub(crate) db: Db,
    pub(crate) clock: DataClock,
    /// What earlier owners have noted, and the last number of the log that no replay needs.
    pub(crate) notes: Notes,
    pub(crate) replay_after: u64,
}

/// What an error of the database means for an opening.
fn of_database(error: &slatedb::Error) -> OpenError {
    let why = error.to_string();
    // `Data` is also what is of another version, or was collected just now; only words tell them apart.
    let is_damaged = error.kind() == ErrorKind::Data && why.contains("checksum mismatch");
    if is_damaged { OpenError::Damaged(why) } else { OpenError::Failed(why) }
}

impl From<Damage> for OpenError {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage.to_string())
    }
}

impl From<SurveyError> for OpenError {
    fn from(error: SurveyError) -> Self {
        match error {
            SurveyError::Database(error) => of_database(&error),
            SurveyError::Store(error) => Self::Failed(error.to_string()),
            SurveyError::Damage(damage) => damage.into(),
        }
    }
}

impl Opener {
    /// Opens it by the open rule. Does not end before the store answers.
    pub(crate) async fn open(&self) -> Result<Opened, OpenError> {
        self.try_open().await.map_err(|error| match error {
            OpenError::Damaged(why) => OpenError::Damaged(format!("in `{}`: {why}", self.folder)),
            error => error,
        })
    }

    async fn try_open(&self) -> Result<Opened, OpenError> {
        // SlateDB finds the newest of these by listing all, several times for each opening. They stay for a day, and a
        // shard that is written to without a pause adds hundreds a minute. The newest is never collected.
        let numbered = ["manifest", "compactions"].map(|folder| Path::from(PATH).join(folder));
        let objects: Arc<dyn ObjectStore> =
            Arc::new(IncrementalListing::new(Arc::clone(&self.objects), numbered));
        for attempt in 1..=ATTEMPTS {
            let found = survey(&objects).await?;
            let (epoch, clock) = (found.epoch, DataClock::begin(self.wall.now_ms().max(found.stamped_ms)));
            self.claim.confirm().await.map_err(|lost| match lost {
                passed @ ClaimLost::Passed { .. } => OpenError::Passed(passed.to_string()),
                ClaimLost::Unknown(error) => OpenError::Failed(error.to_string()),
            })?;
            self.seen.opening();
            match self.build(&objects, epoch, clock).await {
                Ok(db) => {
                    let ahead_ms = clock.now_ms().saturating_sub(self.wall.now_ms());
                    info!(epoch, attempt, ahead_ms, "opened the database");
                    let Survey { notes, replay_after, .. } = found;
                    return Ok(Opened { db, clock, notes, replay_after });
                }
                Err(error) if is_fenced(&error) => {
                    debug!(epoch, attempt, "somebody opened the database meanwhile");
                }
                Err(error) => {
                    // Files of the log are read whole, and what SlateDB says does not name them.
                    let damage = find_damage(&self.objects, found.replay_after).await;
                    return Err(damage.map_or_else(|| of_database(&error), OpenError::from));
                }
            }
        }
        Err(OpenError::Failed(format!("others opened the database {ATTEMPTS} times meanwhile")))
    }

    async fn build(
        &self,
        objects: &Arc<dyn ObjectStore>,
        epoch: u64,
        clock: DataClock,
    ) -> Result<Db, slatedb::Error> {
        Db::builder(PATH, Arc::clone(objects))
            .with_settings(tuning::settings(self.poll, self.disk.as_ref()))
            .with_db_cache(self.cache.for_database(), self.cache.scope())
            .with_block_cache_policy(tuning::kept_when_written())
            .with_metrics_recorder(Arc::clone(&self.recorder) as _)
            .with_system_clock(Arc::new(clock))
            .with_expected_epoch(epoch)
            .build()
            .await
    }
}

/// Whether an error says that somebody else opened the database.
fn is_fenced(error: &slatedb::Error) -> bool {
    matches!(error.kind(), ErrorKind::Closed(CloseReason::Fenced))
}

#[cfg(test)]
mod tests;
