//! What is on the store before the database is opened: who wrote last, and how far data time has come.
//!
//! Stamps of data time are in four places: the manifest has the last one of the rows that are in tables, the newest file
//! of the log has those that came after, and the names of tables and of compactions have the times at which they began.
//! SlateDB compares with each of them.

use std::sync::Arc;

use futures_util::TryStreamExt;
use slatedb::admin::AdminBuilder;
use slatedb::object_store::path::Path;
use slatedb::object_store::{self, ObjectMeta, ObjectStore};
use slatedb::{VersionedCompactions, VersionedManifest, WalReader};

use crate::open::PATH;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Survey {
    /// The epoch of the last writer; 0 if there was none.
    pub(crate) epoch: u64,
    /// The latest stamp of data time, in milliseconds since 1970; 0 if there is none.
    pub(crate) stamped_ms: i64,
}

/// Why nothing was found out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SurveyError {
    /// Try again.
    #[error(transparent)]
    Database(#[from] slatedb::Error),
    /// Try again.
    #[error(transparent)]
    Store(#[from] object_store::Error),
}

/// Looks at what is on the store.
pub(crate) async fn survey(objects: &Arc<dyn ObjectStore>) -> Result<Survey, SurveyError> {
    let admin = AdminBuilder::new(PATH, Arc::clone(objects)).build();
    let (manifest, compactions) = tokio::try_join!(admin.read_manifest(None), admin.read_compactions(None))?;
    let Some(manifest) = manifest else { return Ok(Survey { epoch: 0, stamped_ms: 0 }) };
    let log = log_after(objects, manifest.replay_after_wal_id()).await?;
    let newest = log.iter().rev().find(|(_, file)| file.size > 0);
    let in_log = match newest {
        Some((number, _)) => last_row_ms(objects, *number).await?,
        None => 0,
    };
    let stamped_ms = in_log.max(in_tables(&manifest)).max(compactions.as_ref().map_or(0, in_compactions));
    Ok(Survey { epoch: manifest.writer_epoch(), stamped_ms })
}

/// The files of the log after a number, in their order.
async fn log_after(
    objects: &Arc<dyn ObjectStore>,
    after: u64,
) -> Result<Vec<(u64, ObjectMeta)>, object_store::Error> {
    let (folder, offset) = (log_folder(), log_file(after));
    let mut found = Vec::new();
    let mut listed = objects.list_with_offset(Some(&folder), &offset);
    while let Some(file) = listed.try_next().await? {
        found
            .extend(log_number(&file.location).filter(|number| *number > after).map(|number| (number, file)));
    }
    found.sort_by_key(|(number, _)| *number);
    Ok(found)
}

/// The folder of the log.
fn log_folder() -> Path {
    Path::from(PATH).join("wal")
}

/// A file of the log.
fn log_file(number: u64) -> Path {
    log_folder().join(format!("{number:020}.sst"))
}

/// The number of a file of the log.
pub(crate) fn log_number(location: &Path) -> Option<u64> {
    let mut below = location.prefix_match(&log_folder())?;
    let name = below.next()?;
    below.next().is_none().then(|| name.as_ref().strip_suffix(".sst")?.parse().ok())?
}

/// The stamp of the last row in a file of the log. Files and the rows in them are in the order of their stamps.
async fn last_row_ms(objects: &Arc<dyn ObjectStore>, number: u64) -> Result<i64, slatedb::Error> {
    let mut rows = WalReader::new(PATH, Arc::clone(objects)).get(number).iterator().await?;
    let mut last = 0;
    while let Some(row) = rows.next().await? {
        last = last.max(row.create_ts.unwrap_or_default());
    }
    Ok(last)
}

fn in_tables(manifest: &VersionedManifest) -> i64 {
    let views = manifest.all_sst_views().flat_map(|view| [view.id, view.sst.id.value()]);
    let compacted = manifest.last_compacted_l0_sst_view_id().into_iter();
    let compacted = compacted.chain(manifest.last_compacted_l0_sst_id());
    let named = views.chain(compacted).map(|name| name.timestamp_ms()).max().unwrap_or_default();
    manifest.last_l0_clock_tick().max(ms(named))
}

fn in_compactions(compactions: &VersionedCompactions) -> i64 {
    let recent = compactions.recent_compactions();
    let names = recent.flat_map(|compaction| {
        let outputs = compaction.output_ssts().into_iter().map(|table| table.id.value());
        outputs.chain([compaction.id()])
    });
    ms(names.map(|name| name.timestamp_ms()).max().unwrap_or_default())
}

fn ms(since: u64) -> i64 {
    i64::try_from(since).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_the_log_have_numbers() {
        assert_eq!(log_number(&log_file(7)), Some(7));
        assert_eq!(log_file(7), Path::from("db/wal/00000000000000000007.sst"));
        for other in ["db/wal/7.txt", "db/wal/x.sst", "db/wal/1/2.sst", "db/compacted/1.sst", "db/wal"] {
            assert_eq!(log_number(&Path::from(other)), None, "{other}");
        }
    }
}
