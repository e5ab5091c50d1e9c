//! Opens the database so that only the owner of the shard ever has it open.
//!
//! The claim on the shard and the writer's epoch in SlateDB's manifest are independent, and the process may be paused
//! at any time between reading one and the other. So there is one order, the *open rule*: read the writer's epoch, then
//! read the claim, then open with exactly the epoch that was read. A node that took the shard over during a pause has
//! opened the database since, with a higher epoch, and our opening fails. Then everything starts again, and the claim
//! shows the new owner.
//!
//! Together with the epoch, the opening reads how far data time has come; see [`crate::engine::data_clock`]. A
//! predecessor that still writes may advance it by as much as passes until it is fenced; SlateDB waits for twice that.

use std::sync::Arc;

use plugin::shard::OpenError;
use plugin::{Claim, ClaimLost};
use slatedb::object_store::ObjectStore;
use slatedb::object_store::path::Path;
use slatedb::{CloseReason, Db, ErrorKind};
use slatedb_common::metrics::DefaultMetricsRecorder;
use store::IncrementalListing;
use tracing::{debug, info};

use crate::engine::Place;
use crate::engine::cache::Part;
use crate::engine::data_clock::DataClock;
use crate::engine::log_files::Seen;
use crate::engine::notes::Notes;
use crate::engine::survey::{Damage, Survey, SurveyError, find_damage, survey};
use crate::engine::tuning;

/// The folder of the database, below the shard's own folder on the store.
pub(crate) const PATH: &str = "db";

/// How often the open rule is tried before it counts as failed. Each retry means that another process opened the
/// database meanwhile although the shard is ours; only a process that had been paused can do that.
const ATTEMPTS: u32 = 5;

/// Opens the database of a shard.
pub(crate) struct Opener {
    pub(crate) place: Place,
    pub(crate) claim: Claim,
    pub(crate) cache: Part,
    /// What was observed of the store.
    pub(crate) seen: Arc<Seen>,
    /// The database's own metrics.
    pub(crate) recorder: Arc<DefaultMetricsRecorder>,
}

/// An open database and its clock.
pub(crate) struct Opened {
    pub(crate) db: Db,
    pub(crate) clock: DataClock,
    /// The notes of earlier owners, and the last number of the log that a replay does not need.
    pub(crate) notes: Notes,
    pub(crate) replay_after: u64,
}

/// Classifies an error of the database during an opening.
fn of_database(error: &slatedb::Error) -> OpenError {
    let why = error.to_string();
    // `Data` also means another format version, or a file that was just collected; only the text differs.
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
    /// Opens the database by the open rule. Does not return before the store answers.
    pub(crate) async fn open(&self) -> Result<Opened, OpenError> {
        self.try_open().await.map_err(|error| match error {
            OpenError::Damaged(why) => OpenError::Damaged(format!("in `{}`: {why}", self.place.folder)),
            error => error,
        })
    }

    async fn try_open(&self) -> Result<Opened, OpenError> {
        // SlateDB finds the newest of these by listing all, several times for each opening. They stay for a day, and a
        // shard that is written to without a pause adds hundreds a minute. The newest is never collected.
        let numbered = ["manifest", "compactions"].map(|folder| Path::from(PATH).join(folder));
        let objects: Arc<dyn ObjectStore> =
            Arc::new(IncrementalListing::new(Arc::clone(&self.place.objects), numbered));
        for attempt in 1..=ATTEMPTS {
            let found = survey(&objects).await?;
            let (epoch, clock) =
                (found.epoch, DataClock::begin(self.place.wall.now_ms().max(found.stamped_ms)));
            self.claim.confirm().await.map_err(|lost| match lost {
                passed @ ClaimLost::Passed { .. } => OpenError::Passed(passed.to_string()),
                ClaimLost::Unknown(error) => OpenError::Failed(error.to_string()),
            })?;
            self.seen.opening();
            match self.build(&objects, epoch, clock).await {
                Ok(db) => {
                    let ahead_ms = clock.now_ms().saturating_sub(self.place.wall.now_ms());
                    info!(epoch, attempt, ahead_ms, "opened the database");
                    let Survey { notes, replay_after, .. } = found;
                    return Ok(Opened { db, clock, notes, replay_after });
                }
                Err(error) if is_fenced(&error) => {
                    debug!(epoch, attempt, "another process opened the database meanwhile");
                }
                Err(error) => {
                    // SlateDB reads whole files of the log, and its error does not name the damaged one.
                    let damage = find_damage(&self.place.objects, found.replay_after).await;
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
            .with_settings(tuning::settings(self.place.poll, self.place.disk.as_ref()))
            .with_db_cache(self.cache.for_database(), self.cache.scope())
            .with_block_cache_policy(tuning::kept_when_written())
            .with_metrics_recorder(Arc::clone(&self.recorder) as _)
            .with_system_clock(Arc::new(clock))
            .with_expected_epoch(epoch)
            .build()
            .await
    }
}

/// Whether an error means that another process opened the database.
fn is_fenced(error: &slatedb::Error) -> bool {
    matches!(error.kind(), ErrorKind::Closed(CloseReason::Fenced))
}

#[cfg(test)]
mod tests;
