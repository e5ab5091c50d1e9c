//! A folder with a Tantivy index, whose files are memory mapped.
//!
//! It adds to Tantivy's own directory what a cache of a store needs. The length and checksum of each file are noted as it
//! is written, so it is uploaded without being read twice. Nothing is synced to the disk: after an unclean end, files are
//! checked and fetched again. And it can be closed: a merge may still run after its writer was dropped, and must not
//! write into a folder that another writer uses.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use plugin::shard::Moment;
use tantivy::Directory;
use tantivy::directory::error::{DeleteError, LockError, OpenDirectoryError, OpenReadError, OpenWriteError};
use tantivy::directory::{
    AntiCallToken, DirectoryLock, FileHandle, Lock, MmapDirectory, TerminatingWrite, WatchCallback,
    WatchHandle, WritePtr,
};

use super::manifest::Content;

/// Tantivy's file that names the segments.
pub(crate) const META: &str = "meta.json";
/// The extension of a file that is not whole yet.
const PART: &str = "part";

/// The names of files that make the disk full, or very slow.
#[cfg(test)]
pub(crate) const FULL: &str = "full";
#[cfg(test)]
pub(crate) const SLOW: &str = "slow";

/// A folder with an index. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct LocalDirectory {
    inner: MmapDirectory,
    path: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Held while something is written.
    is_closed: RwLock<bool>,
    /// The whole files.
    files: Mutex<BTreeMap<String, Content>>,
    /// How often `meta.json` was written.
    metas: AtomicU64,
    last_write: Mutex<Moment>,
    /// Whether a write has failed because the disk is full: Tantivy does not pass on why its threads have ended.
    was_full: AtomicBool,
}

impl LocalDirectory {
    /// A folder with these files, which were checked.
    pub(crate) fn open(path: &Path, files: BTreeMap<String, Content>) -> Result<Self, OpenDirectoryError> {
        let shared = Shared {
            is_closed: RwLock::new(false),
            files: Mutex::new(files),
            metas: AtomicU64::new(0),
            last_write: Mutex::new(Moment::now()),
            was_full: AtomicBool::new(false),
        };
        Ok(Self { inner: MmapDirectory::open(path)?, path: path.to_owned(), shared: Arc::new(shared) })
    }

    /// Fails all writes from now on; waits for one in progress.
    pub(crate) fn close(&self) {
        *self.shared.is_closed.write().unwrap_or_else(PoisonError::into_inner) = true;
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The length and checksum of a file, if it is whole.
    pub(crate) fn content(&self, name: &str) -> Option<Content> {
        lock(&self.shared.files).get(name).copied()
    }

    /// All whole files.
    pub(crate) fn files(&self) -> BTreeMap<String, Content> {
        lock(&self.shared.files).clone()
    }

    /// How many bytes its whole files have.
    pub(crate) fn bytes(&self) -> u64 {
        lock(&self.shared.files).values().map(|content| content.len).sum()
    }

    /// How often its state has changed.
    pub(crate) fn metas(&self) -> u64 {
        self.shared.metas.load(Ordering::SeqCst)
    }

    /// When something was last written, by a commit or a merge.
    pub(crate) fn last_write(&self) -> Moment {
        *lock(&self.shared.last_write)
    }

    /// Does something that writes, unless it is closed.
    fn write<T>(&self, write: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let is_closed = self.shared.is_closed.read().unwrap_or_else(PoisonError::into_inner);
        if *is_closed {
            return Err(io::Error::other("the folder is closed"));
        }
        *lock(&self.shared.last_write) = Moment::now();
        #[cfg(test)]
        let write = || self.faulty(write);
        write().inspect_err(|error| {
            if error.kind() == io::ErrorKind::StorageFull {
                self.shared.was_full.store(true, Ordering::SeqCst);
            }
        })
    }

    /// Writes to a disk with the faults that tests want: a file of this name beside the folder sets one.
    #[cfg(test)]
    #[expect(clippy::disallowed_methods, reason = "a slow disk blocks its thread")]
    fn faulty<T>(&self, write: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let has = |fault| self.path.with_file_name(fault).exists();
        if has(FULL) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if has(SLOW) {
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
        write()
    }

    /// Whether a write has failed since the last call because the disk is full.
    pub(crate) fn was_full(&self) -> bool {
        self.shared.was_full.swap(false, Ordering::SeqCst)
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file that is being written.
struct LocalFile {
    file: File,
    name: String,
    directory: LocalDirectory,
    checksum: crc32fast::Hasher,
    len: u64,
}

impl Write for LocalFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let file = &mut self.file;
        let written = self.directory.write(|| file.write(bytes))?;
        self.checksum.update(&bytes[..written]);
        self.len += u64::try_from(written).unwrap_or(u64::MAX);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TerminatingWrite for LocalFile {
    fn terminate_ref(&mut self, _: AntiCallToken) -> io::Result<()> {
        let content = Content { len: self.len, crc: self.checksum.clone().finalize() };
        lock(&self.directory.shared.files).insert(self.name.clone(), content);
        Ok(())
    }
}

impl Directory for LocalDirectory {
    fn get_file_handle(&self, path: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        self.inner.get_file_handle(path)
    }

    fn delete(&self, path: &Path) -> Result<(), DeleteError> {
        let error = |error| DeleteError::IoError { io_error: Arc::new(error), filepath: path.to_path_buf() };
        self.write(|| {
            lock(&self.shared.files).remove(&*path.to_string_lossy());
            Ok(self.inner.delete(path))
        })
        .map_err(error)?
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenReadError> {
        self.inner.exists(path)
    }

    /// Replaces a file of that name, which a writer that was dropped may have left. Those that have it open keep its
    /// content.
    fn open_write(&self, path: &Path) -> Result<WritePtr, OpenWriteError> {
        let name = path.to_string_lossy().into_owned();
        let create = || {
            lock(&self.shared.files).remove(&name);
            let full = self.path.join(path);
            match fs::remove_file(&full) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            File::create_new(full)
        };
        let file =
            self.write(create).map_err(|error| OpenWriteError::wrap_io_error(error, path.to_path_buf()))?;
        let checksum = crc32fast::Hasher::new();
        let file = LocalFile { file, name, directory: self.clone(), checksum, len: 0 };
        Ok(WritePtr::new(Box::new(file)))
    }

    fn atomic_read(&self, path: &Path) -> Result<Vec<u8>, OpenReadError> {
        self.inner.atomic_read(path)
    }

    fn atomic_write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.write(|| replace(&self.path.join(path), content))?;
        if path == Path::new(META) {
            self.shared.metas.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn acquire_lock(&self, lock: &Lock) -> Result<DirectoryLock, LockError> {
        self.inner.acquire_lock(lock)
    }

    fn watch(&self, callback: WatchCallback) -> tantivy::Result<WatchHandle> {
        self.inner.watch(callback)
    }
}

/// Writes a file so that it is whole or absent, as long as the machine runs.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let part = part_of(path);
    fs::write(&part, content)?;
    fs::rename(part, path)
}

/// Where a file is written until it is whole.
pub(crate) fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(PART);
    name.into()
}
