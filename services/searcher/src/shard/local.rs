//! The local folder of a shard: a cache of what the manifest names.
//!
//! A file counts only if the manifest names its length and checksum. Lengths are verified at each opening. Checksums are
//! verified after an unclean end, as nothing is synced to the disk: a machine that loses its power may leave files of the
//! right length and another content. The folder was closed cleanly if a mark says so that was made since the machine
//! started. Files of deleted documents are named by Tantivy's own numbers, which another owner counts anew, so their
//! checksums are always verified.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use store::ObjectStore;
use tantivy::directory::error::OpenDirectoryError;
use uuid::Uuid;

use super::directory::{LocalDirectory, META, replace};
use super::manifest::{Content, Manifest, StoredIndex};
use super::pack::{PackError, WantedFile, fetch};
use super::suspicion::content_of;

/// Says that the folder was closed cleanly.
const CLEAN: &str = "clean";
/// Locked while a process uses the folder.
const LOCK: &str = "lock";
/// Tantivy's list of the files that it may remove.
const MANAGED: &str = ".managed.json";

/// The local folder of a shard, locked.
#[derive(Debug)]
pub(crate) struct ShardFolder {
    path: PathBuf,
    was_clean: bool,
    _lock: File,
}

/// What to do with the files of an index.
#[derive(Debug, PartialEq, Eq, Default)]
struct Plan {
    fetch: BTreeSet<String>,
    remove: BTreeSet<String>,
}

impl ShardFolder {
    /// Locks the folder, and removes its mark.
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        let lock = File::create(path.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let why = format!("another process uses the folder `{}`", path.display());
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, why));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let mark = fs::read(path.join(CLEAN)).ok();
        let was_clean = mark.is_some_and(|mark| boot_id().is_some_and(|boot| boot == mark));
        match fs::remove_file(path.join(CLEAN)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        Ok(Self { path, was_clean, _lock: lock })
    }

    /// The folder of an index.
    pub(crate) fn of_index(&self, index: Uuid) -> PathBuf {
        self.path.join(index.to_string())
    }

    /// The folder of an index, with these files, which were checked.
    pub(crate) fn directory(
        &self,
        index: Uuid,
        files: BTreeMap<String, Content>,
    ) -> Result<LocalDirectory, OpenDirectoryError> {
        LocalDirectory::open(&self.of_index(index), files)
    }

    #[cfg(test)]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether checksums were not verified, except those of deleted documents.
    pub(crate) fn was_clean(&self) -> bool {
        self.was_clean
    }

    /// Marks that all files are as they were written.
    pub(crate) fn mark_clean(&self) -> io::Result<()> {
        boot_id().map_or(Ok(()), |boot| replace(&self.path.join(CLEAN), &boot))
    }

    /// Makes the folder what the manifest names, and nothing else. Files that are the same in `known`, a manifest for which
    /// this was done before, are not verified again.
    pub(crate) async fn sync(
        &self,
        objects: &Arc<dyn ObjectStore>,
        manifest: &Manifest,
        known: Option<&Manifest>,
    ) -> Result<(), PackError> {
        if let Some(name) = manifest.bad_name() {
            let error = io::Error::new(io::ErrorKind::InvalidData, "the manifest names such a file");
            return Err(PackError::Local { path: name.into(), error });
        }
        self.remove_others(manifest).map_err(|error| PackError::Local { path: self.path.clone(), error })?;
        let mut wanted = Vec::new();
        for (uuid, index) in &manifest.indexes {
            let before = known.and_then(|known| known.indexes.get(uuid));
            if before == Some(index) {
                continue;
            }
            let (path, index, before) = (self.of_index(*uuid), index.clone(), before.cloned());
            let is_clean = self.was_clean;
            let plan = async move {
                tokio::task::spawn_blocking(move || prepare(&path, &index, before.as_ref(), is_clean)).await
            };
            let planned = plan.await.unwrap_or_else(|error| Err(io::Error::other(error)));
            let plan = planned.map_err(|error| PackError::Local { path: self.of_index(*uuid), error })?;
            wanted.extend(plan.fetch.iter().map(|name| WantedFile {
                stored: manifest.indexes[uuid].files[name],
                path: self.of_index(*uuid).join(name),
            }));
        }
        fetch(objects, wanted).await?;
        for (uuid, index) in &manifest.indexes {
            if known.is_none_or(|known| known.indexes.get(uuid) != Some(index)) {
                let path = self.of_index(*uuid);
                write_meta(&path, index).map_err(|error| PackError::Local { path, error })?;
            }
        }
        Ok(())
    }

    fn remove_others(&self, manifest: &Manifest) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_known =
                name == LOCK || name.parse().is_ok_and(|uuid| manifest.indexes.contains_key(&uuid));
            if is_known {
                continue;
            }
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// Creates the folder of an index and removes what does not belong into it. Returns what to fetch.
fn prepare(
    path: &Path,
    index: &StoredIndex,
    before: Option<&StoredIndex>,
    is_clean: bool,
) -> io::Result<Plan> {
    fs::create_dir_all(path)?;
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // A folder in it is not ours, and is in the way if it has the name of a file.
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            found.insert(name, entry.metadata()?.len());
        }
    }
    let is_verified = |name: &str, content: Content| -> io::Result<bool> {
        let is_known =
            before.is_some_and(|before| before.files.get(name).is_some_and(|file| file.content() == content));
        let is_trusted = is_known || before.is_none() && is_clean && !is_of_deletes(name);
        Ok(is_trusted || content_of(&path.join(name))? == content)
    };
    let plan = plan(index, &found, is_verified)?;
    for name in &plan.remove {
        fs::remove_file(path.join(name))?;
    }
    Ok(plan)
}

fn plan(
    index: &StoredIndex,
    found: &BTreeMap<String, u64>,
    mut is_verified: impl FnMut(&str, Content) -> io::Result<bool>,
) -> io::Result<Plan> {
    let mut plan = Plan::default();
    for (name, file) in &index.files {
        let is_there = found.get(name) == Some(&file.len) && is_verified(name, file.content())?;
        if !is_there {
            plan.fetch.insert(name.clone());
        }
    }
    for name in found.keys() {
        if !index.files.contains_key(name) || plan.fetch.contains(name) {
            plan.remove.insert(name.clone());
        }
    }
    Ok(plan)
}

/// Whether a file says which documents of a segment are deleted.
fn is_of_deletes(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "del")
}

/// Writes Tantivy's own files, which make the others an index.
fn write_meta(path: &Path, index: &StoredIndex) -> io::Result<()> {
    let managed: Vec<&str> = index.files.keys().map(String::as_str).chain([META]).collect();
    replace(&path.join(MANAGED), &serde_json::to_vec(&managed)?)?;
    replace(&path.join(META), &serde_json::to_vec(&index.meta)?)
}

/// Identifies the time since the machine was started, during which files that were written are as they were written.
fn boot_id() -> Option<Vec<u8>> {
    fs::read("/proc/sys/kernel/random/boot_id").ok()
}

#[cfg(test)]
mod tests;
