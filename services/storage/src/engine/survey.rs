//! What is on the store before the database is opened: who wrote last, how far data time has come, and whether
//! everything is there.
//!
//! SlateDB finds the end of its log by trying numbers, and reads tables when it needs them. So it takes a hole in the
//! log for its end, and puts a fence there; and it takes an emptied file for a fence, which is an empty file. Either
//! would silently lose acknowledged writes. So before the database is opened, the survey checks that the numbers of the
//! log have no hole after the point of replay, that each empty file is a fence ([`crate::engine::notes`]), and that
//! each table that the manifest names exists and is long enough. The contents of files are checked when they are read.
//!
//! A file that a listing does not show is requested by name before it counts as missing.
//!
//! Data time is recorded in four places: the manifest has the last timestamp of the rows in tables, the newest file of
//! the log has the later ones, and the names of tables and of compactions have the times at which they began. SlateDB
//! compares with each of them.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::{FutureExt, TryStreamExt};
use slatedb::admin::{Admin, AdminBuilder};
use slatedb::object_store::path::Path;
use slatedb::object_store::{self, ObjectMeta, ObjectStore, ObjectStoreExt};
use slatedb::{ErrorKind, VersionedCompactions, VersionedManifest, WalReader};
use store::find;

use crate::changes::history::store_errors;
use crate::engine::notes::{self, Notes};
use crate::engine::open::PATH;

/// The result of a survey.
#[derive(Debug)]
pub(crate) struct Survey {
    /// The epoch of the last writer; 0 if there was none.
    pub(crate) epoch: u64,
    /// The latest data time on the store, in milliseconds since 1970; 0 if there is none.
    pub(crate) stamped_ms: i64,
    /// The last number of the log that a replay does not need.
    pub(crate) replay_after: u64,
    /// The notes of earlier owners.
    pub(crate) notes: Notes,
}

/// Why the database should not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SurveyError {
    /// Try again.
    #[error(transparent)]
    Database(#[from] slatedb::Error),
    /// Try again.
    #[error(transparent)]
    Store(#[from] object_store::Error),
    /// Restore the file.
    #[error(transparent)]
    Damage(#[from] Damage),
}

/// A file that differs from what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{file}` {what}; {remedy}")]
pub(crate) struct Damage {
    file: Path,
    what: String,
    remedy: String,
}

impl Damage {
    fn new(file: Path, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { file, what: what.into(), remedy: remedy.into() }
    }

    fn of_table(file: Path, what: impl Into<String>) -> Self {
        Self::new(file, what, "restore it from a copy")
    }

    fn of_log(number: u64, what: impl Into<String>) -> Self {
        let lost = notes::lost(number);
        let remedy =
            format!("restore it from a copy, or create an empty file `{lost}` to go on without its writes");
        Self::new(log_file(number), what, remedy)
    }
}

/// Surveys the store.
pub(crate) async fn survey(objects: &Arc<dyn ObjectStore>) -> Result<Survey, SurveyError> {
    let admin = AdminBuilder::new(PATH, Arc::clone(objects)).build();
    let (manifest, compactions) = tokio::join!(
        decoded(objects, "manifest", admin.read_manifest(None)),
        decoded(objects, "compactions", admin.read_compactions(None)),
    );
    let (Some(manifest), compactions) = (manifest?, compactions?) else {
        return Ok(Survey { epoch: 0, stamped_ms: 0, replay_after: 0, notes: Notes::default() });
    };
    let replay_after = manifest.replay_after_wal_id();
    let (log, notes, ()) = tokio::try_join!(
        async { whole_log(objects, &admin, &manifest).await },
        async { Ok(Notes::read(objects).await?) },
        async { whole_tables(objects, &admin, &manifest).await },
    )?;
    check_ends(objects, &log, &notes, &manifest).await?;
    let notes = check_fences(objects, &log, notes, &manifest).await?;
    let newest = log.iter().rev().find(|(_, file)| file.size > 0);
    let in_log = match newest {
        Some((number, _)) => last_row_ms(objects, *number).await?,
        None => 0,
    };
    let stamped_ms = in_log.max(in_tables(&manifest)).max(compactions.as_ref().map_or(0, in_compactions));
    Ok(Survey { epoch: manifest.writer_epoch(), stamped_ms, replay_after, notes })
}

/// The latest of the numbered files with the database's state, or which of them can't be read.
async fn decoded<T>(
    objects: &Arc<dyn ObjectStore>,
    folder: &str,
    read: impl Future<Output = Result<Option<T>, slatedb::Error>>,
) -> Result<Option<T>, SurveyError> {
    let why = match content(read, "it is no such file").await? {
        Ok(found) => return Ok(found),
        Err(why) => why,
    };
    let folder = Path::from(PATH).join(folder);
    let all: Vec<ObjectMeta> = objects.list(Some(&folder)).try_collect().await?;
    let newest = all.into_iter().max_by(|one, other| one.location.cmp(&other.location));
    let newest = newest.ok_or_else(|| object_store::Error::NotFound {
        path: folder.to_string(),
        source: "it was there a moment ago".into(),
    })?;
    let what = if newest.size == 0 { "is empty".to_owned() } else { format!("can't be read: {why}") };
    let remedy = "restore it from a copy, or delete it: then the previous one is used, if everything that it names still exists";
    Err(Damage::new(newest.location, what, remedy).into())
}

/// What was read, or else why the content is invalid. SlateDB's readers panic on some of it.
async fn content<T>(
    read: impl Future<Output = Result<T, slatedb::Error>>,
    otherwise: &str,
) -> Result<Result<T, String>, slatedb::Error> {
    match AssertUnwindSafe(read).catch_unwind().await {
        Ok(Ok(found)) => Ok(Ok(found)),
        Ok(Err(error)) if is_of_content(&error) => Ok(Err(error.to_string())),
        Ok(Err(error)) => Err(error),
        Err(_) => Ok(Err(otherwise.to_owned())),
    }
}

/// Whether an error means that the content is invalid, and not that it could not be read.
fn is_of_content(error: &slatedb::Error) -> bool {
    let is_of_store = store_errors(error).next().is_some();
    !is_of_store && matches!(error.kind(), ErrorKind::Data | ErrorKind::Internal | ErrorKind::Invalid)
}

/// The files of the log after the point of replay, without a hole.
async fn whole_log(
    objects: &Arc<dyn ObjectStore>,
    admin: &Admin,
    manifest: &VersionedManifest,
) -> Result<BTreeMap<u64, ObjectMeta>, SurveyError> {
    let after = manifest.replay_after_wal_id();
    let mut log = log_after(objects, after).await?;
    let Some((&last, _)) = log.last_key_value() else { return Ok(log) };
    for number in after + 1..last {
        if log.contains_key(&number) {
            continue;
        }
        if let Some(file) = find(objects, &log_file(number)).await? {
            log.insert(number, file);
            continue;
        }
        still_latest(admin, manifest).await?;
        if !notes::is_lost(objects, number).await? {
            let what = format!("is gone, though the log goes on up to number {last}");
            return Err(Damage::of_log(number, what).into());
        }
        // SlateDB would take the hole for the end.
        objects.put(&log_file(number), Vec::new().into()).await?;
        log.insert(number, objects.head(&log_file(number)).await?);
    }
    Ok(log)
}

/// Fails if there is a newer manifest by now: a running owner flushes its log and collects it.
async fn still_latest(admin: &Admin, manifest: &VersionedManifest) -> Result<(), SurveyError> {
    let latest = admin.read_manifest(None).await?;
    if latest.is_some_and(|latest| latest.id() == manifest.id()) {
        return Ok(());
    }
    Err(busy("another process writes to the database"))
}

/// The error for a store that changes during the survey.
fn busy(why: &str) -> SurveyError {
    object_store::Error::Generic { store: "survey", source: why.into() }.into()
}

/// Checks that each table that the manifest names exists and is long enough for its parts.
async fn whole_tables(
    objects: &Arc<dyn ObjectStore>,
    admin: &Admin,
    manifest: &VersionedManifest,
) -> Result<(), SurveyError> {
    let folder = Path::from(PATH).join("compacted");
    let mut wanted = BTreeMap::new();
    for view in manifest.all_sst_views() {
        let info = &view.sst.info;
        let parts = [
            (info.index_offset, info.index_len),
            (info.filter_offset, info.filter_len),
            (info.stats_offset, info.stats_len),
        ];
        let least = parts.iter().map(|(offset, length)| offset.saturating_add(*length)).max();
        wanted.insert(folder.clone().join(format!("{}.sst", view.sst.id.value())), least.unwrap_or_default());
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let mut listed = objects.list(Some(&folder));
    let mut sizes = BTreeMap::new();
    while let Some(file) = listed.try_next().await? {
        sizes.insert(file.location, file.size);
    }
    for (file, least) in wanted {
        let size = match sizes.get(&file) {
            Some(size) => Some(*size),
            None => find(objects, &file).await?.map(|found| found.size),
        };
        let Some(size) = size else {
            still_latest(admin, manifest).await?;
            return Err(Damage::of_table(file, "is gone").into());
        };
        if size < least {
            let what = format!("has {size} bytes where at least {least} were written");
            return Err(Damage::of_table(file, what).into());
        }
    }
    Ok(())
}

/// Checks that the log goes as far as was noted.
async fn check_ends(
    objects: &Arc<dyn ObjectStore>,
    log: &BTreeMap<u64, ObjectMeta>,
    notes: &Notes,
    manifest: &VersionedManifest,
) -> Result<(), SurveyError> {
    let end = log.last_key_value().map_or(manifest.replay_after_wal_id(), |(last, _)| *last);
    let noted = notes.last();
    if noted <= end {
        return Ok(());
    }
    if find(objects, &log_file(end + 1)).await?.is_some() {
        // It was created since.
        return Err(busy("another process writes to the log"));
    }
    for number in end + 1..=noted {
        if !notes::is_lost(objects, number).await? {
            let what = format!("is gone, though the log went on up to number {noted}");
            return Err(Damage::of_log(number, what).into());
        }
    }
    Ok(())
}

/// Checks that each empty file of the log is a fence: one that was noted, or may be one of an opening without a note.
async fn check_fences(
    objects: &Arc<dyn ObjectStore>,
    log: &BTreeMap<u64, ObjectMeta>,
    mut notes: Notes,
    manifest: &VersionedManifest,
) -> Result<Notes, SurveyError> {
    for number in log.iter().filter(|(_, file)| file.size == 0).map(|(number, _)| *number) {
        if notes.explain(number, manifest.writer_epoch()) || notes::is_lost(objects, number).await? {
            continue;
        }
        // A note is overwritten each minute, and a listing of a folder may miss it at that time.
        notes.read_around(objects, number, manifest.writer_epoch()).await?;
        if !notes.explain(number, manifest.writer_epoch()) {
            return Err(Damage::of_log(number, "is empty, and no owner has begun there").into());
        }
    }
    Ok(notes)
}

/// Reads the log after the point of replay, when the database could not be opened. Returns the damaged file.
pub(crate) async fn find_damage(objects: &Arc<dyn ObjectStore>, after: u64) -> Option<Damage> {
    for (number, file) in log_after(objects, after).await.ok()? {
        if file.size == 0 {
            continue;
        }
        if let Err(SurveyError::Damage(damage)) = last_row_ms(objects, number).await {
            return Some(damage);
        }
    }
    None
}

/// The files of the log after a number.
async fn log_after(
    objects: &Arc<dyn ObjectStore>,
    after: u64,
) -> Result<BTreeMap<u64, ObjectMeta>, object_store::Error> {
    let (folder, offset) = (log_folder(), log_file(after));
    let mut found = BTreeMap::new();
    let mut listed = objects.list_with_offset(Some(&folder), &offset);
    while let Some(file) = listed.try_next().await? {
        if let Some(number) = log_number(&file.location).filter(|number| *number > after) {
            found.insert(number, file);
        }
    }
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

/// The timestamp of the last row in a file of the log. Files and the rows in them are in the order of their timestamps.
async fn last_row_ms(objects: &Arc<dyn ObjectStore>, number: u64) -> Result<i64, SurveyError> {
    let read = async {
        let mut rows = WalReader::new(PATH, Arc::clone(objects)).get(number).iterator().await?;
        let mut last = 0;
        while let Some(row) = rows.next().await? {
            last = last.max(row.create_ts.unwrap_or_default());
        }
        Ok(last)
    };
    let last = content(read, "it is no file of the log").await?;
    last.map_err(|why| Damage::of_log(number, format!("can't be read: {why}")).into())
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
